//! What the parts of the daemon share: one value, made at start, handed around by `Arc`.
//!
//! Owns the switch between sealed and unsealed as clients see it: a snapshot, or none. Promises that a call which
//! entered before the switch to none is told, and can be waited for. Does not own the barrier ([`crate::keeper`] does)
//! nor decide when to switch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mcpist_core::ids::CallId;

use crate::audit::Audit;
use crate::config::Config;
use crate::connections::Shares;
use crate::inflight::{Entered, InFlight};
use crate::leaks::Leaks;
use crate::live::Live;
use crate::refusals::Refusals;
use crate::runner::Runners;
use crate::secret_socket::Purpose;
use crate::shown::Shown;
use crate::tickets::Tickets;

/// Longest line of a client, in bytes.
const LINE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that long lines and long requests in flight of all clients take together at most. A user's share is that of one
/// line of full length and of its request.
const LONG_LINES: usize = 8 * LINE_BYTES;
/// Bytes that short requests in flight of all clients take together at most.
const SHORT_REQUESTS: usize = 16 * 1024 * 1024;
/// A client that asks nothing for this long after connecting is closed.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// The daemon's shared state.
pub(crate) struct House {
    /// What root set.
    pub(crate) config: Config,
    /// The audit log; closed while sealed.
    pub(crate) audit: Audit,
    /// The links to the runners.
    pub(crate) runners: Runners,
    /// Tickets of the secret socket.
    pub(crate) tickets: Mutex<Tickets<Purpose>>,
    /// What each principal has read.
    pub(crate) shown: Shown,
    /// What services gave back of credentials.
    pub(crate) leaks: Leaks,
    /// Peers that were turned away.
    pub(crate) refusals: Refusals,
    /// What clients' lines may take.
    pub(crate) lines: Shares,
    live: ArcSwapOption<Live>,
    closed: AtomicBool,
    calls: AtomicU64,
    in_flight: InFlight,
}

impl House {
    /// Sealed, with nothing connected.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            leaks: Leaks::new(config.leaking_answers),
            config,
            audit: Audit::closed(),
            runners: Runners::new(),
            tickets: Mutex::new(Tickets::new()),
            shown: Shown::new(),
            refusals: Refusals::default(),
            lines: Shares::of(mcpist_mcp::Budget::new(LONG_LINES, SHORT_REQUESTS)),
            live: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            calls: AtomicU64::new(1),
            in_flight: InFlight::new(),
        }
    }

    /// The snapshot of now; none while sealed.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// The snapshot of now for a call, which counts as in flight until it lets go of [`Entered`].
    pub(crate) fn enter(&self) -> Option<(Arc<Live>, Entered<'_>)> {
        // In this order: who closes takes the snapshot away before it looks who is in flight.
        let entered = self.in_flight.enter();
        Some((self.live()?, entered))
    }

    /// Waits until no call is in flight, at most for `patience`; says how many still are.
    pub(crate) fn drain(&self, patience: Duration) -> usize {
        self.in_flight.drain(patience)
    }

    /// Switches to another snapshot, and the runner with it. While the house is closed, to none.
    pub(crate) fn switch(&self, live: Option<Arc<Live>>) {
        let live = live.filter(|_| !self.closed.load(Ordering::Acquire));
        self.runners.switch(live.clone().as_deref(), || {
            // Again, since it may have closed meanwhile: a snapshot that was on its way opens nothing.
            self.live
                .store(live.filter(|_| !self.closed.load(Ordering::Acquire)));
        });
    }

    /// Cuts clients off, and holds them off until [`House::reopen`]: what the keeper still has to do opens nothing.
    /// Calls in flight are told to end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.switch(None);
        self.in_flight.cancel();
    }

    /// Lets the next snapshot serve again. For an unseal.
    pub(crate) fn reopen(&self) {
        self.in_flight.reopen();
        self.closed.store(false, Ordering::Release);
    }

    /// A number for a call, unique in this process.
    pub(crate) fn next_call(&self) -> CallId {
        CallId(self.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// What one client connection may use.
    pub(crate) fn stream_limits(&self) -> mcpist_mcp::Limits {
        mcpist_mcp::Limits {
            line_bytes: LINE_BYTES,
            in_flight: self.config.calls_in_flight,
            first_request: FIRST_REQUEST,
        }
    }
}
