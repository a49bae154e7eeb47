use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fixtures::key;
use crate::vectors::{BUCKETS_ROOT_HEX, EMPTY_ROOT_HEX, NAME_HMAC_HEX};

fn name(bucket: u16, tail: u8) -> NameHmac {
    let mut bytes = [tail; 32];
    bytes[..2].copy_from_slice(&(bucket << 4).to_be_bytes());
    NameHmac::from_bytes(bytes)
}

fn entry(name: &NameHmac, version: u64, byte: u8) -> Entry {
    Entry::new(
        name,
        version,
        &RecordTag {
            epoch: [0; 16],
            commitment: [byte; 32],
            tag: [byte; 16],
        },
    )
}

/// The root by the definition, from nothing.
fn naive_root(head_key: &Key, vault: &str, entries: &BTreeMap<[u8; 16], Entry>) -> [u8; 32] {
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, head_key.expose());
    let mut level: Vec<[u8; 32]> = (0..BUCKETS)
        .map(|number| {
            let mut message = b"mcpist-bucket-v1\0".to_vec();
            message.extend(u32::try_from(vault.len()).unwrap().to_be_bytes());
            message.extend(vault.as_bytes());
            message.extend(u16::try_from(number).unwrap().to_be_bytes());
            let header = message.len();
            for (name, entry) in entries {
                if usize::from(name[0]) << 4 | usize::from(name[1] >> 4) == number {
                    message.extend(entry.0);
                }
            }
            if message.len() == header {
                [0; 32]
            } else {
                hmac::sign(&hmac_key, &message).as_ref().try_into().unwrap()
            }
        })
        .collect();
    for number in 1..=3_u8 {
        level = level
            .chunks(16)
            .map(|children| {
                let mut message = b"mcpist-node-v1\0".to_vec();
                message.push(number);
                children.iter().for_each(|child| message.extend(child));
                let digest = ring::digest::digest(&ring::digest::SHA256, &message);
                digest.as_ref().try_into().unwrap()
            })
            .collect();
    }
    level[0]
}

#[test]
fn the_examples_in_hex() {
    let hmac = NameHmac::new(&key(6), "ops", "", "gitlab");
    assert_eq!(hex::encode(hmac.as_bytes()), NAME_HMAC_HEX);
    let mut buckets = Buckets::new("ops");
    assert_eq!(hex::encode(buckets.root(&key(5))), EMPTY_ROOT_HEX);
    assert_eq!(buckets.set(entry(&hmac, 3, 0x77)), None);
    assert_eq!(hex::encode(buckets.root(&key(5))), BUCKETS_ROOT_HEX);
    let expected = format!(
        "{}0000000000000003{}",
        &NAME_HMAC_HEX[..32],
        "77".repeat(32)
    );
    assert_eq!(
        format!("{:?}", buckets.get(&hmac).unwrap()),
        format!("Entry({expected})")
    );
}

#[test]
fn names_of_different_vaults_owners_and_names_differ() {
    let hmac = |vault, owner, name| NameHmac::new(&key(6), vault, owner, name);
    let all = [
        hmac("ab", "", "c"),
        hmac("a", "b", "c"),
        hmac("a", "", "bc"),
        hmac("ab", "c", ""),
        NameHmac::new(&key(7), "ab", "", "c"),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one));
    }
}

#[test]
fn a_failed_write_is_undone_by_what_set_and_remove_give_back() {
    let mut buckets = Buckets::new("ops");
    let (a, b) = (name(0, 1), name(0, 2));
    buckets.set(entry(&a, 1, 1));
    buckets.set(entry(&b, 1, 1));
    let root = buckets.root(&key(5));

    let old = buckets.set(entry(&a, 2, 9)).unwrap();
    assert_ne!(buckets.root(&key(5)), root);
    buckets.set(old);
    assert_eq!(buckets.root(&key(5)), root);

    let old = buckets.remove(&b).unwrap();
    assert_eq!(buckets.count(), 1);
    assert_ne!(buckets.root(&key(5)), root);
    buckets.set(old);
    assert_eq!((buckets.root(&key(5)), buckets.count()), (root, 2));
}

#[test]
fn a_row_put_back_is_seen() {
    let mut buckets = Buckets::new("ops");
    let a = name(7, 1);
    buckets.set(entry(&a, 1, 1));
    let old = buckets.root(&key(5));
    buckets.set(entry(&a, 2, 2));
    assert_ne!(buckets.root(&key(5)), old);
    assert_eq!(buckets.get(&a), Some(entry(&a, 2, 2)));
    assert_ne!(buckets.get(&a), Some(entry(&a, 1, 1)));
    assert_ne!(
        buckets.get(&a),
        Some(entry(&a, 2, 1)),
        "same version, other record"
    );
    assert_eq!(buckets.get(&a).unwrap().version(), 2);
}

#[test]
fn the_same_records_under_another_key_or_in_another_vault_have_another_root() {
    let root = |vault, head_key| {
        let mut buckets = Buckets::new(vault);
        buckets.set(entry(&name(7, 1), 1, 1));
        buckets.root(&key(head_key))
    };
    assert_eq!(root("ops", 5), root("ops", 5));
    assert_ne!(root("ops", 5), root("ops", 6));
    assert_ne!(root("ops", 5), root("lab", 5));
}

