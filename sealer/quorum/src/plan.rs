//! No I/O. What a ceremony is about to do, in bytes that every holder can compare.
//!
//! Owns: [`Plan`] for every act that shares are given to, its canonical bytes and its digest. A
//! holder reads the plan, and gives a share together with the digest that was read;
//! [`crate::Collector`] refuses the share under any other plan, so a share given to unseal never
//! serves another act. The nonce is fresh per plan: a share that was captured with an old digest
//! serves no later ceremony.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpcplan" | version u16 = 1 | act u8 | nonce [16] | store [16] | set [16] |
//! generation u32 | needed u8 | total u8 |
//! act 1, init:        holders { label text | recipient text } | officers { name text | key [32] } |
//!                     root digest [32] | dev u8
//! act 2, unseal:      config digest [32]
//! act 3, rekey:       config digest [32] | new generation u32 | new needed u8 | new total u8 |
//!                     new holders { label text | recipient text } | rotate root u8 | dev u8
//! act 4, rotate root: config digest [32]
//! act 5, restore:     config digest [32] | backup digest [32]
//! act 6, unseal vault: vault [16] | name text | config digest [32]
//! act 7, rekey vault: vault [16] | name text | replaces u8 | config digest [32], where it replaces one |
//!                     new generation u32 | new needed u8 | new total u8 |
//!                     new holders { label text | recipient text } | dev u8
//! act 8, drill:       as act 5
//! ```
//! Set, generation, needed and total are those of the sharing whose shares are collected (at init, and where a vault
//! gets its first quorum, of the one that is made); the config digest names the seal config that it stands in: of
//! acts 6 and 7 the vault's own.
//!
//! Does not: keep time (the collector does), or hold a secret.

use mcpist_secret::{MemoryError, random_bytes};

use crate::codec::{Format, FormatError, Reader, Writer, digest};
use crate::config::{
    ConfigError, MAX_LABEL, MAX_RECIPIENT, OfficerKey, SealConfig, check_holders, check_officers,
    check_threshold, read_generation, read_officers, read_threshold, write_officers,
};
use crate::delivery::{self, RecipientError};
use crate::ids::{ConfigDigest, Generation, MAX_SHARES, PlanDigest, SetId, StoreId, Threshold};
use crate::sharing::Sharing;

mod vault;

pub use vault::{PlannedVault, VaultTerms};
use vault::{check_vault_name, read_vault, read_vault_terms, write_vault, write_vault_terms};

const FORMAT: Format = Format {
    name: "ceremony plan",
    magic: *b"mcpcplan",
    version: 1,
};
const INIT: u8 = 1;
const UNSEAL: u8 = 2;
const REKEY: u8 = 3;
const ROTATE_ROOT: u8 = 4;
const RESTORE: u8 = 5;
const UNSEAL_VAULT: u8 = 6;
const REKEY_VAULT: u8 = 7;
const DRILL: u8 = 8;

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
    /// The new sharing would not come after the one that consents to it.
    #[error(
        "a rekey of generation {current} makes a later one, this plan makes {planned}: plan it anew"
    )]
    Generation {
        /// The generation that consents.
        current: Generation,
        /// The one that was to be made.
        planned: Generation,
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

/// What a rekey is asked to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyTerms {
    /// The seal config whose quorum consents.
    pub config: ConfigDigest,
    /// The generation of the new shares: above every one that was tried before.
    pub generation: Generation,
    /// How many of the new shares open, of how many.
    pub threshold: Threshold,
    /// The holder of the new share 1, 2, and so on.
    pub holders: Vec<PlannedHolder>,
    /// Whether the root key is replaced too, and everything under it wrapped anew.
    pub rotate_root: bool,
    /// Whether this is a dev store.
    pub dev: bool,
}

