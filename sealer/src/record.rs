//! The row of a record: how one version stands on disk and in memory. No I/O.
//!
//! ```text
//! row  = 1 | epoch[16] | version u64 | len u32 | sealed meta | sealed payload
//! meta = name | owner | kind | version u64 | expiry u64 | created u64 | n u32 × host   (u32 lengths)
//! ```
//! Both parts are sealed records of [`mcpist_quorum`] under the vault's data key of that epoch. The AAD of
//! the payload is the record's name, owner, version, kind, expiry and hosts; that of the meta is the HMAC
//! under which the row is found, the version and the payload's commitment and GCM tag. So a meta opens only
//! in its own row and beside its own payload, and the payload's [`Entry`] stands for the whole row in the
//! index and the head.
//!
//! A row is found by its [`NameHmac`], an HMAC of (vault ‖ owner ‖ name): the file shows neither names nor
//! which records share an owner. It does show how many there are, their lengths and their versions.
//!
//! Kinds and owners that begin with a character the public names exclude are this crate's own: the
//! outbox, the head, and the vaults' names in the system vault.

use std::sync::Arc;

use mcpist_quorum::{
    Entry, MAX_PLAINTEXT, NameHmac, OpenRoom, RecordAad, RecordError, RecordTag, StoreId,
    open_record, seal_record,
};
use mcpist_secret::{Key, Secret};

use crate::codec::{Malformed, Reader, put_bytes};
use crate::ids::VaultId;
use crate::keyring::{Epoch, VaultKeys};

const ROW_V1: u8 = 1;
const KIND_META: &str = "\u{1}meta";
const KIND_OUTBOX: &str = "\u{1}outbox";
const KIND_HEAD: &str = "\u{1}head";
/// Kind of the system vault's records that name the other vaults.
pub(crate) const KIND_VAULT: &str = "\u{1}vault";
/// Owner of the system vault's records that name the other vaults.
pub(crate) const OWNER_VAULTS: &str = "\u{1}vault";

/// The longest payload of a record, in bytes.
pub const MAX_PAYLOAD: usize = MAX_PLAINTEXT;

/// Where sealed bytes belong: part of every AAD.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: StoreId,
    pub(crate) vault: VaultId,
    text: Arc<str>,
}

impl Place {
    pub(crate) fn new(store: StoreId, vault: VaultId) -> Place {
        Place {
            store,
            vault,
            text: vault.to_string().into(),
        }
    }

    /// The vault, as AADs name it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn aad<'a>(&'a self, epoch: Epoch, name: &'a str, kind: &'a str) -> RecordAad<'a> {
        RecordAad {
            store: self.store,
            vault: &self.text,
            epoch,
            name,
            owner: "",
            version: 0,
            kind,
            expiry: 0,
            hosts: &[],
        }
    }
}

/// The lookup name of a record of this vault.
pub(crate) fn name_of(keys: &VaultKeys, place: &Place, owner: &str, name: &str) -> NameHmac {
    NameHmac::new(keys.names(), &place.text, owner, name)
}

/// The lookup name that a row's key is.
pub(crate) fn name_from_key(key: &[u8]) -> Result<NameHmac, Malformed> {
    key.try_into()
        .map(NameHmac::from_bytes)
        .map_err(|_| Malformed)
}

/// What may be known of a record without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Counts the record's versions from 1. Where records were deleted from the vault, a new record begins
    /// above every deleted version, so a (name, version) never means two things.
    pub version: u64,
    /// What the payload is, as the caller said.
    pub kind: String,
    /// Seconds since 1970, or 0 for never. Not enforced here.
    pub expiry: u64,
    /// The hosts that a credential is bound to.
    pub hosts: Vec<String>,
    /// When this version was put, in seconds since 1970 by the host's clock.
    pub created: u64,
}

/// A record's names and meta, as opened from its row.
pub(crate) struct Opened {
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) meta: Meta,
}

