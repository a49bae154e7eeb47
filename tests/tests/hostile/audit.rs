//! The audit log: damage is named, and a full disk stops what it would have recorded.

use std::path::{Path, PathBuf};

use mcpist_core::audit::{Fault, Report, Verifier};

use super::{Site, open, works};

/// The first audit key in hexadecimal, from the ceremony record.
pub(super) fn first_key(site: &Site) -> String {
    let record = site.folder().join("ceremony-record");
    let record = std::fs::read_to_string(record).expect("a file");
    let key = record
        .lines()
        .find_map(|line| line.strip_prefix("audit key"))
        .expect("the key's line");
    key.trim().to_owned()
}

fn verified(site: &Site, files: &[Vec<u8>]) -> Report {
    let key = hex::decode(first_key(site)).expect("hexadecimal");
    let mut verifier = Verifier::new(key.try_into().expect("32 bytes"));
    for (number, file) in files.iter().enumerate() {
        if number > 0 {
            verifier.next_file();
        }
        verifier.feed(file);
    }
    verifier.finish()
}

pub(super) fn audit_files(folder: &Path) -> Vec<Vec<u8>> {
    let folder = std::fs::read_dir(folder.join("state/audit")).expect("a folder");
    let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    let read = |file: PathBuf| std::fs::read(file).expect("a file");
    files.into_iter().map(read).collect()
}

#[test]
fn the_audit_log_verifies_and_a_flipped_byte_is_named_by_its_line() {
    let site = open();
    works(&site);
    site.ask("POST", "/v1/seal", None);
    let files = audit_files(site.folder());
    let good = verified(&site, &files);
    assert_eq!(good.problem, None);
    assert!(good.checkpoints > 0 && good.lines > 10, "{good:?}");
    assert_eq!(good.unsigned_tail, 0, "seal signs what it closes");

    let lines: Vec<&[u8]> = files[0].split_inclusive(|b| *b == b'\n').collect();
    for line in [1, lines.len() / 2, lines.len()] {
        let start: usize = lines[..line - 1].iter().map(|l| l.len()).sum();
        let mut bad = files.clone();
        bad[0][start + lines[line - 1].len() / 2] ^= 1;
        let problem = verified(&site, &bad).problem.expect("a problem");
        assert_eq!(problem.line, line as u64, "{problem}");
    }
    // A whole line that is taken out is missed as well.
    let cut = [&lines[..3], &lines[4..]].concat().concat();
    let problem = verified(&site, &[cut]).problem.expect("a problem");
    assert_eq!((problem.line, problem.fault), (4, Fault::Sequence));
}
