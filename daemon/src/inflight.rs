//! The calls of one opening of the store: who is in flight, and how they are told that it closes.
//!
//! Owns a count and a token per opening. Promises that a call which entered is either counted when somebody waits, or
//! sees the token cancelled, or both. The mutex is held for an addition. Does not cancel anything itself: a call ends
//! by its own select.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The calls of the opening that is now.
pub(crate) struct InFlight {
    state: Mutex<State>,
    idle: Condvar,
}

struct State {
    count: usize,
    sealing: CancellationToken,
}

/// One call in flight, until it is dropped.
pub(crate) struct Entered<'a> {
    of: &'a InFlight,
    sealing: CancellationToken,
}

impl InFlight {
    /// None in flight.
    pub(crate) fn new() -> Self {
        let state = State {
            count: 0,
            sealing: CancellationToken::new(),
        };
        Self {
            state: Mutex::new(state),
            idle: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let mut state = self.state();
        state.count += 1;
        Entered {
            of: self,
            sealing: state.sealing.clone(),
        }
    }

    /// Tells every call of this opening that it is over.
    pub(crate) fn cancel(&self) {
        let sealing = self.state().sealing.clone();
        // Outside the mutex: it wakes the calls.
        sealing.cancel();
    }

    /// Begins another opening.
    pub(crate) fn reopen(&self) {
        self.state().sealing = CancellationToken::new();
    }

    /// Waits until none is in flight, at most for `patience`; says how many still are.
    pub(crate) fn drain(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.count == 0 || left.is_zero() {
                return state.count;
            }
            state = self
                .idle
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Entered<'_> {
    /// Done when the store closes.
    pub(crate) async fn sealed(&self) {
        self.sealing.cancelled().await;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.count -= 1;
        if state.count == 0 {
            self.of.idle.notify_all();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn calls_of_a_closed_opening_are_told_and_those_of_the_next_are_not() {
        let calls = InFlight::new();
        let before = calls.enter();
        calls.cancel();
        before.sealed().await;
        // Who enters between the two finds no snapshot, and is told as well.
        calls.enter().sealed().await;
        drop(before);
        calls.reopen();
        let after = calls.enter();
        assert!(!after.sealing.is_cancelled());
    }

    #[test]
    fn a_drain_waits_for_the_last_call() {
        let calls = Arc::new(InFlight::new());
        assert_eq!(calls.drain(LONG), 0);
        let (first, second) = (calls.enter(), calls.enter());
        drop(first);
        assert_eq!(calls.drain(Duration::ZERO), 1);
        let waiting = Arc::clone(&calls);
        let thread = std::thread::spawn(move || waiting.drain(LONG));
        drop(second);
        assert_eq!(thread.join().unwrap(), 0);
    }
}
