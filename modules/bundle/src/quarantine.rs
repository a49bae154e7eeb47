//! The first step in: one private copy of what a descriptor gives.
//!
//! Owns [`take`]. Promises that only a regular file within the cap is copied, that the copy is made once, by reading
//! from offset 0 whatever the descriptor's own offset is, and that later steps read the copy: what the stick says
//! afterwards changes nothing. The copy's file has no name that a peer could open and is gone with the value.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

const SLICE: usize = 1 << 20;

/// A bundle's private copy. Removed when dropped.
#[derive(Debug)]
pub struct Quarantined {
    file: File,
    path: PathBuf,
    size: u64,
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A directory, a device, a pipe or a socket.
    #[error("the descriptor is of no regular file")]
    NotAFile,
    /// Over the cap.
    #[error("the file has {size} bytes; at most {cap} are taken")]
    TooLarge {
        /// The file's size.
        size: u64,
        /// The cap.
        cap: u64,
    },
    /// The file changed its size while it was copied.
    #[error("the file ended before the size that it showed first")]
    Shrunk,
    /// No room, or another failure of the disk.
    #[error("the file could not be copied into quarantine: {0}")]
    Io(#[from] io::Error),
}

impl TakeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            TakeError::NotAFile => "not_a_file",
            TakeError::TooLarge { .. } => "too_large",
            TakeError::Shrunk => "shrunk",
            TakeError::Io(_) => "quarantine_io",
        }
    }
}

/// Copies the file behind `source` into the folder `quarantine`.
///
/// # Errors
/// [`TakeError`]; nothing is left behind then.
pub fn take(source: &File, quarantine: &Path, cap: u64) -> Result<Quarantined, TakeError> {
    let meta = source.metadata()?;
    if !meta.is_file() {
        return Err(TakeError::NotAFile);
    }
    let size = meta.len();
    if size > cap {
        return Err(TakeError::TooLarge { size, cap });
    }
    let name = mcpist_secret::random_bytes::<16>().map_err(io::Error::other)?;
    let path = quarantine.join(format!("{}.bundle", hex::encode(name)));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&path)?;
    let taken = Quarantined { file, path, size };
    taken.fill(source)?;
    Ok(taken)
}

impl Quarantined {
    fn fill(&self, source: &File) -> Result<(), TakeError> {
        if self.size > 0 {
            let length = i64::try_from(self.size).unwrap_or(i64::MAX);
            match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(TakeError::Io(errno.into())),
            }
        }
        let mut slice = vec![
            0;
            SLICE
                .min(usize::try_from(self.size).unwrap_or(SLICE))
                .max(1)
        ];
        let mut at = 0;
        while at < self.size {
            let want = slice
                .len()
                .min(usize::try_from(self.size - at).unwrap_or(slice.len()));
            let read = source.read_at(&mut slice[..want], at)?;
            if read == 0 {
                return Err(TakeError::Shrunk);
            }
            self.file.write_all_at(&slice[..read], at)?;
            at += read as u64;
        }
        self.file.sync_all()?;
        Ok(())
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Quarantined {
    fn drop(&mut self) {
        // `clean` removes what could not be removed here.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn a_copy_is_whole_whatever_the_offset_and_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(b"a bundle's bytes").unwrap();
        source.seek(SeekFrom::Start(5)).unwrap();
        let taken = take(&source, folder.path(), 100).unwrap();
        let mut copy = Vec::new();
        taken.file().read_to_end(&mut copy).unwrap();
        assert_eq!(copy, b"a bundle's bytes");
        drop(taken);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sparse_giant_and_what_is_no_file_are_refused_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let giant = tempfile::tempfile().unwrap();
        giant.set_len(10 << 40).unwrap();
        assert_eq!(
            take(&giant, folder.path(), 1 << 30).unwrap_err().code(),
            "too_large"
        );
        let directory = File::open(folder.path()).unwrap();
        assert_eq!(
            take(&directory, folder.path(), 100).unwrap_err().code(),
            "not_a_file"
        );
        let device = File::open("/dev/zero").unwrap();
        assert_eq!(
            take(&device, folder.path(), 100).unwrap_err().code(),
            "not_a_file"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
