#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

mod work;

fn compile(schema: &Value) -> Result<Validator, SchemaError> {
    Validator::compile(schema.to_string().as_bytes())
}

fn refused(schema: &Value) -> String {
    compile(schema).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_match_and_a_mismatch() {
    let schema = compile(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://acme.example/query",
        "type": "object",
        "properties": {
            "query": {"type": "string", "pattern": "^[a-z]+$"},
            "step": {"$ref": "#/$defs/step"}
        },
        "required": ["query"],
        "additionalProperties": false,
        "$defs": {"step": {"type": "integer", "minimum": 1}}
    }))
    .unwrap();
    assert_eq!(schema.check(&json!({"query": "up", "step": 5})), Ok(()));
    for (value, path, word) in [
        (json!({}), "", "query"),
        (json!({"query": "up", "step": 0}), "/step", "minimum"),
        (json!({"query": 5}), "/query", "string"),
        (json!({"query": "up", "more": 1}), "", "dditional"),
    ] {
        let violation = schema.check(&value).unwrap_err();
        assert_eq!(violation.path.as_str(), path, "{violation}");
        assert!(violation.rule.contains(word), "{violation}");
    }
}

#[test]
fn a_violation_never_repeats_the_value() {
    let schema = compile(&json!({
        "type": "object",
        "properties": {
            "p": {"pattern": "^a$"}, "e": {"enum": ["x"]}, "c": {"const": 1},
            "m": {"maxLength": 3}, "t": {"type": "integer"}, "n": {"not": {"type": "string"}},
            "o": {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
            "u": {"type": "array", "uniqueItems": true}
        }
    }))
    .unwrap();
    for name in ["p", "e", "c", "m", "t", "n", "o"] {
        let violation = schema.check(&json!({name: "hunter2-secret"})).unwrap_err();
        assert!(!violation.to_string().contains("hunter2"), "{violation}");
        assert_eq!(violation.path.as_str(), format!("/{name}"));
    }
    let violation = schema
        .check(&json!({"u": ["hunter2", "hunter2"]}))
        .unwrap_err();
    assert!(!violation.to_string().contains("hunter2"), "{violation}");
}

#[test]
fn a_hostile_member_name_is_bounded_and_escaped() {
    let schema = compile(&json!({
        "type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1
    }))
    .unwrap();
    let name = "\u{1b}[2J\u{202e}".repeat(500);
    let violation = schema.check(&json!({name: "x"})).unwrap_err().to_string();
    assert!(
        violation.len() < 600 && !violation.contains('\u{1b}'),
        "{violation}"
    );
}

#[test]
fn no_reference_leaves_the_document() {
    for reference in [
        "https://acme.example/other.json",
        "file:///etc/passwd",
        "other.json#/$defs/a",
        "#anchor",
        "#/$defs/missing",
        "#/%24defs/a",
    ] {
        let text = refused(&json!({
            "type": "object",
            "properties": {"a": {"$ref": reference}},
            "$defs": {"a": {"type": "string"}}
        }));
        assert!(text.contains("$ref"), "{reference}: {text}");
    }
    // In a definition that nothing uses, too.
    refused(&json!({"type": "object", "$defs": {"a": {"$ref": "https://acme.example/"}}}));
}

#[test]
fn dynamic_references_and_inner_documents_are_refused() {
    for inner in [
        json!({"$dynamicRef": "#node"}),
        json!({"$dynamicAnchor": "node"}),
        json!({"$anchor": "node"}),
        json!({"$recursiveRef": "#"}),
        json!({"$id": "https://acme.example/inner"}),
    ] {
        refused(&json!({"type": "object", "properties": {"a": inner}}));
    }
    // Names of properties are names, whatever they look like.
    compile(&json!({"type": "object", "properties": {"$id": {"type": "string"}, "$ref": {}}}))
        .unwrap();
    compile(&json!({"type": "object", "properties": {"a": {"const": {"$ref": "x"}}}})).unwrap();
}

#[test]
fn another_draft_or_another_root_is_refused() {
    refused(&json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}));
    for root in [json!(true), json!({}), json!({"type": "string"}), json!([])] {
        refused(&root);
    }
    assert!(matches!(
        compile(&json!({"type": "object", "properties": {"a": {"type": "nonsense"}}})),
        Err(SchemaError::Invalid { .. })
    ));
}

#[test]
fn a_duplicate_key_in_a_schema_is_refused() {
    let error = Validator::compile(br#"{"type":"object","type":"string"}"#)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(
        error,
        SchemaError::Json(ScanError::DuplicateKey { .. })
    ));
}

#[test]
fn a_loop_is_refused_and_a_recursion_is_not() {
    for schema in [
        json!({"type": "object", "$ref": "#"}),
        json!({"type": "object", "allOf": [{"$ref": "#/$defs/a"}],
               "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        assert!(refused(&schema).contains("loop"), "{schema}");
    }
    let tree = compile(&json!({
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"$ref": "#"}},
    }))
    .unwrap();
    assert_eq!(tree.check(&json!({"next": {"next": {"value": 1}}})), Ok(()));
    let violation = tree
        .check(&json!({"next": {"next": {"value": "x"}}}))
        .unwrap_err();
    assert_eq!(violation.path.as_str(), "/next/next/value");
}

#[test]
fn a_pattern_that_needs_backtracking_is_refused_and_others_are_linear() {
    refused(&json!({"type": "object", "properties": {"a": {"pattern": "(a)\\1"}}}));
    refused(&json!({"type": "object", "properties": {"a": {"pattern": "(?=a)a"}}}));
    refused(&json!({"type": "object", "properties": {"a": {"pattern": "(a{500}){500}"}}}));
    // Linear in the text, but in a thousand states at once.
    refused(&json!({"type": "object", "properties": {"a": {"pattern": "1[01]{1000}"}}}));
    let schema =
        compile(&json!({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}})).unwrap();
    let text = format!("{}b", "a".repeat(50_000));
    assert!(schema.check(&json!({"a": text})).is_err());
}
