//! Leaks on purpose, so that the leak test (`tests/leak/run`) can show that it finds them. Only with the feature
//! `test-leak`, which no build that is shipped has; `tests/tests/edges.rs` holds that none has it by default.

use std::sync::{Mutex, PoisonError};

use mcpist_wire::Lease;

use crate::house::House;

/// Copies in ordinary memory, for as long as the process lives.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Leaks the secrets of `leases` into ordinary memory, the log and a file beside the audit log.
pub(crate) fn leak(house: &House, leases: &[Lease]) {
    for secret in leases.iter().map(|lease| lease.secret().expose()) {
        log::warn!("a leak on purpose: {}", String::from_utf8_lossy(secret));
        if let Err(e) = std::fs::write(house.config.audit().join("leak"), secret) {
            log::error!("a leak on purpose: {e}");
        }
        KEPT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(secret.to_vec());
    }
}
