//! A frame of the secret socket: a ticket and a payload of the length that was announced, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpist_secret::frame::read_frame;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    if let Ok((ticket, payload)) = read_frame(&mut rest) {
        assert_eq!(ticket.as_bytes(), &bytes[..32]);
        assert_eq!(payload.expose(), &bytes[36..bytes.len() - rest.len()]);
    }
});
