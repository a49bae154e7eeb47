//! The admin thread's way to the audit log. That log's mutex may be held by a disk that hangs; a status, a refusal or a
//! ticket must not wait for it.
//!
//! Owns a thread and a bounded queue to it. Promises that handing on waits for nothing: what the queue does not take is
//! in the daemon's log alone. Lines that an act depends on are not written here; the keeper writes those.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use tokio::sync::oneshot;

use crate::audit::{Asker, State, Trouble, ready};
use crate::house::House;

/// Errands that wait at once.
const WAITING: usize = 64;
/// What a status waits for the log.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the clerk is sent for.
pub(super) enum Errand {
    /// Records that somebody lacked the role.
    Refused {
        uid: u32,
        action: &'static str,
        code: ErrorCode,
    },
    /// Records that a ticket was given out.
    Ticket { uid: u32, purpose: &'static str },
    /// How the log is.
    State(oneshot::Sender<State>),
}

/// The log does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log does not answer; see to its disk")]
pub(crate) struct Stuck;

/// The admin thread's end.
#[derive(Clone)]
pub(crate) struct Clerk {
    desk: SyncSender<Errand>,
}

impl Clerk {
    /// A clerk for the log of `house`.
    pub(crate) fn start(house: Arc<House>) -> std::io::Result<Clerk> {
        Clerk::working(move |errand| {
            let recorded = match errand {
                Errand::Refused { uid, action, code } => {
                    let refused = Event::AdminRefused { uid, action, code };
                    let (asker, at) = (Asker::User(uid), Instant::now());
                    house.audit.append_limited(asker, &refused, at).map(drop)
                }
                Errand::Ticket { uid, purpose } => {
                    let issued = Event::TicketIssued { uid, purpose };
                    let (asker, at) = (Asker::Served(uid), Instant::now());
                    house.audit.append_limited(asker, &issued, at).map(drop)
                }
                Errand::State(tell) => {
                    let mut state = house.audit.state();
                    if state.head.is_none() {
                        let ready = ready(&house.config.audit());
                        state.trouble = ready.err().map(Trouble::Unready);
                    }
                    // Nobody listens any more where the patience is over.
                    let _ = tell.send(state);
                    return;
                }
            };
            // While sealed there is no log to write to.
            if let Err(e) = recorded {
                log::debug!("not in the audit log: {e}");
            }
        })
    }

    fn working(mut work: impl FnMut(Errand) + Send + 'static) -> std::io::Result<Clerk> {
        let (desk, errands) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("admin-clerk".into())
            .spawn(move || {
                while let Ok(errand) = errands.recv() {
                    work(errand);
                }
            })?;
        Ok(Clerk { desk })
    }

    /// Hands on, and waits for nothing.
    pub(super) fn send(&self, errand: Errand) {
        if self.desk.try_send(errand).is_err() {
            log::error!("the audit log does not answer; an act at the admin socket is not in it");
        }
    }

    /// How the log is, for a status.
    pub(super) async fn state(&self) -> Result<State, Stuck> {
        self.state_within(PATIENCE).await
    }

    async fn state_within(&self, patience: Duration) -> Result<State, Stuck> {
        let (tell, told) = oneshot::channel();
        self.desk.try_send(Errand::State(tell)).map_err(|_| Stuck)?;
        match tokio::time::timeout(patience, told).await {
            Ok(Ok(state)) => Ok(state),
            _ => Err(Stuck),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::audit::tests::Fixture;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_log_that_hangs_keeps_nobody_waiting() {
        let (release, hang) = channel::<()>();
        let clerk = Clerk::working(move |errand| {
            let _ = hang.recv();
            if let Errand::State(tell) = errand {
                let _ = tell.send(State {
                    head: None,
                    trouble: None,
                });
            }
        })
        .unwrap();
        for _ in 0..2 * WAITING {
            clerk.send(Errand::Ticket {
                uid: 1,
                purpose: "import",
            });
        }
        assert!(clerk.state_within(Duration::ZERO).await.is_err());
        // Once the disk answers, so does the clerk.
        drop(release);
        while clerk.state().await.is_err() {}
    }

    #[tokio::test]
    async fn a_user_without_the_role_costs_the_log_few_lines() {
        let folder = tempfile::tempdir().unwrap();
        let house = Arc::new(crate::call::tests::house(folder.path()));
        let log = Fixture::new();
        log.open_in(&house.audit, 1 << 20).unwrap();
        let clerk = Clerk::start(Arc::clone(&house)).unwrap();
        for _ in 0..10 * WAITING {
            clerk.send(Errand::Refused {
                uid: 7,
                action: "seal",
                code: ErrorCode::Forbidden,
            });
            // Its turn has come by then.
            while clerk.state().await.is_err() {}
        }
        assert!(house.audit.close(LONG));
        let counted = log.lines("requests_refused");
        assert!(counted.iter().all(|line| line["uid"] == 7));
        let counted: u64 = counted.iter().filter_map(|l| l["requests"].as_u64()).sum();
        assert!(counted > 0);
        let lines = log.lines("admin_refused").len();
        assert_eq!(lines as u64 + counted, 10 * WAITING as u64);
    }
}
