//! Templates: literal text with `{argument}` holes. Parsing only.
//!
//! Owns: [`ArgName`], [`Template`], [`PathTemplate`] and [`JsonTemplate`].
//! Promises: literals hold no control character; a path's literals are unreserved or sub-delimiter
//! characters (RFC 3986 §3.3) without `%`, and no literal segment is `.`, `..` or empty (save a
//! last one, for a trailing slash); each type has one canonical spelling, which parses back to
//! itself.
//! Does not: fill in anything. What a hole's value must be encoded to depends on where it stands,
//! and a segment made of several pieces can only be judged when it is whole.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::ids::{IdError, by_text};
use crate::text::excerpt;

mod json;

pub use json::JsonTemplate;

const MAX_BYTES: usize = 2048;
const MAX_PIECES: usize = 64;

/// The name of a tool's argument: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArgName(Box<str>);

impl ArgName {
    /// Takes `text` if it has that form.
    pub fn parse(text: &str) -> Result<ArgName, IdError> {
        let valid = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if valid {
            Ok(ArgName(text.into()))
        } else {
            Err(IdError::new(
                "argument name",
                text,
                "1 to 64 of A-Z a-z 0-9 _ -",
            ))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

by_text!(ArgName, "an argument name");

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Text as it is, braces already unescaped.
    Literal(String),
    /// The place of an argument.
    Hole(ArgName),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Too long, or too many pieces.
    #[error("template \"{0}\" is over 2048 bytes or 64 pieces; shorten it")]
    TooLong(String),
    /// A brace without its partner, or a hole that names no argument.
    #[error(
        "template \"{template}\" has a stray brace or a bad hole at byte {at}; write {{name}} for an argument and {{{{ or }}}} for a brace"
    )]
    Hole {
        /// The template, cut and escaped.
        template: String,
        /// Where.
        at: usize,
    },
    /// A control character.
    #[error("template \"{0}\" holds a control character; drop it")]
    Control(String),
    /// A path that does not start with a slash.
    #[error("path \"{0}\" does not start with /")]
    NotAbsolute(String),
    /// A segment that is empty, `.` or `..`, or holds a character that must not stand there.
    #[error(
        "path \"{path}\" has the segment \"{segment}\"; no empty, . or .. segment, no %, ?, #, \\ or space"
    )]
    Segment {
        /// The path, cut and escaped.
        path: String,
        /// The segment, cut and escaped.
        segment: String,
    },
}

/// Text with holes, for a query, form or header value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Takes text with `{argument}` holes; `{{` and `}}` stand for braces.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > MAX_BYTES {
            return Err(TemplateError::TooLong(excerpt(text, 64)));
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control(excerpt(text, 64)));
        }
        let pieces = pieces(text).map_err(|at| TemplateError::Hole {
            template: excerpt(text, 64),
            at,
        })?;
        if pieces.len() > MAX_PIECES {
            return Err(TemplateError::TooLong(excerpt(text, 64)));
        }
        Ok(Template(pieces))
    }

    /// The pieces in order; two literals never follow each other, and no literal is empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The arguments it names, as often as it does.
    pub fn holes(&self) -> impl Iterator<Item = &ArgName> {
        self.0.iter().filter_map(|p| match p {
            Piece::Hole(name) => Some(name),
            Piece::Literal(_) => None,
        })
    }

    /// The argument, if the template is exactly one hole.
    pub fn whole(&self) -> Option<&ArgName> {
        match &self.0[..] {
            [Piece::Hole(name)] => Some(name),
            _ => None,
        }
    }

    /// The text, if there is no hole in it.
    pub fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Cuts `text` into pieces, or says at which byte it cannot.
fn pieces(text: &str) -> Result<Vec<Piece>, usize> {
    let mut out = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(brace);
        let at = text.len() - from.len();
        literal.push_str(before);
        if from.starts_with("{{") || from.starts_with("}}") {
            literal.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let hole = from
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, after) = hole.ok_or(at)?;
        let name = ArgName::parse(name).map_err(|_| at)?;
        if !literal.is_empty() {
            out.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        out.push(Piece::Hole(name));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        out.push(Piece::Literal(literal));
    }
    Ok(out)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Hole(name) => write!(f, "{{{name}}}")?,
                Piece::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
            }
        }
        Ok(())
    }
}

/// An absolute path of segments, each with holes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathTemplate(Vec<Template>);

impl PathTemplate {
    /// Takes a path that starts with `/`; a hole never spans a slash.
    pub fn parse(text: &str) -> Result<PathTemplate, TemplateError> {
        if text.len() > MAX_BYTES {
            return Err(TemplateError::TooLong(excerpt(text, 64)));
        }
        let inner = text
            .strip_prefix('/')
            .ok_or_else(|| TemplateError::NotAbsolute(excerpt(text, 64)))?;
        let mut segments = Vec::new();
        let mut parts = inner.split('/').peekable();
        while let Some(part) = parts.next() {
            let segment = Template::parse(part)?;
            let last = parts.peek().is_none();
            if !valid_segment(&segment, last) {
                return Err(TemplateError::Segment {
                    path: excerpt(text, 64),
                    segment: excerpt(part, 64),
                });
            }
            segments.push(segment);
        }
        if segments.len() > MAX_PIECES {
            return Err(TemplateError::TooLong(excerpt(text, 64)));
        }
        Ok(PathTemplate(segments))
    }

    /// The segments, without slashes; an empty last one stands for a trailing slash, so `/` is one
    /// empty segment.
    pub fn segments(&self) -> &[Template] {
        &self.0
    }

    /// The arguments it names, as often as it does.
    pub fn holes(&self) -> impl Iterator<Item = &ArgName> {
        self.0.iter().flat_map(Template::holes)
    }
}

fn valid_segment(segment: &Template, last: bool) -> bool {
    let pieces_valid = segment.pieces().iter().all(|piece| match piece {
        Piece::Literal(text) => text.bytes().all(is_path_byte),
        Piece::Hole(_) => true,
    });
    pieces_valid
        && match segment.literal() {
            Some("") => last,
            Some(text) => text != "." && text != "..",
            None => true,
        }
}

/// RFC 3986 §3.3 `pchar` without percent-encoding.
pub(crate) fn is_path_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b)
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// Debug, parsing and serde by text.
macro_rules! by_string {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.to_string(), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = TemplateError;
            fn from_str(text: &str) -> Result<Self, TemplateError> {
                $name::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

by_string!(Template);
by_string!(PathTemplate);
