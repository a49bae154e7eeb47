//! No I/O, no clock. New shares for a store, or for one vault's own quorum, from consent to the switch.
//!
//! Owns: the states after [`Consent`], each given by value: [`Delivery`] (the new shares exist, left
//! encrypted, and their holders prove that they have them) and [`Switch`] (enough of them did). A store
//! is switched from a [`Switch`] alone, and the only way there is
//!
//! ```text
//! Consent ── t current shares ──▶ Delivery ── t′ new holders prove possession ──▶ Switch
//!    └── cancel, 10 min after the first share, 24 h ──┴── cancel, 24 h ──▶ nothing happened
//! ```
//!
//! A vault that is made with a quorum begins with the [`Delivery`]: there is nobody to consent yet.
//!
//! Promises: until the store was switched the current quorum opens it and no new share does, whatever
//! became of the ceremony; the new shares were combined before they left; a share that is given as
//! proof is compared with its digest in constant time and wiped at once. A proof that is wrong, of the
//! other quorum, repeated or given under another plan is refused by name and costs nothing.
//! Does not: ask the root key (the sealer does), or remember generations that were tried (the store
//! does, before the first share leaves).

use mcpist_secret::Key;

use crate::collector::{ClosedBy, Progress, ShareRefusal, ValidShares};
use crate::config::{ConfigError, SealConfig, SealConfigParts};
use crate::consent::{CEREMONY_SECONDS, Consent};
use crate::delivery::{DeliverError, seal_shares_to};
use crate::ids::{ConfigDigest, PlanDigest};
use crate::new_sharing::NewSharing;
use crate::plan::{Act, Plan, VaultTerms};
use crate::share::Share;
use crate::sharing::{Shared, Sharing};
use crate::split::SplitError;
use crate::vault_config::{VaultConfig, VaultConfigParts};

/// Why no new shares were made. The current ones are what they were.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The plan is for another act.
    #[error("this plan makes no new shares: begin with a plan of rekey")]
    NotRekey,
    /// The shares that consent are not those of the config.
    #[error("the shares were given for another seal config: plan the rekey anew")]
    OtherConfig,
    /// The config that results does not obey the rules.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret was not split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A share could not be encrypted to its holder.
    #[error("the share of {label}: {source}")]
    Deliver {
        /// The holder.
        label: String,
        /// What is wrong.
        source: DeliverError,
    },
}

/// A new share on its way: its holder, and an armored age file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The holder's label.
    pub label: String,
    /// The share, encrypted to the holder.
    pub age: String,
}

/// New shares that nothing opens for yet, and who has proved to have one. `C` is the config that there will be: the
/// store's, or that of one vault.
#[derive(Debug)]
pub struct Delivery<C = SealConfig> {
    plan: Plan,
    replaces: Option<ConfigDigest>,
    config: C,
    kek: Key,
    letters: Vec<Letter>,
    proven: Vec<u8>,
    ends: u64,
}

/// The answer to a new share.
#[derive(Debug)]
#[must_use]
pub enum Proof<C = SealConfig> {
    /// Its holder has it; more are needed.
    Pending(Delivery<C>, Progress),
    /// Not accepted, and why. What was proved before still counts.
    Refused(Delivery<C>, ShareRefusal),
    /// Enough holders have theirs.
    Complete(Switch<C>),
}

/// A new quorum that exists and has its shares: what a store or vault is switched to.
#[derive(Debug)]
pub struct Switch<C = SealConfig>(Delivery<C>);

impl Delivery<SealConfig> {
    /// Makes the new shares that `consent`'s plan asks for. `shares` are those that completed it, and are
    /// wiped here; `current` is the seal config that they are of.
    pub fn make(
        consent: Consent,
        shares: ValidShares,
        current: &SealConfig,
    ) -> Result<Delivery, RekeyError> {
        let Act::Rekey(terms) = consent.plan().act() else {
            return Err(RekeyError::NotRekey);
        };
        if shares.config() != terms.config || current.digest() != terms.config {
            return Err(RekeyError::OtherConfig);
        }
        drop(shares);
        let new = NewSharing::make(
            current.set(),
            terms.generation,
            terms.threshold,
            &terms.holders,
        )?;
        let config = |sharing| {
            SealConfig::new(SealConfigParts {
                store: current.store(),
                sharing,
                root_digest: *current.root_digest(),
                officers: current.officers().to_vec(),
                dev: current.is_dev(),
                created: current.created(),
            })
        };
        let (replaces, ends) = (Some(current.digest()), consent.ends());
        Delivery::of(consent.plan().clone(), replaces, new, config, ends)
    }
}

impl Delivery<VaultConfig> {
    /// Makes the new shares of a vault that has a quorum already, as [`Delivery::make`] does.
    pub fn make_for_vault(
        consent: Consent,
        shares: ValidShares,
        current: &VaultConfig,
    ) -> Result<Delivery<VaultConfig>, RekeyError> {
        let Act::RekeyVault(terms) = consent.plan().act() else {
            return Err(RekeyError::NotRekey);
        };
        let replaces = Some(current.digest());
        if Some(shares.config()) != replaces || terms.replaces != replaces {
            return Err(RekeyError::OtherConfig);
        }
        drop(shares);
        let ends = consent.ends();
        Delivery::to_vault(consent.plan(), terms, current.created(), ends)
    }

