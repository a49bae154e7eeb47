//! What the payloads of the link's own frames mean: greeting, modules, bindings, fingerprints, answers.
//! No I/O. Calls and leases are in `call` and `lease`.
//!
//! Every decoder here reads hostile bytes: it returns the value or a coded [`PayloadError`], never panics,
//! and allocates no more than the bytes that are really there.

use std::fmt;

use bytes::Bytes;
use mcpist_core::binding::Binding;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{BindingName, Digest, ModuleName, ModuleRev, RegistryId};
pub use mcpist_core::manifest::MAX_MANIFEST;
use mcpist_core::manifest::{Manifest, ManifestError};
use mcpist_core::result::{MAX_ERROR_TEXT, ToolError};
use mcpist_core::text::excerpt;

use crate::codec::{Cursor, PayloadError, put_name, put_u16, put_u32, put_u64};

/// The wire versions that this build speaks: N and N−1. Only one exists yet.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Bytes of the longest binding as JSON; its CA certificates are most of it.
pub const MAX_BINDING: usize = 256 * 1024;
/// Bytes of the longest fingerprint.
pub const MAX_FINGERPRINT: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"mcpwire\0";

/// The first and the last version that a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    min: u16,
    max: u16,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

impl Versions {
    /// The versions from `min` to `max`; `None` when that is no range.
    #[must_use]
    pub fn new(min: u16, max: u16) -> Option<Versions> {
        (min <= max).then_some(Versions { min, max })
    }

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    pub(crate) fn hold(self, version: u16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// What a runner process is for. Each role has its own user and its own connection (DESIGN §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Modules and their egress to the LAN.
    Run,
    /// Network vaults, token endpoints and key sets; no module code.
    Vault,
}

impl Role {
    /// The role's name on command lines and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Run => "run",
            Role::Vault => "vault",
        }
    }
}

/// A runner's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the runner speaks.
    pub versions: Versions,
    /// What it is for.
    pub role: Role,
    /// Its process id as it says; for logs only, the peer's credentials are the kernel's.
    pub pid: u32,
}

impl Hello {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        put_u16(out, self.versions.min);
        put_u16(out, self.versions.max);
        out.push(match self.role {
            Role::Run => 1,
            Role::Vault => 2,
        });
        put_u32(out, self.pid);
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Hello, PayloadError> {
        let mut cursor = Cursor::new(payload);
        if cursor.array("the magic")? != MAGIC {
            return Err(PayloadError::Invalid("the magic"));
        }
        let (min, max) = (cursor.u16("the versions")?, cursor.u16("the versions")?);
        let versions = Versions::new(min, max).ok_or(PayloadError::Invalid("the versions"))?;
        let role = match cursor.u8("the role")? {
            1 => Role::Run,
            2 => Role::Vault,
            _ => return Err(PayloadError::Invalid("the role")),
        };
        let pid = cursor.u32("the process id")?;
        cursor.end()?;
        Ok(Hello {
            versions,
            role,
            pid,
        })
    }
}

/// Why an end closes the link, as the other end is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The stable code.
    pub code: CloseCode,
    /// One line for the log, at most 255 bytes.
    pub text: String,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.text)
    }
}

/// The codes of [`Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The two ends speak no common version.
    WireVersion,
    /// The peer's uid is not the one of the role that it names.
    RoleRefused,
    /// A connection of this role is live already.
    RoleTaken,
    /// The other end broke the protocol.
    Protocol,
    /// The end stops in good order.
    Stopping,
    /// A code that this build does not know.
    Unknown,
}

impl CloseCode {
    const ALL: [CloseCode; 6] = [
        CloseCode::WireVersion,
        CloseCode::RoleRefused,
        CloseCode::RoleTaken,
        CloseCode::Protocol,
        CloseCode::Stopping,
        CloseCode::Unknown,
    ];

