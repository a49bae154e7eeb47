//! Ceremonies, tickets, and what the secret socket answers.
//!
//! Plans and records cross as their canonical bytes; their types are the quorum crate's.

use serde::{Deserialize, Serialize};

use super::audit::{ExportFrom, Exported};
use super::backup::{BackupMade, DrillDone, OpenRestore, RestoreDone};
use super::policy::Imported;
use super::text::{Base64, PublicKey};
use super::vault::{CredentialStored, VaultInBackup, VaultRestored};
use super::{ApiError, Failure};
use crate::ids::{CredentialName, Digest, PrincipalName, VaultName};

/// Begins the first ceremony. The init token comes on the secret socket before, under a ticket for
/// [`Purpose::InitToken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// Shares that open the store.
    pub threshold: u8,
    /// Who gets a share, in order.
    pub holders: Vec<NewHolder>,
    /// The trust root's JSON text.
    pub root: Base64,
    /// The officers to enrol.
    pub officers: Vec<NewOfficer>,
    /// Makes a development store.
    #[serde(default)]
    pub dev: bool,
}

/// Who gets a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHolder {
    /// A name for people.
    pub label: String,
    /// The age recipient to which the share is encrypted.
    pub recipient: String,
}

/// An officer to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOfficer {
    /// A name for people.
    pub name: String,
    /// The officer's Ed25519 public key.
    pub public: PublicKey,
}

/// The plan that init would carry out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitPlan {
    /// Its canonical bytes.
    pub plan: Base64,
    /// Their digest, which confirms it.
    pub digest: Digest,
    /// The store that it replaces: one that was made and never opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// Carries out the plan with this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfirm {
    /// [`InitPlan::digest`], as its readers computed it.
    pub digest: Digest,
}

/// What init gives out, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitDone {
    /// A share for each holder.
    pub shares: Vec<DeliveredShare>,
    /// The ceremony record: canonical bytes.
    pub record: Base64,
    /// The ceremony record: text to print.
    pub record_text: String,
}

/// A share, encrypted to its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredShare {
    /// The holder.
    pub label: String,
    /// An armored age file.
    pub age: String,
}

/// The open plan to unseal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealPlan {
    /// Its canonical bytes.
    pub plan: Base64,
    /// Their digest, which goes with every share.
    pub digest: Digest,
    /// How far it is.
    pub progress: Progress,
}

/// What ending an unseal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealCancelled {
    /// Shares had been given, and are dropped.
    pub cancelled: bool,
}

/// Whose shares open the store, as its seal config says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Which sharing it is: 1 was init's, each rekey makes another.
    pub generation: u32,
    /// How many of them open the store.
    pub needed: u8,
    /// Their holders' labels, in the order of the shares.
    pub holders: Vec<String>,
}

/// How far a ceremony is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Shares that were taken.
    pub given: u8,
    /// Shares that are needed.
    pub needed: u8,
    /// Labels of the holders whose shares were taken.
    #[serde(default)]
    pub holders: Vec<String>,
    /// Seconds until the shares are dropped; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

/// Begins a ceremony of an open store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CeremonyRequest {
    /// New shares, for new holders or the same.
    Rekey {
        /// New shares that open the store.
        threshold: u8,
        /// Who gets one, in order.
        holders: Vec<NewHolder>,
        /// Replaces the root key too, so that what opened under the old one opens nothing any more.
        #[serde(default)]
        rotate_root: bool,
    },
    /// A new root key under the same shares.
    RotateRoot,
    /// Opens a vault that has a quorum of its own.
    UnsealVault {
        /// The vault.
        vault: VaultName,
    },
    /// Makes a vault with a quorum of its own.
    NewVault {
        /// Its name.
        vault: VaultName,
        /// Shares that open it.
        threshold: u8,
        /// Who gets one, in order.
        holders: Vec<NewHolder>,
    },
    /// New shares of a vault that has a quorum of its own.
    RekeyVault {
        /// The vault.
        vault: VaultName,
        /// New shares that open it.
        threshold: u8,
        /// Who gets one, in order.
        holders: Vec<NewHolder>,
    },
}

/// What a ceremony does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeremonyAct {
    /// New shares.
    Rekey,
    /// A new root key.
    RotateRoot,
    /// A vault's own quorum opens it.
    UnsealVault,
    /// A vault with a quorum of its own.
    NewVault,
    /// New shares of a vault's own quorum.
    RekeyVault,
}

/// Whose shares a ceremony waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeremonyPhase {
    /// The shares that open the store, or the vault: their holders consent.
    Consent,
    /// The new shares: their holders prove that they have them.
    Proof,
}

/// The ceremony that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCeremony {
    /// The plan's canonical bytes.
    pub plan: Base64,
    /// Their digest, which goes with every share.
    pub digest: Digest,
    /// What it does.
    pub act: CeremonyAct,
    /// The vault whose own quorum it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultName>,
    /// Whose shares it waits for.
    pub phase: CeremonyPhase,
    /// How far that phase is.
    pub progress: Progress,
}

/// The new shares of the open ceremony.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewShares {
    /// A share for each holder.
    pub shares: Vec<DeliveredShare>,
}

