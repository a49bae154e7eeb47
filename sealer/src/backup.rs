//! Backups: an open store into one file, while it serves.
//!
//! Owns [`Vaults::backup`] and [`Vaults::verify_backup`], and what both say: [`BackupReport`]. The bytes are
//! [`mcpist_quorum::BackupWriter`]'s; [`read`] reads them back, [`crate::restore`] makes a store of them.
//!
//! # How a vault that is written meanwhile is whole in it
//! A vault has one connection, so no read transaction can stand open beside its writes. Its records are read in slices,
//! each one job of the vault's lane, so that a read waits for one slice; what changes meanwhile is noted by name
//! ([`Journal`]) and read again, until so little is left that one job takes it together with outbox and head: no
//! write comes between those, and a later row of the file replaces an earlier one. So the rows of a vault are those of
//! one head, which the check compares as an unseal does. Vaults come first and control.db after them: it names every
//! data key that a row before it may be sealed under. One that was made meanwhile comes last.
//!
//! Promises: a backup counts only after it was synced and read back whole, every record opened but those of a vault that is
//! sealed and waits for a quorum of its own, which goes along as it stands and by name ([`carry`]); a vault that cannot be
//! read is named in the file and in the report, never silently left out; no key is kept outside a cell that a seal
//! empties, and a seal ends a backup. Does not: see whether the quorum opens the wrapped root key; only it can.

mod carry;
mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mcpist_quorum::{
    BackupEnd, BackupError, BackupHeader, BackupItem, BackupWriter, MAX_PATH, MAX_REASON, NameHmac,
    SealConfig,
};
use nix::libc;

use crate::create::{CONFIG, ROOT};
use crate::disk::{Disk, checked, tampered};
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::ledger::{Entry, Point};
use crate::moves::Stuck;
use crate::record::name_from_key;
use crate::rows::{Access, Table, for_each_slice};
use crate::vault::{OpenVault, now};
use crate::vaults::{Live, Vaults};

pub use read::StoredBackup;
pub(crate) use read::{Section, check_end, items, section_of, table_of};
pub(crate) use verify::{Reading, records};

/// Records that one job reads.
const SLICE: usize = 256;
/// So many changed records are read in the last job, together with the head.
const LAST: usize = 256;
/// How often what changed meanwhile is read again before the vault counts as written too fast.
const ROUNDS: usize = 64;
/// Bytes of a file in one item.
const PIECE: usize = 64 * 1024;

/// Why a backup was not made or is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    /// The file's bytes.
    #[error(transparent)]
    Format(#[from] BackupError),
    /// The store: sealed meanwhile, or its disk.
    #[error(transparent)]
    Store(#[from] VaultError),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// Which file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A vault changes faster than it can be read.
    #[error(
        "vault {0:?} is written faster than it can be read: try again when there is less to do"
    )]
    Busy(String),
    /// What the file holds is not what a store holds.
    #[error("the backup is of no use: {0}; make another one")]
    Content(String),
    /// One vault of it is wanted, and it is not in it.
    #[error("the backup does not hold vault {vault:?}{why}: take one of another day")]
    Lacks {
        /// The vault.
        vault: String,
        /// Why, behind a colon, where the backup says so.
        why: String,
    },
}

impl BackupFault {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BackupFault {
        let what = what.into();
        |source| BackupFault::Io { what, source }
    }
}

/// A file of the daemon that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name in the backup.
    pub name: String,
    /// Where it is. It is opened when its turn comes, and no link is followed.
    pub path: PathBuf,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// What a plan to restore it names.
    pub name: [u8; 32],
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The generation of the system vault when it began.
    pub generation: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many vaults are in it, the system vault among them.
    pub vaults: u32,
    /// How many records they hold. All were opened but those of [`BackupReport::carried`].
    pub records: u64,
    /// How many files of the daemon.
    pub files: u32,
    /// The vaults in it that nobody has verified, and their records: each was sealed and waits for a quorum of its own.
    pub carried: Vec<(String, u64)>,
    /// The vaults that are not in it, and why.
    pub left_out: Vec<(String, String)>,
}

/// The names of the records that changed since a backup began to read their vault. Part of the vault's figures, so that
/// the lane notes them; costs nothing while no backup looks at it.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Weak<Noted>>);

pub(crate) type Noted = Mutex<BTreeSet<NameHmac>>;

