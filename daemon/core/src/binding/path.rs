//! Request paths as a server may read them, and prefixes of them.
//!
//! Owns: [`PathPrefix`] and the check of a finished path. Threat: a path that this code reads as
//! inside the prefix and a server, after decoding, merging slashes, dropping path parameters or
//! decoding twice, reads as outside. So a path with any such spelling is refused instead of
//! normalised.

use std::fmt;

use crate::http::is_path_byte;
use crate::ids::{IdError, by_text};

/// Longest path in bytes.
const MAX_PATH: usize = 8 * 1024;

/// `/`, or segments of unreserved and sub-delimiter characters (RFC 3986 §3.3, no `%`) with a
/// leading and no trailing slash, none of them `.` or `..`; at most 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    /// Takes `text` if it has that form.
    pub fn parse(text: &str) -> Result<PathPrefix, IdError> {
        let rule = "/ or /segment/segment without trailing slash, %, . or ..";
        let plain = text.len() <= 512 && !text.contains('%') && check(text).is_ok();
        if plain && (text == "/" || !text.ends_with('/')) {
            Ok(PathPrefix(text.into()))
        } else {
            Err(IdError::new("path prefix", text, rule))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `path` is the prefix or below it, on a segment border. Judges bytes; `path` must be checked
    /// before.
    pub fn covers(&self, path: &str) -> bool {
        if &*self.0 == "/" {
            return path.starts_with('/');
        }
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

by_text!(PathPrefix, "a path prefix");

/// What makes a path ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// It does not start with a slash.
    NotAbsolute,
    /// It is over 8 KiB.
    TooLong,
    /// A byte that must be encoded, or that ends the path (`?`, `#`, `\`, space, control,
    /// non-ASCII).
    Byte,
    /// A `%` without two hexadecimal digits.
    Percent,
    /// An encoded `.`, `/`, `\`, control character, or an encoded `%` that makes one on a second
    /// decoding.
    Encoded,
    /// `.` or `..`, also before a `;`.
    DotSegment,
    /// Two slashes in a row.
    EmptySegment,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathFault::NotAbsolute => "does not start with /",
            PathFault::TooLong => "is over 8 KiB",
            PathFault::Byte => "holds a character that must be encoded",
            PathFault::Percent => "holds a % without two hexadecimal digits",
            PathFault::Encoded => "holds an encoded dot, slash, backslash or control character",
            PathFault::DotSegment => "holds a . or .. segment",
            PathFault::EmptySegment => "holds an empty segment",
        })
    }
}

/// Accepts an encoded absolute path that has one reading.
pub(super) fn check(path: &str) -> Result<(), PathFault> {
    if path.len() > MAX_PATH {
        return Err(PathFault::TooLong);
    }
    let inner = path.strip_prefix('/').ok_or(PathFault::NotAbsolute)?;
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathFault::EmptySegment);
        }
        check_segment(segment.as_bytes())?;
    }
    Ok(())
}

/// Judges the segment as decoded once, since some servers drop path parameters after decoding.
fn check_segment(segment: &[u8]) -> Result<(), PathFault> {
    let decoded = decode(segment)?;
    let name = decoded.split(|b| *b == b';').next().unwrap_or_default();
    // A name that is empty but for its parameters (`/;x/`) would merge with its neighbours on some
    // servers.
    if name.is_empty() && !segment.is_empty() {
        return Err(PathFault::EmptySegment);
    }
    if name == b"." || name == b".." {
        return Err(PathFault::DotSegment);
    }
    // A `%` with two digits behind it, however each of the three was spelled, is for a second
    // decoding.
    let twice = |w: &[u8]| w[0] == b'%' && hex_pair(&w[1..]).is_some();
    if decoded.windows(3).any(twice) {
        Err(PathFault::Encoded)
    } else {
        Ok(())
    }
}

fn decode(segment: &[u8]) -> Result<Vec<u8>, PathFault> {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let decoded = hex_pair(rest).ok_or(PathFault::Percent)?;
            rest = &rest[2..];
            if matches!(decoded, b'.' | b'/' | b'\\' | 0..=0x1f | 0x7f) {
                return Err(PathFault::Encoded);
            }
            out.push(decoded);
        } else if is_path_byte(byte) {
            out.push(byte);
        } else {
            return Err(PathFault::Byte);
        }
    }
    Ok(out)
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let mut out = [0];
    hex::decode_to_slice(bytes.get(..2)?, &mut out).ok()?;
    Some(out[0])
}
