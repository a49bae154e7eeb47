//! The ceremonies of an open store: rekey and rotate root.
//!
//! Owns the one that is open. Its phases are the quorum crate's types ([`Consent`], [`Delivery`], [`Switch`]); this file asks
//! the store, writes down what happened and answers. Promises that the generation of new shares is stored before the first of
//! them leaves, so that no two sharings ever have one number; that each step is an audit line, that of the last one in the
//! commit which switches the store; and that whatever ends a ceremony before (cancel, its time, a seal, whose line
//! stands for both, or a restart) leaves the store to the shares that opened it. A step that fails at the disk can be given once more where no share was spent
//! on it. Does not: judge shares (the quorum does), or wrap keys (the sealer does).

use mcpist_core::api::{
    ApiError, Base64, CeremonyAct, CeremonyDone, CeremonyPhase, CeremonyRequest, CeremonyStatus,
    DeliveredShare, Done, NewHolder, NewShares, OpenCeremony, Progress, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{self, Event, Step};
use mcpist_core::ids::Digest;
use mcpist_quorum::{
    CeremonyRecord, Consent, Delivery, Generation, Plan, PlanDigest, PlannedHolder, Proof,
    Recorded, SealConfig, Share, ShareRefusal, Submission, Switch, Threshold, ValidShares,
    check_recipient,
};
use mcpist_sealer::{Op, SwitchError};

use super::backup::{CHANGED, due_op};
use super::codes::refusal_code;
use super::init::{digest, signer};
use super::sharings::Sharings;
use super::unseal::progress;
use super::{Keeper, Open, audit_error, outbox_line, records, records_error, today, vault_error};
use crate::audit::{CHECKPOINT_RECORD, first_key};
use crate::clock::steady_seconds;

/// A ceremony that waits for shares.
pub(super) enum Running {
    /// For those that open the store.
    Consent(Box<Consent>),
    /// For the new ones.
    Proof(Box<Delivery>),
}

impl Running {
    fn plan(&self) -> &Plan {
        match self {
            Running::Consent(consent) => consent.plan(),
            Running::Proof(delivery) => delivery.plan(),
        }
    }

    fn phase(&self) -> CeremonyPhase {
        match self {
            Running::Consent(_) => CeremonyPhase::Consent,
            Running::Proof(_) => CeremonyPhase::Proof,
        }
    }

    fn progress(&self, config: &SealConfig) -> Progress {
        match self {
            Running::Consent(consent) => progress(config, &consent.progress()),
            Running::Proof(delivery) => progress(delivery.config(), &delivery.progress()),
        }
    }

    /// Ends it if its time is over; whether it is.
    fn expire(&mut self, now: u64) -> bool {
        match self {
            Running::Consent(consent) => consent.expire(now),
            Running::Proof(delivery) => delivery.has_expired(now),
        }
    }

    fn event<'a>(&self, plan: &'a Digest, step: Step, uid: Option<u32>) -> Event<'a> {
        event_of(act_of(self.plan()), plan, step, uid)
    }
}

fn event_of(act: CeremonyAct, plan: &Digest, step: Step, uid: Option<u32>) -> Event<'_> {
    Event::Ceremony {
        ceremony: match act {
            CeremonyAct::Rekey => event::Ceremony::Rekey,
            CeremonyAct::RotateRoot => event::Ceremony::Rotate,
        },
        plan,
        step,
        uid,
    }
}

/// Only plans of these two acts are begun here.
fn act_of(plan: &Plan) -> CeremonyAct {
    match plan.act() {
        mcpist_quorum::Act::Rekey(_) => CeremonyAct::Rekey,
        _ => CeremonyAct::RotateRoot,
    }
}

impl Open {
    /// The open ceremony, for the status.
    pub(super) fn ceremony_status(&self) -> Option<CeremonyStatus> {
        let running = self.ceremony.as_ref()?;
        Some(CeremonyStatus {
            act: act_of(running.plan()),
            phase: running.phase(),
            progress: running.progress(self.barrier.config()),
        })
    }

