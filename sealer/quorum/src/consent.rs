//! No I/O, no clock. The consent of a quorum to one plan.
//!
//! Owns: [`Consent`], the first phase of every ceremony that a running store takes part in: the
//! current shares are collected under a plan that is for this very seal config. Rekey, rotate root and
//! restore begin with it, and what a vault's own quorum is asked for. Promises what [`crate::Collector`]
//! does, and that the whole ceremony ends [`CEREMONY_SECONDS`] after it was planned, shares or none.
//! Does not: know whether the shares' secret opens anything; whoever holds the store finds out.

use crate::collector::{ClosedBy, Collector, Progress, ShareRefusal, Submission};
use crate::config::SealConfig;
use crate::ids::{ConfigDigest, PlanDigest, StoreId};
use crate::plan::{Act, Plan};
use crate::share::Share;
use crate::sharing::Sharing;
use crate::vault_config::VaultConfig;

/// How long a ceremony may take from its plan to its end, in seconds.
pub const CEREMONY_SECONDS: u64 = 24 * 3600;

/// The plan is for another seal config, or for an act that nobody consents to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this plan is not one that this quorum consents to: plan the ceremony anew")]
pub struct NotConsentable;

/// A plan that waits for the current quorum.
#[derive(Debug)]
pub struct Consent {
    plan: Plan,
    collector: Collector,
    ends: u64,
}

impl Consent {
    /// Begins to collect for `plan` at `now`, in seconds on a clock that does not go backwards.
    pub fn begin(plan: Plan, config: &SealConfig, now: u64) -> Result<Consent, NotConsentable> {
        let of = match plan.act() {
            Act::Rekey(terms) => terms.config,
            Act::RotateRoot(config) | Act::Restore { config, .. } | Act::Drill { config, .. } => {
                *config
            }
            Act::Init(_) | Act::Unseal(_) | Act::UnsealVault { .. } | Act::RekeyVault(_) => {
                return Err(NotConsentable);
            }
        };
        if of != config.digest() {
            return Err(NotConsentable);
        }
        Consent::collect(plan, config.store(), config.sharing(), of, now)
    }

    /// Begins to collect for `plan` the shares of a vault's own quorum, as [`Consent::begin`] does.
    pub fn begin_vault(
        plan: Plan,
        config: &VaultConfig,
        now: u64,
    ) -> Result<Consent, NotConsentable> {
        let (vault, of) = match plan.act() {
            Act::UnsealVault { vault, config } => (vault, *config),
            Act::RekeyVault(terms) => (&terms.vault, terms.replaces.ok_or(NotConsentable)?),
            _ => return Err(NotConsentable),
        };
        if of != config.digest() || vault.id != *config.vault() {
            return Err(NotConsentable);
        }
        Consent::collect(plan, config.store(), config.sharing(), of, now)
    }

    fn collect(
        plan: Plan,
        store: StoreId,
        sharing: &Sharing,
        of: ConfigDigest,
        now: u64,
    ) -> Result<Consent, NotConsentable> {
        let named = (
            plan.store(),
            plan.set(),
            plan.generation(),
            plan.threshold(),
        );
        let is = (store, sharing.set, sharing.generation, sharing.threshold);
        if named != is {
            return Err(NotConsentable);
        }
        let collector = Collector::new(sharing, of, plan.digest());
        Ok(Consent {
            plan,
            collector,
            ends: now.saturating_add(CEREMONY_SECONDS),
        })
    }

    /// Takes a share that was given with the digest of `plan`.
    pub fn submit(&mut self, share: Share, plan: PlanDigest, now: u64) -> Submission {
        if self.expire(now) {
            return Submission::Refused(ShareRefusal::Closed(ClosedBy::Expiry));
        }
        match self.collector.submit(share, plan, now) {
            Submission::Refused(refusal) => Submission::Refused(refusal.under(&self.plan)),
            taken => taken,
        }
    }

    /// Ends it if its time is over, or that of its first share; says whether it has expired.
    pub fn expire(&mut self, now: u64) -> bool {
        if now >= self.ends {
            self.collector.end_of_time();
        }
        self.collector.expire(now)
    }

    /// What is consented to.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far it is. Before the first share it expires with the ceremony.
    pub fn progress(&self) -> Progress {
        let mut progress = self.collector.progress();
        progress.expires = Some(progress.expires.map_or(self.ends, |at| at.min(self.ends)));
        progress
    }

    /// When the whole ceremony ends.
    pub(crate) fn ends(&self) -> u64 {
        self.ends
    }
}
