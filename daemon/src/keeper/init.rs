//! Init: the ceremony that makes a store.
//!
//! A token that only root can read opens the gate for one uid; a plan is shown; confirming its digest makes the store,
//! with its first records, in one rename, and its shares leave encrypted. The first unseal ends init: until then it may be
//! run again, over restarts too, and replaces a store that holds nothing. Promises that afterwards it never does: the mark
//! of an unopened store ([`Unopened`]) goes before its keys are used.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mcpist_core::api::{ApiError, Base64, DeliveredShare, InitDone, InitPlan, InitRequest};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Step;
use mcpist_core::ids::Digest;
use mcpist_quorum::{
    CeremonyRecord, Foundation, InitTerms, OfficerKey, Plan, PlannedHolder, Recorded, StoreId,
    Threshold, check_recipient, seal_shares_to,
};
use mcpist_sealer::fault::point;
use mcpist_sealer::{Barrier, Expect, Op};
use mcpist_secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;

use super::{Keeper, Phase, StartError, lost, records, today};
use crate::audit::FirstKey;
use crate::config::Config;

/// Kind and name of the key that signs witness receipts.
pub(super) const STORE_KEY: &str = "store-key";
/// The name of a development store's own officer.
const DEV_OFFICER: &str = "dev";

/// A plan to init, waiting for its confirmation.
pub(super) struct Planned {
    plan: Plan,
    root: Vec<u8>,
    /// A development store's own officer, whose key is in the plan like any officer's.
    dev_officer: Option<Secret>,
}

/// The one-time token of a store that was never opened or is not there, the uid that has shown it, and its plan.
pub(super) struct InitGate {
    path: PathBuf,
    token: [u8; 32],
    open_to: Option<u32>,
    planned: Option<Box<Planned>>,
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
            planned: None,
        })
    }

    /// Takes the token away: no init from here on.
    fn close(self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            log::warn!("{}: {e}; it opens nothing any more", self.path.display());
        }
    }
}

impl Keeper {
    /// Takes the init token as it came over the secret socket.
    pub(crate) fn show_init_token(&mut self, uid: u32, shown: &Secret) -> Result<(), ApiError> {
        let gate = self.gate()?;
        let text = shown.expose().trim_ascii();
        let right = Secret::copy_of(hex::encode(gate.token).as_bytes())
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        if !right.ct_eq(text) {
            return Err(ApiError::new(
                ErrorCode::TicketInvalid,
                "this is not the init token of this start",
            ));
        }
        if gate.open_to != Some(uid) {
            // What somebody else planned is not this one's to confirm.
            gate.planned = None;
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
            replaces: match &self.phase {
                Phase::Sealed(barrier) => Some(barrier.config().store().to_string()),
                _ => None,
            },
        };
        self.init_allowed(uid)?.planned = Some(Box::new(Planned {
            plan,
            root,
            dev_officer,
        }));
        Ok(answer)
    }

    fn gate(&mut self) -> Result<&mut InitGate, ApiError> {
        match (&mut self.init, &self.phase) {
            (Some(gate), _) => Ok(gate),
            (None, Phase::Blank) => Err(lost::refusal()),
            (None, _) => Err(ApiError::of(ErrorCode::AlreadyInitialised)),
        }
    }

    pub(super) fn init_allowed(&mut self, uid: u32) -> Result<&mut InitGate, ApiError> {
        let gate = self.gate()?;
        if gate.open_to == Some(uid) {
            Ok(gate)
        } else {
            Err(ApiError::new(ErrorCode::Forbidden, "init needs its one-time token first")
                .next("run 'mcpist init' as a user who can read the init-token file in the state folder"))
        }
    }

