//! The drill of a restore: what it finds, once its quorum is there.
//!
//! Owns what the last share of a drill does. Promises that all that a restore does to a backup is done to this one, in a
//! folder of its own that is gone afterwards, also where the drill fails, and after a kill with the daemon's next start; and
//! that nothing else on the host is written: not the store, nor one kept aside, nor a log. The journal says that it was held,
//! and the report, which is for the auditor, what came of it.

use std::time::Duration;

use mcpist_core::api::{ApiError, DrillDone};
use mcpist_sealer::drill;
use mcpist_secret::Key;

use super::taking::Taking;
use super::{Restoring, named, not_restored, plan_digest};
use crate::keeper::backup::{carried, left_out};
use crate::keeper::{Keeper, today};

impl Keeper {
    pub(super) fn make_drilled(
        &mut self,
        uid: u32,
        open: &Restoring,
        kek: &Key,
    ) -> Result<DrillDone, ApiError> {
        let config = &self.house.config;
        let mut taking = Taking::new(config, uid, open, Vec::new());
        let found = drill(&open.stored, kek, &config.store(), &mut taking);
        let found = found.map_err(|e| not_restored(&e))?;
        let (header, drilled) = (open.stored.header(), today());
        log::warn!(
            "a restore was drilled by uid {uid}: {} records of backup {} opened",
            found.records,
            named(&open.stored).short()
        );
        Ok(DrillDone {
            plan: plan_digest(&open.consent),
            backup: named(&open.stored),
            store: header.config().store().to_string(),
            created: header.created(),
            generation: header.generation(),
            drilled,
            age_s: drilled.checked_sub(header.created()),
            bytes: open.stored.bytes(),
            vaults: found.vaults,
            records: found.records,
            files: found.files,
            carried: carried(&found.carried),
            left_out: left_out(&found.left_out),
            reading_ms: milliseconds(open.reading),
            building_ms: milliseconds(found.building),
            verifying_ms: milliseconds(found.verifying),
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
