//! A backup as a stick gives it: read in bounded parts, to an end or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_quorum::{BackupHeader, BackupScan};

/// No part of a backup is longer: a chunk is a mebibyte.
const LONGEST: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = BackupHeader::from_bytes(bytes) {
        assert_eq!(header.to_bytes(), bytes);
    }
    let (mut scan, mut rest) = (BackupScan::default(), bytes);
    while scan.wants() > 0 {
        assert!(scan.wants() <= LONGEST);
        let Some((part, more)) = rest.split_at_checked(scan.wants()) else {
            return;
        };
        rest = more;
        if scan.take(part).is_err() {
            return;
        }
    }
});
