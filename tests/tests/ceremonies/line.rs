//! The command line of a whole rekey, as its people type it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mcpist_secret::Secret;
use mcpist_tests::programs::{cli, fed, program, state_home};
use serde_json::Value;

use super::Site;

pub(super) fn mcpist(site: &Site, args: &[&str], input: &[u8]) -> Output {
    let run = site.socket("admin");
    let mut command = cli();
    command.arg("--run").arg(run.parent().unwrap()).args(args);
    fed(&mut command, input)
}

pub(super) fn text(site: &Site, args: &[&str], input: &[u8]) -> String {
    let output = mcpist(site, args, input);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}{stderr}");
    said
}

pub(super) fn json(site: &Site, args: &[&str], input: &[u8]) -> Value {
    let said = text(site, &[args, &["--output", "json"]].concat(), input);
    serde_json::from_str(&said).unwrap()
}

fn identity_file(site: &Site, at: usize, folder: &Path) -> String {
    let path = folder.join(format!("identity-{at}"));
    fs::write(&path, site.people[at].to_text().unwrap().expose()).unwrap();
    path.display().to_string()
}

#[test]
fn a_whole_rekey_by_its_people() {
    let site = Site::open();
    let desk = tempfile::tempdir().unwrap();
    let holders: Vec<String> = (0..3)
        .map(|at| format!("new-{}={}", at + 1, site.people[at].recipient()))
        .collect();
    let mut begin = vec!["rekey", "--threshold", "2", "--yes"];
    for holder in &holders {
        begin.extend(["--holder", holder]);
    }
    let said = text(&site, &begin, b"");
    assert!(said.contains("next: mcpist ceremony give"), "{said}");
    let said = text(&site, &["ceremony"], b"");
    assert!(said.contains("0 of 2 given"), "{said}");

    let share = |share: &Secret| share.expose().to_vec();
    let said = text(&site, &["ceremony", "give"], &share(&site.share(1)));
    assert!(said.contains("taken as consent: 1 of 2"), "{said}");
    let wrong = mcpist(&site, &["ceremony", "give"], &share(&site.share(1)));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        said.contains("already_given") && said.contains("mcpist ceremony"),
        "{said}"
    );

    let said = text(&site, &["status"], b"");
    assert!(
        said.contains("ceremony  rekey, 1 of 2 current holders consented"),
        "{said}"
    );
    let out = desk.path().join("new").display().to_string();
    let given = json(
        &site,
        &["ceremony", "give", "--out", &out],
        &share(&site.share(2)),
    );
    let files = given["data"]["files"].as_array().unwrap();
    assert_eq!(files.len(), 3, "{given}");
    // Nothing is overwritten, and the same shares come again.
    let again = mcpist(&site, &["ceremony", "shares", "--out", &out], b"");
    assert!(!again.status.success());
    let elsewhere = desk.path().join("again").display().to_string();
    let said = text(&site, &["ceremony", "shares", "--out", &elsewhere], b"");
    assert!(said.contains("again/share-3-new3-g2.age"), "{said}");
    for name in [
        "share-1-new1-g2.age",
        "share-2-new2-g2.age",
        "share-3-new3-g2.age",
    ] {
        let read = |folder: &str| fs::read(Path::new(folder).join(name)).unwrap();
        assert_eq!(read(&out), read(&elsewhere));
    }

    for (at, expected) in [
        (1, "proved: 1 of 2 (new-2)"),
        (2, "done: the shares of generation 2"),
    ] {
        let file = files[at].as_str().unwrap();
        let identity = identity_file(&site, at, desk.path());
        let args = [
            "ceremony",
            "give",
            "--share-file",
            file,
            "--identity",
            &identity,
            "--out",
            &elsewhere,
        ];
        let said = text(&site, &args, b"");
        assert!(said.contains(expected), "{said}");
    }
    // The store says who holds it now, signed.
    let record = fs::read_dir(desk.path().join("again"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "bin"))
        .unwrap();
    let shown = json(&site, &["share", "record", record.to_str().unwrap()], b"");
    assert_eq!(shown["data"]["ceremony"], "rekey", "{shown}");
    assert_eq!(shown["data"]["generation"], 2, "{shown}");
    let none = mcpist(&site, &["ceremony", "--output", "json"], b"");
    let error: Value = serde_json::from_slice(&none.stdout)
        .or_else(|_| serde_json::from_slice(&none.stderr))
        .unwrap();
    assert_eq!(error["error"]["code"], "not_found", "{error}");
}

#[test]
fn a_plan_that_is_not_confirmed_is_cancelled() {
    let site = Site::open();
    // There is no terminal to confirm on.
    let output = Command::new("setsid")
        .envs([state_home()])
        .arg(program("mcpist"))
        .arg("--run")
        .arg(site.socket("admin").parent().unwrap())
        .args(["rotate", "root"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(site.admin("GET", "/v1/ceremony", None).0, 404);
    let said = text(&site, &["rotate", "root", "--yes"], b"");
    assert!(said.contains("consent of the current holders"), "{said}");
    let said = text(&site, &["ceremony", "cancel"], b"");
    assert!(said.contains("the store is as it was"), "{said}");
}
