//! No I/O. The backup of a store: one file that its own quorum opens, and nobody else.
//!
//! Owns: the file's layout, [`BackupHeader`], [`BackupWriter`], [`BackupScan`] (the strict reader), [`open_chunk`]
//! and [`BackupItem`] (what the chunks hold).
//!
//! # Layout (`crate::codec`)
//! ```text
//! file   = header | n × chunk | end
//! header = "mcpbckup" | version u16 = 1 | length u32 | id [16] | seal config | wrapped root key |
//!          incarnation { counter u64 | id [16] | parent [16] } | generation u64 | created u64
//! chunk  = length u32, 17 to 1 MiB | sealed
//! end    = 0 u32 | chunks u64 | digest [32] | MAC [32], and no byte after it
//!
//! key n  = HKDF-SHA-256(salt = id, ikm = root key, info = "mcpist-backup-v1" behind its length | n u8)
//! sealed = AES-256-GCM(key 1, nonce = number of the chunk, 96 bits, AAD = header digest | number u64)
//! digest = SHA-256 of every byte of the file before it
//! MAC    = HMAC-SHA-256(key 2, "mcpist-backup-end-v1" | digest)
//! name   = SHA-256("mcpist-backup-v1" | 0 | digest | MAC): what a plan to restore names
//! ```
//! # Threat model
//! The adversary has the file and may hand back any other bytes in its place. Without the quorum they learn what the
//! header says in clear, the file's length and when it was made. A chunk opens under its own number and header alone,
//! so one that was edited, swapped, doubled or taken from another backup opens nothing; a file that was cut or
//! grew misses its end; the digest is no secret, so that a damaged stick is found without a quorum. An older backup
//! is a good backup: that it is old is shown by its header, and judged by people and witness receipts.
//!
//! Does not: know what rows mean, or read and write files. A file is scanned in parts whose lengths are bounded here,
//! so that memory is bounded whatever somebody wrote into it.

mod item;
mod scan;

use mcpist_secret::{Key, MemoryError, random_bytes};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hmac;

use crate::codec::{Format, FormatError, Reader, Writer, digest};
use crate::config::{ConfigError, SealConfig};
use crate::head::Incarnation;

pub use item::{BackupItem, BackupItems, MAX_PATH, MAX_REASON};
pub use scan::{BackupPart, BackupScan};

const FORMAT: Format = Format {
    name: "backup",
    magic: *b"mcpbckup",
    version: 1,
};
/// Magic, version and length.
const PREFIX_LEN: usize = 14;
/// The longest header behind its prefix: a seal config of sixteen holders takes 80 KiB at most.
const MAX_HEADER: usize = 256 * 1024;
const MAX_WRAP: usize = 1024;
/// The longest sealed chunk.
const MAX_CHUNK: usize = 1 << 20;
/// A chunk is closed once it holds so much.
const FILL: usize = 256 * 1024;
const TAG_LEN: usize = 16;
/// Behind the zero that ends the chunks.
const END_LEN: usize = 8 + 32 + 32;

/// Why a backup was not read or not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The bytes are no backup.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The seal config in the header is none.
    #[error("the seal config in the backup: {0}")]
    Config(#[from] ConfigError),
    /// The bytes are not those that were written.
    #[error("the backup is damaged {0}: take another copy of it")]
    Damaged(&'static str),
    /// The chunks do not open under this root key.
    #[error(
        "the backup does not open under this root key ({0}): it was changed, or made before the root key was rotated; only a restore with the quorum of its time opens that one"
    )]
    Sealed(&'static str),
    /// An item is larger than a chunk.
    #[error("an item of {0} bytes does not fit into a chunk of a backup")]
    TooLarge(usize),
    /// The cipher refused its own parameters.
    #[error("the cryptographic library refused a {0}: the build is unusable, run `mcpist doctor`")]
    Library(&'static str),
    /// No secret memory, or no randomness.
    #[error("no secret memory for the backup: {0}")]
    Memory(String),
}

impl From<MemoryError> for BackupError {
    fn from(error: MemoryError) -> BackupError {
        BackupError::Memory(error.to_string())
    }
}

/// What a backup says of itself in clear. It is authentic once a chunk has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHeader {
    id: [u8; 16],
    config: SealConfig,
    root: Vec<u8>,
    incarnation: Incarnation,
    generation: u64,
    created: u64,
}

