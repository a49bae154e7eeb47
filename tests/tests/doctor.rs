//! `mcpist doctor` beside a running daemon: a line for each protection of memory, and one that says so where it is lowered.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::collections::BTreeMap;

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::{cli, program};
use mcpist_tests::start::Start;
use serde_json::Value;

/// The exit status and the checks by name, of a daemon's `run` folder in `folder`.
fn doctor(folder: &std::path::Path) -> (Option<i32>, BTreeMap<String, Value>) {
    let out = cli()
        .arg("--run")
        .arg(folder.join("run"))
        .args(["--output", "json", "doctor", "--state"])
        .arg(folder)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let checks = said["data"]["checks"].as_array().unwrap().iter();
    let named = checks.map(|check| (check["name"].as_str().unwrap().to_owned(), check.clone()));
    (out.status.code(), named.collect())
}

#[test]
fn each_protection_has_a_line_before_there_is_a_store() {
    let appliance = Appliance::start();
    let (_, checks) = doctor(appliance.folder());
    for held in [
        "memlock",
        "dont-dump",
        "dont-fork",
        "dumpable",
        "core-limit",
    ] {
        assert_eq!(checks[held]["level"], "ok", "{}", checks[held]);
    }
    for there in ["memory", "cores", "swap", "hibernation", "ptrace", "tpm"] {
        let check = &checks[there];
        assert!(
            check["level"] == "ok" || check["next"].is_string(),
            "{check}"
        );
    }
}

#[test]
fn pages_that_may_be_swapped_are_wrong_in_a_sealed_daemon_too() {
    // The limits of a user namespace hold for its root too.
    let start = Start::dev(program("mcpistd")).in_namespace("ulimit -l 0; exec \"$@\"");
    let appliance = Appliance::start_by(start);
    let (status, checks) = doctor(appliance.folder());
    assert_eq!(status, Some(1));
    for lowered in ["memory", "memlock"] {
        assert_eq!(checks[lowered]["level"], "wrong", "{}", checks[lowered]);
        assert!(checks[lowered]["next"].is_string());
    }
    assert_eq!(checks["dumpable"]["level"], "ok");
}

#[test]
fn a_host_is_looked_at_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let (status, checks) = doctor(folder.path());
    assert_eq!(status, Some(1));
    assert_eq!(checks["daemon"]["level"], "wrong");
    for there in [
        "memory",
        "memlock",
        "cores",
        "swap",
        "hibernation",
        "ptrace",
        "tpm",
    ] {
        assert!(checks.contains_key(there), "{there}");
    }
    assert!(!checks.contains_key("dumpable"));
}
