//! What a bundle says, shown without trusting a byte of it. No I/O beyond the given bytes.
//!
//! Promises: bounded and escaped text, whatever the file is. Does not verify: a bundle that is shown here may be
//! signed by nobody. `Quarantined::verify` decides.

use mcpist_core::ids::Digest;
use mcpist_core::manifest::Manifest;
use serde::Serialize;

use crate::container::ContainerError;
use crate::container::{BLOCK_LEN, Block, HEADER_LEN, Header};
use crate::verify::VerifyError;

/// A bundle's own words.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Digest of the manifest: what is compared by voice, and the registry's id.
    pub digest: Digest,
    /// Publisher.
    pub namespace: String,
    /// The bundle's name.
    pub name: String,
    /// Its number.
    pub sequence: u64,
    /// The sites that it names.
    pub audience: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Who claims to have signed: role and key id. The signatures are not checked here.
    pub signatures: Vec<(String, Digest)>,
    /// Its modules.
    pub modules: Vec<InspectedModule>,
    /// Bytes of all files.
    pub payload: u64,
}

/// A module's own words.
#[derive(Debug, Clone, Serialize)]
pub struct InspectedModule {
    /// Its name.
    pub name: String,
    /// The author's version text.
    pub version: String,
    /// Slots: name, kinds of credentials, expected hosts.
    pub slots: Vec<(String, Vec<String>, Vec<String>)>,
    /// Tools: name and access.
    pub tools: Vec<(String, String)>,
}

/// Reads a bundle's own words.
///
/// # Errors
/// A container or a manifest that does not parse.
pub fn inspect(bundle: &[u8]) -> Result<Inspection, VerifyError> {
    let size = bundle.len() as u64;
    let fixed = bundle.first_chunk::<HEADER_LEN>();
    let fixed = fixed.ok_or(ContainerError::Length {
        found: size,
        expected: HEADER_LEN as u64,
    })?;
    let header = Header::parse(fixed, size)?;
    let manifest_at = HEADER_LEN + header.signatures() * BLOCK_LEN;
    let mut signatures = Vec::new();
    for (index, bytes) in bundle[HEADER_LEN..manifest_at]
        .chunks(BLOCK_LEN)
        .enumerate()
    {
        let block = Block::parse(bytes, index)?;
        signatures.push((block.role.as_str().to_owned(), block.key));
    }
    let bytes = &bundle[manifest_at..manifest_at + header.manifest()];
    let manifest = Manifest::parse(bytes)?;
    let kind = |k: &mcpist_core::manifest::AuthKind| {
        serde_json::to_value(k)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let modules = manifest.modules.iter().map(|module| InspectedModule {
        name: module.name.to_string(),
        version: module.version.clone(),
        slots: module
            .slots
            .iter()
            .map(|s| {
                (
                    s.name.to_string(),
                    s.auth.iter().map(kind).collect(),
                    s.hosts.clone(),
                )
            })
            .collect(),
        tools: module
            .tools
            .iter()
            .map(|t| (t.name.to_string(), t.access.as_str().to_owned()))
            .collect(),
    });
    Ok(Inspection {
        digest: Digest::of(bytes),
        namespace: manifest.namespace.to_string(),
        name: manifest.name.to_string(),
        sequence: manifest.sequence,
        audience: manifest.audience.iter().map(ToString::to_string).collect(),
        created: manifest.created,
        not_after: manifest.not_after,
        signatures,
        modules: modules.collect(),
        payload: header.payload(),
    })
}
