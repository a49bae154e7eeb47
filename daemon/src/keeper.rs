//! The keeper: one thread that owns the barrier, the policy and every ceremony.
//!
//! Owns the state that all admin acts change. Others hand it a closure and wait for what it returns, so that every
//! act sees the state whole and none runs beside another. Promises that `status` never waits for it: after each act
//! it publishes a [`View`]. Work on this thread may block on a disk, up to the vaults' deadline; the call path never
//! comes here.

pub(crate) mod backup;
mod ceremony;
mod codes;
mod counter;
pub(crate) mod credentials;
mod handle;
mod health;
pub(crate) mod import;
pub(crate) mod init;
mod lost;
mod outbox;
pub(crate) mod policy;
mod proposals;
pub(crate) mod records;
pub(crate) mod restore;
mod rotate;
mod running;
mod sharings;
pub(crate) mod store_change;
#[cfg(test)]
mod tests;
mod unseal;
mod vault_care;
mod vault_quorum;
mod vault_repair;
mod vault_restore;
mod witness;

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mcpist_core::api::{self, ApiError, StoreState};
use mcpist_core::audit::Anchor;
use mcpist_core::change::Officers;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use mcpist_sealer::{Barrier, Health, OpenVault, Sealed, Unsealed, VaultError, VaultId, Vaults};

use crate::clock::{steady_seconds, unix_seconds};
use crate::house::House;
pub(crate) use crate::keeper::codes::{
    audit_error, export_error, io_code, live_error, records_error, unready, vault_error,
};
use crate::keeper::handle::Job;
pub(crate) use crate::keeper::handle::{KeeperHandle, View};
pub(crate) use crate::keeper::outbox::outbox_line;
use crate::keeper::policy::Policy;
use crate::keeper::proposals::Proposals;
use crate::live::Live;

/// How often ceremonies are looked at for expiry.
const TICK: Duration = Duration::from_secs(5);
/// The name of the store's own vault.
pub(crate) const SYSTEM: &str = "system";
/// What seal waits for the audit log.
const AUDIT_PATIENCE: Duration = Duration::from_secs(2);
/// What of it the calls in flight may take to record their outcomes.
const CALLS_PATIENCE: Duration = Duration::from_secs(1);

/// Where the store is.
enum Phase {
    /// There is none.
    Blank,
    /// Closed.
    Sealed(Box<Barrier<Sealed>>),
    /// Open.
    Unsealed(Box<Open>),
    /// Between two phases, or after the store could not be taken.
    Nowhere,
}

impl Phase {
    fn sealed(barrier: Barrier<Sealed>) -> Phase {
        Phase::Sealed(Box::new(barrier))
    }
}

/// An open store.
pub(crate) struct Open {
    barrier: Barrier<Unsealed>,
    pub(crate) policy: Policy,
    pub(crate) officers: Officers,
    pub(crate) root: mcpist_bundle::Root,
    proposals: Proposals,
    copied: outbox::Copied,
    /// A commit ended in doubt, or its snapshot was not made: memory may be behind the store. Clients are cut off, and
    /// no change is taken, until the policy was read anew.
    pub(crate) stale: bool,
    /// What signs witness receipts.
    store_key: mcpist_secret::Secret,
    /// The newest of them.
    given: Option<witness::Given>,
    /// The last snapshot, served or not: the next one redacts what it did.
    last: Option<Arc<Live>>,
    backups: backup::Backups,
    health: health::Recorded,
    /// Vaults of which there are files, and of which control.db knows nothing.
    unknown: BTreeSet<VaultId>,
    care: vault_care::Care,
    ceremony: Option<running::Running>,
    /// Alive while a vault's records are being copied.
    rotating: Weak<rotate::Rotating>,
}

impl Open {
    pub(crate) fn system(&self) -> OpenVault {
        self.barrier.system()
    }

    pub(crate) fn vaults(&self) -> &Vaults {
        &self.barrier
    }

    fn vault(&self, name: &VaultName) -> Result<OpenVault, VaultError> {
        if name.as_str() == SYSTEM {
            Ok(self.barrier.system())
        } else {
            self.barrier.vault(name.as_str())
        }
    }

    pub(crate) fn store(&self) -> [u8; 16] {
        *self.barrier.config().store().as_bytes()
    }

    pub(crate) fn is_dev(&self) -> bool {
        self.barrier.config().is_dev()
    }

    /// The keys were taken back by somebody who could not wait for the keeper.
    fn is_revoked(&self) -> bool {
        self.barrier.system().health() == Health::Sealed
    }
}

