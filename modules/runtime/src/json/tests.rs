#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse<'a>(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Result<Doc<'a>, JsonError> {
    Doc::parse(bytes.as_ref(), &mut Room::unbounded())
}

fn error(text: &str) -> JsonError {
    parse(text.as_bytes()).unwrap_err()
}

#[test]
fn malformed_texts_are_refused_where_they_break() {
    for (text, at) in [
        ("", 0),
        ("{", 1),
        ("[1,]", 3),
        ("{\"a\":1,}", 7),
        ("{\"a\" 1}", 5),
        ("{a:1}", 1),
        ("01", 1),
        ("1.", 2),
        ("1e", 2),
        ("-", 1),
        ("+1", 0),
        ("nul", 0),
        ("\"a", 2),
        ("\"\n\"", 1),
        ("\"\\x\"", 1),
        ("\"\\u12\"", 1),
        ("\"\\ud800\"", 7),
        ("\"\\ud800\\u0041\"", 13),
        ("\"\\udc00\"", 7),
        ("1 2", 2),
        ("\u{feff}1", 0),
    ] {
        assert_eq!(error(text), JsonError::Syntax(at), "{text}");
    }
    assert_eq!(parse(b"\"\xff\"").unwrap_err(), JsonError::Syntax(1));
}

#[test]
fn a_repeated_name_is_seen_however_it_is_written() {
    assert!(matches!(
        error(r#"{"a":1,"b":2,"a":3}"#),
        JsonError::Repeated(13)
    ));
    assert!(matches!(
        error(r#"{"a":1,"\u0061":3}"#),
        JsonError::Repeated(7)
    ));
    let many: Vec<String> = (0..40).map(|i| format!("\"k{}\":0", i % 39)).collect();
    assert!(matches!(
        error(&format!("{{{}}}", many.join(","))),
        JsonError::Repeated(_)
    ));
}

#[test]
fn depth_is_bounded() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(deep(MAX_DEPTH).as_bytes()).is_ok());
    assert_eq!(error(&deep(MAX_DEPTH + 1)), JsonError::TooDeep(MAX_DEPTH));
    assert!(matches!(
        error(&"[".repeat(1_000_000)),
        JsonError::TooDeep(_)
    ));
}

#[test]
fn a_flood_of_small_values_is_refused_where_the_room_ends() {
    const NODES: usize = 1000;
    let flood = format!("[0{}]", ",0".repeat(2 << 20));
    assert!(flood.len() > 4 << 20);
    let mut room = Room::new((NODES * size_of::<Node>()) as u64);
    let parsed = parse::parse(&flood, &mut room);
    assert_eq!(parsed.err(), Some(JsonError::NoRoom(NoRoom)));
    // All of the room was used before, and the values that fill it exactly are taken.
    assert_eq!(room.lends(size_of::<Node>()), Err(NoRoom));
    for (zeros, fits) in [(NODES - 1, true), (NODES, false)] {
        let text = format!("[{}0]", "0,".repeat(zeros - 1));
        let mut room = Room::new((NODES * size_of::<Node>()) as u64);
        match parse::parse(&text, &mut room) {
            Ok(nodes) => assert!(fits && nodes.capacity() <= NODES),
            Err(error) => assert!(!fits, "{error}"),
        }
    }
}

#[test]
fn many_names_need_room_to_be_told_apart() {
    let names: Vec<String> = (0..100).map(|i| format!("\"{i}\":0")).collect();
    let text = format!("{{{}}}", names.join(","));
    let nodes = (201 * size_of::<Node>()) as u64;
    assert!(parse::parse(&text, &mut Room::new(nodes)).is_err());
    assert!(parse::parse(&text, &mut Room::new(4 * nodes)).is_ok());
}

#[test]
fn wide_numbers_are_marked_and_kept() {
    for (text, expected) in [
        ("9223372036854775807", false),
        ("-9223372036854775808", false),
        ("18446744073709551615", false),
        ("18446744073709551616", true),
        ("-9223372036854775809", true),
        ("1e308", false),
        ("1e309", true),
        ("1.10", false),
    ] {
        let doc = parse(text.as_bytes()).unwrap();
        assert_eq!(doc.root().is_wide(), expected, "{text}");
        assert_eq!(doc.root().raw(), text);
    }
}

#[test]
fn members_and_elements_are_walked_in_order() {
    let doc = parse(br#" {"a" : [1, {"x":[]}, "q\n"], "b":null} "#).unwrap();
    let a = doc.root().get("a").unwrap();
    let raws: Vec<_> = a.elements().map(Value::raw).collect();
    assert_eq!(raws, ["1", r#"{"x":[]}"#, r#""q\n""#]);
    assert_eq!(a.elements().nth(2).unwrap().as_str().unwrap(), "q\n");
    assert_eq!(doc.root().get("b").unwrap().kind(), Kind::Null);
    assert!(doc.root().get("c").is_none());
    assert!(a.get("a").is_none());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|f| serde_json::json!(f)),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn rebuild(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Array => value.elements().map(rebuild).collect(),
        Kind::Object => serde_json::Value::Object(
            value
                .members()
                .map(|(k, v)| (k.as_str().unwrap().into_owned(), rebuild(v)))
                .collect(),
        ),
        _ => serde_json::from_str(value.raw()).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_serde_writes_reads_back_the_same(value in json()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let doc = parse(text.as_bytes()).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(rebuild(doc.root()), expected);
    }

    #[test]
    fn any_bytes_are_an_error_or_agree_with_serde(bytes in prop::collection::vec(
        prop::sample::select(b"{}[]\",:\\u0d8e1.-+ntrufalsx \xc3\xa9".to_vec()), 0..24)) {
        if parse(&bytes).is_ok() {
            prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).is_ok());
        }
    }
}