    fn open_ceremony(&self, running: &Running) -> OpenCeremony {
        let plan = running.plan();
        OpenCeremony {
            plan: Base64(plan.to_bytes()),
            digest: digest(plan),
            act: act_of(plan),
            phase: running.phase(),
            progress: running.progress(self.barrier.config()),
        }
    }

    /// What was done by `plan`, signed by the store.
    fn record_of(&self, plan: &Plan) -> Result<CeremonyRecord, ApiError> {
        let log =
            records::open(&self.system(), CHECKPOINT_RECORD).map_err(|e| records_error(&e))?;
        let audit_key = first_key(&log).ok_or(ApiError::of(ErrorCode::Internal))?;
        let act = match act_of(plan) {
            CeremonyAct::Rekey => Recorded::Rekey,
            CeremonyAct::RotateRoot => Recorded::RotateRoot,
        };
        let config = self.barrier.config();
        let key = signer(&self.store_key)?;
        let under = plan.digest();
        Ok(CeremonyRecord::sign(
            act,
            config,
            under,
            today(),
            audit_key,
            &key,
        ))
    }

    fn running(&self) -> Result<&Running, ApiError> {
        self.ceremony.as_ref().ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, "no ceremony is open")
                .next("begin one: mcpist rekey, mcpist rotate root")
        })
    }

    fn plan_rekey(
        &self,
        threshold: u8,
        holders: Vec<NewHolder>,
        rotate_root: bool,
    ) -> Result<Plan, ApiError> {
        let invalid =
            |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::RequestInvalid, &e.to_string());
        for holder in &holders {
            let checked = check_recipient(&holder.recipient);
            checked.map_err(|e| invalid(&format!("{}: {e}", holder.label.escape_debug())))?;
        }
        let config = self.barrier.config();
        let total = u8::try_from(holders.len()).unwrap_or(u8::MAX);
        let threshold = if config.is_dev() {
            Threshold::dev(threshold, total)
        } else {
            Threshold::new(threshold, total)
        };
        let holders = holders.into_iter().map(|h| PlannedHolder {
            label: h.label,
            recipient: h.recipient,
        });
        let next = Generation::new(Sharings::read(&self.system(), config)?.tried)
            .and_then(Generation::next);
        let next = next.ok_or_else(|| invalid(&"this store has no further generation"))?;
        Plan::rekey(
            config,
            next,
            threshold.map_err(|e| invalid(&e))?,
            holders.collect(),
            rotate_root,
        )
        .map_err(|e| invalid(&e))
    }
}

impl Keeper {
    /// Plans a ceremony, and waits for the consent of the store's quorum.
    pub(crate) fn begin_ceremony(
        &mut self,
        uid: u32,
        request: CeremonyRequest,
    ) -> Result<OpenCeremony, ApiError> {
        let open = self.open_for_change()?;
        if open.ceremony.is_some() {
            return Err(
                ApiError::new(ErrorCode::Conflict, "a ceremony is open already")
                    .next("see it: mcpist ceremony; end it: mcpist ceremony cancel"),
            );
        }
        let plan = match request {
            CeremonyRequest::Rekey {
                threshold,
                holders,
                rotate_root,
            } => open.plan_rekey(threshold, holders, rotate_root)?,
            CeremonyRequest::RotateRoot => Plan::rotate_root(open.barrier.config())
                .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?,
        };
        let consent = Consent::begin(plan, open.barrier.config(), steady_seconds())
            .map_err(|e| ApiError::new(ErrorCode::Internal, &e.to_string()))?;
        let running = Running::Consent(Box::new(consent));
        let shown = open.open_ceremony(&running);
        let event = running.event(&shown.digest, Step::Planned, Some(uid));
        self.record(&event)?;
        self.open()?.ceremony = Some(running);
        log::info!(
            "ceremony planned by uid {uid}: plan {}",
            shown.digest.short()
        );
        Ok(shown)
    }

    /// The open ceremony.
    pub(crate) fn ceremony(&mut self) -> Result<OpenCeremony, ApiError> {
        let open = self.open()?;
        Ok(open.open_ceremony(open.running()?))
    }

