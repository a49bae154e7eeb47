//! One call of one tool: the nine stages, each made from what the last one gave.
//!
//! ```text
//! PeerEvidence -> Principal -> VisibleTool -> Route -> Permit -> Lease -> ModuleCall -> ToolResult
//! ```
//!
//! Owns the order. Promises: nothing reaches a service without an intent in the audit log; unknown and hidden tools
//! take the same way and give the same answer; whatever happens after the intent, an outcome is recorded while the log
//! takes lines, and a call whose outcome is not is counted; what was taken away before its credential is opened keeps it
//! closed, however long the intent took; no stage outlasts the deadline, a cancellation or a seal.
//! Does not decide anything itself: each stage is a function of the crate that owns it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_broker::LeaseError;
use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::catalogue::Tool;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Event, Outcome};
use mcpist_core::ids::{CallId, ModuleRev, SchemaRef};
use mcpist_core::permit::{IntentError, Permit};
use mcpist_core::principal::Principal;
use mcpist_core::result::{ToolError, ToolResult};
use mcpist_core::route::{Route, RouteError};
use mcpist_mcp::{CallAnswer, ToolCall};
use mcpist_wire::{Answer, ModuleCall};
use tokio_util::sync::CancellationToken;

use crate::audit::Asker;
use crate::gateway::entry;
use crate::house::House;
use crate::inflight::Entered;
use crate::intent::Intents;
use crate::listen::Peer;
use crate::live::Live;

/// Runs a call for `peer` and says what became of it.
pub(crate) async fn call(house: &House, peer: &Peer, asked: ToolCall) -> CallAnswer {
    let Some((mut live, entered)) = house.enter() else {
        return ToolError::of(ErrorCode::Sealed).into();
    };

    let ToolCall {
        module,
        tool_name,
        arguments,
        schema_ref,
        cancel,
    } = asked;
    let named = Named {
        module: &module,
        tool: &tool_name,
        schema_ref: schema_ref.as_ref(),
    };
    // 1 listen, 2 identify, 3 mask, 4 route
    let route = match choose(house, &live, peer, named) {
        Ok(route) => route,
        Err(e) => return no_route(house, named, e),
    };
    if house.leaks.is_stopped(route.tool().rev()) {
        return ToolError::of(ErrorCode::ModuleQuarantined).into();
    }
    // 5 arguments
    let arguments = match Arguments::parse(arguments.into_bytes(), &route) {
        Ok(arguments) => arguments,
        Err(e) => return ToolError::with(e.code(), &e.to_string()).into(),
    };
    // 6 permit: the intent is written before it exists
    let (id, started) = (house.next_call(), Instant::now());
    let tool = Arc::clone(route.tool());
    let intents = Intents::new(&house.audit, &live.mac);
    let issuing = Permit::issue(route, arguments, id, &intents);
    let permit = match issued(issuing, deadline(&tool), &entered, &cancel).await {
        Ok(permit) => permit,
        Err(code) => return not_made(house, id, intents.written(), started, code),
    };
    let intent = permit.intent();
    // 7 lease, 8 run
    let answer = tokio::select! {
        biased;
        () = entered.sealed() => Err(ToolError::of(ErrorCode::Sealed)),
        answer = run(house, peer, &mut live, permit, started, &cancel) => answer,
    };
    // 9 outcome
    let redacted = redact(&live, answer);
    report(house, &live, id, &tool, &redacted);
    finish(house, id, intent, started, redacted)
}

/// What a call names.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) module: &'a str,
    pub(crate) tool: &'a str,
    /// The edition that its caller has read.
    pub(crate) schema_ref: Option<&'a SchemaRef>,
}

/// Why a call has no route.
#[derive(Debug)]
pub(crate) enum NoRoute {
    Unidentified,
    /// Unknown or hidden.
    Denied(Principal),
    /// Another edition is active than the caller has read.
    Changed(Principal, Arc<Tool>),
    NoSide,
}

