//! The crate edges of the design, compared with what cargo says. A new edge fails here and is discussed first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crate → the crates of ours that it may use. `mcpist-tests` may use any.
const ALLOWED: &[(&str, &[&str])] = &[
    ("mcpist-secret", &[]),
    ("mcpist-core", &[]),
    ("mcpist-quorum", &["mcpist-secret"]),
    ("mcpist-sealer", &["mcpist-quorum", "mcpist-secret"]),
    ("mcpist-mcp", &["mcpist-core"]),
    ("mcpist-bundle", &["mcpist-core", "mcpist-secret"]),
    ("mcpist-wire", &["mcpist-core", "mcpist-secret"]),
    (
        "mcpist-runtime",
        &["mcpist-core", "mcpist-secret", "mcpist-wire"],
    ),
    (
        "mcpist-broker",
        &[
            "mcpist-core",
            "mcpist-secret",
            "mcpist-sealer",
            "mcpist-wire",
        ],
    ),
    (
        "mcpistd",
        &[
            "mcpist-core",
            "mcpist-secret",
            "mcpist-quorum",
            "mcpist-sealer",
            "mcpist-broker",
            "mcpist-bundle",
            "mcpist-wire",
            "mcpist-mcp",
        ],
    ),
    (
        "mcpist",
        &[
            "mcpist-core",
            "mcpist-secret",
            "mcpist-quorum",
            "mcpist-bundle",
        ],
    ),
];

/// Program → what must not be linked into it, and why.
const APART: &[(&str, &[&str])] = &[
    // No process links both the barrier and a module engine, and the daemon has no way out.
    (
        "mcpistd",
        &[
            "mcpist-runtime",
            "wasmtime",
            "cranelift-codegen",
            "hyper-rustls",
        ],
    ),
    (
        "mcpist-runtime",
        &[
            "mcpist-sealer",
            "mcpist-quorum",
            "rusqlite",
            "cranelift-codegen",
        ],
    ),
    (
        "mcpist",
        &["mcpist-sealer", "rmcp", "rusqlite", "hyper-rustls"],
    ),
];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(
        out.status.success(),
        "cargo {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("cargo prints UTF-8")
}

/// The packages of ours, as `cargo metadata` describes them.
fn packages() -> Vec<serde_json::Value> {
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
        "--offline",
    ]))
    .expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Direct edges between crates of ours, of every kind (normal, build, dev).
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    packages
        .iter()
        .map(|p| {
            let uses = p["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|d| d["name"].as_str())
                .filter(|n| ours.contains(n))
                .map(str::to_owned)
                .collect();
            (p["name"].as_str().expect("name").to_owned(), uses)
        })
        .collect()
}

#[test]
fn the_edges_between_crates_are_those_of_the_design() {
    let found = edges();
    let known: BTreeSet<&str> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .chain(["mcpist-tests"])
        .collect();
    let present: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(present, known, "crates of the workspace");
    for (name, allowed) in ALLOWED {
        for used in &found[*name] {
            assert!(
                allowed.contains(&used.as_str()),
                "new edge {name} -> {used}: see docs/ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn what_must_stay_apart_is_not_linked_together() {
    for (program, forbidden) in APART {
        let tree = cargo(&[
            "tree",
            "-p",
            program,
            "-e",
            "normal",
            "--prefix=none",
            "--locked",
            "--offline",
        ]);
        let linked: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
        for name in *forbidden {
            assert!(!linked.contains(name), "{program} links {name}");
        }
    }
}

/// The fuzz targets are no member of the workspace; they use the pure crates alone, and each has a corpus to begin with.
#[test]
fn fuzz_targets_use_pure_crates_and_have_a_corpus() {
    let manifest = "tests/fuzz/Cargo.toml";
    let args = [
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
        "--offline",
    ];
    let metadata = cargo(&[&args[..], &["--manifest-path", manifest]].concat());
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let [package] = metadata["packages"]
        .as_array()
        .expect("packages")
        .as_slice()
    else {
        panic!("one package: {metadata}");
    };
    let ours = package["dependencies"].as_array().expect("a list").iter();
    let ours = ours
        .filter_map(|d| d["name"].as_str())
        .filter(|n| n.starts_with("mcpist"));
    let pure = ["mcpist-core", "mcpist-quorum", "mcpist-secret"];
    assert_eq!(ours.collect::<Vec<_>>(), pure);

    let folder = workspace().join("tests/fuzz");
    let targets = package["targets"].as_array().expect("targets").iter();
    let targets = targets.filter(|t| t["kind"][0] == "bin");
    let named: BTreeSet<&str> = targets.filter_map(|t| t["name"].as_str()).collect();
    let files = std::fs::read_dir(folder.join("fuzz_targets")).expect("a folder");
    assert_eq!(files.count(), named.len(), "each file is a target");
    for name in named {
        let seeds = std::fs::read_dir(folder.join("corpus").join(name));
        assert!(
            seeds.is_ok_and(|mut s| s.next().is_some()),
            "{name} has no corpus"
        );
    }
}

/// A feature for tests alone (a process that may be read, a leak on purpose, a disk that fails) is had by asking for it by
/// name, of what is listed here and nowhere else.
#[test]
fn what_is_for_tests_alone_is_in_no_build_that_does_not_ask_for_it() {
    let for_tests = |name: &str| name.rsplit('/').next().unwrap_or(name).starts_with("test-");
    let mut found = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a name").to_owned();
        for (feature, enables) in package["features"].as_object().expect("features") {
            let enables: Vec<&str> = (enables.as_array().into_iter().flatten())
                .filter_map(|e| e.as_str())
                .collect();
            if for_tests(feature) {
                found.push(format!("{name}/{feature}"));
            } else {
                let wrong = enables.iter().find(|e| for_tests(e));
                assert_eq!(wrong, None, "{name}: feature {feature}");
            }
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // What a package's own tests ask for is in no program of an ordinary build.
            if dependency["kind"] == "dev" {
                continue;
            }
            let asked = dependency["features"].as_array().into_iter().flatten();
            let wrong = asked.filter_map(|f| f.as_str()).find(|f| for_tests(f));
            assert_eq!(wrong, None, "{name}: {}", dependency["name"]);
        }
    }
    found.sort();
    let known = [
        "mcpist-runtime/test-dumpable",
        "mcpist-runtime/test-leak",
        "mcpist-sealer/test-faults",
        "mcpistd/test-dumpable",
        "mcpistd/test-faults",
        "mcpistd/test-leak",
    ];
    assert_eq!(found, known);
}
