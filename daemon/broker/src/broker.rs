//! Bindings with their credentials, and the one act that gives a secret out.
//!
//! Owns [`Broker`]. Promises that a lease is granted only on a permit, only for the slots of its tool, only of a
//! credential that is for the binding's host, fits its injection and has not expired; and that a binding whose
//! credential is missing, or whose vault is away, fails by itself. Everything that can be judged beforehand is
//! judged when the snapshot is built.

use std::collections::BTreeMap;

use mcpist_core::binding::Binding;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{BindingName, CredentialName, Digest, VaultName};
use mcpist_core::permit::Permit;
use mcpist_core::result::ToolError;
use mcpist_secret::redact::{Fingerprint, RedactKey};
use mcpist_wire::Lease;
use mcpist_wire::lease::GrantError;

use crate::vault::{Held, Vault, VaultFault};

/// Why there is no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The snapshot has no such binding.
    #[error("binding {0} does not exist any more; join the slot to another")]
    NoBinding(BindingName),
    /// The vault or the credential.
    #[error("binding {binding}: {fault}")]
    Vault {
        /// The binding.
        binding: BindingName,
        /// What is wrong.
        fault: VaultFault,
    },
    /// The credential is not for the binding's host.
    #[error(
        "binding {0}: the credential is not for its host; put it with the host, or bind another"
    )]
    Host(BindingName),
    /// The credential is of another kind than the binding injects.
    #[error("binding {0}: the credential is of another kind than it injects")]
    Kind(BindingName),
    /// The credential's time is over.
    #[error("binding {0}: the credential has expired; put a new version")]
    Expired(BindingName),
    /// The wire does not take it.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl LeaseError {
    /// Whether the snapshot was replaced since: the next one has the credential under its vault's new keys.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let rotated = VaultFault::Rotated;
        matches!(self, LeaseError::Vault { fault, .. } if *fault == rotated)
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            LeaseError::NoBinding(_) => ErrorCode::NotJoined,
            LeaseError::Vault { fault, .. } => fault.code(),
            LeaseError::Host(_) | LeaseError::Kind(_) => ErrorCode::BindingRefused,
            LeaseError::Expired(_) => ErrorCode::CredentialExpired,
            LeaseError::Grant(_) => ErrorCode::Internal,
        }
    }
}

impl From<LeaseError> for ToolError {
    /// The client learns the code; names of bindings stay inside.
    fn from(error: LeaseError) -> ToolError {
        ToolError::of(error.code())
    }
}

/// A binding and the version of its record.
#[derive(Debug, Clone)]
pub struct BoundBinding {
    /// The record.
    pub binding: Binding,
    /// Its version, from 1.
    pub version: u64,
}

struct Bound {
    record: BoundBinding,
    held: Result<Held, LeaseError>,
    /// The credential's version before, still redacted.
    previous: Option<Held>,
}

/// All bindings of one snapshot.
#[derive(Default)]
pub struct Broker {
    bound: BTreeMap<BindingName, Bound>,
}

impl Broker {
    /// Gets the credential of every binding. `vault` finds a vault by name; `before` is the snapshot that this one
    /// replaces. May block as [`Vault::get`] does.
    #[must_use]
    pub fn build(
        bindings: impl IntoIterator<Item = BoundBinding>,
        vault: impl Fn(&VaultName) -> Result<Box<dyn Vault>, VaultFault>,
        before: Option<&Broker>,
    ) -> Broker {
        let bound = bindings.into_iter().map(|record| {
            let name = record.binding.name.clone();
            let held = get(&record.binding, &vault);
            let previous = before
                .and_then(|b| b.bound.get(&name))
                .and_then(|old| old.previous_of(&record, &held));
            (
                name,
                Bound {
                    record,
                    held,
                    previous,
                },
            )
        });
        Broker {
            bound: bound.collect(),
        }
    }

    /// Leases for the slots of the permit's tool. In memory only. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`LeaseError`]; what was opened before is wiped.
    pub fn lease(&self, permit: &Permit, now: u64) -> Result<Vec<Lease>, LeaseError> {
        let mut leases = Vec::with_capacity(permit.slots().len());
        for (slot, name) in permit.slots() {
            let bound = self
                .bound
                .get(name)
                .ok_or_else(|| LeaseError::NoBinding(name.clone()))?;
            let held = bound.held.as_ref().map_err(LeaseError::clone)?;
            if held.has_expired(now) {
                return Err(LeaseError::Expired(name.clone()));
            }
            let secret = held.open().map_err(|fault| LeaseError::Vault {
                binding: name.clone(),
                fault,
            })?;
            leases.push(Lease::grant(permit, slot, bound.record.version, secret)?);
        }
        Ok(leases)
    }

