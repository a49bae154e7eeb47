//! Files of vaults of which control.db knows nothing: of one that was not made, or that was rebuilt elsewhere, when a
//! crash came before the file was removed. No key for them is left, so that what they hold is noise; somebody may also
//! have put one back, which opens nothing.
//!
//! Owns [`Vaults::remove_orphans`]. Promises to leave everything where it is while a vault is quarantined: control.db may be
//! the one that was put back then, and a file that it does not know may be the only copy of what a newer one knew.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::disk::Disk;
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::vaults::Vaults;

impl Vaults {
    /// Removes the files that no vault has, and says how many vaults they were of. Call it once the store is known to be
    /// the newest. Blocks on the store's disk.
    ///
    /// # Errors
    /// The store is sealed, or its disk.
    pub fn remove_orphans(&self) -> Result<u64, VaultError> {
        let live = self.live();
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        // Where an earlier transaction is in doubt, control.db is read first.
        live.system.run(Disk::ready)?;
        let is_quarantined = |health| matches!(health, Health::Quarantined(_));
        let quarantined = self.vaults().into_iter().any(|v| is_quarantined(v.health));
        if quarantined || live.making.load(Ordering::Relaxed) > 0 {
            return Ok(0);
        }
        let known: BTreeSet<VaultId> = live.named().values().map(|vault| vault.id()).collect();
        let mut removed = 0;
        for id in live.store.vault_files()?.difference(&known) {
            live.store.vault(*id).remove()?;
            log::info!("the file of no vault was removed: {id}");
            removed += 1;
        }
        Ok(removed)
    }
}
