//! How many lines may be had by asking for what one may not: tools that are hidden, acts at the admin socket.
//!
//! Owns a budget for each asker: [`BURST`] lines, and one more for each [`PERIOD`]. Promises that what goes beyond it is
//! counted, and that the count is a line before the next one of that asker, after the next checkpoint, or when the log
//! closes, whichever comes first. Principals are records of officers, and of users [`USERS`] are kept apart, so this
//! stays small. Does not decide what is denied.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcpist_core::event::Event;
use mcpist_core::ids::PrincipalName;

use super::AuditError;
use super::writer::Writer;

const BURST: u32 = 32;
const PERIOD: Duration = Duration::from_secs(1);
/// Users that have a budget of their own.
const USERS: usize = 256;

/// Whose lines are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// Calls of a principal.
    Principal(PrincipalName),
    /// Requests of a Unix user at the admin socket.
    User(u32),
    /// Those of all who came when there were [`USERS`] already.
    OtherUsers,
}

/// The budgets of one opening of the log.
#[derive(Default)]
pub(super) struct Denied(BTreeMap<Asker, Budget>);

struct Budget {
    /// When all lines of the budget are there again.
    whole: Instant,
    /// What has no line.
    uncounted: u64,
}

impl Denied {
    /// Whether what is denied to `asker` at `at` gets a line; what does not is counted. Before such a line the count is
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

    /// The asker whose budget it is. Users whose budget is whole make way.
    fn placed(&mut self, asker: Asker, at: Instant) -> Asker {
        let is_new = matches!(asker, Asker::User(_)) && !self.0.contains_key(&asker);
        if is_new && self.users() >= USERS {
            self.0.retain(|asker, budget| {
                !matches!(asker, Asker::User(_)) || budget.uncounted > 0 || budget.whole > at
            });
            if self.users() >= USERS {
                return Asker::OtherUsers;
            }
        }
        asker
    }

    fn users(&self) -> usize {
        self.0.range(Asker::User(0)..Asker::OtherUsers).count()
    }

    /// Writes every count. What the disk refuses stays.
    pub(super) fn settle_all(&mut self, writer: &mut Writer) {
        let settled = self
            .0
            .iter_mut()
            .try_for_each(|(asker, budget)| budget.settle(asker, writer));
        if let Err(e) = settled {
            log::error!("audit log: count of what was denied not written: {e}");
        }
    }
}

impl Budget {
    fn settle(&mut self, asker: &Asker, writer: &mut Writer) -> Result<(), AuditError> {
        let count = self.uncounted;
        if count == 0 {
            return Ok(());
        }
        let of_users = |uid| Event::RequestsRefused {
            uid,
            requests: count,
        };
        writer.append(&match asker {
            Asker::Principal(principal) => Event::CallsDenied {
                principal,
                calls: count,
            },
            Asker::User(uid) => of_users(Some(*uid)),
            Asker::OtherUsers => of_users(None),
        })?;
        self.uncounted = 0;
        Ok(())
    }
}
