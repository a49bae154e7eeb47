//! The stack that others leave behind: overwritten after they are done.
//!
//! Owns: [`wiped`] and [`wipe`]. Promises: what functions that were called from here left on this thread's stack, to the
//! given depth, is overwritten, whether a library wipes its own buffers or not (ring's digests do not). Does not
//! promise: anything about registers, about what lies deeper, or about the caller's own frame.

use std::hint::black_box;

/// Does `work` and then overwrites `DEPTH` bytes of the stack that it used. Give it references to secrets, and have it
/// give back none.
pub fn wiped<const DEPTH: usize, R>(work: impl FnOnce() -> R) -> R {
    let result = below(work);
    wipe::<DEPTH>();
    result
}

/// A frame of its own, so that all of `work` lies where [`wipe`] will.
#[inline(never)]
fn below<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Overwrites `DEPTH` bytes of the stack below the caller's frame.
#[inline(never)]
pub fn wipe<const DEPTH: usize>() {
    let mut zeroes = [0_u8; DEPTH];
    // Nobody reads the array; without this nobody would write it.
    black_box(&mut zeroes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_comes_back() {
        let text = String::from("text");
        assert_eq!(wiped::<1024, _>(|| text.len()), 4);
    }
}
