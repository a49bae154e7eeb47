//! The thread behind the log: group commit and checkpoints.
//!
//! One loop: wait until somebody needs durability or [`super::GROUP`] has passed since the first line that is not
//! durable, sync outside the mutex, tell the waiters, sign a checkpoint when one is due. It holds the only copy of
//! the signing key.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mcpist_core::audit::Anchor;

use super::keys::Keys;
use super::{GROUP, Shared, Synced, Tail, now};

/// Lines after which a checkpoint is due.
const LINES: u64 = 256;
/// Checkpoints are at least this far apart.
const APART: Duration = Duration::from_secs(1);
/// With any line uncovered, a checkpoint is due after this time.
const LATEST: Duration = Duration::from_secs(60);

pub(super) fn run(shared: &Shared, mut keys: Keys) {
    let mut last_checkpoint = Instant::now();
    let mut dirty_since: Option<Instant> = None;
    loop {
        let mut tail = wait(shared, &mut dirty_since, last_checkpoint);
        let closing = tail.closing;
        tail.urgent = false;
        let Some(writer) = tail.writer.as_ref() else {
            return;
        };
        let (file, anchor) = (Arc::clone(&writer.file), *writer.chain.anchor());
        drop(tail);

        if *shared.synced.borrow() != Synced::Through(anchor.seq) {
            if let Err(e) = file.sync_data() {
                log::error!("audit log: sync failed: {}", e.kind());
                fail(shared);
                return;
            }
            tell(shared, Synced::Through(anchor.seq));
        }
        dirty_since = None;

        let uncovered = uncovered(&anchor);
        let age = last_checkpoint.elapsed();
        if uncovered > 0 && (closing || (uncovered >= LINES && age >= APART) || age >= LATEST) {
            last_checkpoint = Instant::now();
            match keys.sign(&anchor, now()) {
                Ok(checkpoint) => {
                    let mut tail = shared.tail();
                    if let Some(writer) = tail.writer.as_mut()
                        && let Err(e) =
                            writer.write(|chain, line| chain.append_checkpoint(&checkpoint, line))
                    {
                        // The store has it: the next opening appends it.
                        log::error!("audit log: checkpoint not written: {e}");
                        writer.failed = true;
                    }
                }
                Err(e) => log::error!("audit log: no checkpoint: {e}"),
            }
        }
        if closing {
            finish(shared);
            return;
        }
    }
}

/// Waits for work; returns with the mutex held.
fn wait<'s>(
    shared: &'s Shared,
    dirty_since: &mut Option<Instant>,
    last_checkpoint: Instant,
) -> std::sync::MutexGuard<'s, Tail> {
    let mut tail = shared.tail();
    loop {
        let Some(writer) = tail.writer.as_ref() else {
            return tail;
        };
        let anchor = *writer.chain.anchor();
        let seq = anchor.seq;
        let dirty = *shared.synced.borrow() != Synced::Through(seq);
        if tail.closing || (tail.urgent && dirty) {
            return tail;
        }
        tail.urgent = false;
        let left = if dirty {
            let since = dirty_since.get_or_insert_with(Instant::now);
            GROUP.saturating_sub(since.elapsed())
        } else if uncovered(&anchor) == 0 {
            GROUP
        } else {
            LATEST.saturating_sub(last_checkpoint.elapsed())
        };
        if left.is_zero() {
            return tail;
        }
        // An append does not notify: the idle thread looks every GROUP, so that the hot path pays nothing.
        let nap = left.min(GROUP);
        tail = shared
            .wake
            .wait_timeout(tail, nap)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

/// Lines that no checkpoint covers. A checkpoint's own line is not worth a checkpoint.
fn uncovered(anchor: &Anchor) -> u64 {
    anchor.seq - anchor.covered - u64::from(anchor.checkpoint > 0)
}

/// Tells the waiters, under the mutex: nobody is between its check and its wait then.
fn tell(shared: &Shared, synced: Synced) {
    let _held = shared.tail();
    shared.synced.send_replace(synced);
    shared.wake.notify_all();
}

/// Lines can no longer be made durable: whoever waits is told, and nothing more is accepted.
fn fail(shared: &Shared) {
    if let Some(writer) = shared.tail().writer.as_mut() {
        writer.failed = true;
    }
    tell(shared, Synced::Failed);
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
    let synced = if file.sync_data().is_ok() {
        Synced::Through(seq)
    } else {
        Synced::Failed
    };
    shared.tail().writer = None;
    tell(shared, synced);
}
