//! No I/O. The sealed form of one version of one record, and of a wrapped key.
//!
//! # Layout
//! ```text
//! magic "MCPR" [4] | suite u8 = 1 | epoch [16] | salt [24] | commitment [32] | ciphertext | tag [16]
//! ```
//! Suite 1: `key[32] ‖ commitment[32] = HKDF-SHA-256(ikm = vault key, salt, info = AAD)` (RFC 5869),
//! then AES-256-GCM (NIST SP 800-38D) under that key with a nonce of twelve zero bytes and the same
//! AAD. The key serves exactly one message, since its salt is 24 fresh random bytes: that is what
//! makes the fixed nonce sound, and 192 random bits do not repeat in the life of a store.
//!
//! The AAD of a record is a list of `length u32 | bytes` fields: `"mcpist-record-v1"`, store, vault,
//! epoch, name, version u64. That of a wrapped key: `"mcpist-wrap-v1"`, purpose, the caller's AAD; its
//! epoch is sixteen zero bytes. It is what a row must be bound to from outside: where it stands. What a
//! record says of itself (owner, kind, expiry, hosts) is sealed beside its payload by the caller.
//!
//! # Threat model
//! Whoever writes the file may replace, cut, swap or replay rows. A row opens only under the key,
//! and in the place (store, vault, epoch, name, version) that it was sealed for: every bit of that goes
//! into the key derivation. The commitment makes the form key-committing, which GCM
//! alone is not: no bytes open under two keys or two places. An older version of a row put back with
//! its own AAD is not seen here; the head and the index see it ([`crate::Head`], [`crate::Buckets`]).
//!
//! # Limits
//! Plaintext and derived keys are only ever in secret memory, but ring's contexts (HMAC pads, the
//! AES key schedule, GHASH tables) live on the stack for one call and cannot be wiped from here.
//! Lengths are not hidden.

use mcpist_secret::stack::wiped;
use mcpist_secret::{Key, MAX_SECRET, MemoryError, Secret, random_bytes};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::codec::Writer;
use crate::ids::StoreId;

const MAGIC: &[u8; 4] = b"MCPR";
const SUITE: u8 = 1;
const EPOCH_LEN: usize = 16;
const SALT_LEN: usize = 24;
const COMMITMENT_LEN: usize = 32;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
/// The stack below ring's derivation and cipher that is wiped, in bytes: pads and key schedules.
const CIPHER_STACK: usize = 8 * 1024;
const NO_EPOCH: [u8; EPOCH_LEN] = [0; EPOCH_LEN];

/// How many bytes longer the sealed form is than the plaintext.
pub const RECORD_OVERHEAD: usize =
    MAGIC.len() + 1 + EPOCH_LEN + SALT_LEN + COMMITMENT_LEN + TAG_LEN;

/// The longest plaintext: it and its tag fit in one piece of secret memory.
pub const MAX_PLAINTEXT: usize = MAX_SECRET - TAG_LEN;

/// The longest AAD.
pub const MAX_AAD: usize = 64 * 1024;

/// Why a record cannot be sealed or opened. No variant holds a byte of either.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The plaintext does not fit.
    #[error("a record holds at most {MAX_PLAINTEXT} bytes, got {found}: store less in one record")]
    TooLong {
        /// Length of the plaintext in bytes.
        found: usize,
    },
    /// What the record is bound to is too long.
    #[error("the place of a record takes {found} bytes, the most is {MAX_AAD}: shorten its names")]
    AadTooLong {
        /// Length of the AAD in bytes.
        found: usize,
    },
    /// The bytes are no record at all.
    #[error("not a sealed record ({len} bytes): the row is damaged, restore it from a backup")]
    NotARecord {
        /// Length of the bytes.
        len: usize,
    },
    /// Sealed by a suite that is not known here.
    #[error("record suite {0} is unknown: use the release that wrote this store")]
    Suite(u8),
    /// Sealed in another epoch of the vault.
    #[error("the record belongs to another epoch of its vault: restore it from a backup")]
    Epoch,
    /// Sealed under another key, or for another store, vault, name or version.
    #[error(
        "the record was sealed under another key or for another place: restore it from a backup"
    )]
    Commitment,
    /// The ciphertext or its tag was changed.
    #[error("the record's ciphertext was changed: restore it from a backup")]
    Damaged,
    /// A wrapped key does not hold exactly 32 bytes.
    #[error("a wrapped key holds {found} bytes and must hold 32: restore it from a backup")]
    KeyLength {
        /// Length of the opened plaintext.
        found: usize,
    },
    /// The cipher refused its own parameters.
    #[error("the cryptographic library refused a {0}: the build is unusable, run `mcpist doctor`")]
    Library(&'static str),
    /// No secret memory, or no randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The place that a record is sealed for.
#[derive(Debug, Clone, Copy)]
pub struct RecordAad<'a> {
    /// The store.
    pub store: StoreId,
    /// The vault's name.
    pub vault: &'a str,
    /// The random id of the vault key's epoch.
    pub epoch: [u8; EPOCH_LEN],
    /// What it is found by: of a record its [`crate::NameHmac`], of anything else a word of another length.
    pub name: &'a [u8],
    /// The record's version, from 1.
    pub version: u64,
}

