//! The forms of all secrets of a redactor, and the bitmap that is probed at every byte.
//!
//! Promises: a window that is an anchor is always marked; another is marked with a chance of at
//! most 1 in 100 up to some 10,000 forms, and then told apart by 32 bits of hash.

use std::sync::Arc;

use super::fingerprint::{ANCHOR, Fingerprint, Form, RedactKey};

/// Bits in the bitmap for each form, before rounding.
const BITS_PER_FORM: usize = 256;
const MIN_BITS: u32 = 14;
const MAX_BITS: u32 = 20;

/// Anchors by hash.
pub(super) struct Table {
    key: Arc<RedactKey>,
    /// One bit for each value of the hash's upper bits.
    bitmap: Vec<u64>,
    shift: u32,
    forms: Vec<Form>,
    before: usize,
    after: usize,
}

impl Table {
    pub(super) fn new<'f>(
        key: Arc<RedactKey>,
        fingerprints: impl IntoIterator<Item = &'f Fingerprint>,
    ) -> Table {
        let mut forms: Vec<Form> = fingerprints
            .into_iter()
            .flat_map(Fingerprint::forms)
            .copied()
            .collect();
        forms.sort_unstable();
        forms.dedup();
        let wanted = (forms.len() * BITS_PER_FORM)
            .next_power_of_two()
            .trailing_zeros();
        let bits = wanted.clamp(MIN_BITS, MAX_BITS);
        let shift = u32::BITS - bits;
        let mut bitmap = vec![0u64; 1 << (bits - 6)];
        for form in &forms {
            let slot = form.hash >> shift;
            bitmap[(slot >> 6) as usize] |= 1 << (slot & 63);
        }
        let before = forms
            .iter()
            .map(|form| form.offset as usize + ANCHOR)
            .max()
            .unwrap_or(0);
        let after = forms
            .iter()
            .map(|form| (form.len - form.offset) as usize)
            .max()
            .unwrap_or(0);
        Table {
            key,
            bitmap,
            shift,
            forms,
            before,
            after,
        }
    }

    pub(super) fn key(&self) -> &RedactKey {
        &self.key
    }

    /// Number of distinct forms.
    pub(super) fn len(&self) -> usize {
        self.forms.len()
    }

    /// The most decoded bytes from a form's start to the end of its anchor.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    /// The most decoded bytes from an anchor's start to the end of its form.
    pub(super) fn after(&self) -> usize {
        self.after
    }

    /// 1 where the window may be an anchor, else 0.
    #[inline(always)]
    pub(super) fn marked(&self, window: u64) -> u64 {
        let slot = self.key.hash(window) >> self.shift;
        self.bitmap[(slot >> 6) as usize] >> (slot & 63) & 1
    }

    /// The forms that have this window's hash at their anchor.
    pub(super) fn forms(&self, window: u64) -> &[Form] {
        let hash = self.key.hash(window);
        let start = self.forms.partition_point(|form| form.hash < hash);
        let rest = &self.forms[start..];
        &rest[..rest.partition_point(|form| form.hash == hash)]
    }
}
