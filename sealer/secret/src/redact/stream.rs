//! Redaction of a body that comes in chunks, and the writing of what is left of it.
//!
//! Promises: the output is that of the whole body at once, wherever it was cut. Held back is what
//! may still belong to a secret: the longest form, times what escapes can stretch it where there
//! are escapes. Does not promise: to wipe its buffer before it is freed ([`crate::alloc`] does).

use std::ops::Range;

use super::MARKER;
use super::scan::Scan;
use super::table::Table;
use super::view::{MAX_EXPANSION, MAX_TOKEN};

/// A body in chunks: [`RedactStream::push`] each, then [`RedactStream::finish`].
pub struct RedactStream<'r> {
    table: &'r Table,
    scan: Scan<'r>,
    /// What is held back, behind what is already written and not yet dropped.
    held: Vec<u8>,
    /// Where the last escape character ended, in `held`; 0 if there is none.
    escape_end: usize,
    writer: Writer,
}

impl<'r> RedactStream<'r> {
    pub(super) fn new(table: &'r Table) -> RedactStream<'r> {
        let (scan, writer) = (Scan::new(table), Writer::default());
        RedactStream {
            table,
            scan,
            held: Vec::new(),
            escape_end: 0,
            writer,
        }
    }

    /// Takes the next chunk and appends to `out` what can be told to be free of secrets.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.table.is_empty() {
            out.extend_from_slice(chunk);
            return;
        }
        if let Some(last) = chunk.iter().rposition(|byte| matches!(byte, b'%' | b'\\')) {
            self.escape_end = self.held.len() + last + 1;
        }
        self.held.extend_from_slice(chunk);
        // With this much behind the last escape, no form that is still open can hold one.
        let (before, after) = (
            self.table.before() + MAX_TOKEN,
            self.table.after() + MAX_TOKEN,
        );
        let plain = self.held.len() - self.escape_end > before + after;
        let stretch = if plain { 1 } else { MAX_EXPANSION };
        let until = self.held.len().saturating_sub(stretch * after);
        self.scan.advance(&self.held, until);
        let limit = self.scan.at().saturating_sub(stretch * before);
        self.writer.write(&self.held, self.scan.found(), limit, out);
        self.forget();
    }

    /// Ends the body, appends the rest to `out` and returns how many places were replaced.
    pub fn finish(mut self, out: &mut Vec<u8>) -> u32 {
        self.scan.advance(&self.held, self.held.len());
        self.writer
            .write(&self.held, self.scan.found(), self.held.len(), out);
        self.writer.hits
    }

    /// Drops what was written, but of a run of backslashes that is cut, an even number: so that
    /// the views can still tell where a token starts.
    fn forget(&mut self) {
        let mut count = self.writer.written;
        if count < self.held.len() / 2 {
            return; // moving less than half each time would move bytes again and again
        }
        let cut = self.held[..count]
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'\\')
            .count();
        count -= cut % 2;
        self.held.drain(..count);
        self.escape_end = self.escape_end.saturating_sub(count);
        self.scan.shift(count);
        self.writer.shift(count);
    }
}

/// Copies a body and puts the marker where ranges of it were found.
#[derive(Default)]
pub(super) struct Writer {
    /// What comes before this is written.
    written: usize,
    /// What comes before this is written or replaced.
    covered: usize,
    hits: u32,
}

impl Writer {
    /// Writes the body up to `limit` and takes the ranges that start before it. Later calls bring
    /// the same body, and no new range that starts before `limit`.
    pub(super) fn write(
        &mut self,
        body: &[u8],
        found: &mut Vec<Range<usize>>,
        limit: usize,
        out: &mut Vec<u8>,
    ) {
        found.sort_unstable_by_key(|range| range.start);
        let ready = found.partition_point(|range| range.start < limit);
        for range in found.drain(..ready) {
            // A flood's range may reach back over what is written.
            let start = range.start.max(self.written);
            if start >= self.covered {
                self.copy(body, start, out);
                out.extend_from_slice(MARKER);
                self.hits = self.hits.saturating_add(1);
            }
            self.covered = self.covered.max(range.end);
        }
        self.copy(body, limit, out);
    }

    /// Copies up to `to` what is neither written nor replaced.
    fn copy(&mut self, body: &[u8], to: usize, out: &mut Vec<u8>) {
        let from = self.written.max(self.covered);
        out.extend_from_slice(body.get(from..to).unwrap_or_default());
        self.written = self.written.max(to);
    }

    fn shift(&mut self, count: usize) {
        self.written -= count;
        self.covered = self.covered.saturating_sub(count);
    }

    pub(super) fn hits(&self) -> u32 {
        self.hits
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::redact::{RedactKey, Redactor};

    fn found(ranges: &[(usize, usize)]) -> Vec<Range<usize>> {
        ranges.iter().map(|&(start, end)| start..end).collect()
    }

    #[test]
    fn a_range_that_reaches_back_over_what_is_written_still_gets_its_marker() {
        let body = b"0123456789abcdefghij";
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        writer.write(body, &mut found(&[(0, 2)]), 6, &mut out);
        writer.write(body, &mut found(&[(1, 9), (15, 99)]), 20, &mut out);
        assert_eq!(out, b"[redacted]2345[redacted]9abcde[redacted]");
        assert_eq!(writer.hits(), 3);
    }

    #[test]
    fn a_range_is_replaced_once_though_it_ends_behind_the_limit() {
        let body = b"0123456789abcdefghij";
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        writer.write(body, &mut found(&[(2, 12)]), 6, &mut out);
        writer.write(body, &mut found(&[(11, 14)]), 20, &mut out);
        assert_eq!(out, b"01[redacted]efghij");
        assert_eq!(writer.hits(), 1);
    }

    #[test]
    fn a_stream_holds_back_little_more_than_the_longest_form_and_forgets_the_rest() {
        let key = Arc::new(RedactKey::random().unwrap());
        let print = key.fingerprint(b"0123456789abcdefghij").unwrap();
        let redactor = Redactor::new(key, [&print]);
        let (mut stream, mut out, mut sent) = (redactor.stream(), Vec::new(), 0);
        for _ in 0..1000 {
            stream.push(b"plain text ", &mut out);
            sent += 11;
            // Twice the longest form (40 hexadecimal digits) and a token at either end.
            let most = 2 * 40 + 2 * MAX_TOKEN;
            assert!(sent - out.len() <= most, "{} held", sent - out.len());
            assert!(
                stream.held.len() <= 2 * most + 11,
                "{} kept",
                stream.held.len()
            );
        }
        stream.finish(&mut out);
        assert_eq!(out.len(), sent);
    }
}
