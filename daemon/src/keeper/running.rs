//! The ceremony of an open store that waits for shares, and what is said of it.
//!
//! Owns [`Running`]: the phase with whose shares it waits for, of the store or of a vault's own quorum, and the audit line of
//! each step. Does not: take shares ([`super::ceremony`] does).

use mcpist_core::api::{Base64, CeremonyAct, CeremonyPhase, OpenCeremony, Progress};
use mcpist_core::event::{self, Event, Step};
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{Act, Consent, Delivery, Plan, Sharing, VaultConfig};

use super::init::digest;
use super::unseal::{progress, progress_of};

/// A ceremony that waits for shares.
pub(super) enum Running {
    /// For those that open the store, or the vault.
    Consent(Box<Consent>, Of),
    /// For the new ones.
    Proof(Box<Delivery>),
    /// For the new ones of a vault.
    VaultProof(Box<Delivery<VaultConfig>>, VaultName),
}

/// Whose consent a ceremony waits for.
pub(super) struct Of {
    pub(super) sharing: Sharing,
    /// The vault whose own quorum it is.
    pub(super) vault: Option<VaultName>,
}

impl Running {
    pub(super) fn plan(&self) -> &Plan {
        match self {
            Running::Consent(consent, _) => consent.plan(),
            Running::Proof(delivery) => delivery.plan(),
            Running::VaultProof(delivery, _) => delivery.plan(),
        }
    }

    pub(super) fn vault(&self) -> Option<&VaultName> {
        match self {
            Running::Consent(_, of) => of.vault.as_ref(),
            Running::Proof(_) => None,
            Running::VaultProof(_, vault) => Some(vault),
        }
    }

    pub(super) fn phase(&self) -> CeremonyPhase {
        match self {
            Running::Consent(..) => CeremonyPhase::Consent,
            Running::Proof(_) | Running::VaultProof(..) => CeremonyPhase::Proof,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self {
            Running::Consent(consent, of) => progress_of(&of.sharing, &consent.progress()),
            Running::Proof(delivery) => progress(delivery.config(), &delivery.progress()),
            Running::VaultProof(delivery, _) => {
                progress_of(delivery.config().sharing(), &delivery.progress())
            }
        }
    }

    /// Ends it if its time is over; whether it is.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        match self {
            Running::Consent(consent, _) => consent.expire(now),
            Running::Proof(delivery) => delivery.has_expired(now),
            Running::VaultProof(delivery, _) => delivery.has_expired(now),
        }
    }

    pub(super) fn event<'a>(&'a self, plan: &'a Digest, step: Step, uid: Option<u32>) -> Event<'a> {
        event_of((act_of(self.plan()), self.vault()), plan, step, uid)
    }
}

/// A step of an act of the store, or of a vault's own quorum.
pub(super) fn event_of<'a>(
    (act, vault): (CeremonyAct, Option<&'a VaultName>),
    plan: &'a Digest,
    step: Step,
    uid: Option<u32>,
) -> Event<'a> {
    let ceremony = match act {
        CeremonyAct::Rekey => event::Ceremony::Rekey,
        CeremonyAct::RotateRoot => event::Ceremony::Rotate,
        CeremonyAct::UnsealVault => event::Ceremony::UnsealVault,
        CeremonyAct::NewVault => event::Ceremony::NewVault,
        CeremonyAct::RekeyVault => event::Ceremony::RekeyVault,
    };
    match vault {
        Some(vault) => Event::VaultCeremony {
            vault,
            ceremony,
            plan,
            step,
            uid,
        },
        None => Event::Ceremony {
            ceremony,
            plan,
            step,
            uid,
        },
    }
}

/// Only plans of these acts are begun here.
pub(super) fn act_of(plan: &Plan) -> CeremonyAct {
    match plan.act() {
        Act::Rekey(_) => CeremonyAct::Rekey,
        Act::UnsealVault { .. } => CeremonyAct::UnsealVault,
        Act::RekeyVault(terms) if terms.replaces.is_none() => CeremonyAct::NewVault,
        Act::RekeyVault(_) => CeremonyAct::RekeyVault,
        _ => CeremonyAct::RotateRoot,
    }
}

/// As operators see it.
pub(super) fn open_ceremony(running: &Running) -> OpenCeremony {
    let plan = running.plan();
    OpenCeremony {
        plan: Base64(plan.to_bytes()),
        digest: digest(plan),
        act: act_of(plan),
        vault: running.vault().cloned(),
        phase: running.phase(),
        progress: running.progress(),
    }
}
