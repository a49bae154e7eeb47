//! A witness receipt, as bytes and as the text that is kept beside a share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_fuzz::canonical;
use mcpist_quorum::Receipt;

fuzz_target!(|bytes: &[u8]| {
    canonical(bytes, Receipt::from_bytes, |receipt| {
        receipt.to_bytes().to_vec()
    });
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(receipt) = Receipt::parse(text)
    {
        let again = Receipt::parse(&receipt.to_text()).expect("our own text");
        assert_eq!(again.to_bytes(), receipt.to_bytes());
    }
});
