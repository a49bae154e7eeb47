//! No I/O. What init makes from a plan, and the record of it that people keep.
//!
//! Owns: [`Foundation`] (the split secret, its shares and the seal config, made together and
//! checked), and [`CeremonyRecord`], which goes on paper: whoever holds it can later verify the audit
//! chain, witness receipts and officers without trusting the host.
//!
//! # Layout of the record (`crate::codec`)
//! ```text
//! "mcpcerem" | version u16 = 1 | store [16] | set [16] | generation u32 | needed u8 | total u8 |
//! dev u8 | created u64 | plan digest [32] | config digest [32] | root digest [32] |
//! audit key [32] | store key [32] | officers { name text | Ed25519 key [32] } |
//! holders { label text | share digest [32] }
//! ```
//! Does not: deliver shares ([`crate::seal_shares_to`]) or write anything.

use std::fmt::Write as _;

use mcpist_secret::{Key, MemoryError};

use crate::codec::{Format, FormatError, Reader, Writer, digest};
use crate::config::{
    ConfigError, MAX_LABEL, OfficerKey, SealConfig, SealConfigParts, read_generation,
    read_officers, read_threshold, write_officers,
};
use crate::ids::{
    ConfigDigest, Generation, MAX_SHARES, PlanDigest, SetId, ShareDigest, StoreId, Threshold,
};
use crate::plan::{Act, Plan};
use crate::share::Share;
use crate::sharing::{Holder, Sharing};
use crate::split::{SplitError, derive_kek, split};

const FORMAT: Format = Format {
    name: "ceremony record",
    magic: *b"mcpcerem",
    version: 1,
};

/// Why init made nothing.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The plan is for another act.
    #[error("this plan does not make a store: begin with a plan of init")]
    NotInit,
    /// The config that results does not obey the rules.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret was not split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A new store's secret, before anything is written.
#[derive(Debug)]
pub struct Foundation {
    config: SealConfig,
    kek: Key,
    shares: Vec<Share>,
}

impl Foundation {
    /// Makes a fresh secret, splits it as the plan says, and forgets it: what stays is the key that
    /// wraps the root key, the shares, and the config that names them. `created` is in seconds
    /// since 1970.
    pub fn lay(plan: &Plan, created: u64) -> Result<Foundation, FoundError> {
        let Act::Init(terms) = plan.act() else {
            return Err(FoundError::NotInit);
        };
        let secret = Key::random()?;
        let shares = split(&secret, plan.threshold(), plan.set(), plan.generation())?;
        let holders = terms
            .holders
            .iter()
            .zip(&shares)
            .map(|(holder, share)| Holder {
                label: holder.label.clone(),
                recipient: holder.recipient.clone(),
                digest: share.digest(),
            });
        let config = SealConfig::new(SealConfigParts {
            store: plan.store(),
            sharing: Sharing {
                set: plan.set(),
                generation: plan.generation(),
                threshold: plan.threshold(),
                holders: holders.collect(),
            },
            root_digest: terms.root_digest,
            officers: terms.officers.clone(),
            dev: terms.dev,
            created,
        })?;
        let kek = derive_kek(&secret, plan.set(), plan.generation())?;
        Ok(Foundation {
            config,
            kek,
            shares,
        })
    }

    /// The seal config of the new store.
    pub fn config(&self) -> &SealConfig {
        &self.config
    }

    /// The key that wraps the root key.
    pub fn kek(&self) -> &Key {
        &self.kek
    }

    /// The shares, in order of their holders.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }
}

/// What a ceremony made, for people: nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeremonyRecord {
    store: StoreId,
    set: SetId,
    generation: Generation,
    threshold: Threshold,
    dev: bool,
    created: u64,
    plan: PlanDigest,
    config: ConfigDigest,
    root_digest: [u8; 32],
    audit_key: [u8; 32],
    store_key: [u8; 32],
    officers: Vec<OfficerKey>,
    holders: Vec<(String, ShareDigest)>,
}

