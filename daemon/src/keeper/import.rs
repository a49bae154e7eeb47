//! A bundle's way in: quarantine, verification, staging, and one commit that makes it a registry.
//!
//! Owns the order of an import. Promises that an interruption anywhere leaves the old state or the whole new one:
//! the registry's folder is there, synced, before the commit that names it, and a folder that no record names is
//! removed or found again by the next import. An imported registry serves nothing until a change activates it.
//!
//! The keeper does the commit alone. What reads the stick or moves gigabytes runs on threads of its own, so that neither
//! a seal nor any other act waits for it; what outlasts the session that it began in is not committed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mcpist_bundle::{Floor, Quarantined, Root, StageError, TakeError, VerifyError};
use mcpist_core::api::{ApiError, Imported, Registry, RegistryState};
use mcpist_core::change::{Change, Object};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::RegistryId;
use mcpist_core::manifest::Manifest;
use mcpist_sealer::{Op, OpenVault, RecordKey, VaultError};
use tokio::sync::Semaphore;

use super::policy::{Policy, View};
use super::records::{self, FloorRecord, RegistryRecord};
use super::{
    Keeper, KeeperHandle, Open, audit_error, io_code, is_in_doubt, lock, outbox_line,
    records_error, today, vault_error,
};
use crate::audit::{Asker, AuditError};
use crate::config::Config;

/// Largest bundle that is taken, in bytes.
const MAX_BUNDLE: u64 = 4 << 30;
/// Imports at once, each of another user: a descriptor that never answers costs its user alone. Fewer than the secret
/// socket has connections, so that shares still come in.
const AT_ONCE: usize = 4;

/// Reads the manifest of every registry, which its id is the digest of. Where it cannot be read the registry serves
/// nothing, and `status` and the daemon's log name it. The other files are hashed by who reads them: a snapshot those of
/// the modules that it builds, so that the keeper's thread does not go through gigabytes.
pub(super) fn read_manifests(policy: &mut Policy, folder: &Path) {
    for id in policy.registries.keys() {
        match mcpist_bundle::load(folder, id) {
            Ok(loaded) => {
                policy.manifests.insert(*id, Arc::new(loaded.manifest));
            }
            Err(e) => {
                log::error!("damaged, serves nothing: {e}");
                let text = format!("damaged, serves nothing: {e}");
                policy.damaged.insert(*id, text);
            }
        }
    }
}

/// What bounds imports.
pub(super) struct Imports {
    /// Whose are under way.
    users: Mutex<BTreeSet<u32>>,
    /// From the verification to the commit there is one at a time.
    bench: Semaphore,
}

/// The one place of a user, until it is dropped.
struct Place {
    of: Arc<Imports>,
    uid: u32,
}

impl Imports {
    pub(super) fn new() -> Self {
        Self {
            users: Mutex::default(),
            bench: Semaphore::new(1),
        }
    }

    fn place(self: &Arc<Self>, uid: u32) -> Result<Place, ApiError> {
        let mut users = lock(&self.users);
        let is_theirs = users.contains(&uid);
        if is_theirs || users.len() >= AT_ONCE {
            let whose: Vec<_> = users
                .iter()
                .filter(|u| !is_theirs || **u == uid)
                .map(u32::to_string)
                .collect();
            return Err(ApiError::new(
                ErrorCode::Busy,
                &format!(
                    "imports are under way, of uid {}; wait, or have the stick pulled out that hangs, then try again",
                    whose.join(", ")
                ),
            ));
        }
        users.insert(uid);
        Ok(Place {
            of: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.of.users).remove(&self.uid);
    }
}

/// What an import is judged by, as of its begin.
struct Ground {
    root: Root,
    /// Of this opening of the store: once it was sealed, what began in it reads and commits nothing.
    system: OpenVault,
    /// In seconds since 1970.
    time_floor: u64,
}

/// A registry whose folder is there, and whose record is not.
struct Staged {
    id: RegistryId,
    manifest: Manifest,
    system: OpenVault,
    /// The record is there as well; the folder was damaged.
    is_repair: bool,
}

/// Why nothing was imported: for the caller, with the code for the log as its reason.
struct Refusal {
    registry: Option<RegistryId>,
    error: ApiError,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            registry: None,
            error,
        }
    }
}

