//! Restore: a whole new store out of a backup, in place of the one that is there, if one is.
//!
//! Owns [`restore`]. The new store is built in a folder of its own beside the old one, every record of it is opened as
//! at unseal, every vault's head begins a new life ([`mcpist_quorum::Incarnation`]), and one rename, which exchanges
//! the two folders, is the commit point: interrupted before it, the old store is there and a folder that the next
//! start or restore drops; after it, the new one. The old store stays beside the new one, sealed, until
//! [`crate::remove_aside`]. [`drill`] does all of this but the rename, and removes what it built.
//!
//! A vault that a quorum of its own opens is let be: it comes as it stood, and that quorum's unseal judges its head by what
//! the backed up store knew of it ([`BackupItem::EndOfOwn`]), so that a file which was put back before stays foreign.
//!
//! Does not: collect shares (the caller has the KEK), open the store that it made (the same quorum unseals it), or stop
//! the host that the backup came from, which witness receipts fence.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_quorum::{BackupItem, Incarnation, LifeError, RecordError};
use mcpist_secret::{Key, MemoryError, Secret};

use crate::aside::{
    aside, discard, discard_unfinished, drilled, is_kept_aside, mark, put_in_place,
};
use crate::backup::{
    BackupFault, BackupReport, Section, StoredBackup, check_end, items, section_of, table_of,
};
use crate::barrier::Options;
use crate::batch::{Op, check_batch};
use crate::commit::Extra;
use crate::disk::{Disk, Role, tampered};
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::{KeyCell, VaultKeys, unwrap_root};
use crate::ledger::{Entry, Inbox, Ledger, Point};
use crate::own::{OwnNote, VaultQuorum};
use crate::record::{Place, seal_head};
use crate::rows::{Access, Backend, Rows, Table};
use crate::sqlite::Sqlite;
use crate::store::{Store, StoreError};
use crate::vault::now;
use crate::verify::{Candidate, NamedVault};

/// Rows that one transaction writes.
const BATCH: usize = 512;

/// Why nothing was restored. What was there is there.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupFault),
    /// The root key does not open under this secret and this seal config.
    #[error(
        "the backup's root key does not open ({0}): its header was changed, take another copy of it"
    )]
    RootKey(RecordError),
    /// The folders.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A store of an earlier restore is still there.
    #[error("the store that an earlier restore replaced is still kept aside")]
    KeptAside,
    /// A file of the daemon could not be put in its place.
    #[error("{what}: {source}")]
    File {
        /// Which one.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The new life.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// No randomness or secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<VaultError> for RestoreError {
    fn from(error: VaultError) -> RestoreError {
        RestoreError::Backup(error.into())
    }
}

/// What a restore made, or a drill removed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The life of the store that begins.
    pub incarnation: Incarnation,
    /// How many vaults, the system vault among them.
    pub vaults: u32,
    /// How many records they hold. All were opened but those of [`Restored::carried`].
    pub records: u64,
    /// How many files of the daemon.
    pub files: u32,
    /// The vaults that a quorum of their own opens, and their records: they are there as they stood, and that quorum's
    /// unseal verifies them.
    pub carried: Vec<(String, u64)>,
    /// The vaults that the backup could not hold, and why.
    pub left_out: Vec<(String, String)>,
    /// How long its rows and files took to be written.
    pub building: Duration,
    /// How long all of it took to be opened.
    pub verifying: Duration,
    /// A store was there, and is kept aside.
    pub is_kept: bool,
    /// The store is in its place, but what the disk said to an act after that.
    pub unsettled: Option<String>,
}

