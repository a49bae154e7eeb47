//! What the audit log records: one closed list of events with typed fields. No I/O.
//!
//! Owns: [`Event`] and how each is written. A field that is not written here is in no audit line.
//! Promises: no event has a place for a secret, a share, a credential's payload or a service's
//! answer. Arguments appear as a MAC that the daemon computes under a key of its own; a value itself
//! only where the tool's manifest says that the argument may be recorded. Text that a stranger chose
//! (the names of a denied call) is escaped and bounded like every other text.
//! Does not: carry a sequence, a time or a hash. [`crate::audit::Chain`] adds them.

use crate::access::Access;
use crate::audit::UnixMs;
use crate::error::ErrorCode;
use crate::ids::{
    BindingName, BundleName, CallId, CredentialName, Digest, ModuleRev, Namespace, PrincipalName,
    RegistryId, SiteId, ToolName, VaultName,
};

mod name;
mod write;

#[cfg(test)]
mod tests;

/// Items of a list that a line names; more are left out, so that no line outgrows the log's bound.
pub const MAX_ITEMS: usize = 16;

/// HMAC-SHA-256 of an argument buffer under the audit sub-key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgumentsMac(pub [u8; 32]);

/// One argument that its tool's manifest lets be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The argument's name.
    pub name: &'a str,
    /// Its JSON text; recorded as a string of at most [`crate::audit::MAX_TEXT`] bytes.
    pub value: &'a str,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why it gave no result, or nothing where it gave one.
    pub error: Option<ErrorCode>,
    /// The tool itself reported a failure.
    pub is_error: bool,
    /// The result was cut at its limit.
    pub truncated: bool,
    /// Bytes of content for the client.
    pub bytes: u64,
    /// Secrets that the redactors took out of the answer.
    pub hits: u32,
    /// From the intent to the end of the call, in microseconds.
    pub micros: u64,
}

/// Which ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    /// The first one, which makes the store.
    Init,
    /// Opening the store.
    Unseal,
    /// New shares for the same keys.
    Rekey,
    /// A new root key or a new key of a vault.
    Rotate,
    /// A store from a backup.
    Restore,
    /// Opening a vault that has a quorum of its own.
    UnsealVault,
    /// A vault with a quorum of its own.
    NewVault,
    /// New shares of a vault's own quorum.
    RekeyVault,
}

impl Ceremony {
    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Ceremony::Init => "init",
            Ceremony::Unseal => "unseal",
            Ceremony::Rekey => "rekey",
            Ceremony::Rotate => "rotate",
            Ceremony::Restore => "restore",
            Ceremony::UnsealVault => "unseal_vault",
            Ceremony::NewVault => "new_vault",
            Ceremony::RekeyVault => "rekey_vault",
        }
    }
}

/// One step of a ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A plan stands.
    Planned,
    /// A share was taken.
    ShareAccepted {
        /// Shares taken under the plan.
        given: u8,
        /// Shares that it needs.
        needed: u8,
    },
    /// New shares left, encrypted to their holders.
    Delivered {
        /// Their generation.
        generation: u32,
    },
    /// The holder of a new share has shown to have it.
    Proven {
        /// Holders who did.
        given: u8,
        /// Holders who must.
        needed: u8,
    },
    /// A share was not taken.
    ShareRefused {
        /// The refusal's code, such as `damaged` or `other_store`.
        reason: &'static str,
    },
    /// The ceremony reached its end.
    Completed,
    /// Somebody ended it.
    Cancelled,
    /// Its time ran out.
    Expired,
    /// It failed.
    Failed {
        /// The failure's code.
        reason: &'static str,
    },
}

/// One step of giving a vault new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep<'a> {
    /// Its records are being copied; it takes no change.
    Begun {
        /// How many there are.
        records: u64,
    },
    /// It has new keys.
    Completed {
        /// The id that it has since; none where it kept its own.
        id: Option<&'a str>,
        /// Records under the new keys.
        records: u64,
    },
    /// It has the keys that it had.
    Failed {
        /// The failure's code.
        reason: &'static str,
    },
}

/// Which end of the wire a runner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerRole {
    /// Modules and egress to services.
    Run,
    /// Network vaults and token endpoints.
    Vault,
}

impl RunnerRole {
    /// The stable text, as on the runner's command line.
    pub fn as_str(self) -> &'static str {
        match self {
            RunnerRole::Run => "run",
            RunnerRole::Vault => "vault",
        }
    }
}

