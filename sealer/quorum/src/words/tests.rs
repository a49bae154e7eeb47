use proptest::prelude::*;

use super::*;
use crate::fixtures::{set, share, sharing};
use crate::vectors::SHARE_WORDS_TEXT;

fn words() -> Vec<String> {
    SHARE_WORDS_TEXT.split(' ').map(str::to_owned).collect()
}

fn read(words: &[String]) -> Result<Share, WordsError> {
    Share::from_words(words.join(" ").as_bytes())
}

fn same(a: &Share, b: &Share) -> bool {
    a.digest() == b.digest() && a.threshold() == b.threshold() && a.set() == b.set()
}

#[test]
fn the_example_reads_back() {
    assert_eq!(
        share().to_words().unwrap().expose(),
        SHARE_WORDS_TEXT.as_bytes()
    );
    let read = Share::from_words(SHARE_WORDS_TEXT.as_bytes()).unwrap();
    assert!(same(&read, &share()));
    assert_eq!(read.set(), set());
}

#[test]
fn the_list_is_sorted_and_its_first_four_letters_tell_its_words_apart() {
    assert!(list().is_sorted());
    let heads: std::collections::BTreeSet<&str> = list()
        .iter()
        .map(|word| &word[..word.len().min(4)])
        .collect();
    assert_eq!(heads.len(), 2048);
    for (at, word) in list().iter().enumerate() {
        assert!((3..=LONGEST).contains(&word.len()));
        let short = &word[..word.len().min(TELLING)];
        for typed in [*word, short, &word.to_uppercase()] {
            assert_eq!(
                number_of(typed.as_bytes()).map(usize::from),
                Some(at),
                "{typed}"
            );
        }
    }
    for wrong in ["ab", "aban1", "abandom", "abando", "zzzz", "", "zoological"] {
        assert_eq!(number_of(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn case_numbers_and_line_breaks_are_forgiven_and_four_letters_are_enough() {
    let numbered: String = (words().iter().enumerate())
        .map(|(at, word)| format!("{:>2}. {}\r\n", at + 1, word.to_uppercase()))
        .collect();
    let cut: Vec<String> = (words().iter())
        .map(|word| word[..word.len().min(4)].to_owned())
        .collect();
    for text in [
        numbered,
        cut.join(", "),
        format!("\n\t{}\n", cut.join("   ")),
    ] {
        assert!(
            same(&Share::from_words(text.as_bytes()).unwrap(), &share()),
            "{text}"
        );
    }
}

#[test]
fn a_text_or_words_are_read_by_their_look() {
    let text = share().to_text().unwrap();
    assert!(same(&read_share(text.expose()).unwrap(), &share()));
    let upper = text.expose().to_ascii_uppercase();
    assert!(same(&read_share(&upper).unwrap(), &share()));
    assert!(same(
        &read_share(SHARE_WORDS_TEXT.as_bytes()).unwrap(),
        &share()
    ));
    assert!(matches!(
        read_share(b"mcpist-share1qq"),
        Err(WordsError::Share(ShareError::Length { .. }))
    ));
    assert!(matches!(
        read_share(b""),
        Err(WordsError::Count { found: 0 })
    ));
}

#[test]
fn each_malformed_input_is_named() {
    let long = vec![b'a'; MAX_WORDS_TEXT + 1];
    assert!(matches!(
        Share::from_words(&long),
        Err(WordsError::TooLong { .. })
    ));
    let mut list = words();
    list[6] = "caesar".to_owned();
    assert!(matches!(
        read(&list),
        Err(WordsError::Unknown { position: 7 })
    ));
    let mut list = words();
    list.pop();
    assert!(matches!(read(&list), Err(WordsError::Count { found: 43 })));
    list.extend(["zoo", "zoo"].map(str::to_owned));
    assert!(matches!(read(&list), Err(WordsError::Count { found: 45 })));
    assert!(matches!(
        Share::from_words(&[0xff; 40]),
        Err(WordsError::Unknown { .. })
    ));
}

#[test]
fn every_single_wrong_word_is_named_by_its_place() {
    for at in 0..SHARE_WORDS {
        for other in ["abandon", "zoo", "legal", "wolf"] {
            let mut list = words();
            if list[at] == other {
                continue;
            }
            list[at] = other.to_owned();
            assert!(
                matches!(read(&list), Err(WordsError::Wrong { position }) if position == at + 1),
                "{at} {other}"
            );
        }
    }
}

#[test]
fn every_two_words_that_changed_places_are_noticed() {
    for a in 0..SHARE_WORDS {
        for b in a + 1..SHARE_WORDS {
            let mut list = words();
            list.swap(a, b);
            if list[a] != list[b] {
                assert!(matches!(read(&list), Err(WordsError::Checksum)), "{a} {b}");
            }
        }
    }
}

#[test]
fn a_codeword_that_no_share_has_is_refused() {
    let mut numbers = [0; SHARE_WORDS];
    append_check(&mut numbers);
    let text: Vec<String> = (numbers.iter())
        .map(|n| list()[usize::from(*n)].to_owned())
        .collect();
    assert!(matches!(
        read(&text),
        Err(WordsError::Share(ShareError::Version(0)))
    ));
    numbers[DATA - 1] = 1;
    append_check(&mut numbers);
    let text: Vec<String> = (numbers.iter())
        .map(|n| list()[usize::from(*n)].to_owned())
        .collect();
    assert!(matches!(
        read(&text),
        Err(WordsError::Share(ShareError::Field { field: "padding" }))
    ));
}

#[test]
fn no_error_holds_a_word_and_nearest_looks_at_the_typed_one_alone() {
    for at in [0, 20, 43] {
        let mut list = words();
        let meant = std::mem::replace(&mut list[at], "wolf".to_owned());
        let said = read(&list).unwrap_err();
        for shown in [said.to_string(), format!("{said:?}")] {
            assert!(
                !shown.split(' ').any(|w| w == meant || w == "wolf"),
                "{shown}"
            );
        }
    }
    assert_eq!(nearest_words("abandom").first(), Some(&"abandon"));
    assert!(nearest_words("aple").contains(&"apple"));
    assert!(nearest_words("qqqqqqq").is_empty());
    assert!(nearest_words(&"a".repeat(10_000)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn words_read_back(secret in any::<u8>(), generation in 1..u32::MAX, at in 0..5usize) {
        let (_, shares) = sharing(secret, generation);
        let words = shares[at].to_words().unwrap();
        let read = Share::from_words(words.expose()).unwrap();
        prop_assert!(same(&read, &shares[at]));
        prop_assert_eq!(words_of(words.expose()).count(), SHARE_WORDS);
    }

    /// The distance of the code is four: three wrong words are never a share.
    #[test]
    fn three_wrong_words_are_always_noticed(
        places in prop::sample::subsequence((0..SHARE_WORDS).collect::<Vec<_>>(), 1..=3),
        others in prop::array::uniform3(0..2048usize),
    ) {
        let mut wrong = words();
        for (at, other) in places.iter().zip(others) {
            wrong[*at] = list()[other].to_owned();
        }
        prop_assert_eq!(read(&wrong).is_ok(), wrong == words());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_share(&bytes);
    }
}
