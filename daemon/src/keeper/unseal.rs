//! Unseal: the ceremony that opens the store.
//!
//! Shares come in under the digest of the plan that their holders saw; the last one verifies everything, opens the audit
//! log and makes the first snapshot. Promises that a refused share costs nothing, and that a store which a witness receipt
//! contradicts, or whose audit log cannot be opened, is sealed again.

use std::sync::{Arc, Weak};

use mcpist_core::api::{self, Alarm, ApiError, Base64, ShareOutcome};
use mcpist_core::change::{Officer, Officers};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Ceremony, Event, Step};
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{PlanDigest, Progress, SealConfig, Share, Sharing};
use mcpist_sealer::{Barrier, Health, Unseal, UnsealReport, Unsealed};
use mcpist_secret::Secret;

use super::backup::Backups;
use super::codes::{confirmed, refusal_code};
use super::init::digest;
use super::outbox::Copied;
use super::policy::Policy;
use super::proposals::Proposals;
use super::vault_care::Care;
use super::{Keeper, Open, Phase, audit_error, records, records_error, unready};
use crate::audit::{SystemVault, ready};
use crate::clock::steady_seconds;

impl Keeper {
    /// The plan that shares are given under, and its progress.
    pub(crate) fn unseal_plan(&mut self) -> Result<api::UnsealPlan, ApiError> {
        let barrier = self.sealed()?;
        let plan = barrier.unseal_plan();
        Ok(api::UnsealPlan {
            digest: digest(&plan),
            plan: Base64(plan.to_bytes()),
            progress: progress(barrier.config(), &barrier.progress()),
        })
    }

    /// Ends the open plan and wipes its shares.
    pub(crate) fn cancel_unseal(&mut self, uid: u32) -> Result<api::UnsealCancelled, ApiError> {
        let cancelled = self.drop_shares(Some(uid))? > 0;
        Ok(api::UnsealCancelled { cancelled })
    }

    /// Wipes the shares that were given to open the store, and ends their plan: how many they were.
    pub(super) fn drop_shares(&mut self, uid: Option<u32>) -> Result<u8, ApiError> {
        let barrier = self.sealed()?;
        let (given, plan) = (barrier.progress().given, digest(&barrier.unseal_plan()));
        barrier
            .cancel()
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        if given > 0 {
            // The log is closed; it notes this for its opening.
            let _ = self.house.audit.append(&Event::Ceremony {
                ceremony: Ceremony::Unseal,
                plan: &plan,
                step: Step::Cancelled,
                uid,
            });
        }
        Ok(given)
    }

    fn sealed(&mut self) -> Result<&mut Barrier<mcpist_sealer::Sealed>, ApiError> {
        match &mut self.phase {
            Phase::Sealed(barrier) => Ok(barrier),
            Phase::Unsealed(_) => Err(ApiError::of(ErrorCode::AlreadyUnsealed)),
            Phase::Blank => Err(ApiError::of(ErrorCode::NotInitialised)),
            Phase::Nowhere => Err(ApiError::of(ErrorCode::Internal)),
        }
    }

    /// Takes one share, given under `plan`: of an open store's ceremony, or to open a closed one; none where the audit log could not be opened after the last one.
    pub(crate) fn submit_share(
        &mut self,
        uid: u32,
        plan: &Digest,
        text: &Secret,
    ) -> Result<ShareOutcome, ApiError> {
        if self.restores(plan) {
            return self.give_restore(uid, plan, text);
        }
        if matches!(self.phase, Phase::Unsealed(_)) {
            return match Share::parse(text.expose()) {
                Ok(share) => self.give(uid, plan, share),
                Err(e) => self.give_nothing(uid, plan, &e.to_string()),
            };
        }
        self.sealed()?;
        ready(&self.house.config.audit()).map_err(|e| unready(&e))?;
        let barrier = self.sealed()?;
        let now = progress(barrier.config(), &barrier.progress());
        let share = match Share::parse(text.expose()) {
            Ok(share) => share,
            Err(e) => {
                self.share_refused(uid, plan, "not_a_share");
                return Ok(ShareOutcome::Refused {
                    reason: "not_a_share".into(),
                    message: e.to_string(),
                    progress: now,
                });
            }
        };
        self.opening();
        self.take_share(uid, plan, share)
    }

    /// Before shares are verified: a seal that comes from here on closes the house, and it stays closed.
    pub(super) fn opening(&self) {
        self.house.reopen();
        let mut view = super::View::clone(&self.view.load());
        view.opening = true;
        self.view.store(Arc::new(view));
    }

