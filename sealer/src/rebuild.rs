//! A vault in the place of another: records under entirely fresh keys, in a new file with a new id.
//!
//! Owns [`Draft`], the new file while it is filled, and its commit: one transaction of control.db gives the vault's
//! name to the new id, puts its wrapped keys and its place in the ledger, and erases those of the old one. Before it the
//! old vault is the one that is there, afterwards the new one, and the old one is marked as retired
//! ([`crate::orphans`]), or with its keys it stays. Where there was none of the name, the new one is simply made. Promises
//! that times, outbox lines with their sequences, and versions where no other was asked for, are those of the source, that
//! the new file was verified in full like one that an unseal finds before it gets the name, and that the old keys are taken
//! back and the old file is closed, and removed unless it stays, once [`Replaced`] is dropped.
//!
//! Memory: the index of the new vault, and a slice of rows.
//!
//! Does not say where the records come from: [`crate::rotate`], [`crate::repair`] and [`crate::vault_restore`] read them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;

use mcpist_quorum::{Entry, Incarnation, NameHmac};

use crate::batch::{Expect, Op};
use crate::commit::{Extra, RawPut};
use crate::disk::{Disk, Stats, tampered};
use crate::error::VaultError;
use crate::ids::{VaultId, VaultName};
use crate::keyring::{KeyCell, VaultKeys};
use crate::ledger;
use crate::new_vault::NewVault;
use crate::orphans;
use crate::record::{Opened, Place, Row, name_from_key, seal_outbox, seal_row};
use crate::rows::{self, Access, Table};
use crate::vault::OpenVault;
use crate::vaults::{Live, Vaults, name_record};
use crate::verify::Candidate;

/// The old vault takes no change, until this is dropped or the new one is there.
pub(crate) struct Freeze {
    stats: Arc<Stats>,
    for_good: bool,
}

impl Freeze {
    /// Freezes; refused while somebody else has.
    pub(crate) fn of(stats: &Arc<Stats>) -> Result<Freeze, VaultError> {
        if stats.frozen.swap(true, Ordering::AcqRel) {
            return Err(VaultError::Frozen);
        }
        Ok(Freeze {
            stats: Arc::clone(stats),
            for_good: false,
        })
    }
}

impl Drop for Freeze {
    fn drop(&mut self) {
        if !self.for_good {
            self.stats.frozen.store(false, Ordering::Release);
        }
    }
}

/// A vault that gave its name to another. When the last one who needs it drops this, its keys are wiped and its file
/// is removed, if it did give it.
pub(crate) struct Retired {
    live: Weak<Live>,
    old: OpenVault,
    is_replaced: AtomicBool,
    /// Its file stays.
    keeps_file: bool,
}

impl Drop for Retired {
    fn drop(&mut self) {
        if !self.is_replaced.load(Ordering::Acquire) {
            return;
        }
        let old = self.old.clone();
        // One that was quarantined says so still.
        drop(old.0.fault.set(VaultError::Rotated));
        old.0.keys.revoke();
        let Some(live) = self.live.upgrade() else {
            return;
        };
        live.forget_cell(&old.0.keys);
        let file = live.store.vault(old.id());
        let (lease, keeps_file) = (file.lease(), self.keeps_file);
        let remove = move || {
            let closed = old.0.lane.as_ref().is_none_or(|lane| lane.end().is_ok());
            if keeps_file {
                return;
            }
            match closed.then(|| file.remove()) {
                Some(Ok(())) => {}
                Some(Err(error)) => log::warn!("the file of a rebuilt vault stays: {error}"),
                None => log::warn!("the file of a rebuilt vault stays: its disk does not answer"),
            }
            drop(lease);
        };
        // What stays is removed at the next unseal.
        if let Err(error) = thread::Builder::new()
            .name("old vault".into())
            .spawn(remove)
        {
            log::warn!("the file of a rebuilt vault stays: {error}");
        }
    }
}

/// What becomes of the old vault with the transaction that makes the new one known.
pub(crate) struct Replaces {
    freeze: Option<Freeze>,
    retired: Arc<Retired>,
}

impl Replaces {
    pub(crate) fn ended(mut self, made: bool) -> Option<Arc<Retired>> {
        if !made {
            return None;
        }
        if let Some(freeze) = &mut self.freeze {
            freeze.for_good = true;
        }
        self.retired.is_replaced.store(true, Ordering::Release);
        Some(self.retired)
    }
}

