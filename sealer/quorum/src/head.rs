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

/// Which life of a store a head belongs to: a restore begins a new one, so that generations of two
/// branches are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// 1 at init, one more with every restore.
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

    /// The life that a restore begins.
    pub fn after(parent: &Incarnation) -> Result<Incarnation, MemoryError> {
        Ok(Incarnation {
            counter: parent.counter.saturating_add(1),
            id: random_bytes()?,
            parent: parent.id,
        })
    }
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
        let second = Incarnation::after(&first).unwrap();
        assert_eq!((second.counter, second.parent), (2, first.id));
        assert_ne!(second.id, first.id);
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
