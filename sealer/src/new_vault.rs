//! A vault on its way into the store: a file with its first head, of which control.db does not know yet.
//!
//! Owns [`NewVault`], which rides with the transaction of control.db that makes the vault known and ends with
//! it, whoever waits for that: a vault that was made is among the store's from then on; of one that was
//! certainly not made, neither file nor keys stay; one of which nobody knows keeps both until control.db was
//! read. One that comes in the place of another has its name from then on. Dropping one waits for no disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::thread;

use mcpist_quorum::Incarnation;

use crate::disk::{Disk, Role};
use crate::error::VaultError;
use crate::ids::{VaultId, VaultName};
use crate::keyring::{KeyCell, VaultKeys};
use crate::own::VaultQuorum;
use crate::pool::Gathering;
use crate::rebuild::Replaces;
use crate::record::Place;
use crate::store::DbFile;
use crate::vault::{OpenVault, Shared, now};
use crate::vaults::Live;
use crate::verify::Candidate;

/// A vault that is being made.
pub(crate) struct NewVault {
    /// Weak, since one that is in doubt is kept by control.db's lane, which the store owns.
    live: Weak<Live>,
    name: VaultName,
    pub(crate) id: VaultId,
    pub(crate) created: u64,
    /// The keys as they stand in control.db.
    pub(crate) wrapped: Vec<u8>,
    keys: Arc<KeyCell<VaultKeys>>,
    file: Option<DbFile>,
    disk: Option<Disk>,
    /// control.db knows the vault, or may know it.
    known: bool,
    /// The vault in whose place this one comes.
    pub(crate) replaces: Option<Replaces>,
    /// The generation of a write that is missing in the vault in whose place it comes.
    pub(crate) missing: Option<u64>,
    /// The quorum of its own that opens it.
    pub(crate) own: Option<VaultQuorum>,
    _making: Making,
}

/// One file more in the folder than control.db knows of, until it is dropped.
pub(crate) struct Making(Weak<Live>);

impl Making {
    pub(crate) fn of(live: &Arc<Live>) -> Making {
        live.making.fetch_add(1, Ordering::Relaxed);
        Making(Arc::downgrade(live))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(live) = self.0.upgrade() {
            live.making.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl NewVault {
    /// Draws identity and keys. The store takes the keys back when it is sealed, from now on.
    pub(crate) fn begin(live: &Arc<Live>, name: VaultName) -> Result<NewVault, VaultError> {
        NewVault::with(live, name, VaultId::random()?, VaultKeys::random()?)
    }

    /// Like [`NewVault::begin`], with this identity and these keys.
    pub(crate) fn with(
        live: &Arc<Live>,
        name: VaultName,
        id: VaultId,
        keys: VaultKeys,
    ) -> Result<NewVault, VaultError> {
        let wrapped = live.root.lend(|root| keys.wrap(root, live.id, id))??;
        let keys = Arc::new(KeyCell::new(keys));
        match &mut *live.cells() {
            Some(cells) => cells.push(Arc::clone(&keys)),
            None => return Err(VaultError::Sealed),
        }
        Ok(NewVault {
            live: Arc::downgrade(live),
            name,
            id,
            created: now(),
            wrapped,
            keys,
            file: None,
            disk: None,
            known: false,
            replaces: None,
            missing: None,
            own: None,
            _making: Making::of(live),
        })
    }

    /// Writes the file with its first head.
    pub(crate) fn write(&mut self, live: &Live, of: Incarnation) -> Result<&Disk, VaultError> {
        let mut disk = self.create(live, of)?;
        disk.commit_first()?;
        self.keep(live, disk)
    }

    /// Makes the file, which has no head yet.
    pub(crate) fn create(&mut self, live: &Live, of: Incarnation) -> Result<Disk, VaultError> {
        let file = live.store.new_vault(self.id)?;
        self.file = Some(file.clone());
        let candidate = Candidate {
            place: Place::new(live.id, self.id),
            keys: Arc::clone(&self.keys),
            rows: live.backend.create(&file)?,
            idle: live.options.idle,
            open: live.store.lease(),
        };
        Ok(candidate.empty(of, Role::Vault(Arc::clone(&live.registrar))))
    }

    /// Takes the file with its first head.
    pub(crate) fn keep(&mut self, live: &Live, disk: Disk) -> Result<&Disk, VaultError> {
        live.store.sync_vaults()?;
        Ok(self.disk.insert(disk))
    }

    /// The transaction failed, and nobody could read yet whether it was made.
    pub(crate) fn in_doubt(&mut self) {
        self.known = true;
    }

    /// The transaction was made, or it was not.
    pub(crate) fn ended(mut self, made: bool) {
        self.known = made;
        // Retired only once the new one has its name.
        let _retired = self.replaces.take().and_then(|r| r.ended(made));
        let (true, Some(live), Some(disk)) = (made, self.live.upgrade(), self.disk.take()) else {
            return;
        };
        if live.sealed.load(Ordering::Acquire) {
            // Nobody would close it any more.
            return;
        }
        let shared = Shared {
            name: self.name.as_str().to_owned(),
            id: self.id,
            created: self.created,
            sealed: Arc::clone(&live.sealed),
            keys: Arc::clone(&self.keys),
            stats: Arc::clone(&disk.stats),
            lane: Some(Arc::new(live.pool.lane(disk, live.options.deadline))),
            waiting: Gathering::default(),
            idle: live.options.idle,
            fault: OnceLock::new(),
            missing: AtomicU64::new(self.missing.unwrap_or(0)),
            own: self.own.take().map(RwLock::new),
        };
        shared.watch_idle();
        let mut named = live.vaults.write().unwrap_or_else(PoisonError::into_inner);
        named.insert(self.name.clone(), OpenVault(Arc::new(shared)));
    }
}

impl Drop for NewVault {
    fn drop(&mut self) {
        // A panic may have come after the transaction.
        if self.known || thread::panicking() {
            return;
        }
        self.keys.revoke();
        if let Some(live) = self.live.upgrade()
            && let Some(cells) = &mut *live.cells()
        {
            cells.retain(|cell| !Arc::ptr_eq(cell, &self.keys));
        }
        let (disk, Some(file)) = (self.disk.take(), self.file.take()) else {
            return;
        };
        let lease = file.lease();
        let remove = move || {
            drop(disk);
            if let Err(error) = file.remove() {
                log::warn!("the file of a vault that was not made stays: {error}");
            }
            drop(lease);
        };
        if let Err(error) = thread::Builder::new().name("no vault".into()).spawn(remove) {
            log::warn!("the file of a vault that was not made stays: {error}");
        }
    }
}
