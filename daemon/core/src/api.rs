//! What the admin socket and the secret socket say, as types. No I/O, no HTTP.
//!
//! Owns: the paths, the requests, the replies and the one error of the admin API, and the frame around
//! them.
//! Promises: every reply is [`Reply`] or [`Failure`], both with the version of this schema. Requests
//! are strict: an unknown field is an error. Replies are open: a newer daemon may add fields. No type
//! here has a place for a secret; a share leaves the daemon age-encrypted and enters it, like every
//! secret, on the secret socket.
//! Does not: check roles (the daemon does) or print (the command line does).
//!
//! | path | request | reply |
//! |---|---|---|
//! | `GET` [`path::STATUS`] | | [`Status`] |
//! | `POST` [`path::INIT`] | [`InitRequest`] | [`InitPlan`] |
//! | `POST` [`path::INIT_CONFIRM`] | [`InitConfirm`] | [`InitDone`] |
//! | `GET` [`path::UNSEAL`] | | [`UnsealPlan`] |
//! | `POST` [`path::UNSEAL_CANCEL`] | | [`UnsealCancelled`] |
//! | `POST` [`path::SEAL`] | | [`Sealed`] |
//! | `GET`, `POST` [`path::WITNESS`] | [`PresentReceipt`] | [`Receipt`], [`Presented`] |
//! | `GET`, `POST`, `DELETE` [`path::CEREMONY`] | [`CeremonyRequest`] | [`OpenCeremony`], [`Done`] |
//! | `GET` [`path::CEREMONY_SHARES`] | | [`NewShares`] |
//! | `POST` [`path::TICKET`] | [`TicketRequest`] | [`Ticket`] |
//! | secret socket, after a frame | | [`Redeemed`] |
//! | `GET`, `POST` [`path::VAULTS`] | [`NewVault`] | [`Vaults`], [`Done`] |
//! | `POST` [`path::confirm_last_write`] | | [`Done`] |
//! | `POST` [`path::rotate_vault`] | [`RotateVault`] | [`VaultRotated`] |
//! | `GET` [`path::credentials`] | | [`Credentials`] |
//! | `DELETE` [`path::credential`] | | [`Done`] |
//! | `GET` [`path::PRINCIPALS`], … | | [`Principals`], [`Grants`], [`Bindings`], [`Joins`], [`Registries`] |
//! | `GET`, `POST` [`path::CHANGES`] | [`ProposeChange`] | [`Changes`], [`Proposed`] |
//! | `GET`, `DELETE` [`path::change`] | | [`Proposed`], [`Done`] |
//! | `POST` [`path::approvals`] | [`Approve`] | [`ChangeOutcome`] |
//! | `POST` [`path::MASK_EXPLAIN`] | [`ExplainMask`] | [`Explanation`](crate::mask::Explanation) |
//! | `GET`, `DELETE` [`path::RESTORE`] | | [`OpenRestore`], [`Done`] |
//! | `GET` [`path::RESTORE_RECORD`] | | [`LifeRecord`] |
//! | `GET`, `DELETE` [`path::RESTORE_OLD`] | | [`OldStore`], [`OldRemoved`] |
//! | `GET` [`path::AUDIT_HEAD`] | | [`AuditHead`] |
//! | `POST` [`path::AUDIT_LINES`] | [`AskLines`] | [`Lines`] |
//! | `POST` [`path::AUDIT_MATCH`] | [`MatchArguments`] | [`Matched`] |
//! | `POST` [`path::AUDIT_CONFIRM`] | [`ConfirmExport`] | [`Confirmed`] |

