//! Verifies an audit log as a stream of bytes. No I/O: the caller reads the files.
//!
//! Owns: [`Verifier`], which takes the segments of a log in order and says where it is wrong.
//! Promises: bounded memory whatever the input (one line and, for each line that no checkpoint
//! covers yet, up to 2^20 of them, 32 bytes and an outbox row's place); it stops at the first line that is wrong and names
//! it. A line is judged by its own hash, so a damaged line is not blamed on its neighbour.
//! Does not: prove that nothing was cut off at the end, unless it is told which head to expect; or
//! prove more than the chain for the lines after the last checkpoint.

use std::collections::VecDeque;

use serde::Deserialize;
use thiserror::Error;

use super::checkpoint::Checkpoint;
use super::line::{Fields, push_number};
use super::overlap::Overlap;
use super::{Anchor, AuditKey, Copied, HASH_FIELD, HASH_LEN, Logged, MAX_LINE, UnsignedRow};
use crate::ids::Digest;
use crate::scan::{Limits, scan};

/// Lines without a checkpoint whose hashes are kept.
const WINDOW: usize = 1 << 20;
const TIME_LEN: usize = 24;

/// The first thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct Problem {
    /// Sequence that the line has or should have.
    pub line: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// Longer than any line of this log.
    #[error("longer than any audit line")]
    TooLong,
    /// The file ends within it.
    #[error(
        "the file ends within this line: copy it again; if the log itself ends so, the next unseal recovers it"
    )]
    Torn,
    /// It does not have the form of a line.
    #[error("not an audit line")]
    Form,
    /// It has another sequence.
    #[error("another sequence stands here: lines are missing, added or moved")]
    Sequence,
    /// Its bytes do not give its hash.
    #[error("its bytes do not match its hash, or the line before is another one")]
    Hash,
    /// The first line is whole and follows another genesis.
    #[error(
        "the log begins under another key: this record or key is of another log or life; take the record of the ceremony that began this one, init or restore"
    )]
    OtherLog,
    /// Two files hold lines with the same sequences that are not the same.
    #[error(
        "the lines from {0} on are not those of the file before: one of the two was changed, or is of another log"
    )]
    Overlap(u64),
    /// A file ends within lines of the files before.
    #[error(
        "this file holds no line that the files before do not: give them in order, and it not at all"
    )]
    NothingNew,
    /// A `segment` line says something else than the log before it, or the log lacks its first one.
    #[error("the segment does not follow the one before, or the first segment is missing")]
    Segment,
    /// A file begins with a later segment than the next one.
    #[error("segment {0} is missing: a later one follows; put the file audit-{0:08}.jsonl back")]
    MissingSegment(u64),
    /// A checkpoint is not the next one.
    #[error("a checkpoint is missing, repeated or not written as signed")]
    Checkpoint,
    /// A checkpoint covers another history than the one before it.
    #[error("the signed head is another one: lines before this checkpoint were replaced")]
    Head,
    /// A checkpoint's signature does not hold.
    #[error("the signature does not hold under the key that was announced")]
    Signature,
    /// The head that was expected never came.
    #[error("the log ends here without the expected head: it was cut off, or is another log")]
    Truncated,
    /// The point that was given never came.
    #[error(
        "the files do not hold the point that was given: give the segments from before it on, or it is of another log"
    )]
    NoPoint,
}

/// What a [`Verifier`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Lines that hold.
    pub lines: u64,
    /// `segment` lines among them.
    pub segments: u64,
    /// Checkpoints among them.
    pub checkpoints: u64,
    /// `recovered` lines among them: restarts that cut a damaged end.
    pub recovered: u64,
    /// Lines after the last checkpoint's, which are chained but not signed.
    pub unsigned_tail: u64,
    /// Where the log stands after the last line that holds; its `head` is the head to note down.
    pub anchor: Anchor,
    /// Bytes up to the end of that line, in the file that was fed last.
    pub good_bytes: u64,
    /// The line that has the expected head.
    pub expected_at: Option<u64>,
    /// The number of the segment that would come next.
    pub next_segment: u64,
    /// The outbox rows that are in the log.
    pub outbox: Logged,
    /// The first thing that is wrong.
    pub problem: Option<Problem>,
}

