//! No I/O, no clock. Collects the shares of one ceremony and names every wrong one.
//!
//! Owns: [`Collector`], and [`ValidShares`], the only thing that [`crate::combine`] takes. A share
//! passes when it came with this plan's digest, belongs to this store's current sharing, has the
//! digest that the seal config keeps for its number (compared in constant time), and was not given
//! before. A share that does not pass is dropped, which wipes it, and costs no progress.
//!
//! Promises: no order, repetition or mixture of wrong shares opens anything or loses a right one;
//! ten minutes after the first accepted share, all are wiped. Does not: rate-limit (a guess has to
//! hit 256 bits), or read a clock: `now` is in seconds and must not go backwards, so a monotonic
//! clock should feed it. Whoever owns the collector calls [`Collector::expire`] from a timer.

use crate::ids::{ConfigDigest, Generation, PlanDigest, SetId};
use crate::plan::Plan;
use crate::share::Share;
use crate::sharing::Sharing;

/// How long accepted shares are kept, in seconds.
pub const PENDING_SECONDS: u64 = 600;

/// Why a share was not accepted. The plan and the shares accepted so far stay as they were, except
/// after [`ShareRefusal::Closed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareRefusal {
    /// Given with the digest of another plan.
    #[error(
        "the share was given for another ceremony; read the plan again and give it with that digest"
    )]
    OtherPlan,
    /// Of another store, or of a vault in it.
    #[error("the share belongs to set {found}, this store's set is {expected}")]
    OtherStore {
        /// The share's set.
        found: SetId,
        /// The store's set.
        expected: SetId,
    },
    /// Of another quorum than the one of the vault that the ceremony is about.
    #[error("the share belongs to set {found}, the shares of vault {vault} to set {expected}")]
    OtherSet {
        /// The vault's name.
        vault: String,
        /// The share's set.
        found: SetId,
        /// The vault's set.
        expected: SetId,
    },
    /// Of an earlier sharing of the store or vault.
    #[error(
        "the share is of generation {found}, a rekey made generation {current}; use the share from that rekey"
    )]
    Superseded {
        /// The share's generation.
        found: Generation,
        /// The generation whose shares are asked for.
        current: Generation,
    },
    /// Of a later sharing: of a rekey that never ended, or the store was put back from before it.
    #[error(
        "the share is of generation {found}, those of {current} are in force; that rekey was never completed here, or the store was put back from before it: use the shares of generation {current}"
    )]
    Newer {
        /// The share's generation.
        found: Generation,
        /// The generation whose shares are asked for.
        current: Generation,
    },
    /// Not the share that was made.
    #[error("share number {index} is not the one that was made; compare it with the original")]
    Damaged {
        /// The number that the share carries.
        index: u8,
    },
    /// Given before in this ceremony.
    #[error("share number {index} ({label}) was accepted before; another holder is needed")]
    AlreadyGiven {
        /// The share's number.
        index: u8,
        /// Its holder.
        label: String,
    },
    /// Of the quorum that has consented, where the new one proves possession.
    #[error(
        "consent is complete: the share is of generation {found}; now the holders of generation {expected} each give their new share once"
    )]
    ConsentGiven {
        /// The share's generation.
        found: Generation,
        /// The generation of the new shares.
        expected: Generation,
    },
    /// The ceremony is over: complete, cancelled or expired.
    #[error("this ceremony is over ({0}); begin a new one")]
    Closed(ClosedBy),
}

impl ShareRefusal {
    /// The refusal as the people of `plan` are to read it: it names the vault that the plan is about.
    pub(crate) fn under(self, plan: &Plan) -> ShareRefusal {
        match (self, plan.vault()) {
            (ShareRefusal::OtherStore { found, expected }, Some(vault)) => ShareRefusal::OtherSet {
                vault: vault.name.clone(),
                found,
                expected,
            },
            (refusal, _) => refusal,
        }
    }
}

/// How a ceremony ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    /// All shares were given and handed on.
    Completion,
    /// Someone cancelled it.
    Cancel,
    /// Its time went by.
    Expiry,
}

impl std::fmt::Display for ClosedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ClosedBy::Completion => "complete",
            ClosedBy::Cancel => "cancelled",
            ClosedBy::Expiry => {
                "expired: shares are kept for 10 minutes after the first, a ceremony for 24 hours"
            }
        })
    }
}

/// How far a ceremony is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How many shares were accepted.
    pub given: u8,
    /// How many are needed.
    pub needed: u8,
    /// Which numbers were accepted, in the order given.
    pub indices: Vec<u8>,
    /// When they are wiped, on the caller's clock in seconds; nothing before the first.
    pub expires: Option<u64>,
}

