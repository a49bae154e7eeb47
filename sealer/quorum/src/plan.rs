//! No I/O. What a ceremony is about to do, in bytes that every holder can compare.
//!
//! Owns: [`Plan`] for init and unseal, its canonical bytes and its digest. A holder reads the plan,
//! and gives a share together with the digest that was read; [`crate::Collector`] refuses the share
//! under any other plan, so a share given to unseal never serves another act. The nonce is fresh
//! per plan: a share that was captured with an old digest serves no later ceremony.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpcplan" | version u16 = 1 | act u8 | nonce [16] | store [16] | set [16] |
//! generation u32 | needed u8 | total u8 |
//! act 1, init:   holders { label text | recipient text } | officers { name text | key [32] } |
//!                root digest [32] | dev u8
//! act 2, unseal: config digest [32]
//! ```
//! Does not: keep time (the collector does), or hold a secret.

use mcpist_secret::{MemoryError, random_bytes};

use crate::codec::{Format, Reader, Writer, digest};
use crate::config::{
    ConfigError, MAX_LABEL, MAX_RECIPIENT, OfficerKey, SealConfig, check_holders, check_officers,
    check_threshold, read_generation, read_officers, read_threshold, write_officers,
};
use crate::delivery::{self, RecipientError};
use crate::ids::{ConfigDigest, Generation, MAX_SHARES, PlanDigest, SetId, StoreId, Threshold};

const FORMAT: Format = Format {
    name: "ceremony plan",
    magic: *b"mcpcplan",
    version: 1,
};
const INIT: u8 = 1;
const UNSEAL: u8 = 2;

/// Why a plan cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The people or numbers do not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A holder's recipient cannot be encrypted to.
    #[error("holder number {position}: {source}")]
    Recipient {
        /// Position from 1.
        position: usize,
        /// What is wrong with it.
        source: RecipientError,
    },
    /// No randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A holder before there is a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHolder {
    /// Who, for people to read.
    pub label: String,
    /// The age recipient that the share will be encrypted to; may be empty in dev.
    pub recipient: String,
}

/// What init is asked to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitTerms {
    /// The holder of share 1, 2, and so on.
    pub holders: Vec<PlannedHolder>,
    /// The officer keys to enrol.
    pub officers: Vec<OfficerKey>,
    /// SHA-256 of the trust root.
    pub root_digest: [u8; 32],
    /// Whether this will be a dev store.
    pub dev: bool,
}

/// The act that a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A new store.
    Init(InitTerms),
    /// Open the store whose seal config has this digest.
    Unseal(ConfigDigest),
}

/// One ceremony, before its first share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    nonce: [u8; 16],
    store: StoreId,
    set: SetId,
    generation: Generation,
    threshold: Threshold,
    act: Act,
}

impl Plan {
    /// Plans a new store with fresh ids, after checking its people as [`SealConfig::new`] does and
    /// that every recipient that is given can be encrypted to.
    pub fn init(threshold: Threshold, terms: InitTerms) -> Result<Plan, PlanError> {
        let plan = Plan {
            nonce: random_bytes()?,
            store: StoreId::random()?,
            set: SetId::random()?,
            generation: Generation::FIRST,
            threshold,
            act: Act::Init(terms),
        };
        plan.check()?;
        Ok(plan)
    }

    /// Plans the opening of a store, with a fresh nonce.
    pub fn unseal(config: &SealConfig) -> Result<Plan, MemoryError> {
        Ok(Plan {
            nonce: random_bytes()?,
            store: config.store(),
            set: config.set(),
            generation: config.generation(),
            threshold: config.threshold(),
            act: Act::Unseal(config.digest()),
        })
    }

    fn check(&self) -> Result<(), PlanError> {
        let Act::Init(terms) = &self.act else {
            return Ok(());
        };
        check_threshold(self.threshold, terms.dev)?;
        let holders = terms
            .holders
            .iter()
            .map(|h| (h.label.as_str(), h.recipient.as_str()));
        check_holders(self.threshold, holders, terms.dev)?;
        check_officers(&terms.officers, terms.dev)?;
        for (at, holder) in terms.holders.iter().enumerate() {
            if !holder.recipient.is_empty() {
                delivery::check_recipient(&holder.recipient).map_err(|source| {
                    PlanError::Recipient {
                        position: at + 1,
                        source,
                    }
                })?;
            }
        }
        Ok(())
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(&FORMAT);
        out.u8(match self.act {
            Act::Init(_) => INIT,
            Act::Unseal(_) => UNSEAL,
        })
        .raw(&self.nonce)
        .raw(self.store.as_bytes())
        .raw(self.set.as_bytes())
        .u32(self.generation.get())
        .u8(self.threshold.needed())
        .u8(self.threshold.total());
        match &self.act {
            Act::Init(terms) => {
                out.count(terms.holders.len());
                for holder in &terms.holders {
                    out.bytes(holder.label.as_bytes())
                        .bytes(holder.recipient.as_bytes());
                }
                write_officers(&mut out, &terms.officers);
                out.raw(&terms.root_digest).u8(terms.dev.into());
            }
            Act::Unseal(config) => {
                out.raw(config.as_bytes());
            }
        }
        out.finish()
    }

    /// Reads canonical bytes, and checks what [`Plan::init`] checks.
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan, PlanError> {
        let plan = Plan::read(bytes)?;
        plan.check()?;
        Ok(plan)
    }

    fn read(bytes: &[u8]) -> Result<Plan, ConfigError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let act = reader.u8("act")?;
        let nonce = reader.raw("nonce")?;
        let store = StoreId::from_bytes(reader.raw("store")?);
        let set = SetId::from_bytes(reader.raw("set")?);
        let generation = read_generation(&mut reader)?;
        let threshold = read_threshold(&mut reader)?;
        let act = match act {
            INIT => Act::Init(InitTerms {
                holders: reader.list("holders", MAX_SHARES.into(), |r| {
                    Ok(PlannedHolder {
                        label: r.text("label", MAX_LABEL)?,
                        recipient: r.text("recipient", MAX_RECIPIENT)?,
                    })
                })?,
                officers: read_officers(&mut reader)?,
                root_digest: reader.raw("root digest")?,
                dev: reader.flag("dev")?,
            }),
            UNSEAL => Act::Unseal(ConfigDigest::from_bytes(reader.raw("config digest")?)),
            other => return Err(reader.value("act", other.into()).into()),
        };
        reader.finish()?;
        Ok(Plan {
            nonce,
            store,
            set,
            generation,
            threshold,
            act,
        })
    }

    /// SHA-256("mcpist-plan-v1" ‖ 0 ‖ canonical bytes): what a holder gives with a share.
    pub fn digest(&self) -> PlanDigest {
        PlanDigest::from_bytes(digest("mcpist-plan-v1", &[&self.to_bytes()]))
    }

    /// What the ceremony does.
    pub fn act(&self) -> &Act {
        &self.act
    }

    /// The number that makes this plan unlike every other.
    pub fn nonce(&self) -> &[u8; 16] {
        &self.nonce
    }

    /// The store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The lineage of sharings.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// The sharing.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many shares, of how many.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