    /// The new shares of the open ceremony, once more.
    pub(crate) fn new_shares(&mut self) -> Result<NewShares, ApiError> {
        match self.open()?.running()? {
            Running::Proof(delivery) => Ok(NewShares {
                shares: letters(delivery),
            }),
            Running::Consent(_) => Err(ApiError::new(
                ErrorCode::NotFound,
                "there are no new shares yet: the holders of the current ones have to consent first",
            )
            .next("mcpist ceremony give")),
        }
    }

    /// Ends the open ceremony; nothing of it stays.
    pub(crate) fn cancel_ceremony(&mut self, uid: u32) -> Result<Done, ApiError> {
        self.open()?.running()?;
        self.end_ceremony(Step::Cancelled, Some(uid));
        Ok(Done {})
    }

    /// Ends a ceremony whose time is over.
    pub(super) fn expire_ceremony(&mut self) {
        let now = steady_seconds();
        if let Ok(open) = self.open()
            && open.ceremony.as_mut().is_some_and(|c| c.expire(now))
        {
            self.end_ceremony(Step::Expired, None);
        }
    }

    /// Ends the open ceremony, if there is one: its shares and new keys are wiped, and a line says so.
    pub(super) fn end_ceremony(&mut self, step: Step, uid: Option<u32>) {
        let Ok(open) = self.open() else { return };
        let Some(running) = open.ceremony.take() else {
            return;
        };
        let plan = digest(running.plan());
        let event = running.event(&plan, step, uid);
        log::warn!("ceremony ended, plan {}: {step:?}", plan.short());
        self.note(&event);
    }

    /// Takes a share of the open ceremony.
    pub(super) fn give(
        &mut self,
        uid: u32,
        plan: &Digest,
        share: Share,
    ) -> Result<ShareOutcome, ApiError> {
        self.expire_ceremony();
        let open = self.open_for_change()?;
        let under = PlanDigest::from_bytes(*plan.as_bytes());
        let now = steady_seconds();
        match open.ceremony.take() {
            None => Err(ApiError::of(ErrorCode::AlreadyUnsealed)),
            Some(Running::Consent(mut consent)) => {
                let submission = consent.submit(share, under, now);
                let running = Running::Consent(consent);
                match submission {
                    Submission::Pending(given) => {
                        let given = progress(open.barrier.config(), &given);
                        let step = Step::ShareAccepted {
                            given: given.given,
                            needed: given.needed,
                        };
                        self.noted(uid, running, step);
                        Ok(ShareOutcome::Pending(given))
                    }
                    Submission::Refused(refusal) => self.refused(uid, plan, running, &refusal),
                    Submission::Complete(shares) => self.consented(uid, running, shares),
                }
            }
            Some(Running::Proof(delivery)) => match delivery.prove(share, under, now) {
                Proof::Pending(delivery, given) => {
                    let given = progress(delivery.config(), &given);
                    let step = Step::Proven {
                        given: given.given,
                        needed: given.needed,
                    };
                    self.noted(uid, Running::Proof(Box::new(delivery)), step);
                    Ok(ShareOutcome::Proven(given))
                }
                Proof::Refused(delivery, refusal) => {
                    self.refused(uid, plan, Running::Proof(Box::new(delivery)), &refusal)
                }
                Proof::Complete(switch) => self.switch(uid, switch),
            },
        }
    }

    /// A text that is no share was given: it costs nothing.
    pub(super) fn give_nothing(
        &mut self,
        uid: u32,
        plan: &Digest,
        message: &str,
    ) -> Result<ShareOutcome, ApiError> {
        let open = self.open()?;
        let running = open
            .ceremony
            .as_ref()
            .ok_or(ApiError::of(ErrorCode::AlreadyUnsealed))?;
        let reason = "not_a_share";
        let now = running.progress(open.barrier.config());
        let event = running.event(plan, Step::ShareRefused { reason }, Some(uid));
        self.note(&event);
        Ok(ShareOutcome::Refused {
            reason: reason.into(),
            message: message.to_owned(),
            progress: now,
        })
    }

