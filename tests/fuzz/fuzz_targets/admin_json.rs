//! The bodies of admin requests, read as the daemon reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_core::api;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(bytes: &[u8]) {
    let _ = serde_json::from_slice::<T>(bytes);
}

fuzz_target!(|bytes: &[u8]| {
    read::<api::InitRequest>(bytes);
    read::<api::InitConfirm>(bytes);
    read::<api::TicketRequest>(bytes);
    read::<api::CeremonyRequest>(bytes);
    read::<api::NewVault>(bytes);
    read::<api::Approve>(bytes);
    read::<api::ExplainMask>(bytes);
    if let Ok(proposed) = serde_json::from_slice::<api::ProposeChange>(bytes) {
        // What officers sign is the same however the proposal was spelled.
        let text = serde_json::to_vec(&proposed).expect("JSON");
        let again: api::ProposeChange = serde_json::from_slice(&text).expect("our own JSON");
        assert_eq!(again.change.to_bytes(), proposed.change.to_bytes());
    }
});
