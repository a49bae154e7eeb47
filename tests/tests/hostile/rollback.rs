//! The whole disk put back: everything on it is consistent, so only what stands outside of it can tell.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mcpist_quorum::{Receipt, StoreId};
use mcpist_tests::appliance::Appliance;
use mcpist_tests::look;
use mcpist_tests::programs::{cli, fed, program};
use mcpist_tests::start::Start;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use super::{Site, open, works};

/// A copy of everything that lasts: store, log, registries.
pub(super) struct Disk(tempfile::TempDir);

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp starts").success());
}

impl Disk {
    /// As it is now; nobody may have it open.
    pub(super) fn of(appliance: &Appliance) -> Disk {
        let kept = tempfile::tempdir().expect("a folder");
        copy(&appliance.folder().join("state"), kept.path());
        Disk(kept)
    }

    pub(super) fn put_back(&self, appliance: &Appliance) {
        let state = appliance.folder().join("state");
        std::fs::remove_dir_all(&state).expect("ours");
        copy(&self.0.path().join("state"), appliance.folder());
    }
}

fn receipt(answer: &Value) -> String {
    let text = answer["receipt"].as_str();
    text.unwrap_or_else(|| panic!("no receipt: {answer}"))
        .to_owned()
}

fn sealed(appliance: &mut Appliance) -> String {
    let receipt = receipt(&appliance.ask("POST", "/v1/seal", None));
    appliance.stop();
    receipt
}

fn present(appliance: &Appliance, receipt: &str) -> (u16, Value) {
    appliance.admin("POST", "/v1/witness", Some(&json!({ "receipt": receipt })))
}

/// Gives both shares; what the last one is answered.
fn unseal(appliance: &Appliance) -> Value {
    appliance.give(&appliance.share(1));
    appliance.give(&appliance.share(2))
}

fn refused(appliance: &Appliance, code: &str) -> Value {
    let answer = unseal(appliance);
    assert_eq!(answer["error"]["code"], code, "{answer}");
    let status = appliance.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed", "{status}");
    assert_eq!(status["alarms"][0]["code"], code, "{status}");
    answer["error"].clone()
}

/// A site, its disk as it was, and the receipt of what was written after that.
fn put_back() -> (Site, Disk, String) {
    let mut site = open();
    sealed(&mut site);
    let old = Disk::of(&site);
    site.restart();
    site.unseal();
    let stored = site.put_credential("token", "bearer", "canary-the-next-0c5be1");
    assert_eq!(stored["credential"]["version"], 2, "{stored}");
    let newest = sealed(&mut site);
    (site, old, newest)
}

#[test]
fn a_disk_put_back_whole_is_refused_by_a_receipt_of_what_came_after() {
    let (mut site, old, newest) = put_back();
    let new = Disk::of(&site);
    old.put_back(&site);
    site.restart();
    let (status, answer) = present(&site, &newest);
    assert_eq!(
        (status, &answer["data"]["waiting"]["receipts"]),
        (200, &json!(1))
    );
    let error = refused(&site, "store_rolled_back");
    assert_eq!(error["reason"], "rolled_back");
    let next = error["next"].as_str().expect("a next step");
    assert!(next.contains("mcpist restore"), "{error}");
    // Not forgotten, and nothing was lost by it.
    refused(&site, "store_rolled_back");
    site.stop();
    new.put_back(&site);
    site.restart();
    present(&site, &newest);
    let opened = unseal(&site);
    assert!(opened["share"]["opened"].is_object(), "{opened}");
    works(&site);
}

#[test]
fn a_disk_put_back_whole_opens_without_a_receipt_and_is_sealed_by_one() {
    let (mut site, old, newest) = put_back();
    old.put_back(&site);
    site.restart();
    let opened = unseal(&site);
    assert!(opened["share"]["opened"].is_object(), "{opened}");
    works(&site);
    let (_, answer) = present(&site, &newest);
    assert_eq!(answer["error"]["code"], "store_rolled_back", "{answer}");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed", "{status}");
    refused(&site, "store_rolled_back");
}

#[test]
fn an_open_store_gives_a_receipt_and_agrees_with_it() {
    let site = open();
    let pulled = receipt(&site.ask("GET", "/v1/witness", None));
    let parsed = Receipt::parse(&pulled).expect("a receipt");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["witness"]["generation"], parsed.at().generation);
    let (_, answer) = present(&site, &pulled);
    assert_eq!(answer["data"], json!({ "agrees": { "newer": 0 } }));
    site.ask("POST", "/v1/vaults", Some(&json!({ "name": "spare" })));
    let (_, answer) = present(&site, &pulled);
    let newer = answer["data"]["agrees"]["newer"].as_u64();
    assert!(newer.is_some_and(|newer| newer > 0), "{answer}");
    works(&site);
}

