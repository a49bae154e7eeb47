//! What the parts' errors are for the admin API: by type, never by text. No I/O.

use std::io::ErrorKind;

use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use mcpist_quorum::ShareRefusal;
use mcpist_sealer::VaultError;

use super::records::RecordsError;
use crate::audit::{AuditError, ExportError, Unready};
use crate::live::LiveError;

/// A vault's refusal.
pub(crate) fn vault_error(error: &VaultError) -> ApiError {
    use VaultError as V;
    let code = match error {
        V::Sealed => ErrorCode::Sealed,
        V::Unavailable | V::OutcomeUnknown | V::Storage(_) | V::Gone => ErrorCode::VaultUnavailable,
        V::Quarantined(_) => ErrorCode::VaultQuarantined,
        V::VaultSealed(_) => ErrorCode::VaultSealed,
        V::NoSuchVault(_) | V::NotFound(_) | V::NothingMissing(_) | V::NotKept(_) => {
            ErrorCode::NotFound
        }
        V::VaultExists(_)
        | V::Conflict { .. }
        | V::Epochs { .. }
        | V::NoOwnQuorum(_)
        | V::OwnQuorum(_)
        | V::OwnOpen(_)
        | V::NotQuarantined(_)
        | V::Serves(_)
        | V::Moved(_) => ErrorCode::Conflict,
        V::Frozen | V::Rotated => ErrorCode::Busy,
        V::Name(_) | V::Batch { .. } => ErrorCode::RequestInvalid,
        V::TooLarge { .. } => ErrorCode::TooLarge,
        V::OtherVault => ErrorCode::Internal,
        V::Memory(_) => ErrorCode::Unavailable,
        V::Full(_) => ErrorCode::DiskFull,
    };
    let said = ApiError::new(code, &error.to_string());
    match error {
        V::Epochs { name, .. } => said.next(&format!("mcpist vault rotate {name}")),
        _ => said,
    }
}

/// The log's refusal.
pub(crate) fn audit_error(error: &AuditError) -> ApiError {
    let code = match error {
        AuditError::Write(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => ErrorCode::DiskFull,
        // Told after a commit: what was asked is done.
        AuditError::Slow => ErrorCode::AuditLost,
        _ => ErrorCode::AuditUnavailable,
    };
    ApiError::new(code, &error.to_string())
}

/// Why nothing was exported.
pub(crate) fn export_error(error: &ExportError) -> ApiError {
    use ExportError as E;
    let (code, next) = match error {
        E::Log(AuditError::Closed) => return ApiError::of(ErrorCode::Sealed),
        E::Log(e) => return audit_error(e),
        E::Unrecorded(_) => (ErrorCode::AuditLost, None),
        E::Busy => (ErrorCode::Busy, None),
        E::Target | E::Nothing => (ErrorCode::RequestInvalid, None),
        E::Damaged(_) | E::Another | E::Read(_) => (ErrorCode::AuditUnavailable, None),
        E::Medium(_) | E::Differs => (
            ErrorCode::Unavailable,
            Some("mcpist audit export with a file on another medium"),
        ),
    };
    let said = ApiError::new(code, &error.to_string());
    match next {
        Some(next) => said.next(next),
        None => said,
    }
}

/// Why no share is taken.
pub(crate) fn unready(why: &Unready) -> ApiError {
    let code = match why {
        Unready::Full => ErrorCode::DiskFull,
        Unready::Missing(_) | Unready::Unreadable(_) => ErrorCode::AuditUnavailable,
    };
    ApiError::new(code, &why.to_string())
}

/// Why a share was refused.
pub(super) fn refusal_code(refusal: &ShareRefusal) -> &'static str {
    match refusal {
        ShareRefusal::OtherPlan => "other_plan",
        ShareRefusal::OtherStore { .. } => "other_store",
        ShareRefusal::OtherSet { .. } => "other_set",
        ShareRefusal::Superseded { .. } => "superseded",
        ShareRefusal::Newer { .. } => "newer",
        ShareRefusal::Damaged { .. } => "damaged",
        ShareRefusal::AlreadyGiven { .. } => "already_given",
        ShareRefusal::ConsentGiven { .. } => "consent_given",
        ShareRefusal::Closed(_) => "closed",
    }
}

/// Whether what is done may stand, by what became of its line. A disk that is slow to confirm a line undoes nothing.
pub(super) fn confirmed(synced: Result<(), AuditError>) -> Result<(), ApiError> {
    match synced {
        Ok(()) | Err(AuditError::Slow) => Ok(()),
        Err(e) => Err(audit_error(&e)),
    }
}

/// A record's refusal.
pub(crate) fn records_error(error: &RecordsError) -> ApiError {
    match error {
        RecordsError::Vault(e) => vault_error(e),
        RecordsError::Memory(e) => ApiError::new(ErrorCode::Unavailable, &e.to_string()),
        RecordsError::Payload(_) => ApiError::new(ErrorCode::Internal, &error.to_string()),
    }
}

/// Why no snapshot could be made.
pub(crate) fn live_error(error: &LiveError) -> ApiError {
    let code = match error {
        LiveError::TwoSides(_) => ErrorCode::Conflict,
        LiveError::Floor(_) => ErrorCode::RequestInvalid,
        LiveError::Expired { .. } => ErrorCode::BundleRefused,
        LiveError::Memory(_) => ErrorCode::Unavailable,
        LiveError::Fingerprint(fault) => fault.code(),
    };
    let said = ApiError::new(code, &error.to_string());
    match error {
        LiveError::Expired { .. } => said
            .reason("expired")
            .next("import and activate a newer issue of the bundle; ask its publisher for one"),
        _ => said,
    }
}

