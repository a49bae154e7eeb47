//! An audit log or an export of it, as a stick gives it: judged the same however it is cut, and no line is counted that
//! is none.
//!
//! No mutation finds the hash of a line, so that every input is read a second time with the hashes that its lines should
//! have: what stands behind that check is met too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_core::audit::{Anchor, Checkpoint, Report, Verifier, hashed, place};
use mcpist_core::ids::Digest;
use mcpist_fuzz::canonical;

/// The first key of the log in docs/FORMATS.md.
const KEY: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const PREV: &str = "\"prev\":\"";

fuzz_target!(|bytes: &[u8]| {
    canonical(bytes, Checkpoint::from_bytes, |read| {
        read.to_bytes().to_vec()
    });
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = place(line);
    }
    let key = *Digest::parse(KEY).expect("a key").as_bytes();
    let (whole, later) = (|| Verifier::new(key), Verifier::resume);
    judged(bytes, whole);
    judged(bytes, later);
    judged(&mended(bytes, Anchor::genesis(key).head), whole);
    if let Some(before) = before(bytes) {
        judged(&mended(bytes, before), later);
    }
});

/// Reads a log at once, and cut in two.
fn judged(log: &[u8], start: impl Fn() -> Verifier) {
    let read = |parts: &[&[u8]]| -> Report {
        let mut verifier = start();
        for part in parts {
            verifier.feed(part);
        }
        verifier.finish()
    };
    let report = read(&[log]);
    let (one, other) = log.split_at(log.len() / 3);
    assert_eq!(report, read(&[one, other]));
    let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    match report.problem {
        None => assert_eq!((report.lines, report.good_bytes), (lines, log.len() as u64)),
        Some(_) => assert!(report.lines <= lines && report.good_bytes <= log.len() as u64),
    }
}

/// The log with the hash of each line that has one made anew.
fn mended(log: &[u8], mut head: Digest) -> Vec<u8> {
    let mut mended = Vec::with_capacity(log.len());
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n").and_then(hashed) {
            Some((says, _)) => {
                head = Digest::of_parts(&[head.as_bytes(), says]);
                mended.extend_from_slice(says);
                mended.extend_from_slice(format!(",\"hash\":\"{head}\"}}\n").as_bytes());
            }
            None => mended.extend_from_slice(line),
        }
    }
    mended
}

/// What the first line says of the line before it.
fn before(log: &[u8]) -> Option<Digest> {
    let line = std::str::from_utf8(log.split(|byte| *byte == b'\n').next()?).ok()?;
    let (_, says) = line.split_once(PREV)?;
    Digest::parse(says.get(..64)?).ok()
}
