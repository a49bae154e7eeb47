//! A bundle's way in: quarantine, verification, staging, and one commit that makes it a registry.
//!
//! Owns the order of an import. Promises that an interruption anywhere leaves the old state or the whole new one:
//! the registry's folder is there, synced, before the commit that names it, and a folder that no record names is
//! removed or found again by the next import. An imported registry serves nothing until a change activates it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use mcpist_bundle::{Floor, VerifyError};
use mcpist_core::api::{ApiError, Imported, Registry, RegistryState};
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::RegistryId;
use mcpist_sealer::Op;

use super::policy::{Policy, View};
use super::records::{self, FloorRecord, RegistryRecord};
use super::{
    Keeper, Open, audit_error, is_in_doubt, outbox_line, records_error, today, vault_error,
};

/// Largest bundle that is taken, in bytes.
const MAX_BUNDLE: u64 = 4 << 30;

/// Reads the manifest of every registry whose folder is whole. One that is not is left out: it serves nothing,
/// and the daemon's log names it.
pub(super) fn read_manifests(policy: &mut Policy, folder: &Path) {
    for id in policy.registries.keys() {
        match mcpist_bundle::load(folder, id) {
            Ok(loaded) => {
                policy.manifests.insert(*id, Arc::new(loaded.manifest));
            }
            Err(e) => log::error!("registry {} is damaged and serves nothing: {e}", id.short()),
        }
    }
}

impl Keeper {
    /// Imports the bundle behind `source`.
    pub(crate) fn import(&mut self, uid: u32, source: &File) -> Result<Imported, ApiError> {
        let house = Arc::clone(&self.house);
        let open = self.open_for_change()?;
        match import(open, &house.config, uid, source) {
            Ok(imported) => {
                self.drain_system()?;
                log::info!("bundle imported: registry {}", imported.registry.id.short());
                Ok(imported)
            }
            Err(Refusal {
                reason,
                registry,
                error,
            }) => {
                let event = Event::BundleRefused {
                    reason: &reason,
                    registry: registry.as_ref(),
                    uid,
                };
                house.audit.append(&event).map_err(|e| audit_error(&e))?;
                log::warn!("bundle refused: {reason}");
                Err(error)
            }
        }
    }

    /// What the admin API shows of the registries.
    pub(crate) fn registries(&mut self) -> Result<Vec<Registry>, ApiError> {
        let open = self.open()?;
        Ok(open
            .policy
            .registries
            .iter()
            .map(|(id, record)| shown(*id, record))
            .collect())
    }
}

/// Why nothing was imported: for the log, and for the caller.
struct Refusal {
    reason: String,
    registry: Option<RegistryId>,
    error: ApiError,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            reason: error.code.as_str().to_owned(),
            registry: None,
            error,
        }
    }
}

fn refused(reason: &str, text: &dyn std::fmt::Display) -> Refusal {
    let error = ApiError::new(ErrorCode::BundleRefused, &text.to_string());
    Refusal {
        reason: reason.to_owned(),
        registry: None,
        error,
    }
}

fn import(
    open: &mut Open,
    config: &crate::config::Config,
    uid: u32,
    source: &File,
) -> Result<Imported, Refusal> {
    let system = open.system();
    let taken = mcpist_bundle::take(source, &config.quarantine(), MAX_BUNDLE)
        .map_err(|e| refused(e.code(), &e))?;
    let floor = |namespace: &_, name: &_| {
        records::get::<FloorRecord>(&system, &records::floor_name(namespace, name))
            .map(|found| {
                found.map(|f| Floor {
                    sequence: f.sequence,
                    digest: f.digest,
                })
            })
            .map_err(|e| e.to_string())
    };
    let verified = taken.verify(&open.root, floor, 0).map_err(|e| {
        let code = match &e {
            VerifyError::AlreadyImported { .. } => ErrorCode::AlreadyImported,
            VerifyError::Equivocation { .. } => ErrorCode::Equivocation,
            _ => ErrorCode::BundleRefused,
        };
        Refusal {
            reason: e.code().to_owned(),
            registry: None,
            error: ApiError::new(code, &e.to_string()),
        }
    })?;
    let (id, manifest) = (verified.registry(), verified.manifest().clone());
    crate::live::check_modules(&id, &verified).map_err(|e| refused("module_invalid", &e))?;
    verified
        .stage(&config.registries())
        .map_err(|e| refused(e.code(), &e))?;

    let record = RegistryRecord {
        namespace: manifest.namespace.clone(),
        name: manifest.name.clone(),
        sequence: manifest.sequence,
        state: RegistryState::Imported,
        modules: manifest.modules.iter().map(|m| m.name.clone()).collect(),
        imported: today(),
    };
    let widens = widening(open, &id, &manifest, uid);
    let event = Event::BundleImported {
        registry: &id,
        namespace: &record.namespace,
        name: &record.name,
        sequence: record.sequence,
        widens: widens.is_some(),
        uid,
    };
    let floor = FloorRecord {
        sequence: record.sequence,
        digest: *id.digest(),
    };
    let batch = vec![
        records::put("registry", records::registry_name(&id), Some(&record))
            .map_err(|e| records_error(&e))?,
        records::put(
            records::FLOOR,
            records::floor_name(&record.namespace, &record.name),
            Some(&floor),
        )
        .map_err(|e| records_error(&e))?,
        Op::Outbox(outbox_line(&event)),
    ];
    let committed = system.commit(batch).map_err(|e| {
        open.stale |= is_in_doubt(&e);
        vault_error(&e)
    })?;
    let version = committed.versions.first().copied().unwrap_or_default();
    open.policy
        .add_registry(id, record.clone(), manifest, version);
    Ok(Imported {
        registry: shown(id, &record),
        widens: widens.map(str::to_owned).into_iter().collect(),
    })
}

/// What activating the new registry would widen.
fn widening(
    open: &Open,
    id: &RegistryId,
    manifest: &mcpist_core::manifest::Manifest,
    uid: u32,
) -> Option<&'static str> {
    let mut policy = Policy::default();
    policy.manifests = open.policy.manifests.clone();
    policy.registries = open.policy.registries.clone();
    policy.manifests.insert(*id, Arc::new(manifest.clone()));
    let view = View {
        policy: &policy,
        store: open.store(),
        requester: Some(uid),
        credential: None,
    };
    mcpist_core::change::widening(&Change::RegistryActivate(*id), &view)
}

fn shown(id: RegistryId, record: &RegistryRecord) -> Registry {
    Registry {
        id,
        namespace: record.namespace.clone(),
        name: record.name.clone(),
        sequence: record.sequence,
        state: record.state,
        modules: record.modules.clone(),
        imported: record.imported,
    }
}
