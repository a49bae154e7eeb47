//! The name of each event. No I/O.
//!
//! Promises: a name, once published, stays.

use super::Event;

impl Event<'_> {
    /// The stable name, as in the line's `event` field.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Start { .. } => "start",
            Event::Unsealed { .. } => "unsealed",
            Event::Sealed { .. } => "sealed",
            Event::Ceremony { .. } | Event::VaultCeremony { .. } => "ceremony",
            Event::VaultSealed { .. } => "vault_sealed",
            Event::TicketIssued { .. } => "ticket_issued",
            Event::AdminRefused { .. } => "admin_refused",
            Event::ChangeStored { .. } => "change_stored",
            Event::ChangeRefused { .. } => "change_refused",
            Event::BackupMade { .. } => "backup_made",
            Event::Restored { .. } => "restored",
            Event::OldStoreRemoved { .. } => "old_store_removed",
            Event::VaultCreated { .. } => "vault_created",
            Event::VaultVerified { .. } => "vault_verified",
            Event::VaultRepaired { .. } => "vault_repaired",
            Event::VaultRestored { .. } => "vault_restored",
            Event::DamagedDiscarded { .. } => "damaged_discarded",
            Event::VaultRotation { .. } => "vault_rotation",
            Event::VaultQuarantined { .. } => "vault_quarantined",
            Event::VaultHealth { .. } => "vault_health",
            Event::LastWriteMissing { .. } => "last_write_missing",
            Event::VaultFilesUnknown { .. } => "vault_files_unknown",
            Event::StoreBehindLog { .. } => "store_behind_log",
            Event::LogForged { .. } => "log_forged",
            Event::ReceiptGiven { .. } => "receipt_given",
            Event::ReceiptIgnored { .. } => "receipt_ignored",
            Event::TpmBound { .. } => "tpm_bound",
            Event::StoreRefused { .. } => "store_refused",
            Event::CredentialPut { .. } => "credential_put",
            Event::CredentialDeleted { .. } => "credential_deleted",
            Event::CredentialSuspect { .. } => "credential_suspect",
            Event::BundleImported { .. } => "bundle_imported",
            Event::BundleRefused { .. } => "bundle_refused",
            Event::RegistryDrained { .. } => "registry_drained",
            Event::CallIntent { .. } => "call_intent",
            Event::CallOutcome { .. } => "call_outcome",
            Event::CallDenied { .. } => "call_denied",
            Event::CallsDenied { .. } => "calls_denied",
            Event::RequestsRefused { .. } => "requests_refused",
            Event::RequestsServed { .. } => "requests_served",
            Event::PeerRefused { .. } => "peer_refused",
            Event::RedactionHit { .. } => "redaction_hit",
            Event::ModuleQuarantined { .. } => "module_quarantined",
            Event::RunnerConnected { .. } => "runner_connected",
            Event::RunnerLost { .. } => "runner_lost",
            Event::RunnerRefused { .. } => "runner_refused",
            Event::Recovered { .. } => "recovered",
            Event::DiskAlarm { .. } => "disk_alarm",
            Event::AuditLost { .. } => "audit_lost",
            Event::AuditExported { .. } => "audit_exported",
            Event::ExportConfirmed { .. } => "export_confirmed",
            Event::AuditRemoved { .. } => "audit_removed",
            Event::AuditMatched { .. } => "audit_matched",
            Event::Boot { .. } => "boot",
        }
    }
}
