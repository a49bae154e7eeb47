//! Peers that a socket turned away, on their way to the audit log.
//!
//! Owns what was noted since the last lines: for each socket and user a count. Promises that noting waits for nothing, not
//! for the log's disk either, and that a flood of peers costs in each [`PERIOD`] a line for each user and socket it came
//! by, [`KINDS`] of them and one more at most. Does not decide who is turned away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpist_core::event::Event;

use crate::house::House;
use crate::keeper::lock;

/// From one write to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Users and sockets that are kept apart.
const KINDS: usize = 32;
/// Stands for the sockets of all that came when there were [`KINDS`] already.
const OTHERS: &str = "others";

/// What no line says yet.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<State>);

#[derive(Default)]
struct State {
    noted: Vec<Noted>,
    /// Somebody is at it to write lines.
    writing: bool,
}

/// Peers that were turned away.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    listener: String,
    uid: Option<u32>,
    peers: u64,
}

impl State {
    fn count(&mut self, listener: &str, uid: Option<u32>) {
        let is_it = |n: &&mut Noted| n.listener == listener && n.uid == uid;
        if let Some(noted) = self.noted.iter_mut().find(is_it) {
            noted.peers = noted.peers.saturating_add(1);
        } else if self.noted.len() >= KINDS && (listener, uid) != (OTHERS, None) {
            self.count(OTHERS, None);
        } else {
            self.noted.push(Noted {
                listener: listener.to_owned(),
                uid,
                peers: 1,
            });
        }
    }
}

impl Refusals {
    /// Counts one more. True where nobody is at it to write it.
    fn note(&self, listener: &str, uid: Option<u32>) -> bool {
        let mut state = lock(&self.0);
        state.count(listener, uid);
        !std::mem::replace(&mut state.writing, true)
    }

    /// What the next lines say; nothing once there is nothing to say, and nobody is at it any more.
    fn take(&self) -> Vec<Noted> {
        let mut state = lock(&self.0);
        let noted = std::mem::take(&mut state.noted);
        state.writing = !noted.is_empty();
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
            let noted = house.refusals.take();
            if noted.is_empty() {
                return;
            }
            let house = Arc::clone(&house);
            // The disk may hang: on a thread that nobody waits for but the next lines.
            let write = move || noted.iter().for_each(|noted| write(&house, noted));
            let _ = tokio::task::spawn_blocking(write).await;
        }
    });
}

fn write(house: &House, noted: &Noted) {
    let Noted {
        ref listener,
        uid,
        peers,
    } = *noted;
    log::warn!("{listener}: {peers} peers turned away, uid {uid:?}");
    let event = Event::PeerRefused {
        listener,
        uid,
        peers,
    };
    // While sealed it is noted for the next opening.
    if let Err(e) = house.audit.append(&event) {
        log::debug!("not in the audit log: {e}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What is noted of `listener` and `uid`.
    fn peers(noted: &[Noted], listener: &str, uid: Option<u32>) -> Vec<u64> {
        let mut noted: Vec<_> = noted.iter().collect();
        noted.retain(|n| n.listener == listener && n.uid == uid);
        noted.iter().map(|n| n.peers).collect()
    }

    #[test]
    fn a_flood_is_one_line_with_a_count_and_one_writer() {
        let refusals = Refusals::default();
        assert!(refusals.note("mcp.sock", Some(7)));
        for _ in 1..1000 {
            assert!(!refusals.note("mcp.sock", Some(7)));
        }
        let noted = refusals.take();
        assert_eq!(noted.len(), 1);
        assert_eq!(peers(&noted, "mcp.sock", Some(7)), [1000]);
        // Still at it: what comes meanwhile is in the next lines.
        assert!(!refusals.note("mcp.sock", Some(7)));
        assert_eq!(refusals.take().len(), 1);
        assert_eq!(refusals.take(), []);
        assert!(refusals.note("mcp.sock", None));
    }

    #[test]
    fn one_user_blanks_no_other_and_many_cost_few_lines() {
        let refusals = Refusals::default();
        refusals.note("mcp.sock", Some(7));
        refusals.note("mcp.sock", Some(8));
        refusals.note("admin.sock", Some(7));
        for uid in 1000..2000 {
            refusals.note("mcp.sock", Some(uid));
            // A socket of that name is bounded as well.
            refusals.note(OTHERS, Some(uid));
        }
        refusals.note("mcp.sock", Some(8));
        let noted = refusals.take();
        assert_eq!(noted.len(), KINDS + 1);
        assert_eq!(peers(&noted, "mcp.sock", Some(7)), [1]);
        assert_eq!(peers(&noted, "mcp.sock", Some(8)), [2]);
        assert_eq!(peers(&noted, "admin.sock", Some(7)), [1]);
        assert_eq!(noted.iter().map(|n| n.peers).sum::<u64>(), 2004);
        assert!(peers(&noted, OTHERS, None)[0] > 1900);
    }
}
