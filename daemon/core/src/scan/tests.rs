#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const WIDE: Limits = Limits {
    max_bytes: 200_000_000,
    max_depth: 100,
};

fn scanned(text: &str) -> Result<(), ScanError> {
    scan(text.as_bytes(), &WIDE)
}

fn path_of(error: ScanError) -> String {
    match error {
        ScanError::TooDeep { path, .. }
        | ScanError::DuplicateKey { path }
        | ScanError::NumberRange { path } => path.as_str().to_owned(),
        other => panic!("no path in {other:?}"),
    }
}

fn malformed(raw: &[u8]) -> (usize, Malformed) {
    match scan(raw, &WIDE).unwrap_err() {
        ScanError::NotJson { offset, reason } => (offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_json_has_passes() {
    for text in [
        "0",
        "-0",
        " [ ] ",
        "{}",
        "null",
        "true",
        "false",
        "\"\"",
        "[1,2.5,-3e-7,0e999,1E+2]",
        r#"{"a":{"b":[{"c":null},{"c":[]}]},"d":"\u00e9\n\ud83d\ude00é😀"}"#,
        "\t{\r\n\"k\" :\t1 , \"l\" : [ { } , 2 ] }\n",
        "[9223372036854775807,-9223372036854775808,18446744073709551615]",
    ] {
        assert_eq!(scanned(text), Ok(()), "{text}");
    }
}

#[test]
fn named_malformed_vectors() {
    use Malformed::*;
    let vectors: &[(&str, &[u8], usize, Malformed)] = &[
        ("empty", b"", 0, Truncated),
        ("only space", b"  ", 2, Truncated),
        ("open array", b"[1", 2, Truncated),
        ("open object", b"{\"a\":1", 6, Truncated),
        ("open string", b"\"abc", 4, Truncated),
        ("cut word", b"tru", 3, Truncated),
        ("wrong word", b"trux", 3, Unexpected),
        ("trailing comma in array", b"[1,]", 3, Unexpected),
        ("trailing comma in object", b"{\"a\":1,}", 7, Unexpected),
        ("bare name", b"{a:1}", 1, Unexpected),
        ("missing colon", b"{\"a\" 1}", 5, Unexpected),
        ("mismatched bracket", b"[1}", 2, Unexpected),
        ("second value", b"1 2", 2, Trailing),
        ("leading zero", b"01", 1, Unexpected),
        ("bare minus", b"-", 1, Truncated),
        ("bare point", b"1.", 2, Truncated),
        ("bare exponent", b"1e+", 3, Truncated),
        ("plus sign", b"+1", 0, Unexpected),
        ("raw newline", b"\"a\nb\"", 2, Control),
        ("raw nul", b"\"\0\"", 1, Control),
        ("unknown escape", b"\"\\x41\"", 2, Escape),
        ("short unicode escape", b"\"\\u12\"", 5, Escape),
        ("cut unicode escape", b"\"\\u12", 5, Truncated),
        ("lone high surrogate", b"\"a\\ud800b\"", 2, Surrogate),
        ("lone low surrogate", b"\"\\udc00\"", 1, Surrogate),
        ("two high surrogates", b"\"\\ud800\\ud800\"", 1, Surrogate),
        ("overlong slash", b"\"\xc0\xaf\"", 1, Utf8),
        ("encoded surrogate", b"\"a\xed\xa0\x80\"", 2, Utf8),
        ("cut character", b"\"\xe2\x82\"", 1, Utf8),
        ("byte order mark", b"\xef\xbb\xbf1", 0, Unexpected),
        ("NaN", b"NaN", 0, Unexpected),
        ("comment", b"/**/1", 0, Unexpected),
    ];
    for (name, raw, offset, reason) in vectors {
        assert_eq!(malformed(raw), (*offset, *reason), "{name}");
        assert!(serde_json::from_slice::<Value>(raw).is_err(), "{name}");
    }
}

#[test]
fn a_number_that_would_be_bent_is_named_by_its_path() {
    for (text, path) in [
        ("18446744073709551616", ""),
        ("[0,-9223372036854775809]", "/1"),
        (r#"{"a":[{"b":12345678901234567890123}]}"#, "/a/0/b"),
        (r#"{"a":1,"x/y":1e400}"#, "/x~1y"),
        (r#"[[],[{"":-1e309}]]"#, "/1/0/"),
    ] {
        let error = scanned(text).unwrap_err();
        assert!(matches!(error, ScanError::NumberRange { .. }), "{text}");
        assert_eq!(path_of(error), path, "{text}");
    }
    let long = format!("{}.5", "9".repeat(400));
    assert!(matches!(scanned(&long), Err(ScanError::NumberRange { .. })));
}

#[test]
fn a_decimal_within_range_passes_however_long_it_is() {
    for text in [
        "1.7976931348623157e308",
        "123456789012345678901234567890.5",
        "1e-400",
        "0.1e309",
    ] {
        assert_eq!(scanned(text), Ok(()), "{text}");
    }
    assert_eq!(scanned(&format!("0.{}", "3".repeat(10_000))), Ok(()));
}

#[test]
fn a_duplicate_member_is_found_however_it_is_written() {
    for (text, path) in [
        (r#"{"a":1,"a":1}"#, "/a"),
        (r#"{"a":1,"\u0061":1}"#, "/a"),
        (r#"{"\u00e9":1,"é":1}"#, "/é"),
        (r#"{"\ud83d\ude00":1,"😀":1}"#, "/😀"),
        (
            r#"[{"x":{"a":{"a":1},"b":{"a":1,"c":2,"a":3}}}]"#,
            "/0/x/b/a",
        ),
        (r#"{"":1,"":2}"#, "/"),
    ] {
        let error = scanned(text).unwrap_err();
        assert!(matches!(error, ScanError::DuplicateKey { .. }), "{text}");
        assert_eq!(path_of(error), path, "{text}");
    }
    let mut wide: Vec<String> = (0..200).map(|n| format!("\"k{n}\":0")).collect();
    assert_eq!(scanned(&format!("{{{}}}", wide.join(","))), Ok(()));
    wide.push("\"k\\u0037\":0".to_owned());
    assert_eq!(
        path_of(scanned(&format!("{{{}}}", wide.join(","))).unwrap_err()),
        "/k7"
    );
}

#[test]
fn equal_names_in_different_objects_are_no_duplicates() {
    assert_eq!(
        scanned(r#"{"a":{"a":{"a":[{"a":1},{"a":2}]}},"b":{"a":1}}"#),
        Ok(())
    );
}

#[test]
fn the_depth_limit_names_the_first_value_over_it() {
    let limits = Limits {
        max_bytes: 1_000,
        max_depth: 2,
    };
    assert_eq!(scan(br#"{"a":[1]}"#, &limits), Ok(()));
    let error = scan(br#"{"a":[0,{"b":1}]}"#, &limits).unwrap_err();
    assert!(matches!(error, ScanError::TooDeep { limit: 2, .. }));
    assert_eq!(path_of(error), "/a/1");
}

#[test]
fn a_hostile_depth_costs_only_the_bytes_up_to_the_limit() {
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    assert!(matches!(
        scan(&deep, &Limits::bytes(1 << 20)),
        Err(ScanError::TooDeep { .. })
    ));
    // Allowed depth is bounded by the heap alone: nothing here recurses.
    assert_eq!(
        scan(
            &deep,
            &Limits {
                max_bytes: 1 << 20,
                max_depth: 10_000
            }
        ),
        Ok(())
    );
}

#[test]
fn a_hostile_length_is_refused_before_a_byte_is_read() {
    let long = vec![0xff; 100 << 20];
    assert_eq!(
        scan(&long, &Limits::bytes(1 << 20)),
        Err(ScanError::TooLong {
            length: 100 << 20,
            limit: 1 << 20
        })
    );
}

#[test]
fn many_names_are_sorted_and_not_compared_in_pairs() {
    let names: Vec<String> = (0..200_000).map(|n| format!("\"{n}\":0")).collect();
    assert_eq!(scanned(&format!("{{{}}}", names.join(","))), Ok(()));
}

#[test]
fn an_error_repeats_no_value_and_bounds_a_hostile_name() {
    let text = format!(
        "{{\"{}\":1e999}}",
        "n\u{1f}".repeat(500).replace('\u{1f}', "\\u001b")
    );
    let shown = scanned(&text).unwrap_err().to_string();
    assert!(shown.len() < 400 && !shown.contains('\u{1b}') && !shown.contains("999"));
}

/// JSON text with more freedom than a printer takes: white space, escapes, duplicate names, numbers
/// of every size.
fn any_json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[a-c]{0,2}",
        Just(r"\u0061".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just(r"\ud83d".to_owned()),
        ".{0,3}".prop_map(|s: String| {
            let json = serde_json::to_string(&s).unwrap();
            json[1..json.len() - 1].to_owned()
        }),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        "-?[0-9]{1,25}",
        "-?[0-9]{1,3}\\.[0-9]{1,3}(e-?[0-9]{1,3})?",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true ".to_owned()),
        number,
        string.clone().prop_map(|s| format!("\"{s}\"")),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[ {}]", v.join(","))),
            prop::collection::vec((string.clone(), inner), 0..5).prop_map(|v| {
                let members: Vec<_> = v.iter().map(|(k, v)| format!("\"{k}\" :{v}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

/// What serde_json thinks of a text, with a map that refuses duplicates and numbers as written.
mod oracle {
    use std::collections::BTreeSet;
    use std::fmt;

    use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

    pub(super) struct Strict;

    impl<'de> Deserialize<'de> for Strict {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(StrictVisitor)
        }
    }

    struct StrictVisitor;

    impl<'de> Visitor<'de> for StrictVisitor {
        type Value = Strict;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("json")
        }
        fn visit_unit<E: Error>(self) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_bool<E: Error>(self, _: bool) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<Strict, E> {
            Ok(Strict)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
            while seq.next_element::<Strict>()?.is_some() {}
            Ok(Strict)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
            let mut seen = BTreeSet::new();
            let mut duplicate = false;
            while let Some((name, _)) = map.next_entry::<String, Strict>()? {
                duplicate |= !seen.insert(name);
            }
            if duplicate {
                Err(A::Error::custom("duplicate"))
            } else {
                Ok(Strict)
            }
        }
    }
}

/// Whether some literal integer of the text is outside 64 bits: serde_json turns such into `f64`.
fn bends_an_integer(text: &str) -> bool {
    let mut rest = text;
    let mut outside_strings = String::new();
    while let Some(open) = rest.find('"') {
        outside_strings.push_str(&rest[..open]);
        outside_strings.push(' ');
        let body = &rest[open + 1..];
        let mut escaped = false;
        let close = body
            .bytes()
            .position(|b| {
                let ends = b == b'"' && !escaped;
                escaped = b == b'\\' && !escaped;
                ends
            })
            .unwrap_or(body.len() - 1);
        rest = &body[close + 1..];
    }
    outside_strings.push_str(rest);
    outside_strings
        .split(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)))
        .filter(|n| n.contains(|c: char| c.is_ascii_digit()) && !n.contains(['.', 'e', 'E']))
        .any(|n| n.parse::<i64>().is_err() && n.parse::<u64>().is_err())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn accepts_exactly_what_a_strict_parser_does(text in any_json()) {
        let strict = serde_json::from_str::<oracle::Strict>(&text).is_ok();
        let expected = strict && !bends_an_integer(&text);
        prop_assert_eq!(scanned(&text).is_ok(), expected, "{}", text);
    }

    #[test]
    fn accepts_no_broken_text(text in any_json(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut raw = text.into_bytes();
        let at = at.index(raw.len());
        raw[at] = byte;
        let verdict = scan(&raw, &WIDE);
        if serde_json::from_slice::<oracle::Strict>(&raw).is_err() {
            prop_assert!(verdict.is_err(), "{:?}", String::from_utf8_lossy(&raw));
        }
        if let Err(ScanError::NotJson { offset, .. }) = verdict {
            prop_assert!(offset <= raw.len());
            prop_assert!(serde_json::from_slice::<Value>(&raw).is_err());
        }
    }

    #[test]
    fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = scan(&raw, &Limits { max_bytes: 50, max_depth: 3 });
    }
}
