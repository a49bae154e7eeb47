use aes_gcm::aead::{AeadInPlace, KeyInit};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{key, store};
use crate::vectors::{RECORD_AAD_HEX, RECORD_HEX, RECORD_PLAIN_HEX, WRAPPED_KEY_HEX};

/// The name HMAC of the example.
const NAME: [u8; 32] = [
    0x8b, 0x31, 0x5b, 0x35, 0x50, 0xa2, 0xd3, 0x1e, 0x74, 0xc2, 0x9c, 0xdf, 0x43, 0xc5, 0x0f, 0x04,
    0x35, 0x34, 0x03, 0x7e, 0xee, 0x10, 0x2e, 0x41, 0x62, 0x0e, 0x14, 0x5c, 0x0b, 0x1c, 0x87, 0xe0,
];

fn place() -> RecordAad<'static> {
    RecordAad {
        store: store(),
        vault: "ops",
        epoch: [0x44; 16],
        name: &NAME,
        version: 3,
    }
}

fn sealed(plaintext: &[u8]) -> Vec<u8> {
    seal_record(&key(7), &place(), plaintext).unwrap()
}

fn opened(bytes: &[u8]) -> Result<Secret, RecordError> {
    open_record(&key(7), &place(), bytes)
}

/// HKDF and GCM once more, by other crates.
fn other_implementation(key: &[u8; 32], salt: &[u8], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut okm = [0; 64];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), key)
        .expand(aad, &mut okm)
        .unwrap();
    let mut body = plain.to_vec();
    let tag = aes_gcm::Aes256Gcm::new_from_slice(&okm[..32])
        .unwrap()
        .encrypt_in_place_detached(&[0; 12].into(), aad, &mut body)
        .unwrap();
    [&okm[32..], &body, &tag].concat()
}

#[test]
fn the_other_implementation_gives_the_published_answers() {
    // RFC 5869, appendix A.1.
    let mut okm = [0; 42];
    let salt = hex::decode("000102030405060708090a0b0c").unwrap();
    hkdf::Hkdf::<sha2::Sha256>::new(Some(&salt), &[0x0b; 22])
        .expand(&hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap(), &mut okm)
        .unwrap();
    assert_eq!(
        hex::encode(okm),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    );
    // The GCM specification's test case 14: AES-256, zero key, zero nonce, one zero block.
    let mut body = [0; 16];
    let tag = aes_gcm::Aes256Gcm::new_from_slice(&[0; 32])
        .unwrap()
        .encrypt_in_place_detached(&[0; 12].into(), &[], &mut body)
        .unwrap();
    assert_eq!(hex::encode(body), "cea7403d4d606b6e074ec5d3baf39d18");
    assert_eq!(hex::encode(tag), "d0d1c8a799996bf0265b98b5d48ab919");
}

#[test]
fn a_room_opens_one_record_after_the_other_and_keeps_no_byte_of_the_last() {
    let mut room = OpenRoom::new().unwrap();
    for plain in [b"glpat-example".as_slice(), &[7; 300], b"short", b""] {
        let bytes = sealed(plain);
        assert_eq!(room.open(&key(7), &place(), &bytes).unwrap(), plain);
        let rest = &room.body.expose()[plain.len() + TAG_LEN..];
        assert!(rest.iter().all(|byte| *byte == 0));
        assert!(matches!(
            room.open(&key(8), &place(), &bytes),
            Err(RecordError::Commitment)
        ));
        assert!(room.open(&key(7), &place(), &bytes[1..]).is_err());
    }
}

#[test]
fn the_example_in_hex_is_sealed_and_opened() {
    let aad = place().to_bytes().unwrap();
    assert_eq!(hex::encode(NAME), crate::vectors::NAME_HMAC_HEX);
    assert_eq!(hex::encode(&aad), RECORD_AAD_HEX);
    let plain = hex::decode(RECORD_PLAIN_HEX).unwrap();
    let bytes = seal(&key(7), &[0x44; 16], &aad, &[0x55; 24], &plain).unwrap();
    assert_eq!(hex::encode(&bytes), RECORD_HEX);
    assert_eq!(opened(&bytes).unwrap().expose(), plain);
    assert_eq!(
        bytes[45..],
        other_implementation(&[7; 32], &[0x55; 24], &aad, &plain)
    );
}

