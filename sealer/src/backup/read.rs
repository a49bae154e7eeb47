//! A backup, read: its structure without a key, its items under the root key, and whether they are a store.
//!
//! Owns [`StoredBackup`], [`items`], [`verify`] and [`Reading`]. Promises: a [`StoredBackup`] is a whole file whose digest is
//! right; what [`verify`] passes opens as an unseal would open it, and [`records`] gives the rows of the vault that it
//! found, and none that a later one replaced. Memory: one chunk, and the index of one vault, or of two.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mcpist_quorum::{
    BackupEnd, BackupError, BackupHeader, BackupItem, BackupItems, BackupPart, BackupScan, Buckets,
    open_chunk,
};
use mcpist_secret::Key;

use super::{BackupFault, BackupReport};
use crate::create::{CONFIG, ROOT};
use crate::disk::tampered;
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{KeyCell, OwnRow, VaultKeys};
use crate::ledger::{Entry, Ledger};
use crate::outbox::Standing;
use crate::own::Named;
use crate::record::{OWNER_VAULTS, Place, Row, name_from_key, open_head, open_outbox};
use crate::rows::{self, Table};
use crate::vaults::Live;

/// Records that [`records`] hands over at once.
const ROWS: usize = 256;

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
    let misplaced = || BackupFault::Content("an item stands where it cannot".to_owned());
    Ok(match (section, item) {
        (Section::Between | Section::File(0), BackupItem::Vault { id, name }) => {
            Section::Vault(VaultId::of(*id), (*name).to_owned())
        }
        (Section::Vault(id, name), BackupItem::Row { .. } | BackupItem::Gone { .. }) => {
            Section::Vault(id, name)
        }
        (Section::Vault(..), BackupItem::EndOfVault { .. }) => Section::Between,
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

/// One vault as its rows come by, and what it is once they were compared with its head. Its keys go with it.
pub(crate) struct Reading {
    pub(crate) place: Place,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) buckets: Buckets,
    pub(crate) head: Option<HeadState>,
    outbox: Vec<(u64, Vec<u8>)>,
    ledger: Ledger,
    named: BTreeMap<VaultId, String>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.keys.revoke();
    }
}

impl Reading {
    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        match table {
            Table::Record => {
                let name = name_from_key(key)?;
                let row = Row::parse(value)?;
                let (opened, payload) = self
                    .keys
                    .lend(|keys| row.open(keys, &self.place, &name))??;
                self.buckets.set(row.entry(&name));
                if opened.owner == OWNER_VAULTS {
                    let named = Named::decode(payload.expose())?;
                    self.named.insert(named.id, opened.name);
                }
            }
            Table::Head => {
                let head = self
                    .keys
                    .lend(|keys| open_head(keys, &self.place, value))??;
                self.head = Some(HeadState::decode(head.expose())?);
            }
            Table::Outbox => {
                let key = key.try_into().map(u64::from_be_bytes);
                let sequence = key.map_err(|_| tampered("an outbox line has no number"))?;
                self.keys
                    .lend(|keys| open_outbox(keys, &self.place, sequence, value))??;
                self.outbox.push((sequence, value.to_vec()));
            }
            Table::Ledger => {
                let id = VaultId::from_bytes(key)
                    .ok_or_else(|| tampered("the ledger names no vault"))?;
                self.ledger.0.insert(id, Entry::decode(value)?);
            }
            Table::Config | Table::Vault => {}
        }
        Ok(())
    }

    /// Compares what came by with the head.
    fn end(&mut self) -> Result<(), VaultError> {
        let head = self.head.ok_or_else(|| tampered("the head is missing"))?;
        let (root, ledger) = self
            .keys
            .lend(|keys| (self.buckets.root(keys.head()), self.ledger.mac(keys.head())))?;
        let mut standing = Standing::default();
        self.outbox.iter().for_each(|(_, row)| standing.push(row));
        let sequences = self.outbox.iter().map(|(sequence, _)| *sequence);
        let is_system = self.place.vault == VaultId::SYSTEM;
        let expected = (
            head.head.count,
            head.head.root,
            head.outbox,
            if is_system { head.ledger } else { ledger },
        );
        let found = (self.buckets.count(), root, standing.digest(), ledger);
        if found == expected && sequences.eq(head.outbox_first..head.outbox_next) {
            Ok(())
        } else {
            Err(tampered("the rows are not those of its head"))
        }
    }
}

