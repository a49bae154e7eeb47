#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse<'a>(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Result<Doc<'a>, crate::json::JsonError> {
    Doc::parse(bytes.as_ref(), &mut Room::unbounded())
}

fn response(json: &str) -> Response {
    serde_json::from_str(json).unwrap()
}

fn shaped(body: &str, spec: &str, max: usize) -> Shaped {
    let doc = parse(body.as_bytes()).unwrap();
    shape(
        &Source::single(&doc),
        &response(spec),
        max,
        &mut Room::unbounded(),
    )
    .unwrap()
}

fn text(body: &str, spec: &str) -> String {
    let shaped = shaped(body, spec, usize::MAX);
    assert!(!shaped.cut);
    String::from_utf8(shaped.json).unwrap()
}

const PROMETHEUS: &str = r#"{"status":"success","data":{"result":[
    {"metric":{"job":"a","x":"1"},"value":[1.10,"5"]},
    {"metric":{"x":"2"},"value":[2e0,"6"]},
    {"metric":{"job":"c"},"value":[]}]}}"#;

#[test]
fn without_picks_the_body_is_kept_and_compacted() {
    assert_eq!(
        text(" { \"b\" : [ 1.10 , 1e2 ] ,\n\"a\" : \"x\\u0041\" } ", "{}"),
        r#"{"b":[1.10,1e2],"a":"x\u0041"}"#
    );
}

#[test]
fn rows_keep_their_places() {
    let spec = r#"{"pick":[
        {"from":"data.result[*].metric.job","to":"rows[*].job"},
        {"from":"data.result[*].value[1]","to":"rows[*].v"},
        {"from":"status","to":"state"}]}"#;
    assert_eq!(
        text(PROMETHEUS, spec),
        r#"{"rows":[{"job":"a","v":"5"},{"v":"6"},{"job":"c"}],"state":"success"}"#
    );
}

#[test]
fn a_place_without_star_takes_a_flat_list_or_the_value() {
    let spec = r#"{"pick":[
        {"from":"data.result[*].value[*]","to":"all"},
        {"from":"data.result[0].metric","to":"first.metric"},
        {"from":"data.nothing","to":"nothing"},
        {"from":"data.nothing[*]","to":"none"}]}"#;
    assert_eq!(
        text(PROMETHEUS, spec),
        r#"{"all":[1.10,"5",2e0,"6"],"first":{"metric":{"job":"a","x":"1"}},"none":[]}"#
    );
}