    /// The ceremony goes on after a step.
    fn noted(&mut self, uid: u32, running: Running, step: Step) {
        let plan = digest(running.plan());
        log::info!("ceremony: share of uid {uid} taken, {step:?}");
        self.note(&running.event(&plan, step, Some(uid)));
        if let Ok(open) = self.open() {
            open.ceremony = Some(running);
        }
    }

    fn refused(
        &mut self,
        uid: u32,
        plan: &Digest,
        running: Running,
        refusal: &ShareRefusal,
    ) -> Result<ShareOutcome, ApiError> {
        let reason = refusal_code(refusal);
        log::warn!("ceremony: share of uid {uid} refused: {reason}");
        self.note(&running.event(plan, Step::ShareRefused { reason }, Some(uid)));
        let open = self.open()?;
        let progress = running.progress(open.barrier.config());
        open.ceremony = Some(running);
        Ok(ShareOutcome::Refused {
            reason: reason.into(),
            message: refusal.to_string(),
            progress,
        })
    }

    /// The store's quorum consents: the shares are asked of the store, and the act goes on. What fails from here on ends
    /// the ceremony, since the shares are spent.
    fn consented(
        &mut self,
        uid: u32,
        running: Running,
        shares: ValidShares,
    ) -> Result<ShareOutcome, ApiError> {
        let plan = running.plan().clone();
        let Running::Consent(consent) = running else {
            return Err(ApiError::of(ErrorCode::Internal));
        };
        let done = match act_of(&plan) {
            CeremonyAct::RotateRoot => self.rotate(uid, &plan, &shares),
            CeremonyAct::Rekey => self.deliver(uid, *consent, shares),
        };
        done.inspect_err(|e| {
            let step = Step::Failed {
                reason: e.code.as_str(),
            };
            if e.code != ErrorCode::AuditLost {
                self.note(&event_of(act_of(&plan), &digest(&plan), step, Some(uid)));
            }
        })
    }

    fn rotate(
        &mut self,
        uid: u32,
        plan: &Plan,
        shares: &ValidShares,
    ) -> Result<ShareOutcome, ApiError> {
        let under = digest(plan);
        let act = CeremonyAct::RotateRoot;
        let line = outbox_line(&event_of(act, &under, Step::Completed, Some(uid)));
        let open = self.open()?;
        let consented = open.barrier.consent(shares).map_err(|e| switch_error(&e))?;
        let due = due_op(CHANGED).map_err(|e| records_error(&e))?;
        let ops = vec![due, Op::Outbox(line)];
        let rotated = open.barrier.rotate_root(&consented, ops, today());
        self.switched(rotated)?;
        self.completed(plan)
    }

    /// Makes the new shares. Their generation is in the store before they leave.
    fn deliver(
        &mut self,
        uid: u32,
        consent: Consent,
        shares: ValidShares,
    ) -> Result<ShareOutcome, ApiError> {
        let open = self.open()?;
        open.barrier
            .consent(&shares)
            .map_err(|e| switch_error(&e))?;
        let made = Delivery::make(consent, shares, open.barrier.config());
        let delivery = made.map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        let generation = delivery.config().generation().get();
        let sharings = Sharings {
            tried: generation,
            current: open.barrier.config().generation().get(),
        };
        let under = digest(delivery.plan());
        let step = Step::Delivered { generation };
        let line = outbox_line(&event_of(CeremonyAct::Rekey, &under, step, Some(uid)));
        let ops = vec![sharings.op()?, Op::Outbox(line)];
        open.system().commit(ops).map_err(|e| vault_error(&e))?;
        let outcome = ShareOutcome::Delivered {
            shares: letters(&delivery),
            progress: progress(delivery.config(), &delivery.progress()),
        };
        open.ceremony = Some(Running::Proof(Box::new(delivery)));
        log::info!("ceremony: consent is complete, new shares of generation {generation} left");
        // Its line follows with the next act's where the log does not take it now; the shares have left.
        let _ = self.drain_system();
        Ok(outcome)
    }

