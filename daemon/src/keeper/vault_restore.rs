//! One vault out of a backup, while the others serve.
//!
//! Promises what [`super::vault_repair`] promises of a repair: nothing is changed before an operator gave the digest of what
//! was found; backup and vault are read on a thread of their own; the commit that gives the records the vault's name
//! carries the record of the former file, where there was one, and the audit line; and the snapshot follows before the
//! answer, so that bindings get the credentials by the names that they have. The file is one of the caller's opening, and
//! nothing of it is believed that the root key did not open; it is copied to this host before the vault takes no change, so
//! that a medium which answers no more stops nobody. A vault about which a ceremony waits for shares is left to it.

use std::fs::File;

use mcpist_core::api::{ApiError, VaultInBackup, VaultRestored};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, VaultName};
use mcpist_sealer::{BackupFault, Op, StoredBackup, VaultError, VaultRestore};

use super::backup::{blocking, fault};
use super::running::Running;
use super::vault_repair::{Ground, Kept, lost, op};
use super::{Keeper, KeeperHandle, outbox_line};
use crate::clock::unix_seconds;

impl KeeperHandle {
    /// Looks at what a backup holds of a vault, and what it does not.
    pub(crate) async fn look_into_backup(
        &self,
        file: File,
        vault: VaultName,
        replace: bool,
    ) -> Result<VaultInBackup, ApiError> {
        let name = vault.clone();
        let ground = self.ask(move |keeper| keeper.restore_ground(&name)).await?;
        blocking(move || {
            let stored = StoredBackup::read(file).map_err(|e| fault(&e))?;
            let vaults = &ground.vaults;
            let found = vaults.look_into_backup(&stored, vault.as_str(), replace);
            found
                .map(|f| shown(&vault, &f))
                .map_err(|e| refused(&vault, &e))
        })
        .await
    }

    /// Makes a vault what a backup has of it, if that is what `plan` was given for.
    pub(crate) async fn restore_vault(
        &self,
        uid: u32,
        file: File,
        vault: VaultName,
        plan: Digest,
        replace: bool,
    ) -> Result<VaultRestored, ApiError> {
        let keeper = self.clone();
        // It goes on when who asked for it goes away.
        let whole = tokio::spawn(async move {
            let turn = keeper.ask(|keeper| keeper.door.enter()).await?;
            let (stored, _, turn) = keeper.bring_through(turn, file).await?;
            let name = vault.clone();
            let ground = keeper.ask(move |k| k.restore_ground(&name)).await?;
            let name = vault.clone();
            let (built, running) = blocking(move || {
                let _turn = turn;
                let (vaults, digest) = (&ground.vaults, *plan.as_bytes());
                let built =
                    vaults.restore_vault(&stored, name.as_str(), digest, replace, ground.logged);
                Ok((built.map_err(|e| refused(&name, &e))?, ground.running))
            })
            .await?;
            let end = move |keeper: &mut Keeper| {
                // Gone before the state is published.
                drop(running);
                keeper.restored(uid, vault, built)
            };
            keeper.ask(end).await
        });
        whole.await.map_err(|_| ApiError::of(ErrorCode::Internal))?
    }
}

impl Keeper {
    /// What a restore is done with, unless a ceremony has the vault.
    fn restore_ground(&mut self, vault: &VaultName) -> Result<Ground, ApiError> {
        self.has_no_ceremony(vault)?;
        self.repair_ground(vault)
    }

    /// Its holders would open what they have not consented to.
    fn has_no_ceremony(&mut self, vault: &VaultName) -> Result<(), ApiError> {
        let running = self.open()?.ceremony.as_ref();
        if running.and_then(Running::vault) != Some(vault) {
            return Ok(());
        }
        let text =
            format!("a ceremony of vault {vault} waits for shares: cancel it first, or let it end");
        Err(ApiError::new(ErrorCode::Conflict, &text).next("mcpist ceremony cancel"))
    }

    /// Makes what was built the vault.
    fn restored(
        &mut self,
        uid: u32,
        vault: VaultName,
        built: VaultRestore,
    ) -> Result<VaultRestored, ApiError> {
        self.open_for_change()?;
        self.has_no_ceremony(&vault)?;
        let found = shown(&vault, built.found());
        let file = built.kept().map(|id| id.to_string());
        let kept = Kept {
            vault: vault.clone(),
            at: unix_seconds(),
            records: found.records,
            lost: found.sure.then_some(found.other + found.missing),
            backup: Some(found.backup),
        };
        let event = Event::VaultRestored {
            vault: &vault,
            backup: &found.backup,
            file: file.as_deref(),
            records: found.records,
            other: found.sure.then_some(found.other),
            missing: found.sure.then_some(found.missing),
            uid,
        };
        let mut ops = vec![Op::Outbox(outbox_line(&event))];
        if let Some(file) = &file {
            ops.push(op(file, Some(&kept))?);
        }
        let committed = built.commit(ops);
        if let (Ok(_), Some(file)) = (&committed, &file) {
            let repairs = &mut self.open()?.care.repairs;
            repairs.0.insert(file.clone(), kept);
        }
        let replaced = self.follow(committed)?;
        drop(replaced);
        let backup = found.backup.short();
        log::warn!("vault {vault} was restored out of backup {backup}");
        self.record_health();
        self.drain_system()?;
        Ok(VaultRestored { file, found })
    }
}

fn refused(vault: &VaultName, error: &BackupFault) -> ApiError {
    let (said, again) = (
        fault(error),
        format!("mcpist vault restore {vault} --from FILE"),
    );
    match error {
        BackupFault::Store(VaultError::Serves(_)) => said.next(&format!("{again} --replace")),
        BackupFault::Store(VaultError::OwnOpen(_)) => {
            said.next(&format!("mcpist vault seal {vault}"))
        }
        BackupFault::Store(VaultError::Moved(_)) => said.next(&again),
        BackupFault::Lacks { .. } => said.next("mcpist backup verify FILE"),
        _ => said,
    }
}

fn shown(vault: &VaultName, found: &mcpist_sealer::VaultInBackup) -> VaultInBackup {
    VaultInBackup {
        vault: vault.clone(),
        plan: Digest::from_bytes(found.digest),
        backup: Digest::from_bytes(found.backup),
        created: found.created,
        records: found.records,
        here: found.here,
        quarantined: found.is_quarantined,
        damaged: found.damaged,
        sure: found.is_sure,
        since: found.since,
        other: found.other,
        missing: found.missing,
        lost: lost(&found.lost),
        lines_lost: found.lines_lost,
        own_quorum: found.is_own,
    }
}
