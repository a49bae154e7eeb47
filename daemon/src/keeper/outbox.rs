//! From the outboxes of the vaults to the audit log.
//!
//! Promises that each row which a vault holds is in the log, once as far as the log can be believed. The log's end is not
//! signed yet and its chain has no key, so that whoever had the disk can have written it. What it says of a row that still
//! stands is believed where it is what the row says; else the row is copied, which is an alarm and a line. It may also name
//! rows which the store never had: then the store is behind its log, an alarm and a line as well.
//! An act whose row cannot be copied is done all the same, and its caller is told both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpist_core::api::{Alarm, ApiError};
use mcpist_core::audit::{Body, Logged, Seq};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, VaultName};
use mcpist_sealer::Health;

use super::{Keeper, Phase, SYSTEM, audit_error, vault_error};
use crate::audit::now;

/// What the log says of the outboxes.
#[derive(Default)]
pub(super) struct Copied {
    vaults: BTreeMap<VaultName, Rows>,
    /// Vaults that had less than the log when they were looked at first.
    behind: BTreeSet<VaultName>,
    /// Vaults whose rows the log's end named and did not hold.
    forged: BTreeSet<VaultName>,
}

/// What it says of one.
#[derive(Default)]
struct Rows {
    /// The last row that is in the log beyond doubt: in a signed line, or copied since.
    copied: u64,
    /// The last row that the log named at its opening.
    named: u64,
    /// What unsigned lines said then, as the digest of each row's body.
    unsigned: BTreeMap<u64, Digest>,
    /// The last copied line, until it is on disk.
    unsynced: Option<Seq>,
}

impl Copied {
    /// As the log says at its opening.
    pub(super) fn of(logged: Logged) -> Self {
        let mut all = Self::default();
        let mut rows = |vault: &str, set: &dyn Fn(&mut Rows)| {
            if let Ok(vault) = VaultName::parse(vault) {
                set(all.vaults.entry(vault).or_default());
            }
        };
        for (vault, row) in &logged.last {
            rows(vault, &|rows| rows.named = *row);
        }
        for (vault, row) in &logged.signed {
            rows(vault, &|rows| rows.copied = *row);
        }
        for line in &logged.unsigned {
            rows(&line.vault, &|rows| {
                rows.unsigned.insert(line.row, line.body);
            });
        }
        all
    }

    /// The last row of a vault that the log has.
    pub(super) fn logged(&self, vault: &VaultName) -> u64 {
        let known = self.vaults.get(vault);
        known.map_or(0, |known| known.copied.max(known.named))
    }

    /// What an operator should look at, until the store is sealed.
    pub(super) fn alarms(&self) -> impl Iterator<Item = Alarm> {
        let behind = self.behind.iter().map(|vault| Alarm {
            code: ErrorCode::StoreBehindLog,
            message: format!(
                "the store is behind its log: the log names changes of vault {vault} that are not there; one of the two was put back or forged, find out who had the disk"
            ),
        });
        behind.chain(self.forged.iter().map(|vault| Alarm {
            code: ErrorCode::LogForged,
            message: format!(
                "lines at the log's end were replaced: they said something else of changes of vault {vault} than the store, whose lines were copied again; find out who had the disk"
            ),
        }))
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
        let Copied {
            vaults,
            behind,
            forged,
        } = &mut open.copied;
        let known = vaults.entry(name.clone()).or_default();
        let logged = known.copied.max(known.named);
        if logged >= next {
            log::error!("the store is behind its log: vault {name}, row {logged} of {next}");
            let vault = name;
            let event = Event::StoreBehindLog {
                vault,
                logged,
                next,
            };
            house.audit.append(&event).map_err(|e| audit_error(&e))?;
            behind.insert(name.clone());
            known.named = 0;
            if known.copied >= next {
                known.copied = 0;
            }
        }
        loop {
            let rows = vault.outbox().map_err(|e| vault_error(&e))?;
            let Some(&(last, _)) = rows.last() else {
                return Ok(());
            };
            let before = known.copied;
            for (row, bytes) in rows.iter().filter(|(row, _)| *row > before) {
                let body = Body::parse(bytes)
                    .map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()))?;
                if known.unsigned.get(row) != Some(&Digest::of(bytes)) {
                    if *row <= known.named && !forged.contains(name) {
                        log::error!("the log was forged: vault {name}, row {row}");
                        let (vault, row) = (name, *row);
                        let event = Event::LogForged { vault, row };
                        house.audit.append(&event).map_err(|e| audit_error(&e))?;
                        forged.insert(name.clone());
                    }
                    let appended = house.audit.append_outbox(name, *row, &body);
                    known.unsynced = Some(appended.map_err(|e| audit_error(&e))?);
                }
                known.copied = *row;
            }
            // What was in the log at its opening is on disk since.
            if let Some(seq) = known.unsynced {
                let synced = house.audit.synced_blocking(seq);
                synced.map_err(|e| audit_error(&e))?;
                known.unsynced = None;
            }
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
        // One that waits for its own quorum is read when that opens it.
        let open = vaults.iter().filter(|v| v.health != Health::Sealed);
        for name in open.filter_map(|v| VaultName::parse(&v.name).ok()) {
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
