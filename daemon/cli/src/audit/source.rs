//! Where lines come from: files, or the daemon. Each line is verified before anybody looks at it.
//!
//! Promises bounded memory: one line of a file, one answer of the daemon.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use mcpist_core::api::{AskLines, Lines, LinesFrom, path};
use mcpist_core::audit::{MAX_LINE, Verifier};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::secret;

/// Reads all lines of the files in order; ends at the first one that does not hold.
pub(super) fn from_files(
    files: &[PathBuf],
    verifier: &mut Verifier,
    mut seen: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut line = Vec::new();
    for (index, path) in files.iter().enumerate() {
        if index > 0 && !verifier.next_file() {
            return Ok(());
        }
        let mut file = BufReader::new(secret::open(path)?);
        loop {
            line.clear();
            let limit = MAX_LINE as u64 + 2;
            let read = (&mut file).take(limit).read_until(b'\n', &mut line);
            if read.map_err(|e| Error::file(path, e))? == 0 {
                break;
            }
            if !verifier.feed(&line) {
                return Ok(());
            }
            if line.ends_with(b"\n") && !verifier.is_repeated() {
                seen(&line)?;
            }
        }
    }
    Ok(())
}

/// Reads lines of the daemon's log from a place on, until there are no more now; ends at the first one that does not hold.
/// Gives the last answer: its place is where later lines begin.
pub(super) async fn from_daemon(
    client: &Client,
    from: LinesFrom,
    verifier: &mut Verifier,
    mut seen: impl FnMut(&[u8], &Lines) -> Result<()>,
) -> Result<Lines> {
    let mut ask = AskLines { from, wait: false };
    loop {
        let lines: Lines = client.post(path::AUDIT_LINES, &ask).await?;
        for line in lines.text.as_bytes().split_inclusive(|b| *b == b'\n') {
            if !verifier.feed(line) {
                return Ok(lines);
            }
            seen(line, &lines)?;
        }
        if lines.text.is_empty() {
            return Ok(lines);
        }
        ask.from = LinesFrom::Cursor(lines.next);
    }
}
