//! Bounded, escaped excerpts of text that others wrote. Pure functions, no I/O.
//!
//! Owns: [`excerpt`] and [`Pointer`], the only two ways in which hostile text enters an error or an
//! audit field.
//! Promises: the result is bounded in bytes and holds no control character, no line separator and
//! no bidirectional override, so it cannot move a cursor, break a line or reorder what is read.
//! Does not: look for secrets. What could be one is never handed to these functions.

use std::fmt::{self, Write as _};

/// Longest [`Pointer`] in bytes.
pub const MAX_POINTER: usize = 256;
const MAX_SEGMENT: usize = 64;
const ELLIPSIS: char = '…';

/// At most `max` bytes of `text`, with every control or invisible steering character written as
/// `\u{…}`, and `…` at the end where something was cut. `max` below 4 gives an empty text.
pub fn excerpt(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    push_excerpt(&mut out, text, max);
    out
}

fn push_excerpt(out: &mut String, text: &str, max: usize) {
    let limit = out.len() + max;
    let mut cut = out.len(); // the last length at which an ellipsis still fits
    for c in text.chars() {
        if out.len() + ELLIPSIS.len_utf8() <= limit {
            cut = out.len();
        }
        if steers(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
        if out.len() > limit {
            out.truncate(cut);
            if cut + ELLIPSIS.len_utf8() <= limit {
                out.push(ELLIPSIS);
            }
            return;
        }
    }
}

/// Control characters, line and paragraph separators, bidirectional marks and overrides, zero-width
/// characters and tags.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A JSON pointer (RFC 6901) into a value that somebody else sent: bounded by [`MAX_POINTER`], each
/// segment by 64 bytes, and escaped as [`excerpt`] does. For people to read; one that was cut ends
/// in `…` and resolves to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pointer(String);

impl Pointer {
    /// The pointer to the whole value: the empty text.
    pub fn root() -> Pointer {
        Pointer::default()
    }

    /// Adds a member name.
    pub fn push_name(&mut self, name: &str) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        self.push_segment(&escaped);
    }

    /// Adds an array index.
    pub fn push_index(&mut self, index: usize) {
        self.push_segment(&index.to_string());
    }

    fn push_segment(&mut self, segment: &str) {
        if self.0.ends_with(ELLIPSIS) {
            return;
        }
        let before = self.0.len();
        self.0.push('/');
        push_excerpt(&mut self.0, segment, MAX_SEGMENT);
        if self.0.len() > MAX_POINTER - ELLIPSIS.len_utf8() {
            self.0.truncate(before);
            self.0.push(ELLIPSIS);
        }
    }

    /// A pointer that is written already, bounded and escaped as a whole.
    pub fn from_written(text: &str) -> Pointer {
        Pointer(excerpt(text, MAX_POINTER))
    }

    /// The text; empty for the whole value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    /// Writes `(root)` for the whole value, so that an error never ends in nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(root)" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steering_characters_are_written_out() {
        assert_eq!(excerpt("a\nb\u{202e}c", 100), "a\\u{a}b\\u{202e}c");
    }

    #[test]
    fn a_cut_text_ends_in_an_ellipsis_within_its_bound() {
        assert_eq!(excerpt("abcdefgh", 8), "abcdefgh");
        assert_eq!(excerpt("abcdefghi", 8), "abcde…");
        assert_eq!(excerpt("abc", 2), "");
    }

    #[test]
    fn pointer_segments_are_escaped_by_rfc_6901() {
        let mut pointer = Pointer::root();
        assert_eq!(pointer.to_string(), "(root)");
        pointer.push_name("a/b~c");
        pointer.push_index(7);
        assert_eq!(pointer.as_str(), "/a~1b~0c/7");
    }

    #[test]
    fn a_pointer_that_was_cut_grows_no_more() {
        let mut pointer = Pointer::root();
        for _ in 0..100 {
            pointer.push_name("eight888");
        }
        let len = pointer.as_str().len();
        assert!(len <= MAX_POINTER && pointer.as_str().ends_with('…'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_excerpt_is_bounded_and_steers_nothing(text in ".{0,80}", max in 0usize..64) {
            let out = excerpt(&text, max);
            prop_assert!(out.len() <= max);
            prop_assert!(!out.chars().any(steers));
        }
    }
}