impl NoRoute {
    fn code(&self) -> ErrorCode {
        match self {
            NoRoute::Unidentified => ErrorCode::Unidentified,
            NoRoute::Denied(_) => ErrorCode::UnknownTool,
            NoRoute::Changed(..) => ErrorCode::SchemaChanged,
            NoRoute::NoSide => ErrorCode::NotLoaded,
        }
    }
}

/// Stages 1 to 4, as one snapshot has it.
pub(crate) fn choose(
    house: &House,
    live: &Live,
    peer: &Peer,
    named: Named<'_>,
) -> Result<Route, NoRoute> {
    // 1 listen, 2 identify
    let principal = live.identities.identify(peer.evidence());
    let principal = principal.ok_or(NoRoute::Unidentified)?;
    // 3 mask
    let mask = live.mask_for(&principal, (named.module, named.tool), |tool| {
        house
            .shown
            .has_read(principal.name(), tool, named.schema_ref)
    });
    let Some(visible) = mask.visible(&principal, named.module, named.tool) else {
        return Err(NoRoute::Denied(principal));
    };
    // 4 route
    let read = named.schema_ref.copied();
    let read = read.or_else(|| house.shown.held_to(principal.name(), visible.tool()));
    Route::choose(visible, read.as_ref(), mask.catalogue()).map_err(|e| match e {
        RouteError::SchemaChanged { current } => NoRoute::Changed(principal, current),
        RouteError::NoSide(_) => NoRoute::NoSide,
    })
}

fn no_route(house: &House, named: Named<'_>, e: NoRoute) -> CallAnswer {
    match e {
        NoRoute::Denied(principal) => denied(house, &principal, named),
        NoRoute::Changed(principal, current) => {
            house.shown.note(principal.name(), &current);
            CallAnswer::schema_changed(&entry(&current))
        }
        e => ToolError::of(e.code()).into(),
    }
}

/// The snapshot of now, if all that `permit` was given for holds there as well: stage 6 may have waited for a disk, and
/// what an officer took away meanwhile is gone. Changes of anything else are no matter.
fn confirm(
    house: &House,
    peer: &Peer,
    live: &Arc<Live>,
    permit: &Permit,
) -> Result<Arc<Live>, ErrorCode> {
    let now = house.live().ok_or(ErrorCode::Sealed)?;
    if Arc::ptr_eq(&now, live) {
        return Ok(now);
    }
    let tool = permit.tool();
    // The very edition, which may have begun to drain.
    let edition = tool.schema_ref();
    let named = Named {
        module: tool.module().as_str(),
        tool: tool.name().as_str(),
        schema_ref: Some(&edition),
    };
    let route = choose(house, &now, peer, named).map_err(|e| e.code())?;
    if route.principal().name() != permit.principal().name() {
        return Err(ErrorCode::Unidentified);
    }
    if route.tool().slots() != permit.slots() {
        return Err(ErrorCode::NotJoined);
    }
    Ok(now)
}

fn deadline(tool: &Tool) -> Duration {
    Duration::from_millis(tool.limits().deadline_ms)
}

/// Stage 6, which waits for a disk where the tool writes: for as long as the call may take, is wanted, and the store is
/// open.
async fn issued<P>(
    issuing: impl Future<Output = Result<P, IntentError>>,
    deadline: Duration,
    entered: &Entered<'_>,
    cancel: &CancellationToken,
) -> Result<P, ErrorCode> {
    tokio::select! {
        // First, since for a tool that reads it is ready at once.
        biased;
        issued = tokio::time::timeout(deadline, issuing) => match issued {
            Ok(issued) => issued.map_err(|e| e.code),
            Err(_) => Err(ErrorCode::DeadlineExceeded),
        },
        () = entered.sealed() => Err(ErrorCode::Sealed),
        () = cancel.cancelled() => Err(ErrorCode::Cancelled),
    }
}

