//! The writing end of the audit log, and the thread that makes its lines durable.
//!
//! Owns the chain, the newest segment and the checkpoint keys. A line is hashed and written by one `pwrite` under a
//! short mutex that is never held across an await; a thread of its own calls `fdatasync`, at once for whoever waits
//! and within [`GROUP`] for all others, and signs a checkpoint over what is synced.
//!
//! Promises: fail closed. Where a line cannot be written the caller gets an error, and the chain stands where it
//! stood, so that the log goes on by itself once there is space again. A checkpoint signs only synced lines; its
//! bytes and the next key are in the store, and the old key is gone from it, before its line is in the file.
//! Does not: decide what is recorded ([`mcpist_core::event`]).

mod keys;
mod segment;
mod spare;
mod sync;
mod writer;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use mcpist_core::audit::{Body, Copied, Seq, UnixMs};
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use tokio::sync::watch;

pub(crate) use keys::{CheckpointStore, FirstKey, SystemVault};
pub(crate) use segment::OpenError;
use spare::Spare;
use writer::Writer;

/// A line that nobody waits for is noticed within this time and synced within as much again: 200 ms are promised.
pub(crate) const GROUP: Duration = Duration::from_millis(90);

/// What a thread that may block waits for durability at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a line was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditError {
    /// The store is sealed: there is no key to go on with.
    #[error("the audit log is closed while the store is sealed")]
    Closed,
    /// The disk refused the line; it was taken back whole.
    #[error("the audit log cannot be written: {0}")]
    Write(std::io::ErrorKind),
    /// The disk refused to make lines durable. Nothing more is accepted until the log is opened anew.
    #[error("the audit log cannot be made durable; seal, mend the disk, unseal")]
    Sync,
}

/// The wall clock for lines. Order and integrity come from the chain, never from this.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The log of one process, open while the store is unsealed.
pub(crate) struct Audit {
    /// A new one for each opening, so that a thread that was given up on can disturb no later log.
    shared: ArcSwap<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    tail: Mutex<Tail>,
    /// Tells the thread that something is to be synced now, or that the log closes.
    wake: Condvar,
    /// The last sequence that is on disk, or that syncing failed.
    synced: watch::Sender<Synced>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synced {
    Through(u64),
    Failed,
}

/// What the mutex guards: microseconds of work each time.
#[derive(Default)]
struct Tail {
    writer: Option<Writer>,
    /// Somebody waits for durability.
    urgent: bool,
    closing: bool,
}

impl Shared {
    fn hurry(&self) {
        self.tail().urgent = true;
        self.wake.notify_all();
    }

    fn new(writer: Option<Writer>) -> Self {
        let through = writer.as_ref().map_or(0, |w| w.chain.anchor().seq);
        Self {
            tail: Mutex::new(Tail {
                writer,
                urgent: false,
                closing: false,
            }),
            wake: Condvar::new(),
            synced: watch::Sender::new(Synced::Through(through)),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audit {
    /// A log that is closed.
    pub(crate) fn closed() -> Self {
        Self {
            shared: ArcSwap::from_pointee(Shared::new(None)),
            thread: Mutex::new(None),
        }
    }

    /// Opens the log in `folder` with the keys of `store`, mends a torn end and starts the thread. Each segment gets
    /// `reserve` bytes beforehand and is full shortly before. Returns the outbox rows that are in the log already, by
    /// vault.
    pub(crate) fn open(
        &self,
        folder: &Path,
        store: Box<dyn CheckpointStore>,
        reserve: u64,
    ) -> Result<Copied, OpenError> {
        let keys = keys::Keys::load(store)?;
        let segment = segment::open(folder, keys.genesis(), keys.newest(), reserve, now())?;
        let spare = Spare::after(folder, segment.number, reserve);
        let writer = Writer::new(segment);
        let copied = writer.copied().clone();
        let shared = Arc::new(Shared::new(Some(writer)));
        self.shared.store(Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || sync::run(&shared, keys, spare))
            .map_err(|source| OpenError::Io {
                path: folder.to_owned(),
                source,
            })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(copied)
    }

    /// Appends the line of `event`. It is on disk within [`GROUP`]; [`Audit::synced`] waits for it.
    pub(crate) fn append(&self, event: &Event<'_>) -> Result<Seq, AuditError> {
        self.write(|writer| writer.write(|chain, line| chain.append(now(), event, line)))
    }

    /// Appends the line of an outbox row.
    pub(crate) fn append_outbox(
        &self,
        vault: &VaultName,
        row: u64,
        body: &Body,
    ) -> Result<Seq, AuditError> {
        self.write(|writer| writer.write_outbox(now(), vault, row, body))
    }

    fn write(
        &self,
        write: impl FnOnce(&mut Writer) -> Result<Seq, AuditError>,
    ) -> Result<Seq, AuditError> {
        let shared = self.shared.load();
        let mut tail = shared.tail();
        let closing = tail.closing;
        let writer = tail.writer.as_mut().filter(|_| !closing);
        write(writer.ok_or(AuditError::Closed)?)
    }

    /// Whether one more line could be written now. For an act whose line follows it: what the log has no room for is
    /// refused before it is done.
    pub(crate) fn has_room(&self) -> Result<(), AuditError> {
        let shared = self.shared.load();
        let tail = shared.tail();
        tail.writer.as_ref().ok_or(AuditError::Closed)?.has_room()
    }

    /// Waits until line `seq` is on disk.
    pub(crate) async fn synced(&self, seq: Seq) -> Result<(), AuditError> {
        let shared = self.shared.load_full();
        let mut synced = shared.synced.subscribe();
        shared.hurry();
        let done = synced
            .wait_for(|s| match s {
                Synced::Through(through) => *through >= seq.0,
                Synced::Failed => true,
            })
            .await;
        match done.as_deref() {
            Ok(Synced::Through(_)) => Ok(()),
            Ok(Synced::Failed) | Err(_) => Err(AuditError::Sync),
        }
    }

    /// [`Audit::synced`] for a thread that may block.
    pub(crate) fn synced_blocking(&self, seq: Seq) -> Result<(), AuditError> {
        let shared = self.shared.load_full();
        let deadline = Instant::now() + PATIENCE;
        let mut tail = shared.tail();
        loop {
            match *shared.synced.borrow() {
                Synced::Through(through) if through >= seq.0 => return Ok(()),
                Synced::Failed => return Err(AuditError::Sync),
                Synced::Through(_) => {}
            }
            if tail.writer.is_none() {
                return Err(AuditError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AuditError::Sync);
            }
            tail.urgent = true;
            shared.wake.notify_all();
            tail = shared
                .wake
                .wait_timeout(tail, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Head and number of lines now, for `mcpist audit head`.
    pub(crate) fn head(&self) -> Option<mcpist_core::audit::Anchor> {
        let shared = self.shared.load();
        let tail = shared.tail();
        tail.writer.as_ref().map(|w| *w.chain.anchor())
    }

    /// Writes and syncs what is pending, signs a last checkpoint and closes. Gives up after `patience`: then the
    /// answer is false, and the caller reports `audit_lost`.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let shared = self.shared.load_full();
        let deadline = Instant::now() + patience;
        let mut tail = shared.tail();
        tail.closing = true;
        shared.wake.notify_all();
        while tail.writer.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tail.writer = None;
                return false;
            }
            tail = shared
                .wake
                .wait_timeout(tail, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(tail);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        thread.is_none_or(|t| t.join().is_ok()) && *shared.synced.borrow() != Synced::Failed
    }
}

#[cfg(test)]
mod tests;
