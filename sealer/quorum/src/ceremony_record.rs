//! No I/O. What a ceremony did, for people and for paper, signed by the store that it was done to.
//!
//! Owns [`CeremonyRecord`], its canonical bytes, its signature and its page of text. Whoever holds the
//! record of init can later verify the audit chain, witness receipts, officers, and every later record
//! of the same store, without trusting the host.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpcerem" | version u16 = 2 | act u8 | store [16] | set [16] | generation u32 | needed u8 |
//! total u8 | dev u8 | made u64 | plan digest [32] | config digest [32] | root digest [32] |
//! audit key [32] | store key [32] | officers { name text | Ed25519 key [32] } |
//! holders { label text | share digest [32] } | signature [64]
//! signature = Ed25519 (RFC 8032) of store key over "mcpist-ceremony-record-v2" ‖ 0 ‖ all before it
//! ```
//! Promises: a value that exists carries a good signature of the key that it names, so one flipped bit
//! makes it none. Does not say that this key is the store's: the record of init on paper says so, and
//! [`CeremonyRecord::store_key`] of a later record is compared with it.

use std::fmt::Write as _;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::codec::{Format, FormatError, Reader, Writer, digest};
use crate::config::{
    ConfigError, MAX_LABEL, OfficerKey, SealConfig, read_generation, read_officers, read_threshold,
    write_officers,
};
use crate::ids::{
    ConfigDigest, Generation, MAX_SHARES, PlanDigest, SetId, ShareDigest, StoreId, Threshold,
};
use crate::share::Share;
use crate::sharing::Sharing;
use crate::vault_config::VaultConfig;

const FORMAT: Format = Format {
    name: "ceremony record",
    magic: *b"mcpcerem",
    version: 2,
};
const DOMAIN: &[u8] = b"mcpist-ceremony-record-v2\0";
const SIGNATURE_LEN: usize = 64;

/// Why bytes are no ceremony record.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyRecordError {
    /// The bytes do not parse, or their numbers are out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The signature is not of these bytes by the key that they name.
    #[error(
        "the ceremony record's signature does not fit: it was changed or damaged, take another copy"
    )]
    Signature,
}

impl From<FormatError> for CeremonyRecordError {
    fn from(error: FormatError) -> Self {
        ConfigError::from(error).into()
    }
}

/// Why a share is not one of a ceremony's. Nothing here tells the share's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOfRecord {
    /// Another store's.
    #[error("other store: the record's share set is {recorded}, the share's is {given}")]
    Set {
        /// The record's.
        recorded: SetId,
        /// The share's.
        given: SetId,
    },
    /// Another sharing of the same store.
    #[error(
        "other generation: the record is of generation {recorded}, the share of {given}; a rekey lies between them"
    )]
    Generation {
        /// The record's.
        recorded: Generation,
        /// The share's.
        given: Generation,
    },
    /// Its numbers fit, and its value is not the one that was issued.
    #[error(
        "damaged: the share names this ceremony, and its value is not the one that was issued as number {index}"
    )]
    Damaged {
        /// The share's number.
        index: u8,
    },
}

/// The ceremonies that leave a record; their numbers are those of the plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// A new store.
    Init,
    /// New shares.
    Rekey,
    /// A new root key under the same shares.
    RotateRoot,
    /// A store from a backup.
    Restore,
    /// New shares of a vault's own quorum.
    RekeyVault,
}

impl Recorded {
    const ALL: [(Recorded, u8, &'static str); 5] = [
        (Recorded::Init, 1, "init"),
        (Recorded::Rekey, 3, "rekey"),
        (Recorded::RotateRoot, 4, "rotate root"),
        (Recorded::Restore, 5, "restore"),
        (Recorded::RekeyVault, 7, "rekey vault"),
    ];

    fn row(self) -> (u8, &'static str) {
        let row = Recorded::ALL.iter().find(|(act, ..)| *act == self);
        row.map_or((0, "unknown"), |(_, number, name)| (*number, *name))
    }

    /// As in text and JSON.
    pub fn name(self) -> &'static str {
        self.row().1
    }
}

