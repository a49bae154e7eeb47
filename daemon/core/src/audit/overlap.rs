//! Lines that a file repeats from the files before it: an export begins with a whole segment, so the next one holds lines
//! of the last. No I/O.
//!
//! Owns the walk over such lines. Promises that they are accepted only where they are the very lines that were verified: the
//! hash of the last one covers every byte since the file's first line, so one comparison, where the files before ended,
//! judges them all. Does not say which of them differs.

use super::Digest;
use super::verify::Fault;

/// A walk over repeated lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlap {
    /// The first line that is repeated.
    first: u64,
    /// The line before the next one, and its hash as the file has it.
    pub(super) seq: u64,
    pub(super) head: Digest,
}

impl Overlap {
    /// Begins at line `first`, which follows `prev`.
    pub(super) fn at(first: u64, prev: Digest) -> Overlap {
        Overlap {
            first,
            seq: first - 1,
            head: prev,
        }
    }

    /// Takes the next line's hash, which is that of its bytes. True where it is the last that is repeated: the one with
    /// sequence `seq` and hash `head`.
    pub(super) fn step(&mut self, hash: Digest, seq: u64, head: Digest) -> Result<bool, Fault> {
        self.seq += 1;
        self.head = hash;
        match self.seq == seq {
            true if hash != head => Err(Fault::Overlap(self.first)),
            is_last => Ok(is_last),
        }
    }
}
