//! A vault whose file was destroyed or put back, and what a custodian makes of it.

use std::io::{Read, Seek};

use mcpist_tests::desk::Desk;
use serde_json::{Value, json};

use super::store::sealed_and_closed;
use super::{CREDENTIAL, Site, code, open, works};

/// Writes over the closed file of the vault `main`, the only one, what `change` makes of it, and opens the store again.
fn damaged(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Site {
    let site = open();
    let mut files = sealed_and_closed(&site);
    let (file, bytes) = files.remove(0);
    std::fs::write(&file, change(bytes)).expect("ours");
    site.give(&site.share(1));
    site.give(&site.share(2));
    site
}

fn calls(site: &Site) -> String {
    let answer = site
        .client("ada")
        .call("echo", "get", &json!({ "item": "x" }));
    code(&answer).to_owned()
}

fn has_alarm(site: &Site, code: &str) -> bool {
    let status = site.ask("GET", "/v1/status", None);
    let alarms = status["alarms"].as_array().expect("alarms");
    alarms.iter().any(|alarm| alarm["code"] == code)
}

/// Repairs `main` as it was found.
fn repaired(site: &Site) -> Value {
    let found = site.ask("POST", "/v1/vaults/main/examine", None);
    let done = site.ask(
        "POST",
        "/v1/vaults/main/repair",
        Some(&json!({ "plan": found["plan"] })),
    );
    assert_eq!(done["findings"], found);
    found
}

#[test]
fn a_destroyed_vault_is_rebuilt_as_its_custodian_saw_it_and_lacks_what_was_lost() {
    let site = damaged(|_| vec![0xa5; 9000]);
    assert_eq!(calls(&site), "vault_quarantined");
    let other = json!({ "plan": "0".repeat(64) });
    let (status, refused) = site.admin("POST", "/v1/vaults/main/repair", Some(&other));
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("conflict"))
    );
    assert_eq!(calls(&site), "vault_quarantined");

    let found = repaired(&site);
    assert_eq!((&found["kept"], &found["sure"]), (&json!(0), &json!(false)));
    assert_eq!(found["lost"], json!([{ "name": "token" }]));
    assert_eq!(calls(&site), "credential_missing");
    let listed = site.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(listed["missing"], json!(["token"]));
    assert!(has_alarm(&site, "vault_repaired"));
    assert!(site.service.seen().is_empty());

    site.put_credential("token", "bearer", CREDENTIAL);
    works(&site);
    let discarded = site.ask("POST", "/v1/vaults/main/discard", None);
    assert_eq!(discarded["files"], 1);
    assert!(!has_alarm(&site, "vault_repaired"));
}

#[test]
fn a_vault_without_its_head_keeps_its_credentials_and_says_that_they_may_be_old() {
    // The root page of the table that holds the head: the second of the file's.
    let site = damaged(|mut bytes| {
        bytes[4096..8192].fill(0xee);
        bytes
    });
    assert_eq!(calls(&site), "vault_quarantined");
    let found = repaired(&site);
    assert_eq!((&found["kept"], &found["sure"]), (&json!(1), &json!(false)));
    assert_eq!(
        (&found["expected"], &found["lost"]),
        (&Value::Null, &json!([]))
    );
    works(&site);
    let verified = site.ask("POST", "/v1/vaults/main/verify", None);
    assert_eq!(verified["records"], 1);
}

#[test]
fn a_destroyed_vault_goes_back_to_the_backup_that_its_operator_saw() {
    let site = open();
    let backup = backup_of(&site);
    let other = backup_of(&open());
    site.put_credential("later", "bearer", "canary-that-no-backup-has");
    let mut files = sealed_and_closed(&site);
    let (file, _) = files.remove(0);
    std::fs::write(&file, [0xa5; 9000]).expect("ours");
    site.give(&site.share(1));
    site.give(&site.share(2));
    assert_eq!(calls(&site), "vault_quarantined");

    let order = |plan: &Value| json!({ "restore_vault": { "vault": "main", "plan": plan } });
    let desk = Desk::of(site.folder());
    let pass = |plan: &Value, bytes: &[u8]| desk.pass(&order(plan), bytes).expect("a line");
    let found = pass(&Value::Null, &backup)["vault_in_backup"].take();
    assert_eq!((&found["records"], &found["here"]), (&json!(1), &json!(0)));
    let mut altered = backup.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    for bad in [&altered, &other, &b"no backup".to_vec()] {
        let refused = pass(&found["plan"], bad);
        assert_eq!(refused["error"]["code"], "backup_refused", "{refused}");
    }
    let refused = pass(&json!("0".repeat(64)), &backup);
    assert_eq!(refused["error"]["code"], "conflict", "{refused}");
    assert_eq!(calls(&site), "vault_quarantined");
    assert!(site.service.seen().is_empty());

    let done = pass(&found["plan"], &backup)["vault_restored"].take();
    assert_eq!(done["found"], found);
    // Bindings go on by the names that they have.
    works(&site);
    let listed = site.ask("GET", "/v1/vaults/main/credentials", None);
    let names = listed["credentials"].as_array().expect("a list");
    assert_eq!(names.len(), 1, "{listed}");
    assert!(has_alarm(&site, "vault_repaired"));
}

pub(super) fn backup_of(site: &Site) -> Vec<u8> {
    let desk = Desk::of(site.folder());
    let mut file = tempfile::tempfile().expect("a file");
    let made = desk.pass_file(&json!("backup"), &file).expect("a line");
    assert!(made["backup"].is_object(), "{made}");
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("ours");
    bytes
}
