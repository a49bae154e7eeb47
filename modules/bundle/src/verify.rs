//! Verification of a quarantined bundle, in one pass and without trust in any byte of it.
//!
//! Order: container, then signatures over the manifest's raw bytes until the threshold of distinct publisher keys is
//! met, then the manifest's strict parsing, then namespace, audience, time and sequence, then every blob's digest.
//! Promises that memory does not grow with the bundle: blobs are hashed slice by slice.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;

use mcpist_core::ids::{BundleName, Digest, Namespace, RegistryId, SiteId};
use mcpist_core::manifest::{Blob, BlobPath, Manifest, ManifestError};
use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::container::{
    BLOCK_LEN, Block, ContainerError, HEADER_LEN, Header, Role, signed_message,
};
use crate::quarantine::Quarantined;
use crate::root::Root;

const SLICE: usize = 1 << 20;

/// The highest sequence of a bundle that was imported, and the digest of that bundle's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The sequence.
    pub sequence: u64,
    /// The digest.
    pub digest: Digest,
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The copy cannot be read.
    #[error("the quarantined copy cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// One key signed twice.
    #[error("key {} signed twice; each key counts once and stands once", .0.short())]
    KeyTwice(Digest),
    /// A signature of a known key that does not hold.
    #[error("the signature of key {} does not hold: the bundle was changed after signing", .0.short())]
    Signature(Digest),
    /// Fewer good signatures than the root demands.
    #[error(
        "{good} of {needed} publisher signatures; have it counter-signed by another publisher key"
    )]
    TooFewSignatures {
        /// Distinct publisher keys whose signature holds.
        good: usize,
        /// The root's threshold.
        needed: usize,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The keys that signed may not sign for this namespace.
    #[error("too few of the keys that signed may sign for namespace {0}")]
    Namespace(Namespace),
    /// Made for other sites.
    #[error(
        "the bundle is for other sites than {0}; ask the publisher for one that names this site"
    )]
    Audience(SiteId),
    /// Too old to come in.
    #[error(
        "the bundle was good until {not_after} and the time floor is {floor} (seconds since 1970)"
    )]
    Expired {
        /// The bundle's limit.
        not_after: u64,
        /// The floor.
        floor: u64,
    },
    /// The very bundle was imported before.
    #[error("sequence {sequence} was imported before, and it is the same bundle")]
    AlreadyImported {
        /// Its sequence.
        sequence: u64,
    },
    /// Two bundles of one sequence.
    #[error(
        "equivocation: sequence {sequence} was imported before as {known}, this one is {given}; keep both and ask the publisher"
    )]
    Equivocation {
        /// The sequence.
        sequence: u64,
        /// Digest of the one that is here.
        known: Digest,
        /// Digest of this one.
        given: Digest,
    },
    /// Older than what is here.
    #[error("sequence {given} is older than {known}, which was imported before")]
    Older {
        /// This one's sequence.
        given: u64,
        /// The highest imported.
        known: u64,
    },
    /// The floor could not be read.
    #[error("the sequence floor cannot be read: {0}")]
    NoFloor(String),
    /// The blobs' lengths are not the payload's.
    #[error("the blobs add up to {blobs} bytes and the payload has {payload}")]
    Payload {
        /// Sum of the manifest's lengths.
        blobs: u128,
        /// The container's.
        payload: u64,
    },
    /// A blob is not what the manifest says.
    #[error("blob {0} does not have the digest that the manifest names")]
    Blob(BlobPath),
}

impl VerifyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::Io(_) => "quarantine_io",
            VerifyError::Container(ContainerError::Magic) => "not_a_bundle",
            VerifyError::Container(ContainerError::Length { .. }) => "wrong_length",
            VerifyError::Container(_) => "bad_container",
            VerifyError::KeyTwice(_) => "key_twice",
            VerifyError::Signature(_) => "bad_signature",
            VerifyError::TooFewSignatures { .. } => "too_few_signatures",
            VerifyError::Manifest(_) => "bad_manifest",
            VerifyError::Namespace(_) => "foreign_namespace",
            VerifyError::Audience(_) => "other_audience",
            VerifyError::Expired { .. } => "expired",
            VerifyError::AlreadyImported { .. } => "already_imported",
            VerifyError::Equivocation { .. } => "equivocation",
            VerifyError::Older { .. } => "older_sequence",
            VerifyError::NoFloor(_) => "no_floor",
            VerifyError::Payload { .. } => "wrong_payload",
            VerifyError::Blob(_) => "bad_blob",
        }
    }
}

/// A bundle that passed every check, still in quarantine.
#[derive(Debug)]
pub struct Verified<'q> {
    pub(crate) quarantined: &'q Quarantined,
    pub(crate) payload_at: u64,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    keys: BTreeSet<Digest>,
}

impl Verified<'_> {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that were signed.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The registry that it becomes.
    #[must_use]
    pub fn registry(&self) -> RegistryId {
        RegistryId::of_manifest(&self.manifest_bytes)
    }

    /// Ids of the publisher keys that signed.
    #[must_use]
    pub fn keys(&self) -> &BTreeSet<Digest> {
        &self.keys
    }

    /// The bytes of one blob, in memory; for schemas, which are small.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn blob(&self, path: &BlobPath) -> io::Result<Option<Vec<u8>>> {
        let mut at = self.payload_at;
        for blob in &self.manifest.blobs {
            if blob.path == *path {
                let mut bytes = vec![0; usize::try_from(blob.length).map_err(io::Error::other)?];
                self.quarantined.file().read_exact_at(&mut bytes, at)?;
                return Ok(Some(bytes));
            }
            at += blob.length;
        }
        Ok(None)
    }
}

