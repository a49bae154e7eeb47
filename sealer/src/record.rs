//! The row of a record: how one version stands on disk and in memory. No I/O.
//!
//! ```text
//! row       = 1 | version u64 | sealed record
//! plaintext = meta, behind its length u32 | payload
//! meta      = name | owner | kind | expiry u64 | created u64 | n u32 × host   (u32 lengths)
//! ```
//! The whole is one sealed record of [`mcpist_quorum`] under the vault's data key of its epoch. Its AAD is where the
//! row stands: store, vault, epoch, version and the [`NameHmac`] under which it is found, an HMAC of
//! (vault ‖ owner ‖ name). All that the record says of itself is sealed with the payload, so that one opening
//! authenticates both, and who only wants the meta opens the payload too, in secret memory, and drops it there.
//! [`seal_row`] is the only maker of rows and computes the HMAC itself: what opens under an HMAC has that owner and name.
//!
//! The file shows neither names nor which records share an owner. It does show how many there are, their
//! lengths and their versions.
//!
//! Kinds and owners that begin with a character the public names exclude are this crate's own: the
//! vaults' names in the system vault.

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
/// What outbox lines and heads have in place of a record's [`NameHmac`], which is longer.
const OUTBOX: &[u8] = b"outbox";
const HEAD: &[u8] = b"head";
/// Kind of the system vault's records that name the other vaults.
pub(crate) const KIND_VAULT: &str = "\u{1}vault";
/// Owner of the system vault's records that name the other vaults.
pub(crate) const OWNER_VAULTS: &str = "\u{1}vault";

/// The most that a record's names, kind, hosts and payload take together, in bytes; 36 of it, and 4 for each host, are
/// lengths and times.
pub const MAX_RECORD: usize = MAX_PLAINTEXT;

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

    fn aad<'a>(&'a self, epoch: Epoch, name: &'a [u8], version: u64) -> RecordAad<'a> {
        RecordAad {
            store: self.store,
            vault: &self.text,
            epoch,
            name,
            version,
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
    /// What [`MAX_RECORD`] leaves for a payload.
    pub(crate) fn room(owner: &str, name: &str, kind: &str, hosts: &[String]) -> usize {
        let texts = owner.len() + name.len() + kind.len();
        let hosts: usize = hosts.iter().map(|host| 4 + host.len()).sum();
        MAX_RECORD.saturating_sub(36 + texts + hosts)
    }

    /// The plaintext of the record's row.
    fn encode(&self, payload: &[u8]) -> Result<Secret, RecordError> {
        let mut meta = Vec::with_capacity(128);
        for text in [&self.name, &self.owner, &self.meta.kind] {
            put_bytes(&mut meta, text.as_bytes());
        }
        for number in [self.meta.expiry, self.meta.created] {
            meta.extend_from_slice(&number.to_be_bytes());
        }
        let count = u32::try_from(self.meta.hosts.len()).unwrap_or(u32::MAX);
        meta.extend_from_slice(&count.to_be_bytes());
        for host in &self.meta.hosts {
            put_bytes(&mut meta, host.as_bytes());
        }
        let mut before = Vec::with_capacity(4 + meta.len());
        put_bytes(&mut before, &meta);
        Secret::fill(before.len() + payload.len(), |out| {
            let (out, rest) = out.split_at_mut(before.len());
            out.copy_from_slice(&before);
            rest.copy_from_slice(payload);
            Ok(())
        })
    }
}

/// The plaintext of a row, cut into its parts where it stands.
pub(crate) struct Content<'a> {
    pub(crate) owner: &'a str,
    pub(crate) name: &'a str,
    pub(crate) created: u64,
    kind: &'a str,
    expiry: u64,
    /// The hosts, each behind its length.
    hosts: Reader<'a>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Content<'a> {
    fn parse(plaintext: &'a [u8]) -> Result<Content<'a>, Malformed> {
        let mut read = Reader::new(plaintext);
        let mut meta = Reader::new(read.bytes()?);
        let (name, owner, kind) = (meta.text()?, meta.text()?, meta.text()?);
        let (expiry, created) = (meta.u64()?, meta.u64()?);
        let count = meta.u32()?;
        let hosts = meta.clone();
        for _ in 0..count {
            meta.text()?;
        }
        meta.end()?;
        Ok(Content {
            owner,
            name,
            created,
            kind,
            expiry,
            hosts,
            payload: read.rest(),
        })
    }

    fn to_opened(&self, version: u64) -> Opened {
        let mut hosts = self.hosts.clone();
        Opened {
            owner: self.owner.to_owned(),
            name: self.name.to_owned(),
            meta: Meta {
                version,
                kind: self.kind.to_owned(),
                expiry: self.expiry,
                hosts: std::iter::from_fn(|| hosts.text().ok().map(str::to_owned)).collect(),
                created: self.created,
            },
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
}

/// A row, cut into its parts. Nothing is authenticated yet.
pub(crate) struct Row<'a> {
    pub(crate) epoch: Epoch,
    version: u64,
    tag: RecordTag,
    sealed: &'a [u8],
}

impl<'a> Row<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Row<'a>, RowError> {
        let mut read = Reader::new(bytes);
        read.expect(ROW_V1)?;
        let version = read.u64()?;
        let sealed = read.rest();
        let tag = RecordTag::parse(sealed)?;
        Ok(Row {
            epoch: tag.epoch,
            version,
            tag,
            sealed,
        })
    }

    /// What the index and the head know this version by.
    pub(crate) fn entry(&self, name: &NameHmac) -> Entry {
        Entry::new(name, self.version, &self.tag)
    }

    /// Opens the row in `room`, where what it says stands afterwards.
    pub(crate) fn open_in<'r>(
        &self,
        room: &'r mut OpenRoom,
        keys: &VaultKeys,
        place: &Place,
        name: &NameHmac,
    ) -> Result<Content<'r>, RowError> {
        let key = key_of(keys, self.epoch)?;
        let plaintext = room.open(key, &self.aad(place, name), self.sealed)?;
        Ok(Content::parse(plaintext)?)
    }

    /// Opens the row: what the record says of itself, and its payload.
    pub(crate) fn open(
        &self,
        keys: &VaultKeys,
        place: &Place,
        name: &NameHmac,
    ) -> Result<(Opened, Secret), RowError> {
        let key = key_of(keys, self.epoch)?;
        let plaintext = open_record(key, &self.aad(place, name), self.sealed)?;
        let opened = Content::parse(plaintext.expose())?.to_opened(self.version);
        Ok((opened, payload_of(plaintext)?))
    }

    fn aad<'b>(&self, place: &'b Place, name: &'b NameHmac) -> RecordAad<'b> {
        place.aad(self.epoch, name.as_bytes(), self.version)
    }

    pub(crate) fn keep(&self, place: &Place, name: NameHmac, opened: Opened) -> SealedRecord {
        SealedRecord(Arc::new(Kept {
            place: place.clone(),
            epoch: self.epoch,
            name,
            opened,
            sealed: self.sealed.into(),
        }))
    }
}

