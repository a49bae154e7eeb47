//! A service's answer becomes what the client reads: picked, renamed, bounded. Pure, no I/O.
//!
//! Owns: [`Source`], the answer with its further pages; [`shape`], which picks and writes it; and
//! [`find`], one place by a path.
//! Promises: what is not picked is not written; a value that is written keeps its characters (only
//! whitespace between them goes); the text is at most the given number of bytes, and whatever was
//! left out is said in [`Shaped::notes`]. A result that is too long loses the tails of its arrays
//! first, so that what is left is still JSON; only where that does not help is the text cut.
//! Does not: redact (egress did before), nor read anything but JSON.

mod picked;
mod write;

use mcpist_core::http::{JsonPath, Response, Step};

use crate::json::{Doc, Kind, Value};
use crate::room::{NoRoom, Room};
use picked::Out;
use write::Written;

/// An answer of one or more pages: the first page, in which the array at one path goes on with the
/// arrays at the same path in the other pages.
#[derive(Debug)]
pub struct Source<'d> {
    root: Value<'d>,
    joined: Option<Value<'d>>,
    rest: Vec<Value<'d>>,
}

impl<'d> Source<'d> {
    /// An answer of one page.
    pub fn single(doc: &'d Doc<'_>) -> Source<'d> {
        Source {
            root: doc.root(),
            joined: None,
            rest: Vec::new(),
        }
    }

    /// An answer whose array at `items` goes on in `others`.
    pub fn paged(first: &'d Doc<'_>, others: &'d [Doc<'_>], items: &JsonPath) -> Source<'d> {
        let array =
            |doc: &'d Doc<'_>| find(doc.root(), items).filter(|value| value.kind() == Kind::Array);
        let joined = array(first);
        let rest = if joined.is_some() {
            others.iter().filter_map(array).collect()
        } else {
            Vec::new()
        };
        Source {
            root: first.root(),
            joined,
            rest,
        }
    }

    fn is_joined(&self, array: Value<'_>) -> bool {
        self.joined.is_some_and(|joined| joined.same(array))
    }

    /// How many elements the array has over all pages.
    fn len(&self, array: Value<'_>) -> usize {
        let more: usize = match self.is_joined(array) {
            true => self.rest.iter().map(|value| value.count()).sum(),
            false => 0,
        };
        array.count() + more
    }

    /// The elements of the array over all pages.
    fn elements<'s>(&'s self, array: Value<'d>) -> impl Iterator<Item = Value<'d>> + use<'s, 'd> {
        let rest: &[Value<'d>] = if self.is_joined(array) {
            &self.rest
        } else {
            &[]
        };
        array
            .elements()
            .chain(rest.iter().flat_map(|value| value.elements()))
    }
}

/// The value at `path`, which has no `*`.
pub fn find<'d>(root: Value<'d>, path: &JsonPath) -> Option<Value<'d>> {
    path.steps()
        .iter()
        .try_fold(root, |value, step| match step {
            Step::Name(name) => value.get(name),
            Step::Index(index) => value.elements().nth(*index as usize),
            Step::Each => None,
        })
}

/// What [`shape`] made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shaped {
    /// The JSON text, or its beginning when `cut`.
    pub json: Vec<u8>,
    /// The text was cut, and is no JSON any more.
    pub cut: bool,
    /// The result is an object.
    pub object: bool,
    /// The path of the first number that no 64-bit integer or no `f64` holds.
    pub wide: Option<String>,
    /// What was left out, for the reader; empty when all is there.
    pub notes: Vec<String>,
}

/// Picks what `response` names from `source` and writes at most `max_bytes` of it.
///
/// # Errors
/// [`NoRoom`] when more was picked than there is room for.
pub fn shape(
    source: &Source<'_>,
    response: &Response,
    max_bytes: usize,
    room: &mut Room,
) -> Result<Shaped, NoRoom> {
    let limit = response.max_items.map_or(usize::MAX, |n| n as usize);
    let (out, mut notes) = match response.pick.is_empty() {
        true => (Out::Value(source.root), Vec::new()),
        false => picked::pick(source, &response.pick, room)?,
    };
    let object = out.is_object();
    let mut written = write::write(source, &out, limit, max_bytes);
    let mut cap = written.longest.min(limit);
    while written.over && cap > 1 {
        cap /= 2;
        written = write::write(source, &out, cap, max_bytes);
    }
    let Written {
        mut json,
        over,
        wide,
        cuts,
        ..
    } = written;
    notes.extend(cuts);
    if over {
        json.truncate(boundary(&json, max_bytes));
        notes.push(format!(
            "the answer was cut at {} bytes; ask for less",
            json.len()
        ));
    }
    Ok(Shaped {
        json,
        cut: over,
        object,
        wide,
        notes,
    })
}

/// The last character boundary at or before `max`.
pub fn boundary(text: &[u8], max: usize) -> usize {
    let mut end = max.min(text.len());
    while end > 0 && end < text.len() && text[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}

#[cfg(test)]
#[path = "shape/tests.rs"]
mod tests;
