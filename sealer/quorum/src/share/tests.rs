use bech32::Bech32;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{again, key_of, set, share, three_of_five};
use crate::vectors::{SHARE_DIGEST_HEX, SHARE_TEXT};

fn text_of(payload: &[u8]) -> String {
    payload
        .iter()
        .copied()
        .bytes_to_fes()
        .with_checksum::<Bech32m>(&HRP)
        .chars()
        .collect()
}

fn payload() -> Vec<u8> {
    let header = [&[1], set().as_bytes().as_slice(), &[0, 0, 0, 1, 2, 3, 5]].concat();
    [header.as_slice(), share().value().expose()].concat()
}

fn parse(text: impl AsRef<[u8]>) -> Result<Share, ShareError> {
    Share::parse(text.as_ref())
}

fn same(a: &Share, b: &Share) -> bool {
    (a.set, a.generation, a.index, a.threshold) == (b.set, b.generation, b.index, b.threshold)
        && a.value.expose() == b.value.expose()
}

#[test]
fn the_example_is_written_and_read() {
    assert_eq!(share().to_text().unwrap().expose(), SHARE_TEXT.as_bytes());
    assert_eq!(SHARE_TEXT.len(), SHARE_TEXT_LEN);
    assert_eq!(text_of(&payload()), SHARE_TEXT);
    assert!(same(&parse(SHARE_TEXT).unwrap(), &share()));
    assert_eq!(share().digest().to_string(), SHARE_DIGEST_HEX);
}

#[test]
fn grouping_and_case_do_not_matter() {
    let groups: Vec<&str> = SHARE_TEXT
        .as_bytes()
        .chunks(5)
        .map(|c| std::str::from_utf8(c).unwrap())
        .collect();
    for text in [
        SHARE_TEXT.to_uppercase(),
        groups.join(" "),
        groups.join("-"),
        groups.join("\r\n\t"),
        format!("\n {SHARE_TEXT} \n"),
        SHARE_TEXT.replace('-', ""),
    ] {
        assert!(same(&parse(&text).unwrap(), &share()), "{text}");
    }
}

#[test]
fn each_malformed_text_is_named() {
    assert!(matches!(parse(""), Err(ShareError::Prefix)));
    assert!(matches!(parse("mcpist-share"), Err(ShareError::Prefix)));
    assert!(matches!(parse("age1qqqq"), Err(ShareError::Prefix)));
    assert!(matches!(parse([0xff; 40]), Err(ShareError::Prefix)));
    assert!(matches!(
        parse("mcpist-share1"),
        Err(ShareError::Length { found: 0 })
    ));
    assert!(matches!(
        parse([b' '; 1025]),
        Err(ShareError::TooLong { found: 1025 })
    ));
    let mixed = SHARE_TEXT.replacen('q', "Q", 1);
    assert!(matches!(parse(mixed), Err(ShareError::MixedCase)));
    for (at, wrong) in [
        (1, "b"),
        (7, "i"),
        (50, "o"),
        (96, "1"),
        (3, "é"),
        (3, "\0"),
    ] {
        let mut text = SHARE_TEXT.to_owned();
        let from = PREFIX.len() + at - 1;
        text.replace_range(from..=from, wrong);
        let error = parse(text).unwrap_err();
        assert!(
            matches!(error, ShareError::Character { position } if position == at),
            "{error}"
        );
    }
}

#[test]
fn every_single_wrong_character_is_noticed() {
    for at in PREFIX.len()..SHARE_TEXT_LEN {
        for wrong in ["q", "p"] {
            let mut text = SHARE_TEXT.to_owned();
            text.replace_range(at..=at, wrong);
            if text != SHARE_TEXT {
                assert!(matches!(parse(text), Err(ShareError::Checksum)), "{at}");
            }
        }
    }
}

#[test]
fn missing_doubled_and_swapped_characters_are_noticed() {
    for at in PREFIX.len()..SHARE_TEXT_LEN {
        let mut missing = SHARE_TEXT.to_owned();
        let gone = missing.remove(at);
        assert!(
            matches!(parse(&missing), Err(ShareError::Length { found: 95 })),
            "{at}"
        );
        let mut doubled = SHARE_TEXT.to_owned();
        doubled.insert(at, gone);
        assert!(
            matches!(parse(&doubled), Err(ShareError::Length { found: 97 })),
            "{at}"
        );
        let mut swapped = missing;
        swapped.insert((at + 1).min(SHARE_TEXT_LEN - 1), gone);
        assert!(swapped == SHARE_TEXT || matches!(parse(&swapped), Err(ShareError::Checksum)));
    }
}