/// What a line without its end says before its hash, and that hash. Nothing is verified by this.
pub fn hashed(line: &[u8]) -> Option<(&[u8], Digest)> {
    let (says, tail) = line.split_at(line.len().checked_sub(HASH_LEN)?);
    let hash = tail.strip_prefix(HASH_FIELD)?.strip_suffix(b"\"}")?;
    let hash = Digest::parse(std::str::from_utf8(hash).ok()?).ok()?;
    Some((says, hash))
}

/// The state of a verification.
#[derive(Debug)]
pub struct Verifier {
    anchor: Option<Anchor>,
    start: u64,
    next_segment: u64,
    heads: VecDeque<Digest>, // of the lines up to anchor.seq, the last at the end
    partial: Vec<u8>,
    expect: Option<Digest>,
    /// Of a point: until it is found nothing shows that the first line is genuine.
    missing_point: Option<Digest>,
    scratch: Vec<u8>,
    /// Files may begin with lines of those before.
    overlaps: bool,
    /// The current file is among such lines.
    overlap: Option<Overlap>,
    /// The last line was one of them.
    repeated: bool,
    lines: u64,
    segments: u64,
    checkpoints: u64,
    recovered: u64,
    good_bytes: u64,
    expected_at: Option<u64>,
    outbox: Copied,
    outbox_signed: Copied,
    outbox_unsigned: VecDeque<(u64, UnsignedRow)>, // each with its line's sequence
    problem: Option<Problem>,
}

impl Verifier {
    /// Verifies a whole log, whose first checkpoint `first_key` signs.
    pub fn new(first_key: AuditKey) -> Verifier {
        Verifier::at(Some(Anchor::genesis(first_key)))
    }

    /// Verifies from the beginning of a later segment and takes what its first line says of the log
    /// before on trust. Whoever goes on from the outcome needs [`Verifier::expecting`] as well: only a
    /// head that is known to be genuine shows that the first line was.
    pub fn resume() -> Verifier {
        Verifier::at(None)
    }

    /// Verifies from the beginning of a later segment to whose lines `point` belongs, or the last line before: one that an
    /// earlier verification reported ([`Anchor::point`]). It says of the log before it what the first line may say.
    pub fn from_point(point: Digest) -> Verifier {
        Verifier {
            missing_point: Some(point),
            ..Verifier::at(None)
        }
    }

    fn at(anchor: Option<Anchor>) -> Verifier {
        Verifier {
            anchor,
            start: 0,
            next_segment: 0,
            heads: VecDeque::new(),
            partial: Vec::new(),
            expect: None,
            missing_point: None,
            scratch: Vec::new(),
            overlaps: false,
            overlap: None,
            repeated: false,
            lines: 0,
            segments: 0,
            checkpoints: 0,
            recovered: 0,
            good_bytes: 0,
            expected_at: None,
            outbox: Copied::new(),
            outbox_signed: Copied::new(),
            outbox_unsigned: VecDeque::new(),
            problem: None,
        }
    }

    /// Demands that the log contains the line with hash `head`.
    #[must_use]
    pub fn expecting(mut self, head: Digest) -> Verifier {
        self.expect = Some(head);
        self
    }

    /// Lets a file begin with a segment that the files before hold the beginning of, as exports do.
    #[must_use]
    pub fn overlapping(mut self) -> Verifier {
        self.overlaps = true;
        self
    }

