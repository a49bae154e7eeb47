//! The one error of the command line: a stable code, what and why, and the next command.
//!
//! Promises that an error of the daemon keeps its code, and that nothing here holds a secret: what is put in is a
//! name, a path, or the text of another error that makes the same promise. Each code has a usual next step, and a
//! test looks for codes without one. Exit status: 2 for a sealed store, else 1.

use std::fmt::Display;
use std::path::Path;

use mcpist_core::api::ApiError;
use mcpist_core::error::{EXIT_FAILURE, ErrorCode};
use serde::Serialize;

/// Why a command ends without success.
#[derive(Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    code: &'static str,
    message: String,
    /// The code of the part of the daemon that refused, where it has codes of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
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
            reason: None,
            next: usual_next(code).map(str::to_owned),
            exit: EXIT_FAILURE,
        }
    }

    /// A value that was given is of no use.
    pub(crate) fn usage(message: impl Display) -> Error {
        Error::new("usage", message)
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

    /// The code of the part that refused.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
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

/// What a person usually does next after an error of this code.
fn usual_next(code: &str) -> Option<&'static str> {
    Some(match code {
        "approvals_missing" => "mcpist change approve FILE --key the key of another officer",
        "audit_damaged" => "keep the files; mcpist audit verify names the first line that is wrong",
        "audit_empty" => "mcpist unseal; the log begins with the first opening of the store",
        "audit_many" => "narrow it: --principal, --tool, --from, --to",
        "bundle_build" => "mend the module folder, and build again",
        "bundle_sign" => "mcpist bundle inspect FILE",
        "ceremony_record" => "give ceremony.bin as 'mcpist init' wrote it, or --key",
        "connection_lost" => {
            "journalctl -u mcpistd; where mcpist status does not answer either, systemctl stop mcpistd seals the store"
        }
        "daemon_failed" => "journalctl -u mcpistd, or the log that the message names",
        "daemon_missing" => "install mcpistd beside mcpist, or build it: cargo build",
        "daemon_unreachable" => "mcpist doctor",
        "demo" => "mcpist demo --keep, and look into its folder",
        "dev" => "mcpist dev with another folder",
        "file" => "see that the path is right, and that it is yours to read or write",
        "identity" => "give the file that age-keygen wrote, one that begins with AGE-SECRET-KEY-1",
        "internal" => "mcpist --version, and report it with the command",
        "io" => "repeat the command with standard input and output open",
        "key" => "give the key file that 'mcpist bundle keygen' wrote, and its passphrase",
        "mcp" => "ask an operator of this host for journalctl -u mcpistd",
        "memory" => "mcpist doctor",
        "no_terminal" => "run the command in a terminal, or give the secret on standard input",
        "not_confirmed" => "repeat the command with --yes",
        "not_given" => "repeat the command with the share at hand",
        "proposal" => "have the change proposed again: the same command with --proposal NEW-FILE",
        "receipt" => "mcpist witness pull; its file is one line that begins with mcpist-witness1:",
        "root" => "give root.json as 'mcpist bundle root' wrote it",
        "share_file" => "repeat the command with a share file and the age identity of its holder",
        "share" => "compare it with the paper, and type it again",
        "share_not_of_record" => {
            "give the record of the ceremony that the share is from, or take another copy of the share"
        }
        "share_refused" => "mcpist unseal",
        "tool_failed" => "mcpist tools --module MODULE --tool TOOL",
        "usage" => "run the command with --help",
        "version_mismatch" => "use the mcpist of the same version as mcpistd",
        // What a bundle's verification found.
        "too_few_signatures" => "mcpist bundle sign FILE --key the key of another publisher",
        "other_audience" | "expired" | "foreign_namespace" | "older_sequence" => {
            "ask its publisher for a bundle made for this site: mcpist bundle build"
        }
        "not_a_bundle" | "not_a_file" | "too_large" => {
            "give the file that 'mcpist bundle build' wrote"
        }
        "bad_container" | "bad_signature" | "bad_manifest" | "bad_blob" | "wrong_length"
        | "wrong_payload" | "key_twice" => "have the file brought again: it is damaged or forged",
        "shrunk" | "quarantine_io" => {
            "see that the file stays as it is and the disk has room, and repeat"
        }
        other => return ErrorCode::parse(other).and_then(ErrorCode::next),
    })
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Error {
        Error {
            code: error.code.as_str(),
            exit: error.code.exit_code(),
            message: error.message,
            // What is done next depends on what the part found, where that is known here.
            next: (error
                .reason
                .as_deref()
                .and_then(usual_next)
                .map(str::to_owned))
            .or(error.next),
            reason: error.reason,
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
    use super::*;

    #[test]
    fn an_error_of_the_daemon_keeps_its_code_and_status() {
        let sealed = Error::from(ApiError::of(ErrorCode::Sealed));
        assert_eq!((sealed.code(), sealed.exit()), ("sealed", 2));
        assert_eq!(sealed.next_step(), Some("mcpist unseal"));
        assert_eq!(Error::usage("no").exit(), 1);
    }

    #[test]
    fn every_code_in_the_sources_has_a_next_step() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut codes = std::collections::BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for after in text.split("Error::new(").skip(1) {
                        let code = after.trim_start().strip_prefix('"');
                        codes.extend(code.and_then(|c| Some(c.split_once('"')?.0.to_owned())));
                    }
                }
            }
        }
        assert!(codes.len() > 20, "{codes:?}");
        // This test's own words are no code.
        codes.retain(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        for code in codes {
            assert!(usual_next(&code).is_some(), "{code} has no next step");
        }
    }

    #[test]
    fn a_bundles_refusal_keeps_its_own_code_and_says_what_to_do_about_it() {
        let refused = ApiError::new(ErrorCode::BundleRefused, "1 of 2 publisher signatures");
        let error = Error::from(refused.reason("too_few_signatures"));
        assert_eq!(error.code(), "bundle_refused");
        assert_eq!(error.reason(), Some("too_few_signatures"));
        assert_eq!(error.next_step(), usual_next("too_few_signatures"));
        let json = serde_json::to_value(error).unwrap();
        assert_eq!(json["reason"], "too_few_signatures");
        let unknown = ApiError::new(ErrorCode::BundleRefused, "x").reason("made_up_later");
        let usual = ErrorCode::BundleRefused.next();
        assert_eq!(Error::from(unknown).next_step(), usual);
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