/// The daemon's part of a restore.
pub trait RestoreFiles {
    /// A file of the daemon begins, of that many bytes. What is made of it must do no harm where the restore ends
    /// before it is made.
    ///
    /// # Errors
    /// A name that is none of the daemon's, or the disk.
    fn begin(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Its next bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The file is whole.
    ///
    /// # Errors
    /// Those of the disk.
    fn end(&mut self) -> io::Result<()>;

    /// The lives of this store that are known besides the backup's: the one that begins is above them. `system` is as it
    /// stood in the backup.
    ///
    /// # Errors
    /// The store is not made then.
    fn lives(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<u64>, VaultError>;

    /// Writes that go into the system vault with its new head: audit lines and what must not go on from the old life.
    ///
    /// # Errors
    /// The store is not made then.
    fn records(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError>;
}

/// The system vault of a store that is being restored.
pub struct RestoredSystem<'a> {
    disk: &'a mut Disk,
    /// The life of the backup, and then the one that begins.
    pub incarnation: Incarnation,
}

impl RestoredSystem<'_> {
    /// The payload of the record `name`, which is nobody's.
    ///
    /// # Errors
    /// [`VaultError::NotFound`], or no secret memory.
    pub fn open(&mut self, name: &str) -> Result<Secret, VaultError> {
        let sealed = self.disk.load("", name)?;
        Ok(self.disk.keys.lend(|keys| sealed.open(keys))??)
    }
}

/// Makes a store in `dir` out of a backup. `kek` is the key of the quorum of the backup's seal config. What is in `dir`,
/// which must be sealed, is kept aside. The caller lets go of it afterwards: its lock is on the folder that moved.
///
/// # Errors
/// [`RestoreError`]. What fails once the new store is in its place is none, but [`Restored::unsettled`].
pub fn restore(
    backup: &StoredBackup,
    kek: &Key,
    dir: &Path,
    files: &mut dyn RestoreFiles,
) -> Result<Restored, RestoreError> {
    let root = root_of(backup, kek)?;
    let new_dir = aside(dir);
    if is_kept_aside(dir)? {
        return Err(RestoreError::KeptAside);
    }
    discard_unfinished(&new_dir)?;
    let made = build(backup, &root, &new_dir, files)
        .and_then(|restored| Ok((restored, put_in_place(&new_dir, dir)?)));
    if made.is_err() {
        // It may have filled the disk.
        discard_unfinished(&new_dir)?;
    }
    let (mut restored, placed) = made?;
    restored.is_kept = placed.was_there;
    restored.unsettled = placed.unsettled.map(|e| e.to_string());
    Ok(restored)
}

/// Does what [`restore`] does, in a folder of its own beside `dir` ([`drilled`]), and removes all of it. Nothing in `dir` is
/// looked at.
///
/// # Errors
/// [`RestoreError`]: what a restore would have failed with, or that the folder could not be removed.
pub fn drill(
    backup: &StoredBackup,
    kek: &Key,
    dir: &Path,
    files: &mut dyn RestoreFiles,
) -> Result<Restored, RestoreError> {
    let root = root_of(backup, kek)?;
    let scratch = drilled(dir);
    discard(&scratch)?;
    let made = build(backup, &root, &scratch, files);
    discard(&scratch)?;
    made
}

fn root_of(backup: &StoredBackup, kek: &Key) -> Result<KeyCell<Key>, RestoreError> {
    let header = backup.header();
    unwrap_root(kek, &header.config().to_bytes(), header.root())
        .map(KeyCell::new)
        .map_err(RestoreError::RootKey)
}

/// Builds the new store in a folder of its own.
fn build(
    backup: &StoredBackup,
    root: &KeyCell<Key>,
    dir: &Path,
    files: &mut dyn RestoreFiles,
) -> Result<Restored, RestoreError> {
    let store = Store::prepare(dir)?;
    mark(dir)?;
    let begun = Instant::now();
    let mut building = Building {
        backup,
        root,
        store: &store,
        open: BTreeMap::new(),
        own: BTreeMap::new(),
        restored: Restored {
            incarnation: *backup.header().incarnation(),
            vaults: 0,
            records: 0,
            files: 0,
            carried: Vec::new(),
            left_out: Vec::new(),
            building: Duration::ZERO,
            verifying: Duration::ZERO,
            is_kept: false,
            unsettled: None,
        },
    };
    building.fill(files)?;
    let filled = begun.elapsed();
    building.finish(files)?;
    let mut restored = building.restored;
    store.sync_vaults()?;
    store.publish_control()?;
    restored.building = filled;
    restored.verifying = begun.elapsed().saturating_sub(filled);
    Ok(restored)
}

/// The new store as its rows come by.
struct Building<'a> {
    backup: &'a StoredBackup,
    root: &'a KeyCell<Key>,
    store: &'a Arc<Store>,
    /// The files that are whole, and are not believed yet.
    open: BTreeMap<VaultId, Box<dyn Rows>>,
    /// Of those that a quorum of their own opens: the records, and what their heads are to be judged by.
    own: BTreeMap<VaultId, (u64, Entry)>,
    restored: Restored,
}

