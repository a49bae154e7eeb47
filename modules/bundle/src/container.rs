//! The container's bytes. No I/O.
//!
//! ```text
//! magic[8] "mcpbundl" | version u16 = 1 | signatures u16 <= 16 | manifest length u32 | payload length u64
//! signatures x { role u8 | algorithm u8 = 1 | reserved u16 = 0 | key id[32] | signature[64] }
//! manifest | blobs in the manifest's order, no padding | end of file exactly
//! ```
//! Numbers are big-endian. Algorithm 1 is Ed25519 (RFC 8032) over `"mcpist-bundle-v1\0" || role || manifest length u32 ||
//! manifest`; a key id is the SHA-256 of the public key. Promises: every length is compared with its limit and with
//! the file's size before anything is read by it, and no sum overflows.

use mcpist_core::ids::Digest;
use mcpist_core::manifest::MAX_MANIFEST;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 24;
/// Length of one signature block.
pub const BLOCK_LEN: usize = 100;
/// Most signature blocks.
pub const MAX_SIGNATURES: u16 = 16;
const MAGIC: [u8; 8] = *b"mcpbundl";
const VERSION: u16 = 1;
const ED25519: u8 = 1;
const DOMAIN: &[u8] = b"mcpist-bundle-v1\0";

/// What a key may sign as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Bundles of its namespaces.
    Publisher,
    /// The next root.
    Root,
    /// Revocations.
    Revoke,
}

impl Role {
    /// The byte in a block and in what is signed.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Role::Publisher => 1,
            Role::Root => 2,
            Role::Revoke => 3,
        }
    }

    /// The name, as in a root and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Publisher => "publisher",
            Role::Root => "root",
            Role::Revoke => "revoke",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Role> {
        [Role::Publisher, Role::Root, Role::Revoke]
            .into_iter()
            .find(|r| r.as_str() == text)
    }

    fn of_byte(byte: u8) -> Option<Role> {
        [Role::Publisher, Role::Root, Role::Revoke]
            .into_iter()
            .find(|r| r.byte() == byte)
    }
}

/// Why bytes are no container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Another kind of file.
    #[error("the file is no mcpist bundle")]
    Magic,
    /// Of a later format.
    #[error("bundle format {0} is unknown; this program reads format 1")]
    Version(u16),
    /// Shorter than its header says, or longer.
    #[error("the file has {found} bytes, its header says {expected}; it was cut off or added to")]
    Length {
        /// The file's size.
        found: u64,
        /// What the header adds up to.
        expected: u64,
    },
    /// Too many signature blocks.
    #[error("the file has {0} signatures; at most 16 are allowed")]
    Signatures(u16),
    /// A manifest that is empty or over its limit.
    #[error("the manifest has {0} bytes; 1 byte to 16 MiB are allowed")]
    Manifest(u32),
    /// A block whose fields are unknown.
    #[error("signature {0} is of an unknown role or algorithm, or its reserved bytes are not zero")]
    Block(u16),
}

/// One signature block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it was signed as.
    pub role: Role,
    /// SHA-256 of the public key.
    pub key: Digest,
    /// Ed25519.
    pub signature: [u8; 64],
}

/// The fixed header of a file of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    signatures: u16,
    manifest: u32,
    payload: u64,
}

impl Header {
    /// The header of a bundle with these lengths.
    ///
    /// # Errors
    /// [`ContainerError`] where they are over their limits.
    pub fn new(signatures: usize, manifest: usize, payload: u64) -> Result<Header, ContainerError> {
        let signatures = u16::try_from(signatures).unwrap_or(u16::MAX);
        let manifest = u32::try_from(manifest).unwrap_or(u32::MAX);
        Header {
            signatures,
            manifest,
            payload,
        }
        .check()
    }

    fn check(self) -> Result<Header, ContainerError> {
        if self.signatures > MAX_SIGNATURES {
            return Err(ContainerError::Signatures(self.signatures));
        }
        if self.manifest == 0 || self.manifest as usize > MAX_MANIFEST {
            return Err(ContainerError::Manifest(self.manifest));
        }
        Ok(self)
    }

