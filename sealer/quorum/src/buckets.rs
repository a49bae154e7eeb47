//! No I/O. The records of one vault in memory: an index that later loads are compared with, and the
//! Merkle root that the head carries.
//!
//! # What the root is
//! A record is the 56-byte entry `name HMAC[0..16] | version u64 | commitment[0..16] | tag [16]`.
//! Bucket `b` of 4,096 holds the entries whose name HMAC begins with the 12 bits of `b`, sorted.
//! ```text
//! bucket b   = 32 zero bytes if empty, else
//!              HMAC-SHA-256(head key, "mcpist-bucket-v1" ‖ 0 ‖ len(vault) u32 ‖ vault ‖ b u16 ‖ entries)
//! node l, i  = SHA-256("mcpist-node-v1" ‖ 0 ‖ level u8 ‖ 16 children)      256, then 16, then 1
//! root       = node of level 3
//! ```
//! # Threat model
//! Whoever writes the vault's file can put any row, or any set of rows, back to an earlier state. The
//! head key is a secret sub-key, so they cannot make a bucket's value; the head that carries the root
//! is sealed besides. The entry compares what a record's key derivation is committed to (128 bits of
//! the commitment, and the tag), so no other record passes for it.
//!
//! # Costs
//! 56 bytes a record, at most 64 with the room for growth once a bucket holds 100; an empty vault
//! takes 11 KB. A change recomputes its own bucket and three nodes, when the root is asked for.
//! The key is lent per call: nothing here is secret, and sealing has nothing to wipe.

use mcpist_secret::Key;
use ring::hmac;

use crate::codec::{Writer, digest};
use crate::record::RecordTag;

/// Into how many buckets a vault's records fall.
pub const BUCKETS: usize = 4096;

const FANOUT: usize = 16;
const GROUPS: usize = BUCKETS / FANOUT;
/// A bucket grows by this many entries at a time.
const GROWTH: usize = 8;
/// Whatever is expected, no bucket takes more memory than this before it is needed.
const MOST_ROOM: usize = 4096;
const EMPTY: [u8; 32] = [0; 32];

/// HMAC-SHA-256(name key, vault ‖ owner ‖ name): how a row is looked up without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameHmac([u8; 32]);

