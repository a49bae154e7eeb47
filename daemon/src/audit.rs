//! The writing end of the audit log, and the thread that makes its lines durable.
//!
//! Owns the chain, the newest segment and the checkpoint keys. A line is hashed and written by one `pwrite` under a
//! short mutex that is never held across an await; a thread of its own calls `fdatasync`, at once for whoever waits
//! and within [`GROUP`] for all others, and signs a checkpoint over what is synced.
//!
//! Promises: fail closed. Where a line cannot be written the caller gets an error, and the chain stands where it
//! stood, so that the log goes on by itself once there is space again. A checkpoint signs only synced lines; its
//! bytes and the next key are in the store, and the old key is gone from it, before its line is in the file. Calls whose
//! outcome found no line are counted, and the count is the first line once the log takes lines again.
//! Does not: decide what is recorded ([`mcpist_core::event`]).

mod boot;
mod budget;
mod confirm;
mod disk;
mod export;
mod keys;
mod lines;
mod ready;
mod segment;
mod spare;
mod sweep;
mod sync;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use mcpist_core::audit::{Anchor, Body, Logged, Seq, UnixMs};
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use serde::Deserialize;
use tokio::sync::watch;

use boot::Boot;
pub(crate) use budget::Asker;
use budget::Budgets;
pub(crate) use confirm::ConfirmError;
use disk::Disk;
pub(crate) use disk::room_beside;
pub(crate) use export::ExportError;
use export::Place;
pub(crate) use keys::{CheckpointStore, FirstKey, SystemVault};
pub(crate) use keys::{NAME as CHECKPOINT_RECORD, first_key, signed_head};
pub(crate) use lines::{end as log_end, read as read_lines};
pub(crate) use ready::{Unready, ready};
pub(crate) use segment::OpenError;
use spare::Spare;
use sweep::Sweep;
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
    /// The line is written, and the disk has not made it durable yet. No failure of what the line is about.
    #[error(
        "what was asked is done and its audit line written; the log's disk has not confirmed it within 5 s, see to that disk"
    )]
    Slow,
}

/// When a segment gives way to the next, and when it may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// Bytes that a segment gets beforehand; it is full shortly before.
    pub(crate) bytes: u64,
    /// Seconds after which the next one begins in any case.
    pub(crate) age: u64,
    /// Segments that stay although they may leave.
    pub(crate) keep: usize,
    /// What lets the others leave.
    pub(crate) remove: Remove,
}

/// What lets a segment leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Remove {
    /// An export of its lines that a second auditor has confirmed: no one person makes history vanish.
    #[default]
    Confirmed,
    /// An export of its lines.
    Exported,
}

/// How the log is.
pub(crate) struct State {
    /// Where it stands; nowhere while it is closed.
    pub(crate) head: Option<Anchor>,
    /// What its disk is in need of.
    pub(crate) trouble: Option<Trouble>,
}

/// What an operator has to do something about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The next line would be refused so.
    Refused(AuditError),
    /// Nothing after this many lines is signed.
    Unsigned(u64),
    /// This many bytes are left for all.
    Low(u64),
    /// Segments stay, since nobody has confirmed the export of the lines up to this one.
    Unconfirmed(u64),
    /// The log is closed and could not be opened.
    Unready(Unready),
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
    /// What waits for the next opening.
    boot: Mutex<Boot>,
    /// Calls whose outcome is in no line, and which no line counts yet.
    lost: AtomicU64,
    /// Whether lines are on their way to a medium.
    exporting: Place,
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
    /// What was asked for, as far as it has no line of its own.
    budgets: Budgets,
    /// Somebody waits for durability.
    urgent: bool,
    closing: bool,
    /// The last checkpoint that was due could not be signed; as the log closes, or not be written.
    unsigned: bool,
    /// Bytes left on the disk, while they are few.
    low: Option<u64>,
    /// Somebody wants a checkpoint now.
    sign: bool,
    /// How often that was tried.
    answered: u64,
    /// Lines up to this one are exported, and segments of them wait for a second auditor.
    unconfirmed: Option<u64>,
    /// Somebody exported lines or confirmed that: segments may leave.
    sweep: bool,
}

