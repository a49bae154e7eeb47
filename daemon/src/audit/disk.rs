//! How much room the log's disk has, looked at by the log's own thread.
//!
//! Owns the limit and the alarm. Promises that the alarm comes while whole segments still fit, is in the log when it is
//! raised and when it ends, and is seen by a status all the while. Does not stop anything: a full disk does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcpist_core::event::Event;
use nix::sys::statvfs::statvfs;

use super::{Rotation, Shared};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Segments that should fit.
const SEGMENTS: u64 = 4;

/// Bytes that are left on the disk of `folder`.
// The types differ between platforms.
#[allow(clippy::useless_conversion)]
pub(super) fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let stat = statvfs(folder)?;
    let blocks = u64::from(stat.blocks_available());
    Ok(blocks.saturating_mul(stat.fragment_size().into()))
}

/// Bytes that may be taken on the disk of `folder` without an alarm of a log that is written as `rotation` says.
pub(crate) fn room_beside(folder: &Path, rotation: &Rotation) -> std::io::Result<u64> {
    let kept = rotation.bytes.saturating_mul(SEGMENTS);
    Ok(free_bytes(folder)?.saturating_sub(kept))
}

pub(super) struct Disk {
    folder: PathBuf,
    limit: u64,
    next: Instant,
    /// What the log says; an opening begins without an alarm.
    recorded: bool,
}

impl Disk {
    /// The disk of `folder`, where a segment takes `reserve` bytes.
    pub(super) fn of(folder: &Path, reserve: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            limit: reserve.saturating_mul(SEGMENTS),
            next: Instant::now(),
            recorded: false,
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Looks, and raises or ends the alarm.
    pub(super) fn look(&mut self, shared: &Shared) {
        self.next = Instant::now() + EVERY;
        match free_bytes(&self.folder) {
            Ok(free) => self.judge(shared, free),
            Err(e) => log::warn!("audit log: room on its disk not known: {}", e.kind()),
        }
    }

    pub(super) fn judge(&mut self, shared: &Shared, free_bytes: u64) {
        let limit_bytes = self.limit;
        let mut tail = shared.tail();
        // Once raised, it ends with some room to spare, or it would come and go with each segment.
        let was = tail.low.is_some();
        let margin = if was { limit_bytes / SEGMENTS } else { 0 };
        let raised = free_bytes < limit_bytes.saturating_add(margin);
        tail.low = raised.then_some(free_bytes);
        if raised && !was {
            log::warn!("disk_full soon: the audit log's disk has {free_bytes} bytes left");
        }
        let Some(writer) = tail.writer.as_mut().filter(|_| raised != self.recorded) else {
            return;
        };
        let event = Event::DiskAlarm {
            free_bytes,
            limit_bytes,
            raised,
        };
        // What the disk refuses is tried again at the next look.
        if writer.append(&event).is_ok() {
            self.recorded = raised;
        }
    }
}
