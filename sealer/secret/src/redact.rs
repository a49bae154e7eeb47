//! Redaction: known secrets are found in a body by fingerprint and replaced. No I/O, no clock.
//!
//! Owns: fingerprints, the search and the replacement. Promises: a fingerprinted secret does not
//! pass in any of its forms (raw, raw with `+` for spaces, hexadecimal in both cases, base64 in
//! three alignments and both alphabets), in any of three views of the body (as sent,
//! percent-decoded, JSON-unescaped). A body without one comes out as it went in, in the same
//! allocation. Time is bounded by the length of the body, whatever is in it.
//!
//! Does not promise: forms that are not listed (other encodings, two layers of escapes,
//! compressed or encrypted bodies), parts of a secret, or an escaped secret right behind half an
//! escape, which read in order is another text.
//!
//! # What a fingerprint gives away
//! The redactor holds no value. For each form it holds {length, offset of an 8-byte anchor, hashes
//! of the anchor's two windows of 7 bytes, MAC of the form} under a random key, and for each secret
//! which of seven kinds of bytes (letters, slash, quote, …) its forms are made of. Without the key
//! this tells lengths and kinds and nothing else. Who has the key too can recover what the anchors
//! cover (all anchors of a secret lie over the same 8 of its bytes) and can test guesses of the
//! rest: a long random token stays secret, a short or guessable one does not. So a key serves one
//! link or one process, and a holder of both is trusted as far as the runner is.
//!
//! # How the search stays fast
//! A window rolls over the body; its hash probes a bitmap, and only a marked window is looked up,
//! MACed and compared in constant time. An anchor's two windows lie side by side, so every second
//! window is enough. In the decoded views only windows that hold an escape are new, so only these
//! are hashed again, and none where the escape stands for a byte that no form can hold. A hostile
//! body can be full of anchors: verification has a budget per body byte, and past it a marked
//! window is replaced unverified.

mod fingerprint;
mod scan;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroize;

use self::scan::Scan;
use self::table::Table;

pub use self::fingerprint::{Fingerprint, FingerprintError, MIN_SECRET, RedactKey, TooShort};

/// What stands where a secret stood.
pub const MARKER: &[u8] = b"[redacted]";

/// A body without secrets.
#[derive(PartialEq, Eq)]
pub struct Redacted {
    /// The body; where nothing was hit, the very allocation that was given.
    pub bytes: Vec<u8>,
    /// How many places were replaced; overlapping secrets are one place.
    pub hits: u32,
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Redacted({} bytes, {} hits)",
            self.bytes.len(),
            self.hits
        )
    }
}

/// An immutable set of fingerprints, ready to search with. Another set is another redactor;
/// building one costs a sort.
pub struct Redactor {
    table: Table,
}

impl Redactor {
    /// A redactor for fingerprints that were all made under `key`; under another they never hit.
    pub fn new<'f>(
        key: Arc<RedactKey>,
        fingerprints: impl IntoIterator<Item = &'f Fingerprint>,
    ) -> Redactor {
        Redactor {
            table: Table::new(key, fingerprints),
        }
    }

    /// Replaces every secret in a whole body. The given allocation comes back when nothing is hit
    /// and is wiped when something is.
    pub fn redact(&self, mut body: Vec<u8>) -> Redacted {
        match self.redact_slice(&body) {
            None => Redacted {
                bytes: body,
                hits: 0,
            },
            Some(redacted) => {
                body.zeroize();
                redacted
            }
        }
    }

    /// As [`Redactor::redact`] for a borrowed body; `None` when nothing is hit.
    pub fn redact_slice(&self, body: &[u8]) -> Option<Redacted> {
        let mut scan = Scan::new(&self.table);
        scan.run(body);
        let found = scan.found();
        (!found.is_empty()).then(|| replace(body, found))
    }
}

/// Copies a body and puts the marker where ranges of it were found.
fn replace(body: &[u8], found: &mut [Range<usize>]) -> Redacted {
    found.sort_unstable_by_key(|range| range.start);
    let mut bytes = Vec::with_capacity(body.len());
    // What comes before `covered` is copied or replaced. A flood's range may end behind the body.
    let (mut covered, mut hits) = (0, 0u32);
    for range in found {
        if range.start >= covered {
            bytes.extend_from_slice(body.get(covered..range.start).unwrap_or_default());
            bytes.extend_from_slice(MARKER);
            hits = hits.saturating_add(1);
        }
        covered = covered.max(range.end);
    }
    bytes.extend_from_slice(body.get(covered..).unwrap_or_default());
    Redacted { bytes, hits }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.table.forms())
    }
}
