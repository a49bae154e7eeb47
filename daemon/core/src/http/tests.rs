#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tool(value: serde_json::Value) -> HttpTool {
    serde_json::from_value(value).unwrap()
}

fn minimal() -> serde_json::Value {
    json!({"slot": "api", "method": "GET", "path": "/api/v1/items/{id}"})
}

/// The minimal request with one more member.
fn with(member: &str, value: serde_json::Value) -> HttpTool {
    let mut out = minimal();
    out[member] = value;
    tool(out)
}

#[test]
fn a_full_request_reads_back_as_it_was_written() {
    let written = json!({
        "slot": "api", "method": "POST", "path": "/a/{id}/",
        "query": [{"name": "match[]", "value": "{series}"}],
        "headers": [{"name": "x-scope", "value": "org {org}"}],
        "body": {"json": {"q": "{query}", "text": "up to {n}", "brace": "{{}}", "fixed": [1, true, null]}},
        "response": {"pick": [{"from": "data[*].id", "to": "items[*].id", "max_items": 5}], "max_items": 10},
        "errors": [{"status": 422, "pick": "error"}],
        "pages": {"cursor": {"query": "after", "next": "meta.next", "items": "data", "pages": 3}},
    });
    let parsed = tool(written.clone());
    parsed.check().unwrap();
    assert_eq!(serde_json::to_value(&parsed).unwrap(), written);
    let holes: Vec<_> = parsed.holes().map(ArgName::as_str).collect();
    assert_eq!(holes, ["id", "series", "org", "query", "n"]);
}

#[test]
fn an_unknown_member_is_refused() {
    let mut value = minimal();
    value["redirects"] = json!(true);
    assert!(serde_json::from_value::<HttpTool>(value).is_err());
}

#[test]
fn a_module_sets_no_header_that_carries_a_credential_or_frames_the_message() {
    for name in [
        "authorization",
        "cookie",
        "host",
        "proxy-authorization",
        "transfer-encoding",
        "content-length",
    ] {
        let tool = with("headers", json!([{"name": name, "value": "x"}]));
        assert_eq!(
            tool.check(),
            Err(HttpError::ReservedHeader(name.to_owned()))
        );
    }
    // Another spelling is no way around.
    for name in ["Authorization", "X-Upper", "a b", "a:b", "a\r\nb", ""] {
        let tool = with("headers", json!([{"name": name, "value": "x"}]));
        assert!(
            matches!(tool.check(), Err(HttpError::Name { .. })),
            "{name:?}"
        );
    }
    for name in ["authorization", "content-length", "x-forwarded-for"] {
        for spelled in [name.to_uppercase(), name.replace('-', "_")] {
            assert!(is_reserved_header(&spelled), "{spelled}");
        }
    }
    let twice = json!([{"name": "x-a", "value": "1"}, {"name": "x-a", "value": "2"}]);
    assert!(matches!(
        with("headers", twice).check(),
        Err(HttpError::Twice { .. })
    ));
    let value = json!([{"name": "x-a", "value": "é"}]);
    assert!(matches!(
        with("headers", value).check(),
        Err(HttpError::HeaderValue(_))
    ));
}

#[test]
fn a_module_undoes_neither_method_nor_path_nor_peer() {
    for name in [
        "client-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-prefix",
        "x-host",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-host",
        "x-original-method",
        "x-original-uri",
        "x-original-url",
        "x-override-url",
        "x-real-ip",
        "x-remote-user",
        "x-rewrite-url",
    ] {
        // Upper case is no token here, `_` is the same to many services.
        for (spelled, reserved) in [
            (name.to_owned(), true),
            (name.replace('-', "_"), true),
            (name.to_uppercase(), false),
        ] {
            let tool = with("headers", json!([{"name": spelled, "value": "DELETE"}]));
            match tool.check() {
                Err(HttpError::ReservedHeader(found)) if reserved => assert_eq!(found, spelled),
                Err(HttpError::Name { .. }) if !reserved => {}
                other => panic!("{spelled}: {other:?}"),
            }
        }
    }
    let method = json!([{"name": "_method", "value": "DELETE"}]);
    for tool in [
        with("query", method.clone()),
        HttpTool {
            method: Method::Post,
            ..with("body", json!({"form": method}))
        },
    ] {
        assert!(matches!(tool.check(), Err(HttpError::Name { .. })));
    }
    let plain =
        json!([{"name": "x-request-id", "value": "1"}, {"name": "x-org_name", "value": "1"}]);
    with("headers", plain).check().unwrap();
}

