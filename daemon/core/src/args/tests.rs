#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::Access;
use crate::catalogue::{ActiveModule, Catalogue};
use crate::grant::{Grant, ModuleSel, Subject, ToolSel};
use crate::ids::{
    BindingName, GrantName, ModuleName, ModuleRev, PrincipalName, RegistryId, SlotName,
};
use crate::manifest::{BlobPath, ModuleManifest};
use crate::mask::Mask;
use crate::principal::{Identities, IdentityRule, PeerEvidence, PrincipalRecord};

/// A route to a tool `write` of module `notes` with these schema and recordable arguments.
pub(crate) fn route(schema: &Value, recordable: &[&str]) -> Route {
    let manifest = json!({
        "name": "notes", "title": "Notes", "description": "Notes of a team.", "version": "1",
        "kind": "http",
        "slots": [{"name": "api", "auth": ["bearer"], "hosts": ["notes.lan"], "description": ""}],
        "tools": [{
            "name": "write", "title": "Write", "description": "Writes a note.", "access": "write",
            "input_schema": "write.json", "recordable": recordable,
            "http": {"slot": "api", "method": "POST", "path": "/notes"}
        }]
    });
    let module = ActiveModule {
        rev: ModuleRev {
            registry: RegistryId::of_manifest(b"bundle"),
            module: ModuleName::parse("notes").unwrap(),
        },
        manifest: ModuleManifest::parse(manifest.to_string().as_bytes()).unwrap(),
        schemas: BTreeMap::from([(
            BlobPath::parse("write.json").unwrap(),
            schema.to_string().into_bytes(),
        )]),
        joins: vec![(
            SlotName::parse("api").unwrap(),
            BindingName::parse("notes").unwrap(),
        )],
    };
    let catalogue = Arc::new(Catalogue::new(vec![module]).unwrap());
    let ada = PrincipalName::parse("ada").unwrap();
    let grant = Grant {
        name: GrantName::parse("all").unwrap(),
        subject: Subject::Principal(ada.clone()),
        module: ModuleSel::All,
        tools: ToolSel::All,
        access: Access::Destructive,
    };
    let record = PrincipalRecord {
        name: ada,
        groups: Vec::new(),
        rules: vec![IdentityRule::Uid(1_000)],
    };
    let identities = Identities::new([record], false);
    let ada = identities
        .identify(PeerEvidence::unix(1_000, 1_000, 1))
        .unwrap();
    let mask = Mask::new(vec![grant], Arc::clone(&catalogue));
    Route::choose(
        mask.visible(&ada, "notes", "write").unwrap(),
        None,
        &catalogue,
    )
    .unwrap()
}

fn any_object() -> Route {
    route(&json!({"type": "object"}), &[])
}

fn strict() -> Route {
    route(
        &json!({
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}}
            },
            "required": ["text"], "additionalProperties": false
        }),
        &["text"],
    )
}

#[test]
fn the_bytes_are_those_that_came() {
    let raw = br#" {"z":1.10,  "a":18446744073709551615, "t":"\u00e9"} "#;
    let arguments = Arguments::parse(raw.to_vec(), &any_object()).unwrap();
    assert_eq!(arguments.bytes(), raw);
}

#[test]
fn an_object_in_a_string_and_nothing_at_all_are_taken() {
    let raw = br#""{\"text\":\"a\\nb\"}""#;
    let arguments = Arguments::parse(raw.to_vec(), &strict()).unwrap();
    assert_eq!(arguments.bytes(), br#"{"text":"a\nb"}"#);
    assert_eq!(
        Arguments::parse(Vec::new(), &any_object()).unwrap().bytes(),
        b"{}"
    );
}

#[test]
fn refusals_name_a_path_and_a_rule() {
    for (raw, path) in [
        (r#"{"text":1}"#, Some("/text")),
        (r#"{"text":"a","tags":["x",7]}"#, Some("/tags/1")),
        (r#"{"tags":[]}"#, Some("")),
        (r#"{"text":"a","text":"b"}"#, Some("/text")),
        (r#"{"text":12345678901234567890123}"#, Some("/text")),
        (r#""{\"text\":\"a\",\"text\":\"b\"}""#, Some("/text")),
        ("[]", None),
        ("7", None),
        ("null", None),
        (r#""\"{}\"""#, None),
        (r#""""#, None),
        ("{", None),
    ] {
        let error = Arguments::parse(raw.as_bytes().to_vec(), &strict()).unwrap_err();
        assert_eq!(error.path().map(Pointer::as_str), path, "{raw}: {error}");
        assert_eq!(error.code(), ErrorCode::ArgumentsInvalid, "{raw}");
    }
}

#[test]
fn too_much_is_refused_by_its_own_code() {
    let raw = format!("{{\"text\":\"{}\"}}", "a".repeat(MAX_ARGUMENTS));
    let error = Arguments::parse(raw.into_bytes(), &strict()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge);
    let deep = format!(
        "{}{}",
        "{\"a\":".repeat(70),
        "1".to_owned() + &"}".repeat(70)
    );
    let error = Arguments::parse(deep.into_bytes(), &any_object()).unwrap_err();
    assert!(matches!(
        error,
        ArgumentsError::Json(ScanError::TooDeep { .. })
    ));
}

#[test]
fn neither_debug_nor_an_error_shows_a_value() {
    let arguments = Arguments::parse(br#"{"text":"hunter2"}"#.to_vec(), &strict()).unwrap();
    assert_eq!(format!("{arguments:?}"), "Arguments(18 bytes)");
    let error = Arguments::parse(br#"{"text":["hunter2"]}"#.to_vec(), &strict())
        .unwrap_err()
        .to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(raw in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Arguments::parse(raw, &any_object());
    }
}
