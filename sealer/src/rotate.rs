//! Rotating the keys of a vault.
//!
//! *Lazy* ([`Vaults::begin_epoch`]): a new data key for what is written from now on. One commit of control.db; no
//! record is touched, and each keeps its key until it is put again. A key under which no record stands any more goes
//! with the next rotation. Names and head keep their keys.
//!
//! *Eager* ([`Vaults::rotate`]): every record, name and head under entirely fresh keys ([`crate::rebuild`]). The vault is
//! read in slices and answers reads meanwhile; changes are refused ([`VaultError::Frozen`]) and not queued, since one that
//! waited for minutes would be answered when its caller has long gone.
//!
//! *The system vault* ([`Vaults::reseal_system`]): every row of control.db under fresh keys, in one transaction.

use std::sync::{Arc, PoisonError};

use mcpist_quorum::{Buckets, NameHmac};

use crate::batch::{Op, check_batch};
use crate::commit::{Extra, RawPut, Resealed as ResealedRows, Twin, Write};
use crate::disk::{self, Disk, Role, tampered};
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{Epoch, KeyCell, MAX_EPOCHS, NextEpoch, VaultKeys};
use crate::outbox::Standing;
use crate::rebuild::{Draft, Finished, Freeze, Replaced, reseal};
use crate::record::{Place, name_from_key, open_outbox, seal_outbox};
use crate::rows::{self, Access, Table, for_each_slice};
use crate::vault::{OpenVault, now};
use crate::vaults::{Live, Vaults};

/// Rows read by one job, usually 200 KB: a read waits for one of these.
pub(crate) const SLICE: usize = 512;

/// An eager rotation under way. Dropped, it leaves the vault as it was.
#[must_use]
pub struct Rotation {
    vaults: Vaults,
    old: OpenVault,
    head: HeadState,
    /// The first outbox line that was not handed on.
    outbox: u64,
    freeze: Option<Freeze>,
    finished: Option<Finished>,
}

impl Vaults {
    /// Begins to re-seal the vault `name` under fresh keys; it takes no change until the rotation was committed or
    /// dropped. [`Rotation::copy`] does the work, [`Rotation::commit`] ends it.
    ///
    /// # Errors
    /// [`VaultError::Frozen`] where it is being rebuilt already; [`VaultError::OwnQuorum`], since the new file's id stands in
    /// the seal config that only its quorum's key can wrap; the vault is sealed, unavailable or quarantined.
    pub fn rotate(&self, name: &str) -> Result<Rotation, VaultError> {
        let old = self.vault(name)?;
        if old.0.own.is_some() {
            return Err(VaultError::OwnQuorum(name.to_owned()));
        }
        let (head, outbox, freeze) = old.run(|disk| {
            disk.ready()?;
            let freeze = Freeze::of(&disk.stats)?;
            Ok((disk.head, disk.outbox_handed, freeze))
        })?;
        Ok(Rotation {
            vaults: self.clone(),
            old,
            head,
            outbox,
            freeze: Some(freeze),
            finished: None,
        })
    }

    /// Has what is written to the vault `name` from now on sealed under a new data key. `also` is done to the system vault
    /// in the same transaction.
    ///
    /// # Errors
    /// [`VaultError::Epochs`] where records stand under too many keys already; [`VaultError::Frozen`]; the vault is
    /// sealed, unavailable or quarantined; the store's disk.
    pub fn begin_epoch(
        &self,
        name: &str,
        also: impl IntoIterator<Item = Op>,
    ) -> Result<(), VaultError> {
        let vault = self.vault(name)?;
        let ops = checked(also)?;
        let live = Arc::clone(self.live());
        let named = vault.name().to_owned();
        vault.run(move |disk| disk.begin_epoch(&live, named, ops))
    }

    /// Re-seals the system vault under fresh keys, in one transaction, and does `also` to it under those.
    ///
    /// # Errors
    /// The store is sealed, or its disk.
    pub fn reseal_system(&self, also: impl IntoIterator<Item = Op>) -> Result<(), VaultError> {
        let live = self.live();
        let ops = checked(also)?;
        // From the wrapping on: the root key is not replaced meanwhile.
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = VaultKeys::random()?;
        let wrapped = live
            .root
            .lend(|root| keys.wrap(root, live.id, VaultId::SYSTEM))??;
        let fresh = Arc::new(KeyCell::new(keys));
        match &mut *live.cells() {
            Some(cells) => cells.push(Arc::clone(&fresh)),
            None => return Err(VaultError::Sealed),
        }
        let cell = Arc::clone(&fresh);
        let done = live
            .system
            .run(move |disk| disk.reseal(cell, wrapped, &ops));
        // In doubt, they wait with the transaction.
        if !matches!(done, Err(VaultError::OutcomeUnknown)) {
            fresh.revoke();
            live.forget_cell(&fresh);
        }
        done
    }
}