#[test]
fn a_checksum_of_plain_bech32_is_refused() {
    let bytes = payload();
    let text: String = bytes
        .iter()
        .copied()
        .bytes_to_fes()
        .with_checksum::<Bech32>(&HRP)
        .chars()
        .collect();
    assert!(matches!(parse(text), Err(ShareError::Checksum)));
}

#[test]
fn a_second_text_for_one_share_does_not_exist() {
    // The last of the 90 characters has two bits of padding.
    let mut fes: Vec<Fe32> = payload().iter().copied().bytes_to_fes().collect();
    let last = fes.last_mut().unwrap();
    *last = Fe32::try_from(last.to_u8() | 1).unwrap();
    let text: String = fes
        .into_iter()
        .with_checksum::<Bech32m>(&HRP)
        .chars()
        .collect();
    assert!(matches!(
        parse(text),
        Err(ShareError::Field { field: "padding" })
    ));
}

#[test]
fn each_senseless_field_is_named_though_the_checksum_fits() {
    let with = |at: usize, byte: u8| {
        let mut bytes = payload();
        bytes[at] = byte;
        parse(text_of(&bytes)).unwrap_err()
    };
    assert!(matches!(with(0, 2), ShareError::Version(2)));
    assert!(matches!(
        with(20, 0),
        ShareError::Field {
            field: "generation"
        }
    ));
    assert!(matches!(with(21, 0), ShareError::Field { field: "index" }));
    assert!(matches!(with(21, 6), ShareError::Field { field: "index" }));
    assert!(matches!(
        with(22, 0),
        ShareError::Field { field: "threshold" }
    ));
    assert!(matches!(
        with(22, 6),
        ShareError::Field { field: "threshold" }
    ));
    assert!(matches!(
        with(23, 17),
        ShareError::Field { field: "threshold" }
    ));
    for text in [
        text_of(&payload()[..55]),
        text_of(&[payload().as_slice(), &[0]].concat()),
    ] {
        assert!(matches!(
            parse(text),
            Err(ShareError::Field { field: "length" })
        ));
    }
    assert!(matches!(
        parse(text_of(&[])),
        Err(ShareError::Length { found: 6 } | ShareError::Field { .. })
    ));
    // A later version may have another length: the version is what is told.
    assert!(matches!(
        parse(text_of(&[9; 20])),
        Err(ShareError::Version(9))
    ));
}

#[test]
fn neither_debug_nor_an_error_shows_the_value() {
    let text = format!("{:?}", share());
    assert!(
        !text.contains("000102") && !text.contains("[0, 1, 2"),
        "{text}"
    );
    let wrong = SHARE_TEXT.replacen('q', "b", 1);
    assert!(
        !parse(&wrong)
            .unwrap_err()
            .to_string()
            .contains(&wrong[40..60])
    );
}

#[test]
fn the_digest_covers_set_generation_index_and_value() {
    let make = |set, generation, index, value: [u8; 32]| {
        let generation = Generation::new(generation).unwrap();
        Share::new(set, generation, index, three_of_five(), key_of(&value)).digest()
    };
    let base = make(set(), 1, 1, [7; 32]);
    assert_eq!(base, make(set(), 1, 1, [7; 32]));
    for other in [
        make(SetId::from_bytes([0; 16]), 1, 1, [7; 32]),
        make(set(), 2, 1, [7; 32]),
        make(set(), 1, 2, [7; 32]),
        make(set(), 1, 1, [8; 32]),
    ] {
        assert_ne!(base, other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_share_reads_back(
        set: [u8; 16], generation in 1..=u32::MAX, value: [u8; 32],
        (index, needed, total) in (1..=16_u8)
            .prop_flat_map(|total| (1..=total, 1..=total, Just(total))),
    ) {
        let share = Share::new(
            SetId::from_bytes(set),
            Generation::new(generation).unwrap(),
            index,
            Threshold::dev(needed, total).unwrap(),
            key_of(&value),
        );
        prop_assert!(same(&again(&share), &share));
    }

    #[test]
    fn up_to_three_wrong_characters_are_always_noticed(
        wrong in proptest::collection::vec((13..109_usize, 0..32_u8), 1..=3),
    ) {
        let mut text = SHARE_TEXT.as_bytes().to_vec();
        for (at, fe) in wrong {
            text[at] = u8::try_from(Fe32::try_from(fe).unwrap().to_char()).unwrap();
        }
        prop_assert_eq!(parse(&text).is_ok(), text == SHARE_TEXT.as_bytes());
    }

    #[test]
    fn arbitrary_text_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(parse(&tail).is_err());
        prop_assert!(parse([b"mcpist-share1".as_slice(), &tail].concat()).is_err());
    }
}