fn refused(code: ErrorCode, reason: &str, text: &dyn std::fmt::Display) -> Refusal {
    ApiError::new(code, &text.to_string()).reason(reason).into()
}

impl KeeperHandle {
    /// Imports the bundle behind `source`.
    pub(crate) async fn import(&self, uid: u32, source: File) -> Result<Imported, ApiError> {
        self.import_from(uid, move |quarantine| {
            mcpist_bundle::take(&source, quarantine, MAX_BUNDLE)
        })
        .await
    }

    /// Imports the bundle that `take` copies into the quarantine.
    pub(super) async fn import_from(
        &self,
        uid: u32,
        take: impl FnOnce(&Path) -> Result<Quarantined, TakeError> + Send + 'static,
    ) -> Result<Imported, ApiError> {
        let ground = self.ask(|keeper| keeper.import_ground()).await?;
        let _held = self.imports.place(uid)?;
        let house = Arc::clone(&self.house);
        let taken = blocking(move || take(&house.config.quarantine())).await?;
        let taken = match taken {
            Ok(taken) => taken,
            Err(e) => return self.refuse(uid, not_taken(&e)).await,
        };
        let bench = self.imports.bench.acquire().await;
        let _bench = bench.map_err(|_| ApiError::of(ErrorCode::Internal))?;
        let house = Arc::clone(&self.house);
        match blocking(move || stage(ground, &taken, &house.config)).await? {
            Ok(staged) => {
                self.ask(move |keeper| keeper.commit_import(uid, staged))
                    .await
            }
            Err(refusal) => self.refuse(uid, refusal).await,
        }
    }

    async fn refuse(&self, uid: u32, refusal: Refusal) -> Result<Imported, ApiError> {
        self.ask(move |keeper| Err(keeper.refuse_bundle(uid, refusal)))
            .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::of(ErrorCode::Internal))
}

impl Keeper {
    fn import_ground(&mut self) -> Result<Ground, ApiError> {
        let open = self.open_for_change()?;
        Ok(Ground {
            root: open.root.clone(),
            system: open.system(),
            time_floor: open.policy.time_floor,
        })
    }

    /// Makes a staged bundle a registry; for a repair, lets the registry serve again.
    fn commit_import(&mut self, uid: u32, staged: Staged) -> Result<Imported, ApiError> {
        let open = self.open_for_change()?;
        let (id, is_repair) = (staged.id, staged.is_repair);
        let committed = commit(open, uid, staged);
        if open.stale {
            self.cut_off();
        }
        let mut imported = committed?;
        if is_repair {
            self.follow(Ok(()))?;
        }
        self.drain_system()?;
        imported.receipt = self.witnessed();
        log::info!("bundle imported: registry {}", id.short());
        Ok(imported)
    }

    fn refuse_bundle(&mut self, uid: u32, refusal: Refusal) -> ApiError {
        let Refusal { registry, error } = refusal;
        let reason = error.reason.as_deref().unwrap_or(error.code.as_str());
        let event = Event::BundleRefused {
            reason,
            registry: registry.as_ref(),
            uid,
        };
        log::warn!("bundle refused: {reason}");
        let asker = Asker::User(uid);
        match (self.house.audit).append_limited(asker, &event, Instant::now()) {
            // Sealed meanwhile: there is no log to write to.
            Ok(_) | Err(AuditError::Closed) => error,
            Err(e) => audit_error(&e),
        }
    }

    /// What the admin API shows of the registries.
    pub(crate) fn registries(&mut self) -> Result<Vec<Registry>, ApiError> {
        let open = self.open()?;
        Ok(open
            .policy
            .registries
            .iter()
            .map(|(id, record)| listed(&open.policy, *id, record))
            .collect())
    }
}

fn not_taken(error: &TakeError) -> Refusal {
    let code = match error {
        TakeError::TooLarge { .. } => ErrorCode::TooLarge,
        TakeError::Io(e) => io_code(e, ErrorCode::BundleRefused),
        TakeError::NotAFile | TakeError::Shrunk => ErrorCode::BundleRefused,
    };
    refused(code, error.code(), error)
}