    /// The code's stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CloseCode::WireVersion => "wire_version",
            CloseCode::RoleRefused => "role_refused",
            CloseCode::RoleTaken => "role_taken",
            CloseCode::Protocol => "wire_protocol",
            CloseCode::Stopping => "stopping",
            CloseCode::Unknown => "unknown",
        }
    }
}

impl Close {
    pub(crate) fn new(code: CloseCode, text: impl fmt::Display) -> Close {
        Close {
            code,
            text: text.to_string(),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, self.code.as_str());
        put_name(out, &self.text);
    }

    /// The text's control characters are escaped: it comes from the other end and goes into a log.
    pub(crate) fn decode(payload: &[u8]) -> Result<Close, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let code = cursor.name("the close code")?;
        let text = excerpt(cursor.name("the close text")?, 255);
        cursor.end()?;
        let known = CloseCode::ALL
            .into_iter()
            .find(|known| known.as_str() == code);
        Ok(Close {
            code: known.unwrap_or(CloseCode::Unknown),
            text,
        })
    }
}

pub(crate) fn put_rev(out: &mut Vec<u8>, rev: &ModuleRev) {
    out.extend_from_slice(rev.registry.digest().as_bytes());
    put_name(out, rev.module.as_str());
}

fn take_registry(cursor: &mut Cursor<'_>) -> Result<RegistryId, PayloadError> {
    Ok(RegistryId::new(Digest::from_bytes(
        cursor.array("the registry")?,
    )))
}

pub(crate) fn take_rev(cursor: &mut Cursor<'_>) -> Result<ModuleRev, PayloadError> {
    let registry = take_registry(cursor)?;
    let module = ModuleName::parse(cursor.name("the module")?)
        .map_err(|_| PayloadError::Invalid("the module"))?;
    Ok(ModuleRev { registry, module })
}

/// A registry whose modules the runner is to have ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The digest of `manifest`.
    pub registry: RegistryId,
    /// The bytes of the bundle's manifest as they were signed.
    pub manifest: Bytes,
}

/// Why a [`Load`] is not what it says. The runner then has none of the registry's modules.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The manifest's bytes hash to something else than the registry's id.
    #[error("the manifest is not the one of registry {}; import the bundle again", .0.short())]
    Digest(RegistryId),
    /// The manifest does not parse.
    #[error("the manifest of registry {} does not parse: {source}", .registry.short())]
    Manifest {
        /// The registry.
        registry: RegistryId,
        /// What core's parser says.
        source: ManifestError,
    },
}

impl Load {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.registry.digest().as_bytes());
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Load, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let registry = take_registry(&mut cursor)?;
        let manifest = Bytes::copy_from_slice(cursor.rest());
        Ok(Load { registry, manifest })
    }

    /// Hashes the manifest anew and parses it: what the runner does before it offers a module.
    ///
    /// # Errors
    /// [`LoadError`] when the bytes are not the registry's, or are no manifest.
    pub fn verify(&self) -> Result<Manifest, LoadError> {
        let registry = self.registry;
        if RegistryId::of_manifest(&self.manifest) != registry {
            return Err(LoadError::Digest(registry));
        }
        Manifest::parse(&self.manifest).map_err(|source| LoadError::Manifest { registry, source })
    }
}

/// A binding as the runner needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// The binding record's version; connections are pooled by it.
    pub version: u64,
    /// The record.
    pub binding: Binding,
}

impl Bind {
    /// The record as JSON, what follows the fields; `None` over [`MAX_BINDING`].
    pub(crate) fn record(&self) -> Option<Bytes> {
        let json = serde_json::to_vec(&self.binding).ok()?;
        (json.len() <= MAX_BINDING).then(|| json.into())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.version);
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Bind, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let version = cursor.u64("the binding's version")?;
        let binding = serde_json::from_slice(cursor.rest())
            .map_err(|_| PayloadError::Invalid("the binding"))?;
        Ok(Bind { version, binding })
    }
}

