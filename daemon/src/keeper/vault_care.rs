//! What is done to a vault as a whole while the store serves.
//!
//! Promises that one verification, repair or restore of a vault runs at a time, on a thread of its own and not the keeper's,
//! that `status` says how far it is, and that its end is in the audit log before it is told: what was read, or that the
//! vault is quarantined from now on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mcpist_core::api::{ApiError, ReadingStatus, VaultVerified};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use mcpist_sealer::{OpenVault, VaultError, Vaults, Verified};

use super::backup::blocking;
use super::records::RecordsError;
use super::vault_repair::Repairs;
use super::{Keeper, KeeperHandle, Open, audit_error, vault_error};

/// What an open store knows of the care that its vaults are in.
#[derive(Default)]
pub(super) struct Care {
    /// Alive while a vault is read whole.
    running: Weak<Reading>,
    pub(super) repairs: Repairs,
}

/// A vault that is being read whole.
pub(crate) struct Reading {
    vault: VaultName,
    records: u64,
    read: AtomicU64,
}

impl Reading {
    /// So many rows were read.
    pub(super) fn told(&self, read: u64) {
        self.read.store(read, Ordering::Relaxed);
    }

    /// How far it is, if it is of `vault`.
    pub(crate) fn of(&self, vault: &VaultName) -> Option<ReadingStatus> {
        (self.vault == *vault).then(|| ReadingStatus {
            read: self.read.load(Ordering::Relaxed),
            records: self.records,
        })
    }
}

/// Held while a vault is read whole.
pub(super) type Running = Arc<Reading>;

impl Care {
    pub(super) fn read(system: &OpenVault) -> Result<Self, RecordsError> {
        Ok(Self {
            running: Weak::new(),
            repairs: Repairs::read(system)?,
        })
    }

    /// The vault that is being read whole.
    pub(super) fn reading(&self) -> Weak<Reading> {
        Weak::clone(&self.running)
    }
}

impl Open {
    /// Begins to read `vault` whole; refused while one is read.
    pub(super) fn begin_reading(&mut self, vault: &VaultName) -> Result<Running, ApiError> {
        if let Some(reading) = self.care.running.upgrade() {
            let busy = format!(
                "vault {} is being verified, repaired or restored: wait for its end",
                reading.vault
            );
            return Err(ApiError::new(ErrorCode::Busy, &busy).next("mcpist vault list"));
        }
        let named = self.vaults().vaults().into_iter();
        let status = named
            .into_iter()
            .find(|status| status.name == vault.as_str());
        let running = Arc::new(Reading {
            vault: vault.clone(),
            records: status.map_or(0, |status| status.records),
            read: AtomicU64::new(0),
        });
        self.care.running = Arc::downgrade(&running);
        Ok(running)
    }
}

impl KeeperHandle {
    /// Reads a vault whole and compares it with what is in memory.
    pub(crate) async fn verify_vault(
        &self,
        uid: u32,
        vault: VaultName,
    ) -> Result<VaultVerified, ApiError> {
        let name = vault.clone();
        let begin = move |keeper: &mut Keeper| keeper.begin_verify(&name);
        let (vaults, running) = self.ask(begin).await?;
        let name = vault.clone();
        let reading = move || {
            let found = vaults.verify(name.as_str(), |read| running.told(read));
            Ok((found, running))
        };
        let (found, running) = blocking(reading).await?;
        self.ask(move |keeper| {
            // Gone before the state is published.
            drop(running);
            keeper.verified(uid, vault, found)
        })
        .await
    }
}

impl Keeper {
    fn begin_verify(&mut self, vault: &VaultName) -> Result<(Vaults, Running), ApiError> {
        self.open()?;
        self.recordable()?;
        let open = self.open()?;
        Ok((open.vaults().clone(), open.begin_reading(vault)?))
    }

    fn verified(
        &mut self,
        uid: u32,
        vault: VaultName,
        found: Result<Verified, VaultError>,
    ) -> Result<VaultVerified, ApiError> {
        self.open()?;
        // What it found out about a vault's health has its line here.
        self.record_health();
        let Verified { records, lines } = found.map_err(|e| vault_error(&e))?;
        let event = Event::VaultVerified {
            vault: &vault,
            records,
            uid,
        };
        let appended = self.house.audit.append(&event);
        appended.map_err(|e| audit_error(&e))?;
        Ok(VaultVerified {
            vault,
            records,
            lines,
        })
    }
}