#[test]
fn a_read_carries_no_body() {
    assert_eq!(
        with("body", json!({"json": {}})).check(),
        Err(HttpError::BodyOn(Method::Get))
    );
}

#[test]
fn picks_must_be_placed_apart() {
    let check = |picks: serde_json::Value| with("response", json!({"pick": picks})).check();
    assert!(check(json!([{"from": "a[*].b[*]", "to": "flat"}])).is_ok());
    assert!(
        check(json!([{"from": "a[*].b", "to": "x[*].b"}, {"from": "a[*].c", "to": "x[*].c"}]))
            .is_ok()
    );
    for (from, to) in [
        ("a[*].b[*]", "x[*]"),
        ("a", "x[*]"),
        ("a", "x[0]"),
        ("a", "$"),
        ("a[*]", "[*]"),
    ] {
        let result = check(json!([{"from": from, "to": to}]));
        assert!(
            matches!(result, Err(HttpError::PickTo(_))),
            "{from} to {to}"
        );
    }
    for (one, two) in [("x", "x"), ("x", "x.y"), ("x[*].a", "x.a")] {
        let picks = json!([{"from": "a[*]", "to": one}, {"from": "b[*]", "to": two}]);
        assert!(
            matches!(check(picks), Err(HttpError::PickOverlap(..))),
            "{one} and {two}"
        );
    }
    let text = with("response", json!({"text": true, "max_items": 3}));
    assert_eq!(text.check(), Err(HttpError::TextShaped));
}

#[test]
fn counts_and_statuses_have_bounds() {
    let pages = |pages: u32| {
        with(
            "pages",
            json!({"count": {"query": "p", "first": 0, "step": 1, "items": "d", "pages": pages}}),
        )
    };
    assert!(pages(3).check().is_ok());
    assert!(pages(0).check().is_err() && pages(MAX_PAGES + 1).check().is_err());
    let status = |status: u16| with("errors", json!([{"status": status, "pick": "message"}]));
    assert!(status(404).check().is_ok());
    assert!(status(200).check().is_err() && status(600).check().is_err());
    let many = with("errors", json!([{"status": 404, "pick": "a[*]"}]));
    assert!(matches!(many.check(), Err(HttpError::ManyPlaces(_))));
    let query: Vec<_> = (0..=MAX_ITEMS)
        .map(|i| json!({"name": format!("q{i}"), "value": "x"}))
        .collect();
    assert!(matches!(
        with("query", json!(query)).check(),
        Err(HttpError::TooMany { .. })
    ));
}

#[test]
fn the_page_parameter_is_not_the_modules_own() {
    let mut value = minimal();
    value["query"] = json!([{"name": "p", "value": "7"}]);
    value["pages"] =
        json!({"count": {"query": "p", "first": 0, "step": 1, "items": "d", "pages": 2}});
    assert!(matches!(tool(value).check(), Err(HttpError::Twice { .. })));
}

