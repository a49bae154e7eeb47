//! A share as words or as text, as a holder types it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_quorum::{Share, nearest_words, read_share, words_of};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(typed) = std::str::from_utf8(bytes) {
        nearest_words(typed);
    }
    assert!(words_of(bytes).all(|word| word.len() <= bytes.len()));
    let Ok(share) = read_share(bytes) else {
        return;
    };
    let words = share.to_words().expect("secret memory");
    let again = Share::from_words(words.expose()).expect("our own words");
    assert_eq!(again.digest(), share.digest());
});