/// What a ceremony did. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeremonyRecord {
    body: Body,
    signature: [u8; SIGNATURE_LEN],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    act: Recorded,
    store: StoreId,
    set: SetId,
    generation: Generation,
    threshold: Threshold,
    dev: bool,
    made: u64,
    plan: PlanDigest,
    config: ConfigDigest,
    root_digest: [u8; 32],
    audit_key: [u8; 32],
    store_key: [u8; 32],
    officers: Vec<OfficerKey>,
    holders: Vec<(String, ShareDigest)>,
}

impl CeremonyRecord {
    /// The record of the ceremony that carried out `plan` at `made` (seconds since 1970), after which
    /// `config` holds; signed by the store's key. `audit_key` is the first Ed25519 public key of the
    /// audit chain.
    pub fn sign(
        act: Recorded,
        config: &SealConfig,
        plan: PlanDigest,
        made: u64,
        audit_key: [u8; 32],
        store: &Ed25519KeyPair,
    ) -> CeremonyRecord {
        let opens = (config.sharing(), config.digest());
        Body::of(act, config, opens, plan, made, audit_key, store).signed(store)
    }

    /// Like [`CeremonyRecord::sign`], of the ceremony after which `vault` holds for one vault of the store of `config`:
    /// the record's sharing and config digest are the vault's.
    pub fn sign_vault(
        config: &SealConfig,
        vault: &VaultConfig,
        plan: PlanDigest,
        made: u64,
        audit_key: [u8; 32],
        store: &Ed25519KeyPair,
    ) -> CeremonyRecord {
        let (act, opens) = (Recorded::RekeyVault, (vault.sharing(), vault.digest()));
        Body::of(act, config, opens, plan, made, audit_key, store).signed(store)
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.body.to_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads canonical bytes and checks their signature. The people were checked when the config was
    /// made.
    pub fn from_bytes(bytes: &[u8]) -> Result<CeremonyRecord, CeremonyRecordError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let body = Body::read(&mut reader)?;
        let signature = reader.raw("signature")?;
        reader.finish()?;
        let signed = bytes.len().saturating_sub(SIGNATURE_LEN);
        UnparsedPublicKey::new(&ED25519, body.store_key)
            .verify(&[DOMAIN, &bytes[..signed]].concat(), &signature)
            .map_err(|_| CeremonyRecordError::Signature)?;
        Ok(CeremonyRecord { body, signature })
    }

    /// SHA-256("mcpist-ceremony-v2" ‖ 0 ‖ canonical bytes): the last line of the text.
    pub fn digest(&self) -> [u8; 32] {
        digest("mcpist-ceremony-v2", &[&self.to_bytes()])
    }

    /// The ceremony.
    pub fn act(&self) -> Recorded {
        self.body.act
    }

    /// The first public key of the audit chain.
    pub fn audit_key(&self) -> &[u8; 32] {
        &self.body.audit_key
    }

    /// The public key that signed this, and signs witness receipts.
    pub fn store_key(&self) -> &[u8; 32] {
        &self.body.store_key
    }

    /// The store.
    pub fn store(&self) -> StoreId {
        self.body.store
    }

    /// The sharing that holds after the ceremony.
    pub fn generation(&self) -> Generation {
        self.body.generation
    }

    /// The label of the holder that this share was issued to; an error names how it differs.
    pub fn holder_of(&self, share: &Share) -> Result<&str, NotOfRecord> {
        let body = &self.body;
        if share.set() != body.set {
            return Err(NotOfRecord::Set {
                recorded: body.set,
                given: share.set(),
            });
        }
        if share.generation() != body.generation {
            return Err(NotOfRecord::Generation {
                recorded: body.generation,
                given: share.generation(),
            });
        }
        let index = share.index();
        let at = usize::from(index).wrapping_sub(1);
        match body.holders.get(at) {
            Some((label, issued))
                if *issued == share.digest() && share.threshold() == body.threshold =>
            {
                Ok(label)
            }
            _ => Err(NotOfRecord::Damaged { index }),
        }
    }