/// The vault is rebuilt. What was loaded from the old one still opens while this lives: drop it once nobody needs
/// that. Waits for no disk.
#[must_use = "the old keys are wiped when this is dropped"]
pub struct Replaced {
    pub(crate) _retired: Option<Arc<Retired>>,
    /// How many records the vault holds.
    pub records: u64,
}

/// A new file that is being filled.
pub(crate) struct Draft {
    name: VaultName,
    old: Option<OpenVault>,
    freeze: Option<Freeze>,
    new: NewVault,
    disk: Disk,
    /// The old file stays, and its keys.
    pub(crate) keeps_old: bool,
    /// The version that every record gets in place of its own.
    pub(crate) version: Option<u64>,
}

/// A new file that is whole.
pub(crate) struct Finished {
    name: VaultName,
    old: Option<OpenVault>,
    freeze: Option<Freeze>,
    new: NewVault,
    entry: ledger::Entry,
    records: u64,
    keeps_old: bool,
}

impl Draft {
    /// Makes the file of the vault `name`, in the place of `old` where there is one. Its first outbox line will be
    /// `outbox_first`.
    pub(crate) fn begin(
        vaults: &Vaults,
        name: &str,
        old: Option<&OpenVault>,
        freeze: Option<Freeze>,
        of: Incarnation,
        outbox_first: u64,
    ) -> Result<Draft, VaultError> {
        let name = VaultName::parse(name)?;
        let mut new = {
            // The root key is not replaced while a vault that was wrapped under it is on its way.
            let creating = &vaults.live().creating;
            let _one_at_a_time = creating.lock().unwrap_or_else(PoisonError::into_inner);
            NewVault::begin(vaults.live(), name.clone())?
        };
        new.created = old.map_or(new.created, |old| old.0.created);
        let mut disk = new.create(vaults.live(), of)?;
        disk.outbox_handed = outbox_first;
        disk.head.outbox_first = outbox_first;
        disk.head.outbox_next = outbox_first;
        Ok(Draft {
            name,
            old: old.cloned(),
            freeze,
            new,
            disk,
            keeps_old: false,
            version: None,
        })
    }

    /// Takes records of a source whose keys are `keys` and whose place is `place`.
    pub(crate) fn take(
        &mut self,
        keys: &KeyCell<VaultKeys>,
        place: &Place,
        rows: &[rows::Row],
    ) -> Result<(), VaultError> {
        let mut sealed = Vec::with_capacity(rows.len());
        for row in rows {
            let to = (&*self.disk.keys, &self.disk.place);
            let (_, resealed) = reseal((keys, place), to, row, self.version)?;
            sealed.push(resealed);
        }
        let mut tx = self.disk.rows.begin(Access::Write)?;
        for Resealed { name, row, .. } in &sealed {
            tx.put(Table::Record, name.as_bytes(), row)?;
        }
        tx.commit()?;
        for Resealed { entry, .. } in sealed {
            self.disk.buckets.set(entry);
        }
        Ok(())
    }

    /// Takes outbox lines, each with its sequence, which goes up.
    pub(crate) fn take_lines(&mut self, lines: &[(u64, Vec<u8>)]) -> Result<(), VaultError> {
        let disk = &mut self.disk;
        let mut tx = disk.rows.begin(Access::Write)?;
        for (sequence, line) in lines {
            if *sequence != disk.head.outbox_next {
                return Err(tampered("an outbox line is missing or was added"));
            }
            let row = disk
                .keys
                .lend(|keys| seal_outbox(keys, &disk.place, *sequence, line))??;
            tx.put(Table::Outbox, &sequence.to_be_bytes(), &row)?;
            disk.standing.push(&row);
            disk.head.outbox_next += 1;
        }
        Ok(tx.commit()?)
    }

