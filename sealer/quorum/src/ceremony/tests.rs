use super::*;
use crate::collector::{Collector, Submission};
use crate::delivery::{Identity, open_share_file, seal_shares_to};
use crate::fixtures::{again, officers, sharing, three_of_five};
use crate::plan::{InitTerms, PlannedHolder};
use crate::split::combine;
use crate::vectors::{CEREMONY_HEX, CEREMONY_TEXT};

fn record() -> CeremonyRecord {
    CeremonyRecord {
        store: crate::fixtures::store(),
        set: crate::fixtures::set(),
        generation: Generation::FIRST,
        threshold: Threshold::new(2, 2).unwrap(),
        dev: false,
        created: 1_790_000_000,
        plan: PlanDigest::from_bytes([0x77; 32]),
        config: ConfigDigest::from_bytes([0x88; 32]),
        root_digest: [0x33; 32],
        audit_key: [0x99; 32],
        store_key: [0xaa; 32],
        officers: officers(),
        holders: [("Ada", 0xcc), ("Bob", 0xdd)]
            .map(|(label, byte)| (label.to_owned(), ShareDigest::from_bytes([byte; 32])))
            .to_vec(),
    }
}

fn plan(identities: &[Identity]) -> Plan {
    let holders = identities
        .iter()
        .enumerate()
        .map(|(at, identity)| PlannedHolder {
            label: format!("holder-{at}"),
            recipient: identity.recipient(),
        });
    let terms = InitTerms {
        holders: holders.collect(),
        officers: officers(),
        root_digest: [0x33; 32],
        dev: false,
    };
    Plan::init(three_of_five(), terms).unwrap()
}

#[test]
fn what_init_gives_out_opens_what_init_made() {
    let identities: Vec<Identity> = (0..5).map(|_| Identity::generate()).collect();
    let plan = plan(&identities);
    let made = Foundation::lay(&plan, 1_790_000_000).unwrap();
    assert_eq!(made.config().store(), plan.store());
    assert_eq!(made.config().created(), 1_790_000_000);

    let files: Vec<String> = made
        .config()
        .holders()
        .iter()
        .zip(made.shares())
        .map(|(holder, share)| seal_shares_to(&holder.recipient, share).unwrap())
        .collect();
    let unseal = Plan::unseal(made.config()).unwrap().digest();
    let mut collector = Collector::new(made.config().sharing(), made.config().digest(), unseal);
    for at in [4, 1] {
        let share = open_share_file(&identities[at], files[at].as_bytes()).unwrap();
        assert!(matches!(
            collector.submit(share, unseal, 0),
            Submission::Pending(_)
        ));
    }
    let share = open_share_file(&identities[2], files[2].as_bytes()).unwrap();
    let Submission::Complete(valid) = collector.submit(share, unseal, 0) else {
        panic!("three shares are enough");
    };
    let secret = combine(&valid).unwrap();
    let kek = derive_kek(&secret, valid.set(), valid.generation()).unwrap();
    assert_eq!(kek.expose(), made.kek().expose());
    assert_ne!(kek.expose(), secret.expose());
}

#[test]
fn a_share_given_to_init_does_not_serve_unseal() {
    let identities: Vec<Identity> = (0..5).map(|_| Identity::generate()).collect();
    let init = plan(&identities);
    let made = Foundation::lay(&init, 0).unwrap();
    let unseal = Plan::unseal(made.config()).unwrap().digest();
    let mut collector = Collector::new(made.config().sharing(), made.config().digest(), unseal);
    let submission = collector.submit(again(&made.shares()[0]), init.digest(), 0);
    assert!(matches!(
        submission,
        Submission::Refused(crate::ShareRefusal::OtherPlan)
    ));
}

#[test]
fn only_a_plan_of_init_makes_a_store() {
    let (config, _) = sharing(9, 1);
    let plan = Plan::unseal(&config).unwrap();
    assert!(matches!(
        Foundation::lay(&plan, 0),
        Err(FoundError::NotInit)
    ));
}

#[test]
fn the_examples_read_back() {
    assert_eq!(hex::encode(record().to_bytes()), CEREMONY_HEX);
    let bytes = hex::decode(CEREMONY_HEX).unwrap();
    assert_eq!(CeremonyRecord::from_bytes(&bytes).unwrap(), record());
    assert_eq!(record().to_text(), CEREMONY_TEXT);
    assert!(record().to_text().lines().all(|line| line.len() <= 80));
    for len in 0..bytes.len() {
        assert!(CeremonyRecord::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn the_record_repeats_the_config() {
    let (config, _) = sharing(9, 1);
    let record = CeremonyRecord::new(&config, PlanDigest::from_bytes([1; 32]), [2; 32], [3; 32]);
    assert_eq!(record.config, config.digest());
    assert_eq!(
        (record.audit_key(), record.store_key()),
        (&[2; 32], &[3; 32])
    );
    assert_eq!(record.store(), config.store());
    let text = record.to_text();
    for holder in config.holders() {
        assert!(text.contains(&holder.digest.to_string()), "{text}");
    }
    assert_eq!(
        CeremonyRecord::from_bytes(&record.to_bytes()).unwrap(),
        record
    );
}

#[test]
fn a_dev_store_says_so_on_paper() {
    let dev = CeremonyRecord {
        dev: true,
        ..record()
    };
    assert!(
        dev.to_text()
            .contains("never use this store for real credentials")
    );
    assert_ne!(dev.digest(), record().digest());
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, expected) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (68_255_999, "1972-02-29 23:59:59 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (951_868_800, "2000-03-01 00:00:00 UTC"),
        (1_735_689_599, "2024-12-31 23:59:59 UTC"),
        (1_790_000_000, "2026-09-21 14:13:20 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
    ] {
        assert_eq!(UtcSeconds(seconds).to_string(), expected);
    }
    assert!(!UtcSeconds(u64::MAX).to_string().is_empty());
}