    /// The record as a page of text, at most 80 columns where labels are short.
    pub fn to_text(&self) -> String {
        let body = &self.body;
        let mut text = String::from("MCPist ceremony record\n\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key:<15} {value}");
        };
        line("ceremony", &body.act.name());
        line("store", &body.store);
        line("share set", &body.set);
        line("generation", &body.generation);
        line("threshold", &body.threshold);
        if body.dev {
            line(
                "development",
                &"yes: never use this store for real credentials",
            );
        }
        line("made", &UtcSeconds(body.made));
        line("plan", &body.plan);
        line("seal config", &body.config);
        line("trust root", &hex::encode(body.root_digest));
        line("audit key", &hex::encode(body.audit_key));
        line("store key", &hex::encode(body.store_key));
        for officer in &body.officers {
            line("officer", &officer.name);
            line("  key", &hex::encode(officer.public));
        }
        for (at, (label, digest)) in body.holders.iter().enumerate() {
            line(&format!("holder {}", at + 1), label);
            line("  share digest", digest);
        }
        line("record digest", &hex::encode(self.digest()));
        text
    }
}

impl Body {
    fn of(
        act: Recorded,
        config: &SealConfig,
        (sharing, digest): (&Sharing, ConfigDigest),
        plan: PlanDigest,
        made: u64,
        audit_key: [u8; 32],
        store: &Ed25519KeyPair,
    ) -> Body {
        let mut store_key = [0; 32];
        store_key.copy_from_slice(store.public_key().as_ref());
        let holders = sharing.holders.iter();
        Body {
            act,
            store: config.store(),
            set: sharing.set,
            generation: sharing.generation,
            threshold: sharing.threshold,
            dev: config.is_dev(),
            made,
            plan,
            config: digest,
            root_digest: *config.root_digest(),
            audit_key,
            store_key,
            officers: config.officers().to_vec(),
            holders: holders.map(|h| (h.label.clone(), h.digest)).collect(),
        }
    }

    fn signed(self, store: &Ed25519KeyPair) -> CeremonyRecord {
        let mut signature = [0; SIGNATURE_LEN];
        let made = store.sign(&[DOMAIN, &self.to_bytes()].concat());
        signature.copy_from_slice(made.as_ref());
        CeremonyRecord {
            body: self,
            signature,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(&FORMAT);
        out.u8(self.act.row().0)
            .raw(self.store.as_bytes())
            .raw(self.set.as_bytes())
            .u32(self.generation.get())
            .u8(self.threshold.needed())
            .u8(self.threshold.total())
            .u8(self.dev.into())
            .u64(self.made)
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

    fn read(reader: &mut Reader<'_>) -> Result<Body, ConfigError> {
        let number = reader.u8("act")?;
        let row = Recorded::ALL.iter().find(|(_, known, _)| *known == number);
        let (act, ..) = *row.ok_or_else(|| reader.value("act", number.into()))?;
        Ok(Body {
            act,
            store: StoreId::from_bytes(reader.raw("store")?),
            set: SetId::from_bytes(reader.raw("set")?),
            generation: read_generation(reader)?,
            threshold: read_threshold(reader)?,
            dev: reader.flag("dev")?,
            made: reader.u64("made")?,
            plan: PlanDigest::from_bytes(reader.raw("plan digest")?),
            config: ConfigDigest::from_bytes(reader.raw("config digest")?),
            root_digest: reader.raw("root digest")?,
            audit_key: reader.raw("audit key")?,
            store_key: reader.raw("store key")?,
            officers: read_officers(reader)?,
            holders: reader.list("holders", MAX_SHARES.into(), |r| {
                Ok((
                    r.text("label", MAX_LABEL)?,
                    ShareDigest::from_bytes(r.raw("share digest")?),
                ))
            })?,
        })
    }
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
