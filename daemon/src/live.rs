//! The policy as the call path sees it: one immutable snapshot, made anew by the keeper after every change.
//!
//! Owns [`Live`]. Promises that everything a call needs is in memory: identities, mask, compiled modules, bindings with
//! their sealed credentials, and the second redactor. A module or a credential that cannot be had is left out with an
//! alarm and takes nothing else with it. Building one may block on disks; reading one never does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mcpist_broker::{BoundBinding, Broker, SealedVault, Vault, VaultFault};
use mcpist_bundle::{LoadError, Loaded, Verified};
use mcpist_core::api::Alarm;
use mcpist_core::binding::Binding;
use mcpist_core::catalogue::{ActiveModule, Catalogue, CatalogueError, Module, ModuleError, Tool};
use mcpist_core::change::{Change, Object};
use mcpist_core::date::date;
use mcpist_core::error::ErrorCode;
use mcpist_core::floor::FloorError;
use mcpist_core::ids::{BindingName, ModuleRev, RegistryId, SlotName};
use mcpist_core::manifest::{BlobPath, ModuleManifest};
use mcpist_core::mask::Mask;
use mcpist_core::principal::{Identities, Principal};
use mcpist_sealer::{AuditKey, Vaults};
use mcpist_secret::MemoryError;
use mcpist_secret::redact::{Fingerprint, RedactKey, Redactor};

use crate::config::Config;
use crate::keeper::policy::Policy;

/// One snapshot.
pub(crate) struct Live {
    /// Who is who.
    pub(crate) identities: Identities,
    /// Who sees what, and the catalogue of what is active.
    pub(crate) mask: Mask,
    /// One for each registry that drains.
    draining: Vec<Mask>,
    /// Leases.
    pub(crate) broker: Broker,
    /// The audit sub-key.
    pub(crate) mac: AuditKey,
    /// Takes out what was bound since the store opened, whatever the runner left.
    pub(crate) redactor: Redactor,
    key: Arc<RedactKey>,
    /// Every fingerprint since unseal; an old version stays until the store is sealed.
    seen: BTreeMap<u64, Arc<Fingerprint>>,
    modules: BTreeMap<ModuleRev, Edition>,
    manifests: BTreeMap<RegistryId, Bytes>,
    alarms: Vec<Alarm>,
}

/// A built module and what it was built with.
struct Edition {
    module: Arc<Module>,
    joins: Vec<(SlotName, BindingName)>,
}