/// Reads a backup as an unseal reads a store, and gives the vault that it names `wanted`. The keys of a vault are held among
/// the store's for as long as it is read, so that a seal takes them back.
pub(super) fn verify(
    stored: &StoredBackup,
    live: &Live,
    wanted: Option<&str>,
) -> Result<(BackupReport, Option<Reading>), BackupFault> {
    let root = &live.root;
    let wrapped = wrapped_keys(stored, root)?;
    let store = stored.header.config().store();
    let mut report = BackupReport {
        name: stored.name(),
        created: stored.header.created(),
        generation: stored.header.generation(),
        bytes: stored.bytes,
        ..BackupReport::default()
    };
    let (mut section, mut reading) = (Section::Between, None::<Reading>);
    let (mut named, mut whole, mut found) = (BTreeMap::new(), Vec::new(), Vec::new());
    items(stored, root, |item| {
        let of = match &section {
            Section::Vault(id, name) => Some((*id, name.clone())),
            _ => None,
        };
        section = section_of(std::mem::replace(&mut section, Section::Between), &item)?;
        let in_vault = |error: VaultError| match (&of, error) {
            (_, VaultError::Sealed) => BackupFault::Store(VaultError::Sealed),
            (Some((_, name)), error) => BackupFault::Content(format!("vault {name:?}: {error}")),
            (None, error) => BackupFault::Content(error.to_string()),
        };
        match item {
            // None of its rows is there: it is left out.
            BackupItem::Vault { id, .. } if opens_alone(&wrapped, id) => {}
            BackupItem::Vault { id, .. } => {
                let id = VaultId::of(id);
                let row = wrapped.get(&id).map_or(&[][..], Vec::as_slice);
                let keys = root
                    .lend(|root| VaultKeys::unwrap(root, store, id, row))
                    .map_err(VaultError::from)?
                    .map_err(|error| {
                        BackupFault::Content(format!("the keys of a vault do not open: {error}"))
                    })?;
                let keys = Arc::new(KeyCell::new(keys));
                live.hold(&keys)?;
                let place = Place::new(store, id);
                reading = Some(Reading {
                    buckets: Buckets::new(place.text()),
                    place,
                    keys,
                    head: None,
                    outbox: Vec::new(),
                    ledger: Ledger::default(),
                    named: BTreeMap::new(),
                });
            }
            BackupItem::Row { table, key, value } => {
                let table = table_of(table)?;
                stored.check_quorum(table, key, value)?;
                if let Some(reading) = &mut reading {
                    reading.row(table, key, value).map_err(in_vault)?;
                }
            }
            BackupItem::Gone { key, .. } => {
                if let Some(reading) = &mut reading {
                    let name = name_from_key(key).map_err(VaultError::from);
                    reading.buckets.remove(&name.map_err(in_vault)?);
                }
            }
            BackupItem::EndOfVault { .. } => {
                if let Some(mut reading) = reading.take() {
                    reading.end().map_err(in_vault)?;
                    report.vaults += 1;
                    report.records += reading.buckets.count();
                    whole.push(reading.place.vault);
                    named.append(&mut reading.named);
                    if of.is_some_and(|(_, name)| wanted == Some(&name)) {
                        found.push(reading);
                    }
                }
            }
            BackupItem::LeftOut { id, name, reason } => {
                reading = None;
                whole.push(VaultId::of(id));
                report.left_out.push((name.to_owned(), reason.to_owned()));
            }
            BackupItem::File { .. } => report.files += 1,
            BackupItem::Piece(_) => {}
            BackupItem::Counts { .. } => check_end(&report, &item)?,
        }
        Ok::<(), BackupFault>(())
    })?;
    match named.iter().find(|(id, _)| !whole.contains(id)) {
        Some((_, name)) => Err(BackupFault::Content(format!(
            "vault {name:?} is named in it and not in it"
        ))),
        None if !whole.contains(&VaultId::SYSTEM) => {
            Err(BackupFault::Content("control.db is not in it".to_owned()))
        }
        None => {
            // Control.db says which one has the name.
            let is_wanted = |one: &Reading| {
                let name = named.get(&one.place.vault);
                name.is_some_and(|name| wanted == Some(name.as_str()))
            };
            Ok((report, found.into_iter().find(is_wanted)))
        }
    }
}

/// Hands the records of `vault`, a vault that [`verify`] found in `stored`, to `each`, some at a time. A row may come twice,
/// one that a later row replaced does not come.
pub(crate) fn records<E: From<BackupFault> + From<VaultError>>(
    stored: &StoredBackup,
    root: &KeyCell<Key>,
    vault: &Reading,
    mut each: impl FnMut(&[rows::Row]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut section, mut rows) = (Section::Between, Vec::new());
    items(stored, root, |item| {
        section = section_of(std::mem::replace(&mut section, Section::Between), &item)?;
        if let (Section::Vault(id, _), BackupItem::Row { table, key, value }) = (&section, &item)
            && *id == vault.place.vault
            && table_of(*table)? == Table::Record
        {
            let name = name_from_key(key).map_err(VaultError::from)?;
            let row = Row::parse(value).map_err(VaultError::from)?;
            if vault.buckets.get(&name) == Some(row.entry(&name)) {
                rows.push((key.to_vec(), value.to_vec()));
            }
        }
        if rows.len() == ROWS {
            each(&std::mem::take(&mut rows))?;
        }
        Ok::<(), E>(())
    })?;
    each(&rows)
}

/// Whether a quorum of its own opens this vault.
fn opens_alone(wrapped: &BTreeMap<VaultId, Vec<u8>>, id: [u8; 16]) -> bool {
    let row = wrapped.get(&VaultId::of(id));
    row.is_some_and(|row| OwnRow::parse(row).is_ok())
}

/// The wrapped keys of every vault, which control.db holds and which come after the vaults' rows.
fn wrapped_keys(
    stored: &StoredBackup,
    root: &KeyCell<Key>,
) -> Result<BTreeMap<VaultId, Vec<u8>>, BackupFault> {
    let mut wrapped = BTreeMap::new();
    items(stored, root, |item| {
        if let BackupItem::Row { table, key, value } = item
            && table_of(table)? == Table::Vault
            && let Some(id) = VaultId::from_bytes(key)
        {
            wrapped.insert(id, value.to_vec());
        }
        Ok::<(), BackupFault>(())
    })?;
    Ok(wrapped)
}

pub(crate) fn table_of(number: u8) -> Result<Table, BackupFault> {
    Table::of_number(number)
        .ok_or_else(|| BackupFault::Content(format!("it has a table {number}, which no store has")))
}
