//! The audit log as an auditor asks for it: its lines, an export and its confirmation, a comparison.

use serde::{Deserialize, Serialize};

use super::text::Base64;
use crate::ids::Digest;

/// Which lines an export begins with. It always ends with the last line there is, and begins with the first line of the
/// segment that holds the one which is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExportFrom {
    /// All that is in the log's folder.
    Beginning,
    /// What no export holds yet.
    LastExport,
    /// The line with this sequence.
    Seq(u64),
    /// What was written from this time on, in seconds since 1970 by the clock of then.
    Time(u64),
}

/// An export that was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Its first line.
    pub first: u64,
    /// Its last line.
    pub through: u64,
    /// The hash of that.
    pub head: Digest,
    /// From where a later export goes on: what `audit verify --point` takes.
    pub point: Digest,
    /// Lines at its end that no checkpoint covers.
    pub unsigned_tail: u64,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of the whole file.
    pub digest: Digest,
}

/// Says that the caller has an export which somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmExport {
    /// SHA-256 of the file that the caller has read.
    pub digest: Digest,
}

/// An export that two people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Its first line.
    pub first: u64,
    /// Its last line.
    pub through: u64,
    /// Who made it.
    pub exporter: u32,
}

/// Where lines are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LinesFrom {
    /// The oldest segment there is.
    Beginning,
    /// The segment that holds the last so many lines.
    Last(u64),
    /// Where an answer before ended.
    Cursor(Cursor),
}

/// A place between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The segment.
    pub segment: u64,
    /// Bytes of it that come before.
    pub offset: u64,
}

/// Asks for lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskLines {
    /// From where.
    pub from: LinesFrom,
    /// Where there are none yet, to wait for some; not for ever.
    #[serde(default)]
    pub wait: bool,
}

/// Lines as they stand in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Whole lines, each with its line break. Empty where there are no more now.
    pub text: String,
    /// Where the next ones begin.
    pub next: Cursor,
    /// The last line that was durable when the answer was made.
    pub last: u64,
}

/// Asks whether a call was made with these arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchArguments {
    /// What the call's line says of its arguments.
    pub recorded: Digest,
    /// The bytes that they are thought to have been.
    pub arguments: Base64,
}

/// Whether they are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// They are.
    pub matched: bool,
}
