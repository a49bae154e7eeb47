//! The state folder: a second daemon, and files that were put back.

use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::program;
use serde_json::json;

use super::{OPEN, Site, code, open, works};

/// What a second mcpistd under the same configuration says as it gives up.
fn second_daemon(folder: &Path) -> String {
    let second = Command::new(program("mcpistd"))
        .args(["--dev", "--config"])
        .arg(folder.join("mcpist.toml"))
        .stdin(Stdio::null())
        .output()
        .expect("mcpistd starts");
    assert!(!second.status.success());
    String::from_utf8_lossy(&second.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_a_blank_folder_is_refused_and_leaves_the_init_token() {
    let mut appliance = Appliance::start();
    let token = appliance.folder().join("state/init-token");
    let before = std::fs::read(&token).expect("a token");
    let said = second_daemon(appliance.folder());
    assert!(said.contains("another mcpistd holds"), "{said}");
    assert_eq!(std::fs::read(&token).expect("a token"), before);
    appliance.init();
}

#[test]
fn a_second_daemon_on_the_folder_is_refused_and_touches_nothing() {
    OPEN.with(|site| {
        // What an import of the first one holds at this moment.
        let taken = site.folder().join("state/quarantine/taken.bundle");
        std::fs::write(&taken, b"in use").expect("a file");
        let said = second_daemon(site.folder());
        let state = site.folder().join("state");
        let named = format!("another mcpistd holds the folder {}", state.display());
        assert!(said.contains(&named), "{said}");
        assert!(taken.exists(), "the second one cleaned up after the first");
        std::fs::remove_file(&taken).expect("ours");
        works(site);
    });
}

/// The files of the vaults and their logs, as they stand while no process has them open.
fn vault_files(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = std::fs::read_dir(site.folder().join("state/store/vaults")).expect("a folder");
    let read = |file: PathBuf| {
        let bytes = std::fs::read(&file).expect("a file");
        (file, bytes)
    };
    folder
        .flatten()
        .map(|entry| entry.path())
        .map(read)
        .collect()
}

/// Puts the files of the vaults back as they were.
pub(super) fn put_back(site: &Site, before: &[(PathBuf, Vec<u8>)]) {
    for (file, _) in vault_files(site) {
        std::fs::remove_file(file).expect("a file");
    }
    for (file, bytes) in before {
        std::fs::write(file, bytes).expect("a file");
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).expect("ours");
    }
}

#[test]
fn a_vault_file_that_is_put_back_quarantines_that_vault_alone() {
    let mut site = open();
    site.ask("POST", "/v1/vaults", Some(&json!({ "name": "spare" })));
    site.kill_and_restart();
    let before = vault_files(&site);
    site.unseal();
    let stored = site.put_credential("token", "bearer", "canary-the-next-0c5be1");
    assert_eq!(stored["credential"]["version"], 2, "{stored}");
    // Sealing writes down that the change arrived; a crash in between is another case.
    site.ask("POST", "/v1/seal", None);
    site.kill_and_restart();
    put_back(&site, &before);
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let quarantined = &opened["share"]["opened"]["quarantined"];
    assert_eq!(quarantined, &json!(["main"]), "{opened}");

    let status = site.ask("GET", "/v1/status", None);
    let vaults = status["vaults"].as_array().expect("vaults");
    let vault = |name: &str| vaults.iter().find(|v| v["name"] == name).expect("a vault");
    assert_eq!(vault("main")["health"], "quarantined");
    let reason = vault("main")["reason"].as_str().expect("a reason");
    assert!(reason.contains("its file was put back"), "{reason}");
    assert_eq!(vault("spare")["health"], "ok", "{status}");

    let mut ada = site.client("ada");
    let answer = ada.call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(code(&answer), "vault_quarantined", "{answer}");
    assert!(site.service.seen().is_empty());
    // The rest works: policy, schemas and a change.
    assert!(ada.schema(&json!({})).to_string().contains("echo"));
    site.change(&json!({ "principal-put": { "name": "carol" } }));
    let principals = site.ask("GET", "/v1/principals", None);
    assert!(principals.to_string().contains("carol"), "{principals}");
}

#[test]
fn a_vault_file_that_is_put_back_after_a_crash_is_never_opened_in_silence() {
    let mut site = open();
    site.kill_and_restart();
    let before = vault_files(&site);
    site.unseal();
    site.put_credential("token", "bearer", "canary-the-next-0c5be1");
    // Whether the store knows by now that the change arrived is up to the moment of the crash.
    site.kill_and_restart();
    put_back(&site, &before);
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let opened = &opened["share"]["opened"];
    let named = |list: &str| opened[list] == json!(["main"]);
    assert!(
        named("quarantined") != named("last_write_missing"),
        "{opened}"
    );
    let status = site.ask("GET", "/v1/status", None);
    let vaults = status["vaults"].as_array().expect("vaults");
    let main = vaults.iter().find(|v| v["name"] == "main");
    let main = main.unwrap_or_else(|| panic!("{status}\n{opened}\n{}", site.log()));
    let quarantined = main["health"] == "quarantined";
    assert_eq!(quarantined, named("quarantined"), "{main}");
    assert_eq!(main["last_write_missing"], !quarantined, "{main}");
    let alarms = status["alarms"].as_array().expect("alarms");
    let alarmed = alarms.iter().any(|a| a["code"] == "last_write_missing");
    assert_eq!(alarmed, !quarantined, "{status}");
    let (code, answer) = site.admin("POST", "/v1/vaults/main/confirm-last-write", None);
    assert_eq!(code == 200, !quarantined, "{answer}");
    let status = site.ask("GET", "/v1/status", None);
    assert!(
        !status.to_string().contains("last write is missing"),
        "{status}"
    );
    if !quarantined {
        // The log has that write, so that no crash took it away; and what is put again gets its line.
        let alarms = status["alarms"].as_array().expect("alarms");
        let behind = alarms.iter().any(|a| a["code"] == "store_behind_log");
        assert!(behind, "{status}");
        site.put_credential("token", "bearer", "canary-the-next-0c5be1");
        let log = site.folder().join("state/audit/audit-00000000.jsonl");
        let log = std::fs::read_to_string(log).expect("a log");
        let second =
            |line: &&str| line.contains("credential_put") && line.contains("\"version\":2");
        assert_eq!(log.lines().filter(second).count(), 2, "{log}");
    }
}

#[test]
fn a_change_that_waits_is_listed_and_taken_back() {
    OPEN.with(|site| {
        let change = json!({ "change": { "principal-put": { "name": "waits" } } });
        let proposed = site.ask("POST", "/v1/changes", Some(&change));
        let digest = proposed["review"]["change"].as_str().expect("a digest");
        let waiting = site.ask("GET", "/v1/changes", None);
        assert_eq!(waiting["changes"][0]["change"], digest, "{waiting}");
        let path = format!("/v1/changes/{digest}");
        site.ask("DELETE", &path, None);
        let (code, _) = site.admin("DELETE", &path, None);
        assert_eq!(code, 404);
        let approvals = format!("{path}/approvals");
        let (code, answer) = site.admin("POST", &approvals, Some(&json!("dev")));
        assert_eq!(code, 404, "{answer}");
    });
}

/// Seals, and waits until the databases are closed: each is one file then.
pub(super) fn sealed_and_closed(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    site.ask("POST", "/v1/seal", None);
    let store = site.folder().join("state/store");
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_log = |entry: std::fs::DirEntry| entry.path().to_string_lossy().ends_with("-wal");
    let has_log =
        |folder: &Path| (std::fs::read_dir(folder).expect("a folder").flatten()).any(is_log);
    while has_log(&store) || has_log(&store.join("vaults")) {
        assert!(Instant::now() < deadline, "a database stays open");
        std::thread::yield_now();
    }
    vault_files(site)
}

/// Where the records' rows of `version` stand in a closed database: each a value of `1 u8 | version u64 | "MCPR" …` behind
/// its key of 32 bytes, in a cell of SQLite's that has the value's length in the two bytes before the key.
pub(super) fn rows_of(database: &[u8], version: u64) -> Vec<Range<usize>> {
    let key = 32;
    let begin = [&[1], version.to_be_bytes().as_slice(), b"MCPR"].concat();
    let starts = (key + 2..database.len()).filter(|&at| database[at..].starts_with(&begin));
    let found = starts.filter_map(|at| {
        let [high, low] = [database[at - key - 2], database[at - key - 1]];
        let kind = (usize::from(high & 0x7f) << 7) | usize::from(low);
        // A blob of n bytes is of the kind 2 n + 12.
        let length = (kind.checked_sub(12)?) / 2;
        let whole = high & 0x80 != 0 && kind % 2 == 0 && (100..1000).contains(&length);
        whole.then_some(at..at + length)
    });
    found.collect()
}

/// The only row of `version`, if there is one.
fn row_of(database: &[u8], version: u64) -> Option<Range<usize>> {
    let mut found = rows_of(database, version);
    assert!(found.len() < 2, "more than one row of this version");
    found.pop()
}

#[test]
fn a_row_that_is_put_back_into_the_closed_file_quarantines_that_vault_alone() {
    let mut site = open();
    site.ask("POST", "/v1/vaults", Some(&json!({ "name": "spare" })));
    let before = sealed_and_closed(&site);
    site.unseal();
    // As long as the first, so that its row takes the same place.
    let next: String = super::CREDENTIAL.chars().rev().collect();
    let stored = site.put_credential("token", "bearer", &next);
    assert_eq!(stored["credential"]["version"], 2, "{stored}");
    sealed_and_closed(&site);
    site.kill();

    let mut edited = 0;
    for (file, old) in &before {
        let mut new = std::fs::read(file).expect("a file");
        let (Some(was), Some(is)) = (row_of(old, 1), row_of(&new, 2)) else {
            continue;
        };
        assert_eq!(was.len(), is.len());
        new[is].copy_from_slice(&old[was]);
        std::fs::write(file, new).expect("a file");
        edited += 1;
    }
    assert_eq!(edited, 1, "one vault holds the credential");

    site.restart();
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let quarantined = &opened["share"]["opened"]["quarantined"];
    assert_eq!(quarantined, &json!(["main"]), "{opened}");
    let answer = site
        .client("ada")
        .call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(code(&answer), "vault_quarantined", "{answer}");
    assert!(site.service.seen().is_empty());
    let listed = site.ask("GET", "/v1/vaults/spare/credentials", None);
    assert_eq!(listed["credentials"], json!([]), "{listed}");
}
