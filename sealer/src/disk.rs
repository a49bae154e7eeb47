//! One database as its lane holds it: the file, the index in memory, and the head they must agree on.
//!
//! Owns [`Disk`] and its reading side; [`crate::commit`] changes it and [`crate::verify`] makes it.
//! Promises: a row that is read is compared with the index first, so one that was put back, taken away
//! or swapped under the live store is [`VaultError::Quarantined`], never an answer; keys are lent per row in
//! memory and never while the file is touched; after a commit whose outcome is unknown nothing is read or
//! written until the file has shown which head it has.
//!
//! Does not decide what a quarantine means for handles; [`crate::vault`] does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcpist_quorum::{Buckets, Entry, NameHmac};

use crate::backup::Journal;
use crate::batch::{Batch, Committed, MAX_GROUP};
use crate::commit::Doubt;
use crate::error::VaultError;
use crate::head::HeadState;
use crate::keyring::{Epoch, KeyCell, VaultKeys};
use crate::ledger::{Inbox, Ledger};
use crate::outbox::Standing;
use crate::pool::{LaneState, Together};
use crate::record::{
    Meta, OWNER_VAULTS, Opened, Place, Row, RowError, SealedRecord, name_from_key, name_of,
    open_outbox,
};
use crate::registrar::Registrar;
use crate::rows::{Access, Rows, Table};
use crate::store::OpenGuard;

/// The most outbox lines that are handed out at once.
const OUTBOX_SLICE: usize = 256;
/// How soon control.db is tried again when it did not take what waits for it.
const RETRY: Duration = Duration::from_secs(1);
/// How many records of a listing are read in one job.
pub(crate) const LIST_SLICE: usize = 256;

/// What sets control.db apart from the other databases.
pub(crate) enum Role {
    /// control.db: it keeps the ledger, and takes the inbox along with every transaction.
    System { ledger: Ledger, inbox: Arc<Inbox> },
    /// A vault: it announces its writes.
    Vault(Arc<Registrar>),
}

/// Figures that are read without waiting for the lane.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) records: AtomicU64,
    pub(crate) generation: AtomicU64,
    /// Records under a data key that is not the newest.
    pub(crate) old_records: AtomicU64,
    /// The vault is being rebuilt: it takes no change.
    pub(crate) frozen: AtomicBool,
    /// A wake of the lane is on its way.
    pub(crate) waking: AtomicBool,
    /// What a backup that is being made has to read again.
    pub(crate) journal: Journal,
}

/// An open database.
pub(crate) struct Disk {
    pub(crate) place: Place,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) rows: Box<dyn Rows>,
    pub(crate) buckets: Buckets,
    pub(crate) head: HeadState,
    /// The head row as it stands in the file; empty before the first commit.
    pub(crate) head_row: Vec<u8>,
    pub(crate) doubt: Option<Doubt>,
    /// Outbox lines below this one were handed on; they leave the file with the next commit.
    pub(crate) outbox_handed: u64,
    pub(crate) standing: Standing,
    /// How many records stand under each data key that is not the newest.
    pub(crate) old_epochs: BTreeMap<Epoch, u64>,
    /// What was erased still stands in the log, which was not yet truncated.
    pub(crate) log_due: bool,
    pub(crate) role: Role,
    pub(crate) stats: Arc<Stats>,
    pub(crate) idle: Duration,
    pub(crate) used: Instant,
    /// Last, so that the file is closed before it counts as closed.
    pub(crate) _open: OpenGuard,
}

/// A record found by a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The principal that owns it, if it is nobody's shared one.
    pub owner: Option<String>,
    /// Its name.
    pub name: String,
    /// Version, kind, expiry, hosts.
    pub meta: Meta,
}

/// A slice of a listing.
pub(crate) struct Slice {
    pub(crate) found: Vec<Listed>,
    pub(crate) rows: u64,
    pub(crate) last: Option<NameHmac>,
    /// The vault's state while it was read.
    pub(crate) generation: u64,
    pub(crate) count: u64,
}

impl Disk {
    /// Called at the start of every job.
    pub(crate) fn ready(&mut self) -> Result<(), VaultError> {
        self.used = Instant::now();
        self.rows.expect(self.buckets.count());
        self.resolve_doubt()
    }

    /// Whether the database takes changes.
    pub(crate) fn is_free(&self) -> Result<(), VaultError> {
        if self.stats.frozen.load(Ordering::Acquire) {
            return Err(VaultError::Frozen);
        }
        Ok(())
    }

    /// Reads one record, still sealed.
    pub(crate) fn load(&mut self, owner: &str, name: &str) -> Result<SealedRecord, VaultError> {
        self.ready()?;
        let key = self
            .keys
            .lend(|keys| name_of(keys, &self.place, owner, name))?;
        let known = self.buckets.get(&key);
        let bytes = self.rows.get(Table::Record, key.as_bytes())?;
        let Some(row) = checked(known, &key, bytes.as_deref())? else {
            return Err(VaultError::NotFound(name.to_owned()));
        };
        let (opened, _) = self.keys.lend(|keys| row.open(keys, &self.place, &key))??;
        Ok(row.keep(&self.place, key, opened))
    }

