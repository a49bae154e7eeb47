//! The paths of the admin API, in one place for both ends.

use crate::ids::{CredentialName, Digest, VaultName};

/// What runs, and how it is.
pub const STATUS: &str = "/v1/status";
/// The first ceremony: a plan.
pub const INIT: &str = "/v1/init";
/// The first ceremony: its end.
pub const INIT_CONFIRM: &str = "/v1/init/confirm";
/// The open plan to unseal, and its progress.
pub const UNSEAL: &str = "/v1/unseal";
/// Ends the open plan and drops its shares.
pub const UNSEAL_CANCEL: &str = "/v1/unseal/cancel";
/// The open ceremony of an open store.
pub const CEREMONY: &str = "/v1/ceremony";
/// The new shares of the open ceremony.
pub const CEREMONY_SHARES: &str = "/v1/ceremony/shares";
/// Closes the store.
pub const SEAL: &str = "/v1/seal";
/// A receipt of the store as it is; presents one of what it was.
pub const WITNESS: &str = "/v1/witness";
/// The restore that waits for its quorum.
pub const RESTORE: &str = "/v1/restore";
/// The record of the life that a restore began.
pub const RESTORE_RECORD: &str = "/v1/restore/record";
/// The store that a restore replaced.
pub const RESTORE_OLD: &str = "/v1/restore/old";
/// A ticket for the secret socket.
pub const TICKET: &str = "/v1/ticket";
/// Vaults.
pub const VAULTS: &str = "/v1/vaults";
/// Principals.
pub const PRINCIPALS: &str = "/v1/principals";
/// Grants.
pub const GRANTS: &str = "/v1/grants";
/// Bindings.
pub const BINDINGS: &str = "/v1/bindings";
/// Joins.
pub const JOINS: &str = "/v1/joins";
/// Registries.
pub const REGISTRIES: &str = "/v1/registries";
/// Changes of the policy.
pub const CHANGES: &str = "/v1/changes";
/// Why a principal sees a tool or not.
pub const MASK_EXPLAIN: &str = "/v1/mask/explain";
/// Where the audit log stands.
pub const AUDIT_HEAD: &str = "/v1/audit/head";
/// Lines of the audit log.
pub const AUDIT_LINES: &str = "/v1/audit/lines";
/// Whether a call was made with these arguments.
pub const AUDIT_MATCH: &str = "/v1/audit/match";
/// A second auditor has an export.
pub const AUDIT_CONFIRM: &str = "/v1/audit/confirm";

/// Says that somebody has seen that a vault's last write is missing.
pub fn confirm_last_write(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/confirm-last-write")
}

/// Seals a vault that has a quorum of its own, alone.
pub fn seal_vault(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/seal")
}

/// Reads a vault whole and compares it with what is in memory.
pub fn verify_vault(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/verify")
}

/// Gives a vault new keys.
pub fn rotate_vault(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/rotate")
}

/// What can be kept of a quarantined vault.
pub fn examine_vault(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/examine")
}

/// Rebuilds a quarantined vault from what can be kept.
pub fn repair_vault(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/repair")
}

/// Discards the damaged files of a vault's repairs.
pub fn discard_damaged(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/discard")
}

/// The credentials of a vault.
pub fn credentials(vault: &VaultName) -> String {
    format!("{VAULTS}/{vault}/credentials")
}

/// One credential of a vault.
pub fn credential(vault: &VaultName, name: &CredentialName) -> String {
    format!("{VAULTS}/{vault}/credentials/{name}")
}

/// A proposed change as its officers read it; its proposer deletes it.
pub fn change(change: &Digest) -> String {
    format!("{CHANGES}/{change}")
}

/// The approvals of a proposed change.
pub fn approvals(change: &Digest) -> String {
    format!("{CHANGES}/{change}/approvals")
}
