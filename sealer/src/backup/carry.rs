//! A vault with a quorum of its own in a backup: its rows as they stand, whether it is open or sealed.
//!
//! Owns how the file of a sealed one is read ([`Writing::closed`]), and what can be said of such a vault in a backup without
//! its quorum ([`Carried`]). With its rows goes the entry by which its head is to be judged: what the ledger had while it was
//! sealed, or the head that was copied while it was open. A restore makes that entry the ledger's, so that a file which was
//! put back before the backup is as foreign to its quorum's unseal afterwards as it was before.
//!
//! Promises: rows of a sealed vault count only if nobody opened it while they were read; its file is let go of after every
//! slice, so that an unseal waits for one; a disk that hangs holds a backup no longer than the options' deadline. Where the
//! vault is open, whoever verifies a backup opens every record of it under the keys that its root key opens in there; where it is not, nothing
//! of it counts as verified but that its seal config is the one that control.db records, and that each row has the shape of a
//! row and names a data key that is in the backup.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mcpist_quorum::Buckets;

use super::verify::Reading;
use super::{BackupFault, SLICE, Standing, Taken, Writing};
use crate::batch::MAX_BATCH;
use crate::disk::tampered;
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::keyring::{Epoch, KeyCell, OwnRow};
use crate::ledger::{Entry, Verdict};
use crate::own::{OwnNote, VaultQuorum};
use crate::pool::{Lane, LaneState};
use crate::record::{MAX_RECORD, Place, Row, name_from_key};
use crate::rows::{Access, Rows, Table};
use crate::store::OpenGuard;
use crate::vault::OpenVault;
use crate::vaults::Live;

/// No row of ours is longer: a record, and what it is sealed in.
const MAX_ROW: usize = MAX_RECORD + 1024;

/// The tables of a vault.
const TABLES: [Table; 3] = [Table::Record, Table::Outbox, Table::Head];

/// The file of a sealed vault.
struct Closed {
    rows: Box<dyn Rows>,
    /// Those of its data keys.
    epochs: BTreeSet<Epoch>,
    _open: OpenGuard,
}

impl LaneState for Closed {
    fn wake(&mut self) -> Option<Duration> {
        None
    }
}

impl Closed {
    /// The rows of `table` after `after`; the file is closed again. Rows that no reader of the backup would take are refused
    /// here: they cost this vault its place in it, and not the others.
    fn slice(&mut self, table: Table, after: Option<&[u8]>) -> Result<Vec<Standing>, VaultError> {
        let read = self.rows.begin(Access::Read);
        let read = read.and_then(|mut tx| tx.scan(table, after, SLICE));
        let closed = self.rows.close();
        let rows = read?;
        closed?;
        let mut last = after;
        for (key, value) in &rows {
            if last.is_some_and(|last| last >= key.as_slice()) {
                return Err(tampered("its rows are in no order"));
            }
            if key.len() + value.len() > MAX_ROW {
                return Err(tampered("a row is longer than any record"));
            }
            if table == Table::Record {
                name_from_key(key)?;
                if !self.epochs.contains(&Row::parse(value)?.epoch) {
                    return Err(tampered(
                        "a record stands under a key that it does not have",
                    ));
                }
            }
            last = Some(key);
        }
        let standing = |(key, value)| (table, key, Some(value));
        Ok(rows.into_iter().map(standing).collect())
    }
}

