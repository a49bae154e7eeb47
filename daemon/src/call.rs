//! One call of one tool: the nine stages, each made from what the last one gave.
//!
//! ```text
//! PeerEvidence -> Principal -> VisibleTool -> Route -> Permit -> Lease -> ModuleCall -> ToolResult
//! ```
//!
//! Owns the order. Promises: nothing reaches a service without an intent in the audit log; unknown and hidden tools
//! take the same way and give the same answer; whatever happens after the permit, an outcome is recorded while the log is open. Does not
//! decide anything itself: each stage is a function of the crate that owns it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::catalogue::Tool;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Event, Outcome};
use mcpist_core::ids::CallId;
use mcpist_core::permit::Permit;
use mcpist_core::principal::Principal;
use mcpist_core::result::{ToolError, ToolResult};
use mcpist_core::route::{Route, RouteError};
use mcpist_mcp::{CallAnswer, ToolCall};
use mcpist_wire::{Answer, ModuleCall};
use tokio_util::sync::CancellationToken;

use crate::gateway::entry;
use crate::house::House;
use crate::intent::Intents;
use crate::listen::Peer;
use crate::live::Live;

/// Runs a call for `peer` and says what became of it.
pub(crate) async fn call(house: &House, peer: &Peer, asked: ToolCall) -> CallAnswer {
    let Some((live, entered)) = house.enter() else {
        return ToolError::of(ErrorCode::Sealed).into();
    };

    // 1 listen, 2 identify
    let Some(principal) = live.identities.identify(peer.evidence()) else {
        return ToolError::of(ErrorCode::Unidentified).into();
    };
    // 3 mask
    let Some(visible) = live
        .mask
        .visible(&principal, &asked.module, &asked.tool_name)
    else {
        return denied(house, &principal, &asked);
    };
    // 4 route
    let read = asked
        .schema_ref
        .or_else(|| house.shown.held_to(principal.name(), visible.tool()));
    let route = match Route::choose(visible, read.as_ref(), live.mask.catalogue()) {
        Ok(route) => route,
        Err(RouteError::SchemaChanged { current }) => {
            house.shown.note(principal.name(), current.rev());
            return CallAnswer::schema_changed(&entry(&current));
        }
        Err(RouteError::NoSide(_)) => return ToolError::of(ErrorCode::NotLoaded).into(),
    };
    // 5 arguments
    let arguments = match Arguments::parse(asked.arguments.into_bytes(), &route) {
        Ok(arguments) => arguments,
        Err(e) => return ToolError::with(e.code(), &e.to_string()).into(),
    };
    // 6 permit: the intent is written before it exists
    let id = house.next_call();
    let permit =
        match Permit::issue(route, arguments, id, &Intents::new(&house.audit, &live.mac)).await {
            Ok(permit) => permit,
            Err(e) => return ToolError::of(e.code).into(),
        };
    let (started, intent) = (Instant::now(), permit.intent());
    let tool = Arc::clone(permit.tool());
    // 7 lease, 8 run
    let answer = tokio::select! {
        biased;
        () = entered.sealed() => Err(ToolError::of(ErrorCode::Sealed)),
        answer = run(house, &live, permit, started, &asked.cancel) => answer,
    };
    // 9 outcome
    if let Err(e) = &answer
        && e.code() == ErrorCode::CredentialSuspect
    {
        alert(house, &live, id, &tool);
    }
    finish(house, id, intent, started, answer)
}

/// Stages 7 and 8: the credential is opened for this permit, and the runner runs the module.
async fn run(
    house: &House,
    live: &Live,
    permit: Permit,
    started: Instant,
    cancel: &CancellationToken,
) -> Result<Redacted, ToolError> {
    let limits = permit.tool().limits();
    let deadline = Duration::from_millis(limits.deadline_ms);
    let leases = live.broker.lease(&permit, crate::clock::unix_seconds())?;
    #[cfg(feature = "test-leak")]
    crate::leak::leak(house, &leases);
    let left = deadline.saturating_sub(started.elapsed());
    let module_call = ModuleCall::new(permit, leases, left)
        .map_err(|e| ToolError::with(ErrorCode::Internal, &e.to_string()))?;
    let answer = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(ToolError::of(ErrorCode::Cancelled)),
        answer = tokio::time::timeout(left + GRACE, house.runners.call(module_call)) => {
            let answer = answer.map_err(|_| ToolError::of(ErrorCode::DeadlineExceeded))?;
            answer.map_err(|e| redact_error(live, &e.into()))?
        }
    };
    redact(live, answer)
}

