//! The vaults of an unsealed store: finding them, making them, and ending them all.
//!
//! Owns [`Vaults`], the handle that an unsealed barrier shares with other threads, and what it stands for:
//! the root key, the audit sub-key, the pools. Promises that ending takes back every key that this process
//! holds, also those of a vault that is just being made, and waits for no disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread;

use mcpist_quorum::{Incarnation, StoreId, StorePoint};
use mcpist_secret::{Key, Secret};

use crate::barrier::Options;
use crate::batch::{Expect, Op};
use crate::commit::{Extra, RawPut};
use crate::disk::Disk;
use crate::error::VaultError;
use crate::ids::{VaultId, VaultName};
use crate::keyring::{AuditKey, KeyCell, VaultKeys};
use crate::ledger::{Entry, Point};
use crate::new_vault::NewVault;
use crate::own::{Named, VaultQuorum};
use crate::pool::Pool;
use crate::record::{KIND_VAULT, MAX_RECORD, OWNER_VAULTS};
use crate::registrar::Registrar;
use crate::rows::{SharedBackend, Table};
use crate::store::Store;
use crate::vault::{OpenVault, VaultStatus, now};

type Cell = Arc<KeyCell<VaultKeys>>;

/// All that has to end at seal.
pub(crate) struct Live {
    pub(crate) store: Arc<Store>,
    pub(crate) backend: SharedBackend,
    pub(crate) options: Options,
    pub(crate) id: StoreId,
    /// Shared by every handle: set before the keys are taken back.
    pub(crate) sealed: Arc<AtomicBool>,
    pub(crate) root: KeyCell<Key>,
    pub(crate) audit: AuditKey,
    pub(crate) system: OpenVault,
    pub(crate) vaults: RwLock<BTreeMap<VaultName, OpenVault>>,
    /// Every vault's keys; none once the store is sealed.
    pub(crate) cells: Mutex<Option<Vec<Cell>>>,
    /// Those that are of one vault and not the ones it is open under: they go when it is sealed alone.
    pub(crate) beside: Mutex<Vec<(VaultId, Weak<KeyCell<VaultKeys>>)>>,
    /// One vault is made at a time.
    pub(crate) creating: Mutex<()>,
    /// Files of vaults that control.db does not know yet.
    pub(crate) making: AtomicUsize,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) system_pool: Pool,
    pub(crate) pool: Pool,
}

impl Live {
    /// Takes keys that are held for a while only: a seal takes them back with all others. Those that nobody else holds
    /// any more go.
    pub(crate) fn hold(&self, cell: &Cell) -> Result<(), VaultError> {
        match &mut *self.cells() {
            Some(cells) => {
                cells.retain(|cell| Arc::strong_count(cell) > 1);
                cells.push(Arc::clone(cell));
                Ok(())
            }
            None => Err(VaultError::Sealed),
        }
    }

    /// Takes keys of `vault`, which is open, for a while: a seal of the vault alone takes them back too.
    pub(crate) fn hold_with(&self, vault: &OpenVault, cell: &Cell) -> Result<(), VaultError> {
        self.hold(cell)?;
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.retain(|(_, cell)| cell.strong_count() > 0);
        beside.push((vault.id(), Arc::downgrade(cell)));
        drop(beside);
        // Whoever took the vault's keys back before that has not seen these.
        if vault.0.keys.lend(|_| ()).is_err() {
            cell.revoke();
        }
        Ok(())
    }

    /// Takes back what [`Live::hold_with`] took, after the vault's own keys.
    pub(crate) fn revoke_beside(&self, vault: VaultId) {
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = beside.iter().filter(|(id, _)| *id == vault);
        of_it
            .filter_map(|(_, cell)| cell.upgrade())
            .for_each(|cell| cell.revoke());
    }

