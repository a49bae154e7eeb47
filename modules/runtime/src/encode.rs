//! Encoding of one text by the position in which it stands in a request. Pure functions, no I/O.
//!
//! Owns: the rule of each position (path segment, query or form component, header value).
//! Promises: what leaves here cannot end its position: no argument adds a path segment, a
//! parameter, a header line or a second encoding. A path segment is refused rather than escaped
//! where servers disagree about the escape (`/`, `\`, `%`, `.` and `..`).
//! Does not: encode JSON; a JSON position takes the argument's own JSON text.

use thiserror::Error;

/// Why a text cannot stand in its position. The text itself is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A path segment with a character that could end or re-encode it.
    #[error("a path segment may not hold '/', '\\', '%' or a control character")]
    PathCharacter,
    /// A path segment that is empty, `.` or `..`.
    #[error("a path segment may not be empty, '.' or '..'")]
    PathDots,
    /// A header value with a line break, a control character or a non-ASCII character.
    #[error("a header value may hold visible ASCII characters and spaces only")]
    HeaderCharacter,
}

/// RFC 3986 section 2.3.
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn percent(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn escape(out: &mut String, text: &str, keep: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        match keep(byte) {
            true => out.push(char::from(byte)),
            false => percent(out, byte),
        }
    }
}

/// Appends an argument inside a path segment. The whole segment still has to pass
/// [`whole_segment`], since `.` and `.` make `..`.
pub fn path_hole(out: &mut String, text: &str) -> Result<(), EncodeError> {
    if text
        .bytes()
        .any(|b| matches!(b, b'/' | b'\\' | b'%') || b.is_ascii_control())
    {
        return Err(EncodeError::PathCharacter);
    }
    if matches!(text, "" | "." | "..") {
        return Err(EncodeError::PathDots);
    }
    escape(out, text, unreserved);
    Ok(())
}

/// Refuses a finished segment that a server could read as a step.
pub fn whole_segment(segment: &str) -> Result<(), EncodeError> {
    match segment {
        "" | "." | ".." => Err(EncodeError::PathDots),
        _ => Ok(()),
    }
}

/// Appends a query or form value. A space becomes `%20`, which both forms read back.
pub fn component(out: &mut String, text: &str) {
    escape(out, text, unreserved);
}

/// Appends the literal name of a query or form parameter; `[` and `]` stay as written.
pub fn parameter_name(out: &mut String, name: &str) {
    escape(out, name, |byte| {
        unreserved(byte) || matches!(byte, b'[' | b']')
    });
}

/// Accepts a header value as it is, or refuses it (RFC 9110 section 5.5, without obs-text).
pub fn header_value(text: &str) -> Result<(), EncodeError> {
    match text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        true => Ok(()),
        false => Err(EncodeError::HeaderCharacter),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hole(text: &str) -> Result<String, EncodeError> {
        let mut out = String::new();
        path_hole(&mut out, text).map(|()| out)
    }

    #[test]
    fn a_path_hole_refuses_what_could_leave_its_segment() {
        for text in [
            "a/b", "/", "a\\b", "%2e%2e", "a%2fb", "a\r\nb", "a\0b", "a\tb",
        ] {
            assert_eq!(hole(text), Err(EncodeError::PathCharacter), "{text:?}");
        }
        for text in ["", ".", ".."] {
            assert_eq!(hole(text), Err(EncodeError::PathDots), "{text:?}");
            assert!(whole_segment(text).is_err());
        }
        assert_eq!(hole("v1..v2").unwrap(), "v1..v2");
        assert_eq!(hole("a b;c?d#é").unwrap(), "a%20b%3Bc%3Fd%23%C3%A9");
    }

    #[test]
    fn a_component_cannot_start_another_parameter() {
        let mut out = String::new();
        component(&mut out, "a&b=c#d+e f%");
        assert_eq!(out, "a%26b%3Dc%23d%2Be%20f%25");
        out.clear();
        parameter_name(&mut out, "filter[name]&");
        assert_eq!(out, "filter[name]%26");
    }

    #[test]
    fn a_header_value_is_one_line_of_ascii() {
        assert!(header_value("a b~").is_ok());
        for text in ["a\r\nX: y", "a\nb", "a\0", "é", "\u{7f}"] {
            assert_eq!(
                header_value(text),
                Err(EncodeError::HeaderCharacter),
                "{text:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn encoded_text_is_unreserved_or_escaped_and_decodes_back(text in ".{0,24}") {
            let mut out = String::new();
            component(&mut out, &text);
            prop_assert!(out.bytes().all(|b| unreserved(b) || b == b'%'));
            let mut decoded = Vec::new();
            let mut bytes = out.bytes();
            while let Some(byte) = bytes.next() {
                decoded.push(if byte == b'%' {
                    let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
                } else {
                    byte
                });
            }
            prop_assert_eq!(decoded, text.as_bytes());
        }
    }
}
