//! A global allocator that wipes what it frees. No state of its own.
//!
//! Owns: [`ZeroOnFree`], to be named `#[global_allocator]` by the programs that handle secrets.
//! Promises: every byte handed back with `dealloc`, and every byte left behind by `realloc`, is
//! zero before the system's allocator sees it again. So a buffer of a library (TLS, HTTP, JSON)
//! that held a secret does not outlive its owner.
//! Does not promise: anything about memory that is still allocated, about the stack, or about
//! pages that were swapped out in between (the units forbid swap).
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; this file is one of its two users.

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::MaybeUninit;

use zeroize::Zeroize;

/// The system's allocator, with every freed byte zeroed first.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroOnFree;

// Why needed: the allocator interface is unsafe by definition, and only it sees every free.
// SAFETY: memory comes from `System` and goes back to it with the layout that it was given for;
// what is added in between only writes to bytes that the caller has just given up.
unsafe impl GlobalAlloc for ZeroOnFree {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`. Kept apart so that fresh pages are not zeroed twice.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `GlobalAlloc::dealloc`'s contract.
        unsafe { free(&System, ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc::realloc`'s contract.
        unsafe { resize(&System, ptr, layout, new_size) }
    }
}

/// Wipes a block and gives it back to `to`.
///
/// # Safety
/// As for [`GlobalAlloc::dealloc`] of `to`.
unsafe fn free(to: &impl GlobalAlloc, ptr: *mut u8, layout: Layout) {
    // SAFETY: the caller gives up `layout.size()` bytes at `ptr`, which it owns alone.
    unsafe {
        wipe(ptr, layout.size());
        to.dealloc(ptr, layout);
    }
}

/// Always moves: the system's own `realloc` would leave an unwiped copy when it moves, and an
/// unwiped tail when it shrinks in place.
///
/// # Safety
/// As for [`GlobalAlloc::realloc`] of `within`.
unsafe fn resize(
    within: &impl GlobalAlloc,
    ptr: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    // SAFETY: the caller promises that `new_size` is not zero and, rounded up to the alignment,
    // does not overflow `isize`; the alignment comes from a valid layout. The two blocks are
    // distinct, and both hold at least the smaller of the two sizes.
    unsafe {
        let fresh = within.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
        if !fresh.is_null() {
            fresh.copy_from_nonoverlapping(ptr, layout.size().min(new_size));
            free(within, ptr, layout);
        }
        fresh
    }
}

/// Zeroes `len` bytes at `ptr`; the write is not optimized away though nobody reads it.
///
/// # Safety
/// `len` bytes at `ptr` are writable and belong to the caller alone.
unsafe fn wipe(ptr: *mut u8, len: usize) {
    // SAFETY: by this function's own contract; `MaybeUninit` allows bytes never written.
    unsafe { std::slice::from_raw_parts_mut(ptr.cast::<MaybeUninit<u8>>(), len) }.zeroize();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn wipe_zeroes_all_and_nothing_else() {
        let mut bytes = [0xA5u8; 64];
        // SAFETY: 32 bytes in the middle of an array that this test owns.
        unsafe { wipe(bytes.as_mut_ptr().add(16), 32) };
        assert!(bytes[16..48].iter().all(|&b| b == 0));
        assert!(bytes[..16].iter().chain(&bytes[48..]).all(|&b| b == 0xA5));
    }

    /// Counts the blocks that come back, and looks whether they are wiped.
    #[derive(Default)]
    struct Inspector {
        freed: Cell<usize>,
    }

    // Why needed: only an allocator sees a block at the moment it is freed.
    // SAFETY: all but the look is `System`.
    unsafe impl GlobalAlloc for Inspector {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller keeps the contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: the block is initialised by the test and not yet freed.
            let block = unsafe { std::slice::from_raw_parts(ptr, layout.size()) };
            assert!(block.iter().all(|&byte| byte == 0));
            self.freed.set(self.freed.get() + 1);
            // SAFETY: the caller keeps the contract.
            unsafe { System.dealloc(ptr, layout) }
        }
    }

    #[test]
    fn freed_blocks_are_wiped_when_grown_shrunk_and_dropped() {
        let small = Layout::from_size_align(100, 8).unwrap();
        let large = Layout::from_size_align(5_000, 8).unwrap();
        let inspector = Inspector::default();
        // SAFETY: blocks are used within their sizes and freed once with their last layout.
        unsafe {
            let a = inspector.alloc(small);
            a.write_bytes(7, 100);
            let b = resize(&inspector, a, small, 5_000);
            assert!(std::slice::from_raw_parts(b, 100).iter().all(|&x| x == 7));
            b.write_bytes(7, 5_000);
            let c = resize(&inspector, b, large, 100);
            assert!(std::slice::from_raw_parts(c, 100).iter().all(|&x| x == 7));
            free(&inspector, c, small);
        }
        assert_eq!(inspector.freed.get(), 3);
    }

    #[test]
    fn a_block_lives_through_the_global_interface() {
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the block is used within its size and freed once with its last layout.
        unsafe {
            let block = ZeroOnFree.alloc_zeroed(layout);
            assert!(
                std::slice::from_raw_parts(block, 64)
                    .iter()
                    .all(|&x| x == 0)
            );
            let block = ZeroOnFree.realloc(block, layout, 128);
            ZeroOnFree.dealloc(block, Layout::from_size_align(128, 8).unwrap());
        }
    }
}
