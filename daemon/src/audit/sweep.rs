//! Old segments on their way out of the log's folder.
//!
//! Owns which segments leave. Promises that one leaves only when all its lines are in an export that was read back and that
//! a second auditor has confirmed (unless root lets exports alone do), when so many newer ones stay as root has set, and
//! after a line that says so is on disk; and that the two newest stay, which an opening reads. Interrupted anywhere, the rest leaves at the next look. Does not export.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcpist_core::audit::{Anchor, Seq};
use mcpist_core::event::Event;
use mcpist_sealer::fault;

use super::segment::{first_place, numbers, path_of};
use super::{Remove, Shared};

/// Segments that an opening reads.
pub(super) const NEEDED: usize = 2;

pub(super) struct Sweep {
    folder: PathBuf,
    keep: usize,
    remove: Remove,
    /// Something may have become ready to leave.
    pub(super) due: bool,
}

impl Sweep {
    /// Of the log in `folder`, where `keep` segments stay in any case and others leave at `remove`.
    pub(super) fn of(folder: &Path, keep: usize, remove: Remove) -> Self {
        Self {
            folder: folder.to_owned(),
            keep: keep.max(NEEDED),
            remove,
            due: true,
        }
    }

    /// Lets go what may leave. The error is one of making the log durable.
    pub(super) fn run(&mut self, shared: &Shared) -> io::Result<()> {
        if !std::mem::take(&mut self.due) {
            return Ok(());
        }
        let anchor = shared.tail().writer.as_ref().map(|w| *w.chain.anchor());
        let Some(Anchor {
            exported,
            confirmed,
            ..
        }) = anchor
        else {
            return Ok(());
        };
        let through = match self.remove {
            Remove::Confirmed => confirmed,
            Remove::Exported => exported,
        };
        let looked = self.leaving(through).and_then(|leaving| {
            let waits = self.leaving(exported)?.len() > leaving.len();
            Ok((leaving, waits))
        });
        let leaving = match looked {
            Ok((leaving, waits)) => {
                shared.tail().unconfirmed = waits.then_some(exported);
                leaving
            }
            Err(e) => {
                log::warn!("audit log: old segments not looked at: {}", e.kind());
                return Ok(());
            }
        };
        let (Some(&first_segment), Some(&last_segment)) = (leaving.first(), leaving.last()) else {
            return Ok(());
        };
        let event = Event::AuditRemoved {
            first_segment,
            last_segment,
        };
        let written = {
            let mut tail = shared.tail();
            let Some(writer) = tail.writer.as_mut() else {
                return Ok(());
            };
            match writer.append(&event) {
                Ok(_) => Arc::clone(&writer.file),
                Err(e) => {
                    log::error!("audit log: segments that may leave stay: {e}");
                    return Ok(());
                }
            }
        };
        written.sync_data()?;
        for number in leaving {
            self.remove(number);
        }
        Ok(())
    }

    /// The oldest segments that hold nothing after line `through`, without the newest ones that stay.
    fn leaving(&self, through: u64) -> io::Result<Vec<u64>> {
        let found = numbers(&self.folder)?;
        let old = found.len().saturating_sub(self.keep);
        let mut leaving = Vec::new();
        for pair in found.windows(2).take(old) {
            let next = path_of(&self.folder, pair[1]);
            let Some((Seq(begins), _)) = first_place(&File::open(next)?) else {
                break;
            };
            if begins > through + 1 {
                break;
            }
            leaving.push(pair[0]);
        }
        Ok(leaving)
    }

    fn remove(&self, number: u64) {
        let path = path_of(&self.folder, number);
        let removed = fault::point("audit.remove")
            .and_then(|()| std::fs::remove_file(&path))
            .and_then(|()| fault::point("audit.removed"));
        match removed {
            Ok(()) => log::info!("audit log: segment {number} left"),
            Err(e) => log::warn!("audit log: segment {number} stays: {}", e.kind()),
        }
    }
}
