//! Lines of the log on their way to a medium.
//!
//! Owns what an export is: the log's own bytes from the beginning of a segment to the last line, in one file. Promises that it
//! is verified while it is written and read back from the medium before anybody is told that it is there; that it ends
//! with a checkpoint where the store takes one; that its line is in the log, in the space that a full disk leaves; and
//! that nothing counts as exported before that. Writes to a passed descriptor and to no path. Does not look at roles.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mcpist_core::api::{ExportFrom, Exported};
use mcpist_core::audit::{Anchor, Problem, Seq, Verifier};
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, DigestBuilder};

use super::lines::{newest_that, open};
use super::segment::{first_place, numbers};
use super::{Audit, AuditError};

const SLICE: usize = 256 * 1024;

/// Why nothing was exported, but for the last.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// Another one is under way.
    #[error("another export is under way; wait, or have its medium pulled out")]
    Busy,
    /// What came is no place for an export.
    #[error("an export goes into a new, empty file, and this is none")]
    Target,
    /// Nothing was written since the last one.
    #[error("the last export holds every line")]
    Nothing,
    /// The log is not whole.
    #[error("the log does not verify, {0}; keep the files, run 'mcpist audit verify'")]
    Damaged(Problem),
    /// It is not the log that is being written.
    #[error("the files do not hold what was written to them; keep them, run 'mcpist audit verify'")]
    Another,
    /// The log's files cannot be read.
    #[error("the audit log's files cannot be read: {0}")]
    Read(io::ErrorKind),
    /// The medium does not take it.
    #[error("the medium cannot be written: {0}")]
    Medium(io::ErrorKind),
    /// The medium gives other bytes than it took.
    #[error("the medium gives back other bytes than were written: take another one")]
    Differs,
    /// The log takes no line.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// It is made and read back, and whether its line lasts is not known: the medium may be the lines' only place one day.
    #[error("the export is made, and its line in the log is not durable yet ({0}): keep the file")]
    Unrecorded(AuditError),
}

/// The one place for an export.
#[derive(Default)]
pub(crate) struct Place(AtomicBool);

struct Taken<'p>(&'p Place);

