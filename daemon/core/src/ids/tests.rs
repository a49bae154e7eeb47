#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use proptest::prelude::*;

use super::*;

#[test]
fn a_digest_is_sha_256_in_lower_case_hexadecimal() {
    // FIPS 180-4 example, "abc".
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Digest::of(b"abc").to_string(), text);
    assert_eq!(Digest::of_parts(&[b"a", b"", b"bc"]), Digest::of(b"abc"));
    assert_eq!(Digest::parse(text).unwrap(), Digest::of(b"abc"));
    assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
    for bad in [
        "",
        "ba78",
        &text.to_uppercase(),
        &format!("{text}00"),
        &text.replace('b', "g"),
    ] {
        assert!(Digest::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_refuse_what_could_be_read_in_two_ways() {
    for bad in [
        "",
        "-a",
        "_a",
        ".a",
        "A",
        "a b",
        "a/b",
        "a\n",
        "é",
        "a\u{202e}",
        &"a".repeat(33),
    ] {
        assert!(ModuleName::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["", ".", "..", ".hidden", "a@b", "a:b", &"a".repeat(65)] {
        assert!(VaultName::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["", "a.b", "a/b", &"a".repeat(65)] {
        assert!(ToolName::parse(bad).is_err(), "{bad:?}");
    }
    assert!(PrincipalName::parse("alice@site.example").is_ok());
    assert!(ToolName::parse("-get_Thing").is_ok());
    assert!(ModuleName::parse("a.b").is_err() && BindingName::parse("a.b").is_ok());
}

#[test]
fn an_error_names_the_value_within_bounds() {
    let error = ModuleName::parse(&"\u{1b}[31mX".repeat(100))
        .unwrap_err()
        .to_string();
    assert!(error.len() < 200 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_name_in_json_is_checked_too() {
    assert!(serde_json::from_str::<ModuleName>("\"web\"").is_ok());
    assert!(serde_json::from_str::<ModuleName>("\"Web\"").is_err());
    assert!(serde_json::from_str::<ModuleName>("7").is_err());
}

#[test]
fn a_schema_ref_changes_with_registry_module_and_tool() {
    let rev = |registry: &[u8], module: &str| ModuleRev {
        registry: RegistryId::of_manifest(registry),
        module: ModuleName::parse(module).unwrap(),
    };
    let tool = Digest::of(b"tool");
    let one = SchemaRef::of(&rev(b"a", "m"), &tool);
    assert_ne!(one, SchemaRef::of(&rev(b"b", "m"), &tool));
    assert_ne!(one, SchemaRef::of(&rev(b"a", "n"), &tool));
    assert_ne!(one, SchemaRef::of(&rev(b"a", "m"), &Digest::of(b"other")));
    assert_eq!(SchemaRef::parse(&one.to_string()).unwrap(), one);
    assert_eq!(one.to_string().len(), 34);
    for bad in [
        "",
        "r:",
        "r:00",
        &one.to_string().to_uppercase(),
        &one.to_string()[2..],
    ] {
        assert!(SchemaRef::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_valid_name_parses_to_itself(text in "[a-z0-9][a-z0-9._@-]{0,63}") {
        let name = PrincipalName::parse(&text).unwrap();
        prop_assert_eq!(name.as_str(), text.as_str());
        let json = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<PrincipalName>(&json).unwrap(), name);
    }

    #[test]
    fn a_name_holds_only_the_characters_of_its_kind(text in "\\PC{0,5}|[a-z0-9@._ /-]{0,40}") {
        if let Ok(name) = ModuleName::parse(&text) {
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-'));
            prop_assert!((1..=32).contains(&name.as_str().len()));
        }
    }
}
