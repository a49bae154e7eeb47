//! Bundles: container, signatures, manifest and trust root.

use mcpist_bundle::container::{Block, Header, Role as SignAs, signed_message};
use mcpist_bundle::{Root, SigningKey};
use mcpist_core::ids::Digest;
use mcpist_core::manifest::Manifest;

use super::{bytes, shows, text};

fn signer(seed: u8) -> SigningKey {
    let text = format!("mcpist-signing-key-1 {}", hex::encode([seed; 32]));
    SigningKey::from_throwaway_text(text.as_bytes()).unwrap()
}

#[test]
fn a_container_begins_with_these_bytes() {
    let header = Header::new(1, 2, 0).unwrap();
    shows("bundle-header", header.to_bytes());
    assert_eq!(
        Header::parse(bytes("bundle-header").first_chunk().unwrap(), 24 + 100 + 2).unwrap(),
        header
    );
    shows("signed-message", signed_message(SignAs::Publisher, b"{}"));
    let block = signer(1).block(SignAs::Publisher, b"{}").unwrap();
    shows("bundle-block", block.to_bytes());
    assert_eq!(Block::parse(&bytes("bundle-block"), 0).unwrap(), block);
    assert_eq!(
        signer(1).to_throwaway_text().unwrap().expose(),
        text("signing-key").as_bytes()
    );
}

#[test]
fn a_manifest_and_a_root_parse() {
    let manifest = Manifest::parse(text("bundle-manifest").as_bytes()).unwrap();
    assert_eq!(
        (
            manifest.sequence,
            manifest.modules.len(),
            manifest.blobs.len()
        ),
        (7, 1, 1)
    );
    assert_eq!(
        manifest.blobs[0].digest,
        Digest::of(b"{\"type\":\"object\"}")
    );
    assert_eq!(
        manifest.blobs[0].length,
        b"{\"type\":\"object\"}".len() as u64
    );
    let root = Root::parse(text("bundle-root").as_bytes()).unwrap();
    assert_eq!(root.site().as_str(), manifest.audience[0].as_str());
    assert!(root.delegates(&manifest.namespace, &signer(1).id()));
}