fn key_of(keys: &VaultKeys, epoch: Epoch) -> Result<&Key, RowError> {
    keys.epoch(epoch).ok_or(RowError::Epoch)
}

/// Leaves the payload of a row's plaintext.
fn payload_of(mut plaintext: Secret) -> Result<Secret, Malformed> {
    let mut read = Reader::new(plaintext.expose());
    read.bytes()?;
    let payload = read.rest().len();
    let bytes = plaintext.expose_mut();
    bytes.copy_within(bytes.len() - payload.., 0);
    plaintext.truncate(payload);
    Ok(plaintext)
}

/// Seals one version into a row of the newest epoch; it belongs under the lookup name that is given back with it.
pub(crate) fn seal_row(
    keys: &VaultKeys,
    place: &Place,
    record: &Opened,
    payload: &[u8],
) -> Result<(NameHmac, Vec<u8>, Entry), RecordError> {
    let (epoch, key) = keys.newest();
    let name = name_of(keys, place, &record.owner, &record.name);
    let version = record.meta.version;
    let aad = place.aad(epoch, name.as_bytes(), version);
    let sealed = seal_record(key, &aad, record.encode(payload)?.expose())?;
    let entry = Entry::new(&name, version, &RecordTag::parse(&sealed)?);
    let row = [&[ROW_V1], version.to_be_bytes().as_slice(), &sealed].concat();
    Ok((name, row, entry))
}

/// Seals an outbox line; `sequence` is its place.
pub(crate) fn seal_outbox(
    keys: &VaultKeys,
    place: &Place,
    sequence: u64,
    line: &[u8],
) -> Result<Vec<u8>, RecordError> {
    let (epoch, key) = keys.newest();
    seal_record(key, &place.aad(epoch, OUTBOX, sequence), line)
}

/// Opens an outbox line.
pub(crate) fn open_outbox(
    keys: &VaultKeys,
    place: &Place,
    sequence: u64,
    sealed: &[u8],
) -> Result<Secret, RowError> {
    let epoch = RecordTag::parse(sealed)?.epoch;
    let aad = place.aad(epoch, OUTBOX, sequence);
    Ok(open_record(key_of(keys, epoch)?, &aad, sealed)?)
}

/// Seals a head under the head key, which has no epochs.
pub(crate) fn seal_head(
    keys: &VaultKeys,
    place: &Place,
    head: &[u8],
) -> Result<Vec<u8>, RecordError> {
    seal_record(keys.head(), &place.aad([0; 16], HEAD, 0), head)
}

