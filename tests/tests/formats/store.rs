//! Shares, ceremonies, the store's records and heads, and secrets on their way in.

use mcpist_quorum::{
    Act, Buckets, CeremonyRecord, Entry, Generation, Head, Holder, Incarnation, NameHmac,
    OfficerKey, Plan, PlanDigest, RecordAad, RecordTag, Recorded, SealConfig, SealConfigParts,
    SetId, Share, Sharing, StoreId, Threshold, VaultConfig, derive_kek, open_record, read_share,
    unwrap_key,
};
use mcpist_secret::Secret;
use mcpist_secret::frame::{Ticket, read_frame, write_frame};
use mcpist_secret::redact::{Fingerprint, RedactKey};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{bytes, key, shows, text};

fn set() -> SetId {
    SetId::from_bytes([0x22; 16])
}

fn store() -> StoreId {
    "11111111-1111-4111-9111-111111111111".parse().unwrap()
}

fn officers() -> Vec<OfficerKey> {
    let officer = |name: &str, byte| OfficerKey {
        name: name.to_owned(),
        public: [byte; 32],
    };
    vec![officer("Olga", 0x0a), officer("Omar", 0x0b)]
}

#[test]
fn a_share_is_its_text() {
    let share = Share::parse(text("share-text").as_bytes()).unwrap();
    assert_eq!(
        (share.set(), share.generation(), share.index()),
        (set(), Generation::FIRST, 2)
    );
    assert_eq!(share.threshold(), Threshold::new(3, 5).unwrap());
    assert_eq!(
        share.to_text().unwrap().expose(),
        text("share-text").as_bytes()
    );
    shows("share-digest", share.digest().as_bytes());
    let words = text("share-words").replace('\n', " ");
    assert_eq!(share.to_words().unwrap().expose(), words.as_bytes());
    assert_eq!(
        read_share(words.as_bytes()).unwrap().digest(),
        share.digest()
    );
}

#[test]
fn the_key_encryption_key_follows_from_the_split_secret() {
    shows(
        "kek",
        derive_kek(&key(9), set(), Generation::FIRST)
            .unwrap()
            .expose(),
    );
}

fn seal_config(labels: [&str; 2], digests: [&str; 2]) -> SealConfig {
    let holder = |at: usize| Holder {
        label: labels[at].to_owned(),
        recipient: format!("age1recipient{}", at + 1),
        digest: digests[at].parse().unwrap(),
    };
    SealConfig::new(SealConfigParts {
        store: store(),
        sharing: Sharing {
            set: set(),
            generation: Generation::FIRST,
            threshold: Threshold::new(2, 2).unwrap(),
            holders: vec![holder(0), holder(1)],
        },
        root_digest: [0x33; 32],
        officers: officers(),
        dev: false,
        created: 1_790_000_000,
    })
    .unwrap()
}

#[test]
fn a_seal_config_is_these_bytes() {
    let config = seal_config(
        ["holder-1", "holder-2"],
        [
            "97d22494a8556f1c8881e7d04427c6b5c0946a820f01a8592a4ee2741754de59",
            "80d086e9608cdd09dcd0b854cf6cd0e182540fa28307ea1e99a4669b74b7a154",
        ],
    );
    shows("seal-config", config.to_bytes());
    shows("seal-config-digest", config.digest().as_bytes());
    assert_eq!(
        SealConfig::from_bytes(&bytes("seal-config")).unwrap(),
        config
    );
}

#[test]
fn plans_read_back() {
    let plan = Plan::from_bytes(&bytes("plan-unseal")).unwrap();
    assert_eq!(
        (plan.nonce(), plan.store(), plan.set()),
        (&[0x66; 16], store(), set())
    );
    assert!(matches!(plan.act(), Act::Unseal(config) if config.as_bytes() == &[0x77; 32]));
    shows("plan-unseal", plan.to_bytes());
    shows("plan-digest", plan.digest().as_bytes());
    let plan = Plan::from_bytes(&bytes("plan-init")).unwrap();
    let Act::Init(terms) = plan.act() else {
        panic!("the plan is one of init")
    };
    assert_eq!(
        (terms.officers.clone(), terms.root_digest, terms.dev),
        (officers(), [0x33; 32], true)
    );
    assert_eq!(
        terms
            .holders
            .iter()
            .map(|h| h.label.as_str())
            .collect::<Vec<_>>(),
        ["Ada", "Bob"]
    );
    shows("plan-init", plan.to_bytes());
    let plan = Plan::from_bytes(&bytes("plan-rekey")).unwrap();
    let Act::Rekey(terms) = plan.act() else {
        panic!("the plan is one of rekey")
    };
    assert_eq!(
        (terms.config.as_bytes(), terms.generation.get()),
        (&[0x77; 32], 2)
    );
    assert_eq!(
        (terms.threshold, terms.rotate_root, terms.dev),
        (Threshold::new(2, 2).unwrap(), true, true)
    );
    shows("plan-rekey", plan.to_bytes());
    let plan = Plan::from_bytes(&bytes("plan-rotate-root")).unwrap();
    assert!(matches!(plan.act(), Act::RotateRoot(config) if config.as_bytes() == &[0x77; 32]));
    shows("plan-rotate-root", plan.to_bytes());
    for (name, generation) in [("plan-new-vault", 1), ("plan-rekey-vault", 2)] {
        let plan = Plan::from_bytes(&bytes(name)).unwrap();
        let Act::RekeyVault(terms) = plan.act() else {
            panic!("the plan is one of a vault's quorum")
        };
        assert_eq!(
            (terms.vault.id, terms.vault.name.as_str()),
            ([0x44; 16], "ops")
        );
        assert_eq!(terms.generation.get(), generation);
        assert_eq!(terms.replaces.is_some(), generation == 2);
        shows(name, plan.to_bytes());
    }
    let plan = Plan::from_bytes(&bytes("plan-unseal-vault")).unwrap();
    assert!(matches!(plan.act(), Act::UnsealVault { vault, .. } if vault.id == [0x44; 16]));
    shows("plan-unseal-vault", plan.to_bytes());
    let config = VaultConfig::from_bytes(&bytes("vault-config")).unwrap();
    shows("vault-config", config.to_bytes());
    shows("vault-config-digest", config.digest().as_bytes());
    let plan = Plan::from_bytes(&bytes("plan-restore")).unwrap();
    let Act::Restore { config, backup } = plan.act() else {
        panic!("the plan is one of restore")
    };
    assert_eq!((config.as_bytes(), backup), (&[0x77; 32], &[0x88; 32]));
    shows("plan-restore", plan.to_bytes());
    let plan = Plan::from_bytes(&bytes("plan-drill")).unwrap();
    let Act::Drill { config, backup } = plan.act() else {
        panic!("the plan is one of a drill")
    };
    assert_eq!((config.as_bytes(), backup), (&[0x77; 32], &[0x88; 32]));
    shows("plan-drill", plan.to_bytes());
}

