//! Whether a backup is a store.
//!
//! Owns [`verify`] and [`Reading`]. Promises: what [`verify`] passes opens as an unseal would open it, but for a vault that is
//! sealed here and waits for a quorum of its own, of which [`super::carry`] says what was verified; [`records`] gives the rows
//! of the vault that it found, and none that a later one replaced. Memory: one chunk, and the index of one vault, or of two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpist_quorum::{BackupItem, Buckets};
use mcpist_secret::Key;

use super::carry::{Brought, Carried};
use super::read::{Section, StoredBackup, check_end, items, misplaced, section_of, table_of};
use super::{BackupFault, BackupReport};
use crate::disk::tampered;
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{KeyCell, OwnRow, VaultKeys};
use crate::ledger::{Entry, Ledger};
use crate::outbox::Standing;
use crate::own::{Named, OwnNote};
use crate::record::{OWNER_VAULTS, Place, Row, name_from_key, open_head, open_outbox};
use crate::rows::{self, Table};
use crate::vaults::Live;

/// Records that [`records`] hands over at once.
const ROWS: usize = 256;

/// One vault as its rows come by, and what it is once they were compared with its head. Its keys go with it.
pub(crate) struct Reading {
    pub(crate) place: Place,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) buckets: Buckets,
    pub(crate) head: Option<HeadState>,
    outbox: Vec<(u64, Vec<u8>)>,
    ledger: Ledger,
    named: BTreeMap<VaultId, (String, Option<OwnNote>)>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.keys.revoke();
    }
}

impl Reading {
    /// Reads under `keys`, which somebody holds who takes them back with the vault's.
    pub(super) fn new(place: Place, keys: Arc<KeyCell<VaultKeys>>) -> Reading {
        Reading {
            buckets: Buckets::new(place.text()),
            place,
            keys,
            head: None,
            outbox: Vec::new(),
            ledger: Ledger::default(),
            named: BTreeMap::new(),
        }
    }

    /// Reads under the keys of a vault that `row` wraps for the store's root key.
    fn under_root(live: &Live, id: VaultId, row: &[u8]) -> Result<Reading, BackupFault> {
        let keys = live
            .root
            .lend(|root| VaultKeys::unwrap(root, live.id, id, row))
            .map_err(VaultError::from)?
            .map_err(|error| {
                BackupFault::Content(format!("the keys of a vault do not open: {error}"))
            })?;
        let keys = Arc::new(KeyCell::new(keys));
        live.hold(&keys)?;
        Ok(Reading::new(Place::new(live.id, id), keys))
    }

    pub(super) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
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
                    self.named.insert(named.id, (opened.name, named.own));
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

    /// Compares what came by with the head, which it gives.
    pub(super) fn end(&mut self) -> Result<HeadState, VaultError> {
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
            Ok(head)
        } else {
            Err(tampered("the rows are not those of its head"))
        }
    }
}

/// The vault whose rows come by.
enum Now {
    /// One that the store's quorum opens.
    Store(Box<Reading>),
    /// One that its own does.
    Own(Box<Carried>),
}

impl Now {
    fn begin(live: &Live, id: VaultId, row: &[u8]) -> Result<Now, BackupFault> {
        Ok(if OwnRow::parse(row).is_ok() {
            Now::Own(Box::new(Carried::begin(live, id, row)?))
        } else {
            Now::Store(Box::new(Reading::under_root(live, id, row)?))
        })
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        match self {
            Now::Store(reading) => reading.row(table, key, value),
            Now::Own(carried) => carried.row(table, key, value),
        }
    }

    fn gone(&mut self, key: &[u8]) -> Result<(), VaultError> {
        match self {
            Now::Store(reading) => {
                reading.buckets.remove(&name_from_key(key)?);
                Ok(())
            }
            Now::Own(carried) => carried.gone(key),
        }
    }
}

/// A backup as it is read.
struct Verifying<'a> {
    live: &'a Live,
    wrapped: BTreeMap<VaultId, Vec<u8>>,
    wanted: Option<&'a str>,
    report: BackupReport,
    now: Option<Now>,
    /// The vaults that control.db names.
    named: BTreeMap<VaultId, (String, Option<OwnNote>)>,
    /// Those that are whole, or are said to be left out.
    there: BTreeSet<VaultId>,
    brought: Vec<Brought>,
    found: Vec<Reading>,
}

