//! Canonical bytes and their example.

use super::*;

/// docs/FORMATS.md quotes these.
const EXAMPLE_CHANGE: &str = "6d63706973742d6368616e67652d763100\
    000000096772616e742d707574\
    0000000b6f70732d726561642d6462\
    0000000567726f7570000000036f7073\
    000000056e616d6564000000026462\
    000000056e616d6564000000040000000200000003676574000000046c697374\
    0000000472656164";
const EXAMPLE_STATE: &str = "6d63706973742d73746174652d763100\
    0000001007070707070707070707070707070707\
    000000056772616e740000000b6f70732d726561642d6462000000080000000000000005\
    0000000400000000";

#[test]
fn the_canonical_bytes_are_those_of_the_format() {
    let value = json!({"grant-put": {
        "name": "ops-read-db", "subject": {"group": "ops"}, "module": {"named": "db"},
        "tools": {"named": ["get", "list"]}, "access": "read",
    }});
    let change: Change = serde_json::from_value(value).unwrap();
    assert_eq!(hex::encode(change.to_bytes()), EXAMPLE_CHANGE);
    let mut policy = Policy::new();
    policy.versions.insert(change.object(), 5);
    let state = State::of(&change, &policy);
    assert_eq!(hex::encode(bytes::state(&state)), EXAMPLE_STATE);
    let message = approval_message(&change.digest(), &state.digest());
    assert_eq!(message.len(), 19 + 64);
    assert!(message.starts_with(b"mcpist-approval-v1\0"));
}

#[test]
fn every_field_of_a_change_is_in_its_bytes() {
    let base = binding(json!({}));
    let mut digests = vec![base.digest()];
    for members in [
        json!({"name": "other"}),
        json!({"vault": "other"}),
        json!({"credential": "other"}),
        json!({"host": "other"}),
        json!({"port": 444}),
        json!({"path_prefix": "/other"}),
        json!({"methods": ["GET"]}),
        json!({"methods": ["POST", "GET"]}),
        json!({"trust": {"pin": "00".repeat(32)}}),
        json!({"trust": "none", "scheme": "http"}),
        json!({"inject": "basic"}),
        json!({"inject": {"header": {"name": "x"}}}),
        json!({"inject": {"query": {"name": "x"}}}),
        json!({"allow_local": true}),
    ] {
        digests.push(binding(members).digest());
    }
    let id = RegistryId::of_manifest(b"x");
    let binding_name = || BindingName::parse("web-main").unwrap();
    digests.extend([
        Change::BindingDelete(binding_name()).digest(),
        Change::GrantDelete(GrantName::parse("web-main").unwrap()).digest(),
        Change::PrincipalDelete(PrincipalName::parse("web-main").unwrap()).digest(),
        Change::RegistryActivate(id).digest(),
        Change::RegistryRetire(id).digest(),
        Change::TimeFloor(1).digest(),
        Change::TimeFloor(256).digest(),
        Change::PrincipalPut(record("a", &["b"], &[1])).digest(),
        Change::PrincipalPut(record("a", &[], &[1])).digest(),
        Change::PrincipalPut(record("a", &["b"], &[])).digest(),
        Change::PrincipalPut(record("ab", &[], &[])).digest(),
    ]);
    let mut unique = digests.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), digests.len());
}

#[test]
fn a_change_reads_back_from_json_to_the_same_bytes() {
    let slot = || {
        (
            ModuleName::parse("m").unwrap(),
            SlotName::parse("s").unwrap(),
        )
    };
    let registry = RegistryId::of_manifest(b"x");
    let join = Join {
        registry,
        module: slot().0,
        slot: slot().1,
        binding: BindingName::parse("b").unwrap(),
    };
    for change in [
        binding(json!({})),
        grant(json!({"group": "ops"}), "read"),
        Change::PrincipalPut(record("a", &["b"], &[1])),
        Change::JoinPut(join),
        Change::JoinDelete {
            registry,
            module: slot().0,
            slot: slot().1,
        },
        Change::RegistryActivate(registry),
    ] {
        let text = serde_json::to_string(&change).unwrap();
        assert!(text.contains(change.kind()));
        let again: Change = serde_json::from_str(&text).unwrap();
        assert_eq!(again.to_bytes(), change.to_bytes());
    }
    assert!(serde_json::from_str::<Change>(r#"{"grant-delete":"g","grant-delete":"h"}"#).is_err());
}
