//! How much a tool may do: three ordered levels.
//!
//! Owns: [`Access`]. Promises: `Read < Write < Destructive`, so "at most" is a comparison.
//! Does not: judge whether a manifest tells the truth; those who sign and approve a bundle do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a call of a tool can do to the service behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// It changes nothing.
    Read,
    /// It adds or changes, and what was there can be had again.
    Write,
    /// It can lose something for good.
    Destructive,
}

impl Access {
    /// The stable text, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Destructive => "destructive",
        }
    }

    /// The level with this text.
    pub fn parse(text: &str) -> Option<Access> {
        [Access::Read, Access::Write, Access::Destructive]
            .into_iter()
            .find(|a| a.as_str() == text)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_spelled_as_in_json() {
        assert!(Access::Read < Access::Write && Access::Write < Access::Destructive);
        for level in [Access::Read, Access::Write, Access::Destructive] {
            let json = serde_json::to_string(&level).unwrap();
            assert_eq!(json, format!("\"{level}\""));
            assert_eq!(Access::parse(level.as_str()), Some(level));
        }
        assert_eq!(Access::parse("Read"), None);
    }
}
