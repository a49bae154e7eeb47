//! A JSON text as a flat list of spans: no I/O, no number or string is converted.
//!
//! Owns: [`Doc`], one pass over bytes that others wrote, and [`Value`], a cursor into it.
//! Promises: what is accepted is JSON by RFC 8259 with three rules on top: at most [`MAX_DEPTH`]
//! levels, no member name twice in one object, no unpaired surrogate. A number is kept as the
//! characters that came, so `1.10` leaves as `1.10`; one that no 64-bit integer or no `f64` holds
//! is marked ([`Value::is_wide`]) for the caller to judge. Parsing recurses at most [`MAX_DEPTH`]
//! deep and allocates in proportion to the input.
//! Does not: change anything, nor know what the values mean.

use std::borrow::Cow;
use std::collections::HashSet;

use thiserror::Error;

/// Deepest nesting that [`Doc::parse`] follows: what core's scan of a structured result allows.
pub const MAX_DEPTH: usize = mcpist_core::scan::Limits::DEPTH;
/// Objects with more members than this find a repeated name with a set instead of pairwise.
const PAIRWISE: usize = 12;

/// Why a text is not taken as JSON. Positions are bytes from the start; no content is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Not JSON at this byte.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// More than [`MAX_DEPTH`] levels.
    #[error("more than {MAX_DEPTH} levels deep at byte {0}")]
    TooDeep(usize),
    /// A member name occurs twice in one object.
    #[error("a member name is repeated at byte {0}")]
    Repeated(usize),
    /// Over 4 GiB.
    #[error("too long for one JSON text")]
    TooLong,
}

/// What a [`Value`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, wide or not.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    /// Number: wide. String: has an escape.
    flag: bool,
    start: u32,
    end: u32,
    /// Index of the first node behind this subtree.
    next: u32,
    /// Array: elements. Object: members.
    count: u32,
}

/// A parsed text: the text itself and its nodes in order of appearance. Member names are nodes too.
#[derive(Debug)]
pub struct Doc<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value of a [`Doc`].
#[derive(Debug, Clone, Copy)]
pub struct Value<'d> {
    text: &'d str,
    nodes: &'d [Node],
    at: usize,
}

impl<'a> Doc<'a> {
    /// Parses all of `bytes`, whitespace around the value allowed.
    pub fn parse(bytes: &'a [u8]) -> Result<Doc<'a>, JsonError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(JsonError::TooLong);
        }
        let text =
            std::str::from_utf8(bytes).map_err(|error| JsonError::Syntax(error.valid_up_to()))?;
        let nodes = Vec::with_capacity(bytes.len() / 12 + 1);
        let mut parser = Parser {
            text,
            bytes,
            at: 0,
            nodes,
        };
        parser.space();
        parser.value(0)?;
        parser.space();
        match parser.at == bytes.len() {
            true => Ok(Doc {
                text,
                nodes: parser.nodes,
            }),
            false => Err(JsonError::Syntax(parser.at)),
        }
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        Value {
            text: self.text,
            nodes: &self.nodes,
            at: 0,
        }
    }
}

impl<'d> Value<'d> {
    fn node(self) -> Node {
        self.nodes[self.at]
    }

