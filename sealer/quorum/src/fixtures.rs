//! Fixed values that the tests of several modules share; compiled for tests only.

use mcpist_secret::{Key, MemoryError};

use crate::config::{OfficerKey, SealConfig, SealConfigParts};
use crate::ids::{Generation, SetId, StoreId, Threshold};
use crate::share::Share;
use crate::sharing::{Holder, Sharing};
use crate::split::split;

/// A key of 32 equal bytes.
pub(crate) fn key(byte: u8) -> Key {
    key_of(&[byte; 32])
}

pub(crate) fn key_of(bytes: &[u8; 32]) -> Key {
    Key::fill(|out| {
        out.copy_from_slice(bytes);
        Ok::<(), MemoryError>(())
    })
    .unwrap()
}

pub(crate) fn set() -> SetId {
    SetId::from_bytes([0x22; 16])
}

pub(crate) fn store() -> StoreId {
    StoreId::from_bytes(*b"\x11\x11\x11\x11\x11\x11\x41\x11\x91\x11\x11\x11\x11\x11\x11\x11")
}

pub(crate) fn three_of_five() -> Threshold {
    Threshold::new(3, 5).unwrap()
}

/// The share of the vectors: number 2 of three of five.
pub(crate) fn share() -> Share {
    let mut value = [0; 32];
    (0..).zip(&mut value).for_each(|(at, slot)| *slot = at);
    Share::new(set(), Generation::FIRST, 2, three_of_five(), key_of(&value))
}

pub(crate) fn officers() -> Vec<OfficerKey> {
    vec![
        OfficerKey {
            name: "Olga".to_owned(),
            public: [0x0a; 32],
        },
        OfficerKey {
            name: "Omar".to_owned(),
            public: [0x0b; 32],
        },
    ]
}

/// A config whose holders have these shares, in order.
pub(crate) fn parts(threshold: Threshold, shares: &[Share]) -> SealConfigParts {
    SealConfigParts {
        store: store(),
        sharing: Sharing {
            set: set(),
            generation: shares[0].generation(),
            threshold,
            holders: shares
                .iter()
                .map(|share| Holder {
                    label: format!("holder-{}", share.index()),
                    recipient: format!("age1recipient{}", share.index()),
                    digest: share.digest(),
                })
                .collect(),
        },
        root_digest: [0x33; 32],
        officers: officers(),
        dev: false,
        created: 1_790_000_000,
    }
}

/// Fresh shares of one secret, and the config that knows them.
pub(crate) fn sharing(secret: u8, generation: u32) -> (SealConfig, Vec<Share>) {
    let generation = Generation::new(generation).unwrap();
    let shares = split(&key(secret), three_of_five(), set(), generation).unwrap();
    (
        SealConfig::new(parts(three_of_five(), &shares)).unwrap(),
        shares,
    )
}

/// The same share once more; only tests may do that.
pub(crate) fn again(share: &Share) -> Share {
    Share::parse(share.to_text().unwrap().expose()).unwrap()
}
