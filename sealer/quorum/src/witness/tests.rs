//! A receipt is one byte string, and a store is judged as its history says.

use proptest::prelude::*;

use super::*;
use crate::vectors::WITNESS_RECEIPT_HEX;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().unwrap()
}

fn store(byte: u8) -> StoreId {
    StoreId::from_bytes([byte; 16])
}

fn life(counter: u64, id: u8) -> Incarnation {
    Incarnation {
        counter,
        id: [id; 16],
        parent: [0; 16],
    }
}

fn point(incarnation: Incarnation, generation: u64, digest: u8) -> StorePoint {
    StorePoint {
        incarnation,
        generation,
        digest: [digest; 32],
    }
}

fn receipt(at: StorePoint, time: u64) -> Receipt {
    let log = LogPoint {
        sequence: 9,
        head: [6; 32],
    };
    Receipt::sign(store(1), at, log, time, &pair(7))
}

#[test]
fn a_receipt_reads_back_as_bytes_and_as_text() {
    let receipt = receipt(point(life(2, 3), 5, 4), 1_790_000_000);
    let bytes = receipt.to_bytes();
    assert_eq!(bytes.len(), RECEIPT_LEN);
    assert_eq!(Receipt::from_bytes(&bytes).unwrap(), receipt);
    let text = receipt.to_text();
    assert_eq!(text.len(), RECEIPT_TEXT_LEN);
    assert_eq!(Receipt::parse(&format!(" {text}\n")).unwrap(), receipt);
}

#[test]
fn the_example_in_hex_is_what_is_signed() {
    let at = StorePoint {
        incarnation: Incarnation {
            counter: 2,
            id: [1; 16],
            parent: [2; 16],
        },
        generation: 3,
        digest: [5; 32],
    };
    let log = LogPoint {
        sequence: 9,
        head: [6; 32],
    };
    let store: StoreId = "11111111-1111-4111-9111-111111111111".parse().unwrap();
    let receipt = Receipt::sign(store, at, log, 1_790_000_000, &pair(7));
    assert_eq!(hex::encode(receipt.to_bytes()), WITNESS_RECEIPT_HEX);
}

#[test]
fn each_malformed_text_is_named() {
    let text = receipt(point(life(1, 3), 5, 4), 0).to_text();
    let other = format!("mcpist-witness2:{}", &text[PREFIX.len()..]);
    let digit = format!("{}g", &text[..text.len() - 1]);
    for bad in ["", "mcpist-witness1:", &text[1..], &other, &digit] {
        assert_eq!(Receipt::parse(bad), Err(ReceiptError::Text), "{bad}");
    }
    assert_eq!(
        Receipt::parse(&"é".repeat(RECEIPT_TEXT_LEN / 2)),
        Err(ReceiptError::Text)
    );
    let longer = format!("{text}00");
    assert_eq!(Receipt::parse(&longer), Err(ReceiptError::Text));
}

