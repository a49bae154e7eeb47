//! Another quorum, another root key: the commits that change what opens an unsealed store.
//!
//! Owns [`Barrier::consent`], [`Barrier::rekey`] and [`Barrier::rotate_root`]. Sharing happens above the root key, so
//! that a rekey replaces two rows (seal config and root wrap) and a new root key every row of wrapped keys besides;
//! no record is touched.
//!
//! Promises: one transaction of control.db, with the audit line of the act in it, and the old state until then, the new one
//! afterwards; then the log is truncated, so that no replaced wrap stands in a file of the store. A commit that failed
//! is settled by reading; where that cannot be done the root key is taken back, and the next unseal reads the seal config
//! anew. A root key is not replaced while a vault's keys do not open under the old one: they would be lost.
//!
//! # Limits
//! A rekey alone takes nothing from who has the old shares *and* an old copy of the disk: the root key in it is the one
//! of now. That is what a new root key is for, and who has seen the vaults' keys needs new ones of those too. Putting the two
//! rows of an old seal config back shows at unseal by its generation, which the caller keeps as a record.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use mcpist_quorum::{
    CombineError, ConfigDigest, RecordError, SealConfig, Switch, ValidShares, combine, derive_kek,
};
use mcpist_secret::{Key, MemoryError};

use crate::barrier::{Barrier, Sealed, Unsealed};
use crate::batch::{Op, check_batch};
use crate::commit::{Extra, RawPut};
use crate::create::{AUDIT, CONFIG, ROOT};
use crate::disk::Disk;
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::{
    KeysError, OwnRow, VaultKeys, unwrap_audit, unwrap_root, wrap_audit, wrap_root,
};
use crate::moves::Move;
use crate::orphans::RETIRED;
use crate::rows::{Access, Row, Table, for_each_slice};
use crate::vaults::Live;

/// How many rows of wrapped keys are read at once.
const SLICE: usize = 256;

/// Why nothing was switched, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The shares fit no secret.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// The secret of the shares does not open the root key that is in use.
    #[error(
        "these shares do not open this store's root key: its control.db was changed, restore it from a backup"
    )]
    NotOfThisStore,
    /// A vault's keys are on their way into the store, wrapped under the root key of now.
    #[error("a vault is being made or rebuilt: try again once that is done")]
    Busy,
    /// The consent is to the change of another seal config.
    #[error("the store has another seal config by now: plan the ceremony anew")]
    OtherConfig,
    /// A vault's keys would be lost with the root key.
    #[error(
        "the keys of vault {0} do not open, and a new root key would lose them for good: repair or restore it first"
    )]
    Keys(VaultId),
    /// The secret of the shares does not open the root key of this vault.
    #[error(
        "these shares do not open the keys of vault {0:?}: its row in control.db was changed, restore it from a backup"
    )]
    NotOfThisVault(String),
    /// The commit failed and control.db cannot be read. The vault is sealed.
    #[error(
        "the disk of control.db failed in the middle of it: vault {0:?} is sealed, and which shares open it shows once the store was sealed and unsealed again"
    )]
    VaultInDoubt(String),
    /// A key could not be wrapped.
    #[error("the new keys could not be wrapped: {0}")]
    Wrap(#[from] RecordError),
    /// No secret memory, or no randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// control.db did not take it. Nothing was changed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The commit failed and control.db cannot be read. The store has to be sealed; what opens it then, control.db says.
    #[error(
        "the disk of control.db failed in the middle of it, and whether it was done shows once it can be read: seal the store and unseal it with the old or the new shares"
    )]
    InDoubt,
}

/// The key of a quorum that has consented, which opened the root key's wrap a moment ago.
pub struct Consented {
    kek: Key,
    config: ConfigDigest,
}

/// What a transaction replaces of the keys.
pub(crate) struct Rewrapped {
    root: Key,
    /// The rows of wrapped keys as they were, which they must still be.
    pub(crate) from: Vec<Row>,
    pub(crate) puts: Vec<RawPut>,
}

