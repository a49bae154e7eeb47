//! No I/O. The small values that name a store, a sharing and its threshold.
//!
//! Owns: [`StoreId`], [`SetId`], [`Generation`], [`Threshold`], and the digests that name a share,
//! a plan and a seal config. None of them is secret.
//!
//! Promises: a [`Threshold`] that exists is one that may be used; digests compare in constant time.
//! Does not: say which ids belong together; the seal config does.

use mcpist_secret::{MemoryError, random_bytes};
use subtle::ConstantTimeEq;

/// The most shares that one secret is split into.
pub const MAX_SHARES: u8 = 16;

/// Text that is not the hexadecimal form of an id or digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits for a {name}, got {found} characters")]
pub struct HexError {
    name: &'static str,
    expected: usize,
    found: usize,
}

macro_rules! named_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl PartialEq for $name {
            /// In constant time.
            fn eq(&self, other: &Self) -> bool {
                bool::from(self.0.ct_eq(&other.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = HexError;

            /// Reads hexadecimal digits; hyphens between them are ignored.
            fn from_str(text: &str) -> Result<Self, HexError> {
                let error = HexError {
                    name: stringify!($name),
                    expected: 2 * $len,
                    found: text.len(),
                };
                let digits: String = text.chars().filter(|c| *c != '-').take(2 * $len + 1).collect();
                let mut bytes = [0; $len];
                hex::decode_to_slice(&digits, &mut bytes).map_err(|_| error)?;
                Ok(Self(bytes))
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, $len:literal, hex) => {
        named_bytes!($(#[$doc])* $name, $len);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
    };
}

named_bytes!(
    /// Names a store for its whole life: a version 4 UUID (RFC 9562, section 5.4).
    StoreId,
    16
);
named_bytes!(
    /// Names one lineage of sharings: made at init, kept by every rekey of the same store.
    SetId,
    16,
    hex
);
named_bytes!(
    /// Names a share without revealing it: SHA-256(domain ‖ set ‖ generation ‖ x ‖ value).
    ShareDigest,
    32,
    hex
);
named_bytes!(
    /// Names a plan: SHA-256(domain ‖ the plan's canonical bytes).
    PlanDigest,
    32,
    hex
);
named_bytes!(
    /// Names a seal config: SHA-256(domain ‖ its canonical bytes).
    ConfigDigest,
    32,
    hex
);

impl StoreId {
    /// A fresh id.
    pub fn random() -> Result<StoreId, MemoryError> {
        let mut bytes: [u8; 16] = random_bytes()?;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Ok(StoreId(bytes))
    }
}

impl std::fmt::Display for StoreId {
    /// The usual form with hyphens, 36 characters.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = hex::encode(self.0);
        let (a, rest) = digits.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl SetId {
    /// A fresh id.
    pub fn random() -> Result<SetId, MemoryError> {
        random_bytes().map(SetId)
    }
}

/// Counts the sharings of a set: 1 at init, one more with every rekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u32);

impl Generation {
    /// The sharing that init makes.
    pub const FIRST: Generation = Generation(1);

    /// Any number from 1 on; 0 names no sharing.
    pub const fn new(number: u32) -> Option<Generation> {
        if number == 0 {
            None
        } else {
            Some(Generation(number))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next sharing, or nothing after the last number.
    pub const fn next(self) -> Option<Generation> {
        match self.0.checked_add(1) {
            Some(number) => Some(Generation(number)),
            None => None,
        }
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A threshold that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} of {total} is no usable quorum: take {least} to {total} of at most {MAX_SHARES}")]
pub struct ThresholdError {
    needed: u8,
    total: u8,
    least: u8,
}

/// How many shares are needed, of how many: 2 ≤ needed ≤ total ≤ 16 (1 ≤ needed in dev).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    needed: u8,
    total: u8,
}

impl Threshold {
    /// A quorum that no single holder is.
    pub const fn new(needed: u8, total: u8) -> Result<Threshold, ThresholdError> {
        Threshold::at_least(2, needed, total)
    }

    /// Like [`Threshold::new`], and one holder may be enough: for dev stores only. A
    /// [`crate::SealConfig`] that is not dev refuses such a threshold.
    pub const fn dev(needed: u8, total: u8) -> Result<Threshold, ThresholdError> {
        Threshold::at_least(1, needed, total)
    }

    const fn at_least(least: u8, needed: u8, total: u8) -> Result<Threshold, ThresholdError> {
        if needed < least || needed > total || total > MAX_SHARES {
            return Err(ThresholdError {
                needed,
                total,
                least,
            });
        }
        Ok(Threshold { needed, total })
    }

    /// How many shares are needed.
    pub const fn needed(self) -> u8 {
        self.needed
    }

    /// How many shares there are.
    pub const fn total(self) -> u8 {
        self.total
    }

    /// Whether one holder alone is enough.
    pub const fn is_dev_only(self) -> bool {
        self.needed == 1
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.needed, self.total)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_outside_the_limits_do_not_exist() {
        for (needed, total) in [
            (0, 0),
            (0, 5),
            (1, 1),
            (1, 5),
            (4, 3),
            (2, 1),
            (2, 17),
            (17, 17),
        ] {
            assert!(
                Threshold::new(needed, total).is_err(),
                "{needed} of {total}"
            );
        }
        for (needed, total) in [(0, 1), (2, 1), (1, 17)] {
            assert!(
                Threshold::dev(needed, total).is_err(),
                "{needed} of {total}"
            );
        }
        for (needed, total) in [(2, 2), (3, 5), (16, 16)] {
            assert_eq!(
                Threshold::new(needed, total).unwrap().to_string(),
                format!("{needed} of {total}")
            );
        }
        assert!(Threshold::dev(1, 1).unwrap().is_dev_only());
    }

    #[test]
    fn a_store_id_is_a_version_4_uuid_and_reads_back() {
        let id = StoreId::random().unwrap();
        let text = id.to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&text.as_bytes()[19]));
        assert_eq!(text.parse::<StoreId>().unwrap(), id);
        assert_ne!(StoreId::random().unwrap(), id);
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in [
            "",
            "00",
            "zz",
            &"0".repeat(31),
            &"0".repeat(33),
            &"é".repeat(16),
        ] {
            assert!(text.parse::<SetId>().is_err(), "{text}");
        }
        assert_eq!(
            "0".repeat(32).parse::<SetId>().unwrap(),
            SetId::from_bytes([0; 16])
        );
    }

    #[test]
    fn generations_begin_at_one_and_end() {
        assert_eq!(Generation::new(0), None);
        assert_eq!(Generation::FIRST.next(), Generation::new(2));
        assert_eq!(Generation::new(u32::MAX).unwrap().next(), None);
    }
}
