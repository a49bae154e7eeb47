//! Picks: values of the answer put in their places in the result. Pure, no I/O.
//!
//! Owns: [`Out`], the result as a tree over the answer's values, and [`pick`].
//! Promises: a pick with as many `[*]` in `to` as in `from` keeps items in their rows; work is
//! bounded by the answer's size times the number of picks, and memory by the call's [`Room`].
//! Does not: write.

use mcpist_core::http::{Pick, Step};

use super::Source;
use crate::json::{Kind, Value};
use crate::room::{NoRoom, Room};

/// A part of the result.
#[derive(Debug)]
pub(super) enum Out<'d, 'p> {
    /// Nothing was found for this place of a row.
    Empty,
    /// A value of the answer as it is.
    Value(Value<'d>),
    /// An array that picks made.
    Array(Vec<Out<'d, 'p>>),
    /// An object that picks made.
    Object(Vec<(&'p str, Out<'d, 'p>)>),
}

impl Out<'_, '_> {
    pub(super) fn is_object(&self) -> bool {
        match self {
            Out::Object(_) => true,
            Out::Value(value) => value.kind() == Kind::Object,
            Out::Empty | Out::Array(_) => false,
        }
    }
}

/// Runs all picks; also says at which of them items were left out.
pub(super) fn pick<'d, 'p>(
    source: &Source<'d>,
    picks: &'p [Pick],
    room: &mut Room,
) -> Result<(Out<'d, 'p>, Vec<String>), NoRoom> {
    let mut out = Out::Object(Vec::new());
    let mut notes = Vec::new();
    for pick in picks {
        let mut walk = Walk {
            source,
            limit: pick.max_items.map_or(usize::MAX, |n| n as usize),
            left_out: 0,
            row: Vec::new(),
        };
        let from = pick.from.steps();
        let to = pick.to.steps();
        if pick.to.stars() == 0 && pick.from.stars() > 0 {
            let mut found = Vec::new();
            walk.each(source.root, from, &mut |_, value| {
                room.push(&mut found, Out::Value(value))
            })?;
            place(&mut out, to, &[], Out::Array(found), room)?;
        } else {
            // The array is there even when it has no items.
            if let Some(star) = to.iter().position(|step| *step == Step::Each) {
                place(&mut out, &to[..star], &[], Out::Array(Vec::new()), room)?;
            }
            walk.each(source.root, from, &mut |row, value| {
                place(&mut out, to, row, Out::Value(value), room)
            })?;
        }
        if walk.left_out > 0 {
            notes.push(format!("{}: {} items left out", pick.to, walk.left_out));
        }
    }
    Ok((out, notes))
}

struct Walk<'s, 'd> {
    source: &'s Source<'d>,
    /// The most items at each `*`.
    limit: usize,
    left_out: usize,
    /// The index at each `*` passed so far.
    row: Vec<usize>,
}

impl<'d> Walk<'_, 'd> {
    /// Calls `found` with every value at `steps` below `value`, and its row.
    fn each(
        &mut self,
        value: Value<'d>,
        steps: &[Step],
        found: &mut impl FnMut(&[usize], Value<'d>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let Some((step, rest)) = steps.split_first() else {
            return found(&self.row, value);
        };
        match step {
            Step::Name(name) => {
                if let Some(value) = value.get(name) {
                    self.each(value, rest, found)?;
                }
            }
            Step::Index(index) => {
                if let Some(value) = self.source.elements(value).nth(*index as usize) {
                    self.each(value, rest, found)?;
                }
            }
            Step::Each => {
                let source = self.source;
                self.left_out += source.len(value).saturating_sub(self.limit);
                match value.kind() {
                    Kind::Array => self.items(source.elements(value), rest, found)?,
                    _ => self.items(value.members().map(|(_, value)| value), rest, found)?,
                }
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        items: impl Iterator<Item = Value<'d>>,
        rest: &[Step],
        found: &mut impl FnMut(&[usize], Value<'d>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        for (index, item) in items.take(self.limit).enumerate() {
            self.row.push(index);
            self.each(item, rest, found)?;
            self.row.pop();
        }
        Ok(())
    }
}

/// Puts `value` at `to`, with `row` for its `[*]`. What stands there already, stays: the manifest
/// check lets no two picks write one place, and an array that is announced twice is one array.
fn place<'d, 'p>(
    at: &mut Out<'d, 'p>,
    to: &'p [Step],
    row: &[usize],
    value: Out<'d, 'p>,
    room: &mut Room,
) -> Result<(), NoRoom> {
    let Some((step, rest)) = to.split_first() else {
        if matches!(at, Out::Empty) {
            *at = value;
        }
        return Ok(());
    };
    match step {
        Step::Name(name) => {
            if matches!(at, Out::Empty) {
                *at = Out::Object(Vec::new());
            }
            let Out::Object(members) = at else {
                return Ok(());
            };
            let index = match members.iter().position(|(key, _)| key == name) {
                Some(index) => index,
                None => {
                    room.push(members, (name, Out::Empty))?;
                    members.len() - 1
                }
            };
            place(&mut members[index].1, rest, row, value, room)
        }
        Step::Each => {
            if matches!(at, Out::Empty) {
                *at = Out::Array(Vec::new());
            }
            let (Out::Array(items), Some((index, row))) = (at, row.split_first()) else {
                return Ok(());
            };
            while items.len() <= *index {
                room.push(items, Out::Empty)?;
            }
            place(&mut items[*index], rest, row, value, room)
        }
        // The manifest check allows no index in `to`.
        Step::Index(_) => Ok(()),
    }
}
