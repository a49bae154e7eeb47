//! The thread behind the log: group commit and checkpoints.
//!
//! One loop: wait until somebody needs durability or [`super::GROUP`] has passed since the first line that is not
//! durable, sync outside the mutex, tell the waiters, sign a checkpoint when one is due, turn to the next segment when
//! this one is full or old, let exported segments go, look at the disk's room now and then. It holds the only copy of the signing key.

use std::fs::File;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mcpist_core::audit::Anchor;
use mcpist_sealer::fault;

use super::disk::Disk;
use super::keys::Keys;
use super::spare::Spare;
use super::sweep::Sweep;
use super::writer::Writer;
use super::{GROUP, Shared, Synced, Tail, now};

/// Lines after which a checkpoint is due.
const LINES: u64 = 256;
/// Checkpoints are at least this far apart.
const APART: Duration = Duration::from_secs(1);
/// With any line uncovered, a checkpoint is due after this time.
pub(super) const LATEST: Duration = Duration::from_secs(60);

/// What the thread works with, besides the log itself.
pub(super) struct Tools {
    pub(super) keys: Keys,
    pub(super) spare: Spare,
    pub(super) disk: Disk,
    pub(super) sweep: Sweep,
    /// After this time a segment gives way to the next, in seconds.
    pub(super) age: u64,
}

pub(super) fn run(shared: &Shared, tools: Tools) {
    let Tools {
        mut keys,
        mut spare,
        mut disk,
        mut sweep,
        age: oldest,
    } = tools;
    spare.prepare();
    let mut last_checkpoint = Instant::now();
    let mut dirty_since: Option<Instant> = None;
    loop {
        if disk.is_due() {
            disk.look(shared);
        }
        let mut tail = wait(shared, &mut dirty_since, last_checkpoint, &disk);
        let closing = tail.closing;
        tail.urgent = false;
        let asked = std::mem::take(&mut tail.sign);
        sweep.due |= std::mem::take(&mut tail.sweep);
        let Some(writer) = tail.writer.as_mut() else {
            return;
        };
        // The next checkpoint stands on the last one's line.
        let settled = writer.settle().is_ok();
        let (file, anchor) = (Arc::clone(&writer.file), *writer.chain.anchor());
        let old = (now().0 / 1_000).saturating_sub(writer.begun) >= oldest;
        let full = (old || spare.is_due(writer.end)) && !closing;
        drop(tail);

        if *shared.synced.borrow() != Synced::Through(anchor.seq) {
            if let Err(e) = sync(&file) {
                return lose(shared, keys, &e);
            }
            shared.tell(&mut shared.tail(), Synced::Through(anchor.seq));
        }
        dirty_since = None;

        let turning = full && spare.is_ready();
        let uncovered = uncovered(&anchor);
        let age = last_checkpoint.elapsed();
        let due = closing || asked || (uncovered >= LINES && age >= APART) || age >= LATEST;
        let mut signed = settled;
        // A full segment ends with a checkpoint, however young the last one is.
        if settled && uncovered > 0 && (due || turning) {
            last_checkpoint = Instant::now();
            match keys.sign(&anchor, now()) {
                Ok(checkpoint) => {
                    let mut tail = shared.tail();
                    tail.unsigned = false;
                    if let Some(writer) = tail.writer.as_mut() {
                        writer.write_checkpoint(checkpoint);
                    }
                    // Not what nothing would sign any more; who closes the log has settled it.
                    if !closing {
                        tail.settle();
                    }
                }
                Err(e) => {
                    log::error!("audit log: no checkpoint: {e}");
                    signed = false;
                    shared.tail().unsigned = true;
                }
            }
        }
        if asked {
            let mut tail = shared.tail();
            tail.answered += 1;
            shared.wake.notify_all();
        }
        if turning {
            // Without one the log goes on in the full segment: an opening looks for its last signed line in two.
            let next = if signed { spare.named() } else { None };
            match next {
                Some((next, number)) if turn(shared, &next, number, spare.reserve()) => {
                    // The older segment is whole on disk before any line of the newer one is called durable.
                    if let Err(e) = sync(&file) {
                        return lose(shared, keys, &e);
                    }
                    log::info!("audit log: segment {number} begins");
                    spare.used();
                    sweep.due = true;
                }
                _ => spare.refused(),
            }
        }
        if !closing && let Err(e) = sweep.run(shared) {
            return lose(shared, keys, &e);
        }
        if closing {
            // Before anybody is told: who closes the log closes the store next.
            drop(keys);
            return finish(shared);
        }
    }
}

