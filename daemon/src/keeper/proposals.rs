//! Changes that wait for approvals. No I/O and no clock: the time is passed in.
//!
//! Promises that a proposal is gone after [`LIFETIME_S`] or when its proposer takes it back, and that no one user's
//! proposals keep the others' out. Does not judge approvals.

use std::collections::BTreeMap;

use mcpist_core::change::{Approval, Change};
use mcpist_core::ids::Digest;

/// How long a proposal waits, in seconds.
pub(crate) const LIFETIME_S: u64 = 24 * 60 * 60;
/// Proposals kept at once.
const KEPT: usize = 64;
/// Of them, those of one user.
const OF_ONE_USER: usize = 16;

/// A change that waits for approvals.
#[derive(Clone)]
pub(crate) struct Proposal {
    pub(crate) change: Change,
    /// Who proposed it.
    pub(crate) uid: u32,
    pub(crate) approvals: Vec<Approval>,
    /// Who brought those. What a change needs depends on them as on its proposer.
    pub(crate) brought_by: Vec<u32>,
}

impl Proposal {
    /// All who ask for the change.
    pub(crate) fn requesters(&self) -> Vec<u32> {
        let mut uids = self.brought_by.clone();
        uids.push(self.uid);
        uids
    }
}

/// What waits, each by the digest of its change.
#[derive(Default)]
pub(crate) struct Proposals {
    /// With the time at which it expires, in seconds of a clock that never goes back.
    waiting: BTreeMap<Digest, (u64, Proposal)>,
}

/// Why a proposal was not taken, or not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposalError {
    /// One user's bound.
    #[error("{OF_ONE_USER} changes of yours wait for approval; approve or withdraw one of them")]
    TooManyOfYours,
    /// The bound of all.
    #[error("{KEPT} changes wait for approval; approve one of them, or have one withdrawn")]
    TooMany,
    /// None of this digest.
    #[error("no such change is proposed; propose it again")]
    Unknown,
    /// Another user's.
    #[error("uid {0} proposed this change, and nobody else withdraws it")]
    NotYours(u32),
    /// The same change, by another user.
    #[error(
        "uid {0} proposed this very change; approve it, or wait until it is withdrawn or its day is over"
    )]
    Waiting(u32),
}

impl Proposals {
    /// Keeps `proposal` until `now` and [`LIFETIME_S`]; its user's own of the same change makes room for it, another's
    /// does not: what a change needs depends on who asks for it.
    pub(crate) fn put(
        &mut self,
        change: Digest,
        proposal: Proposal,
        now: u64,
    ) -> Result<(), ProposalError> {
        self.expire(now);
        match self.waiting.get(&change) {
            Some((_, waiting)) if waiting.uid != proposal.uid => {
                return Err(ProposalError::Waiting(waiting.uid));
            }
            _ => {}
        }
        let others = self.waiting.iter().filter(|(digest, _)| **digest != change);
        let own = others.clone().filter(|(_, (_, p))| p.uid == proposal.uid);
        if own.count() >= OF_ONE_USER {
            return Err(ProposalError::TooManyOfYours);
        }
        if others.count() >= KEPT {
            return Err(ProposalError::TooMany);
        }
        let expires = now.saturating_add(LIFETIME_S);
        self.waiting.insert(change, (expires, proposal));
        Ok(())
    }

    /// The proposal of this change, while it waits.
    pub(crate) fn get(&mut self, change: &Digest, now: u64) -> Option<&mut Proposal> {
        self.expire(now);
        self.waiting.get_mut(change).map(|(_, proposal)| proposal)
    }

    /// Takes a proposal away: its change is stored, or void.
    pub(crate) fn remove(&mut self, change: &Digest) {
        self.waiting.remove(change);
    }

    /// Takes a proposal back, for who made it.
    pub(crate) fn withdraw(
        &mut self,
        uid: u32,
        change: &Digest,
        now: u64,
    ) -> Result<(), ProposalError> {
        let proposal = self.get(change, now).ok_or(ProposalError::Unknown)?;
        if proposal.uid != uid {
            return Err(ProposalError::NotYours(proposal.uid));
        }
        self.remove(change);
        Ok(())
    }

