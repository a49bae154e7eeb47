//! The log's lines for who may read them: whole ones that are on disk, as they stand.
//!
//! Owns reading from a place in the files. Promises that an answer has bounded length, ends with a line, holds none that is
//! not durable, and that readers touch neither the log's mutex nor its thread. A place that nobody was given reads lines that do
//! not verify, and nothing else. Does not verify: who reads does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use mcpist_core::api::{Cursor, Lines, LinesFrom};
use mcpist_core::audit::{MAX_LINE, Seq, hashed, place};
use mcpist_core::ids::Digest;

use super::segment::{first_place, numbers, path_of};

/// Bytes of an answer at most; longer than a line may be.
const SLICE: usize = 16 * MAX_LINE;

/// Opens a segment to read, and no link or pipe in its place.
pub(super) fn open(folder: &Path, number: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path_of(folder, number))?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// The newest of `found` whose first line is `fits`, or the oldest one.
pub(super) fn newest_that(
    folder: &Path,
    found: &[u64],
    fits: impl Fn(Seq, u64) -> bool,
) -> io::Result<Option<u64>> {
    for &number in found.iter().rev() {
        if let Some((seq, time)) = first_place(&open(folder, number)?)
            && fits(seq, time)
        {
            return Ok(Some(number));
        }
    }
    Ok(found.first().copied())
}

/// Reads lines of the log in `folder`, no later one than `durable`.
pub(crate) fn read(folder: &Path, from: LinesFrom, durable: u64) -> io::Result<Lines> {
    let found = numbers(folder)?;
    let start = match from {
        LinesFrom::Cursor(cursor) => cursor,
        LinesFrom::Beginning => begin(found.first().copied()),
        LinesFrom::Last(lines) => {
            let last = last_line(folder, &found)?.min(durable);
            let first = last.saturating_sub(lines.saturating_sub(1));
            begin(newest_that(folder, &found, |Seq(begins), _| {
                begins <= first
            })?)
        }
    };
    let mut next = start;
    loop {
        // Asked before the segment is read: one that another follows gets no more lines.
        let later = found.iter().copied().find(|number| *number > next.segment);
        let text = match open(folder, next.segment) {
            Ok(file) => whole_lines(&file, next.offset, durable)?,
            // The first one is yet to be made.
            Err(e) if e.kind() == io::ErrorKind::NotFound && found.is_empty() => String::new(),
            Err(e) => return Err(e),
        };
        next.offset += text.len() as u64;
        match later {
            Some(later) if text.is_empty() => next = begin(Some(later)),
            _ => {
                return Ok(Lines {
                    text,
                    next,
                    last: last_line(folder, &found)?.min(durable),
                });
            }
        }
    }
}

fn begin(segment: Option<u64>) -> Cursor {
    Cursor {
        segment: segment.unwrap_or_default(),
        offset: 0,
    }
}

/// The whole lines from `offset` on that are durable, as many as an answer takes.
fn whole_lines(file: &File, offset: u64, durable: u64) -> io::Result<String> {
    if offset > file.metadata()?.len() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut bytes = vec![0; SLICE];
    let mut filled = 0;
    while filled < SLICE {
        match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let mut end = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let is_durable = place(line).is_none_or(|(Seq(seq), _)| seq <= durable);
        if !line.ends_with(b"\n") || !is_durable {
            break;
        }
        end += line.len();
    }
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// The sequence of the last line in the files; 0 where there is none.
fn last_line(folder: &Path, found: &[u64]) -> io::Result<u64> {
    let last = last(folder, found, |line| place(line).map(|(Seq(seq), _)| seq))?;
    Ok(last.unwrap_or(0))
}

/// Where the files of the log in `folder` end: the last line's sequence, and the hash that it says of itself.
pub(crate) fn end(folder: &Path) -> io::Result<Option<(u64, Digest)>> {
    let found = match numbers(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    last(folder, &found, |line| {
        let (_, hash) = hashed(line.strip_suffix(b"\n")?)?;
        Some((place(line)?.0.0, hash))
    })
}

/// What `read` says of the last whole line in the files, in the newest one of which it says anything.
fn last<T>(
    folder: &Path,
    found: &[u64],
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    for &number in found.iter().rev() {
        let file = open(folder, number)?;
        let length = file.metadata()?.len();
        let begin = length.saturating_sub(2 * MAX_LINE as u64);
        let mut bytes = vec![0; (length - begin) as usize];
        file.read_exact_at(&mut bytes, begin)?;
        let mut lines = bytes.split_inclusive(|b| *b == b'\n');
        let last = lines.rfind(|line| line.ends_with(b"\n"));
        if let Some(said) = last.and_then(&read) {
            return Ok(Some(said));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A line as far as it is looked at here.
    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"time\":\"2026-11-24T04:00:00.000Z\",\"event\":\"x\"}}\n")
    }

    fn folder(segments: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in segments.iter().enumerate() {
            std::fs::write(path_of(folder.path(), number as u64), text).unwrap();
        }
        folder
    }

    #[test]
    fn lines_come_in_order_across_segments_and_end_where_they_are_durable() {
        let (first, second) = (line(1) + &line(2), line(3) + &line(4) + "{\"seq\":5,\"ti");
        let folder = folder(&[&first, &second]);
        let mut from = LinesFrom::Beginning;
        let mut all = String::new();
        for _ in 0..4 {
            let lines = read(folder.path(), from, 3).unwrap();
            assert_eq!(lines.last, 3);
            all += &lines.text;
            from = LinesFrom::Cursor(lines.next);
        }
        assert_eq!(all, line(1) + &line(2) + &line(3));
        // What is durable now comes from there on; what has no end does not.
        let rest = read(folder.path(), from, u64::MAX).unwrap();
        assert_eq!((rest.text, rest.last), (line(4), 4));
    }

    #[test]
    fn the_last_lines_begin_with_the_segment_that_holds_them() {
        let (first, second) = (line(1) + &line(2), line(3) + &line(4));
        let folder = folder(&[&first, &second]);
        for (wanted, text) in [(1, &second), (2, &second), (3, &first), (99, &first)] {
            let lines = read(folder.path(), LinesFrom::Last(wanted), u64::MAX).unwrap();
            assert_eq!(&lines.text, text, "{wanted}");
        }
    }

    #[test]
    fn the_end_is_the_last_whole_line_with_its_hash() {
        let hashed = |seq, of: &[u8]| {
            let line = line(seq);
            let says = line.strip_suffix("}\n").unwrap();
            format!("{says},\"hash\":\"{}\"}}\n", Digest::of(of))
        };
        let second = hashed(2, b"b") + "{\"seq\":3,\"ti";
        let log = folder(&[&hashed(1, b"a"), &second]);
        assert_eq!(end(log.path()).unwrap(), Some((2, Digest::of(b"b"))));
        assert_eq!(end(&log.path().join("none")).unwrap(), None);
        assert_eq!(end(folder(&[""]).path()).unwrap(), None);
    }

    #[test]
    fn a_place_that_is_none_reads_nothing_that_harms() {
        let folder = folder(&[&line(1)]);
        let from = |segment, offset| LinesFrom::Cursor(Cursor { segment, offset });
        assert_eq!(
            read(folder.path(), from(0, 5), 9).unwrap().text,
            line(1)[5..]
        );
        for nowhere in [from(0, 9_999), from(0, u64::MAX), from(7, 0)] {
            let e = read(folder.path(), nowhere, 9).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::NotFound);
        }
        let none = tempfile::tempdir().unwrap();
        assert_eq!(read(none.path(), from(0, 0), 9).unwrap().text, "");
    }
}