impl Barrier<Unsealed> {
    /// Asks the store whether the secret of `shares` opens its root key, as it stands on the disk and as it is in use.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing is changed.
    pub fn consent(&self, shares: &ValidShares) -> Result<Consented, SwitchError> {
        let config = self.config().digest();
        if shares.config() != config {
            return Err(SwitchError::OtherConfig);
        }
        let kek = {
            let secret = combine(shares)?;
            derive_kek(&secret, shares.set(), shares.generation())?
        };
        let live = self.live();
        let wrapped = live.system.run(|disk| clear_row(disk, ROOT))?;
        let opened = match unwrap_root(&kek, &self.config().to_bytes(), &wrapped) {
            Ok(root) => root,
            Err(RecordError::Memory(error)) => return Err(error.into()),
            Err(_) => return Err(SwitchError::NotOfThisStore),
        };
        let same = live.root.lend(|root| root.ct_eq(&opened));
        if same.map_err(VaultError::from)? {
            Ok(Consented { kek, config })
        } else {
            Err(SwitchError::NotOfThisStore)
        }
    }

    /// Asks whether a new root key could be made now, before anybody gives a share for it.
    ///
    /// # Errors
    /// [`SwitchError::Busy`], [`SwitchError::Keys`], or the disk of control.db.
    pub fn may_rotate_root(&self) -> Result<(), SwitchError> {
        rewrap(self.live()).map(drop)
    }

    /// Gives the store to the new quorum of `switch`, and with it a new root key where its plan says so. `ops` are stored in
    /// the same transaction.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing is changed but after [`SwitchError::InDoubt`].
    pub fn rekey(&mut self, switch: &Switch, ops: Vec<Op>, now: u64) -> Result<(), SwitchError> {
        if switch.replaces() != Some(self.config().digest()) {
            return Err(SwitchError::OtherConfig);
        }
        self.switch(
            switch.config(),
            switch.kek(),
            switch.rotates_root(),
            ops,
            now,
        )
    }

    /// Replaces the root key and wraps every vault's keys anew. `ops` are stored in the same transaction.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing is changed but after [`SwitchError::InDoubt`].
    pub fn rotate_root(
        &mut self,
        consented: &Consented,
        ops: Vec<Op>,
        now: u64,
    ) -> Result<(), SwitchError> {
        let config = self.config().clone();
        if consented.config != config.digest() {
            return Err(SwitchError::OtherConfig);
        }
        self.switch(&config, &consented.kek, true, ops, now)
    }

    fn switch(
        &mut self,
        config: &SealConfig,
        kek: &Key,
        new_root: bool,
        ops: Vec<Op>,
        now: u64,
    ) -> Result<(), SwitchError> {
        check_batch(&ops)?;
        // Made before, since nothing may fail once the store was switched.
        let next = Sealed::fresh(config)?;
        let handle = self.handle();
        let live = handle.live();
        // Nobody wraps keys under the root key meanwhile.
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rewrapped = if new_root { Some(rewrap(live)?) } else { None };
        let bytes = config.to_bytes();
        let wrap = match &rewrapped {
            Some(new) => wrap_root(kek, &bytes, &new.root)?,
            None => live
                .root
                .lend(|root| wrap_root(kek, &bytes, root))
                .map_err(VaultError::from)??,
        };
        let mut puts = vec![
            RawPut(Table::Config, CONFIG.to_vec(), bytes),
            RawPut(Table::Config, ROOT.to_vec(), wrap.clone()),
        ];
        let mut from = None;
        if let Some(new) = &mut rewrapped {
            puts.append(&mut new.puts);
            from = Some(std::mem::take(&mut new.from));
        }
        match commit(live, puts, from, ops, now, &wrap) {
            Ok(()) => {}
            Err(SwitchError::InDoubt) => {
                // What is wrapped from here on might be wrapped under a key that is none any more.
                live.root.revoke();
                self.base.stale = true;
                return Err(SwitchError::InDoubt);
            }
            Err(error) => return Err(error),
        }
        if let Some(new) = rewrapped {
            // Sealed meanwhile, it is not wanted any more.
            let _ = live.root.replace(new.root);
        }
        self.base.config = config.clone();
        self.state.next = next;
        Ok(())
    }
}

