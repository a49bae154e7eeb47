#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

mod approvals;
mod canonical;
mod widens;

use std::collections::BTreeMap;

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::binding::tests as bindings;
use crate::manifest::Manifest;
use crate::manifest::tests as manifests;
use crate::principal::tests::record;

/// A policy with versions that never repeat, as [`PolicyView`] asks for.
#[derive(Default, Clone)]
struct Policy {
    store: [u8; 16],
    clock: u64,
    versions: BTreeMap<Object, u64>,
    requesters: Option<Vec<u32>>,
    principals: Vec<PrincipalRecord>,
    grants: Vec<Grant>,
    bindings: Vec<Binding>,
    joins: Vec<Join>,
    manifests: Vec<(RegistryId, Manifest, bool)>,
    time_floor: u64,
}

impl PolicyView for Policy {
    fn store(&self) -> [u8; 16] {
        self.store
    }
    fn version(&self, object: &Object) -> Option<u64> {
        self.versions.get(object).copied()
    }
    fn requesters(&self) -> Option<&[u32]> {
        self.requesters.as_deref()
    }
    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord> {
        self.principals.iter()
    }
    fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter()
    }
    fn binding(&self, name: &BindingName) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.name == *name)
    }
    fn join(&self, registry: &RegistryId, module: &ModuleName, slot: &SlotName) -> Option<&Join> {
        self.joins
            .iter()
            .find(|j| (&j.registry, &j.module, &j.slot) == (registry, module, slot))
    }
    fn manifest(&self, registry: &RegistryId) -> Option<&Manifest> {
        self.manifests
            .iter()
            .find(|(id, ..)| id == registry)
            .map(|(_, m, _)| m)
    }
    fn time_floor(&self) -> u64 {
        self.time_floor
    }
    fn active(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests
            .iter()
            .filter(|(.., active)| *active)
            .map(|(_, m, _)| m)
    }
}

impl Policy {
    /// A policy that somebody asks to change who is no principal of it.
    fn new() -> Policy {
        Policy {
            store: [7; 16],
            requesters: Some(vec![4242]),
            ..Policy::default()
        }
    }

    fn touch(&mut self, object: Object) {
        self.clock += 1;
        self.versions.insert(object, self.clock);
    }

    fn apply(&mut self, approved: Approved<Change>) {
        let change = approved.into_change();
        self.touch(change.object());
        match change {
            Change::BindingPut(new) => {
                self.bindings.retain(|b| b.name != new.name);
                self.bindings.push(*new);
            }
            Change::BindingDelete(name) => self.bindings.retain(|b| b.name != name),
            Change::GrantPut(new) => {
                self.grants.retain(|g| g.name != new.name);
                self.grants.push(new);
            }
            _ => {}
        }
    }

    fn reason(&self, change: Change) -> Option<&'static str> {
        widening(&change, self)
    }
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn officer(seed: u8, name: &str) -> Officer {
    let public = key(seed).public_key().as_ref().try_into().unwrap();
    Officer {
        name: name.to_owned(),
        public,
    }
}

fn officers() -> Officers {
    Officers::new([officer(1, "ann"), officer(2, "ben")], false)
}

fn approve(seed: u8, change: &Change, view: &Policy) -> Approval {
    let (change, state) = (change.digest(), State::of(change, view).digest());
    let message = approval_message(&change, &state);
    let signature = key(seed).sign(&message).as_ref().try_into().unwrap();
    Approval {
        officer: officer(seed, "").id(),
        change,
        state,
        signature: Signature::from_bytes(signature),
    }
}

fn verify(
    change: &Change,
    view: &Policy,
    approvals: &[Approval],
) -> Result<Approved<Change>, ApprovalError> {
    Approved::verify(change.clone(), view, approvals, &officers())
}

fn binding(members: Value) -> Change {
    Change::BindingPut(Box::new(bindings::with(members).unwrap()))
}

fn grant(subject: Value, access: &str) -> Change {
    let value =
        json!({"name": "g", "subject": subject, "module": "all", "tools": "all", "access": access});
    Change::GrantPut(serde_json::from_value(value).unwrap())
}

fn registry(policy: &mut Policy, manifest: &Value, active: bool) -> RegistryId {
    let manifest = manifests::parse(manifest).unwrap();
    let id = RegistryId::of_manifest(&manifest.to_bytes().unwrap());
    policy.manifests.push((id, manifest, active));
    id
}
