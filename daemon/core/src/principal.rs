//! Who calls: evidence of a peer, and the principal it stands for. No I/O.
//!
//! Owns: [`PeerEvidence`], [`Principal`] and [`Identities`], the only way from one to the other.
//! Promises: evidence that fits no record, or more than one, is nobody; uid 0 and the overflow uid
//! are nobody outside a dev store, whatever a record says. Neither value can be deserialised.
//! Does not: look at a socket. `PeerEvidence::unix` and `PeerEvidence::fixed` are called in the
//! daemon's `listen` alone; a test of the workspace looks for these two spellings elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, PrincipalName};

/// The uid that a kernel shows for a peer whose uid its namespace cannot express.
pub const OVERFLOW_UID: u32 = 65_534;

/// What the listener knows of a peer. Made in the daemon's `listen` only, and never read from a
/// message:
/// ```compile_fail,E0277
/// serde_json::from_str::<mcpist_core::principal::PeerEvidence>("{}").unwrap();
/// ```
#[derive(Debug)]
pub struct PeerEvidence(Evidence);

#[derive(Debug)]
enum Evidence {
    Unix { uid: u32, gid: u32, pid: i32 },
    Fixed(PrincipalName),
}

impl PeerEvidence {
    /// SO_PEERCRED of a Unix socket.
    pub fn unix(uid: u32, gid: u32, pid: i32) -> PeerEvidence {
        PeerEvidence(Evidence::Unix { uid, gid, pid })
    }

    /// A listener of a dev store that stands for one principal.
    pub fn fixed(name: PrincipalName) -> PeerEvidence {
        PeerEvidence(Evidence::Fixed(name))
    }

    /// For the log: what kind of evidence, and its numbers.
    pub fn describe(&self) -> String {
        match &self.0 {
            Evidence::Unix { uid, gid, pid } => format!("unix uid={uid} gid={gid} pid={pid}"),
            Evidence::Fixed(name) => format!("fixed principal={name}"),
        }
    }
}

/// A principal as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalRecord {
    /// Its name.
    pub name: PrincipalName,
    /// The groups it is in.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// The evidence that stands for it; any one of them does.
    #[serde(default)]
    pub rules: Vec<IdentityRule>,
}

/// Evidence that stands for a principal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityRule {
    /// The peer's user id on this host.
    Uid(u32),
}

/// Who makes a call. Made by [`Identities::identify`] only; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(Arc<Identity>);

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    name: PrincipalName,
    groups: Vec<GroupName>,
}

impl Principal {
    fn of(record: PrincipalRecord) -> Principal {
        let mut groups = record.groups;
        groups.sort();
        groups.dedup();
        Principal(Arc::new(Identity {
            name: record.name,
            groups,
        }))
    }

    /// Its name.
    pub fn name(&self) -> &PrincipalName {
        &self.0.name
    }

    /// Its groups, sorted, each once.
    pub fn groups(&self) -> &[GroupName] {
        &self.0.groups
    }
}

/// The principals of one snapshot of the policy.
#[derive(Debug, Default)]
pub struct Identities {
    names: BTreeMap<PrincipalName, Principal>,
    uids: BTreeMap<u32, Principal>,
    dev: bool,
}

impl Identities {
    /// Indexes the records. A name or a rule that occurs in more than one record stands for nobody.
    pub fn new(records: impl IntoIterator<Item = PrincipalRecord>, dev: bool) -> Identities {
        let mut out = Identities {
            dev,
            ..Identities::default()
        };
        let mut ambiguous_names = BTreeSet::new();
        let mut ambiguous_uids = BTreeSet::new();
        for record in records {
            let rules: BTreeSet<IdentityRule> = record.rules.iter().cloned().collect();
            let principal = Principal::of(record);
            for IdentityRule::Uid(uid) in rules {
                if out.uids.insert(uid, principal.clone()).is_some() {
                    ambiguous_uids.insert(uid);
                }
            }
            let name = principal.name().clone();
            if out.names.insert(name.clone(), principal).is_some() {
                ambiguous_names.insert(name);
            }
        }
        out.uids
            .retain(|uid, p| !ambiguous_uids.contains(uid) && !ambiguous_names.contains(p.name()));
        out.names.retain(|name, _| !ambiguous_names.contains(name));
        out
    }

    /// The principal that the evidence stands for, or nobody. Evidence is used up.
    pub fn identify(&self, evidence: PeerEvidence) -> Option<Principal> {
        match evidence.0 {
            Evidence::Unix {
                uid: 0 | OVERFLOW_UID,
                ..
            } if !self.dev => None,
            Evidence::Unix { uid, .. } => self.uids.get(&uid).cloned(),
            Evidence::Fixed(name) if self.dev => self.names.get(&name).cloned(),
            Evidence::Fixed(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
