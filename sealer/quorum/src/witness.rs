//! No I/O. Witness receipts: what a store says of itself, signed, for people to keep outside of it.
//!
//! Owns: [`Receipt`], its bytes and its text, and [`judge`], which says whether a store may go on in the face of the
//! receipts that were presented to it; [`judge_counter`], the same for a counter that only rises.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpwitns" | version u16 = 1 | store [16] | counter u64 | incarnation [16] | parent [16] | generation u64 |
//! point [32] | audit sequence u64 | audit head [32] | time u64 | store key [32] | signature [64]
//! signature = Ed25519("mcpist-witness-v1" ‖ 0 ‖ all bytes before it)
//! ```
//! As text, one line: `mcpist-witness1:` and the bytes in hexadecimal.
//!
//! # Threat model
//! The adversary puts back the whole disk of a sealed store, everything on it consistent, and waits for a quorum to
//! open it. Whoever kept a receipt of a later state has the proof that the one on the disk is not the last. Promises: a
//! [`Receipt`] that exists is signed by the key that it names; a store that is older than a receipt of its own, or that
//! went another way from the same generation, or that is not the newest life that a receipt knows, is refused, and no
//! receipt that the store's own key did not sign refuses anything. What fences a store is answered by a restore that was
//! shown it: [`Incarnation::after`] is above each life that [`judge`] would hold against the new one, so that no quorum of
//! old can shut the store for good.
//!
//! Does not: know what came after the newest receipt (nobody can prove that), or which store key is the right one: the
//! store has it sealed, the ceremony record has it on paper. A store that was put back, opened where nobody presented a
//! receipt, and then written past the receipt's generation, is not found by it; the log is, since the receipt names its
//! head.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::codec::{Format, FormatError, Reader, Writer};
use crate::head::{Incarnation, believed};
use crate::ids::StoreId;

const FORMAT: Format = Format {
    name: "witness receipt",
    magic: *b"mcpwitns",
    version: 1,
};
const DOMAIN: &[u8] = b"mcpist-witness-v1\0";
const PREFIX: &str = "mcpist-witness1:";
const SIGNATURE_LEN: usize = 64;

/// Length of a receipt's canonical bytes.
pub const RECEIPT_LEN: usize = 8 + 2 + 16 + 40 + 8 + 32 + 8 + 32 + 8 + 32 + SIGNATURE_LEN;
/// Length of a receipt's text, without a line end.
pub const RECEIPT_TEXT_LEN: usize = PREFIX.len() + 2 * RECEIPT_LEN;

/// Text or bytes that are no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The text has another form.
    #[error(
        "this is no witness receipt: one line of {PREFIX} and {} hexadecimal digits is", 2 * RECEIPT_LEN
    )]
    Text,
    /// The bytes are not of the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The signature is not by the key that the receipt names.
    #[error(
        "this witness receipt was damaged or forged: its signature is not by the key that it names"
    )]
    Signature,
}

/// A state of a store: which life of it, and which commit of the system vault, whose head covers all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePoint {
    /// Which life.
    pub incarnation: Incarnation,
    /// The system vault's generation: one more with every commit.
    pub generation: u64,
    /// Digest of the system vault's head and of all that the sealer binds to it.
    pub digest: [u8; 32],
}

/// Where the audit log stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPoint {
    /// The sequence of its last line.
    pub sequence: u64,
    /// That line's hash.
    pub head: [u8; 32],
}

/// A state of a store, signed by the store's own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    store: StoreId,
    at: StorePoint,
    log: LogPoint,
    time: u64,
    key: [u8; 32],
    signature: [u8; SIGNATURE_LEN],
}

impl Receipt {
    /// Signs where the store is. `time` is in seconds since 1970.
    pub fn sign(
        store: StoreId,
        at: StorePoint,
        log: LogPoint,
        time: u64,
        pair: &Ed25519KeyPair,
    ) -> Receipt {
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        let mut receipt = Receipt {
            store,
            at,
            log,
            time,
            key,
            signature: [0; SIGNATURE_LEN],
        };
        let signature = pair.sign(&receipt.signed());
        receipt.signature.copy_from_slice(signature.as_ref());
        receipt
    }

    fn body(&self) -> Vec<u8> {
        let life = &self.at.incarnation;
        Writer::new(&FORMAT)
            .raw(self.store.as_bytes())
            .u64(life.counter)
            .raw(&life.id)
            .raw(&life.parent)
            .u64(self.at.generation)
            .raw(&self.at.digest)
            .u64(self.log.sequence)
            .raw(&self.log.head)
            .u64(self.time)
            .raw(&self.key)
            .finish()
    }

    fn signed(&self) -> Vec<u8> {
        [DOMAIN, &self.body()].concat()
    }

