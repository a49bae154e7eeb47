//! An export that a second auditor has: what lets its lines leave the host.
//!
//! Owns which export a digest names, and who may confirm it. Promises that nobody confirms an export of their own, also not who
//! has the disk: the line that says whose it is must be of the chain that is being written. One that leaves a gap after those
//! that were confirmed is refused and writes nothing, and the line is on the disk before anything may leave. Does not look at roles, and does not read the medium: whoever confirms does.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use mcpist_core::api::Confirmed;
use mcpist_core::audit::{Anchor, MAX_LINE, Problem, Seq, Verifier};
use mcpist_core::event::Event;
use mcpist_core::ids::Digest;
use serde::Deserialize;

use super::lines::open;
use super::segment::{first_place, numbers};
use super::{Audit, AuditError};

/// Why nothing was confirmed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    /// No line of the log names it.
    #[error(
        "the log tells of no export with this digest: the file was changed, or is of another log"
    )]
    Unknown,
    /// Whoever made it has it already.
    #[error("uid {0} made this export, and somebody else confirms that it is kept")]
    Own(u32),
    /// Lines before it would be nowhere.
    #[error("no confirmed export holds the lines from {0} on that are before this one")]
    Gap(u64),
    /// The log is not whole.
    #[error("the log does not verify, {0}; keep the files, run 'mcpist audit verify'")]
    Damaged(Problem),
    /// It is not the log that is being written.
    #[error("the files do not hold what was written to them; keep them, run 'mcpist audit verify'")]
    Another,
    /// The log's files cannot be read.
    #[error("the audit log's files cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The log takes no line.
    #[error(transparent)]
    Log(#[from] AuditError),
}

/// What a line says of an export.
#[derive(Deserialize)]
struct Line {
    event: String,
    first: u64,
    through: u64,
    digest: Digest,
    uid: u32,
}

impl Audit {
    /// Records that `uid` has the export with this digest.
    pub(crate) fn confirm(
        &self,
        folder: &Path,
        digest: &Digest,
        uid: u32,
    ) -> Result<Confirmed, ConfirmError> {
        let end = self.end().ok_or(AuditError::Closed)?;
        let (_, _, anchor) = end;
        self.synced_blocking(Seq(anchor.seq))?;
        let found = find(folder, digest, end)?;
        // The chain says what was exported; a line says whose that was.
        let is_of_chain = |export: &Line| export.through <= anchor.exported;
        let export = found.filter(is_of_chain).ok_or(ConfirmError::Unknown)?;
        if export.uid == uid {
            return Err(ConfirmError::Own(uid));
        }
        let wanted = oldest(folder, anchor.confirmed)?;
        if export.first > wanted {
            return Err(ConfirmError::Gap(wanted));
        }
        let (first, through, exporter) = (export.first, export.through, export.uid);
        if through > anchor.confirmed {
            let line = self.append(&Event::ExportConfirmed {
                first,
                through,
                digest,
                exporter,
                uid,
            })?;
            self.synced_blocking(line)?;
            self.sweep();
        }
        Ok(Confirmed {
            first,
            through,
            exporter,
        })
    }
}

/// The first line here that no confirmed export holds, where lines up to `confirmed` are in such: what left the host before
/// is not asked for.
fn oldest(folder: &Path, confirmed: u64) -> io::Result<u64> {
    let first = match numbers(folder)?.first() {
        Some(&number) => first_place(&open(folder, number)?),
        None => None,
    };
    Ok(first.map_or(0, |(Seq(seq), _)| seq).max(confirmed + 1))
}

/// The newest export with this digest, in a log that was verified up to `end`: its newest segment, the bytes in that, and
/// where the chain stands there. What waits for its confirmation is in the files still.
fn find(
    folder: &Path,
    digest: &Digest,
    (newest, bytes, anchor): (u64, u64, Anchor),
) -> Result<Option<Line>, ConfirmError> {
    let mut verifier = Verifier::resume();
    let mut found = None;
    let mut segments = numbers(folder)?;
    segments.retain(|number| *number <= newest);
    for number in segments {
        let length = if number == newest { bytes } else { u64::MAX };
        let segment = BufReader::new(open(folder, number)?.take(length));
        // What is no line of the chain is judged by the end.
        if !find_in(segment, digest, &mut verifier, &mut found)?
            || (number != newest && !verifier.next_file())
        {
            break;
        }
    }
    let report = verifier.finish();
    match report.problem {
        Some(problem) => Err(ConfirmError::Damaged(problem)),
        None if (report.anchor.seq, report.anchor.head) != (anchor.seq, anchor.head) => {
            Err(ConfirmError::Another)
        }
        None => Ok(found),
    }
}

/// Looks through one segment, each line of which `verifier` judges; false where one does not hold.
fn find_in(
    mut segment: impl BufRead,
    digest: &Digest,
    verifier: &mut Verifier,
    found: &mut Option<Line>,
) -> io::Result<bool> {
    const EVENT: &[u8] = b"\"event\":\"audit_exported\"";
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 1;
        if (&mut segment).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        if !verifier.feed(&line) {
            return Ok(false);
        }
        if line.windows(EVENT.len()).any(|part| part == EVENT) {
            let read = serde_json::from_slice::<Line>(&line).ok();
            let read = read.filter(|said| said.event == "audit_exported" && said.digest == *digest);
            *found = read.or(found.take());
        }
    }
}
