//! The chain's writing end, and the turn from a full segment to the next.
//!
//! Owns what the log's mutex guards while it is open. Promises that chain and file agree: a line that the disk refuses
//! is taken back whole, and so is a turn; and that calls and changes leave [`KEPT`] bytes of the disk's space to what an
//! operator needs in order to free some. Every act here is one or two `pwrite`s; nothing syncs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mcpist_core::audit::{Body, Chain, Checkpoint, Copied, MAX_LINE, Seq, UnixMs};
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use mcpist_sealer::fault;
use nix::sys::resource::{Resource, getrlimit};

use super::segment::{Segment, reserve_space};
use super::{AuditError, now};

/// Space behind the end of the open segment that is kept for what ends an emergency or tells of it ([`is_kept_for`]).
const KEPT: u64 = 96 * 1024;
/// Space that is taken at once where a full segment grows.
const STEP: u64 = 64 * 1024;

/// Whether the line of `event` may go into the space that is kept: unsealing, sealing, ceremonies, export and rotation,
/// what gives space back, and the outcome of what has begun. The chain's own lines may as well.
fn is_kept_for(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::Start { .. }
            | Event::Boot { .. }
            | Event::Unsealed { .. }
            | Event::Sealed { .. }
            | Event::Ceremony { .. }
            | Event::OldStoreRemoved { .. }
            | Event::CallOutcome { .. }
            | Event::AuditExported { .. }
            | Event::ExportConfirmed { .. }
            | Event::AuditRemoved { .. }
            | Event::AuditLost { .. }
            | Event::DiskAlarm { .. }
    )
}

pub(super) struct Writer {
    pub(super) chain: Chain,
    pub(super) file: Arc<File>,
    /// The segment's number.
    pub(super) number: u64,
    /// Offset of the next line.
    pub(super) end: u64,
    /// When its first line was written, in seconds since 1970.
    pub(super) begun: u64,
    /// Bytes from its beginning that have space on the disk.
    reserved: u64,
    /// The last outbox row of each vault that is in the log.
    copied: Copied,
    line: Vec<u8>,
    /// A checkpoint that the store has and the file has no room for yet. It goes before every other line.
    pending: Option<Checkpoint>,
    /// Nothing more is accepted until the log is opened anew.
    pub(super) failed: bool,
}

impl Writer {
    pub(super) fn new(segment: Segment) -> Self {
        Self {
            chain: segment.chain,
            file: Arc::new(segment.file),
            number: segment.number,
            end: segment.end,
            begun: segment.begun,
            reserved: segment.reserved,
            copied: segment.outbox.last,
            line: Vec::with_capacity(1024),
            pending: None,
            failed: false,
        }
    }

    /// Writes the line of `event`.
    pub(super) fn append(&mut self, event: &Event<'_>) -> Result<Seq, AuditError> {
        let kept = if is_kept_for(event) { 0 } else { KEPT };
        self.write(kept, |chain, line| chain.append(now(), event, line))
    }

    /// Writes what `append` adds to the chain and leaves `kept` bytes of space behind it, or leaves chain and file as
    /// they were.
    fn write(
        &mut self,
        kept: u64,
        append: impl FnOnce(&mut Chain, &mut Vec<u8>) -> Seq,
    ) -> Result<Seq, AuditError> {
        self.settle()?;
        self.write_line(kept, append)
    }

    /// Sees that `bytes` more have space.
    fn make_room(&mut self, bytes: u64) -> Result<(), AuditError> {
        let wanted = self.end.saturating_add(bytes);
        if wanted > self.reserved {
            let to = wanted.saturating_add(STEP);
            reserve_space(&self.file, to).map_err(|e| AuditError::Write(e.kind()))?;
            self.reserved = to;
        }
        Ok(())
    }

