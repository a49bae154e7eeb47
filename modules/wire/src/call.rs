//! One call of a module's tool, as mcpistd sends it and the runner gets it. No I/O.
//!
//! On the daemon's side a [`ModuleCall`] is made of a `Permit` and of the leases that the broker granted on it,
//! and of nothing else; on the runner's side only the wire's decoder makes one. The arguments are the
//! received bytes, checked before the permit was issued, and nothing here reads them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{CallId, ModuleRev, SlotName, ToolName};
use mcpist_core::permit::Permit;
use mcpist_core::result::{ToolError, ToolResult};
use mcpist_core::scan;

use crate::codec::{Cursor, PayloadError, put_name, put_u32};
use crate::lease::Lease;
use crate::message::{put_rev, take_rev};

/// Bytes of the longest arguments. Listeners accept far less.
pub const MAX_ARGUMENTS: usize = 4 * 1024 * 1024;

/// Leases of one call at most: one for each slot that its tool uses.
pub const MAX_LEASES: usize = 16;

/// A call on its way to a module, with the leases that it may use.
pub struct ModuleCall {
    call: CallId,
    rev: ModuleRev,
    tool: ToolName,
    deadline: Duration,
    client_bytes: u32,
    arguments: Bytes,
    leases: Vec<Lease>,
}

impl fmt::Debug for ModuleCall {
    /// Without the arguments, which are a client's own data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleCall")
            .field("call", &self.call)
            .field("rev", &self.rev)
            .field("tool", &self.tool)
            .finish_non_exhaustive()
    }
}

/// Why a permit and leases are no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallRefused {
    /// A slot of the permit has no lease.
    #[error("slot {0} has no lease; ask the broker for one lease per slot of the permit")]
    SlotWithoutLease(SlotName),
    /// A lease was granted on another permit, or twice for one slot.
    #[error(
        "the lease for slot {0} is not for this call; leases are not carried from call to call"
    )]
    ForeignLease(SlotName),
    /// The arguments are over [`MAX_ARGUMENTS`].
    #[error("the arguments have {0} bytes, over the limit of {MAX_ARGUMENTS}; send less")]
    ArgumentsTooLong(usize),
}

impl ModuleCall {
    /// The call that `permit` allows, with `leases` for exactly the permit's slots. `deadline` is what is
    /// left of the call's time.
    ///
    /// # Errors
    /// [`CallRefused`]; the leases are wiped then.
    pub fn new(
        permit: Permit,
        leases: Vec<Lease>,
        deadline: Duration,
    ) -> Result<ModuleCall, CallRefused> {
        for (slot, _) in permit.slots() {
            if !leases.iter().any(|lease| lease.slot() == slot) {
                return Err(CallRefused::SlotWithoutLease(slot.clone()));
            }
        }
        let foreign = leases.iter().enumerate().find(|(number, lease)| {
            lease.call() != permit.call()
                || leases[..*number]
                    .iter()
                    .any(|other| other.slot() == lease.slot())
        });
        if let Some((_, lease)) = foreign {
            return Err(CallRefused::ForeignLease(lease.slot().clone()));
        }
        let (call, rev, tool) = (
            permit.call(),
            permit.rev().clone(),
            permit.tool().name().clone(),
        );
        let client_bytes = u32::try_from(permit.tool().limits().client_bytes).unwrap_or(u32::MAX);
        let arguments = Bytes::from(permit.into_arguments());
        if arguments.len() > MAX_ARGUMENTS {
            return Err(CallRefused::ArgumentsTooLong(arguments.len()));
        }
        Ok(ModuleCall {
            call,
            rev,
            tool,
            deadline,
            client_bytes,
            arguments,
            leases,
        })
    }

    /// The call's number, unique while the call is in flight.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call
    }

    /// The module revision to run.
    #[must_use]
    pub fn rev(&self) -> &ModuleRev {
        &self.rev
    }

    /// The tool to run.
    #[must_use]
    pub fn tool(&self) -> &ToolName {
        &self.tool
    }

    /// What was left of the call's time when it was sent, in whole milliseconds.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The most bytes of shaped result that the tool's limits allow; the runner cuts there.
    #[must_use]
    pub fn client_bytes(&self) -> u32 {
        self.client_bytes
    }

    /// The most bytes of an answer that mcpistd takes: `client_bytes` once as text and once as structured
    /// content, each up to doubled by JSON's escapes, and what stands around them.
    #[must_use]
    pub fn answer_limit(&self) -> usize {
        4 * self.client_bytes as usize + 4096
    }

    /// The arguments' JSON text as the client sent it.
    #[must_use]
    pub fn arguments(&self) -> &Bytes {
        &self.arguments
    }

    /// The lease for `slot`; `None` when the tool does not use the slot.
    #[must_use]
    pub fn lease(&self, slot: &SlotName) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.slot() == slot)
    }

    /// All leases.
    #[must_use]
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// What goes before the arguments on the wire.
    pub(crate) fn encode(&self, leases: usize, out: &mut Vec<u8>) {
        put_u32(
            out,
            u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
        );
        put_u32(out, self.client_bytes);
        out.push(u8::try_from(leases).unwrap_or(u8::MAX));
        put_rev(out, &self.rev);
        put_name(out, self.tool.as_str());
    }

    /// What is sent beside the fields: leases, each in a frame of its own, and arguments.
    pub(crate) fn take_parts(&mut self) -> (Vec<Lease>, Bytes) {
        (
            std::mem::take(&mut self.leases),
            std::mem::take(&mut self.arguments),
        )
    }

    /// Decodes a call to which `leases` came before.
    pub(crate) fn decode(
        call: u64,
        payload: &[u8],
        leases: Vec<Lease>,
    ) -> Result<ModuleCall, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let deadline = Duration::from_millis(u64::from(cursor.u32("the deadline")?));
        let client_bytes = cursor.u32("the answer's limit")?;
        if usize::from(cursor.u8("the count of leases")?) != leases.len() {
            return Err(PayloadError::Invalid("the count of leases"));
        }
        let rev = take_rev(&mut cursor)?;
        let tool = ToolName::parse(cursor.name("the tool")?)
            .map_err(|_| PayloadError::Invalid("the tool"))?;
        let arguments = Bytes::copy_from_slice(cursor.rest());
        Ok(ModuleCall {
            call: CallId(call),
            rev,
            tool,
            deadline,
            client_bytes,
            arguments,
            leases,
        })
    }
}

