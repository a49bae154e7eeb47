//! The store's folder: its lock, its files and their modes.
//!
//! Owns `DIR/control.db`, `DIR/vaults/UUID.db` and an exclusive `flock` on `DIR` itself, held for as long
//! as a [`Store`] lives. Promises that one process at a time has the store, that no link is followed on
//! the way to a file (`O_NOFOLLOW`; SQLite opens the canonical path and refuses links in it as well), that
//! folders are 0700 and files 0600 and the process's own, and that a new database appears whole or not
//! at all.
//!
//! Does not protect against the superuser, nor against a process of the same user that ignores the lock.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use crate::fault;
use crate::ids::VaultId;

pub(crate) const CONTROL: &str = "control.db";
const CONTROL_NEW: &str = "control.db.new";
pub(crate) const VAULTS: &str = "vaults";
/// What SQLite puts behind the name of a database.
const PARTS: [&str; 4] = ["", "-wal", "-journal", "-shm"];

/// Why the folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else holds the lock.
    #[error("another mcpistd holds the store {0}: stop it first, or name another folder")]
    StoreLocked(PathBuf),
    /// There is a store already where one was to be made.
    #[error("{0} already holds a store: unseal it, or name another folder")]
    Exists(PathBuf),
    /// The store that was to be replaced holds more than init made.
    #[error("{0} holds a store that was in use: it is not replaced")]
    InUse(PathBuf),
    /// There is no store.
    #[error("{0} holds no store: run init first")]
    Missing(PathBuf),
    /// A folder or file is not ours alone.
    #[error("{path} must belong to uid {uid} and be closed to all others: chown and chmod it")]
    Exposed {
        /// What is open to others.
        path: PathBuf,
        /// The uid of this process.
        uid: u32,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Which tables a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Control,
    Vault,
}

/// The path of one database of the store, and proof that the store is locked while it is used.
#[derive(Clone)]
pub(crate) struct DbFile {
    path: PathBuf,
    role: Role,
    /// Keeps the lock on the folder for as long as anyone can open the file.
    store: Arc<Store>,
}

