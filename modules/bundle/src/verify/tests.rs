//! One case for each way in which a bundle may be wrong.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use mcpist_core::api::PublicKey;

use super::*;
use crate::build::tests::{bundle, options};
use crate::build::{build, sign};
use crate::keys::SigningKey;
use crate::quarantine::take;
use crate::root::{Delegation, Keys, RootParts};
use crate::stage::{clean, load};

struct Site {
    folder: tempfile::TempDir,
    keys: [SigningKey; 3],
    root: Root,
}

fn site() -> Site {
    let keys = [0; 3].map(|_| SigningKey::generate().unwrap());
    let public: Vec<PublicKey> = keys.iter().map(SigningKey::public).collect();
    let one = || Keys {
        threshold: 1,
        keys: vec![public[2]],
    };
    let root = Root::new(RootParts {
        version: 1,
        site: SiteId::parse("site-a").unwrap(),
        publisher: Keys {
            threshold: 2,
            keys: public.clone(),
        },
        root: one(),
        revoke: one(),
        namespaces: vec![Delegation {
            namespace: Namespace::parse("acme").unwrap(),
            keys: public[..2].to_vec(),
        }],
    });
    Site {
        folder: tempfile::tempdir().unwrap(),
        keys,
        root: root.unwrap(),
    }
}

impl Site {
    fn signed(&self, sequence: u64) -> Vec<u8> {
        self.sign(&bundle(sequence), &[0, 1])
    }

    fn sign(&self, bundle: &[u8], keys: &[usize]) -> Vec<u8> {
        keys.iter().fold(bundle.to_vec(), |b, k| {
            sign(&b, &self.keys[*k], Role::Publisher).unwrap()
        })
    }

    fn code(&self, bytes: &[u8], floor: Option<Floor>, now: u64) -> &'static str {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(bytes).unwrap();
        let taken = take(&source, self.folder.path(), 1 << 24).unwrap();
        match taken.verify(&self.root, |_, _| Ok(floor), now) {
            Ok(_) => "ok",
            Err(e) => e.code(),
        }
    }
}

#[test]
fn a_bundle_with_enough_signatures_passes() {
    let site = site();
    assert_eq!(site.code(&site.signed(1), None, 0), "ok");
}

#[test]
fn too_few_signatures_and_one_key_twice() {
    let site = site();
    assert_eq!(site.code(&bundle(1), None, 0), "too_few_signatures");
    let once = site.sign(&bundle(1), &[0]);
    assert_eq!(site.code(&once, None, 0), "too_few_signatures");
    // The tool refuses to sign twice, so the second block is put in by hand.
    let block = &once[HEADER_LEN..HEADER_LEN + BLOCK_LEN];
    let mut twice = [&once[..HEADER_LEN], block, &once[HEADER_LEN..]].concat();
    twice[11] = 2;
    assert_eq!(site.code(&twice, None, 0), "key_twice");
}

#[test]
fn a_stranger_counts_for_nothing_and_another_role_neither() {
    let site = site();
    let stranger = SigningKey::generate().unwrap();
    let once = site.sign(&bundle(1), &[0]);
    assert_eq!(
        site.code(&sign(&once, &stranger, Role::Publisher).unwrap(), None, 0),
        "too_few_signatures"
    );
    assert_eq!(
        site.code(&sign(&once, &site.keys[1], Role::Root).unwrap(), None, 0),
        "too_few_signatures"
    );
}

#[test]
fn a_key_outside_the_namespace_does_not_count_for_it() {
    let site = site();
    assert_eq!(
        site.code(&site.sign(&bundle(1), &[0, 2]), None, 0),
        "foreign_namespace"
    );
    assert_eq!(site.code(&site.sign(&bundle(1), &[0, 1, 2]), None, 0), "ok");
}

#[test]
fn another_site_and_a_time_that_is_over() {
    let site = site();
    let mut elsewhere = options(1);
    elsewhere.audience = vec![SiteId::parse("site-b").unwrap()];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../catalog/prometheus");
    let built = build(&[folder], &elsewhere).unwrap();
    assert_eq!(
        site.code(&site.sign(&built, &[0, 1]), None, 0),
        "other_audience"
    );
    assert_eq!(site.code(&site.signed(1), None, 1_800_000_000), "ok");
    assert_eq!(site.code(&site.signed(1), None, 1_800_000_001), "expired");
}

#[test]
fn the_sequence_floor() {
    let site = site();
    let digest = Digest::of(inspected(&bundle(5)));
    let floor = |sequence, digest| Some(Floor { sequence, digest });
    assert_eq!(site.code(&site.signed(5), floor(4, digest), 0), "ok");
    assert_eq!(
        site.code(&site.signed(5), floor(5, digest), 0),
        "already_imported"
    );
    assert_eq!(
        site.code(&site.signed(5), floor(5, Digest::of(b"other")), 0),
        "equivocation"
    );
    assert_eq!(
        site.code(&site.signed(5), floor(6, digest), 0),
        "older_sequence"
    );
}

fn inspected(unsigned: &[u8]) -> &[u8] {
    let header = Header::parse(unsigned.first_chunk().unwrap(), unsigned.len() as u64).unwrap();
    &unsigned[HEADER_LEN..HEADER_LEN + header.manifest()]
}

