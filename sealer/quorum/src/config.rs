//! No I/O. The seal config: what a store knows in clear about who can open it.
//!
//! Owns: [`SealConfig`], its canonical bytes and the rules that make one acceptable. The bytes are
//! the AAD of the root key's wrap, so a changed threshold, digest, recipient or officer refuses to
//! open: the config needs no signature of its own.
//!
//! # Layout (`crate::codec`: big-endian, texts behind `length u32`, lists behind `count u16`)
//! ```text
//! "mcpsealc" | version u16 = 1 | store [16] | set [16] | generation u32 | needed u8 | total u8 |
//! holders { label text ≤ 64 | recipient text ≤ 4096 | share digest [32] } in order of index |
//! root digest [32] | officers { name text ≤ 64 | Ed25519 key [32] } | dev u8 | created u64
//! ```
//! Promises: a config that exists obeys the rules; its bytes are read back strictly. Does not:
//! authenticate itself before the quorum has opened the root key; until then every field is what
//! the disk says.

use crate::codec::{Format, FormatError, Reader, Writer, digest};
use crate::ids::{ConfigDigest, Generation, SetId, StoreId, Threshold, ThresholdError};
use crate::sharing::{Holder, Shared, Sharing};

const FORMAT: Format = Format {
    name: "seal config",
    magic: *b"mcpsealc",
    version: 1,
};

/// The longest label of a holder or name of an officer, in bytes.
pub const MAX_LABEL: usize = 64;
/// The longest age recipient (hybrid ones take about 2,000 characters), in bytes.
pub const MAX_RECIPIENT: usize = 4096;
/// The most officers that init enrols.
pub const MAX_OFFICERS: usize = 64;

/// Why the people or numbers of a config or plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The bytes are not a seal config.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The numbers are no quorum.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// One holder would be enough outside dev.
    #[error("one share would open this store: only a dev store may do that, take 2 or more")]
    SingleHolder,
    /// Not one holder per share.
    #[error("{total} shares need {total} holders, got {found}")]
    Holders {
        /// How many shares there are.
        total: u8,
        /// How many holders were named.
        found: usize,
    },
    /// A label or name is empty, too long, or holds characters that cannot be read on a terminal.
    #[error("{role} number {position} needs a name of 1 to {MAX_LABEL} bytes of visible text")]
    Label {
        /// `holder`, `officer` or `vault`.
        role: &'static str,
        /// Position from 1.
        position: usize,
    },
    /// The same label, key, recipient or digest stands twice.
    #[error("{role} number {position} has the same {what} as an earlier one: give each their own")]
    Twice {
        /// `holder` or `officer`.
        role: &'static str,
        /// Position of the second one, from 1.
        position: usize,
        /// What is the same.
        what: &'static str,
    },
    /// A holder without a usable recipient outside dev.
    #[error(
        "holder number {position} has no age recipient: outside dev each share is encrypted to its holder"
    )]
    Recipient {
        /// Position from 1.
        position: usize,
    },
    /// Too few or too many officers.
    #[error("a store needs {least} to {MAX_OFFICERS} officer keys, got {found}")]
    Officers {
        /// The least number.
        least: usize,
        /// How many were named.
        found: usize,
    },
}

/// One officer key that init enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficerKey {
    /// Who, for people to read.
    pub name: String,
    /// The Ed25519 public key (RFC 8032).
    pub public: [u8; 32],
}

/// The fields of a [`SealConfig`], not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealConfigParts {
    /// The store.
    pub store: StoreId,
    /// The sharing that opens it.
    pub sharing: Sharing,
    /// SHA-256 of the trust root that was given to init.
    pub root_digest: [u8; 32],
    /// The officer keys that init enrols.
    pub officers: Vec<OfficerKey>,
    /// Whether this is a dev store.
    pub dev: bool,
    /// When init ran, in seconds since 1970.
    pub created: u64,
}

/// A seal config that obeys the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealConfig(SealConfigParts);

impl SealConfig {
    /// Checks the rules: one distinct holder per share with a recipient (none needed in dev), two
    /// officer keys or more (one in dev), and a threshold of one in dev only.
    pub fn new(parts: SealConfigParts) -> Result<SealConfig, ConfigError> {
        parts.sharing.check(parts.dev)?;
        check_officers(&parts.officers, parts.dev)?;
        Ok(SealConfig(parts))
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts = &self.0;
        let mut out = Writer::new(&FORMAT);
        out.raw(parts.store.as_bytes());
        parts.sharing.write(&mut out);
        out.raw(&parts.root_digest);
        write_officers(&mut out, &parts.officers);
        out.u8(parts.dev.into()).u64(parts.created).finish()
    }

