//! What the docs name in the tree is there.

use std::collections::BTreeSet;
use std::path::Path;

/// Words in backticks that are paths of this tree: they begin with one of its folders and hold a slash.
fn paths(text: &str) -> BTreeSet<&str> {
    const FOLDERS: [&str; 8] = [
        ".ci/",
        "daemon/",
        "docs/",
        "modules/",
        "packaging/",
        "sealer/",
        "systemd/",
        "tests/",
    ];
    let quoted = text.split('`').skip(1).step_by(2);
    let words = quoted.filter_map(|quoted| quoted.split_whitespace().next());
    words
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['*', '<', '{']))
        .collect()
}

#[test]
fn every_path_that_the_docs_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages: Vec<_> = std::fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    pages.push(root.join("README.md"));
    let mut named = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for path in paths(&text) {
            named += 1;
            // A place in a file may follow it.
            let file = path.split(['#', ':']).next().unwrap();
            assert!(
                root.join(file).exists(),
                "{} names {path}, which is not there",
                page.display()
            );
        }
    }
    assert!(
        named > 50,
        "only {named} paths were found: the reader is wrong"
    );
}