impl CeremonyRecord {
    /// The record of init. `audit_key` is the first Ed25519 public key of the audit chain,
    /// `store_key` the one that signs witness receipts.
    pub fn new(
        config: &SealConfig,
        plan: PlanDigest,
        audit_key: [u8; 32],
        store_key: [u8; 32],
    ) -> CeremonyRecord {
        CeremonyRecord {
            store: config.store(),
            set: config.set(),
            generation: config.generation(),
            threshold: config.threshold(),
            dev: config.is_dev(),
            created: config.created(),
            plan,
            config: config.digest(),
            root_digest: *config.root_digest(),
            audit_key,
            store_key,
            officers: config.officers().to_vec(),
            holders: config
                .holders()
                .iter()
                .map(|h| (h.label.clone(), h.digest))
                .collect(),
        }
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(&FORMAT);
        out.raw(self.store.as_bytes())
            .raw(self.set.as_bytes())
            .u32(self.generation.get())
            .u8(self.threshold.needed())
            .u8(self.threshold.total())
            .u8(self.dev.into())
            .u64(self.created)
            .raw(self.plan.as_bytes())
            .raw(self.config.as_bytes())
            .raw(&self.root_digest)
            .raw(&self.audit_key)
            .raw(&self.store_key);
        write_officers(&mut out, &self.officers);
        out.count(self.holders.len());
        for (label, digest) in &self.holders {
            out.bytes(label.as_bytes()).raw(digest.as_bytes());
        }
        out.finish()
    }

    /// Reads canonical bytes. The people were checked when the config was made.
    pub fn from_bytes(bytes: &[u8]) -> Result<CeremonyRecord, ConfigError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let record = CeremonyRecord {
            store: StoreId::from_bytes(reader.raw("store")?),
            set: SetId::from_bytes(reader.raw("set")?),
            generation: read_generation(&mut reader)?,
            threshold: read_threshold(&mut reader)?,
            dev: reader.flag("dev")?,
            created: reader.u64("created")?,
            plan: PlanDigest::from_bytes(reader.raw("plan digest")?),
            config: ConfigDigest::from_bytes(reader.raw("config digest")?),
            root_digest: reader.raw("root digest")?,
            audit_key: reader.raw("audit key")?,
            store_key: reader.raw("store key")?,
            officers: read_officers(&mut reader)?,
            holders: read_holders(&mut reader)?,
        };
        reader.finish()?;
        Ok(record)
    }

    /// SHA-256("mcpist-ceremony-v1" ‖ 0 ‖ canonical bytes): the last line of the text.
    pub fn digest(&self) -> [u8; 32] {
        digest("mcpist-ceremony-v1", &[&self.to_bytes()])
    }

    /// The first public key of the audit chain.
    pub fn audit_key(&self) -> &[u8; 32] {
        &self.audit_key
    }

    /// The public key that signs witness receipts.
    pub fn store_key(&self) -> &[u8; 32] {
        &self.store_key
    }

    /// The store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The record as a page of text, at most 80 columns where labels are short.
    pub fn to_text(&self) -> String {
        let mut text = String::from("MCPist ceremony record\n\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key:<15} {value}");
        };
        line("store", &self.store);
        line("share set", &self.set);
        line("generation", &self.generation);
        line("threshold", &self.threshold);
        if self.dev {
            line(
                "development",
                &"yes: never use this store for real credentials",
            );
        }
        line("created", &UtcSeconds(self.created));
        line("plan", &self.plan);
        line("seal config", &self.config);
        line("trust root", &hex::encode(self.root_digest));
        line("audit key", &hex::encode(self.audit_key));
        line("store key", &hex::encode(self.store_key));
        for officer in &self.officers {
            line("officer", &officer.name);
            line("  key", &hex::encode(officer.public));
        }
        for (at, (label, digest)) in self.holders.iter().enumerate() {
            line(&format!("holder {}", at + 1), label);
            line("  share digest", digest);
        }
        line("record digest", &hex::encode(self.digest()));
        text
    }
}

fn read_holders(reader: &mut Reader<'_>) -> Result<Vec<(String, ShareDigest)>, FormatError> {
    reader.list("holders", MAX_SHARES.into(), |r| {
        Ok((
            r.text("label", MAX_LABEL)?,
            ShareDigest::from_bytes(r.raw("share digest")?),
        ))
    })
}

/// Seconds since 1970 as `YYYY-MM-DD HH:MM:SS UTC`.
struct UtcSeconds(u64);

impl std::fmt::Display for UtcSeconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const FOUR_CENTURIES: u64 = 146_097;
        let (mut days, second) = (self.0 / 86_400, self.0 % 86_400);
        let mut year = 1970 + 400 * (days / FOUR_CENTURIES);
        days %= FOUR_CENTURIES;
        let leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let february = 28 + u64::from(leap(year));
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 1;
        for length in lengths {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (day, hour, minute, second) = (days + 1, second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
