use proptest::prelude::*;

use super::*;
use crate::codec::FormatError;
use crate::delivery::Identity;
use crate::fixtures::{officers, set, sharing, store, three_of_five};
use crate::vectors::{INIT_PLAN_HEX, UNSEAL_PLAN_DIGEST_HEX, UNSEAL_PLAN_HEX};

fn terms() -> InitTerms {
    InitTerms {
        holders: (1..=5)
            .map(|at| PlannedHolder {
                label: format!("holder-{at}"),
                recipient: Identity::generate().recipient(),
            })
            .collect(),
        officers: officers(),
        root_digest: [0x33; 32],
        dev: false,
    }
}

fn unseal() -> Plan {
    Plan {
        nonce: [0x66; 16],
        store: store(),
        set: set(),
        generation: Generation::FIRST,
        threshold: three_of_five(),
        act: Act::Unseal(ConfigDigest::from_bytes([0x77; 32])),
    }
}

/// A dev plan, so that no recipient makes the hex long.
fn init() -> Plan {
    let holders = ["Ada", "Bob"].map(|label| PlannedHolder {
        label: label.to_owned(),
        recipient: String::new(),
    });
    let terms = InitTerms {
        holders: holders.to_vec(),
        dev: true,
        ..terms()
    };
    Plan {
        threshold: Threshold::new(2, 2).unwrap(),
        act: Act::Init(terms),
        ..unseal()
    }
}

#[test]
fn the_examples_in_hex_read_back() {
    for (plan, expected) in [(unseal(), UNSEAL_PLAN_HEX), (init(), INIT_PLAN_HEX)] {
        assert_eq!(hex::encode(plan.to_bytes()), expected);
        assert_eq!(
            Plan::from_bytes(&hex::decode(expected).unwrap()).unwrap(),
            plan
        );
    }
    assert_eq!(unseal().digest().to_string(), UNSEAL_PLAN_DIGEST_HEX);
}

#[test]
fn a_plan_of_init_has_fresh_ids_and_reads_back() {
    let plan = Plan::init(three_of_five(), terms()).unwrap();
    let other = Plan::init(three_of_five(), terms()).unwrap();
    assert_ne!(plan.nonce(), other.nonce());
    assert_ne!(plan.store(), other.store());
    assert_ne!(plan.set(), other.set());
    assert_eq!(plan.generation(), Generation::FIRST);
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
}

#[test]
fn two_plans_for_the_same_act_have_two_digests() {
    let (config, _) = sharing(9, 1);
    let (a, b) = (
        Plan::unseal(&config).unwrap(),
        Plan::unseal(&config).unwrap(),
    );
    assert_ne!(a.digest(), b.digest());
    assert_eq!(a.act(), &Act::Unseal(config.digest()));
    assert_eq!(
        (a.store(), a.set(), a.threshold()),
        (store(), set(), three_of_five())
    );
}

#[test]
fn a_plan_obeys_the_rules_of_the_config() {
    let refused = |change: fn(&mut InitTerms)| {
        let mut terms = terms();
        change(&mut terms);
        Plan::init(three_of_five(), terms).unwrap_err()
    };
    assert!(matches!(
        refused(|terms| drop(terms.holders.pop())),
        PlanError::Config(ConfigError::Holders { total: 5, found: 4 })
    ));
    assert!(matches!(
        refused(|terms| drop(terms.officers.pop())),
        PlanError::Config(ConfigError::Officers { least: 2, found: 1 })
    ));
    assert!(matches!(
        refused(|terms| terms.holders[1].recipient.clear()),
        PlanError::Config(ConfigError::Recipient { position: 2 })
    ));
    assert!(matches!(
        refused(|terms| "age1nobody".clone_into(&mut terms.holders[1].recipient)),
        PlanError::Recipient {
            position: 2,
            source: RecipientError::Unknown
        }
    ));
    let one = Plan::init(Threshold::dev(1, 5).unwrap(), terms()).unwrap_err();
    assert!(matches!(one, PlanError::Config(ConfigError::SingleHolder)));
}

#[test]
fn an_unknown_act_is_refused() {
    let mut bytes = unseal().to_bytes();
    bytes[10] = 3;
    assert!(matches!(
        Plan::from_bytes(&bytes),
        Err(PlanError::Config(ConfigError::Format(FormatError::Value {
            field: "act",
            found: 3,
            ..
        })))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_plan_has_another_digest(at in 0..init().to_bytes().len(), bit in 0..8_u8) {
        let plan = init();
        let mut bytes = plan.to_bytes();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Plan::from_bytes(&bytes) {
            prop_assert_ne!(other.digest(), plan.digest());
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_cut_plan_is_refused(len in 0..init().to_bytes().len()) {
        prop_assert!(Plan::from_bytes(&init().to_bytes()[..len]).is_err());
    }
}
