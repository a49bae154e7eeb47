//! No I/O. One holder's share and its text.
//!
//! # Text
//! Bech32m (BIP-350) with the human-readable part `mcpist-share` over 56 bytes:
//! ```text
//! version u8 = 1 | set [16] | generation u32 | index u8 | needed u8 | total u8 | value [32]
//! ```
//! which is 109 characters. Spaces, line breaks and hyphens anywhere are ignored, and the whole text
//! may be in upper case (a QR code is smaller so). The two padding bits must be zero: one share has
//! one text, apart from case and grouping.
//!
//! Promises: a [`Share`] that exists is well formed; its value is only ever in secret memory; three
//! wrong characters are always noticed (BIP-173: four up to 89 characters, three up to 1,023), more
//! with a chance of all but 2⁻³⁰. Does not: know whether the share belongs to this store. Only its
//! digest in the seal config says so, and [`crate::Collector`] compares it.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, ByteIterExt, Fe32, Fe32IterExt, Hrp};
use mcpist_secret::{Key, MemoryError, Secret};

use crate::codec::digest;
use crate::ids::{Generation, SetId, ShareDigest, Threshold};

/// Length of a share's text without grouping, in characters.
pub const SHARE_TEXT_LEN: usize = PREFIX.len() + DATA_LEN;

/// The longest text that [`Share::parse`] looks at: room for any grouping.
pub const MAX_SHARE_TEXT: usize = 1024;

const PREFIX: &str = "mcpist-share1";
/// The prefix once hyphens are dropped.
const BARE_PREFIX: &[u8] = b"mcpistshare1";
const HRP: Hrp = Hrp::parse_unchecked("mcpist-share");
const VERSION: u8 = 1;
/// Bytes of a share, as every form of it carries them.
pub(crate) const PAYLOAD_LEN: usize = 56;
const PAYLOAD_CHARS: usize = 90;
const DATA_LEN: usize = PAYLOAD_CHARS + 6;

/// Why a text is not a share. No variant holds a character of it.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Longer than any grouping of a share.
    #[error("a share has {SHARE_TEXT_LEN} characters, got {found}: give one share at a time")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// Does not begin with `mcpist-share1`.
    #[error("a share begins with `{PREFIX}`: check that the right text was given")]
    Prefix,
    /// A character that no share contains.
    #[error(
        "character {position} after `{PREFIX}` is none of a share's (it has no b, i, o, 1): correct it"
    )]
    Character {
        /// Position from 1 after the prefix, hyphens and spaces not counted.
        position: usize,
    },
    /// Upper and lower case in one text.
    #[error("a share is all lower or all upper case: type it in one case")]
    MixedCase,
    /// Characters are missing or too many.
    #[error(
        "a share has {DATA_LEN} characters after `{PREFIX}`, got {found}: some are missing or doubled"
    )]
    Length {
        /// How many there are.
        found: usize,
    },
    /// The checksum does not fit.
    #[error(
        "the share's checksum does not fit: at least one character is wrong, compare it with the original"
    )]
    Checksum,
    /// A share of a later format.
    #[error("share version {0} is unknown: use the release that made it")]
    Version(u8),
    /// The checksum fits and the fields make no sense: not written by this program.
    #[error(
        "the share's {field} makes no sense though its checksum fits: it was not made by mcpist"
    )]
    Field {
        /// The field.
        field: &'static str,
    },
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// One share of a split secret. Its value has no Debug, Display or Clone.
pub struct Share {
    set: SetId,
    generation: Generation,
    index: u8,
    threshold: Threshold,
    value: Key,
}

impl Share {
    /// The maker for [`crate::split`]; `index` is from 1 to the threshold's total.
    pub(crate) fn new(
        set: SetId,
        generation: Generation,
        index: u8,
        threshold: Threshold,
        value: Key,
    ) -> Share {
        Share {
            set,
            generation,
            index,
            threshold,
            value,
        }
    }

