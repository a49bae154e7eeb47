#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use proptest::prelude::*;
use serde_json::json;

use super::*;

pub(crate) const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

/// A valid binding, as JSON, to be bent by tests.
pub(crate) fn sample() -> serde_json::Value {
    json!({
        "name": "web-main", "vault": "ops", "credential": "web-token",
        "scheme": "https", "host": "web.example", "port": 443, "path_prefix": "/api",
        "methods": ["GET", "POST"], "trust": {"ca": PEM}, "inject": "bearer",
    })
}

/// The sample with some members replaced.
pub(crate) fn with(members: serde_json::Value) -> Result<Binding, String> {
    let mut value = sample();
    for (key, member) in members.as_object().unwrap() {
        value[key] = member.clone();
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[test]
fn a_binding_reads_back_as_it_was_written() {
    let binding = with(json!({})).unwrap();
    assert_eq!(serde_json::to_value(&binding).unwrap(), sample());
}

#[test]
fn scheme_and_trust_go_together() {
    assert!(with(json!({"scheme": "http", "trust": "none"})).is_ok());
    assert!(with(json!({"trust": {"pin": "00".repeat(32)}})).is_ok());
    for bad in [
        json!({"trust": "none"}),
        json!({"scheme": "http"}),
        json!({"scheme": "ftp"}),
        json!({"trust": {"ca": ""}}),
        json!({"trust": {"ca": "not pem"}}),
        json!({"trust": {"ca": format!("{PEM}-----BEGIN PRIVATE KEY-----")}}),
        json!({"trust": {"ca": PEM.repeat(2000)}}),
    ] {
        assert!(with(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn a_binding_that_would_allow_nothing_or_frame_a_message_is_refused() {
    for bad in [
        json!({"port": 0}),
        json!({"methods": []}),
        json!({"methods": ["GET", "GET"]}),
        json!({"methods": ["get"]}),
        json!({"inject": {"header": {"name": "host"}}}),
        json!({"inject": {"header": {"name": "transfer-encoding"}}}),
        json!({"inject": {"header": {"name": "X-Key"}}}),
        json!({"inject": {"query": {"name": ""}}}),
        json!({"surprise": 1}),
    ] {
        assert!(with(bad.clone()).is_err(), "{bad}");
    }
    for good in ["x-api-key", "authorization", "cookie", "private-token"] {
        assert!(
            with(json!({"inject": {"header": {"name": good}}})).is_ok(),
            "{good}"
        );
    }
}

#[test]
fn hosts_have_one_spelling() {
    for good in [
        "web.example",
        "a",
        "web_1",
        "10.0.0.1",
        "::1",
        "fd00::1",
        "xn--bcher-kva.example",
    ] {
        assert!(HostName::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "Web.example",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "010.0.0.1",
        "1.2.3.4.5",
        "[::1]",
        "::0001",
        "FD00::1",
        "fe80::1%eth0",
        "::ffff:7f00:1",
        "a b",
        "a/b",
        "a:80",
        "user@a",
        "bücher.example",
        "-a",
        "a-",
        &"a".repeat(64),
        "*.example",
    ] {
        assert!(HostName::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(HostName::parse("::1").unwrap().authority(), "[::1]");
    assert_eq!(HostName::parse("10.0.0.1").unwrap().authority(), "10.0.0.1");
}

#[test]
fn prefixes_have_one_spelling() {
    for good in ["/", "/api", "/api/v1.2", "/a/..."] {
        assert!(PathPrefix::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "", "api", "/api/", "//", "/a//b", "/a/..", "/.", "/a%2fb", "/a?x", "/a#x", "/a b",
    ] {
        assert!(PathPrefix::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn methods_are_a_closed_list() {
    let binding = with(json!({})).unwrap();
    assert!(binding.permits(Method::Get, "/api").is_ok());
    assert_eq!(
        binding.permits(Method::Delete, "/api"),
        Err(BindingRefusal::Method(Method::Delete))
    );
    // HEAD is not GET.
    assert_eq!(
        binding.permits(Method::Head, "/api"),
        Err(BindingRefusal::Method(Method::Head))
    );
}

#[test]
fn a_prefix_ends_on_a_segment_border() {
    let binding = with(json!({})).unwrap();
    for good in [
        "/api",
        "/api/",
        "/api/a",
        "/api/a%20b/c",
        "/api/100%25",
        "/api/a%3bb",
        "/api/;v=1".trim_end_matches(";v=1"),
        "/api/a;v=1",
    ] {
        assert!(binding.permits(Method::Get, good).is_ok(), "{good}");
    }
    for outside in ["/", "/apix", "/API/a", "/ap", "/%61pi/a", "/x/api"] {
        assert_eq!(
            binding.permits(Method::Get, outside),
            Err(BindingRefusal::Prefix),
            "{outside}"
        );
    }
    let root = with(json!({"path_prefix": "/"})).unwrap();
    assert!(root.permits(Method::Get, "/").is_ok() && root.permits(Method::Get, "/x").is_ok());
}

#[test]
fn a_path_that_could_climb_is_refused() {
    let binding = with(json!({})).unwrap();
    for (path, fault) in [
        ("/api/../admin", PathFault::DotSegment),
        ("/api/..", PathFault::DotSegment),
        ("/api/.", PathFault::DotSegment),
        ("/api/./a", PathFault::DotSegment),
        ("/api/..;x/admin", PathFault::DotSegment),
        ("/api/..;/admin", PathFault::DotSegment),
        ("/api/;x/..", PathFault::EmptySegment),
        ("/api//admin", PathFault::EmptySegment),
        ("//host/api", PathFault::EmptySegment),
        ("/api/%2e%2e/admin", PathFault::Encoded),
        ("/api/.%2E/admin", PathFault::Encoded),
        ("/api/a%2fb", PathFault::Encoded),
        ("/api/a%2Fb", PathFault::Encoded),
        ("/api/a%5cb", PathFault::Encoded),
        ("/api/a%00", PathFault::Encoded),
        ("/api/a%0d%0a", PathFault::Encoded),
        ("/api/%252e%252e/admin", PathFault::Encoded),
        ("/api/%25%32%65%25%32%65/admin", PathFault::Encoded),
        ("/api/..%3bx/admin", PathFault::DotSegment),
        ("/api/%3bx/admin", PathFault::EmptySegment),
        ("/api/a\\b", PathFault::Byte),
        ("/api/a?b", PathFault::Byte),
        ("/api/a#b", PathFault::Byte),
        ("/api/a b", PathFault::Byte),
        ("/api/a\r\nHost: x", PathFault::Byte),
        ("/api/é", PathFault::Byte),
        ("/api/%", PathFault::Percent),
        ("/api/%2", PathFault::Percent),
        ("/api/%zz", PathFault::Percent),
        ("api", PathFault::NotAbsolute),
        ("", PathFault::NotAbsolute),
        ("http://web.example/api", PathFault::NotAbsolute),
    ] {
        assert_eq!(
            binding.permits(Method::Get, path),
            Err(BindingRefusal::Path(fault)),
            "{path}"
        );
    }
    let long = format!("/api/{}", "a".repeat(8 * 1024));
    assert_eq!(
        binding.permits(Method::Get, &long),
        Err(BindingRefusal::Path(PathFault::TooLong))
    );
}

/// How an unkind server finds the resource: decodes (once or twice), treats `\` as `/`, drops path
/// parameters, merges slashes and resolves dots.
fn served(path: &str, decodings: usize) -> String {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..decodings {
        let mut out = Vec::new();
        let mut rest = &bytes[..];
        while let Some((byte, after)) = rest.split_first() {
            let pair = after.get(..2).and_then(|p| hex::decode(p).ok());
            match (byte, pair) {
                (b'%', Some(pair)) => {
                    out.extend(pair);
                    rest = &after[2..];
                }
                _ => {
                    out.push(*byte);
                    rest = after;
                }
            }
        }
        bytes = out;
    }
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_owned()),
        }
    }
    format!("/{}", segments.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_permitted_stays_inside_on_an_unkind_server(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", "a", "api", "%25", "2e", "%61", "%32%65", "%3b", "%", "?", "#", "b;c",
            ]),
            0..10,
        )
    ) {
        let path = format!("/api{}", pieces.concat());
        let binding = with(json!({})).unwrap();
        if binding.permits(Method::Get, &path).is_ok() {
            for decodings in 0..=2 {
                let served = served(&path, decodings);
                prop_assert!(served == "/api" || served.starts_with("/api/"), "{} is served as {}", path, served);
            }
        }
    }

    #[test]
    fn plain_paths_below_the_prefix_are_permitted(tail in "(/[a-zA-Z0-9_~-]{1,8}){0,5}/?") {
        let binding = with(json!({})).unwrap();
        let path = format!("/api{tail}");
        prop_assert!(binding.permits(Method::Get, &path).is_ok());
    }
}
