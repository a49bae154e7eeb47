//! The folders beside the store's: where a restore builds, where the store that it replaced is kept, and where a drill
//! builds what it removes again.
//!
//! Owns their names, the mark of a folder that is being built, [`put_in_place`], which is the commit point of a restore,
//! and the removal of what was kept. Promises: a folder there with the mark, or with neither control.db nor a vault's file,
//! is of no use and is dropped by the next restore and by [`tidy`]; any other without the mark is the store that was
//! replaced, or what was left of it, and goes only when [`remove_aside`] is called.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;

use crate::fault;
use crate::store::{CONTROL, Store, StoreError, VAULTS, sync_folder};

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
    let mark = kept.join(UNFINISHED);
    Ok(holds(kept)? && !mark.try_exists().map_err(StoreError::io(&mark))?)
}

/// Whether a folder holds a store, or what is left of one whose control.db is lost.
fn holds(dir: &Path) -> Result<bool, StoreError> {
    let (control, vaults) = (dir.join(CONTROL), dir.join(VAULTS));
    if control.try_exists().map_err(StoreError::io(&control))? {
        return Ok(true);
    }
    match fs::read_dir(&vaults) {
        Ok(mut files) => Ok(files.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(&vaults)(error)),
    }
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
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
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
    let _store = match Store::take(&kept) {
        // There is no more than vaults without keys.
        Err(StoreError::Missing(_)) => None,
        taken => Some(taken?),
    };
    discard(&kept)?;
    Ok(true)
}

/// Removes what a restore left that did not come to its end; never the store that one replaced.
pub(crate) fn discard_unfinished(dir: &Path) -> Result<(), StoreError> {
    if is_kept(dir)? { Ok(()) } else { discard(dir) }
}

/// Removes a folder beside the store's. What is interrupted leaves no store, but a folder that is dropped later: it has the
/// mark until nothing is in it that would be kept.
pub(crate) fn discard(dir: &Path) -> Result<(), StoreError> {
    if holds(dir)? {
        mark(dir)?;
    }
    let control = dir.join(CONTROL);
    let removed = fault::point("store.remove").and_then(|()| fs::remove_file(&control));
    match removed {
        Ok(()) => sync_folder(dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io(&control)(error)),
    }
    for folder in [&dir.join(VAULTS), dir] {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(folder)(error));
            }
            _ => {}
        }
    }
    Ok(())
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
    let was_there = holds(dir)?;
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