    /// Reads the metas of the records after `after`, those of `kind` only where one is given.
    pub(crate) fn list(
        &mut self,
        after: Option<NameHmac>,
        kind: Option<&str>,
    ) -> Result<Slice, VaultError> {
        self.ready()?;
        let after = after.as_ref().map(|name| name.as_bytes().as_slice());
        let rows = self
            .rows
            .begin(Access::Read)?
            .scan(Table::Record, after, LIST_SLICE)?;
        let mut slice = Slice {
            found: Vec::new(),
            rows: 0,
            last: None,
            generation: self.head.head.generation,
            count: self.buckets.count(),
        };
        for (key, bytes) in &rows {
            let name = name_from_key(key)?;
            let Some(row) = checked(self.buckets.get(&name), &name, Some(bytes))? else {
                continue;
            };
            let (opened, _) = self
                .keys
                .lend(|keys| row.open(keys, &self.place, &name))??;
            let Opened {
                owner,
                name: text,
                meta,
            } = opened;
            slice.rows += 1;
            slice.last = Some(name);
            if owner != OWNER_VAULTS && kind.is_none_or(|kind| kind == meta.kind) {
                let owner = Some(owner).filter(|owner| !owner.is_empty());
                slice.found.push(Listed {
                    owner,
                    name: text,
                    meta,
                });
            }
        }
        Ok(slice)
    }

    /// The outbox lines that were not yet handed on, oldest first, at most 256.
    pub(crate) fn outbox(&mut self) -> Result<Vec<(u64, Vec<u8>)>, VaultError> {
        self.ready()?;
        self.outbox_from(self.outbox_handed)
    }

    /// The outbox lines that stand in the file from `first` on, at most 256.
    pub(crate) fn outbox_from(&mut self, first: u64) -> Result<Vec<(u64, Vec<u8>)>, VaultError> {
        let after = (first - 1).to_be_bytes();
        let rows =
            self.rows
                .begin(Access::Read)?
                .scan(Table::Outbox, Some(&after), OUTBOX_SLICE)?;
        let waiting = self.head.outbox_next - first;
        if rows.len() as u64 != waiting.min(OUTBOX_SLICE as u64) {
            return Err(tampered("outbox lines were taken out of the file"));
        }
        let mut lines = Vec::with_capacity(rows.len());
        for ((key, sealed), sequence) in rows.iter().zip(first..) {
            if key.as_slice() != sequence.to_be_bytes() {
                return Err(tampered("outbox lines were moved in the file"));
            }
            let before = sequence - self.head.outbox_first;
            if !self.standing.holds(before, sealed) {
                return Err(tampered("an outbox line was replaced in the file"));
            }
            let line = self
                .keys
                .lend(|keys| open_outbox(keys, &self.place, sequence, sealed))??;
            lines.push((sequence, line.expose().to_vec()));
        }
        Ok(lines)
    }

    /// Takes over a head that is durable.
    pub(crate) fn adopt(&mut self, head: HeadState, head_row: Vec<u8>, standing: Standing) {
        self.head = head;
        self.standing = standing;
        self.head_row = head_row;
        self.publish_stats();
    }

    pub(crate) fn publish_stats(&self) {
        self.stats
            .records
            .store(self.buckets.count(), Ordering::Relaxed);
        self.stats
            .generation
            .store(self.head.head.generation, Ordering::Relaxed);
        self.stats
            .old_records
            .store(self.old_epochs.values().sum(), Ordering::Relaxed);
    }
}

impl Together for Disk {
    type Part = Batch;
    type Answer = Result<Committed, VaultError>;
    const MOST: usize = MAX_GROUP;

    fn size(part: &Batch) -> usize {
        part.size()
    }

    fn together(&mut self, parts: Vec<Batch>) -> Vec<Self::Answer> {
        let asked: Vec<_> = parts.iter().map(|b| (b.ops.as_slice(), b.now)).collect();
        self.commit_all(&asked)
    }
}

impl LaneState for Disk {
    fn wake(&mut self) -> Option<Duration> {
        if let Err(error) = self.flush() {
            log::warn!("control.db did not take the ends of writes, they wait: {error}");
            return Some(RETRY);
        }
        self.truncate_log();
        let left = self.idle.saturating_sub(self.used.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        if let Err(error) = self.rows.close() {
            log::warn!("an idle database did not close cleanly: {error}");
        }
        self.stats.waking.store(false, Ordering::Relaxed);
        None
    }
}

/// What the file has under a name is not what the index knows there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unlike {
    #[error("a record was taken out of the file")]
    Gone,
    #[error("a record was put back into the file")]
    Added,
    #[error("a record was replaced in the file")]
    Replaced,
    #[error(transparent)]
    Damaged(#[from] RowError),
}

impl From<Unlike> for VaultError {
    fn from(unlike: Unlike) -> Self {
        match unlike {
            Unlike::Damaged(error) => error.into(),
            unlike => tampered(&unlike.to_string()),
        }
    }
}

/// The row that the file has under `name`, if it is the one that the index knows there. None where neither has one.
pub(crate) fn checked<'r>(
    known: Option<Entry>,
    name: &NameHmac,
    bytes: Option<&'r [u8]>,
) -> Result<Option<Row<'r>>, Unlike> {
    let (known, row) = match (known, bytes) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(Unlike::Gone),
        (None, Some(_)) => return Err(Unlike::Added),
        (Some(known), Some(bytes)) => (known, Row::parse(bytes)?),
    };
    if row.entry(name) == known {
        Ok(Some(row))
    } else {
        Err(Unlike::Replaced)
    }
}

/// The file does not hold what was written.
pub(crate) fn tampered(what: &str) -> VaultError {
    VaultError::Quarantined(what.to_owned())
}
