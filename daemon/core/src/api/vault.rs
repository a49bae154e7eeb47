//! Vaults and credentials. A payload goes in on the secret socket and never comes out.

use serde::{Deserialize, Serialize};

use super::status::VaultStatus;
use crate::ids::{CredentialName, Digest, PrincipalName, VaultName};

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

/// A vault was read whole, and is what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultVerified {
    /// The vault.
    pub vault: VaultName,
    /// Records, each opened.
    pub records: u64,
    /// Audit lines that stand in it, copied to the log or not.
    pub lines: u64,
}

/// Gives a vault new keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateVault {
    /// Only what is written from now on is under a new one.
    #[serde(default)]
    pub lazy: bool,
}

/// A vault has new keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRotated {
    /// The vault.
    pub vault: VaultName,
    /// Records that stand under the new keys.
    pub records: u64,
    /// Records that stand under earlier ones, until each is put again.
    pub old_records: u64,
}

/// What can be kept of a quarantined vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultFindings {
    /// The vault.
    pub vault: VaultName,
    /// What a repair is confirmed by: it stands for every byte that was read.
    pub plan: Digest,
    /// Records that open.
    pub kept: u64,
    /// Rows that do not.
    pub damaged: u64,
    /// The first of them, by the beginnings of their names' HMACs: no name can be read of them.
    pub damaged_rows: Vec<String>,
    /// Places where the file could not be read.
    pub unreadable: u64,
    /// Records that the last write left, by the vault's head; none where no head opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// Of those, the ones of which there is not even a damaged row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// The records that are kept are exactly those of the last write. Else any of them may be an older version.
    pub sure: bool,
    /// Audit lines that are kept.
    pub lines: u64,
    /// Audit lines that are not; none where no head opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_lost: Option<u64>,
    /// The credentials that bindings name and of which nothing is kept.
    pub lost: Vec<LostCredential>,
}

/// A credential that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCredential {
    /// Its name.
    pub name: CredentialName,
    /// Whose it is, where it is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalName>,
}

/// Confirms a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairVault {
    /// The plan of what was found.
    pub plan: Digest,
}

/// A vault was repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRepaired {
    /// The id of the damaged file, which is kept.
    pub file: String,
    /// What was found in it.
    pub findings: VaultFindings,
}

/// What a backup holds of a vault, beside what is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultInBackup {
    /// The vault.
    pub vault: VaultName,
    /// What a restore is confirmed by: it stands for the backup and for the vault as it is.
    pub plan: Digest,
    /// What names the backup.
    pub backup: Digest,
    /// When the backup began, in seconds since 1970.
    pub created: u64,
    /// Records that it holds of the vault.
    pub records: u64,
    /// Records here that open; none where there is no vault of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<u64>,
    /// The vault here is quarantined, or its file is gone.
    pub quarantined: bool,
    /// Rows here that do not open.
    pub damaged: u64,
    /// What is counted as lost is all that is. Where it is not so, records that do not open or that are not there any more
    /// are lost as well, unless the backup has them.
    pub sure: bool,
    /// Commits of the same vault since the backup that the store knows; none where it cannot know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Of those here, the ones that the backup has in another version.
    pub other: u64,
    /// Of those here, the ones that the backup does not have.
    pub missing: u64,
    /// The first of both.
    pub lost: Vec<LostCredential>,
    /// Audit lines that waited in a quarantined vault and are lost; none where no head opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_lost: Option<u64>,
    /// A quorum of its own opens the vault: it is sealed afterwards, and what of it would be lost cannot be said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_quorum: bool,
}

/// A vault was restored out of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRestored {
    /// The id of the file that was the vault, which is kept; none where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What was found before.
    pub found: VaultInBackup,
}

/// Damaged files were discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedDiscarded {
    /// How many.
    pub files: u64,
}

/// The credentials of one vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// By name and owner.
    pub credentials: Vec<Credential>,
    /// The shared ones that bindings name and that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<CredentialName>,
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