impl RecordAad<'_> {
    /// The AAD's bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        self.write(Writer::bare())
    }

    fn write(&self, mut out: Writer) -> Result<Vec<u8>, RecordError> {
        out.bytes(b"mcpist-record-v1")
            .bytes(self.store.as_bytes())
            .bytes(self.vault.as_bytes())
            .bytes(&self.epoch)
            .bytes(self.name)
            .bytes(&self.version.to_be_bytes());
        bounded(out.finish())
    }
}

/// The clear parts of a sealed record that are looked at without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordTag {
    /// The epoch of the vault key.
    pub epoch: [u8; EPOCH_LEN],
    /// The key commitment.
    pub commitment: [u8; COMMITMENT_LEN],
    /// The GCM tag.
    pub tag: [u8; TAG_LEN],
}

impl RecordTag {
    /// Reads them without a key. Nothing is authenticated by this.
    pub fn parse(sealed: &[u8]) -> Result<RecordTag, RecordError> {
        let parts = Parts::parse(sealed)?;
        Ok(RecordTag {
            epoch: *parts.epoch,
            commitment: *parts.commitment,
            tag: *parts.tag,
        })
    }
}

/// Seals `plaintext` under a fresh salt.
pub fn seal_record(
    key: &Key,
    aad: &RecordAad<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, RecordError> {
    seal(
        key,
        &aad.epoch,
        &aad.to_bytes()?,
        &random_bytes()?,
        plaintext,
    )
}

/// Opens a record into secret memory, or says why it is not the one that was sealed for `aad`.
pub fn open_record(key: &Key, aad: &RecordAad<'_>, sealed: &[u8]) -> Result<Secret, RecordError> {
    open(key, &aad.epoch, &aad.to_bytes()?, sealed)
}

/// Secret memory that many records are opened in, one after the other: what takes and wipes a piece of its own for each
/// record spends more on that than on the record.
pub struct OpenRoom {
    aad: Vec<u8>,
    derived: Derived,
    body: Secret,
    /// How much of `body` the last record took.
    used: usize,
}

impl OpenRoom {
    /// Room for the longest record.
    pub fn new() -> Result<OpenRoom, MemoryError> {
        Ok(OpenRoom {
            aad: Vec::new(),
            derived: Derived::room()?,
            body: Secret::zeroed(MAX_PLAINTEXT + TAG_LEN)?,
            used: 0,
        })
    }

    /// Like [`open_record`]; the plaintext stands until the next record is opened or the room is dropped.
    pub fn open(
        &mut self,
        key: &Key,
        aad: &RecordAad<'_>,
        sealed: &[u8],
    ) -> Result<&[u8], RecordError> {
        self.aad = aad.write(Writer::over(std::mem::take(&mut self.aad)))?;
        let parts = Parts::parse(sealed)?;
        let plain_len = parts.ciphertext.len();
        self.body.expose_mut()[..self.used].zeroize();
        self.used = plain_len + TAG_LEN;
        let body = &mut self.body.expose_mut()[..self.used];
        open_into(key, &aad.epoch, &self.aad, &parts, &mut self.derived, body)?;
        Ok(&self.body.expose()[..plain_len])
    }
}

/// Wraps `key` under `kek`. `purpose` keeps keys of different uses apart; `aad` binds what the key
/// belongs to (the seal config's bytes for the root key).
pub fn wrap_key(kek: &Key, purpose: &str, aad: &[u8], key: &Key) -> Result<Vec<u8>, RecordError> {
    seal(
        kek,
        &NO_EPOCH,
        &wrap_aad(purpose, aad)?,
        &random_bytes()?,
        key.expose(),
    )
}

/// Unwraps a key that [`wrap_key`] wrapped for the same purpose and AAD.
pub fn unwrap_key(
    kek: &Key,
    purpose: &str,
    aad: &[u8],
    wrapped: &[u8],
) -> Result<Key, RecordError> {
    let opened = open(kek, &NO_EPOCH, &wrap_aad(purpose, aad)?, wrapped)?;
    if opened.len() != KEY_LEN {
        return Err(RecordError::KeyLength {
            found: opened.len(),
        });
    }
    Key::fill(|out| {
        out.copy_from_slice(opened.expose());
        Ok(())
    })
}

fn wrap_aad(purpose: &str, aad: &[u8]) -> Result<Vec<u8>, RecordError> {
    bounded(
        Writer::bare()
            .bytes(b"mcpist-wrap-v1")
            .bytes(purpose.as_bytes())
            .bytes(aad)
            .finish(),
    )
}

fn bounded(aad: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    if aad.len() > MAX_AAD {
        return Err(RecordError::AadTooLong { found: aad.len() });
    }
    Ok(aad)
}

/// A sealed record, cut into its parts and not yet believed.
struct Parts<'a> {
    epoch: &'a [u8; EPOCH_LEN],
    salt: &'a [u8; SALT_LEN],
    commitment: &'a [u8; COMMITMENT_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Parts<'a> {
    fn parse(sealed: &'a [u8]) -> Result<Parts<'a>, RecordError> {
        Parts::cut(sealed).ok_or(RecordError::NotARecord { len: sealed.len() })?
    }

    fn cut(sealed: &'a [u8]) -> Option<Result<Parts<'a>, RecordError>> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (&suite, rest) = rest.split_first()?;
        if suite != SUITE {
            return Some(Err(RecordError::Suite(suite)));
        }
        let (epoch, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (commitment, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        (ciphertext.len() <= MAX_PLAINTEXT).then_some(Ok(Parts {
            epoch,
            salt,
            commitment,
            ciphertext,
            tag,
        }))
    }
}

/// Where a record's AES key and commitment are while it is sealed or opened: 32 bytes each.
struct Derived(Secret);

impl Derived {
    fn room() -> Result<Derived, MemoryError> {
        Secret::zeroed(KEY_LEN + COMMITMENT_LEN).map(Derived)
    }

    /// Derives both; ring's own copies are the caller's to wipe.
    fn derive(&mut self, key: &Key, salt: &[u8; SALT_LEN], info: &[u8]) -> Result<(), RecordError> {
        struct Both;
        impl KeyType for Both {
            fn len(&self) -> usize {
                KEY_LEN + COMMITMENT_LEN
            }
        }
        Salt::new(HKDF_SHA256, salt)
            .extract(key.expose())
            .expand(&[info], Both)
            .and_then(|okm| okm.fill(self.0.expose_mut()))
            .map_err(|_| RecordError::Library("key length"))
    }

    fn commitment(&self) -> &[u8] {
        &self.0.expose()[KEY_LEN..]
    }

    fn cipher(&self) -> Result<LessSafeKey, RecordError> {
        UnboundKey::new(&AES_256_GCM, &self.0.expose()[..KEY_LEN])
            .map(LessSafeKey::new)
            .map_err(|_| RecordError::Library("key"))
    }
}

/// The only nonce: each key serves one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn seal(
    key: &Key,
    epoch: &[u8; EPOCH_LEN],
    aad: &[u8],
    salt: &[u8; SALT_LEN],
    plaintext: &[u8],
) -> Result<Vec<u8>, RecordError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(RecordError::TooLong {
            found: plaintext.len(),
        });
    }
    let mut derived = Derived::room()?;
    let body = Secret::fill(plaintext.len() + TAG_LEN, |body| {
        let (message, tag_out) = body.split_at_mut(plaintext.len());
        message.copy_from_slice(plaintext);
        let tag = wiped::<CIPHER_STACK, _>(|| {
            derived.derive(key, salt, aad)?;
            derived
                .cipher()?
                .seal_in_place_separate_tag(nonce(), Aad::from(aad), message)
                .map_err(|_| RecordError::Library("message length"))
        })?;
        tag_out.copy_from_slice(tag.as_ref());
        Ok::<(), RecordError>(())
    })?;
    let mut out = Vec::with_capacity(plaintext.len() + RECORD_OVERHEAD);
    out.extend_from_slice(MAGIC);
    out.push(SUITE);
    out.extend_from_slice(epoch);
    out.extend_from_slice(salt);
    out.extend_from_slice(derived.commitment());
    out.extend_from_slice(body.expose());
    Ok(out)
}

fn open(
    key: &Key,
    epoch: &[u8; EPOCH_LEN],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Secret, RecordError> {
    let parts = Parts::parse(sealed)?;
    let plain_len = parts.ciphertext.len();
    let mut derived = Derived::room()?;
    let mut body = Secret::zeroed(plain_len + TAG_LEN)?;
    open_into(key, epoch, aad, &parts, &mut derived, body.expose_mut())?;
    body.truncate(plain_len);
    Ok(body)
}

/// Opens a record into `body`, which has room for its plaintext and then its tag.
fn open_into(
    key: &Key,
    epoch: &[u8; EPOCH_LEN],
    aad: &[u8],
    parts: &Parts<'_>,
    derived: &mut Derived,
    body: &mut [u8],
) -> Result<(), RecordError> {
    if parts.epoch != epoch {
        return Err(RecordError::Epoch);
    }
    let (message, tag) = body.split_at_mut(parts.ciphertext.len());
    message.copy_from_slice(parts.ciphertext);
    tag.copy_from_slice(parts.tag);
    wiped::<CIPHER_STACK, _>(|| {
        derived.derive(key, parts.salt, aad)?;
        if !bool::from(derived.commitment().ct_eq(parts.commitment)) {
            return Err(RecordError::Commitment);
        }
        derived
            .cipher()?
            .open_in_place(nonce(), Aad::from(aad), body)
            .map(|_| ())
            .map_err(|_| RecordError::Damaged)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