impl Writing<'_> {
    /// The rows of a sealed vault as they stand.
    pub(super) fn closed(&mut self, vault: &OpenVault) -> Result<Taken, BackupFault> {
        let (live, id) = (self.live, vault.id());
        let read = live
            .system
            .run(move |disk| Ok((disk.entry(id)?, disk.key_row(id)?)));
        let (entry, row) = read?;
        let entry = entry.ok_or_else(|| tampered("control.db does not know its head"))?;
        let epochs = OwnRow::parse(&row).and_then(|row| row.epochs());
        let rows = live.backend.open(&live.store.vault(id));
        let closed = Closed {
            rows: rows.map_err(VaultError::from)?,
            epochs: epochs.map_err(VaultError::from)?,
            _open: live.store.lease(),
        };
        let lane = live.pool.lane(closed, live.options.deadline);
        let copied = self.copy_closed(&lane, &entry);
        // One whose disk hangs ends with its job.
        let _ = lane.end();
        let records = copied?;
        // Whoever opens it puts another handle there before the first write.
        let is_there = |there: &OpenVault| Arc::ptr_eq(&there.0, &vault.0);
        if live.named().values().any(is_there) {
            Ok(Taken { records, entry })
        } else {
            let text = "its quorum opened it while the backup read it, make another backup";
            Err(VaultError::Storage(text.to_owned()).into())
        }
    }

    /// How many records there are. Rows beyond what a vault with the head of `entry` can have are not taken: whoever has the
    /// disk puts in as many as fit on it, and each costs the reading of the backup memory.
    fn copy_closed(&mut self, lane: &Lane<Closed>, entry: &Entry) -> Result<u64, BackupFault> {
        let mut counts = [0; TABLES.len()];
        for ((table, count), most) in TABLES.into_iter().zip(&mut counts).zip(most(entry)) {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let from = after.take();
                let read = lane.run(move |closed| closed.slice(table, from.as_deref()));
                let rows = read.map_err(VaultError::from).flatten()?;
                let Some((_, last, _)) = rows.last() else {
                    break;
                };
                after = Some(last.clone());
                *count += rows.len() as u64;
                if *count > most {
                    return Err(tampered("it has more rows than were ever written").into());
                }
                self.rows(&rows)?;
            }
        }
        match counts {
            [_, _, 0] => Err(tampered("the head is missing").into()),
            [records, ..] => Ok(records),
        }
    }
}

/// How many rows each of [`TABLES`] can have: each generation is one batch.
fn most(entry: &Entry) -> [u64; TABLES.len()] {
    let intended = entry.intent.map_or(0, |point| point.generation);
    let rows = (entry.recorded.generation.max(intended)).saturating_mul(MAX_BATCH as u64);
    [rows, rows, 1]
}

/// Such a vault as its rows come by.
pub(super) struct Carried {
    id: VaultId,
    buckets: Buckets,
    epochs: BTreeSet<Epoch>,
    head: bool,
    /// What its keys say, for as long as it is open here.
    judge: Option<Reading>,
}

/// Such a vault whose rows are all there.
pub(super) struct Brought {
    pub(super) id: VaultId,
    pub(super) records: u64,
    /// Every record of it was opened.
    pub(super) verified: bool,
    epochs: BTreeSet<Epoch>,
}

impl Carried {
    /// Begins with the vault `id`, whose wrapped keys are `row`.
    pub(super) fn begin(live: &Live, id: VaultId, row: &[u8]) -> Result<Carried, VaultError> {
        let place = Place::new(live.id, id);
        Ok(Carried {
            id,
            buckets: Buckets::new(place.text()),
            epochs: BTreeSet::new(),
            head: false,
            judge: judge(live, place, row)?,
        })
    }

    pub(super) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        match table {
            Table::Record => {
                let row = Row::parse(value)?;
                self.buckets.set(row.entry(&name_from_key(key)?));
                self.epochs.insert(row.epoch);
            }
            Table::Head => self.head = true,
            Table::Outbox => {}
            Table::Config | Table::Vault | Table::Ledger => {
                return Err(tampered("it has a row of control.db"));
            }
        }
        let judged = self.judge.as_mut();
        let judged = judged.map_or(Ok(()), |judge| judge.row(table, key, value));
        self.unless_sealed(judged)
    }

    pub(super) fn gone(&mut self, key: &[u8]) -> Result<(), VaultError> {
        let name = name_from_key(key)?;
        self.buckets.remove(&name);
        if let Some(judge) = &mut self.judge {
            judge.buckets.remove(&name);
        }
        Ok(())
    }

    /// `entry` is what its head is to be judged by, and `records` how many there should be.
    pub(super) fn end(mut self, records: u64, entry: &[u8]) -> Result<Brought, VaultError> {
        let entry = Entry::decode(entry)?;
        if !self.head || self.buckets.count() != records {
            return Err(tampered("rows of it are missing"));
        }
        let judged = self.judge.as_mut().map_or(Ok(()), |judge| {
            let head = judge.end()?;
            match entry.judge(head.point()) {
                Verdict::Foreign => Err(tampered("its file was put back before the backup")),
                _ => Ok(()),
            }
        });
        self.unless_sealed(judged)?;
        Ok(Brought {
            id: self.id,
            records,
            verified: self.judge.is_some(),
            epochs: self.epochs,
        })
    }

    /// What its keys said, which may have been taken back meanwhile: then they have said nothing.
    fn unless_sealed(&mut self, judged: Result<(), VaultError>) -> Result<(), VaultError> {
        match judged {
            Err(VaultError::Sealed) => {
                self.judge = None;
                Ok(())
            }
            judged => judged,
        }
    }
}

