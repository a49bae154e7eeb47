//! Root version 1: whom a site trusts, for what. No I/O.
//!
//! Strict JSON, lists and structs only:
//! `{"version":1,"site":"…","publisher":{"threshold":2,"keys":["<64 hex>",…]},"root":{…},"revoke":{…},
//! "namespaces":[{"namespace":"…","keys":["<64 hex>",…]}]}`. Keys are Ed25519 public keys. Promises: thresholds can be
//! met with distinct keys, every namespace's keys are publisher keys, and no key is listed twice in a list. A
//! namespace that is not listed is nobody's.

use mcpist_core::api::PublicKey;
use mcpist_core::ids::{Digest, Namespace, SiteId};
use serde::{Deserialize, Serialize};

/// Longest root in bytes.
pub const MAX_ROOT: usize = 64 * 1024;
const VERSION: u64 = 1;

/// The fields of a root before its checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootParts {
    /// Counts up from 1 with each new root of the site.
    pub version: u64,
    /// The site: the audience that its bundles must name.
    pub site: SiteId,
    /// Who signs bundles.
    pub publisher: Keys,
    /// Who signs the next root.
    pub root: Keys,
    /// Who signs revocations.
    pub revoke: Keys,
    /// Which publisher keys sign which namespace.
    pub namespaces: Vec<Delegation>,
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Distinct keys that must sign.
    pub threshold: usize,
    /// The keys.
    pub keys: Vec<PublicKey>,
}

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The namespace.
    pub namespace: Namespace,
    /// Publisher keys that may sign for it.
    pub keys: Vec<PublicKey>,
}

/// A checked root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(RootParts);

/// Why a root is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Over [`MAX_ROOT`].
    #[error("the root has {0} bytes; at most 64 KiB are allowed")]
    TooLong(usize),
    /// Not the JSON of a root.
    #[error("the root does not parse: {0}")]
    Json(String),
    /// Not version 1.
    #[error("a site begins with root version 1, this one is version {0}")]
    Version(u64),
    /// A threshold of 0, or more than there are keys.
    #[error("role {0}: the threshold must be at least 1 and at most the number of its keys")]
    Threshold(&'static str),
    /// One key twice, or one namespace twice.
    #[error("{0} lists an entry twice; each key and each namespace stands once")]
    Twice(String),
    /// A namespace whose key is no publisher's.
    #[error(
        "namespace {0} names a key that is no publisher key, or fewer keys than the publisher threshold"
    )]
    Delegation(Namespace),
}

impl Root {
    /// Checks the parts.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn new(parts: RootParts) -> Result<Root, RootError> {
        if parts.version != VERSION {
            return Err(RootError::Version(parts.version));
        }
        for (role, keys) in [
            ("publisher", &parts.publisher),
            ("root", &parts.root),
            ("revoke", &parts.revoke),
        ] {
            if keys.threshold == 0 || keys.threshold > keys.keys.len() {
                return Err(RootError::Threshold(role));
            }
            distinct(role, &keys.keys)?;
        }
        for (index, delegation) in parts.namespaces.iter().enumerate() {
            let name = &delegation.namespace;
            if parts.namespaces[..index]
                .iter()
                .any(|d| d.namespace == *name)
            {
                return Err(RootError::Twice("namespaces".to_owned()));
            }
            distinct(name.as_str(), &delegation.keys)?;
            let known = delegation
                .keys
                .iter()
                .all(|k| parts.publisher.keys.contains(k));
            if !known || delegation.keys.len() < parts.publisher.threshold {
                return Err(RootError::Delegation(name.clone()));
            }
        }
        Ok(Root(parts))
    }

    /// Reads a root's JSON.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn parse(bytes: &[u8]) -> Result<Root, RootError> {
        if bytes.len() > MAX_ROOT {
            return Err(RootError::TooLong(bytes.len()));
        }
        Root::new(serde_json::from_slice(bytes).map_err(|e| RootError::Json(e.to_string()))?)
    }

    /// The JSON of a new root. A root that is in force keeps its own bytes: its digest is in the seal config.
    ///
    /// # Errors
    /// [`RootError::Json`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, RootError> {
        serde_json::to_vec_pretty(&self.0).map_err(|e| RootError::Json(e.to_string()))
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &SiteId {
        &self.0.site
    }

    /// Distinct publisher keys that must sign a bundle.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.0.publisher.threshold
    }

    /// The publisher key with this id.
    #[must_use]
    pub fn publisher(&self, id: &Digest) -> Option<&PublicKey> {
        self.0
            .publisher
            .keys
            .iter()
            .find(|k| Digest::of(&k.0) == *id)
    }

    /// Whether the publisher key with this id signs for a namespace.
    #[must_use]
    pub fn delegates(&self, namespace: &Namespace, id: &Digest) -> bool {
        let delegation = self.0.namespaces.iter().find(|d| d.namespace == *namespace);
        delegation.is_some_and(|d| d.keys.iter().any(|k| Digest::of(&k.0) == *id))
    }
}