#[test]
fn a_ceremony_record_is_these_bytes() {
    let record = CeremonyRecord::from_bytes(&bytes("ceremony-record")).unwrap();
    shows("ceremony-record", record.to_bytes());
    let config = seal_config(["Ada", "Bob"], [&"cc".repeat(32), &"dd".repeat(32)]);
    let plan = PlanDigest::from_bytes([0x77; 32]);
    let store = Ed25519KeyPair::from_seed_unchecked(&[0xaa; 32]).unwrap();
    let made = CeremonyRecord::sign(
        Recorded::Init,
        &config,
        plan,
        1_790_000_000,
        [0x99; 32],
        &store,
    );
    // The example's config digest is not one of a config, and so its signature is another.
    let example = bytes("ceremony-record");
    let (mut made, signed) = (made.to_bytes(), example.len() - 64);
    made[90..122].fill(0x88);
    assert_eq!(made[..signed], example[..signed]);
    assert_eq!(record.store_key(), store.public_key().as_ref());
}

#[test]
fn a_sealed_record_opens_in_its_place_alone() {
    let name = NameHmac::new(&key(6), "ops", "", "gitlab");
    let aad = RecordAad {
        store: store(),
        vault: "ops",
        epoch: [0x44; 16],
        name: name.as_bytes(),
        version: 3,
    };
    shows("record-aad", aad.to_bytes().unwrap());
    let sealed = bytes("sealed-record");
    let opened = open_record(&key(7), &aad, &sealed).unwrap();
    shows("record-plaintext", opened.expose());
    assert!(open_record(&key(7), &RecordAad { version: 4, ..aad }, &sealed).is_err());
    let tag = RecordTag::parse(&sealed).unwrap();
    assert_eq!(
        (&tag.commitment[..], &tag.tag[..]),
        (&sealed[45..77], &sealed[sealed.len() - 16..])
    );
}

#[test]
fn a_wrapped_key_unwraps_for_its_purpose_alone() {
    let wrapped = bytes("wrapped-key");
    assert_eq!(
        unwrap_key(&key(1), "root", b"config", &wrapped)
            .unwrap()
            .expose(),
        &[9; 32]
    );
    assert!(unwrap_key(&key(1), "vault", b"config", &wrapped).is_err());
}

#[test]
fn the_root_of_a_vault_follows_from_its_records() {
    let name = NameHmac::new(&key(6), "ops", "", "gitlab");
    shows("name-hmac", name.as_bytes());
    let mut buckets = Buckets::new("ops");
    shows("empty-root", buckets.root(&key(5)));
    let record = RecordTag {
        epoch: [0x44; 16],
        commitment: [0x77; 32],
        tag: [0x77; 16],
    };
    buckets.set(Entry::new(&name, 3, &record));
    shows("buckets-root", buckets.root(&key(5)));
}

#[test]
fn a_head_is_these_bytes() {
    let head = Head {
        incarnation: Incarnation {
            counter: 2,
            id: [1; 16],
            parent: [2; 16],
        },
        generation: 3,
        count: 4,
        root: [5; 32],
    };
    shows("vault-head", head.to_bytes());
    shows("vault-head-digest", head.digest());
}

#[test]
fn a_frame_is_ticket_length_payload() {
    let mut written = Vec::new();
    let payload = Secret::copy_of(b"s3cr3t").unwrap();
    write_frame(&mut written, &Ticket::from_bytes([0x11; 32]), &payload).unwrap();
    shows("secret-frame", written);
    let (ticket, payload) = read_frame(&mut &bytes("secret-frame")[..]).unwrap();
    assert!(ticket == Ticket::from_bytes([0x11; 32]) && payload.expose() == b"s3cr3t");
}

#[test]
fn a_fingerprint_is_these_bytes() {
    let redact = RedactKey::new(key(0x0c)).unwrap();
    shows(
        "fingerprint",
        redact.fingerprint(b"s3cr3t-token").unwrap().encode(),
    );
    assert_eq!(
        Fingerprint::decode(&bytes("fingerprint")).unwrap().encode(),
        bytes("fingerprint")
    );
}
