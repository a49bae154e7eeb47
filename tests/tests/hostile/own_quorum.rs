//! A vault with a quorum of its own: the shares of every other quorum, and what somebody with the disk puts back or swaps.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use mcpist_quorum::Identity;
use mcpist_secret::Secret;
use mcpist_tests::desk::{Desk, open_shares};
use serde_json::{Value, json};

use super::repair::backup_of;
use super::rollback::{Disk, mcpist, program_of};
use super::store::{put_back, sealed_and_closed};
use super::{Site, open, secret, works};

/// A vault's people; both of them open it.
struct People([Identity; 2]);

impl People {
    fn new() -> People {
        People([Identity::generate(), Identity::generate()])
    }

    fn holders(&self) -> Value {
        let [a, b] = &self.0;
        json!([{ "label": "a", "recipient": a.recipient() }, { "label": "b", "recipient": b.recipient() }])
    }

    /// The shares that the open ceremony made for them, once each has proved theirs.
    fn proved(&self, site: &Site) -> Vec<Secret> {
        let told = site.ask("GET", "/v1/ceremony/shares", None);
        let shares = open_shares(&self.0, &told["shares"]).expect("shares");
        assert!(give(site, &shares[0])["share"]["proven"].is_object());
        let done = give(site, &shares[1]);
        assert!(done["share"]["completed"].is_object(), "{done}");
        shares
    }

    /// Has a vault made for them: their shares.
    fn make(&self, site: &Site, vault: &str) -> Vec<Secret> {
        let terms = json!({ "vault": vault, "threshold": 2, "holders": self.holders() });
        begin(site, &json!({ "new_vault": terms }));
        self.proved(site)
    }

    /// Gives them new shares of a vault in the place of `old`.
    fn rekey(&self, site: &Site, vault: &str, old: &[Secret]) -> Vec<Secret> {
        let terms = json!({ "vault": vault, "threshold": 2, "holders": self.holders() });
        begin(site, &json!({ "rekey_vault": terms }));
        give(site, &old[0]);
        give(site, &old[1]);
        self.proved(site)
    }
}

fn begin(site: &Site, request: &Value) {
    site.ask("POST", "/v1/ceremony", Some(request));
}

fn begin_unseal(site: &Site, vault: &str) {
    begin(site, &json!({ "unseal_vault": { "vault": vault } }));
}

/// Gives a share to the open ceremony; the line that comes back.
fn give(site: &Site, share: &Secret) -> Value {
    let desk = Desk::of(site.folder());
    desk.give_to("/v1/ceremony", share).expect("a line")
}

/// Gives both shares of a vault; what the last one is answered.
fn unseal_vault(site: &Site, vault: &str, shares: &[Secret]) -> Value {
    begin_unseal(site, vault);
    let first = give(site, &shares[0]);
    assert!(first["share"]["pending"].is_object(), "{first}");
    give(site, &shares[1])
}

/// Opens the store; what the last share is answered.
fn unseal_store(site: &Site) -> Value {
    site.give(&site.share(1));
    let mut opened = site.give(&site.share(2));
    opened["share"]["opened"].take()
}

fn health(site: &Site, vault: &str) -> Value {
    let listed = site.ask("GET", "/v1/vaults", None);
    let vaults = listed["vaults"].as_array().expect("vaults");
    let found = vaults.iter().find(|found| found["name"] == vault);
    found.expect("a vault")["health"].clone()
}

fn put(site: &Site, vault: &str, value: &str) {
    let of = json!({ "vault": vault, "name": "wages", "kind": "bearer", "hosts": ["127.0.0.1"] });
    let ticket = site.ticket(&json!({ "credential": of }));
    let stored = site.bring(&ticket, &secret(value.as_bytes()));
    assert!(stored["credential"].is_object(), "{stored}");
}

#[test]
fn a_share_of_another_quorum_opens_no_vault_and_costs_nothing() {
    let site = open();
    let people = People::new();
    let old = people.make(&site, "payroll");
    let shares = people.rekey(&site, "payroll", &old);
    let of_crew = People::new().make(&site, "crew");
    site.ask("POST", "/v1/seal", None);

    // To the store: neither vault's shares.
    let first = site.give(&site.share(1));
    assert_eq!(first["share"]["pending"]["given"], 1, "{first}");
    for share in [&shares[1], &of_crew[1]] {
        let told = &site.give(share)["share"]["refused"];
        assert_eq!(told["reason"], "other_store", "{told}");
        assert_eq!(told["progress"]["given"], 1, "{told}");
    }
    let opened = site.give(&site.share(2));
    assert!(opened["share"]["opened"].is_object(), "{opened}");

    begin_unseal(&site, "payroll");
    give(&site, &shares[0]);
    for (share, reason) in [
        (&site.share(2), "other_set"),
        (&of_crew[1], "other_set"),
        (&old[1], "superseded"),
        (&shares[0], "already_given"),
    ] {
        let told = &give(&site, share)["share"]["refused"];
        assert_eq!(told["reason"], reason, "{told}");
        assert_eq!(told["progress"]["given"], 1, "{told}");
        let message = told["message"].as_str().expect("a message");
        let named = message.contains("the shares of vault payroll");
        assert_eq!(named, reason == "other_set", "{message}");
        assert_eq!(health(&site, "payroll"), "sealed");
    }
    let done = give(&site, &shares[1]);
    assert!(done["share"]["completed"].is_object(), "{done}");
    assert_eq!(health(&site, "payroll"), "ok");
    assert_eq!(health(&site, "crew"), "sealed", "it waits for its own");
    works(&site);
}