    fn write_line(
        &mut self,
        kept: u64,
        append: impl FnOnce(&mut Chain, &mut Vec<u8>) -> Seq,
    ) -> Result<Seq, AuditError> {
        if self.failed {
            return Err(AuditError::Sync);
        }
        let before = *self.chain.anchor();
        self.line.clear();
        let seq = append(&mut self.chain, &mut self.line);
        let room = match kept {
            0 => Ok(()),
            kept => self.make_room(self.line.len() as u64 + kept),
        };
        if let Err(e) = room {
            self.chain = Chain::new(before);
            return Err(e);
        }
        let written = fault::point("audit.write")
            .and_then(|()| self.file.write_all_at(&self.line, self.end))
            .and_then(|()| fault::point("audit.written"));
        match written {
            Ok(()) => {
                self.end += self.line.len() as u64;
                Ok(seq)
            }
            Err(e) => {
                self.chain = Chain::new(before);
                // Whatever part was written is cut, now or by the next line that covers it.
                if self.file.set_len(self.end).is_err() {
                    self.failed = true;
                }
                Err(AuditError::Write(e.kind()))
            }
        }
    }

    /// Writes the line of an outbox row.
    pub(super) fn write_outbox(
        &mut self,
        time: UnixMs,
        vault: &VaultName,
        row: u64,
        body: &Body,
    ) -> Result<Seq, AuditError> {
        // What it tells of is done already.
        let seq = self.write(0, |chain, line| {
            chain.append_outbox(time, vault, row, body, line)
        })?;
        self.copied.insert(vault.as_str().to_owned(), row);
        Ok(seq)
    }

    /// Writes a checkpoint that the store has already. Where the disk refuses it, it goes before the next line that
    /// the disk takes; where there is none, the next opening appends it.
    pub(super) fn write_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.pending = Some(checkpoint);
        if let Err(e) = self.settle() {
            log::error!("audit log: checkpoint not written: {e}");
        }
    }

    /// Writes the checkpoint that waits for room, if one does.
    pub(super) fn settle(&mut self) -> Result<(), AuditError> {
        if let Some(checkpoint) = self.pending {
            self.write_line(0, |chain, line| chain.append_checkpoint(&checkpoint, line))?;
            self.pending = None;
        }
        Ok(())
    }

    /// Whether a checkpoint waits for room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether one more line of a call or a change could be written now, whatever its length. Keeps the room for it where
    /// the file system can.
    pub(super) fn has_room(&self) -> Result<(), AuditError> {
        if self.failed {
            return Err(AuditError::Sync);
        }
        let refused = |kind| Err(AuditError::Write(kind));
        let end = self.end.saturating_add(MAX_LINE as u64 + KEPT);
        // Reserving does not meet the limit on the size of a file; a write would.
        if getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(limit, _)| end > limit) {
            return refused(std::io::ErrorKind::FileTooLarge);
        }
        reserve_space(&self.file, end).or_else(|e| refused(e.kind()))
    }

    /// Goes on in the empty file `next`, with space for `reserved` bytes, as segment `number`, or stays where it is. What was written before is not
    /// synced by this.
    pub(super) fn turn(
        &mut self,
        next: &Arc<File>,
        number: u64,
        reserved: u64,
        time: UnixMs,
    ) -> Result<(), AuditError> {
        self.settle()?;
        if self.failed {
            return Err(AuditError::Sync);
        }
        let before = *self.chain.anchor();
        self.line.clear();
        self.chain
            .append_segment(time, number, &self.copied, &mut self.line);
        let written = if self.line.len() > MAX_LINE {
            // More vaults than a line can name: the log stays in one segment.
            Err(std::io::Error::from(std::io::ErrorKind::InvalidData))
        } else {
            fault::point("audit.turn")
                .and_then(|()| next.write_all_at(&self.line, 0))
                .and_then(|()| fault::point("audit.turned"))
        };
        if let Err(e) = written {
            self.chain = Chain::new(before);
            if next.set_len(0).is_err() {
                self.failed = true;
            }
            return Err(AuditError::Write(e.kind()));
        }
        self.file = Arc::clone(next);
        self.number = number;
        self.end = self.line.len() as u64;
        self.begun = time.0 / 1_000;
        self.reserved = reserved;
        Ok(())
    }
}