    /// The share of the open plan, under [`Keeper::opening`].
    pub(super) fn take_share(
        &mut self,
        uid: u32,
        plan: &Digest,
        share: Share,
    ) -> Result<ShareOutcome, ApiError> {
        let Phase::Sealed(barrier) = std::mem::replace(&mut self.phase, Phase::Nowhere) else {
            return Err(ApiError::of(ErrorCode::Internal));
        };
        match barrier.submit(
            share,
            PlanDigest::from_bytes(*plan.as_bytes()),
            steady_seconds(),
        ) {
            Unseal::Pending(barrier, given) => {
                let progress = progress(barrier.config(), &given);
                log::info!(
                    "unseal: share of uid {uid} taken, {} of {}",
                    given.given,
                    given.needed
                );
                self.phase = Phase::sealed(barrier);
                Ok(ShareOutcome::Pending(progress))
            }
            Unseal::Rejected(barrier, refusal) => {
                let progress = progress(barrier.config(), &barrier.progress());
                self.phase = Phase::sealed(barrier);
                self.share_refused(uid, plan, refusal_code(&refusal));
                Ok(ShareOutcome::Refused {
                    reason: refusal_code(&refusal).into(),
                    message: refusal.to_string(),
                    progress,
                })
            }
            Unseal::Failed(barrier, e) => {
                log::error!("unseal failed: {e}");
                self.phase = Phase::sealed(barrier);
                Err(ApiError::new(ErrorCode::Unavailable, &e.to_string()))
            }
            Unseal::Opened(barrier, report) => self.opened(uid, plan, barrier, &report),
        }
    }

    fn share_refused(&self, uid: u32, plan: &Digest, reason: &'static str) {
        log::warn!("unseal: share of uid {uid} refused: {reason}");
        // The log is closed; it notes this for its opening.
        let _ = self.house.audit.append(&Event::Ceremony {
            ceremony: Ceremony::Unseal,
            plan,
            step: Step::ShareRefused { reason },
            uid: Some(uid),
        });
    }

    /// The quorum is there: everything else that an open store needs, or the store is sealed again.
    fn opened(
        &mut self,
        uid: u32,
        plan: &Digest,
        barrier: Barrier<Unsealed>,
        report: &UnsealReport,
    ) -> Result<ShareOutcome, ApiError> {
        if let Err(e) = self.end_init() {
            self.phase = Phase::sealed(barrier.seal());
            log::error!("unsealed and sealed again: {}", e.message);
            return Err(e);
        }
        // Keys are in memory from here on: whoever seals can take them back, also if this hangs.
        let mut view = super::View::clone(&self.view.load());
        view.keys = Some(barrier.handle());
        self.view.store(Arc::new(view));
        let read = self
            .judge_witness(uid, &barrier)
            .and_then(|()| self.read_open(&barrier));
        match read {
            Ok(contents) => {
                self.phase = Phase::Unsealed(Box::new(Open {
                    barrier,
                    policy: contents.policy,
                    officers: contents.officers,
                    root: contents.root,
                    proposals: Proposals::default(),
                    copied: contents.copied,
                    backups: contents.backups,
                    stale: false,
                    store_key: contents.store_key,
                    given: None,
                    last: None,
                    ceremony: None,
                    rotating: Weak::new(),
                    care: contents.care,
                    unknown: Default::default(),
                    // Announced below.
                    health: (report.quarantined.iter())
                        .filter_map(|(name, reason)| {
                            let reason = reason.clone();
                            Some((VaultName::parse(name).ok()?, Health::Quarantined(reason)))
                        })
                        .collect(),
                }));
            }
            Err(e) => {
                self.house.audit.close(super::AUDIT_PATIENCE);
                self.phase = Phase::sealed(barrier.seal());
                log::error!("unsealed and sealed again: {}", e.message);
                return Err(e);
            }
        }
        // It was planned in the place of a store that did not serve.
        self.end_restore(Step::Cancelled, Some(uid));
        self.drain_all();
        let finished = self
            .announce(uid, plan, report)
            .and_then(|()| self.raise_counter(uid))
            .and_then(|()| self.refresh());
        if let Err(e) = finished {
            let _ = self.seal(None, "the unseal could not be finished");
            return Err(e);
        }
        log::info!(
            "unsealed with the share of uid {uid}: {} vaults, {} records",
            report.verified,
            report.records
        );
        self.witness_agreed();
        self.remove_retired();
        let receipt = self.receipt();
        let name = |n: &String| VaultName::parse(n).ok();
        Ok(ShareOutcome::Opened(api::Unsealed {
            vaults: report.verified as u64,
            records: report.records,
            quarantined: report
                .quarantined
                .iter()
                .filter_map(|(n, _)| name(n))
                .collect(),
            unavailable: report.unavailable.iter().filter_map(name).collect(),
            sealed: report.sealed.iter().filter_map(name).collect(),
            last_write_missing: report.last_write_missing.iter().filter_map(name).collect(),
            receipt,
        }))
    }

    /// Removes what a crash left of vaults that were rebuilt. Files of which control.db knows nothing stay: it may be one
    /// that was put back, and they what it does not know.
    fn remove_retired(&mut self) {
        let Ok(open) = self.open() else { return };
        let found = match open.vaults().remove_retired() {
            Ok(found) => found,
            Err(e) => {
                log::warn!("files of vaults that were rebuilt stay: {e}");
                return;
            }
        };
        for id in &found.unknown {
            log::warn!("control.db knows no vault of the file vaults/{id}.db; it stays");
        }
        let files = found.unknown.len() as u64;
        open.unknown = found.unknown;
        if files > 0
            && let Err(e) = (self.house.audit).append(&Event::VaultFilesUnknown { files })
        {
            log::error!("audit_lost: {files} files of no known vault: {e}");
        }
    }

