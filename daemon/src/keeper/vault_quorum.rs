//! The ceremonies of a vault that has a quorum of its own: it is made, opened, and given to others.
//!
//! Each is the store's one open ceremony ([`super::ceremony`]), with the vault's name in its plan and in its audit lines. A
//! vault is made only after its quorum has proved its shares, so that none waits for shares that never arrived; it has nobody
//! who could consent before. Promises what the store's own ceremonies do, and that what serves from the vault follows: calls
//! see it as soon as it is open, and none does once it is sealed.
//!
//! Does not: open its keys (the sealer does). Its file is verified on the keeper's thread, as at the store's unseal.

use mcpist_core::api::{
    ApiError, Base64, CeremonyAct, CeremonyDone, CeremonyRequest, NewHolder, Sealed, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Event, Step};
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{
    CeremonyRecord, Consent, Delivery, Plan, PlannedVault, Proof, Switch, ValidShares, VaultConfig,
};
use mcpist_sealer::{Health, Op, SwitchError, VaultId, VaultQuorum};

use super::backup::{CHANGED, due_op};
use super::ceremony::{invalid, letters, switch_error};
use super::init::{digest, signer};
use super::running::{Of, Running, act_of, event_of};
use super::unseal::progress_of;
use super::{Keeper, Open, SYSTEM, outbox_line, records_error, today, vault_error};
use crate::clock::steady_seconds;

fn unavailable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, &error.to_string())
}

impl Open {
    fn own_quorum(&self, vault: &VaultName) -> Result<(VaultQuorum, Health), ApiError> {
        let found = self.vault(vault).map_err(|e| vault_error(&e))?;
        let own = found.own_quorum().map_err(|e| vault_error(&e))?;
        Ok((own, found.health()))
    }

