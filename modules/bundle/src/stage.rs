//! From a verified bundle to a registry's folder, and back from the folder.
//!
//! A registry's folder is named by the manifest's digest and holds `manifest` and `blobs/PATH`. Promises: the folder
//! appears whole or not at all (staged under another name, synced, renamed); every path is resolved beneath the
//! folder by the kernel (openat2, no links followed); what is loaded is hashed again. Does not decide what is
//! imported: the record in the store does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mcpist_core::ids::{Digest, RegistryId};
use mcpist_core::manifest::{Blob, BlobPath, MAX_MANIFEST, Manifest, ManifestError};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use ring::digest::{Context, SHA256};

use crate::verify::Verified;

const SLICE: usize = 1 << 20;
const MANIFEST: &str = "manifest";
const BLOBS: &str = "blobs";
const STAGING: &str = "staging";

/// Why a verified bundle was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A file operation failed.
    #[error("the registry's folder could not be written: {0}")]
    Io(#[from] io::Error),
    /// The quarantined copy changed under us.
    #[error("blob {0} changed after it was verified; the disk is failing or the host is not yours")]
    Changed(BlobPath),
}

impl StageError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            StageError::Io(_) => "staging_io",
            StageError::Changed(_) => "changed_in_quarantine",
        }
    }
}

/// Why a registry's folder is of no use. Only its own modules suffer.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing or unreadable.
    #[error("registry {registry}: {path}: {source}; import the bundle again")]
    Io {
        /// The registry, shortened.
        registry: String,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not have its digest.
    #[error("registry {registry}: {path} is damaged; import the bundle again")]
    Damaged {
        /// The registry, shortened.
        registry: String,
        /// The file.
        path: String,
    },
    /// The manifest does not parse.
    #[error("registry {registry}: {source}")]
    Manifest {
        /// The registry, shortened.
        registry: String,
        /// Why.
        source: ManifestError,
    },
}

/// A registry as read from its folder.
#[derive(Debug)]
pub struct Loaded {
    /// The bytes that were signed.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// Every blob.
    pub blobs: BTreeMap<BlobPath, Vec<u8>>,
}

/// A folder below which paths are resolved.
struct Folder(OwnedFd);

impl Folder {
    fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(Folder(openat2(
            AT_FDCWD,
            path,
            OpenHow::new().flags(flags),
        )?))
    }

    fn beneath(&self, path: &str, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(self.0.as_fd(), path, how)?)
    }

    fn create(&self, path: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        self.beneath(path, flags, Mode::from_bits_truncate(0o640))
            .map(File::from)
    }

    fn read(&self, path: &str) -> io::Result<File> {
        self.beneath(path, OFlag::O_RDONLY, Mode::empty())
            .map(File::from)
    }

    /// Makes the folders above `path`.
    fn parents(&self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            match mkdirat(self.0.as_fd(), &path[..at], Mode::from_bits_truncate(0o750)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn blob_file(path: &BlobPath) -> String {
    format!("{BLOBS}/{path}")
}

impl Verified<'_> {
    /// Writes the registry's folder into `registries`. A folder of this very registry that is there already, from an
    /// import that was interrupted before its commit, is put aside first.
    ///
    /// # Errors
    /// [`StageError`]; a later import or [`clean`] removes what is left.
    pub fn stage(&self, registries: &Path) -> Result<(), StageError> {
        let id = self.registry();
        let (staging, target) = (
            folder_of(registries, &id).with_extension(STAGING),
            folder_of(registries, &id),
        );
        remove(&staging)?;
        std::fs::create_dir(&staging)?;
        let folder = Folder::open(&staging)?;
        let manifest = folder.create(MANIFEST)?;
        manifest.write_all_at(self.manifest_bytes(), 0)?;
        manifest.sync_all()?;
        let mut at = self.payload_at;
        for blob in &self.manifest().blobs {
            self.copy_blob(&folder, blob, at)?;
            at += blob.length;
        }
        nix::unistd::syncfs(folder.0.as_fd()).map_err(io::Error::from)?;
        remove(&target)?;
        std::fs::rename(&staging, &target)?;
        File::open(registries)?.sync_all()?;
        Ok(())
    }

    fn copy_blob(&self, folder: &Folder, blob: &Blob, mut at: u64) -> Result<(), StageError> {
        let path = blob_file(&blob.path);
        folder.parents(&path)?;
        let out = folder.create(&path)?;
        let mut hash = Context::new(&SHA256);
        let mut slice = vec![
            0;
            SLICE
                .min(usize::try_from(blob.length).unwrap_or(SLICE))
                .max(1)
        ];
        let mut written = 0;
        while written < blob.length {
            let want = slice
                .len()
                .min(usize::try_from(blob.length - written).unwrap_or(slice.len()));
            self.quarantined
                .file()
                .read_exact_at(&mut slice[..want], at)?;
            hash.update(&slice[..want]);
            out.write_all_at(&slice[..want], written)?;
            at += want as u64;
            written += want as u64;
        }
        if hash.finish().as_ref() != blob.digest.as_bytes() {
            return Err(StageError::Changed(blob.path.clone()));
        }
        Ok(())
    }
}

/// Reads a registry's folder and hashes everything again.
///
/// # Errors
/// [`LoadError`].
pub fn load(registries: &Path, id: &RegistryId) -> Result<Loaded, LoadError> {
    let registry = || id.short();
    let io = |path: &str, source: io::Error| LoadError::Io {
        registry: registry(),
        path: path.to_owned(),
        source,
    };
    let damaged = |path: &str| LoadError::Damaged {
        registry: registry(),
        path: path.to_owned(),
    };
    let folder = Folder::open(&folder_of(registries, id)).map_err(|e| io(".", e))?;
    let read = |path: &str, limit: u64| {
        let mut bytes = Vec::new();
        let file = folder.read(path).map_err(|e| io(path, e))?;
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| io(path, e))?;
        if bytes.len() as u64 > limit {
            Err(damaged(path))
        } else {
            Ok(bytes)
        }
    };
    let manifest_bytes = read(MANIFEST, MAX_MANIFEST as u64)?;
    if RegistryId::of_manifest(&manifest_bytes) != *id {
        return Err(damaged(MANIFEST));
    }
    let manifest = Manifest::parse(&manifest_bytes).map_err(|source| LoadError::Manifest {
        registry: registry(),
        source,
    })?;
    let mut blobs = BTreeMap::new();
    for blob in &manifest.blobs {
        let path = blob_file(&blob.path);
        let bytes = read(&path, blob.length)?;
        if Digest::of(&bytes) != blob.digest {
            return Err(damaged(&path));
        }
        blobs.insert(blob.path.clone(), bytes);
    }
    Ok(Loaded {
        manifest_bytes,
        manifest,
        blobs,
    })
}

/// Removes what interrupted imports left: staging folders and quarantined copies. For the start of the daemon.
///
/// # Errors
/// A folder cannot be read, or a leftover not removed.
pub fn clean(registries: &Path, quarantine: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(registries)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == STAGING) {
            remove(&path)?;
        }
    }
    for entry in std::fs::read_dir(quarantine)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "bundle") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn folder_of(registries: &Path, id: &RegistryId) -> PathBuf {
    registries.join(id.digest().to_string())
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