#[test]
fn a_receipt_that_is_cut_or_longer_is_none() {
    let bytes = receipt(point(life(1, 3), 5, 4), 0).to_bytes();
    for len in 0..bytes.len() {
        let cut = Receipt::from_bytes(&bytes[..len]);
        assert!(matches!(cut, Err(ReceiptError::Format(_))), "{len}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    let refused = Receipt::from_bytes(&longer);
    assert!(matches!(refused, Err(ReceiptError::Format(_))));
}

#[test]
fn a_store_that_agrees_is_told_the_newest_receipt() {
    let at = point(life(2, 3), 8, 4);
    let receipts = [
        receipt(point(life(2, 3), 5, 1), 10),
        receipt(at, 12),
        receipt(point(life(2, 3), 7, 2), 11),
    ];
    let judged = judge(store(1), &public(&pair(7)), &at, &receipts);
    assert_eq!(judged.refused, None);
    assert_eq!(judged.newest, Some(&receipts[1]));
    assert!(judged.ignored.is_empty());
}

#[test]
fn each_contradiction_is_named_and_the_gravest_is_told() {
    let at = point(life(2, 3), 8, 4);
    let key = public(&pair(7));
    let forked = receipt(point(life(2, 3), 8, 5), 1);
    let rolled = receipt(point(life(2, 3), 9, 4), 2);
    let further = receipt(point(life(2, 3), 11, 4), 3);
    let twin = receipt(point(life(2, 9), 1, 4), 4);
    let fenced = receipt(point(life(3, 9), 1, 4), 5);
    let refused = |receipts: &[&Receipt]| {
        let judged = judge(store(1), &key, &at, receipts.iter().copied());
        judged.refused.map(|(why, by)| (why, by.time()))
    };
    assert_eq!(refused(&[&forked]), Some((Contradiction::Forked, 1)));
    assert_eq!(refused(&[&rolled]), Some((Contradiction::RolledBack, 2)));
    assert_eq!(refused(&[&twin]), Some((Contradiction::Fenced, 4)));
    assert_eq!(
        refused(&[&further, &forked, &rolled]),
        Some((Contradiction::RolledBack, 3))
    );
    assert_eq!(
        refused(&[&fenced, &twin, &further, &forked]),
        Some((Contradiction::Fenced, 5))
    );
}

#[test]
fn a_receipt_of_another_store_key_or_earlier_life_says_nothing() {
    let at = point(life(2, 3), 8, 4);
    let later = point(life(2, 3), 99, 4);
    let log = *receipt(later, 0).log();
    let receipts = [
        Receipt::sign(store(2), later, log, 0, &pair(7)),
        Receipt::sign(store(1), later, log, 0, &pair(8)),
        receipt(point(life(1, 2), 99, 4), 0),
    ];
    let judged = judge(store(1), &public(&pair(7)), &at, &receipts);
    assert_eq!((judged.refused, judged.newest), (None, None));
    let why: Vec<_> = judged.ignored.iter().map(|(why, _)| *why).collect();
    assert_eq!(
        why,
        [Ignored::OtherStore, Ignored::Forged, Ignored::EarlierLife]
    );
}

#[test]
fn what_fences_a_store_is_below_the_life_of_a_restore_that_knew_it() {
    let key = public(&pair(7));
    let refused = |own: Incarnation, shown: u64| {
        let receipt = receipt(point(life(shown, 9), 1, 4), 1);
        let judged = judge(store(1), &key, &point(own, 8, 4), [&receipt]);
        judged.refused.map(|(why, _)| why)
    };
    let parent = life(1, 3);
    for shown in [1, 2, 3, 1 << 32, (1 << 32) + 1, (1 << 32) + 2, u64::MAX] {
        let restored = Incarnation::after(&parent, &[shown]).unwrap();
        assert_eq!(refused(restored, shown), None, "{shown}");
    }
    let fenced = Some(Contradiction::Fenced);
    assert_eq!(refused(parent, 1 << 32), fenced);
    assert_eq!(refused(parent, u64::MAX), None);
}

#[test]
fn a_counter_is_met_at_the_record_or_exactly_one_before() {
    use CounterVerdict as V;
    for (recorded, found, verdict) in [
        (4, 4, V::Current),
        (4, 3, V::Behind),
        (4, 5, V::RolledBack),
        (4, u64::MAX, V::RolledBack),
        (4, 2, V::OtherCounter),
        (u64::MAX, 0, V::OtherCounter),
        (0, u64::MAX, V::RolledBack),
    ] {
        assert_eq!(
            judge_counter(recorded, found),
            verdict,
            "{recorded} {found}"
        );
    }
}

/// What happens to a store between two receipts.
#[derive(Debug, Clone)]
enum Happens {
    /// A commit.
    Write,
    /// A receipt is given out.
    Receipt,
    /// A restore of an earlier moment.
    Restore(prop::sample::Index),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Write),
        3 => Just(Happens::Receipt),
        1 => any::<prop::sample::Index>().prop_map(Happens::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The moments of one line of lives: whichever of them is put back, it opens exactly where no receipt is later.
    #[test]
    fn what_was_put_back_is_refused_wherever_a_receipt_is_later(
        story in prop::collection::vec(happens(), 1..40),
        back in any::<prop::sample::Index>(),
    ) {
        // In the order in which they were: a later moment is one further on.
        let mut moments = vec![point(life(1, 1), 1, 0)];
        let mut digest = 0_u8;
        let mut receipts: Vec<(usize, Receipt)> = Vec::new();
        for event in story {
            let now = *moments.last().unwrap();
            match event {
                Happens::Write => {
                    digest += 1;
                    moments.push(StorePoint {
                        generation: now.generation + 1,
                        digest: [digest; 32],
                        ..now
                    });
                }
                Happens::Receipt => receipts.push((moments.len() - 1, receipt(now, 0))),
                Happens::Restore(which) => {
                    digest += 1;
                    let of = which.get(&moments);
                    let counter = now.incarnation.counter + 1;
                    moments.push(StorePoint {
                        incarnation: life(counter, u8::try_from(counter).unwrap()),
                        generation: of.generation,
                        digest: [digest; 32],
                    });
                }
            }
        }
        let at = back.index(moments.len());
        let judged = judge(
            store(1),
            &public(&pair(7)),
            &moments[at],
            receipts.iter().map(|(_, receipt)| receipt),
        );
        let later = receipts.iter().any(|(moment, _)| *moment > at);
        prop_assert_eq!(judged.refused.is_some(), later);
    }

    #[test]
    fn no_other_bytes_are_a_receipt(at in 0..RECEIPT_LEN, bit in 0..8_u8) {
        let mut bytes = receipt(point(life(2, 3), 5, 4), 1).to_bytes();
        bytes[at] ^= 1 << bit;
        prop_assert!(Receipt::from_bytes(&bytes).is_err());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,600}") {
        prop_assert!(Receipt::parse(&text).is_err());
    }
}