#[test]
fn templates_say_what_is_literal_and_what_is_not() {
    let template = Template::parse("a{{b}}{x}{y}").unwrap();
    let pieces = [
        Piece::Literal("a{b}".to_owned()),
        Piece::Hole(ArgName::parse("x").unwrap()),
        Piece::Hole(ArgName::parse("y").unwrap()),
    ];
    assert_eq!(template.pieces(), pieces);
    assert_eq!(
        Template::parse("{x}").unwrap().whole().unwrap().as_str(),
        "x"
    );
    assert!(Template::parse("{x} ").unwrap().whole().is_none());
    assert_eq!(Template::parse("{{x}}").unwrap().literal(), Some("{x}"));
    for bad in [
        "{", "}", "{}", "{a", "a}", "{a b}", "{a{b}}", "{{a}", "{a}}", "x\ny", "\u{0}",
    ] {
        assert!(Template::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_path_template_has_no_segment_that_a_server_could_read_otherwise() {
    for good in [
        "/",
        "/a",
        "/a/",
        "/a/{id}",
        "/a/{id}.json",
        "/{a}{b}/c~d",
        "/a:b@c",
        "/a/{{",
        "/x/...",
    ] {
        // A brace is no path character, escaped or not.
        assert_eq!(PathTemplate::parse(good).is_ok(), good != "/a/{{", "{good}");
    }
    for bad in [
        "", "a", "//", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%2e", "/a%2fb", "/a?b", "/a#b",
        "/a\\b", "/a b", "/é",
    ] {
        assert!(PathTemplate::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(PathTemplate::parse("/a/").unwrap().segments().len(), 2);
}

#[test]
fn a_json_body_has_no_key_twice_and_a_bounded_depth() {
    let parse = |text: &str| serde_json::from_str::<JsonTemplate>(text);
    assert!(parse(r#"{"a": 1, "a": 2}"#).is_err());
    assert!(parse(r#"{"a": {"b": 1, "b": 2}}"#).is_err());
    assert!(parse(&format!("{}1{}", "[".repeat(16), "]".repeat(16))).is_ok());
    assert!(parse(&format!("{}1{}", "[".repeat(18), "]".repeat(18))).is_err());
    assert!(parse(&format!("[{}1]", "1,".repeat(1024))).is_err());
    assert!(parse(r#"{"a": "{b"}"#).is_err());
    assert_eq!(
        parse(r#""{a}""#).unwrap(),
        JsonTemplate::Hole(ArgName::parse("a").unwrap())
    );
}

#[test]
fn json_paths_read_in_one_way() {
    let path = JsonPath::parse(r#"data.result[*].metric["app/name"][0].*"#).unwrap();
    let name = |n: &str| Step::Name(n.to_owned());
    let steps = [
        name("data"),
        name("result"),
        Step::Each,
        name("metric"),
        name("app/name"),
        Step::Index(0),
        Step::Each,
    ];
    assert_eq!(path.steps(), steps);
    assert_eq!(
        path.to_string(),
        r#"data.result[*].metric["app/name"][0][*]"#
    );
    assert!(JsonPath::parse("$").unwrap().steps().is_empty());
    for bad in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a[",
        "a[]",
        "a[01]",
        "a[-1]",
        "a[x]",
        "a[4294967296]",
        "[\"a]",
        "a b",
        "a[\"\\\"]",
        "a[0]b",
        "$.a",
        "a.$",
    ] {
        assert!(JsonPath::parse(bad).is_err(), "{bad}");
    }
    assert!(JsonPath::parse(&vec!["a"; 33].join(".")).is_err());
    assert!(JsonPath::parse(&vec!["a"; 32].join(".")).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_parses_is_written_back_to_the_same(text in "[a{}x/.\\[\\]*0\"$ ]{0,12}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(&template.to_string(), &text);
        }
        if let Ok(path) = PathTemplate::parse(&format!("/{text}")) {
            prop_assert_eq!(path.to_string(), format!("/{text}"));
            prop_assert!(path.segments().iter().all(|s| !matches!(s.literal(), Some("." | ".."))));
        }
        if let Ok(path) = JsonPath::parse(&text) {
            prop_assert_eq!(JsonPath::parse(&path.to_string()).unwrap(), path);
        }
    }

    #[test]
    fn literal_text_survives_escaping(text in "[a-z{}]{0,20}") {
        let escaped = text.replace('{', "{{").replace('}', "}}");
        let template = Template::parse(&escaped).unwrap();
        prop_assert_eq!(template.literal(), Some(text.as_str()));
    }
}
