//! The sealer: a store on disk that only a quorum opens, and the vaults in it.
//!
//! A store is a folder: `control.db`, the system vault, and one file per further vault. [`create`] makes one,
//! [`Barrier::open`] takes it for this process, [`Barrier::submit`] takes shares until a quorum is there, and
//! the unsealed barrier gives out [`OpenVault`] handles, which load, open and change records.
//!
//! ```text
//! create ──▶ Barrier<Sealed> ──shares──▶ Barrier<Unsealed> ──▶ OpenVault: load, open, commit, list, outbox
//!                  ▲                            │
//!                  └────────── seal() ──────────┘        every handle is refused from there on
//! ```
//!
//! # Threat model
//! *An adversary with the disk, the store sealed*: reads counts, lengths, versions, times of files, the seal
//! config and the ledger of generations; no name, owner, kind, host or payload. *One who changes the disk*,
//! live or sealed: can destroy. A row that was edited, swapped, moved, added, taken away or put back, a vault
//! file put back alone, an edited seal config, a ledger row put back: each is found, at the latest at the next
//! unseal, and quarantines that vault alone (control.db: fails the unseal). A write that was announced and is
//! missing is shown, not guessed about. *The whole disk put back* is not seen here; an anchor outside the
//! disk has to tell ([`OpenVault::status`] gives the generations that such an anchor signs).
//!
//! *The same process, compromised*: lost; keys are in its memory while the store is unsealed. What narrows it:
//! keys are in secret memory only ([`mcpist_secret`]), lent for one operation in memory, and wiped at seal.
//!
//! # Where to read on
//! Bytes: `record` (rows), `head`, `ledger`, `outbox`, `keyring` (wraps). Files: `store`, `rows`, `sqlite`. Threads:
//! `pool`, `registrar`. A database in memory: `disk`, changed by `commit`, made by `verify`,
//! compared once more by `reverify`. What others use:
//! `barrier`, `unseal`, `rekey`, `vaults`, `vault`, `batch`, `create`.

mod aside;
mod backup;
mod barrier;
mod batch;
mod codec;
mod commit;
mod create;
mod disk;
mod error;
mod examine;
pub mod fault;
mod head;
mod ids;
mod keyring;
mod ledger;
mod looking;
mod moves;
mod new_vault;
mod orphans;
mod outbox;
mod own;
mod pool;
mod rebuild;
mod record;
mod registrar;
mod rekey;
mod repair;
mod restore;
mod reverify;
mod rotate;
mod rows;
mod schema;
mod sqlite;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod unseal;
mod vault;
mod vault_restore;
mod vaults;
mod verify;

pub use aside::{aside, drilled, is_kept_aside, remove_aside, tidy};
pub use backup::{BackupFault, BackupReport, SourceFile, StoredBackup};
pub use barrier::{Barrier, OpenError, Options, Sealed, Unsealed};
pub use batch::{Committed, Expect, MAX_BATCH, Op};
pub use create::{CreateError, create, create_with, replace_with};
pub use disk::Listed;
pub use error::{Health, VaultError};
pub use examine::Findings;
pub use ids::{NameError, VaultId};
pub use keyring::{AuditKey, AuditKeySealed};
pub use orphans::Leftovers;
pub use own::VaultQuorum;
pub use rebuild::Replaced;
pub use record::{MAX_RECORD, Meta, SealedRecord};
pub use rekey::{Consented, SwitchError};
pub use repair::Repair;
pub use restore::{RestoreError, RestoreFiles, Restored, RestoredSystem, drill, restore};
pub use reverify::Verified;
pub use rotate::Rotation;
pub use store::StoreError;
pub use unseal::{Unseal, UnsealError, UnsealReport};
pub use vault::{OpenVault, RecordKey, VaultStatus};
pub use vault_restore::{VaultInBackup, VaultRestore};
pub use vaults::Vaults;
