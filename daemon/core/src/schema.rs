//! JSON Schema 2020-12 behind one type. No I/O: no reference leaves its own document.
//!
//! Owns: [`Validator`], a compiled schema of a bundle, and what is told when a value does not match.
//! Promises: a schema that compiles is valid 2020-12, refers only into itself, loops nowhere without
//! descending into the value, applies a bounded number of subschemas to each part of a value, however
//! deep, and takes linear time for patterns and for unique items. A value of more parts than that
//! leaves work for is refused. A [`Violation`] says where and by which rule, never what the value is.
//! Does not: assert `format` (an annotation in 2020-12) or fetch a meta-schema of the publisher's.
//!
//! The type exists in every build. Without the feature `schema` it has no value, since only
//! [`Validator::compile`] makes one.

#[cfg(feature = "schema")]
mod compile;
#[cfg(feature = "schema")]
mod costly;
#[cfg(feature = "schema")]
mod shape;

#[cfg(all(test, feature = "schema"))]
mod tests;

use thiserror::Error;

use crate::scan::ScanError;
use crate::text::Pointer;

/// Longest schema in bytes.
pub const MAX_SCHEMA: usize = 256 * 1024;
/// Longest text of [`Violation::rule`] in bytes.
pub const MAX_RULE: usize = 240;

/// A compiled schema.
#[derive(Debug)]
pub struct Validator {
    #[cfg(feature = "schema")]
    engine: jsonschema::Validator,
    /// Subschemas that are applied to one part of a value at most.
    #[cfg(feature = "schema")]
    applied: u64,
    #[cfg(not(feature = "schema"))]
    never: std::convert::Infallible,
}

/// Why a schema was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// The bytes are not strict JSON.
    #[error("the schema is {0}")]
    Json(#[from] ScanError),
    /// Not an object schema of draft 2020-12 by its own meta-schema.
    #[error("the schema is not valid draft 2020-12 at {path}: {rule}")]
    Invalid {
        /// Where in the schema.
        path: Pointer,
        /// The rule of the meta-schema.
        rule: String,
    },
    /// Something valid that is not taken here.
    #[error("the schema has {what} at {path}: {instead}")]
    Unsupported {
        /// Where in the schema.
        path: Pointer,
        /// What was found.
        what: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
}

/// Where a value does not match its schema, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {rule}")]
pub struct Violation {
    /// Where in the value.
    pub path: Pointer,
    /// The rule in words, with the value left out.
    pub rule: String,
}

#[cfg(not(feature = "schema"))]
impl Validator {
    /// Whether `value` matches.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, _value: &serde_json::Value) -> Result<(), Violation> {
        match self.never {}
    }
}
