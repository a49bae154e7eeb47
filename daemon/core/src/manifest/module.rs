//! A module of a bundle: slots, limits and tools.
//!
//! Owns: [`ModuleManifest`] and its parts. Promises: one that comes from [`ModuleManifest::parse`]
//! or stands in a [`Manifest`](super::Manifest) passed [`check`](ModuleManifest::check). Does not:
//! know blobs beyond their paths.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BlobPath, MAX_MANIFEST, ManifestError, is_text, json_error, unique};
use crate::access::Access;
use crate::http::HttpTool;
use crate::ids::{ModuleName, SlotName, ToolName};

/// A module: tools of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleManifest {
    /// The name that clients use.
    pub name: ModuleName,
    /// For people; at most 128 bytes.
    pub title: String,
    /// For the model; at most 4 KiB.
    pub description: String,
    /// The author's version text; at most 64 printable ASCII characters.
    pub version: String,
    /// How its tools run.
    pub kind: ModuleKind,
    /// The places that bindings fill; at most 16.
    pub slots: Vec<Slot>,
    /// What a call may use.
    #[serde(default)]
    pub limits: Limits,
    /// Its tools; 1 to 256.
    pub tools: Vec<ToolManifest>,
}

/// How a module's tools run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleKind {
    /// Declarative HTTP requests.
    Http,
}

/// A place that a binding fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its name in this module.
    pub name: SlotName,
    /// The ways of proving identity that the service takes; 1 to 8.
    pub auth: Vec<AuthKind>,
    /// Hosts that the author expects. For people: only a binding says where a request goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// For the officer who joins it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A kind of credential that a slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthKind {
    /// A key in a header or a query parameter of its own.
    ApiKey,
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// `Authorization: Basic` (RFC 7617).
    Basic,
}

/// What one call may use, and how many calls may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From permit to result, in milliseconds; 10 to 300,000.
    pub deadline_ms: u64,
    /// Memory for what one call makes of the service's answers, in bytes; 1 MiB to 256 MiB.
    pub memory_bytes: u64,
    /// Requests to the service; 1 to 64.
    pub requests: u32,
    /// Bytes of all answers of the service; 1 KiB to 64 MiB.
    pub upstream_bytes: u64,
    /// Bytes of the result; 1 KiB to 1 MiB. What is over is cut, and the result says so.
    pub client_bytes: u64,
    /// Calls of this module at once; 1 to 256.
    pub concurrency: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline_ms: 10_000,
            memory_bytes: 32 << 20,
            requests: 8,
            upstream_bytes: 4 << 20,
            client_bytes: 64 << 10,
            concurrency: 16,
        }
    }
}

/// A tool of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolManifest {
    /// The name that clients use.
    pub name: ToolName,
    /// For people; at most 128 bytes.
    pub title: String,
    /// For the model; at most 4 KiB.
    pub description: String,
    /// What a call can do to the service.
    pub access: Access,
    /// JSON Schema 2020-12 of its arguments.
    pub input_schema: BlobPath,
    /// JSON Schema 2020-12 of its structured result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<BlobPath>,
    /// Arguments whose values the audit log may hold in clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recordable: Vec<String>,
    /// The request that a call makes.
    pub http: HttpTool,
}

