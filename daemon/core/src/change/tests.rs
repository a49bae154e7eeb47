#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::collections::BTreeMap;

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::binding::tests as bindings;
use crate::manifest::Manifest;
use crate::manifest::tests as manifests;
use crate::principal::tests::record;

/// A policy with versions that never repeat, as [`PolicyView`] asks for.
#[derive(Default, Clone)]
struct Policy {
    store: [u8; 16],
    clock: u64,
    versions: BTreeMap<Object, u64>,
    requester: Option<u32>,
    principals: Vec<PrincipalRecord>,
    grants: Vec<Grant>,
    bindings: Vec<Binding>,
    joins: Vec<Join>,
    manifests: Vec<(RegistryId, Manifest, bool)>,
}

impl PolicyView for Policy {
    fn store(&self) -> [u8; 16] {
        self.store
    }
    fn version(&self, object: &Object) -> Option<u64> {
        self.versions.get(object).copied()
    }
    fn requester(&self) -> Option<u32> {
        self.requester
    }
    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord> {
        self.principals.iter()
    }
    fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter()
    }
    fn binding(&self, name: &BindingName) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.name == *name)
    }
    fn join(&self, registry: &RegistryId, module: &ModuleName, slot: &SlotName) -> Option<&Join> {
        self.joins
            .iter()
            .find(|j| (&j.registry, &j.module, &j.slot) == (registry, module, slot))
    }
    fn manifest(&self, registry: &RegistryId) -> Option<&Manifest> {
        self.manifests
            .iter()
            .find(|(id, ..)| id == registry)
            .map(|(_, m, _)| m)
    }
    fn active(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests
            .iter()
            .filter(|(.., active)| *active)
            .map(|(_, m, _)| m)
    }
}

impl Policy {
    /// A policy that somebody asks to change who is no principal of it.
    fn new() -> Policy {
        Policy {
            store: [7; 16],
            requester: Some(4242),
            ..Policy::default()
        }
    }

    fn touch(&mut self, object: Object) {
        self.clock += 1;
        self.versions.insert(object, self.clock);
    }

    fn apply(&mut self, approved: Approved<Change>) {
        let change = approved.into_change();
        self.touch(change.object());
        match change {
            Change::BindingPut(new) => {
                self.bindings.retain(|b| b.name != new.name);
                self.bindings.push(*new);
            }
            Change::BindingDelete(name) => self.bindings.retain(|b| b.name != name),
            Change::GrantPut(new) => {
                self.grants.retain(|g| g.name != new.name);
                self.grants.push(new);
            }
            _ => {}
        }
    }

    fn reason(&self, change: Change) -> Option<&'static str> {
        widening(&change, self)
    }
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn officer(seed: u8, name: &str) -> Officer {
    let public = key(seed).public_key().as_ref().try_into().unwrap();
    Officer {
        name: name.to_owned(),
        public,
    }
}

fn officers() -> Officers {
    Officers::new([officer(1, "ann"), officer(2, "ben")], false)
}

fn approve(seed: u8, change: &Change, view: &Policy) -> Approval {
    let (change, state) = (change.digest(), State::of(change, view).digest());
    let message = approval_message(&change, &state);
    let signature = key(seed).sign(&message).as_ref().try_into().unwrap();
    Approval {
        officer: officer(seed, "").id(),
        change,
        state,
        signature: Signature::from_bytes(signature),
    }
}

fn verify(
    change: &Change,
    view: &Policy,
    approvals: &[Approval],
) -> Result<Approved<Change>, ApprovalError> {
    Approved::verify(change.clone(), view, approvals, &officers())
}

fn binding(members: Value) -> Change {
    Change::BindingPut(Box::new(bindings::with(members).unwrap()))
}

fn grant(subject: Value, access: &str) -> Change {
    let value =
        json!({"name": "g", "subject": subject, "module": "all", "tools": "all", "access": access});
    Change::GrantPut(serde_json::from_value(value).unwrap())
}

fn registry(policy: &mut Policy, manifest: &Value, active: bool) -> RegistryId {
    let manifest = manifests::parse(manifest).unwrap();
    let id = RegistryId::of_manifest(&manifest.to_bytes().unwrap());
    policy.manifests.push((id, manifest, active));
    id
}

// Canonical bytes.

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

// Approvals.

