//! The policy in memory: every object with its version, read whole at unseal and kept in step with each commit.
//!
//! Owns [`Policy`], the keeper's own copy, and [`View`], through which core judges a change. Promises that what is in
//! memory is what was committed: [`Policy::apply`] is called after the commit only, with the versions it gave.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpist_core::api::{Alarm, RegistryState};
use mcpist_core::binding::{Binding, Join};
use mcpist_core::change::{Change, Object, PolicyView};
use mcpist_core::error::ErrorCode;
use mcpist_core::grant::Grant;
use mcpist_core::ids::{BindingName, GrantName, ModuleName, PrincipalName, RegistryId, SlotName};
use mcpist_core::manifest::Manifest;
use mcpist_core::principal::PrincipalRecord;
use mcpist_sealer::{Op, OpenVault};

use super::records::{self, Found, RecordsError, RegistryRecord};

/// For how long a retired registry serves who has read its schemas, in seconds: ten minutes, less a tick of the keeper.
const DRAIN_S: u64 = 10 * 60 - super::TICK.as_secs();

/// Everything that officers decide, and the registries that they decide about.
#[derive(Default)]
pub(crate) struct Policy {
    pub(crate) principals: BTreeMap<PrincipalName, PrincipalRecord>,
    pub(crate) grants: BTreeMap<GrantName, Grant>,
    pub(crate) bindings: BTreeMap<BindingName, Binding>,
    pub(crate) joins: BTreeMap<(RegistryId, ModuleName, SlotName), Join>,
    pub(crate) registries: BTreeMap<RegistryId, RegistryRecord>,
    /// Manifests of the registries whose manifest is whole.
    pub(crate) manifests: BTreeMap<RegistryId, Arc<Manifest>>,
    /// Why the manifest of each other registry is of no use.
    pub(crate) damaged: BTreeMap<RegistryId, String>,
    /// What a bundle's `not_after` is judged against, in seconds since 1970; 0 where it was never set.
    pub(crate) time_floor: u64,
    /// Retired registries that still serve who has read their schemas, each until when by a clock that does not go back.
    /// No record: sealing ends it.
    pub(crate) draining: BTreeMap<RegistryId, u64>,
    versions: BTreeMap<Object, u64>,
}

