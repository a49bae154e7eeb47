//! One strict pass over raw JSON bytes, before any parser sees them. No I/O, no recursion.
//!
//! Owns: the rules that a JSON text from outside must keep: RFC 8259 syntax, valid UTF-8, paired
//! surrogates, bounded length and depth, no duplicate member in an object, no integer outside
//! `i64`/`u64` and no number that overflows `f64`.
//! Promises: what passes here parses with serde_json into a value that says the same as the bytes
//! (a decimal becomes the nearest `f64`). Work is linear in the input but for a sort of each
//! object's own names; memory is the nesting depth plus twelve bytes for each name of the objects
//! that are open. A text over its length limit costs nothing, one over its depth limit costs only
//! the bytes up to there.
//! Does not: build a value, or repeat one: an error carries a place, never what stands there.

use std::borrow::Cow;

use thiserror::Error;

use crate::text::Pointer;

#[cfg(test)]
mod tests;

/// What a text may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest text in bytes; whatever it says, a text of 4 GiB or more is refused.
    pub max_bytes: usize,
    /// Deepest nesting of arrays and objects. serde_json itself stops at 128.
    pub max_depth: usize,
}

impl Limits {
    /// Nesting that every text of ours and every tool's arguments stay under.
    pub const DEPTH: usize = 64;

    /// At most `max_bytes`, and the default depth.
    pub const fn bytes(max_bytes: usize) -> Limits {
        Limits {
            max_bytes,
            max_depth: Limits::DEPTH,
        }
    }
}

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScanError {
    /// Longer than the limit.
    #[error("{length} bytes of JSON are over the limit of {limit}: send less")]
    TooLong {
        /// Bytes there are.
        length: usize,
        /// Bytes there may be.
        limit: usize,
    },
    /// Nested deeper than the limit.
    #[error("{path} is nested deeper than {limit} levels: flatten it")]
    TooDeep {
        /// Levels there may be.
        limit: usize,
        /// The first value over the limit.
        path: Pointer,
    },
    /// An object names one member twice.
    #[error("{path} appears twice in its object: send it once")]
    DuplicateKey {
        /// The member.
        path: Pointer,
    },
    /// A number that no `i64`, `u64` or finite `f64` holds.
    #[error("{path} is a number out of range: send it as a string")]
    NumberRange {
        /// The number.
        path: Pointer,
    },
    /// Not JSON in UTF-8.
    #[error("not JSON at byte {offset}: {reason}")]
    NotJson {
        /// Offset of the byte that breaks the rule, from 0.
        offset: usize,
        /// Which rule.
        reason: Malformed,
    },
}

/// The rule of RFC 8259 (or RFC 3629) that a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The text ends too early.
    #[error("the text ends here")]
    Truncated,
    /// A byte that cannot stand here.
    #[error("this byte cannot stand here")]
    Unexpected,
    /// A second value after the first.
    #[error("something follows the value")]
    Trailing,
    /// A raw control character in a string.
    #[error("a control character in a string must be escaped")]
    Control,
    /// An escape that JSON does not have.
    #[error("no such escape")]
    Escape,
    /// Half of a surrogate pair.
    #[error("half a surrogate pair")]
    Surrogate,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    Utf8,
}

/// Checks that `raw` is exactly one JSON value that keeps the rules of this module.
///
/// # Errors
/// The first rule broken, in the order of the bytes; a duplicate member is found where its object
/// ends.
pub fn scan(raw: &[u8], limits: &Limits) -> Result<(), ScanError> {
    let limit = limits.max_bytes.min(u32::MAX as usize);
    if raw.len() > limit {
        return Err(ScanError::TooLong {
            length: raw.len(),
            limit,
        });
    }
    Scanner {
        raw,
        at: 0,
        max_depth: limits.max_depth,
        open: Vec::new(),
        names: Vec::new(),
    }
    .run()
}

/// An array or object that is not closed yet.
enum Open {
    Array { index: usize },
    Object { first_name: usize, this_name: usize },
}

/// A member name: where it stands between its quotes, and whether it holds an escape.
#[derive(Clone, Copy)]
struct Name {
    start: u32,
    len: u32,
    escaped: bool,
}

struct Scanner<'a> {
    raw: &'a [u8],
    at: usize,
    max_depth: usize,
    open: Vec<Open>,
    names: Vec<Name>,
}

