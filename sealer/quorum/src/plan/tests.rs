use proptest::prelude::*;

use super::*;
use crate::codec::FormatError;
use crate::delivery::Identity;
use crate::fixtures::{officers, set, sharing, store, three_of_five};
use crate::vectors::{
    DRILL_PLAN_HEX, INIT_PLAN_HEX, NEW_VAULT_PLAN_HEX, REKEY_PLAN_HEX, REKEY_VAULT_PLAN_HEX,
    RESTORE_PLAN_HEX, ROTATE_ROOT_PLAN_HEX, UNSEAL_PLAN_DIGEST_HEX, UNSEAL_PLAN_HEX,
    UNSEAL_VAULT_PLAN_HEX,
};

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

/// A dev plan for the same reason, from 3 of 5 to 2 of 2.
fn rekey() -> Plan {
    let holders = ["Ada", "Eve"].map(|label| PlannedHolder {
        label: label.to_owned(),
        recipient: String::new(),
    });
    Plan {
        act: Act::Rekey(RekeyTerms {
            config: ConfigDigest::from_bytes([0x77; 32]),
            generation: Generation::new(2).unwrap(),
            threshold: Threshold::new(2, 2).unwrap(),
            holders: holders.to_vec(),
            rotate_root: true,
            dev: true,
        }),
        ..unseal()
    }
}

fn ops() -> PlannedVault {
    PlannedVault {
        id: [0x44; 16],
        name: "ops".to_owned(),
    }
}

/// The plan that makes a vault, and one that gives it to others.
fn vault_plans() -> [Plan; 2] {
    let Act::Rekey(terms) = rekey().act else {
        panic!("it is one")
    };
    let to = |replaces, generation| VaultTerms {
        vault: ops(),
        replaces,
        generation: Generation::new(generation).unwrap(),
        threshold: terms.threshold,
        holders: terms.holders.clone(),
        dev: true,
    };
    [
        Plan {
            threshold: terms.threshold,
            act: Act::RekeyVault(to(None, 1)),
            ..unseal()
        },
        Plan {
            act: Act::RekeyVault(to(Some(terms.config), 2)),
            ..unseal()
        },
    ]
}