/// Stages 7 and 8: the credential is opened for this permit, and the runner runs the module. `live` becomes the snapshot
/// that the lease is of. Nothing is waited for between its confirmation and the runner's queue.
pub(crate) async fn run(
    house: &House,
    peer: &Peer,
    live: &mut Arc<Live>,
    permit: Permit,
    started: Instant,
    cancel: &CancellationToken,
) -> Result<Answer, ToolError> {
    let deadline = deadline(permit.tool());
    let leases = leased(|| {
        *live = confirm(house, peer, live, &permit)?;
        Ok(live.broker.lease(&permit, crate::clock::unix_seconds()))
    })?;
    #[cfg(feature = "test-leak")]
    crate::leak::leak(house, &leases);
    let left = deadline.saturating_sub(started.elapsed());
    let module_call = ModuleCall::new(permit, leases, left)
        .map_err(|e| ToolError::with(ErrorCode::Internal, &e.to_string()))?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ToolError::of(ErrorCode::Cancelled)),
        answer = tokio::time::timeout(left + GRACE, house.runners.call(module_call)) => {
            let answer = answer.map_err(|_| ToolError::of(ErrorCode::DeadlineExceeded))?;
            answer.map_err(Into::into)
        }
    }
}

/// Stage 7, and once more where the snapshot was replaced between its confirmation and the opening: the vault has new
/// keys, and the next snapshot has its credentials under them.
fn leased<L>(
    mut attempt: impl FnMut() -> Result<Result<L, LeaseError>, ErrorCode>,
) -> Result<L, ToolError> {
    let mut leased = attempt().map_err(ToolError::of)?;
    if leased.as_ref().is_err_and(LeaseError::is_outdated) {
        leased = attempt().map_err(ToolError::of)?;
    }
    Ok(leased?)
}

/// The runner keeps the deadline itself; this is for one that does not.
const GRACE: Duration = Duration::from_secs(1);

/// An answer on its way to the client, after the second redaction.
struct Redacted {
    answer: Result<ToolResult, ToolError>,
    hits: Hits,
}

/// Secrets that were taken out, by who found them.
struct Hits {
    runner: u32,
    daemon: u32,
}

fn redact(live: &Live, answer: Result<Answer, ToolError>) -> Redacted {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            // Its text may hold a field of the service's own error.
            let text = live.redactor.redact(error.message().as_bytes().to_vec());
            let message = String::from_utf8_lossy(&text.bytes);
            return Redacted {
                answer: Err(ToolError::with(error.code(), &message)),
                hits: Hits {
                    runner: error.hits(),
                    daemon: text.hits,
                },
            };
        }
    };
    let content = live.redactor.redact(answer.content);
    answer.content = content.bytes;
    let mut hits = Hits {
        runner: answer.hits,
        daemon: content.hits,
    };
    if let Some(structured) = answer.structured.take() {
        let structured = live.redactor.redact(structured);
        hits.daemon = hits.daemon.saturating_add(structured.hits);
        answer.structured = Some(structured.bytes);
    }
    Redacted {
        answer: answer.into_result().map_err(Into::into),
        hits,
    }
}

/// Records what of an answer is more than its outcome: secrets in it, and a credential that a service refused.
fn report(house: &House, live: &Live, call: CallId, tool: &Tool, redacted: &Redacted) {
    let hits = &redacted.hits;
    for (stage, hits) in [("runner", hits.runner), ("daemon", hits.daemon)] {
        if hits > 0 {
            let rev = tool.rev();
            log::warn!(
                "redaction_hit: {hits} in an answer of module {}",
                rev.module
            );
            let event = Event::RedactionHit {
                call,
                rev,
                hits,
                stage,
            };
            note(house, call, &event);
        }
    }
    if hits.runner > 0 || hits.daemon > 0 {
        count_leak(house, call, tool.rev());
    }
    if let Err(e) = &redacted.answer
        && e.code() == ErrorCode::CredentialSuspect
    {
        alert(house, live, call, tool);
    }
}

