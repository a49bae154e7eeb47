//! Lines of a byte stream, bounded. The only reader of a connection.
//!
//! Owns: the read buffer.
//! Promises: a line takes at most its limit in memory, and a buffer above [`KEEP`] is of its client's
//! budget; one that is longer, or for which nothing is left, is reported once and
//! skipped to its end. A call that is dropped midway loses nothing: the next one goes on.
//! Does not: look into a line.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::budget::{Budget, Charge};

/// Room of the buffer between the stream and the line.
const CHUNK: usize = 16 * 1024;
/// A line's buffer above this is charged, and given back after use.
const KEEP: usize = 64 * 1024;

/// What stands next on the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line without its end.
    Text(&'a [u8]),
    /// A line over the limit; what is left of it is skipped.
    TooLong,
    /// A line for which the budget had nothing left; the rest is skipped as well.
    NoRoom,
}

/// Reads a stream line by line.
pub(crate) struct Lines<R> {
    stream: BufReader<R>,
    line: Vec<u8>,
    charge: Charge,
    limit: usize,
    /// The line was given out and goes with the next call.
    given: bool,
    /// The rest of a line that was too long is skipped.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `limit` bytes, their end not counted.
    pub(crate) fn new(stream: R, limit: usize, budget: &Budget) -> Lines<R> {
        Lines {
            stream: BufReader::with_capacity(CHUNK, stream),
            line: Vec::new(),
            charge: budget.nothing(),
            limit,
            given: false,
            skipping: false,
        }
    }

    /// The next line, or `None` at the end of the stream; text without a line end before it is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if self.given {
            self.given = false;
            self.clear();
        }
        loop {
            let mut room = CHUNK;
            if !self.skipping {
                room = room.min(self.limit + 1 - self.line.len());
                if !self.grow(room) {
                    self.skipping = true;
                    self.clear();
                    return Ok(Some(Line::NoRoom));
                }
            }
            let mut window = (&mut self.stream).take(room as u64);
            // What a dropped call has read stays in `line`, so this picks up where it left.
            if window.read_until(b'\n', &mut self.line).await? == 0 {
                return Ok(None);
            }
            let ended = self.line.last() == Some(&b'\n');
            if self.skipping {
                self.skipping = !ended;
                self.clear();
            } else if ended {
                self.line.pop();
                self.given = true;
                return Ok(Some(Line::Text(&self.line)));
            } else if self.line.len() > self.limit {
                self.skipping = true;
                self.clear();
                return Ok(Some(Line::TooLong));
            }
        }
    }

    /// Makes room for as many bytes more, doubling, but never beyond the limit. False where the budget says no.
    fn grow(&mut self, room: usize) -> bool {
        let (length, capacity) = (self.line.len(), self.line.capacity());
        if length + room <= capacity {
            return true;
        }
        let wanted = (2 * capacity).max(length + room).min(self.limit + 1);
        if wanted > KEEP && !self.charge.grow_to(wanted) {
            return false;
        }
        self.line.reserve_exact(wanted - length);
        true
    }

    fn clear(&mut self) {
        self.line.clear();
        if self.line.capacity() > KEEP {
            self.line = Vec::new();
            self.charge.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn read_all(bytes: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(bytes, limit, &Budget::new(1 << 30, 0));
        let mut out = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            out.push(match line {
                Line::Text(text) => Some(text.to_vec()),
                Line::TooLong | Line::NoRoom => None,
            });
        }
        out
    }

    #[tokio::test]
    async fn a_line_of_the_limit_passes_and_one_byte_more_does_not() {
        let lines = read_all(b"1234\n12345\n\n123456789012\nx\nrest", 4).await;
        let text = |s: &str| Some(s.as_bytes().to_vec());
        assert_eq!(lines, [text("1234"), None, text(""), None, text("x")]);
    }

    #[tokio::test]
    async fn a_dropped_read_loses_nothing() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut lines = Lines::new(server, 100, &Budget::new(0, 0));
        client.write_all(b"first ").await.unwrap();
        tokio::select! {
            biased;
            _ = lines.next() => unreachable!("no line has ended"),
            () = tokio::task::yield_now() => {}
        }
        client.write_all(b"half\nsecond\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), Some(Line::Text(b"first half")));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Text(b"second")));
    }

    #[tokio::test]
    async fn a_line_never_takes_more_than_its_limit() {
        let limit = (1 << 20) + 5000;
        let mut bytes = vec![b'x'; limit];
        bytes.push(b'\n');
        let mut lines = Lines::new(&bytes[..], limit, &Budget::new(limit + 1, 0));
        assert_eq!(
            lines.next().await.unwrap(),
            Some(Line::Text(&bytes[..limit]))
        );
        assert_eq!(lines.line.capacity(), limit + 1);
    }

    #[tokio::test]
    async fn long_lines_of_two_clients_share_one_budget() {
        let budget = Budget::new(300 * 1024, 0);
        let mut long = vec![b'x'; 200 * 1024];
        long.extend_from_slice(b"\nshort\n");
        let lines = || Lines::new(&long[..], 1 << 20, &budget);
        let (mut first, mut second) = (lines(), lines());
        assert!(
            matches!(first.next().await.unwrap(), Some(Line::Text(text)) if text.len() == 200 * 1024)
        );
        assert_eq!(second.next().await.unwrap(), Some(Line::NoRoom));
        assert!(second.line.capacity() <= KEEP);
        // Its next line is read, and a long one again once the other's is done with.
        assert_eq!(second.next().await.unwrap(), Some(Line::Text(b"short")));
        assert_eq!(first.next().await.unwrap(), Some(Line::Text(b"short")));
        assert!(matches!(lines().next().await.unwrap(), Some(Line::Text(_))));
    }

    #[tokio::test]
    async fn a_skipped_line_takes_no_memory() {
        let mut bytes = vec![b'x'; 4 << 20];
        bytes.extend_from_slice(b"\nok\n");
        let mut lines = Lines::new(&bytes[..], 1 << 20, &Budget::new(1 << 30, 0));
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
        assert!(lines.line.capacity() <= KEEP);
        assert_eq!(lines.next().await.unwrap(), Some(Line::Text(b"ok")));
        assert!(lines.line.capacity() <= KEEP);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lines_are_those_of_the_text(texts in proptest::collection::vec("[a-z]{0,12}", 0..8)) {
            let bytes: String = texts.iter().map(|t| format!("{t}\n")).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(read_all(bytes.as_bytes(), 8));
            let expected: Vec<_> = texts
                .iter()
                .map(|t| (t.len() <= 8).then(|| t.clone().into_bytes()))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
