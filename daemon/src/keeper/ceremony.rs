//! The two ceremonies of a store's life here: init and unseal.
//!
//! Init: a token that only root can read opens the gate for one uid; a plan is shown; confirming its digest makes
//! the store, with its first records, in one rename. Unseal: shares come in under the digest of the plan that their
//! holders saw; the last one verifies everything, opens the audit log and makes the first snapshot. Promises that a
//! refused share costs nothing, and that a store whose audit log cannot be opened is sealed again.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcpist_core::api::{
    self, ApiError, Base64, DeliveredShare, Done, InitDone, InitPlan, InitRequest, ShareOutcome,
};
use mcpist_core::change::{Officer, Officers};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Ceremony, Event, Step};
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{
    CeremonyRecord, Foundation, InitTerms, OfficerKey, Plan, PlanDigest, PlannedHolder, Progress,
    SealConfig, Share, Threshold, check_recipient, seal_shares_to,
};
use mcpist_sealer::{Barrier, Expect, Health, Op, Unseal, UnsealReport, Unsealed};
use mcpist_secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;

use super::codes::{confirmed, refusal_code};
use super::outbox::Copied;
use super::policy::Policy;
use super::proposals::Proposals;
use super::{Keeper, Open, Phase, StartError, audit_error, records, records_error, today, unready};
use crate::audit::{FirstKey, SystemVault, ready};
use crate::clock::steady_seconds;

/// Kind and name of the key that signs witness receipts.
const STORE_KEY: &str = "store-key";
/// The name of a development store's own officer.
const DEV_OFFICER: &str = "dev";

/// A plan to init, waiting for its confirmation.
pub(super) struct Planned {
    plan: Plan,
    root: Vec<u8>,
    uid: u32,
    /// A development store's own officer, whose key is in the plan like any officer's.
    dev_officer: Option<Secret>,
}

/// The one-time token of a blank store, and the uid that has shown it.
pub(super) struct InitGate {
    path: PathBuf,
    token: [u8; 32],
    open_to: Option<u32>,
}

impl InitGate {
    /// Writes a fresh token to `path`, readable by its owner alone.
    pub(super) fn open(path: &Path) -> Result<Self, StartError> {
        let token = mcpist_secret::random_bytes::<32>()?;
        let io = |source| StartError::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        std::io::Write::write_all(&mut file, format!("{}\n", hex::encode(token)).as_bytes())
            .map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            token,
            open_to: None,
        })
    }
}

impl Keeper {
    /// Takes the init token as it came over the secret socket.
    pub(crate) fn show_init_token(&mut self, uid: u32, shown: &Secret) -> Result<(), ApiError> {
        let gate = self
            .init
            .as_mut()
            .ok_or(ApiError::of(ErrorCode::AlreadyInitialised))?;
        let text = shown.expose().trim_ascii();
        let right = Secret::copy_of(hex::encode(gate.token).as_bytes())
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        if !right.ct_eq(text) {
            return Err(ApiError::new(
                ErrorCode::TicketInvalid,
                "this is not the init token of this start",
            ));
        }
        gate.open_to = Some(uid);
        Ok(())
    }