    fn at(self, at: usize) -> Value<'d> {
        Value { at, ..self }
    }

    fn next(self) -> usize {
        self.node().next as usize
    }

    /// What this value is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The characters of the value as they came.
    pub fn raw(self) -> &'d str {
        let node = self.node();
        &self.text[node.start as usize..node.end as usize]
    }

    /// The very same place of the same text.
    pub fn same(self, other: Value<'_>) -> bool {
        self.at == other.at && std::ptr::eq(self.text, other.text)
    }

    /// A number outside the 64-bit integers, or one that overflows an `f64`.
    pub fn is_wide(self) -> bool {
        let node = self.node();
        node.kind == Kind::Number && node.flag
    }

    /// Number of elements or members; zero for everything else.
    pub fn len(self) -> usize {
        self.node().count as usize
    }

    /// The decoded string, or `None` for any other kind.
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        let node = self.node();
        if node.kind != Kind::String {
            return None;
        }
        let raw = self.raw();
        if node.flag {
            // The parser checked every escape, so this decodes.
            serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(&raw[1..raw.len() - 1]))
        }
    }

    /// The elements of an array; nothing for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Value<'d>> {
        let left = if self.kind() == Kind::Array {
            self.len()
        } else {
            0
        };
        let mut at = self.at + 1;
        (0..left).map(move |_| {
            let element = self.at(at);
            at = element.next();
            element
        })
    }

    /// The members of an object as (name, value), the name a string value; nothing for other kinds.
    pub fn members(self) -> impl Iterator<Item = (Value<'d>, Value<'d>)> {
        let left = if self.kind() == Kind::Object {
            self.len()
        } else {
            0
        };
        let mut at = self.at + 1;
        (0..left).map(move |_| {
            let name = self.at(at);
            let value = self.at(at + 1);
            at = value.next();
            (name, value)
        })
    }

    /// The member with this name.
    pub fn get(self, name: &str) -> Option<Value<'d>> {
        self.members()
            .find(|(key, _)| key.as_str().as_deref() == Some(name))
            .map(|(_, v)| v)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The same text as bytes.
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn syntax<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }

    /// Adds a leaf that began at `start` and ends here.
    fn leaf(&mut self, kind: Kind, flag: bool, start: usize) {
        let next = self.nodes.len() as u32 + 1;
        let (start, end) = (start as u32, self.at as u32);
        self.nodes.push(Node {
            kind,
            flag,
            start,
            end,
            next,
            count: 0,
        });
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(JsonError::TooDeep(start)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Kind::Bool),
            Some(b'f') => self.word(b"false", Kind::Bool),
            Some(b'n') => self.word(b"null", Kind::Null),
            _ => self.syntax(),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), JsonError> {
        let start = self.at;
        if !self.bytes[start..].starts_with(word) {
            return self.syntax();
        }
        self.at += word.len();
        self.leaf(kind, false, start);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Array);
        let mut count = 0;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.space();
                self.value(depth + 1)?;
                count += 1;
                if self.separator(b']')? {
                    break;
                }
            }
        }
        self.close(index, count);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Object);
        let mut count = 0;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return self.syntax();
                }
                self.string()?;
                self.space();
                if self.peek() != Some(b':') {
                    return self.syntax();
                }
                self.at += 1;
                self.space();
                self.value(depth + 1)?;
                count += 1;
                if self.separator(b'}')? {
                    break;
                }
            }
        }
        self.close(index, count);
        self.names_differ(index)
    }

    /// Passes a `,` (false) or the closing byte (true).
    fn separator(&mut self, close: u8) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(byte) if byte == close || byte == b',' => {
                self.at += 1;
                Ok(byte == close)
            }
            _ => self.syntax(),
        }
    }

    fn open(&mut self, kind: Kind) -> usize {
        let index = self.nodes.len();
        self.leaf(kind, false, self.at);
        self.at += 1;
        index
    }

    fn close(&mut self, index: usize, count: u32) {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[index];
        (node.end, node.next, node.count) = (self.at as u32, next, count);
    }

    fn names_differ(&self, index: usize) -> Result<(), JsonError> {
        let object = Value {
            text: self.text,
            nodes: &self.nodes,
            at: index,
        };
        let repeated = |name: Value<'_>| Err(JsonError::Repeated(name.node().start as usize));
        if object.len() <= PAIRWISE {
            for (i, (name, _)) in object.members().enumerate() {
                if object
                    .members()
                    .take(i)
                    .any(|(other, _)| same_name(name, other))
                {
                    return repeated(name);
                }
            }
        } else {
            let mut seen = HashSet::with_capacity(object.len());
            for (name, _) in object.members() {
                if !seen.insert(name.as_str()) {
                    return repeated(name);
                }
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                _ => return self.syntax(),
            }
        }
        self.at += 1;
        self.leaf(Kind::String, escaped, start);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.unit()? {
                0xDC00..=0xDFFF => self.syntax(),
                0xD800..=0xDBFF => match self.unit()? {
                    0xDC00..=0xDFFF => Ok(()),
                    _ => self.syntax(),
                },
                _ => Ok(()),
            },
            _ => self.syntax(),
        }
    }

    /// Reads one `\uXXXX`.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let Some([b'\\', b'u', digits @ ..]) = self.bytes.get(self.at..self.at + 6) else {
            return self.syntax();
        };
        let mut unit = 0;
        for digit in digits {
            match char::from(*digit).to_digit(16) {
                Some(value) => unit = unit * 16 + value,
                None => return self.syntax(),
            }
        }
        self.at += 6;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let wide = wide(&self.text[start..self.at], integer);
        self.leaf(Kind::Number, wide, start);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            self.syntax()
        } else {
            Ok(())
        }
    }
}