pub(crate) enum Write {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

/// One file that rows are written into.
pub(crate) struct Filling {
    id: VaultId,
    pub(crate) rows: Box<dyn Rows>,
    waiting: Vec<Write>,
}

impl Filling {
    /// The new, empty file of a vault.
    pub(crate) fn of(id: VaultId, rows: Box<dyn Rows>) -> Filling {
        Filling {
            id,
            rows,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, write: Write) -> Result<(), VaultError> {
        self.waiting.push(write);
        if self.waiting.len() < BATCH {
            return Ok(());
        }
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), VaultError> {
        let mut tx = self.rows.begin(Access::Write)?;
        for write in self.waiting.drain(..) {
            match write {
                Write::Put(table, key, value) => tx.put(table, &key, &value)?,
                Write::Delete(table, key) => tx.delete(table, &key)?,
            }
        }
        Ok(tx.commit()?)
    }
}

impl Building<'_> {
    /// Writes the rows as they stand in the backup, and hands over the daemon's files.
    fn fill(&mut self, files: &mut dyn RestoreFiles) -> Result<(), RestoreError> {
        let (mut section, mut filling) = (Section::Between, None::<Filling>);
        let mut counted = BackupReport::default();
        let mut file = String::new();
        items(self.backup, self.root, |item| {
            let before = std::mem::replace(&mut section, Section::Between);
            section = section_of(before, &item)?;
            match item {
                BackupItem::Vault { id, .. } => filling = Some(self.begin(VaultId::of(id))?),
                BackupItem::Row { table, key, value } => {
                    let table = table_of(table)?;
                    self.backup.check_quorum(table, key, value)?;
                    let write = Write::Put(table, key.to_vec(), value.to_vec());
                    if let Some(filling) = &mut filling {
                        filling.push(write)?;
                    }
                }
                BackupItem::Gone { table, key } => {
                    let write = Write::Delete(table_of(table)?, key.to_vec());
                    if let Some(filling) = &mut filling {
                        filling.push(write)?;
                    }
                }
                BackupItem::EndOfVault { records } => {
                    if let Some(mut filled) = filling.take() {
                        filled.flush()?;
                        self.open.insert(filled.id, filled.rows);
                    }
                    counted.vaults += 1;
                    counted.records += records;
                }
                BackupItem::EndOfOwn { records, entry } => {
                    if let Some(mut filled) = filling.take() {
                        filled.flush()?;
                        let entry = Entry::decode(entry).map_err(VaultError::from)?;
                        self.own.insert(filled.id, (records, entry));
                        self.open.insert(filled.id, filled.rows);
                    }
                    counted.vaults += 1;
                    counted.records += records;
                }
                BackupItem::LeftOut { name, reason, .. } => {
                    if let Some(Filling { id, rows, .. }) = filling.take() {
                        drop(rows);
                        self.store.vault(id).remove()?;
                    }
                    counted.left_out.push((name.to_owned(), reason.to_owned()));
                }
                BackupItem::File { path, length } => {
                    path.clone_into(&mut file);
                    counted.files += 1;
                    files.begin(path, length).map_err(at(&file))?;
                }
                BackupItem::Piece(bytes) => files.piece(bytes).map_err(at(&file))?,
                BackupItem::Counts { .. } => check_end(&counted, &item)?,
            }
            if matches!(section, Section::File(0)) {
                files.end().map_err(at(&file))?;
            }
            Ok::<(), RestoreError>(())
        })?;
        self.restored.files = counted.files;
        self.restored.left_out = counted.left_out;
        Ok(())
    }

    fn begin(&self, id: VaultId) -> Result<Filling, RestoreError> {
        let file = if id == VaultId::SYSTEM {
            self.store.new_control()?
        } else {
            self.store.new_vault(id)?
        };
        let rows = Sqlite.create(&file).map_err(VaultError::from)?;
        Ok(Filling::of(id, rows))
    }

    /// Verifies every vault and begins its new life; control.db last, with the heads of all.
    fn finish(&mut self, files: &mut dyn RestoreFiles) -> Result<(), RestoreError> {
        let rows = self.open.remove(&VaultId::SYSTEM);
        let rows = rows.ok_or_else(|| tampered("control.db is not in the backup"))?;
        let (mut system, named) = self.verify_system(rows)?;
        let parent = self.restored.incarnation;
        let others = files.lives(&mut RestoredSystem {
            disk: &mut system,
            incarnation: parent,
        })?;
        self.restored.incarnation = Incarnation::after(&parent, &others)?;
        let mut heads = Vec::new();
        let known = match &system.role {
            Role::System { ledger, .. } => ledger.clone(),
            Role::Vault(_) => Ledger::default(),
        };
        for vault in &named {
            let Some(rows) = self.open.remove(&vault.id) else {
                if self
                    .restored
                    .left_out
                    .iter()
                    .any(|(name, _)| *name == vault.name)
                {
                    continue;
                }
                return Err(tampered("a vault is named in the backup and not in it").into());
            };
            let entry = match &vault.own {
                Some(note) => self.carry(vault, note, rows, &mut system)?,
                None => Entry {
                    missing: known.0.get(&vault.id).and_then(|entry| entry.missing),
                    ..Entry::new(self.begin_life(vault, rows, &mut system)?)
                },
            };
            heads.push((vault.id, entry));
        }
        self.count(system.head.head.count);
        system.head.head.incarnation = self.restored.incarnation;
        let ops = files.records(&mut RestoredSystem {
            disk: &mut system,
            incarnation: self.restored.incarnation,
        })?;
        if !ops.is_empty() {
            check_batch(&ops)?;
        }
        let extra = Extra {
            ledger: heads,
            ..Extra::default()
        };
        system.commit_system(&ops, now(), extra)?;
        system.keys.revoke();
        system.rows.truncate_log().map_err(VaultError::from)?;
        system.rows.close().map_err(VaultError::from)?;
        Ok(())
    }