    /// The new quorum has its shares: the store is theirs.
    fn switch(&mut self, uid: u32, switch: Switch) -> Result<ShareOutcome, ApiError> {
        let generation = switch.config().generation().get();
        let plan = switch.plan().clone();
        let under = digest(&plan);
        let act = CeremonyAct::Rekey;
        let line = outbox_line(&event_of(act, &under, Step::Completed, Some(uid)));
        let sharings = Sharings {
            tried: generation,
            current: generation,
        };
        let open = self.open()?;
        let due = due_op(CHANGED).map_err(|e| records_error(&e))?;
        let switched = match sharings.op() {
            Ok(op) => open
                .barrier
                .rekey(&switch, vec![op, due, Op::Outbox(line)], today()),
            Err(e) => {
                open.ceremony = Some(Running::Proof(Box::new(switch.undo())));
                return Err(e);
            }
        };
        if switched
            .as_ref()
            .is_err_and(|e| !matches!(e, SwitchError::InDoubt))
        {
            // The store is as it was, and the last proof can be given again.
            open.ceremony = Some(Running::Proof(Box::new(switch.undo())));
        }
        self.switched(switched)?;
        self.completed(&plan)
    }

    /// Where nobody knows whether the store was switched it is sealed: the next unseal reads which quorum it has.
    fn switched(&mut self, switched: Result<(), SwitchError>) -> Result<(), ApiError> {
        let Err(error) = switched else {
            self.open()?.backups.is_due(CHANGED);
            return Ok(());
        };
        if matches!(error, SwitchError::InDoubt) {
            let _ = self.seal(None, "whether a ceremony was completed is in doubt");
        }
        Err(switch_error(&error))
    }

    fn completed(&mut self, plan: &Plan) -> Result<ShareOutcome, ApiError> {
        let act = act_of(plan);
        let open = self.open()?;
        let generation = open.barrier.config().generation().get();
        let record = open.record_of(plan);
        let record = record.inspect_err(|e| log::warn!("no ceremony record: {}", e.message));
        let record = record.ok();
        log::info!("ceremony completed: {act:?}, shares of generation {generation} open the store");
        // It is done, and its record is given out this once, whatever the log says.
        let audited = self.drain_system();
        let receipt = self.witnessed();
        Ok(ShareOutcome::Completed(CeremonyDone {
            act,
            generation,
            record: record.as_ref().map(|record| Base64(record.to_bytes())),
            record_text: record.as_ref().map(CeremonyRecord::to_text),
            receipt,
            audit_lost: audited.err().map(|e| e.message),
        }))
    }

    /// A line that has to be on the disk before what it says is done.
    pub(super) fn record(&self, event: &Event<'_>) -> Result<(), ApiError> {
        let audit = &self.house.audit;
        let seq = audit.append(event).map_err(|e| audit_error(&e))?;
        audit.synced_blocking(seq).map_err(|e| audit_error(&e))
    }

    /// A line about what has happened already.
    fn note(&self, event: &Event<'_>) {
        if let Err(e) = self.house.audit.append(event) {
            log::error!("audit_lost: a step of a ceremony: {e}");
        }
    }
}

fn letters(delivery: &Delivery) -> Vec<DeliveredShare> {
    let letter = |letter: &mcpist_quorum::Letter| DeliveredShare {
        label: letter.label.clone(),
        age: letter.age.clone(),
    };
    delivery.letters().iter().map(letter).collect()
}

fn switch_error(error: &SwitchError) -> ApiError {
    let code = match error {
        SwitchError::Vault(e) => return vault_error(e),
        SwitchError::Busy => ErrorCode::Busy,
        SwitchError::OtherConfig => ErrorCode::Conflict,
        SwitchError::Keys(_) | SwitchError::NotOfThisStore | SwitchError::NotOfThisVault(_) => {
            ErrorCode::VaultQuarantined
        }
        SwitchError::InDoubt | SwitchError::VaultInDoubt(_) => ErrorCode::VaultUnavailable,
        SwitchError::Combine(_) | SwitchError::Wrap(_) | SwitchError::Memory(_) => {
            ErrorCode::Unavailable
        }
    };
    ApiError::new(code, &error.to_string())
}
