//! What a vault answers when it does not do what was asked. No I/O.
//!
//! Owns [`VaultError`], the one error of every operation on an [`crate::OpenVault`], and [`Health`]. Texts
//! name records, vaults and versions, never a payload.

use mcpist_quorum::RecordError;
use mcpist_secret::MemoryError;

use crate::codec::Malformed;
use crate::ids::NameError;
use crate::keyring::Revoked;
use crate::pool::LaneError;
use crate::record::RowError;
use crate::rows::RowsError;
use crate::store::StoreError;

/// Why a vault did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// The store was sealed; this handle is of no more use.
    #[error("the store is sealed: unseal it first")]
    Sealed,
    /// Nothing was done: the vault's disk is slow or hangs. Another vault may well answer.
    #[error("the vault is unavailable, its disk does not answer: try again later")]
    Unavailable,
    /// A change was started, and did not end in time or failed where nobody can look; it may still take effect. Read
    /// before trying again. Every other error but `Quarantined` means that nothing was changed.
    #[error(
        "the vault's disk failed or did not answer in time, and the change may still take effect: read it again"
    )]
    OutcomeUnknown,
    /// What is on disk is not what was written. The vault is of no use until it is restored.
    #[error(
        "the vault is quarantined: {0}; `mcpist vault restore NAME --from BACKUP` takes a backup's, `mcpist vault repair NAME` keeps what the store's quorum still opens"
    )]
    Quarantined(String),
    /// There is no such vault.
    #[error("there is no vault {0:?}: see `mcpist vault list`")]
    NoSuchVault(String),
    /// The vault's name is taken.
    #[error("there is a vault {0:?} already: choose another name")]
    VaultExists(String),
    /// There is no such record.
    #[error("there is no record {0:?} in this vault")]
    NotFound(String),
    /// The record is not in the state that the change expects.
    #[error(
        "the record {name:?} is at version {found}, the change expects {expected}: read it again (0 is none)"
    )]
    Conflict {
        /// The record.
        name: String,
        /// The version that the change was made for; 0 for none.
        expected: u64,
        /// The version that is there; 0 for none.
        found: u64,
    },
    /// A name, kind or host is not acceptable.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A payload or outbox line is too long.
    #[error("{found} bytes are too many, at most {limit} fit")]
    TooLarge {
        /// What was given.
        found: usize,
        /// What fits.
        limit: usize,
    },
    /// A batch is empty, too long, or changes one record twice.
    #[error("a batch holds 1 to {limit} changes, each of another record")]
    Batch {
        /// The most changes in one batch.
        limit: usize,
    },
    /// The sealed record comes from another vault.
    #[error("the sealed record belongs to another vault: load it from this one")]
    OtherVault,
    /// The vault is being rebuilt: it can be read, and takes no change.
    #[error("the vault is being rebuilt and takes no change: try again once that is done")]
    Frozen,
    /// The vault's keys were rotated since the handle or the record was got.
    #[error("the vault's keys were rotated meanwhile: read it again")]
    Rotated,
    /// A vault's records stand under too many keys.
    #[error("the vault {name:?} has {limit} keys in use, which is the most: re-seal it whole")]
    Epochs {
        /// The vault.
        name: String,
        /// The most.
        limit: u32,
    },
    /// The vault's file does not exist: its disk is not mounted, or it was lost.
    #[error(
        "the vault's file is not here: put it back and unseal, or `mcpist vault restore` it from a backup"
    )]
    Gone,
    /// The vault has a quorum of its own, which has not opened it.
    #[error("the vault {0:?} is sealed and waits for its own quorum: `mcpist vault unseal`")]
    VaultSealed(String),
    /// The vault has no quorum of its own.
    #[error("the vault {0:?} has no quorum of its own: the store's opens it")]
    NoOwnQuorum(String),
    /// What is asked would take the vault from its own quorum.
    #[error(
        "the vault {0:?} has a quorum of its own, whose consent a new file would need: begin a new key for it instead"
    )]
    OwnQuorum(String),
    /// The vault is open, and what would replace it waits for its own quorum.
    #[error(
        "the vault {0:?} is open, and what the backup has of it waits for its own quorum: `mcpist vault seal` it first"
    )]
    OwnOpen(String),
    /// The vault is not quarantined.
    #[error("the vault {0:?} is not quarantined: there is nothing to repair")]
    NotQuarantined(String),
    /// The vault serves, and what would replace it may lack what it holds.
    #[error(
        "the vault {0:?} is not quarantined: what was put since the backup would be lost; say so where that is meant"
    )]
    Serves(String),
    /// The vault, or the file of a quarantined one, is not as it was found before.
    #[error("vault {0:?} is not what the plan was made from: look at it again")]
    Moved(String),
    /// There is no such file of a vault that was repaired or restored.
    #[error("no former file {0:?} was kept: see `mcpist status`")]
    NotKept(String),
    /// There is nothing to confirm.
    #[error("the vault {0:?} misses no write: nothing to confirm")]
    NothingMissing(String),
    /// Secret memory could not be had.
    #[error("no secret memory: {0}")]
    Memory(String),
    /// The disk is full. Nothing was changed.
    #[error("the disk is full: {0}; make room and try again")]
    Full(String),
    /// The disk or the database refused. Nothing was changed.
    #[error("the vault's file could not be used: {0}")]
    Storage(String),
}

impl From<Revoked> for VaultError {
    fn from(Revoked: Revoked) -> Self {
        VaultError::Sealed
    }
}

impl From<MemoryError> for VaultError {
    fn from(error: MemoryError) -> Self {
        VaultError::Memory(error.to_string())
    }
}

impl From<Malformed> for VaultError {
    fn from(error: Malformed) -> Self {
        VaultError::Quarantined(error.to_string())
    }
}

impl From<RecordError> for VaultError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Memory(error) => error.into(),
            other => VaultError::Quarantined(other.to_string()),
        }
    }
}

impl From<RowError> for VaultError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Record(error) => error.into(),
            other => VaultError::Quarantined(other.to_string()),
        }
    }
}

impl From<RowsError> for VaultError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Damaged(_) => VaultError::Quarantined(error.to_string()),
            RowsError::Newer { .. } => VaultError::Storage(error.to_string()),
            RowsError::Full(text) => VaultError::Full(text),
            RowsError::Failed(text) => VaultError::Storage(text),
        }
    }
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match &error {
            StoreError::Io { source, .. }
                if matches!(source.kind(), StorageFull | QuotaExceeded) =>
            {
                VaultError::Full(error.to_string())
            }
            _ => VaultError::Storage(error.to_string()),
        }
    }
}

impl From<LaneError> for VaultError {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::NotStarted => VaultError::Unavailable,
            LaneError::Overdue => VaultError::OutcomeUnknown,
            LaneError::Stopped => VaultError::Sealed,
            LaneError::Broken => VaultError::Quarantined("an internal error ended its work".into()),
        }
    }
}

/// How a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Ok,
    /// Its disk hangs. Records that are already in memory still open.
    Unavailable,
    /// What is on disk is not what was written; the reason is for the operator.
    Quarantined(String),
    /// The store is sealed, or the vault is and has a quorum of its own.
    Sealed,
}