    /// Makes a plan to init. Nothing is stored.
    pub(crate) fn plan_init(
        &mut self,
        uid: u32,
        request: InitRequest,
    ) -> Result<InitPlan, ApiError> {
        self.init_allowed(uid)?;
        if request.dev != self.house.config.dev {
            return Err(ApiError::new(
                ErrorCode::RequestInvalid,
                "dev stores are made by mcpistd --dev, and only dev stores",
            ));
        }
        let invalid =
            |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::RequestInvalid, &e.to_string());
        let root = request.root.0;
        mcpist_bundle::Root::parse(&root).map_err(|e| invalid(&e))?;
        for holder in &request.holders {
            check_recipient(&holder.recipient).map_err(|e| invalid(&e))?;
        }
        let total = u8::try_from(request.holders.len()).unwrap_or(u8::MAX);
        let threshold = if request.dev {
            Threshold::dev(request.threshold, total)
        } else {
            Threshold::new(request.threshold, total)
        };
        let threshold = threshold.map_err(|e| invalid(&e))?;
        if !request.dev && request.officers.len() < 2 {
            return Err(ApiError::new(
                ErrorCode::RequestInvalid,
                "two or more officer keys are needed; give --officer NAME=KEY twice",
            ));
        }
        let mut officers: Vec<OfficerKey> = request
            .officers
            .into_iter()
            .map(|o| OfficerKey {
                name: o.name,
                public: o.public.0,
            })
            .collect();
        let mut dev_officer = None;
        if request.dev {
            let (seed, public) = key_pair()?;
            officers.push(OfficerKey {
                name: DEV_OFFICER.into(),
                public,
            });
            dev_officer = Some(seed);
        }
        let terms = InitTerms {
            holders: request
                .holders
                .into_iter()
                .map(|h| PlannedHolder {
                    label: h.label,
                    recipient: h.recipient,
                })
                .collect(),
            officers,
            root_digest: *Digest::of(&root).as_bytes(),
            dev: request.dev,
        };
        let plan = Plan::init(threshold, terms).map_err(|e| invalid(&e))?;
        let answer = InitPlan {
            plan: Base64(plan.to_bytes()),
            digest: digest(&plan),
        };
        self.phase = Phase::Blank(Some(Box::new(Planned {
            plan,
            root,
            uid,
            dev_officer,
        })));
        Ok(answer)
    }

    fn init_allowed(&self, uid: u32) -> Result<(), ApiError> {
        let gate = self
            .init
            .as_ref()
            .ok_or(ApiError::of(ErrorCode::AlreadyInitialised))?;
        if gate.open_to == Some(uid) {
            Ok(())
        } else {
            Err(ApiError::new(ErrorCode::Forbidden, "init needs its one-time token first")
                .next("run 'mcpist init' as a user who can read the init-token file in the state folder"))
        }
    }

    /// Carries out the plan: the store appears, the shares leave encrypted, the gate closes.
    pub(crate) fn confirm_init(
        &mut self,
        uid: u32,
        confirmed: &Digest,
    ) -> Result<InitDone, ApiError> {
        self.init_allowed(uid)?;
        let Phase::Blank(Some(planned)) = &self.phase else {
            return Err(ApiError::new(
                ErrorCode::PlanMismatch,
                "there is no plan; ask for one first",
            ));
        };
        if planned.uid != uid || digest(&planned.plan) != *confirmed {
            return Err(ApiError::of(ErrorCode::PlanMismatch));
        }
        let done = make_store(&self.house.config.store(), planned)?;
        // The store is made: its shares go out whatever comes now, or nobody would ever open it.
        self.phase = match Barrier::open(&self.house.config.store()) {
            Ok(barrier) => Phase::sealed(barrier),
            Err(e) => {
                log::error!("the new store could not be taken, restart mcpistd: {e}");
                Phase::Nowhere
            }
        };
        if let Some(gate) = self.init.take() {
            let _ = std::fs::remove_file(gate.path);
        }
        log::info!("initialised: a new store, sealed");
        Ok(done)
    }

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
    pub(crate) fn cancel_unseal(&mut self) -> Result<Done, ApiError> {
        self.sealed()?
            .cancel()
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        Ok(Done {})
    }

    fn sealed(&mut self) -> Result<&mut Barrier<mcpist_sealer::Sealed>, ApiError> {
        match &mut self.phase {
            Phase::Sealed(barrier) => Ok(barrier),
            Phase::Unsealed(_) => Err(ApiError::of(ErrorCode::AlreadyUnsealed)),
            Phase::Blank(_) => Err(ApiError::of(ErrorCode::NotInitialised)),
            Phase::Nowhere => Err(ApiError::of(ErrorCode::Internal)),
        }
    }

    /// Takes one share, given under `plan`; none where the audit log could not be opened after the last one.
    pub(crate) fn submit_share(
        &mut self,
        uid: u32,
        plan: &Digest,
        text: &Secret,
    ) -> Result<ShareOutcome, ApiError> {
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
        // Keys are in memory from here on: whoever seals can take them back, also if this hangs.
        let mut view = super::View::clone(&self.view.load());
        view.keys = Some(barrier.handle());
        self.view.store(Arc::new(view));
        match self.read_open(&barrier) {
            Ok(contents) => {
                self.phase = Phase::Unsealed(Box::new(Open {
                    barrier,
                    policy: contents.policy,
                    officers: contents.officers,
                    root: contents.root,
                    proposals: Proposals::default(),
                    copied: contents.copied,
                    stale: false,
                    last: None,
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
        self.drain_all();
        let finished = self
            .announce(uid, plan, report)
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
        let name = |n: &String| VaultName::parse(n).ok();
        Ok(ShareOutcome::Opened(api::Unsealed {
            vaults: report.verified as u64,
            records: report.records,
            quarantined: report
                .quarantined
                .iter()
                .filter_map(|(n, _)| name(n))
                .collect(),
            last_write_missing: report.last_write_missing.iter().filter_map(name).collect(),
        }))
    }

    fn read_open(&self, barrier: &Barrier<Unsealed>) -> Result<Contents, ApiError> {
        let house = &self.house;
        let system = barrier.system();
        let damaged = |what: &str| ApiError::new(ErrorCode::VaultQuarantined, what);
        let root = records::open(&system, records::ROOT).map_err(|e| records_error(&e))?;
        if Digest::of(root.expose()).as_bytes() != barrier.config().root_digest() {
            return Err(damaged(
                "the stored trust root is not the one of the seal config",
            ));
        }
        let root =
            mcpist_bundle::Root::parse(root.expose()).map_err(|e| damaged(&e.to_string()))?;
        let mut policy = Policy::read(&system).map_err(|e| records_error(&e))?;
        super::import::read_manifests(&mut policy, &house.config.registries());
        let enrolled = barrier.config().officers().iter().map(|o| Officer {
            name: o.name.clone(),
            public: o.public,
        });
        let officers = Officers::new(enrolled, barrier.config().is_dev());
        let store = Box::new(SystemVault(system));
        let copied = house
            .audit
            .open(
                &house.config.audit(),
                store,
                house.config.audit_segment_bytes,
            )
            .map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()))?;
        Ok(Contents {
            policy,
            officers,
            root,
            copied: Copied::of(copied),
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

/// What an opened store holds for the keeper.
struct Contents {
    policy: Policy,
    officers: Officers,
    root: mcpist_bundle::Root,
    copied: Copied,
}

/// Init's commit and what it gives out.
fn make_store(folder: &Path, planned: &Planned) -> Result<InitDone, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::Internal, &e.to_string());
    let foundation = Foundation::lay(&planned.plan, today()).map_err(|e| failed(&e))?;
    // Every share is sealed before anything is stored: a recipient that fails leaves no store behind.
    let mut shares = Vec::new();
    for (holder, share) in foundation
        .config()
        .holders()
        .iter()
        .zip(foundation.shares())
    {
        let age = seal_shares_to(&holder.recipient, share).map_err(|e| failed(&e))?;
        shares.push(DeliveredShare {
            label: holder.label.clone(),
            age,
        });
    }
    let audit = FirstKey::generate().map_err(|e| failed(&e))?;
    let (store_seed, store_key) = key_pair()?;
    let record = CeremonyRecord::new(
        foundation.config(),
        planned.plan.digest(),
        audit.public(),
        store_key,
    );
    let mut first = vec![audit.into_op(), named(STORE_KEY, store_seed)];
    first.push(named(
        records::ROOT,
        Secret::copy_of(&planned.root).map_err(|e| failed(&e))?,
    ));
    if let Some(seed) = &planned.dev_officer {
        let seed = Secret::copy_of(seed.expose()).map_err(|e| failed(&e))?;
        first.push(named(records::DEV_OFFICER, seed));
    }
    mcpist_sealer::create_with(
        folder,
        foundation.config().clone(),
        foundation.kek(),
        today(),
        first,
    )
    .map_err(|e| failed(&e))?;
    Ok(InitDone {
        shares,
        record: Base64(record.to_bytes()),
        record_text: record.to_text(),
    })
}

fn named(kind: &str, payload: Secret) -> Op {
    Op::Put {
        owner: None,
        name: kind.to_owned(),
        kind: kind.to_owned(),
        expiry: 0,
        hosts: Vec::new(),
        payload,
        expect: Expect::Absent,
    }
}

fn key_pair() -> Result<(Secret, [u8; 32]), ApiError> {
    let failed =
        |e: mcpist_secret::MemoryError| ApiError::new(ErrorCode::Unavailable, &e.to_string());
    let seed = Secret::fill(32, |out| {
        SystemRandom::new()
            .fill(out)
            .map_err(|_| mcpist_secret::MemoryError::Random)
    })
    .map_err(failed)?;
    let pair = signer(&seed)?;
    Ok((seed, mcpist_core::audit::public_key(&pair)))
}

/// The key pair of a stored seed.
pub(super) fn signer(seed: &Secret) -> Result<Ed25519KeyPair, ApiError> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose())
        .map_err(|_| ApiError::of(ErrorCode::Internal))
}

fn digest(plan: &Plan) -> Digest {
    Digest::from_bytes(*plan.digest().as_bytes())
}

/// Progress with the labels of those who gave.
pub(super) fn progress(config: &SealConfig, progress: &Progress) -> api::Progress {
    let label = |index: &u8| config.holder(*index).map(|h| h.label.clone());
    api::Progress {
        given: progress.given,
        needed: progress.needed,
        holders: progress.indices.iter().filter_map(label).collect(),
        expires_s: progress
            .expires
            .map(|at| at.saturating_sub(steady_seconds())),
    }
}