impl Opened {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for text in [&self.name, &self.owner, &self.meta.kind] {
            put_bytes(&mut out, text.as_bytes());
        }
        for number in [self.meta.version, self.meta.expiry, self.meta.created] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let count = u32::try_from(self.meta.hosts.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for host in &self.meta.hosts {
            put_bytes(&mut out, host.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Opened, Malformed> {
        let mut read = Reader::new(bytes);
        let name = read.text()?.to_owned();
        let owner = read.text()?.to_owned();
        let kind = read.text()?.to_owned();
        let (version, expiry, created) = (read.u64()?, read.u64()?, read.u64()?);
        let count = read.u32()?;
        let mut hosts = Vec::new();
        for _ in 0..count {
            hosts.push(read.text()?.to_owned());
        }
        read.end()?;
        Ok(Opened {
            owner,
            name,
            meta: Meta {
                version,
                kind,
                expiry,
                hosts,
                created,
            },
        })
    }

    fn payload_aad<'a>(&'a self, place: &'a Place, epoch: Epoch) -> RecordAad<'a> {
        RecordAad {
            owner: &self.owner,
            version: self.meta.version,
            expiry: self.meta.expiry,
            hosts: &self.meta.hosts,
            ..place.aad(epoch, &self.name, &self.meta.kind)
        }
    }
}

/// Why a row is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the row is sealed in an epoch whose key the vault does not have")]
    Epoch,
    #[error("the row stands under another record's name")]
    Misplaced,
}

/// A row, cut into its parts. Nothing is authenticated yet.
pub(crate) struct Row<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) version: u64,
    meta: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Row<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Row<'a>, RowError> {
        let mut read = Reader::new(bytes);
        read.expect(ROW_V1)?;
        let (epoch, version) = (read.array()?, read.u64()?);
        let meta = read.bytes()?;
        Ok(Row {
            epoch,
            version,
            meta,
            payload: read.rest(),
        })
    }

    /// What the index and the head know this version by.
    pub(crate) fn entry(&self, name: &NameHmac) -> Result<Entry, RowError> {
        Ok(Entry::new(
            name,
            self.version,
            &RecordTag::parse(self.payload)?,
        ))
    }

    /// Opens the meta and makes sure that the row stands where it belongs.
    pub(crate) fn open_meta(
        &self,
        keys: &VaultKeys,
        place: &Place,
        name: &NameHmac,
    ) -> Result<Opened, RowError> {
        self.meta_by(keys, place, name, |key, aad, sealed| {
            Ok(Opened::decode(open_record(key, aad, sealed)?.expose())?)
        })
    }

    /// Opens both parts, one after the other in the same room; the payload stands there afterwards.
    pub(crate) fn open_in<'r>(
        &self,
        room: &'r mut OpenRoom,
        keys: &VaultKeys,
        place: &Place,
        name: &NameHmac,
    ) -> Result<(Opened, &'r [u8]), RowError> {
        let opened = self.meta_by(keys, place, name, |key, aad, sealed| {
            Ok(Opened::decode(room.open(key, aad, sealed)?)?)
        })?;
        let key = keys.epoch(self.epoch).ok_or(RowError::Epoch)?;
        let payload = room.open(key, &opened.payload_aad(place, self.epoch), self.payload)?;
        Ok((opened, payload))
    }

    /// Opens the payload of a row whose meta was opened.
    pub(crate) fn open_payload(
        &self,
        keys: &VaultKeys,
        place: &Place,
        opened: &Opened,
    ) -> Result<Secret, RowError> {
        let key = keys.epoch(self.epoch).ok_or(RowError::Epoch)?;
        Ok(open_record(
            key,
            &opened.payload_aad(place, self.epoch),
            self.payload,
        )?)
    }

    fn meta_by(
        &self,
        keys: &VaultKeys,
        place: &Place,
        name: &NameHmac,
        open: impl FnOnce(&Key, &RecordAad<'_>, &[u8]) -> Result<Opened, RowError>,
    ) -> Result<Opened, RowError> {
        let key = keys.epoch(self.epoch).ok_or(RowError::Epoch)?;
        let (found_by, beside) = meta_aad(name, &RecordTag::parse(self.payload)?);
        let aad = RecordAad {
            owner: &beside,
            version: self.version,
            ..place.aad(self.epoch, &found_by, KIND_META)
        };
        let opened = open(key, &aad, self.meta)?;
        let named = name_of(keys, place, &opened.owner, &opened.name);
        if named != *name || opened.meta.version != self.version {
            return Err(RowError::Misplaced);
        }
        Ok(opened)
    }

    pub(crate) fn keep(&self, place: &Place, opened: Opened) -> SealedRecord {
        SealedRecord(Arc::new(Kept {
            place: place.clone(),
            epoch: self.epoch,
            opened,
            payload: self.payload.into(),
        }))
    }
}

