//! From a verified bundle to a registry's folder, and back from the folder.
//!
//! A registry's folder is named by the manifest's digest and holds `manifest` and `blobs/PATH`. Promises: the folder
//! appears whole or not at all (staged under another name, synced, renamed); every path is resolved beneath the
//! folder by the kernel (openat2, no links followed); what is loaded is a regular file and hashed again, and blobs are
//! loaded one by one.
//! Does not decide what is imported: the record in the store does.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mcpist_core::ids::RegistryId;
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

/// A registry in its folder: the manifest is in memory, blobs are read when they are asked for.
#[derive(Debug)]
pub struct Loaded {
    /// The bytes that were signed.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    id: RegistryId,
    folder: Folder,
}

impl Loaded {
    /// The bytes of one blob, hashed; `None` where the manifest lists no such blob.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn blob(&self, path: &BlobPath) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(blob) = self.manifest.blobs.iter().find(|b| b.path == *path) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        self.each_slice(blob, |slice| bytes.extend_from_slice(slice))?;
        Ok(Some(bytes))
    }

    /// Hashes every blob, a slice in memory at a time.
    ///
    /// # Errors
    /// [`LoadError`] of the first that is missing or damaged.
    pub fn check(&self) -> Result<(), LoadError> {
        let each = |blob| self.each_slice(blob, |_| ());
        self.manifest.blobs.iter().try_for_each(each)
    }

    /// Hands the blob's bytes on; what was handed on counts only where this ends well.
    fn each_slice(&self, blob: &Blob, mut each: impl FnMut(&[u8])) -> Result<(), LoadError> {
        let path = blob_file(&blob.path);
        let io = |source| LoadError::Io {
            registry: self.id.short(),
            path: path.clone(),
            source,
        };
        let mut file = self
            .folder
            .read(&path)
            .map_err(io)?
            .take(blob.length.saturating_add(1));
        let mut slice = vec![0; SLICE.min(usize::try_from(blob.length).unwrap_or(SLICE) + 1)];
        let (mut hash, mut length) = (Context::new(&SHA256), 0);
        loop {
            let read = file.read(&mut slice).map_err(io)?;
            if read == 0 {
                break;
            }
            length += read as u64;
            hash.update(&slice[..read]);
            each(&slice[..read]);
        }
        if length != blob.length || hash.finish().as_ref() != blob.digest.as_bytes() {
            return Err(LoadError::Damaged {
                registry: self.id.short(),
                path,
            });
        }
        Ok(())
    }
}

/// A folder below which paths are resolved.
#[derive(Debug)]
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

    /// Opens a regular file; a pipe in its place would keep the reader waiting for a writer.
    fn read(&self, path: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = File::from(self.beneath(path, flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("it is no regular file"))
        }
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

/// Opens a registry's folder and reads its manifest, whose digest is the registry's name. No blob is read.
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
    let folder = Folder::open(&folder_of(registries, id)).map_err(|e| io(".", e))?;
    let mut manifest_bytes = Vec::new();
    folder
        .read(MANIFEST)
        .and_then(|file| {
            file.take(MAX_MANIFEST as u64 + 1)
                .read_to_end(&mut manifest_bytes)
        })
        .map_err(|e| io(MANIFEST, e))?;
    if manifest_bytes.len() > MAX_MANIFEST || RegistryId::of_manifest(&manifest_bytes) != *id {
        return Err(LoadError::Damaged {
            registry: registry(),
            path: MANIFEST.to_owned(),
        });
    }
    let manifest = Manifest::parse(&manifest_bytes).map_err(|source| LoadError::Manifest {
        registry: registry(),
        source,
    })?;
    Ok(Loaded {
        manifest_bytes,
        manifest,
        id: *id,
        folder,
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