impl Verifying<'_> {
    fn item(&mut self, item: &BackupItem<'_>, of: Option<&(VaultId, String)>) -> Verified {
        match item {
            BackupItem::Vault { .. } => self.now = None,
            BackupItem::Row { table, key, value } => {
                let row =
                    |now: &mut Now| now.row(table_of(*table)?, key, value).map_err(in_vault(of));
                self.rows_of(of)?.map_or(Ok(()), row)?;
            }
            BackupItem::Gone { key, .. } => {
                let gone = |now: &mut Now| now.gone(key).map_err(in_vault(of));
                self.rows_of(of)?.map_or(Ok(()), gone)?;
            }
            BackupItem::EndOfVault { .. } => {
                let Some(Now::Store(mut reading)) = self.now.take() else {
                    return Err(misplaced());
                };
                reading.end().map_err(in_vault(of))?;
                self.report.vaults += 1;
                self.report.records += reading.buckets.count();
                self.there.insert(reading.place.vault);
                self.named.append(&mut reading.named);
                if of.is_some_and(|(_, name)| self.wanted == Some(name)) {
                    self.found.push(*reading);
                }
            }
            BackupItem::EndOfOwn { records, entry } => {
                let Some(Now::Own(carried)) = self.now.take() else {
                    return Err(misplaced());
                };
                let brought = carried.end(*records, entry).map_err(in_vault(of))?;
                self.report.vaults += 1;
                self.report.records += records;
                self.there.insert(brought.id);
                self.brought.push(brought);
            }
            BackupItem::LeftOut { id, name, reason } => {
                self.now = None;
                self.there.insert(VaultId::of(*id));
                let left_out = ((*name).to_owned(), (*reason).to_owned());
                self.report.left_out.push(left_out);
            }
            BackupItem::File { .. } => self.report.files += 1,
            BackupItem::Piece(_) => {}
            BackupItem::Counts { .. } => check_end(&self.report, item)?,
        }
        Ok(())
    }

    /// The vault that a row is of. Its keys are looked at with its first row: one that is left out may have none.
    fn rows_of(&mut self, of: Option<&(VaultId, String)>) -> Result<Option<&mut Now>, BackupFault> {
        if let (None, Some((id, _))) = (&self.now, of) {
            let row = self.wrapped.get(id).map_or(&[][..], Vec::as_slice);
            self.now = Some(Now::begin(self.live, *id, row)?);
        }
        Ok(self.now.as_mut())
    }

    /// All came by: whether it is a store, and the vault that is wanted.
    fn end(self) -> Result<(BackupReport, Option<Reading>), BackupFault> {
        let Verifying {
            live,
            wrapped,
            wanted,
            mut report,
            named,
            there,
            ..
        } = self;
        if let Some((_, (name, _))) = named.iter().find(|(id, _)| !there.contains(id)) {
            let text = format!("vault {name:?} is named in it and not in it");
            return Err(BackupFault::Content(text));
        }
        if !there.contains(&VaultId::SYSTEM) {
            return Err(BackupFault::Content("control.db is not in it".to_owned()));
        }
        for brought in self.brought {
            let Some((name, Some(note))) = named.get(&brought.id) else {
                let text = "a vault in it has a quorum that control.db does not record";
                return Err(BackupFault::Content(text.to_owned()));
            };
            let row = wrapped.get(&brought.id).map_or(&[][..], Vec::as_slice);
            let checked = brought.check(live, note, row);
            checked.map_err(in_vault(Some(&(brought.id, name.clone()))))?;
            if !brought.verified {
                report.carried.push((name.clone(), brought.records));
            }
        }
        // Control.db says which one has the name.
        let is_wanted = |one: &Reading| {
            let name = named.get(&one.place.vault);
            name.is_some_and(|(name, _)| wanted == Some(name.as_str()))
        };
        Ok((report, self.found.into_iter().find(is_wanted)))
    }
}

type Verified = Result<(), BackupFault>;

fn in_vault(of: Option<&(VaultId, String)>) -> impl Fn(VaultError) -> BackupFault + '_ {
    move |error| match (of, error) {
        (_, VaultError::Sealed) => BackupFault::Store(VaultError::Sealed),
        (Some((_, name)), error) => BackupFault::Content(format!("vault {name:?}: {error}")),
        (None, error) => BackupFault::Content(error.to_string()),
    }
}

/// Reads a backup as an unseal reads a store, and gives the vault that it names `wanted`, if the store's quorum opens that. The
/// keys of a vault are held among the store's for as long as it is read, so that a seal takes them back.
pub(super) fn verify(
    stored: &StoredBackup,
    live: &Live,
    wanted: Option<&str>,
) -> Result<(BackupReport, Option<Reading>), BackupFault> {
    let mut verifying = Verifying {
        live,
        wrapped: wrapped_keys(stored, &live.root)?,
        wanted,
        report: BackupReport {
            name: stored.name(),
            created: stored.header().created(),
            generation: stored.header().generation(),
            bytes: stored.bytes(),
            ..BackupReport::default()
        },
        now: None,
        named: BTreeMap::new(),
        there: BTreeSet::new(),
        brought: Vec::new(),
        found: Vec::new(),
    };
    let mut section = Section::Between;
    items(stored, &live.root, |item| {
        let of = match &section {
            Section::Vault(id, name) => Some((*id, name.clone())),
            _ => None,
        };
        section = section_of(std::mem::replace(&mut section, Section::Between), &item)?;
        if let BackupItem::Row { table, key, value } = item {
            stored.check_quorum(table_of(table)?, key, value)?;
        }
        verifying.item(&item, of.as_ref())
    })?;
    verifying.end()
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