impl NameHmac {
    /// Each part behind its length as u32. An empty owner is the shared record.
    pub fn new(name_key: &Key, vault: &str, owner: &str, name: &str) -> NameHmac {
        let message = Writer::bare()
            .bytes(b"mcpist-name-v1")
            .bytes(vault.as_bytes())
            .bytes(owner.as_bytes())
            .bytes(name.as_bytes())
            .finish();
        let key = hmac::Key::new(hmac::HMAC_SHA256, name_key.expose());
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&key, &message).as_ref());
        NameHmac(out)
    }

    /// Takes the bytes of a row's column.
    pub const fn from_bytes(bytes: [u8; 32]) -> NameHmac {
        NameHmac(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Length of an entry, in a bucket's HMAC and in memory.
pub const ENTRY_LEN: usize = 16 + 8 + 16 + 16;

/// What is kept of one record: its 56 bytes, in the order of the module's layout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry([u8; ENTRY_LEN]);

impl Entry {
    /// Trims a record's clear parts to what is kept.
    pub fn new(name: &NameHmac, version: u64, record: &RecordTag) -> Entry {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..16].copy_from_slice(&name.0[..16]);
        bytes[16..24].copy_from_slice(&version.to_be_bytes());
        bytes[24..40].copy_from_slice(&record.commitment[..16]);
        bytes[40..].copy_from_slice(&record.tag);
        Entry(bytes)
    }

    /// The record's version.
    pub fn version(&self) -> u64 {
        let mut version = [0; 8];
        version.copy_from_slice(&self.0[16..24]);
        u64::from_be_bytes(version)
    }

    fn name(&self) -> &[u8] {
        &self.0[..16]
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({})", hex::encode(self.0))
    }
}

/// The bucket of a name HMAC, whole or trimmed.
fn bucket_of(name: &[u8]) -> usize {
    usize::from(name[0]) << 4 | usize::from(name[1] >> 4)
}

/// The 16 bytes that an entry or a name HMAC begins with, as a number.
fn number_of(bytes: &[u8]) -> u128 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// Where the entry of a name stands in its bucket, or belongs. Names are spread evenly, so it is near to where its share of
/// the bucket says: neighbours are looked at, where halving would fetch a line from memory at each step.
fn find(entries: &[[u8; ENTRY_LEN]], name: &[u8]) -> Result<usize, usize> {
    let name = number_of(name);
    if entries.last().is_none_or(|last| number_of(last) < name) {
        return Err(entries.len());
    }
    let is_below = |at: usize| number_of(&entries[at]) < name;
    // 32 bits behind the 12 that all of the bucket have.
    let share = (name >> 84) as u32;
    let mut at = ((u64::from(share) * entries.len() as u64) >> 32) as usize;
    while at > 0 && !is_below(at - 1) {
        at -= 1;
    }
    while is_below(at) {
        at += 1;
    }
    if number_of(&entries[at]) == name {
        Ok(at)
    } else {
        Err(at)
    }
}

/// Two of a vault's rows have one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two rows of vault `{vault}` have the same name HMAC: restore the vault from a backup")]
pub struct SameName {
    /// The vault.
    pub vault: String,
}

/// Sixteen neighbouring buckets and their values.
struct Group {
    /// Sorted by name HMAC.
    entries: [Vec<[u8; ENTRY_LEN]>; FANOUT],
    values: [[u8; 32]; FANOUT],
    /// Bit b: bucket b changed since its value was computed.
    dirty: u16,
}

impl Group {
    fn new() -> Group {
        Group {
            entries: Default::default(),
            values: [EMPTY; FANOUT],
            dirty: 0,
        }
    }
}

/// The index and the tree of one vault.
pub struct Buckets {
    vault: String,
    groups: Vec<Option<Box<Group>>>,
    level1: Vec<[u8; 32]>,
    level2: Vec<[u8; 32]>,
    root: [u8; 32],
    count: u64,
    /// How many entries a bucket first has room for.
    room: usize,
    dirty: bool,
}

impl Buckets {
    /// An empty vault.
    pub fn new(vault: &str) -> Buckets {
        let empty1 = node(1, &[EMPTY; FANOUT]);
        let empty2 = node(2, &[empty1; FANOUT]);
        Buckets {
            vault: vault.to_owned(),
            groups: (0..GROUPS).map(|_| None).collect(),
            level1: vec![empty1; GROUPS],
            level2: vec![empty2; GROUPS / FANOUT],
            root: node(3, &[empty2; FANOUT]),
            count: 0,
            room: GROWTH,
            dirty: false,
        }
    }

    /// An empty vault that is about to hold `count` records: most buckets get their final size at once.
    pub fn expecting(vault: &str, count: u64) -> Buckets {
        let each = usize::try_from(count).unwrap_or(usize::MAX) / BUCKETS;
        Buckets {
            room: each.saturating_add(GROWTH).min(MOST_ROOM),
            ..Buckets::new(vault)
        }
    }

    /// A vault with the records that were read from disk, in any order: faster than one by one.
    pub fn load(
        vault: &str,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Buckets, SameName> {
        let mut buckets = Buckets::new(vault);
        for entry in entries {
            let bucket = bucket_of(entry.name());
            let group =
                buckets.groups[bucket / FANOUT].get_or_insert_with(|| Box::new(Group::new()));
            group.entries[bucket % FANOUT].push(entry.0);
            group.dirty |= 1 << (bucket % FANOUT);
            buckets.dirty = true;
            buckets.count += 1;
        }
        for entries in buckets
            .groups
            .iter_mut()
            .flatten()
            .flat_map(|g| &mut g.entries)
        {
            entries.sort_unstable();
            entries.shrink_to(entries.len() + GROWTH);
            if entries
                .windows(2)
                .any(|pair| pair[0][..16] == pair[1][..16])
            {
                return Err(SameName {
                    vault: vault.to_owned(),
                });
            }
        }
        Ok(buckets)
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is kept of the record `name`.
    pub fn get(&self, name: &NameHmac) -> Option<Entry> {
        let bucket = bucket_of(&name.0);
        let entries = &self.groups[bucket / FANOUT].as_ref()?.entries[bucket % FANOUT];
        find(entries, &name.0).ok().map(|at| Entry(entries[at]))
    }

    /// How many records have a name after `after` and up to `through`, in the order of names; without them, from the
    /// first and to the last.
    pub fn count_between(&self, after: Option<&NameHmac>, through: Option<&NameHmac>) -> u64 {
        let first = after.map_or(0, |name| bucket_of(&name.0));
        let last = through.map_or(BUCKETS - 1, |name| bucket_of(&name.0));
        let is_between = |entry: &&[u8; ENTRY_LEN]| {
            after.is_none_or(|after| entry[..16] > after.0[..16])
                && through.is_none_or(|through| entry[..16] <= through.0[..16])
        };
        let group = |at: usize| self.groups[at / FANOUT].as_ref();
        (first..=last)
            .filter_map(|at| Some(&group(at)?.entries[at % FANOUT]))
            .map(|entries| entries.iter().filter(is_between).count() as u64)
            .sum()
    }

    /// Adds a record or replaces the one of the same name, and gives back the entry that was there:
    /// a caller whose transaction fails puts it back.
    pub fn set(&mut self, entry: Entry) -> Option<Entry> {
        let bucket = bucket_of(entry.name());
        let group = self.groups[bucket / FANOUT].get_or_insert_with(|| Box::new(Group::new()));
        let entries = &mut group.entries[bucket % FANOUT];
        group.dirty |= 1 << (bucket % FANOUT);
        self.dirty = true;
        match find(entries, entry.name()) {
            Ok(at) => Some(Entry(std::mem::replace(&mut entries[at], entry.0))),
            Err(at) => {
                if entries.len() == entries.capacity() {
                    let empty = entries.is_empty();
                    entries.reserve_exact(if empty { self.room } else { GROWTH });
                }
                entries.insert(at, entry.0);
                self.count += 1;
                None
            }
        }
    }

    /// Removes the record `name`, and gives back its entry.
    pub fn remove(&mut self, name: &NameHmac) -> Option<Entry> {
        let bucket = bucket_of(&name.0);
        let group = self.groups[bucket / FANOUT].as_mut()?;
        let entries = &mut group.entries[bucket % FANOUT];
        let at = find(entries, &name.0).ok()?;
        let removed = Entry(entries.remove(at));
        if entries.capacity() - entries.len() >= 2 * GROWTH {
            entries.shrink_to(entries.len() + GROWTH);
        }
        group.dirty |= 1 << (bucket % FANOUT);
        self.dirty = true;
        self.count -= 1;
        Some(removed)
    }

    /// The Merkle root over all records. Recomputes only what changed since the last call, under
    /// `head_key`; a vault has one head key, and another one must not be given without a rebuild.
    pub fn root(&mut self, head_key: &Key) -> [u8; 32] {
        if self.dirty {
            let key = hmac::Key::new(hmac::HMAC_SHA256, head_key.expose());
            let mut touched = [false; GROUPS / FANOUT];
            for at in 0..GROUPS {
                if self.refresh_group(&key, at) {
                    touched[at / FANOUT] = true;
                }
            }
            for (at, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
                self.level2[at] = node(2, &self.level1[at * FANOUT..(at + 1) * FANOUT]);
            }
            self.root = node(3, &self.level2);
            self.dirty = false;
        }
        self.root
    }

    /// Bytes of memory that the index and the tree take.
    pub fn memory(&self) -> usize {
        let groups = self.groups.iter().flatten().map(|group| {
            size_of::<Group>()
                + group
                    .entries
                    .iter()
                    .map(|e| e.capacity() * ENTRY_LEN)
                    .sum::<usize>()
        });
        size_of::<Buckets>()
            + self.vault.capacity()
            + self.groups.capacity() * size_of::<Option<Box<Group>>>()
            + (self.level1.capacity() + self.level2.capacity()) * 32
            + groups.sum::<usize>()
    }

    fn refresh_group(&mut self, key: &hmac::Key, at: usize) -> bool {
        let Some(group) = self.groups[at].as_mut().filter(|group| group.dirty != 0) else {
            return false;
        };
        for (slot, (entries, value)) in group.entries.iter().zip(&mut group.values).enumerate() {
            if group.dirty & (1 << slot) != 0 {
                *value = bucket_value(key, &self.vault, at * FANOUT + slot, entries);
            }
        }
        group.dirty = 0;
        self.level1[at] = node(1, &group.values);
        true
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets")
            .field("vault", &self.vault)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

fn bucket_value(
    key: &hmac::Key,
    vault: &str,
    number: usize,
    entries: &[[u8; ENTRY_LEN]],
) -> [u8; 32] {
    if entries.is_empty() {
        return EMPTY;
    }
    let mut mac = hmac::Context::with_key(key);
    mac.update(b"mcpist-bucket-v1\0");
    mac.update(&Writer::bare().bytes(vault.as_bytes()).finish());
    // A bucket's number is below 4,096.
    mac.update(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
    mac.update(entries.as_flattened());
    let mut out = [0; 32];
    out.copy_from_slice(mac.sign().as_ref());
    out
}

fn node(level: u8, children: &[[u8; 32]]) -> [u8; 32] {
    digest("mcpist-node-v1", &[&[level], children.as_flattened()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