impl Rotation {
    /// How many records there are to copy.
    pub fn records(&self) -> u64 {
        self.head.head.count
    }

    /// Copies the vault, verifies the copy, and gives the id that it has. Takes as long as the disk does; `progress` hears
    /// how many records were copied. Seal ends it.
    ///
    /// # Errors
    /// What is on disk is not what was written, which quarantines the vault; the store was sealed; a disk.
    pub fn copy(&mut self, mut progress: impl FnMut(u64)) -> Result<VaultId, VaultError> {
        let Rotation {
            vaults, old, head, ..
        } = self;
        let (keys, place) = (
            Arc::clone(&old.0.keys),
            Place::new(vaults.live().id, old.id()),
        );
        let freeze = self.freeze.take();
        let (name, of) = (old.name(), head.head.incarnation);
        let mut draft = Draft::begin(vaults, name, Some(old), freeze, of, self.outbox)?;
        let (mut after, mut copied) = (None, 0);
        loop {
            let rows = old.run(move |disk| disk.slice(after))?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(name_from_key(last)?);
            draft.take(&keys, &place, &rows)?;
            copied += rows.len() as u64;
            progress(copied);
        }
        if copied != head.head.count {
            return old.faulty(tampered("a record was taken out of the file"));
        }
        let mut next = self.outbox;
        while next < head.outbox_next {
            let lines = old.run(move |disk| disk.outbox_from(next))?;
            next += lines.len() as u64;
            draft.take_lines(&lines)?;
        }
        let finished = draft.finish(vaults, head.head.generation, head.floor, || {})?;
        let id = finished.id();
        self.finished = Some(finished);
        Ok(id)
    }

    /// Makes the copy the vault. Blocks on the store's disk, up to its deadline; `also` is done to the system vault in the
    /// same transaction. Who has records of the vault in memory loads them anew, and then drops what this gives.
    ///
    /// # Errors
    /// The store was sealed, or its disk; nothing was copied. After [`VaultError::OutcomeUnknown`] the vault is the copy
    /// as soon as control.db shows that it was made.
    pub fn commit(self, also: impl IntoIterator<Item = Op>) -> Result<Replaced, VaultError> {
        let ops = checked(also)?;
        let finished = self.finished.ok_or(VaultError::Frozen)?;
        finished.commit(&self.vaults, ops)
    }
}

/// What is done to the system vault along with a rotation; it may be nothing.
fn checked(also: impl IntoIterator<Item = Op>) -> Result<Vec<Op>, VaultError> {
    let ops: Vec<Op> = also.into_iter().collect();
    if !ops.is_empty() {
        check_batch(&ops)?;
    }
    Ok(ops)
}

impl Live {
    /// The keys of a vault that is none any more.
    pub(crate) fn forget_cell(&self, cell: &Arc<KeyCell<VaultKeys>>) {
        if let Some(cells) = &mut *self.cells() {
            cells.retain(|there| !Arc::ptr_eq(there, cell));
        }
    }
}

impl Disk {
    /// The next rows after `after` as they stand in the file, each compared with the index.
    pub(crate) fn slice(&mut self, after: Option<NameHmac>) -> Result<Vec<rows::Row>, VaultError> {
        self.ready()?;
        let after = after.as_ref().map(|name| name.as_bytes().as_slice());
        let rows = self
            .rows
            .begin(Access::Read)?
            .scan(Table::Record, after, SLICE)?;
        for row in &rows {
            compare(&self.buckets, row)?;
        }
        Ok(rows)
    }

    /// So many rows fewer stand under old epochs.
    pub(crate) fn forget_old(&mut self, left: &[Epoch]) {
        for epoch in left {
            if let Some(rows) = self.old_epochs.get_mut(epoch) {
                *rows -= 1;
                if *rows == 0 {
                    self.old_epochs.remove(epoch);
                }
            }
        }
    }

