//! The canonical bytes of a `Plan`, as a file or the admin API gives them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_fuzz::canonical;
use mcpist_quorum::Plan;

fuzz_target!(|bytes: &[u8]| canonical(bytes, Plan::from_bytes, Plan::to_bytes));
