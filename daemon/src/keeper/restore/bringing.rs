//! A backup's way in: from the medium into a file of this host.
//!
//! Owns the copy that a restore or a drill works on. Promises that nothing is copied before header, structure and digest
//! were read on the descriptor that came; that the copy and the store which is made of it fit beside what the audit log
//! keeps free; that one backup comes in at a time; and that the copy has no name: whatever becomes of the stick, and of
//! this process, nothing stays. What comes is read again from the copy, so that a medium which changes its mind gains
//! nothing. Nothing in it is authentic yet.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use mcpist_sealer::StoredBackup;

use crate::audit::{Rotation, room_beside};
use crate::keeper::backup::fault;
use crate::keeper::io_code;

/// Largest backup that is taken, in bytes.
const MAX_BACKUP: u64 = 256 << 30;
/// Bytes that are copied at once.
const SLICE: usize = 1 << 20;

/// Whether a backup is on its way in.
#[derive(Default)]
pub(in crate::keeper) struct Door(Weak<()>);

/// The right to bring one in; it ends with the value.
pub(in crate::keeper) struct Turn {
    _counted: Arc<()>,
}

impl Door {
    /// Lets one in, unless one is on its way.
    pub(in crate::keeper) fn enter(&mut self) -> Result<Turn, ApiError> {
        if self.0.strong_count() > 0 {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "another backup is being read for a restore or a drill; wait, or have its medium pulled out",
            ));
        }
        let turn = Arc::new(());
        self.0 = Arc::downgrade(&turn);
        Ok(Turn { _counted: turn })
    }
}

/// Copies the backup into `folder` and gives it as the copy has it, and how long that took.
pub(super) fn bring(
    _turn: &Turn,
    source: &File,
    folder: &Path,
    rotation: &Rotation,
) -> Result<(StoredBackup, Duration), ApiError> {
    let begun = Instant::now();
    let found = source.metadata().map_err(|e| unreadable(&e))?;
    if !found.is_file() || found.len() > MAX_BACKUP {
        return Err(ApiError::new(
            ErrorCode::BackupRefused,
            "a backup is a regular file of at most 256 GiB",
        ));
    }
    let judged = source.try_clone().map_err(|e| unreadable(&e))?;
    let bytes = StoredBackup::read(judged).map_err(|e| fault(&e))?.bytes();
    let free = room_beside(folder, rotation).map_err(|e| unreadable(&e))?;
    fits(bytes, free)?;
    let copy = copy(source, bytes, folder).map_err(|e| unreadable(&e))?;
    let stored = StoredBackup::read(copy).map_err(|e| fault(&e))?;
    Ok((stored, begun.elapsed()))
}

fn unreadable(error: &io::Error) -> ApiError {
    let code = io_code(error, ErrorCode::BackupRefused);
    ApiError::new(code, &error.to_string())
}

/// Whether a backup of so many bytes fits where `free` are to be had: its copy, and as much again for the store.
fn fits(bytes: u64, free: u64) -> Result<(), ApiError> {
    let needed = bytes.saturating_mul(2);
    if needed <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(ApiError::new(
        ErrorCode::DiskFull,
        &format!(
            "the backup needs {} MiB of the state folder's disk, for a copy and for the store that is made of it, and {} MiB are free beside what the audit log keeps: nothing was copied",
            mib(needed),
            free >> 20
        ),
    )
    .next("free space there, then repeat the command"))
}

/// The first `bytes` of a file, whatever the descriptor's own offset is.
fn copy(source: &File, bytes: u64, folder: &Path) -> io::Result<File> {
    let name: [u8; 8] = mcpist_secret::random_bytes().map_err(io::Error::other)?;
    let path = folder.join(format!("{}.bundle", hex::encode(name)));
    let mut copy = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let mut slice = vec![0; SLICE];
    let mut left = bytes;
    while left > 0 {
        match source.read_at(&mut slice, bytes - left)? {
            0 => return Err(io::Error::other("the backup was cut while it was read")),
            n => {
                let take = n.min(usize::try_from(left).unwrap_or(n));
                copy.write_all(&slice[..take])?;
                left -= take as u64;
            }
        }
    }
    Ok(copy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_without_room_is_refused_with_both_figures() {
        assert!(fits(5 << 20, 10 << 20).is_ok());
        let error = fits(5 << 20, (10 << 20) - 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::DiskFull);
        assert!(error.message.contains("needs 10 MiB"), "{error}");
        assert!(error.message.contains("9 MiB are free"), "{error}");
        assert!(fits(u64::MAX, u64::MAX - 1).is_err());
    }

    #[test]
    fn one_backup_comes_in_at_a_time() {
        let mut door = Door::default();
        let turn = door.enter().unwrap();
        let second = door.enter().err().unwrap();
        assert_eq!(second.code, ErrorCode::Busy, "{second}");
        drop(turn);
        assert!(door.enter().is_ok());
    }
}
