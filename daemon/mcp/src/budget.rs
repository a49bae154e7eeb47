//! Bytes that the lines of all clients may take together. No I/O.
//!
//! Owns [`Budget`]. Promises that what was taken is given back when its [`Charge`] is dropped, and that taking waits for
//! nothing: what does not fit is refused. Does not measure: who takes says how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left; clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

/// A part of a budget, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    of: Budget,
    bytes: usize,
}

impl Budget {
    /// One of `bytes`, for all connections that are served with it.
    pub fn new(bytes: usize) -> Budget {
        Budget(Arc::new(AtomicUsize::new(bytes)))
    }

    /// A part of no bytes.
    pub(crate) fn nothing(&self) -> Charge {
        Charge {
            of: self.clone(),
            bytes: 0,
        }
    }

    /// A part of `bytes`, if so many are left.
    pub(crate) fn take(&self, bytes: usize) -> Option<Charge> {
        let mut charge = self.nothing();
        charge.grow_to(bytes).then_some(charge)
    }
}

impl Charge {
    /// Takes what is missing to `bytes`. False where that is not left; then nothing changed.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self
            .of
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(more)
            });
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        self.of.0.fetch_add(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}
