//! Handles: what an unsealed barrier gives out, and the only things that open records.
//!
//! Owns [`OpenVault`]. A handle is cheap to clone and may be used from any thread. Every method but
//! [`OpenVault::open`] blocks on the vault's disk, up to its deadline; call them where blocking is allowed.
//!
//! Promises: [`OpenVault::open`] touches memory only: it takes the read half of the vault's key cell for
//! the length of one decryption, waits for no disk job and no other reader, and works while the vault's disk
//! hangs. After `seal()` every method answers [`VaultError::Sealed`]; a job that was already on the disk may
//! still end, but opens nothing any more. A vault whose file is not what was written is quarantined for the
//! rest of the session, alone: its keys are wiped, and nothing of it opens, not even what is in memory.
//!
//! Does not check expiry, hosts or who asks: the broker and the permit do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcpist_quorum::NameHmac;
use mcpist_secret::Secret;

use crate::batch::{Batch, Committed, Op};
use crate::disk::{Disk, Listed, Slice, Stats};
use crate::error::{Health, VaultError};
use crate::ids::{VaultId, check_record};
use crate::keyring::{KeyCell, VaultKeys};
use crate::own::VaultQuorum;
use crate::pool::{Gathering, Lane, LaneError};
use crate::record::{Meta, RowError, SealedRecord};

/// Names a record of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey<'a> {
    /// The principal that owns it, or nobody.
    pub owner: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
}

/// A vault as all its handles share it.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) id: VaultId,
    pub(crate) created: u64,
    /// The whole store was sealed.
    pub(crate) sealed: Arc<AtomicBool>,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    /// None where the file did not verify.
    pub(crate) lane: Option<Arc<Lane<Disk>>>,
    /// The batches that wait for the lane.
    pub(crate) waiting: Gathering<Disk>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) idle: Duration,
    /// Set once: why the vault is of no use until the store is sealed and unsealed again.
    pub(crate) fault: OnceLock<VaultError>,
    /// The generation of a write that is missing and was not confirmed, or 0.
    pub(crate) missing: AtomicU64,
    /// The quorum of its own that opens it.
    pub(crate) own: Option<RwLock<VaultQuorum>>,
}

/// A handle to one vault of an unsealed store.
#[derive(Clone)]
pub struct OpenVault(pub(crate) Arc<Shared>);

/// How a vault is, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultStatus {
    /// Its name.
    pub name: String,
    /// Its identity, which names its file.
    pub id: VaultId,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Whether it answers.
    pub health: Health,
    /// How many records it holds.
    pub records: u64,
    /// How many batches were committed to it.
    pub generation: u64,
    /// How many of the records stand under an earlier key than the newest.
    pub old_records: u64,
    /// The generation of a write that was announced and is not there, until a custodian confirms it.
    pub last_write_missing: Option<u64>,
    /// Whether a quorum of its own opens it.
    pub has_own_quorum: bool,
    /// Whether its file was not there when it was looked for.
    pub is_gone: bool,
}

impl OpenVault {
    /// The vault's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The vault's identity.
    pub fn id(&self) -> VaultId {
        self.0.id
    }

    /// Reads a record from the disk, still sealed, and compares it with the index.
    ///
    /// # Errors
    /// [`VaultError::NotFound`]; [`VaultError::Quarantined`] where the file shows another row than was
    /// written, which quarantines the vault; the vault is sealed, unavailable or quarantined.
    pub fn load(&self, key: &RecordKey<'_>) -> Result<SealedRecord, VaultError> {
        check_record(key.owner, key.name)?;
        let (owner, name) = (key.owner.unwrap_or("").to_owned(), key.name.to_owned());
        self.run(move |disk| disk.load(&owner, &name))
    }

    /// Opens a record that was loaded from this vault. Memory only; microseconds.
    ///
    /// # Errors
    /// The vault is sealed or quarantined, the record is from another vault, its key was rotated away since it was
    /// loaded ([`VaultError::Rotated`]), or secret memory is full.
    pub fn open(&self, sealed: &SealedRecord) -> Result<Secret, VaultError> {
        if sealed.vault() != self.0.id {
            return Err(VaultError::OtherVault);
        }
        self.0.usable()?;
        self.0
            .keys
            .lend(|keys| sealed.open(keys))?
            .map_err(|error| match error {
                // Loaded before, and its key went with the last record under it.
                RowError::Epoch => VaultError::Rotated,
                error => error.into(),
            })
    }

    /// What may be known of a record without its payload. Reads the disk like [`OpenVault::load`].
    ///
    /// # Errors
    /// Those of [`OpenVault::load`].
    pub fn meta(&self, key: &RecordKey<'_>) -> Result<Meta, VaultError> {
        Ok(self.load(key)?.meta().clone())
    }

    /// The version that a put of this record would give now.
    ///
    /// # Errors
    /// Those of [`OpenVault::load`] but `NotFound`.
    pub fn next_version(&self, key: &RecordKey<'_>) -> Result<u64, VaultError> {
        match self.meta(key) {
            Ok(meta) => Ok(meta.version + 1),
            // Above every version that was deleted.
            Err(VaultError::NotFound(_)) => self.run(|disk| Ok(disk.head.floor + 1)),
            Err(error) => Err(error),
        }
    }