/// The receipt as somebody would sign it who has not the store's key, further on and older by so much.
fn forged(genuine: &str, store: Option<StoreId>, further: u64, age: u64) -> String {
    let genuine = Receipt::parse(genuine).expect("a receipt");
    let mut at = *genuine.at();
    at.generation += further;
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key");
    let store = store.unwrap_or(genuine.store());
    let time = genuine.time() - age;
    Receipt::sign(store, at, *genuine.log(), time, &pair).to_text()
}

#[test]
fn a_forged_receipt_closes_nothing_and_is_in_the_log() {
    let mut site = open();
    let last = sealed(&mut site);
    site.restart();
    assert_eq!(present(&site, &forged(&last, None, 9, 0)).0, 200);
    let opened = unseal(&site);
    assert!(opened["share"]["opened"].is_object(), "{opened}");
    let (_, answer) = present(&site, &forged(&last, None, 9, 0));
    assert_eq!(answer["error"]["reason"], "forged", "{answer}");
    works(&site);
    sealed(&mut site);
    let folder = std::fs::read_dir(site.folder().join("state/audit")).expect("a folder");
    let log = folder
        .flatten()
        .map(|entry| std::fs::read_to_string(entry.path()));
    let log: String = log.map(|text| text.unwrap_or_default()).collect();
    assert!(log.contains("\"what\":\"receipt_ignored\",\"code\":\"forged\""));
    assert!(log.contains("\"event\":\"receipt_ignored\",\"reason\":\"forged\""));
}

#[test]
fn a_receipt_of_another_store_or_none_is_refused_at_once() {
    let mut site = open();
    let last = sealed(&mut site);
    site.restart();
    let other = forged(&last, Some(StoreId::from_bytes([7; 16])), 0, 0);
    for (text, code) in [
        (other.as_str(), "not_found"),
        ("", "request_invalid"),
        (&last[1..], "request_invalid"),
        (
            &last.replace("mcpist-witness1", "mcpist-witness2"),
            "request_invalid",
        ),
        (&format!("{}0", &last[..last.len() - 1]), "request_invalid"),
    ] {
        // The last digit may be a 0 as it is.
        if text != last {
            let (_, answer) = present(&site, text);
            assert_eq!(answer["error"]["code"], code, "{text}: {answer}");
        }
    }
    let (_, answer) = present(&site, &last);
    assert_eq!(answer["data"]["waiting"]["receipts"], 1, "{answer}");
}

#[test]
fn a_thousand_receipts_keep_out_neither_the_newest_nor_the_quorum() {
    let (mut site, old, newest) = put_back();
    old.put_back(&site);
    site.restart();
    present(&site, &newest);
    for age in 1..=1000 {
        let older = forged(&newest, None, 0, age);
        let (status, answer) = present(&site, &older);
        assert_eq!(status, 200, "{answer}");
        let waiting = answer["data"]["waiting"]["receipts"].as_u64();
        assert!(waiting.is_some_and(|waiting| waiting <= 4), "{answer}");
    }
    refused(&site, "store_rolled_back");
}

/// A TPM in software: what mcpistd speaks to must be a TPM to say anything. `.ci/tools` installs it (Debian's `swtpm`).
struct Swtpm {
    child: Child,
    folder: tempfile::TempDir,
}