fn meta_aad(name: &NameHmac, payload: &RecordTag) -> (String, String) {
    (
        hex(name.as_bytes()),
        hex(&[payload.commitment.as_slice(), &payload.tag].concat()),
    )
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Seals one version into a row of the newest epoch.
pub(crate) fn seal_row(
    keys: &VaultKeys,
    place: &Place,
    name: &NameHmac,
    record: &Opened,
    payload: &[u8],
) -> Result<(Vec<u8>, Entry), RecordError> {
    let (epoch, key) = keys.newest();
    let payload = seal_record(key, &record.payload_aad(place, epoch), payload)?;
    let tag = RecordTag::parse(&payload)?;
    let version = record.meta.version;
    let (found_by, beside) = meta_aad(name, &tag);
    let aad = RecordAad {
        owner: &beside,
        version,
        ..place.aad(epoch, &found_by, KIND_META)
    };
    let meta = seal_record(key, &aad, &record.encode())?;
    let mut row = Vec::with_capacity(32 + meta.len() + payload.len());
    row.push(ROW_V1);
    row.extend_from_slice(&epoch);
    row.extend_from_slice(&version.to_be_bytes());
    put_bytes(&mut row, &meta);
    row.extend_from_slice(&payload);
    Ok((row, Entry::new(name, version, &tag)))
}

/// Seals an outbox line; `sequence` is its place.
pub(crate) fn seal_outbox(
    keys: &VaultKeys,
    place: &Place,
    sequence: u64,
    line: &[u8],
) -> Result<Vec<u8>, RecordError> {
    let (epoch, key) = keys.newest();
    let aad = RecordAad {
        version: sequence,
        ..place.aad(epoch, "", KIND_OUTBOX)
    };
    let sealed = seal_record(key, &aad, line)?;
    Ok([epoch.as_slice(), &sealed].concat())
}

/// Opens an outbox line.
pub(crate) fn open_outbox(
    keys: &VaultKeys,
    place: &Place,
    sequence: u64,
    row: &[u8],
) -> Result<Secret, RowError> {
    let (epoch, sealed) = row.split_first_chunk().ok_or(Malformed)?;
    let key = keys.epoch(*epoch).ok_or(RowError::Epoch)?;
    let aad = RecordAad {
        version: sequence,
        ..place.aad(*epoch, "", KIND_OUTBOX)
    };
    Ok(open_record(key, &aad, sealed)?)
}

/// Seals a head under the head key, which has no epochs.
pub(crate) fn seal_head(
    keys: &VaultKeys,
    place: &Place,
    head: &[u8],
) -> Result<Vec<u8>, RecordError> {
    seal_record(keys.head(), &place.aad([0; 16], "", KIND_HEAD), head)
}

/// Opens a head.
pub(crate) fn open_head(
    keys: &VaultKeys,
    place: &Place,
    sealed: &[u8],
) -> Result<Secret, RowError> {
    Ok(open_record(
        keys.head(),
        &place.aad([0; 16], "", KIND_HEAD),
        sealed,
    )?)
}

struct Kept {
    place: Place,
    epoch: Epoch,
    opened: Opened,
    payload: Box<[u8]>,
}

/// One version of a record, still sealed, to be kept in memory and opened again and again.
///
/// Not secret: the bytes are those on disk. Cheap to clone.
#[derive(Clone)]
pub struct SealedRecord(Arc<Kept>);

impl SealedRecord {
    /// The vault that it came from.
    pub fn vault(&self) -> VaultId {
        self.0.place.vault
    }

    /// The record's name.
    pub fn name(&self) -> &str {
        &self.0.opened.name
    }

    /// The principal that owns it, if it is nobody's shared one.
    pub fn owner(&self) -> Option<&str> {
        Some(self.0.opened.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    /// Version, kind, expiry, hosts.
    pub fn meta(&self) -> &Meta {
        &self.0.opened.meta
    }

    /// How many bytes of memory it takes, about.
    pub fn size(&self) -> usize {
        let text = &self.0.opened;
        let hosts: usize = text.meta.hosts.iter().map(String::len).sum();
        size_of::<Kept>() + self.0.payload.len() + text.name.len() + text.owner.len() + hosts
    }

    /// Opens the payload under the vault's keys. Memory only.
    pub(crate) fn open(&self, keys: &VaultKeys) -> Result<Secret, RowError> {
        let kept = &*self.0;
        let key = keys.epoch(kept.epoch).ok_or(RowError::Epoch)?;
        Ok(open_record(
            key,
            &kept.opened.payload_aad(&kept.place, kept.epoch),
            &kept.payload,
        )?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::new(StoreId::from_bytes([1; 16]), VaultId::random().unwrap())
    }

    fn record(name: &str, version: u64) -> Opened {
        Opened {
            owner: "alice".into(),
            name: name.into(),
            meta: Meta {
                version,
                kind: "bearer".into(),
                expiry: 9,
                hosts: vec!["a.example".into(), "b.example:8443".into()],
                created: 5,
            },
        }
    }

    fn open(
        row: &[u8],
        keys: &VaultKeys,
        place: &Place,
        tag: &NameHmac,
    ) -> Result<Vec<u8>, RowError> {
        let row = Row::parse(row)?;
        let opened = row.open_meta(keys, place, tag)?;
        Ok(row.open_payload(keys, place, &opened)?.expose().to_vec())
    }

    #[test]
    fn a_row_opens_in_its_place_and_nowhere_else() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let tag = name_of(&keys, &place, "alice", "git");
        let (row, entry) = seal_row(&keys, &place, &tag, &record("git", 3), b"hunter22").unwrap();
        assert_eq!(open(&row, &keys, &place, &tag).unwrap(), b"hunter22");
        assert_eq!(Row::parse(&row).unwrap().entry(&tag).unwrap(), entry);
        let elsewhere = name_of(&keys, &place, "", "git");
        assert!(
            open(&row, &keys, &place, &elsewhere).is_err(),
            "another name"
        );
        let other = Place::new(place.store, VaultId::random().unwrap());
        assert!(open(&row, &keys, &other, &tag).is_err(), "another vault");
        assert!(
            open(&row, &VaultKeys::random().unwrap(), &place, &tag).is_err(),
            "other keys"
        );
    }

    #[test]
    fn every_bit_of_a_row_matters() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let tag = name_of(&keys, &place, "alice", "git");
        let (row, _) = seal_row(&keys, &place, &tag, &record("git", 3), b"hunter22").unwrap();
        for at in 0..row.len() {
            let mut bad = row.clone();
            bad[at] ^= 1;
            assert!(open(&bad, &keys, &place, &tag).is_err(), "byte {at}");
            assert!(
                open(&row[..at], &keys, &place, &tag).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_meta_opens_beside_its_own_payload_only() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let tag = name_of(&keys, &place, "alice", "git");
        let (one, _) = seal_row(&keys, &place, &tag, &record("git", 3), b"hunter22").unwrap();
        let (two, _) = seal_row(&keys, &place, &tag, &record("git", 3), b"hunter22").unwrap();
        let (one, two) = (Row::parse(&one).unwrap(), Row::parse(&two).unwrap());
        let mixed = Row {
            meta: one.meta,
            ..two
        };
        assert!(mixed.open_meta(&keys, &place, &tag).is_err());
    }

    #[test]
    fn a_row_shows_no_name() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let tag = name_of(&keys, &place, "alice", "gitlab-token");
        let record = record("gitlab-token", 1);
        let (row, _) = seal_row(&keys, &place, &tag, &record, b"hunter22").unwrap();
        for text in ["alice", "gitlab-token", "a.example", "bearer", "hunter22"] {
            assert!(
                !row.windows(text.len()).any(|w| w == text.as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn an_outbox_line_opens_under_its_sequence_only() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let row = seal_outbox(&keys, &place, 7, b"line").unwrap();
        assert_eq!(
            open_outbox(&keys, &place, 7, &row).unwrap().expose(),
            b"line"
        );
        assert!(open_outbox(&keys, &place, 8, &row).is_err());
        assert!(open_outbox(&keys, &place, 7, &row[..15]).is_err());
    }

    #[test]
    fn a_kept_record_opens_in_memory() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let tag = name_of(&keys, &place, "alice", "git");
        let (row, _) = seal_row(&keys, &place, &tag, &record("git", 3), b"hunter22").unwrap();
        let row = Row::parse(&row).unwrap();
        let kept = row.keep(&place, row.open_meta(&keys, &place, &tag).unwrap());
        assert_eq!(kept.open(&keys).unwrap().expose(), b"hunter22");
        assert_eq!((kept.name(), kept.owner()), ("git", Some("alice")));
        assert!(kept.open(&VaultKeys::random().unwrap()).is_err());
    }
}
