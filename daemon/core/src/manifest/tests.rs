#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use serde_json::{Value, json};

use super::*;

/// A tool of a test module: GET, no arguments but an optional `q`.
pub(crate) fn tool(name: &str, access: &str) -> Value {
    json!({
        "name": name, "title": "T", "description": "d", "access": access, "input_schema": "schemas/in.json",
        "http": {"slot": "api", "method": "GET", "path": "/api/x", "query": [{"name": "q", "value": "{q}"}]},
    })
}

/// A module of tools.
pub(crate) fn module(name: &str, tools: &[Value]) -> Value {
    json!({
        "name": name, "title": "M", "description": "d", "version": "1.0.0", "kind": "http",
        "slots": [{"name": "api", "auth": ["bearer"], "hosts": ["web.example"]}], "tools": tools,
    })
}

/// A manifest of modules, all with one schema.
pub(crate) fn manifest(modules: &[Value]) -> Value {
    json!({
        "format": 1, "namespace": "acme", "name": "web", "sequence": 3, "audience": ["site-1"],
        "created": 1_760_000_000_u64, "not_after": 1_790_000_000_u64, "modules": modules,
        "blobs": [{"path": "schemas/in.json", "digest": Digest::of(SCHEMA).to_string(), "length": SCHEMA.len()}],
    })
}

/// The schema that these tools share.
pub(crate) const SCHEMA: &[u8] = br#"{
  "type": "object",
  "properties": { "q": { "type": "string", "description": "a \"q\"\n" } },
  "additionalProperties": false
}"#;

fn sample() -> Value {
    manifest(&[module("web", &[tool("get", "read"), tool("put", "write")])])
}

pub(crate) fn parse(value: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(&serde_json::to_vec(value).unwrap())
}

/// The sample with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Result<Manifest, ManifestError> {
    let mut out = sample();
    *out.pointer_mut(pointer).unwrap() = value;
    parse(&out)
}

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    let manifest = parse(&sample()).unwrap();
    let again = Manifest::parse(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(manifest.modules[0].limits, Limits::default());
    let module = serde_json::to_vec(&manifest.modules[0]).unwrap();
    assert_eq!(ModuleManifest::parse(&module).unwrap(), manifest.modules[0]);
}

#[test]
fn a_key_twice_is_refused_at_every_level() {
    let text = serde_json::to_string(&sample()).unwrap();
    for (key, twice) in [
        ("\"format\":1", "\"format\":1,\"format\":1"),
        (
            "\"version\":\"1.0.0\"",
            "\"version\":\"1.0.0\",\"version\":\"2\"",
        ),
        (
            "\"access\":\"read\"",
            "\"access\":\"read\",\"access\":\"destructive\"",
        ),
        (
            "\"method\":\"GET\"",
            "\"method\":\"GET\",\"method\":\"DELETE\"",
        ),
        ("\"length\":", "\"length\":1,\"length\":"),
    ] {
        assert!(text.contains(key));
        let bent = text.replacen(key, twice, 1);
        assert!(
            matches!(
                Manifest::parse(bent.as_bytes()),
                Err(ManifestError::Json(_))
            ),
            "{key}"
        );
    }
}

#[test]
fn an_unknown_field_is_refused_at_every_level() {
    for place in [
        "",
        "/modules/0",
        "/modules/0/slots/0",
        "/modules/0/tools/0",
        "/modules/0/tools/0/http",
        "/blobs/0",
    ] {
        let mut value = sample();
        value.pointer_mut(place).unwrap()["surprise"] = json!(1);
        assert!(
            matches!(parse(&value), Err(ManifestError::Json(_))),
            "{place}"
        );
    }
}

