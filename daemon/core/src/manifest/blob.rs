//! The files of a bundle, by relative path and digest.
//!
//! Owns: [`BlobPath`] and [`Blob`]. Promises: a path cannot leave the folder it is joined to, hides
//! no file and means the same on every file system. Does not: touch one.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, IdError, by_text};

/// A relative path: segments of `a-z 0-9 . _ -` joined by `/`, none starting with a dot, at most
/// 200 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobPath(Box<str>);

impl BlobPath {
    /// Takes `text` if it has that form.
    pub fn parse(text: &str) -> Result<BlobPath, IdError> {
        let segment = |s: &str| {
            !s.is_empty()
                && !s.starts_with('.')
                && s.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        if text.len() <= 200 && text.split('/').all(segment) {
            Ok(BlobPath(text.into()))
        } else {
            let rule = "segments of a-z 0-9 . _ - joined by /, none starting with a dot, at most 200 bytes";
            Err(IdError::new("blob path", text, rule))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments in order; at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

by_text!(BlobPath, "a blob path");

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Where it goes.
    pub path: BlobPath,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
}
