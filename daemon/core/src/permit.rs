//! The permission to run one call, and the audit intent that comes before it. No I/O of its own.
//!
//! Owns: [`Permit`], which [`Permit::issue`] alone makes, and [`IntentSink`], through which it writes.
//! Promises: a permit exists only after the sink has said that the intent is written (for a write or
//! destructive tool: synced). Whoever drops the future in between gets no permit. A permit is used
//! once: it is neither `Clone` nor made of parts.
//! Does not: know how an intent is kept, or under which key the arguments are MACed; the sink does.

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;

use crate::access::Access;
use crate::args::Arguments;
use crate::audit::Seq;
use crate::catalogue::Tool;
use crate::error::ErrorCode;
use crate::event::{ArgumentsMac, Event, Recorded};
use crate::ids::{BindingName, CallId, ModuleRev, SlotName, ToolName};
use crate::principal::Principal;
use crate::route::Route;

#[cfg(all(test, feature = "schema"))]
mod tests;

/// What is about to be done. Made by [`Permit::issue`] only.
#[derive(Debug)]
pub struct Intent<'a> {
    call: CallId,
    principal: &'a Principal,
    tool: &'a Tool,
    arguments: &'a Arguments,
    recorded: &'a [Recorded<'a>],
}

impl<'a> Intent<'a> {
    /// The call.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// Who calls.
    pub fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// Which edition of which module.
    pub fn rev(&self) -> &'a ModuleRev {
        self.tool.rev()
    }

    /// Which tool of it.
    pub fn tool(&self) -> &'a ToolName {
        self.tool.name()
    }

    /// How far the tool goes; above [`Access::Read`] the intent must be synced before it is reported
    /// as written.
    pub fn access(&self) -> Access {
        self.tool.access()
    }

    /// The arguments, whose [`bytes`](Arguments::bytes) the sink MACs.
    pub fn arguments(&self) -> &'a Arguments {
        self.arguments
    }

    /// The event to write, once the sink has the MAC of the arguments.
    pub fn event(&self, arguments: ArgumentsMac) -> Event<'a> {
        Event::CallIntent {
            call: self.call,
            principal: self.principal.name(),
            rev: self.tool.rev(),
            tool: self.tool.name(),
            access: self.tool.access(),
            arguments,
            recorded: self.recorded,
        }
    }
}

/// Why an intent was not written. The call ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit intent was not written ({code}), so the call is not made")]
pub struct IntentError {
    /// The code for the client: `audit_unavailable`, `audit_lost`, `sealed`.
    pub code: ErrorCode,
}

/// Where intents are written. The daemon's audit log implements it.
pub trait IntentSink: Sync {
    /// Writes the intent and says at which sequence it stands. For an access above `Read` it returns
    /// only once the line is on stable storage.
    ///
    /// # Errors
    /// Anything that keeps the line from being written. Whether it was written all the same does not
    /// matter: an intent without an outcome is a call that was not made.
    fn intent(&self, intent: &Intent<'_>) -> impl Future<Output = Result<Seq, IntentError>> + Send;
}

/// The permission to run one call of one tool once.
///
/// It cannot be had twice:
/// ```compile_fail,E0599
/// fn twice(permit: mcpist_core::permit::Permit) -> [mcpist_core::permit::Permit; 2] {
///     [permit.clone(), permit]
/// }
/// ```
/// nor made of parts, nor with a route that was used before:
/// ```compile_fail,E0382
/// # use mcpist_core::{args::Arguments, ids::CallId, permit::{IntentSink, Permit}, route::Route};
/// async fn again(route: Route, first: Arguments, second: Arguments, sink: &impl IntentSink) {
///     let _ = Permit::issue(route, first, CallId(1), sink).await;
///     let _ = Permit::issue(route, second, CallId(2), sink).await;
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit is the permission to go on"]
pub struct Permit {
    principal: Principal,
    tool: Arc<Tool>,
    arguments: Arguments,
    call: CallId,
    intent: Seq,
}

impl Permit {
    /// Writes the intent, then gives the permit.
    ///
    /// # Errors
    /// [`IntentError`]: no intent, no call. Arguments that were parsed for another tool are a defect
    /// of the caller, `internal`.
    pub async fn issue(
        route: Route,
        mut arguments: Arguments,
        call: CallId,
        sink: &impl IntentSink,
    ) -> Result<Permit, IntentError> {
        let (principal, tool) = (route.principal().clone(), Arc::clone(route.tool()));
        if arguments.tool() != tool.schema_ref() {
            return Err(IntentError {
                code: ErrorCode::Internal,
            });
        }
        let texts = arguments.take_recorded();
        let recorded: Vec<Recorded<'_>> = texts
            .iter()
            .map(|(name, value)| Recorded { name, value })
            .collect();
        let intent = Intent {
            call,
            principal: &principal,
            tool: &tool,
            arguments: &arguments,
            recorded: &recorded,
        };
        let intent = sink.intent(&intent).await?;
        Ok(Permit {
            principal,
            tool,
            arguments,
            call,
            intent,
        })
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is called, with its limits and manifest.
    pub fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }

    /// Which edition of which module runs.
    pub fn rev(&self) -> &ModuleRev {
        self.tool.rev()
    }

    /// The slots that a lease may be had for, each with its binding.
    pub fn slots(&self) -> &[(SlotName, BindingName)] {
        self.tool.slots()
    }

    /// The call.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// Where its intent stands in the audit log; the outcome names it.
    pub fn intent(&self) -> Seq {
        self.intent
    }

    /// The arguments as they go over the wire. They are not copied: the permit is used up.
    pub fn into_arguments(self) -> Vec<u8> {
        self.arguments.into_bytes()
    }
}
