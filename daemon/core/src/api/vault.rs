//! Vaults and credentials. A payload goes in on the secret socket and never comes out.

use serde::{Deserialize, Serialize};

use super::status::VaultStatus;
use crate::ids::{CredentialName, PrincipalName, VaultName};

/// Makes a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVault {
    /// Its name.
    pub name: VaultName,
}

/// All vaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vaults {
    /// By name.
    pub vaults: Vec<VaultStatus>,
}

/// The credentials of one vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// By name and owner.
    pub credentials: Vec<Credential>,
}

/// One credential, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// Whose it is, where it is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalName>,
    /// `api-key`, `bearer` or `basic`.
    pub kind: String,
    /// The hosts that it is for.
    pub hosts: Vec<String>,
    /// Its version, from 1.
    pub version: u64,
    /// When this version was stored, in seconds since 1970.
    pub created: u64,
    /// Until when it is good, in seconds since 1970; 0 is for ever.
    pub expiry: u64,
}

/// A credential was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStored {
    /// The vault.
    pub vault: VaultName,
    /// The credential.
    pub name: CredentialName,
    /// The new version.
    pub version: u64,
}