mod audit;
mod backup;
mod ceremony;
pub mod path;
mod policy;
mod status;
mod text;
mod vault;
mod witness;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use audit::{
    AskLines, ConfirmExport, Confirmed, Cursor, ExportFrom, Exported, Lines, LinesFrom,
    MatchArguments, Matched,
};
pub use backup::{
    BackupMade, Carried, DrillDone, LastBackup, LeftOut, LifeRecord, OldRemoved, OldStore,
    OpenRestore, RestoreDone, RestoreStatus,
};
pub use ceremony::{
    CeremonyAct, CeremonyDone, CeremonyPhase, CeremonyRequest, DeliveredShare, InitConfirm,
    InitDone, InitPlan, InitRequest, NewHolder, NewOfficer, NewShares, OpenCeremony, Progress,
    Purpose, Redeemed, ShareOutcome, Shares, Ticket, TicketRequest, UnsealCancelled, UnsealPlan,
    Unsealed,
};
pub use policy::{
    Approve, Bindings, ChangeOutcome, Changes, ExplainMask, Grants, Imported, Joins, NamedRegistry,
    Principals, ProposeChange, Proposed, Registries, Registry, RegistryState, WaitingChange,
};
pub use status::{
    Alarm, AuditHead, CeremonyStatus, MemoryStatus, ModuleState, ModuleStatus, ProcessStatus,
    ReadingStatus, RotationStatus, RunnerStatus, Status, StoreState, VaultHealth, VaultStatus,
};
pub use text::{Base64, PublicKey};
pub use vault::{
    Credential, CredentialStored, Credentials, DamagedDiscarded, LostCredential, NewVault,
    RepairVault, RotateVault, VaultFindings, VaultInBackup, VaultRepaired, VaultRestored,
    VaultRotated, VaultVerified, Vaults,
};
pub use witness::{PresentReceipt, Presented, Receipt, Sealed, WitnessStatus};

use crate::error::ErrorCode;
use crate::text::excerpt;

/// Version of this schema: counts up when a field is removed or changes its meaning.
pub const SCHEMA: u16 = 1;
/// Longest request and reply in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A successful reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply<T> {
    /// [`SCHEMA`].
    pub schema: u16,
    /// What was asked for.
    pub data: T,
}

impl<T> Reply<T> {
    /// A reply of this version.
    pub fn new(data: T) -> Reply<T> {
        Reply {
            schema: SCHEMA,
            data,
        }
    }
}

/// An unsuccessful reply. Its HTTP status is the code's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// [`SCHEMA`].
    pub schema: u16,
    /// Why.
    pub error: ApiError,
}

/// What, why and the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The stable code.
    pub code: ErrorCode,
    /// What went wrong, in words; bounded and free of control characters.
    pub message: String,
    /// The code of the part that refused, where it has codes of its own: `bad_signature` of a bundle, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The next command or act, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl ApiError {
    /// Longest message and next step in bytes.
    pub const MAX_TEXT: usize = 512;

    /// An error in the words of its code.
    pub fn of(code: ErrorCode) -> ApiError {
        ApiError {
            code,
            message: code.about().to_owned(),
            reason: None,
            next: code.next().map(str::to_owned),
        }
    }

    /// An error in words of its own, bounded and escaped, with the usual next step of its code.
    pub fn new(code: ErrorCode, message: &str) -> ApiError {
        ApiError {
            message: excerpt(message, ApiError::MAX_TEXT),
            ..ApiError::of(code)
        }
    }

    /// The same with the code of the part that refused.
    #[must_use]
    pub fn reason(self, reason: &str) -> ApiError {
        ApiError {
            reason: Some(excerpt(reason, ApiError::MAX_TEXT)),
            ..self
        }
    }

    /// The same with another next step.
    #[must_use]
    pub fn next(self, next: &str) -> ApiError {
        ApiError {
            next: Some(excerpt(next, ApiError::MAX_TEXT)),
            ..self
        }
    }

    /// The whole reply.
    pub fn into_failure(self) -> Failure {
        Failure {
            schema: SCHEMA,
            error: self,
        }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> ApiError {
        ApiError::of(code)
    }
}

/// The reply to an act that has nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}
