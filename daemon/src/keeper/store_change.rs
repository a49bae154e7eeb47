//! From a proposed change to a stored one. The only place that changes a policy object, and it does so from an
//! `Approved<Change>` alone; an import adds a registry that serves nothing yet.

use std::sync::Arc;
use std::time::Instant;

use mcpist_core::api::{
    ApiError, Approve, ChangeOutcome, Done, NamedRegistry, Proposed, WaitingChange,
};
use mcpist_core::change::{
    Approval, ApprovalError, Approved, Change, Review, Signature, State, approval_message,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, RegistryId};
use mcpist_core::principal::{IdentityRule, OVERFLOW_UID};
use mcpist_sealer::{Op, RecordKey, VaultError};

use super::policy::View;
use super::proposals::{Proposal, ProposalError};
use super::{
    Keeper, Open, audit_error, import, live_error, outbox_line, records, records_error, today,
    vault_error,
};
use crate::audit::Asker;
use crate::clock::steady_seconds;
use crate::live::Live;

impl Open {
    /// The policy as the judgement of this change sees it. A credential that cannot be looked up is no credential that
    /// is not there: then there is no judgement.
    fn view(&self, change: &Change, requesters: Vec<u32>) -> Result<View<'_>, ApiError> {
        let credential = match change {
            Change::BindingPut(binding) => {
                let key = RecordKey {
                    owner: None,
                    name: binding.credential.as_str(),
                };
                let vault = self.vaults().vault(binding.vault.as_str());
                match vault.and_then(|v| v.meta(&key)) {
                    Ok(meta) => Some(meta.version),
                    Err(VaultError::NotFound(_) | VaultError::NoSuchVault(_)) => None,
                    Err(e) => return Err(vault_error(&e)),
                }
            }
            _ => None,
        };
        Ok(View {
            policy: &self.policy,
            store: self.store(),
            requesters,
            credential,
        })
    }

    /// The digest of what an approval of this change depends on.
    fn state(&self, change: &Change) -> Result<Digest, ApiError> {
        // Who asks for it is no part of that.
        Ok(State::of(change, &self.view(change, Vec::new())?).digest())
    }

    /// Refuses what would not be stored however many officers sign it.
    fn storable(&self, change: &Change) -> Result<(), ApiError> {
        if !self.policy.can_apply(change) {
            return Err(ApiError::new(
                ErrorCode::NotFound,
                "the change names an object that is not there, or changes nothing",
            )
            .next("list what there is: mcpist principal|grant|binding|registry list"));
        }
        if !self.is_dev()
            && let Some(uid) = nobody(change)
        {
            let text = format!("uid {uid} stands for nobody here; name a user's own uid");
            return Err(ApiError::new(ErrorCode::RequestInvalid, &text));
        }
        Live::check(&self.policy, change, today()).map_err(|e| live_error(&e))
    }

    /// The change as an officer reads it.
    fn shown(&self, change: Change, review: Review) -> Proposed {
        Proposed {
            replaces: self.policy.standing(&change.object()),
            registry: registry_of(&change).and_then(|id| self.named(&id)),
            binding: match &change {
                Change::JoinPut(join) => self.policy.bindings.get(&join.binding).cloned(),
                _ => None,
            }
            .map(Box::new),
            change,
            review,
        }
    }

    fn named(&self, id: &RegistryId) -> Option<NamedRegistry> {
        let manifest = self.policy.manifests.get(id);
        Some(NamedRegistry {
            registry: import::listed(&self.policy, *id, self.policy.registries.get(id)?),
            not_after: manifest.map(|m| m.not_after),
            notes: manifest.map(|m| m.notes.clone()),
        })
    }
}

impl Keeper {
    /// Says what a change needs, and keeps it for its approvals.
    pub(crate) fn propose(&mut self, uid: u32, change: Change) -> Result<Proposed, ApiError> {
        let open = self.open()?;
        open.storable(&change)?;
        let now = steady_seconds();
        // Who proposes the same again keeps the approvals that it has, but for those of a state that is gone: they
        // would only void the next one.
        let again = open.proposals.get(&change.digest(), now);
        let (approvals, brought_by) = again
            .map(|p| (p.approvals.clone(), p.brought_by.clone()))
            .unwrap_or_default();
        let mut proposal = Proposal {
            change: change.clone(),
            uid,
            approvals,
            brought_by,
        };
        let review = change_review(open, &proposal)?;
        proposal.approvals.retain(|a| a.state == review.state);
        open.proposals
            .put(review.change, proposal, now)
            .map_err(|e| not_kept(&e))?;
        Ok(open.shown(change, review))
    }

