//! The audit log: its lines, the chain through them, checkpoints and the verifier. No I/O.
//!
//! Owns: the bytes of the log. A line is one JSON object whose first field is its sequence and whose
//! last is its hash:
//!
//! ```text
//! {"seq":7,"time":"2026-11-24T04:00:00.000Z","event":"call_intent",…,"hash":"<64 hex>"}
//! hash = SHA-256(hash of the line before || the line's bytes up to `,"hash"`)
//! ```
//!
//! The first line follows the genesis, SHA-256("mcpist-audit-v1\0" ‖ first public key), so a chain
//! belongs to one key from its first byte. A segment (file) begins with a `segment` line that says
//! where the chain stands and which outbox rows are in the log already. A checkpoint signs the head of the lines that are on disk and names the
//! key of the next one ([`Checkpoint`]).
//!
//! Promises: a changed, missing, moved or added byte in a covered line is found, and the first line
//! where the log is wrong is named ([`Verifier`]). Lines after the last checkpoint are only chained:
//! whoever can write the file can replace that tail, and the verifier says how long it is.
//! Does not: write files, sync, take the time, or hold private keys. What is recorded at all is
//! decided in [`crate::event`].

mod checkpoint;
mod line;
mod overlap;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

pub use checkpoint::{
    AuditKey, CHECKPOINT_LEN, Checkpoint, CheckpointError, Statement, public_key,
};
pub use line::{Fields, MAX_TEXT, UnixMs, place};
pub use verify::{Fault, Problem, Report, Verifier, hashed};

use crate::event::Event;
use crate::ids::{Digest, VaultName};
use crate::scan::{Limits, scan};

/// Longest line in bytes, its line break not counted.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest [`Body`] in bytes: a line with the longest frame stays under [`MAX_LINE`].
pub const MAX_BODY: usize = MAX_LINE - 1_024;
const FORMAT: u64 = 1;
const HASH_FIELD: &[u8] = b",\"hash\":\"";
const HASH_LEN: usize = HASH_FIELD.len() + 64 + 2;

/// The place of a line in the log, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a chain stands: enough to append to it or to verify what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Sequence of the last line; 0 before the first.
    pub seq: u64,
    /// Hash of the last line, or the genesis.
    pub head: Digest,
    /// Number of the last checkpoint in the log; 0 before the first.
    pub checkpoint: u64,
    /// Lines that it covers.
    pub covered: u64,
    /// Its digest, or the genesis.
    pub checkpoint_digest: Digest,
    /// Public key that signs the next checkpoint.
    pub key: AuditKey,
    /// Lines from the first one on that are in exports.
    pub exported: u64,
    /// Lines up to the last one in an export that a second auditor has confirmed. That none between is missing was judged
    /// when it was.
    pub confirmed: u64,
}

impl Anchor {
    /// The beginning of the log whose first checkpoint `first_key` signs.
    pub fn genesis(first_key: AuditKey) -> Anchor {
        let genesis = Digest::of_parts(&[b"mcpist-audit-v1\0", &first_key]);
        Anchor {
            seq: 0,
            head: genesis,
            checkpoint: 0,
            covered: 0,
            checkpoint_digest: genesis,
            key: first_key,
            exported: 0,
            confirmed: 0,
        }
    }

    /// The digest of all that the anchor says: who has noted it down can verify from here on without the lines before
    /// ([`Verifier::from_point`]).
    pub fn point(&self) -> Digest {
        let confirmed = self.confirmed.to_be_bytes();
        Digest::of_parts(&[
            b"mcpist-audit-point-v1\0",
            &self.seq.to_be_bytes(),
            self.head.as_bytes(),
            &self.checkpoint.to_be_bytes(),
            &self.covered.to_be_bytes(),
            self.checkpoint_digest.as_bytes(),
            &self.key,
            &self.exported.to_be_bytes(),
            // As in the segment line: where there is none it says nothing.
            &confirmed[..if self.confirmed > 0 { 8 } else { 0 }],
        ])
    }

    /// Lines `first` to `through` are in an export. One that leaves a gap counts for nothing.
    fn export(&mut self, first: u64, through: u64) {
        if first <= self.exported + 1 && through <= self.seq {
            self.exported = self.exported.max(through);
        }
    }

    /// Somebody else has the export that ends with line `through`.
    fn confirm(&mut self, through: u64) {
        if through <= self.seq {
            self.confirmed = self.confirmed.max(through);
        }
    }

    fn pass(&mut self, checkpoint: &Checkpoint) {
        self.checkpoint = checkpoint.statement().number;
        self.covered = checkpoint.statement().count;
        self.checkpoint_digest = checkpoint.digest();
        self.key = checkpoint.statement().next_key;
    }

    /// Writes the fields of the `segment` line that follows this anchor.
    fn write(&self, number: u64, copied: &Copied, line: &mut Fields<'_>) {
        line.text("event", "segment")
            .number("format", FORMAT)
            .number("segment", number)
            .digest("prev", &self.head)
            .number("checkpoint", self.checkpoint)
            .number("covered", self.covered)
            .digest("checkpoint_digest", &self.checkpoint_digest)
            .hex("key", &self.key);
        if self.exported > 0 {
            line.number("exported", self.exported);
        }
        if self.confirmed > 0 {
            line.number("confirmed", self.confirmed);
        }
        if !copied.is_empty() {
            line.list("copied", copied, |(vault, row), item| {
                item.text("vault", vault).number("row", *row);
            });
        }
    }
}