impl Journal {
    /// The index changed.
    pub(crate) fn note(&self, name: NameHmac) {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = noted.upgrade() {
            noted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name);
        }
    }

    /// Begins to note, for as long as the answer lives.
    pub(crate) fn begin(&self) -> Arc<Noted> {
        let noted = Arc::default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&noted);
        noted
    }
}

pub(crate) fn take(noted: &Noted) -> BTreeSet<NameHmac> {
    std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A row as it stands, or that it does not.
pub(crate) type Standing = (Table, Vec<u8>, Option<Vec<u8>>);

/// The last rows of a vault, read in one job.
pub(crate) struct Last {
    pub(crate) rows: Vec<Standing>,
    pub(crate) records: u64,
    /// Where the head stands.
    point: Point,
}

impl Disk {
    /// The records after `after` as they stand, each compared with the index.
    pub(crate) fn copy_slice(&mut self, after: Option<&[u8]>) -> Result<Vec<Standing>, VaultError> {
        self.ready()?;
        let rows = self
            .rows
            .begin(Access::Read)?
            .scan(Table::Record, after, SLICE)?;
        let mut out = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            self.compare(&name_from_key(&key)?, Some(&value))?;
            out.push((Table::Record, key, Some(value)));
        }
        Ok(out)
    }

    /// These records as they stand, or that they are gone.
    fn copy_named(&mut self, names: &BTreeSet<NameHmac>) -> Result<Vec<Standing>, VaultError> {
        self.ready()?;
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            let key = name.as_bytes();
            let value = self.rows.get(Table::Record, key)?;
            self.compare(name, value.as_deref())?;
            out.push((Table::Record, key.to_vec(), value));
        }
        Ok(out)
    }

    fn compare(&self, name: &NameHmac, value: Option<&[u8]>) -> Result<(), VaultError> {
        checked(self.buckets.get(name), name, value)?;
        Ok(())
    }

    /// What is left, if that is little: the changed records, the outbox and what stands for the whole.
    pub(crate) fn copy_last(&mut self, noted: &Noted) -> Result<Option<Last>, VaultError> {
        self.ready()?;
        let names = take(noted);
        if names.len() > LAST {
            let mut again = noted.lock().unwrap_or_else(PoisonError::into_inner);
            again.extend(names);
            return Ok(None);
        }
        let mut rows = self.copy_named(&names)?;
        let tables: &[Table] = match self.role {
            crate::disk::Role::System { .. } => &[
                Table::Outbox,
                Table::Config,
                Table::Vault,
                Table::Ledger,
                Table::Head,
            ],
            crate::disk::Role::Vault(_) => &[Table::Outbox, Table::Head],
        };
        let mut tx = self.rows.begin(Access::Read)?;
        for table in tables {
            for_each_slice(tx.as_mut(), *table, SLICE, |slice| {
                rows.extend(
                    slice
                        .into_iter()
                        .map(|(key, value)| (*table, key, Some(value))),
                );
                Ok::<(), VaultError>(())
            })?;
        }
        if rows.last().and_then(|(_, _, head)| head.as_ref()) != Some(&self.head_row) {
            return Err(tampered(
                "the file shows another head than the one written last",
            ));
        }
        Ok(Some(Last {
            rows,
            records: self.buckets.count(),
            point: self.head.point(),
        }))
    }
}

/// What was taken of a vault.
struct Taken {
    records: u64,
    /// What its head is to be judged by.
    entry: Entry,
}

/// A backup that is being written.
struct Writing<'a> {
    live: &'a Live,
    file: &'a File,
    writer: BackupWriter,
    report: BackupReport,
    /// The vaults whose wrapped keys are in it.
    known: BTreeSet<VaultId>,
    stuck: Stuck,
}

