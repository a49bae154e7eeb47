//! The time before which nothing new may have ended. No I/O, no clock.
//!
//! Owns: [`step`], the rule by which the floor moves. A bundle's `not_after` is judged against the
//! floor, on import and on activation, and never against the host's clock: a clock that is set back
//! lets nothing old in, and one that was once wrong shuts nothing out.
//! Promises: the floor never goes back, and one step is at most [`MAX_STEP`] seconds, so that a slip
//! of the pen costs a year and not the store. Only the first step is free, and takes two officers.
//! Does not: end what runs already.

use thiserror::Error;

/// The longest step: 400 days, in seconds.
pub const MAX_STEP: u64 = 400 * 86_400;

/// Why the floor does not move.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FloorError {
    /// It would go back or stay.
    #[error("the time floor is {floor} and never goes back to {asked}; give a later time")]
    Back {
        /// Where it stands, in seconds since 1970.
        floor: u64,
        /// Where it was to go.
        asked: u64,
    },
    /// It would go too far at once.
    #[error(
        "the time floor is {floor} and moves by 400 days at most, to {}; {asked} is beyond that",
        .floor.saturating_add(MAX_STEP)
    )]
    TooFar {
        /// Where it stands, in seconds since 1970.
        floor: u64,
        /// Where it was to go.
        asked: u64,
    },
}

/// Whether the floor may move from `floor` to `asked`, both in seconds since 1970. A floor of 0 was
/// never set.
///
/// # Errors
/// [`FloorError`].
pub fn step(floor: u64, asked: u64) -> Result<(), FloorError> {
    if asked <= floor {
        Err(FloorError::Back { floor, asked })
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
    fn it_moves_forward_by_400_days_at_most() {
        let floor = 1_790_000_000;
        assert_eq!(step(floor, floor + 1), Ok(()));
        assert_eq!(step(floor, floor + MAX_STEP), Ok(()));
        let asked = floor + MAX_STEP + 1;
        assert_eq!(step(floor, asked), Err(FloorError::TooFar { floor, asked }));
        for asked in [0, floor - 1, floor] {
            assert_eq!(step(floor, asked), Err(FloorError::Back { floor, asked }));
        }
    }

    #[test]
    fn the_first_step_is_free() {
        assert_eq!(step(0, 1_790_000_000), Ok(()));
        assert!(step(0, 0).is_err());
    }
}
