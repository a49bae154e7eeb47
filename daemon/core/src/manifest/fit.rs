//! Whether a tool's request fits its input schema.
//!
//! Owns: [`fit`]. Promises: every hole of a tool that fits names a declared property; a hole of the
//! path is required and is a string, integer or boolean, so that a path is never incomplete; what
//! audit may record exists. Does not: check the schema itself (the engine in [`crate::schema`]
//! does).

use serde_json::Value;
use thiserror::Error;

use super::ToolManifest;
use crate::http::ArgName;
use crate::text::excerpt;

/// How a request and its input schema disagree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FitError {
    /// The schema is no JSON object.
    #[error("the input schema is not a JSON object: {0}")]
    NotJson(String),
    /// Arguments are always an object.
    #[error("the input schema must say \"type\": \"object\" at its root")]
    NotObject,
    /// A hole names nothing.
    #[error(
        "the request names the argument \"{0}\", which the input schema's properties do not have"
    )]
    NoProperty(ArgName),
    /// A path would be incomplete.
    #[error("the path needs the argument \"{0}\"; list it in the input schema's \"required\"")]
    NotRequired(ArgName),
    /// A path takes one plain value.
    #[error("the path's argument \"{0}\" must have the type string, integer or boolean")]
    NotPlain(ArgName),
    /// An argument to record does not exist.
    #[error("recordable names \"{0}\", which the input schema's properties do not have")]
    Recordable(String),
}

/// Compares the holes of `tool` with the bytes of its input schema.
pub fn fit(tool: &ToolManifest, input_schema: &[u8]) -> Result<(), FitError> {
    let schema: Value = serde_json::from_slice(input_schema)
        .map_err(|e| FitError::NotJson(excerpt(&e.to_string(), 128)))?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(FitError::NotObject);
    }
    let property = |name: &str| schema.get("properties").and_then(|p| p.get(name));
    if let Some(hole) = tool
        .http
        .holes()
        .find(|hole| property(hole.as_str()).is_none())
    {
        return Err(FitError::NoProperty(hole.clone()));
    }
    let required = |name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|n| n.as_str() == Some(name)))
    };
    for hole in tool.http.path.holes() {
        if !required(hole.as_str()) {
            return Err(FitError::NotRequired(hole.clone()));
        }
        let kind = property(hole.as_str())
            .and_then(|p| p.get("type"))
            .and_then(Value::as_str);
        if !matches!(kind, Some("string" | "integer" | "boolean")) {
            return Err(FitError::NotPlain(hole.clone()));
        }
    }
    match tool.recordable.iter().find(|name| property(name).is_none()) {
        Some(name) => Err(FitError::Recordable(name.clone())),
        None => Ok(()),
    }
}
