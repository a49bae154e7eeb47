//! What runs, and how it is.

use serde::{Deserialize, Serialize};

use super::backup::{LastBackup, RestoreStatus};
use super::ceremony::{CeremonyAct, CeremonyPhase, Progress, Shares};
use super::text::PublicKey;
use super::witness::WitnessStatus;
use crate::error::ErrorCode;
use crate::ids::{Digest, ModuleName, RegistryId, SiteId, VaultName};

/// The state of the whole appliance. Works sealed; what needs the open store is empty then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The store.
    pub state: StoreState,
    /// The store is a development store.
    pub dev: bool,
    /// The store's uuid, where there is a store.
    #[serde(default)]
    pub store: Option<String>,
    /// Whose shares open it, where there is a store.
    #[serde(default)]
    pub shares: Option<Shares>,
    /// The site that bundles are for.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// What a bundle's end is judged against, in seconds since 1970; 0 where officers have not set it. Absent while the
    /// store is closed.
    #[serde(default)]
    pub time_floor: Option<u64>,
    /// How far an open unseal is.
    #[serde(default)]
    pub unseal: Option<Progress>,
    /// The ceremony that an open store waits for shares of.
    #[serde(default)]
    pub ceremony: Option<CeremonyStatus>,
    /// The restore, or the drill of one, that waits for shares.
    #[serde(default)]
    pub restore: Option<RestoreStatus>,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Calls that are being made.
    pub calls_in_flight: u64,
    /// The protection of secret memory.
    pub memory: MemoryStatus,
    /// The protection of the process; absent where the daemon is older than who asks.
    #[serde(default)]
    pub process: Option<ProcessStatus>,
    /// The vaults.
    #[serde(default)]
    pub vaults: Vec<VaultStatus>,
    /// The modules of active registries.
    #[serde(default)]
    pub modules: Vec<ModuleStatus>,
    /// The runners that are expected.
    #[serde(default)]
    pub runners: Vec<RunnerStatus>,
    /// What stays outside the store as a witness of it; absent while it is closed.
    #[serde(default)]
    pub witness: Option<WitnessStatus>,
    /// The last backup that was verified; absent while the store is closed, and where there was none.
    #[serde(default)]
    pub backup: Option<LastBackup>,
    /// The store that a restore replaced is kept beside this one.
    #[serde(default)]
    pub old_store: bool,
    /// The audit log, where it is open.
    #[serde(default)]
    pub audit: Option<AuditHead>,
    /// What an operator should look at; empty when all is well.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
}

/// How far the open ceremony is. Its plan is for operators ([`super::OpenCeremony`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeremonyStatus {
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

/// The state of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// There is none.
    Uninitialised,
    /// It is closed.
    Sealed,
    /// It is open.
    Unsealed,
}

impl StoreState {
    /// The exit status of `mcpist status`: 0 unsealed, 2 sealed, 1 where there is no store.
    pub fn exit_code(self) -> u8 {
        match self {
            StoreState::Unsealed => 0,
            StoreState::Sealed => crate::error::EXIT_SEALED,
            StoreState::Uninitialised => crate::error::EXIT_FAILURE,
        }
    }
}

/// The protection of secret memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// `memfd_secret`, `locked` or `plain`.
    pub pages: String,
    /// Protections that are missing on this host.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The protection of the daemon's process, as the kernel says it at the time of asking. What could not be read counts as
/// missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Size of the arena of secret pages, in bytes.
    pub arena_bytes: u64,
    /// How much the process may lock in memory, in bytes; `u64::MAX` for no limit.
    pub memlock_bytes: u64,
    /// The arena is left out of core dumps.
    pub dont_dump: bool,
    /// The arena is not mapped in a child.
    pub dont_fork: bool,
    /// The arena would be empty in a child that had it all the same.
    pub wipe_on_fork: bool,
    /// Other programs of its user may read its memory and attach to it.
    pub dumpable: bool,
    /// The largest core that it may leave, in bytes; `u64::MAX` for no limit.
    pub core_bytes: u64,
    /// No program that it ran could gain a privilege.
    pub no_new_privileges: bool,
    /// Its system calls are filtered.
    pub filtered: bool,
    /// It holds capabilities.
    pub capable: bool,
    /// It has a way to a network.
    pub networked: bool,
    /// A TPM's counter is a witness of the store.
    pub tpm: bool,
}

/// One vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// Its name.
    pub name: VaultName,
    /// How it is.
    pub health: VaultHealth,
    /// Why it is not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Records that it holds.
    pub records: u64,
    /// Records under an earlier key than the newest, after a lazy rotation.
    #[serde(default)]
    pub old_records: u64,
    /// The rotation that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// It is being read whole, to be verified, repaired or restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<ReadingStatus>,
    /// Its last write was cut off by a crash and waits for a custodian's confirmation.
    #[serde(default)]
    pub last_write_missing: bool,
}

/// How far a vault's records are copied under new keys. It takes no change meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Records that are copied.
    pub copied: u64,
    /// Records that there are.
    pub records: u64,
}

/// How far a vault is read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingStatus {
    /// Rows that were read and judged.
    pub read: u64,
    /// Records that there are; 0 where nobody knows.
    pub records: u64,
}

/// How a vault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultHealth {
    /// It serves.
    Ok,
    /// Its storage does not answer.
    Unavailable,
    /// It failed its verification.
    Quarantined,
    /// It has a quorum of its own, which has not opened it.
    Sealed,
}

/// One module of an active registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Its name.
    pub name: ModuleName,
    /// The registry that it comes from.
    pub registry: RegistryId,
    /// How it is.
    pub state: ModuleState,
    /// Why it does not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Tools that can be called.
    pub tools: u64,
}

/// How a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// A runner is connected and was told of it.
    Ready,
    /// No runner is connected.
    Loading,
    /// It could not be built from its bundle.
    Broken,
    /// Its service gave secrets back too often: it takes no calls until officers activate its registry again.
    Quarantined,
}

/// One runner that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// `run` or `vault`.
    pub role: String,
    /// It is connected.
    pub connected: bool,
}

/// Where the audit log stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Sequence of the last line.
    pub seq: u64,
    /// Hash of the last line: what `audit verify --expect` takes.
    pub head: Digest,
    /// Number of the last checkpoint.
    pub checkpoint: u64,
    /// Lines that it covers.
    pub covered: u64,
    /// Public key that signs the next checkpoint.
    pub next_key: PublicKey,
}

/// Something that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The stable code.
    pub code: ErrorCode,
    /// What is wrong, and the next step.
    pub message: String,
}
