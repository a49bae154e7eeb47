//! From the outboxes of the vaults to the audit log.
//!
//! Promises that each row which a vault holds is in the log, once as far as the log can be believed. The log's end is not
//! signed yet and its chain has no key, so that it may name rows which the store never had: then the store is behind its
//! log, which is an alarm and a line, and every row that is there is copied, some perhaps for a second time.
//! An act whose row cannot be copied is done all the same, and its caller is told both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpist_core::api::{Alarm, ApiError};
use mcpist_core::audit::Body;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;

use super::{Keeper, Phase, SYSTEM, audit_error, vault_error};
use crate::audit::now;

/// What the log says of the outboxes.
pub(super) struct Copied {
    /// The last row of each vault that is in the log.
    rows: BTreeMap<VaultName, u64>,
    /// Vaults that had less than the log when they were looked at first.
    behind: BTreeSet<VaultName>,
}

impl Copied {
    /// As the log says at its opening.
    pub(super) fn of(logged: mcpist_core::audit::Copied) -> Self {
        let rows = logged.into_iter();
        Self {
            rows: rows
                .filter_map(|(vault, row)| Some((VaultName::parse(&vault).ok()?, row)))
                .collect(),
            behind: BTreeSet::new(),
        }
    }

    /// What an operator should look at, until the store is sealed.
    pub(super) fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.behind.iter().map(|vault| Alarm {
            code: ErrorCode::StoreBehindLog,
            message: format!(
                "the store is behind its log: the log names changes of vault {vault} that are not there; one of the two was put back or forged, find out who had the disk"
            ),
        })
    }
}

impl Keeper {
    /// [`Keeper::copy`] after an act's commit: where it fails, the act is done and its line is not in the log yet.
    pub(crate) fn drain(&mut self, name: &VaultName) -> Result<(), ApiError> {
        self.copy(name).map_err(|e| {
            log::error!("audit_lost: outbox of vault {name}: {}", e.message);
            not_yet(e)
        })
    }

    /// Copies the outbox rows of a vault into the log, each once. A row that stays is copied by the next drain, at the
    /// latest at the next unseal.
    fn copy(&mut self, name: &VaultName) -> Result<(), ApiError> {
        let house = Arc::clone(&self.house);
        let open = self.open()?;
        let vault = open.vault(name).map_err(|e| vault_error(&e))?;
        let next = vault.outbox_next().map_err(|e| vault_error(&e))?;
        let copied = open.copied.rows.entry(name.clone()).or_default();
        if *copied >= next {
            log::error!("the store is behind its log: vault {name}, row {copied} of {next}");
            let event = Event::StoreBehindLog {
                vault: name,
                logged: *copied,
                next,
            };
            house.audit.append(&event).map_err(|e| audit_error(&e))?;
            open.copied.behind.insert(name.clone());
            *copied = 0;
        }
        loop {
            let rows = vault.outbox().map_err(|e| vault_error(&e))?;
            let Some(&(last, _)) = rows.last() else {
                return Ok(());
            };
            let mut seq = None;
            let before = *copied;
            for (row, bytes) in rows.iter().filter(|(row, _)| *row > before) {
                let body = Body::parse(bytes)
                    .map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()))?;
                let appended = house.audit.append_outbox(name, *row, &body);
                seq = Some(appended.map_err(|e| audit_error(&e))?);
                *copied = *row;
            }
            // Nothing new: what is handed on leaves the outbox with a later commit.
            let Some(seq) = seq else { return Ok(()) };
            house
                .audit
                .synced_blocking(seq)
                .map_err(|e| audit_error(&e))?;
            if let Err(e) = vault.outbox_done(last) {
                log::warn!("outbox of vault {name}: copied, and not emptied yet: {e}");
                return Ok(());
            }
        }
    }

    /// [`Keeper::drain`] for the store's own vault.
    pub(crate) fn drain_system(&mut self) -> Result<(), ApiError> {
        let system = VaultName::parse(SYSTEM).map_err(|_| ApiError::of(ErrorCode::Internal))?;
        self.drain(&system)
    }

    /// Copies what a crash left in the outboxes.
    pub(super) fn drain_all(&mut self) {
        let vaults = match &self.phase {
            Phase::Unsealed(open) => open.barrier.vaults(),
            _ => Vec::new(),
        };
        for name in vaults.iter().filter_map(|v| VaultName::parse(&v.name).ok()) {
            if let Err(e) = self.copy(&name) {
                // A quarantined vault keeps its rows; it is shown and the others go on.
                log::warn!("outbox of vault {name}: {}", e.message);
            }
        }
    }
}

/// What the caller of an act is told whose line did not get into the log.
fn not_yet(error: ApiError) -> ApiError {
    // The line is written, and the error says that the act is done.
    if error.code == ErrorCode::AuditLost {
        return error;
    }
    let text = format!(
        "what was asked is done; its audit line waits in the store, to be copied by a later act or unseal: {}",
        error.message
    );
    ApiError::new(ErrorCode::AuditLost, &text).reason(error.code.as_str())
}

/// The audit line of a store change, for the outbox of its own commit.
pub(crate) fn outbox_line(event: &Event<'_>) -> Vec<u8> {
    Body::new(event, now()).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditError;

    #[test]
    fn whatever_keeps_a_line_out_of_the_log_its_act_is_called_done() {
        for error in [AuditError::Closed, AuditError::Sync, AuditError::Slow] {
            let cause = audit_error(&error);
            let told = not_yet(cause.clone());
            assert_eq!(told.code, ErrorCode::AuditLost);
            let done = "what was asked is done";
            assert_eq!(told.message.matches(done).count(), 1, "{told}");
            assert!(told.message.contains(&cause.message), "{told}");
        }
    }
}