#[test]
fn the_examples_in_hex_read_back() {
    let [make, give] = vault_plans();
    let open = Plan {
        act: Act::UnsealVault {
            vault: ops(),
            config: ConfigDigest::from_bytes([0x77; 32]),
        },
        ..unseal()
    };
    let restore = Plan {
        act: Act::Restore {
            config: ConfigDigest::from_bytes([0x77; 32]),
            backup: [0x88; 32],
        },
        ..unseal()
    };
    let drill = Plan {
        act: Act::Drill {
            config: ConfigDigest::from_bytes([0x77; 32]),
            backup: [0x88; 32],
        },
        ..unseal()
    };
    assert_ne!(drill.digest(), restore.digest());
    let rotate = Plan {
        act: Act::RotateRoot(ConfigDigest::from_bytes([0x77; 32])),
        ..unseal()
    };
    for (plan, expected) in [
        (unseal(), UNSEAL_PLAN_HEX),
        (init(), INIT_PLAN_HEX),
        (rekey(), REKEY_PLAN_HEX),
        (rotate, ROTATE_ROOT_PLAN_HEX),
        (restore, RESTORE_PLAN_HEX),
        (drill, DRILL_PLAN_HEX),
        (open, UNSEAL_VAULT_PLAN_HEX),
        (make, NEW_VAULT_PLAN_HEX),
        (give, REKEY_VAULT_PLAN_HEX),
    ] {
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
fn a_plan_of_rekey_obeys_them_too_and_goes_forward() {
    let (config, _) = sharing(9, 2);
    let plan = |generation, needed, change: fn(&mut Vec<PlannedHolder>)| {
        let mut holders = terms().holders;
        change(&mut holders);
        let generation = Generation::new(generation).unwrap();
        let threshold = Threshold::dev(needed, 5).unwrap();
        Plan::rekey(&config, generation, threshold, holders, false)
    };
    let good = plan(4, 2, |_| ()).unwrap();
    assert_eq!(
        (good.generation().get(), good.threshold()),
        (2, three_of_five()),
        "the current shares are collected"
    );
    assert_eq!(Plan::from_bytes(&good.to_bytes()).unwrap(), good);
    for back in [1, 2] {
        assert!(matches!(
            plan(back, 2, |_| ()),
            Err(PlanError::Generation { current, planned })
                if current.get() == 2 && planned.get() == back
        ));
        let mut bytes = good.to_bytes();
        bytes[97..101].copy_from_slice(&back.to_be_bytes());
        assert!(matches!(
            Plan::from_bytes(&bytes),
            Err(PlanError::Generation { .. })
        ));
    }
    assert!(matches!(
        plan(4, 2, |holders| drop(holders.pop())),
        Err(PlanError::Config(ConfigError::Holders {
            total: 5,
            found: 4
        }))
    ));
    assert!(matches!(
        plan(4, 2, |holders| holders[1].recipient.clear()),
        Err(PlanError::Config(ConfigError::Recipient { position: 2 }))
    ));
    assert!(matches!(
        plan(4, 2, |holders| "age1nobody"
            .clone_into(&mut holders[1].recipient)),
        Err(PlanError::Recipient { position: 2, .. })
    ));
    assert!(matches!(
        plan(4, 1, |_| ()),
        Err(PlanError::Config(ConfigError::SingleHolder))
    ));
}

#[test]
fn an_unknown_act_is_refused() {
    let mut bytes = unseal().to_bytes();
    bytes[10] = 9;
    assert!(matches!(
        Plan::from_bytes(&bytes),
        Err(PlanError::Config(ConfigError::Format(FormatError::Value {
            field: "act",
            found: 9,
            ..
        })))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_plan_has_another_digest(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        rekeys: bool,
    ) {
        let plan = if rekeys { rekey() } else { init() };
        let mut bytes = plan.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Plan::from_bytes(&bytes) {
            prop_assert_ne!(other.digest(), plan.digest());
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_cut_plan_is_refused(at in any::<prop::sample::Index>(), rekeys: bool) {
        let bytes = if rekeys { rekey() } else { init() }.to_bytes();
        prop_assert!(Plan::from_bytes(&bytes[..at.index(bytes.len())]).is_err());
    }
}

#[test]
fn a_plan_of_a_vaults_quorum_goes_forward_and_one_that_makes_it_says_what_it_makes() {
    let [make, give] = vault_plans();
    let changed = |plan: &Plan, change: fn(&mut VaultTerms)| {
        let mut plan = plan.clone();
        if let Act::RekeyVault(terms) = &mut plan.act {
            change(terms);
        }
        Plan::from_bytes(&plan.to_bytes())
    };
    for plan in [&make, &give] {
        assert_eq!(changed(plan, |_| ()).unwrap(), *plan);
        let unreadable = changed(plan, |terms| terms.vault.name.clear());
        assert!(matches!(
            unreadable,
            Err(PlanError::Config(ConfigError::Label { role: "vault", .. }))
        ));
        let alone = changed(plan, |terms| terms.dev = false);
        assert!(matches!(
            alone,
            Err(PlanError::Config(ConfigError::Recipient { position: 1 }))
        ));
    }
    let wrong = [
        changed(&give, |terms| terms.generation = Generation::FIRST),
        changed(&make, |terms| {
            terms.generation = Generation::new(2).unwrap()
        }),
        changed(&make, |terms| {
            terms.threshold = Threshold::dev(1, 2).unwrap()
        }),
    ];
    for wrong in wrong {
        assert!(matches!(wrong, Err(PlanError::Generation { .. })));
    }
}
