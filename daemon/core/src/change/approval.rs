//! Approvals by officers' keys, and the change that has enough of them.
//!
//! Threat: one person approves twice (one key under two names, one signature sent twice), an
//! approval is used for another change, another store, or again later. So: keys are counted by
//! their bytes, the message binds change and state, and the state binds the store's incarnation and
//! versions that never repeat ([`super::PolicyView`]). Signatures are Ed25519 (RFC 8032) over
//! `"mcpist-approval-v1\0" ‖ change digest ‖ state digest`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::{Change, PolicyView, State, widening};
use crate::ids::{Digest, IdError, by_parse};

const DOMAIN: &[u8; 19] = b"mcpist-approval-v1\0";

/// What an officer's key signs.
pub fn approval_message(change: &Digest, state: &Digest) -> Vec<u8> {
    [&DOMAIN[..], change.as_bytes(), state.as_bytes()].concat()
}

/// An Ed25519 signature. Text: 128 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// A signature made elsewhere.
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// Takes 128 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Signature, IdError> {
        let mut out = [0; 64];
        if text.bytes().any(|b| b.is_ascii_uppercase())
            || hex::decode_to_slice(text, &mut out).is_err()
        {
            return Err(IdError::new(
                "signature",
                text,
                "128 lower-case hexadecimal digits",
            ));
        }
        Ok(Signature(out))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

by_parse!(Signature, "an Ed25519 signature");

/// One officer's word for one change in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The key's id: SHA-256 of its 32 public bytes.
    pub officer: Digest,
    /// The change.
    pub change: Digest,
    /// The state that it changes.
    pub state: Digest,
    /// Over [`approval_message`].
    pub signature: Signature,
}

impl Approval {
    /// Checks this approval alone, as it arrives; gives the officer.
    pub fn verify<'a>(
        &self,
        change: &Digest,
        state: &Digest,
        officers: &'a Officers,
    ) -> Result<&'a Officer, ApprovalError> {
        if self.change != *change {
            return Err(ApprovalError::OtherChange {
                officer: self.officer,
            });
        }
        if self.state != *state {
            return Err(ApprovalError::StateMoved {
                officer: self.officer,
            });
        }
        let officer = officers.get(&self.officer).ok_or(ApprovalError::Unknown {
            officer: self.officer,
        })?;
        UnparsedPublicKey::new(&ED25519, officer.public)
            .verify(&approval_message(change, state), &self.signature.0)
            .map_err(|_| ApprovalError::Signature {
                officer: self.officer,
            })?;
        Ok(officer)
    }
}

/// An enrolled officer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Officer {
    /// The name at enrolment, for people.
    pub name: String,
    /// The Ed25519 public key.
    pub public: [u8; 32],
}

impl Officer {
    /// The key's id: SHA-256 of its public bytes.
    pub fn id(&self) -> Digest {
        Digest::of(&self.public)
    }
}

/// The enrolled officers of a store.
#[derive(Debug, Clone, Default)]
pub struct Officers {
    keys: BTreeMap<Digest, Officer>,
    dev: bool,
}

impl Officers {
    /// Officers by key; a key that is listed twice is one officer. In a dev store one approval is
    /// always enough.
    pub fn new(officers: impl IntoIterator<Item = Officer>, dev: bool) -> Officers {
        Officers {
            keys: officers.into_iter().map(|o| (o.id(), o)).collect(),
            dev,
        }
    }

    /// The officer with this key id.
    pub fn get(&self, id: &Digest) -> Option<&Officer> {
        self.keys.get(id)
    }

    /// How many different keys a change needs.
    pub fn needed(&self, widens: bool) -> usize {
        if widens && !self.dev { 2 } else { 1 }
    }
}

/// Why a change is not approved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApprovalError {
    /// The key is not enrolled.
    #[error("key {} is not an enrolled officer's; the ceremony record names who is", .officer.short())]
    Unknown {
        /// The key's id.
        officer: Digest,
    },
    /// It approves something else.
    #[error("the approval of {} is for another change; show the change again and sign its digest", .officer.short())]
    OtherChange {
        /// The key's id.
        officer: Digest,
    },
    /// The object, or one that it names, has changed since.
    #[error("the approval of {} is void: what it was given for has changed since; review and sign again", .officer.short())]
    StateMoved {
        /// The key's id.
        officer: Digest,
    },
    /// The signature does not verify.
    #[error("the signature of {} does not verify; sign with the enrolled key", .officer.short())]
    Signature {
        /// The key's id.
        officer: Digest,
    },
    /// One key twice.
    #[error("key {} approves twice; a second officer must sign", .officer.short())]
    Twice {
        /// The key's id.
        officer: Digest,
    },
    /// Not enough keys.
    #[error("{given} of {needed} approvals{}", reason(.widens))]
    Missing {
        /// How many are good.
        given: usize,
        /// How many it takes.
        needed: usize,
        /// Why it takes two.
        widens: Option<&'static str>,
    },
}

fn reason(widens: &Option<&'static str>) -> String {
    widens.map_or_else(String::new, |why| {
        format!(": a second officer must sign, since {why}")
    })
}

/// A change that may be stored. [`Approved::verify`] is the only maker; it is used up by storing.
///
/// ```compile_fail,E0451
/// use mcpist_core::change::{Approved, Change};
/// fn forge(change: Change) -> Approved<Change> {
///     Approved { change, officers: Vec::new(), widens: None }
/// }
/// ```
#[derive(Debug)]
#[must_use = "an approved change is there to be stored"]
pub struct Approved<T> {
    change: T,
    officers: Vec<Digest>,
    widens: Option<&'static str>,
}

impl Approved<Change> {
    /// Judges the change against the policy of now, checks every approval and counts the keys.
    /// `view` must be the state that the change is then applied to, with nothing in between.
    pub fn verify(
        change: Change,
        view: &impl PolicyView,
        approvals: &[Approval],
        officers: &Officers,
    ) -> Result<Approved<Change>, ApprovalError> {
        let widens = widening(&change, view);
        let digest = change.digest();
        let state = State::of(&change, view).digest();
        let mut keys = BTreeSet::new();
        for approval in approvals {
            approval.verify(&digest, &state, officers)?;
            if !keys.insert(approval.officer) {
                return Err(ApprovalError::Twice {
                    officer: approval.officer,
                });
            }
        }
        let needed = officers.needed(widens.is_some());
        if keys.len() < needed {
            return Err(ApprovalError::Missing {
                given: keys.len(),
                needed,
                widens,
            });
        }
        Ok(Approved {
            change,
            officers: keys.into_iter().collect(),
            widens,
        })
    }
}

impl<T> Approved<T> {
    /// The change.
    pub fn change(&self) -> &T {
        &self.change
    }

    /// The ids of the keys that approved, sorted.
    pub fn officers(&self) -> &[Digest] {
        &self.officers
    }

    /// Why it took two keys, if it widened.
    pub fn widens(&self) -> Option<&'static str> {
        self.widens
    }

    /// The change, to be stored.
    pub fn into_change(self) -> T {
        self.change
    }
}
