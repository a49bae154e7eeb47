//! Init: the ceremony that makes a store.
//!
//! A token that only root can read opens the gate for one uid; a plan is shown; confirming its digest makes the store,
//! with its first records, in one rename, and its shares leave encrypted.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mcpist_core::api::{ApiError, Base64, DeliveredShare, InitDone, InitPlan, InitRequest};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use mcpist_quorum::{
    CeremonyRecord, Foundation, InitTerms, OfficerKey, Plan, PlannedHolder, Recorded, Threshold,
    check_recipient, seal_shares_to,
};
use mcpist_sealer::{Barrier, Expect, Op};
use mcpist_secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;

use super::{Keeper, Phase, StartError, records, today};
use crate::audit::FirstKey;

/// Kind and name of the key that signs witness receipts.
pub(super) const STORE_KEY: &str = "store-key";
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
    let (store_seed, _) = key_pair()?;
    let record = CeremonyRecord::sign(
        Recorded::Init,
        foundation.config(),
        planned.plan.digest(),
        foundation.config().created(),
        audit.public(),
        &signer(&store_seed)?,
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

pub(super) fn digest(plan: &Plan) -> Digest {
    Digest::from_bytes(*plan.digest().as_bytes())
}
