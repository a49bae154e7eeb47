//! Checkpoints: Ed25519 signatures (RFC 8032) over the head of the audit chain. No I/O.
//!
//! Owns: what a checkpoint signs, its 184 bytes and its line.
//! Promises: each checkpoint names the one before and the public key of the one after, so that a
//! chain of them is verified from the first public key alone, and whoever holds the current private
//! key can sign nothing that came before. Every byte of a checkpoint's line follows from what is
//! signed and from its place in the chain.
//! Does not: make, keep or erase private keys. That a used key is erased is the daemon's promise.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Deserialize;
use thiserror::Error;

use super::line::{Fields, UnixMs};
use crate::ids::Digest;

/// Length of [`Checkpoint::to_bytes`].
pub const CHECKPOINT_LEN: usize = 184;
const DOMAIN: &[u8] = b"mcpist-audit-checkpoint-v1\0";
const SIGNED_LEN: usize = CHECKPOINT_LEN - 64;

/// An Ed25519 public key of the audit log.
pub type AuditKey = [u8; 32];

/// What a checkpoint says, before it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Number of this checkpoint, from 1.
    pub number: u64,
    /// Lines that it covers: the sequence of the last of them.
    pub count: u64,
    /// Hash of that line.
    pub head: Digest,
    /// Digest of the checkpoint before, or of the genesis for the first.
    pub previous: Digest,
    /// Public key that signs the next one.
    pub next_key: AuditKey,
    /// When it was signed.
    pub time: UnixMs,
}

impl Statement {
    fn signed_bytes(&self) -> [u8; SIGNED_LEN] {
        let mut out = [0; SIGNED_LEN];
        out[..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..16].copy_from_slice(&self.count.to_be_bytes());
        out[16..48].copy_from_slice(self.head.as_bytes());
        out[48..80].copy_from_slice(self.previous.as_bytes());
        out[80..112].copy_from_slice(&self.next_key);
        out[112..].copy_from_slice(&self.time.0.to_be_bytes());
        out
    }

    /// Signs the statement. `key` must belong to the `next_key` of the checkpoint before.
    pub fn sign(self, key: &Ed25519KeyPair) -> Checkpoint {
        let message = [DOMAIN, &self.signed_bytes()].concat();
        let mut signature = [0; 64];
        signature.copy_from_slice(key.sign(&message).as_ref());
        Checkpoint {
            statement: self,
            signature,
        }
    }
}

/// The public half of a key pair, as checkpoints name it.
pub fn public_key(pair: &Ed25519KeyPair) -> AuditKey {
    let mut out = [0; 32];
    out.copy_from_slice(pair.public_key().as_ref());
    out
}

/// A signed statement. That it exists does not say that the signature holds:
/// [`Checkpoint::is_signed_by`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    statement: Statement,
    signature: [u8; 64],
}

/// Bytes that are no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{length} bytes are no checkpoint: {CHECKPOINT_LEN} are")]
pub struct CheckpointError {
    length: usize,
}