/// A module's answer as bytes: what the runner sends, and what mcpistd redacts once more before it becomes
/// a `ToolResult`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// JSON text of the MCP `content` array.
    pub content: Vec<u8>,
    /// JSON text of the structured content, when the tool has any.
    pub structured: Option<Vec<u8>>,
    /// The tool itself reports a failure.
    pub is_error: bool,
    /// The runner cut the answer at the tool's limit; the content says so.
    pub truncated: bool,
    /// How often the runner's redactor replaced something.
    pub hits: u32,
}

/// Why an answer's bytes are not what a client may get.
#[derive(Debug, thiserror::Error)]
pub enum AnswerInvalid {
    /// The content is no JSON array on one line.
    #[error("the module's content is no JSON array on one line; the runner's log names the module")]
    Content,
    /// The structured content breaks the rules for JSON that enters (DESIGN §3).
    #[error("the module's structured content is refused: {0}")]
    Structured(String),
}

impl From<AnswerInvalid> for ToolError {
    fn from(error: AnswerInvalid) -> ToolError {
        ToolError::with(ErrorCode::ModuleFailed, &error.to_string())
    }
}

impl Answer {
    /// Bytes of content and structured content together, what a call's limit is about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.len() + self.structured.as_ref().map_or(0, Vec::len)
    }

    /// True when there is no byte of either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The result for the client, to be made after the last redaction. The content is checked to be one
    /// JSON array on one line, so that no module can break the line of the protocol around it.
    ///
    /// # Errors
    /// [`AnswerInvalid`] when the runner sent something else.
    pub fn into_result(self) -> Result<ToolResult, AnswerInvalid> {
        let limits = scan::Limits::bytes(usize::MAX);
        if self.content.first() != Some(&b'[')
            || !one_line(&self.content)
            || scan::scan(&self.content, &limits).is_err()
        {
            return Err(AnswerInvalid::Content);
        }
        let structured = match self.structured {
            None => None,
            Some(bytes) if !one_line(&bytes) => {
                return Err(AnswerInvalid::Structured(
                    "it has more than one line".to_owned(),
                ));
            }
            Some(bytes) => {
                let refuse =
                    |error: &dyn fmt::Display| AnswerInvalid::Structured(error.to_string());
                scan::scan(&bytes, &limits).map_err(|error| refuse(&error))?;
                Some(serde_json::from_slice(&bytes).map_err(|error| refuse(&error))?)
            }
        };
        Ok(ToolResult {
            content: self.content,
            structured,
            is_error: self.is_error,
            truncated: self.truncated,
        })
    }
}

fn one_line(bytes: &[u8]) -> bool {
    !bytes.contains(&b'\n') && !bytes.contains(&b'\r')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn content(text: &str) -> Result<ToolResult, AnswerInvalid> {
        Answer {
            content: text.into(),
            ..Answer::default()
        }
        .into_result()
    }

    #[test]
    fn finished_content_passes_as_it_came() {
        let result = content(r#"[{"type":"text","text":"a\nb"}]"#).unwrap();
        assert_eq!(result.content, br#"[{"type":"text","text":"a\nb"}]"#);
    }

    #[test]
    fn content_that_breaks_the_line_is_refused() {
        assert!(content("[1,\n2]").is_err());
        assert!(content("[1,\r2]").is_err());
    }

    #[test]
    fn content_that_ends_the_array_early_is_refused() {
        assert!(content(r#"[],"isError":false,"x":["#).is_err());
        assert!(content(r#"{"a":[]}"#).is_err());
        assert!(content("").is_err());
    }

    #[test]
    fn structured_content_keeps_the_rules_of_json_that_enters() {
        let answer = |text: &str| {
            let structured = Some(text.into());
            Answer {
                content: "[]".into(),
                structured,
                ..Answer::default()
            }
            .into_result()
        };
        assert_eq!(
            answer(r#"{"b":1,"a":2}"#)
                .unwrap()
                .structured
                .unwrap()
                .get(),
            r#"{"b":1,"a":2}"#
        );
        assert!(answer(r#"{"a":1,"a":2}"#).is_err());
        assert!(answer("{\"a\":\n1}").is_err());
        assert!(answer("{").is_err());
    }
}