impl BackupHeader {
    /// A header with a fresh id. `root` is the root key as it stands wrapped beside `config`, `generation` that of the
    /// system vault, `created` in seconds since 1970.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(
        config: SealConfig,
        root: Vec<u8>,
        incarnation: Incarnation,
        generation: u64,
        created: u64,
    ) -> Result<BackupHeader, BackupError> {
        Ok(BackupHeader {
            id: random_bytes()?,
            config,
            root,
            incarnation,
            generation,
            created,
        })
    }

    /// The bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let fields = Writer::bare()
            .raw(&self.id)
            .bytes(&self.config.to_bytes())
            .bytes(&self.root)
            .u64(self.incarnation.counter)
            .raw(&self.incarnation.id)
            .raw(&self.incarnation.parent)
            .u64(self.generation)
            .u64(self.created)
            .finish();
        Writer::new(&FORMAT).bytes(&fields).finish()
    }

    /// Reads the bytes of a whole header, and checks its seal config.
    ///
    /// # Errors
    /// [`BackupError`], which names the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<BackupHeader, BackupError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let length = reader.u32("header length")?;
        if usize::try_from(length).ok() != bytes.len().checked_sub(PREFIX_LEN) {
            return Err(reader.value("header length", length.into()).into());
        }
        let header = BackupHeader {
            id: reader.raw("id")?,
            config: SealConfig::from_bytes(reader.bytes("seal config", MAX_HEADER)?)?,
            root: reader.bytes("wrapped root key", MAX_WRAP)?.to_vec(),
            incarnation: Incarnation {
                counter: reader.u64("counter")?,
                id: reader.raw("incarnation")?,
                parent: reader.raw("parent")?,
            },
            generation: reader.u64("generation")?,
            created: reader.u64("created")?,
        };
        reader.finish()?;
        Ok(header)
    }

    /// SHA-256("mcpist-backup-header-v1" ‖ 0 ‖ bytes): what every chunk is sealed under.
    pub fn digest(&self) -> [u8; 32] {
        digest("mcpist-backup-header-v1", &[&self.to_bytes()])
    }

    /// The number that makes this backup unlike every other.
    pub fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// The seal config whose quorum opens the backup.
    pub fn config(&self) -> &SealConfig {
        &self.config
    }

    /// The wrapped root key.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The life of the store that was backed up.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// The generation of the system vault when the backup began.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the backup began, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    fn key(&self, root: &Key, number: u8) -> Result<Key, MemoryError> {
        let info = Writer::bare()
            .bytes(b"mcpist-backup-v1")
            .u8(number)
            .finish();
        root.derive(&self.id, &info)
    }

    fn cipher(&self, root: &Key) -> Result<LessSafeKey, BackupError> {
        let key = self.key(root, 1)?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose());
        Ok(LessSafeKey::new(
            key.map_err(|_| BackupError::Library("key"))?,
        ))
    }
}

/// What ends a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupEnd {
    /// How many chunks there are.
    pub chunks: u64,
    digest: [u8; 32],
    mac: [u8; 32],
}

impl BackupEnd {
    /// The backup's name: what a plan to restore it names.
    pub fn name(&self) -> [u8; 32] {
        digest("mcpist-backup-v1", &[&self.digest, &self.mac])
    }

    /// Whether the end was written under this root key, in constant time.
    ///
    /// # Errors
    /// [`BackupError::Sealed`].
    pub fn check(&self, header: &BackupHeader, root: &Key) -> Result<(), BackupError> {
        let key = header.key(root, 2)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        hmac::verify(&key, &end_message(&self.digest), &self.mac)
            .map_err(|_| BackupError::Sealed("its end"))
    }
}

