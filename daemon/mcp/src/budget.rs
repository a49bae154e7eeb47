//! Bytes that the lines of all clients may take together, and each user's share of them. No I/O.
//!
//! Owns [`Budget`]. Promises that what was taken is given back when its [`Charge`] is dropped; that taking waits for
//! nothing: what does not fit is refused; that no share takes more than its part, whatever is left; and that what is
//! short is never refused for what is long. Does not measure, nor know a user: who takes says how much, and of which
//! share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request that takes no more than this is of the pool of the short ones.
pub(crate) const SHORT: usize = 64 * 1024;
/// A share has this part of each pool.
const PART: usize = 4;

/// What is left for long lines and requests, and for short requests; clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Budget {
    long: Arc<Pool>,
    short: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    bytes: usize,
    left: AtomicUsize,
    /// Of which this is a share.
    all: Option<Arc<Pool>>,
}

/// A part of a budget, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    of: Arc<Pool>,
    bytes: usize,
}

impl Budget {
    /// One of `long` bytes for lines and requests over 64 KiB, and of `short` bytes for shorter requests.
    pub fn new(long: usize, short: usize) -> Budget {
        Budget {
            long: Pool::of(long, None),
            short: Pool::of(short, None),
        }
    }

    /// What one user may take of it: a quarter of both at most.
    pub fn share(&self) -> Budget {
        let part = |pool: &Arc<Pool>| Pool::of(pool.bytes / PART, Some(Arc::clone(pool)));
        Budget {
            long: part(&self.long),
            short: part(&self.short),
        }
    }

    /// A part of no bytes, to grow with a line.
    pub(crate) fn nothing(&self) -> Charge {
        Charge::none(&self.long)
    }

    /// A part for a request of `bytes`, if so many are left.
    pub(crate) fn take(&self, bytes: usize) -> Option<Charge> {
        let pool = if bytes <= SHORT {
            &self.short
        } else {
            &self.long
        };
        let mut charge = Charge::none(pool);
        charge.grow_to(bytes).then_some(charge)
    }
}

impl Pool {
    fn of(bytes: usize, all: Option<Arc<Pool>>) -> Arc<Pool> {
        Arc::new(Pool {
            bytes,
            left: AtomicUsize::new(bytes),
            all,
        })
    }

    /// Takes `bytes` here and of the whole, or nothing.
    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_err() {
            return false;
        }
        let of_all = self.all.as_ref().is_none_or(|all| all.take(bytes));
        if !of_all {
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
        of_all
    }

    fn give(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        if let Some(all) = &self.all {
            all.give(bytes);
        }
    }
}

impl Charge {
    fn none(of: &Arc<Pool>) -> Charge {
        Charge {
            of: Arc::clone(of),
            bytes: 0,
        }
    }

    /// Takes what is missing to `bytes`. False where that is not left; then nothing changed.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self.of.take(more);
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        self.of.give(self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_quarter_of_what_all_have() {
        let all = Budget::new(8 * SHORT, 8);
        let held = [(); 4].map(|()| {
            let share = all.share();
            let held = [share.take(2 * SHORT).unwrap(), share.take(2).unwrap()];
            assert!(share.take(SHORT + 1).is_none() && share.take(1).is_none());
            held
        });
        // Nothing is left of the whole for a fifth, and all of it again once it is given back.
        let fifth = all.share();
        assert!(fifth.take(2 * SHORT).is_none() && fifth.take(2).is_none());
        drop(held);
        assert!(fifth.take(2 * SHORT).is_some() && fifth.take(2).is_some());
        assert_eq!(all.long.left.load(Ordering::Relaxed), all.long.bytes);
        assert_eq!(fifth.long.left.load(Ordering::Relaxed), fifth.long.bytes);
    }
}