impl Writing<'_> {
    fn push(&mut self, item: &BackupItem<'_>) -> Result<(), BackupFault> {
        if self.writer.push(item)? {
            let sealed = self
                .live
                .root
                .lend(|root| self.writer.seal(root))
                .map_err(VaultError::from)??;
            self.write(&sealed)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupFault> {
        let mut file = self.file;
        file.write_all(bytes)
            .map_err(BackupFault::io("the backup's file"))?;
        self.report.bytes += bytes.len() as u64;
        Ok(())
    }

    fn rows(&mut self, rows: &[Standing]) -> Result<(), BackupFault> {
        for (table, key, value) in rows {
            if *table == Table::Vault {
                self.known.extend(VaultId::from_bytes(key));
            }
            let table = table.number();
            self.push(&match value {
                Some(value) => BackupItem::Row { table, key, value },
                None => BackupItem::Gone { table, key },
            })?;
        }
        Ok(())
    }

    /// One vault, or that it could not be read.
    fn vault(&mut self, vault: &OpenVault) -> Result<(), BackupFault> {
        let (id, name) = (*vault.id().as_bytes(), vault.name());
        let is_own = vault.0.own.is_some();
        self.push(&BackupItem::Vault { id, name })?;
        let is_gone = vault.status().is_gone;
        let taken = if let Err(error) = self.stuck.allows(vault.id()) {
            Err(error.into())
        } else if is_gone {
            Err(VaultError::Gone.into())
        } else if is_own && vault.health() == Health::Sealed {
            self.closed(vault)
        } else {
            self.whole(vault)
        };
        match taken {
            Ok(Taken { records, entry }) => {
                self.report.vaults += 1;
                self.report.records += records;
                let entry = &entry.encode()[..];
                self.push(&if is_own {
                    BackupItem::EndOfOwn { records, entry }
                } else {
                    BackupItem::EndOfVault { records }
                })
            }
            // A vault with a quorum of its own may be sealed while it is read.
            Err(BackupFault::Store(
                error @ (VaultError::Quarantined(_)
                | VaultError::Unavailable
                | VaultError::Gone
                | VaultError::OutcomeUnknown
                | VaultError::VaultSealed(_)
                | VaultError::Storage(_)),
            )) if vault.id() != VaultId::SYSTEM => {
                let mut reason = match error {
                    VaultError::VaultSealed(_) => {
                        "it was sealed while the backup read it, make another backup".to_owned()
                    }
                    error => error.to_string(),
                };
                reason.truncate(reason.floor_char_boundary(MAX_REASON));
                self.leave_out(id, name, &reason)
            }
            Err(error) => Err(error),
        }
    }

    fn leave_out(&mut self, id: [u8; 16], name: &str, reason: &str) -> Result<(), BackupFault> {
        self.push(&BackupItem::LeftOut { id, name, reason })?;
        let left_out = (name.to_owned(), reason.to_owned());
        self.report.left_out.push(left_out);
        Ok(())
    }

    /// The rows of an open vault, which are those of one head.
    fn whole(&mut self, vault: &OpenVault) -> Result<Taken, BackupFault> {
        let noted = vault.0.stats.journal.begin();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.clone();
            let rows = vault.run(move |disk| disk.copy_slice(from.as_deref()))?;
            let Some((_, last, _)) = rows.last() else {
                break;
            };
            after = Some(last.clone());
            self.rows(&rows)?;
        }
        for _ in 0..ROUNDS {
            let changed = Arc::clone(&noted);
            if let Some(last) = vault.run(move |disk| disk.copy_last(&changed))? {
                self.rows(&last.rows)?;
                return Ok(Taken {
                    records: last.records,
                    entry: Entry {
                        missing: vault.status().last_write_missing,
                        ..Entry::new(last.point)
                    },
                });
            }
            let mut names = take(&noted);
            while !names.is_empty() {
                let later = names
                    .iter()
                    .nth(SLICE)
                    .copied()
                    .map(|at| names.split_off(&at))
                    .unwrap_or_default();
                let rows = vault.run(move |disk| disk.copy_named(&names))?;
                self.rows(&rows)?;
                names = later;
            }
        }
        Err(BackupFault::Busy(vault.name().to_owned()))
    }

    fn source(&mut self, source: &SourceFile) -> Result<(), BackupFault> {
        if source.name.len() > MAX_PATH {
            return Err(BackupFault::Content(format!(
                "the name {:?} is too long",
                source.name
            )));
        }
        let fault = || BackupFault::io(source.path.display().to_string());
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&source.path)
            .map_err(fault())?;
        let length = file.metadata().map_err(fault())?.len();
        self.push(&BackupItem::File {
            path: &source.name,
            length,
        })?;
        let mut left = length;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut piece[..take]).map_err(fault())?;
            self.push(&BackupItem::Piece(&piece[..take]))?;
            left -= take as u64;
        }
        self.report.files += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<(BackupReport, BackupEnd), BackupFault> {
        let counts = BackupItem::Counts {
            vaults: self.report.vaults,
            left_out: u32::try_from(self.report.left_out.len()).unwrap_or(u32::MAX),
            records: self.report.records,
            files: self.report.files,
        };
        self.push(&counts)?;
        let Writing {
            live,
            file,
            writer,
            mut report,
            ..
        } = self;
        let (bytes, end) = live
            .root
            .lend(|root| writer.finish(root))
            .map_err(VaultError::from)??;
        let mut out = file;
        out.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(BackupFault::io("the backup's file"))?;
        report.bytes += bytes.len() as u64;
        report.name = end.name();
        Ok((report, end))
    }
}