    /// A proposed change, for whoever is to approve it.
    pub(crate) fn proposed(&mut self, digest: &Digest) -> Result<Proposed, ApiError> {
        let open = self.open()?;
        let proposal = open.proposals.get(digest, steady_seconds());
        let Some(proposal) = proposal.cloned() else {
            return Err(not_kept(&ProposalError::Unknown));
        };
        let review = change_review(open, &proposal)?;
        Ok(open.shown(proposal.change, review))
    }

    /// Takes a proposed change back.
    pub(crate) fn withdraw(&mut self, uid: u32, change: &Digest) -> Result<Done, ApiError> {
        let withdrawn = self
            .open()?
            .proposals
            .withdraw(uid, change, steady_seconds());
        withdrawn.map_err(|e| not_kept(&e))?;
        log::info!("uid {uid} withdrew change {}", change.short());
        Ok(Done {})
    }

    /// The changes that wait for approvals.
    pub(crate) fn waiting(&mut self) -> Result<Vec<WaitingChange>, ApiError> {
        let waiting = self.open()?.proposals.list(steady_seconds());
        Ok(waiting
            .map(|(digest, proposal, expires_s)| WaitingChange {
                change: *digest,
                kind: proposal.change.kind().to_owned(),
                object: records::name_of(&proposal.change.object()),
                uid: proposal.uid,
                approved: proposal.approvals.iter().map(|a| a.officer).collect(),
                expires_s,
            })
            .collect())
    }

    /// Adds an approval, and stores the change once there are enough.
    pub(crate) fn approve(
        &mut self,
        uid: u32,
        digest: &Digest,
        approve: Approve,
    ) -> Result<ChangeOutcome, ApiError> {
        let open = self.open()?;
        let proposal = open.proposals.get(digest, steady_seconds());
        let Some(mut proposal) = proposal.cloned() else {
            return Err(not_kept(&ProposalError::Unknown));
        };
        let change = proposal.change.clone();
        let state = open.state(&change)?;
        let approval = match approve {
            Approve::Approval(approval) => approval,
            Approve::Dev => dev_approval(open, digest, &state)?,
        };
        // The new approval is judged alone first: a bad one costs the proposal and its good approvals nothing.
        if let Err(e) = approval.verify(digest, &state, &open.officers) {
            return Err(self.refuse(uid, &change, digest, &e));
        }
        proposal.approvals.push(approval);
        if !proposal.brought_by.contains(&uid) {
            proposal.brought_by.push(uid);
        }
        let verified = {
            let view = open.view(&change, proposal.requesters())?;
            Approved::verify(change.clone(), &view, &proposal.approvals, &open.officers)
        };
        match verified {
            Ok(approved) => {
                self.store(uid, approved)?;
                Ok(ChangeOutcome::Stored { change: *digest })
            }
            Err(ApprovalError::Missing { needed, .. }) => {
                let approved = proposal.approvals.iter().map(|a| a.officer).collect();
                if let Some(kept) = open.proposals.get(digest, steady_seconds()) {
                    *kept = proposal;
                }
                Ok(ChangeOutcome::Pending {
                    approved,
                    needs: needed,
                })
            }
            Err(e) => {
                // What earlier approvals were given for has moved: they are void, and the change is proposed anew.
                if matches!(e, ApprovalError::StateMoved { .. }) {
                    open.proposals.remove(digest);
                }
                Err(self.refuse(uid, &change, digest, &e))
            }
        }
    }

    /// Records that an approval was refused, and says why.
    fn refuse(
        &self,
        uid: u32,
        change: &Change,
        digest: &Digest,
        error: &ApprovalError,
    ) -> ApiError {
        let code = match error {
            ApprovalError::StateMoved { .. } => ErrorCode::ChangeVoid,
            _ => ErrorCode::ApprovalInvalid,
        };
        let refused = Event::ChangeRefused {
            kind: change.kind(),
            change: digest,
            code,
            uid,
        };
        let asker = Asker::User(uid);
        match (self.house.audit).append_limited(asker, &refused, Instant::now()) {
            Ok(_) => ApiError::new(code, &error.to_string()),
            Err(e) => audit_error(&e),
        }
    }

