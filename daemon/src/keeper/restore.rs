//! Restore: the ceremony that makes a store out of a backup, in place of a sealed one or on a host that has none.
//!
//! The backup comes in over the secret socket and is copied aside ([`bringing`]); its plan names the backup and the seal config that it
//! carries, and the quorum of that config gives its shares under it. Promises that nothing is touched before the quorum is
//! there and the whole backup was opened; that a host where no store was opened needs the init token besides; that the
//! store which was here stays aside; and that the audit log of the new life begins in a folder and under a key of its own,
//! with a line that names the backup and where the log before it stood. The store is sealed afterwards: the same quorum
//! opens it, as any other day.
//!
//! A drill ([`drill`]) goes the same way under a plan of its own, up to the point where a store would be put in its place.
//!
//! Does not end the host that the backup came from: a witness receipt of the new life does, at its next unseal.

mod bringing;
mod drill;
mod shown;
mod taking;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use mcpist_core::api::{
    ApiError, Base64, Done, OldRemoved, OpenRestore, RestoreDone, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Ceremony, Event, Step};
use mcpist_core::ids::Digest;
use mcpist_quorum::{Consent, Plan, PlanDigest, Share, StoreId, Submission, combine, derive_kek};
use mcpist_sealer::{
    Barrier, OpenError, RestoreError, StoreError, StoredBackup, is_kept_aside, remove_aside,
    restore,
};
use mcpist_secret::{Key, Secret};

pub(super) use self::bringing::Door;
use self::bringing::{Turn, bring};
use self::taking::Taking;
use super::backup::{blocking, fault};
use super::codes::refusal_code;
use super::unseal::progress;
use super::{Keeper, KeeperHandle, Phase, io_code};
use crate::clock::steady_seconds;

/// What a backup was brought in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To be the store.
    Restore,
    /// To see that it could be.
    Drill,
}

/// A restore, or the drill of one, that waits for its quorum.
pub(super) struct Restoring {
    aim: Aim,
    stored: StoredBackup,
    consent: Consent,
    /// How long the backup took to be copied and compared with its digest, there and here.
    reading: Duration,
}

impl KeeperHandle {
    /// Copies the backup aside and plans its restore, or the drill of it.
    pub(crate) async fn begin_restore(
        &self,
        uid: u32,
        source: File,
        aim: Aim,
    ) -> Result<OpenRestore, ApiError> {
        let entering = self.ask(move |keeper| {
            keeper.may_restore(uid, aim)?;
            keeper.door.enter()
        });
        let (stored, reading, turn) = self.bring_through(entering.await?, source).await?;
        self.ask(move |keeper| {
            let _turn = turn;
            keeper.plan_restore(uid, aim, stored, reading)
        })
        .await
    }

    /// Copies a backup aside, and gives the turn back with it.
    pub(super) async fn bring_through(
        &self,
        turn: Turn,
        source: File,
    ) -> Result<(StoredBackup, Duration, Turn), ApiError> {
        let house = Arc::clone(&self.house);
        blocking(move || {
            let (folder, rotation) = (house.config.quarantine(), &house.config.rotation);
            let (stored, reading) = bring(&turn, &source, &folder, rotation)?;
            Ok((stored, reading, turn))
        })
        .await
    }
}

