use super::*;
use crate::collector::Submission;
use crate::consent::CEREMONY_SECONDS;
use crate::delivery::{Identity, open_share_file};
use crate::fixtures::{again, key_of, sharing, three_of_five};
use crate::ids::{Generation, Threshold};
use crate::plan::{PlannedHolder, PlannedVault};

fn identities(total: usize) -> Vec<Identity> {
    (0..total).map(|_| Identity::generate()).collect()
}

fn holders(identities: &[Identity]) -> Vec<PlannedHolder> {
    let holder = |(at, identity): (usize, &Identity)| PlannedHolder {
        label: format!("new-{}", at + 1),
        recipient: identity.recipient(),
    };
    identities.iter().enumerate().map(holder).collect()
}

/// A plan from 3 of 5, generation 1, to 2 of 3, generation `generation`.
fn plan(config: &SealConfig, to: &[Identity], generation: u32) -> Plan {
    let threshold = Threshold::new(2, 3).unwrap();
    let generation = Generation::new(generation).unwrap();
    Plan::rekey(config, generation, threshold, holders(to), false).unwrap()
}

fn consent(plan: &Plan, config: &SealConfig, given: &[&Share]) -> (Consent, ValidShares) {
    let mut consent = Consent::begin(plan.clone(), config, 0).unwrap();
    for share in given {
        if let Submission::Complete(shares) = consent.submit(again(share), plan.digest(), 1) {
            return (consent, shares);
        }
    }
    panic!("the quorum consents");
}

struct Scene {
    config: SealConfig,
    old: Vec<Share>,
    plan: Plan,
    delivery: Delivery,
    new: Vec<Share>,
}

fn delivered() -> Scene {
    let (config, old) = sharing(9, 1);
    let to = identities(3);
    let plan = plan(&config, &to, 3);
    let (given, shares) = consent(&plan, &config, &[&old[4], &old[0], &old[2]]);
    let delivery = Delivery::make(given, shares, &config).unwrap();
    let open = |(identity, letter): (&Identity, &Letter)| {
        open_share_file(identity, letter.age.as_bytes()).unwrap()
    };
    let new = to.iter().zip(delivery.letters()).map(open).collect();
    Scene {
        config,
        old,
        plan,
        delivery,
        new,
    }
}

