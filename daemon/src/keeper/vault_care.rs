//! What is done to a vault as a whole while the store serves.
//!
//! Promises that one verification or repair runs at a time, on a thread of its own and not the keeper's, and that its end is in the
//! audit log before it is told: what was read, or that the vault is quarantined from now on.

use std::sync::{Arc, Weak};

use mcpist_core::api::{ApiError, VaultVerified};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use mcpist_sealer::{OpenVault, VaultError, Vaults, Verified};

use super::backup::blocking;
use super::records::RecordsError;
use super::vault_repair::Repairs;
use super::{Keeper, KeeperHandle, audit_error, vault_error};

/// What an open store knows of the care that its vaults are in.
#[derive(Default)]
pub(super) struct Care {
    /// Alive while a vault is read whole.
    running: Weak<()>,
    pub(super) repairs: Repairs,
}

/// Held while a vault is read whole.
pub(super) type Running = Arc<()>;

impl Care {
    pub(super) fn read(system: &OpenVault) -> Result<Self, RecordsError> {
        Ok(Self {
            running: Weak::new(),
            repairs: Repairs::read(system)?,
        })
    }

    /// Refused while another vault is read.
    pub(super) fn begin(&mut self) -> Result<Running, ApiError> {
        if self.running.strong_count() > 0 {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "a vault is being verified or repaired: wait for its end",
            ));
        }
        let running = Arc::new(());
        self.running = Arc::downgrade(&running);
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
        let (vaults, running) = self.ask(Keeper::begin_verify).await?;
        let name = vault.clone();
        let found = blocking(move || Ok(vaults.verify(name.as_str(), |_| {}))).await?;
        drop(running);
        self.ask(move |keeper| keeper.verified(uid, vault, found))
            .await
    }
}

impl Keeper {
    fn begin_verify(&mut self) -> Result<(Vaults, Running), ApiError> {
        self.open()?;
        self.recordable()?;
        let open = self.open()?;
        let running = open.care.begin()?;
        Ok((open.vaults().clone(), running))
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