    fn begin_epoch(&mut self, live: &Live, name: String, ops: Vec<Op>) -> Result<(), VaultError> {
        self.ready()?;
        self.is_free()?;
        let Role::Vault(registrar) = &self.role else {
            return Err(VaultError::NoSuchVault(name));
        };
        let registrar = Arc::clone(registrar);
        if self.outbox_handed > self.head.outbox_first {
            // Lines that were handed on leave the file, and with them what keeps an old key.
            self.commit(&[], now())?;
        }
        let newest = self.keys.lend(|keys| keys.newest().0)?;
        let has_lines = self.head.outbox_first < self.head.outbox_next;
        let is_used = |epoch: &Epoch| *epoch == newest || self.old_epochs.contains_key(epoch);
        let keep: Vec<Epoch> = self.keys.lend(|keys| {
            keys.epochs()
                .filter(|epoch| has_lines || is_used(epoch))
                .collect()
        })?;
        if keep.len() >= MAX_EPOCHS as usize {
            return Err(VaultError::Epochs {
                name,
                limit: MAX_EPOCHS,
            });
        }
        let next = NextEpoch::random()?;
        let (store, vault) = (self.place.store, self.place.vault);
        // From the wrapping to the commit the root key is not replaced. The job holds this and not its caller, who may have
        // gone: one that is late wraps under the root key of then.
        let one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let wrapped = live.root.lend(|root| {
            self.keys
                .lend(|keys| keys.wrap_advanced(root, store, vault, &next, &keep))
        })???;
        let extra = Extra {
            puts: vec![RawPut(Table::Vault, vault.as_bytes().to_vec(), wrapped)],
            erases: true,
            ..Extra::default()
        };
        registrar
            .lane
            .run(move |disk| disk.commit_system(&ops, now(), extra))
            .map_err(VaultError::from)
            .flatten()?;
        drop(one_at_a_time);
        self.keys.update(|keys| keys.advance(next, &keep))?;
        let under_newest = self.buckets.count() - self.old_epochs.values().sum::<u64>();
        if under_newest > 0 {
            self.old_epochs.insert(newest, under_newest);
        }
        self.publish_stats();
        Ok(())
    }

    /// Puts control.db under the keys in `fresh`, whose wrapped form is `wrapped`.
    fn reseal(
        &mut self,
        fresh: Arc<KeyCell<VaultKeys>>,
        wrapped: Vec<u8>,
        ops: &[Op],
    ) -> Result<(), VaultError> {
        self.ready()?;
        let resealed = self.resealed(fresh)?;
        let system = VaultId::SYSTEM.as_bytes().to_vec();
        let extra = Extra {
            puts: vec![RawPut(Table::Vault, system, wrapped)],
            resealed: Some(resealed),
            ..Extra::default()
        };
        self.commit_system(ops, now(), extra).map(drop)
    }

    fn resealed(&mut self, fresh: Arc<KeyCell<VaultKeys>>) -> Result<ResealedRows, VaultError> {
        let Disk {
            rows,
            keys,
            place,
            buckets,
            ..
        } = self;
        let mut twin = Buckets::new(place.text());
        let (mut writes, mut standing) = (Vec::new(), Standing::default());
        let mut tx = rows.begin(Access::Read)?;
        for_each_slice(tx.as_mut(), Table::Record, SLICE, |rows| {
            for row in rows {
                compare(buckets, &row)?;
                let (_, resealed) = reseal((keys, place), (&fresh, place), &row, None)?;
                twin.set(resealed.entry);
                writes.push(Write::Delete(Table::Record, row.0));
                let name = resealed.name.as_bytes().to_vec();
                writes.push(Write::Put(Table::Record, name, resealed.row));
            }
            Ok::<(), VaultError>(())
        })?;
        if twin.count() != buckets.count() {
            return Err(tampered("a record was taken out of the file"));
        }
        for sequence in self.outbox_handed..self.head.outbox_next {
            let key = sequence.to_be_bytes();
            let row = tx.get(Table::Outbox, &key)?.unwrap_or_default();
            if !self.standing.holds(sequence - self.head.outbox_first, &row) {
                return Err(tampered("an outbox line was replaced in the file"));
            }
            let line = keys.lend(|keys| open_outbox(keys, place, sequence, &row))??;
            let row = fresh.lend(|keys| seal_outbox(keys, place, sequence, line.expose()))??;
            standing.push(&row);
            writes.push(Write::Put(Table::Outbox, key.to_vec(), row));
        }
        Ok(ResealedRows {
            writes,
            standing,
            twin: Box::new(Twin {
                keys: fresh,
                buckets: twin,
            }),
        })
    }
}

/// Whether a row is the one that was written.
fn compare(buckets: &Buckets, (key, bytes): &rows::Row) -> Result<(), VaultError> {
    let name = name_from_key(key)?;
    disk::checked(buckets.get(&name), &name, Some(bytes))?;
    Ok(())
}
