//! Receipts by the command line: kept beside the share, presented by themselves, verified without the daemon.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use mcpist_quorum::Receipt;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::{cli, fed};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

/// A store, and the desk of a holder with a folder of receipts.
struct Site {
    appliance: Appliance,
    desk: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let mut appliance = Appliance::start();
        appliance.init();
        Site {
            appliance,
            desk: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = cli();
        command
            .arg("--run")
            .arg(self.appliance.folder().join("run"))
            .args(["--output", "json"])
            .args(args)
            .env("XDG_STATE_HOME", self.desk.path());
        fed(&mut command, input)
    }

    fn done(&self, args: &[&str], input: &[u8]) -> Value {
        let out = self.run(args, input);
        assert!(out.status.success(), "{args:?}: {out:?}");
        let json: Value = serde_json::from_slice(&out.stdout).unwrap();
        json["data"].clone()
    }

    fn refused(&self, args: &[&str], input: &[u8]) -> Value {
        let out = self.run(args, input);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {out:?}");
        let json: Value = serde_json::from_slice(&out.stdout).unwrap();
        json["error"].clone()
    }

    fn unseal(&self) -> Value {
        for share in [1, 2] {
            let text = self.appliance.share(share);
            let done = self.done(&["unseal"], text.expose());
            if share == 2 {
                return done["opened"].clone();
            }
        }
        Value::Null
    }

    /// The one file of receipts.
    fn kept(&self) -> PathBuf {
        let folder = self.desk.path().join("mcpist/witness");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].path()
    }

    fn held(&self) -> Receipt {
        Receipt::parse(&std::fs::read_to_string(self.kept()).unwrap()).unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.desk.path().join(name).display().to_string()
    }
}

#[test]
fn a_holders_receipt_is_kept_and_the_newest_stays() {
    let site = Site::new();
    let opened = site.unseal();
    let mode = std::fs::metadata(site.kept()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = site.held();
    assert_eq!(opened["receipt"], first.to_text());
    let record = site.appliance.folder().join("ceremony-record");
    assert!(
        std::fs::read_to_string(record)
            .unwrap()
            .contains(&hex::encode(first.key()))
    );
    site.done(&["seal"], b"");
    let second = site.held();
    assert!(second.is_newer_than(&first));
    let shown = site.done(&["witness", "show"], b"");
    assert_eq!(shown[0]["generation"], second.at().generation);
    assert_eq!(shown[0]["receipt"], second.to_text());
}

#[test]
fn a_kept_receipt_is_presented_by_itself_and_refuses_an_older_disk() {
    let mut site = Site::new();
    site.unseal();
    site.done(&["seal"], b"");
    site.appliance.stop();
    let (state, old) = (site.appliance.folder().join("state"), site.file("old"));
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").args(["-a", from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(state.to_str().unwrap(), &old);
    site.appliance.restart();
    site.unseal();
    site.done(&["seal"], b"");
    site.appliance.stop();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&old, state.to_str().unwrap());
    site.appliance.restart();
    site.done(&["unseal"], site.appliance.share(1).expose());
    let error = site.refused(&["unseal"], site.appliance.share(2).expose());
    assert_eq!(error["code"], "store_rolled_back", "{error}");
    // What the older disk says of itself takes no newer receipt's place.
    let held = site.held();
    let elsewhere = site.file("elsewhere");
    site.done(
        &["unseal", "--witness-dir", &elsewhere],
        site.appliance.share(1).expose(),
    );
    let error = site.refused(
        &["unseal", "--witness-dir", &elsewhere],
        site.appliance.share(2).expose(),
    );
    assert_eq!(
        error["code"], "store_rolled_back",
        "it still waits: {error}"
    );
    assert_eq!(site.held(), held);
}

#[test]
fn a_pulled_receipt_is_verified_by_the_record_alone() {
    let site = Site::new();
    site.unseal();
    let file = site.file("receipt");
    site.done(&["witness", "pull", "--out", &file], b"");
    let again = site.refused(&["witness", "pull", "--out", &file], b"");
    assert_eq!(again["code"], "file", "nothing is overwritten: {again}");
    let presented = site.done(&["witness", "present", &file], b"");
    assert!(presented["agrees"].is_object(), "{presented}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(Receipt::parse(&text).unwrap().store(), site.held().store());
    let damaged = site.file("damaged");
    let mut bytes = text.trim_end().to_owned();
    let last = if bytes.pop() == Some('0') { '1' } else { '0' };
    bytes.push(last);
    std::fs::write(&damaged, bytes).unwrap();
    let error = site.refused(&["witness", "show", &damaged], b"");
    assert_eq!(error["code"], "receipt", "{error}");
    let record = site.appliance.folder().join("ceremony.bin");
    let record = record.to_str().unwrap();
    let verified = site.done(&["witness", "verify", &file, "--record", record], b"");
    assert_eq!(verified["receipt"], text.trim_end());
    let forged = site.file("forged");
    let genuine = Receipt::parse(&text).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let by_another = Receipt::sign(genuine.store(), *genuine.at(), *genuine.log(), 0, &pair);
    std::fs::write(&forged, by_another.to_text()).unwrap();
    let error = site.refused(&["witness", "verify", &forged, "--record", record], b"");
    assert_eq!(error["code"], "receipt", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("forged"),
        "{error}"
    );
    let record = site.file("receipt");
    let error = site.refused(&["witness", "verify", &file, "--record", &record], b"");
    assert_eq!(error["code"], "ceremony_record", "{error}");
}

#[test]
fn a_folder_that_takes_no_receipt_is_a_warning_and_the_store_opens() {
    let site = Site::new();
    let file = site.file("in-the-way");
    std::fs::write(&file, "").unwrap();
    site.done(
        &["unseal", "--witness-dir", &file],
        site.appliance.share(1).expose(),
    );
    let out = site.run(
        &["unseal", "--witness-dir", &file],
        site.appliance.share(2).expose(),
    );
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("warning: the witness receipt was not kept"),
        "{said}"
    );
    let status = site.appliance.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], json!("unsealed"));
}
