//! How many lines the calls that are denied to a principal may cost.
//!
//! Owns a budget for each principal that asked for what it may not: [`BURST`] lines, and one more for each [`PERIOD`].
//! Promises that what goes beyond it is counted, and that the count is a line before the next one of that principal,
//! after the next checkpoint, or when the log closes, whichever comes first. Principals are records of officers, so
//! this stays small. Does not decide what is denied.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcpist_core::event::Event;
use mcpist_core::ids::PrincipalName;

use super::writer::Writer;
use super::{AuditError, now};

const BURST: u32 = 32;
const PERIOD: Duration = Duration::from_secs(1);

/// The budgets of one opening of the log.
#[derive(Default)]
pub(super) struct Denied(BTreeMap<PrincipalName, Budget>);

struct Budget {
    /// When all lines of the budget are there again.
    whole: Instant,
    /// Calls that have no line.
    uncounted: u64,
}

impl Denied {
    /// Whether a call of `principal` that is denied at `at` gets a line. One that does not is counted.
    pub(super) fn admit(&mut self, principal: &PrincipalName, at: Instant) -> bool {
        let fresh = || Budget {
            whole: at,
            uncounted: 0,
        };
        let budget = self.0.entry(principal.clone()).or_insert_with(fresh);
        let whole = budget.whole.max(at);
        let admitted = whole.duration_since(at) < PERIOD * BURST;
        if admitted {
            budget.whole = whole + PERIOD;
        } else {
            budget.uncounted = budget.uncounted.saturating_add(1);
        }
        admitted
    }

    /// Writes the count of `principal`, if there is one.
    pub(super) fn settle(
        &mut self,
        principal: &PrincipalName,
        writer: &mut Writer,
    ) -> Result<(), AuditError> {
        match self.0.get_mut(principal) {
            Some(budget) => budget.settle(principal, writer),
            None => Ok(()),
        }
    }

    /// Writes every count. What the disk refuses stays.
    pub(super) fn settle_all(&mut self, writer: &mut Writer) {
        let settled = self
            .0
            .iter_mut()
            .try_for_each(|(principal, budget)| budget.settle(principal, writer));
        if let Err(e) = settled {
            log::error!("audit log: count of denied calls not written: {e}");
        }
    }
}

impl Budget {
    fn settle(&mut self, principal: &PrincipalName, writer: &mut Writer) -> Result<(), AuditError> {
        let calls = self.uncounted;
        if calls > 0 {
            let event = Event::CallsDenied { principal, calls };
            writer.write(|chain, line| chain.append(now(), &event, line))?;
            self.uncounted = 0;
        }
        Ok(())
    }
}
