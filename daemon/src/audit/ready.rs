//! Whether the log could be opened, as far as that is seen without the store's keys.
//!
//! Owns what is looked at before a share is taken, so that what keeps the log closed costs no share: the room for what an
//! opening writes, and the segments that it reads. Promises to change nothing. Does not read lines: whether they hold is
//! seen with the keys alone.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::disk::free_bytes;
use super::segment::{numbers, path_of};

/// What an opening and the first lines take. A full disk leaves more than that to them in the open segment. The next
/// segment's space is not counted: without room elsewhere the store may not sign the checkpoint that the turn to it needs.
const ROOM: u64 = 64 * 1024;

/// Why shares would be given in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    /// No room for lines.
    #[error(
        "the audit log's disk has no room: no share is taken; free space, then give the share again"
    )]
    Full,
    /// A segment that the opening needs is not there.
    #[error(
        "segment {0} of the audit log is missing: no share is taken; put audit-{0:08}.jsonl back, then give the share again"
    )]
    Missing(u64),
    /// The folder cannot be looked at.
    #[error("the audit log's folder cannot be read: {0}; no share is taken")]
    Unreadable(ErrorKind),
}

/// Looks at the log in `folder`.
pub(crate) fn ready(folder: &Path) -> Result<(), Unready> {
    let looked = look(folder).map_err(|e| Unready::Unreadable(e.kind()))?;
    looked.judge()
}

struct Looked {
    /// The one before the newest segment, where it is not there.
    missing: Option<u64>,
    /// Bytes left on the disk.
    free: u64,
    /// Bytes that the newest segment has reserved behind its end.
    reserved: u64,
}

impl Looked {
    fn judge(&self) -> Result<(), Unready> {
        match self.missing {
            Some(number) => Err(Unready::Missing(number)),
            None if self.free.saturating_add(self.reserved) < ROOM => Err(Unready::Full),
            None => Ok(()),
        }
    }
}

fn look(folder: &Path) -> std::io::Result<Looked> {
    let found = numbers(folder)?;
    let mut looked = Looked {
        missing: None,
        free: free_bytes(folder)?,
        reserved: 0,
    };
    if let Some(&last) = found.last() {
        let before = last.checked_sub(1);
        looked.missing = before.filter(|n| !found.contains(n));
        let newest = std::fs::symlink_metadata(path_of(folder, last))?;
        looked.reserved = (newest.blocks() * 512).saturating_sub(newest.len());
    }
    Ok(looked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn room_may_be_free_or_reserved() {
        let judge = |free, reserved| {
            let missing = None;
            Looked {
                missing,
                free,
                reserved,
            }
            .judge()
        };
        assert_eq!(judge(ROOM, 0), Ok(()));
        assert_eq!(judge(0, ROOM), Ok(()));
        assert_eq!(judge(ROOM / 2, ROOM / 2), Ok(()));
        assert_eq!(judge(ROOM / 2, ROOM / 2 - 1), Err(Unready::Full));
    }

    #[test]
    fn a_segment_that_the_opening_needs_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ready(folder.path()), Ok(()));
        let make = |number| std::fs::write(path_of(folder.path(), number), b"").unwrap();
        make(2);
        assert_eq!(ready(folder.path()), Err(Unready::Missing(1)));
        make(1);
        assert_eq!(ready(folder.path()), Ok(()));
        let none = ready(&folder.path().join("none"));
        assert_eq!(none, Err(Unready::Unreadable(ErrorKind::NotFound)));
    }
}