/// What the runner is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A registry's modules, and their connections.
    Registry(RegistryId),
    /// A version of a binding, and its connections.
    Binding {
        /// The binding.
        name: BindingName,
        /// The version that is dropped.
        version: u64,
    },
    /// A fingerprint, by the number that its `redact` gave it.
    Fingerprint(u64),
}

impl Dropped {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Dropped::Registry(registry) => {
                out.push(1);
                out.extend_from_slice(registry.digest().as_bytes());
            }
            Dropped::Binding { name, version } => {
                out.push(2);
                put_name(out, name.as_str());
                put_u64(out, *version);
            }
            Dropped::Fingerprint(id) => {
                out.push(3);
                put_u64(out, *id);
            }
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Dropped, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let dropped = match cursor.u8("what is dropped")? {
            1 => Dropped::Registry(take_registry(&mut cursor)?),
            2 => {
                let name = BindingName::parse(cursor.name("the binding")?)
                    .map_err(|_| PayloadError::Invalid("the binding"))?;
                Dropped::Binding {
                    name,
                    version: cursor.u64("the binding's version")?,
                }
            }
            3 => Dropped::Fingerprint(cursor.u64("the fingerprint's number")?),
            _ => return Err(PayloadError::Invalid("what is dropped")),
        };
        cursor.end()?;
        Ok(dropped)
    }
}

/// The fixed fields of an answer; its bytes follow, content first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    pub(crate) is_error: bool,
    pub(crate) truncated: bool,
    pub(crate) hits: u32,
    pub(crate) content: u32,
    /// `None`: no structured content.
    pub(crate) structured: Option<u32>,
}

const IS_ERROR: u8 = 1;
const TRUNCATED: u8 = 2;
const STRUCTURED: u8 = 4;

impl AnswerHead {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(self.is_error, IS_ERROR)
                | flag(self.truncated, TRUNCATED)
                | flag(self.structured.is_some(), STRUCTURED),
        );
        put_u32(out, self.hits);
        put_u32(out, self.content);
        put_u32(out, self.structured.unwrap_or(0));
    }

    /// The head, and the answer's first bytes.
    pub(crate) fn decode(payload: &[u8]) -> Result<(AnswerHead, &[u8]), PayloadError> {
        let mut cursor = Cursor::new(payload);
        let flags = cursor.u8("the answer's flags")?;
        let hits = cursor.u32("the answer's hits")?;
        let content = cursor.u32("the answer's length")?;
        let structured = cursor.u32("the answer's length")?;
        let has = flags & STRUCTURED != 0;
        if flags & !(IS_ERROR | TRUNCATED | STRUCTURED) != 0 || (structured > 0 && !has) {
            return Err(PayloadError::Invalid("the answer's flags"));
        }
        let head = AnswerHead {
            is_error: flags & IS_ERROR != 0,
            truncated: flags & TRUNCATED != 0,
            hits,
            content,
            structured: has.then_some(structured),
        };
        Ok((head, cursor.rest()))
    }

    /// Bytes of content and structured content together.
    pub(crate) fn total(&self) -> u64 {
        u64::from(self.content) + u64::from(self.structured.unwrap_or(0))
    }
}

pub(crate) fn encode_error(error: &ToolError, out: &mut Vec<u8>) {
    put_name(out, error.code().as_str());
    put_u32(out, error.hits());
    out.extend_from_slice(error.message().as_bytes());
}

/// A failed call's code, hits and text; a code of a newer runner is `internal`, the text is bounded and escaped.
pub(crate) fn decode_error(payload: &[u8]) -> Result<ToolError, PayloadError> {
    let mut cursor = Cursor::new(payload);
    let code = ErrorCode::parse_or_internal(cursor.name("the error code")?);
    let hits = cursor.u32("the redaction hits")?;
    let text = cursor.rest();
    if text.len() > MAX_ERROR_TEXT {
        return Err(PayloadError::TooLong("the error text"));
    }
    let text = std::str::from_utf8(text).map_err(|_| PayloadError::Invalid("the error text"))?;
    Ok(ToolError::with(code, text).with_hits(hits))
}