impl Scanner<'_> {
    fn run(mut self) -> Result<(), ScanError> {
        loop {
            // A value is due here.
            match self.next()? {
                b'{' => {
                    self.enter(Open::Object {
                        first_name: self.names.len(),
                        this_name: self.names.len(),
                    })?;
                    if self.peek()? == b'}' {
                        self.at += 1;
                    } else {
                        self.member()?;
                        continue;
                    }
                    self.open.pop();
                }
                b'[' => {
                    self.enter(Open::Array { index: 0 })?;
                    if self.peek()? == b']' {
                        self.at += 1;
                    } else {
                        continue;
                    }
                    self.open.pop();
                }
                b'"' => {
                    self.string()?;
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                b'-' | b'0'..=b'9' => {
                    self.at -= 1;
                    self.number()?;
                }
                _ => return Err(self.not_json(self.at - 1, Malformed::Unexpected)),
            }
            // A value has ended: close what ends with it, or go on to the next one.
            if self.after_value()? {
                return Ok(());
            }
        }
    }

    /// True when the whole text has ended; false when another value is due.
    fn after_value(&mut self) -> Result<bool, ScanError> {
        loop {
            let Some(top) = self.open.last_mut() else {
                self.skip_space();
                return match self.raw.get(self.at) {
                    None => Ok(true),
                    Some(_) => Err(self.not_json(self.at, Malformed::Trailing)),
                };
            };
            match top {
                Open::Array { index } => {
                    let step = *index + 1;
                    match self.next()? {
                        b',' => {
                            if let Some(Open::Array { index }) = self.open.last_mut() {
                                *index = step;
                            }
                            return Ok(false);
                        }
                        b']' => {}
                        _ => return Err(self.not_json(self.at - 1, Malformed::Unexpected)),
                    }
                }
                Open::Object { first_name, .. } => {
                    let first_name = *first_name;
                    match self.next()? {
                        b',' => {
                            self.member()?;
                            return Ok(false);
                        }
                        b'}' => self.close_object(first_name)?,
                        _ => return Err(self.not_json(self.at - 1, Malformed::Unexpected)),
                    }
                }
            }
            self.open.pop();
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), ScanError> {
        if self.open.len() >= self.max_depth {
            return Err(ScanError::TooDeep {
                limit: self.max_depth,
                path: self.path(),
            });
        }
        self.open.push(open);
        Ok(())
    }

    /// Reads `"name" :` and makes it the current member of the innermost object.
    fn member(&mut self) -> Result<(), ScanError> {
        if self.next()? != b'"' {
            return Err(self.not_json(self.at - 1, Malformed::Unexpected));
        }
        let start = self.at;
        let escaped = self.string()?;
        // The text is shorter than 4 GiB, so both fit.
        let name = Name {
            start: start as u32,
            len: (self.at - 1 - start) as u32,
            escaped,
        };
        if let Some(Open::Object { this_name, .. }) = self.open.last_mut() {
            *this_name = self.names.len();
        }
        self.names.push(name);
        if self.next()? != b':' {
            return Err(self.not_json(self.at - 1, Malformed::Unexpected));
        }
        Ok(())
    }

    /// Refuses two equal names among those of the object that ends here, and forgets them.
    fn close_object(&mut self, first: usize) -> Result<(), ScanError> {
        let raw = self.raw;
        let names = &mut self.names[first..];
        let twin = if names.len() <= 8 {
            let earlier = |(i, name): (usize, &Name)| {
                names[..i]
                    .iter()
                    .any(|other| equal(raw, other, name))
                    .then_some(*name)
            };
            names.iter().enumerate().find_map(earlier)
        } else {
            if names.iter().any(|name| name.escaped) {
                names.sort_by_cached_key(|name| decoded(raw, name));
            } else {
                names.sort_unstable_by(|a, b| bytes_of(raw, a).cmp(bytes_of(raw, b)));
            }
            let mut pairs = names.windows(2);
            pairs
                .find(|pair| equal(raw, &pair[0], &pair[1]))
                .map(|pair| pair[0])
        };
        if let Some(twin) = twin {
            self.open.pop();
            let mut path = self.path();
            path.push_name(&decoded(raw, &twin));
            return Err(ScanError::DuplicateKey { path });
        }
        self.names.truncate(first);
        Ok(())
    }

    /// Reads to the closing quote; the opening one is behind. True when an escape was seen.
    fn string(&mut self) -> Result<bool, ScanError> {
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            let rest = &self.raw[self.at..];
            let plain = rest
                .iter()
                .position(|b| STOP[usize::from(*b)])
                .unwrap_or(rest.len());
            self.at += plain;
            match self.raw.get(self.at).copied() {
                None => return Err(self.not_json(self.at, Malformed::Truncated)),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x80..) => {
                    ascii = false;
                    let rest = &self.raw[self.at..];
                    self.at += rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
                }
                Some(_) => return Err(self.not_json(self.at, Malformed::Control)),
            }
        }
        if !ascii && let Err(error) = std::str::from_utf8(&self.raw[start..self.at]) {
            return Err(self.not_json(start + error.valid_up_to(), Malformed::Utf8));
        }
        self.at += 1;
        Ok(escaped)
    }

    /// Reads one escape from its backslash on, with the second half of a surrogate pair.
    fn escape(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        match self.raw.get(start + 1).copied() {
            None => return Err(self.not_json(start + 1, Malformed::Truncated)),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit(start)?;
                self.at += 6;
                match unit {
                    0xdc00..=0xdfff => return Err(self.not_json(start, Malformed::Surrogate)),
                    0xd800..=0xdbff => {
                        if !self.raw[self.at..].starts_with(b"\\u")
                            || !(0xdc00..=0xdfff).contains(&self.unit(self.at)?)
                        {
                            return Err(self.not_json(start, Malformed::Surrogate));
                        }
                        self.at += 6;
                    }
                    _ => {}
                }
            }
            Some(_) => return Err(self.not_json(start + 1, Malformed::Escape)),
        }
        Ok(())
    }

    /// The UTF-16 unit of the `\uXXXX` at `start`.
    fn unit(&self, start: usize) -> Result<u16, ScanError> {
        let mut unit = 0u16;
        for at in start + 2..start + 6 {
            let digit = match self.raw.get(at) {
                None => return Err(self.not_json(at, Malformed::Truncated)),
                Some(byte) => char::from(*byte).to_digit(16),
            };
            match digit {
                None => return Err(self.not_json(at, Malformed::Escape)),
                Some(digit) => unit = unit << 4 | digit as u16,
            }
        }
        Ok(unit)
    }

    /// Reads a number and judges its range.
    fn number(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        let negative = self.raw.get(start) == Some(&b'-');
        self.at += usize::from(negative);
        let whole = self.at;
        let digits = self.digits()?;
        if digits > 1 && self.raw[whole] == b'0' {
            return Err(self.not_json(whole + 1, Malformed::Unexpected));
        }
        let mut integer = true;
        if self.raw.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        let mut exponent = false;
        if let Some(b'e' | b'E') = self.raw.get(self.at) {
            integer = false;
            exponent = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.raw.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        let fits = if integer {
            fits_64_bits(&self.raw[whole..self.at], negative)
        } else if !exponent && digits <= 308 {
            true // below 10^308, and f64 ends at 1.79 × 10^308
        } else {
            // All of it is ASCII by now.
            std::str::from_utf8(&self.raw[start..self.at])
                .ok()
                .and_then(|text| text.parse::<f64>().ok())
                .is_some_and(f64::is_finite)
        };
        if fits {
            Ok(())
        } else {
            Err(ScanError::NumberRange { path: self.path() })
        }
    }

    /// Reads at least one digit and says how many.
    fn digits(&mut self) -> Result<usize, ScanError> {
        let rest = &self.raw[self.at..];
        let count = rest
            .iter()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(rest.len());
        self.at += count;
        match (count, self.raw.get(self.at)) {
            (0, None) => Err(self.not_json(self.at, Malformed::Truncated)),
            (0, Some(_)) => Err(self.not_json(self.at, Malformed::Unexpected)),
            _ => Ok(count),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), ScanError> {
        for expected in rest {
            match self.raw.get(self.at) {
                Some(byte) if byte == expected => self.at += 1,
                Some(_) => return Err(self.not_json(self.at, Malformed::Unexpected)),
                None => return Err(self.not_json(self.at, Malformed::Truncated)),
            }
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.raw.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte after white space, not taken.
    fn peek(&mut self) -> Result<u8, ScanError> {
        self.skip_space();
        self.raw
            .get(self.at)
            .copied()
            .ok_or(self.not_json(self.at, Malformed::Truncated))
    }

    /// The next byte after white space, taken.
    fn next(&mut self) -> Result<u8, ScanError> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn not_json(&self, offset: usize, reason: Malformed) -> ScanError {
        ScanError::NotJson { offset, reason }
    }

    /// Where the value that is being read stands.
    fn path(&self) -> Pointer {
        let mut path = Pointer::root();
        for open in &self.open {
            match open {
                Open::Array { index } => path.push_index(*index),
                Open::Object { this_name, .. } => {
                    if let Some(name) = self.names.get(*this_name) {
                        path.push_name(&decoded(self.raw, name));
                    }
                }
            }
        }
        path
    }
}

/// The bytes at which the fast path through a string stops.
const STOP: [bool; 256] = {
    let mut stop = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        stop[byte] = byte < 0x20 || byte >= 0x80 || byte == b'"' as usize || byte == b'\\' as usize;
        byte += 1;
    }
    stop
};

/// Whether digits without a leading zero fit an `i64` or a `u64`.
fn fits_64_bits(digits: &[u8], negative: bool) -> bool {
    let limit: u64 = if negative {
        i64::MIN.unsigned_abs()
    } else {
        u64::MAX
    };
    let mut value = 0u64;
    digits.iter().all(|digit| {
        match value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit - b'0')))
        {
            Some(next) if next <= limit => {
                value = next;
                true
            }
            _ => false,
        }
    })
}

fn bytes_of<'a>(raw: &'a [u8], name: &Name) -> &'a [u8] {
    &raw[name.start as usize..][..name.len as usize]
}

/// Whether two names say the same, whichever way they are written.
fn equal(raw: &[u8], a: &Name, b: &Name) -> bool {
    if a.escaped || b.escaped {
        decoded(raw, a) == decoded(raw, b)
    } else {
        bytes_of(raw, a) == bytes_of(raw, b)
    }
}

/// What a name says once its escapes are resolved. The name has passed [`Scanner::string`].
fn decoded<'a>(raw: &'a [u8], name: &Name) -> Cow<'a, str> {
    let written = bytes_of(raw, name);
    if !name.escaped {
        return String::from_utf8_lossy(written);
    }
    let quoted = &raw[name.start as usize - 1..][..name.len as usize + 2];
    match serde_json::from_slice::<String>(quoted) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(written),
    }
}