impl Place {
    fn take(&self) -> Result<Taken<'_>, ExportError> {
        if self.0.swap(true, Ordering::AcqRel) {
            Err(ExportError::Busy)
        } else {
            Ok(Taken(self))
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// What is exported: whole segments and the beginning of the newest one.
struct Part {
    segments: Vec<u64>,
    /// Bytes of the newest one.
    end: u64,
    /// Where the chain stands there.
    anchor: Anchor,
}

impl Audit {
    /// Writes lines of the log in `folder` into the empty file `target`, for `uid`. Blocks for as long as the medium does.
    pub(crate) fn export(
        &self,
        folder: &Path,
        from: &ExportFrom,
        target: &File,
        uid: u32,
    ) -> Result<Exported, ExportError> {
        let medium = |e: io::Error| ExportError::Medium(e.kind());
        let _taken = self.exporting.take()?;
        let found = target.metadata().map_err(medium)?;
        if !found.is_file() || found.len() > 0 {
            return Err(ExportError::Target);
        }
        self.sign_now();
        let part = self.part(folder, from)?;
        let (first, bytes, digest) = copy(folder, &part, target)?;
        target.sync_all().map_err(medium)?;
        if digest != read_back(target, bytes).map_err(medium)? {
            return Err(ExportError::Differs);
        }
        let anchor = part.anchor;
        let event = Event::AuditExported {
            first,
            through: anchor.seq,
            head: &anchor.head,
            digest: &digest,
            uid,
        };
        let line = self.append(&event)?;
        self.synced_blocking(line)
            .map_err(ExportError::Unrecorded)?;
        self.sweep();
        Ok(Exported {
            first,
            through: anchor.seq,
            head: anchor.head,
            point: anchor.point(),
            unsigned_tail: anchor.seq - anchor.covered - u64::from(anchor.checkpoint > 0),
            bytes,
            digest,
        })
    }

    fn part(&self, folder: &Path, from: &ExportFrom) -> Result<Part, ExportError> {
        let read = |e: io::Error| ExportError::Read(e.kind());
        let (newest, end, anchor) = self.end().ok_or(AuditError::Closed)?;
        // A medium has no line that the log's own disk could still lose.
        self.synced_blocking(Seq(anchor.seq))?;
        let mut found = numbers(folder).map_err(read)?;
        found.retain(|number| *number <= newest);
        let first = match *from {
            ExportFrom::Beginning => found.first().copied(),
            ExportFrom::LastExport if anchor.exported == anchor.seq => {
                return Err(ExportError::Nothing);
            }
            ExportFrom::LastExport => newest_that(folder, &found, |Seq(begins), _| {
                begins <= anchor.exported + 1
            })
            .map_err(read)?,
            ExportFrom::Seq(seq) => {
                newest_that(folder, &found, |Seq(begins), _| begins <= seq).map_err(read)?
            }
            ExportFrom::Time(time) => since(folder, &found, time).map_err(read)?,
        };
        found.retain(|number| Some(*number) >= first);
        Ok(Part {
            segments: found,
            end,
            anchor,
        })
    }
}

/// The oldest segment after which one begins later than `time`: where the clock went back, it is rather one too many.
fn since(folder: &Path, found: &[u64], time: u64) -> io::Result<Option<u64>> {
    for pair in found.windows(2) {
        if first_place(&open(folder, pair[1])?).is_some_and(|(_, begun)| begun > time) {
            return Ok(Some(pair[0]));
        }
    }
    Ok(found.last().copied())
}

/// Copies and verifies. Gives the first line, the length and the digest.
fn copy(folder: &Path, part: &Part, target: &File) -> Result<(u64, u64, Digest), ExportError> {
    let read = |e: io::Error| ExportError::Read(e.kind());
    let mut verifier = Verifier::resume();
    let (mut hash, mut at) = (DigestBuilder::begin(), 0);
    let mut first = None;
    let mut slice = vec![0; SLICE];
    for (place, &number) in part.segments.iter().enumerate() {
        let file = open(folder, number).map_err(read)?;
        first = first.or_else(|| first_place(&file));
        let is_newest = place + 1 == part.segments.len();
        let mut file = file.take(if is_newest { part.end } else { u64::MAX });
        loop {
            let taken = file.read(&mut slice).map_err(read)?;
            if taken == 0 {
                break;
            }
            let slice = &slice[..taken];
            if !verifier.feed(slice) {
                break;
            }
            target
                .write_all_at(slice, at)
                .map_err(|e| ExportError::Medium(e.kind()))?;
            hash.update(slice);
            at += taken as u64;
        }
        // An older segment that ends within a line would run into the next.
        if !is_newest && !verifier.next_file() {
            break;
        }
    }
    let report = verifier.finish();
    if let Some(problem) = report.problem {
        return Err(ExportError::Damaged(problem));
    }
    if (report.anchor.seq, report.anchor.head) != (part.anchor.seq, part.anchor.head) {
        return Err(ExportError::Another);
    }
    let (Seq(first), _) = first.ok_or(ExportError::Another)?;
    Ok((first, at, hash.finish()))
}

fn read_back(target: &File, length: u64) -> io::Result<Digest> {
    // What is read is to come from the medium; where that cannot be asked for, from memory.
    let _ = nix::fcntl::posix_fadvise(
        target,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
    let mut hash = DigestBuilder::begin();
    let mut slice = vec![0; SLICE];
    let mut at = 0;
    while at < length {
        match target.read_at(&mut slice, at)? {
            0 => break,
            read => {
                hash.update(&slice[..read]);
                at += read as u64;
            }
        }
    }
    Ok(hash.finish())
}