#[test]
fn stars_walk_objects_and_leave_null_where_a_list_has_no_value() {
    let body = r#"{"m":{"a":{"id":1},"b":{},"c":{"id":3}}}"#;
    assert_eq!(
        text(body, r#"{"pick":[{"from":"m[*].id","to":"ids[*]"}]}"#),
        r#"{"ids":[1,null,3]}"#
    );
    assert_eq!(
        text("{}", r#"{"pick":[{"from":"m[*].id","to":"ids[*].id"}]}"#),
        r#"{"ids":[]}"#
    );
}

#[test]
fn items_are_bounded_at_each_star_and_everywhere_and_it_is_said() {
    let picked = shaped(
        PROMETHEUS,
        r#"{"pick":[{"from":"data.result[*].metric.job","to":"jobs","max_items":1}]}"#,
        usize::MAX,
    );
    assert_eq!(picked.json, br#"{"jobs":["a"]}"#);
    assert_eq!(picked.notes, ["jobs: 2 items left out"]);
    let whole = shaped(
        r#"{"a":[1,2,3],"b":[[1,2,3]]}"#,
        r#"{"max_items":2}"#,
        usize::MAX,
    );
    assert_eq!(whole.json, br#"{"a":[1,2],"b":[[1,2]]}"#);
    assert_eq!(whole.notes, ["/a: 2 of 3 items", "/b/0: 2 of 3 items"]);
}

#[test]
fn a_long_result_loses_tails_and_stays_json() {
    let items: Vec<String> = (0..1000)
        .map(|i| format!(r#"{{"n":{i},"t":["x","y"]}}"#))
        .collect();
    let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
    let shaped = shaped(&body, "{}", 4096);
    assert!(!shaped.cut && shaped.object && shaped.json.len() <= 4096);
    let value: serde_json::Value = serde_json::from_slice(&shaped.json).unwrap();
    let kept = value["items"].as_array().unwrap();
    assert!(kept.len() >= 62, "{}", kept.len());
    assert_eq!(kept[0]["t"].as_array().unwrap().len(), 2);
    assert_eq!(
        shaped.notes,
        [format!("/items: {} of 1000 items", kept.len())]
    );
}

#[test]
fn one_long_string_is_cut_at_a_character_and_it_is_said() {
    let shaped = shaped(&format!("\"{}\"", "é".repeat(100)), "{}", 50);
    assert!(shaped.cut);
    assert!(std::str::from_utf8(&shaped.json).is_ok_and(|t| t.len() <= 50));
    assert_eq!(shaped.notes.len(), 1);
}

#[test]
fn a_wide_number_is_named_only_where_it_is_written() {
    let body = r#"{"a":{"b~":[0,12345678901234567890123]},"c":1}"#;
    assert_eq!(shaped(body, "{}", 999).wide.unwrap(), "/a/b~0/1");
    assert_eq!(
        shaped(body, r#"{"pick":[{"from":"c","to":"c"}]}"#, 999).wide,
        None
    );
    assert!(text(body, "{}").contains("12345678901234567890123"));
}

#[test]
fn further_pages_continue_one_array() {
    let first = parse(br#"{"n":1,"items":[{"a":1},{"a":2}],"other":[9]}"#).unwrap();
    let others = [
        parse(br#"{"n":2,"items":[{"a":3}],"other":[8]}"#).unwrap(),
        parse(br#"{"items":null}"#).unwrap(),
        parse(br#"{"items":[{"a":4}]}"#).unwrap(),
    ];
    let source = Source::paged(&first, &others, &JsonPath::parse("items").unwrap());
    let whole = shape(&source, &Response::default(), 999, &mut Room::unbounded()).unwrap();
    assert_eq!(
        String::from_utf8(whole.json).unwrap(),
        r#"{"n":1,"items":[{"a":1},{"a":2},{"a":3},{"a":4}],"other":[9]}"#
    );
    let spec =
        response(r#"{"pick":[{"from":"items[*].a","to":"a[*]"},{"from":"items[3].a","to":"d"}]}"#);
    let picked = shape(&source, &spec, 999, &mut Room::unbounded()).unwrap();
    assert_eq!(picked.json, br#"{"a":[1,2,3,4],"d":4}"#);
}

#[test]
fn picked_rows_stay_within_the_room() {
    let doc = parse(r#"{"l":[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6}]}"#).unwrap();
    for pick in [
        r#"{"pick":[{"from":"l[*].a","to":"a"}]}"#,
        r#"{"pick":[{"from":"l[*].a","to":"r[*].a"},{"from":"l[*].b","to":"r[*].b"}]}"#,
    ] {
        let run = |bytes| {
            let mut room = Room::new(bytes);
            shape(&Source::single(&doc), &response(pick), 999, &mut room).map(|s| s.json)
        };
        let smallest = (0..4096).find(|bytes| run(*bytes).is_ok()).unwrap();
        let cell = size_of::<Out<'_, '_>>() as u64;
        assert!(smallest >= 4 * cell, "{smallest}");
        assert!((smallest..4096).all(|bytes| run(bytes) == run(4096)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_bound_holds_and_uncut_text_is_json(
        items in prop::collection::vec("[a-zé\"\\\\]{0,20}", 0..40), max in 2usize..400, cap in 1u32..50,
    ) {
        let body = serde_json::json!({"l": items, "n": {"m": items}}).to_string();
        let shaped = shaped(&body, &format!(r#"{{"max_items":{cap}}}"#), max);
        prop_assert!(shaped.json.len() <= max);
        prop_assert!(std::str::from_utf8(&shaped.json).is_ok());
        let whole = serde_json::from_slice::<serde_json::Value>(&shaped.json).is_ok();
        prop_assert_eq!(whole, !shaped.cut);
        if shaped.json.len() < body.len() {
            prop_assert!(!shaped.notes.is_empty());
        }
    }
}