#[test]
fn the_file_of_a_sealed_vault_that_is_put_back_is_caught_when_its_quorum_comes() {
    let mut site = open();
    let shares = People::new().make(&site, "payroll");
    put(&site, "payroll", "canary-of-the-first-month");
    let before = sealed_and_closed(&site);
    unseal_store(&site);
    unseal_vault(&site, "payroll", &shares);
    put(&site, "payroll", "canary-of-the-second-month");
    site.ask("POST", "/v1/vaults/payroll/seal", None);
    sealed_and_closed(&site);
    site.kill();
    put_back(&site, &before);
    site.restart();

    // The store's quorum cannot tell: nothing of the vault opens for it.
    let opened = unseal_store(&site);
    assert_eq!(opened["quarantined"], json!([]), "{opened}");
    assert_eq!(opened["sealed"], json!(["payroll"]), "{opened}");
    let answer = unseal_vault(&site, "payroll", &shares);
    assert_eq!(answer["error"]["code"], "vault_quarantined", "{answer}");
    let said = answer["error"]["message"].as_str().expect("a message");
    assert!(said.contains("its file was put back"), "{said}");
    assert_eq!(health(&site, "payroll"), "quarantined");
    assert_eq!(health(&site, "main"), "ok");
    works(&site);
}

#[test]
fn a_destroyed_file_of_such_a_vault_comes_back_alone_and_under_its_quorum_of_today() {
    let site = open();
    let before = files(&site);
    let people = People::new();
    let old = people.make(&site, "payroll");
    let file = &(&files(&site) - &before)
        .into_iter()
        .next()
        .expect("its file");
    put(&site, "payroll", "canary-of-the-first-month");
    let backup = backup_of(&site);
    let shares = people.rekey(&site, "payroll", &old);
    put(&site, "payroll", "canary-of-the-second-month");
    site.put_credential("later", "bearer", "canary-that-no-backup-has");
    sealed_and_closed(&site);
    std::fs::write(file, [0xa5; 9000]).expect("ours");
    unseal_store(&site);
    let answer = unseal_vault(&site, "payroll", &shares);
    assert_eq!(answer["error"]["code"], "vault_quarantined", "{answer}");
    let next = "mcpist vault restore payroll --from FILE";
    assert_eq!(answer["error"]["next"], next, "{answer}");

    let order = |plan: &Value| json!({ "restore_vault": { "vault": "payroll", "plan": plan } });
    let desk = Desk::of(site.folder());
    let pass = |plan: &Value| desk.pass(&order(plan), &backup).expect("a line");
    let found = pass(&Value::Null)["vault_in_backup"].take();
    let of = (&found["records"], &found["own_quorum"]);
    assert_eq!(of, (&json!(1), &json!(true)), "{found}");
    let done = pass(&found["plan"])["vault_restored"].take();
    assert_eq!(done["found"], found);
    let kept = file.with_file_name(format!("{}.db", done["file"].as_str().expect("an id")));
    assert_eq!(std::fs::read(kept).expect("kept"), [0xa5; 9000]);
    assert_eq!(health(&site, "payroll"), "sealed");

    // The backup is from before the rekey: whom that sent away stays away.
    begin_unseal(&site, "payroll");
    let told = &give(&site, &old[0])["share"]["refused"];
    assert_eq!(told["reason"], "superseded", "{told}");
    give(&site, &shares[0]);
    let opened = give(&site, &shares[1]);
    assert!(opened["share"]["completed"].is_object(), "{opened}");
    let listed = site.ask("GET", "/v1/vaults/payroll/credentials", None);
    let names = listed["credentials"].as_array().expect("a list");
    assert_eq!(names.len(), 1, "{listed}");
    let listed = site.ask("GET", "/v1/vaults/main/credentials", None);
    let names = listed["credentials"].as_array().expect("a list");
    assert_eq!(names.len(), 2, "the others went nowhere: {listed}");
    works(&site);
}

/// The files of vaults.
fn files(site: &Site) -> BTreeSet<PathBuf> {
    let folder = site.folder().join("state/store/vaults");
    let files = std::fs::read_dir(folder).expect("the vaults' folder");
    let paths = files.map(|file| file.expect("a file").path());
    let is_database = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "db");
    paths.filter(is_database).collect()
}

