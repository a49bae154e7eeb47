//! An export that a second auditor has: what lets its lines leave the host.
//!
//! Owns which export a digest names, and who may confirm it. Promises that nobody confirms an export of their own, that one
//! which leaves a gap after those that were confirmed is refused and writes nothing, and that the line is on the disk before
//! anything may leave. Does not look at roles, and does not read the medium: whoever confirms does.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use mcpist_core::api::Confirmed;
use mcpist_core::audit::{MAX_LINE, Seq, hashed};
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
    /// The log's files cannot be read.
    #[error("the audit log's files cannot be read: {0}")]
    Read(io::ErrorKind),
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
        let (_, _, anchor) = self.end().ok_or(AuditError::Closed)?;
        let found = find(folder, digest).map_err(|e| ConfirmError::Read(e.kind()))?;
        let export = found.ok_or(ConfirmError::Unknown)?;
        if export.uid == uid {
            return Err(ConfirmError::Own(uid));
        }
        let wanted = oldest(folder, anchor.confirmed).map_err(|e| ConfirmError::Read(e.kind()))?;
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

/// The newest export with this digest. It is looked for in the files: what waits for its confirmation is in them still.
fn find(folder: &Path, digest: &Digest) -> io::Result<Option<Line>> {
    for number in numbers(folder)?.into_iter().rev() {
        if let Some(found) = find_in(BufReader::new(open(folder, number)?), digest)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(mut segment: impl BufRead, digest: &Digest) -> io::Result<Option<Line>> {
    const EVENT: &[u8] = b"\"event\":\"audit_exported\"";
    let (mut line, mut found) = (Vec::new(), None);
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 1;
        if (&mut segment).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let names_it = line.windows(EVENT.len()).any(|part| part == EVENT);
        let whole = line
            .strip_suffix(b"\n")
            .filter(|whole| hashed(whole).is_some());
        if let Some(whole) = whole.filter(|_| names_it) {
            let read = serde_json::from_slice::<Line>(whole).ok();
            found = read
                .filter(|said| said.event == "audit_exported" && said.digest == *digest)
                .or(found);
        }
    }
}