    /// Whether the last line was in a file before: it was reported then, and counts once.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Takes the next bytes of the current file, cut anywhere. False once a problem is found: more
    /// bytes change nothing then.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.problem.is_none()
            && let Some(end) = bytes.iter().position(|b| *b == b'\n')
        {
            let length = (self.partial.len() + end + 1) as u64;
            let outcome = if self.partial.is_empty() {
                self.line(&bytes[..end])
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&bytes[..end]);
                let outcome = self.line(&line);
                line.clear();
                self.partial = line;
                outcome
            };
            match outcome {
                Ok(()) => self.good_bytes += length,
                Err(fault) => self.fail(fault),
            }
            bytes = &bytes[end + 1..];
        }
        if self.problem.is_none() {
            if self.partial.len() + bytes.len() > MAX_LINE {
                self.fail(Fault::TooLong);
            } else {
                self.partial.extend_from_slice(bytes);
            }
        }
        self.problem.is_none()
    }

    /// Whether a problem was found.
    pub fn has_failed(&self) -> bool {
        self.problem.is_some()
    }

    /// The current file ends, and the next one follows.
    pub fn next_file(&mut self) -> bool {
        self.end_file();
        if self.problem.is_none() {
            self.good_bytes = 0;
        }
        self.problem.is_none()
    }

    /// The last file ends.
    pub fn finish(mut self) -> Report {
        self.end_file();
        if self.problem.is_none() && self.anchor.is_none() {
            self.fail(Fault::Segment);
        }
        if self.problem.is_none() && self.expect.is_some() && self.expected_at.is_none() {
            self.fail(Fault::Truncated);
        }
        if self.problem.is_none() && self.missing_point.is_some() {
            self.fail(Fault::NoPoint);
        }
        let anchor = self.anchor.unwrap_or_else(|| Anchor::genesis([0; 32]));
        Report {
            lines: self.lines,
            segments: self.segments,
            checkpoints: self.checkpoints,
            recovered: self.recovered,
            // The last checkpoint's own line is fixed by what it signs.
            unsigned_tail: (anchor.seq - anchor.covered) - u64::from(anchor.checkpoint > 0),
            anchor,
            good_bytes: self.good_bytes,
            expected_at: self.expected_at,
            next_segment: self.next_segment,
            outbox: Logged {
                last: self.outbox,
                signed: self.outbox_signed,
                unsigned: self.outbox_unsigned.into_iter().map(|(_, r)| r).collect(),
            },
            problem: self.problem,
        }
    }

    fn end_file(&mut self) {
        if self.problem.is_some() {
        } else if !self.partial.is_empty() {
            self.fail(Fault::Torn);
        } else if self.overlap.is_some() {
            self.fail(Fault::NothingNew);
        }
    }

    fn fail(&mut self, fault: Fault) {
        let before = self.anchor.map_or(0, |a| a.seq);
        let line = self.overlap.map_or(before, |o| o.seq) + 1;
        self.problem = Some(Problem { line, fault });
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        if line.len() > MAX_LINE {
            return Err(Fault::TooLong);
        }
        let (signed, hash) = hashed(line).ok_or(Fault::Form)?;
        let mut anchor = match self.anchor {
            Some(anchor) => anchor,
            None => {
                let anchor = self.take_anchor(line)?;
                self.look_for_point(&anchor);
                anchor
            }
        };
        if self.overlaps && self.good_bytes == 0 {
            self.overlap = repeats(line, &anchor);
        }
        let (seq, head) = self
            .overlap
            .map_or((anchor.seq, anchor.head), |o| (o.seq, o.head));
        self.scratch.clear();
        self.scratch.extend_from_slice(b"{\"seq\":");
        push_number(&mut self.scratch, seq + 1);
        self.scratch.extend_from_slice(b",\"time\":\"");
        let Some(rest) = signed.strip_prefix(&self.scratch[..]) else {
            return Err(self.out_of_turn(line));
        };
        if Digest::of_parts(&[head.as_bytes(), signed]) != hash {
            return Err(self.other_bytes(line, signed, hash));
        }
        self.repeated = self.overlap.is_some();
        if let Some(overlap) = &mut self.overlap {
            if overlap.step(hash, anchor.seq, anchor.head)? {
                self.overlap = None;
            }
            return Ok(());
        }
        scan(line, &Limits::bytes(MAX_LINE)).map_err(|_| Fault::Form)?;
        let fields = rest
            .get(TIME_LEN..)
            .and_then(|rest| rest.strip_prefix(b"\","))
            .ok_or(Fault::Form)?;
        self.event(&mut anchor, signed, fields)?;
        anchor.seq += 1;
        anchor.head = hash;
        self.anchor = Some(anchor);
        self.look_for_point(&anchor);
        self.lines += 1;
        self.heads.push_back(hash);
        if self.heads.len() > WINDOW {
            self.heads.pop_front();
        }
        if self.expect == Some(hash) {
            self.expected_at = Some(anchor.seq);
        }
        Ok(())
    }

    fn look_for_point(&mut self, anchor: &Anchor) {
        if self.missing_point == Some(anchor.point()) {
            self.missing_point = None;
        }
    }

    /// Judges what a line says. `fields` are its bytes after the time, up to its hash.
    fn event(&mut self, anchor: &mut Anchor, signed: &[u8], fields: &[u8]) -> Result<(), Fault> {
        if fields.starts_with(b"\"outbox\":") {
            return self.outbox_row(anchor.seq + 1, fields);
        }
        let name = fields.strip_prefix(b"\"event\":\"").ok_or(Fault::Form)?;
        let name = name.split(|b| *b == b'"').next().unwrap_or_default();
        if anchor.seq == 0 && name != b"segment" {
            return Err(Fault::Segment);
        }
        match name {
            b"segment" => {
                self.scratch.clear();
                let mut expected = Fields::open(&mut self.scratch);
                anchor.write(self.next_segment, &self.outbox, &mut expected);
                if self.scratch[1..] != *fields {
                    return Err(Fault::Segment);
                }
                self.next_segment += 1;
                self.segments += 1;
            }
            b"checkpoint" => {
                self.checkpoint(anchor, signed)?;
                self.checkpoints += 1;
            }
            b"recovered" => self.recovered += 1,
            b"audit_exported" => {
                let lines = ExportLine::read(fields)?;
                anchor.export(lines.first, lines.through);
            }
            b"export_confirmed" => {
                anchor.confirm(ExportLine::read(fields)?.through);
            }
            _ => {}
        }
        Ok(())
    }

    fn outbox_row(&mut self, seq: u64, fields: &[u8]) -> Result<(), Fault> {
        let line = [b"{", fields, b"}"].concat();
        let FromOutbox { outbox } = serde_json::from_slice(&line).map_err(|_| Fault::Form)?;
        self.scratch.clear();
        Fields::open(&mut self.scratch).outbox(&outbox.vault, outbox.row);
        let body = (fields.strip_prefix(&self.scratch[1..]))
            .and_then(|rest| rest.strip_prefix(b","))
            .ok_or(Fault::Form)?;
        let row = UnsignedRow {
            vault: outbox.vault.clone(),
            row: outbox.row,
            body: Digest::of_parts(&[b"{", body, b"}"]),
        };
        self.outbox.insert(outbox.vault, outbox.row);
        self.outbox_unsigned.push_back((seq, row));
        // What is forgotten here counts as missing.
        if self.outbox_unsigned.len() > WINDOW {
            self.outbox_unsigned.pop_front();
        }
        Ok(())
    }

    fn checkpoint(&mut self, anchor: &mut Anchor, signed: &[u8]) -> Result<(), Fault> {
        let line = [signed, b"}"].concat();
        let checkpoint = Checkpoint::from_line(&line).ok_or(Fault::Checkpoint)?;
        let statement = checkpoint.statement();
        self.scratch.clear();
        let mut expected = Fields::open(&mut self.scratch);
        expected
            .number("seq", anchor.seq + 1)
            .time("time", statement.time);
        checkpoint.write(&mut expected);
        if self.scratch != signed
            || Some(statement.number) != anchor.checkpoint.checked_add(1)
            || statement.previous != anchor.checkpoint_digest
            || statement.count < anchor.covered.max(1)
            || statement.count > anchor.seq
        {
            return Err(Fault::Checkpoint);
        }
        if !checkpoint.is_signed_by(&anchor.key) {
            return Err(Fault::Signature);
        }
        // Lines before a resumed segment are not here to compare.
        if statement.count > self.start {
            let back = (anchor.seq - statement.count) as usize;
            let head = self
                .heads
                .len()
                .checked_sub(back + 1)
                .and_then(|at| self.heads.get(at));
            if head != Some(&statement.head) {
                return Err(Fault::Head);
            }
            self.heads.drain(..self.heads.len() - back - 1);
        }
        while let Some((_, row)) =
            (self.outbox_unsigned).pop_front_if(|(seq, _)| *seq <= statement.count)
        {
            self.outbox_signed.insert(row.vault, row.row);
        }
        anchor.pass(&checkpoint);
        Ok(())
    }

    /// Why the line's bytes do not follow those before: at the very beginning it may be whole, and what it was to follow not
    /// this log's.
    fn other_bytes(&self, line: &[u8], signed: &[u8], hash: Digest) -> Fault {
        let is_whole = serde_json::from_slice::<SegmentLine<'_>>(line)
            .ok()
            .and_then(|first| Digest::parse(first.prev).ok())
            .is_some_and(|prev| Digest::of_parts(&[prev.as_bytes(), signed]) == hash);
        match self.lines == 0 && is_whole {
            true => Fault::OtherLog,
            false => Fault::Hash,
        }
    }

    /// Why another sequence stands here: at the beginning of a file a whole segment may be missing.
    fn out_of_turn(&self, line: &[u8]) -> Fault {
        let later =
            |first: &SegmentLine<'_>| first.event == "segment" && first.segment > self.next_segment;
        match serde_json::from_slice::<SegmentLine<'_>>(line) {
            Ok(first) if self.good_bytes == 0 && later(&first) => {
                Fault::MissingSegment(self.next_segment)
            }
            _ => Fault::Sequence,
        }
    }

    /// What the first line of a segment says of the log before it.
    fn take_anchor(&mut self, line: &[u8]) -> Result<Anchor, Fault> {
        let first: SegmentLine<'_> = serde_json::from_slice(line).map_err(|_| Fault::Segment)?;
        let digest = |text: &str| Digest::parse(text).map_err(|_| Fault::Segment);
        let anchor = Anchor {
            seq: first.seq.checked_sub(1).ok_or(Fault::Segment)?,
            head: digest(first.prev)?,
            checkpoint: first.checkpoint,
            covered: first.covered,
            checkpoint_digest: digest(first.checkpoint_digest)?,
            key: *digest(first.key)?.as_bytes(),
            exported: first.exported,
            confirmed: first.confirmed,
        };
        let placed = anchor.covered + u64::from(anchor.checkpoint > 0) <= anchor.seq;
        if first.event != "segment" || !placed {
            return Err(Fault::Segment);
        }
        self.start = anchor.seq;
        self.next_segment = first.segment;
        self.outbox = first.copied.into_iter().map(|r| (r.vault, r.row)).collect();
        self.outbox_signed = self.outbox.clone();
        Ok(anchor)
    }
}