#[test]
fn two_rows_of_one_name_are_no_vault() {
    let rows = [
        entry(&name(1, 1), 1, 1),
        entry(&name(1, 2), 1, 1),
        entry(&name(1, 1), 2, 2),
    ];
    assert_eq!(Buckets::load("ops", rows[..2].to_vec()).unwrap().count(), 2);
    let error = Buckets::load("ops", rows.to_vec()).unwrap_err();
    assert_eq!(
        error,
        SameName {
            vault: "ops".to_owned()
        }
    );
}

#[test]
fn names_are_counted_between_two_others() {
    let names = [name(0, 1), name(0, 2), name(1, 0), name(4095, 7)];
    let mut buckets = Buckets::new("v");
    for name in &names {
        buckets.set(entry(name, 1, 0));
    }
    let bounds = std::iter::once(None).chain(names.iter().map(Some));
    for (first, after) in bounds.clone().enumerate() {
        for (last, through) in bounds.clone().enumerate() {
            let count = match through {
                None => names.len() - first,
                Some(_) => last.saturating_sub(first),
            };
            assert_eq!(buckets.count_between(after, through), count as u64);
        }
    }
}

#[test]
fn what_is_not_there_is_not_removed() {
    let mut buckets = Buckets::new("ops");
    assert_eq!(buckets.remove(&name(1, 1)), None);
    buckets.set(entry(&name(1, 1), 1, 1));
    assert_eq!(buckets.remove(&name(1, 2)), None);
    assert_eq!(buckets.get(&name(1, 2)), None);
    assert_eq!(buckets.count(), 1);
}

#[test]
fn only_what_changed_is_computed_again() {
    let mut buckets = Buckets::new("ops");
    for bucket in [0, 1, 4095] {
        buckets.set(entry(&name(bucket, 1), 1, 1));
    }
    buckets.root(&key(5));
    buckets.set(entry(&name(1, 1), 2, 2));
    let dirty = |buckets: &Buckets| -> Vec<(usize, u16)> {
        let groups = buckets.groups.iter().enumerate();
        groups
            .filter_map(|(at, g)| g.as_ref().map(|g| (at, g.dirty)))
            .collect()
    };
    assert_eq!(dirty(&buckets), [(0, 0b10), (255, 0)]);
    buckets.root(&key(5));
    assert_eq!(dirty(&buckets), [(0, 0), (255, 0)]);
}

#[test]
fn a_record_takes_at_most_64_bytes_and_an_empty_vault_12_kilobytes() {
    // One group of 16 buckets, each just past a power of two, where doubling would waste most.
    let mut buckets = Buckets::new("ops");
    let empty = buckets.memory();
    assert!(empty < 12 * 1024, "{empty}");
    let mut count = 0;
    for bucket in 0..16 {
        for tail in 0..130 {
            buckets.set(entry(&name(bucket, tail), 1, 1));
            count += 1;
        }
    }
    let per_record = (buckets.memory() - empty).div_ceil(count);
    assert!(per_record <= 64, "{per_record}");
    // One that knew how many would come has the same root and takes no more.
    let mut expecting = Buckets::expecting("ops", 130 * BUCKETS as u64);
    for bucket in 0..16 {
        for tail in 0..130 {
            expecting.set(entry(&name(bucket, tail), 1, 1));
        }
    }
    assert_eq!(expecting.root(&key(5)), buckets.root(&key(5)));
    assert!(expecting.memory() <= buckets.memory() + 16 * GROWTH * ENTRY_LEN);
    // A count that is out of all reason takes no memory by itself.
    assert!(Buckets::expecting("ops", u64::MAX).memory() < 12 * 1024);
    // What is removed is given back, but for the room to grow.
    for bucket in 0..16 {
        for tail in 0..130 {
            buckets.remove(&name(bucket, tail)).unwrap();
        }
    }
    assert!(buckets.memory() - empty < 16 * 2 * GROWTH * ENTRY_LEN + 1024);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any order of changes, roots asked for in between, ends in the root by the definition.
    #[test]
    fn incremental_and_naive_roots_agree(
        changes in proptest::collection::vec(
            (prop_oneof![0..4_u16, 4090..4096_u16], 0..4_u8, 0..4_u64, any::<bool>()), 0..40,
        ),
    ) {
        let mut buckets = Buckets::new("ops");
        let mut model = BTreeMap::new();
        for (bucket, tail, version, ask) in changes {
            let name = name(bucket, tail);
            let half = name.as_bytes()[..16].try_into().unwrap();
            if version == 0 {
                prop_assert_eq!(buckets.remove(&name), model.remove(&half));
            } else {
                let entry = entry(&name, version, tail);
                prop_assert_eq!(buckets.set(entry), model.insert(half, entry));
            }
            prop_assert_eq!(buckets.get(&name), model.get(&half).copied());
            if ask {
                buckets.root(&key(5));
            }
        }
        prop_assert_eq!(buckets.count(), model.len() as u64);
        prop_assert_eq!(buckets.root(&key(5)), naive_root(&key(5), "ops", &model));
        let mut again = Buckets::load("ops", model.values().rev().copied()).unwrap();
        prop_assert_eq!(again.count(), buckets.count());
        prop_assert_eq!(again.root(&key(5)), buckets.root(&key(5)));
    }
}
