//! From a proposed change to a stored one. The only place that changes a policy object, and it does so from an
//! `Approved<Change>` alone; an import adds a registry that serves nothing yet.

use mcpist_core::api::{ApiError, Approve, ChangeOutcome, Proposed};
use mcpist_core::change::{
    Approval, ApprovalError, Approved, Change, Signature, State, approval_message,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::Digest;
use mcpist_sealer::{Op, RecordKey};

use super::policy::View;
use super::{Keeper, Open, audit_error, outbox_line, records, records_error};
use crate::live::Live;

/// Proposals kept at once; past it a new one is refused.
const PROPOSALS: usize = 64;

/// A change that waits for approvals.
pub(crate) struct Proposal {
    change: Change,
    uid: u32,
    approvals: Vec<Approval>,
}

impl Open {
    /// The policy as the judgement of this change sees it.
    fn view(&self, change: &Change, requester: u32) -> View<'_> {
        let credential = match change {
            Change::BindingPut(binding) => self
                .vaults()
                .vault(binding.vault.as_str())
                .and_then(|v| {
                    v.meta(&RecordKey {
                        owner: None,
                        name: binding.credential.as_str(),
                    })
                })
                .ok()
                .map(|meta| meta.version),
            _ => None,
        };
        View {
            policy: &self.policy,
            store: self.store(),
            requester: Some(requester),
            credential,
        }
    }
}

impl Keeper {
    /// Says what a change needs, and keeps it for its approvals.
    pub(crate) fn propose(&mut self, uid: u32, change: Change) -> Result<Proposed, ApiError> {
        let open = self.open()?;
        if !open.policy.can_apply(&change) {
            return Err(ApiError::new(
                ErrorCode::NotFound,
                "the change names an object that is not there, or changes nothing",
            )
            .next("list what there is: mcpist principal|grant|binding|registry list"));
        }
        let review = change_review(open, &change, uid);
        if open.proposals.len() >= PROPOSALS && !open.proposals.contains_key(&review.change) {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "64 changes wait for approval; approve or let go of some first",
            ));
        }
        // Who proposes the same again keeps the approvals that it has; they are judged anew when it is stored.
        let again = open.proposals.get(&review.change).filter(|p| p.uid == uid);
        let proposal = Proposal {
            change: change.clone(),
            uid,
            approvals: again.map(|p| p.approvals.clone()).unwrap_or_default(),
        };
        open.proposals.insert(review.change, proposal);
        Ok(Proposed { change, review })
    }

    /// Adds an approval, and stores the change once there are enough.
    pub(crate) fn approve(
        &mut self,
        uid: u32,
        digest: &Digest,
        approve: Approve,
    ) -> Result<ChangeOutcome, ApiError> {
        let open = self.open()?;
        let unknown = || {
            ApiError::new(
                ErrorCode::NotFound,
                "no such change is proposed; propose it again",
            )
        };
        let proposal = open.proposals.get(digest).ok_or_else(unknown)?;
        let (change, requester, mut approvals) = (
            proposal.change.clone(),
            proposal.uid,
            proposal.approvals.clone(),
        );
        let approval = match approve {
            Approve::Approval(approval) => approval,
            Approve::Dev => dev_approval(open, &change, requester)?,
        };
        // The new approval is judged alone first: a bad one costs the proposal and its good approvals nothing.
        let judged = {
            let state = State::of(&change, &open.view(&change, requester)).digest();
            approval.verify(digest, &state, &open.officers).map(drop)
        };
        if let Err(e) = judged {
            return Err(self.refuse(uid, &change, digest, &e));
        }
        approvals.push(approval);
        let verified = {
            let view = open.view(&change, requester);
            Approved::verify(change.clone(), &view, &approvals, &open.officers)
        };
        match verified {
            Ok(approved) => {
                open.proposals.remove(digest);
                self.store(uid, approved)?;
                Ok(ChangeOutcome::Stored { change: *digest })
            }
            Err(ApprovalError::Missing { needed, .. }) => {
                let approved = approvals.iter().map(|a| a.officer).collect();
                if let Some(proposal) = open.proposals.get_mut(digest) {
                    proposal.approvals = approvals;
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
        match self.house.audit.append(&refused) {
            Ok(_) => ApiError::new(code, &error.to_string()),
            Err(e) => audit_error(&e),
        }
    }

    /// One commit: the record and its audit line. Then memory, snapshot and log follow.
    fn store(&mut self, uid: u32, approved: Approved<Change>) -> Result<(), ApiError> {
        let open = self.open_for_change()?;
        let change = approved.change();
        // A change that makes no working snapshot is refused before it is stored.
        Live::check(&open.policy, change)
            .map_err(|e| ApiError::new(ErrorCode::Conflict, &e.to_string()))?;
        let object = records::name_of(&change.object());
        let digest = change.digest();
        let state = State::of(change, &open.view(change, uid)).digest();
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
            open.policy.apply(approved.into_change(), version);
        }
        self.follow(committed)?;
        self.drain_system()
    }
}

fn change_review(open: &Open, change: &Change, uid: u32) -> mcpist_core::change::Review {
    change.review(&open.view(change, uid), &open.officers)
}

/// A development store signs with its own key, through the same verifier.
fn dev_approval(open: &Open, change: &Change, requester: u32) -> Result<Approval, ApiError> {
    if !open.is_dev() {
        return Err(ApiError::new(
            ErrorCode::ApprovalInvalid,
            "only a development store signs by itself; sign with an officer key",
        ));
    }
    let seed =
        records::open(&open.system(), records::DEV_OFFICER).map_err(|e| records_error(&e))?;
    let pair = super::ceremony::signer(&seed)?;
    let review = change_review(open, change, requester);
    let mut signature = [0; 64];
    signature.copy_from_slice(
        pair.sign(&approval_message(&review.change, &review.state))
            .as_ref(),
    );
    Ok(Approval {
        officer: Digest::of(&mcpist_core::audit::public_key(&pair)),
        change: review.change,
        state: review.state,
        signature: Signature::from_bytes(signature),
    })
}