#[test]
fn the_wrapped_key_in_hex_is_made_and_unwrapped() {
    let aad = wrap_aad("root", b"config").unwrap();
    let bytes = seal(&key(1), &NO_EPOCH, &aad, &[0x55; 24], &[9; 32]).unwrap();
    assert_eq!(hex::encode(&bytes), WRAPPED_KEY_HEX);
    assert_eq!(
        unwrap_key(&key(1), "root", b"config", &bytes)
            .unwrap()
            .expose(),
        &[9; 32]
    );
}

#[test]
fn every_bit_counts() {
    let good = sealed(b"secret");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = opened(&bytes).unwrap_err();
        let expected = match at {
            0..4 => matches!(error, RecordError::NotARecord { .. }),
            4 => matches!(error, RecordError::Suite(_)),
            5..21 => matches!(error, RecordError::Epoch),
            21..77 => matches!(error, RecordError::Commitment),
            _ => matches!(error, RecordError::Damaged),
        };
        assert!(expected, "byte {at}: {error}");
    }
}

#[test]
fn a_cut_or_grown_record_is_refused() {
    let good = sealed(b"secret");
    for len in 0..good.len() {
        let error = opened(&good[..len]).unwrap_err();
        let expected = if len < RECORD_OVERHEAD {
            matches!(error, RecordError::NotARecord { .. })
        } else {
            matches!(error, RecordError::Damaged)
        };
        assert!(expected, "{len}: {error}");
    }
    let grown = [good.as_slice(), &[0]].concat();
    assert!(matches!(opened(&grown), Err(RecordError::Damaged)));
}

#[test]
fn a_record_opens_only_in_its_place_and_under_its_key() {
    let good = place();
    let bytes = sealed(b"secret");
    let elsewhere = [
        RecordAad {
            store: StoreId::from_bytes([0; 16]),
            ..good
        },
        RecordAad {
            vault: "lab",
            ..good
        },
        RecordAad {
            name: &[0; 32],
            ..good
        },
        RecordAad {
            name: &NAME[..31],
            ..good
        },
        RecordAad { version: 2, ..good },
    ];
    for aad in elsewhere {
        let error = open_record(&key(7), &aad, &bytes).unwrap_err();
        assert!(matches!(error, RecordError::Commitment), "{aad:?}: {error}");
    }
    assert!(matches!(
        open_record(&key(8), &good, &bytes),
        Err(RecordError::Commitment)
    ));
    let aad = RecordAad {
        epoch: [0; 16],
        ..good
    };
    assert!(matches!(
        open_record(&key(7), &aad, &bytes),
        Err(RecordError::Epoch)
    ));
}

#[test]
fn a_record_moved_to_another_epoch_by_its_header_does_not_open() {
    let mut bytes = sealed(b"secret");
    bytes[5..21].copy_from_slice(&[0; 16]);
    let aad = RecordAad {
        epoch: [0; 16],
        ..place()
    };
    assert!(matches!(
        open_record(&key(7), &aad, &bytes),
        Err(RecordError::Commitment)
    ));
}

#[test]
fn a_key_is_used_for_one_message_only() {
    let (a, b) = (sealed(b"same"), sealed(b"same"));
    assert_ne!(a[21..45], b[21..45], "salt");
    assert_ne!(a[45..77], b[45..77], "commitment");
    assert_ne!(a[77..], b[77..], "ciphertext");
}