fn end_message(digest: &[u8; 32]) -> Vec<u8> {
    [b"mcpist-backup-end-v1".as_slice(), digest].concat()
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn aad(header: &[u8; 32], number: u64) -> Aad<Vec<u8>> {
    Aad::from([header.as_slice(), &number.to_be_bytes()].concat())
}

/// Opens chunk `number` in place; what stays in `sealed` is the items' bytes. They are rows as they stand in the store,
/// sealed under the vaults' own keys, and files that are no secret.
///
/// # Errors
/// [`BackupError::Sealed`].
pub fn open_chunk(
    header: &BackupHeader,
    root: &Key,
    number: u64,
    sealed: &mut Vec<u8>,
) -> Result<(), BackupError> {
    let opened = header
        .cipher(root)?
        .open_in_place(nonce(number), aad(&header.digest(), number), sealed)
        .map_err(|_| BackupError::Sealed("a chunk"))?
        .len();
    sealed.truncate(opened);
    Ok(())
}

/// Builds a backup, chunk by chunk. It holds no key: the root key is lent to it for each chunk.
pub struct BackupWriter {
    header: BackupHeader,
    header_digest: [u8; 32],
    hash: Context,
    plain: Vec<u8>,
    number: u64,
}

impl BackupWriter {
    /// Begins; the bytes are the file's first.
    pub fn new(header: BackupHeader) -> (BackupWriter, Vec<u8>) {
        let bytes = header.to_bytes();
        let mut hash = Context::new(&SHA256);
        hash.update(&bytes);
        let writer = BackupWriter {
            header_digest: header.digest(),
            header,
            hash,
            plain: Vec::with_capacity(FILL),
            number: 0,
        };
        (writer, bytes)
    }

    /// Takes an item; whether the chunk is full, and [`BackupWriter::seal`] is due.
    ///
    /// # Errors
    /// [`BackupError::TooLarge`].
    pub fn push(&mut self, item: &BackupItem<'_>) -> Result<bool, BackupError> {
        let bytes = item.to_bytes();
        if bytes.len() > MAX_CHUNK - TAG_LEN - FILL {
            return Err(BackupError::TooLarge(bytes.len()));
        }
        self.plain.extend_from_slice(&bytes);
        Ok(self.plain.len() >= FILL)
    }

    /// Closes the chunk; the bytes are the file's next. None where nothing is in it.
    ///
    /// # Errors
    /// No secret memory.
    pub fn seal(&mut self, root: &Key) -> Result<Vec<u8>, BackupError> {
        if self.plain.is_empty() {
            return Ok(Vec::new());
        }
        let mut sealed = std::mem::take(&mut self.plain);
        self.header
            .cipher(root)?
            .seal_in_place_append_tag(
                nonce(self.number),
                aad(&self.header_digest, self.number),
                &mut sealed,
            )
            .map_err(|_| BackupError::Library("chunk"))?;
        self.number += 1;
        let framed = Writer::bare().bytes(&sealed).finish();
        self.hash.update(&framed);
        Ok(framed)
    }

    /// Closes the last chunk and ends the file: its last bytes, and what it is known by.
    ///
    /// # Errors
    /// No secret memory.
    pub fn finish(mut self, root: &Key) -> Result<(Vec<u8>, BackupEnd), BackupError> {
        let mut out = self.seal(root)?;
        let counted = Writer::bare().u32(0).u64(self.number).finish();
        self.hash.update(&counted);
        out.extend_from_slice(&counted);
        let mut digest = [0; 32];
        digest.copy_from_slice(self.hash.finish().as_ref());
        let key = self.header.key(root, 2)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&key, &end_message(&digest)).as_ref());
        out.extend_from_slice(&digest);
        out.extend_from_slice(&mac);
        let end = BackupEnd {
            chunks: self.number,
            digest,
            mac,
        };
        Ok((out, end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
