//! The next segment, made before it is needed.
//!
//! Owns one empty file with its space reserved, `audit.next` beside the segments, and the step that gives it its
//! name. Promises that a full disk is met here, a whole segment early, and that the name is durable before the first
//! line is in the file. Does not write lines.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_sealer::fault;

use super::segment::{OpenError, io_error, new_file, path_of, sync_folder};

const NAME: &str = "audit.next";
/// After a failure the disk is asked again this much later.
const AGAIN: Duration = Duration::from_secs(10);

pub(super) struct Spare {
    folder: PathBuf,
    reserve: u64,
    /// The number that it gets.
    number: u64,
    file: Option<Arc<File>>,
    /// It stands under its own name already.
    named: bool,
    again: Option<Instant>,
}

impl Spare {
    /// For the segment after `newest`.
    pub(super) fn after(folder: &Path, newest: u64, reserve: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            reserve,
            number: newest + 1,
            file: None,
            named: false,
            again: None,
        }
    }

    /// Whether a segment of `end` bytes is full. An eighth is left for what comes until the turn.
    pub(super) fn is_due(&self, end: u64) -> bool {
        end >= self.reserve - self.reserve / 8
    }

    /// Bytes that its file has space for.
    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Makes the file, unless there is one or making it failed a moment ago.
    pub(super) fn prepare(&mut self) {
        if self.file.is_some() || self.again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        self.again = None;
        let path = self.folder.join(NAME);
        let how = &mut OpenOptions::new();
        let made = new_file(how.create(true).truncate(true), &path, self.reserve);
        match made {
            Ok(file) => self.file = Some(Arc::new(file)),
            Err(e) => self.failed(&e),
        }
    }

    fn failed(&mut self, e: &OpenError) {
        log::error!("audit log: no room for the next segment, free some space: {e}");
        self.refused();
    }

    /// The log did not go on in it; it is not offered again for a while.
    pub(super) fn refused(&mut self) {
        self.again = Some(Instant::now() + AGAIN);
    }

    /// Whether there is a file, and nothing failed a moment ago.
    pub(super) fn is_ready(&mut self) -> bool {
        self.prepare();
        self.file.is_some() && self.again.is_none_or(|again| Instant::now() >= again)
    }

    /// The file under the name of its segment, and the segment's number.
    pub(super) fn named(&mut self) -> Option<(Arc<File>, u64)> {
        let file = Arc::clone(self.file.as_ref()?);
        if !self.named {
            let (from, to) = (self.folder.join(NAME), path_of(&self.folder, self.number));
            let renamed = fault::point("audit.name")
                .and_then(|()| std::fs::rename(&from, &to))
                .map_err(io_error(&from))
                .and_then(|()| sync_folder(&self.folder));
            if let Err(e) = renamed {
                self.failed(&e);
                self.file = None;
                return None;
            }
            self.named = true;
        }
        Some((file, self.number))
    }

    /// The log goes on in it; another one is made.
    pub(super) fn used(&mut self) {
        (self.file, self.named) = (None, false);
        self.number += 1;
        self.prepare();
    }
}