/// Makes what was written durable.
fn sync(file: &File) -> std::io::Result<()> {
    fault::point("audit.sync")?;
    file.sync_data()?;
    fault::point("audit.synced")
}

/// Goes on in the next segment. Where that fails the log goes on in the one that is full.
fn turn(shared: &Shared, next: &Arc<File>, number: u64, reserved: u64) -> bool {
    let mut tail = shared.tail();
    let Some(writer) = tail.writer.as_mut() else {
        return false;
    };
    let turned = writer.turn(next, number, reserved, now());
    if let Err(e) = &turned {
        log::error!("audit log: segment {number} not begun: {e}");
    }
    turned.is_ok()
}

/// Waits for work; returns with the mutex held.
fn wait<'s>(
    shared: &'s Shared,
    dirty_since: &mut Option<Instant>,
    last_checkpoint: Instant,
    disk: &Disk,
) -> std::sync::MutexGuard<'s, Tail> {
    let mut tail = shared.tail();
    loop {
        let Some(writer) = tail.writer.as_ref() else {
            return tail;
        };
        let seq = writer.chain.anchor().seq;
        let dirty = *shared.synced.borrow() != Synced::Through(seq);
        if tail.closing || tail.sign || tail.sweep || (tail.urgent && dirty) || disk.is_due() {
            return tail;
        }
        let dirty_for = dirty.then(|| dirty_since.get_or_insert_with(Instant::now).elapsed());
        let nap = rest(writer, dirty_for, last_checkpoint.elapsed());
        if nap.is_zero() {
            return tail;
        }
        tail.urgent = false;
        tail = shared
            .wake
            .wait_timeout(tail, nap)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

/// What may pass before there is something to do; nothing where there is. `dirty_for` is how long lines wait to be
/// durable, `age` that of the last checkpoint. An append does not notify: the idle thread looks every [`GROUP`], so that
/// the hot path pays nothing.
pub(super) fn rest(writer: &Writer, dirty_for: Option<Duration>, age: Duration) -> Duration {
    match dirty_for {
        Some(age) => GROUP.saturating_sub(age),
        // No other checkpoint is signed before one that waits for room is written; the disk's next look tries it again.
        None if writer.waits_for_room() || uncovered(writer.chain.anchor()) == 0 => GROUP,
        None => LATEST.saturating_sub(age).min(GROUP),
    }
}

/// Lines that no checkpoint covers. A checkpoint's own line is not worth a checkpoint.
fn uncovered(anchor: &Anchor) -> u64 {
    anchor.seq - anchor.covered - u64::from(anchor.checkpoint > 0)
}

/// The disk did not keep what was written. The store is let go of before anybody is told, as at the end.
fn lose(shared: &Shared, keys: Keys, error: &std::io::Error) {
    log::error!("audit log: sync failed: {}", error.kind());
    drop(keys);
    fail(shared);
}

/// Lines can no longer be made durable: whoever waits is told, and nothing more is accepted.
pub(super) fn fail(shared: &Shared) {
    let mut tail = shared.tail();
    if let Some(writer) = tail.writer.as_mut() {
        writer.failed = true;
    }
    shared.tell(&mut tail, Synced::Failed);
}

/// Syncs what came since, the last checkpoint's line among it, and closes. A log that closes takes no more lines, so
/// what is synced here is all.
fn finish(shared: &Shared) {
    let Some((file, seq)) = shared
        .tail()
        .writer
        .as_ref()
        .map(|w| (Arc::clone(&w.file), w.chain.anchor().seq))
    else {
        return;
    };
    let synced = if sync(&file).is_ok() {
        Synced::Through(seq)
    } else {
        Synced::Failed
    };
    let mut tail = shared.tail();
    if let Some(writer) = tail.writer.take() {
        tail.unsigned |= writer.waits_for_room();
    }
    shared.tell(&mut tail, synced);
}