/// The answer to a share.
#[derive(Debug)]
#[must_use]
pub enum Submission {
    /// Accepted; more are needed.
    Pending(Progress),
    /// Not accepted, and why.
    Refused(ShareRefusal),
    /// Accepted, and the last one needed.
    Complete(ValidShares),
}

/// Exactly as many distinct shares as are needed, each with the digest that the seal config keeps.
pub struct ValidShares {
    shares: Vec<Share>,
    needed: u8,
    set: SetId,
    generation: Generation,
    config: ConfigDigest,
}

impl ValidShares {
    pub(crate) fn shares(&self) -> &[Share] {
        &self.shares
    }

    pub(crate) fn needed(&self) -> u8 {
        self.needed
    }

    /// The lineage of sharings.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// The sharing.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The seal config that they were checked against.
    pub fn config(&self) -> ConfigDigest {
        self.config
    }

    /// The numbers of the shares, for the audit.
    pub fn indices(&self) -> Vec<u8> {
        self.shares.iter().map(Share::index).collect()
    }
}

impl std::fmt::Debug for ValidShares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidShares")
            .field("indices", &self.indices())
            .finish_non_exhaustive()
    }
}

/// One ceremony's shares.
#[derive(Debug)]
pub struct Collector {
    plan: PlanDigest,
    sharing: Sharing,
    config: ConfigDigest,
    accepted: Vec<Share>,
    expires: Option<u64>,
    closed: Option<ClosedBy>,
}

impl Collector {
    /// Begins to collect for one plan the shares of one sharing, which stands in the seal config
    /// with the digest `config`.
    pub fn new(sharing: &Sharing, config: ConfigDigest, plan: PlanDigest) -> Collector {
        Collector {
            plan,
            sharing: sharing.clone(),
            config,
            accepted: Vec::with_capacity(sharing.threshold.needed().into()),
            expires: None,
            closed: None,
        }
    }

    /// Takes a share that was given with the digest of `plan`.
    pub fn submit(&mut self, share: Share, plan: PlanDigest, now: u64) -> Submission {
        self.expire(now);
        if let Err(refusal) = self.check(&share, plan) {
            return Submission::Refused(refusal);
        }
        self.accepted.push(share);
        self.expires
            .get_or_insert(now.saturating_add(PENDING_SECONDS));
        let progress = self.progress();
        if progress.given < progress.needed {
            return Submission::Pending(progress);
        }
        let shares = std::mem::take(&mut self.accepted);
        self.close(ClosedBy::Completion);
        Submission::Complete(ValidShares {
            shares,
            needed: self.sharing.threshold.needed(),
            set: self.sharing.set,
            generation: self.sharing.generation,
            config: self.config,
        })
    }

    /// Wipes all shares if their time is over; says whether the ceremony has expired.
    pub fn expire(&mut self, now: u64) -> bool {
        if self.expires.is_some_and(|at| now >= at) {
            self.close(ClosedBy::Expiry);
        }
        self.closed == Some(ClosedBy::Expiry)
    }

    /// The time of the ceremony that these shares are for is over.
    pub(crate) fn end_of_time(&mut self) {
        if self.closed.is_none() {
            self.close(ClosedBy::Expiry);
        }
    }

    /// Wipes all shares and ends the ceremony.
    pub fn cancel(&mut self) {
        if self.closed.is_none() {
            self.close(ClosedBy::Cancel);
        }
    }

    /// The plan that shares must be given with.
    pub fn plan(&self) -> PlanDigest {
        self.plan
    }

    /// How the ceremony ended, if it has.
    pub fn closed(&self) -> Option<ClosedBy> {
        self.closed
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            given: self.accepted.len().try_into().unwrap_or(u8::MAX),
            needed: self.sharing.threshold.needed(),
            indices: self.accepted.iter().map(Share::index).collect(),
            expires: self.expires,
        }
    }

    fn close(&mut self, by: ClosedBy) {
        self.accepted.clear();
        self.expires = None;
        self.closed = Some(by);
    }

    fn check(&self, share: &Share, plan: PlanDigest) -> Result<(), ShareRefusal> {
        if let Some(by) = self.closed {
            return Err(ShareRefusal::Closed(by));
        }
        if plan != self.plan {
            return Err(ShareRefusal::OtherPlan);
        }
        let holder = self.sharing.judge(share)?;
        let index = share.index();
        if self.accepted.iter().any(|earlier| earlier.index() == index) {
            return Err(ShareRefusal::AlreadyGiven {
                index,
                label: holder.label.clone(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