impl DbFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is no such file. One that cannot be looked for counts as there.
    pub(crate) fn is_gone(&self) -> bool {
        self.path.try_exists().is_ok_and(|is_there| !is_there)
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// [`Store::lease`] of its store.
    pub(crate) fn lease(&self) -> OpenGuard {
        self.store.lease()
    }

    /// Copies the closed database aside before its schema changes: `NAME.vVERSION`, whole or not at all. One of an earlier
    /// attempt is replaced; it is removed by hand.
    pub(crate) fn keep_copy(&self, version: i32) -> Result<(), StoreError> {
        let named = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (new, copy) = (
            named(&format!(".v{version}.new")),
            named(&format!(".v{version}")),
        );
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&new)(error));
            }
            _ => {}
        }
        fault::point("store.copy")
            .and_then(|()| {
                let mut to = open_file(&new, true)?;
                io::copy(&mut open_file(&self.path, false)?, &mut to)?;
                to.sync_all()?;
                fs::rename(&new, &copy)
            })
            .map_err(StoreError::io(&copy))?;
        match copy.parent() {
            Some(folder) => sync_folder(folder),
            None => Ok(()),
        }
    }

    /// Removes the closed database with all that belongs to it; what is not there is no error.
    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        for suffix in PARTS {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match fault::point("store.remove").and_then(|()| fs::remove_file(&path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io(Path::new(&path))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The locked folder.
pub(crate) struct Store {
    dir: PathBuf,
    /// The lock lives in this open folder.
    _lock: Flock<File>,
    open: Arc<OpenFiles>,
}

/// How many databases of a store are open.
#[derive(Default)]
struct OpenFiles {
    count: Mutex<usize>,
    closed: Condvar,
}

impl Store {
    /// Takes the folder of an existing store.
    ///
    /// # Errors
    /// [`StoreError`]: locked by another process, no store there, or open to others.
    pub(crate) fn take(dir: &Path) -> Result<Arc<Store>, StoreError> {
        let store = Self::lock(dir)?;
        let control = store.dir.join(CONTROL);
        match open_file(&control, false) {
            Ok(file) => check_private(&control, &file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(store.dir.clone()));
            }
            Err(error) => return Err(StoreError::io(&control)(error)),
        }
        let vaults = store.dir.join(VAULTS);
        let folder = open_folder(&vaults).map_err(StoreError::io(&vaults))?;
        check_private(&vaults, &folder)?;
        Ok(store)
    }

    /// Makes the folder where needed and takes it for a store that is to be made.
    pub(crate) fn prepare(dir: &Path) -> Result<Arc<Store>, StoreError> {
        make_folder(dir)?;
        let store = Self::lock(dir)?;
        if store.dir.join(CONTROL).symlink_metadata().is_ok() {
            return Err(StoreError::Exists(store.dir.clone()));
        }
        make_folder(&store.dir.join(VAULTS))?;
        Ok(store)
    }

    /// Takes the folder of a store that was never opened, for one that is made in its place.
    ///
    /// # Errors
    /// As [`Store::take`], and [`StoreError::InUse`] where there is a vault or anything in the database's log.
    pub(crate) fn prepare_again(dir: &Path) -> Result<Arc<Store>, StoreError> {
        let store = Self::take(dir)?;
        let vaults = store.dir.join(VAULTS);
        let has_vault = fs::read_dir(&vaults).map(|mut files| files.next().is_some());
        // A log beside the new file would be taken for the new one's.
        let log = store.dir.join(format!("{CONTROL}-wal"));
        let has_log = log.symlink_metadata().is_ok_and(|log| log.len() > 0);
        if has_vault.map_err(StoreError::io(&vaults))? || has_log {
            return Err(StoreError::InUse(store.dir.clone()));
        }
        Ok(store)
    }

    fn lock(dir: &Path) -> Result<Arc<Store>, StoreError> {
        let dir = match fs::canonicalize(dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(dir.to_path_buf()));
            }
            Err(error) => return Err(StoreError::io(dir)(error)),
        };
        let folder = open_folder(&dir).map_err(StoreError::io(&dir))?;
        check_private(&dir, &folder)?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Arc::new(Store {
                dir,
                _lock: lock,
                open: Arc::default(),
            })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StoreError::StoreLocked(dir)),
            Err((_, errno)) => Err(StoreError::io(&dir)(errno.into())),
        }
    }

    pub(crate) fn control(self: &Arc<Self>) -> DbFile {
        self.file(CONTROL, Role::Control)
    }

    /// The file in which a new control.db is built, empty; a left-over of an interrupted init is dropped.
    pub(crate) fn new_control(self: &Arc<Self>) -> Result<DbFile, StoreError> {
        let file = self.file(CONTROL_NEW, Role::Control);
        file.remove()?;
        open_file(&file.path, true).map_err(StoreError::io(&file.path))?;
        Ok(file)
    }

    /// The commit point of init: the finished new control.db gets its name, or nothing happens.
    pub(crate) fn publish_control(&self) -> Result<(), StoreError> {
        let (from, to) = (self.dir.join(CONTROL_NEW), self.dir.join(CONTROL));
        open_file(&from, false)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::io(&from))?;
        // The lock is held: what is replaced is what `prepare_again` saw, or nothing.
        fault::point("store.publish")
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| fault::point("store.published"))
            .map_err(StoreError::io(&to))?;
        sync_folder(&self.dir)
    }

    pub(crate) fn vault(self: &Arc<Self>, id: VaultId) -> DbFile {
        self.file(&format!("{VAULTS}/{id}.db"), Role::Vault)
    }

    /// Makes the empty file of a new vault.
    pub(crate) fn new_vault(self: &Arc<Self>, id: VaultId) -> Result<DbFile, StoreError> {
        let file = self.vault(id);
        open_file(&file.path, true).map_err(StoreError::io(&file.path))?;
        Ok(file)
    }

    /// Gives the closed file of `new` to the vault `id`, whose former file, if there is one, becomes that of `kept`. Can be
    /// repeated after any interruption: what bears the vault's name is the former file for as long as `new` has its own.
    pub(crate) fn put_in_place(
        self: &Arc<Self>,
        new: VaultId,
        id: VaultId,
        kept: VaultId,
    ) -> Result<(), StoreError> {
        let [new, here, kept] = [new, id, kept].map(|id| self.vault(id).path);
        if !new.try_exists().map_err(StoreError::io(&new))? {
            return Ok(());
        }
        let part = |path: &Path, suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        for suffix in PARTS {
            let (from, to) = (part(&here, suffix), part(&kept, suffix));
            match fault::point("vault.set-aside").and_then(|()| fs::rename(&from, &to)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io(&from)(error));
                }
                _ => {}
            }
        }
        // The former file has its new name for good before its old one is given away.
        self.sync_vaults()?;
        fault::point("vault.place")
            .and_then(|()| fs::rename(&new, &here))
            .and_then(|()| fault::point("vault.placed"))
            .map_err(StoreError::io(&here))?;
        self.sync_vaults()
    }

    /// The ids of which there is a file, or what belongs to one.
    pub(crate) fn vault_files(&self) -> Result<BTreeSet<VaultId>, StoreError> {
        let dir = self.dir.join(VAULTS);
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io(&dir))? {
            let name = entry.map_err(StoreError::io(&dir))?.file_name();
            let stem = name.to_str().and_then(|name| name.split_once(".db"));
            // What does not have a name of ours is not ours, and a copy from before a new schema is the operator's.
            let stem = stem.filter(|(_, rest)| PARTS.contains(rest));
            found.extend(stem.and_then(|(id, _)| VaultId::parse(id)));
        }
        Ok(found)
    }

    /// Makes the name of a new vault's file durable.
    pub(crate) fn sync_vaults(&self) -> Result<(), StoreError> {
        sync_folder(&self.dir.join(VAULTS))
    }

    fn file(self: &Arc<Self>, name: &str, role: Role) -> DbFile {
        DbFile {
            path: self.dir.join(name),
            role,
            store: Arc::clone(self),
        }
    }

    /// Counts a database as open until the guard is dropped.
    pub(crate) fn lease(&self) -> OpenGuard {
        *self
            .open
            .count
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        OpenGuard(Arc::clone(&self.open))
    }

    /// Waits until every database is closed, at most `wait`; whether they are.
    pub(crate) fn wait_closed(&self, wait: Duration) -> bool {
        let count = self
            .open
            .count
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (count, _) = self
            .open
            .closed
            .wait_timeout_while(count, wait, |count| *count > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

/// One open database of the store. It does not keep the lock: dropped last, it says that nothing does.
pub(crate) struct OpenGuard(Arc<OpenFiles>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.closed.notify_all();
    }
}

fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn open_file(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(create)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn check_private(path: &Path, file: &File) -> Result<(), StoreError> {
    let meta = file.metadata().map_err(StoreError::io(path))?;
    let uid = nix::unistd::geteuid().as_raw();
    if meta.uid() == uid && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(StoreError::Exposed {
            path: path.to_path_buf(),
            uid,
        })
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    fault::point("store.sync")
        .and_then(|()| File::open(path))
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io(path))
}
