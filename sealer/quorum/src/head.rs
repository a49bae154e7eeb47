//! No I/O. The head of a vault: one small value that stands for all of its records.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpvhead" | version u16 = 1 | counter u64 | incarnation [16] | parent [16] | generation u64 |
//! count u64 | root [32]
//! ```
//! The sealer seals these bytes under the head key in the transaction of each write, and control.db
//! keeps the digest of the next head first. Promises: one encoding, a digest over it. Does not:
//! compute the root ([`crate::Buckets`] does) or decide which head is current.

use mcpist_secret::{MemoryError, random_bytes};

use crate::codec::{Format, FormatError, Reader, Writer, digest};

const FORMAT: Format = Format {
    name: "vault head",
    magic: *b"mcpvhead",
    version: 1,
};

/// Length of a head's canonical bytes.
pub const HEAD_LEN: usize = 8 + 2 + 8 + 16 + 16 + 8 + 8 + 32;

/// Restores by which a store is believed to be ahead of itself. Who claims more would use up the lives that can be counted.
const FARTHEST: u64 = 1 << 32;

/// Why a store gets no further life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifeError {
    /// There is none after it.
    #[error("life {0} is the last that can be counted: restore another backup")]
    Last(u64),
    /// No randomness or secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Which life of a store a head belongs to: a restore begins a new one, so that generations of two
/// branches are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// 1 at init, and more with every restore.
    pub counter: u64,
    /// Random.
    pub id: [u8; 16],
    /// The id of the life that it was restored from, or zeros.
    pub parent: [u8; 16],
}

impl Incarnation {
    /// The life that init begins.
    pub fn first() -> Result<Incarnation, MemoryError> {
        Ok(Incarnation {
            counter: 1,
            id: random_bytes()?,
            parent: [0; 16],
        })
    }

    /// The life that a restore begins: above its parent's and above those of `others`, which are known of the same store,
    /// so that no receipt of theirs is held against it. One that is not [`believed`] does not count.
    ///
    /// # Errors
    /// [`LifeError`].
    pub fn after(parent: &Incarnation, others: &[u64]) -> Result<Incarnation, LifeError> {
        let (mut others, above) = (others.to_vec(), |life: u64| {
            life.checked_add(1).ok_or(LifeError::Last(life))
        });
        others.sort_unstable();
        let mut counter = above(parent.counter)?;
        for other in others {
            if other >= counter && believed(other, counter) {
                counter = above(other)?;
            }
        }
        Ok(Incarnation {
            counter,
            id: random_bytes()?,
            parent: parent.id,
        })
    }
}

/// Whether the store whose life is `own` may have had a life `other`, also on another disk.
pub(crate) fn believed(other: u64, own: u64) -> bool {
    other.saturating_sub(own) < FARTHEST
}

/// What a vault holds, in one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which life of the store.
    pub incarnation: Incarnation,
    /// One more with every committed batch.
    pub generation: u64,
    /// How many records there are.
    pub count: u64,
    /// The Merkle root over the buckets.
    pub root: [u8; 32],
}

impl Head {
    /// The canonical bytes (see the module for the layout), [`HEAD_LEN`] of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::new(&FORMAT)
            .u64(self.incarnation.counter)
            .raw(&self.incarnation.id)
            .raw(&self.incarnation.parent)
            .u64(self.generation)
            .u64(self.count)
            .raw(&self.root)
            .finish()
    }

    /// Reads canonical bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Head, FormatError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let head = Head {
            incarnation: Incarnation {
                counter: reader.u64("counter")?,
                id: reader.raw("incarnation")?,
                parent: reader.raw("parent")?,
            },
            generation: reader.u64("generation")?,
            count: reader.u64("count")?,
            root: reader.raw("root")?,
        };
        reader.finish()?;
        Ok(head)
    }

    /// SHA-256("mcpist-head-v1" ‖ 0 ‖ canonical bytes): what an intent names.
    pub fn digest(&self) -> [u8; 32] {
        digest("mcpist-head-v1", &[&self.to_bytes()])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vectors::{HEAD_DIGEST_HEX, HEAD_HEX};
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            incarnation: Incarnation {
                counter: 2,
                id: [1; 16],
                parent: [2; 16],
            },
            generation: 3,
            count: 4,
            root: [5; 32],
        }
    }

    #[test]
    fn the_example_in_hex_reads_back() {
        assert_eq!(hex::encode(head().to_bytes()), HEAD_HEX);
        assert_eq!(head().to_bytes().len(), HEAD_LEN);
        assert_eq!(
            Head::from_bytes(&hex::decode(HEAD_HEX).unwrap()).unwrap(),
            head()
        );
        assert_eq!(hex::encode(head().digest()), HEAD_DIGEST_HEX);
    }

    #[test]
    fn a_restore_begins_a_life_of_its_own() {
        let first = Incarnation::first().unwrap();
        let second = Incarnation::after(&first, &[]).unwrap();
        assert_eq!((second.counter, second.parent), (2, first.id));
        assert_ne!(second.id, first.id);
    }

    fn after(parent: u64, others: &[u64]) -> Result<u64, LifeError> {
        let parent = Incarnation {
            counter: parent,
            ..head().incarnation
        };
        Incarnation::after(&parent, others).map(|life| life.counter)
    }

    #[test]
    fn a_restore_is_above_every_life_that_is_known() {
        assert_eq!(after(1, &[2]), Ok(3));
        assert_eq!(after(1, &[7, 1, 2, 7]), Ok(8));
        assert_eq!(after(9, &[2, 8]), Ok(10));
    }

    #[test]
    fn a_life_that_no_restore_came_to_uses_none_up() {
        assert_eq!(after(1, &[u64::MAX, 1 + FARTHEST + 1]), Ok(2));
        assert_eq!(after(1, &[1 + FARTHEST]), Ok(2 + FARTHEST));
        // Each by itself would be too far, but there is one between.
        assert_eq!(after(1, &[FARTHEST + 9, 9]), Ok(FARTHEST + 10));
        assert_eq!(after(u64::MAX, &[]), Err(LifeError::Last(u64::MAX)));
        assert_eq!(
            after(u64::MAX - 1, &[u64::MAX]),
            Err(LifeError::Last(u64::MAX))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_other_bytes_are_a_head(at in 0..HEAD_LEN, bit in 0..8_u8) {
            let mut bytes = head().to_bytes();
            bytes[at] ^= 1 << bit;
            match Head::from_bytes(&bytes) {
                Ok(other) => prop_assert!(other != head() && other.digest() != head().digest()),
                Err(FormatError::Magic { .. } | FormatError::Version { .. }) => prop_assert!(at < 10),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Head::from_bytes(&bytes).is_err());
        }
    }
}