/// The judge of the vault `place`, if it is open here. Its root key opens the keys of `row`, which are those of the time of
/// the backup: a rotation since may have taken the data key from the ones that are here.
fn judge(live: &Live, place: Place, row: &[u8]) -> Result<Option<Reading>, VaultError> {
    let is_it = |vault: &&OpenVault| {
        vault.id() == place.vault && vault.0.own.is_some() && vault.health() == Health::Ok
    };
    let Some(vault) = live.named().values().find(is_it).cloned() else {
        return Ok(None);
    };
    let row = OwnRow::parse(row)?;
    let of = (place.store, place.vault);
    let Ok(opened) = vault.0.keys.lend(|keys| keys.opened(&row, of.0, of.1)) else {
        return Ok(None);
    };
    let keys = opened?.ok_or_else(|| tampered("its wrapped keys in the backup do not open"))?;
    let keys = Arc::new(KeyCell::new(keys));
    live.hold_with(&vault, &keys)?;
    Ok(Some(Reading::new(place, keys)))
}

impl Brought {
    /// Whether its wrapped keys are those of the quorum that control.db records, and have every data key that a row names.
    pub(super) fn check(&self, live: &Live, note: &OwnNote, row: &[u8]) -> Result<(), VaultError> {
        VaultQuorum::of(live.id, self.id, note, row)?;
        let epochs = OwnRow::parse(row)?.epochs()?;
        if self.epochs.is_subset(&epochs) {
            Ok(())
        } else {
            Err(tampered(
                "a record stands under a key that the backup lacks",
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_quorum::{BackupHeader, BackupWriter};

    use super::*;
    use crate::backup::BackupReport;
    use crate::moves::Stuck;
    use crate::tests::own::{unseal, with_own};

    #[test]
    fn rows_of_one_that_was_opened_while_they_were_read_do_not_count() {
        let (_site, barrier, shares) = with_own();
        barrier.seal_own("ops").unwrap();
        let vault = barrier.vault("ops").unwrap();
        let file = tempfile::tempfile().unwrap();
        let incarnation = barrier.point().unwrap().incarnation;
        let header = BackupHeader::new(barrier.config().clone(), vec![1], incarnation, 1, 1);
        let mut writing = Writing {
            live: barrier.live(),
            file: &file,
            writer: BackupWriter::new(header.unwrap()).0,
            report: BackupReport::default(),
            known: BTreeSet::new(),
            stuck: Stuck::default(),
        };
        assert_eq!(writing.closed(&vault).unwrap().records, 1);
        unseal(&barrier, &shares).unwrap();
        barrier.seal_own("ops").unwrap();
        let error = writing.closed(&vault).err().unwrap().to_string();
        assert!(error.contains("its quorum opened it"), "{error}");
    }

    #[test]
    fn one_that_is_sealed_while_a_backup_is_verified_counts_as_carried() {
        let (_site, barrier, _) = with_own();
        let vault = barrier.vault("ops").unwrap();
        let (id, noted) = (vault.id(), vault.0.stats.journal.begin());
        let mut rows = vault.run(|disk| disk.copy_slice(None)).unwrap();
        let last = vault.run(move |disk| disk.copy_last(&noted)).unwrap();
        let last = last.unwrap();
        rows.extend(last.rows);
        let entry = Entry::new(last.point).encode();
        let row = barrier.system().run(move |disk| disk.key_row(id)).unwrap();
        for sealed in [false, true] {
            let mut carried = Carried::begin(barrier.live(), id, &row).unwrap();
            if sealed {
                barrier.seal_own("ops").unwrap();
            }
            for (table, key, value) in &rows {
                carried.row(*table, key, value.as_ref().unwrap()).unwrap();
            }
            assert_eq!(carried.end(1, &entry).unwrap().verified, !sealed);
        }
    }
}
