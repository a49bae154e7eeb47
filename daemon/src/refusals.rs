//! Peers that a socket turned away, on their way to the audit log.
//!
//! Owns what was noted since the last line. Promises that noting waits for nothing, not for the log's disk either, and
//! that a flood of peers costs one line in each [`PERIOD`], which counts them. Does not decide who is turned away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpist_core::event::Event;

use crate::house::House;
use crate::keeper::lock;

/// From one line to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// What no line says yet.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<State>);

#[derive(Default)]
struct State {
    noted: Option<Noted>,
    /// Somebody is at it to write lines.
    writing: bool,
}

/// Peers that were turned away.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    /// Where the first of them came.
    listener: String,
    /// Whose they are, if all are one user's.
    uid: Option<u32>,
    peers: u64,
}

impl Refusals {
    /// Counts one more. True where nobody is at it to write it.
    fn note(&self, listener: &str, uid: Option<u32>) -> bool {
        let mut state = lock(&self.0);
        match &mut state.noted {
            Some(noted) => {
                noted.uid = noted.uid.filter(|u| Some(*u) == uid);
                noted.peers = noted.peers.saturating_add(1);
            }
            None => {
                state.noted = Some(Noted {
                    listener: listener.to_owned(),
                    uid,
                    peers: 1,
                });
            }
        }
        !std::mem::replace(&mut state.writing, true)
    }

    /// What the next line says; none once there is nothing to say, and nobody is at it any more.
    fn take(&self) -> Option<Noted> {
        let mut state = lock(&self.0);
        let noted = state.noted.take();
        state.writing = noted.is_some();
        noted
    }
}

/// Has it recorded that a peer of `uid` was turned away at `listener`.
pub(crate) fn refused(house: &Arc<House>, listener: &str, uid: Option<u32>) {
    if !house.refusals.note(listener, uid) {
        return;
    }
    let house = Arc::clone(house);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some(noted) = house.refusals.take() else {
                return;
            };
            let house = Arc::clone(&house);
            // The disk may hang: on a thread that nobody waits for but the next line.
            let _ = tokio::task::spawn_blocking(move || write(&house, &noted)).await;
        }
    });
}

fn write(house: &House, noted: &Noted) {
    let Noted {
        listener,
        uid,
        peers,
    } = noted;
    let uid = *uid;
    log::warn!("{listener}: {peers} peers turned away, uid {uid:?}");
    let event = Event::PeerRefused { listener, uid };
    // While sealed it is noted for the next opening.
    if let Err(e) = house.audit.append(&event) {
        log::debug!("not in the audit log: {e}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_with_a_count_and_one_writer() {
        let refusals = Refusals::default();
        assert!(refusals.note("mcp.sock", Some(7)));
        for _ in 1..1000 {
            assert!(!refusals.note("mcp.sock", Some(7)));
        }
        let noted = refusals.take().unwrap();
        assert_eq!((noted.uid, noted.peers), (Some(7), 1000));
        // Still at it: what comes meanwhile is in the next line.
        assert!(!refusals.note("mcp.sock", Some(7)));
        assert!(!refusals.note("admin.sock", Some(8)));
        let noted = refusals.take().unwrap();
        assert_eq!((noted.uid, noted.peers), (None, 2));
        assert_eq!(refusals.take(), None);
        assert!(refusals.note("mcp.sock", None));
    }
}
