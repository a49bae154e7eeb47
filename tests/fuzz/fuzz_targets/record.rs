//! A sealed record as a disk gives it: nothing opens but what was sealed under the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_quorum::{RecordAad, RecordTag, StoreId, open_record, unwrap_key};
use mcpist_secret::Key;

fuzz_target!(|bytes: &[u8]| {
    let key = Key::fill(|key| {
        key.fill(7);
        Ok::<(), mcpist_secret::MemoryError>(())
    });
    let key = key.expect("secret memory");
    let store = StoreId::from_bytes([0x11; 16]);
    let aad = RecordAad {
        store,
        vault: "ops",
        epoch: [0x44; 16],
        name: &[0x66; 32],
        version: 3,
    };
    let _ = RecordTag::parse(bytes);
    assert!(open_record(&key, &aad, bytes).is_err());
    assert!(unwrap_key(&key, "root", b"config", bytes).is_err());
});