/// Writes it all in one transaction, in which `from` must still be the rows of wrapped keys. Whether a failed one was made
/// shows by the root key's wrap.
pub(crate) fn commit(
    live: &Live,
    puts: Vec<RawPut>,
    from: Option<Vec<Row>>,
    ops: Vec<Op>,
    now: u64,
    wrap: &[u8],
) -> Result<(), SwitchError> {
    let written = live.system.run(move |disk| {
        disk.ready()?;
        if let Some(from) = from
            && key_rows(disk)? != from
        {
            let text = "the keys of a vault were changed meanwhile: try again";
            return Err(VaultError::Storage(text.into()));
        }
        let extra = Extra {
            puts,
            erases: true,
            ..Extra::default()
        };
        disk.commit_system(&ops, now, extra).map(drop)
    });
    match written {
        Err(VaultError::OutcomeUnknown) => {}
        written => return Ok(written?),
    }
    let found = live.system.run(|disk| clear_row(disk, ROOT));
    match found {
        Ok(found) if found == wrap => Ok(()),
        Ok(_) => {
            let text = "the disk failed, and the change was not made: try again";
            Err(VaultError::Storage(text.into()).into())
        }
        Err(_) => Err(SwitchError::InDoubt),
    }
}

/// A fresh root key, and everything that hangs under the one of now wrapped under it.
pub(crate) fn rewrap(live: &Live) -> Result<Rewrapped, SwitchError> {
    if live.making.load(Ordering::Relaxed) > 0 {
        return Err(SwitchError::Busy);
    }
    let (from, audit) = live.system.run(|disk| {
        disk.ready()?;
        Ok((key_rows(disk)?, clear_row(disk, AUDIT)?))
    })?;
    let (store, root) = (live.id, Key::random()?);
    // What a vault's own quorum wraps does not hang under the store's root key.
    let named: BTreeMap<VaultId, bool> = (live.named().values())
        .map(|vault| (vault.id(), vault.0.own.is_some()))
        .collect();
    let lent = live.root.lend(|old| {
        let audit = unwrap_audit(old, store, &audit)?;
        let mut puts = vec![RawPut(
            Table::Config,
            AUDIT.to_vec(),
            wrap_audit(&root, store, &audit)?,
        )];
        for (key, row) in &from {
            let id = VaultId::from_bytes(key).unwrap_or(VaultId::SYSTEM);
            let is_owned = match named.get(&id) {
                Some(is_owned) => *is_owned,
                // Its former file, or its new one on the way.
                None => OwnRow::parse(row).is_ok() || Move::parse(id, row).is_some(),
            };
            if row == RETIRED || is_owned {
                continue;
            }
            let keys = match VaultKeys::unwrap(old, store, id, row) {
                Ok(keys) => keys,
                Err(KeysError::Wrap(RecordError::Memory(error))) => return Err(error.into()),
                Err(_) => return Err(SwitchError::Keys(id)),
            };
            puts.push(RawPut(
                Table::Vault,
                key.clone(),
                keys.wrap(&root, store, id)?,
            ));
        }
        Ok(puts)
    });
    let puts = lent.map_err(VaultError::from)??;
    Ok(Rewrapped { root, from, puts })
}

/// Every row of wrapped keys, and the mark of each retired vault.
pub(crate) fn key_rows(disk: &mut Disk) -> Result<Vec<Row>, VaultError> {
    let mut tx = disk.rows.begin(Access::Read)?;
    let mut rows = Vec::new();
    for_each_slice(&mut *tx, Table::Vault, SLICE, |mut slice| {
        rows.append(&mut slice);
        Ok::<(), VaultError>(())
    })?;
    Ok(rows)
}

fn clear_row(disk: &mut Disk, name: &[u8]) -> Result<Vec<u8>, VaultError> {
    disk.ready()?;
    let mut tx = disk.rows.begin(Access::Read)?;
    Ok(tx.get(Table::Config, name)?.unwrap_or_default())
}
