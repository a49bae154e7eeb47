//! Bundles on their way in.

use std::path::PathBuf;

use mcpist_bundle::container::{BLOCK_LEN, HEADER_LEN};
use mcpist_core::ids::SiteId;
use mcpist_tests::programs::workspace;
use serde_json::json;

use super::{OPEN, Site, secret, works};

fn module() -> PathBuf {
    workspace().join("tests/fixtures/echo")
}

/// `bundle` is refused with `code`, its reason is in the answer and the log, and no registry came or went.
fn refused_bundle(site: &Site, bundle: &[u8], code: &str, reason: &str) {
    let registries = site.ask("GET", "/v1/registries", None);
    let before = site.log().len();
    let answer = site.import(bundle);
    assert_eq!(answer["error"]["code"], code, "{answer}");
    assert_eq!(answer["error"]["reason"], reason, "{answer}");
    let log = site.log().split_off(before);
    assert!(log.contains(&format!("bundle refused: {reason}")), "{log}");
    assert_eq!(site.ask("GET", "/v1/registries", None), registries);
    let left = std::fs::read_dir(site.folder().join("state/quarantine")).expect("a folder");
    assert_eq!(left.count(), 0, "files left in quarantine");
    works(site);
}

#[test]
fn a_bundle_with_a_flipped_byte_is_refused_wherever_it_is() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let blocks = HEADER_LEN + 2 * BLOCK_LEN;
        for (at, reason) in [
            (0, "not_a_bundle"),
            (HEADER_LEN + BLOCK_LEN - 1, "bad_signature"),
            (blocks + 10, "bad_signature"),
            (good.len() - 1, "bad_blob"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            refused_bundle(site, &bad, "bundle_refused", reason);
        }
    });
}

#[test]
fn a_bundle_that_is_cut_off_is_refused() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        for length in [1, HEADER_LEN, good.len() - 1] {
            refused_bundle(site, &good[..length], "bundle_refused", "wrong_length");
        }
    });
}

#[test]
fn a_bundle_with_too_few_signatures_is_refused() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let once = with_blocks(&good, &[0]);
        refused_bundle(site, &once, "bundle_refused", "too_few_signatures");
    });
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let twice = with_blocks(&good, &[0, 0]);
        refused_bundle(site, &twice, "bundle_refused", "key_twice");
    });
}

/// The bundle with those of its signature blocks.
fn with_blocks(bundle: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut made = bundle[..HEADER_LEN].to_vec();
    made[11] = u8::try_from(blocks.len()).expect("few");
    for block in blocks {
        let at = HEADER_LEN + block * BLOCK_LEN;
        made.extend_from_slice(&bundle[at..at + BLOCK_LEN]);
    }
    made.extend_from_slice(&bundle[HEADER_LEN + 2 * BLOCK_LEN..]);
    made
}

#[test]
fn a_bundle_of_an_older_sequence_is_refused() {
    OPEN.with(|site| {
        let (older, newer) = (site.bundle(&module()), site.bundle(&module()));
        assert!(site.import(&newer)["import"].is_object());
        refused_bundle(site, &older, "bundle_refused", "older_sequence");
    });
}

#[test]
fn the_same_bundle_again_is_said_to_be_here() {
    OPEN.with(|site| {
        let bundle = site.bundle(&module());
        assert!(site.import(&bundle)["import"].is_object());
        refused_bundle(site, &bundle, "already_imported", "already_imported");
    });
}

#[test]
fn another_bundle_of_one_sequence_is_refused_as_equivocation() {
    OPEN.with(|site| {
        let mut sequence = 0;
        let bundle = site.bundle_with(&module(), |options| sequence = options.sequence);
        assert!(site.import(&bundle)["import"].is_object());
        let other = site.bundle_with(&module(), |options| {
            options.sequence = sequence;
            options.notes = "another".into();
        });
        refused_bundle(site, &other, "equivocation", "equivocation");
    });
}

#[test]
fn a_bundle_for_another_site_is_refused() {
    OPEN.with(|site| {
        let elsewhere = vec![SiteId::parse("elsewhere").expect("a name")];
        let bundle = site.bundle_with(&module(), |options| options.audience = elsewhere);
        refused_bundle(site, &bundle, "bundle_refused", "other_audience");
    });
}

#[test]
fn an_import_without_a_file_is_refused() {
    OPEN.with(|site| {
        let ticket = site.ticket(&json!("import"));
        let answer = site.bring(&ticket, &secret(b"x"));
        assert_eq!(answer["error"]["code"], "request_invalid", "{answer}");
    });
}
