//! The folder beside the store's: where a restore builds, and where the store that it replaced is kept.
//!
//! Owns the name (the store's and `.aside`), [`put_in_place`], which is the commit point of a restore, and the removal of
//! what was kept. Promises: a folder there without a control.db is no store and is dropped by the next restore; one
//! with a control.db is a whole store, and goes only when [`remove_aside`] is called.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::fault;
use crate::store::{CONTROL, Store, StoreError, sync_folder};

/// Where a restore builds, and where the store that it replaced is kept: the folder's name and `.aside`.
pub fn aside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".aside");
    dir.with_file_name(name)
}

/// Whether a whole store stands beside the one in `dir`.
///
/// # Errors
/// The disk.
pub fn is_kept_aside(dir: &Path) -> Result<bool, StoreError> {
    let control = aside(dir).join(CONTROL);
    control.try_exists().map_err(StoreError::io(&control))
}

/// Removes the store that stands beside the one in `dir`; whether there was one.
///
/// # Errors
/// [`StoreError`]: another process has it, or the disk.
pub fn remove_aside(dir: &Path) -> Result<bool, StoreError> {
    if !is_kept_aside(dir)? {
        return Ok(false);
    }
    let kept = aside(dir);
    let store = Store::take(&kept)?;
    // What is interrupted leaves no store, but a folder that the next restore drops.
    store.control().remove()?;
    sync_folder(&kept)?;
    discard_unfinished(&kept)?;
    Ok(true)
}

/// Removes what a restore left that did not come to its end.
pub(crate) fn discard_unfinished(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(dir)(error)),
        _ => Ok(()),
    }
}

/// The commit point of a restore: the finished folder and the store's change places. Whether a store was there.
pub(crate) fn put_in_place(new: &Path, dir: &Path) -> Result<bool, StoreError> {
    let was_there = dir.join(CONTROL).symlink_metadata().is_ok();
    let (flags, is_exchange) = match dir.symlink_metadata() {
        Ok(_) => (RenameFlags::RENAME_EXCHANGE, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (RenameFlags::RENAME_NOREPLACE, false)
        }
        Err(error) => return Err(StoreError::io(dir)(error)),
    };
    let moved = |error: io::Error| StoreError::io(dir)(error);
    fault::point("restore.before-exchange").map_err(moved)?;
    renameat2(AT_FDCWD, new, AT_FDCWD, dir, flags).map_err(|errno| moved(errno.into()))?;
    fault::point("restore.after-exchange").map_err(moved)?;
    if let Some(parent) = dir.parent() {
        sync_folder(parent)?;
    }
    if is_exchange && !was_there {
        // An empty folder came out.
        discard_unfinished(new)?;
    }
    Ok(was_there)
}