/// What happened. `uid` is always the Unix user at the admin socket.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
#[allow(missing_docs)] // fields that are named as they are in the line
pub enum Event<'a> {
    /// The daemon runs, `since` when it started. Written at the first opening of the log after that.
    Start {
        since: UnixMs,
        version: &'a str,
        dev: bool,
    },
    /// The store opened.
    Unsealed {
        site: Option<&'a SiteId>,
        vaults: u64,
        records: u64,
        quarantined: u64,
    },
    /// The store closed. `uid` is absent where the daemon did it by itself.
    Sealed {
        uid: Option<u32>,
        reason: &'static str,
    },
    /// A ceremony moved. `uid` is absent where a timer did it.
    Ceremony {
        ceremony: Ceremony,
        plan: &'a Digest,
        step: Step,
        uid: Option<u32>,
    },
    /// A step of a ceremony of one vault's own quorum.
    VaultCeremony {
        vault: &'a VaultName,
        ceremony: Ceremony,
        plan: &'a Digest,
        step: Step,
        uid: Option<u32>,
    },
    /// A vault that has a quorum of its own was sealed alone.
    VaultSealed { vault: &'a VaultName, uid: u32 },
    /// A ticket for the secret socket was given out.
    TicketIssued { uid: u32, purpose: &'static str },
    /// Somebody at the admin socket lacked the role for what they asked.
    AdminRefused {
        uid: u32,
        action: &'static str,
        code: ErrorCode,
    },
    /// A change of policy was stored.
    ChangeStored {
        kind: &'static str,
        object: &'a str,
        change: &'a Digest,
        state: &'a Digest,
        officers: &'a [Digest],
        uid: u32,
    },
    /// A change of policy was refused.
    ChangeRefused {
        kind: &'static str,
        change: &'a Digest,
        code: ErrorCode,
        uid: u32,
    },
    /// A backup was made and read back whole.
    BackupMade {
        backup: &'a Digest,
        generation: u64,
        records: u64,
        /// Vaults in it that nobody verified, and vaults that are not in it.
        carried: u64,
        left_out: u64,
        uid: u32,
    },
    /// The store was made from a backup of life `from`: its life `life` begins. The log before it was at line `line` with
    /// this hash when its last checkpoint was in the backup; this log begins anew. `overridden` are the witness receipts of
    /// this store which waited and show what the backup does not hold, as {life, generation}. `replaced` is where the files
    /// of the log ended whose store is kept aside, as they stood: nobody had its keys then.
    Restored {
        backup: &'a Digest,
        from: u64,
        life: u64,
        overridden: &'a [(u64, u64)],
        line: u64,
        head: &'a Digest,
        replaced: Option<(u64, Digest)>,
        uid: u32,
    },
    /// The store that a restore had replaced is removed. Written before that begins.
    OldStoreRemoved { uid: u32 },
    /// A vault was made.
    VaultCreated { vault: &'a VaultName, uid: u32 },
    /// A vault was read whole while it served, and was what had been written.
    VaultVerified {
        vault: &'a VaultName,
        records: u64,
        uid: u32,
    },
    /// A quarantined vault was rebuilt from what still opened. `expected` is how many records its head told of, and `sure`
    /// says whether those kept are exactly these. The damaged file is kept under its id.
    VaultRepaired {
        vault: &'a VaultName,
        file: &'a str,
        kept: u64,
        damaged: u64,
        expected: Option<u64>,
        sure: bool,
        uid: u32,
    },
    /// A vault was made what a backup has of it. `other` records had another version here, and `missing` ones were not in
    /// the backup: both are lost, and neither is known of a vault that its own quorum opens. The former file, if there was
    /// one, is kept under its id.
    VaultRestored {
        vault: &'a VaultName,
        backup: &'a Digest,
        file: Option<&'a str>,
        records: u64,
        other: Option<u64>,
        missing: Option<u64>,
        uid: u32,
    },
    /// The former file of a vault that was repaired or restored was removed for good.
    DamagedDiscarded {
        vault: &'a VaultName,
        file: &'a str,
        uid: u32,
    },
    /// A vault gets new keys.
    VaultRotation {
        vault: &'a VaultName,
        /// For what is written from now on only.
        lazy: bool,
        step: RotationStep<'a>,
        uid: u32,
    },
    /// A vault failed its verification.
    VaultQuarantined {
        vault: &'a VaultName,
        reason: &'a str,
    },
    /// A vault's storage does not answer, or answers again.
    VaultHealth {
        vault: &'a VaultName,
        available: bool,
    },
    /// The last write to a vault was cut off by a crash; `confirmed` once a custodian has seen it.
    LastWriteMissing {
        vault: &'a VaultName,
        confirmed: Option<u32>,
    },
    /// Files of vaults of which control.db knows nothing.
    VaultFilesUnknown { files: u64 },
    /// The log holds row `logged` of a vault whose next one is `next`: the store was put back, or the line is forged.
    StoreBehindLog {
        vault: &'a VaultName,
        logged: u64,
        next: u64,
    },
    /// The log's unsigned end named row `row` of a vault and did not hold it: lines there were replaced.
    LogForged { vault: &'a VaultName, row: u64 },
    /// A witness receipt was given out to who asked for one. `generation` is the store's that it names.
    ReceiptGiven { generation: u64, uid: u32 },
    /// A witness receipt that was presented says nothing about this store.
    ReceiptIgnored { reason: &'static str, uid: u32 },
    /// The store was bound to a TPM counter that was made for it.
    TpmBound { index: u32, uid: u32 },
    /// The store was not opened, or was closed: what is outside of it shows `shown` where it is at `generation`.
    StoreRefused {
        reason: &'static str,
        generation: u64,
        shown: u64,
        uid: Option<u32>,
    },
    /// A version of a credential was stored.
    CredentialPut {
        vault: &'a VaultName,
        name: &'a CredentialName,
        owner: Option<&'a PrincipalName>,
        version: u64,
        kind: &'a str,
        uid: Option<u32>,
    },
    /// A credential was deleted.
    CredentialDeleted {
        vault: &'a VaultName,
        name: &'a CredentialName,
        owner: Option<&'a PrincipalName>,
        version: u64,
        uid: u32,
    },
    /// A service refused a credential. `version` is the binding's.
    CredentialSuspect {
        call: CallId,
        binding: &'a BindingName,
        version: u64,
    },
    /// A bundle was imported; it is not active yet.
    BundleImported {
        registry: &'a RegistryId,
        namespace: &'a Namespace,
        name: &'a BundleName,
        sequence: u64,
        widens: bool,
        uid: u32,
    },
    /// A bundle was refused.
    BundleRefused {
        reason: &'a str,
        registry: Option<&'a RegistryId>,
        uid: u32,
    },
    /// A registry that was retired serves nobody any more.
    RegistryDrained { registry: &'a RegistryId },
    /// A call is about to be made: written before its permit exists.
    CallIntent {
        call: CallId,
        principal: &'a PrincipalName,
        rev: &'a ModuleRev,
        tool: &'a ToolName,
        access: Access,
        arguments: ArgumentsMac,
        recorded: &'a [Recorded<'a>],
    },
    /// A call ended. `intent` is the sequence of its intent.
    CallOutcome {
        call: CallId,
        intent: u64,
        outcome: Outcome,
    },
    /// A call was refused before it could be routed. `module` and `tool` are what was asked.
    CallDenied {
        principal: &'a PrincipalName,
        module: &'a str,
        tool: &'a str,
        code: ErrorCode,
    },
    /// So many more calls of the principal were denied than have a line each.
    CallsDenied {
        principal: &'a PrincipalName,
        calls: u64,
    },
    /// So many more requests of the user were refused, for want of the role or as one comparison too many, than have a line
    /// each. `uid` is absent where they are of many.
    RequestsRefused { uid: Option<u32>, requests: u64 },
    /// So many more receipts and tickets were given to the user than have a line each. `uid` is absent where they are of many.
    RequestsServed { uid: Option<u32>, requests: u64 },
    /// So many connections were turned away at a socket. `uid` is absent where the kernel named none.
    PeerRefused {
        listener: &'a str,
        uid: Option<u32>,
        peers: u64,
    },
    /// Secrets were found in an answer, and taken out. `stage` is who found them: `runner` or `daemon`.
    RedactionHit {
        call: CallId,
        rev: &'a ModuleRev,
        hits: u32,
        stage: &'static str,
    },
    /// A module takes no calls any more.
    ModuleQuarantined {
        rev: &'a ModuleRev,
        reason: &'static str,
    },
    /// A runner is connected.
    RunnerConnected {
        role: RunnerRole,
        pid: u32,
        uid: u32,
        version: u16,
    },
    /// A runner went away.
    RunnerLost {
        role: RunnerRole,
        reason: &'static str,
        calls: u64,
    },
    /// A runner was turned away.
    RunnerRefused {
        role: &'a str,
        uid: u32,
        reason: &'static str,
    },
    /// At restart, the end of the log that no checkpoint covers was damaged and was cut.
    Recovered { length: u64, digest: &'a Digest },
    /// The disk is nearly full, or no longer so.
    DiskAlarm {
        free_bytes: u64,
        limit_bytes: u64,
        raised: bool,
    },
    /// The outcomes of that many calls are in no line: written once the log takes lines again.
    AuditLost { calls: u64 },
    /// Lines of the log were written to a medium, read back there and found to be the same. `head` is the hash of the
    /// last of them, `digest` that of the file.
    AuditExported {
        first: u64,
        through: u64,
        head: &'a Digest,
        digest: &'a Digest,
        uid: u32,
    },
    /// An auditor has an export on a medium, made by `exporter`, who is somebody else: these lines may leave the host.
    ExportConfirmed {
        first: u64,
        through: u64,
        digest: &'a Digest,
        exporter: u32,
        uid: u32,
    },
    /// Segments that are in exports leave the log's folder.
    AuditRemoved {
        first_segment: u64,
        last_segment: u64,
    },
    /// Somebody compared a value with what a line recorded of a call's arguments.
    AuditMatched {
        arguments: ArgumentsMac,
        matched: bool,
        uid: u32,
    },
    /// What happened while the log was closed, `repeats` times since then.
    Boot {
        since: UnixMs,
        what: &'static str,
        code: &'static str,
        uid: Option<u32>,
        repeats: u64,
    },
}
