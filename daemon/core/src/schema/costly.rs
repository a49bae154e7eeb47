//! The keywords whose cost the engine does not bound, done here: `pattern` and `uniqueItems`. No I/O.
//!
//! Owns: both keywords, and what one check may spend on them. Promises: what a text costs is counted by
//! its pattern's size before it is matched; `uniqueItems` is linear in the items, where the engine
//! compares each with each, twice over at each level; once all is spent, neither does any more work.
//! Does not: count what other keywords cost, which the schema's shape bounds.

use std::cell::Cell;
use std::collections::HashSet;

use jsonschema::{Draft, Keyword, PatternOptions, ValidationError, ValidationOptions, Validator};
use serde_json::{Number, Value, json};

use super::compile::Size;

/// Most subschemas' worth that one check may spend here, some 5 ns each.
pub(super) const BUDGET: u64 = 10_000_000;
/// Most memory that one compiled pattern may take, in bytes.
const PATTERN_SIZE: usize = 64 * 1024;
/// Compiled sizes in bytes, and what a pattern up to there counts as in subschemas for eight bytes of
/// text. A small one's states fit the engine's table, so that a byte is one look; a larger one may make
/// each byte add to the table or go through all states: so the worst that were measured.
const WEIGHTS: [(usize, u64); 2] = [(1024, 8), (4096, 512)];
/// What a pattern over these sizes counts as.
const HEAVIEST: u64 = 4000;
/// What writing one part of an item down counts as.
const ITEM_WEIGHT: u64 = 16;
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

thread_local! {
    /// What the check that runs on this thread may still spend; none once it has asked for more.
    static LEFT: Cell<Option<u64>> = const { Cell::new(Some(0)) };
}

/// Runs a check of a value; none if it would spend more than it may.
pub(super) fn within_budget<T>(check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(Some(BUDGET));
    let result = check();
    LEFT.get().map(|_| result)
}

/// Whether there was as much left as `weight` for each part of the value.
fn spend(weight: u64, value: &Value) -> bool {
    let left = LEFT.get().and_then(|left| {
        let units = weight.saturating_mul(Size::of(value).parts);
        left.checked_sub(units)
    });
    LEFT.set(left);
    left.is_some()
}

/// The engine's options: draft 2020-12, offline, linear patterns, and the keywords of this module.
pub(super) fn options<'a>() -> ValidationOptions<'a> {
    plain(PATTERN_SIZE)
        .with_keyword("pattern", |_, schema, _| {
            Ok(Box::new(Pattern::compile(schema)?))
        })
        .with_keyword("uniqueItems", |_, schema, _| {
            Ok(Box::new(UniqueItems(schema == &Value::Bool(true))))
        })
}

fn plain<'a>(pattern_size: usize) -> ValidationOptions<'a> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(pattern_size)
                .dfa_size_limit(PATTERN_SIZE),
        )
        .should_validate_formats(false)
}

/// What the pattern counts as in subschemas for each part of a text.
pub(super) fn weight(pattern: &str) -> u64 {
    let schema = json!({"pattern": pattern});
    let fits = |size| plain(size).build(&schema).is_ok();
    let weight = WEIGHTS.iter().find(|(size, _)| fits(*size));
    weight.map_or(HEAVIEST, |(_, weight)| *weight)
}

struct Pattern {
    engine: Validator,
    pattern: String,
    weight: u64,
}

impl Pattern {
    fn compile(schema: &Value) -> Result<Pattern, ValidationError<'static>> {
        let pattern = schema.as_str().unwrap_or_default();
        let engine = plain(PATTERN_SIZE).build(&json!({"pattern": schema}));
        let engine = engine.map_err(|_| {
            ValidationError::custom("not a pattern that takes linear time and at most 64 KiB")
        })?;
        Ok(Pattern {
            engine,
            pattern: pattern.to_owned(),
            weight: weight(pattern),
        })
    }
}

impl<'i> Keyword<'i> for Pattern {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(value) {
            return Ok(());
        }
        let text = format!("value does not match \"{}\"", self.pattern);
        Err(ValidationError::custom(text))
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        !value.is_string() || spend(self.weight, value) && self.engine.is_valid(value)
    }
}

/// `uniqueItems` with its value.
struct UniqueItems(bool);

impl<'i> Keyword<'i> for UniqueItems {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(value) {
            return Ok(());
        }
        Err(ValidationError::custom("value has non-unique elements"))
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        let Some(items) = value.as_array().filter(|_| self.0) else {
            return true;
        };
        if !spend(ITEM_WEIGHT, value) {
            return false;
        }
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().all(|item| {
            let mut text = String::new();
            write(item, &mut text);
            seen.insert(text)
        })
    }
}

/// Writes a value so that two are equal in JSON Schema exactly where their texts are: members in the
/// order of their names, and a number in one way.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (name, member) in members {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(member, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Number(number) => text.push_str(&one_way(number)),
        Value::String(_) | Value::Bool(_) | Value::Null => text.push_str(&value.to_string()),
    }
}

/// A whole number in the digits that an integer has, however it was written.
fn one_way(number: &Number) -> String {
    match number.as_f64() {
        // No integer is as large as 2^64; up to there the digits of a whole one are exact.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < TWO_POW_64 => {
            format!("{:.0}", float + 0.0) // which takes the sign off a zero
        }
        _ => number.to_string(),
    }
}
