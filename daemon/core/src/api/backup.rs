//! Backups and restores. The files go over the secret socket, as descriptors.

use serde::{Deserialize, Serialize};

use super::ceremony::Progress;
use super::text::{Base64, PublicKey};
use crate::ids::Digest;

/// A backup that was made or verified: it was read back whole, every record opened but those of [`BackupMade::carried`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupMade {
    /// What names it: the digest that a plan to restore it shows.
    pub backup: Digest,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The generation of the system vault then.
    pub generation: u64,
    /// Its length.
    pub bytes: u64,
    /// Vaults in it, the system vault among them.
    pub vaults: u32,
    /// Records in them.
    pub records: u64,
    /// Files of registries.
    pub files: u32,
    /// Vaults in it that were sealed, and that only their own quorum verifies, at their unseal.
    #[serde(default)]
    pub carried: Vec<Carried>,
    /// Vaults that could not be read, and are not in it.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A vault with a quorum of its own that is in a backup as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its name.
    pub vault: String,
    /// Its records, which nobody has opened.
    pub records: u64,
}

/// A vault that is not in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub vault: String,
    /// Why.
    pub reason: String,
}

/// The last backup of this store that was verified, or that one is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// What names it.
    pub backup: Digest,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The generation of the system vault then.
    pub generation: u64,
    /// The vaults that are not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The vaults in it that only their own quorum verifies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<String>,
}

/// The restore, or the drill of one, that waits for its quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRestore {
    /// The plan's canonical bytes.
    pub plan: Base64,
    /// Their digest, which goes with every share.
    pub digest: Digest,
    /// What names the backup.
    pub backup: Digest,
    /// When the backup began, in seconds since 1970.
    pub created: u64,
    /// Its store's uuid.
    pub store: String,
    /// The generation of the shares that it takes.
    pub generation: u32,
    /// A store is here, which will be kept aside.
    pub replaces: bool,
    /// It is a drill: nothing will be kept of it.
    #[serde(default)]
    pub drill: bool,
    /// Lives later than the backup's that are over then, and that the new one is above: that of the store here, and those
    /// of witness receipts that wait. Nobody has judged them yet.
    #[serde(default)]
    pub overrides: Vec<u64>,
    /// How far it is.
    pub progress: Progress,
}

/// How far a restore that waits is. Its plan is for operators and auditors ([`OpenRestore`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStatus {
    /// It is a drill.
    pub drill: bool,
    /// How many shares it has.
    pub progress: Progress,
}

/// The record of the life that a restore began, once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeRecord {
    /// Canonical bytes, signed by the store's key.
    pub record: Base64,
    /// Text to print.
    pub record_text: String,
}

/// The store that a restore replaced, beside the open one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldStore {
    /// Which life it is of, as its folder says; none where no store is kept aside. All else of it is sealed.
    pub kept: Option<u64>,
    /// The life of the store that is open.
    pub life: u64,
    /// The generation of its system vault.
    pub generation: u64,
}

/// What a restore made. The store is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreDone {
    /// What names the backup.
    pub backup: Digest,
    /// Vaults, the system vault among them.
    pub vaults: u32,
    /// Records in them. All were opened but those of `carried`.
    pub records: u64,
    /// Files of registries.
    pub files: u32,
    /// Vaults that are there as they stood, and that only their own quorum verifies, at their unseal.
    #[serde(default)]
    pub carried: Vec<Carried>,
    /// Vaults that the backup did not hold: they stay closed.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Which life of the store begins: 1 was init's.
    pub life: u64,
    /// The store that was here is kept aside.
    pub kept: bool,
    /// The first public key of the audit log that begins.
    pub audit_key: PublicKey,
    /// The ceremony record, signed by the store's key: canonical bytes.
    pub record: Base64,
    /// The ceremony record: text to print.
    pub record_text: String,
    /// The restore is done, but this failed after it: look at the host before the store is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<String>,
}

/// What a drill of a restore found: the whole store was made of the backup, opened and removed again. Nothing in it is
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillDone {
    /// The plan that the shares were given for.
    pub plan: Digest,
    /// What names the backup.
    pub backup: Digest,
    /// Its store's uuid.
    pub store: String,
    /// When the backup began, in seconds since 1970.
    pub created: u64,
    /// The generation of the system vault then.
    pub generation: u64,
    /// When the drill ended, in seconds since 1970.
    pub drilled: u64,
    /// From the one to the other: what was done in that time would be lost with the host now. None where this host's clock
    /// is before the backup's.
    pub age_s: Option<u64>,
    /// Its length.
    pub bytes: u64,
    /// Vaults, the system vault among them.
    pub vaults: u32,
    /// Records in them. All were opened but those of `carried`.
    pub records: u64,
    /// Files of registries.
    pub files: u32,
    /// Vaults that are there as they stood, and that only their own quorum verifies, at their unseal.
    #[serde(default)]
    pub carried: Vec<Carried>,
    /// Vaults that the backup did not hold.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Milliseconds that it took to copy the backup in and to compare its digest.
    pub reading_ms: u64,
    /// Milliseconds that it took to write the store.
    pub building_ms: u64,
    /// Milliseconds that it took to open every record of it.
    pub verifying_ms: u64,
}

/// Whether a store that a restore replaced was there, and was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldRemoved {
    /// There was one.
    pub removed: bool,
}