impl Tail {
    /// Writes what was counted and has no line.
    fn settle(&mut self) {
        if let Some(writer) = self.writer.as_mut() {
            self.budgets.settle_all(writer);
        }
    }
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
                ..Tail::default()
            }),
            wake: Condvar::new(),
            synced: watch::Sender::new(Synced::Through(through)),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the waiters. The mutex is held: nobody is between its check and its wait then.
    fn tell(&self, _held: &mut Tail, synced: Synced) {
        self.synced.send_replace(synced);
        self.wake.notify_all();
    }
}

impl Audit {
    /// A log that is closed.
    pub(crate) fn closed() -> Self {
        Self {
            shared: ArcSwap::from_pointee(Shared::new(None)),
            boot: Mutex::default(),
            lost: AtomicU64::new(0),
            exporting: Place::default(),
        }
    }

    /// Notes the start of the process, for the first opening.
    pub(crate) fn started(&self, dev: bool) {
        self.boot().started(dev);
    }

    fn boot(&self) -> MutexGuard<'_, Boot> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the log in `folder` with the keys of `store`, mends a torn end and starts the thread. Returns the outbox rows
    /// that the log names already.
    pub(crate) fn open(
        &self,
        folder: &Path,
        store: Box<dyn CheckpointStore>,
        rotation: Rotation,
    ) -> Result<Logged, OpenError> {
        let reserve = rotation.bytes;
        let keys = keys::Keys::load(store)?;
        let segment = segment::open(folder, keys.genesis(), keys.newest(), reserve, now())?;
        let tools = sync::Tools {
            keys,
            spare: Spare::after(folder, segment.number, reserve),
            disk: Disk::of(folder, reserve),
            sweep: Sweep::of(folder, rotation.keep, rotation.remove),
            age: rotation.age,
        };
        let logged = segment.outbox.clone();
        let mut writer = Writer::new(segment);
        // Not under its mutex: who notes something must not wait for a disk.
        let mut boot = std::mem::take(&mut *self.boot());
        if let Err(e) = boot.write(&mut writer) {
            log::warn!("audit log: what came before it opened waits for the next opening: {e}");
            self.boot().put_back(boot);
        }
        let shared = Arc::new(Shared::new(Some(writer)));
        self.shared.store(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || sync::run(&shared, tools))
            .map_err(|source| OpenError::Io {
                path: folder.to_owned(),
                source,
            })?;
        Ok(logged)
    }

    /// Appends the line of `event`. It is on disk within [`GROUP`]; [`Audit::synced`] waits for it. While the log is
    /// closed, what stands for itself is noted for its next opening.
    pub(crate) fn append(&self, event: &Event<'_>) -> Result<Seq, AuditError> {
        self.note_closed(event, self.write(|writer, _| writer.append(event)))
    }

    /// [`Audit::append`] for what `asker` can ask for without end, at `at`; counted where it had its share of lines.
    pub(crate) fn append_limited(
        &self,
        asker: Asker,
        event: &Event<'_>,
        at: Instant,
    ) -> Result<Option<Seq>, AuditError> {
        let appended = self.write(|writer, budgets| {
            if budgets.admit(asker, at, writer)? {
                writer.append(event).map(Some)
            } else {
                Ok(None)
            }
        });
        self.note_closed(event, appended)
    }

    fn note_closed<T>(
        &self,
        event: &Event<'_>,
        appended: Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        if matches!(appended, Err(AuditError::Closed)) {
            self.boot().note(event);
        }
        appended
    }

