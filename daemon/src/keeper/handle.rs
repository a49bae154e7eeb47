//! How others reach the keeper, and what they may do without it.
//!
//! Owns the queue into the keeper's thread and the [`View`] that it publishes. Promises that reading the view waits for
//! nothing, and that sealing comes through also where the keeper hangs: after a bounded wait the keys are taken back
//! without it, and what it still does opens nothing. While shares are verified there are no keys to take: who seals
//! waits for the keeper, and a store that opens meanwhile serves nobody and is sealed. Does not own the barrier.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use mcpist_core::api::{self, Alarm, ApiError, StoreState};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{ModuleName, RegistryId, SiteId};
use mcpist_sealer::Vaults;
use tokio::sync::oneshot;

use super::import::Imports;
use super::rotate::Rotating;
use super::vault_care::Reading;
use super::{AUDIT_PATIENCE, Keeper, close_audit};
use crate::house::House;

/// What seal waits for the keeper. Longer than a vault's deadline and the audit log's together, so that a keeper that is
/// merely busy seals in order.
const KEEPER_PATIENCE: Duration = Duration::from_secs(10);

/// What others may know of the keeper's state without asking it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) state: StoreState,
    pub(crate) dev: bool,
    pub(crate) store: Option<String>,
    /// Whose shares open it.
    pub(crate) shares: Option<api::Shares>,
    pub(crate) site: Option<SiteId>,
    /// In seconds since 1970; none while the store is closed.
    pub(crate) time_floor: Option<u64>,
    pub(crate) unseal: Option<api::Progress>,
    /// The ceremony of an open store.
    pub(crate) ceremony: Option<api::CeremonyStatus>,
    /// The restore that waits for shares.
    pub(crate) restore: Option<api::RestoreStatus>,
    /// What the keeper knows and the snapshot does not say.
    pub(crate) alarms: Vec<Alarm>,
    /// The last backup that was verified.
    pub(crate) backup: Option<api::LastBackup>,
    /// The store that a restore replaced is kept aside.
    pub(crate) old_store: bool,
    /// The modules of the active registries.
    pub(crate) modules: Vec<(ModuleName, RegistryId)>,
    /// The newest witness receipt that was given out.
    pub(crate) witness: Option<super::witness::Given>,
    /// Shares are being verified, which may open the store.
    pub(crate) opening: bool,
    /// The keys that are in memory, also those of an unseal that is not finished yet.
    pub(crate) keys: Option<Vaults>,
    /// The vault whose records are being copied.
    pub(crate) rotating: Weak<Rotating>,
    /// The vault that is being read whole.
    pub(crate) reading: Weak<Reading>,
}

impl View {
    pub(super) fn blank() -> Self {
        Self {
            state: StoreState::Uninitialised,
            dev: false,
            store: None,
            shares: None,
            site: None,
            time_floor: None,
            unseal: None,
            ceremony: None,
            restore: None,
            alarms: Vec::new(),
            backup: None,
            old_store: false,
            modules: Vec::new(),
            witness: None,
            opening: false,
            keys: None,
            rotating: Weak::new(),
            reading: Weak::new(),
        }
    }

    /// Why there is no open store, where there is none.
    pub(crate) fn why_closed(&self) -> ErrorCode {
        match self.state {
            StoreState::Uninitialised => ErrorCode::NotInitialised,
            StoreState::Sealed | StoreState::Unsealed => ErrorCode::Sealed,
        }
    }

    /// The vaults, while the store is open.
    pub(crate) fn vaults(&self) -> Option<&Vaults> {
        self.keys
            .as_ref()
            .filter(|_| self.state == StoreState::Unsealed)
    }
}

/// One act on the keeper's thread.
pub(super) type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

/// How others reach the keeper.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    pub(super) house: Arc<House>,
    pub(super) imports: Arc<Imports>,
    jobs: Sender<Job>,
    view: Arc<ArcSwap<View>>,
}

impl KeeperHandle {
    pub(super) fn new(house: Arc<House>, jobs: Sender<Job>, view: Arc<ArcSwap<View>>) -> Self {
        Self {
            house,
            imports: Arc::new(Imports::new()),
            jobs,
            view,
        }
    }

    /// Runs `act` on the keeper's thread and gives back what it returned.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Keeper) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |keeper| {
            let done = act(keeper);
            // Before the answer, so that who has it finds it in the status as well.
            keeper.publish();
            let _ = reply.send(done);
        });
        self.jobs
            .send(job)
            .map_err(|_| ApiError::of(ErrorCode::Unavailable))?;
        answer
            .await
            .map_err(|_| ApiError::of(ErrorCode::Internal))?
    }

    /// The state after the last act.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Closes the store, with the keeper or without it. Clients are cut off at once. `uid` is absent where the daemon
    /// stops by itself.
    pub(crate) async fn seal(
        &self,
        uid: Option<u32>,
        reason: &'static str,
    ) -> Result<api::Sealed, ApiError> {
        self.seal_within(KEEPER_PATIENCE, uid, reason).await
    }

    pub(super) async fn seal_within(
        &self,
        patience: Duration,
        uid: Option<u32>,
        reason: &'static str,
    ) -> Result<api::Sealed, ApiError> {
        let view = self.view();
        let is_given = view.unseal.as_ref().is_some_and(|p| p.given > 0);
        if view.keys.is_none() && !view.opening && !is_given {
            return Err(ApiError::of(view.why_closed()));
        }
        self.house.close();
        // Given up on, this act stays in the queue: the keeper closes the store in order once it goes on, also one that
        // it is opening now.
        let sealing = self.ask(move |keeper| keeper.seal(uid, reason));
        match tokio::time::timeout(patience, sealing).await {
            Ok(sealed) => sealed,
            // The keys may have come while this waited.
            Err(_) => match view.keys.as_ref().or(self.view().keys.as_ref()) {
                Some(keys) => self.seal_without(keys, uid, reason).await,
                None => Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "shares are being verified and the disk does not answer; should they open the store, it is sealed at once and serves nobody",
                )),
            },
        }
    }

    /// The keeper hangs: the log gets its patience, then the keys go.
    async fn seal_without(
        &self,
        keys: &Vaults,
        uid: Option<u32>,
        reason: &'static str,
    ) -> Result<api::Sealed, ApiError> {
        log::error!("the keeper does not answer; the keys are taken back without it");
        let house = Arc::clone(&self.house);
        let closing = tokio::task::spawn_blocking(move || close_audit(&house, uid, reason));
        // Once more from the outside: the pool of blocking threads may be busy itself.
        let closed = tokio::time::timeout(AUDIT_PATIENCE * 2, closing).await;
        keys.revoke();
        let mut view = View::clone(&self.view());
        view.state = StoreState::Sealed;
        (view.site, view.time_floor, view.keys) = (None, None, None);
        view.opening = false;
        (view.alarms, view.modules, view.backup) = (Vec::new(), Vec::new(), None);
        view.ceremony = None;
        self.view.store(Arc::new(view));
        log::info!("sealed without the keeper: {reason}");
        let (closed, _) = closed.ok().and_then(Result::ok).unwrap_or((false, None));
        super::sealed(closed, None, 0)
    }
}
