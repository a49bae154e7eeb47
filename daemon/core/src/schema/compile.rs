//! Compiling and matching, with the engine (crate `jsonschema`).

use jsonschema::ValidationError;
use serde_json::Value;

use super::{MAX_RULE, MAX_SCHEMA, SchemaError, Validator, Violation, costly, shape};
use crate::scan::{Limits, scan};
use crate::text::{Pointer, excerpt};

/// Most subschemas that one value may cost, its parts times those that are applied to each.
const MAX_WORK: u64 = 10_000_000;
/// The same times the value's depth, up to which a mismatch is looked for a second time to say where
/// it is: for that the engine asks anew at each level, and keeps every branch's errors.
const MAX_TOLD: u64 = 1 << 18;
/// Bytes of a text that count as one part.
const PART_BYTES: usize = 8;

impl Validator {
    /// Compiles the schema of a tool's input or output from the bytes of its blob.
    ///
    /// # Errors
    /// [`SchemaError`]: not JSON, not 2020-12, or with a reference that leaves the document.
    pub fn compile(bytes: &[u8]) -> Result<Validator, SchemaError> {
        scan(bytes, &Limits::bytes(MAX_SCHEMA))?;
        let schema: Value = serde_json::from_slice(bytes).map_err(|_| SchemaError::Invalid {
            path: Pointer::root(),
            rule: "not JSON".to_owned(),
        })?;
        let applied = shape::check(&schema)?;
        let engine = costly::options().build(&schema).map_err(|error| {
            let Violation { path, rule } = violation(&error);
            SchemaError::Invalid { path, rule }
        })?;
        Ok(Validator { engine, applied })
    }

    /// Whether `value` matches.
    ///
    /// # Errors
    /// The first rule that it breaks, where the value is not too large for that.
    pub fn check(&self, value: &Value) -> Result<(), Violation> {
        let size = Size::of(value);
        let work = self.applied.saturating_mul(size.parts);
        if work > MAX_WORK {
            return Err(too_much());
        }
        if costly::within_budget(|| self.engine.is_valid(value)).ok_or_else(too_much)? {
            return Ok(());
        }
        if work.saturating_mul(size.depth) <= MAX_TOLD
            && let Err(error) =
                costly::within_budget(|| self.engine.validate(value)).ok_or_else(too_large)?
        {
            return Err(violation(&error));
        }
        Err(too_large())
    }
}

/// How much of a value there is for subschemas to look at.
pub(super) struct Size {
    /// Values and member names; a long text counts as several.
    pub(super) parts: u64,
    pub(super) depth: u64,
}

impl Size {
    pub(super) fn of(value: &Value) -> Size {
        let mut size = Size { parts: 1, depth: 1 };
        match value {
            Value::String(string) => size.parts = text_parts(string),
            Value::Array(items) => items.iter().for_each(|item| size.add(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    size.parts += text_parts(name);
                    size.add(member);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        size
    }

    fn add(&mut self, part: &Value) {
        let part = Size::of(part);
        self.parts += part.parts;
        self.depth = self.depth.max(part.depth + 1);
    }
}

/// Parts that a text counts as.
pub(super) fn text_parts(text: &str) -> u64 {
    1 + (text.len() / PART_BYTES) as u64
}

fn too_much() -> Violation {
    on_the_whole("too much work for this schema: send fewer or shorter values")
}

fn too_large() -> Violation {
    on_the_whole("does not match the schema, and is too large to say where: send fewer values")
}

fn on_the_whole(rule: &str) -> Violation {
    Violation {
        path: Pointer::root(),
        rule: rule.to_owned(),
    }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    Violation {
        path: Pointer::from_written(error.instance_path().as_str()),
        rule: excerpt(&error.masked().to_string(), MAX_RULE),
    }
}