impl Keeper {
    /// One at a time. A host where no store was opened takes a store with its init token; a drill makes none.
    fn may_restore(&mut self, uid: u32, aim: Aim) -> Result<(), ApiError> {
        self.has_place(aim)?;
        self.expire_restore(steady_seconds());
        if self.restoring.is_some() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "a restore waits for its shares already",
            )
            .next("give them: mcpist restore --give; end it: mcpist restore --cancel"));
        }
        if aim == Aim::Restore && self.init.is_some() {
            self.init_allowed(uid)?;
        }
        Ok(())
    }

    /// Restores happen to a sealed store or where there is none. A drill leaves alone what is kept aside.
    fn has_place(&self, aim: Aim) -> Result<(), ApiError> {
        match self.phase {
            Phase::Unsealed(_) => {
                return Err(ApiError::of(ErrorCode::AlreadyUnsealed)
                    .next("mcpist seal, then mcpist restore FILE"));
            }
            Phase::Nowhere => return Err(ApiError::of(ErrorCode::Internal)),
            Phase::Blank | Phase::Sealed(_) => {}
        }
        if aim == Aim::Drill {
            return Ok(());
        }
        match is_kept_aside(&self.house.config.store()) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ApiError::new(
                ErrorCode::Conflict,
                &RestoreError::KeptAside.to_string(),
            )
            .next("mcpist unseal, see that the store serves, then mcpist restore --remove-old")),
            Err(e) => Err(ApiError::new(ErrorCode::Unavailable, &e.to_string())),
        }
    }

    /// A host that holds a store which was opened takes no other's backup.
    fn is_ours(&self, store: StoreId) -> Result<(), ApiError> {
        match &self.phase {
            Phase::Sealed(barrier) if self.init.is_none() && barrier.config().store() != store => {
                Err(ApiError::new(
                    ErrorCode::BackupRefused,
                    &format!(
                        "the backup is of store {store}, and this host holds store {}",
                        barrier.config().store()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn plan_restore(
        &mut self,
        uid: u32,
        aim: Aim,
        stored: StoredBackup,
        reading: Duration,
    ) -> Result<OpenRestore, ApiError> {
        self.may_restore(uid, aim)?;
        let config = stored.header().config();
        if config.is_dev() != self.house.config.dev {
            return Err(ApiError::new(
                ErrorCode::BackupRefused,
                "a development store's backup is restored by mcpistd --dev, and only such a one",
            ));
        }
        self.is_ours(config.store())?;
        let failed =
            |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::Unavailable, &e.to_string());
        let plan = match aim {
            Aim::Restore => Plan::restore(config, stored.name()),
            Aim::Drill => Plan::drill(config, stored.name()),
        };
        let plan = plan.map_err(|e| failed(&e))?;
        let consent = Consent::begin(plan, config, steady_seconds()).map_err(|e| failed(&e))?;
        log::warn!(
            "{aim:?} planned by uid {uid}: backup {}",
            named(&stored).short()
        );
        self.restore_step(aim, &plan_digest(&consent), Step::Planned, Some(uid));
        self.restoring = Some(Box::new(Restoring {
            aim,
            stored,
            consent,
            reading,
        }));
        self.open_restore()
    }

    /// The restore that waits for shares.
    pub(crate) fn open_restore(&mut self) -> Result<OpenRestore, ApiError> {
        let is_there = matches!(self.phase, Phase::Sealed(_));
        self.restoring()?;
        let open = self.restoring.as_deref();
        let overrides = open.map(|open| self.overrides(open)).unwrap_or_default();
        let open = self.restoring()?;
        let header = open.stored.header();
        Ok(OpenRestore {
            overrides,
            plan: Base64(open.consent.plan().to_bytes()),
            digest: plan_digest(&open.consent),
            backup: named(&open.stored),
            created: header.created(),
            store: header.config().store().to_string(),
            generation: header.config().generation().get(),
            replaces: is_there && open.aim == Aim::Restore,
            drill: open.aim == Aim::Drill,
            progress: progress(header.config(), &open.consent.progress()),
        })
    }

    /// Ends it and wipes its shares.
    pub(crate) fn cancel_restore(&mut self, uid: u32) -> Result<Done, ApiError> {
        self.restoring()?;
        self.end_restore(Step::Cancelled, Some(uid));
        Ok(Done {})
    }

    /// Ends one whose time, or that of its first share, is over.
    pub(super) fn expire_restore(&mut self, now: u64) {
        if (self.restoring.as_mut()).is_some_and(|open| open.consent.expire(now)) {
            self.end_restore(Step::Expired, None);
        }
    }

    /// Ends the restore that waits, if there is one: its shares are wiped, and a line says so.
    pub(super) fn end_restore(&mut self, step: Step, uid: Option<u32>) {
        if let Some(open) = self.restoring.take() {
            let plan = plan_digest(&open.consent);
            log::warn!("{:?} ended, plan {}: {step:?}", open.aim, plan.short());
            self.restore_step(open.aim, &plan, step, uid);
        }
    }

    /// While a restore waits the log is closed, and notes this for its opening. A drill has no line in the log of a store
    /// that it does not touch.
    fn restore_step(&self, aim: Aim, plan: &Digest, step: Step, uid: Option<u32>) {
        if aim == Aim::Restore {
            let _ = self.house.audit.append(&Event::Ceremony {
                ceremony: Ceremony::Restore,
                plan,
                step,
                uid,
            });
        }
    }

    fn restoring(&mut self) -> Result<&mut Restoring, ApiError> {
        self.expire_restore(steady_seconds());
        self.restoring.as_deref_mut().ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, "no restore waits for shares")
                .next("mcpist restore FILE")
        })
    }

    /// Whether `plan` is that of the restore that waits for shares.
    pub(super) fn restores(&self, plan: &Digest) -> bool {
        let open = self.restoring.as_deref();
        open.is_some_and(|open| plan_digest(&open.consent) == *plan)
    }

    /// Takes a share of the backup's quorum; the last one makes the store, if it still has its place.
    pub(super) fn give_restore(
        &mut self,
        uid: u32,
        plan: &Digest,
        text: &Secret,
    ) -> Result<ShareOutcome, ApiError> {
        let open = self.restoring()?;
        let (aim, store) = (open.aim, open.stored.header().config().store());
        self.has_place(aim)?;
        self.is_ours(store)?;
        let open = self.restoring()?;
        let share = match Share::parse(text.expose()) {
            Ok(share) => share,
            Err(e) => return Ok(self.restore_refused(uid, plan, "not_a_share", &e)),
        };
        let digest = PlanDigest::from_bytes(*plan.as_bytes());
        match open.consent.submit(share, digest, steady_seconds()) {
            Submission::Pending(given) => {
                let given = progress(open.stored.header().config(), &given);
                let step = Step::ShareAccepted {
                    given: given.given,
                    needed: given.needed,
                };
                self.restore_step(aim, plan, step, Some(uid));
                Ok(ShareOutcome::Pending(given))
            }
            Submission::Refused(refusal) => {
                Ok(self.restore_refused(uid, plan, refusal_code(&refusal), &refusal))
            }
            Submission::Complete(shares) => {
                let kek = combine(&shares)
                    .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))
                    .and_then(|secret| {
                        derive_kek(&secret, shares.set(), shares.generation())
                            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))
                    });
                let Some(open) = self.restoring.take() else {
                    return Err(ApiError::of(ErrorCode::Internal));
                };
                let done = kek.and_then(|kek| match aim {
                    Aim::Restore => (self.make_restored(uid, &open, &kek))
                        .map(|done| ShareOutcome::Restored(Box::new(done))),
                    Aim::Drill => (self.make_drilled(uid, &open, &kek))
                        .map(|done| ShareOutcome::Drilled(Box::new(done))),
                });
                done.inspect_err(|e| {
                    let reason = e.code.as_str();
                    self.restore_step(aim, plan, Step::Failed { reason }, Some(uid));
                })
            }
        }
    }

    fn restore_refused(
        &mut self,
        uid: u32,
        plan: &Digest,
        reason: &'static str,
        why: &dyn std::fmt::Display,
    ) -> ShareOutcome {
        if let Some(open) = &self.restoring {
            let act = match open.aim {
                Aim::Restore => "restore",
                Aim::Drill => "drill of a restore",
            };
            log::warn!("{act}: share of uid {uid} refused: {reason}");
            self.restore_step(open.aim, plan, Step::ShareRefused { reason }, Some(uid));
        }
        let progress = match self.restoring() {
            Ok(open) => progress(open.stored.header().config(), &open.consent.progress()),
            Err(_) => mcpist_core::api::Progress {
                given: 0,
                needed: 0,
                holders: Vec::new(),
                expires_s: None,
            },
        };
        ShareOutcome::Refused {
            reason: reason.into(),
            message: why.to_string(),
            progress,
        }
    }

    fn make_restored(
        &mut self,
        uid: u32,
        open: &Restoring,
        kek: &Key,
    ) -> Result<RestoreDone, ApiError> {
        let house = Arc::clone(&self.house);
        let folder = house.config.store();
        let receipts = self.witness.waiting();
        let mut taking = Taking::new(&house.config, uid, open, receipts);
        // Its lock is on the folder, which is to move.
        let before = std::mem::replace(&mut self.phase, Phase::Nowhere);
        let made = restore(&open.stored, kek, &folder, &mut taking);
        drop(before);
        let (phase, not_taken) = match Barrier::open(&folder) {
            Ok(barrier) => (Phase::sealed(barrier), None),
            Err(OpenError::Store(StoreError::Missing(_))) => (Phase::Blank, None),
            Err(e) => (
                Phase::Nowhere,
                Some(format!(
                    "the store could not be taken, restart mcpistd: {e}"
                )),
            ),
        };
        self.phase = phase;
        if let Some(text) = &not_taken {
            log::error!("{text}");
        }
        let restored = made.map_err(|e| not_restored(&e))?;
        log::warn!(
            "restored by uid {uid}: life {}",
            restored.incarnation.counter
        );
        // From here on the answer is that it is done, and what is not.
        let unsettled = restored.unsettled.clone().or(not_taken);
        // There is a store now that was in use: no init any more. An unseal tries again.
        let init_ended = self.end_init().map_err(|e| e.message);
        taking.done(&restored, unsettled.or(init_ended.err()))
    }

    /// Removes the store that a restore replaced, once the one in its place was opened: until then it may be the better one.
    /// Its line is on the disk before.
    pub(crate) fn remove_old(&mut self, uid: u32) -> Result<OldRemoved, ApiError> {
        let folder = self.house.config.store();
        let failed = |e: StoreError| ApiError::new(ErrorCode::Unavailable, &e.to_string());
        if !is_kept_aside(&folder).map_err(failed)? {
            return Ok(OldRemoved { removed: false });
        }
        self.open()
            .map_err(|e| e.next("mcpist unseal, then mcpist restore --remove-old"))?;
        let line = Event::OldStoreRemoved { uid };
        self.record(&line)?;
        let removed = remove_aside(&folder).map_err(failed)?;
        log::warn!("the store that was kept aside is removed by uid {uid}");
        Ok(OldRemoved { removed })
    }
}

fn named(stored: &StoredBackup) -> Digest {
    Digest::from_bytes(stored.name())
}

fn plan_digest(consent: &Consent) -> Digest {
    Digest::from_bytes(*consent.plan().digest().as_bytes())
}

fn not_restored(error: &RestoreError) -> ApiError {
    let text = error.to_string();
    match error {
        RestoreError::Backup(e) => fault(e),
        RestoreError::RootKey(_) => ApiError::new(ErrorCode::BackupRefused, &text),
        RestoreError::KeptAside => ApiError::new(ErrorCode::Conflict, &text),
        RestoreError::File { source, .. } => {
            ApiError::new(io_code(source, ErrorCode::Unavailable), &text)
        }
        RestoreError::Store(_) | RestoreError::Life(_) | RestoreError::Memory(_) => {
            ApiError::new(ErrorCode::Unavailable, &text)
        }
    }
}