/// Whether no 64-bit integer (or, for a decimal, no `f64`) holds this number.
fn wide(number: &str, integer: bool) -> bool {
    match integer {
        true if number.len() <= 18 => false,
        true => number.parse::<i64>().is_err() && number.parse::<u64>().is_err(),
        false => !number.parse::<f64>().is_ok_and(f64::is_finite),
    }
}

fn same_name(a: Value<'_>, b: Value<'_>) -> bool {
    if a.node().flag || b.node().flag {
        a.as_str() == b.as_str()
    } else {
        a.raw() == b.raw()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> JsonError {
        Doc::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn malformed_texts_are_refused_where_they_break() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 5),
            ("{a:1}", 1),
            ("01", 1),
            ("1.", 2),
            ("1e", 2),
            ("-", 1),
            ("+1", 0),
            ("nul", 0),
            ("\"a", 2),
            ("\"\n\"", 1),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("\"\\ud800\"", 7),
            ("\"\\ud800\\u0041\"", 13),
            ("\"\\udc00\"", 7),
            ("1 2", 2),
            ("\u{feff}1", 0),
        ] {
            assert_eq!(error(text), JsonError::Syntax(at), "{text}");
        }
        assert_eq!(Doc::parse(b"\"\xff\"").unwrap_err(), JsonError::Syntax(1));
    }

    #[test]
    fn a_repeated_name_is_seen_however_it_is_written() {
        assert!(matches!(
            error(r#"{"a":1,"b":2,"a":3}"#),
            JsonError::Repeated(13)
        ));
        assert!(matches!(
            error(r#"{"a":1,"\u0061":3}"#),
            JsonError::Repeated(7)
        ));
        let many: Vec<String> = (0..40).map(|i| format!("\"k{}\":0", i % 39)).collect();
        assert!(matches!(
            error(&format!("{{{}}}", many.join(","))),
            JsonError::Repeated(_)
        ));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Doc::parse(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(error(&deep(MAX_DEPTH + 1)), JsonError::TooDeep(MAX_DEPTH));
        assert!(matches!(
            error(&"[".repeat(1_000_000)),
            JsonError::TooDeep(_)
        ));
    }

    #[test]
    fn wide_numbers_are_marked_and_kept() {
        for (text, expected) in [
            ("9223372036854775807", false),
            ("-9223372036854775808", false),
            ("18446744073709551615", false),
            ("18446744073709551616", true),
            ("-9223372036854775809", true),
            ("1e308", false),
            ("1e309", true),
            ("1.10", false),
        ] {
            let doc = Doc::parse(text.as_bytes()).unwrap();
            assert_eq!(doc.root().is_wide(), expected, "{text}");
            assert_eq!(doc.root().raw(), text);
        }
    }

    #[test]
    fn members_and_elements_are_walked_in_order() {
        let doc = Doc::parse(br#" {"a" : [1, {"x":[]}, "q\n"], "b":null} "#).unwrap();
        let a = doc.root().get("a").unwrap();
        let raws: Vec<_> = a.elements().map(Value::raw).collect();
        assert_eq!(raws, ["1", r#"{"x":[]}"#, r#""q\n""#]);
        assert_eq!(a.elements().nth(2).unwrap().as_str().unwrap(), "q\n");
        assert_eq!(doc.root().get("b").unwrap().kind(), Kind::Null);
        assert!(doc.root().get("c").is_none());
        assert!(a.get("a").is_none());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(|f| serde_json::json!(f)),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn rebuild(value: Value<'_>) -> serde_json::Value {
        match value.kind() {
            Kind::Array => value.elements().map(rebuild).collect(),
            Kind::Object => serde_json::Value::Object(
                value
                    .members()
                    .map(|(k, v)| (k.as_str().unwrap().into_owned(), rebuild(v)))
                    .collect(),
            ),
            _ => serde_json::from_str(value.raw()).unwrap(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_serde_writes_reads_back_the_same(value in json()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let doc = Doc::parse(text.as_bytes()).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(rebuild(doc.root()), expected);
        }

        #[test]
        fn any_bytes_are_an_error_or_agree_with_serde(bytes in prop::collection::vec(
            prop::sample::select(b"{}[]\",:\\u0d8e1.-+ntrufalsx \xc3\xa9".to_vec()), 0..24)) {
            if Doc::parse(&bytes).is_ok() {
                prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).is_ok());
            }
        }
    }
}