fn refused(proof: Proof) -> (Delivery, ShareRefusal) {
    match proof {
        Proof::Refused(delivery, refusal) => (delivery, refusal),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn pending(proof: Proof) -> (Delivery, Progress) {
    match proof {
        Proof::Pending(delivery, progress) => (delivery, progress),
        other => panic!("expected progress, got {other:?}"),
    }
}

#[test]
fn a_new_quorum_proves_its_shares_and_the_switch_is_theirs() {
    let scene = delivered();
    let labels: Vec<&str> = scene
        .delivery
        .letters()
        .iter()
        .map(|l| l.label.as_str())
        .collect();
    assert_eq!(labels, ["new-1", "new-2", "new-3"]);
    let digest = scene.plan.digest();
    let (delivery, progress) = pending(scene.delivery.prove(again(&scene.new[2]), digest, 2));
    assert_eq!((progress.given, progress.needed), (1, 2));
    let Proof::Complete(switch) = delivery.prove(again(&scene.new[0]), digest, 3) else {
        panic!("two of three are enough");
    };
    let (old, new) = (&scene.config, switch.config());
    assert_eq!(new.generation().get(), 3);
    assert_eq!(new.threshold(), Threshold::new(2, 3).unwrap());
    assert_eq!(
        (new.store(), new.set(), new.root_digest(), new.officers()),
        (old.store(), old.set(), old.root_digest(), old.officers()),
        "a rekey changes who opens the store and nothing else"
    );
    // The new quorum's KEK, from the shares that left.
    let unseal = Plan::unseal(new).unwrap().digest();
    let mut collector = crate::Collector::new(new.sharing(), new.digest(), unseal);
    let _ = collector.submit(again(&scene.new[1]), unseal, 0);
    let Submission::Complete(valid) = collector.submit(again(&scene.new[2]), unseal, 0) else {
        panic!("two of three are enough");
    };
    let secret = crate::combine(&valid).unwrap();
    let kek = crate::derive_kek(&secret, valid.set(), valid.generation()).unwrap();
    assert_eq!(kek.expose(), switch.kek().expose());
}

#[test]
fn each_wrong_proof_is_named_and_costs_nothing() {
    let scene = delivered();
    let digest = scene.plan.digest();
    let (mut delivery, before) = pending(scene.delivery.prove(again(&scene.new[0]), digest, 2));
    let other_plan = Plan::unseal(&scene.config).unwrap().digest();
    let mut value = *scene.new[1].value().expose();
    value[0] ^= 1;
    let new = &scene.new[1];
    let damaged = Share::new(
        new.set(),
        new.generation(),
        2,
        new.threshold(),
        key_of(&value),
    );
    let (_, abandoned) = sharing(9, 2);
    let wrong = [
        (again(new), other_plan, "OtherPlan"),
        (again(&scene.old[1]), digest, "ConsentGiven"),
        (again(&abandoned[1]), digest, "Superseded"),
        (damaged, digest, "Damaged"),
        (again(&scene.new[0]), digest, "AlreadyGiven"),
    ];
    for (share, plan, name) in wrong {
        let (back, refusal) = refused(delivery.prove(share, plan, 3));
        assert!(format!("{refusal:?}").starts_with(name), "{refusal}");
        assert_eq!(back.progress(), before, "{name}");
        delivery = back;
    }
    assert!(matches!(
        delivery.prove(again(new), digest, 4),
        Proof::Complete(_)
    ));
}

#[test]
fn a_ceremony_ends_after_a_day() {
    let scene = delivered();
    assert!(!scene.delivery.has_expired(CEREMONY_SECONDS - 1));
    assert!(scene.delivery.has_expired(CEREMONY_SECONDS));
    let late = scene
        .delivery
        .prove(again(&scene.new[0]), scene.plan.digest(), CEREMONY_SECONDS);
    let (_, refusal) = refused(late);
    assert_eq!(refusal, ShareRefusal::Closed(ClosedBy::Expiry));

    let (config, shares) = sharing(9, 1);
    let plan = Plan::rotate_root(&config).unwrap();
    let mut consent = Consent::begin(plan.clone(), &config, 7).unwrap();
    assert!(!consent.expire(7 + CEREMONY_SECONDS - 1));
    let last = 7 + CEREMONY_SECONDS - 1;
    let _ = consent.submit(again(&shares[0]), plan.digest(), last);
    assert_eq!(
        consent.progress().expires,
        Some(last + 1),
        "no share outlasts it"
    );
    assert!(matches!(
        consent.submit(again(&shares[1]), plan.digest(), last + 1),
        Submission::Refused(ShareRefusal::Closed(ClosedBy::Expiry))
    ));
}

#[test]
fn a_switch_that_was_not_made_asks_the_last_holder_again() {
    let scene = delivered();
    let digest = scene.plan.digest();
    let (delivery, before) = pending(scene.delivery.prove(again(&scene.new[0]), digest, 2));
    let Proof::Complete(switch) = delivery.prove(again(&scene.new[1]), digest, 2) else {
        panic!("two of three are enough");
    };
    let delivery = switch.undo();
    assert_eq!(delivery.progress(), before);
    assert!(matches!(
        delivery.prove(again(&scene.new[1]), digest, 3),
        Proof::Complete(_)
    ));
}

#[test]
fn consent_is_to_a_plan_of_this_config_alone() {
    let (config, old) = sharing(9, 1);
    let (other, _) = sharing(8, 1);
    let to = identities(3);
    let good = plan(&config, &to, 2);
    assert!(Consent::begin(good.clone(), &config, 0).is_ok());
    assert_eq!(
        Consent::begin(good, &other, 0).unwrap_err(),
        NOT_CONSENTABLE
    );
    let unseal = Plan::unseal(&config).unwrap();
    assert_eq!(
        Consent::begin(unseal, &config, 0).unwrap_err(),
        NOT_CONSENTABLE
    );
    let rotate = Plan::rotate_root(&config).unwrap();
    let (given, shares) = consent(&rotate, &config, &[&old[0], &old[1], &old[2]]);
    assert!(matches!(
        Delivery::make(given, shares, &config),
        Err(RekeyError::NotRekey)
    ));
    let rekey = plan(&config, &to, 2);
    let (given, shares) = consent(&rekey, &config, &[&old[0], &old[1], &old[2]]);
    assert!(matches!(
        Delivery::make(given, shares, &other),
        Err(RekeyError::OtherConfig)
    ));
    assert_eq!(config.threshold(), three_of_five());
}

const NOT_CONSENTABLE: crate::consent::NotConsentable = crate::consent::NotConsentable;

#[test]
fn nothing_shows_a_new_share_or_key() {
    let scene = delivered();
    let text = format!("{:?}", scene.delivery);
    for share in &scene.new {
        assert!(!text.contains(&hex::encode(share.value().expose())));
        assert!(!text.contains(&format!("{:?}", share.value().expose())));
    }
    assert!(!text.contains(&format!("{:?}", scene.delivery.kek.expose())));
}

/// A vault whose first quorum, 2 of 3, has proved its shares.
fn made_vault() -> (Switch<VaultConfig>, Vec<Share>) {
    let (store, _) = sharing(9, 1);
    let to = identities(3);
    let vault = PlannedVault {
        id: [4; 16],
        name: "ops".to_owned(),
    };
    let threshold = Threshold::new(2, 3).unwrap();
    let plan = Plan::new_vault(&store, vault, threshold, holders(&to)).unwrap();
    let delivery = Delivery::make_first(&plan, 1_790_000_000, 0).unwrap();
    let open = |(identity, letter): (&Identity, &Letter)| {
        open_share_file(identity, letter.age.as_bytes()).unwrap()
    };
    let new: Vec<Share> = to.iter().zip(delivery.letters()).map(open).collect();
    let Proof::Pending(delivery, _) = delivery.prove(again(&new[0]), plan.digest(), 1) else {
        panic!("one of two is not enough");
    };
    match delivery.prove(again(&new[1]), plan.digest(), 1) {
        Proof::Complete(switch) => (switch, new),
        other => panic!("two of three are enough: {other:?}"),
    }
}

#[test]
fn a_vault_gets_a_quorum_that_proved_its_shares_and_gives_it_on() {
    let (switch, first) = made_vault();
    let config = switch.config().clone();
    assert_eq!(switch.replaces(), None);
    assert_ne!(
        config.sharing().set,
        sharing(9, 1).0.set(),
        "a lineage of its own"
    );
    let to = identities(3);
    let next = Generation::new(2).unwrap();
    let threshold = Threshold::new(2, 3).unwrap();
    let plan = Plan::rekey_vault(&config, "ops", next, threshold, holders(&to)).unwrap();
    let mut consent = Consent::begin_vault(plan, &config, 0).unwrap();
    let digest = consent.plan().digest();
    // The store's own quorum has nothing to say about the vault.
    let (_, of_store) = sharing(9, 1);
    let refused = consent.submit(again(&of_store[0]), digest, 1);
    assert!(matches!(
        refused,
        Submission::Refused(ShareRefusal::OtherSet { vault, .. }) if vault == "ops"
    ));
    assert_eq!(consent.progress().given, 0);
    let _ = consent.submit(again(&first[2]), digest, 1);
    let Submission::Complete(shares) = consent.submit(again(&first[0]), digest, 1) else {
        panic!("two of three are enough");
    };
    let delivery = Delivery::make_for_vault(consent, shares, &config).unwrap();
    let (delivery, refusal) = refused_vault(delivery.prove(again(&first[0]), digest, 2));
    assert!(matches!(refusal, ShareRefusal::ConsentGiven { .. }));
    let new = delivery.config();
    assert_eq!(new.sharing().generation, next);
    assert_eq!(
        (new.store(), new.vault(), new.created(), new.sharing().set),
        (
            config.store(),
            config.vault(),
            config.created(),
            config.sharing().set
        ),
    );
}

fn refused_vault(proof: Proof<VaultConfig>) -> (Delivery<VaultConfig>, ShareRefusal) {
    match proof {
        Proof::Refused(delivery, refusal) => (delivery, refusal),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_vaults_plan_is_consented_to_by_its_own_quorum_alone() {
    let (switch, _) = made_vault();
    let config = switch.config();
    let plan = Plan::unseal_vault(config, "ops").unwrap();
    let store = sharing(9, 1).0;
    assert!(Consent::begin(plan.clone(), &store, 0).is_err());
    assert!(Consent::begin_vault(Plan::unseal(&store).unwrap(), config, 0).is_err());
    let (other, _) = made_vault();
    assert!(Consent::begin_vault(plan.clone(), other.config(), 0).is_err());
    assert!(Consent::begin_vault(plan.clone(), config, 0).is_ok());
    assert!(matches!(
        Delivery::make_first(&plan, 0, 0),
        Err(RekeyError::NotRekey)
    ));
}
