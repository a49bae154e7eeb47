//! The ceremonies of an open store: rekey and rotate root; those of a vault's own quorum go on in
//! [`super::vault_quorum`].
//!
//! Owns the one that is open. Its phases are the quorum crate's types ([`Consent`], [`Delivery`], [`Switch`]); this file asks
//! the store, writes down what happened and answers. Promises that the generation of new shares is stored before the first of
//! them leaves, so that no two sharings ever have one number; that each step is an audit line, that of the last one in the
//! commit which switches the store; and that whatever ends a ceremony before (cancel, its time, a seal, whose line
//! stands for both, or a restart) leaves the store to the shares that opened it. A step that fails at the disk can be given once more where no share was spent
//! on it. Does not: judge shares (the quorum does), or wrap keys (the sealer does).

use mcpist_core::api::{
    ApiError, Base64, CeremonyAct, CeremonyDone, CeremonyPhase, CeremonyRequest, CeremonyStatus,
    DeliveredShare, NewHolder, NewShares, OpenCeremony, Progress, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Event, Step};
use mcpist_core::ids::Digest;
use mcpist_quorum::{
    Act, CeremonyRecord, Consent, Delivery, Generation, Letter, Plan, PlanDigest, PlannedHolder,
    Proof, Recorded, Share, ShareRefusal, Submission, Switch, Threshold, ValidShares,
    check_recipient,
};
use mcpist_sealer::{Op, SwitchError};

use super::backup::{CHANGED, due_op};
use super::codes::refusal_code;
use super::init::{digest, signer};
use super::running::{Of, Running, act_of, event_of, open_ceremony};
use super::sharings::Sharings;
use super::unseal::progress;
use super::{Keeper, Open, audit_error, outbox_line, records, records_error, today, vault_error};
use crate::audit::{CHECKPOINT_RECORD, first_key};
use crate::clock::steady_seconds;

impl Open {
    /// The open ceremony, for the status.
    pub(super) fn ceremony_status(&self) -> Option<CeremonyStatus> {
        let running = self.ceremony.as_ref()?;
        Some(CeremonyStatus {
            act: act_of(running.plan()),
            vault: running.vault().cloned(),
            phase: running.phase(),
            progress: running.progress(),
        })
    }

    /// Shares that the open ceremony holds: those of new holders are not kept.
    pub(super) fn consented(&self) -> u8 {
        let held = self.ceremony_status();
        let held = held.filter(|open| open.phase == CeremonyPhase::Consent);
        held.map_or(0, |open| open.progress.given)
    }

    /// The first key of the audit log, for a record.
    pub(super) fn audit_key(&self) -> Result<[u8; 32], ApiError> {
        let log =
            records::open(&self.system(), CHECKPOINT_RECORD).map_err(|e| records_error(&e))?;
        first_key(&log).ok_or(ApiError::of(ErrorCode::Internal))
    }

    /// Whether a new root key could be made now, where that is what `running` will do: no share is spent on what would fail.
    fn may_go_on(&self, running: &Running) -> Result<(), ApiError> {
        let makes_root = match running.plan().act() {
            Act::RotateRoot(_) => true,
            Act::Rekey(terms) => terms.rotate_root,
            _ => false,
        };
        if makes_root {
            let may = self.barrier.may_rotate_root();
            may.map_err(|e| switch_error(&e))?;
        }
        Ok(())
    }