    /// Reads canonical bytes and checks the rules.
    pub fn from_bytes(bytes: &[u8]) -> Result<SealConfig, ConfigError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let parts = SealConfigParts {
            store: StoreId::from_bytes(reader.raw("store")?),
            sharing: Sharing::read(&mut reader)?,
            root_digest: reader.raw("root digest")?,
            officers: read_officers(&mut reader)?,
            dev: reader.flag("dev")?,
            created: reader.u64("created")?,
        };
        reader.finish()?;
        SealConfig::new(parts)
    }

    /// SHA-256("mcpist-seal-config-v1" ‖ 0 ‖ canonical bytes).
    pub fn digest(&self) -> ConfigDigest {
        ConfigDigest::from_bytes(digest("mcpist-seal-config-v1", &[&self.to_bytes()]))
    }

    /// The store.
    pub fn store(&self) -> StoreId {
        self.0.store
    }

    /// The sharing that opens it.
    pub fn sharing(&self) -> &Sharing {
        &self.0.sharing
    }

    /// The lineage of its sharings.
    pub fn set(&self) -> SetId {
        self.0.sharing.set
    }

    /// The number of the sharing that opens it.
    pub fn generation(&self) -> Generation {
        self.0.sharing.generation
    }

    /// How many shares, of how many.
    pub fn threshold(&self) -> Threshold {
        self.0.sharing.threshold
    }

    /// The holders, in order of index.
    pub fn holders(&self) -> &[Holder] {
        &self.0.sharing.holders
    }

    /// The holder of share `index` (from 1).
    pub fn holder(&self, index: u8) -> Option<&Holder> {
        self.0.sharing.holder(index)
    }

    /// SHA-256 of the trust root that was given to init.
    pub fn root_digest(&self) -> &[u8; 32] {
        &self.0.root_digest
    }

    /// The officer keys that init enrolled.
    pub fn officers(&self) -> &[OfficerKey] {
        &self.0.officers
    }

    /// Whether this is a dev store.
    pub fn is_dev(&self) -> bool {
        self.0.dev
    }

    /// When init ran, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.0.created
    }
}

impl Shared for SealConfig {
    fn sharing(&self) -> &Sharing {
        &self.0.sharing
    }
}

pub(crate) fn read_generation(reader: &mut Reader<'_>) -> Result<Generation, FormatError> {
    let number = reader.u32("generation")?;
    Generation::new(number).ok_or_else(|| reader.value("generation", number.into()))
}

pub(crate) fn read_threshold(reader: &mut Reader<'_>) -> Result<Threshold, ConfigError> {
    Ok(Threshold::dev(reader.u8("needed")?, reader.u8("total")?)?)
}

pub(crate) fn write_officers(out: &mut Writer, officers: &[OfficerKey]) {
    out.count(officers.len());
    for officer in officers {
        out.bytes(officer.name.as_bytes()).raw(&officer.public);
    }
}

pub(crate) fn read_officers(reader: &mut Reader<'_>) -> Result<Vec<OfficerKey>, FormatError> {
    reader.list("officers", MAX_OFFICERS, |r| {
        Ok(OfficerKey {
            name: r.text("officer name", MAX_LABEL)?,
            public: r.raw("officer key")?,
        })
    })
}

pub(crate) fn check_threshold(threshold: Threshold, dev: bool) -> Result<(), ConfigError> {
    if threshold.is_dev_only() && !dev {
        Err(ConfigError::SingleHolder)
    } else {
        Ok(())
    }
}

/// Checks labels and recipients, given in order of index.
pub(crate) fn check_holders<'a>(
    threshold: Threshold,
    holders: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
    dev: bool,
) -> Result<(), ConfigError> {
    let total = threshold.total();
    if holders.len() != usize::from(total) {
        return Err(ConfigError::Holders {
            total,
            found: holders.len(),
        });
    }
    for (at, (label, recipient)) in holders.clone().enumerate() {
        let position = at + 1;
        if !is_label(label) {
            return Err(ConfigError::Label {
                role: "holder",
                position,
            });
        }
        let usable =
            recipient.len() <= MAX_RECIPIENT && recipient.bytes().all(|b| b.is_ascii_graphic());
        if !usable || (recipient.is_empty() && !dev) {
            return Err(ConfigError::Recipient { position });
        }
    }
    distinct("holder", "label", holders.clone().map(|(label, _)| label))?;
    let recipients = holders
        .enumerate()
        .filter(|(_, (_, recipient))| !recipient.is_empty());
    let mut seen = Vec::with_capacity(total.into());
    for (at, (_, recipient)) in recipients {
        if seen.contains(&recipient) {
            return Err(ConfigError::Twice {
                role: "holder",
                position: at + 1,
                what: "recipient",
            });
        }
        seen.push(recipient);
    }
    Ok(())
}

pub(crate) fn check_officers(officers: &[OfficerKey], dev: bool) -> Result<(), ConfigError> {
    let least = if dev { 1 } else { 2 };
    if officers.len() < least || officers.len() > MAX_OFFICERS {
        return Err(ConfigError::Officers {
            least,
            found: officers.len(),
        });
    }
    if let Some(at) = officers.iter().position(|officer| !is_label(&officer.name)) {
        return Err(ConfigError::Label {
            role: "officer",
            position: at + 1,
        });
    }
    distinct(
        "officer",
        "name",
        officers.iter().map(|officer| &officer.name),
    )?;
    distinct(
        "officer",
        "key",
        officers.iter().map(|officer| &officer.public),
    )
}

pub(crate) fn distinct<T: PartialEq>(
    role: &'static str,
    what: &'static str,
    items: impl Iterator<Item = T>,
) -> Result<(), ConfigError> {
    let mut seen = Vec::new();
    for (at, item) in items.enumerate() {
        if seen.contains(&item) {
            return Err(ConfigError::Twice {
                role,
                position: at + 1,
                what,
            });
        }
        seen.push(item);
    }
    Ok(())
}

/// Visible text that cannot rearrange a line: no controls, no invisible or direction-changing
/// characters, no blank at either end.
pub(crate) fn is_label(text: &str) -> bool {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    (1..=MAX_LABEL).contains(&text.len()) && text.trim() == text && !text.chars().any(unseen)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
