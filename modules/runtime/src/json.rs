//! A JSON text as a flat list of spans: no I/O, no number or string is converted.
//!
//! Owns: [`Doc`], one pass over bytes that others wrote, and [`Value`], a cursor into it.
//! Promises: what is accepted is JSON by RFC 8259 with three rules on top: at most [`MAX_DEPTH`]
//! levels, no member name twice in one object, no unpaired surrogate. A number is kept as the
//! characters that came, so `1.10` leaves as `1.10`; one that no 64-bit integer or no `f64` holds
//! is marked ([`Value::is_wide`]) for the caller to judge. Parsing recurses at most [`MAX_DEPTH`]
//! deep, and the values of all documents of a call stay within its [`Room`].
//! Does not: change anything, nor know what the values mean.

mod parse;

use std::borrow::Cow;

use thiserror::Error;

use crate::room::{NoRoom, Room};

/// Deepest nesting that [`Doc::parse`] follows: what core's scan of a structured result allows.
pub const MAX_DEPTH: usize = mcpist_core::scan::Limits::DEPTH;

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
    /// More values than the call has room for.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
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
    text: Cow<'a, str>,
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
    /// Parses all of `bytes`, whitespace around the value allowed, and keeps them where they are
    /// given away.
    ///
    /// # Errors
    /// [`JsonError`]; after [`JsonError::NoRoom`] the room of the whole call is used up.
    pub fn parse(bytes: impl Into<Cow<'a, [u8]>>, room: &mut Room) -> Result<Doc<'a>, JsonError> {
        let not_utf8 = |error: std::str::Utf8Error| JsonError::Syntax(error.valid_up_to());
        let text = match bytes.into() {
            Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).map_err(not_utf8)?),
            Cow::Owned(bytes) => {
                Cow::Owned(String::from_utf8(bytes).map_err(|e| not_utf8(e.utf8_error()))?)
            }
        };
        let nodes = parse::parse(&text, room)?;
        Ok(Doc { text, nodes })
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        Value {
            text: &self.text,
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
    pub fn count(self) -> usize {
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
            self.count()
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
            self.count()
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

#[cfg(test)]
mod tests;