impl Policy {
    /// What an operator should look at.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let alarm = |message: &String| Alarm {
            code: ErrorCode::ModuleQuarantined,
            message: message.clone(),
        };
        self.damaged.values().map(alarm).collect()
    }

    /// Reads the records of the system vault. Manifests are added by who reads the folders.
    pub(crate) fn read(system: &OpenVault) -> Result<Self, RecordsError> {
        let mut policy = Self::default();
        for (name, version, value) in records::all::<PrincipalRecord>(system, "principal")? {
            let key = tail(&name, PrincipalName::parse)?;
            policy.note(Object::Principal(key.clone()), version);
            policy.principals.extend(value.map(|v| (key, v)));
        }
        for (name, version, value) in records::all::<Grant>(system, "grant")? {
            let key = tail(&name, GrantName::parse)?;
            policy.note(Object::Grant(key.clone()), version);
            policy.grants.extend(value.map(|v| (key, v)));
        }
        for (name, version, value) in records::all::<Binding>(system, "binding")? {
            let key = tail(&name, BindingName::parse)?;
            policy.note(Object::Binding(key.clone()), version);
            policy.bindings.extend(value.map(|v| (key, v)));
        }
        for found in records::all::<Join>(system, "join")? {
            policy.read_join(found)?;
        }
        for (name, version, value) in records::all::<RegistryRecord>(system, "registry")? {
            let key = tail(&name, RegistryId::parse)?;
            policy.note(Object::Registry(key), version);
            policy.registries.extend(value.map(|v| (key, v)));
        }
        for (_, version, value) in records::all::<u64>(system, Object::TimeFloor.kind())? {
            policy.note(Object::TimeFloor, version);
            policy.time_floor = value.unwrap_or_default();
        }
        Ok(policy)
    }

    fn read_join(&mut self, (name, version, value): Found<Join>) -> Result<(), RecordsError> {
        let broken = || RecordsError::Payload(name.clone());
        let mut parts = name.splitn(4, '/').skip(1);
        let mut part = || parts.next().ok_or_else(broken);
        let registry = RegistryId::parse(part()?).map_err(|_| broken())?;
        let module = ModuleName::parse(part()?).map_err(|_| broken())?;
        let slot = SlotName::parse(part()?).map_err(|_| broken())?;
        self.note(
            Object::Join {
                registry,
                module: module.clone(),
                slot: slot.clone(),
            },
            version,
        );
        self.joins
            .extend(value.map(|v| ((registry, module, slot), v)));
        Ok(())
    }

    fn note(&mut self, object: Object, version: u64) {
        self.versions.insert(object, version);
    }

    /// The version of a policy object, deletions included.
    pub(crate) fn version(&self, object: &Object) -> Option<u64> {
        self.versions.get(object).copied()
    }

    /// The write that stores a change, over the version that this policy knows and no other.
    pub(crate) fn op(&self, change: &Change) -> Result<Op, RecordsError> {
        let object = change.object();
        let (kind, name) = (object.kind(), records::name_of(&object));
        let expect = records::expect(self.version(&object));
        match change {
            Change::PrincipalPut(record) => records::put(kind, name, Some(record), expect),
            Change::GrantPut(grant) => records::put(kind, name, Some(grant), expect),
            Change::BindingPut(binding) => records::put(kind, name, Some(binding), expect),
            Change::JoinPut(join) => records::put(kind, name, Some(join), expect),
            Change::PrincipalDelete(_)
            | Change::GrantDelete(_)
            | Change::BindingDelete(_)
            | Change::JoinDelete { .. } => records::put::<()>(kind, name, None, expect),
            Change::RegistryActivate(id) => records::put(
                kind,
                name,
                self.registry_in(id, RegistryState::Active).as_ref(),
                expect,
            ),
            Change::RegistryRetire(id) => records::put(
                kind,
                name,
                self.registry_in(id, RegistryState::Retired).as_ref(),
                expect,
            ),
            Change::TimeFloor(seconds) => records::put(kind, name, Some(seconds), expect),
        }
    }

    fn registry_in(&self, id: &RegistryId, state: RegistryState) -> Option<RegistryRecord> {
        self.registries
            .get(id)
            .map(|r| RegistryRecord { state, ..r.clone() })
    }

    /// What stands in an object's place, as the change that would put it there.
    pub(crate) fn standing(&self, object: &Object) -> Option<Change> {
        match object {
            Object::Principal(name) => self.principals.get(name).cloned().map(Change::PrincipalPut),
            Object::Grant(name) => self.grants.get(name).cloned().map(Change::GrantPut),
            Object::Binding(name) => {
                let binding = self.bindings.get(name).cloned();
                binding.map(|b| Change::BindingPut(Box::new(b)))
            }
            Object::Join {
                registry,
                module,
                slot,
            } => {
                let key = (*registry, module.clone(), slot.clone());
                self.joins.get(&key).cloned().map(Change::JoinPut)
            }
            Object::TimeFloor => Some(self.time_floor)
                .filter(|floor| *floor > 0)
                .map(Change::TimeFloor),
            Object::Registry(_) | Object::Credential { .. } => None,
        }
    }

    /// Whether there is something that the change could change.
    pub(crate) fn can_apply(&self, change: &Change) -> bool {
        match change {
            Change::PrincipalPut(_)
            | Change::GrantPut(_)
            | Change::BindingPut(_)
            | Change::TimeFloor(_) => true,
            Change::PrincipalDelete(name) => self.principals.contains_key(name),
            Change::GrantDelete(name) => self.grants.contains_key(name),
            Change::BindingDelete(name) => self.bindings.contains_key(name),
            Change::JoinPut(join) => {
                self.bindings.contains_key(&join.binding)
                    && self.manifests.get(&join.registry).is_some_and(|m| {
                        let module = m.modules.iter().find(|module| module.name == join.module);
                        module
                            .is_some_and(|module| module.slots.iter().any(|s| s.name == join.slot))
                    })
            }
            Change::JoinDelete {
                registry,
                module,
                slot,
            } => self
                .joins
                .contains_key(&(*registry, module.clone(), slot.clone())),
            Change::RegistryActivate(id) => {
                self.manifests.contains_key(id)
                    && self
                        .registries
                        .get(id)
                        .is_some_and(|r| r.state != RegistryState::Active)
            }
            Change::RegistryRetire(id) => self
                .registries
                .get(id)
                .is_some_and(|r| r.state == RegistryState::Active),
        }
    }

    /// The policy with the change in it, at the version that its commit gave. `now` is in seconds of a clock that does not
    /// go back.
    pub(crate) fn apply(&mut self, change: Change, version: u64, now: u64) {
        self.note(change.object(), version);
        match change {
            Change::PrincipalPut(record) => {
                self.principals.insert(record.name.clone(), record);
            }
            Change::PrincipalDelete(name) => {
                self.principals.remove(&name);
            }
            Change::GrantPut(grant) => {
                self.grants.insert(grant.name.clone(), grant);
            }
            Change::GrantDelete(name) => {
                self.grants.remove(&name);
            }
            Change::BindingPut(binding) => {
                self.bindings.insert(binding.name.clone(), *binding);
            }
            Change::BindingDelete(name) => {
                self.bindings.remove(&name);
            }
            Change::JoinPut(join) => {
                self.joins.insert(
                    (join.registry, join.module.clone(), join.slot.clone()),
                    join,
                );
            }
            Change::JoinDelete {
                registry,
                module,
                slot,
            } => {
                self.joins.remove(&(registry, module, slot));
            }
            Change::RegistryActivate(id) => {
                self.set_state(&id, RegistryState::Active);
                self.draining.remove(&id);
            }
            Change::RegistryRetire(id) => {
                self.set_state(&id, RegistryState::Retired);
                self.draining.insert(id, now.saturating_add(DRAIN_S));
            }
            Change::TimeFloor(seconds) => self.time_floor = seconds,
        }
    }

    fn set_state(&mut self, id: &RegistryId, state: RegistryState) {
        if let Some(registry) = self.registries.get_mut(id) {
            registry.state = state;
        }
    }

    /// A registry that was just imported.
    pub(crate) fn add_registry(
        &mut self,
        id: RegistryId,
        record: RegistryRecord,
        manifest: Manifest,
        version: u64,
    ) {
        self.note(Object::Registry(id), version);
        self.registries.insert(id, record);
        self.manifests.insert(id, Arc::new(manifest));
    }

    /// The modules that they are to serve, also of a registry whose folder is damaged.
    pub(crate) fn active_modules(&self) -> Vec<(ModuleName, RegistryId)> {
        let active = self.registries.iter();
        active
            .filter(|(_, record)| record.state == RegistryState::Active)
            .flat_map(|(id, record)| record.modules.iter().map(|m| (m.clone(), *id)))
            .collect()
    }

    /// A registry whose folder is whole again.
    pub(crate) fn mend_registry(&mut self, id: RegistryId, manifest: Manifest) {
        self.damaged.remove(&id);
        self.manifests.insert(id, Arc::new(manifest));
    }

    /// The registries that serve calls.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&RegistryId, &Arc<Manifest>)> {
        self.manifests.iter().filter(|(id, _)| self.is_active(id))
    }

    /// The same and those that drain.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (&RegistryId, &Arc<Manifest>)> {
        let serves = |id: &RegistryId| self.is_active(id) || self.draining.contains_key(id);
        self.manifests.iter().filter(move |(id, _)| serves(id))
    }

    /// Whether it serves whoever may see its tools.
    pub(crate) fn is_active(&self, id: &RegistryId) -> bool {
        let record = self.registries.get(id);
        record.is_some_and(|r| r.state == RegistryState::Active)
    }

    /// Ends the drains whose time is over, and says whose.
    pub(crate) fn drained(&mut self, now: u64) -> Vec<RegistryId> {
        let over = self.draining.extract_if(.., |_, until| *until <= now);
        over.map(|(id, _)| id).collect()
    }
}

