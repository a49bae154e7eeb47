//! The forms of all secrets of a redactor, and the bitmap that is probed at every byte.
//!
//! Promises: a window of an anchor is always marked; another is marked with a chance of less than
//! 1 in 50 up to 10,000 forms, and then told apart by 32 bits of hash.

use std::sync::Arc;

use super::fingerprint::{Fingerprint, Mac, RedactKey, WINDOW};

/// The bitmap has 2 to this power bits for each place, while it is not at its limits.
const SPARSE_BITS: u32 = 7;
const MIN_BITS: u32 = 14;
const MAX_BITS: u32 = 20;
/// Upper bits of a hash by which places are found.
const LEAD_BITS: u32 = 10;

/// One window of a form's anchor. The order puts those with one hash, then those of one shape,
/// side by side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    hash: u32,
    /// Where the window starts in the form, in bytes.
    pub(super) offset: usize,
    /// Length of the form in bytes.
    pub(super) len: usize,
    pub(super) mac: Mac,
}

/// Anchors by hash.
pub(super) struct Table {
    key: Arc<RedactKey>,
    multiplier: u64,
    /// One bit for each value of the hash's upper bits.
    bitmap: Vec<u64>,
    shift: u32,
    /// By hash.
    places: Vec<Place>,
    /// Where in `places` each value of the hash's [`Table::lead`] starts.
    starts: Vec<u32>,
    kinds: u8,
    before: usize,
    after: usize,
}

impl Table {
    pub(super) fn new<'f>(
        key: Arc<RedactKey>,
        fingerprints: impl IntoIterator<Item = &'f Fingerprint>,
    ) -> Table {
        let (mut places, mut kinds) = (Vec::new(), 0);
        for fingerprint in fingerprints {
            kinds |= fingerprint.kinds();
            for form in fingerprint.forms() {
                for (second, hash) in form.hashes.into_iter().enumerate() {
                    let offset = form.offset as usize + second;
                    let (len, mac) = (form.len as usize, form.mac);
                    places.push(Place {
                        hash,
                        offset,
                        len,
                        mac,
                    });
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        let order = places.len().next_power_of_two().trailing_zeros();
        let shift = u64::BITS - (order + SPARSE_BITS).clamp(MIN_BITS, MAX_BITS);
        let mut bitmap = vec![0u64; 1 << (u64::BITS - shift - 6)];
        for place in &places {
            let slot = place.hash >> (shift - u32::BITS);
            bitmap[(slot >> 6) as usize] |= 1 << (slot & 63);
        }
        let starts = (0..=1 << LEAD_BITS)
            .map(|lead| places.partition_point(|place| Self::lead(place.hash) < lead) as u32)
            .collect();
        let before = places
            .iter()
            .map(|place| place.offset + WINDOW)
            .max()
            .unwrap_or(0);
        let after = places
            .iter()
            .map(|place| place.len - place.offset)
            .max()
            .unwrap_or(0);
        let multiplier = key.multiplier();
        Table {
            key,
            multiplier,
            bitmap,
            shift,
            places,
            starts,
            kinds,
            before,
            after,
        }
    }

    pub(super) fn key(&self) -> &RedactKey {
        &self.key
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Number of distinct forms.
    pub(super) fn forms(&self) -> usize {
        self.places.len() / 2
    }

    /// The most decoded bytes from a form's start to the end of a window of its anchor.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    /// The most decoded bytes from the start of an anchor's window to the end of its form.
    pub(super) fn after(&self) -> usize {
        self.after
    }

    /// Whether a byte of this kind may be in a form.
    #[inline]
    pub(super) fn has_kind(&self, kind: u8) -> bool {
        self.kinds & kind != 0
    }

    /// Not 0 in its lowest bit where the window may be one of an anchor.
    #[inline(always)]
    pub(super) fn marked(&self, window: u64) -> u64 {
        let slot = window.wrapping_mul(self.multiplier) >> self.shift;
        self.bitmap[(slot >> 6) as usize] >> (slot & 63)
    }

    /// The places that have this window's hash.
    pub(super) fn places(&self, window: u64) -> &[Place] {
        let hash = self.key.hash(window);
        let lead = Self::lead(hash);
        let near = &self.places[self.starts[lead] as usize..self.starts[lead + 1] as usize];
        let rest = &near[near.partition_point(|place| place.hash < hash)..];
        &rest[..rest.partition_point(|place| place.hash == hash)]
    }

    fn lead(hash: u32) -> usize {
        (hash >> (u32::BITS - LEAD_BITS)) as usize
    }
}
