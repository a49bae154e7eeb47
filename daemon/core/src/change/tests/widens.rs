//! What needs a second officer.

use super::*;

#[test]
fn a_binding_is_narrower_only_where_every_field_is() {
    let mut policy = Policy::new();
    policy.bindings.push(bindings::with(json!({})).unwrap());
    for narrower in [
        json!({}),
        json!({"methods": ["GET"]}),
        json!({"methods": ["POST", "GET"]}),
        json!({"path_prefix": "/api/v1"}),
    ] {
        assert_eq!(policy.reason(binding(narrower.clone())), None, "{narrower}");
    }
    for wider in [
        json!({"name": "new"}),
        json!({"vault": "other"}),
        json!({"credential": "other"}),
        json!({"scheme": "http", "trust": "none"}),
        json!({"host": "evil.example"}),
        json!({"host": "sub.web.example"}),
        json!({"port": 8443}),
        json!({"path_prefix": "/"}),
        json!({"path_prefix": "/apiary"}),
        json!({"methods": ["GET", "DELETE"]}),
        json!({"trust": {"pin": "00".repeat(32)}}),
        json!({"trust": {"ca": bindings::PEM.repeat(2)}}),
        json!({"inject": {"header": {"name": "x-echo"}}}),
        json!({"allow_local": true}),
    ] {
        assert!(policy.reason(binding(wider.clone())).is_some(), "{wider}");
    }
    let http = policy.reason(binding(json!({"scheme": "http", "trust": "none"})));
    assert_eq!(http, Some("it sends a credential over plain http"));
    assert_eq!(
        policy.reason(Change::BindingDelete(
            BindingName::parse("web-main").unwrap()
        )),
        None
    );
}

#[test]
fn a_grant_widens_when_it_is_destructive_or_to_oneself() {
    let mut policy = Policy::new();
    policy.principals = vec![
        record("alice", &["ops"], &[4242]),
        record("bob", &["dev"], &[5]),
    ];
    assert_eq!(
        policy.reason(grant(json!({"principal": "bob"}), "write")),
        None
    );
    assert_eq!(policy.reason(grant(json!({"group": "dev"}), "read")), None);
    assert!(
        policy
            .reason(grant(json!({"principal": "bob"}), "destructive"))
            .is_some()
    );
    assert!(
        policy
            .reason(grant(json!({"principal": "alice"}), "read"))
            .is_some()
    );
    assert!(
        policy
            .reason(grant(json!({"group": "ops"}), "read"))
            .is_some()
    );
    // Nor for who brings an approval of what another proposed.
    let asked_by = policy.requesters.replace(vec![77, 4242]);
    assert!(
        policy
            .reason(grant(json!({"principal": "alice"}), "read"))
            .is_some()
    );
    policy.requesters = asked_by;
    // Where it is not known who asks, it may be anybody.
    policy.requesters = None;
    assert!(
        policy
            .reason(grant(json!({"principal": "bob"}), "read"))
            .is_some()
    );
    // What is in force already is no gain.
    let Change::GrantPut(wide) = grant(json!({"principal": "alice"}), "destructive") else {
        unreachable!()
    };
    policy.grants.push(wide);
    assert_eq!(
        policy.reason(grant(json!({"principal": "alice"}), "destructive")),
        None
    );
    assert_eq!(
        policy.reason(grant(json!({"principal": "alice"}), "read")),
        None
    );
    assert!(
        policy
            .reason(grant(json!({"group": "ops"}), "read"))
            .is_some()
    );
    assert_eq!(
        policy.reason(Change::GrantDelete(GrantName::parse("g").unwrap())),
        None
    );
}

#[test]
fn a_principal_record_is_no_way_around_the_rule_for_grants() {
    let mut policy = Policy::new();
    policy.principals = vec![record("alice", &[], &[4242]), record("bob", &["dev"], &[5])];
    let Change::GrantPut(wipe) = grant(json!({"group": "admins"}), "destructive") else {
        unreachable!()
    };
    let Change::GrantPut(mut read) = grant(json!({"group": "dev"}), "read") else {
        unreachable!()
    };
    read.name = GrantName::parse("read").unwrap();
    policy.grants = vec![wipe, read];
    let put = |name: &str, groups: &[&str], uids: &[u32]| {
        Change::PrincipalPut(record(name, groups, uids))
    };
    // Into a group with a destructive grant; a new peer for one who is in it; oneself into any
    // granted group.
    assert!(
        policy
            .reason(put("bob", &["dev", "admins"], &[5]))
            .is_some()
    );
    assert!(policy.reason(put("carol", &["admins"], &[6])).is_some());
    assert!(policy.reason(put("alice", &["dev"], &[4242])).is_some());
    assert!(policy.reason(put("bob", &["dev"], &[5, 4242])).is_some());
    // Ordinary work.
    assert_eq!(policy.reason(put("carol", &["dev"], &[6])), None);
    assert_eq!(policy.reason(put("bob", &[], &[5])), None);
    assert_eq!(policy.reason(put("bob", &["dev"], &[5, 7])), None);
    assert_eq!(policy.reason(put("alice", &["lonely"], &[4242])), None);
}