fn tail<T, E>(name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, RecordsError> {
    let broken = || RecordsError::Payload(name.to_owned());
    let (_, tail) = name.split_once('/').ok_or_else(broken)?;
    parse(tail).map_err(|_| broken())
}

/// The policy as the judgement of one change sees it.
pub(crate) struct View<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) store: [u8; 16],
    /// Who asks for the change: its proposer, and all who bring an approval.
    pub(crate) requesters: Vec<u32>,
    /// The version of the credential that the change names, where it names one.
    pub(crate) credential: Option<u64>,
}

impl PolicyView for View<'_> {
    fn store(&self) -> [u8; 16] {
        self.store
    }

    fn version(&self, object: &Object) -> Option<u64> {
        match object {
            Object::Credential { .. } => self.credential,
            other => self.policy.version(other),
        }
    }

    fn requesters(&self) -> Option<&[u32]> {
        Some(&self.requesters)
    }

    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord> {
        self.policy.principals.values()
    }

    fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.policy.grants.values()
    }

    fn binding(&self, name: &BindingName) -> Option<&Binding> {
        self.policy.bindings.get(name)
    }

    fn join(&self, registry: &RegistryId, module: &ModuleName, slot: &SlotName) -> Option<&Join> {
        self.policy
            .joins
            .get(&(*registry, module.clone(), slot.clone()))
    }

    fn manifest(&self, registry: &RegistryId) -> Option<&Manifest> {
        self.policy.manifests.get(registry).map(Arc::as_ref)
    }

    fn time_floor(&self) -> u64 {
        self.policy.time_floor
    }

    fn active(&self) -> impl Iterator<Item = &Manifest> {
        self.policy.active().map(|(_, manifest)| manifest.as_ref())
    }
}