/// Opens a head.
pub(crate) fn open_head(
    keys: &VaultKeys,
    place: &Place,
    sealed: &[u8],
) -> Result<Secret, RowError> {
    let aad = place.aad([0; 16], HEAD, 0);
    Ok(open_record(keys.head(), &aad, sealed)?)
}

struct Kept {
    place: Place,
    epoch: Epoch,
    name: NameHmac,
    opened: Opened,
    sealed: Box<[u8]>,
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
        size_of::<Kept>() + self.0.sealed.len() + text.name.len() + text.owner.len() + hosts
    }

    /// Opens the payload under the vault's keys. Memory only.
    pub(crate) fn open(&self, keys: &VaultKeys) -> Result<Secret, RowError> {
        let kept = &*self.0;
        let version = kept.opened.meta.version;
        let aad = kept.place.aad(kept.epoch, kept.name.as_bytes(), version);
        let plaintext = open_record(key_of(keys, kept.epoch)?, &aad, &kept.sealed)?;
        Ok(payload_of(plaintext)?)
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
        let (_, payload) = Row::parse(row)?.open(keys, place, tag)?;
        Ok(payload.expose().to_vec())
    }

    #[test]
    fn a_row_opens_in_its_place_and_nowhere_else() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let (tag, row, entry) = seal_row(&keys, &place, &record("git", 3), b"hunter22").unwrap();
        assert_eq!(tag, name_of(&keys, &place, "alice", "git"));
        assert_eq!(open(&row, &keys, &place, &tag).unwrap(), b"hunter22");
        assert_eq!(Row::parse(&row).unwrap().entry(&tag), entry);
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
        let (tag, row, _) = seal_row(&keys, &place, &record("git", 3), b"hunter22").unwrap();
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
    fn what_a_row_holds_is_the_example_of_the_formats() {
        let record = Opened {
            owner: String::new(),
            name: "gitlab".into(),
            meta: Meta {
                version: 3,
                kind: "bearer".into(),
                expiry: 0,
                hosts: vec!["gitlab.example".into(), "10.0.0.7:8443".into()],
                created: 1_790_000_000,
            },
        };
        let plaintext = record.encode(b"glpat-example").unwrap();
        let digits: String = plaintext
            .expose()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let formats = include_str!("../../docs/FORMATS.md").replace('\n', "");
        assert!(formats.contains(&format!("```hex record-plaintext{digits}```")));
        let content = Content::parse(plaintext.expose()).unwrap();
        assert_eq!(content.payload, b"glpat-example");
        let opened = content.to_opened(3);
        assert_eq!((opened.owner, opened.name), (record.owner, record.name));
        assert_eq!(opened.meta, record.meta);
    }

    #[test]
    fn a_plaintext_that_is_cut_inside_its_meta_is_refused() {
        let plaintext = record("git", 1).encode(b"").unwrap();
        let plaintext = plaintext.expose();
        assert!(Content::parse(plaintext).is_ok());
        for len in 0..plaintext.len() {
            assert!(Content::parse(&plaintext[..len]).is_err(), "{len}");
        }
        let mut longer = plaintext.to_vec();
        longer[3] += 1;
        longer.push(0);
        assert!(Content::parse(&longer).is_err(), "more than the hosts");
    }

    #[test]
    fn a_record_takes_what_it_may_and_not_a_byte_more() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let record = record("git", 1);
        let Opened { owner, name, meta } = &record;
        let payload = vec![7; Opened::room(owner, name, &meta.kind, &meta.hosts)];
        let (tag, row, _) = seal_row(&keys, &place, &record, &payload).unwrap();
        assert!(open(&row, &keys, &place, &tag).unwrap() == payload);
        let longer = [payload, vec![7]].concat();
        assert!(seal_row(&keys, &place, &record, &longer).is_err());
    }

    #[test]
    fn a_row_shows_no_name() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let record = record("gitlab-token", 1);
        let (_, row, _) = seal_row(&keys, &place, &record, b"hunter22").unwrap();
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
        let as_head = place.aad(keys.newest().0, HEAD, 7);
        assert!(open_record(keys.newest().1, &as_head, &row).is_err());
    }

    #[test]
    fn a_kept_record_opens_in_memory() {
        let (keys, place) = (VaultKeys::random().unwrap(), place());
        let (tag, row, _) = seal_row(&keys, &place, &record("git", 3), b"hunter22").unwrap();
        let row = Row::parse(&row).unwrap();
        let (opened, _) = row.open(&keys, &place, &tag).unwrap();
        let kept = row.keep(&place, tag, opened);
        assert_eq!(kept.open(&keys).unwrap().expose(), b"hunter22");
        assert_eq!((kept.name(), kept.owner()), ("git", Some("alice")));
        assert!(kept.open(&VaultKeys::random().unwrap()).is_err());
    }
}
