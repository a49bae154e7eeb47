//! New keys for a vault: whole, lazy, or of the store's own.
//!
//! Owns the rotation that is under way. Promises that one runs at a time, the long part of it on a thread of its own; that
//! the log says on its disk that one begins before a record is copied, and how it ended, in the commit that ends it where
//! the vault has new keys since; that the snapshot has the credentials under the new keys before the old ones are wiped, so
//! that no call fails for it; that a backup is due from that commit on; and that it goes on when who asked for it goes
//! away. A seal ends it, and its line stands for that.
//!
//! Does not: copy or wrap (the sealer does).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcpist_core::api::{ApiError, RotationStatus, VaultRotated};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Event, RotationStep};
use mcpist_core::ids::VaultName;
use mcpist_sealer::{Op, Rotation, VaultError, VaultId};

use super::backup::{CHANGED, blocking, due_op};
use super::{
    Keeper, KeeperHandle, Open, SYSTEM, is_in_doubt, outbox_line, records_error, vault_error,
};

/// A vault whose records are being copied.
pub(crate) struct Rotating {
    vault: VaultName,
    records: u64,
    copied: AtomicU64,
}

impl Rotating {
    /// How far it is, if it is of `vault`.
    pub(crate) fn of(&self, vault: &VaultName) -> Option<RotationStatus> {
        (self.vault == *vault).then(|| RotationStatus {
            copied: self.copied.load(Ordering::Relaxed),
            records: self.records,
        })
    }
}

/// Who does a rotation, of what and how: what each of its lines says.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) uid: u32,
    pub(super) vault: VaultName,
    pub(super) lazy: bool,
}

impl Order {
    fn event<'a>(&'a self, step: RotationStep<'a>) -> Event<'a> {
        Event::VaultRotation {
            vault: &self.vault,
            lazy: self.lazy,
            step,
            uid: self.uid,
        }
    }

    /// What goes into the commit that gives the vault its keys.
    fn ops(&self, id: Option<&str>, records: u64) -> Result<[Op; 2], ApiError> {
        let line = outbox_line(&self.event(RotationStep::Completed { id, records }));
        let due = due_op(CHANGED).map_err(|e| records_error(&e))?;
        Ok([due, Op::Outbox(line)])
    }
}

impl KeeperHandle {
    /// Gives a vault new keys.
    pub(crate) async fn rotate_vault(
        &self,
        uid: u32,
        vault: VaultName,
        lazy: bool,
    ) -> Result<VaultRotated, ApiError> {
        let is_system = vault.as_str() == SYSTEM;
        let order = Order { uid, vault, lazy };
        match (is_system, lazy) {
            (true, true) => Err(ApiError::new(
                ErrorCode::RequestInvalid,
                "the vault system is sealed under new keys as a whole: leave --lazy out",
            )
            .next("mcpist vault rotate system")),
            (true, false) => self.ask(move |keeper| keeper.reseal_system(&order)).await,
            (false, true) => self.ask(move |keeper| keeper.begin_epoch(&order)).await,
            (false, false) => {
                let keeper = self.clone();
                let whole = tokio::spawn(async move { keeper.rotate_whole(order).await });
                whole.await.map_err(|_| ApiError::of(ErrorCode::Internal))?
            }
        }
    }

    async fn rotate_whole(&self, order: Order) -> Result<VaultRotated, ApiError> {
        let begun = order.clone();
        let begin = move |keeper: &mut Keeper| keeper.begin_rotation(&begun);
        let (mut rotation, rotating) = self.ask(begin).await?;
        let copying = move || {
            let told = |copied| rotating.copied.store(copied, Ordering::Relaxed);
            let copied = rotation.copy(told);
            Ok((copied.map(|id| (rotation, id)), rotating))
        };
        let (copied, rotating) = blocking(copying).await?;
        self.ask(move |keeper| {
            // Gone before the state is published.
            let _rotating = rotating;
            keeper.end_rotation(&order, copied)
        })
        .await
    }
}