    /// Whether the vault that `request` is about, where it has to be there, has a quorum of its own.
    pub(super) fn has_own_quorum(&self, request: &CeremonyRequest) -> Result<(), ApiError> {
        match request {
            CeremonyRequest::UnsealVault { vault } | CeremonyRequest::RekeyVault { vault, .. } => {
                self.own_quorum(vault).map(drop)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn plan_unseal_vault(&self, vault: VaultName) -> Result<Running, ApiError> {
        let (own, health) = self.own_quorum(&vault)?;
        if health != Health::Sealed {
            let text = format!("vault {vault} is not sealed");
            return Err(ApiError::new(ErrorCode::Conflict, &text).next("mcpist vault list"));
        }
        let plan = Plan::unseal_vault(&own.config, vault.as_str()).map_err(|e| unavailable(&e))?;
        consent(plan, &own.config, vault)
    }

    pub(super) fn plan_new_vault(
        &self,
        vault: VaultName,
        threshold: u8,
        holders: Vec<NewHolder>,
    ) -> Result<Running, ApiError> {
        if vault.as_str() == SYSTEM || self.vault(&vault).is_ok() {
            let text = format!("there is a vault {vault} already: choose another name");
            return Err(ApiError::new(ErrorCode::Conflict, &text));
        }
        let (threshold, holders) = self.people(threshold, holders)?;
        let planned = PlannedVault {
            id: *VaultId::random().map_err(|e| unavailable(&e))?.as_bytes(),
            name: vault.as_str().to_owned(),
        };
        let plan = Plan::new_vault(self.barrier.config(), planned, threshold, holders)
            .map_err(|e| invalid(&e))?;
        let delivery = Delivery::make_first(&plan, today(), steady_seconds());
        let delivery = delivery.map_err(|e| unavailable(&e))?;
        Ok(Running::VaultProof(Box::new(delivery), vault))
    }

    pub(super) fn plan_rekey_vault(
        &self,
        vault: VaultName,
        threshold: u8,
        holders: Vec<NewHolder>,
    ) -> Result<Running, ApiError> {
        let (own, health) = self.own_quorum(&vault)?;
        if health == Health::Sealed {
            return Err(ApiError::of(ErrorCode::VaultSealed));
        }
        let (threshold, holders) = self.people(threshold, holders)?;
        let next = own.tried.next();
        let next = next.ok_or_else(|| invalid(&"this vault has no further generation"))?;
        let plan = Plan::rekey_vault(&own.config, vault.as_str(), next, threshold, holders);
        consent(plan.map_err(|e| invalid(&e))?, &own.config, vault)
    }

    /// What was done by `plan`, signed by the store.
    fn record_of_vault(
        &self,
        plan: &Plan,
        config: &VaultConfig,
    ) -> Result<CeremonyRecord, ApiError> {
        let (audit_key, key) = (self.audit_key()?, signer(&self.store_key)?);
        let of = self.barrier.config();
        let under = plan.digest();
        let record = CeremonyRecord::sign_vault(of, config, under, today(), audit_key, &key);
        Ok(record)
    }
}

/// Waits for the consent of the quorum of `config`.
fn consent(plan: Plan, config: &VaultConfig, vault: VaultName) -> Result<Running, ApiError> {
    let consent = Consent::begin_vault(plan, config, steady_seconds())
        .map_err(|e| ApiError::new(ErrorCode::Internal, &e.to_string()))?;
    let of = Of {
        sharing: config.sharing().clone(),
        vault: Some(vault),
    };
    Ok(Running::Consent(Box::new(consent), of))
}

impl Keeper {
    /// The vault's quorum is there: it opens, and serves.
    pub(super) fn open_vault(
        &mut self,
        uid: u32,
        plan: &Plan,
        vault: &VaultName,
        shares: &ValidShares,
    ) -> Result<ShareOutcome, ApiError> {
        let opened = self.open()?.vaults().unseal_own(vault.as_str(), shares);
        let records = match opened {
            Ok(records) => records,
            Err(error) => {
                // One that did not verify has its line.
                self.record_health();
                let said = switch_error(&error);
                return Err(match said.code {
                    ErrorCode::VaultQuarantined => {
                        said.next(&format!("mcpist vault restore {vault} --from FILE"))
                    }
                    _ => said,
                });
            }
        };
        let (own, _) = self.open()?.own_quorum(vault)?;
        let under = digest(plan);
        let act = (CeremonyAct::UnsealVault, Some(vault));
        let recorded = self.record(&event_of(act, &under, Step::Completed, Some(uid)));
        if let Err(error) = recorded {
            // What nobody can read about serves nobody.
            let _ = self.open()?.vaults().seal_own(vault.as_str());
            return Err(error);
        }
        log::info!("vault {vault} opened by its own quorum: {records} records");
        // What a crash left in it.
        if let Err(e) = self.drain(vault) {
            log::warn!("outbox of vault {vault}: {}", e.message);
        }
        self.refresh()?;
        Ok(ShareOutcome::Completed(CeremonyDone {
            act: CeremonyAct::UnsealVault,
            vault: Some(vault.clone()),
            generation: own.config.sharing().generation.get(),
            record: None,
            record_text: None,
            receipt: self.witnessed(),
            audit_lost: None,
        }))
    }

    /// Makes the vault's new shares. Their generation is in the store before they leave.
    pub(super) fn deliver_for_vault(
        &mut self,
        uid: u32,
        consent: Consent,
        vault: &VaultName,
        shares: ValidShares,
    ) -> Result<ShareOutcome, ApiError> {
        let open = self.open()?;
        let (own, _) = open.own_quorum(vault)?;
        open.vaults()
            .consent_own(vault.as_str(), &shares)
            .map_err(|e| switch_error(&e))?;
        let made = Delivery::make_for_vault(consent, shares, &own.config);
        let delivery = made.map_err(|e| unavailable(&e))?;
        let generation = delivery.config().sharing().generation;
        let under = digest(delivery.plan());
        let step = Step::Delivered {
            generation: generation.get(),
        };
        let act = (CeremonyAct::RekeyVault, Some(vault));
        let line = outbox_line(&event_of(act, &under, step, Some(uid)));
        open.vaults()
            .note_tried(vault.as_str(), generation, Some(line))
            .map_err(|e| vault_error(&e))?;
        let outcome = ShareOutcome::Delivered {
            shares: letters(delivery.letters()),
            progress: progress_of(delivery.config().sharing(), &delivery.progress()),
        };
        open.ceremony = Some(Running::VaultProof(Box::new(delivery), vault.clone()));
        // Its line follows with the next act's where the log does not take it now; the shares have left.
        let _ = self.drain_system();
        Ok(outcome)
    }

    /// The answer to a new share of a vault.
    pub(super) fn prove_for_vault(
        &mut self,
        uid: u32,
        plan: &Digest,
        proof: Proof<VaultConfig>,
        vault: VaultName,
    ) -> Result<ShareOutcome, ApiError> {
        match proof {
            Proof::Pending(delivery, given) => {
                let given = progress_of(delivery.config().sharing(), &given);
                let step = Step::Proven {
                    given: given.given,
                    needed: given.needed,
                };
                self.noted(uid, Running::VaultProof(Box::new(delivery), vault), step);
                Ok(ShareOutcome::Proven(given))
            }
            Proof::Refused(delivery, refusal) => {
                let running = Running::VaultProof(Box::new(delivery), vault);
                self.refused(uid, plan, running, &refusal)
            }
            Proof::Complete(switch) => self.switch_vault(uid, switch, vault),
        }
    }

    /// The vault's quorum has its shares: it is made, or theirs.
    fn switch_vault(
        &mut self,
        uid: u32,
        switch: Switch<VaultConfig>,
        vault: VaultName,
    ) -> Result<ShareOutcome, ApiError> {
        let (plan, config) = (switch.plan().clone(), switch.config().clone());
        let (act, under) = (act_of(&plan), digest(&plan));
        let done = event_of((act, Some(&vault)), &under, Step::Completed, Some(uid));
        let line = outbox_line(&done);
        let open = self.open()?;
        let switched = match act {
            CeremonyAct::NewVault => open.vaults().create_own_vault(&switch, Some(line)),
            _ => match due_op(CHANGED) {
                Ok(due) => open.vaults().rekey_own(&switch, [due, Op::Outbox(line)]),
                Err(e) => {
                    open.ceremony = Some(Running::VaultProof(Box::new(switch.undo()), vault));
                    return Err(records_error(&e));
                }
            },
        };
        if let Err(error) = switched {
            if matches!(error, SwitchError::VaultInDoubt(_)) {
                open.backups.is_due(CHANGED);
                let _ = self.refresh();
            } else {
                // It is as it was, and the last proof can be given again.
                let delivery = Box::new(switch.undo());
                open.ceremony = Some(Running::VaultProof(delivery, vault));
            }
            return Err(switch_error(&error));
        }
        log::info!("ceremony completed: {act:?} of vault {vault}");
        if act == CeremonyAct::RekeyVault {
            open.backups.is_due(CHANGED);
        }
        let record = open.record_of_vault(&plan, &config);
        let record = record.inspect_err(|e| log::warn!("no ceremony record: {}", e.message));
        let record = record.ok();
        let audited = self.drain_system();
        let receipt = self.witnessed();
        Ok(ShareOutcome::Completed(CeremonyDone {
            act,
            vault: Some(vault),
            generation: config.sharing().generation.get(),
            record: record.as_ref().map(|record| Base64(record.to_bytes())),
            record_text: record.as_ref().map(CeremonyRecord::to_text),
            receipt,
            audit_lost: audited.err().map(|e| e.message),
        }))
    }

    /// Seals one vault that has a quorum of its own. An unseal of it that is open ends with it, and its shares are counted; a
    /// rekey is ended by who means to alone, since its new shares have left.
    pub(crate) fn seal_vault(&mut self, uid: u32, vault: &VaultName) -> Result<Sealed, ApiError> {
        let open = self.open()?;
        let about = open.ceremony_status();
        let about = about.filter(|open| open.vault.as_ref() == Some(vault));
        if let Some(CeremonyAct::RekeyVault) = about.as_ref().map(|open| open.act) {
            let text = format!("vault {vault} is being given to new shares");
            let next = format!(
                "end that, and its new shares with it: mcpist ceremony cancel; then mcpist vault seal {vault}"
            );
            return Err(ApiError::new(ErrorCode::Conflict, &text).next(&next));
        }
        open.vaults()
            .seal_own(vault.as_str())
            .map_err(|e| vault_error(&e))?;
        log::info!("vault {vault} sealed by uid {uid}");
        let dropped = about.as_ref().map_or(0, |open| open.progress.given);
        if about.is_some() {
            self.end_ceremony(Step::Cancelled, Some(uid));
        }
        let refreshed = self.refresh();
        self.record(&Event::VaultSealed { vault, uid })?;
        refreshed.map(|()| Sealed {
            receipt: None,
            dropped,
        })
    }
}