impl Checkpoint {
    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Whether `key` made the signature.
    pub fn is_signed_by(&self, key: &AuditKey) -> bool {
        let message = [DOMAIN, &self.statement.signed_bytes()].concat();
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, &self.signature)
            .is_ok()
    }

    /// SHA-256 of [`Checkpoint::to_bytes`]: the next one's `previous`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// `number u64 | count u64 | head 32 | previous 32 | next key 32 | time ms u64 | signature 64`,
    /// numbers big-endian.
    pub fn to_bytes(&self) -> [u8; CHECKPOINT_LEN] {
        let mut out = [0; CHECKPOINT_LEN];
        out[..SIGNED_LEN].copy_from_slice(&self.statement.signed_bytes());
        out[SIGNED_LEN..].copy_from_slice(&self.signature);
        out
    }

    /// Reads [`Checkpoint::to_bytes`] back.
    ///
    /// # Errors
    /// Another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let bytes: &[u8; CHECKPOINT_LEN] = bytes.try_into().map_err(|_| CheckpointError {
            length: bytes.len(),
        })?;
        let number = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(out)
        };
        let array = |at: usize| {
            let mut out = [0; 32];
            out.copy_from_slice(&bytes[at..at + 32]);
            out
        };
        let mut signature = [0; 64];
        signature.copy_from_slice(&bytes[SIGNED_LEN..]);
        let statement = Statement {
            number: number(0),
            count: number(8),
            head: Digest::from_bytes(array(16)),
            previous: Digest::from_bytes(array(48)),
            next_key: array(80),
            time: UnixMs(number(112)),
        };
        Ok(Checkpoint {
            statement,
            signature,
        })
    }

    /// Writes the line's own fields. The signed time is there as milliseconds: the line's `time` is
    /// the same one for people.
    pub(super) fn write(&self, line: &mut Fields<'_>) {
        line.text("event", "checkpoint")
            .number("number", self.statement.number)
            .number("count", self.statement.count)
            .digest("head", &self.statement.head)
            .digest("previous", &self.statement.previous)
            .hex("next_key", &self.statement.next_key)
            .number("time_ms", self.statement.time.0)
            .hex("signature", &self.signature);
    }

    /// Reads a checkpoint out of a line. What the line says besides is not looked at: the verifier
    /// writes the line again and compares.
    pub(super) fn from_line(line: &[u8]) -> Option<Checkpoint> {
        #[derive(Deserialize)]
        struct Line<'a> {
            number: u64,
            count: u64,
            head: &'a str,
            previous: &'a str,
            next_key: &'a str,
            time_ms: u64,
            signature: &'a str,
        }
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let mut signature = [0; 64];
        hex::decode_to_slice(line.signature, &mut signature).ok()?;
        let statement = Statement {
            number: line.number,
            count: line.count,
            head: Digest::parse(line.head).ok()?,
            previous: Digest::parse(line.previous).ok()?,
            next_key: *Digest::parse(line.next_key).ok()?.as_bytes(),
            time: UnixMs(line.time_ms),
        };
        Some(Checkpoint {
            statement,
            signature,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Ed25519 is deterministic (RFC 8032 §5.1.6), so that the signature is a vector too.
    const SIGNATURE: &str = "db84009007200913af568eea593ed47bd010ea37003cdfae6a6e5f2c9e6e5e13\
        b49fef6ec54d4dd3009304b36aac407381f3577100a2d5dd7f43d96be1583c05";

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn statement() -> Statement {
        Statement {
            number: 7,
            count: 256,
            head: Digest::of(b"head"),
            previous: Digest::of(b"previous"),
            next_key: public_key(&pair(2)),
            time: UnixMs(1_700_000_000_123),
        }
    }

    #[test]
    fn reads_back_and_verifies_under_its_key_alone() {
        let checkpoint = statement().sign(&pair(1));
        let read = Checkpoint::from_bytes(&checkpoint.to_bytes()).unwrap();
        assert_eq!(read, checkpoint);
        assert!(read.is_signed_by(&public_key(&pair(1))));
        assert!(!read.is_signed_by(&public_key(&pair(2))));
    }

    #[test]
    fn the_bytes_are_these() {
        let hex = hex::encode(statement().sign(&pair(1)).to_bytes());
        assert_eq!(&hex[..32], "00000000000000070000000000000100");
        assert_eq!(&hex[32..96], Digest::of(b"head").to_string());
        assert_eq!(&hex[96..160], Digest::of(b"previous").to_string());
        assert_eq!(&hex[160..224], hex::encode(public_key(&pair(2))));
        assert_eq!(&hex[224..240], "0000018bcfe5687b");
        assert_eq!(&hex[240..], SIGNATURE);
    }

    #[test]
    fn another_length_is_refused() {
        let bytes = statement().sign(&pair(1)).to_bytes();
        assert!(Checkpoint::from_bytes(&bytes[1..]).is_err());
        assert!(Checkpoint::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn every_bit_is_signed() {
        let bytes = statement().sign(&pair(1)).to_bytes();
        for at in 0..CHECKPOINT_LEN {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            let read = Checkpoint::from_bytes(&flipped).unwrap();
            assert!(!read.is_signed_by(&public_key(&pair(1))), "byte {at}");
        }
    }
}
