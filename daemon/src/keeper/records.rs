//! The policy as records of the system vault: how each object is named, written and read back.
//!
//! Owns the names and kinds. An object that is taken away stays as a record with the payload `null`, so that its
//! version goes on counting and an approval of its first life never serves a second one. No I/O but the vault's.

use mcpist_core::api::RegistryState;
use mcpist_core::change::Object;
use mcpist_core::ids::{BundleName, Digest, ModuleName, Namespace, RegistryId};
use mcpist_sealer::{Expect, Op, OpenVault, RecordKey, VaultError};
use mcpist_secret::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What `null` stands for.
const TAKEN_AWAY: &[u8] = b"null";

/// Kind of the record that holds the trust root.
pub(crate) const ROOT: &str = "root";
/// Kind of the record that holds a development store's own officer key.
pub(crate) const DEV_OFFICER: &str = "dev-officer";
/// Kind of sequence floors.
pub(crate) const FLOOR: &str = "floor";

/// A registry as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryRecord {
    pub(crate) namespace: Namespace,
    pub(crate) name: BundleName,
    pub(crate) sequence: u64,
    pub(crate) state: RegistryState,
    pub(crate) modules: Vec<ModuleName>,
    /// Seconds since 1970.
    pub(crate) imported: u64,
}

/// The highest sequence of a bundle that was imported, and which bundle that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FloorRecord {
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordsError {
    /// The vault said no.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The payload is not what its kind says.
    #[error("record {0} is not of its kind; restore the store from a backup")]
    Payload(String),
    /// Secret memory is full.
    #[error(transparent)]
    Memory(#[from] mcpist_secret::MemoryError),
}

/// The record's name of a policy object.
pub(crate) fn name_of(object: &Object) -> String {
    match object {
        Object::Principal(name) => format!("principal/{name}"),
        Object::Grant(name) => format!("grant/{name}"),
        Object::Binding(name) => format!("binding/{name}"),
        Object::Join {
            registry,
            module,
            slot,
        } => format!("join/{}/{module}/{slot}", registry.digest()),
        Object::Registry(id) => registry_name(id),
        Object::TimeFloor => object.kind().to_owned(),
        Object::Credential { vault, name } => format!("credential/{vault}/{name}"),
    }
}

/// The record's name of a registry.
pub(crate) fn registry_name(id: &RegistryId) -> String {
    format!("registry/{}", id.digest())
}

/// The record's name of a floor.
pub(crate) fn floor_name(namespace: &Namespace, name: &BundleName) -> String {
    format!("floor/{namespace}/{name}")
}

/// The write of an object, or of its being taken away.
pub(crate) fn put<T: Serialize>(
    kind: &str,
    name: String,
    value: Option<&T>,
    expect: Expect,
) -> Result<Op, RecordsError> {
    let json = match value {
        Some(value) => {
            serde_json::to_vec(value).map_err(|_| RecordsError::Payload(name.clone()))?
        }
        None => TAKEN_AWAY.to_vec(),
    };
    put_bytes(kind, name, Secret::copy_of(&json)?, expect)
}

/// The state in which memory knows a record, for a write that is made for it alone.
pub(crate) fn expect(version: Option<u64>) -> Expect {
    version.map_or(Expect::Absent, Expect::Version)
}

/// The write of bytes that are a record as they are.
pub(crate) fn put_bytes(
    kind: &str,
    name: String,
    payload: Secret,
    expect: Expect,
) -> Result<Op, RecordsError> {
    Ok(Op::Put {
        owner: None,
        name,
        kind: kind.to_owned(),
        expiry: 0,
        hosts: Vec::new(),
        payload,
        expect,
    })
}

/// One record, opened.
pub(crate) fn open(vault: &OpenVault, name: &str) -> Result<Secret, RecordsError> {
    let sealed = vault.load(&RecordKey { owner: None, name })?;
    Ok(vault.open(&sealed)?)
}

/// Reads one record as JSON; `None` where there is none or it was taken away.
pub(crate) fn get<T: DeserializeOwned>(
    vault: &OpenVault,
    name: &str,
) -> Result<Option<T>, RecordsError> {
    match open(vault, name) {
        Ok(payload) if payload.expose() == TAKEN_AWAY => Ok(None),
        Ok(payload) => parse(name, &payload).map(Some),
        Err(RecordsError::Vault(VaultError::NotFound(_))) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A record of one kind: its name, its version and its value unless it was taken away.
pub(crate) type Found<T> = (String, u64, Option<T>);

/// Reads every record of a kind.
pub(crate) fn all<T: DeserializeOwned>(
    vault: &OpenVault,
    kind: &str,
) -> Result<Vec<Found<T>>, RecordsError> {
    let mut found = Vec::new();
    for listed in vault.list(Some(kind))? {
        let payload = open(vault, &listed.name)?;
        let value = if payload.expose() == TAKEN_AWAY {
            None
        } else {
            Some(parse(&listed.name, &payload)?)
        };
        found.push((listed.name, listed.meta.version, value));
    }
    Ok(found)
}

fn parse<T: DeserializeOwned>(name: &str, payload: &Secret) -> Result<T, RecordsError> {
    serde_json::from_slice(payload.expose()).map_err(|_| RecordsError::Payload(name.to_owned()))
}