    /// Counts a call whose outcome was refused.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Appends the line of an outbox row.
    pub(crate) fn append_outbox(
        &self,
        vault: &VaultName,
        row: u64,
        body: &Body,
    ) -> Result<Seq, AuditError> {
        self.write(|writer, _| writer.write_outbox(now(), vault, row, body))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut Writer, &mut Budgets) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let shared = self.shared.load();
        let mut guard = shared.tail();
        let tail = &mut *guard;
        let writer = tail.writer.as_mut().filter(|_| !tail.closing);
        let writer = writer.ok_or(AuditError::Closed)?;
        let calls = self.lost.load(Ordering::Relaxed);
        if calls > 0 {
            writer.append(&Event::AuditLost { calls })?;
            self.lost.fetch_sub(calls, Ordering::Relaxed);
        }
        write(writer, &mut tail.budgets)
    }

    /// Whether one more line could be written now. For an act whose line follows it: what the log has no room for is
    /// refused before it is done.
    pub(crate) fn has_room(&self) -> Result<(), AuditError> {
        let shared = self.shared.load();
        let tail = shared.tail();
        tail.writer.as_ref().ok_or(AuditError::Closed)?.has_room()
    }

    /// Waits until line `seq` is on disk, however long that takes: who calls sets the limit, by letting go.
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
        self.synced_within(PATIENCE, seq)
    }

    fn synced_within(&self, patience: Duration, seq: Seq) -> Result<(), AuditError> {
        let shared = self.shared.load_full();
        let deadline = Instant::now() + patience;
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
                return Err(AuditError::Slow);
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

    /// Signs what is written so far, if that can be done within a moment: where the store takes no checkpoint, what no
    /// signature covers stays longer.
    fn sign_now(&self) {
        let shared = self.shared.load_full();
        let deadline = Instant::now() + PATIENCE;
        let mut tail = shared.tail();
        let before = tail.answered;
        tail.sign = true;
        shared.wake.notify_all();
        while tail.writer.is_some() && tail.answered == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tail = shared
                .wake
                .wait_timeout(tail, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Where the log ends now: its newest segment, the bytes in that, and the chain.
    fn end(&self) -> Option<(u64, u64, Anchor)> {
        let shared = self.shared.load();
        let tail = shared.tail();
        let writer = tail.writer.as_ref()?;
        Some((writer.number, writer.end, *writer.chain.anchor()))
    }

    /// Lets segments leave that may.
    fn sweep(&self) {
        let shared = self.shared.load();
        shared.tail().sweep = true;
        shared.wake.notify_all();
    }

    /// The last line that is on disk. While the log is closed nothing is written, and all that stands there is.
    pub(crate) fn durable(&self) -> u64 {
        let shared = self.shared.load();
        let open = shared.tail().writer.is_some();
        match *shared.synced.borrow() {
            Synced::Through(through) if open => through,
            _ => u64::MAX,
        }
    }

    /// Waits until a line after `seq` is on disk, however long that takes.
    pub(crate) async fn beyond(&self, seq: u64) {
        let mut synced = self.shared.load_full().synced.subscribe();
        let longer = |s: &Synced| matches!(s, Synced::Through(through) if *through > seq);
        // An end of the wait is as good as a line: whoever waits looks again.
        let _ = synced.wait_for(longer).await;
    }

    /// How the log is now.
    pub(crate) fn state(&self) -> State {
        let shared = self.shared.load();
        let tail = shared.tail();
        let Some(writer) = tail.writer.as_ref() else {
            return State {
                head: None,
                trouble: None,
            };
        };
        let head = *writer.chain.anchor();
        let refused = writer.has_room().err().map(Trouble::Refused);
        let unsigned = tail.unsigned || writer.waits_for_room();
        let unsigned = unsigned.then_some(Trouble::Unsigned(head.covered));
        State {
            head: Some(head),
            trouble: refused
                .or(unsigned)
                .or(tail.low.map(Trouble::Low))
                .or(tail.unconfirmed.map(Trouble::Unconfirmed)),
        }
    }

    /// Writes and syncs what is pending, signs a last checkpoint and closes. Gives up after `patience`, at once where a
    /// sync failed: then the answer is false, whoever waits for durability is told, and the caller reports
    /// `audit_lost`. It is false as well where the last lines could not be signed. The log's thread is not waited for: what it still does touches nothing of a later opening. A disk
    /// that hangs under the mutex keeps this waiting as well; who must go on calls it on a thread of its own.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let shared = self.shared.load_full();
        let deadline = Instant::now() + patience;
        let mut tail = shared.tail();
        tail.settle();
        tail.closing = true;
        shared.wake.notify_all();
        while tail.writer.is_some() {
            let failed = *shared.synced.borrow() == Synced::Failed;
            let left = deadline.saturating_duration_since(Instant::now());
            if failed || left.is_zero() {
                tail.writer = None;
                shared.tell(&mut tail, Synced::Failed);
                return false;
            }
            tail = shared
                .wake
                .wait_timeout(tail, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *shared.synced.borrow() != Synced::Failed && !tail.unsigned
    }
}

#[cfg(test)]
pub(crate) mod tests;