fn distinct(what: &str, keys: &[PublicKey]) -> Result<(), RootError> {
    let twice = keys.iter().enumerate().any(|(i, k)| keys[..i].contains(k));
    if twice {
        Err(RootError::Twice(what.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(threshold: usize, bytes: &[u8]) -> Keys {
        Keys {
            threshold,
            keys: bytes.iter().map(|b| PublicKey([*b; 32])).collect(),
        }
    }

    fn parts() -> RootParts {
        RootParts {
            version: 1,
            site: SiteId::parse("site-a").unwrap(),
            publisher: keys(2, &[1, 2, 3]),
            root: keys(1, &[4]),
            revoke: keys(1, &[5]),
            namespaces: vec![Delegation {
                namespace: Namespace::parse("acme").unwrap(),
                keys: keys(0, &[1, 2]).keys,
            }],
        }
    }

    #[test]
    fn a_root_reads_back_from_its_bytes() {
        let root = Root::new(parts()).unwrap();
        assert_eq!(Root::parse(&root.to_bytes().unwrap()).unwrap(), root);
        let namespace = Namespace::parse("acme").unwrap();
        assert!(root.delegates(&namespace, &Digest::of(&[1; 32])));
        assert!(!root.delegates(&namespace, &Digest::of(&[3; 32])));
        assert!(!root.delegates(&Namespace::parse("other").unwrap(), &Digest::of(&[1; 32])));
    }

    #[test]
    fn each_malformed_root_has_its_own_error() {
        let with = |change: &dyn Fn(&mut RootParts)| {
            let mut changed = parts();
            change(&mut changed);
            Root::new(changed).unwrap_err()
        };
        assert_eq!(with(&|r| r.version = 2), RootError::Version(2));
        assert_eq!(
            with(&|r| r.publisher.threshold = 0),
            RootError::Threshold("publisher")
        );
        assert_eq!(
            with(&|r| r.revoke.threshold = 2),
            RootError::Threshold("revoke")
        );
        assert_eq!(
            with(&|r| r.publisher = keys(2, &[1, 1, 2])),
            RootError::Twice("publisher".into())
        );
        let again = parts().namespaces[0].clone();
        assert_eq!(
            with(&|r| r.namespaces.push(again.clone())),
            RootError::Twice("namespaces".into())
        );
        assert!(matches!(
            with(&|r| r.namespaces[0].keys = keys(0, &[1, 9]).keys),
            RootError::Delegation(_)
        ));
        assert!(matches!(
            with(&|r| r.namespaces[0].keys = keys(0, &[1]).keys),
            RootError::Delegation(_)
        ));
    }

    #[test]
    fn unknown_and_doubled_fields_are_refused() {
        let text = String::from_utf8(Root::new(parts()).unwrap().to_bytes().unwrap()).unwrap();
        let added = text.replacen('{', "{\"extra\":1,", 1);
        let doubled = text.replacen('{', "{\"version\":1,", 1);
        assert!(matches!(
            Root::parse(added.as_bytes()),
            Err(RootError::Json(_))
        ));
        assert!(matches!(
            Root::parse(doubled.as_bytes()),
            Err(RootError::Json(_))
        ));
        assert!(matches!(
            Root::parse(&[b' '; MAX_ROOT + 1]),
            Err(RootError::TooLong(_))
        ));
    }
}
