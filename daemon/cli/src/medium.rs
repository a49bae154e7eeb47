//! A new file on a medium that the daemon writes for this program: a backup, an export.
//!
//! Promises that nothing is overwritten, that the file's name is on the medium before the daemon writes and records what is
//! in it, and that a file is removed only where the daemon said that nothing was done: what it may have on record as made
//! is nobody's to throw away.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::secret;

/// A file that was made for the daemon to fill.
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    /// Makes the file, which can be read back.
    pub(crate) fn create(path: &Path, mode: u32) -> Result<NewFile> {
        let file = secret::new_file(path, mode)?;
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
        secret::sync_folder(folder.unwrap_or(Path::new(".")))?;
        let path = path.to_owned();
        Ok(NewFile { path, file })
    }

    /// What the daemon is handed.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The outcome, and what becomes of the file: `check` is the command that tells whether a file is whole.
    pub(crate) fn settle<T>(self, outcome: Result<T>, check: &str) -> Result<T> {
        outcome.map_err(|e| {
            let path = self.path.display();
            if may_be_done(e.code()) {
                e.during(format!("{path} is kept, it may be on record as made"))
                    .next(format!("{check} {path}"))
            } else {
                // Half of it is of no use. What matters is why.
                let _ = std::fs::remove_file(&self.path);
                e
            }
        })
    }
}

/// Errors that leave open whether the act took effect, or say that it did.
fn may_be_done(code: &str) -> bool {
    matches!(
        code,
        "audit_lost" | "connection_lost" | "internal" | "vault_unavailable"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn settled(code: &'static str) -> (bool, Error) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let new = NewFile::create(&path, 0o600).unwrap();
        assert!(NewFile::create(&path, 0o600).is_err(), "overwritten");
        let failed = new.settle::<()>(Err(Error::new(code, "x")), "mcpist backup verify");
        (path.exists(), failed.unwrap_err())
    }

    #[test]
    fn a_file_that_may_be_on_record_as_made_is_kept_and_another_is_not() {
        for code in ["audit_lost", "connection_lost", "internal"] {
            let (kept, error) = settled(code);
            assert!(kept, "{code}");
            assert_eq!(error.code(), code);
            let next = error.next_step().unwrap();
            assert!(next.starts_with("mcpist backup verify /"), "{next}");
        }
        for code in ["sealed", "busy", "unavailable", "backup_refused"] {
            assert!(!settled(code).0, "{code}");
        }
    }
}