    /// The bindings, by name.
    pub fn bindings(&self) -> impl Iterator<Item = &BoundBinding> {
        self.bound.values().map(|b| &b.record)
    }

    /// The record of a binding.
    #[must_use]
    pub fn binding(&self, name: &BindingName) -> Option<&BoundBinding> {
        self.bound.get(name).map(|b| &b.record)
    }

    /// Bindings that grant no lease now, each with the reason.
    pub fn faults(&self) -> impl Iterator<Item = (&BindingName, &LeaseError)> {
        self.bound
            .iter()
            .filter_map(|(name, bound)| Some((name, bound.held.as_ref().err()?)))
    }

    /// Whether a binding fails for a reason that may be over by itself, such as a disk that hung: then the snapshot is
    /// worth building again after a while.
    #[must_use]
    pub fn has_passing_faults(&self) -> bool {
        self.faults().any(
            |(_, error)| matches!(error, LeaseError::Vault { fault, .. } if fault.is_passing()),
        )
    }

    /// Numbers of everything that must be redacted: the parts of the current and the previous version of every
    /// bound credential. A number stands for one version of one part for good.
    pub fn fingerprint_ids(&self) -> impl Iterator<Item = u64> {
        self.versions().flat_map(|(binding, held)| {
            (0..held.kind().part_count()).map(move |part| number(binding, held, part))
        })
    }

    /// The fingerprints under `key` of those numbers that `wanted` accepts. Opens each credential for a moment. One whose
    /// vault is sealed or quarantined, or whose key is gone since the vault was rotated, is left out: it grants no lease
    /// either.
    ///
    /// # Errors
    /// A credential that may grant leases could not be opened; without its fingerprint it would not be redacted.
    pub fn fingerprints(
        &self,
        key: &RedactKey,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Vec<(u64, Fingerprint)>, VaultFault> {
        let mut out = Vec::new();
        for (binding, held) in self.versions() {
            let ids: Vec<u64> = (0..held.kind().part_count())
                .map(|part| number(binding, held, part))
                .collect();
            if !ids.iter().any(|id| wanted(*id)) {
                continue;
            }
            let payload = match held.open() {
                Ok(payload) => payload,
                Err(
                    VaultFault::Sealed
                    | VaultFault::VaultSealed
                    | VaultFault::Quarantined
                    | VaultFault::Rotated,
                ) => continue,
                Err(fault) => return Err(fault),
            };
            let parts = held.kind().parts(payload.expose());
            for (id, part) in ids.into_iter().zip(parts) {
                if wanted(id)
                    && let Ok(fingerprint) = key.fingerprint(&payload.expose()[part])
                {
                    out.push((id, fingerprint));
                }
            }
        }
        Ok(out)
    }

    fn versions(&self) -> impl Iterator<Item = (&Binding, &Held)> {
        self.bound.values().flat_map(|bound| {
            bound
                .held
                .iter()
                .chain(&bound.previous)
                .map(|held| (&bound.record.binding, held))
        })
    }
}

impl Bound {
    /// What this entry leaves behind for its successor: the version that the successor replaces.
    fn previous_of(&self, record: &BoundBinding, held: &Result<Held, LeaseError>) -> Option<Held> {
        let same = self.record.binding.vault == record.binding.vault
            && self.record.binding.credential == record.binding.credential;
        match (&self.held, held) {
            // Nothing was replaced: there was nothing, or it is still the same.
            (Err(_), _) => self.previous.clone(),
            (Ok(old), Ok(new)) if same && new.version() == old.version() => self.previous.clone(),
            (Ok(old), _) => Some(old.clone()),
        }
    }
}

fn get(
    binding: &Binding,
    vault: &impl Fn(&VaultName) -> Result<Box<dyn Vault>, VaultFault>,
) -> Result<Held, LeaseError> {
    let name = &binding.name;
    let held = vault(&binding.vault)
        .and_then(|vault| vault.get(&binding.credential))
        .map_err(|fault| LeaseError::Vault {
            binding: name.clone(),
            fault,
        })?;
    if !held.is_for(&binding.host) {
        return Err(LeaseError::Host(name.clone()));
    }
    if !held.kind().fits(&binding.inject) {
        return Err(LeaseError::Kind(name.clone()));
    }
    Ok(held)
}

/// A number for one part of one version of a credential.
fn number(binding: &Binding, held: &Held, part: usize) -> u64 {
    let (vault, name): (&VaultName, &CredentialName) = (&binding.vault, &binding.credential);
    let text = format!("{vault}/{name}/{}/{part}", held.version());
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests;
