//! The one pass over the bytes: recursive descent, bounded in depth. No I/O.

use std::collections::HashSet;

use super::{JsonError, Kind, MAX_DEPTH, Node, Value};
use crate::room::Room;

/// Objects with more members than this find a repeated name with a set instead of pairwise.
const PAIRWISE: usize = 12;
/// What such a set uses for a name, in bytes, at most.
const SET_ENTRY: usize = 64;

/// The values of `text`, whitespace around the outermost allowed.
pub(super) fn parse(text: &str, room: &mut Room) -> Result<Vec<Node>, JsonError> {
    if u32::try_from(text.len()).is_err() {
        return Err(JsonError::TooLong);
    }
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        nodes: room.list(text.len() / 12 + 1),
        room,
    };
    parser.space();
    parser.value(0)?;
    parser.space();
    match parser.at == text.len() {
        true => Ok(parser.nodes),
        false => Err(JsonError::Syntax(parser.at)),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The same text as bytes.
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    room: &'a mut Room,
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
    fn leaf(&mut self, kind: Kind, flag: bool, start: usize) -> Result<(), JsonError> {
        let next = self.nodes.len() as u32 + 1;
        let (start, end) = (start as u32, self.at as u32);
        let node = Node {
            kind,
            flag,
            start,
            end,
            next,
            count: 0,
        };
        Ok(self.room.push(&mut self.nodes, node)?)
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
        self.leaf(kind, false, start)
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Array)?;
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
        let index = self.open(Kind::Object)?;
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

    fn open(&mut self, kind: Kind) -> Result<usize, JsonError> {
        let index = self.nodes.len();
        self.leaf(kind, false, self.at)?;
        self.at += 1;
        Ok(index)
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
        if object.count() <= PAIRWISE {
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
            self.room.lends(object.count() * SET_ENTRY)?;
            let mut seen = HashSet::with_capacity(object.count());
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
        self.leaf(Kind::String, escaped, start)
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
        self.leaf(Kind::Number, wide, start)
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
