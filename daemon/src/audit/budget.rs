//! How many lines one asker may have of what can be asked for without end: tools that are hidden, acts at the admin socket
//! for which the role is lacking, and receipts, tickets and comparisons for whoever has it.
//!
//! Owns a budget for each asker: [`BURST`] lines, and one more for each [`PERIOD`]. Promises that what goes beyond it is
//! counted, and that the count is a line before the next one of that asker, after the next checkpoint, or when the log
//! closes, whichever comes first. Principals are records of officers, and of users [`USERS`] of a kind are kept apart, so
//! this stays small. What is served has a budget of its own: who fills it hides no refusal. A comparison beyond its budget is
//! to be refused: it tells something of what is recorded, so that what has no line is not answered. Does not decide what is
//! asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcpist_core::event::Event;
use mcpist_core::ids::PrincipalName;

use super::AuditError;
use super::writer::Writer;

const BURST: u32 = 32;
const PERIOD: Duration = Duration::from_secs(1);
/// Users of a kind that have a budget of their own.
const USERS: usize = 256;

/// Whose lines are counted, and of what kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// Calls of a principal that are denied.
    Principal(PrincipalName),
    /// Requests of a Unix user at the admin socket that are refused.
    User(u32),
    /// Those of all who came when there were [`USERS`] already.
    OtherUsers,
    /// Requests of a Unix user that change nothing and are granted.
    Served(u32),
    /// Those of all who came when there were [`USERS`] already.
    OtherServed,
    /// Comparisons of a Unix user with what is recorded. What has no line is refused.
    Compared(u32),
    /// Those of all who came when there were [`USERS`] already.
    OtherCompared,
}

impl Asker {
    /// The first and the last asker of its kind, if it is a user with a budget of their own.
    fn of_users(&self) -> Option<(Asker, Asker)> {
        match self {
            Asker::User(_) => Some((Asker::User(0), Asker::OtherUsers)),
            Asker::Served(_) => Some((Asker::Served(0), Asker::OtherServed)),
            Asker::Compared(_) => Some((Asker::Compared(0), Asker::OtherCompared)),
            Asker::Principal(_) | Asker::OtherUsers | Asker::OtherServed | Asker::OtherCompared => {
                None
            }
        }
    }
}

/// The budgets of one opening of the log.
#[derive(Default)]
pub(super) struct Budgets(BTreeMap<Asker, Budget>);

struct Budget {
    /// When all lines of the budget are there again.
    whole: Instant,
    /// What has no line.
    uncounted: u64,
}

impl Budgets {
    /// Whether what `asker` asked for at `at` gets a line; what does not is counted. Before such a line the count is
    /// written, if there is one.
    pub(super) fn admit(
        &mut self,
        asker: Asker,
        at: Instant,
        writer: &mut Writer,
    ) -> Result<bool, AuditError> {
        let asker = self.placed(asker, at);
        let fresh = || Budget {
            whole: at,
            uncounted: 0,
        };
        let budget = self.0.entry(asker.clone()).or_insert_with(fresh);
        let whole = budget.whole.max(at);
        if whole.duration_since(at) >= PERIOD * BURST {
            budget.uncounted = budget.uncounted.saturating_add(1);
            return Ok(false);
        }
        budget.whole = whole + PERIOD;
        budget.settle(&asker, writer)?;
        Ok(true)
    }

    /// The asker whose budget it is. Users whose budget is whole make way for others of their kind.
    fn placed(&mut self, asker: Asker, at: Instant) -> Asker {
        let Some((first, others)) = asker.of_users() else {
            return asker;
        };
        let kind = first..others.clone();
        if !self.0.contains_key(&asker) && self.0.range(kind.clone()).count() >= USERS {
            self.0.retain(|asker, budget| {
                !kind.contains(asker) || budget.uncounted > 0 || budget.whole > at
            });
            if self.0.range(kind).count() >= USERS {
                return others;
            }
        }
        asker
    }

    /// Writes every count. What the disk refuses stays.
    pub(super) fn settle_all(&mut self, writer: &mut Writer) {
        let settled = self
            .0
            .iter_mut()
            .try_for_each(|(asker, budget)| budget.settle(asker, writer));
        if let Err(e) = settled {
            log::error!("audit log: count of what had no line not written: {e}");
        }
    }
}

impl Budget {
    fn settle(&mut self, asker: &Asker, writer: &mut Writer) -> Result<(), AuditError> {
        let count = self.uncounted;
        if count == 0 {
            return Ok(());
        }
        let requests = count;
        writer.append(&match *asker {
            Asker::Principal(ref principal) => Event::CallsDenied {
                principal,
                calls: count,
            },
            Asker::User(uid) | Asker::Compared(uid) => Event::RequestsRefused {
                uid: Some(uid),
                requests,
            },
            Asker::OtherUsers | Asker::OtherCompared => Event::RequestsRefused {
                uid: None,
                requests,
            },
            Asker::Served(uid) => Event::RequestsServed {
                uid: Some(uid),
                requests,
            },
            Asker::OtherServed => Event::RequestsServed {
                uid: None,
                requests,
            },
        })?;
        self.uncounted = 0;
        Ok(())
    }
}
