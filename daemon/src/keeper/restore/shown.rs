//! What is shown of a restore that waits, and of the store that one replaced.
//!
//! Promises to show nothing that takes a key: which lives there are is what a folder and receipts say, which nobody has
//! judged yet. Does not decide by it.

use mcpist_core::api::{ApiError, Base64, LifeRecord, OldStore, RestoreStatus};
use mcpist_core::error::ErrorCode;
use mcpist_quorum::{CeremonyRecord, StoreId};
use mcpist_sealer::{VaultError, aside, is_kept_aside};

use super::taking::LIFE_RECORD;
use super::{Aim, Restoring};
use crate::keeper::records::{self, RecordsError};
use crate::keeper::unseal::progress;
use crate::keeper::{Keeper, Phase, records_error, vault_error};
use crate::life;

impl Restoring {
    /// The store that the backup is of.
    pub(in crate::keeper) fn store(&self) -> StoreId {
        self.stored.header().config().store()
    }

    /// How far it is.
    pub(in crate::keeper) fn status(&self) -> RestoreStatus {
        RestoreStatus {
            drill: self.aim == Aim::Drill,
            progress: progress(self.stored.header().config(), &self.consent.progress()),
        }
    }
}

impl Keeper {
    /// The lives later than the backup's that are over once `open` is restored: that of the store here, and those of
    /// receipts that wait.
    pub(super) fn overrides(&self, open: &Restoring) -> Vec<u64> {
        if open.aim == Aim::Drill {
            return Vec::new();
        }
        let waiting = self.witness.waiting();
        let shown = waiting.iter().filter(|r| r.store() == open.store());
        let here = matches!(self.phase, Phase::Sealed(_))
            .then(|| life::number(&self.house.config.store()));
        let mut lives: Vec<u64> = shown
            .map(|receipt| receipt.at().incarnation.counter)
            .chain(here)
            .filter(|life| *life > open.stored.header().incarnation().counter)
            .collect();
        lives.sort_unstable();
        lives.dedup();
        lives
    }

    /// The ceremony record of the restore that began the open store's life, as it was given out with the last share.
    pub(crate) fn life_record(&mut self) -> Result<LifeRecord, ApiError> {
        let system = self.open()?.barrier.system();
        let bytes = match records::open(&system, LIFE_RECORD) {
            Ok(bytes) => bytes,
            Err(RecordsError::Vault(VaultError::NotFound(_))) => {
                return Err(ApiError::new(
                    ErrorCode::NotFound,
                    "no restore began this life of the store: init's ceremony.bin is its record",
                ));
            }
            Err(e) => return Err(records_error(&e)),
        };
        let record = CeremonyRecord::from_bytes(bytes.expose())
            .map_err(|e| ApiError::new(ErrorCode::VaultQuarantined, &e.to_string()))?;
        Ok(LifeRecord {
            record: Base64(record.to_bytes()),
            record_text: record.to_text(),
        })
    }

    /// The store that is kept aside, beside the one that is open.
    pub(crate) fn old_store(&mut self) -> Result<OldStore, ApiError> {
        let folder = self.house.config.store();
        let is_kept = is_kept_aside(&folder)
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        let open = self.open()?;
        let at = open.vaults().point().map_err(|e| vault_error(&e))?;
        Ok(OldStore {
            kept: is_kept.then(|| life::number(&aside(&folder))),
            life: at.incarnation.counter,
            generation: at.generation,
        })
    }
}