/// The owner of the state.
pub(crate) struct Keeper {
    pub(crate) house: Arc<House>,
    phase: Phase,
    /// The one-time token, while no store was opened, and who has shown it.
    init: Option<init::InitGate>,
    witness: witness::Witness,
    /// Waits for the quorum of a backup.
    restoring: Option<Box<restore::Restoring>>,
    /// Through which backups come in for restores.
    door: restore::Door,
    view: Arc<ArcSwap<View>>,
}

/// Why the keeper could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The store cannot be taken.
    #[error(transparent)]
    Store(#[from] mcpist_sealer::OpenError),
    /// A dev store under the service, or the other way round.
    #[error("{0}")]
    Kind(&'static str),
    /// A folder or the init token cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No randomness or secret memory.
    #[error(transparent)]
    Memory(#[from] mcpist_secret::MemoryError),
}

/// Takes the store, if there is one, and starts the thread.
pub(crate) fn start(house: Arc<House>) -> Result<KeeperHandle, StartError> {
    let (jobs, inbox) = channel();
    let view = Arc::new(ArcSwap::from_pointee(View::blank()));
    let config = &house.config;
    mcpist_sealer::tidy(&config.store()).map_err(mcpist_sealer::OpenError::from)?;
    let control = config.store().join("control.db");
    let is_there = control.try_exists().map_err(|source| StartError::Io {
        path: control,
        source,
    })?;
    let (phase, to_init) = if is_there {
        let barrier = Barrier::open(&config.store())?;
        match (barrier.config().is_dev(), config.dev) {
            (true, false) => {
                return Err(StartError::Kind(
                    "this is a development store; the service refuses it. Start mcpistd with --dev or init another store",
                ));
            }
            (false, true) => {
                return Err(StartError::Kind(
                    "this store is not a development store; start mcpistd without --dev",
                ));
            }
            _ => {}
        }
        let unopened = init::Unopened::of(config).names(barrier.config().store());
        (Phase::sealed(barrier), unopened)
    } else {
        (Phase::Blank, !lost::held(config)?)
    };
    let init = if to_init {
        let token = config.init_token();
        log::info!(
            "no store was opened yet: 'mcpist init' needs {}",
            token.display()
        );
        Some(init::InitGate::open(&token)?)
    } else {
        None
    };
    let handle = KeeperHandle::new(Arc::clone(&house), jobs, Arc::clone(&view));
    let mut keeper = Keeper {
        house,
        phase,
        init,
        witness: witness::Witness::default(),
        restoring: None,
        door: restore::Door::default(),
        view,
    };
    keeper.publish();
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || {
            // A panic here leaves a state that nobody can seal: the process ends, and its keys with it.
            let run = std::panic::AssertUnwindSafe(|| keeper.run(&inbox));
            if std::panic::catch_unwind(run).is_err() {
                std::process::abort();
            }
        })
        .map_err(|source| StartError::Io {
            path: "keeper thread".into(),
            source,
        })?;
    Ok(handle)
}

impl Keeper {
    fn run(&mut self, inbox: &Receiver<Job>) {
        let mut next = Instant::now() + TICK;
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if next <= Instant::now() {
                self.tick();
                self.publish();
                next = Instant::now() + TICK;
            }
        }
    }

    fn tick(&mut self) {
        self.tick_at(steady_seconds());
    }

    fn tick_at(&mut self, now: u64) {
        if let Phase::Unsealed(open) = &mut self.phase {
            open.proposals.expire(now);
        }
        self.expire_ceremony();
        self.expire_restore(now);
        self.record_health();
        if let Err(e) = self.end_drains(now) {
            log::error!("{}", e.message);
        }
        if let Phase::Sealed(barrier) = &mut self.phase {
            match barrier.expire(now) {
                Ok(true) => log::warn!("the unseal ceremony expired; its shares were wiped"),
                Ok(false) => {}
                Err(e) => log::error!("no new plan for unsealing: {e}"),
            }
        }
        if matches!(&self.phase, Phase::Unsealed(open) if open.stale) {
            match self.read_anew() {
                Ok(()) => log::info!("the policy was read anew; clients are served again"),
                Err(e) => log::error!("the policy cannot be read anew: {}", e.message),
            }
        }
        // A vault that was away when the snapshot was made may be back.
        let away = |live: &Live| live.broker.has_passing_faults();
        if self.house.live().as_deref().is_some_and(away)
            && let Err(e) = self.refresh()
        {
            log::warn!("the snapshot could not be made anew: {}", e.message);
        }
    }

    /// Lets others see the state.
    fn publish(&self) {
        let mut view = View::blank();
        view.old_store = mcpist_sealer::is_kept_aside(&self.house.config.store()).unwrap_or(false);
        view.restore = (self.restoring.as_deref()).map(restore::Restoring::status);
        match &self.phase {
            // A store that was here offers no init.
            Phase::Blank if self.init.is_none() => view.alarms.push(lost::alarm()),
            Phase::Blank | Phase::Nowhere => {}
            Phase::Sealed(barrier) => {
                view.state = StoreState::Sealed;
                view.dev = barrier.config().is_dev();
                view.store = Some(barrier.config().store().to_string());
                view.shares = Some(unseal::shares(barrier.config()));
                view.unseal = Some(unseal::progress(barrier.config(), &barrier.progress()));
                view.alarms.extend(self.witness.alarm());
            }
            // Sealed without the keeper, which has not come to it yet.
            Phase::Unsealed(open) if open.is_revoked() => {
                view.state = StoreState::Sealed;
                view.dev = open.is_dev();
                view.store = Some(open.barrier.config().store().to_string());
                view.shares = Some(unseal::shares(open.barrier.config()));
            }
            Phase::Unsealed(open) => {
                view.state = StoreState::Unsealed;
                view.dev = open.is_dev();
                view.store = Some(open.barrier.config().store().to_string());
                view.shares = Some(unseal::shares(open.barrier.config()));
                view.site = Some(open.root.site().clone());
                view.time_floor = Some(open.policy.time_floor);
                view.alarms = open.policy.alarms();
                view.alarms.extend(open.copied.alarms());
                view.alarms.extend(open.unknown_alarm());
                view.alarms.extend(open.backups.alarm());
                view.alarms.extend(open.care.repairs.alarms());
                view.backup = open.backups.last().cloned();
                view.modules = open.policy.active_modules();
                view.witness = open.given;
                view.keys = Some(open.vaults().clone());
                view.ceremony = open.ceremony_status();
                view.rotating = Weak::clone(&open.rotating);
                view.reading = open.care.reading();
            }
        }
        self.view.store(Arc::new(view));
    }

    /// The open store, or why there is none.
    pub(crate) fn open(&mut self) -> Result<&mut Open, ApiError> {
        match &mut self.phase {
            Phase::Unsealed(open) if !open.is_revoked() => Ok(open),
            Phase::Blank => Err(ApiError::of(ErrorCode::NotInitialised)),
            Phase::Sealed(_) | Phase::Unsealed(_) | Phase::Nowhere => {
                Err(ApiError::of(ErrorCode::Sealed))
            }
        }
    }

    /// Closes the store: no new call, audit written, keys wiped. Of one that is closed already the shares that were given
    /// go. `uid` is absent where the daemon stops by itself.
    pub(crate) fn seal(
        &mut self,
        uid: Option<u32>,
        reason: &'static str,
    ) -> Result<api::Sealed, ApiError> {
        if !matches!(self.phase, Phase::Unsealed(_)) {
            return match self.drop_shares(uid) {
                Ok(dropped @ 1..) => sealed(true, None, dropped),
                _ => Err(ApiError::of(self.view.load().why_closed())),
            };
        }
        let Phase::Unsealed(mut open) = std::mem::replace(&mut self.phase, Phase::Nowhere) else {
            return Err(ApiError::of(ErrorCode::Sealed));
        };
        self.house.close();
        lock(&self.house.tickets).clear();
        // Who took the keys back without the keeper has told how the log was closed; the keeper may have been opening it
        // just then.
        let (closed, head) = close_audit(&self.house, uid, reason);
        let closed = closed || open.is_revoked();
        if closed
            && let Some(tpm) = &self.house.config.tpm
            && let Err(e) = counter::raise(open.vaults(), tpm)
        {
            log::error!("the TPM counter was not raised: {}", e.message);
        }
        // Where the disk hangs, the next unseal settles.
        let receipt = head.filter(|_| closed).and_then(|head| {
            let made = open.receipt(witness::log_point(&head));
            made.inspect_err(|e| log::warn!("no witness receipt: {}", e.message))
                .ok()
        });
        let dropped = open.consented();
        self.phase = Phase::sealed(open.barrier.seal());
        log::info!("sealed: {reason}");
        sealed(closed, receipt.map(|receipt| receipt.to_text()), dropped)
    }

    /// Refuses an act that the audit log has no room for. Its line is in the act's own commit and copied to the log
    /// afterwards, so this is asked before.
    pub(crate) fn recordable(&self) -> Result<(), ApiError> {
        self.house.audit.has_room().map_err(|e| audit_error(&e))
    }

    /// The open store, for an act that stands on the policy in memory.
    pub(crate) fn open_for_change(&mut self) -> Result<&mut Open, ApiError> {
        self.open()?;
        self.recordable()?;
        let open = self.open()?;
        if open.stale {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "the outcome of the last change is not known yet; the policy is being read anew, try again shortly",
            ));
        }
        Ok(open)
    }

    /// After a commit, whatever became of it: the snapshot follows, or clients are cut off until it can. A commit of which
    /// nobody knows whether it was done cuts clients off as well.
    pub(crate) fn follow<T>(&mut self, committed: Result<T, VaultError>) -> Result<T, ApiError> {
        if committed.as_ref().is_err_and(is_in_doubt)
            || (committed.is_ok() && self.refresh().is_err())
        {
            self.cut_off();
        }
        committed.map_err(|e| vault_error(&e))
    }

    /// Serves nobody until the policy was read anew.
    fn cut_off(&mut self) {
        self.house.switch(None);
        // Taken back or sealed meanwhile, the store serves nobody anyway.
        if let Ok(open) = self.open() {
            open.stale = true;
        }
    }

    /// Reads the policy from the store again and makes a snapshot of it. Proposals stay: their approvals are judged by the
    /// state that they name.
    fn read_anew(&mut self) -> Result<(), ApiError> {
        let registries = self.house.config.registries();
        let open = self.open()?;
        let system = open.system();
        let mut policy = Policy::read(&system).map_err(|e| records_error(&e))?;
        (open.backups.read_anew(&system)).map_err(|e| records_error(&e))?;
        open.care.repairs = vault_repair::Repairs::read(&system).map_err(|e| records_error(&e))?;
        import::read_manifests(&mut policy, &registries);
        let drains = std::mem::take(&mut open.policy.draining).into_iter();
        policy.draining = drains.filter(|(id, _)| !policy.is_active(id)).collect();
        open.policy = policy;
        open.stale = false;
        self.refresh().inspect_err(|_| self.cut_off())
    }

    /// Makes a snapshot of the policy of now and switches to it. Of a policy that may be behind the store it makes none.
    pub(crate) fn refresh(&mut self) -> Result<(), ApiError> {
        let house = Arc::clone(&self.house);
        let open = self.open()?;
        if open.stale {
            return Ok(());
        }
        let previous = open.last.as_deref();
        let live = Live::build(&open.policy, open.vaults(), &house.config, previous);
        let live = Arc::new(live.map_err(|e| live_error(&e))?);
        open.last = Some(Arc::clone(&live));
        house.switch(Some(live));
        Ok(())
    }
}