    /// One commit: the record and its audit line. Then memory, snapshot and log follow. Until the store has taken the
    /// change its proposal stays, with the approvals that it has.
    fn store(&mut self, uid: u32, approved: Approved<Change>) -> Result<(), ApiError> {
        let house = Arc::clone(&self.house);
        let open = self.open_for_change()?;
        let change = approved.change();
        // Again, for what has moved since it was proposed.
        open.storable(change)?;
        let object = records::name_of(&change.object());
        let digest = change.digest();
        let state = open.state(change)?;
        let event = Event::ChangeStored {
            kind: change.kind(),
            object: &object,
            change: &digest,
            state: &state,
            officers: approved.officers(),
            uid,
        };
        let record = open.policy.op(change).map_err(|e| records_error(&e))?;
        let batch = vec![record, Op::Outbox(outbox_line(&event))];
        let committed = open.system().commit(batch);
        if let Ok(committed) = &committed {
            let version = committed.versions.first().copied().unwrap_or_default();
            open.proposals.remove(&digest);
            let now = steady_seconds();
            let change = approved.into_change();
            if let Change::RegistryActivate(id) = &change {
                house.leaks.activated(id);
            }
            open.policy.apply(change, version, now);
        }
        self.follow(committed)?;
        self.drain_system()
    }

    /// Takes registries whose time to drain is over out of the snapshot.
    pub(super) fn end_drains(&mut self, now: u64) -> Result<(), ApiError> {
        let drained = match self.open() {
            Ok(open) => open.policy.drained(now),
            Err(_) => return Ok(()),
        };
        if drained.is_empty() {
            return Ok(());
        }
        for registry in &drained {
            log::info!("registry {} has drained", registry.short());
            // Whether or not the log takes a line, its time is over.
            let _ = self
                .house
                .audit
                .append(&Event::RegistryDrained { registry });
        }
        self.follow(Ok(()))
    }
}

/// The uid in a change that stands for nobody outside a development store.
fn nobody(change: &Change) -> Option<u32> {
    let Change::PrincipalPut(record) = change else {
        return None;
    };
    let uids = record.rules.iter().map(|IdentityRule::Uid(uid)| *uid);
    uids.into_iter()
        .find(|uid| matches!(*uid, 0 | OVERFLOW_UID))
}

fn registry_of(change: &Change) -> Option<RegistryId> {
    match change {
        Change::JoinPut(join) => Some(join.registry),
        Change::JoinDelete { registry, .. } => Some(*registry),
        Change::RegistryActivate(id) | Change::RegistryRetire(id) => Some(*id),
        _ => None,
    }
}

fn change_review(open: &Open, proposal: &Proposal) -> Result<Review, ApiError> {
    let change = &proposal.change;
    Ok(change.review(&open.view(change, proposal.requesters())?, &open.officers))
}

fn not_kept(error: &ProposalError) -> ApiError {
    let code = match error {
        ProposalError::TooMany | ProposalError::TooManyOfYours => ErrorCode::Busy,
        ProposalError::Unknown => ErrorCode::NotFound,
        ProposalError::NotYours(_) => ErrorCode::Forbidden,
        ProposalError::Waiting(_) => ErrorCode::Conflict,
    };
    ApiError::new(code, &error.to_string()).next("mcpist change list")
}

/// A development store signs with its own key, through the same verifier.
fn dev_approval(open: &Open, change: &Digest, state: &Digest) -> Result<Approval, ApiError> {
    if !open.is_dev() {
        return Err(ApiError::new(
            ErrorCode::ApprovalInvalid,
            "only a development store signs by itself; sign with an officer key",
        ));
    }
    let seed =
        records::open(&open.system(), records::DEV_OFFICER).map_err(|e| records_error(&e))?;
    let pair = super::init::signer(&seed)?;
    let mut signature = [0; 64];
    signature.copy_from_slice(pair.sign(&approval_message(change, state)).as_ref());
    Ok(Approval {
        officer: Digest::of(&mcpist_core::audit::public_key(&pair)),
        change: *change,
        state: *state,
        signature: Signature::from_bytes(signature),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_overflow_uid_are_nobody() {
        let put = |uids: &[u32]| -> Change {
            let rules: Vec<_> = uids.iter().copied().map(IdentityRule::Uid).collect();
            let record = serde_json::json!({ "name": "ada", "rules": rules });
            serde_json::from_value(serde_json::json!({ "principal-put": record })).unwrap()
        };
        assert_eq!(nobody(&put(&[1000])), None);
        assert_eq!(nobody(&put(&[1000, 0])), Some(0));
        assert_eq!(nobody(&put(&[OVERFLOW_UID])), Some(OVERFLOW_UID));
        assert_eq!(nobody(&Change::TimeFloor(0)), None);
    }
}