/// For each vault, the last outbox row that is in the log.
pub type Copied = BTreeMap<String, u64>;

/// The outbox rows that a log names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logged {
    /// For each vault, the last one.
    pub last: Copied,
    /// For each vault, the last one whose line a checkpoint covers.
    pub signed: Copied,
    /// Those after that, in the order of their lines: whoever can write the file can have written them.
    pub unsigned: Vec<UnsignedRow>,
}

/// An outbox row in a line that no checkpoint covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedRow {
    /// The vault that it came from.
    pub vault: String,
    /// Its sequence there.
    pub row: u64,
    /// SHA-256 of its [`Body`]'s bytes, as the line has them.
    pub body: Digest,
}

/// Events that the log alone writes: none of them is an outbox row.
const OF_THE_CHAIN: [&str; 5] = [
    "checkpoint",
    "segment",
    "recovered",
    "audit_exported",
    "export_confirmed",
];

/// An event that is written already but has no place in the log yet: the outbox row of a store
/// change. The bytes are a JSON object whose first field is `event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Vec<u8>);

/// Bytes that are no outbox row of this log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an outbox row is not an audit event of this format: verify the vault it came from")]
pub struct BodyError;

impl Body {
    /// Writes `event`, which happened at `at`.
    pub fn new(event: &Event<'_>, at: UnixMs) -> Body {
        let mut out = Vec::with_capacity(256);
        let mut fields = Fields::open(&mut out);
        event.write(&mut fields);
        fields.time("at", at);
        fields.close();
        Body(out)
    }

    /// Reads the bytes of [`Body::as_bytes`] back.
    ///
    /// # Errors
    /// Anything that [`Body::new`] cannot have written.
    pub fn parse(bytes: &[u8]) -> Result<Body, BodyError> {
        let framed = bytes.starts_with(b"{\"event\":\"") && bytes.ends_with(b"}");
        let one_line = bytes.iter().all(|b| *b >= 0x20);
        let of_the_chain = OF_THE_CHAIN
            .iter()
            .any(|name| bytes[bytes.len().min(10)..].starts_with(name.as_bytes()));
        if framed && one_line && !of_the_chain && scan(bytes, &Limits::bytes(MAX_BODY)).is_ok() {
            Ok(Body(bytes.to_vec()))
        } else {
            Err(BodyError)
        }
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The writing end of the log. It is one value in one place: two chains from one anchor fork the log.
#[derive(Debug)]
pub struct Chain {
    anchor: Anchor,
}

impl Chain {
    /// Goes on from `anchor`: [`Anchor::genesis`], or what a [`Verifier`] reports.
    pub fn new(anchor: Anchor) -> Chain {
        Chain { anchor }
    }

    /// Where the chain stands after its last line.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Appends the line of `event`, with its line break, to `out`. One pass, no allocation but what
    /// `out` needs to grow.
    pub fn append(&mut self, time: UnixMs, event: &Event<'_>, out: &mut Vec<u8>) -> Seq {
        match *event {
            Event::AuditExported { first, through, .. } => self.anchor.export(first, through),
            Event::ExportConfirmed { through, .. } => self.anchor.confirm(through),
            _ => {}
        }
        self.line(time, out, |line| event.write(line))
    }

    /// Appends the line of an outbox row, with the vault and the row that it came from, so that one
    /// that was copied already is known after a crash ([`Report::outbox`]).
    pub fn append_outbox(
        &mut self,
        time: UnixMs,
        vault: &VaultName,
        row: u64,
        body: &Body,
        out: &mut Vec<u8>,
    ) -> Seq {
        self.line(time, out, |line| {
            line.outbox(vault.as_str(), row)
                .written(&body.0[1..body.0.len() - 1]);
        })
    }

    /// Appends the first line of segment `number`, counted from 0. `copied` are the outbox rows of all segments
    /// before it, so that a later opening need not read them.
    pub fn append_segment(
        &mut self,
        time: UnixMs,
        number: u64,
        copied: &Copied,
        out: &mut Vec<u8>,
    ) -> Seq {
        let anchor = self.anchor;
        self.line(time, out, |line| anchor.write(number, copied, line))
    }

    /// Appends a checkpoint. From here on the chain expects the next one to be signed by its
    /// `next_key`.
    pub fn append_checkpoint(&mut self, checkpoint: &Checkpoint, out: &mut Vec<u8>) -> Seq {
        self.anchor.pass(checkpoint);
        self.line(checkpoint.statement().time, out, |line| {
            checkpoint.write(line)
        })
    }

    fn line(
        &mut self,
        time: UnixMs,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Fields<'_>),
    ) -> Seq {
        let start = out.len();
        self.anchor.seq += 1;
        let mut line = Fields::open(out);
        line.number("seq", self.anchor.seq).time("time", time);
        write(&mut line);
        self.anchor.head = Digest::of_parts(&[self.anchor.head.as_bytes(), &out[start..]]);
        out.extend_from_slice(HASH_FIELD);
        line::push_hex(out, self.anchor.head.as_bytes());
        out.extend_from_slice(b"\"}\n");
        Seq(self.anchor.seq)
    }
}