#[test]
fn a_principal_that_goes_must_not_make_another_appear() {
    let mut policy = Policy::new();
    policy.principals = vec![record("alice", &[], &[1, 2]), record("bob", &[], &[2])];
    let delete = |name: &str| Change::PrincipalDelete(PrincipalName::parse(name).unwrap());
    assert!(policy.reason(delete("alice")).is_some());
    assert!(
        policy
            .reason(Change::PrincipalPut(record("alice", &[], &[1])))
            .is_some()
    );
    policy.principals.pop();
    assert_eq!(policy.reason(delete("alice")), None);
    assert_eq!(policy.reason(delete("nobody")), None);
}

#[test]
fn a_join_widens_unless_it_is_there_already() {
    let mut policy = Policy::new();
    let join = Join {
        registry: RegistryId::of_manifest(b"x"),
        module: ModuleName::parse("m").unwrap(),
        slot: SlotName::parse("s").unwrap(),
        binding: BindingName::parse("b").unwrap(),
    };
    assert!(policy.reason(Change::JoinPut(join.clone())).is_some());
    policy.joins.push(join.clone());
    assert_eq!(policy.reason(Change::JoinPut(join.clone())), None);
    let other = Join {
        binding: BindingName::parse("c").unwrap(),
        ..join
    };
    assert!(policy.reason(Change::JoinPut(other)).is_some());
}

#[test]
fn a_bundle_widens_unless_all_that_it_brings_is_active() {
    let base = || {
        manifests::manifest(&[manifests::module(
            "web",
            &[
                manifests::tool("get", "read"),
                manifests::tool("put", "write"),
            ],
        )])
    };
    let reason = |bend: &dyn Fn(&mut Value)| {
        let mut policy = Policy::new();
        registry(&mut policy, &base(), true);
        let mut new = base();
        new["sequence"] = json!(4);
        bend(&mut new);
        let id = registry(&mut policy, &new, false);
        policy.reason(Change::RegistryActivate(id))
    };
    let tool = "/modules/0/tools/1";
    let at = |v: &mut Value, pointer: &str, to: Value| *v.pointer_mut(pointer).unwrap() = to;
    assert_eq!(reason(&|_| ()), None);
    assert_eq!(
        reason(&|v| at(v, &format!("{tool}/access"), json!("read"))),
        None
    );
    assert_eq!(
        reason(&|v| at(
            v,
            "/modules/0/tools",
            json!([manifests::tool("get", "read")])
        )),
        None
    );
    assert_eq!(
        reason(&|v| v["modules"][0]["limits"] = json!({"requests": 1})),
        None
    );
    let widening: [&dyn Fn(&mut Value); 10] = [
        &|v| at(v, &format!("{tool}/access"), json!("destructive")),
        &|v| at(v, &format!("{tool}/name"), json!("other")),
        &|v| at(v, &format!("{tool}/http/method"), json!("DELETE")),
        &|v| at(v, &format!("{tool}/http/path"), json!("/admin")),
        &|v| v["modules"][0]["tools"][0]["recordable"] = json!(["q"]),
        &|v| at(v, "/blobs/0/digest", json!("00".repeat(32))),
        &|v| {
            at(
                v,
                "/modules/0/slots/0/hosts",
                json!(["web.example", "evil.example"]),
            )
        },
        &|v| at(v, "/modules/0/slots/0/auth", json!(["basic"])),
        &|v| at(v, "/modules/0/name", json!("other")),
        &|v| v["modules"][0]["limits"] = json!({"requests": 9}),
    ];
    for (i, bend) in widening.iter().enumerate() {
        assert!(reason(*bend).is_some(), "case {i}");
    }
    // The first bundle ever, and one that nobody knows.
    let mut policy = Policy::new();
    let id = registry(&mut policy, &base(), false);
    assert!(policy.reason(Change::RegistryActivate(id)).is_some());
    assert!(
        policy
            .reason(Change::RegistryActivate(RegistryId::of_manifest(b"?")))
            .is_some()
    );
    assert_eq!(policy.reason(Change::RegistryRetire(id)), None);
}

#[test]
fn the_first_time_floor_takes_two_and_a_later_step_one() {
    let mut policy = Policy::new();
    assert!(policy.reason(Change::TimeFloor(1_790_000_000)).is_some());
    policy.time_floor = 1_790_000_000;
    assert_eq!(policy.reason(Change::TimeFloor(1_790_000_001)), None);
}