/// What a ceremony made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeremonyDone {
    /// What it did.
    pub act: CeremonyAct,
    /// The vault whose own quorum it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultName>,
    /// The generation of the shares that open the store, or that vault, from now on.
    pub generation: u32,
    /// The ceremony record, signed by the store's key: canonical bytes. Absent where the store could not be read for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Base64>,
    /// The ceremony record: text to print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_text: Option<String>,
    /// A witness receipt of the store afterwards, to be kept outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Why its line is not in the audit log yet, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_lost: Option<String>,
}

/// Asks for a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// What the frame on the secret socket will be.
    pub purpose: Purpose,
}

/// What a frame on the secret socket is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Purpose {
    /// The one-time token that allows init.
    InitToken,
    /// A share for the plan with this digest: to open the store, or of the open ceremony.
    Share {
        /// [`UnsealPlan::digest`] or [`OpenCeremony::digest`], as the holder computed it.
        plan: Digest,
    },
    /// The payload of a credential.
    Credential {
        /// The vault.
        vault: VaultName,
        /// The credential.
        name: CredentialName,
        /// Whose it is, where it is not shared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<PrincipalName>,
        /// `api-key`, `bearer` or `basic`.
        kind: String,
        /// The hosts that it is for; a binding only narrows them.
        hosts: Vec<String>,
        /// Until when, in seconds since 1970; 0 is for ever.
        #[serde(default)]
        expiry: u64,
    },
    /// A bundle, as a file descriptor.
    Import,
    /// An empty file for a backup, as a file descriptor open for reading and writing.
    Backup,
    /// A backup to verify, as a file descriptor.
    VerifyBackup,
    /// A backup to restore, as a file descriptor: begins the ceremony.
    Restore,
    /// A backup to rehearse the restore of, as a file descriptor: begins the ceremony.
    Drill,
    /// A backup to restore one vault out of, as a file descriptor.
    RestoreVault {
        /// The vault.
        vault: VaultName,
        /// What was shown before, to be done; without it it is only shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<Digest>,
        /// A vault that is not quarantined is to be replaced.
        #[serde(default)]
        replace: bool,
    },
    /// An empty file for lines of the audit log, as a file descriptor.
    Export {
        /// The line that they begin with.
        from: ExportFrom,
    },
}

impl Purpose {
    /// The stable name, as in JSON and in the audit log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Purpose::InitToken => "init_token",
            Purpose::Share { .. } => "share",
            Purpose::Credential { .. } => "credential",
            Purpose::Import => "import",
            Purpose::Backup => "backup",
            Purpose::VerifyBackup => "verify_backup",
            Purpose::Restore => "restore",
            Purpose::Drill => "drill",
            Purpose::RestoreVault { .. } => "restore_vault",
            Purpose::Export { .. } => "export",
        }
    }
}

/// A ticket: good once, for one user and one purpose.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// 64 hexadecimal digits.
    pub ticket: String,
    /// Seconds that it is good for.
    pub expires_s: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket(redacted, {} s)", self.expires_s)
    }
}

/// The line that the secret socket answers a frame with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redeemed {
    /// The init token was right: init is open to this user.
    InitToken,
    /// What came of a share.
    Share(ShareOutcome),
    /// A credential was stored.
    Credential(CredentialStored),
    /// A bundle was imported.
    Import(Imported),
    /// A backup was made, or verified.
    Backup(BackupMade),
    /// A restore, or the drill of one, waits for its quorum.
    Restore(OpenRestore),
    /// What a backup holds of a vault; nothing was done.
    VaultInBackup(VaultInBackup),
    /// A vault was restored out of a backup.
    VaultRestored(VaultRestored),
    /// Lines of the audit log were exported.
    Export(Exported),
    /// Nothing came of the frame.
    Error(ApiError),
}

impl From<Failure> for Redeemed {
    fn from(failure: Failure) -> Redeemed {
        Redeemed::Error(failure.error)
    }
}

/// What came of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareOutcome {
    /// It was taken, and more are needed.
    Pending(Progress),
    /// It was not taken, and cost no progress.
    Refused {
        /// The refusal's code, such as `damaged` or `other_store`.
        reason: String,
        /// The same in words, with the next step.
        message: String,
        /// How far the ceremony is.
        progress: Progress,
    },
    /// It was the last one: a store was made of the backup. It is sealed.
    Restored(Box<RestoreDone>),
    /// It was the last one: all of the backup opened, and nothing was kept of it.
    Drilled(Box<DrillDone>),
    /// It was the last one: the store is open.
    Opened(Unsealed),
    /// It was the last consent: the new shares are made, and wait for their holders' proof.
    Delivered {
        /// A share for each holder.
        shares: Vec<DeliveredShare>,
        /// How far the proof is.
        progress: Progress,
    },
    /// Its holder has the new share; more holders are waited for.
    Proven(Progress),
    /// It was the last one: the ceremony is done.
    Completed(CeremonyDone),
}

/// What unsealing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealed {
    /// Vaults that verified.
    pub vaults: u64,
    /// Records that verified.
    pub records: u64,
    /// Vaults that did not, which stay closed.
    #[serde(default)]
    pub quarantined: Vec<VaultName>,
    /// Vaults whose storage does not answer, or whose file is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<VaultName>,
    /// Vaults that wait for a quorum of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<VaultName>,
    /// Vaults whose last write was cut off by a crash.
    #[serde(default)]
    pub last_write_missing: Vec<VaultName>,
    /// A witness receipt of the store as it opened, to be kept outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}
