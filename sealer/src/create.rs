//! Init's commit: a new store appears whole or not at all.
//!
//! control.db is built under another name, with its keys, its first records and its first head, synced,
//! and then renamed: the rename is the commit point. An init that was interrupted before leaves a file that
//! the next one drops, and no store. Until a store has been opened for the first time it can be replaced in the same
//! way: nothing is in it yet.

use std::path::Path;
use std::sync::Arc;

use mcpist_quorum::{Incarnation, RecordError, SealConfig};
use mcpist_secret::{Key, MemoryError};

use crate::barrier::Options;
use crate::batch::{Op, check_batch};
use crate::commit::{Extra, RawPut};
use crate::disk::Role;
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::{KeyCell, VaultKeys, wrap_audit, wrap_root};
use crate::ledger::{Inbox, Ledger};
use crate::record::Place;
use crate::rows::{RowsError, SharedBackend, Table};
use crate::sqlite::Sqlite;
use crate::store::{Store, StoreError};
use crate::verify::Candidate;

/// Rows of the table `config`.
pub(crate) const CONFIG: &[u8] = b"config";
pub(crate) const ROOT: &[u8] = b"root";
pub(crate) const AUDIT: &[u8] = b"audit";

/// Why no store was made. There is none then.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first records cannot be stored.
    #[error("the first records: {0}")]
    Records(#[from] VaultError),
    /// A key could not be made or wrapped.
    #[error("the store's keys could not be made: {0}")]
    Keys(#[from] RecordError),
    /// No secret memory, or no randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The database could not be written.
    #[error("control.db could not be written: {0}")]
    Database(String),
}

impl From<RowsError> for CreateError {
    fn from(error: RowsError) -> Self {
        CreateError::Database(error.to_string())
    }
}

/// Makes a store in `dir`, which is made where it is missing. It is sealed; open it with
/// [`crate::Barrier::open`].
///
/// `kek` is the key that wraps the root key ([`mcpist_quorum::Foundation::kek`], or `derive_kek` of the split
/// secret), `clock` is in seconds since 1970.
///
/// # Errors
/// [`CreateError`]; among them [`StoreError::Exists`].
pub fn create(dir: &Path, config: SealConfig, kek: &Key, clock: u64) -> Result<(), CreateError> {
    create_with(dir, config, kek, clock, Vec::new())
}

/// Like [`create`], with the first records of the system vault: they appear with the store.
///
/// # Errors
/// [`CreateError`].
pub fn create_with(
    dir: &Path,
    config: SealConfig,
    kek: &Key,
    clock: u64,
    first: Vec<Op>,
) -> Result<(), CreateError> {
    create_on(Arc::new(Sqlite), dir, &config, kek, clock, &first)
}

/// Like [`create_with`], in the place of the store in `dir`, which nobody has opened yet: one rename replaces it.
/// That it was never opened is for the caller to know; its barrier is dropped before.
///
/// # Errors
/// [`CreateError`]; among them [`StoreError::InUse`]. The store in `dir` is there as before.
pub fn replace_with(
    dir: &Path,
    config: SealConfig,
    kek: &Key,
    clock: u64,
    first: Vec<Op>,
) -> Result<(), CreateError> {
    let store = Store::prepare_again(dir)?;
    create_in(&store, Arc::new(Sqlite), &config, kek, clock, &first)
}

pub(crate) fn create_on(
    backend: SharedBackend,
    dir: &Path,
    config: &SealConfig,
    kek: &Key,
    clock: u64,
    first: &[Op],
) -> Result<(), CreateError> {
    create_in(&Store::prepare(dir)?, backend, config, kek, clock, first)
}

fn create_in(
    store: &Arc<Store>,
    backend: SharedBackend,
    config: &SealConfig,
    kek: &Key,
    clock: u64,
    first: &[Op],
) -> Result<(), CreateError> {
    if !first.is_empty() {
        check_batch(first)?;
    }
    let (id, config_bytes) = (config.store(), config.to_bytes());
    let (root, audit, keys) = (Key::random()?, Key::random()?, VaultKeys::random()?);
    let puts = vec![
        RawPut(
            Table::Config,
            ROOT.to_vec(),
            wrap_root(kek, &config_bytes, &root)?,
        ),
        RawPut(
            Table::Config,
            AUDIT.to_vec(),
            wrap_audit(&root, id, &audit)?,
        ),
        RawPut(
            Table::Vault,
            VaultId::SYSTEM.as_bytes().to_vec(),
            keys.wrap(&root, id, VaultId::SYSTEM)?,
        ),
        RawPut(Table::Config, CONFIG.to_vec(), config_bytes),
    ];
    let candidate = Candidate {
        place: Place::new(id, VaultId::SYSTEM),
        keys: Arc::new(KeyCell::new(keys)),
        rows: backend.create(&store.new_control()?)?,
        idle: Options::default().idle,
        open: store.lease(),
    };
    let role = Role::System {
        ledger: Ledger::default(),
        inbox: Arc::new(Inbox::default()),
    };
    let mut disk = candidate.empty(Incarnation::first()?, role);
    disk.commit_system(
        first,
        clock,
        Extra {
            puts,
            ..Extra::default()
        },
    )?;
    disk.rows.truncate_log()?;
    disk.rows.close()?;
    drop(disk);
    store.publish_control()?;
    Ok(())
}
