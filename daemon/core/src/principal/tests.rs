#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use super::*;

/// A record with these groups and uids.
pub(crate) fn record(name: &str, groups: &[&str], uids: &[u32]) -> PrincipalRecord {
    PrincipalRecord {
        name: PrincipalName::parse(name).unwrap(),
        groups: groups
            .iter()
            .map(|g| GroupName::parse(g).unwrap())
            .collect(),
        rules: uids.iter().copied().map(IdentityRule::Uid).collect(),
    }
}

/// The principal of a record, by way of evidence.
#[cfg(feature = "schema")]
pub(crate) fn principal(name: &str, groups: &[&str]) -> Principal {
    Identities::new([record(name, groups, &[1000])], false)
        .identify(PeerEvidence::unix(1000, 1000, 1))
        .unwrap()
}

fn name(identities: &Identities, evidence: PeerEvidence) -> Option<String> {
    identities.identify(evidence).map(|p| p.name().to_string())
}

#[test]
fn evidence_that_fits_no_record_is_nobody() {
    let identities = Identities::new([record("alice", &[], &[1000, 1001])], false);
    assert_eq!(
        name(&identities, PeerEvidence::unix(1000, 0, 1)).as_deref(),
        Some("alice")
    );
    assert_eq!(
        name(&identities, PeerEvidence::unix(1001, 0, 1)).as_deref(),
        Some("alice")
    );
    assert_eq!(name(&identities, PeerEvidence::unix(1002, 1000, 1)), None);
    assert_eq!(
        name(&Identities::default(), PeerEvidence::unix(1000, 0, 1)),
        None
    );
}

#[test]
fn evidence_that_fits_two_records_is_nobody() {
    let records = [
        record("alice", &[], &[1000, 1]),
        record("bob", &[], &[1000, 2]),
        record("carol", &[], &[1000]),
    ];
    let identities = Identities::new(records, false);
    assert_eq!(name(&identities, PeerEvidence::unix(1000, 0, 1)), None);
    assert_eq!(
        name(&identities, PeerEvidence::unix(2, 0, 1)).as_deref(),
        Some("bob")
    );
}

#[test]
fn a_name_in_two_records_is_nobody_by_any_evidence() {
    let records = [record("alice", &["a"], &[1]), record("alice", &["b"], &[2])];
    let identities = Identities::new(records, true);
    assert_eq!(name(&identities, PeerEvidence::unix(1, 0, 1)), None);
    assert_eq!(name(&identities, PeerEvidence::unix(2, 0, 1)), None);
    let fixed = PeerEvidence::fixed(PrincipalName::parse("alice").unwrap());
    assert_eq!(name(&identities, fixed), None);
}

#[test]
fn a_rule_twice_in_one_record_is_one_rule() {
    let identities = Identities::new([record("alice", &[], &[1000, 1000])], false);
    assert!(name(&identities, PeerEvidence::unix(1000, 0, 1)).is_some());
}

#[test]
fn root_and_the_overflow_uid_are_principals_in_dev_only() {
    for uid in [0, OVERFLOW_UID] {
        let records = || [record("root", &[], &[uid])];
        assert_eq!(
            name(
                &Identities::new(records(), false),
                PeerEvidence::unix(uid, 0, 1)
            ),
            None
        );
        assert!(
            name(
                &Identities::new(records(), true),
                PeerEvidence::unix(uid, 0, 1)
            )
            .is_some()
        );
    }
}

#[test]
fn a_fixed_principal_must_exist_and_works_in_dev_only() {
    let fixed = |name: &str| PeerEvidence::fixed(PrincipalName::parse(name).unwrap());
    let dev = Identities::new([record("alice", &[], &[])], true);
    assert_eq!(name(&dev, fixed("alice")).as_deref(), Some("alice"));
    assert_eq!(name(&dev, fixed("bob")), None);
    let production = Identities::new([record("alice", &[], &[])], false);
    assert_eq!(name(&production, fixed("alice")), None);
}
