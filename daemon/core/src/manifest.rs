//! The manifest of a bundle: what a publisher signs. Strict parsing, no I/O.
//!
//! Owns: [`Manifest`], the checks that need the whole of it, and its parts.
//! Promises: a [`Manifest`] holds lists and structs only, no unknown field and no key twice; names
//! are unique; every blob that a tool names is listed and every listed blob is named; requests
//! passed [`HttpTool::check`](crate::http::HttpTool::check); limits are within their ceilings; what
//! its tools and their schemas take in memory is bounded.
//! Does not: check signatures, audience against this site, sequence floors or blob bytes
//! (mcpist-bundle does), nor whether holes fit the input schema, which is a blob: [`fit`] does that
//! once the bytes are at hand.

mod blob;
mod fit;
mod module;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::http::HttpError;
use crate::ids::{BundleName, Digest, ModuleName, Namespace, SiteId, SlotName, ToolName};
use crate::schema::MAX_SCHEMA;
use crate::text::excerpt;

pub use blob::{Blob, BlobPath};
pub use fit::{FitError, fit};
pub use module::{AuthKind, Limits, ModuleKind, ModuleManifest, Slot, ToolManifest};

/// The format that this program reads and writes.
pub const FORMAT: u16 = 1;
/// Longest manifest in bytes (DESIGN: bundle header).
pub const MAX_MANIFEST: usize = 16 * 1024 * 1024;
/// Longest single blob in bytes: each is a schema.
pub const MAX_BLOB: u64 = MAX_SCHEMA as u64;
/// Most tools of one bundle.
pub const MAX_TOOLS: usize = 10_240;
/// Most bytes of schemas of one bundle, each counted as often as a tool names it: so often its text
/// is shown, and kept.
pub const MAX_SCHEMAS: u64 = 16 * 1024 * 1024;
const MAX_LIST: usize = 4096;

/// A manifest whose checks are still to be made; the only use is [`Manifest::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// [`FORMAT`].
    pub format: u16,
    /// Who publishes it.
    pub namespace: Namespace,
    /// Its name there.
    pub name: BundleName,
    /// Counts up from 1 with every issue of this bundle.
    pub sequence: u64,
    /// The sites that may import it; at least one.
    pub audience: Vec<SiteId>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// After this moment nobody imports or activates it, in seconds since 1970.
    pub not_after: u64,
    /// What is new, for the officer who approves it; at most 16 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Its modules; at least one.
    pub modules: Vec<ModuleManifest>,
    /// The files that follow the manifest, in this order.
    pub blobs: Vec<Blob>,
}