    /// Drops what has waited for too long.
    pub(crate) fn expire(&mut self, now: u64) {
        self.waiting.retain(|_, (expires, _)| *expires > now);
    }

    /// What waits, and for how many seconds more.
    pub(crate) fn list(&self, now: u64) -> impl Iterator<Item = (&Digest, &Proposal, u64)> {
        let left = move |expires: u64| expires.saturating_sub(now);
        self.waiting
            .iter()
            .map(move |(digest, (expires, proposal))| (digest, proposal, left(*expires)))
            .filter(|(_, _, left)| *left > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::ids::GrantName;

    use super::*;

    fn proposal(uid: u32, name: &str) -> (Digest, Proposal) {
        let change = Change::GrantDelete(GrantName::parse(name).unwrap());
        let made = Proposal {
            change: change.clone(),
            uid,
            approvals: Vec::new(),
            brought_by: Vec::new(),
        };
        (change.digest(), made)
    }

    fn put(all: &mut Proposals, uid: u32, name: &str, now: u64) -> Result<Digest, ProposalError> {
        let (digest, made) = proposal(uid, name);
        all.put(digest, made, now).map(|()| digest)
    }

    #[test]
    fn a_proposal_waits_for_its_lifetime_and_no_longer() {
        let mut all = Proposals::default();
        let digest = put(&mut all, 1, "a", 100).unwrap();
        assert!(all.get(&digest, 100 + LIFETIME_S - 1).is_some());
        assert_eq!(all.list(100 + LIFETIME_S - 1).next().unwrap().2, 1);
        assert_eq!(all.list(100 + LIFETIME_S).count(), 0);
        assert!(all.get(&digest, 100 + LIFETIME_S).is_none());
        let again = all.withdraw(1, &digest, 100);
        assert_eq!(again, Err(ProposalError::Unknown));
    }

    #[test]
    fn its_proposer_takes_it_back_and_nobody_else() {
        let mut all = Proposals::default();
        let digest = put(&mut all, 1, "a", 0).unwrap();
        let others = all.withdraw(2, &digest, 0);
        assert_eq!(others, Err(ProposalError::NotYours(1)));
        assert_eq!(all.withdraw(1, &digest, 0), Ok(()));
        assert!(all.get(&digest, 0).is_none());
    }

    #[test]
    fn the_same_change_of_another_user_does_not_replace_it_while_it_waits() {
        let mut all = Proposals::default();
        let digest = put(&mut all, 1, "a", 0).unwrap();
        let other = put(&mut all, 2, "a", LIFETIME_S - 1);
        assert_eq!(other, Err(ProposalError::Waiting(1)));
        assert_eq!(all.get(&digest, 0).unwrap().uid, 1);
        put(&mut all, 1, "a", 0).unwrap();
        put(&mut all, 2, "a", LIFETIME_S).unwrap();
        assert_eq!(all.get(&digest, LIFETIME_S).unwrap().uid, 2);
    }

    #[test]
    fn one_user_does_not_keep_the_others_out_and_withdrawing_makes_room() {
        let mut all = Proposals::default();
        let mine: Vec<_> = (0..OF_ONE_USER)
            .map(|n| put(&mut all, 1, &format!("mine-{n}"), 0).unwrap())
            .collect();
        let more = put(&mut all, 1, "more", 0);
        assert_eq!(more, Err(ProposalError::TooManyOfYours));
        // The same again is no further one.
        put(&mut all, 1, "mine-0", 0).unwrap();
        put(&mut all, 2, "more", 0).unwrap();
        all.withdraw(1, &mine[0], 0).unwrap();
        put(&mut all, 1, "again", 0).unwrap();
    }

    #[test]
    fn all_together_are_bounded_and_old_ones_make_room() {
        let mut all = Proposals::default();
        for n in 0..KEPT {
            let uid = u32::try_from(n / OF_ONE_USER).unwrap();
            put(&mut all, uid, &format!("n-{n}"), 0).unwrap();
        }
        let late = put(&mut all, 100, "late", LIFETIME_S - 1);
        assert_eq!(late, Err(ProposalError::TooMany));
        put(&mut all, 100, "late", LIFETIME_S).unwrap();
    }
}