fn not_verified(error: &VerifyError) -> Refusal {
    let code = match error {
        VerifyError::AlreadyImported { .. } => ErrorCode::AlreadyImported,
        VerifyError::Equivocation { .. } => ErrorCode::Equivocation,
        _ => ErrorCode::BundleRefused,
    };
    refused(code, error.code(), error)
}

fn not_staged(error: &StageError) -> Refusal {
    let code = match error {
        StageError::Io(e) => io_code(e, ErrorCode::Unavailable),
        StageError::Changed(_) => ErrorCode::BundleRefused,
    };
    refused(code, error.code(), error)
}

/// Verifies the copy and writes the registry's folder.
fn stage(ground: Ground, taken: &Quarantined, config: &Config) -> Result<Staged, Refusal> {
    let Ground {
        root,
        system,
        time_floor,
    } = ground;
    let unread = RefCell::new(None);
    let verify = |ask_floor: bool| {
        taken.verify(
            &root,
            |namespace, name| {
                if !ask_floor {
                    return Ok(None);
                }
                let floor =
                    records::get::<FloorRecord>(&system, &records::floor_name(namespace, name));
                match floor {
                    Ok(found) => Ok(found.map(|f| Floor {
                        sequence: f.sequence,
                        digest: f.digest,
                    })),
                    Err(e) => {
                        unread.replace(Some(records_error(&e)));
                        Err(e.to_string())
                    }
                }
            },
            time_floor,
        )
    };
    let (verified, is_repair) = match verify(true) {
        Ok(verified) => (verified, false),
        Err(e @ (VerifyError::AlreadyImported { .. } | VerifyError::Older { .. })) => {
            // Everything but the sequence again. This very registry comes in once more where its folder is of no use.
            match verify(false) {
                Ok(verified) if is_damaged(&system, &verified.registry(), config)? => {
                    (verified, true)
                }
                _ => return Err(not_verified(&e)),
            }
        }
        Err(e) => {
            return Err(unread
                .take()
                .map_or_else(|| not_verified(&e), Refusal::from));
        }
    };
    let (id, manifest) = (verified.registry(), verified.manifest().clone());
    let of_this = |refusal: Refusal| Refusal {
        registry: Some(id),
        ..refusal
    };
    crate::live::check_modules(&id, &verified)
        .map_err(|e| of_this(refused(ErrorCode::BundleRefused, "module_invalid", &e)))?;
    let staged = verified.stage(&config.registries());
    staged.map_err(|e| of_this(not_staged(&e)))?;
    Ok(Staged {
        id,
        manifest,
        system,
        is_repair,
    })
}

/// Whether this is a registry of ours whose folder fails its check.
fn is_damaged(system: &OpenVault, id: &RegistryId, config: &Config) -> Result<bool, Refusal> {
    let known = records::get::<RegistryRecord>(system, &records::registry_name(id))
        .map_err(|e| records_error(&e))?;
    let checked = mcpist_bundle::load(&config.registries(), id).and_then(|loaded| loaded.check());
    Ok(known.is_some() && checked.is_err())
}

fn commit(open: &mut Open, uid: u32, staged: Staged) -> Result<Imported, ApiError> {
    let Staged {
        id,
        manifest,
        system,
        is_repair,
    } = staged;
    let known = open.policy.registries.get(&id).filter(|_| is_repair);
    let record = known.cloned().unwrap_or_else(|| RegistryRecord {
        namespace: manifest.namespace.clone(),
        name: manifest.name.clone(),
        sequence: manifest.sequence,
        state: RegistryState::Imported,
        modules: manifest.modules.iter().map(|m| m.name.clone()).collect(),
        imported: today(),
    });
    let widens = widening(open, &id, &manifest, uid).filter(|_| !is_repair);
    let event = Event::BundleImported {
        registry: &id,
        namespace: &record.namespace,
        name: &record.name,
        sequence: record.sequence,
        widens: widens.is_some(),
        uid,
    };
    let mut batch = Vec::new();
    if !is_repair {
        let version = open.policy.version(&Object::Registry(id));
        batch.push(
            records::put(
                "registry",
                records::registry_name(&id),
                Some(&record),
                records::expect(version),
            )
            .map_err(|e| records_error(&e))?,
        );
        batch.push(floor_op(&system, &id, &record)?);
    }
    batch.push(Op::Outbox(outbox_line(&event)));
    let committed = system.commit(batch).map_err(|e| {
        open.stale |= is_in_doubt(&e);
        vault_error(&e)
    })?;
    if is_repair {
        open.policy.mend_registry(id, manifest);
    } else {
        let version = committed.versions.first().copied().unwrap_or_default();
        open.policy
            .add_registry(id, record.clone(), manifest, version);
    }
    Ok(Imported {
        registry: shown(id, &record),
        widens: widens.map(str::to_owned).into_iter().collect(),
        receipt: None,
    })
}