#[test]
fn the_longest_plaintext_fits_and_one_more_byte_does_not() {
    let long = vec![0xa5; MAX_PLAINTEXT + 1];
    let bytes = sealed(&long[1..]);
    assert_eq!(bytes.len(), MAX_PLAINTEXT + RECORD_OVERHEAD);
    assert_eq!(opened(&bytes).unwrap().expose(), &long[1..]);
    let error = seal_record(&key(7), &place(), &long).unwrap_err();
    assert!(matches!(error, RecordError::TooLong { .. }));
    let grown = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(
        opened(&grown),
        Err(RecordError::NotARecord { .. })
    ));
}

#[test]
fn an_aad_beyond_its_limit_is_refused() {
    let aad = RecordAad {
        vault: &"v".repeat(MAX_AAD),
        ..place()
    };
    assert!(matches!(
        aad.to_bytes(),
        Err(RecordError::AadTooLong { .. })
    ));
    let error = wrap_key(&key(1), "root", &vec![0; MAX_AAD], &key(2)).unwrap_err();
    assert!(matches!(error, RecordError::AadTooLong { .. }));
}

#[test]
fn a_wrapped_key_serves_its_purpose_and_owner_only() {
    let bytes = wrap_key(&key(1), "root", b"config", &key(9)).unwrap();
    let unwrap = |kek, purpose, aad| unwrap_key(&key(kek), purpose, aad, &bytes);
    assert!(unwrap(1, "root", b"config").is_ok());
    for error in [
        unwrap(2, "root", b"config"),
        unwrap(1, "vault", b"config"),
        unwrap(1, "root", b"confi"),
        unwrap(1, "rootc", b"onfig"),
    ] {
        assert!(matches!(error, Err(RecordError::Commitment)));
    }
    let aad = wrap_aad("root", b"").unwrap();
    for len in [0, 31, 33] {
        let bytes = seal(&key(1), &NO_EPOCH, &aad, &[0; 24], &vec![9; len]).unwrap();
        let error = unwrap_key(&key(1), "root", b"", &bytes).unwrap_err();
        assert!(matches!(error, RecordError::KeyLength { found } if found == len));
    }
}

#[test]
fn the_clear_parts_are_those_of_the_layout() {
    let bytes = sealed(b"secret");
    let parts = RecordTag::parse(&bytes).unwrap();
    assert_eq!(parts.epoch, [0x44; 16]);
    assert_eq!(parts.commitment, bytes[45..77]);
    assert_eq!(parts.tag, bytes[bytes.len() - 16..]);
    assert!(RecordTag::parse(&bytes[..92]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sealed_opens_and_agrees_with_the_other_implementation(
        ikm: [u8; 32],
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        vault in ".{0,12}", name in proptest::collection::vec(any::<u8>(), 0..40), version: u64,
    ) {
        let key = crate::fixtures::key_of(&ikm);
        let aad = RecordAad { store: store(), vault: &vault, epoch: [3; 16], name: &name, version };
        let bytes = seal_record(&key, &aad, &plain).unwrap();
        prop_assert_eq!(bytes.len(), plain.len() + RECORD_OVERHEAD);
        let expected = other_implementation(&ikm, &bytes[21..45], &aad.to_bytes().unwrap(), &plain);
        prop_assert_eq!(&bytes[45..], expected);
        let opened = open_record(&key, &aad, &bytes).unwrap();
        prop_assert_eq!(opened.expose(), plain);
    }

    #[test]
    fn no_two_places_have_one_aad(
        a in proptest::collection::vec("[ab]{0,3}", 2), b in proptest::collection::vec("[ab]{0,3}", 2),
    ) {
        let aad = |t: &[String]| RecordAad {
            vault: &t[0], name: t[1].as_bytes(), ..place()
        }.to_bytes().unwrap();
        prop_assert_eq!(aad(&a) == aad(&b), a == b);
    }

    #[test]
    fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(opened(&bytes).is_err());
        let framed = [b"MCPR\x01".as_slice(), &[0x44; 16], &bytes].concat();
        prop_assert!(opened(&framed).is_err());
    }
}
