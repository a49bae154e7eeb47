//! A vault as the broker sees it: whatever holds credentials, behind one small trait.
//!
//! Owns [`Vault`] and the kind `sealed`. Getting may block and happens when a snapshot is built; opening what was got
//! happens for each lease and touches memory only. Promises that a fault names the vault's state and no credential.

use std::sync::Arc;

use mcpist_core::binding::HostName;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::CredentialName;
use mcpist_sealer::{Health, OpenVault, RecordKey, SealedRecord, VaultError};
use mcpist_secret::Secret;

use crate::credential::Kind;

/// Where credentials come from. One vault never waits for another.
pub trait Vault: Send + Sync {
    /// Gets the shared credential `name`, still closed. May block on a disk or a network.
    ///
    /// # Errors
    /// [`VaultFault`].
    fn get(&self, name: &CredentialName) -> Result<Held, VaultFault>;

    /// Whether the vault answers now. Waits for nothing.
    fn health(&self) -> Health;
}

/// Why a credential could not be got or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultFault {
    /// There is none of this name.
    #[error("the credential is not in the vault; put it")]
    Missing,
    /// The store was sealed meanwhile.
    #[error("the store is sealed")]
    Sealed,
    /// The vault does not answer.
    #[error("the vault does not answer")]
    Unavailable,
    /// The vault failed its verification.
    #[error("the vault is quarantined")]
    Quarantined,
    /// The vault got new keys since the credential was got: a newer snapshot has it under those.
    #[error("the vault's keys were replaced meanwhile; call again")]
    Rotated,
    /// The vault has a quorum of its own, which has not opened it.
    #[error("the vault waits for its own quorum")]
    VaultSealed,
    /// The record is no credential.
    #[error("the record is no credential of a known kind; put it again")]
    NotACredential,
    /// No room in secret memory.
    #[error("secret memory is full")]
    NoMemory,
}

impl VaultFault {
    /// Whether it may be over by itself, so that getting the credential again is worth the while.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            VaultFault::Unavailable | VaultFault::Rotated | VaultFault::NoMemory
        )
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            VaultFault::Missing | VaultFault::NotACredential => ErrorCode::CredentialMissing,
            VaultFault::Sealed => ErrorCode::Sealed,
            VaultFault::Unavailable => ErrorCode::VaultUnavailable,
            VaultFault::Quarantined => ErrorCode::VaultQuarantined,
            VaultFault::VaultSealed => ErrorCode::VaultSealed,
            VaultFault::Rotated | VaultFault::NoMemory => ErrorCode::Busy,
        }
    }
}

impl From<VaultError> for VaultFault {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Sealed => VaultFault::Sealed,
            VaultError::Quarantined(_) => VaultFault::Quarantined,
            VaultError::VaultSealed(_) => VaultFault::VaultSealed,
            VaultError::NotFound(_) | VaultError::NoSuchVault(_) => VaultFault::Missing,
            VaultError::Rotated => VaultFault::Rotated,
            VaultError::Memory(_) => VaultFault::NoMemory,
            _ => VaultFault::Unavailable,
        }
    }
}

/// What opens one version of a credential, each time anew.
pub trait Closed: Send + Sync {
    /// Opens the payload into secret memory. In memory only: this is the path of a call.
    ///
    /// # Errors
    /// [`VaultFault`]: the vault's state has changed since the credential was got.
    fn open(&self) -> Result<Secret, VaultFault>;
}

/// One version of a credential, closed: what may be known of it, and what opens it.
#[derive(Clone)]
pub struct Held {
    kind: Kind,
    version: u64,
    expiry: u64,
    hosts: Arc<[String]>,
    closed: Arc<dyn Closed>,
}

impl Held {
    /// Version `version` of a credential of `kind` for `hosts`, until `expiry` (seconds since 1970, 0 for never).
    #[must_use]
    pub fn new(
        kind: Kind,
        version: u64,
        expiry: u64,
        hosts: &[String],
        closed: Arc<dyn Closed>,
    ) -> Held {
        Held {
            kind,
            version,
            expiry,
            hosts: hosts.into(),
            closed,
        }
    }

    /// How it is injected.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its version, from 1.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Seconds since 1970 from which on it is no longer used; 0 is never.
    #[must_use]
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// Whether it is used no more at `now`, in seconds since 1970.
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        self.expiry != 0 && self.expiry <= now
    }

    /// Whether it may go to `host`.
    #[must_use]
    pub fn is_for(&self, host: &HostName) -> bool {
        self.hosts.iter().any(|bound| bound == host.as_str())
    }

    /// Opens it, in memory.
    ///
    /// # Errors
    /// [`VaultFault`]: the store was sealed, or the vault quarantined, since it was got.
    pub fn open(&self) -> Result<Secret, VaultFault> {
        self.closed.open()
    }
}

/// A record of a sealed vault: its sealed bytes in memory, and the handle that lends the key.
struct SealedCredential {
    vault: OpenVault,
    sealed: SealedRecord,
}

impl Closed for SealedCredential {
    fn open(&self) -> Result<Secret, VaultFault> {
        Ok(self.vault.open(&self.sealed)?)
    }
}

/// The kind `sealed`: a vault of the sealed store.
pub struct SealedVault(OpenVault);

impl SealedVault {
    /// The vault behind `handle`.
    #[must_use]
    pub fn new(handle: OpenVault) -> Self {
        Self(handle)
    }
}

impl Vault for SealedVault {
    fn get(&self, name: &CredentialName) -> Result<Held, VaultFault> {
        let sealed = self.0.load(&RecordKey {
            owner: None,
            name: name.as_str(),
        })?;
        let kind = Kind::parse(&sealed.meta().kind).map_err(|_| VaultFault::NotACredential)?;
        let meta = sealed.meta().clone();
        let closed = Arc::new(SealedCredential {
            vault: self.0.clone(),
            sealed,
        });
        Ok(Held::new(
            kind,
            meta.version,
            meta.expiry,
            &meta.hosts,
            closed,
        ))
    }

    fn health(&self) -> Health {
        self.0.health()
    }
}