/// A checked manifest. Its fields are read through [`Draft`].
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(Draft);

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST`].
    #[error("the manifest has {0} bytes; at most 16 MiB are allowed")]
    TooLong(usize),
    /// Not the JSON that a manifest is: unknown or missing field, key twice, bad name or template.
    #[error("the manifest does not parse: {0}")]
    Json(String),
    /// Written by a newer or foreign tool.
    #[error("manifest format {0} is unknown; this program reads format 1")]
    Format(u16),
    /// A value is out of its bounds.
    #[error("{place}: {what} must be {rule}")]
    Value {
        /// Module, tool or the bundle.
        place: String,
        /// Which field.
        what: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A name occurs twice in one list.
    #[error("{place}: {what} \"{name}\" occurs twice; names are unique")]
    Twice {
        /// Module, tool or the bundle.
        place: String,
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A tool names a slot that its module does not have.
    #[error("{module}/{tool}: slot \"{slot}\" is not declared; add it to the module's slots")]
    NoSlot {
        /// The module.
        module: ModuleName,
        /// The tool.
        tool: ToolName,
        /// The slot.
        slot: SlotName,
    },
    /// A tool names a blob that is not listed.
    #[error("blob \"{0}\" is named by a tool and not listed")]
    NoBlob(BlobPath),
    /// A blob is listed and nothing names it.
    #[error("blob \"{0}\" is listed and named by nothing; drop it")]
    SpareBlob(BlobPath),
    /// A tool's request cannot work.
    #[error("{module}/{tool}: {error}")]
    Request {
        /// The module.
        module: ModuleName,
        /// The tool.
        tool: ToolName,
        /// Why not.
        error: HttpError,
    },
}

impl Manifest {
    /// Reads the manifest of a bundle, as signed.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        Manifest::new(serde_json::from_slice(bytes).map_err(json_error)?)
    }

    /// Checks a draft; the module's promises above are the list.
    pub fn new(draft: Draft) -> Result<Manifest, ManifestError> {
        if draft.format != FORMAT {
            return Err(ManifestError::Format(draft.format));
        }
        let rules = [
            (draft.sequence >= 1, "sequence", "1 or more"),
            (
                !draft.audience.is_empty() && draft.audience.len() <= 256,
                "audience",
                "1 to 256 sites",
            ),
            (
                draft.not_after > draft.created,
                "not_after",
                "later than created",
            ),
            (
                is_text(&draft.notes, 16 * 1024),
                "notes",
                "at most 16 KiB without control characters",
            ),
            (
                (1..=256).contains(&draft.modules.len()),
                "modules",
                "1 to 256",
            ),
            (draft.blobs.len() <= MAX_LIST, "blobs", "at most 4096"),
            (
                draft.blobs.iter().all(|b| b.length <= MAX_BLOB),
                "blob length",
                "at most 256 KiB",
            ),
            (
                draft.modules.iter().map(|m| m.tools.len()).sum::<usize>() <= MAX_TOOLS,
                "tools",
                "at most 10240 in all modules",
            ),
        ];
        if let Some((_, what, rule)) = rules.into_iter().find(|(holds, ..)| !holds) {
            return Err(ManifestError::Value {
                place: "bundle".to_owned(),
                what,
                rule,
            });
        }
        unique("bundle", "site", draft.audience.iter().map(SiteId::as_str))?;
        unique(
            "bundle",
            "module",
            draft.modules.iter().map(|m| m.name.as_str()),
        )?;
        unique(
            "bundle",
            "blob",
            draft.blobs.iter().map(|b| b.path.as_str()),
        )?;
        draft.modules.iter().try_for_each(ModuleManifest::check)?;
        check_blobs(&draft)?;
        Ok(Manifest(draft))
    }

    /// The JSON that a new bundle signs. An imported bundle keeps its own bytes: those were signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        serde_json::to_vec(&self.0).map_err(json_error)
    }

    /// The digest that the manifest gives for a blob.
    pub fn blob_digest(&self, path: &BlobPath) -> Option<&Digest> {
        self.blobs
            .iter()
            .find(|b| b.path == *path)
            .map(|b| &b.digest)
    }
}

impl Deref for Manifest {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.0
    }
}

fn check_blobs(draft: &Draft) -> Result<(), ManifestError> {
    let listed: BTreeMap<&BlobPath, u64> =
        draft.blobs.iter().map(|b| (&b.path, b.length)).collect();
    let mut named = BTreeSet::new();
    let mut bytes = 0; // at most 10,240 tools with two schemas of 256 KiB
    for path in draft.modules.iter().flat_map(ModuleManifest::named) {
        match listed.get(path) {
            Some(length) => bytes += length,
            None => return Err(ManifestError::NoBlob(path.clone())),
        }
        named.insert(path);
    }
    if bytes > MAX_SCHEMAS {
        return Err(ManifestError::Value {
            place: "bundle".to_owned(),
            what: "schemas",
            rule: "at most 16 MiB, each counted for every tool that names it",
        });
    }
    match listed.keys().find(|path| !named.contains(*path)) {
        Some(path) => Err(ManifestError::SpareBlob((*path).clone())),
        None => Ok(()),
    }
}

/// serde_json quotes what it does not know, so its text is hostile and gets cut.
fn json_error(error: serde_json::Error) -> ManifestError {
    ManifestError::Json(excerpt(&error.to_string(), 256))
}

/// Text for people: bounded, and without control characters but line feed and tab.
fn is_text(text: &str, max: usize) -> bool {
    text.len() <= max
        && !text
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t')
}

fn unique<'a>(
    place: &str,
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ManifestError::Twice {
                place: place.to_owned(),
                what,
                name: excerpt(name, 64),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
