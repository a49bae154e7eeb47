//! The arguments of one call: scanned, parsed and checked once. No I/O.
//!
//! Owns: [`Arguments`], made by [`Arguments::parse`] only.
//! Promises: they are one JSON object that keeps the rules of [`crate::scan`] and matches the input
//! schema of the routed tool. The bytes are those that the client sent: no number and no order of
//! members was bent on the way to the audit log and to the runner. An error names a path and a rule,
//! never a value.
//! Of what was parsed only the members that the tool records are kept, as text.
//! Does not: apply defaults, coerce types or drop members. What the schema does not allow is refused.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::error::ErrorCode;
use crate::ids::SchemaRef;
use crate::route::Route;
use crate::scan::{Limits, ScanError, scan};
use crate::schema::Violation;
use crate::text::Pointer;

#[cfg(all(test, feature = "schema"))]
pub(crate) mod tests;

/// Longest arguments in bytes.
pub const MAX_ARGUMENTS: usize = 256 * 1024;

/// Checked arguments of one call. They may hold what a user typed, so they have no readable Debug.
pub struct Arguments {
    tool: SchemaRef,
    raw: Vec<u8>,
    recorded: Vec<(String, String)>,
}

/// Why arguments were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgumentsError {
    /// They are not JSON that is taken here.
    #[error("arguments: {0}")]
    Json(#[from] ScanError),
    /// They are JSON, and no object.
    #[error("arguments: (root): not an object: send the arguments as one JSON object")]
    NotAnObject,
    /// They do not match the tool's schema.
    #[error("arguments: {0}")]
    Schema(#[from] Violation),
}

impl ArgumentsError {
    /// The stable code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            ArgumentsError::Json(ScanError::TooLong { .. }) => ErrorCode::TooLarge,
            _ => ErrorCode::ArgumentsInvalid,
        }
    }

    /// Where in the arguments, if at one place.
    pub fn path(&self) -> Option<&Pointer> {
        match self {
            ArgumentsError::Json(
                ScanError::TooDeep { path, .. }
                | ScanError::DuplicateKey { path }
                | ScanError::NumberRange { path },
            ) => Some(path),
            ArgumentsError::Schema(violation) => Some(&violation.path),
            _ => None,
        }
    }
}

impl Arguments {
    /// Takes the raw JSON text of a call's `arguments`: an object, or a JSON string that holds the
    /// text of one, which then is what is recorded and sent. No bytes at all are an empty object.
    ///
    /// # Errors
    /// [`ArgumentsError`]; the schema is that of the routed tool.
    pub fn parse(raw: Vec<u8>, route: &Route) -> Result<Arguments, ArgumentsError> {
        let limits = Limits::bytes(MAX_ARGUMENTS);
        let mut raw = if raw.is_empty() { b"{}".to_vec() } else { raw };
        scan(&raw, &limits)?;
        if raw.trim_ascii_start().starts_with(b"\"") {
            let inner: String = parse(&raw)?;
            raw = inner.into_bytes();
            scan(&raw, &limits)?;
        }
        if !raw.trim_ascii_start().starts_with(b"{") {
            return Err(ArgumentsError::NotAnObject);
        }
        let value: Value = parse(&raw)?;
        route.tool().validator().check(&value)?;
        let recordable = route.tool().manifest().recordable.iter();
        let recorded = recordable
            .filter_map(|name| Some((name.clone(), value.get(name)?.to_string())))
            .collect();
        Ok(Arguments {
            tool: route.tool().schema_ref(),
            raw,
            recorded,
        })
    }

    /// The edition of the tool whose schema they match.
    pub fn tool(&self) -> SchemaRef {
        self.tool
    }

    /// The bytes: what audit MACs and what the wire carries.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The names and JSON texts of the members that the tool records; nobody keeps them beyond the intent.
    pub(crate) fn take_recorded(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.recorded)
    }

    /// The bytes alone.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.raw
    }
}

/// Parses what [`scan`] has passed; serde_json refuses nothing more.
fn parse<T: serde::de::DeserializeOwned>(raw: &[u8]) -> Result<T, ArgumentsError> {
    serde_json::from_slice(raw).map_err(|_| ArgumentsError::NotAnObject)
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arguments({} bytes)", self.raw.len())
    }
}