    /// Reads the header of a file of `size` bytes.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn parse(bytes: &[u8; HEADER_LEN], size: u64) -> Result<Header, ContainerError> {
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(ContainerError::Magic);
        }
        let number = |at: usize, length: usize| {
            rest[at..at + length]
                .iter()
                .fold(0_u64, |n, b| n << 8 | u64::from(*b))
        };
        let version = number(0, 2) as u16;
        if version != VERSION {
            return Err(ContainerError::Version(version));
        }
        let header = Header {
            signatures: number(2, 2) as u16,
            manifest: number(4, 4) as u32,
            payload: number(8, 8),
        }
        .check()?;
        match header.total() {
            Some(expected) if expected == size => Ok(header),
            expected => Err(ContainerError::Length {
                found: size,
                expected: expected.unwrap_or(u64::MAX),
            }),
        }
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_be_bytes());
        out[10..12].copy_from_slice(&self.signatures.to_be_bytes());
        out[12..16].copy_from_slice(&self.manifest.to_be_bytes());
        out[16..].copy_from_slice(&self.payload.to_be_bytes());
        out
    }

    /// Number of signature blocks.
    #[must_use]
    pub fn signatures(&self) -> usize {
        usize::from(self.signatures)
    }

    /// Length of the manifest in bytes.
    #[must_use]
    pub fn manifest(&self) -> usize {
        self.manifest as usize
    }

    /// Length of all blobs in bytes.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Where the manifest begins.
    #[must_use]
    pub fn manifest_at(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.signatures) * BLOCK_LEN as u64
    }

    /// Where the first blob begins.
    #[must_use]
    pub fn payload_at(&self) -> u64 {
        self.manifest_at() + u64::from(self.manifest)
    }

    fn total(&self) -> Option<u64> {
        self.payload_at().checked_add(self.payload)
    }
}

impl Block {
    /// Reads block number `index`.
    ///
    /// # Errors
    /// [`ContainerError::Block`].
    pub fn parse(bytes: &[u8], index: usize) -> Result<Block, ContainerError> {
        let wrong = || ContainerError::Block(u16::try_from(index).unwrap_or(u16::MAX));
        let bytes: &[u8; BLOCK_LEN] = bytes.try_into().map_err(|_| wrong())?;
        let role = Role::of_byte(bytes[0]).ok_or_else(wrong)?;
        if bytes[1] != ED25519 || bytes[2..4] != [0, 0] {
            return Err(wrong());
        }
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        key.copy_from_slice(&bytes[4..36]);
        signature.copy_from_slice(&bytes[36..]);
        Ok(Block {
            role,
            key: Digest::from_bytes(key),
            signature,
        })
    }

    /// The block's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BLOCK_LEN] {
        let mut out = [0; BLOCK_LEN];
        out[0] = self.role.byte();
        out[1] = ED25519;
        out[4..36].copy_from_slice(self.key.as_bytes());
        out[36..].copy_from_slice(&self.signature);
        out
    }
}

/// What a key of `role` signs.
#[must_use]
pub fn signed_message(role: Role, manifest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
    [DOMAIN, &[role.byte()], &length.to_be_bytes(), manifest].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header() -> [u8; HEADER_LEN] {
        Header::new(1, 10, 5).unwrap().to_bytes()
    }

    #[test]
    fn a_header_is_these_bytes() {
        assert_eq!(
            hex::encode(header()),
            "6d637062756e646c000100010000000a0000000000000005"
        );
        assert_eq!(
            Header::parse(&header(), 139).unwrap(),
            Header::new(1, 10, 5).unwrap()
        );
    }

    #[test]
    fn each_wrong_field_has_its_own_error() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = header();
            bytes[at..at + value.len()].copy_from_slice(value);
            Header::parse(&bytes, 139).unwrap_err()
        };
        assert_eq!(with(0, b"x"), ContainerError::Magic);
        assert_eq!(with(8, &[0, 2]), ContainerError::Version(2));
        assert_eq!(with(10, &[0, 17]), ContainerError::Signatures(17));
        assert_eq!(with(12, &[0, 0, 0, 0]), ContainerError::Manifest(0));
        assert_eq!(
            with(12, &[1, 0, 0, 1]),
            ContainerError::Manifest(0x0100_0001)
        );
        assert_eq!(
            with(10, &[0, 2]),
            ContainerError::Length {
                found: 139,
                expected: 239
            }
        );
        assert_eq!(
            with(16, &[0xff; 8]),
            ContainerError::Length {
                found: 139,
                expected: u64::MAX
            }
        );
        assert!(matches!(
            Header::parse(&header(), 140),
            Err(ContainerError::Length { .. })
        ));
    }

    #[test]
    fn a_block_reads_back_and_refuses_what_it_does_not_know() {
        let block = Block {
            role: Role::Revoke,
            key: Digest::of(b"k"),
            signature: [7; 64],
        };
        assert_eq!(Block::parse(&block.to_bytes(), 0).unwrap(), block);
        for (at, value) in [(0, 0), (0, 4), (1, 2), (2, 1), (3, 1)] {
            let mut bytes = block.to_bytes();
            bytes[at] = value;
            assert_eq!(
                Block::parse(&bytes, 3),
                Err(ContainerError::Block(3)),
                "byte {at}"
            );
        }
        assert!(Block::parse(&[0; 99], 0).is_err());
    }
}
