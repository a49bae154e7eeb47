//! The canonical bytes of a `Head`, as a file or the admin API gives them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_fuzz::canonical;
use mcpist_quorum::Head;

fuzz_target!(|bytes: &[u8]| canonical(bytes, Head::from_bytes, Head::to_bytes));