    /// Writes the head over all that was taken, and verifies the file as it stands on the disk. `generation` is the
    /// source's, `floor` the highest version that a new record must begin above.
    pub(crate) fn finish(
        self,
        vaults: &Vaults,
        generation: u64,
        floor: u64,
        alive: impl FnMut(),
    ) -> Result<Finished, VaultError> {
        let Draft {
            name,
            old,
            freeze,
            mut new,
            mut disk,
            keeps_old,
            ..
        } = self;
        disk.head.head.generation = generation;
        disk.head.floor = floor;
        disk.commit_first()?;
        let written = disk.head;
        let (candidate, role) = Candidate::of(disk);
        let disk = candidate.verify(role, alive)?;
        if disk.head != written {
            return Err(tampered("the new file shows another head than was written"));
        }
        let records = disk.buckets.count();
        let point = new.keep(vaults.live(), disk)?.head.point();
        Ok(Finished {
            name,
            old,
            freeze,
            new,
            entry: ledger::Entry::new(point),
            records,
            keeps_old,
        })
    }
}

impl Finished {
    /// The identity of the new file.
    pub(crate) fn id(&self) -> VaultId {
        self.new.id
    }

    /// How many records it holds.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The one commit: the name is the new file's from then on. `more` goes into the system vault with it.
    pub(crate) fn commit(self, vaults: &Vaults, more: Vec<Op>) -> Result<Replaced, VaultError> {
        let Finished {
            name,
            old,
            freeze,
            mut new,
            mut entry,
            records,
            keeps_old,
        } = self;
        let live = vaults.live();
        let named = || live.named().get(&name).map(OpenVault::id);
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        live.system.run(Disk::ready)?;
        let gone = old.as_ref().map(OpenVault::id);
        match named() {
            there if there == gone => {}
            Some(_) if gone.is_none() => {
                return Err(VaultError::VaultExists(name.as_str().to_owned()));
            }
            _ => return Err(VaultError::Rotated),
        }
        if let Some(old) = &old {
            // What a custodian has not confirmed is not confirmed by this.
            let missing = Some(old.0.missing.load(Ordering::Relaxed));
            entry.missing = missing.filter(|missing| *missing != 0);
            new.missing = entry.missing;
        }
        let retired = old.map(|old| {
            Arc::new(Retired {
                live: Arc::downgrade(live),
                old,
                is_replaced: AtomicBool::new(false),
                keeps_file: keeps_old,
            })
        });
        new.replaces = retired.clone().map(|retired| Replaces { freeze, retired });
        let (id, created) = (new.id, new.created);
        let expect = gone.map_or(Expect::Absent, |_| Expect::Any);
        let mut ops = vec![name_record(&name, id, None, expect)?];
        ops.extend(more);
        let wrapped = new.wrapped.clone();
        let mut puts = vec![RawPut(Table::Vault, id.as_bytes().to_vec(), wrapped)];
        puts.extend(gone.filter(|_| !keeps_old).map(orphans::mark));
        let extra = Extra {
            puts,
            ledger: vec![(id, entry)],
            new: Some(Box::new(new)),
            gone,
            keeps_keys: keeps_old,
            ..Extra::default()
        };
        let made = live
            .system
            .run(move |disk| disk.commit_system(&ops, created, extra));
        if let Err(error) = made {
            // It may be readable by now.
            let unknown = matches!(error, VaultError::OutcomeUnknown);
            if !unknown || live.system.run(Disk::ready).is_err() || named() != Some(id) {
                return Err(error);
            }
        }
        Ok(Replaced {
            _retired: retired,
            records,
        })
    }
}

/// A row under other keys.
pub(crate) struct Resealed {
    pub(crate) name: NameHmac,
    pub(crate) row: Vec<u8>,
    pub(crate) entry: Entry,
}

/// Opens a row under the keys of `from` and seals it under those of `to`, with all that it says but its version where
/// another one is given.
pub(crate) fn reseal(
    from: (&KeyCell<VaultKeys>, &Place),
    to: (&KeyCell<VaultKeys>, &Place),
    (key, bytes): &rows::Row,
    version: Option<u64>,
) -> Result<(Opened, Resealed), VaultError> {
    let found = name_from_key(key)?;
    let row = Row::parse(bytes)?;
    let (mut opened, payload) = from.0.lend(|keys| row.open(keys, from.1, &found))??;
    opened.meta.version = version.unwrap_or(opened.meta.version);
    let resealed = to.0.lend(|keys| {
        let (name, row, entry) = seal_row(keys, to.1, &opened, payload.expose())?;
        Ok::<_, VaultError>(Resealed { name, row, entry })
    })??;
    Ok((opened, resealed))
}
