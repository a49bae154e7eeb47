//! Compiling and matching, with the engine (crate `jsonschema`).

use jsonschema::{Draft, PatternOptions, ValidationError};
use serde_json::Value;

use super::{MAX_RULE, MAX_SCHEMA, SchemaError, Validator, Violation, shape};
use crate::scan::{Limits, scan};
use crate::text::{Pointer, excerpt};

/// Most memory that one compiled pattern may take, in bytes.
const PATTERN_SIZE: usize = 256 * 1024;

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
        shape::check(&schema)?;
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
        Ok(Validator { engine })
    }

    /// Whether `value` matches.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, value: &Value) -> Result<(), Violation> {
        self.engine
            .validate(value)
            .map_err(|error| violation(&error))
    }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    Violation {
        path: Pointer::from_written(error.instance_path().as_str()),
        rule: excerpt(&error.masked().to_string(), MAX_RULE),
    }
}
