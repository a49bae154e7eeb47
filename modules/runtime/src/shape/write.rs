//! The result as compact JSON text, bounded in bytes and in items of every array. Pure, no I/O.
//!
//! Owns: [`write`]. Promises: numbers and strings are copied as they came; writing stops soon after
//! the limit. Does not: decide what to do about a result that is over it.

use super::Source;
use super::picked::Out;
use crate::json::{Kind, Value};
use crate::template::push_string;

/// Shortened arrays that are named; the others only count.
const NAMED_CUTS: usize = 4;

/// What was written.
pub(super) struct Written {
    pub(super) json: Vec<u8>,
    /// The limit was passed and the rest is missing.
    pub(super) over: bool,
    /// The longest array that was met.
    pub(super) longest: usize,
    pub(super) wide: Option<String>,
    /// What was left out of arrays, in words.
    pub(super) cuts: Vec<String>,
}

/// Writes `out` with at most `cap` items of each array, and gives up after `max_bytes`.
pub(super) fn write(
    source: &Source<'_>,
    out: &Out<'_, '_>,
    cap: usize,
    max_bytes: usize,
) -> Written {
    let mut writer = Writer {
        source,
        cap,
        max_bytes,
        json: Vec::with_capacity(1024.min(max_bytes)),
        path: Vec::new(),
        longest: 0,
        wide: None,
        cuts: Vec::new(),
        more_cuts: 0,
    };
    writer.out(out);
    let mut cuts = writer.cuts;
    if writer.more_cuts > 0 {
        cuts.push(format!("{} more lists are shortened", writer.more_cuts));
    }
    Written {
        over: writer.json.len() > max_bytes,
        json: writer.json,
        longest: writer.longest,
        wide: writer.wide,
        cuts,
    }
}

#[derive(Clone, Copy)]
enum Place<'d> {
    /// A member's name, decoded.
    Name(&'d str),
    /// A member's name as a string of the answer.
    Key(Value<'d>),
    Index(usize),
}

struct Writer<'w, 'd> {
    source: &'w Source<'d>,
    cap: usize,
    max_bytes: usize,
    json: Vec<u8>,
    path: Vec<Place<'w>>,
    longest: usize,
    wide: Option<String>,
    cuts: Vec<String>,
    more_cuts: usize,
}

impl<'w, 'd: 'w> Writer<'w, 'd> {
    fn full(&self) -> bool {
        self.json.len() > self.max_bytes
    }

    fn out(&mut self, out: &'w Out<'d, '_>) {
        match out {
            Out::Empty => self.json.extend_from_slice(b"null"),
            Out::Value(value) => self.value(*value),
            Out::Array(items) => {
                self.array(items.len(), items.iter(), |writer, item| writer.out(item))
            }
            Out::Object(members) => self.object(members.iter(), |writer, (name, value)| {
                push_string(&mut writer.json, name);
                writer.json.push(b':');
                writer.path.push(Place::Name(name));
                writer.out(value);
            }),
        }
    }

    fn value(&mut self, value: Value<'d>) {
        match value.kind() {
            Kind::Array => {
                let source = self.source;
                self.array(source.len(value), source.elements(value), Writer::value);
            }
            Kind::Object => self.object(value.members(), |writer, (name, value)| {
                writer.json.extend_from_slice(name.raw().as_bytes());
                writer.json.push(b':');
                writer.path.push(Place::Key(name));
                writer.value(value);
            }),
            _ => {
                if value.is_wide() && self.wide.is_none() {
                    self.wide = Some(self.pointer());
                }
                self.json.extend_from_slice(value.raw().as_bytes());
            }
        }
    }

    fn array<T>(
        &mut self,
        len: usize,
        items: impl Iterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.longest = self.longest.max(len);
        self.json.push(b'[');
        for (index, item) in items.take(self.cap).enumerate() {
            if self.full() {
                return;
            }
            if index > 0 {
                self.json.push(b',');
            }
            self.path.push(Place::Index(index));
            each(self, item);
            self.path.pop();
        }
        self.json.push(b']');
        if len > self.cap {
            self.note_cut(len);
        }
    }

    /// `each` leaves the member's name on the path.
    fn object<T>(&mut self, members: impl Iterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.json.push(b'{');
        for (index, member) in members.enumerate() {
            if self.full() {
                return;
            }
            if index > 0 {
                self.json.push(b',');
            }
            each(self, member);
            self.path.pop();
        }
        self.json.push(b'}');
    }

    fn note_cut(&mut self, len: usize) {
        if self.cuts.len() < NAMED_CUTS {
            self.cuts
                .push(format!("{}: {} of {len} items", self.pointer(), self.cap));
        } else {
            self.more_cuts += 1;
        }
    }

    fn pointer(&self) -> String {
        let mut pointer = mcpist_core::text::Pointer::root();
        for place in &self.path {
            match place {
                Place::Name(name) => pointer.push_name(name),
                Place::Key(name) => pointer.push_name(&name.as_str().unwrap_or_default()),
                Place::Index(index) => pointer.push_index(*index),
            }
        }
        pointer.to_string()
    }
}
