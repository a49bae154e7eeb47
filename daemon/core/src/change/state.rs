//! What an approval depends on: versions of the changed object and of the objects that it names.

use serde::{Deserialize, Serialize};

use super::{Change, bytes};
use crate::binding::{Binding, Join};
use crate::grant::{Grant, Subject};
use crate::ids::{
    BindingName, CredentialName, Digest, GrantName, ModuleName, PrincipalName, RegistryId,
    SlotName, VaultName,
};
use crate::manifest::Manifest;
use crate::principal::PrincipalRecord;

/// The policy as the judgement of a change sees it. One view is one consistent snapshot.
pub trait PolicyView {
    /// The store's incarnation. A restore makes a new one, and so voids every approval of the old.
    fn store(&self) -> [u8; 16];

    /// The version of an object. It must never take a value again that it had for another content:
    /// a deleted object answers with the version of its deletion, and `None` means that there never
    /// was one. Else an approval of its creation could be used again after the deletion.
    fn version(&self, object: &Object) -> Option<u64>;

    /// The uids of all who ask for the change, by proposing it or by bringing an approval, or `None`
    /// where they are not known, which counts as being everybody.
    fn requesters(&self) -> Option<&[u32]>;

    /// Every principal.
    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord>;

    /// Every grant.
    fn grants(&self) -> impl Iterator<Item = &Grant>;

    /// The binding with this name.
    fn binding(&self, name: &BindingName) -> Option<&Binding>;

    /// The join of this slot.
    fn join(&self, registry: &RegistryId, module: &ModuleName, slot: &SlotName) -> Option<&Join>;

    /// The manifest of an imported registry.
    fn manifest(&self, registry: &RegistryId) -> Option<&Manifest>;

    /// The time floor in seconds since 1970; 0 where it was never set.
    fn time_floor(&self) -> u64;

    /// The manifests of the active registries.
    fn active(&self) -> impl Iterator<Item = &Manifest>;
}

/// Something that has a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Object {
    /// A principal.
    Principal(PrincipalName),
    /// A grant.
    Grant(GrantName),
    /// A binding.
    Binding(BindingName),
    /// A join.
    Join {
        /// The registry.
        registry: RegistryId,
        /// Its module.
        module: ModuleName,
        /// The module's slot.
        slot: SlotName,
    },
    /// A registry.
    Registry(RegistryId),
    /// The time floor.
    #[serde(rename = "time-floor")]
    TimeFloor,
    /// A credential of a vault.
    Credential {
        /// The vault.
        vault: VaultName,
        /// The credential.
        name: CredentialName,
    },
}

impl Object {
    /// The stable name of its kind, as in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Object::Principal(_) => "principal",
            Object::Grant(_) => "grant",
            Object::Binding(_) => "binding",
            Object::Join { .. } => "join",
            Object::Registry(_) => "registry",
            Object::TimeFloor => "time-floor",
            Object::Credential { .. } => "credential",
        }
    }

    /// Hands each part of its name over, in order.
    pub(super) fn with_parts(&self, mut part: impl FnMut(&[u8])) {
        match self {
            Object::Principal(name) => part(name.as_str().as_bytes()),
            Object::Grant(name) => part(name.as_str().as_bytes()),
            Object::Binding(name) => part(name.as_str().as_bytes()),
            Object::Join {
                registry,
                module,
                slot,
            } => {
                part(registry.digest().as_bytes());
                part(module.as_str().as_bytes());
                part(slot.as_str().as_bytes());
            }
            Object::Registry(id) => part(id.digest().as_bytes()),
            Object::TimeFloor => {}
            Object::Credential { vault, name } => {
                part(vault.as_str().as_bytes());
                part(name.as_str().as_bytes());
            }
        }
    }
}

/// The versions that a change stands on. Never the whole policy: an unrelated change voids no
/// approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(super) store: [u8; 16],
    pub(super) own: (Object, Option<u64>),
    pub(super) named: Vec<(Object, Option<u64>)>,
}

impl State {
    /// The state of now for a change.
    pub fn of(change: &Change, view: &impl PolicyView) -> State {
        let with_version = |object: Object| {
            let version = view.version(&object);
            (object, version)
        };
        let mut named = change.names();
        named.sort();
        named.dedup();
        State {
            store: view.store(),
            own: with_version(change.object()),
            named: named.into_iter().map(with_version).collect(),
        }
    }

    /// SHA-256 of its canonical bytes: `"mcpist-state-v1\0"`, then fields as in a change: store;
    /// the object's kind, name parts and version; the count of named objects, and each of them
    /// likewise.
    pub fn digest(&self) -> Digest {
        Digest::of(&bytes::state(self))
    }
}

impl Change {
    /// What it changes.
    pub fn object(&self) -> Object {
        match self {
            Change::PrincipalPut(record) => Object::Principal(record.name.clone()),
            Change::PrincipalDelete(name) => Object::Principal(name.clone()),
            Change::GrantPut(grant) => Object::Grant(grant.name.clone()),
            Change::GrantDelete(name) => Object::Grant(name.clone()),
            Change::BindingPut(binding) => Object::Binding(binding.name.clone()),
            Change::BindingDelete(name) => Object::Binding(name.clone()),
            Change::JoinPut(Join {
                registry,
                module,
                slot,
                ..
            })
            | Change::JoinDelete {
                registry,
                module,
                slot,
            } => Object::Join {
                registry: *registry,
                module: module.clone(),
                slot: slot.clone(),
            },
            Change::RegistryActivate(id) | Change::RegistryRetire(id) => Object::Registry(*id),
            Change::TimeFloor(_) => Object::TimeFloor,
        }
    }

    /// What it names besides.
    fn names(&self) -> Vec<Object> {
        match self {
            Change::GrantPut(Grant {
                subject: Subject::Principal(name),
                ..
            }) => {
                vec![Object::Principal(name.clone())]
            }
            Change::BindingPut(binding) => {
                let (vault, name) = (binding.vault.clone(), binding.credential.clone());
                vec![Object::Credential { vault, name }]
            }
            Change::JoinPut(join) => {
                vec![
                    Object::Registry(join.registry),
                    Object::Binding(join.binding.clone()),
                ]
            }
            _ => Vec::new(),
        }
    }
}
