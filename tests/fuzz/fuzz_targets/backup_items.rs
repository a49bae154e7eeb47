//! What stands in an opened chunk of a backup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_quorum::BackupItems;

fuzz_target!(|bytes: &[u8]| {
    let items = BackupItems::of(bytes);
    // An item takes a byte at least, and an error ends them.
    assert!(items.count() <= bytes.len() + 1);
});
