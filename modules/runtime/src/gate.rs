//! The gate before one service as used by one module: how many at once, how many wait, and whether
//! at all.
//!
//! Owns: [`Gate`], one per (registry, module, binding version), and [`Pass`], the right to send.
//! Promises: at most `concurrency` passes exist; at most [`QUEUE_FACTOR`] times as many callers
//! wait, the next is refused at once; an open breaker or a pause refuses without waiting. A pass
//! that is dropped unreported (a cancelled call) frees its place and leaves the breaker as it was.
//! Does not: bound the wait in time; the caller's deadline does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::breaker::{Admission, Breaker, Outcome};

/// Callers that may wait for each one that may run.
pub const QUEUE_FACTOR: usize = 4;

/// Why the gate let nobody through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GateError {
    /// The queue is full.
    #[error("too many calls of this module wait for the service already")]
    Busy,
    /// The breaker is open.
    #[error("the service failed too often; it is tried again in {} s", seconds(*.0))]
    Open(Duration),
    /// The service asked for a pause.
    #[error("the service asked to wait {} s", seconds(*.0))]
    Paused(Duration),
}

/// Whole seconds, rounded up.
pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// See the module's text.
#[derive(Debug)]
pub struct Gate {
    running: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    breaker: Mutex<Breaker>,
}

impl Gate {
    /// A gate for this many at once; zero counts as one.
    pub fn new(concurrency: usize) -> Gate {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Gate {
            running: Semaphore::new(concurrency),
            waiting: AtomicUsize::new(0),
            max_waiting: concurrency.saturating_mul(QUEUE_FACTOR),
            breaker: Mutex::new(Breaker::default()),
        }
    }

    /// Waits for a place, within the queue's bound.
    pub async fn enter(&self) -> Result<Pass<'_>, GateError> {
        refuse(self.breaker().look(Instant::now()))?;
        let permit = match self.running.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::join(self)?;
                // The semaphore is never closed.
                self.running.acquire().await.map_err(|_| GateError::Busy)?
            }
        };
        let admission = self.breaker().admit(Instant::now());
        refuse(admission)?;
        Ok(Pass {
            gate: self,
            probe: admission == Admission::Probe,
            reported: false,
            _permit: permit,
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // A breaker is plain numbers: whatever a panicking holder left is a valid state.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(admission: Admission) -> Result<(), GateError> {
    match admission {
        Admission::Pass | Admission::Probe => Ok(()),
        Admission::Open(left) => Err(GateError::Open(left)),
        Admission::Paused(left) => Err(GateError::Paused(left)),
    }
}

/// A place in the queue.
struct Waiting<'g>(&'g Gate);

impl<'g> Waiting<'g> {
    fn join(gate: &'g Gate) -> Result<Waiting<'g>, GateError> {
        let waiting = Waiting(gate);
        match gate.waiting.fetch_add(1, Ordering::Relaxed) < gate.max_waiting {
            true => Ok(waiting),
            false => Err(GateError::Busy),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to send the requests of one call.
#[derive(Debug)]
pub struct Pass<'g> {
    gate: &'g Gate,
    /// It is the probe of an open breaker, and has not reported yet.
    probe: bool,
    reported: bool,
    _permit: SemaphorePermit<'g>,
}

impl Pass<'_> {
    /// Tells the breaker how one request ended.
    pub fn report(&mut self, outcome: Outcome) {
        self.reported = true;
        let probe = std::mem::take(&mut self.probe);
        self.gate.breaker().report(outcome, probe, Instant::now());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.report(Outcome::Unknown);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::breaker::MIN_OUTCOMES;

    #[tokio::test]
    async fn places_and_queue_are_bounded_and_freed() {
        let gate = std::sync::Arc::new(Gate::new(2));
        let first = gate.enter().await.unwrap();
        let second = gate.enter().await.unwrap();
        let mut queue: Vec<_> = (0..2 * QUEUE_FACTOR)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.enter().await.map(drop) })
            })
            .collect();
        while gate.waiting.load(Ordering::Relaxed) < 2 * QUEUE_FACTOR {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.enter().await.unwrap_err(), GateError::Busy);
        queue.pop().unwrap().abort();
        drop((first, second));
        for waiter in queue {
            assert_eq!(waiter.await.unwrap(), Ok(()));
        }
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(gate.running.available_permits(), 2);
    }

    #[tokio::test]
    async fn an_open_breaker_refuses_without_a_queue() {
        let gate = Gate::new(1);
        for _ in 0..MIN_OUTCOMES {
            gate.enter().await.unwrap().report(Outcome::Failed);
        }
        assert!(matches!(gate.enter().await, Err(GateError::Open(_))));
        assert_eq!(gate.running.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_pause_is_told_in_seconds() {
        let gate = Gate::new(1);
        gate.enter()
            .await
            .unwrap()
            .report(Outcome::Throttled(Duration::from_secs(9)));
        let error = gate.enter().await.unwrap_err();
        assert_eq!(error.to_string(), "the service asked to wait 9 s");
    }

    #[tokio::test]
    async fn calls_that_are_dropped_count_for_nothing() {
        let gate = Gate::new(1);
        for _ in 0..10 * MIN_OUTCOMES {
            drop(gate.enter().await.unwrap());
        }
        assert!(gate.enter().await.is_ok());
    }
}