/// A service gave a secret back; one that does so again and again gets no calls any more.
fn count_leak(house: &House, call: CallId, rev: &ModuleRev) {
    if house.leaks.count(rev, Instant::now()) {
        log::error!("module_quarantined: {} gives secrets back", rev.module);
        let reason = "redaction";
        note(house, call, &Event::ModuleQuarantined { rev, reason });
    }
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
    note(house, call, &event);
}

/// Records what the call does not depend on.
fn note(house: &House, call: CallId, event: &Event<'_>) {
    if let Err(e) = house.audit.append(event) {
        let name = event.name();
        log::error!("audit_lost: {name} of call {} not recorded: {e}", call.0);
    }
}

/// The call got no permit. Where its intent is written, the outcome says so.
fn not_made(
    house: &House,
    call: CallId,
    intent: Option<Seq>,
    started: Instant,
    code: ErrorCode,
) -> CallAnswer {
    if let Some(intent) = intent {
        ended(house, call, intent, outcome(Some(code), 0, started));
    }
    ToolError::of(code).into()
}

/// Records how a call ended, or counts it where the log takes no line. Whether it is recorded.
fn ended(house: &House, call: CallId, intent: Seq, outcome: Outcome) -> bool {
    let recorded = house.audit.append(&Event::CallOutcome {
        call,
        intent: intent.0,
        outcome,
    });
    if let Err(e) = &recorded {
        house.audit.lost();
        log::error!("audit_lost: outcome of call {} not recorded: {e}", call.0);
    }
    recorded.is_ok()
}

fn outcome(error: Option<ErrorCode>, hits: u32, started: Instant) -> Outcome {
    Outcome {
        error,
        is_error: error.is_some(),
        truncated: false,
        bytes: 0,
        hits,
        micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
    }
}

/// Stage 9: the outcome is recorded, then the answer goes back.
fn finish(
    house: &House,
    call: CallId,
    intent: Seq,
    started: Instant,
    redacted: Redacted,
) -> CallAnswer {
    let Redacted { answer, hits } = redacted;
    let hits = hits.runner.saturating_add(hits.daemon);
    let outcome = match &answer {
        Ok(result) => Outcome {
            is_error: result.is_error,
            truncated: result.truncated,
            bytes: result.content.len() as u64,
            ..outcome(None, hits, started)
        },
        Err(e) => outcome(Some(e.code()), hits, started),
    };
    let recorded = ended(house, call, intent, outcome);
    match answer {
        Ok(result) => CallAnswer::Done {
            result,
            audit_lost: !recorded,
        },
        Err(e) => e.into(),
    }
}

