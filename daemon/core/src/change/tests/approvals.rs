//! What officers' keys can and cannot bring about.

use proptest::prelude::*;

use super::*;

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

/// Orders of events: officers sign what is there, anything may move in between, old approvals come
/// back.
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