    /// The set of sharings that it belongs to.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// The sharing in that set.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Its number, from 1 to the total: the x at which the polynomials were evaluated.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// How many shares are needed, of how many.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    pub(crate) fn value(&self) -> &Key {
        &self.value
    }

    /// SHA-256("mcpist-share-digest-v1" ‖ 0 ‖ set ‖ generation ‖ index ‖ value). It tells nothing
    /// usable about the value, which is uniform over 256 bits.
    pub fn digest(&self) -> ShareDigest {
        ShareDigest::from_bytes(digest(
            "mcpist-share-digest-v1",
            &[
                self.set.as_bytes(),
                &self.generation.get().to_be_bytes(),
                &[self.index],
                self.value.expose(),
            ],
        ))
    }

    /// The bytes that its text and its words carry, in secret memory.
    pub(crate) fn to_payload(&self) -> Result<Secret, MemoryError> {
        Secret::fill(PAYLOAD_LEN, |out| {
            let clear = [VERSION]
                .into_iter()
                .chain(*self.set.as_bytes())
                .chain(self.generation.get().to_be_bytes())
                .chain([self.index, self.threshold.needed(), self.threshold.total()]);
            for (slot, byte) in out.iter_mut().zip(clear) {
                *slot = byte;
            }
            out[PAYLOAD_LEN - 32..].copy_from_slice(self.value.expose());
            Ok(())
        })
    }

    /// The share's text in lower case, without grouping, in secret memory.
    pub fn to_text(&self) -> Result<Secret, MemoryError> {
        let payload = self.to_payload()?;
        Secret::fill(SHARE_TEXT_LEN, |out| {
            let bytes = payload.expose().iter().copied();
            let text = bytes.bytes_to_fes().with_checksum::<Bech32m>(&HRP).bytes();
            for (slot, byte) in out.iter_mut().zip(text) {
                *slot = byte;
            }
            Ok(())
        })
    }

    /// Reads a share's text. The caller's `text` should be in secret memory too.
    pub fn parse(text: &[u8]) -> Result<Share, ShareError> {
        let canonical = canonical_text(text)?;
        let text = std::str::from_utf8(canonical.expose()).map_err(|_| ShareError::Prefix)?;
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| {
            match text.len() - PREFIX.len() {
                DATA_LEN => ShareError::Checksum,
                found => ShareError::Length { found },
            }
        })?;
        let chars = checked.data_part_ascii_no_checksum();
        let padding = chars
            .last()
            .and_then(|c| Fe32::from_char(char::from(*c)).ok());
        if chars.len() != PAYLOAD_CHARS {
            // A later version may have another length.
            return Err(match checked.byte_iter().next() {
                Some(version) if version != VERSION => ShareError::Version(version),
                _ => ShareError::Field { field: "length" },
            });
        }
        if padding.is_none_or(|fe| fe.to_u8() & 0b11 != 0) {
            return Err(ShareError::Field { field: "padding" });
        }
        let payload = Secret::fill(PAYLOAD_LEN, |out| {
            for (slot, byte) in out.iter_mut().zip(checked.byte_iter()) {
                *slot = byte;
            }
            Ok::<(), MemoryError>(())
        })?;
        Share::from_payload(payload.expose())
    }

    /// Reads them; a payload of another length is refused.
    pub(crate) fn from_payload(payload: &[u8]) -> Result<Share, ShareError> {
        let field = |field| move || ShareError::Field { field };
        let (version, rest) = payload.split_first().ok_or_else(field("length"))?;
        if *version != VERSION {
            return Err(ShareError::Version(*version));
        }
        let (set, rest) = rest.split_first_chunk().ok_or_else(field("set"))?;
        let (generation, rest) = rest.split_first_chunk().ok_or_else(field("generation"))?;
        let generation =
            Generation::new(u32::from_be_bytes(*generation)).ok_or_else(field("generation"))?;
        let ([index, needed, total], value) =
            rest.split_first_chunk().ok_or_else(field("threshold"))?;
        let threshold = Threshold::dev(*needed, *total)
            .map_err(|_| ShareError::Field { field: "threshold" })?;
        if *index == 0 || index > total {
            return Err(ShareError::Field { field: "index" });
        }
        let value = Key::fill(|out| {
            if value.len() != out.len() {
                return Err(ShareError::Field { field: "value" });
            }
            out.copy_from_slice(value);
            Ok(())
        })?;
        Ok(Share::new(
            SetId::from_bytes(*set),
            generation,
            *index,
            threshold,
            value,
        ))
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share")
            .field("set", &self.set)
            .field("generation", &self.generation)
            .field("index", &self.index)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// The text in lower case and without grouping, behind the prefix with its hyphen.
fn canonical_text(text: &[u8]) -> Result<Secret, ShareError> {
    if text.len() > MAX_SHARE_TEXT {
        return Err(ShareError::TooLong { found: text.len() });
    }
    let kept = || {
        text.iter()
            .filter(|byte| !matches!(byte, b' ' | b'-' | b'\n' | b'\r' | b'\t'))
    };
    let upper = kept().any(u8::is_ascii_uppercase);
    let lower = kept().any(u8::is_ascii_lowercase);
    let mut chars = kept().map(u8::to_ascii_lowercase);
    if !BARE_PREFIX
        .iter()
        .all(|expected| chars.next() == Some(*expected))
    {
        return Err(ShareError::Prefix);
    }
    if upper && lower {
        return Err(ShareError::MixedCase);
    }
    let data_len = chars.clone().count();
    Secret::fill(PREFIX.len() + data_len, |out| {
        let (prefix, data) = out.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        for (at, (slot, byte)) in data.iter_mut().zip(chars).enumerate() {
            if Fe32::from_char(char::from(byte)).is_err() {
                return Err(ShareError::Character { position: at + 1 });
            }
            *slot = byte;
        }
        Ok(())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
