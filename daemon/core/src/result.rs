//! What a call gives back: a result or a coded error. Plain values, no I/O.
//!
//! Owns: [`ToolResult`] and [`ToolError`], as the runner makes them and the client gets them.
//! Promises: `content` is the finished JSON text that came over the wire; nothing here parses it
//! again. Neither type can be made from a service's own error body by accident: a [`ToolError`]
//! takes a code and a bounded, escaped text.
//! Does not: redact. Both redactors (runner and daemon) run over the bytes before they get here.

use serde_json::value::RawValue;
use thiserror::Error;

use crate::error::ErrorCode;
use crate::text::excerpt;

/// Longest text of a [`ToolError`] in bytes, the picked field of a service's error included.
pub const MAX_ERROR_TEXT: usize = 1_024;

/// The finished result of one tool call.
#[derive(Debug)]
pub struct ToolResult {
    /// JSON text of the MCP `content` array, as it came over the wire.
    pub content: Vec<u8>,
    /// JSON text of `structuredContent`, where the tool has an output schema.
    pub structured: Option<Box<RawValue>>,
    /// The tool itself reports a failure (MCP `isError`).
    pub is_error: bool,
    /// The content was cut at the tool's limit, and says so in its last item.
    pub truncated: bool,
}

/// Why a call gave no result: a code, and a text that a client may read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct ToolError {
    code: ErrorCode,
    message: String,
    hits: u32,
}

impl ToolError {
    /// An error whose text is the code's own line.
    pub fn of(code: ErrorCode) -> ToolError {
        ToolError {
            code,
            message: code.about().to_owned(),
            hits: 0,
        }
    }

    /// An error with a text of its own, cut at [`MAX_ERROR_TEXT`] with control characters escaped.
    pub fn with(code: ErrorCode, message: &str) -> ToolError {
        ToolError {
            code,
            message: excerpt(message, MAX_ERROR_TEXT),
            hits: 0,
        }
    }

    /// The same, after `hits` secrets were taken out of what the service sent.
    #[must_use]
    pub fn with_hits(self, hits: u32) -> ToolError {
        ToolError { hits, ..self }
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Secrets that the redactors took out on the way to this error; for the log, not for the client.
    pub fn hits(&self) -> u32 {
        self.hits
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<ErrorCode> for ToolError {
    fn from(code: ErrorCode) -> ToolError {
        ToolError::of(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_is_bounded_and_escaped() {
        let error = ToolError::with(ErrorCode::UpstreamStatus, &"a\u{1b}[2J\n".repeat(1_000));
        assert!(error.message().len() <= MAX_ERROR_TEXT);
        assert!(error.message().chars().all(|c| !c.is_control()));
    }
}
