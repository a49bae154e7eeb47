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

/// The name of a share's file. That of a later generation says so: it lies beside the one that it replaces.
pub(crate) fn share_file(index: usize, label: &str, generation: u32) -> String {
    // A label is for people and may hold anything; a file name may not.
    let label: String = label
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(32)
        .collect();
    let later = match generation {
        ..=1 => String::new(),
        later => format!("-g{later}"),
    };
    format!("share-{}-{label}{later}.age", index + 1)
}

/// Sees that `folder` takes every file of init, before anything is made whose shares would be lost otherwise.
pub(crate) fn check_room(folder: &Path, labels: &[&str]) -> Result<()> {
    let shares = labels
        .iter()
        .enumerate()
        .map(|(index, label)| share_file(index, label, 1));
    let names = [RECORD_TEXT.to_owned(), RECORD.to_owned()].into_iter();
    let names: Vec<String> = names.chain(shares).collect();
    check_new(
        folder,
        &names,
        "name another folder with --out; nothing was made",
    )
}

/// Sees that `folder` takes new files of these names, before an act that gives out once what goes into them.
pub(crate) fn check_new(folder: &Path, names: &[String], next: &str) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e).next(next))?;
    names
        .iter()
        .try_for_each(|name| check_file(&folder.join(name), next))
}

/// The same of one file.
pub(crate) fn check_file(path: &Path, next: &str) -> Result<()> {
    // Made and removed again: whatever keeps it from being made is met here.
    secret::create(path, 0o600, &[]).map_err(|e| e.next(next))?;
    std::fs::remove_file(path).map_err(|e| Error::file(path, e).next(next))
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
        write(
            share_file(index, &share.label, 1),
            0o600,
            share.age.as_bytes(),
        )?;
    }
    secret::sync_folder(folder)?;
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_later_generation_says_so_in_its_name() {
        assert_eq!(share_file(0, "ada", 1), "share-1-ada.age");
        assert_eq!(share_file(0, "ada/../", 12), "share-1-ada-g12.age");
    }

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
