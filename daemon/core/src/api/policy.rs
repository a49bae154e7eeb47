//! The policy: what stands, changes to it and their approvals, registries, and the mask explained.

use serde::{Deserialize, Serialize};

use crate::binding::{Binding, Join};
use crate::change::{Approval, Change, Review};
use crate::grant::Grant;
use crate::ids::{BundleName, Digest, ModuleName, Namespace, PrincipalName, RegistryId};
use crate::principal::PrincipalRecord;

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $item:ty }),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            /// By name.
            pub $field: Vec<$item>,
        }
    )*};
}

lists! {
    /// All principals.
    Principals { principals: PrincipalRecord },
    /// All grants.
    Grants { grants: Grant },
    /// All bindings.
    Bindings { bindings: Binding },
    /// All joins.
    Joins { joins: Join },
    /// All registries.
    Registries { registries: Registry },
    /// All changes that wait for approvals.
    Changes { changes: WaitingChange },
}

/// One registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Its id, the digest of its manifest.
    pub id: RegistryId,
    /// Who published it.
    pub namespace: Namespace,
    /// The bundle's name there.
    pub name: BundleName,
    /// The bundle's number.
    pub sequence: u64,
    /// What it is doing.
    pub state: RegistryState,
    /// Its modules.
    pub modules: Vec<ModuleName>,
    /// When it was imported, in seconds since 1970.
    pub imported: u64,
}

/// What a registry is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryState {
    /// It was verified and stored, and serves nothing yet.
    Imported,
    /// It serves calls.
    Active,
    /// It serves only those who have read its schemas.
    Draining,
    /// It serves nothing any more.
    Retired,
}

impl RegistryState {
    /// The stable text, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RegistryState::Imported => "imported",
            RegistryState::Active => "active",
            RegistryState::Draining => "draining",
            RegistryState::Retired => "retired",
        }
    }
}

/// A bundle was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The new registry.
    pub registry: Registry,
    /// What it widens against the one before, in words; empty when nothing. Activating a registry that
    /// widens needs two officers.
    #[serde(default)]
    pub widens: Vec<String>,
    /// A witness receipt of the store with the new registry, to be kept outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

/// Proposes a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeChange {
    /// The change.
    pub change: Change,
}

/// What a proposed change needs. It is kept until it is stored, what it was proposed against moves, its proposer
/// withdraws it, or a day has passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposed {
    /// The change, as the daemon understood it.
    pub change: Change,
    /// What officers sign, and how many of them.
    pub review: Review,
    /// What stands now where the change would stand, as the change that would put it there; for a removal what goes.
    /// Null where nothing does.
    #[serde(default)]
    pub replaces: Option<Change>,
    /// The registry that the change names, where it names one.
    #[serde(default)]
    pub registry: Option<NamedRegistry>,
    /// The binding that a join names, which says where the credential goes. An approval is void once that changes.
    #[serde(default)]
    pub binding: Option<Box<Binding>>,
}

/// What an officer reads of a registry of which a change says the id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRegistry {
    /// What the store says of it. Its namespace is the publisher.
    pub registry: Registry,
    /// After this moment it is not activated any more, in seconds since 1970. Null where its folder is damaged.
    #[serde(default)]
    pub not_after: Option<u64>,
    /// What its publisher says is new. Null where its folder is damaged.
    #[serde(default)]
    pub notes: Option<String>,
}

/// A change that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingChange {
    /// Digest of the change.
    pub change: Digest,
    /// What it does, such as `grant-put`.
    pub kind: String,
    /// What it does it to, such as `grant/ops`.
    pub object: String,
    /// The Unix user who proposed it, and may withdraw it.
    pub uid: u32,
    /// Key ids of the officers who have approved it.
    pub approved: Vec<Digest>,
    /// Seconds until it is dropped.
    pub expires_s: u64,
}

/// Approves the proposed change of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Approve {
    /// An officer's signature.
    Approval(Approval),
    /// The key of a development store signs. Refused by every other store.
    Dev,
}

/// What came of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// The change is stored and in force.
    Stored {
        /// The change.
        change: Digest,
    },
    /// Another officer has to approve it.
    Pending {
        /// Key ids of the officers who have.
        approved: Vec<Digest>,
        /// How many are needed.
        needs: usize,
    },
}

/// Asks why a principal sees a tool or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainMask {
    /// The principal.
    pub principal: PrincipalName,
    /// The module's name, as a client would send it.
    pub module: String,
    /// The tool's name, as a client would send it.
    pub tool: String,
}
