//! How a vault's job reaches control.db.
//!
//! Owns [`Registrar`]: the inbox and the lane of control.db, seen from a vault. Promises that
//! [`Registrar::intend`] returns `Ok` only once the intent is durable, that jobs of many vaults that intend
//! at the same time share one transaction, and that the end of a write waits for nothing and is written
//! within the options' `settle`.
//!
//! control.db has a thread of its own: jobs of the vaults wait for it on the pool's threads, so it must
//! never wait for one of those.

use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::ledger::{End, Inbox, Point};
use crate::pool::{Lane, LaneError};

/// control.db, as the other vaults see it.
pub(crate) struct Registrar {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) lane: Arc<Lane<Disk>>,
    /// How long the end of a write may wait for a transaction to ride with.
    pub(crate) settle: Duration,
}

impl Registrar {
    /// Makes the announcement of a write durable.
    pub(crate) fn intend(&self, vault: VaultId, point: Point) -> Result<(), VaultError> {
        let slot = self.inbox.intend(vault, point);
        let mine = Arc::clone(&slot);
        // Where an earlier job took the intent along, what came into the inbox since then can wait.
        let flushed = self.lane.run(move |disk| {
            if mine.get().is_some() {
                Ok(())
            } else {
                disk.flush()
            }
        });
        let refused = match (slot.get(), flushed) {
            (Some(Ok(())), _) => return Ok(()),
            (Some(Err(error)), _) => error.clone(),
            (None, Ok(Err(error))) => error,
            (None, Ok(Ok(())) | Err(LaneError::NotStarted)) => VaultError::Unavailable,
            (None, Err(error)) => error.into(),
        };
        Err(match refused {
            // Nothing was changed in the vault itself, whatever became of the announcement.
            VaultError::OutcomeUnknown => VaultError::Unavailable,
            refused => refused,
        })
    }

    /// Says how the write ended.
    pub(crate) fn over(&self, vault: VaultId, point: Point, end: End) {
        self.inbox.over(vault, point, end);
        self.lane.wake_in(self.settle);
    }
}