#[test]
fn a_widening_change_takes_two_keys() {
    let (policy, change) = (Policy::new(), binding(json!({})));
    let (one, two) = (approve(1, &change, &policy), approve(2, &change, &policy));
    assert!(matches!(
        verify(&change, &policy, &[]),
        Err(ApprovalError::Missing {
            given: 0,
            needed: 2,
            ..
        })
    ));
    let error = verify(&change, &policy, std::slice::from_ref(&one)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of 2 approvals: a second officer must sign, since a new binding lets a credential go out"
    );
    let approved = verify(&change, &policy, &[one, two]).unwrap();
    assert_eq!(approved.officers().len(), 2);
    assert!(approved.widens().is_some());
}

#[test]
fn a_narrow_change_takes_one_key_and_never_none() {
    let policy = Policy::new();
    let change = grant(json!({"group": "ops"}), "read");
    assert!(matches!(
        verify(&change, &policy, &[]),
        Err(ApprovalError::Missing {
            given: 0,
            needed: 1,
            widens: None
        })
    ));
    assert!(verify(&change, &policy, &[approve(1, &change, &policy)]).is_ok());
    let dev = Officers::new([officer(1, "dev")], true);
    let wide = binding(json!({}));
    assert!(Approved::verify(wide.clone(), &policy, &[approve(1, &wide, &policy)], &dev).is_ok());
    assert!(Approved::verify(wide, &policy, &[], &dev).is_err());
}

#[test]
fn one_key_is_one_officer_however_it_comes() {
    let (policy, change) = (Policy::new(), binding(json!({})));
    let one = approve(1, &change, &policy);
    let error = verify(&change, &policy, &[one.clone(), one.clone()]).unwrap_err();
    assert_eq!(
        error,
        ApprovalError::Twice {
            officer: one.officer
        }
    );
    // Enrolled under two names.
    let twins = Officers::new([officer(1, "ann"), officer(1, "ben")], false);
    let twice = [one.clone(), approve(1, &change, &policy)];
    assert!(Approved::verify(change, &policy, &twice, &twins).is_err());
}

#[test]
fn an_approval_serves_its_own_change_state_key_and_store_only() {
    let (policy, change) = (Policy::new(), binding(json!({})));
    let good = approve(1, &change, &policy);
    let check = |approval: &Approval| {
        approval
            .verify(
                &change.digest(),
                &State::of(&change, &policy).digest(),
                &officers(),
            )
            .map(|_| ())
    };
    assert_eq!(check(&good), Ok(()));
    let other_change = approve(1, &binding(json!({"port": 8443})), &policy);
    assert!(matches!(
        check(&other_change),
        Err(ApprovalError::OtherChange { .. })
    ));
    let restored = Policy {
        store: [8; 16],
        ..Policy::new()
    };
    assert!(matches!(
        check(&approve(1, &change, &restored)),
        Err(ApprovalError::StateMoved { .. })
    ));
    assert!(matches!(
        check(&approve(3, &change, &policy)),
        Err(ApprovalError::Unknown { .. })
    ));
    // The second officer's name over the first one's signature.
    let lent = Approval {
        officer: officer(2, "").id(),
        ..good.clone()
    };
    assert!(matches!(check(&lent), Err(ApprovalError::Signature { .. })));
    // Right digests in the envelope, a signature over others.
    let moved = Approval {
        signature: other_change.signature,
        ..good
    };
    assert!(matches!(
        check(&moved),
        Err(ApprovalError::Signature { .. })
    ));
}

#[test]
fn an_approval_is_void_once_the_object_or_one_that_it_names_has_moved() {
    let join = Join {
        registry: RegistryId::of_manifest(b"x"),
        module: ModuleName::parse("m").unwrap(),
        slot: SlotName::parse("s").unwrap(),
        binding: BindingName::parse("b").unwrap(),
    };
    let credential = Object::Credential {
        vault: "ops".parse().unwrap(),
        name: "web-token".parse().unwrap(),
    };
    let changes = [
        (
            Change::JoinPut(join.clone()),
            Object::Binding(join.binding.clone()),
        ),
        (
            Change::JoinPut(join.clone()),
            Object::Registry(join.registry),
        ),
        (binding(json!({})), credential),
        (
            grant(json!({"principal": "alice"}), "read"),
            Object::Principal("alice".parse().unwrap()),
        ),
        (
            Change::RegistryActivate(join.registry),
            Object::Registry(join.registry),
        ),
    ];
    for (change, named) in changes {
        for object in [named, change.object()] {
            let mut policy = Policy::new();
            let approvals = [approve(1, &change, &policy), approve(2, &change, &policy)];
            policy.touch(Object::Principal("unrelated".parse().unwrap()));
            assert!(
                verify(&change, &policy, &approvals).is_ok(),
                "an unrelated change voids nothing"
            );
            policy.touch(object.clone());
            let error = verify(&change, &policy, &approvals).unwrap_err();
            assert!(
                matches!(error, ApprovalError::StateMoved { .. }),
                "{object:?}"
            );
        }
    }
}