#[test]
fn bytes_that_are_no_manifest_are_refused() {
    for bad in [&b""[..], b"null", b"[]", b"{}", b"\xff", b"{\"format\":1}"] {
        assert!(matches!(Manifest::parse(bad), Err(ManifestError::Json(_))));
    }
    let mut trailing = serde_json::to_vec(&sample()).unwrap();
    trailing.push(b'{');
    assert!(Manifest::parse(&trailing).is_err());
    let huge = vec![b' '; MAX_MANIFEST + 1];
    assert_eq!(
        Manifest::parse(&huge),
        Err(ManifestError::TooLong(huge.len()))
    );
    assert_eq!(with("/format", json!(2)), Err(ManifestError::Format(2)));
}

#[test]
fn values_out_of_bounds_are_named() {
    for (pointer, value) in [
        ("/sequence", json!(0)),
        ("/audience", json!([])),
        ("/not_after", json!(1_760_000_000_u64)),
        ("/modules", json!([])),
        ("/blobs/0/length", json!(MAX_BLOB + 1)),
        ("/modules/0/title", json!("a\u{1b}b")),
        ("/modules/0/description", json!("a".repeat(4097))),
        ("/modules/0/version", json!("")),
        ("/modules/0/tools", json!([])),
        ("/modules/0/slots/0/auth", json!([])),
        ("/modules/0/slots/0/hosts", json!(["a b"])),
    ] {
        assert!(
            matches!(with(pointer, value), Err(ManifestError::Value { .. })),
            "{pointer}"
        );
    }
    for (limit, value) in [
        ("deadline_ms", 0_u64),
        ("requests", 65),
        ("client_bytes", 1 << 21),
        ("concurrency", 0),
        ("memory_bytes", 1),
        ("upstream_bytes", 1),
    ] {
        let mut value_with = sample();
        value_with["modules"][0]["limits"] = json!({ limit: value });
        assert!(
            matches!(parse(&value_with), Err(ManifestError::Value { what, .. }) if what == limit),
            "{limit}"
        );
    }
}

