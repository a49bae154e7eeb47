use super::*;
use crate::collector::{Collector, Submission};
use crate::delivery::{Identity, open_share_file, seal_shares_to};
use crate::fixtures::{again, officers, sharing, three_of_five};
use crate::plan::{InitTerms, PlannedHolder};
use crate::split::{combine, derive_kek};

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
