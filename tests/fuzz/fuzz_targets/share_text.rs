//! A share as text, as a holder types it: whatever is taken is written in one way, and read back from that.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_quorum::Share;

fuzz_target!(|bytes: &[u8]| {
    let Ok(share) = Share::parse(bytes) else {
        return;
    };
    let text = share.to_text().expect("secret memory");
    let again = Share::parse(text.expose()).expect("our own text");
    assert_eq!(again.digest(), share.digest());
    assert_eq!(
        again.to_text().expect("secret memory").expose(),
        text.expose()
    );
});
