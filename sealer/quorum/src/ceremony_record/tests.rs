use super::*;
use crate::fixtures::{again, key, officers, sharing, three_of_five};
use crate::split::split;
use crate::vectors::{CEREMONY_HEX, CEREMONY_TEXT};

fn store_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[0xaa; 32]).unwrap()
}

fn body() -> Body {
    let mut public = [0; 32];
    public.copy_from_slice(store_key().public_key().as_ref());
    Body {
        act: Recorded::Init,
        store: crate::fixtures::store(),
        set: crate::fixtures::set(),
        generation: Generation::FIRST,
        threshold: Threshold::new(2, 2).unwrap(),
        dev: false,
        made: 1_790_000_000,
        plan: PlanDigest::from_bytes([0x77; 32]),
        config: ConfigDigest::from_bytes([0x88; 32]),
        root_digest: [0x33; 32],
        audit_key: [0x99; 32],
        store_key: public,
        officers: officers(),
        holders: [("Ada", 0xcc), ("Bob", 0xdd)]
            .map(|(label, byte)| (label.to_owned(), ShareDigest::from_bytes([byte; 32])))
            .to_vec(),
    }
}

fn record() -> CeremonyRecord {
    body().signed(&store_key())
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
fn one_flipped_bit_anywhere_makes_it_no_record() {
    let bytes = record().to_bytes();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(CeremonyRecord::from_bytes(&changed).is_err(), "{at}");
    }
}

#[test]
fn a_record_signed_by_another_key_than_it_names_is_refused() {
    let other = Ed25519KeyPair::from_seed_unchecked(&[0xab; 32]).unwrap();
    let forged = body().signed(&other).to_bytes();
    assert!(matches!(
        CeremonyRecord::from_bytes(&forged),
        Err(CeremonyRecordError::Signature)
    ));
}

#[test]
fn the_signature_is_of_this_format_alone() {
    let signed = record();
    let bare = store_key().sign(&signed.body.to_bytes());
    let forged = CeremonyRecord {
        signature: bare.as_ref().try_into().unwrap(),
        ..signed
    };
    assert!(CeremonyRecord::from_bytes(&forged.to_bytes()).is_err());
}

#[test]
fn each_act_reads_back_and_an_unknown_one_is_refused() {
    for (act, number, name) in Recorded::ALL {
        let made = Body { act, ..body() }.signed(&store_key());
        assert_eq!(made.to_bytes()[10], number);
        assert_eq!(CeremonyRecord::from_bytes(&made.to_bytes()).unwrap(), made);
        assert!(made.to_text().contains(name));
    }
    let mut bytes = record().to_bytes();
    bytes[10] = 2;
    let refused = CeremonyRecord::from_bytes(&bytes).unwrap_err();
    assert!(refused.to_string().contains("act"), "{refused}");
}

#[test]
fn the_record_repeats_the_config() {
    let (config, _) = sharing(9, 1);
    let plan = PlanDigest::from_bytes([1; 32]);
    let record = CeremonyRecord::sign(Recorded::Init, &config, plan, 7, [2; 32], &store_key());
    assert_eq!(record.body.config, config.digest());
    assert_eq!(record.audit_key(), &[2; 32]);
    assert_eq!(
        record.store_key().as_slice(),
        store_key().public_key().as_ref()
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
fn it_knows_its_own_shares_and_names_how_others_differ() {
    let (config, shares) = sharing(9, 1);
    let plan = PlanDigest::from_bytes([1; 32]);
    let record = CeremonyRecord::sign(Recorded::Init, &config, plan, 7, [2; 32], &store_key());
    for (share, holder) in shares.iter().zip(config.holders()) {
        assert_eq!(record.holder_of(&again(share)), Ok(holder.label.as_str()));
    }
    let of = |set, generation| {
        let generation = Generation::new(generation).unwrap();
        split(&key(9), three_of_five(), set, generation).unwrap()
    };
    assert!(matches!(
        record.holder_of(&of(SetId::from_bytes([1; 16]), 1)[0]),
        Err(NotOfRecord::Set { .. })
    ));
    assert!(matches!(
        record.holder_of(&of(config.set(), 2)[0]),
        Err(NotOfRecord::Generation { .. })
    ));
    // Made anew, with the same numbers and other coefficients.
    assert_eq!(
        record.holder_of(&of(config.set(), 1)[1]),
        Err(NotOfRecord::Damaged { index: 2 })
    );
}

#[test]
fn a_dev_store_says_so_on_paper() {
    let dev = Body {
        dev: true,
        ..body()
    }
    .signed(&store_key());
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
