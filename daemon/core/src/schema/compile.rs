//! Compiling and matching, with the engine (crate `jsonschema`).

use jsonschema::{Draft, PatternOptions, ValidationError};
use serde_json::Value;

use super::{MAX_RULE, MAX_SCHEMA, SchemaError, Validator, Violation, shape};
use crate::scan::{Limits, scan};
use crate::text::{Pointer, excerpt};

/// Most memory that one compiled pattern may take, in bytes. It bounds the states that it may be in
/// at one byte, some 500.
const PATTERN_SIZE: usize = 64 * 1024;
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
        let engine = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(PATTERN_SIZE)
                    .dfa_size_limit(PATTERN_SIZE),
            )
            .should_validate_formats(false)
            .build(&schema)
            .map_err(|error| {
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
            return Err(on_the_whole(
                "too much work for this schema: send fewer or shorter values",
            ));
        }
        if self.engine.is_valid(value) {
            return Ok(());
        }
        if work.saturating_mul(size.depth) <= MAX_TOLD
            && let Err(error) = self.engine.validate(value)
        {
            return Err(violation(&error));
        }
        Err(on_the_whole(
            "does not match the schema, and is too large to say where: send fewer values",
        ))
    }
}

/// How much of a value there is for subschemas to look at.
struct Size {
    /// Values and member names; a long text counts as several.
    parts: u64,
    depth: u64,
}

impl Size {
    fn of(value: &Value) -> Size {
        let text = |text: &str| 1 + (text.len() / PART_BYTES) as u64;
        let mut size = Size { parts: 1, depth: 1 };
        match value {
            Value::String(string) => size.parts = text(string),
            Value::Array(items) => items.iter().for_each(|item| size.add(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    size.parts += text(name);
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
