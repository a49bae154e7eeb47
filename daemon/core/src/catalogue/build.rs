//! From a module's manifest, its schema blobs and its joins to a [`Module`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Catalogue, CatalogueError, Module, Tool};
use crate::access::Access;
use crate::ids::{BindingName, Digest, ModuleName, ModuleRev, SchemaRef, SlotName, ToolName};
use crate::manifest::{BlobPath, FitError, ModuleManifest, ToolManifest, fit};
use crate::schema::{SchemaError, Validator};

/// What a module is built of. The blobs' digests were compared with the bundle's manifest before.
#[derive(Debug, Clone)]
pub struct ActiveModule {
    /// Which edition.
    pub rev: ModuleRev,
    /// What its bundle says.
    pub manifest: ModuleManifest,
    /// The bytes of every schema that it names.
    pub schemas: BTreeMap<BlobPath, Vec<u8>>,
    /// The bindings that fill its slots.
    pub joins: Vec<(SlotName, BindingName)>,
}

/// Why a module cannot be built.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// The manifest is another module's.
    #[error("the manifest is that of \"{found}\" and not of {rev}")]
    OtherModule {
        /// Which edition was asked for.
        rev: ModuleRev,
        /// Whose manifest it is.
        found: ModuleName,
    },
    /// One slot has two joins.
    #[error("{rev}: slot \"{slot}\" is joined twice; delete one join")]
    JoinedTwice {
        /// Which edition.
        rev: ModuleRev,
        /// The slot.
        slot: SlotName,
    },
    /// A schema's bytes are missing.
    #[error("{rev}: the blob \"{path}\" is missing; import the bundle again")]
    NoBlob {
        /// Which edition.
        rev: ModuleRev,
        /// The blob.
        path: BlobPath,
    },
    /// A schema does not compile.
    #[error("{rev}/{tool}: the schema \"{path}\" does not compile: {error}")]
    Schema {
        /// Which edition.
        rev: ModuleRev,
        /// The tool.
        tool: ToolName,
        /// The blob.
        path: BlobPath,
        /// Why.
        error: Box<SchemaError>,
    },
    /// Request and schema disagree.
    #[error("{rev}/{tool}: {error}")]
    Fit {
        /// Which edition.
        rev: ModuleRev,
        /// The tool.
        tool: ToolName,
        /// How.
        error: Box<FitError>,
    },
    /// The tool's description cannot be written as JSON.
    #[error("{rev}/{tool}: its description cannot be written as JSON")]
    Json {
        /// Which edition.
        rev: ModuleRev,
        /// The tool.
        tool: ToolName,
    },
}

/// MCP's Tool object (revision 2025-11-25), in the order of its members.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    name: &'a ToolName,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_schema: Option<&'a RawValue>,
    annotations: Annotations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotations {
    read_only_hint: bool,
    destructive_hint: bool,
}

impl Module {
    /// Builds a module. Tools with a slot that no join fills are left out and listed.
    pub fn build(source: ActiveModule) -> Result<Arc<Module>, ModuleError> {
        let rev = source.rev.clone();
        if source.manifest.name != rev.module {
            return Err(ModuleError::OtherModule {
                rev,
                found: source.manifest.name,
            });
        }
        let mut joins = BTreeMap::new();
        for (slot, binding) in &source.joins {
            if joins.insert(slot, binding).is_some() {
                return Err(ModuleError::JoinedTwice {
                    rev,
                    slot: slot.clone(),
                });
            }
        }
        let mut schemas = Schemas::new(&source);
        let mut tools = Vec::new();
        let mut unjoined = Vec::new();
        for manifest in &source.manifest.tools {
            let slot = &manifest.http.slot;
            match joins.get(slot) {
                Some(binding) => {
                    let slots = vec![(slot.clone(), (*binding).clone())];
                    tools.push(Arc::new(build_tool(&mut schemas, manifest, slots)?));
                }
                None => unjoined.push((manifest.name.clone(), slot.clone())),
            }
        }
        tools.sort_by(|a, b| a.key().cmp(&b.key()));
        Ok(Arc::new(Module {
            rev,
            manifest: source.manifest,
            tools,
            unjoined,
        }))
    }
}