/// A result on its way to the client, after the second redaction.
struct Redacted {
    result: ToolResult,
    hits: u32,
}

/// The runner keeps the deadline itself; this is for one that does not.
const GRACE: Duration = Duration::from_secs(1);

/// An error's text may hold a field of the service's own error.
fn redact_error(live: &Live, error: &ToolError) -> ToolError {
    let text = live.redactor.redact(error.message().as_bytes().to_vec());
    let hits = error.hits().saturating_add(text.hits);
    ToolError::with(error.code(), &String::from_utf8_lossy(&text.bytes)).with_hits(hits)
}

fn redact(live: &Live, mut answer: Answer) -> Result<Redacted, ToolError> {
    let content = live.redactor.redact(answer.content);
    answer.content = content.bytes;
    let mut hits = answer.hits.saturating_add(content.hits);
    if let Some(structured) = answer.structured.take() {
        let structured = live.redactor.redact(structured);
        hits = hits.saturating_add(structured.hits);
        answer.structured = Some(structured.bytes);
    }
    Ok(Redacted {
        result: answer.into_result()?,
        hits,
    })
}

/// A service refused a credential: the binding is named, for whoever looks after it.
fn alert(house: &House, live: &Live, call: CallId, tool: &Tool) {
    let slot = &tool.manifest().http.slot;
    let bound = tool.slots().iter().find(|(name, _)| name == slot);
    let Some(bound) = bound.and_then(|(_, binding)| live.broker.binding(binding)) else {
        return;
    };
    let (binding, version) = (&bound.binding.name, bound.version);
    log::warn!("credential_suspect: a service refused what binding {binding} injects");
    let event = Event::CredentialSuspect {
        call,
        binding,
        version,
    };
    if let Err(e) = house.audit.append(&event) {
        log::error!(
            "audit_lost: credential_suspect of call {} not recorded: {e}",
            call.0
        );
    }
}

/// Stage 9: the outcome is recorded, then the answer goes back.
fn finish(
    house: &House,
    call: CallId,
    intent: Seq,
    started: Instant,
    answer: Result<Redacted, ToolError>,
) -> CallAnswer {
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let outcome = match &answer {
        Ok(Redacted { result, hits }) => Outcome {
            error: None,
            is_error: result.is_error,
            truncated: result.truncated,
            bytes: result.content.len() as u64,
            hits: *hits,
            micros,
        },
        Err(e) => Outcome {
            error: Some(e.code()),
            is_error: true,
            truncated: false,
            bytes: 0,
            hits: e.hits(),
            micros,
        },
    };
    let recorded = house.audit.append(&Event::CallOutcome {
        call,
        intent: intent.0,
        outcome,
    });
    if let Err(e) = &recorded {
        log::error!("audit_lost: outcome of call {} not recorded: {e}", call.0);
    }
    match (answer, recorded) {
        (Ok(Redacted { result, .. }), recorded) => CallAnswer::Done {
            result,
            audit_lost: recorded.is_err(),
        },
        (Err(e), _) => e.into(),
    }
}

/// Unknown or hidden: recorded, and answered in one way.
fn denied(house: &House, principal: &Principal, asked: &ToolCall) -> CallAnswer {
    let event = Event::CallDenied {
        principal: principal.name(),
        module: &asked.module,
        tool: &asked.tool_name,
        code: ErrorCode::UnknownTool,
    };
    match house.audit.append(&event) {
        Ok(_) => ToolError::of(ErrorCode::UnknownTool).into(),
        Err(_) => ToolError::of(ErrorCode::AuditUnavailable).into(),
    }
}
