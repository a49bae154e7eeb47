//! docs/FORMATS.md, read back: every example there is what the crates write today, or what they read.
//!
//! A fenced block whose info string has two words, such as `hex vault-head`, is an example by that name. Where a
//! public function writes the format from fixed inputs, its output is compared with the block; where it draws
//! randomness, the block is read and its fields are compared. No example is without a test.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

mod backup;
mod bundle;
mod record;
mod store;
mod wire;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use mcpist_secret::{Key, MemoryError};

fn examples() -> &'static BTreeMap<String, String> {
    static EXAMPLES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMATS.md");
        let text = std::fs::read_to_string(page).unwrap();
        let (mut found, mut open) = (BTreeMap::new(), None);
        for line in text.lines() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => {
                    let (name, body): (Option<String>, String) = open.take().unwrap();
                    if let Some(name) = name {
                        assert!(
                            found.insert(name.clone(), body).is_none(),
                            "two examples are named {name}"
                        );
                    }
                }
                (Some(info), None) => {
                    let name = info.split_once(' ').map(|(_, name)| name.to_owned());
                    open = Some((name, String::new()));
                }
                (None, Some((_, body))) => {
                    body.push_str(line);
                    body.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "the last block of the page is not closed");
        found
    })
}

fn text(name: &str) -> &'static str {
    examples()
        .get(name)
        .unwrap_or_else(|| panic!("docs/FORMATS.md has no example named {name}"))
        .trim_end()
}

fn bytes(name: &str) -> Vec<u8> {
    let digits: String = text(name).split_whitespace().collect();
    hex::decode(&digits).unwrap_or_else(|e| panic!("example {name}: {e}"))
}

/// The example is what was written.
fn shows(name: &str, written: impl AsRef<[u8]>) {
    assert_eq!(
        hex::encode(bytes(name)),
        hex::encode(written),
        "docs/FORMATS.md, example {name}"
    );
}

fn key(byte: u8) -> Key {
    Key::fill(|out| {
        out.fill(byte);
        Ok::<(), MemoryError>(())
    })
    .unwrap()
}

#[test]
fn every_example_of_the_page_has_a_test() {
    let tests = [
        include_str!("backup.rs"),
        include_str!("store.rs"),
        include_str!("bundle.rs"),
        include_str!("record.rs"),
        include_str!("witness.rs"),
        include_str!("wire.rs"),
    ];
    assert!(examples().len() > 40, "the page is read wrongly");
    for name in examples().keys() {
        let quoted = format!("\"{name}\"");
        assert!(
            tests.iter().any(|test| test.contains(&quoted)),
            "docs/FORMATS.md, example {name}: no test reads it"
        );
    }
}

/// Source files that the pages name, in back quotes, from the workspace's root.
#[test]
fn every_source_file_that_the_pages_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/FORMATS.md",
        "docs/THREAT_MODEL.md",
    ];
    let mut named = 0;
    for page in pages {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let folders = ["daemon/", "sealer/", "modules/", "tests/"];
        let is_source =
            |word: &&str| word.ends_with(".rs") && folders.iter().any(|f| word.starts_with(f));
        for path in text.split('`').filter(is_source) {
            assert!(
                root.join(path).is_file(),
                "{page} names {path}, which is not there"
            );
            named += 1;
        }
    }
    assert!(
        named > 30,
        "only {named} files are named: the pages are read wrongly"
    );
}
