//! The one error of the command line: a stable code, what and why, and the next command.
//!
//! Promises that an error of the daemon keeps its code, and that nothing here holds a secret: what is put in is a
//! name, a path, or the text of another error that makes the same promise. Exit status: 2 for a sealed store, else 1.

use std::fmt::Display;
use std::path::Path;

use mcpist_core::api::ApiError;
use mcpist_core::error::EXIT_FAILURE;
use serde::Serialize;

/// Why a command ends without success.
#[derive(Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    exit: u8,
}

/// What every fallible function of the command line gives.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the command line's own; `code` is lower-case words joined by `_`.
    pub(crate) fn new(code: &'static str, message: impl Display) -> Error {
        Error {
            code,
            message: message.to_string(),
            next: None,
            exit: EXIT_FAILURE,
        }
    }

    /// A value that was given is of no use.
    pub(crate) fn usage(message: impl Display) -> Error {
        Error::new("usage", message).next("run the command with --help")
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, source: impl Display) -> Error {
        Error::new("file", format!("{}: {source}", path.display()))
    }

    /// The same with a next step.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Error {
        self.next = Some(next.into());
        self
    }

    /// The same, with what was being done in front.
    #[must_use]
    pub(crate) fn during(mut self, what: impl Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The next command or act.
    pub(crate) fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// The exit status of the process.
    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Error {
        Error {
            code: error.code.as_str(),
            exit: error.code.exit_code(),
            message: error.message,
            next: error.next,
        }
    }
}

impl From<mcpist_secret::MemoryError> for Error {
    fn from(error: mcpist_secret::MemoryError) -> Error {
        Error::new("memory", error)
    }
}

impl From<std::io::Error> for Error {
    /// For standard input and output; a file's error names its path by [`Error::file`].
    fn from(error: std::io::Error) -> Error {
        Error::new("io", error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::error::ErrorCode;

    use super::*;

    #[test]
    fn an_error_of_the_daemon_keeps_its_code_and_status() {
        let sealed = Error::from(ApiError::of(ErrorCode::Sealed));
        assert_eq!((sealed.code(), sealed.exit()), ("sealed", 2));
        assert_eq!(sealed.next_step(), Some("mcpist unseal"));
        assert_eq!(Error::usage("no").exit(), 1);
    }

    #[test]
    fn the_json_form_has_no_exit_status() {
        let json = serde_json::to_value(Error::new("file", "x").next("y")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"code": "file", "message": "x", "next": "y"})
        );
    }
}
