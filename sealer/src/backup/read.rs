//! A backup, read: its structure without a key, and its items under the root key.
//!
//! Owns [`StoredBackup`] and [`items`]. Promises: a [`StoredBackup`] is a whole file whose digest is right, and its items come
//! where they can stand. Memory: one chunk. Does not know whether they are a store: [`super::verify`] does.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mcpist_quorum::{
    BackupEnd, BackupError, BackupHeader, BackupItem, BackupItems, BackupPart, BackupScan,
    open_chunk,
};
use mcpist_secret::Key;

use super::{BackupFault, BackupReport};
use crate::create::{CONFIG, ROOT};
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::KeyCell;
use crate::rows::Table;

/// A backup file whose structure and digest are right. Nothing in it is authentic before the root key opened it.
pub struct StoredBackup {
    file: File,
    header: BackupHeader,
    end: BackupEnd,
    bytes: u64,
}

/// What a walk over the file meets.
enum Met<'a> {
    Header(Box<BackupHeader>),
    Chunk(u64, &'a mut Vec<u8>),
    End(BackupEnd, u64),
}

/// Goes through the file once.
fn walk<E: From<BackupFault>>(
    file: &File,
    mut met: impl FnMut(Met<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut scan, mut at, mut part) = (BackupScan::default(), 0, Vec::new());
    while scan.wants() > 0 {
        part.resize(scan.wants(), 0);
        let read = read_up_to(file, &mut part, at)?;
        part.truncate(read);
        at += read as u64;
        match scan.take(&part).map_err(BackupFault::from)? {
            None => {}
            Some(BackupPart::Header(header)) => met(Met::Header(header))?,
            Some(BackupPart::Chunk(number)) => met(Met::Chunk(number, &mut part))?,
            Some(BackupPart::End(end)) => met(Met::End(end, at))?,
        }
    }
    if read_up_to(file, &mut [0], at)? > 0 {
        return Err(BackupFault::Content("bytes stand after its end".to_owned()).into());
    }
    Ok(())
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, BackupFault> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(BackupFault::io("the backup's file")(e)),
        }
    }
    Ok(read)
}

impl StoredBackup {
    /// Reads the whole file once, without a key: what a damaged stick did to it is found here.
    ///
    /// # Errors
    /// [`BackupFault`].
    pub fn read(file: File) -> Result<StoredBackup, BackupFault> {
        let (mut header, mut ended) = (None, None);
        walk(&file, |met| {
            match met {
                Met::Header(found) => header = Some(*found),
                Met::End(end, bytes) => ended = Some((end, bytes)),
                Met::Chunk(..) => {}
            }
            Ok::<(), BackupFault>(())
        })?;
        match (header, ended) {
            (Some(header), Some((end, bytes))) => Ok(StoredBackup {
                file,
                header,
                end,
                bytes,
            }),
            _ => Err(BackupFault::Content("it has no end".to_owned())),
        }
    }

    /// What the file says of itself.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// What a plan to restore it names.
    pub fn name(&self) -> [u8; 32] {
        self.end.name()
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Hands every item to `each`, in order, under the root key, which is lent for one chunk at a time. Header and end must
/// be those that were read before.
pub(crate) fn items<E: From<BackupFault>>(
    stored: &StoredBackup,
    root: &KeyCell<Key>,
    mut each: impl FnMut(BackupItem<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let content = |what: &str| E::from(BackupFault::Content(what.to_owned()));
    let mut is_over = false;
    walk(&stored.file, |met| match met {
        Met::Header(header) if *header == stored.header => Ok(()),
        Met::Chunk(number, sealed) => {
            open(root, |root| {
                open_chunk(&stored.header, root, number, sealed)
            })?;
            for item in BackupItems::of(sealed) {
                let item = item.map_err(|e| BackupFault::from(BackupError::from(e)))?;
                if is_over {
                    return Err(content("items stand after its counts"));
                }
                is_over = matches!(item, BackupItem::Counts { .. });
                each(item)?;
            }
            Ok(())
        }
        Met::End(end, _) if end == stored.end => {
            Ok(open(root, |root| end.check(&stored.header, root))?)
        }
        Met::Header(_) | Met::End(..) => Err(content("the file changed while it was read")),
    })?;
    if is_over {
        Ok(())
    } else {
        Err(content("its counts are missing"))
    }
}

impl StoredBackup {
    /// Refuses another seal config or root wrap than the header's: whose shares restore a store is whose shares open it. They
    /// differ where a rekey ended while the backup was written.
    pub(crate) fn check_quorum(
        &self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), BackupFault> {
        let right = match (table, key) {
            (Table::Config, CONFIG) => self.header.config().to_bytes() == value,
            (Table::Config, ROOT) => self.header.root() == value,
            _ => true,
        };
        if right {
            Ok(())
        } else {
            Err(BackupFault::Content(
                "its store opens for another quorum than it names".to_owned(),
            ))
        }
    }
}

/// Lends the root key to one step in memory.
fn open(
    root: &KeyCell<Key>,
    step: impl FnOnce(&Key) -> Result<(), BackupError>,
) -> Result<(), BackupFault> {
    Ok(root.lend(step).map_err(VaultError::from)??)
}

pub(super) fn misplaced() -> BackupFault {
    BackupFault::Content("an item stands where it cannot".to_owned())
}

/// Where a reader of items is.
pub(crate) enum Section {
    /// Before the first vault, or after one.
    Between,
    /// Among the rows of a vault.
    Vault(VaultId, String),
    /// In a file of which so many bytes are to come.
    File(u64),
}

/// The section that an item leads to; refused where it cannot stand.
pub(crate) fn section_of(section: Section, item: &BackupItem<'_>) -> Result<Section, BackupFault> {
    Ok(match (section, item) {
        (Section::Between | Section::File(0), BackupItem::Vault { id, name }) => {
            Section::Vault(VaultId::of(*id), (*name).to_owned())
        }
        (Section::Vault(id, name), BackupItem::Row { .. } | BackupItem::Gone { .. }) => {
            Section::Vault(id, name)
        }
        (Section::Vault(..), BackupItem::EndOfVault { .. } | BackupItem::EndOfOwn { .. }) => {
            Section::Between
        }
        (Section::Vault(open, _), BackupItem::LeftOut { id, .. }) if open.as_bytes() == id => {
            Section::Between
        }
        (Section::Between | Section::File(0), BackupItem::File { length, .. }) => {
            Section::File(*length)
        }
        (Section::File(left), BackupItem::Piece(bytes)) => {
            let left = left.checked_sub(bytes.len() as u64);
            Section::File(left.ok_or_else(misplaced)?)
        }
        (Section::Between | Section::File(0), BackupItem::Counts { .. }) => Section::Between,
        _ => return Err(misplaced()),
    })
}

/// Whether the counts are those of what was met.
pub(crate) fn check_end(report: &BackupReport, item: &BackupItem<'_>) -> Result<(), BackupFault> {
    let found = BackupItem::Counts {
        vaults: report.vaults,
        left_out: u32::try_from(report.left_out.len()).unwrap_or(u32::MAX),
        records: report.records,
        files: report.files,
    };
    if found == *item {
        Ok(())
    } else {
        Err(BackupFault::Content("its counts are not right".to_owned()))
    }
}

pub(crate) fn table_of(number: u8) -> Result<Table, BackupFault> {
    Table::of_number(number)
        .ok_or_else(|| BackupFault::Content(format!("it has a table {number}, which no store has")))
}