impl Quarantined {
    /// Verifies the copy under `root`. `floor` looks up what was imported before; `now_floor` is the time, in seconds
    /// since 1970, that bundles must still be good at, from a source that is not the wall clock.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(
        &self,
        root: &Root,
        floor: impl Fn(&Namespace, &BundleName) -> Result<Option<Floor>, String>,
        now_floor: u64,
    ) -> Result<Verified<'_>, VerifyError> {
        let (header, blocks, manifest_bytes) = self.read_signed()?;
        let keys = signers(root, &blocks, &manifest_bytes)?;
        let manifest = Manifest::parse(&manifest_bytes)?;
        let delegated = keys
            .iter()
            .filter(|id| root.delegates(&manifest.namespace, id))
            .count();
        if delegated < root.threshold() {
            return Err(VerifyError::Namespace(manifest.namespace.clone()));
        }
        if !manifest.audience.contains(root.site()) {
            return Err(VerifyError::Audience(root.site().clone()));
        }
        if manifest.not_after < now_floor {
            return Err(VerifyError::Expired {
                not_after: manifest.not_after,
                floor: now_floor,
            });
        }
        let known = floor(&manifest.namespace, &manifest.name).map_err(VerifyError::NoFloor)?;
        check_floor(known, manifest.sequence, Digest::of(&manifest_bytes))?;
        self.check_blobs(&header, &manifest.blobs)?;
        Ok(Verified {
            quarantined: self,
            payload_at: header.payload_at(),
            manifest_bytes,
            manifest,
            keys,
        })
    }

    fn read_signed(&self) -> Result<(Header, Vec<Block>, Vec<u8>), VerifyError> {
        let too_short = ContainerError::Length {
            found: self.size(),
            expected: HEADER_LEN as u64,
        };
        if self.size() < HEADER_LEN as u64 {
            return Err(too_short.into());
        }
        let mut fixed = [0; HEADER_LEN];
        self.file().read_exact_at(&mut fixed, 0)?;
        let header = Header::parse(&fixed, self.size())?;
        let mut blocks = vec![0; header.signatures() * BLOCK_LEN];
        self.file().read_exact_at(&mut blocks, HEADER_LEN as u64)?;
        let blocks = blocks
            .chunks(BLOCK_LEN)
            .enumerate()
            .map(|(index, bytes)| Block::parse(bytes, index))
            .collect::<Result<Vec<_>, _>>()?;
        let mut manifest = vec![0; header.manifest()];
        self.file()
            .read_exact_at(&mut manifest, header.manifest_at())?;
        Ok((header, blocks, manifest))
    }

    fn check_blobs(&self, header: &Header, blobs: &[Blob]) -> Result<(), VerifyError> {
        let sum: u128 = blobs.iter().map(|b| u128::from(b.length)).sum();
        if sum != u128::from(header.payload()) {
            return Err(VerifyError::Payload {
                blobs: sum,
                payload: header.payload(),
            });
        }
        let mut slice = vec![0; SLICE];
        let mut at = header.payload_at();
        for blob in blobs {
            let mut hash = Context::new(&SHA256);
            let mut left = blob.length;
            while left > 0 {
                let want = slice
                    .len()
                    .min(usize::try_from(left).unwrap_or(slice.len()));
                self.file().read_exact_at(&mut slice[..want], at)?;
                hash.update(&slice[..want]);
                at += want as u64;
                left -= want as u64;
            }
            if hash.finish().as_ref() != blob.digest.as_bytes() {
                return Err(VerifyError::Blob(blob.path.clone()));
            }
        }
        Ok(())
    }
}

/// The distinct publisher keys whose signatures hold. Keys and roles that the root does not know count for nothing;
/// a bad signature of a known key refuses the bundle.
fn signers(
    root: &Root,
    blocks: &[Block],
    manifest: &[u8],
) -> Result<BTreeSet<Digest>, VerifyError> {
    let mut keys = BTreeSet::new();
    for (index, block) in blocks.iter().enumerate() {
        if blocks[..index]
            .iter()
            .any(|b| b.key == block.key && b.role == block.role)
        {
            return Err(VerifyError::KeyTwice(block.key));
        }
        if block.role != Role::Publisher {
            continue;
        }
        let Some(public) = root.publisher(&block.key) else {
            continue;
        };
        UnparsedPublicKey::new(&ED25519, public.0)
            .verify(&signed_message(block.role, manifest), &block.signature)
            .map_err(|_| VerifyError::Signature(block.key))?;
        keys.insert(block.key);
    }
    if keys.len() < root.threshold() {
        return Err(VerifyError::TooFewSignatures {
            good: keys.len(),
            needed: root.threshold(),
        });
    }
    Ok(keys)
}

fn check_floor(floor: Option<Floor>, sequence: u64, given: Digest) -> Result<(), VerifyError> {
    match floor {
        Some(known) if sequence < known.sequence => Err(VerifyError::Older {
            given: sequence,
            known: known.sequence,
        }),
        Some(known) if sequence == known.sequence && given == known.digest => {
            Err(VerifyError::AlreadyImported { sequence })
        }
        Some(known) if sequence == known.sequence => Err(VerifyError::Equivocation {
            sequence,
            known: known.digest,
            given,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