    /// All records, those of `kind` only where one is given, in an order that says nothing.
    ///
    /// Read in slices, between which other jobs of the vault run: what changes meanwhile may be listed as
    /// it was or as it is.
    ///
    /// # Errors
    /// Those of [`OpenVault::load`] but `NotFound`.
    pub fn list(&self, kind: Option<&str>) -> Result<Vec<Listed>, VaultError> {
        let mut found = Vec::new();
        let mut after: Option<NameHmac> = None;
        let mut began = None;
        let mut rows = 0;
        loop {
            let kind = kind.map(str::to_owned);
            let slice: Slice = self.run(move |disk| disk.list(after, kind.as_deref()))?;
            found.extend(slice.found);
            rows += slice.rows;
            let began = *began.get_or_insert(slice.generation);
            if slice.last.is_none() {
                // Nothing was written meanwhile, so every record must have been seen.
                if began == slice.generation && rows != slice.count {
                    return self
                        .faulty(crate::disk::tampered("a record was taken out of the file"));
                }
                return Ok(found);
            }
            after = slice.last;
        }
    }

    /// Applies a batch in one transaction, whole or not at all, and durable when this returns.
    ///
    /// An [`Op::Outbox`] line goes into the outbox of this vault's own database. Batches that wait for the vault at the same
    /// time share a transaction, in the order in which they came: each is judged after those before it, whose refusal costs
    /// it nothing, and is told alone what became of it.
    ///
    /// # Errors
    /// [`VaultError::Conflict`] and [`VaultError::NotFound`] where a record is not in the expected state;
    /// [`VaultError::OutcomeUnknown`] where the disk did not answer in time; names, sizes and the batch
    /// itself; the vault is sealed, unavailable or quarantined.
    pub fn commit(&self, batch: Vec<Op>) -> Result<Committed, VaultError> {
        let batch = Batch::check(batch, now())?;
        self.on_lane(|lane| lane.join(&self.0.waiting, batch))
    }

    /// The outbox lines that were not handed on yet: sequence and line, oldest first, at most 256.
    ///
    /// A line that was handed on may come once more after a crash, under the same sequence.
    ///
    /// # Errors
    /// The vault is sealed, unavailable or quarantined.
    pub fn outbox(&self) -> Result<Vec<(u64, Vec<u8>)>, VaultError> {
        self.run(Disk::outbox)
    }

    /// The sequence that the next outbox line gets; the first ever is 1.
    ///
    /// # Errors
    /// The vault is sealed, unavailable or quarantined.
    pub fn outbox_next(&self) -> Result<u64, VaultError> {
        self.run(|disk| {
            disk.ready()?;
            Ok(disk.head.outbox_next)
        })
    }

    /// Says that the lines up to `through` were handed on. They leave the file with a later commit.
    ///
    /// # Errors
    /// The vault is sealed, unavailable or quarantined.
    pub fn outbox_done(&self, through: u64) -> Result<(), VaultError> {
        self.run(move |disk| disk.outbox_done(through, now()))
    }

    /// How the vault is. Waits for nothing.
    pub fn health(&self) -> Health {
        match (self.0.usable(), &self.0.lane) {
            (Err(VaultError::Sealed | VaultError::VaultSealed(_)), _) => Health::Sealed,
            // Its quorum may still try: the file may be back.
            (Err(VaultError::Gone), _) if self.0.own.is_some() => Health::Sealed,
            (Err(VaultError::Quarantined(reason)), _) => Health::Quarantined(reason),
            (Err(_), _) | (Ok(()), None) => Health::Unavailable,
            (Ok(()), Some(lane)) if lane.is_overdue() => Health::Unavailable,
            (Ok(()), Some(_)) => Health::Ok,
        }
    }

    /// How the vault is, in full. Waits for nothing.
    pub fn status(&self) -> VaultStatus {
        let shared = &*self.0;
        VaultStatus {
            name: shared.name.clone(),
            id: shared.id,
            created: shared.created,
            health: self.health(),
            records: shared.stats.records.load(Ordering::Relaxed),
            generation: shared.stats.generation.load(Ordering::Relaxed),
            old_records: shared.stats.old_records.load(Ordering::Relaxed),
            last_write_missing: Some(shared.missing.load(Ordering::Relaxed)).filter(|g| *g != 0),
            has_own_quorum: shared.own.is_some(),
            is_gone: matches!(shared.fault.get(), Some(VaultError::Gone)),
        }
    }

    /// Runs a job on the vault's disk.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Disk) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.on_lane(|lane| lane.run(job))
    }

    fn on_lane<T>(
        &self,
        job: impl FnOnce(&Lane<Disk>) -> Result<Result<T, VaultError>, LaneError>,
    ) -> Result<T, VaultError> {
        let shared = &*self.0;
        shared.usable()?;
        let Some(lane) = &shared.lane else {
            return Err(VaultError::Unavailable);
        };
        let result = job(lane).map_err(VaultError::from).flatten();
        shared.watch_idle();
        match result {
            Err(error @ VaultError::Quarantined(_)) => self.faulty(error),
            // Whether the store was sealed meanwhile, or this vault alone.
            Err(VaultError::Sealed) => shared.usable().and(Err(VaultError::Sealed)),
            other => other,
        }
    }

    pub(crate) fn faulty<T>(&self, error: VaultError) -> Result<T, VaultError> {
        let fault = self.0.fault.get_or_init(|| {
            log::error!("vault {}: {error}", self.0.name);
            error
        });
        self.0.keys.revoke();
        Err(fault.clone())
    }
}

impl Shared {
    fn usable(&self) -> Result<(), VaultError> {
        if self.sealed.load(Ordering::Acquire) {
            return Err(VaultError::Sealed);
        }
        self.fault.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Has the connection closed once it was idle for long enough.
    pub(crate) fn watch_idle(&self) {
        if let Some(lane) = &self.lane
            && !self.stats.waking.swap(true, Ordering::Relaxed)
        {
            lane.wake_in(self.idle);
        }
    }
}

/// Seconds since 1970 by the host's clock; a clock before that counts as 0.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