/// Why no snapshot could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    /// The time floor does not move so.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// A bundle that was good until before the time floor is not activated.
    #[error(
        "bundle {bundle} was good until {} and the time floor is {}", date(*.not_after), date(*.floor)
    )]
    Expired {
        /// The bundle, as `namespace/name sequence`.
        bundle: String,
        /// Its end.
        not_after: u64,
        /// The floor.
        floor: u64,
    },
    /// Two active registries hold a module of one name.
    #[error(transparent)]
    TwoSides(#[from] CatalogueError),
    /// No room in secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A credential would go out without being redacted.
    #[error("a credential has no fingerprint: {0}")]
    Fingerprint(#[from] VaultFault),
}

impl Live {
    /// Makes the snapshot of `policy`. `previous` lends what did not change.
    pub(crate) fn build(
        policy: &Policy,
        vaults: &Vaults,
        config: &Config,
        previous: Option<&Live>,
    ) -> Result<Live, LiveError> {
        let mut alarms = Vec::new();
        let (modules, manifests) = build_modules(policy, config, previous, &mut alarms);
        let mask_of = |serves: &dyn Fn(&RegistryId) -> bool| -> Result<Mask, CatalogueError> {
            let of_those = modules.iter().filter(|(rev, _)| serves(&rev.registry));
            let catalogue = Catalogue::of(of_those.map(|(_, e)| Arc::clone(&e.module)).collect())?;
            let grants = policy.grants.values().cloned().collect();
            Ok(Mask::new(grants, Arc::new(catalogue)))
        };
        let mask = mask_of(&|id| policy.is_active(id))?;
        let draining = policy
            .draining
            .keys()
            .map(|id| mask_of(&|other| other == id));
        let draining = draining.collect::<Result<_, _>>()?;
        let bound = policy.bindings.values().map(|binding| BoundBinding {
            binding: binding.clone(),
            version: policy
                .version(&Object::Binding(binding.name.clone()))
                .unwrap_or_default(),
        });
        let vault = |name: &mcpist_core::ids::VaultName| match vaults.vault(name.as_str()) {
            Ok(handle) => Ok(Box::new(SealedVault::new(handle)) as Box<dyn Vault>),
            Err(e) => Err(VaultFault::from(e)),
        };
        let broker = Broker::build(bound, vault, previous.map(|p| &p.broker));
        alarms.extend(broker.faults().map(|(_, fault)| Alarm {
            code: fault.code(),
            message: fault.to_string(),
        }));
        let key = match previous {
            Some(previous) => Arc::clone(&previous.key),
            None => Arc::new(RedactKey::random()?),
        };
        let mut seen = previous.map(|p| p.seen.clone()).unwrap_or_default();
        let fresh = broker.fingerprints(&key, |id| !seen.contains_key(&id))?;
        seen.extend(
            fresh
                .into_iter()
                .map(|(id, fingerprint)| (id, Arc::new(fingerprint))),
        );
        let redactor = Redactor::new(Arc::clone(&key), seen.values().map(Arc::as_ref));
        Ok(Live {
            identities: Identities::new(policy.principals.values().cloned(), config.dev),
            mask,
            draining,
            broker,
            mac: vaults.audit_mac_key(),
            redactor,
            key,
            seen,
            modules,
            manifests,
            alarms,
        })
    }

    /// Whether `change` would leave a policy of which no snapshot can be made, or that time forbids. `now` is the host's
    /// clock, in seconds since 1970; it bounds the first time floor and nothing else.
    pub(crate) fn check(policy: &Policy, change: &Change, now: u64) -> Result<(), LiveError> {
        let id = match change {
            Change::TimeFloor(seconds) => {
                return Ok(mcpist_core::floor::step(policy.time_floor, *seconds, now)?);
            }
            Change::RegistryActivate(id) => id,
            _ => return Ok(()),
        };
        let Some(added) = policy.manifests.get(id) else {
            return Ok(());
        };
        let (not_after, floor) = (added.not_after, policy.time_floor);
        if not_after < floor {
            return Err(LiveError::Expired {
                bundle: format!("{}/{} {}", added.namespace, added.name, added.sequence),
                not_after,
                floor,
            });
        }
        for (active, manifest) in policy.active() {
            if let Some(module) = manifest
                .modules
                .iter()
                .find(|m| added.modules.iter().any(|other| other.name == m.name))
            {
                let (module, first, second) = (module.name.clone(), *active, *id);
                return Err(CatalogueError::TwoSides {
                    module,
                    first,
                    second,
                }
                .into());
            }
        }
        Ok(())
    }

    /// The mask that a call is judged by: that of a draining registry for who has read the tool there, else that of what is
    /// active.
    pub(crate) fn mask_for(
        &self,
        principal: &Principal,
        (module, tool): (&str, &str),
        has_read: impl Fn(&Tool) -> bool,
    ) -> &Mask {
        let is_read = |mask: &&Mask| {
            let visible = mask.visible(principal, module, tool);
            visible.is_some_and(|visible| has_read(visible.tool()))
        };
        self.draining.iter().find(is_read).unwrap_or(&self.mask)
    }

    /// What an operator should look at.
    pub(crate) fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// The registries whose modules the runner must have, each with its bundle's manifest.
    pub(crate) fn registries(&self) -> impl Iterator<Item = (&RegistryId, &Bytes)> {
        self.manifests.iter()
    }

    /// The bindings that the runner must have.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = (&BindingName, u64, &Binding)> {
        self.broker
            .bindings()
            .map(|b| (&b.binding.name, b.version, &b.binding))
    }

    /// Fingerprints for the runner under its link's key, of the numbers that `wanted` accepts.
    pub(crate) fn fingerprints(
        &self,
        key: &RedactKey,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Vec<(u64, Fingerprint)>, VaultFault> {
        self.broker.fingerprints(key, wanted)
    }

    /// Whether a module of the registry is part of the snapshot.
    pub(crate) fn has_registry(&self, id: &RegistryId) -> bool {
        self.manifests.contains_key(id)
    }

    /// Whether the binding is part of the snapshot, at this version.
    pub(crate) fn has_binding(&self, name: &BindingName, version: u64) -> bool {
        self.broker
            .binding(name)
            .is_some_and(|b| b.version == version)
    }

    /// The numbers of the fingerprints that the runner must have.
    pub(crate) fn fingerprint_ids(&self) -> BTreeSet<u64> {
        self.broker.fingerprint_ids().collect()
    }
}

type Built = (BTreeMap<ModuleRev, Edition>, BTreeMap<RegistryId, Bytes>);

fn build_modules(
    policy: &Policy,
    config: &Config,
    previous: Option<&Live>,
    alarms: &mut Vec<Alarm>,
) -> Built {
    let (mut modules, mut manifests) = (BTreeMap::new(), BTreeMap::new());
    for (id, manifest) in policy.serving() {
        let mut loaded = None;
        for module in &manifest.modules {
            let rev = ModuleRev {
                registry: *id,
                module: module.name.clone(),
            };
            let joins = joins_of(policy, &rev);
            let kept = previous.and_then(|p| {
                let edition = p.modules.get(&rev).filter(|e| e.joins == joins)?;
                Some((edition, p.manifests.get(id)?))
            });
            if let Some((edition, bytes)) = kept {
                manifests.insert(*id, bytes.clone());
                modules.insert(
                    rev,
                    Edition {
                        module: Arc::clone(&edition.module),
                        joins,
                    },
                );
                continue;
            }
            if loaded.is_none() {
                match mcpist_bundle::load(&config.registries(), id) {
                    Ok(found) => loaded = Some(found),
                    Err(e) => {
                        alarm(alarms, &e);
                        break;
                    }
                }
            }
            let Some(found) = &loaded else { break };
            let schemas = match schemas(module, found) {
                Ok(schemas) => schemas,
                Err(e) => {
                    alarm(alarms, &e);
                    continue;
                }
            };
            let source = ActiveModule {
                rev: rev.clone(),
                manifest: module.clone(),
                schemas,
                joins: joins.clone(),
            };
            match Module::build(source) {
                Ok(built) => {
                    manifests
                        .entry(*id)
                        .or_insert_with(|| Bytes::from(found.manifest_bytes.clone()));
                    modules.insert(
                        rev,
                        Edition {
                            module: built,
                            joins,
                        },
                    );
                }
                Err(e) => alarm(alarms, &e),
            }
        }
    }
    (modules, manifests)
}

/// The blobs that the module names, and no others.
fn schemas(
    module: &ModuleManifest,
    registry: &Loaded,
) -> Result<BTreeMap<BlobPath, Vec<u8>>, LoadError> {
    let mut schemas = BTreeMap::new();
    for path in module.blobs() {
        if let Some(bytes) = registry.blob(path)? {
            schemas.insert(path.clone(), bytes);
        }
    }
    Ok(schemas)
}

fn alarm(alarms: &mut Vec<Alarm>, error: &dyn std::fmt::Display) {
    log::error!("{error}");
    alarms.push(Alarm {
        code: ErrorCode::ModuleQuarantined,
        message: error.to_string(),
    });
}

fn joins_of(policy: &Policy, rev: &ModuleRev) -> Vec<(SlotName, BindingName)> {
    policy
        .joins
        .values()
        .filter(|j| j.registry == rev.registry && j.module == rev.module)
        .map(|j| (j.slot.clone(), j.binding.clone()))
        .collect()
}

/// Why a verified bundle's modules would not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModulesError {
    /// A module does not build.
    #[error(transparent)]
    Module(#[from] Box<ModuleError>),
    /// The quarantined copy cannot be read.
    #[error("the quarantined copy cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// Builds every module of a bundle once, unjoined and for its faults alone: what does not build is not imported.
pub(crate) fn check_modules(id: &RegistryId, verified: &Verified<'_>) -> Result<(), ModulesError> {
    for module in &verified.manifest().modules {
        let mut schemas = BTreeMap::new();
        for path in module.blobs() {
            if let Some(bytes) = verified.blob(path)? {
                schemas.insert(path.clone(), bytes);
            }
        }
        // Every slot filled, or its tools would be left out unseen.
        let stand_in =
            BindingName::parse("stand-in").map_err(|_| std::io::Error::other("a fixed name"))?;
        let source = ActiveModule {
            rev: ModuleRev {
                registry: *id,
                module: module.name.clone(),
            },
            manifest: module.clone(),
            schemas,
            joins: module
                .slots
                .iter()
                .map(|slot| (slot.name.clone(), stand_in.clone()))
                .collect(),
        };
        Module::build(source).map_err(Box::new)?;
    }
    Ok(())
}