/// The rows of wrapped keys under a vault's own quorum in a closed control.db: `2 u8 | bytes seal config | …` behind the
/// vault's id, in a cell that has the value's length in the two bytes before it.
fn rows_of_own_keys(database: &[u8]) -> Vec<Range<usize>> {
    let (id, head) = (16, 5);
    let configs =
        (id + head + 2..database.len()).filter(|&at| database[at..].starts_with(b"mcpvconf"));
    let rows = configs.map(|config| {
        let at = config - head;
        assert_eq!(database[at], 2, "a seal config is in a row of wrapped keys");
        let [high, low] = [database[at - id - 2], database[at - id - 1]];
        let kind = (usize::from(high & 0x7f) << 7) | usize::from(low);
        at..at + (kind - 12) / 2
    });
    rows.collect()
}

/// Seals the store, ends the daemon, and gives its control.db: one file then.
fn closed_control(site: &mut Site) -> (PathBuf, Vec<u8>) {
    sealed_and_closed(site);
    site.stop();
    let file = site.folder().join("state/store/control.db");
    assert!(!file.with_extension("db-wal").exists(), "a log is left");
    let bytes = std::fs::read(&file).expect("control.db");
    (file, bytes)
}

#[test]
fn the_keys_of_an_earlier_quorum_that_are_put_back_quarantine_that_vault_alone() {
    let mut site = open();
    let people = People::new();
    let old = people.make(&site, "payroll");
    let (_, before) = closed_control(&mut site);
    site.restart();
    unseal_store(&site);
    unseal_vault(&site, "payroll", &old);
    people.rekey(&site, "payroll", &old);
    let (file, mut now) = closed_control(&mut site);
    let [was, is] = [&before, &now].map(|bytes| rows_of_own_keys(bytes));
    let ([was], [is]) = (&was[..], &is[..]) else {
        panic!("one vault has a quorum of its own: {was:?}, {is:?}")
    };
    assert_eq!(was.len(), is.len());
    assert_ne!(before[was.clone()], now[is.clone()]);
    now[is.clone()].copy_from_slice(&before[was.clone()]);
    std::fs::write(&file, now).expect("ours");
    site.restart();

    let opened = unseal_store(&site);
    assert_eq!(opened["quarantined"], json!(["payroll"]), "{opened}");
    let request = json!({ "unseal_vault": { "vault": "payroll" } });
    let (status, answer) = site.admin("POST", "/v1/ceremony", Some(&request));
    assert_ne!(status, 200, "the old shares were asked for: {answer}");
    works(&site);
}

#[test]
fn the_keys_of_two_vaults_that_are_swapped_open_neither() {
    let mut site = open();
    for vault in ["payroll", "crew"] {
        People::new().make(&site, vault);
    }
    let (file, mut now) = closed_control(&mut site);
    let rows = rows_of_own_keys(&now);
    let [one, other] = &rows[..] else {
        panic!("two vaults have a quorum of their own: {rows:?}")
    };
    let (first, second) = (now[one.clone()].to_vec(), now[other.clone()].to_vec());
    assert_eq!(first.len(), second.len());
    now[one.clone()].copy_from_slice(&second);
    now[other.clone()].copy_from_slice(&first);
    std::fs::write(&file, now).expect("ours");
    site.restart();
    let opened = unseal_store(&site);
    let mut quarantined: Vec<_> = opened["quarantined"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    quarantined.sort_by_key(|name| name.as_str());
    assert_eq!(quarantined, ["crew", "payroll"], "{opened}");
    works(&site);
}

#[test]
fn a_disk_put_back_whole_is_caught_by_the_receipt_that_a_vault_s_people_hold() {
    let mut site = open();
    let shares = People::new().make(&site, "payroll");
    site.ask("POST", "/v1/seal", None);
    site.stop();
    let old = Disk::of(&site);
    site.restart();
    unseal_store(&site);
    for spare in ["spare", "more"] {
        site.ask("POST", "/v1/vaults", Some(&json!({ "name": spare })));
    }
    let kept = tempfile::tempdir().expect("a folder");
    let folder = kept.path().display().to_string();
    let args = ["vault", "unseal", "payroll", "--witness-dir", &folder];
    for share in &shares {
        mcpist(&site, &args, share.expose());
    }
    let held = std::fs::read_dir(kept.path()).expect("a folder").count();
    assert_eq!(held, 1, "its opening gives a receipt");
    site.ask("POST", "/v1/seal", None);
    let none = kept.path().join("none").display().to_string();
    let give = ["ceremony", "give", "--witness-dir", &folder];
    // By whichever command the share comes that completes the quorum.
    for last in [&args[..], &give[..]] {
        site.stop();
        old.put_back(&site);
        site.restart();
        // The store's people present none, and have it open; nor does the first of the vault's.
        let opened = unseal_store(&site);
        assert_eq!(opened["sealed"], json!(["payroll"]), "{opened}");
        let first = ["vault", "unseal", "payroll", "--witness-dir", &none];
        mcpist(&site, &first, shares[0].expose());
        let out = program_of(&site, last, shares[1].expose());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("error[store_rolled_back"), "{said}");
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["state"], "sealed", "{status}");
    }
}