impl Swtpm {
    fn start() -> Option<Swtpm> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--server", &format!("type=unixio,path={at}/sock")])
            .args(["--tpmstate", &format!("dir={at}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            assert!(std::env::var_os("CI").is_none(), "swtpm is not installed");
            return None;
        };
        let swtpm = Swtpm { child, folder };
        let socket = swtpm.socket();
        let listens = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        look::until("swtpm to listen", String::new, listens);
        Some(swtpm)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn config(&self) -> String {
        format!("[tpm]\ndevice = \"{}\"\n", self.socket().display())
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_disk_put_back_whole_is_refused_by_the_tpm_alone() {
    let Some(swtpm) = Swtpm::start() else { return };
    let start = Start::dev(program("mcpistd")).with_config(&swtpm.config());
    let mut appliance = Appliance::start_by(start);
    appliance.init();
    appliance.unseal();
    // A crash after the raise, and one after nothing: each opens again.
    appliance.kill_and_restart();
    appliance.unseal();
    sealed(&mut appliance);
    let old = Disk::of(&appliance);
    appliance.restart();
    appliance.unseal();
    sealed(&mut appliance);
    let new = Disk::of(&appliance);
    old.put_back(&appliance);
    appliance.restart();
    let error = refused(&appliance, "store_rolled_back");
    let said = error["message"].as_str().expect("a message");
    assert!(said.contains("TPM's counter"), "{error}");
    appliance.stop();
    new.put_back(&appliance);
    appliance.restart();
    appliance.unseal();
}

#[test]
fn a_store_that_is_bound_to_a_tpm_opens_beside_no_other_and_beside_none() {
    let Some(swtpm) = Swtpm::start() else { return };
    let start = Start::dev(program("mcpistd")).with_config(&swtpm.config());
    let mut appliance = Appliance::start_by(start);
    appliance.init();
    appliance.unseal();
    sealed(&mut appliance);
    let config = appliance.folder().join("mcpist.toml");
    let text = std::fs::read_to_string(&config).expect("a file");
    let without = text.replace(&swtpm.config(), "");
    let Some(other) = Swtpm::start() else { return };
    let elsewhere = text.replace(&swtpm.config(), &other.config());
    for (what, config_text) in [("none", &without), ("another", &elsewhere)] {
        std::fs::write(&config, config_text).expect("ours");
        appliance.restart();
        let error = refused(&appliance, "tpm_refused");
        assert!(error["next"].is_string(), "{what}: {error}");
        appliance.stop();
    }
    std::fs::write(&config, &text).expect("ours");
    appliance.restart();
    appliance.unseal();
}

/// Runs the operator's program; what it said.
pub(super) fn program_of(appliance: &Appliance, args: &[&str], input: &[u8]) -> Output {
    let mut command = cli();
    command
        .arg("--run")
        .arg(appliance.folder().join("run"))
        .args(args)
        .current_dir(appliance.folder());
    fed(&mut command, input)
}

/// Runs the operator's program, which succeeds.
pub(super) fn mcpist(appliance: &Appliance, args: &[&str], input: &[u8]) {
    let out = program_of(appliance, args, input);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
}

/// Makes the store of `of` out of its backup.
fn restore(appliance: &Appliance, file: &Path, of: &Appliance) {
    let token = appliance.folder().join("state/init-token");
    let (file, token) = (file.display().to_string(), token.display().to_string());
    mcpist(appliance, &["restore", &file, "--token-file", &token], b"");
    for share in [1, 2] {
        mcpist(appliance, &["restore", "--give"], of.share(share).expose());
    }
}

#[test]
fn a_host_is_fenced_once_its_store_goes_on_elsewhere() {
    let (mut first, standby) = (Appliance::start(), Appliance::start());
    first.init();
    first.unseal();
    let file = first.folder().join("store.backup");
    mcpist(&first, &["backup", &file.display().to_string()], b"");
    let before = receipt(&first.ask("GET", "/v1/witness", None));
    restore(&standby, &file, &first);
    // What the first life gave out ends with it.
    assert_eq!(present(&standby, &before).0, 200);
    standby.give(&first.share(1));
    let opened = standby.give(&first.share(2));
    let after = receipt(&opened["share"]["opened"]);
    let (_, answer) = present(&first, &after);
    assert_eq!(answer["error"]["code"], "fenced", "{answer}");
    let status = first.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed", "{status}");
    first.kill_and_restart();
    assert_eq!(present(&first, &after).0, 200);
    let error = refused(&first, "fenced");
    let said = error["message"].as_str().expect("a message");
    assert!(
        said.contains("this is life 1") && said.contains("shows life 2"),
        "{error}"
    );
}

#[test]
fn the_disk_that_a_restore_replaced_does_not_pass_the_tpm_after_it() {
    let Some(swtpm) = Swtpm::start() else { return };
    let start = Start::dev(program("mcpistd")).with_config(&swtpm.config());
    let mut appliance = Appliance::start_by(start);
    appliance.init();
    appliance.unseal();
    let file = appliance.folder().join("store.backup");
    mcpist(&appliance, &["backup", &file.display().to_string()], b"");
    sealed(&mut appliance);
    let replaced = Disk::of(&appliance);
    appliance.restart();
    restore(&appliance, &file, &appliance);
    appliance.unseal();
    // A power cut, so that no seal raises the counter once more.
    appliance.kill_and_restart();
    appliance.stop();
    let new = Disk::of(&appliance);
    replaced.put_back(&appliance);
    appliance.restart();
    refused(&appliance, "store_rolled_back");
    appliance.stop();
    new.put_back(&appliance);
    appliance.restart();
    appliance.unseal();
}

#[test]
fn a_restore_binds_the_store_to_the_tpm_of_its_host() {
    let Some(swtpm) = Swtpm::start() else { return };
    let Some(other) = Swtpm::start() else { return };
    let start = Start::dev(program("mcpistd")).with_config(&swtpm.config());
    let mut appliance = Appliance::start_by(start);
    appliance.init();
    appliance.unseal();
    let file = appliance.folder().join("store.backup");
    mcpist(&appliance, &["backup", &file.display().to_string()], b"");
    sealed(&mut appliance);
    // The TPM is lost, then comes back: each restore begins a life that is bound anew.
    let config = appliance.folder().join("mcpist.toml");
    let text = std::fs::read_to_string(&config).expect("a file");
    let elsewhere = text.replace(&swtpm.config(), &other.config());
    for host in [&elsewhere, &text] {
        std::fs::write(&config, host).expect("ours");
        appliance.restart();
        restore(&appliance, &file, &appliance);
        appliance.unseal();
        mcpist(&appliance, &["restore", "--remove-old", "--yes"], b"");
        appliance.kill_and_restart();
        appliance.unseal();
        sealed(&mut appliance);
    }
    std::fs::write(&config, &elsewhere).expect("ours");
    appliance.restart();
    refused(&appliance, "tpm_refused");
}