impl Catalogue {
    /// Builds every module and puts them together; the first that fails is the error. The daemon
    /// builds modules one by one instead, so that one that fails stops no other.
    pub fn new(modules: Vec<ActiveModule>) -> Result<Catalogue, NewCatalogueError> {
        let built = modules
            .into_iter()
            .map(Module::build)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Catalogue::of(built)?)
    }
}

/// Why [`Catalogue::new`] made none.
#[derive(Debug, Error)]
pub enum NewCatalogueError {
    /// A module does not build.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The modules do not go together.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

fn build_tool(
    schemas: &mut Schemas<'_>,
    manifest: &ToolManifest,
    slots: Vec<(SlotName, BindingName)>,
) -> Result<Tool, ModuleError> {
    let source = schemas.source;
    let rev = &source.rev;
    let input = schemas.get(manifest, &manifest.input_schema)?;
    fit(manifest, input.text.get().as_bytes()).map_err(|error| ModuleError::Fit {
        rev: rev.clone(),
        tool: manifest.name.clone(),
        error: Box::new(error),
    })?;
    let output = match &manifest.output_schema {
        Some(path) => Some(schemas.get(manifest, path)?),
        None => None,
    };
    let inner = Inner {
        name: &manifest.name,
        title: &manifest.title,
        description: &manifest.description,
        input_schema: &input.text,
        output_schema: output.as_ref().map(|output| &*output.text),
        annotations: Annotations {
            read_only_hint: manifest.access == Access::Read,
            destructive_hint: manifest.access == Access::Destructive,
        },
    };
    let inner = serde_json::value::to_raw_value(&inner).map_err(|_| ModuleError::Json {
        rev: rev.clone(),
        tool: manifest.name.clone(),
    })?;
    let digest = Digest::of(inner.get().as_bytes());
    Ok(Tool {
        schema_ref: SchemaRef::of(rev, &digest),
        rev: rev.clone(),
        manifest: manifest.clone(),
        limits: source.manifest.limits.clone(),
        slots,
        inner,
        digest,
        validator: input.validator,
    })
}

/// A schema: its text without white space, and compiled.
#[derive(Clone)]
struct Schema {
    text: Arc<RawValue>,
    validator: Arc<Validator>,
}

/// The schemas of one module, each compiled once however many tools name it.
struct Schemas<'a> {
    source: &'a ActiveModule,
    known: BTreeMap<&'a BlobPath, Schema>,
}

impl<'a> Schemas<'a> {
    fn new(source: &'a ActiveModule) -> Schemas<'a> {
        Schemas {
            source,
            known: BTreeMap::new(),
        }
    }

    /// The schema at `path`, which `tool` names.
    fn get(&mut self, tool: &ToolManifest, path: &BlobPath) -> Result<Schema, ModuleError> {
        if let Some(schema) = self.known.get(path) {
            return Ok(schema.clone());
        }
        let rev = || self.source.rev.clone();
        let no_blob = || ModuleError::NoBlob {
            rev: rev(),
            path: path.clone(),
        };
        let (path, bytes) = self
            .source
            .schemas
            .get_key_value(path)
            .ok_or_else(no_blob)?;
        let validator = Validator::compile(bytes).map_err(|error| ModuleError::Schema {
            rev: rev(),
            tool: tool.name.clone(),
            path: path.clone(),
            error: Box::new(error),
        })?;
        let json = || ModuleError::Json {
            rev: rev(),
            tool: tool.name.clone(),
        };
        let text = String::from_utf8(compact(bytes)).map_err(|_| json())?;
        let schema = Schema {
            text: RawValue::from_string(text).map_err(|_| json())?.into(),
            validator: Arc::new(validator),
        };
        self.known.insert(path, schema.clone());
        Ok(schema)
    }
}

/// Drops the white space between the tokens of valid JSON; inside the lines of MCP's stdio framing
/// no line feed may stand.
fn compact(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}