impl Open {
    /// Refuses a change of a vault whose records are being copied.
    pub(super) fn changeable(&self, vault: &VaultName) -> Result<(), ApiError> {
        match self.rotating.upgrade() {
            Some(rotating) if rotating.vault == *vault => Err(busy(&rotating)),
            _ => Ok(()),
        }
    }
}

impl Keeper {
    fn reseal_system(&mut self, order: &Order) -> Result<VaultRotated, ApiError> {
        let open = self.open_for_change()?;
        let ops = order.ops(None, open.system().status().records)?;
        let resealed = open.vaults().reseal_system(ops);
        self.rotated(order, resealed)
    }

    fn begin_epoch(&mut self, order: &Order) -> Result<VaultRotated, ApiError> {
        let open = self.open_for_change()?;
        open.changeable(&order.vault)?;
        let ops = order.ops(None, 0)?;
        let begun = open.vaults().begin_epoch(order.vault.as_str(), ops);
        self.rotated(order, begun)
    }

    /// Freezes the vault, and has the log say so.
    pub(super) fn begin_rotation(
        &mut self,
        order: &Order,
    ) -> Result<(Rotation, Arc<Rotating>), ApiError> {
        let open = self.open_for_change()?;
        if let Some(rotating) = open.rotating.upgrade() {
            return Err(busy(&rotating));
        }
        let rotation = open.vaults().rotate(order.vault.as_str());
        let rotation = rotation.map_err(|e| vault_error(&e))?;
        let records = rotation.records();
        self.record(&order.event(RotationStep::Begun { records }))?;
        let rotating = Arc::new(Rotating {
            vault: order.vault.clone(),
            records,
            copied: AtomicU64::new(0),
        });
        self.open()?.rotating = Arc::downgrade(&rotating);
        log::info!("vault {}: {records} records get new keys", order.vault);
        Ok((rotation, rotating))
    }

    /// Makes the copy the vault.
    pub(super) fn end_rotation(
        &mut self,
        order: &Order,
        copied: Result<(Rotation, VaultId), VaultError>,
    ) -> Result<VaultRotated, ApiError> {
        let ready = copied.map_err(|e| vault_error(&e));
        let ready = ready.and_then(|(rotation, id)| {
            self.open_for_change()?;
            let ops = order.ops(Some(&id.to_string()), rotation.records())?;
            Ok((rotation, ops))
        });
        let (rotation, ops) = ready.inspect_err(|e| self.failed(order, e.code))?;
        let replaced = rotation.commit(ops);
        if let Err(e) = &replaced
            && !is_in_doubt(e)
        {
            self.failed(order, vault_error(e).code);
        }
        self.rotated(order, replaced)
    }

    /// After the commit, whatever became of it. What it gave is held until the snapshot has the credentials under the new
    /// keys: with it the old ones go.
    fn rotated<T>(
        &mut self,
        order: &Order,
        committed: Result<T, VaultError>,
    ) -> Result<VaultRotated, ApiError> {
        if committed.is_ok() {
            self.open()?.backups.is_due(CHANGED);
        }
        let replaced = self.follow(committed)?;
        drop(replaced);
        log::info!("vault {} has new keys", order.vault);
        let vault = self.open()?.vault(&order.vault);
        let status = vault.map_err(|e| vault_error(&e))?.status();
        self.drain_system()?;
        Ok(VaultRotated {
            vault: order.vault.clone(),
            records: status.records.saturating_sub(status.old_records),
            old_records: status.old_records,
        })
    }

    /// The vault has the keys that it had. Where the store was sealed, that line stands for this one.
    fn failed(&self, order: &Order, code: ErrorCode) {
        log::warn!("vault {} did not get new keys: {code}", order.vault);
        let reason = code.as_str();
        self.note(&order.event(RotationStep::Failed { reason }));
    }
}

fn busy(rotating: &Rotating) -> ApiError {
    let Rotating { vault, records, .. } = rotating;
    let copied = rotating.copied.load(Ordering::Relaxed);
    let text = format!(
        "vault {vault} gets new keys, {copied} of {records} records have them: nothing in it is changed until that is done"
    );
    ApiError::new(ErrorCode::Busy, &text)
        .next("the same again once mcpist vault list shows no rotation")
}