/// Writes the log's last lines on a thread of its own: a disk that hangs under the log's mutex must not keep the
/// keys in memory. Whether all was written, and where the log stood at its last line.
fn close_audit(
    house: &Arc<House>,
    uid: Option<u32>,
    reason: &'static str,
) -> (bool, Option<Anchor>) {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let house = Arc::clone(house);
    let started = std::thread::Builder::new()
        .name("audit-close".into())
        .spawn(move || {
            let deadline = Instant::now() + AUDIT_PATIENCE;
            // They were told by the house; what is left of each is its outcome line.
            let late = house.drain(CALLS_PATIENCE);
            if late > 0 {
                log::error!(
                    "audit_lost: {late} calls did not end; their outcomes are not recorded"
                );
            }
            let recorded = house.audit.append(&Event::Sealed { uid, reason }).is_ok();
            let head = house.audit.state().head;
            let left = deadline.saturating_duration_since(Instant::now());
            let closed = house.audit.close(left);
            // Nobody listens any more where the patience is over.
            let _ = tell.send((late == 0 && recorded && closed, head));
        });
    let patience = AUDIT_PATIENCE + Duration::from_millis(500);
    let told = started.ok().and_then(|_| told.recv_timeout(patience).ok());
    told.unwrap_or((false, None))
}

/// What the caller of a seal is told.
fn sealed(closed: bool, receipt: Option<String>, dropped: u8) -> Result<api::Sealed, ApiError> {
    if closed {
        return Ok(api::Sealed { receipt, dropped });
    }
    log::error!("audit_lost: the log could not be closed in order");
    Err(ApiError::new(
        ErrorCode::AuditLost,
        "the store is sealed, but its last audit lines could not be written or not be signed",
    ))
}

/// Whether memory may be behind the store after a commit that failed so: it may have been done all the same, or another
/// one was that memory knows nothing of. What the store refused is no doubt.
pub(crate) fn is_in_doubt(error: &VaultError) -> bool {
    matches!(
        error,
        VaultError::OutcomeUnknown | VaultError::Conflict { .. }
    )
}

/// A lock whose holder panicked is still a lock.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Seconds since 1970, for records.
pub(crate) fn today() -> u64 {
    unix_seconds()
}