    /// Makes the first shares of a vault that `plan` makes. There is nobody who could consent, and nothing in it. `clock`
    /// is in seconds since 1970, `now` on the clock of ceremonies.
    pub fn make_first(
        plan: &Plan,
        clock: u64,
        now: u64,
    ) -> Result<Delivery<VaultConfig>, RekeyError> {
        match plan.act() {
            Act::RekeyVault(terms) if terms.replaces.is_none() => {
                Delivery::to_vault(plan, terms, clock, now.saturating_add(CEREMONY_SECONDS))
            }
            _ => Err(RekeyError::NotRekey),
        }
    }

    fn to_vault(
        plan: &Plan,
        terms: &VaultTerms,
        created: u64,
        ends: u64,
    ) -> Result<Delivery<VaultConfig>, RekeyError> {
        let new = NewSharing::make(
            plan.set(),
            terms.generation,
            terms.threshold,
            &terms.holders,
        )?;
        let config = |sharing| {
            VaultConfig::new(VaultConfigParts {
                store: plan.store(),
                vault: terms.vault.id,
                sharing,
                dev: terms.dev,
                created,
            })
        };
        Delivery::of(plan.clone(), terms.replaces, new, config, ends)
    }
}

impl<C: Shared> Delivery<C> {
    fn of(
        plan: Plan,
        replaces: Option<ConfigDigest>,
        new: NewSharing,
        config: impl FnOnce(Sharing) -> Result<C, ConfigError>,
        ends: u64,
    ) -> Result<Delivery<C>, RekeyError> {
        let NewSharing {
            sharing,
            kek,
            shares,
        } = new;
        let letters = sharing.holders.iter().zip(&shares).map(|(holder, share)| {
            let label = holder.label.clone();
            match seal_shares_to(&holder.recipient, share) {
                Ok(age) => Ok(Letter { label, age }),
                Err(source) => Err(RekeyError::Deliver { label, source }),
            }
        });
        let letters = letters.collect::<Result<_, _>>()?;
        Ok(Delivery {
            plan,
            replaces,
            config: config(sharing)?,
            kek,
            letters,
            proven: Vec::new(),
            ends,
        })
    }

    /// The new shares, encrypted, in order of their holders. May be taken more than once.
    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// What is being done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The config that there will be.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// How many holders have proved to have their share.
    pub fn progress(&self) -> Progress {
        Progress {
            given: self.proven.len().try_into().unwrap_or(u8::MAX),
            needed: self.config.sharing().threshold.needed(),
            indices: self.proven.clone(),
            expires: Some(self.ends),
        }
    }

    /// Whether its time is over at `now`. Whoever owns it drops it then, which wipes its keys.
    pub fn has_expired(&self, now: u64) -> bool {
        now >= self.ends
    }

    /// Takes a new share as proof that its holder has it, and wipes it.
    pub fn prove(mut self, share: Share, plan: PlanDigest, now: u64) -> Proof<C> {
        match self.judge(&share, plan, now) {
            Err(refusal) => Proof::Refused(self, refusal),
            Ok(()) => {
                self.proven.push(share.index());
                let progress = self.progress();
                if progress.given < progress.needed {
                    Proof::Pending(self, progress)
                } else {
                    Proof::Complete(Switch(self))
                }
            }
        }
    }

    fn judge(&self, share: &Share, plan: PlanDigest, now: u64) -> Result<(), ShareRefusal> {
        if self.has_expired(now) {
            return Err(ShareRefusal::Closed(ClosedBy::Expiry));
        }
        if plan != self.plan.digest() {
            return Err(ShareRefusal::OtherPlan);
        }
        let sharing = self.config.sharing();
        let consented = self.replaces.is_some() && share.generation() == self.plan.generation();
        if consented && share.set() == sharing.set {
            return Err(ShareRefusal::ConsentGiven {
                found: share.generation(),
                expected: sharing.generation,
            });
        }
        let holder = sharing.judge(share).map_err(|r| r.under(&self.plan))?;
        let index = share.index();
        if self.proven.contains(&index) {
            return Err(ShareRefusal::AlreadyGiven {
                index,
                label: holder.label.clone(),
            });
        }
        Ok(())
    }
}

impl<C> Switch<C> {
    /// The config that there will be.
    pub fn config(&self) -> &C {
        &self.0.config
    }

    /// The key that wraps the root key under it.
    pub fn kek(&self) -> &Key {
        &self.0.kek
    }

    /// What is being done.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The config that it takes the place of; none where a vault is made.
    pub fn replaces(&self) -> Option<ConfigDigest> {
        self.0.replaces
    }

    /// Whether the root key is replaced too.
    pub fn rotates_root(&self) -> bool {
        matches!(self.0.plan.act(), Act::Rekey(terms) if terms.rotate_root)
    }

    /// Nothing was certainly switched: the last proof is given once more, when it can be.
    pub fn undo(mut self) -> Delivery<C> {
        self.0.proven.pop();
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
