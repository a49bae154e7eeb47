//! A signed ceremony record, as a file gives it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_fuzz::canonical;
use mcpist_quorum::CeremonyRecord;

fuzz_target!(|bytes: &[u8]| {
    canonical(bytes, CeremonyRecord::from_bytes, CeremonyRecord::to_bytes);
    if let Ok(record) = CeremonyRecord::from_bytes(bytes) {
        // What a person reads of it holds no line that its labels made.
        assert!(
            record
                .to_text()
                .lines()
                .all(|line| !line.contains('\u{1b}'))
        );
    }
});