    fn read_open(&self, barrier: &Barrier<Unsealed>) -> Result<Contents, ApiError> {
        let house = &self.house;
        let system = barrier.system();
        let damaged = |what: &str| ApiError::new(ErrorCode::VaultQuarantined, what);
        super::sharings::Sharings::judge(&system, barrier.config())?;
        let root = records::open(&system, records::ROOT).map_err(|e| records_error(&e))?;
        if Digest::of(root.expose()).as_bytes() != barrier.config().root_digest() {
            return Err(damaged(
                "the stored trust root is not the one of the seal config",
            ));
        }
        let root =
            mcpist_bundle::Root::parse(root.expose()).map_err(|e| damaged(&e.to_string()))?;
        let mut policy = Policy::read(&system).map_err(|e| records_error(&e))?;
        let backups = Backups::read(&system).map_err(|e| records_error(&e))?;
        let care = Care::read(&system).map_err(|e| records_error(&e))?;
        super::import::read_manifests(&mut policy, &house.config.registries());
        let enrolled = barrier.config().officers().iter().map(|o| Officer {
            name: o.name.clone(),
            public: o.public,
        });
        let officers = Officers::new(enrolled, barrier.config().is_dev());
        let store = Box::new(SystemVault(system));
        let copied = house
            .audit
            .open(&house.config.audit(), store, house.config.rotation)
            .map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()))?;
        Ok(Contents {
            backups,
            care,
            policy,
            officers,
            root,
            copied: Copied::of(copied),
            store_key: super::witness::store_key(barrier)?,
        })
    }

    fn announce(&mut self, uid: u32, plan: &Digest, report: &UnsealReport) -> Result<(), ApiError> {
        let house = Arc::clone(&self.house);
        let open = self.open()?;
        let append = |event: &Event<'_>| house.audit.append(event).map_err(|e| audit_error(&e));
        append(&Event::Ceremony {
            ceremony: Ceremony::Unseal,
            plan,
            step: Step::Completed,
            uid: Some(uid),
        })?;
        for (vault, reason) in &report.quarantined {
            if let Ok(vault) = VaultName::parse(vault) {
                append(&Event::VaultQuarantined {
                    vault: &vault,
                    reason,
                })?;
            }
        }
        for vault in report
            .last_write_missing
            .iter()
            .filter_map(|n| VaultName::parse(n).ok())
        {
            log::warn!(
                "vault {vault}: its last write is missing; a custodian puts it again and confirms: mcpist vault confirm {vault}"
            );
            append(&Event::LastWriteMissing {
                vault: &vault,
                confirmed: None,
            })?;
        }
        let seq = append(&Event::Unsealed {
            site: Some(open.root.site()),
            vaults: report.verified as u64,
            records: report.records,
            quarantined: report.quarantined.len() as u64,
        })?;
        let synced = house.audit.synced_blocking(seq);
        confirmed(synced.inspect_err(|e| log::error!("audit log: {e}")))
    }
}

impl Open {
    /// Files of vaults of which control.db knows nothing.
    pub(super) fn unknown_alarm(&self) -> Option<Alarm> {
        let first = self.unknown.first()?;
        let files = self.unknown.len();
        let message = format!(
            "control.db does not know {files} of the files in store/vaults, first {first}.db: if an older control.db was put back, put the newest back; else a crash cut off the making of a vault, and the file can be removed while mcpistd is stopped"
        );
        Some(Alarm {
            code: ErrorCode::VaultFileUnknown,
            message,
        })
    }
}

/// What an opened store holds for the keeper.
struct Contents {
    backups: Backups,
    care: Care,
    policy: Policy,
    officers: Officers,
    root: mcpist_bundle::Root,
    copied: Copied,
    store_key: Secret,
}

/// Whose shares open the store.
pub(super) fn shares(config: &SealConfig) -> api::Shares {
    api::Shares {
        generation: config.generation().get(),
        needed: config.threshold().needed(),
        holders: config.holders().iter().map(|h| h.label.clone()).collect(),
    }
}

/// Progress with the labels of those who gave.
pub(super) fn progress(config: &SealConfig, progress: &Progress) -> api::Progress {
    progress_of(config.sharing(), progress)
}

/// The same, of any sharing.
pub(super) fn progress_of(sharing: &Sharing, progress: &Progress) -> api::Progress {
    let label = |index: &u8| sharing.holder(*index).map(|h| h.label.clone());
    api::Progress {
        given: progress.given,
        needed: progress.needed,
        holders: progress.indices.iter().filter_map(label).collect(),
        expires_s: progress
            .expires
            .map(|at| at.saturating_sub(steady_seconds())),
    }
}
