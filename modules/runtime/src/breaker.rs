//! The circuit breaker of one service as seen by one module: pure, the clock is an argument.
//!
//! Owns: [`Breaker`], a sliding window of the last outcomes, and the times before which nothing
//! is sent.
//! Promises: it opens when at least [`MIN_OUTCOMES`] of the last [`WINDOW`] outcomes are recent and
//! half of them failed; while it is open nothing passes; after the wait exactly one probe passes,
//! whose outcome, and no other request's, closes it or doubles the wait. A service that asked for a
//! pause gets it.
//! Does not: judge what a failure is, nor wait or wake: callers ask [`Breaker::admit`].

use std::time::{Duration, Instant};

/// Outcomes that are remembered.
pub const WINDOW: usize = 20;
/// Recent outcomes without which the breaker stays closed.
pub const MIN_OUTCOMES: usize = 5;
/// Age after which an outcome no longer counts.
pub const MAX_AGE: Duration = Duration::from_secs(30);
/// First wait when the breaker opens; each failed probe doubles it.
pub const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait of an open breaker, and longest pause that a service's Retry-After is given.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What [`Breaker::admit`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Send; report the outcome with [`Breaker::report`].
    Pass,
    /// The same, as the one probe of an open breaker; its outcome must be reported.
    Probe,
    /// Do not send: the service failed too often. Try again after this long.
    Open(Duration),
    /// Do not send: the service asked for a pause that lasts this much longer.
    Paused(Duration),
}

/// How a request that was admitted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The service answered, whatever it said.
    Answered,
    /// No usable answer: unreachable, timed out, broken off, or a gateway's error.
    Failed,
    /// The service asked to wait this long.
    Throttled(Duration),
    /// Nothing was learned, as when the caller cancelled.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, wait: Duration },
    Probing { wait: Duration },
}

/// See the module's text.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// (when, failed), a ring of the last [`WINDOW`].
    outcomes: [Option<(Instant, bool)>; WINDOW],
    next: usize,
    paused_until: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            state: State::Closed,
            outcomes: [None; WINDOW],
            next: 0,
            paused_until: None,
        }
    }
}

impl Breaker {
    /// What [`Breaker::admit`] would decide; changes nothing.
    pub fn look(&self, now: Instant) -> Admission {
        if let Some(left) = self.paused_until.and_then(|until| left(until, now)) {
            return Admission::Paused(left);
        }
        match self.state {
            State::Closed => Admission::Pass,
            State::Open { until, .. } => left(until, now).map_or(Admission::Probe, Admission::Open),
            State::Probing { wait } => Admission::Open(wait),
        }
    }

    /// Whether a request may leave now.
    pub fn admit(&mut self, now: Instant) -> Admission {
        let admission = self.look(now);
        if let (Admission::Probe, State::Open { wait, .. }) = (admission, self.state) {
            self.state = State::Probing { wait };
        }
        admission
    }

    /// Records how an admitted request ended; `probe`: it was admitted as [`Admission::Probe`].
    pub fn report(&mut self, outcome: Outcome, probe: bool, now: Instant) {
        if let Outcome::Throttled(pause) = outcome {
            self.paused_until = Some(now + pause.min(LONGEST_WAIT));
        }
        let failed = outcome == Outcome::Failed;
        match self.state {
            State::Closed if outcome != Outcome::Unknown => {
                self.outcomes[self.next] = Some((now, failed));
                self.next = (self.next + 1) % WINDOW;
                if failed && self.tripped(now) {
                    self.open(FIRST_WAIT, now);
                }
            }
            State::Probing { wait } if probe => match outcome {
                Outcome::Failed => self.open((wait * 2).min(LONGEST_WAIT), now),
                Outcome::Unknown => self.state = State::Open { until: now, wait },
                _ => {
                    *self = Breaker {
                        paused_until: self.paused_until,
                        ..Breaker::default()
                    }
                }
            },
            // A request that was admitted before the breaker opened changes nothing.
            _ => {}
        }
    }

    fn open(&mut self, wait: Duration, now: Instant) {
        self.state = State::Open {
            until: now + wait,
            wait,
        };
    }

    fn tripped(&self, now: Instant) -> bool {
        let recent = || {
            self.outcomes
                .iter()
                .flatten()
                .filter(|(at, _)| now.duration_since(*at) < MAX_AGE)
        };
        let failed = recent().filter(|(_, failed)| *failed).count();
        let all = recent().count();
        all >= MIN_OUTCOMES && failed * 2 >= all
    }
}

