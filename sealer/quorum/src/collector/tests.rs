use proptest::prelude::*;

use super::*;
use crate::fixtures::{again, key_of, set, sharing, three_of_five};
use crate::ids::Threshold;
use crate::split::combine;

const PLAN: PlanDigest = PlanDigest::from_bytes([1; 32]);
const OTHER_PLAN: PlanDigest = PlanDigest::from_bytes([2; 32]);

fn refusal(submission: Submission) -> ShareRefusal {
    match submission {
        Submission::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn pending(submission: Submission) -> Progress {
    match submission {
        Submission::Pending(progress) => progress,
        other => panic!("expected progress, got {other:?}"),
    }
}

fn damaged(share: &Share) -> Share {
    let mut value = *share.value().expose();
    value[31] ^= 1;
    Share::new(
        share.set(),
        share.generation(),
        share.index(),
        share.threshold(),
        key_of(&value),
    )
}

#[test]
fn three_of_five_give_the_secret_back() {
    let (config, shares) = sharing(9, 1);
    let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
    let first = pending(collector.submit(again(&shares[4]), PLAN, 100));
    assert_eq!(
        (first.given, first.needed, first.expires),
        (1, 3, Some(700))
    );
    let second = pending(collector.submit(again(&shares[0]), PLAN, 200));
    assert_eq!((second.given, second.expires), (2, Some(700)));
    assert_eq!(second.indices, [5, 1]);
    let Submission::Complete(valid) = collector.submit(again(&shares[2]), PLAN, 699) else {
        panic!("three shares are enough");
    };
    assert_eq!(valid.indices(), [5, 1, 3]);
    assert_eq!(valid.config(), config.digest());
    assert_eq!(
        (valid.set(), valid.generation()),
        (set(), Generation::FIRST)
    );
    assert_eq!(combine(&valid).unwrap().expose(), &[9; 32]);
    let refused = refusal(collector.submit(again(&shares[3]), PLAN, 699));
    assert_eq!(refused, ShareRefusal::Closed(ClosedBy::Completion));
}

#[test]
fn each_wrong_share_is_named_and_costs_nothing() {
    let (config, shares) = sharing(9, 2);
    let (_, old) = sharing(9, 1);
    let (_, new) = sharing(9, 3);
    let second = |share: &Share, threshold, set| {
        Share::new(
            set,
            share.generation(),
            2,
            threshold,
            key_of(share.value().expose()),
        )
    };
    let generation = |number| Generation::new(number).unwrap();
    let elsewhere = SetId::from_bytes([0x99; 16]);
    let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
    let before = pending(collector.submit(again(&shares[0]), PLAN, 0));

    let wrong = [
        (again(&shares[1]), OTHER_PLAN, ShareRefusal::OtherPlan),
        (
            second(&shares[1], three_of_five(), elsewhere),
            PLAN,
            ShareRefusal::OtherStore {
                found: elsewhere,
                expected: set(),
            },
        ),
        (
            again(&old[1]),
            PLAN,
            ShareRefusal::Superseded {
                found: generation(1),
                current: generation(2),
            },
        ),
        (
            again(&new[1]),
            PLAN,
            ShareRefusal::Newer {
                found: generation(3),
                current: generation(2),
            },
        ),
        (
            damaged(&shares[1]),
            PLAN,
            ShareRefusal::Damaged { index: 2 },
        ),
        // The value of share 3 under the number 2.
        (
            second(&shares[2], three_of_five(), set()),
            PLAN,
            ShareRefusal::Damaged { index: 2 },
        ),
        // The right value under a lower threshold.
        (
            second(&shares[1], Threshold::new(2, 5).unwrap(), set()),
            PLAN,
            ShareRefusal::Damaged { index: 2 },
        ),
        (
            again(&shares[0]),
            PLAN,
            ShareRefusal::AlreadyGiven {
                index: 1,
                label: "holder-1".to_owned(),
            },
        ),
        (
            damaged(&shares[0]),
            PLAN,
            ShareRefusal::Damaged { index: 1 },
        ),
    ];
    for (share, plan, expected) in wrong {
        assert_eq!(refusal(collector.submit(share, plan, 1)), expected);
        assert_eq!(collector.progress(), before, "{expected}");
    }

    assert_eq!(
        pending(collector.submit(again(&shares[1]), PLAN, 2)).given,
        2
    );
    assert!(matches!(
        collector.submit(again(&shares[2]), PLAN, 3),
        Submission::Complete(valid) if combine(&valid).unwrap().expose() == &[9; 32]
    ));
}

#[test]
fn shares_expire_ten_minutes_after_the_first() {
    let (config, shares) = sharing(9, 1);
    let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
    assert!(!collector.expire(u64::MAX), "nothing is pending yet");
    let _ = pending(collector.submit(again(&shares[0]), PLAN, 1000));
    let _ = pending(collector.submit(again(&shares[1]), PLAN, 1500));
    assert!(!collector.expire(1599));
    let refused = refusal(collector.submit(again(&shares[2]), PLAN, 1600));
    assert_eq!(refused, ShareRefusal::Closed(ClosedBy::Expiry));
    assert!(collector.accepted.is_empty(), "expired shares are wiped");
    assert_eq!(collector.progress().expires, None);
    assert!(collector.expire(0), "what has expired stays so");
}

#[test]
fn a_timer_alone_wipes_expired_shares() {
    let (config, shares) = sharing(9, 1);
    let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
    let _ = pending(collector.submit(again(&shares[0]), PLAN, 0));
    assert!(collector.expire(PENDING_SECONDS));
    assert!(collector.accepted.is_empty());
    assert_eq!(collector.closed(), Some(ClosedBy::Expiry));
}

#[test]
fn cancel_wipes_and_ends() {
    let (config, shares) = sharing(9, 1);
    let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
    let _ = pending(collector.submit(again(&shares[0]), PLAN, 0));
    collector.cancel();
    assert!(collector.accepted.is_empty());
    let refused = refusal(collector.submit(again(&shares[1]), PLAN, 1));
    assert_eq!(refused, ShareRefusal::Closed(ClosedBy::Cancel));
    assert!(!collector.expire(u64::MAX));
    assert_eq!(collector.closed(), Some(ClosedBy::Cancel));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Good(usize),
    OtherPlan(usize),
    Damaged(usize),
    Old(usize),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..5_usize).prop_map(Event::Good),
        1 => (0..5_usize).prop_map(Event::OtherPlan),
        1 => (0..5_usize).prop_map(Event::Damaged),
        1 => (0..5_usize).prop_map(Event::Old),
        1 => (0..400_u64).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The collector against a model: a set of numbers and a deadline.
    #[test]
    fn any_order_of_events_opens_exactly_when_it_should(events in events()) {
        let (config, shares) = sharing(9, 2);
        let (_, old) = sharing(9, 1);
        let mut collector = Collector::new(config.sharing(), config.digest(), PLAN);
        let (mut given, mut deadline, mut now, mut over) = (Vec::new(), u64::MAX, 0, false);
        for event in events {
            let submission = match event {
                Event::Wait(seconds) => {
                    now += seconds;
                    continue;
                }
                Event::Good(at) => collector.submit(again(&shares[at]), PLAN, now),
                Event::OtherPlan(at) => collector.submit(again(&shares[at]), OTHER_PLAN, now),
                Event::Damaged(at) => collector.submit(damaged(&shares[at]), PLAN, now),
                Event::Old(at) => collector.submit(again(&old[at]), PLAN, now),
            };
            over |= now >= deadline;
            match (event, submission) {
                (Event::Good(at), Submission::Pending(progress)) => {
                    prop_assert!(!over && !given.contains(&at));
                    given.push(at);
                    deadline = deadline.min(now + PENDING_SECONDS);
                    prop_assert_eq!(usize::from(progress.given), given.len());
                }
                (Event::Good(at), Submission::Complete(valid)) => {
                    prop_assert!(!over && given.len() == 2 && !given.contains(&at));
                    let secret = combine(&valid).unwrap();
                    prop_assert_eq!(secret.expose(), &[9; 32]);
                    over = true;
                }
                (Event::Good(at), Submission::Refused(_)) => {
                    prop_assert!(over || given.contains(&at));
                }
                (_, Submission::Refused(_)) => {}
                (event, other) => prop_assert!(false, "{event:?} gave {other:?}"),
            }
        }
    }
}