/// The lines that a file which begins with `line` repeats of a log that stands at `anchor`.
fn repeats(line: &[u8], anchor: &Anchor) -> Option<Overlap> {
    let first: SegmentLine<'_> = serde_json::from_slice(line).ok()?;
    let is_repeated = first.event == "segment" && (1..=anchor.seq).contains(&first.seq);
    let prev = Digest::parse(first.prev).ok()?;
    is_repeated.then(|| Overlap::at(first.seq, prev))
}

#[derive(Deserialize)]
struct FromOutbox {
    outbox: Row,
}

#[derive(Deserialize)]
struct Row {
    vault: String,
    row: u64,
}

#[derive(Deserialize)]
struct ExportLine {
    first: u64,
    through: u64,
}

impl ExportLine {
    fn read(fields: &[u8]) -> Result<ExportLine, Fault> {
        let line = [b"{", fields, b"}"].concat();
        serde_json::from_slice(&line).map_err(|_| Fault::Form)
    }
}

#[derive(Deserialize)]
struct SegmentLine<'a> {
    seq: u64,
    event: &'a str,
    segment: u64,
    prev: &'a str,
    checkpoint: u64,
    covered: u64,
    checkpoint_digest: &'a str,
    key: &'a str,
    #[serde(default)]
    exported: u64,
    #[serde(default)]
    confirmed: u64,
    #[serde(default)]
    copied: Vec<Row>,
}
