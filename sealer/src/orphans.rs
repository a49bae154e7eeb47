//! Files in the vaults' folder that belong to no vault of control.db.
//!
//! *Retired* are those of a vault that was rebuilt elsewhere: control.db says so, in the commit that gave its name away
//! and erased its keys, so that what they hold is noise to every later control.db. Their files go at the next unseal where
//! a crash came before.
//!
//! *Unknown* are all others: of a vault that was not made, when a crash came in the middle of it, or of one that was made
//! under a newer control.db than the one that is there. Nobody can tell the two apart here, and a file of the second kind
//! may be the only copy of what that control.db knew.
//!
//! Owns [`Vaults::remove_retired`] and the mark in the row where a vault's wrapped keys were. Promises that no file goes
//! but those of ids with the mark, and none while a vault is quarantined. Does not judge the mark's origin: who can write
//! one in control.db can remove the file as well.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::commit::{Extra, RawPut};
use crate::disk::Disk;
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::rekey::key_rows;
use crate::rows::Table;
use crate::vault::now;
use crate::vaults::Vaults;

/// What stands in the place of the wrapped keys of a retired vault.
pub(crate) const RETIRED: &[u8] = &[0];

/// The mark of the vault `id`, for the commit that retires it.
pub(crate) fn mark(id: VaultId) -> RawPut {
    RawPut(Table::Vault, id.as_bytes().to_vec(), RETIRED.to_vec())
}

/// What was found in the vaults' folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// How many retired vaults are gone for good now.
    pub removed: u64,
    /// The ids of which control.db knows nothing. Their files were left where they are.
    pub unknown: BTreeSet<VaultId>,
}

impl Vaults {
    /// Removes the files of retired vaults, and says which others belong to none. Blocks on the store's disk.
    ///
    /// # Errors
    /// The store is sealed, or its disk.
    pub fn remove_retired(&self) -> Result<Leftovers, VaultError> {
        let live = self.live();
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let _stuck = live.finish_moves()?;
        // Where an earlier transaction is in doubt, control.db is read first.
        let rows = live.system.run(|disk| {
            disk.ready()?;
            key_rows(disk)
        })?;
        let mut found = Leftovers::default();
        // One that is on its way has a file already.
        if live.making.load(Ordering::Relaxed) == 0 {
            let known: BTreeSet<VaultId> =
                (rows.iter().filter_map(|(key, _)| VaultId::from_bytes(key))).collect();
            found.unknown = &live.store.vault_files()? - &known;
        }
        let is_quarantined = |health| matches!(health, Health::Quarantined(_));
        if self.vaults().into_iter().any(|v| is_quarantined(v.health)) {
            return Ok(found);
        }
        let marked = rows.iter().filter(|(_, row)| row == RETIRED);
        for id in marked.filter_map(|(key, _)| VaultId::from_bytes(key)) {
            // A mark that is not ours.
            if live.named().values().any(|vault| vault.id() == id) {
                continue;
            }
            live.store.vault(id).remove()?;
            live.store.sync_vaults()?;
            let extra = Extra {
                gone: Some(id),
                ..Extra::default()
            };
            live.system
                .run(move |disk: &mut Disk| disk.commit_system(&[], now(), extra))?;
            log::info!("the file of a vault that was rebuilt is gone: {id}");
            found.removed += 1;
        }
        Ok(found)
    }
}