/// The write of the bundle's new floor over the one that stands.
fn floor_op(system: &OpenVault, id: &RegistryId, record: &RegistryRecord) -> Result<Op, ApiError> {
    let name = records::floor_name(&record.namespace, &record.name);
    let key = RecordKey {
        owner: None,
        name: &name,
    };
    let version = match system.meta(&key) {
        Ok(meta) => Some(meta.version),
        Err(VaultError::NotFound(_)) => None,
        Err(e) => return Err(vault_error(&e)),
    };
    let floor = FloorRecord {
        sequence: record.sequence,
        digest: *id.digest(),
    };
    records::put(records::FLOOR, name, Some(&floor), records::expect(version))
        .map_err(|e| records_error(&e))
}

/// What activating the new registry would widen.
fn widening(open: &Open, id: &RegistryId, manifest: &Manifest, uid: u32) -> Option<&'static str> {
    let mut policy = Policy::default();
    policy.manifests = open.policy.manifests.clone();
    policy.registries = open.policy.registries.clone();
    policy.manifests.insert(*id, Arc::new(manifest.clone()));
    let view = View {
        policy: &policy,
        store: open.store(),
        requesters: vec![uid],
        credential: None,
    };
    mcpist_core::change::widening(&Change::RegistryActivate(*id), &view)
}

/// A registry as the admin API shows it.
pub(super) fn listed(policy: &Policy, id: RegistryId, record: &RegistryRecord) -> Registry {
    let mut listed = shown(id, record);
    if policy.draining.contains_key(&id) {
        listed.state = RegistryState::Draining;
    }
    listed
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

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn what_refuses_an_import_has_its_code_and_its_reason() {
        let full = || Error::from(ErrorKind::StorageFull);
        let other = || Error::from(ErrorKind::TimedOut);
        let table = [
            (
                not_taken(&TakeError::NotAFile),
                ErrorCode::BundleRefused,
                "not_a_file",
            ),
            (
                not_taken(&TakeError::Shrunk),
                ErrorCode::BundleRefused,
                "shrunk",
            ),
            (
                not_taken(&TakeError::TooLarge { size: 2, cap: 1 }),
                ErrorCode::TooLarge,
                "too_large",
            ),
            (
                not_taken(&TakeError::Io(full())),
                ErrorCode::DiskFull,
                "quarantine_io",
            ),
            (
                not_taken(&TakeError::Io(other())),
                ErrorCode::BundleRefused,
                "quarantine_io",
            ),
            (
                not_staged(&StageError::Io(full())),
                ErrorCode::DiskFull,
                "staging_io",
            ),
            (
                not_staged(&StageError::Io(other())),
                ErrorCode::Unavailable,
                "staging_io",
            ),
            (
                not_verified(&VerifyError::AlreadyImported { sequence: 1 }),
                ErrorCode::AlreadyImported,
                "already_imported",
            ),
            (
                not_verified(&VerifyError::Older { given: 1, known: 2 }),
                ErrorCode::BundleRefused,
                "older_sequence",
            ),
        ];
        for (refusal, code, reason) in table {
            let error = refusal.error;
            assert_eq!((error.code, error.reason.as_deref()), (code, Some(reason)));
        }
    }
}