    fn count(&mut self, records: u64) {
        self.restored.vaults += 1;
        self.restored.records += records;
    }

    /// Lets a vault be that its own quorum opens; what its head is to be judged by.
    fn carry(
        &mut self,
        vault: &NamedVault,
        note: &OwnNote,
        mut rows: Box<dyn Rows>,
        system: &mut Disk,
    ) -> Result<Entry, RestoreError> {
        let own = self.own.remove(&vault.id);
        let (records, entry) = own
            .ok_or_else(|| tampered("a vault stands in the backup as one of the store's quorum"))?;
        let store = self.backup.header().config().store();
        VaultQuorum::of(store, vault.id, note, &system.key_row(vault.id)?)?;
        rows.truncate_log().map_err(VaultError::from)?;
        rows.close().map_err(VaultError::from)?;
        self.count(records);
        self.restored.carried.push((vault.name.clone(), records));
        Ok(entry)
    }

    fn candidate(&self, id: VaultId, keys: VaultKeys, rows: Box<dyn Rows>) -> Candidate {
        Candidate {
            place: Place::new(self.backup.header().config().store(), id),
            keys: Arc::new(KeyCell::new(keys)),
            rows,
            idle: Options::default().idle,
            open: self.store.lease(),
        }
    }

    /// The keys of a vault, out of their row of control.db.
    fn keys(&self, id: VaultId, rows: &mut dyn Rows) -> Result<VaultKeys, RestoreError> {
        let store = self.backup.header().config().store();
        let mut tx = rows.begin(Access::Read).map_err(VaultError::from)?;
        let row = tx.get(Table::Vault, id.as_bytes());
        let row = row.map_err(VaultError::from)?.unwrap_or_default();
        let keys = self
            .root
            .lend(|root| VaultKeys::unwrap(root, store, id, &row))
            .map_err(VaultError::from)?;
        Ok(keys.map_err(|e| tampered(&format!("the wrapped keys of a vault do not open: {e}")))?)
    }

    fn verify_system(
        &self,
        mut rows: Box<dyn Rows>,
    ) -> Result<(Disk, Vec<NamedVault>), RestoreError> {
        let keys = self.keys(VaultId::SYSTEM, rows.as_mut())?;
        let candidate = self.candidate(VaultId::SYSTEM, keys, rows);
        Ok(candidate.verify_system(|ledger| Role::System {
            ledger,
            inbox: Arc::new(Inbox::default()),
        })?)
    }

    /// Verifies one vault and writes its head anew; where it is now.
    fn begin_life(
        &mut self,
        vault: &NamedVault,
        rows: Box<dyn Rows>,
        system: &mut Disk,
    ) -> Result<Point, RestoreError> {
        let keys = self.keys(vault.id, system.rows.as_mut())?;
        let mut candidate = self.candidate(vault.id, keys, rows);
        let mut head = candidate.verified_head()?;
        head.head.incarnation = self.restored.incarnation;
        head.head.generation += 1;
        let keys = Arc::clone(&candidate.keys);
        let row = keys
            .lend(|keys| seal_head(keys, &candidate.place, &head.encode()))
            .map_err(VaultError::from)?
            .map_err(VaultError::from)?;
        keys.revoke();
        let write = |rows: &mut dyn Rows| {
            let mut tx = rows.begin(Access::Write)?;
            tx.put(Table::Head, b"", &row)?;
            tx.commit()?;
            rows.truncate_log()?;
            rows.close()
        };
        write(candidate.rows.as_mut()).map_err(VaultError::from)?;
        self.count(head.head.count);
        Ok(head.point())
    }
}

fn at(file: &str) -> impl FnOnce(io::Error) -> RestoreError + '_ {
    move |source| RestoreError::File {
        what: file.to_owned(),
        source,
    }
}