impl ModuleManifest {
    /// Reads one module's manifest on its own, as the runner gets it.
    pub fn parse(bytes: &[u8]) -> Result<ModuleManifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let module: ModuleManifest = serde_json::from_slice(bytes).map_err(json_error)?;
        module.check()?;
        Ok(module)
    }

    /// Every blob that it names, once.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobPath> {
        self.named().collect::<BTreeSet<_>>().into_iter()
    }

    /// The blobs that it names, as often as it does.
    pub(super) fn named(&self) -> impl Iterator<Item = &BlobPath> {
        self.tools
            .iter()
            .flat_map(|t| std::iter::once(&t.input_schema).chain(&t.output_schema))
    }

    /// The tool with this name.
    pub fn tool(&self, name: &ToolName) -> Option<&ToolManifest> {
        self.tools.iter().find(|t| t.name == *name)
    }

    pub(super) fn check(&self) -> Result<(), ManifestError> {
        let module = self.name.as_str();
        let version = &self.version;
        let rules = [
            (
                is_text(&self.title, 128),
                "title",
                "at most 128 bytes without control characters",
            ),
            (
                is_text(&self.description, 4096),
                "description",
                "at most 4 KiB without control characters",
            ),
            (
                (1..=64).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_graphic()),
                "version",
                "1 to 64 printable ASCII characters",
            ),
            (self.slots.len() <= 16, "slots", "at most 16"),
            ((1..=256).contains(&self.tools.len()), "tools", "1 to 256"),
        ];
        first_broken(module, &rules)?;
        unique(module, "slot", self.slots.iter().map(|s| s.name.as_str()))?;
        unique(module, "tool", self.tools.iter().map(|t| t.name.as_str()))?;
        self.slots.iter().try_for_each(|slot| slot.check(module))?;
        self.limits.check(module)?;
        self.tools.iter().try_for_each(|tool| self.check_tool(tool))
    }

    fn check_tool(&self, tool: &ToolManifest) -> Result<(), ManifestError> {
        let place = format!("{}/{}", self.name, tool.name);
        let rules = [
            (
                is_text(&tool.title, 128),
                "title",
                "at most 128 bytes without control characters",
            ),
            (
                is_text(&tool.description, 4096),
                "description",
                "at most 4 KiB without control characters",
            ),
            (
                tool.recordable.len() <= 64,
                "recordable",
                "at most 64 arguments",
            ),
            (
                tool.recordable.iter().all(|r| is_text(r, 128)),
                "recordable",
                "names of at most 128 bytes",
            ),
            (
                tool.http.pages.is_none() || tool.access == Access::Read,
                "pages",
                "of a tool that only reads: each page sends the request again",
            ),
        ];
        first_broken(&place, &rules)?;
        unique(
            &place,
            "recordable",
            tool.recordable.iter().map(String::as_str),
        )?;
        if !self.slots.iter().any(|slot| slot.name == tool.http.slot) {
            return Err(ManifestError::NoSlot {
                module: self.name.clone(),
                tool: tool.name.clone(),
                slot: tool.http.slot.clone(),
            });
        }
        tool.http.check().map_err(|error| ManifestError::Request {
            module: self.name.clone(),
            tool: tool.name.clone(),
            error,
        })
    }
}

impl Slot {
    fn check(&self, module: &str) -> Result<(), ManifestError> {
        let host =
            |h: &String| (1..=253).contains(&h.len()) && h.bytes().all(|b| b.is_ascii_graphic());
        let rules = [
            (
                (1..=8).contains(&self.auth.len()),
                "slot auth",
                "1 to 8 kinds",
            ),
            (
                self.hosts.len() <= 64 && self.hosts.iter().all(host),
                "slot hosts",
                "at most 64 host names",
            ),
            (
                is_text(&self.description, 4096),
                "slot description",
                "at most 4 KiB without control characters",
            ),
        ];
        first_broken(module, &rules)
    }
}

impl Limits {
    fn check(&self, module: &str) -> Result<(), ManifestError> {
        let rules = [
            (
                (10..=300_000).contains(&self.deadline_ms),
                "deadline_ms",
                "10 to 300000",
            ),
            (
                (1 << 20..=256 << 20).contains(&self.memory_bytes),
                "memory_bytes",
                "1 MiB to 256 MiB",
            ),
            ((1..=64).contains(&self.requests), "requests", "1 to 64"),
            (
                (1 << 10..=64 << 20).contains(&self.upstream_bytes),
                "upstream_bytes",
                "1 KiB to 64 MiB",
            ),
            (
                (1 << 10..=1 << 20).contains(&self.client_bytes),
                "client_bytes",
                "1 KiB to 1 MiB",
            ),
            (
                (1..=256).contains(&self.concurrency),
                "concurrency",
                "1 to 256",
            ),
        ];
        first_broken(module, &rules)
    }
}

fn first_broken(
    place: &str,
    rules: &[(bool, &'static str, &'static str)],
) -> Result<(), ManifestError> {
    match rules.iter().find(|(holds, ..)| !holds) {
        Some((_, what, rule)) => Err(ManifestError::Value {
            place: place.to_owned(),
            what,
            rule,
        }),
        None => Ok(()),
    }
}
