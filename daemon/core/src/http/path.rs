//! A path into a JSON value: names, indexes and `*`. Parsing only.
//!
//! Owns: [`JsonPath`]. Promises: at most 32 steps and 512 bytes, one canonical spelling per path
//! (`Display`), which parses back to itself. Does not: search, filter, slice or recurse; there is
//! no expression in it, so what it touches is bounded by the value's own size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::excerpt;

const MAX_BYTES: usize = 512;
const MAX_STEPS: usize = 32;

/// A path such as `data.result[*].metric["app.kubernetes.io/name"]`; `$` alone is the whole value.
///
/// A bare name holds `A-Z a-z 0-9 _ - @ $ :` (and is not `$` alone); any other goes in brackets and
/// quotes, without escapes. A bare `*` is read as `[*]`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonPath(Vec<Step>);

/// One step of a [`JsonPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The member of an object.
    Name(String),
    /// The item of an array, from 0.
    Index(u32),
    /// Every item of an array, or every member's value of an object, in order.
    Each,
}

/// Why a text is no [`JsonPath`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonPathError {
    /// Too long, or too many steps.
    #[error("path \"{0}\" is over 512 bytes or 32 steps; shorten it")]
    TooLong(String),
    /// Something that is no step.
    #[error(
        "path \"{path}\" has no valid step at byte {at}; use name.name, [0], [*] or [\"any name\"]"
    )]
    Step {
        /// The path, cut and escaped.
        path: String,
        /// Where the step begins.
        at: usize,
    },
}

impl JsonPath {
    /// Takes a path as [`JsonPath`] describes it.
    pub fn parse(text: &str) -> Result<JsonPath, JsonPathError> {
        if text.len() > MAX_BYTES {
            return Err(JsonPathError::TooLong(excerpt(text, 64)));
        }
        if text == "$" {
            return Ok(JsonPath(Vec::new()));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let at = text.len() - rest.len();
            let (step, after) =
                next_step(rest, steps.is_empty()).ok_or_else(|| JsonPathError::Step {
                    path: excerpt(text, 64),
                    at,
                })?;
            steps.push(step);
            rest = after;
            if rest.is_empty() {
                break;
            }
            if steps.len() == MAX_STEPS {
                return Err(JsonPathError::TooLong(excerpt(text, 64)));
            }
        }
        Ok(JsonPath(steps))
    }

    /// The steps, from the whole value inwards; none for the whole value.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// How many steps are [`Step::Each`].
    pub fn stars(&self) -> usize {
        self.0.iter().filter(|s| matches!(s, Step::Each)).count()
    }
}

/// Reads one step off the front; `None` if there is none.
fn next_step(text: &str, first: bool) -> Option<(Step, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        if let Some(rest) = inner.strip_prefix("*]") {
            return Some((Step::Each, rest));
        }
        if let Some(quoted) = inner.strip_prefix('"') {
            let (name, rest) = quoted.split_once('"')?;
            let plain = !name.contains(|c: char| c == '\\' || c.is_control());
            return plain.then_some((Step::Name(name.to_owned()), rest.strip_prefix(']')?));
        }
        let (digits, rest) = inner.split_once(']')?;
        let canonical = digits == "0" || !digits.starts_with('0');
        let number = digits.bytes().all(|b| b.is_ascii_digit()) && canonical;
        let index = if number {
            digits.parse().ok()?
        } else {
            return None;
        };
        return Some((Step::Index(index), rest));
    }
    let name = if first { text } else { text.strip_prefix('.')? };
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (name, rest) = name.split_at(end);
    match name {
        "*" => Some((Step::Each, rest)),
        _ if is_bare(name) => Some((Step::Name(name.to_owned()), rest)),
        _ => None,
    }
}

fn is_bare(name: &str) -> bool {
    !name.is_empty()
        && name != "$"
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-@$:".contains(&b))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("$");
        }
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Each => f.write_str("[*]")?,
                Step::Index(n) => write!(f, "[{n}]")?,
                Step::Name(name) if is_bare(name) => {
                    f.write_str(if i == 0 { "" } else { "." })?;
                    f.write_str(name)?;
                }
                Step::Name(name) => write!(f, "[\"{name}\"]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;
    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        JsonPath::parse(text)
    }
}

impl TryFrom<String> for JsonPath {
    type Error = JsonPathError;
    fn try_from(text: String) -> Result<Self, JsonPathError> {
        JsonPath::parse(&text)
    }
}

impl From<JsonPath> for String {
    fn from(path: JsonPath) -> String {
        path.to_string()
    }
}
