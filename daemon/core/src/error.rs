//! The stable error codes of MCPist, and nothing else: no I/O, no text of a service, no detail.
//!
//! Owns: one closed list of codes, shared by MCP answers, the command line, the admin API, the wire
//! and the audit log, with what each means, the exit status it gives the command line and the HTTP
//! status it gives the admin API.
//! Promises: a code once published keeps its text and its meaning.
//! Does not: carry a message. What an outside caller is told beyond the code is the caller's choice
//! ([`crate::result::ToolError`], [`crate::api::ApiError`]); what the log is told is another field.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Exit status of `mcpist` when the store is sealed; every other failure is [`EXIT_FAILURE`].
pub const EXIT_SEALED: u8 = 2;
/// Exit status of `mcpist` for every failure but a sealed store.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status of `mcpist` where what was asked is done and a vault is missing from it.
pub const EXIT_INCOMPLETE: u8 = 3;

macro_rules! codes {
    ($($variant:ident $text:literal $http:literal $about:literal;)*) => {
        /// A stable, closed set of failure codes. The documentation of each is also its
        /// [`about`](ErrorCode::about) line.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $about] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The stable text: lower-case words joined by `_`.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }

            /// One line that says what the code means.
            pub fn about(self) -> &'static str {
                match self { $(ErrorCode::$variant => $about,)* }
            }

            /// The HTTP status with which the admin API answers.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $http,)* }
            }

            /// The code with exactly this text.
            pub fn parse(text: &str) -> Option<ErrorCode> {
                match text { $($text => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    // The store and its ceremonies.
    Sealed "sealed" 503 "the store is sealed: a quorum has to unseal it first";
    NotInitialised "not_initialised" 409 "this host has no store yet: run the init ceremony";
    AlreadyInitialised "already_initialised" 409 "this host has a store already";
    AlreadyUnsealed "already_unsealed" 409 "the store is open already";
    ShareRefused "share_refused" 409 "the share was not taken; it cost no progress";
    PlanMismatch "plan_mismatch" 409 "the digest names another plan than the one that is open";
    TicketInvalid "ticket_invalid" 403 "the ticket is unknown, used, expired or for another caller or purpose";
    // Who asks.
    Unidentified "unidentified" 401 "no principal matches this connection";
    Forbidden "forbidden" 403 "the caller's groups do not give the role that this needs";
    // What is asked.
    RequestInvalid "request_invalid" 400 "the request is malformed";
    TooLarge "too_large" 413 "the request is over its size limit";
    UnknownTool "unknown_tool" 404 "no such tool for this principal";
    UnknownModule "unknown_module" 404 "no such module for this principal";
    ArgumentsInvalid "arguments_invalid" 422 "the arguments do not match the tool's input schema";
    SchemaChanged "schema_changed" 409 "the tool's schema is another one now: read it again and repeat the call";
    NotFound "not_found" 404 "no such object";
    Conflict "conflict" 409 "the object exists already or is in use";
    // Changes and approvals.
    ApprovalInvalid "approval_invalid" 403 "an approval is not by an enrolled officer key over this change";
    ApprovalsMissing "approvals_missing" 409 "the change needs another officer's approval";
    ChangeVoid "change_void" 409 "what the change was approved against has changed since";
    // Bundles.
    BundleRefused "bundle_refused" 422 "the bundle did not verify";
    AlreadyImported "already_imported" 409 "this very bundle was imported before";
    Equivocation "equivocation" 422 "another bundle with this sequence number was imported before";
    // A call on its way.
    NotJoined "not_joined" 503 "the module has no binding for a slot that the tool uses";
    BindingRefused "binding_refused" 502 "the module asked for a request that its binding does not allow";
    CredentialMissing "credential_missing" 503 "the credential that the binding names is not there";
    CredentialExpired "credential_expired" 503 "the credential that the binding names has expired";
    CredentialSuspect "credential_suspect" 502 "the service refused the credential";
    NotLoaded "not_loaded" 503 "the runner does not have this module revision or binding yet";
    RunnerLost "runner_lost" 503 "the runner went away during the call";
    ModuleQuarantined "module_quarantined" 503 "the module is quarantined";
    ModuleFailed "module_failed" 502 "the module did not finish its call";
    Unavailable "unavailable" 503 "a part that the call depends on does not answer";
    Busy "busy" 429 "too many calls at once: try again shortly";
    DeadlineExceeded "deadline_exceeded" 504 "the call took longer than its limit";
    Cancelled "cancelled" 499 "the caller cancelled the call";
    UpstreamUnreachable "upstream_unreachable" 502 "no connection to the service";
    UpstreamTls "upstream_tls" 502 "the service's certificate is not the one that the binding names";
    UpstreamTimeout "upstream_timeout" 504 "the service did not answer in time";
    UpstreamStatus "upstream_status" 502 "the service answered with an error status";
    UpstreamThrottled "upstream_throttled" 503 "the service asks to wait before the next request";
    UpstreamTooLarge "upstream_too_large" 502 "the service's answer is over its size limit";
    UpstreamInvalid "upstream_invalid" 502 "the service's answer is not what the tool expects";
    // Audit and storage.
    AuditUnavailable "audit_unavailable" 503 "the audit log cannot be written, so nothing may happen";
    AuditLost "audit_lost" 503 "the call was done but its outcome could not be recorded";
    VaultUnavailable "vault_unavailable" 503 "the vault's storage does not answer";
    VaultQuarantined "vault_quarantined" 503 "the vault failed its verification and is closed";
    VaultRepaired "vault_repaired" 409 "the vault was repaired or restored and may lack records; its former file is kept";
    VaultSealed "vault_sealed" 503 "the vault has a quorum of its own, which has not opened it";
    LastWriteMissing "last_write_missing" 409 "a crash cut off the vault's last write, and nobody has confirmed that";
    VaultFileUnknown "vault_file_unknown" 409 "a vault's file is there that control.db does not know: control.db was put back, or the vault was never finished";
    StoreBehindLog "store_behind_log" 409 "the audit log holds changes that the store does not: one of them was put back or forged";
    LogForged "log_forged" 409 "lines at the audit log's end were replaced: they do not say what the store did";
    StoreRolledBack "store_rolled_back" 409 "a witness outside the disk shows a later state of this store: the disk was put back";
    Fenced "fenced" 409 "another life of this store began elsewhere: this one is over";
    TpmRefused "tpm_refused" 409 "the TPM counter that this store is bound to is not the one that the host has";
    DiskFull "disk_full" 507 "the disk is full but for the space reserved to seal, cancel and export";
    ExportUnconfirmed "export_unconfirmed" 409 "segments of the audit log wait for a second auditor to confirm their export";
    // The rest.
    BackupRefused "backup_refused" 422 "the backup is damaged, of another store, or does not open";
    BackupDue "backup_due" 409 "no backup was made since the keys, the shares or the life of the store changed";
    VersionMismatch "version_mismatch" 400 "the two programs do not speak a common version";
    Internal "internal" 500 "a defect: the log of the daemon names it";
}

impl ErrorCode {
    /// The code with this text, or [`ErrorCode::Internal`] for a text that this build does not
    /// know: what a newer program may send over the wire.
    pub fn parse_or_internal(text: &str) -> ErrorCode {
        ErrorCode::parse(text).unwrap_or(ErrorCode::Internal)
    }

    /// What an operator usually does next: a command where there is one.
    pub fn next(self) -> Option<&'static str> {
        use ErrorCode as C;
        Some(match self {
            C::Sealed => "mcpist unseal",
            C::NotInitialised => "mcpist init",
            C::AlreadyInitialised | C::AlreadyUnsealed | C::PlanMismatch | C::ShareRefused => {
                "mcpist status"
            }
            C::TicketInvalid => "repeat the command: each run asks for a ticket of its own",
            C::Unidentified => "mcpist principal list; an officer adds this user's uid",
            C::Forbidden => "ask for membership in the role's group",
            C::RequestInvalid | C::TooLarge => {
                "mend what the message names, and repeat the command"
            }
            C::UnknownTool | C::UnknownModule => {
                "mcpist tools; an officer asks: mcpist mask explain PRINCIPAL MODULE TOOL"
            }
            C::ArgumentsInvalid => "mcpist tools --module MODULE --tool TOOL",
            C::SchemaChanged => "read the schema again and repeat the call",
            C::NotFound | C::Conflict => {
                "list what there is: mcpist vault|principal|grant|binding|join|registry list"
            }
            C::ApprovalInvalid => {
                "mcpist change approve FILE --key the key of another enrolled officer"
            }
            C::ApprovalsMissing => "mcpist change approve FILE --key the key of another officer",
            C::ChangeVoid => "propose the change again: the same command with a new --proposal",
            C::BundleRefused | C::Equivocation => {
                "mcpist bundle verify FILE --root ROOT, and ask its publisher"
            }
            C::AlreadyImported => "mcpist registry list",
            C::NotJoined => "mcpist join list",
            C::BindingRefused => "mcpist binding list",
            C::CredentialMissing | C::CredentialExpired | C::CredentialSuspect => {
                "mcpist credential put"
            }
            C::UpstreamUnreachable | C::UpstreamTls => {
                "see that the service runs where the binding says: mcpist binding list"
            }
            C::UpstreamTimeout
            | C::UpstreamStatus
            | C::UpstreamThrottled
            | C::UpstreamTooLarge
            | C::UpstreamInvalid => "look at the service itself",
            C::Busy | C::DeadlineExceeded | C::Cancelled => "repeat it shortly",
            C::NotLoaded
            | C::RunnerLost
            | C::ModuleQuarantined
            | C::ModuleFailed
            | C::Unavailable
            | C::AuditUnavailable
            | C::AuditLost
            | C::VaultUnavailable
            | C::VaultQuarantined
            | C::LastWriteMissing
            | C::VaultFileUnknown
            | C::StoreBehindLog
            | C::LogForged
            | C::DiskFull => "mcpist status",
            C::VaultRepaired => "mcpist credential list NAME; then mcpist vault discard NAME",
            C::VaultSealed => "mcpist vault list, then its custodians: mcpist vault unseal NAME",
            C::BackupRefused => "mcpist backup inspect FILE, then take another copy of it",
            C::BackupDue => "mcpist backup FILE",
            C::ExportUnconfirmed => "another auditor: mcpist audit confirm FILE",
            C::StoreRolledBack => {
                "put the newest disk back, or restore the newest backup: mcpist restore FILE"
            }
            C::Fenced => {
                "use the host that holds the store now; where there is none, or to go on here instead: mcpist restore FILE, with this receipt presented"
            }
            C::TpmRefused => {
                "see to [tpm] of mcpist.toml and its device; where the TPM is lost: mcpist restore FILE"
            }
            C::VersionMismatch => "use the mcpist of the same version as mcpistd",
            C::Internal => "journalctl -u mcpistd",
        })
    }

    /// The exit status of the command line: 2 when the store is sealed, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Sealed => EXIT_SEALED,
            _ => EXIT_FAILURE,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    /// Takes a code of a newer program as [`ErrorCode::Internal`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = ErrorCode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error code")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ErrorCode, E> {
                Ok(ErrorCode::parse_or_internal(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_own_text_and_reads_back() {
        let mut seen = BTreeSet::new();
        for code in ErrorCode::ALL {
            let text = code.as_str();
            assert!(seen.insert(text), "{text} twice");
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{text}"
            );
            assert_eq!(ErrorCode::parse(text), Some(*code));
            assert!((400..600).contains(&code.http_status()), "{text}");
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
    }

    #[test]
    fn every_code_has_a_next_step() {
        for code in ErrorCode::ALL {
            assert!(code.next().is_some_and(|next| next.len() > 8), "{code}");
        }
    }

    #[test]
    fn only_a_sealed_store_exits_with_two() {
        for code in ErrorCode::ALL {
            let expected = if *code == ErrorCode::Sealed { 2 } else { 1 };
            assert_eq!(code.exit_code(), expected, "{code}");
        }
    }

    #[test]
    fn a_code_of_a_newer_program_is_internal_and_not_a_parse_error() {
        assert_eq!(
            serde_json::from_str::<ErrorCode>("\"made_up_later\"").unwrap(),
            ErrorCode::Internal
        );
        assert!(serde_json::from_str::<ErrorCode>("7").is_err());
    }
}
