//! The folders beside the store's: where a restore builds, where the store that it replaced is kept, and where a drill
//! builds what it removes again.
//!
//! Owns their names, the mark of a folder that is being built, [`put_in_place`], which is the commit point of a restore,
//! and the removal of what was kept. Promises: a folder there with the mark, or without a control.db, is of no use and is
//! dropped by the next restore and by [`tidy`]; one with a control.db and no mark is the store that was replaced, and
//! goes only when [`remove_aside`] is called.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::fault;
use crate::store::{CONTROL, Store, StoreError, sync_folder};

/// In a folder that a restore builds, whole or not, until it is in its place.
const UNFINISHED: &str = "unfinished";

/// Where a restore builds, and where the store that it replaced is kept: the folder's name and `.aside`.
pub fn aside(dir: &Path) -> PathBuf {
    beside(dir, ".aside")
}

/// Where a drill builds: the folder's name and `.drill`.
pub fn drilled(dir: &Path) -> PathBuf {
    beside(dir, ".drill")
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}

/// Whether the store that a restore replaced stands beside the one in `dir`.
///
/// # Errors
/// The disk.
pub fn is_kept_aside(dir: &Path) -> Result<bool, StoreError> {
    is_kept(&aside(dir))
}

fn is_kept(kept: &Path) -> Result<bool, StoreError> {
    let there = |name| {
        let path = kept.join(name);
        path.try_exists().map_err(StoreError::io(&path))
    };
    Ok(there(CONTROL)? && !there(UNFINISHED)?)
}

/// Drops what a restore or a drill left that was cut off. The caller has the store to itself, and has not opened it.
///
/// # Errors
/// The disk.
pub fn tidy(dir: &Path) -> Result<(), StoreError> {
    discard(&drilled(dir))?;
    unmark(dir)?;
    discard_unfinished(&aside(dir))
}

/// Says of a folder that it is being built, before there is a store in it.
pub(crate) fn mark(dir: &Path) -> Result<(), StoreError> {
    let mark = dir.join(UNFINISHED);
    let mut made = OpenOptions::new();
    made.write(true)
        .create_new(true)
        .mode(0o600)
        .open(&mark)
        .map_err(StoreError::io(&mark))?;
    sync_folder(dir)
}

/// What is in its place is finished.
fn unmark(dir: &Path) -> Result<(), StoreError> {
    let mark = dir.join(UNFINISHED);
    match fs::remove_file(&mark) {
        Ok(()) => sync_folder(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(&mark)(error)),
    }
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
    let _store = Store::take(&kept)?;
    discard(&kept)?;
    Ok(true)
}

/// Removes what a restore left that did not come to its end; never the store that one replaced.
pub(crate) fn discard_unfinished(dir: &Path) -> Result<(), StoreError> {
    if is_kept(dir)? { Ok(()) } else { discard(dir) }
}

/// Removes a folder beside the store's. What is interrupted leaves no store, but a folder that is dropped later.
pub(crate) fn discard(dir: &Path) -> Result<(), StoreError> {
    let control = dir.join(CONTROL);
    let removed = fault::point("store.remove").and_then(|()| fs::remove_file(&control));
    match removed {
        Ok(()) => sync_folder(dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io(&control)(error)),
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(dir)(error)),
        _ => Ok(()),
    }
}

/// What became of the folders.
pub(crate) struct Placed {
    /// A store was there, and is kept aside.
    pub(crate) was_there: bool,
    /// The new store is in its place, but what comes after that failed.
    pub(crate) unsettled: Option<StoreError>,
}

/// The commit point of a restore: the finished folder and the store's change places. After an error they have not.
pub(crate) fn put_in_place(new: &Path, dir: &Path) -> Result<Placed, StoreError> {
    // Else the store that is to be kept would be taken for one that is being built.
    unmark(dir)?;
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
    let settle = || {
        fault::point("restore.after-exchange").map_err(moved)?;
        if let Some(parent) = dir.parent() {
            sync_folder(parent)?;
        }
        unmark(dir)?;
        if is_exchange && !was_there {
            // An empty folder came out.
            discard(new)?;
        }
        Ok(())
    };
    Ok(Placed {
        was_there,
        unsettled: settle().err(),
    })
}