    /// The canonical bytes (see the module for the layout), [`RECEIPT_LEN`] of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.body().as_slice(), &self.signature].concat()
    }

    /// Reads canonical bytes and checks the signature.
    ///
    /// # Errors
    /// [`ReceiptError`], but for [`ReceiptError::Text`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let receipt = Receipt {
            store: StoreId::from_bytes(reader.raw("store")?),
            at: StorePoint {
                incarnation: Incarnation {
                    counter: reader.u64("counter")?,
                    id: reader.raw("incarnation")?,
                    parent: reader.raw("parent")?,
                },
                generation: reader.u64("generation")?,
                digest: reader.raw("point")?,
            },
            log: LogPoint {
                sequence: reader.u64("audit sequence")?,
                head: reader.raw("audit head")?,
            },
            time: reader.u64("time")?,
            key: reader.raw("store key")?,
            signature: reader.raw("signature")?,
        };
        reader.finish()?;
        UnparsedPublicKey::new(&ED25519, &receipt.key)
            .verify(&receipt.signed(), &receipt.signature)
            .map_err(|_| ReceiptError::Signature)?;
        Ok(receipt)
    }

    /// One line, without its end.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", hex::encode(self.to_bytes()))
    }

    /// Reads the text; space around it is ignored.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn parse(text: &str) -> Result<Receipt, ReceiptError> {
        let text = text.trim_ascii();
        if text.len() != RECEIPT_TEXT_LEN {
            return Err(ReceiptError::Text);
        }
        let digits = text.strip_prefix(PREFIX).ok_or(ReceiptError::Text)?;
        let bytes = hex::decode(digits).map_err(|_| ReceiptError::Text)?;
        Receipt::from_bytes(&bytes)
    }

    /// The store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Where it was.
    pub fn at(&self) -> &StorePoint {
        &self.at
    }

    /// Where its audit log was.
    pub fn log(&self) -> &LogPoint {
        &self.log
    }

    /// When, by the host's clock, in seconds since 1970.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The public key that signed it.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Whether it is of a later state than `other`, both taken to be of the same store.
    pub fn is_newer_than(&self, other: &Receipt) -> bool {
        let order = |r: &Receipt| (r.at.incarnation.counter, r.at.generation, r.time);
        order(self) > order(other)
    }
}

/// What a receipt shows that the store does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contradiction {
    /// The store was at the receipt's generation in another state: it went two ways.
    Forked,
    /// The store was at a later generation: the one on the disk was put back.
    RolledBack,
    /// There is another life of the store that is no older: it was restored elsewhere, and this one is over.
    Fenced,
}

/// Why a receipt says nothing about this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It is of another store.
    OtherStore,
    /// It names this store and is signed by another key, or shows a life that no restore can have come to.
    Forged,
    /// It is of a life that a restore of this store has ended.
    EarlierLife,
}

impl Ignored {
    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Ignored::OtherStore => "other_store",
            Ignored::Forged => "forged",
            Ignored::EarlierLife => "earlier_life",
        }
    }
}

/// What the presented receipts are for a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// The gravest contradiction and the newest receipt that shows it. Where there is one, the store must not open.
    pub refused: Option<(Contradiction, &'a Receipt)>,
    /// The newest of the receipts that the store agrees with.
    pub newest: Option<&'a Receipt>,
    /// The receipts that say nothing, in the order in which they were given.
    pub ignored: Vec<(Ignored, &'a Receipt)>,
}

/// Judges the store `store`, whose key is `key` and which is at `at`, by the receipts that were presented.
pub fn judge<'a>(
    store: StoreId,
    key: &[u8; 32],
    at: &StorePoint,
    receipts: impl IntoIterator<Item = &'a Receipt>,
) -> Judgement<'a> {
    let mut judgement = Judgement {
        refused: None,
        newest: None,
        ignored: Vec::new(),
    };
    for receipt in receipts {
        match weigh(store, key, at, receipt) {
            Err(ignored) => judgement.ignored.push((ignored, receipt)),
            Ok(None) => {
                if judgement
                    .newest
                    .is_none_or(|held| receipt.is_newer_than(held))
                {
                    judgement.newest = Some(receipt);
                }
            }
            Ok(Some(found)) => {
                let graver = |(held, by): &(Contradiction, &Receipt)| {
                    found > *held || (found == *held && receipt.is_newer_than(by))
                };
                if judgement.refused.as_ref().is_none_or(graver) {
                    judgement.refused = Some((found, receipt));
                }
            }
        }
    }
    judgement
}

/// What one receipt is for the store.
fn weigh(
    store: StoreId,
    key: &[u8; 32],
    at: &StorePoint,
    receipt: &Receipt,
) -> Result<Option<Contradiction>, Ignored> {
    if receipt.store != store {
        return Err(Ignored::OtherStore);
    }
    if receipt.key != *key {
        return Err(Ignored::Forged);
    }
    let shown = &receipt.at;
    if shown.incarnation != at.incarnation {
        let (shown, own) = (shown.incarnation.counter, at.incarnation.counter);
        return if shown < own {
            Err(Ignored::EarlierLife)
        } else if !believed(shown, own) {
            Err(Ignored::Forged)
        } else {
            Ok(Some(Contradiction::Fenced))
        };
    }
    Ok(match shown.generation.cmp(&at.generation) {
        std::cmp::Ordering::Greater => Some(Contradiction::RolledBack),
        std::cmp::Ordering::Equal if shown.digest != at.digest => Some(Contradiction::Forked),
        _ => None,
    })
}

/// How a store's record of a counter stands to the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterVerdict {
    /// They agree.
    Current,
    /// The record was written and the counter not raised after it: a crash came between the two. It is to be raised.
    Behind,
    /// The counter was raised since: the store was put back.
    RolledBack,
    /// The counter is lower than it ever was for this store: it is another one, or was cleared.
    OtherCounter,
}

/// Judges a store that recorded `recorded` by a counter that stands at `found`. The record is written before the counter
/// is raised to it, so that there is no moment in which an older store passes.
pub fn judge_counter(recorded: u64, found: u64) -> CounterVerdict {
    if recorded == found {
        CounterVerdict::Current
    } else if found.checked_add(1) == Some(recorded) {
        CounterVerdict::Behind
    } else if recorded < found {
        CounterVerdict::RolledBack
    } else {
        CounterVerdict::OtherCounter
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