    /// What was done by `plan`, signed by the store.
    fn record_of(&self, plan: &Plan) -> Result<CeremonyRecord, ApiError> {
        let audit_key = self.audit_key()?;
        let act = match act_of(plan) {
            CeremonyAct::Rekey => Recorded::Rekey,
            _ => Recorded::RotateRoot,
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
                .next("begin one: mcpist rekey, mcpist rotate root, mcpist vault unseal NAME, mcpist vault create")
        })
    }

    /// The quorum that is asked for, whose members can be encrypted to.
    pub(super) fn people(
        &self,
        threshold: u8,
        holders: Vec<NewHolder>,
    ) -> Result<(Threshold, Vec<PlannedHolder>), ApiError> {
        for holder in &holders {
            let checked = check_recipient(&holder.recipient);
            checked.map_err(|e| invalid(&format!("{}: {e}", holder.label.escape_debug())))?;
        }
        let total = u8::try_from(holders.len()).unwrap_or(u8::MAX);
        let threshold = if self.barrier.config().is_dev() {
            Threshold::dev(threshold, total)
        } else {
            Threshold::new(threshold, total)
        };
        let holders = holders.into_iter().map(|h| PlannedHolder {
            label: h.label,
            recipient: h.recipient,
        });
        Ok((threshold.map_err(|e| invalid(&e))?, holders.collect()))
    }

    /// The ceremony that is asked for.
    fn plan(&self, request: CeremonyRequest) -> Result<Running, ApiError> {
        let config = self.barrier.config();
        let plan = match request {
            CeremonyRequest::Rekey {
                threshold,
                holders,
                rotate_root,
            } => self.plan_rekey(threshold, holders, rotate_root)?,
            CeremonyRequest::RotateRoot => Plan::rotate_root(config)
                .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?,
            CeremonyRequest::UnsealVault { vault } => return self.plan_unseal_vault(vault),
            CeremonyRequest::NewVault {
                vault,
                threshold,
                holders,
            } => return self.plan_new_vault(vault, threshold, holders),
            CeremonyRequest::RekeyVault {
                vault,
                threshold,
                holders,
            } => return self.plan_rekey_vault(vault, threshold, holders),
        };
        let consent = Consent::begin(plan, config, steady_seconds())
            .map_err(|e| ApiError::new(ErrorCode::Internal, &e.to_string()))?;
        let of = Of {
            sharing: config.sharing().clone(),
            vault: None,
        };
        Ok(Running::Consent(Box::new(consent), of))
    }

    fn plan_rekey(
        &self,
        threshold: u8,
        holders: Vec<NewHolder>,
        rotate_root: bool,
    ) -> Result<Plan, ApiError> {
        let (threshold, holders) = self.people(threshold, holders)?;
        let config = self.barrier.config();
        let next = Generation::new(Sharings::read(&self.system(), config)?.tried)
            .and_then(Generation::next);
        let next = next.ok_or_else(|| invalid(&"this store has no further generation"))?;
        Plan::rekey(config, next, threshold, holders, rotate_root).map_err(|e| invalid(&e))
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
        if let Some(running) = &open.ceremony {
            // No ceremony is ended for a name that was mistyped.
            open.has_own_quorum(&request)?;
            return Err(in_the_way(running));
        }
        let running = open.plan(request)?;
        open.may_go_on(&running)?;
        let shown = open_ceremony(&running);
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
        Ok(open_ceremony(open.running()?))
    }

    /// The new shares of the open ceremony, once more.
    pub(crate) fn new_shares(&mut self) -> Result<NewShares, ApiError> {
        match self.open()?.running()? {
            Running::Proof(delivery) => Ok(NewShares {
                shares: letters(delivery.letters()),
            }),
            Running::VaultProof(delivery, _) => Ok(NewShares {
                shares: letters(delivery.letters()),
            }),
            Running::Consent(..) => Err(ApiError::new(
                ErrorCode::NotFound,
                "there are no new shares yet: the holders of the current ones have to consent first",
            )
            .next("mcpist ceremony give")),
        }
    }

    /// Ends the open ceremony; nothing of it stays. What it was.
    pub(crate) fn cancel_ceremony(&mut self, uid: u32) -> Result<CeremonyStatus, ApiError> {
        let open = self.open()?;
        open.running()?;
        let ended = open.ceremony_status();
        self.end_ceremony(Step::Cancelled, Some(uid));
        ended.ok_or(ApiError::of(ErrorCode::Internal))
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
        if let Some(running) = &open.ceremony
            && running.phase() == CeremonyPhase::Consent
            && is_last(&running.progress())
        {
            open.may_go_on(running)?;
        }
        match open.ceremony.take() {
            None => Err(ApiError::of(ErrorCode::AlreadyUnsealed)),
            Some(Running::Consent(mut consent, of)) => {
                let submission = consent.submit(share, under, now);
                let running = Running::Consent(consent, of);
                match submission {
                    Submission::Pending(_) => {
                        let given = running.progress();
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
            Some(Running::VaultProof(delivery, vault)) => {
                self.prove_for_vault(uid, plan, delivery.prove(share, under, now), vault)
            }
        }
    }

    /// A text that is no share was given: it costs nothing.
    pub(super) fn give_nothing(
        &mut self,
        uid: u32,
        plan: &Digest,
        message: &str,
    ) -> Result<ShareOutcome, ApiError> {
        let running = self.open()?.ceremony.take();
        let running = running.ok_or(ApiError::of(ErrorCode::AlreadyUnsealed))?;
        self.refused_as(uid, plan, running, "not_a_share", message.to_owned())
    }

    /// The ceremony goes on after a step.
    pub(super) fn noted(&mut self, uid: u32, running: Running, step: Step) {
        let plan = digest(running.plan());
        log::info!("ceremony: share of uid {uid} taken, {step:?}");
        self.note(&running.event(&plan, step, Some(uid)));
        if let Ok(open) = self.open() {
            open.ceremony = Some(running);
        }
    }

    pub(super) fn refused(
        &mut self,
        uid: u32,
        plan: &Digest,
        running: Running,
        refusal: &ShareRefusal,
    ) -> Result<ShareOutcome, ApiError> {
        let reason = refusal_code(refusal);
        self.refused_as(uid, plan, running, reason, refusal.to_string())
    }

    fn refused_as(
        &mut self,
        uid: u32,
        plan: &Digest,
        running: Running,
        reason: &'static str,
        message: String,
    ) -> Result<ShareOutcome, ApiError> {
        log::warn!("ceremony: share of uid {uid} refused: {reason}");
        self.note(&running.event(plan, Step::ShareRefused { reason }, Some(uid)));
        let open = self.open()?;
        let progress = running.progress();
        open.ceremony = Some(running);
        Ok(ShareOutcome::Refused {
            reason: reason.into(),
            message,
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
        let Running::Consent(consent, Of { vault, .. }) = running else {
            return Err(ApiError::of(ErrorCode::Internal));
        };
        let done = match (act_of(&plan), &vault) {
            (CeremonyAct::UnsealVault, Some(vault)) => self.open_vault(uid, &plan, vault, &shares),
            (_, Some(vault)) => self.deliver_for_vault(uid, *consent, vault, shares),
            (CeremonyAct::Rekey, None) => self.deliver(uid, *consent, shares),
            (_, None) => self.rotate(uid, &plan, &shares),
        };
        done.inspect_err(|e| {
            let step = Step::Failed {
                reason: e.code.as_str(),
            };
            if e.code != ErrorCode::AuditLost {
                let act = (act_of(&plan), vault.as_ref());
                self.note(&event_of(act, &digest(&plan), step, Some(uid)));
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
        let line = outbox_line(&event_of((act, None), &under, Step::Completed, Some(uid)));
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
        let line = outbox_line(&event_of(
            (CeremonyAct::Rekey, None),
            &under,
            step,
            Some(uid),
        ));
        let ops = vec![sharings.op()?, Op::Outbox(line)];
        open.system().commit(ops).map_err(|e| vault_error(&e))?;
        let outcome = ShareOutcome::Delivered {
            shares: letters(delivery.letters()),
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
        let line = outbox_line(&event_of((act, None), &under, Step::Completed, Some(uid)));
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
            vault: None,
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
    pub(super) fn note(&self, event: &Event<'_>) {
        if let Err(e) = self.house.audit.append(event) {
            log::error!("audit_lost: {}: {e}", event.name());
        }
    }
}

pub(super) fn invalid(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::RequestInvalid, &error.to_string())
}

pub(super) fn letters(letters: &[Letter]) -> Vec<DeliveredShare> {
    let letter = |letter: &Letter| DeliveredShare {
        label: letter.label.clone(),
        age: letter.age.clone(),
    };
    letters.iter().map(letter).collect()
}

/// A ceremony is open, and ends before another one begins.
fn in_the_way(running: &Running) -> ApiError {
    let about = running.vault().map(|vault| format!(" about vault {vault}"));
    let text = format!(
        "a ceremony{} is open already, with {} of {} shares given",
        about.unwrap_or_default(),
        running.progress().given,
        running.progress().needed
    );
    ApiError::new(ErrorCode::Conflict, &text)
        .next("see it: mcpist ceremony; end it, and drop its shares: mcpist ceremony cancel")
}

/// Whether the next share may be the last one.
fn is_last(progress: &Progress) -> bool {
    progress.given + 1 >= progress.needed
}

pub(super) fn switch_error(error: &SwitchError) -> ApiError {
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
