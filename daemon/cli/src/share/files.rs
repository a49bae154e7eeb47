//! The files that a ceremony's shares and record are written to.
//!
//! Promises that nothing is overwritten, that room is looked for before anything is made whose shares would be lost
//! otherwise, and that names are on the disk before the command ends.

use std::path::{Path, PathBuf};

use mcpist_core::api::InitDone;

use crate::error::{Error, Result};
use crate::secret;

/// Names of the files that init writes.
const RECORD_TEXT: &str = "ceremony.txt";
const RECORD: &str = "ceremony.bin";

/// The name of a share's file.
pub(crate) fn share_file(index: usize, label: &str) -> String {
    // A label is for people and may hold anything; a file name may not.
    let label: String = label
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(32)
        .collect();
    format!("share-{}-{label}.age", index + 1)
}

/// Sees that `folder` takes every file of init, before anything is made whose shares would be lost otherwise.
pub(crate) fn check_room(folder: &Path, labels: &[&str]) -> Result<()> {
    let next = "name another folder with --out; nothing was made";
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e).next(next))?;
    let shares = labels
        .iter()
        .enumerate()
        .map(|(index, label)| share_file(index, label));
    for name in [RECORD_TEXT.to_owned(), RECORD.to_owned()]
        .into_iter()
        .chain(shares)
    {
        let path = folder.join(name);
        // Made and removed again: whatever keeps it from being made is met here.
        secret::create(&path, 0o600, &[]).map_err(|e| e.next(next))?;
        std::fs::remove_file(&path).map_err(|e| Error::file(&path, e).next(next))?;
    }
    Ok(())
}

/// Writes the age file of each wanted share, by its place, and the ceremony record; nothing is overwritten.
pub(crate) fn write_shares(
    folder: &Path,
    done: &InitDone,
    wanted: impl Fn(usize) -> bool,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let mut files = Vec::new();
    let mut write = |name: String, mode, bytes: &[u8]| {
        let path = folder.join(name);
        secret::create(&path, mode, bytes)?;
        files.push(path);
        Ok::<(), Error>(())
    };
    write(RECORD_TEXT.to_owned(), 0o644, done.record_text.as_bytes())?;
    write(RECORD.to_owned(), 0o644, &done.record.0)?;
    for (index, share) in done.shares.iter().enumerate().filter(|(i, _)| wanted(*i)) {
        write(share_file(index, &share.label), 0o600, share.age.as_bytes())?;
    }
    secret::sync_folder(folder)?;
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_way_is_met_before_anything_is_made_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path(), &["ada", "bob"]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let old = folder.path().join("share-2-bob.age");
        std::fs::write(&old, "old").unwrap();
        assert!(check_room(folder.path(), &["ada", "bob"]).is_err());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
