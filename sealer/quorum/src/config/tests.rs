use proptest::prelude::*;

use super::*;
use crate::fixtures::{officers, parts, set, share, three_of_five};
use crate::share::Share;
use crate::vectors::{SEAL_CONFIG_DIGEST_HEX, SEAL_CONFIG_HEX};

fn shares() -> Vec<Share> {
    (1..=5)
        .map(|index| {
            let value = crate::fixtures::key(index);
            Share::new(set(), Generation::FIRST, index, three_of_five(), value)
        })
        .collect()
}

fn good() -> SealConfigParts {
    parts(three_of_five(), &shares())
}

/// Two of two, so that the hex stays short.
pub(crate) fn small() -> SealConfig {
    SealConfig::new(parts(Threshold::new(2, 2).unwrap(), &shares()[..2])).unwrap()
}

fn refused(change: impl FnOnce(&mut SealConfigParts)) -> ConfigError {
    let mut parts = good();
    change(&mut parts);
    SealConfig::new(parts).unwrap_err()
}

#[test]
fn the_example_in_hex_reads_back() {
    assert_eq!(hex::encode(small().to_bytes()), SEAL_CONFIG_HEX);
    assert_eq!(
        SealConfig::from_bytes(&hex::decode(SEAL_CONFIG_HEX).unwrap()).unwrap(),
        small()
    );
    assert_eq!(small().digest().to_string(), SEAL_CONFIG_DIGEST_HEX);
}

#[test]
fn holders_are_found_by_their_number() {
    let config = SealConfig::new(good()).unwrap();
    assert_eq!(config.holder(1).unwrap().label, "holder-1");
    assert_eq!(config.holder(5).unwrap().label, "holder-5");
    assert!(config.holder(0).is_none() && config.holder(6).is_none());
}

#[test]
fn one_holder_is_enough_in_dev_only() {
    let one = |dev| {
        let mut parts = parts(Threshold::dev(1, 1).unwrap(), &shares()[..1]);
        parts.dev = dev;
        parts.sharing.holders[0].recipient.clear();
        parts.officers.truncate(1);
        SealConfig::new(parts)
    };
    assert!(one(true).is_ok());
    assert_eq!(one(false), Err(ConfigError::SingleHolder));
}

#[test]
fn there_is_one_holder_for_each_share() {
    let error = refused(|parts| drop(parts.sharing.holders.pop()));
    assert_eq!(error, ConfigError::Holders { total: 5, found: 4 });
}

#[test]
fn a_share_leaves_encrypted_outside_dev() {
    let error = refused(|parts| parts.sharing.holders[2].recipient.clear());
    assert_eq!(error, ConfigError::Recipient { position: 3 });
    let error = refused(|parts| parts.sharing.holders[2].recipient = "age1 two words".to_owned());
    assert_eq!(error, ConfigError::Recipient { position: 3 });
    let error = refused(|parts| parts.sharing.holders[2].recipient = "a".repeat(MAX_RECIPIENT + 1));
    assert_eq!(error, ConfigError::Recipient { position: 3 });
}

#[test]
fn nobody_holds_two_shares() {
    let twice = |what| ConfigError::Twice {
        role: "holder",
        position: 4,
        what,
    };
    let copy = |parts: &mut SealConfigParts, f: fn(&mut Holder, Holder)| {
        let first = parts.sharing.holders[0].clone();
        f(&mut parts.sharing.holders[3], first);
    };
    assert_eq!(
        refused(|p| copy(p, |to, from| to.label = from.label)),
        twice("label")
    );
    assert_eq!(
        refused(|p| copy(p, |to, from| to.recipient = from.recipient)),
        twice("recipient")
    );
    assert_eq!(
        refused(|p| copy(p, |to, from| to.digest = from.digest)),
        twice("share digest")
    );
}

#[test]
fn two_officers_or_more_who_are_two() {
    let officers = |change: fn(&mut Vec<OfficerKey>)| refused(|parts| change(&mut parts.officers));
    let twice = |what| ConfigError::Twice {
        role: "officer",
        position: 2,
        what,
    };
    assert_eq!(
        officers(|o| o.truncate(1)),
        ConfigError::Officers { least: 2, found: 1 }
    );
    assert_eq!(officers(|o| o[1].public = o[0].public), twice("key"));
    assert_eq!(officers(|o| o[1].name = o[0].name.clone()), twice("name"));
    let error = refused(|parts| {
        let many = (0..=MAX_OFFICERS).map(|at| OfficerKey {
            name: format!("officer-{at}"),
            public: [u8::try_from(at).unwrap(); 32],
        });
        parts.officers = many.collect();
    });
    assert_eq!(
        error,
        ConfigError::Officers {
            least: 2,
            found: MAX_OFFICERS + 1
        }
    );
}

#[test]
fn labels_are_visible_text() {
    for label in [
        "",
        " a",
        "a ",
        "a\nb",
        "a\u{1b}[2Jb",
        "a\u{202e}b",
        "a\u{200b}b",
        &"x".repeat(65),
    ] {
        let error = refused(|parts| label.clone_into(&mut parts.sharing.holders[0].label));
        assert_eq!(
            error,
            ConfigError::Label {
                role: "holder",
                position: 1
            },
            "{label:?}"
        );
        let error = refused(|parts| label.clone_into(&mut parts.officers[1].name));
        assert_eq!(
            error,
            ConfigError::Label {
                role: "officer",
                position: 2
            },
            "{label:?}"
        );
    }
    let mut parts = good();
    "Zoë Müller (safe, 2. Stock)".clone_into(&mut parts.sharing.holders[0].label);
    assert!(SealConfig::new(parts).is_ok());
}

#[test]
fn bytes_that_break_a_rule_do_not_become_a_config() {
    let one_officer = SealConfig(SealConfigParts {
        officers: officers()[..1].to_vec(),
        ..good()
    });
    let error = SealConfig::from_bytes(&one_officer.to_bytes()).unwrap_err();
    assert_eq!(error, ConfigError::Officers { least: 2, found: 1 });
    let mut bytes = small().to_bytes();
    bytes[46] = 3;
    assert!(matches!(
        SealConfig::from_bytes(&bytes),
        Err(ConfigError::Threshold(_))
    ));
    bytes[42..46].copy_from_slice(&[0; 4]);
    assert!(matches!(
        SealConfig::from_bytes(&bytes),
        Err(ConfigError::Format(FormatError::Value {
            field: "generation",
            found: 0,
            ..
        }))
    ));
}

#[test]
fn the_value_of_a_share_is_not_in_its_config() {
    let digest = share().digest();
    assert_ne!(digest.as_bytes(), share().value().expose());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_other_bytes_are_the_same_config(at in 0..small().to_bytes().len(), bit in 0..8_u8) {
        let mut bytes = small().to_bytes();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = SealConfig::from_bytes(&bytes) {
            prop_assert_ne!(other.digest(), small().digest());
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_cut_or_grown_config_is_refused(len in 0..small().to_bytes().len()) {
        let bytes = small().to_bytes();
        prop_assert!(SealConfig::from_bytes(&bytes[..len]).is_err());
        prop_assert!(SealConfig::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }
}
