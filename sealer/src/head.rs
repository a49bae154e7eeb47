//! The head row: what stands for a whole database. No I/O.
//!
//! Owns [`HeadState`]: the head of [`mcpist_quorum`] (incarnation, generation, count, Merkle root) and what
//! this crate binds to it:
//!
//! ```text
//! head[98] | floor u64 | outbox first u64 | outbox next u64 | outbox digest[32] | ledger MAC[32]
//! ```
//! sealed as one record.
//!
//! *Floor*: the highest version of any record that was ever deleted; new records begin above it.
//! *Outbox*: the lines that stand in the file are exactly those of `first..next`, and their rows those of the
//! digest ([`crate::outbox`]), so none can be taken away or replaced. *Ledger MAC*: in the system vault,
//! [`crate::ledger`]; elsewhere zero.
//!
//! The [`Point`] of a head, its generation and SHA-256 over all of that, is what intents name.

use mcpist_quorum::{HEAD_LEN, Head, Incarnation, StorePoint};
use ring::digest::{Context, SHA256};

use crate::codec::{Malformed, Reader};
use crate::ledger::Point;

/// The opened head row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeadState {
    pub(crate) head: Head,
    pub(crate) floor: u64,
    pub(crate) outbox_first: u64,
    pub(crate) outbox_next: u64,
    pub(crate) outbox: [u8; 32],
    pub(crate) ledger: [u8; 32],
}

impl HeadState {
    /// Before the first commit; it is never written.
    pub(crate) fn unwritten(incarnation: Incarnation) -> HeadState {
        HeadState {
            head: Head {
                incarnation,
                generation: 0,
                count: 0,
                root: [0; 32],
            },
            floor: 0,
            outbox_first: 1,
            outbox_next: 1,
            outbox: [0; 32],
            ledger: [0; 32],
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.head.to_bytes();
        for number in [self.floor, self.outbox_first, self.outbox_next] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.outbox);
        out.extend_from_slice(&self.ledger);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<HeadState, Malformed> {
        let (head, rest) = bytes.split_at_checked(HEAD_LEN).ok_or(Malformed)?;
        let mut read = Reader::new(rest);
        let state = HeadState {
            head: Head::from_bytes(head).map_err(|_| Malformed)?,
            floor: read.u64()?,
            outbox_first: read.u64()?,
            outbox_next: read.u64()?,
            outbox: read.array()?,
            ledger: read.array()?,
        };
        read.end()?;
        if state.outbox_first <= state.outbox_next {
            Ok(state)
        } else {
            Err(Malformed)
        }
    }

    pub(crate) fn point(&self) -> Point {
        let mut context = Context::new(&SHA256);
        context.update(b"mcpist-point-v1\0");
        context.update(&self.encode());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Point {
            generation: self.head.generation,
            digest,
        }
    }

    /// What stands for the whole store, where this is the system vault's head: its ledger MAC covers the heads of all
    /// other vaults, as far as their last writes are settled.
    pub(crate) fn store_point(&self) -> StorePoint {
        let Point { generation, digest } = self.point();
        StorePoint {
            incarnation: self.head.incarnation,
            generation,
            digest,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state() -> HeadState {
        let incarnation = Incarnation {
            counter: 1,
            id: [1; 16],
            parent: [0; 16],
        };
        HeadState {
            head: Head {
                incarnation,
                generation: 7,
                count: 3,
                root: [5; 32],
            },
            floor: 2,
            outbox_first: 4,
            outbox_next: 6,
            outbox: [3; 32],
            ledger: [9; 32],
        }
    }

    #[test]
    fn a_head_reads_back_at_its_own_length_only() {
        let bytes = state().encode();
        assert_eq!(HeadState::decode(&bytes).unwrap(), state());
        for len in 0..bytes.len() {
            assert_eq!(HeadState::decode(&bytes[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(
            HeadState::decode(&[bytes.as_slice(), &[0]].concat()),
            Err(Malformed)
        );
        let backwards = HeadState {
            outbox_first: 7,
            ..state()
        };
        assert_eq!(HeadState::decode(&backwards.encode()), Err(Malformed));
    }

    #[test]
    fn every_field_moves_the_point() {
        let mut points = vec![state().point()];
        for other in [
            HeadState {
                floor: 3,
                ..state()
            },
            HeadState {
                outbox_first: 5,
                ..state()
            },
            HeadState {
                outbox_next: 7,
                ..state()
            },
            HeadState {
                outbox: [8; 32],
                ..state()
            },
            HeadState {
                ledger: [8; 32],
                ..state()
            },
            HeadState {
                head: Head {
                    root: [4; 32],
                    ..state().head
                },
                ..state()
            },
        ] {
            let point = other.point();
            assert!(!points.contains(&point));
            points.push(point);
        }
    }
}
