//! The canonical bytes of a `SealConfig`, as a file or the admin API gives them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_fuzz::canonical;
use mcpist_quorum::SealConfig;

fuzz_target!(|bytes: &[u8]| canonical(bytes, SealConfig::from_bytes, SealConfig::to_bytes));