#[test]
fn approvals_are_not_used_again_not_even_after_a_deletion() {
    let mut policy = Policy::new();
    let put = binding(json!({}));
    let approvals = [approve(1, &put, &policy), approve(2, &put, &policy)];
    let approved = verify(&put, &policy, &approvals).unwrap();
    policy.apply(approved);
    assert!(matches!(
        verify(&put, &policy, &approvals),
        Err(ApprovalError::StateMoved { .. })
    ));
    let delete = Change::BindingDelete(BindingName::parse("web-main").unwrap());
    let approved = verify(&delete, &policy, &[approve(1, &delete, &policy)]).unwrap();
    policy.apply(approved);
    assert!(policy.bindings.is_empty());
    assert!(matches!(
        verify(&put, &policy, &approvals),
        Err(ApprovalError::StateMoved { .. })
    ));
}

#[test]
fn a_review_shows_what_the_verifier_will_ask_for() {
    let (policy, change) = (Policy::new(), binding(json!({})));
    let review = change.review(&policy, &officers());
    let approval = approve(1, &change, &policy);
    assert_eq!(
        (review.change, review.state, review.needs),
        (approval.change, approval.state, 2)
    );
    assert!(review.reason.is_some());
}

// Widening.

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
    // Where it is not known who asks, it may be anybody.
    policy.requester = None;
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
    // Into a group with a destructive grant; a new peer for one who is in it; oneself into any granted group.
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

/// Orders of events: officers sign what is there, anything may move in between, old approvals come back.
#[derive(Debug, Clone)]
enum Event {
    Sign { officer: u8, port: u16 },
    Touch,
    Submit { port: u16 },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_binding_is_stored_only_after_two_officers_saw_this_state(
        events in prop::collection::vec(
            prop_oneof![
                (1..=3_u8, 1..=2_u16).prop_map(|(officer, port)| Event::Sign { officer, port }),
                Just(Event::Touch),
                (1..=2_u16).prop_map(|port| Event::Submit { port }),
            ],
            0..24,
        )
    ) {
        let mut policy = Policy::new();
        let mut kept: Vec<Approval> = Vec::new();
        // The model: which enrolled officers have signed for this port since the object last moved.
        let mut signed: BTreeMap<u16, std::collections::BTreeSet<u8>> = BTreeMap::new();
        for event in events {
            match event {
                Event::Sign { officer, port } => {
                    let approval = approve(officer, &binding(json!({"port": port})), &policy);
                    kept.retain(|other| *other != approval);
                    kept.push(approval);
                    if officer != 3 {
                        signed.entry(port).or_default().insert(officer);
                    }
                }
                Event::Touch => {
                    policy.touch(binding(json!({})).object());
                    signed.clear();
                }
                Event::Submit { port } => {
                    let change = binding(json!({"port": port}));
                    // The daemon hands in what checks alone; an attacker hands in everything.
                    let (digest, state) = (change.digest(), State::of(&change, &policy).digest());
                    let enrolled = officers();
                    let good: Vec<_> = kept.iter().filter(|a| a.verify(&digest, &state, &enrolled).is_ok()).cloned().collect();
                    let given = signed.get(&port).map_or(0, |s| s.len());
                    prop_assert_eq!(good.len(), given);
                    let needed = if policy.reason(change.clone()).is_some() { 2 } else { 1 };
                    match verify(&change, &policy, &good) {
                        Ok(approved) => {
                            prop_assert!(given >= needed);
                            policy.apply(approved);
                            signed.clear();
                        }
                        Err(_) => prop_assert!(given < needed),
                    }
                    let replayed = verify(&change, &policy, &kept);
                    prop_assert!(replayed.is_err() || kept.iter().all(|a| good.contains(a)));
                }
            }
        }
    }
}