fn left(until: Instant, now: Instant) -> Option<Duration> {
    until
        .checked_duration_since(now)
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(breaker: &mut Breaker, outcome: Outcome, now: Instant) {
        breaker.report(outcome, false, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..MIN_OUTCOMES {
            assert_eq!(breaker.admit(now), Admission::Pass);
            report(&mut breaker, Outcome::Failed, now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_enough_recent_failures_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..MIN_OUTCOMES {
            report(&mut breaker, Outcome::Failed, now);
        }
        assert_eq!(breaker.admit(now), Admission::Pass);
        // The early failures are too old to count with this one.
        let later = now + MAX_AGE;
        report(&mut breaker, Outcome::Failed, later);
        assert_eq!(breaker.admit(later), Admission::Pass);
        assert_eq!(opened(now).admit(now), Admission::Open(FIRST_WAIT));
    }

    #[test]
    fn failures_in_the_minority_do_not_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for i in 0..100 {
            let outcome = if i % 3 == 0 {
                Outcome::Failed
            } else {
                Outcome::Answered
            };
            report(&mut breaker, outcome, now);
        }
        assert_eq!(breaker.admit(now), Admission::Pass);
    }

    #[test]
    fn one_probe_passes_and_its_outcome_decides() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += FIRST_WAIT;
        assert_eq!(breaker.admit(now), Admission::Probe);
        for _ in 0..10 {
            assert!(matches!(breaker.admit(now), Admission::Open(_)));
        }
        breaker.report(Outcome::Failed, true, now);
        assert_eq!(breaker.admit(now), Admission::Open(FIRST_WAIT * 2));
        now += FIRST_WAIT * 2;
        assert_eq!(breaker.admit(now), Admission::Probe);
        breaker.report(Outcome::Answered, true, now);
        for _ in 0..10 {
            assert_eq!(breaker.admit(now), Admission::Pass);
        }
    }

    #[test]
    fn a_cancelled_probe_gives_the_next_one_its_place() {
        let now = Instant::now() + FIRST_WAIT;
        let mut breaker = opened(now - FIRST_WAIT);
        assert_eq!(breaker.admit(now), Admission::Probe);
        breaker.report(Outcome::Unknown, true, now);
        assert_eq!(breaker.admit(now), Admission::Probe);
        assert!(matches!(breaker.admit(now), Admission::Open(_)));
    }

    #[test]
    fn the_wait_is_bounded() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..20 {
            now += LONGEST_WAIT;
            assert_eq!(breaker.admit(now), Admission::Probe);
            breaker.report(Outcome::Failed, true, now);
        }
        assert_eq!(breaker.admit(now), Admission::Open(LONGEST_WAIT));
    }

    #[test]
    fn a_pause_that_the_service_asked_for_is_kept_and_bounded() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        report(
            &mut breaker,
            Outcome::Throttled(Duration::from_secs(7)),
            now,
        );
        let second = Duration::from_secs(1);
        assert_eq!(
            breaker.admit(now + second),
            Admission::Paused(Duration::from_secs(6))
        );
        assert_eq!(breaker.admit(now + Duration::from_secs(7)), Admission::Pass);
        report(
            &mut breaker,
            Outcome::Throttled(Duration::from_secs(1 << 40)),
            now,
        );
        assert_eq!(breaker.admit(now), Admission::Paused(LONGEST_WAIT));
    }

    #[test]
    fn an_outcome_from_before_the_opening_does_not_decide_for_the_probe() {
        for stale in [
            Outcome::Answered,
            Outcome::Failed,
            Outcome::Unknown,
            Outcome::Throttled(Duration::ZERO),
        ] {
            let now = Instant::now();
            let mut breaker = opened(now);
            let now = now + FIRST_WAIT;
            assert_eq!(breaker.admit(now), Admission::Probe);
            report(&mut breaker, stale, now);
            // The probe is still out.
            assert_eq!(breaker.admit(now), Admission::Open(FIRST_WAIT), "{stale:?}");
            breaker.report(Outcome::Answered, true, now);
            assert_eq!(breaker.admit(now), Admission::Pass, "{stale:?}");
        }
    }
}