impl Vaults {
    /// Writes a backup of every vault and of `sources` into `file`, which is empty and open for reading and writing,
    /// syncs it and reads it back whole. `config` is the store's. Blocks for as long as that takes; reads of a vault
    /// wait for one slice of it.
    ///
    /// # Errors
    /// [`BackupFault`]; what is in the file then is of no use.
    pub fn backup(
        &self,
        config: &SealConfig,
        file: &File,
        sources: &[SourceFile],
    ) -> Result<BackupReport, BackupFault> {
        let live = self.live();
        // Else the rows of a vault's former file would go with what its new one is judged by.
        let stuck = self.finish_moves()?;
        let expected = config.to_bytes();
        let (root, incarnation, generation) = live.system.run(move |disk| {
            disk.ready()?;
            let head = disk.head.head;
            let mut tx = disk.rows.begin(Access::Read)?;
            if tx.get(Table::Config, CONFIG)?.as_ref() != Some(&expected) {
                return Err(tampered("the seal config was changed in the file"));
            }
            let root = tx.get(Table::Config, ROOT)?.unwrap_or_default();
            Ok((root, head.incarnation, head.generation))
        })?;
        let header = BackupHeader::new(config.clone(), root, incarnation, generation, now())?;
        let report = BackupReport {
            created: header.created(),
            generation,
            ..BackupReport::default()
        };
        let (writer, begin) = BackupWriter::new(header);
        let mut writing = Writing {
            live,
            file,
            writer,
            report,
            known: BTreeSet::new(),
            stuck,
        };
        writing.write(&begin)?;
        let mut done = BTreeSet::new();
        self.each(&mut writing, &mut done, |_| true)?;
        writing.vault(&live.system)?;
        // What it names that was not there when the vaults were looked at, and none that was made since.
        let known = std::mem::take(&mut writing.known);
        self.each(&mut writing, &mut done, |id| known.contains(id))?;
        for source in sources {
            writing.source(source)?;
        }
        let (report, end) = writing.finish()?;
        let stored = StoredBackup::read(file.try_clone().map_err(BackupFault::io("the backup"))?)?;
        if stored.name() != end.name() {
            return Err(BackupFault::Content(
                "what is in the file is not what was written".to_owned(),
            ));
        }
        let read = self.verify_backup(&stored)?;
        let report = BackupReport {
            carried: read.carried.clone(),
            ..report
        };
        if read == report {
            Ok(report)
        } else {
            Err(BackupFault::Content(
                "it reads back as another one than was written".to_owned(),
            ))
        }
    }

    fn each(
        &self,
        writing: &mut Writing<'_>,
        done: &mut BTreeSet<VaultId>,
        is_known: impl Fn(&VaultId) -> bool,
    ) -> Result<(), BackupFault> {
        let named = (self.live().named().values())
            .map(OpenVault::id)
            .filter(is_known)
            .collect::<BTreeSet<_>>();
        for id in named {
            // As it is when its turn comes: one with a quorum of its own may be opened or sealed meanwhile.
            let vault = {
                let named = self.live().named();
                named.values().find(|vault| vault.id() == id).cloned()
            };
            if let Some(vault) = vault
                && done.insert(id)
            {
                writing.vault(&vault)?;
            }
        }
        Ok(())
    }

    /// Reads a backup whole: every chunk, every record of every vault but of those that are sealed here and wait for a quorum
    /// of their own, heads, ledger and counts, as an unseal reads a store. It must be of this store and made under its root key of now.
    ///
    /// # Errors
    /// [`BackupFault`].
    pub fn verify_backup(&self, stored: &StoredBackup) -> Result<BackupReport, BackupFault> {
        Ok(self.read_backup(stored, None)?.0)
    }

    /// What [`Vaults::verify_backup`] does, and the vault `wanted` if the backup holds it.
    pub(crate) fn read_backup(
        &self,
        stored: &StoredBackup,
        wanted: Option<&str>,
    ) -> Result<(BackupReport, Option<Reading>), BackupFault> {
        let live = self.live();
        if stored.header().config().store() != live.id {
            return Err(BackupFault::Content("it is of another store".to_owned()));
        }
        verify::verify(stored, live, wanted)
    }
}