    pub(crate) fn cells(&self) -> MutexGuard<'_, Option<Vec<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn named(&self) -> RwLockReadGuard<'_, BTreeMap<VaultName, OpenVault>> {
        self.vaults.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The vaults of an unsealed store, for any thread. Of no more use once the store was sealed.
#[derive(Clone)]
pub struct Vaults(Arc<Live>);

impl Vaults {
    pub(crate) fn new(live: Live) -> Vaults {
        Vaults(Arc::new(live))
    }

    /// Takes all keys back, wipes them and lets the threads end: what [`crate::Barrier::seal`] does, for a thread that
    /// does not own the barrier. Its owner still has to seal it. Waits for arithmetic only, and may be called again.
    pub fn revoke(&self) {
        let live = &*self.0;
        live.sealed.store(true, Ordering::Release);
        live.root.revoke();
        live.audit.revoke();
        for cell in live.cells().take().unwrap_or_default() {
            cell.revoke();
        }
        live.pool.stop();
        live.system_pool.stop();
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.0
    }

    /// How vaults reach control.db.
    #[cfg(test)]
    pub(crate) fn registrar(&self) -> &Arc<Registrar> {
        &self.0.registrar
    }

    /// How many vaults have keys here.
    #[cfg(test)]
    pub(crate) fn keys_held(&self) -> usize {
        self.0.cells().as_ref().map_or(0, Vec::len)
    }

    /// The system vault, control.db.
    pub fn system(&self) -> OpenVault {
        self.0.system.clone()
    }

    /// The vault `name`; a quarantined one too, whose methods say so.
    ///
    /// # Errors
    /// [`VaultError::NoSuchVault`].
    pub fn vault(&self, name: &str) -> Result<OpenVault, VaultError> {
        VaultName::parse(name)
            .ok()
            .and_then(|name| self.0.named().get(&name).cloned())
            .ok_or_else(|| VaultError::NoSuchVault(name.chars().take(64).collect()))
    }

    /// Every vault, the system vault first. Waits for nothing.
    pub fn vaults(&self) -> Vec<VaultStatus> {
        let named = self.0.named();
        std::iter::once(self.0.system.status())
            .chain(named.values().map(OpenVault::status))
            .collect()
    }

    /// The audit sub-key.
    pub fn audit_mac_key(&self) -> AuditKey {
        self.0.audit.clone()
    }

    /// Makes a vault. With `outbox`, that line goes into the system vault's outbox in the same transaction
    /// that makes the vault known. Blocks on the store's disk, up to its deadline.
    ///
    /// # Errors
    /// [`VaultError::VaultExists`], a name that is none, or the store's disk. After
    /// [`VaultError::OutcomeUnknown`] the vault is named as soon as control.db shows that it was made.
    pub fn create_vault(&self, name: &str, outbox: Option<Vec<u8>>) -> Result<(), VaultError> {
        let name = VaultName::parse(name)?;
        self.make(name.clone(), outbox, |live| NewVault::begin(live, name))
    }

    /// Makes the vault that `begin` begins.
    pub(crate) fn make(
        &self,
        name: VaultName,
        outbox: Option<Vec<u8>>,
        begin: impl FnOnce(&Arc<Live>) -> Result<NewVault, VaultError>,
    ) -> Result<(), VaultError> {
        let live = &self.0;
        let line = outbox_line(outbox)?;
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        // Where an earlier one is in doubt, control.db is read first.
        let of = live.system.run(|disk| {
            disk.ready()?;
            Ok(disk.head.head.incarnation)
        })?;
        if live.named().contains_key(&name) {
            return Err(VaultError::VaultExists(name.as_str().to_owned()));
        }
        let (new, point) = self.make_file(begin(live)?, of)?;
        let (id, created) = (new.id, new.created);
        let mut ops = vec![name_record(&name, id, new.own.as_ref(), Expect::Absent)?];
        ops.extend(line);
        let extra = Extra {
            puts: vec![RawPut(
                Table::Vault,
                id.as_bytes().to_vec(),
                new.wrapped.clone(),
            )],
            ledger: vec![(id, Entry::new(point))],
            new: Some(Box::new(new)),
            ..Extra::default()
        };
        let made = live
            .system
            .run(move |disk| disk.commit_system(&ops, created, extra));
        match made {
            Err(VaultError::OutcomeUnknown) => {
                // It may be readable by now, and the vault is named once it was read.
                drop(live.system.run(Disk::ready));
                if live.named().contains_key(&name) {
                    Ok(())
                } else {
                    Err(VaultError::OutcomeUnknown)
                }
            }
            made => made.map(drop),
        }
    }

    /// Writes the file of a new vault, of which nobody knows yet. On a thread of its own: the caller waits no
    /// longer than the deadline.
    fn make_file(
        &self,
        mut new: NewVault,
        of: Incarnation,
    ) -> Result<(NewVault, Point), VaultError> {
        let vaults = self.clone();
        let (tell, told) = sync_channel(1);
        let work = move || {
            let point = new.write(&vaults.0, of).map(|disk| disk.head.point());
            // Nobody listens any more where the deadline has passed.
            drop(tell.send(point.map(|point| (new, point))));
        };
        let started = thread::Builder::new()
            .name("new vault".to_owned())
            .spawn(work);
        started.map_err(|error| VaultError::Storage(error.to_string()))?;
        told.recv_timeout(self.0.options.deadline)
            .unwrap_or(Err(VaultError::Unavailable))
    }

    /// A custodian has seen that the last write of the vault is missing; the mark goes, and `outbox` goes
    /// into the system vault's outbox in the same transaction.
    ///
    /// # Errors
    /// [`VaultError::NoSuchVault`], [`VaultError::NothingMissing`], or the store's disk.
    pub fn confirm_last_write_missing(
        &self,
        name: &str,
        outbox: Option<Vec<u8>>,
    ) -> Result<(), VaultError> {
        let vault = self.vault(name)?;
        let line = outbox_line(outbox)?;
        if vault.0.missing.load(Ordering::Relaxed) == 0 {
            return Err(VaultError::NothingMissing(name.to_owned()));
        }
        let confirmed = Some(vault.id());
        self.0.system.run(move |disk| {
            let ops: Vec<Op> = line.into_iter().collect();
            let extra = Extra {
                confirmed,
                ..Extra::default()
            };
            disk.commit_system(&ops, now(), extra)
        })?;
        vault.0.missing.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the ends of all writes into control.db, at most for the options' deadline. Call it before
    /// [`crate::Barrier::seal`] where there is time: what is not settled then, the next unseal settles.
    ///
    /// # Errors
    /// The store's disk.
    pub fn settle(&self) -> Result<(), VaultError> {
        self.0.system.run(Disk::flush)
    }

    /// Where the store is, on its disk: what a witness receipt names. After [`Vaults::settle`] it covers all that was
    /// written to any vault before. Writes nothing; blocks up to the options' deadline.
    ///
    /// # Errors
    /// The store's disk.
    pub fn point(&self) -> Result<StorePoint, VaultError> {
        self.0.system.run(|disk| {
            disk.ready()?;
            Ok(disk.head.store_point())
        })
    }
}

/// The system vault's record that names a vault.
pub(crate) fn name_record(
    name: &VaultName,
    id: VaultId,
    own: Option<&VaultQuorum>,
    expect: Expect,
) -> Result<Op, VaultError> {
    Ok(Op::Put {
        owner: Some(OWNER_VAULTS.to_owned()),
        name: name.as_str().to_owned(),
        kind: KIND_VAULT.to_owned(),
        expiry: 0,
        hosts: Vec::new(),
        payload: Secret::copy_of(&Named::of(id, own).encode())?,
        expect,
    })
}

pub(crate) fn outbox_line(line: Option<Vec<u8>>) -> Result<Option<Op>, VaultError> {
    match line {
        Some(line) if line.len() > MAX_RECORD => Err(VaultError::TooLarge {
            found: line.len(),
            limit: MAX_RECORD,
        }),
        line => Ok(line.map(Op::Outbox)),
    }
}