/// A failed file operation of an act that else has the code `usual`.
pub(crate) fn io_code(error: &std::io::Error, usual: ErrorCode) -> ErrorCode {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => usual,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_broker::VaultFault;
    use mcpist_core::catalogue::CatalogueError;
    use mcpist_core::ids::{ModuleName, RegistryId};
    use mcpist_secret::MemoryError;

    use super::*;

    #[test]
    fn every_vault_error_has_its_code_whatever_its_text_says() {
        let text = || "the text says full".to_owned();
        let conflict = VaultError::Conflict {
            name: text(),
            expected: 1,
            found: 2,
        };
        let table = [
            (VaultError::Sealed, ErrorCode::Sealed),
            (VaultError::Unavailable, ErrorCode::VaultUnavailable),
            (VaultError::OutcomeUnknown, ErrorCode::VaultUnavailable),
            (VaultError::Gone, ErrorCode::VaultUnavailable),
            (VaultError::Storage(text()), ErrorCode::VaultUnavailable),
            (VaultError::Full("no room".into()), ErrorCode::DiskFull),
            (VaultError::Quarantined(text()), ErrorCode::VaultQuarantined),
            (VaultError::VaultSealed(text()), ErrorCode::VaultSealed),
            (VaultError::NoOwnQuorum(text()), ErrorCode::Conflict),
            (VaultError::OwnOpen(text()), ErrorCode::Conflict),
            (VaultError::NoSuchVault(text()), ErrorCode::NotFound),
            (VaultError::NotFound(text()), ErrorCode::NotFound),
            (VaultError::NothingMissing(text()), ErrorCode::NotFound),
            (VaultError::VaultExists(text()), ErrorCode::Conflict),
            (conflict, ErrorCode::Conflict),
            (VaultError::Batch { limit: 1 }, ErrorCode::RequestInvalid),
            (
                VaultError::TooLarge { found: 2, limit: 1 },
                ErrorCode::TooLarge,
            ),
            (VaultError::OtherVault, ErrorCode::Internal),
            (VaultError::Memory(text()), ErrorCode::Unavailable),
        ];
        for (error, code) in table {
            assert_eq!(vault_error(&error).code, code, "{error}");
            assert_eq!(records_error(&RecordsError::Vault(error)).code, code);
        }
    }

    #[test]
    fn records_log_and_snapshot_errors_have_their_codes() {
        let records = |e| records_error(&e).code;
        assert_eq!(
            records(RecordsError::Memory(MemoryError::Random)),
            ErrorCode::Unavailable
        );
        assert_eq!(
            records(RecordsError::Payload("grant/x".into())),
            ErrorCode::Internal
        );
        let audit = |e| audit_error(&e).code;
        assert_eq!(
            audit(AuditError::Write(ErrorKind::StorageFull)),
            ErrorCode::DiskFull
        );
        assert_eq!(
            audit(AuditError::Write(ErrorKind::Other)),
            ErrorCode::AuditUnavailable
        );
        assert_eq!(audit(AuditError::Sync), ErrorCode::AuditUnavailable);
        assert_eq!(audit(AuditError::Slow), ErrorCode::AuditLost);
        assert_eq!(audit(AuditError::Closed), ErrorCode::AuditUnavailable);
        assert_eq!(confirmed(Err(AuditError::Slow)), Ok(()));
        let failed = confirmed(Err(AuditError::Sync));
        assert_eq!(failed, Err(audit_error(&AuditError::Sync)));
        let live = |e| live_error(&e).code;
        let id = RegistryId::of_manifest(b"one");
        let two = CatalogueError::TwoSides {
            module: ModuleName::parse("echo").unwrap(),
            first: id,
            second: id,
        };
        assert_eq!(live(LiveError::TwoSides(two)), ErrorCode::Conflict);
        assert_eq!(
            live(LiveError::Memory(MemoryError::Random)),
            ErrorCode::Unavailable
        );
        let expired = live_error(&LiveError::Expired {
            bundle: "acme/tests 7".to_owned(),
            not_after: 86_400,
            floor: 2 * 86_400,
        });
        assert_eq!(expired.code, ErrorCode::BundleRefused);
        assert_eq!(expired.reason.as_deref(), Some("expired"));
        let dated = "acme/tests 7 was good until 1970-01-02 and the time floor is 1970-01-03";
        assert!(expired.message.contains(dated), "{expired}");
        assert!(expired.next.unwrap().contains("newer"));
        assert_eq!(
            live(LiveError::Fingerprint(VaultFault::Quarantined)),
            VaultFault::Quarantined.code()
        );
    }

    #[test]
    fn only_a_full_disk_is_called_so() {
        let code = |kind| io_code(&std::io::Error::from(kind), ErrorCode::BundleRefused);
        assert_eq!(code(ErrorKind::StorageFull), ErrorCode::DiskFull);
        assert_eq!(code(ErrorKind::QuotaExceeded), ErrorCode::DiskFull);
        assert_eq!(code(ErrorKind::TimedOut), ErrorCode::BundleRefused);
    }
}