    /// Carries out the plan: the store appears, in the place of one that was never opened, and the shares leave
    /// encrypted. The gate closes, and a new one waits until the store is opened for the first time.
    pub(crate) fn confirm_init(
        &mut self,
        uid: u32,
        confirmed: &Digest,
    ) -> Result<InitDone, ApiError> {
        let Some(planned) = &self.init_allowed(uid)?.planned else {
            return Err(ApiError::new(
                ErrorCode::PlanMismatch,
                "there is no plan; ask for one first",
            ));
        };
        if digest(&planned.plan) != *confirmed {
            return Err(ApiError::of(ErrorCode::PlanMismatch));
        }
        let Some(planned) = self.init_allowed(uid)?.planned.take() else {
            return Err(ApiError::of(ErrorCode::PlanMismatch));
        };
        let folder = self.house.config.store();
        let old = match std::mem::replace(&mut self.phase, Phase::Nowhere) {
            Phase::Sealed(barrier) => Some(barrier.config().store()),
            other => {
                self.phase = other;
                None
            }
        };
        let marks = old.into_iter().chain([planned.plan.store()]);
        let made = (self.unopened().write(&marks.collect::<Vec<_>>()))
            .and_then(|()| make_store(&folder, &planned, old.is_some()));
        // Where the store is made its shares go out whatever comes now, or nobody would ever open it; where it is not, an
        // old one is as it was.
        if made.is_ok() || old.is_some() {
            self.phase = match Barrier::open(&folder) {
                Ok(barrier) => Phase::sealed(barrier),
                Err(e) => {
                    log::error!("the store could not be taken, restart mcpistd: {e}");
                    Phase::Nowhere
                }
            };
        }
        let done = made?;
        // It was planned in the place of the store that is gone.
        self.end_restore(Step::Cancelled, Some(uid));
        // Whoever begins anew shows a new token.
        let token = self.house.config.init_token();
        self.init = InitGate::open(&token)
            .inspect_err(|e| log::warn!("no init again before a restart: {e}"))
            .ok();
        log::info!("initialised: a new store, sealed; until it is opened, init may be run again");
        Ok(done)
    }

    /// The first unseal ends init. It is durable before the keys are used, or they are not.
    pub(super) fn end_init(&mut self) -> Result<(), ApiError> {
        if let Some(gate) = self.init.take() {
            if let Err(e) = self.unopened().remove() {
                self.init = Some(gate);
                return Err(e);
            }
            gate.close();
        }
        Ok(())
    }

    fn unopened(&self) -> Unopened {
        Unopened::of(&self.house.config)
    }
}

/// The mark of stores that init made and nobody has opened: their ids, one a line, in a file beside the store's folder.
pub(super) struct Unopened(PathBuf);

impl Unopened {
    pub(super) fn of(config: &Config) -> Unopened {
        Unopened(config.unopened())
    }

    /// Whether this store was never opened. A mark that cannot be read is none.
    pub(super) fn names(&self, store: StoreId) -> bool {
        std::fs::read_to_string(&self.0)
            .is_ok_and(|ids| ids.lines().any(|line| line.parse() == Ok(store)))
    }

    /// Before a store is made: while one takes the other's place, both are marked.
    fn write(&self, stores: &[StoreId]) -> Result<(), ApiError> {
        let new = self.0.with_extension("new");
        let text: String = stores.iter().map(|store| format!("{store}\n")).collect();
        std::fs::write(&new, text)
            .and_then(|()| std::fs::File::open(&new)?.sync_all())
            .and_then(|()| point("init.mark"))
            .and_then(|()| std::fs::rename(&new, &self.0))
            .and_then(|()| self.sync())
            .and_then(|()| point("init.marked"))
            .map_err(|e| self.failed(&e))
    }

    fn remove(&self) -> Result<(), ApiError> {
        let removed = point("init.unmark").and_then(|()| std::fs::remove_file(&self.0));
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => self.sync().and_then(|()| point("init.unmarked")),
        }
        .map_err(|e| self.failed(&e))
    }

    fn sync(&self) -> std::io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(folder)?.sync_all()
    }

    fn failed(&self, e: &std::io::Error) -> ApiError {
        let text = format!("{}: {e}", self.0.display());
        ApiError::new(ErrorCode::Unavailable, &text)
    }
}

/// Init's commit and what it gives out.
fn make_store(folder: &Path, planned: &Planned, again: bool) -> Result<InitDone, ApiError> {
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
    let make = if again {
        mcpist_sealer::replace_with
    } else {
        mcpist_sealer::create_with
    };
    make(
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