/// The act that a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A new store.
    Init(InitTerms),
    /// Open the store whose seal config has this digest.
    Unseal(ConfigDigest),
    /// Give the store of this seal config to new shares.
    Rekey(RekeyTerms),
    /// Replace the root key of the store whose seal config has this digest.
    RotateRoot(ConfigDigest),
    /// Make a store anew from a backup.
    Restore {
        /// The seal config that the backup carries, whose quorum opens it.
        config: ConfigDigest,
        /// The digest that names the backup.
        backup: [u8; 32],
    },
    /// Make that store, see that all of it opens, and remove it: nothing is restored.
    Drill {
        /// The seal config that the backup carries, whose quorum opens it.
        config: ConfigDigest,
        /// The digest that names the backup.
        backup: [u8; 32],
    },
    /// Open one vault that has a quorum of its own.
    UnsealVault {
        /// The vault.
        vault: PlannedVault,
        /// Its seal config.
        config: ConfigDigest,
    },
    /// Make a vault with a quorum of its own, or give it to new shares.
    RekeyVault(VaultTerms),
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
        Plan::of(config, Act::Unseal(config.digest()))
    }

    /// Plans new shares of `generation` for a store, after checking its people as [`Plan::init`]
    /// does.
    pub fn rekey(
        config: &SealConfig,
        generation: Generation,
        threshold: Threshold,
        holders: Vec<PlannedHolder>,
        rotate_root: bool,
    ) -> Result<Plan, PlanError> {
        let terms = RekeyTerms {
            config: config.digest(),
            generation,
            threshold,
            holders,
            rotate_root,
            dev: config.is_dev(),
        };
        let plan = Plan::of(config, Act::Rekey(terms))?;
        plan.check()?;
        Ok(plan)
    }

    /// Plans a new root key for a store.
    pub fn rotate_root(config: &SealConfig) -> Result<Plan, MemoryError> {
        Plan::of(config, Act::RotateRoot(config.digest()))
    }

    /// Plans a store from the backup with the digest `backup`, which carries `config`.
    pub fn restore(config: &SealConfig, backup: [u8; 32]) -> Result<Plan, MemoryError> {
        let config_digest = config.digest();
        Plan::of(
            config,
            Act::Restore {
                config: config_digest,
                backup,
            },
        )
    }

    /// Plans to rehearse [`Plan::restore`]. A share that is given for the one is none for the other.
    pub fn drill(config: &SealConfig, backup: [u8; 32]) -> Result<Plan, MemoryError> {
        let config_digest = config.digest();
        Plan::of(
            config,
            Act::Drill {
                config: config_digest,
                backup,
            },
        )
    }

    /// A plan, with a fresh nonce, for which the current shares of a store are collected.
    fn of(config: &SealConfig, act: Act) -> Result<Plan, MemoryError> {
        Plan::under(config.store(), config.sharing(), act)
    }

    fn under(store: StoreId, sharing: &Sharing, act: Act) -> Result<Plan, MemoryError> {
        Ok(Plan {
            nonce: random_bytes()?,
            store,
            set: sharing.set,
            generation: sharing.generation,
            threshold: sharing.threshold,
            act,
        })
    }

    fn check(&self) -> Result<(), PlanError> {
        match &self.act {
            Act::Init(terms) => {
                check_people(self.threshold, &terms.holders, terms.dev)?;
                check_officers(&terms.officers, terms.dev)?;
                Ok(())
            }
            Act::Rekey(terms) if terms.generation <= self.generation => {
                Err(PlanError::Generation {
                    current: self.generation,
                    planned: terms.generation,
                })
            }
            Act::Rekey(terms) => check_people(terms.threshold, &terms.holders, terms.dev),
            Act::RekeyVault(terms) => self.check_vault(terms),
            Act::UnsealVault { vault, .. } => Ok(check_vault_name(vault)?),
            Act::Unseal(_) | Act::RotateRoot(_) | Act::Restore { .. } | Act::Drill { .. } => Ok(()),
        }
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(&FORMAT);
        out.u8(match self.act {
            Act::Init(_) => INIT,
            Act::Unseal(_) => UNSEAL,
            Act::Rekey(_) => REKEY,
            Act::RotateRoot(_) => ROTATE_ROOT,
            Act::Restore { .. } => RESTORE,
            Act::UnsealVault { .. } => UNSEAL_VAULT,
            Act::RekeyVault(_) => REKEY_VAULT,
            Act::Drill { .. } => DRILL,
        })
        .raw(&self.nonce)
        .raw(self.store.as_bytes())
        .raw(self.set.as_bytes())
        .u32(self.generation.get())
        .u8(self.threshold.needed())
        .u8(self.threshold.total());
        match &self.act {
            Act::Init(terms) => {
                write_people(&mut out, &terms.holders);
                write_officers(&mut out, &terms.officers);
                out.raw(&terms.root_digest).u8(terms.dev.into());
            }
            Act::Unseal(config) | Act::RotateRoot(config) => {
                out.raw(config.as_bytes());
            }
            Act::Rekey(terms) => {
                out.raw(terms.config.as_bytes())
                    .u32(terms.generation.get())
                    .u8(terms.threshold.needed())
                    .u8(terms.threshold.total());
                write_people(&mut out, &terms.holders);
                out.u8(terms.rotate_root.into()).u8(terms.dev.into());
            }
            Act::Restore { config, backup } | Act::Drill { config, backup } => {
                out.raw(config.as_bytes()).raw(backup);
            }
            Act::UnsealVault { vault, config } => {
                write_vault(&mut out, vault);
                out.raw(config.as_bytes());
            }
            Act::RekeyVault(terms) => write_vault_terms(&mut out, terms),
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
                holders: read_people(&mut reader)?,
                officers: read_officers(&mut reader)?,
                root_digest: reader.raw("root digest")?,
                dev: reader.flag("dev")?,
            }),
            UNSEAL => Act::Unseal(read_config(&mut reader)?),
            REKEY => Act::Rekey(RekeyTerms {
                config: read_config(&mut reader)?,
                generation: read_generation(&mut reader)?,
                threshold: read_threshold(&mut reader)?,
                holders: read_people(&mut reader)?,
                rotate_root: reader.flag("rotate root")?,
                dev: reader.flag("dev")?,
            }),
            ROTATE_ROOT => Act::RotateRoot(read_config(&mut reader)?),
            RESTORE => Act::Restore {
                config: read_config(&mut reader)?,
                backup: reader.raw("backup digest")?,
            },
            UNSEAL_VAULT => Act::UnsealVault {
                vault: read_vault(&mut reader)?,
                config: read_config(&mut reader)?,
            },
            REKEY_VAULT => Act::RekeyVault(read_vault_terms(&mut reader)?),
            DRILL => Act::Drill {
                config: read_config(&mut reader)?,
                backup: reader.raw("backup digest")?,
            },
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

    /// The sharing whose shares are collected, or made by init.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many shares of that sharing are needed, of how many.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }
}

/// The rules of the config that will result, and that every recipient that is given can be
/// encrypted to.
fn check_people(
    threshold: Threshold,
    holders: &[PlannedHolder],
    dev: bool,
) -> Result<(), PlanError> {
    check_threshold(threshold, dev)?;
    let people = holders
        .iter()
        .map(|h| (h.label.as_str(), h.recipient.as_str()));
    check_holders(threshold, people, dev)?;
    for (at, holder) in holders.iter().enumerate() {
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

fn write_people(out: &mut Writer, holders: &[PlannedHolder]) {
    out.count(holders.len());
    for holder in holders {
        out.bytes(holder.label.as_bytes())
            .bytes(holder.recipient.as_bytes());
    }
}

fn read_people(reader: &mut Reader<'_>) -> Result<Vec<PlannedHolder>, FormatError> {
    reader.list("holders", MAX_SHARES.into(), |r| {
        Ok(PlannedHolder {
            label: r.text("label", MAX_LABEL)?,
            recipient: r.text("recipient", MAX_RECIPIENT)?,
        })
    })
}

fn read_config(reader: &mut Reader<'_>) -> Result<ConfigDigest, FormatError> {
    reader.raw("config digest").map(ConfigDigest::from_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