#[test]
fn only_a_tool_that_reads_has_pages() {
    for access in ["read", "write", "destructive"] {
        let mut tool = tool("t", access);
        tool["http"]["pages"] = json!({ "count": {
            "query": "page", "first": 1, "step": 1, "items": "items", "pages": 2 } });
        match parse(&manifest(&[module("m", &[tool])])) {
            Ok(_) => assert_eq!(access, "read"),
            Err(error) => {
                assert_ne!(access, "read");
                assert!(
                    error.to_string().starts_with("m/t: pages must be"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn what_a_bundle_takes_in_memory_is_bounded() {
    let modules = |count: usize, tools: usize| -> Vec<Value> {
        let tools: Vec<Value> = (0..tools).map(|n| tool(&format!("t{n}"), "read")).collect();
        let module = |n| module(&format!("m{n}"), &tools);
        (0..count).map(module).collect()
    };
    let refused = |count, tools, length: u64| {
        let mut value = manifest(&modules(count, tools));
        value["blobs"][0]["length"] = json!(length);
        match parse(&value) {
            Ok(_) => None,
            Err(ManifestError::Value { what, .. }) => Some(what),
            Err(other) => panic!("{other}"),
        }
    };
    // Half of a site of 500 modules and 10,000 tools.
    assert_eq!(refused(250, 20, 3 << 10), None);
    assert_eq!(refused(256, 41, 17), Some("tools"));
    assert_eq!(refused(1, 1, MAX_BLOB), None);
    assert_eq!(refused(1, 1, MAX_BLOB + 1), Some("blob length"));
    assert_eq!(refused(1, 64, MAX_BLOB), None);
    // One schema for all of them is as much as one for each.
    assert_eq!(refused(1, 65, MAX_BLOB), Some("schemas"));
    // Named as input and as output.
    let mut twice = manifest(&modules(1, 33));
    twice["blobs"][0]["length"] = json!(MAX_BLOB);
    for tool in twice["modules"][0]["tools"].as_array_mut().unwrap() {
        tool["output_schema"] = tool["input_schema"].clone();
    }
    assert!(matches!(
        parse(&twice),
        Err(ManifestError::Value {
            what: "schemas",
            ..
        })
    ));
}

#[test]
fn a_module_names_each_blob_once() {
    let manifest = parse(&sample()).unwrap();
    assert_eq!(manifest.modules[0].tools.len(), 2);
    assert_eq!(manifest.modules[0].blobs().count(), 1);
}

#[test]
fn names_are_unique() {
    for (pointer, list) in [
        ("/audience", json!(["site-1", "site-1"])),
        (
            "/modules",
            json!([
                module("web", &[tool("get", "read")]),
                module("web", &[tool("get", "read")])
            ]),
        ),
        (
            "/modules/0/tools",
            json!([tool("get", "read"), tool("get", "write")]),
        ),
        (
            "/modules/0/slots",
            json!([{"name": "api", "auth": ["bearer"]}, {"name": "api", "auth": ["basic"]}]),
        ),
    ] {
        assert!(
            matches!(with(pointer, list), Err(ManifestError::Twice { .. })),
            "{pointer}"
        );
    }
    let mut blobs = sample();
    let blob = blobs["blobs"][0].clone();
    blobs["blobs"].as_array_mut().unwrap().push(blob);
    assert!(matches!(parse(&blobs), Err(ManifestError::Twice { .. })));
}

#[test]
fn what_is_named_exists_and_what_exists_is_named() {
    assert!(matches!(
        with("/modules/0/tools/0/http/slot", json!("other")),
        Err(ManifestError::NoSlot { .. })
    ));
    assert!(matches!(
        with("/modules/0/tools/0/input_schema", json!("x")),
        Err(ManifestError::NoBlob(_))
    ));
    let mut spare = sample();
    let mut blob = spare["blobs"][0].clone();
    blob["path"] = json!("spare");
    spare["blobs"].as_array_mut().unwrap().push(blob);
    assert!(matches!(parse(&spare), Err(ManifestError::SpareBlob(_))));
    let reserved = json!([{"name": "cookie", "value": "x"}]);
    let mut request = sample();
    request["modules"][0]["tools"][0]["http"]["headers"] = reserved;
    assert!(matches!(
        parse(&request),
        Err(ManifestError::Request { .. })
    ));
}

#[test]
fn a_blob_path_cannot_leave_its_folder() {
    for good in ["a", "schemas/in.json", "a_b-c.1/x"] {
        assert!(BlobPath::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/.",
        ".hidden",
        "A",
        "a b",
        "a\\b",
        "a\0",
        "é",
        "c:x",
        &"a/".repeat(101),
    ] {
        assert!(BlobPath::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn holes_fit_the_input_schema() {
    let tool_with = |path: &str, recordable: &[&str]| -> ToolManifest {
        let mut value = tool("get", "read");
        value["http"]["path"] = json!(path);
        value["recordable"] = json!(recordable);
        serde_json::from_value(value).unwrap()
    };
    let schema = |required: &[&str], kind: &str| {
        let properties = json!({"q": {"type": "string"}, "id": {"type": kind}});
        serde_json::to_vec(
            &json!({"type": "object", "properties": properties, "required": required}),
        )
        .unwrap()
    };
    let path = tool_with("/x/{id}", &["q"]);
    assert_eq!(fit(&path, &schema(&["id"], "integer")), Ok(()));
    assert!(matches!(
        fit(&path, &schema(&[], "string")),
        Err(FitError::NotRequired(_))
    ));
    assert!(matches!(
        fit(&path, &schema(&["id"], "array")),
        Err(FitError::NotPlain(_))
    ));
    assert!(matches!(
        fit(&tool_with("/x/{no}", &[]), &schema(&[], "string")),
        Err(FitError::NoProperty(_))
    ));
    assert!(matches!(
        fit(&tool_with("/x", &["no"]), &schema(&[], "string")),
        Err(FitError::Recordable(_))
    ));
    assert_eq!(fit(&path, b"true"), Err(FitError::NotObject));
    assert!(matches!(fit(&path, b"{"), Err(FitError::NotJson(_))));
    assert_eq!(fit(&tool_with("/x", &["q"]), SCHEMA), Ok(()));
}
