//! A change of the policy, and what it needs before it may be stored. No I/O.
//!
//! Owns: [`Change`] with its canonical bytes, the [`State`] that an approval is bound to, the
//! judgement whether a change [`widening`]s the policy, and [`Approved`], the only form in which a
//! change is stored.
//! Promises: `Approved` has one maker, which judges and counts for itself: one enrolled key, two
//! when the change widens, all over the same change and the same state; an approval is void when
//! that state moves. What is not provably narrower counts as widening where DESIGN §9 asks for a
//! second officer.
//! Does not: store, nor know who sits behind a key.
//!
//! Canonical bytes: `"mcpist-change-v1\0"`, then fields, each a big-endian `u32` length and that
//! many bytes. A text is its UTF-8; a number its big-endian bytes; a list a field with its
//! big-endian `u32` count, then its items; a choice a field with its name, then its own fields.
//! docs/FORMATS.md has an example.

mod approval;
mod bytes;
mod state;
mod widening;

use serde::{Deserialize, Serialize};

use crate::binding::{Binding, Join};
use crate::grant::Grant;
use crate::ids::{BindingName, Digest, GrantName, ModuleName, PrincipalName, RegistryId, SlotName};
use crate::principal::PrincipalRecord;

pub use approval::{
    Approval, ApprovalError, Approved, Officer, Officers, Signature, approval_message,
};
pub use state::{Object, PolicyView, State};
pub use widening::widening;

/// One change of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Creates or replaces a principal.
    PrincipalPut(PrincipalRecord),
    /// Removes a principal.
    PrincipalDelete(PrincipalName),
    /// Creates or replaces a grant.
    GrantPut(Grant),
    /// Removes a grant.
    GrantDelete(GrantName),
    /// Creates or replaces a binding.
    BindingPut(Box<Binding>),
    /// Removes a binding.
    BindingDelete(BindingName),
    /// Creates or replaces a join.
    JoinPut(Join),
    /// Removes a join.
    JoinDelete {
        /// The registry.
        registry: RegistryId,
        /// Its module.
        module: ModuleName,
        /// The module's slot.
        slot: SlotName,
    },
    /// Lets an imported registry serve calls.
    RegistryActivate(RegistryId),
    /// Takes a registry out of service.
    RegistryRetire(RegistryId),
    /// Moves the time floor, in seconds since 1970.
    TimeFloor(u64),
}

/// What a change needs, as shown to officers before they sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Digest of the change's canonical bytes.
    pub change: Digest,
    /// Digest of the state that it changes.
    pub state: Digest,
    /// How many different enrolled keys must approve.
    pub needs: usize,
    /// Why two are needed, if it widens.
    pub reason: Option<String>,
}

impl Change {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        bytes::change(self)
    }

    /// SHA-256 of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The stable name of its kind, as in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Change::PrincipalPut(_) => "principal-put",
            Change::PrincipalDelete(_) => "principal-delete",
            Change::GrantPut(_) => "grant-put",
            Change::GrantDelete(_) => "grant-delete",
            Change::BindingPut(_) => "binding-put",
            Change::BindingDelete(_) => "binding-delete",
            Change::JoinPut(_) => "join-put",
            Change::JoinDelete { .. } => "join-delete",
            Change::RegistryActivate(_) => "registry-activate",
            Change::RegistryRetire(_) => "registry-retire",
            Change::TimeFloor(_) => "time-floor",
        }
    }

    /// What officers have to sign, and how many.
    pub fn review(&self, view: &impl PolicyView, officers: &Officers) -> Review {
        let reason = widening(self, view);
        Review {
            change: self.digest(),
            state: State::of(self, view).digest(),
            needs: officers.needed(reason.is_some()),
            reason: reason.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
