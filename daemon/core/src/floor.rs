//! The time before which nothing new may have ended. No I/O, no clock.
//!
//! Owns: [`step`], the rule by which the floor moves. A bundle's `not_after` is judged against the
//! floor, on import and on activation, and never against the host's clock: a clock that is set back
//! lets nothing old in, and one that was once wrong shuts nothing out.
//! Promises: the floor never goes back, and one step is at most [`MAX_STEP`] seconds, so that a slip
//! of the pen costs a year and not the store. The first step, which takes two officers, is measured
//! from the host's clock, or from [`MADE`] where the clock is behind that.
//! Does not: end what runs already.

use thiserror::Error;

use crate::date::date;

/// The longest step: 400 days, in seconds.
pub const MAX_STEP: u64 = 400 * 86_400;

/// This program is no older than this, whatever a host's clock says: 2026-11-24, in seconds since
/// 1970.
pub const MADE: u64 = 1_795_478_400;

/// Why the floor does not move.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FloorError {
    /// It would go back or stay.
    #[error("the time floor is {} and never goes back to {}; give a later time", date(*.floor), date(*.asked))]
    Back {
        /// Where it stands, in seconds since 1970.
        floor: u64,
        /// Where it was to go.
        asked: u64,
    },
    /// It would go too far at once.
    #[error(
        "the time floor is {} and moves by 400 days at most, to {}; {} is beyond that",
        date(*.floor), date(.floor.saturating_add(MAX_STEP)), date(*.asked)
    )]
    TooFar {
        /// Where it stands, in seconds since 1970.
        floor: u64,
        /// Where it was to go.
        asked: u64,
    },
    /// The first step would go too far.
    #[error(
        "the first time floor is at most {}, 400 days from now; {} is beyond that: \
         seconds are meant, no milliseconds, and a host whose clock is behind has it set first",
        date(.now.saturating_add(MAX_STEP)), date(*.asked)
    )]
    FirstTooFar {
        /// From when it is measured, in seconds since 1970.
        now: u64,
        /// Where it was to go.
        asked: u64,
    },
}

/// Whether the floor may move from `floor` to `asked` while the host's clock shows `now`, all in
/// seconds since 1970. A floor of 0 was never set.
///
/// # Errors
/// [`FloorError`].
pub fn step(floor: u64, asked: u64, now: u64) -> Result<(), FloorError> {
    let now = now.max(MADE);
    if asked <= floor {
        Err(FloorError::Back { floor, asked })
    } else if floor == 0 && asked > now.saturating_add(MAX_STEP) {
        Err(FloorError::FirstTooFar { now, asked })
    } else if floor > 0 && asked - floor > MAX_STEP {
        Err(FloorError::TooFar { floor, asked })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_forward_by_400_days_at_most_whatever_the_clock_says() {
        let floor = 1_790_000_000;
        for now in [0, floor, u64::MAX] {
            assert_eq!(step(floor, floor + 1, now), Ok(()));
            assert_eq!(step(floor, floor + MAX_STEP, now), Ok(()));
            let asked = floor + MAX_STEP + 1;
            let refused = step(floor, asked, now);
            assert_eq!(refused, Err(FloorError::TooFar { floor, asked }));
            for asked in [0, floor - 1, floor] {
                assert_eq!(
                    step(floor, asked, now),
                    Err(FloorError::Back { floor, asked })
                );
            }
        }
    }

    #[test]
    fn a_refusal_names_dates() {
        let said = |floor, asked| step(floor, asked, MADE).map_err(|e| e.to_string());
        for (refused, dates) in [
            (said(MADE, 0), ["2026-11-24", "1970-01-01"]),
            (said(MADE, u64::MAX), ["2026-11-24", "2027-12-29"]),
            (
                said(0, MADE * 1000),
                ["2027-12-29", "1795478400000 seconds after 1970"],
            ),
        ] {
            let text = refused.err().unwrap_or_default();
            assert!(dates.iter().all(|date| text.contains(date)), "{text}");
        }
    }

    #[test]
    fn the_first_step_is_bounded_by_the_clock_and_a_dead_clock_keeps_nobody_out() {
        let now = MADE + 86_400;
        assert_eq!(step(0, 1, now), Ok(()));
        assert_eq!(step(0, now + MAX_STEP, now), Ok(()));
        // Milliseconds where seconds are meant.
        for asked in [now + MAX_STEP + 1, now * 1000] {
            let refused = step(0, asked, now);
            assert_eq!(refused, Err(FloorError::FirstTooFar { now, asked }));
        }
        assert_eq!(step(0, MADE, 0), Ok(()));
        assert!(step(0, MADE + MAX_STEP + 1, 0).is_err());
        assert!(step(0, 0, now).is_err());
    }
}