#[test]
fn every_flipped_byte_is_found() {
    let site = site();
    let good = site.signed(1);
    // Every byte of header and blocks; of manifest and blobs a stride that meets each kind of place.
    let front = HEADER_LEN + 2 * BLOCK_LEN;
    for at in (0..front).chain((front..good.len()).step_by(97)) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_ne!(site.code(&bad, None, 0), "ok", "byte {at}");
    }
}

#[test]
fn truncation_and_trailing_bytes() {
    let site = site();
    let good = site.signed(1);
    for length in [
        0,
        1,
        HEADER_LEN - 1,
        HEADER_LEN,
        HEADER_LEN + BLOCK_LEN,
        good.len() - 1,
    ] {
        assert_eq!(
            site.code(&good[..length], None, 0),
            "wrong_length",
            "{length} bytes"
        );
    }
    assert_eq!(
        site.code(&[&good[..], b"x"].concat(), None, 0),
        "wrong_length"
    );
}

#[test]
fn a_signed_manifest_that_is_not_strict_is_refused() {
    let site = site();
    let good = bundle(1);
    let manifest = inspected(&good);
    let remade = |json: &str| {
        let header = Header::new(
            0,
            json.len(),
            (good.len() - HEADER_LEN - manifest.len()) as u64,
        )
        .unwrap();
        let built = [
            &header.to_bytes()[..],
            json.as_bytes(),
            &good[HEADER_LEN + manifest.len()..],
        ]
        .concat();
        site.code(&site.sign(&built, &[0, 1]), None, 0)
    };
    let json = std::str::from_utf8(manifest).unwrap();
    assert_eq!(remade(json), "ok");
    assert_eq!(
        remade(&json.replacen('{', "{\"extra\":1,", 1)),
        "bad_manifest"
    );
    assert_eq!(
        remade(&json.replacen('{', "{\"format\":1,", 1)),
        "bad_manifest"
    );
    assert_eq!(
        remade(&json.replace("prometheus/schemas/query.json", "../schemas/query.json")),
        "bad_manifest"
    );
    assert_eq!(
        remade(&json.replace("prometheus/schemas/query.json", "prometheus/QUERY.json")),
        "bad_manifest"
    );
    assert_eq!(remade(&"[".repeat(10_000)), "bad_manifest");
    let length = json.find("\"length\":").unwrap() + 9;
    let longer = format!("{}9{}", &json[..length], &json[length..]);
    assert_eq!(remade(&longer), "wrong_payload");
}

#[test]
fn what_is_staged_loads_back_and_damage_is_found() {
    let site = site();
    let registries = tempfile::tempdir().unwrap();
    let mut source = tempfile::tempfile().unwrap();
    source.write_all(&site.signed(1)).unwrap();
    let taken = take(&source, site.folder.path(), 1 << 24).unwrap();
    let verified = taken.verify(&site.root, |_, _| Ok(None), 0).unwrap();
    let id = verified.registry();
    verified.stage(registries.path()).unwrap();
    // Once more, as after a crash before the commit.
    verified.stage(registries.path()).unwrap();
    let loaded = load(registries.path(), &id).unwrap();
    assert_eq!(loaded.manifest_bytes, verified.manifest_bytes());
    loaded.check().unwrap();
    let whole = |path: &BlobPath| loaded.blob(path).unwrap().map(|bytes| bytes.len() as u64);
    for blob in &loaded.manifest.blobs {
        assert_eq!(whole(&blob.path), Some(blob.length));
    }
    assert_eq!(whole(&BlobPath::parse("not/listed.json").unwrap()), None);

    let folder = registries.path().join(id.digest().to_string());
    let schema = folder.join("blobs/prometheus/schemas/query.json");
    let bytes = std::fs::read(&schema).unwrap();
    let path = BlobPath::parse("prometheus/schemas/query.json").unwrap();
    let is_found = || {
        // The manifest alone says nothing of its blobs.
        let loaded = load(registries.path(), &id).unwrap();
        let found = loaded.check().is_err();
        assert_eq!(loaded.blob(&path).is_err(), found);
        found
    };
    let mut longer = bytes.clone();
    longer.push(b' ');
    for bad in [&b"{}"[..], &bytes[1..], &longer] {
        std::fs::write(&schema, bad).unwrap();
        assert!(is_found());
    }
    std::fs::remove_file(&schema).unwrap();
    assert!(is_found());
    std::os::unix::fs::symlink("/etc/passwd", &schema).unwrap();
    assert!(is_found());
    std::fs::remove_file(&schema).unwrap();
    // A pipe without a writer keeps nobody waiting.
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    pipe(&schema);
    assert!(is_found());
    std::fs::remove_file(&schema).unwrap();
    std::fs::write(&schema, bytes).unwrap();
    assert!(!is_found());
    let manifest = folder.join("manifest");
    std::fs::write(&manifest, b"{}").unwrap();
    assert!(load(registries.path(), &id).is_err());
    std::fs::remove_file(&manifest).unwrap();
    pipe(&manifest);
    assert!(load(registries.path(), &id).is_err());
}

#[test]
fn leftovers_are_removed_and_registries_stay() {
    let (registries, quarantine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(registries.path().join("aa.staging")).unwrap();
    std::fs::create_dir(registries.path().join("bb")).unwrap();
    std::fs::write(quarantine.path().join("cc.bundle"), b"x").unwrap();
    clean(registries.path(), quarantine.path()).unwrap();
    assert!(!registries.path().join("aa.staging").exists());
    assert!(registries.path().join("bb").exists());
    assert!(!quarantine.path().join("cc.bundle").exists());
}