/// Unknown or hidden: recorded, and answered in one way. Who asks for such tools faster than the log tells of them one by
/// one is held back; those calls are counted.
fn denied(house: &House, principal: &Principal, named: Named<'_>) -> CallAnswer {
    let event = Event::CallDenied {
        principal: principal.name(),
        module: named.module,
        tool: named.tool,
        code: ErrorCode::UnknownTool,
    };
    let asker = Asker::Principal(principal.name().clone());
    let appended = house.audit.append_limited(asker, &event, Instant::now());
    ToolError::of(match appended {
        Ok(Some(_)) => ErrorCode::UnknownTool,
        Ok(None) => ErrorCode::Busy,
        Err(_) => ErrorCode::AuditUnavailable,
    })
    .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::future::{pending, ready};
    use std::path::Path;

    use mcpist_broker::VaultFault;
    use mcpist_core::ids::BindingName;

    use super::*;
    use crate::audit::tests::Fixture;
    use crate::config::Config;
    use crate::inflight::InFlight;

    const LONG: Duration = Duration::from_secs(60);

    /// A house of its own, whose log is closed.
    pub(crate) fn house(folder: &Path) -> House {
        let at = |name: &str| folder.join(name);
        let text = format!("state = {:?}\nrun = {:?}\n", at("state"), at("run"));
        std::fs::write(at("mcpist.toml"), text).unwrap();
        House::new(Config::load(&at("mcpist.toml"), true).unwrap())
    }

    #[tokio::test]
    async fn a_disk_that_hangs_under_an_intent_outlasts_no_deadline_cancellation_or_seal() {
        let calls = InFlight::new();
        let (entered, cancel) = (calls.enter(), CancellationToken::new());
        let within = |deadline| {
            let issuing = issued(pending::<Result<(), _>>(), deadline, &entered, &cancel);
            tokio::time::timeout(LONG, issuing)
        };
        let ended = |code| Ok(Err(code));
        assert_eq!(
            within(Duration::ZERO).await,
            ended(ErrorCode::DeadlineExceeded)
        );
        cancel.cancel();
        assert_eq!(within(2 * LONG).await, ended(ErrorCode::Cancelled));
        calls.cancel();
        assert_eq!(within(2 * LONG).await, ended(ErrorCode::Sealed));
        // What is written by then is a permit all the same, which the next stage ends.
        let written = issued(ready(Ok(7)), LONG, &entered, &cancel).await;
        assert_eq!(written, Ok(7));
    }

    #[test]
    fn a_vault_that_gets_new_keys_under_a_call_costs_it_nothing() {
        let failed = |fault| {
            Ok(Err(LeaseError::Vault {
                binding: BindingName::parse("api").unwrap(),
                fault,
            }))
        };
        let mut attempts = vec![Ok(Ok(7)), failed(VaultFault::Rotated)];
        assert_eq!(leased(|| attempts.pop().unwrap()).unwrap(), 7);
        // What was taken away with the new snapshot stays taken away, and nothing is asked for ever.
        let revoked = Err(ErrorCode::UnknownTool);
        let mut attempts = vec![revoked, failed(VaultFault::Rotated)];
        let told = leased::<u8>(|| attempts.pop().unwrap()).unwrap_err();
        assert_eq!(told.code(), ErrorCode::UnknownTool);
        let mut attempts = vec![failed(VaultFault::Rotated), failed(VaultFault::Rotated)];
        let told = leased::<u8>(|| attempts.pop().unwrap()).unwrap_err();
        assert_eq!(told.code(), ErrorCode::Busy);
        for fault in [VaultFault::Sealed, VaultFault::Quarantined] {
            let code = fault.code();
            let mut attempts = vec![failed(fault)];
            let told = leased::<u8>(|| attempts.pop().unwrap()).unwrap_err();
            assert_eq!(told.code(), code);
        }
    }

    #[test]
    fn an_intent_without_a_permit_has_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let house = house(folder.path());
        let log = Fixture::new();
        log.open_in(&house.audit, 1 << 20).unwrap();
        let (call, code) = (CallId(3), ErrorCode::Cancelled);
        let unwritten = not_made(&house, call, None, Instant::now(), code);
        assert!(matches!(unwritten, CallAnswer::Failed(e) if e.code() == code));
        assert!(log.lines("call_outcome").is_empty());
        not_made(&house, call, Some(Seq(9)), Instant::now(), code);
        let lines = log.lines("call_outcome");
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (&lines[0]["intent"], &lines[0]["code"]),
            (&9.into(), &"cancelled".into())
        );
        assert!(house.audit.close(LONG));
        // One that finds no log is counted by the next.
        not_made(&house, call, Some(Seq(9)), Instant::now(), code);
        log.open_in(&house.audit, 1 << 20).unwrap();
        not_made(&house, call, Some(Seq(9)), Instant::now(), code);
        assert_eq!(log.lines("audit_lost")[0]["calls"], 1);
        assert!(house.audit.close(LONG));
    }
}
