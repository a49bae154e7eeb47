//! A store's backup, and what a host makes of it: the standby that serves at once, and the host that goes back to it.
#![allow(clippy::unwrap_used)]

#[path = "backups/drills.rs"]
mod drills;
#[path = "backups/lacking.rs"]
mod lacking;
#[path = "backups/lives.rs"]
mod lives;
#[path = "backups/own.rs"]
mod own;

use std::path::{Path, PathBuf};
use std::process::Output;

use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::{cli, fed};
use mcpist_tests::service::Service;
use serde_json::{Value, json};

const CREDENTIAL: &str = "canary-bacc0bacc0bacc0b";

fn mcpist(host: &Appliance, args: &[&str], input: &[u8]) -> Output {
    let mut command = cli();
    command
        .arg("--run")
        .arg(host.folder().join("run"))
        .args(["--output", "json"])
        .args(args)
        .current_dir(host.folder());
    fed(&mut command, input)
}

fn parsed(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("no JSON: {out:?}"))
}

/// The data of a command that succeeds.
fn done(host: &Appliance, args: &[&str], input: &[u8]) -> Value {
    let out = mcpist(host, args, input);
    assert!(out.status.success(), "{args:?}: {out:?}");
    parsed(&out)["data"].clone()
}

/// The error of a command that does not.
fn refused(host: &Appliance, args: &[&str], input: &[u8]) -> Value {
    let out = mcpist(host, args, input);
    assert!(!out.status.success(), "{args:?}: {out:?}");
    parsed(&out)["error"].clone()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A host whose ada may call, and the service behind it.
fn host() -> (Appliance, Service) {
    let (mut host, service) = (Appliance::start(), Service::start());
    host.set_up(service.port(), CREDENTIAL);
    (host, service)
}

fn call(host: &Appliance) -> Value {
    host.client("ada")
        .call("echo", "get", &json!({ "item": "one" }))
}

fn works(host: &Appliance) {
    host.until("a call that works", || {
        call(host)["result"]["isError"] != json!(true) && call(host)["error"].is_null()
    });
}

fn token_of(host: &Appliance) -> PathBuf {
    host.folder().join("state/init-token")
}

fn begin(host: &Appliance, file: &Path) -> Value {
    let token = token_of(host);
    let args = ["restore", text(file), "--token-file", text(&token)];
    done(host, &args, b"")
}

/// Restores by shares 1 and 3 of `of`: what the last answer says.
fn restore(host: &Appliance, file: &Path, of: &Appliance) -> Value {
    let open = begin(host, file);
    assert_eq!(open["progress"]["needed"], 2, "{open}");
    let first = done(host, &["restore", "--give"], of.share(1).expose());
    assert_eq!(first["pending"]["given"], 1, "{first}");
    let last = done(host, &["restore", "--give"], of.share(3).expose());
    last["restored"].clone()
}

fn unseal(host: &Appliance, of: &Appliance) {
    assert!(host.give(&of.share(1))["share"]["pending"].is_object());
    let opened = host.give(&of.share(2));
    assert!(opened["share"]["opened"].is_object(), "{opened}");
}

fn alarms(host: &Appliance) -> Vec<String> {
    let status = host.ask("GET", "/v1/status", None);
    let alarms = status["alarms"].as_array().unwrap();
    (alarms
        .iter()
        .map(|a| a["code"].as_str().unwrap().to_owned()))
    .collect()
}

#[test]
fn a_standby_serves_what_a_backup_held_and_its_log_begins_anew() {
    let (mut first, _service) = host();
    works(&first);
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    let made = done(&first, &["backup", text(&file)], b"");
    assert!(
        made["files"].as_u64().unwrap() > 0,
        "registries go along: {made}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let status = first.ask("GET", "/v1/status", None);
    assert_eq!(status["backup"]["backup"], made["backup"]);
    assert_eq!(done(&first, &["backup", "verify", text(&file)], b""), made);
    let again = refused(&first, &["backup", text(&file)], b"");
    assert!(
        again["message"].as_str().unwrap().contains("exists"),
        "{again}"
    );
    let bytes = std::fs::read(&file).unwrap();
    let shows = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    assert!(!shows(CREDENTIAL.as_bytes()) && !shows(b"bearer") && !shows(b"echo"));
    // What comes after it is lost with the host.
    first.put_credential("later", "bearer", "a-credential-that-is-lost");
    first.kill();

    let standby = Appliance::start();
    let seen = done(&standby, &["backup", "inspect", text(&file)], b"");
    assert_eq!(
        (&seen["backup"], &seen["life"]),
        (&made["backup"], &json!(1))
    );
    let restored = restore(&standby, &file, &first);
    assert_eq!(restored["records"], made["records"], "{restored}");
    assert_eq!(
        (&restored["life"], &restored["kept"]),
        (&json!(2), &json!(false))
    );
    assert!(!token_of(&standby).exists(), "init is over");
    assert_eq!(standby.ask("GET", "/v1/status", None)["state"], "sealed");
    unseal(&standby, &first);
    works(&standby);
    let listed = standby.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(
        listed["credentials"].as_array().unwrap().len(),
        1,
        "{listed}"
    );
    assert_eq!(alarms(&standby), ["backup_due"]);

    // The log of the new life, from a key that the restore's record names.
    let state = standby.folder().join("state");
    let folders = std::fs::read_dir(&state).unwrap().flatten();
    let log = folders
        .map(|entry| entry.path())
        .find(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("audit-")
        })
        .unwrap();
    let lines = std::fs::read_to_string(log.join("audit-00000000.jsonl")).unwrap();
    let lines: Vec<Value> = (lines.lines().filter(|l| l.starts_with('{')))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = lines.iter().find(|l| l["event"] == "restored").unwrap();
    assert_eq!(
        (&line["backup"], &line["life"]),
        (&made["backup"], &json!(2))
    );
    done(&standby, &["seal"], b"");
    let key = restored["audit_key"].as_str().unwrap();
    done(
        &standby,
        &["audit", "verify", text(&log), "--key", key],
        b"",
    );

    // A backup of the new life ends the alarm.
    unseal(&standby, &first);
    done(
        &standby,
        &["backup", text(&desk.path().join("second"))],
        b"",
    );
    assert!(alarms(&standby).is_empty());
}

#[test]
fn a_host_goes_back_to_its_backup_and_keeps_what_it_had_aside() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    host.put_credential("later", "bearer", "a-credential-put-later");
    let open = refused(&host, &["restore", text(&file)], b"");
    assert_eq!(open["code"], "already_unsealed", "{open}");
    done(&host, &["seal"], b"");
    let restored = restore(&host, &file, &host);
    assert_eq!(restored["kept"], true, "{restored}");
    assert_eq!(host.ask("GET", "/v1/status", None)["old_store"], true);
    host.unseal();
    works(&host);
    let listed = host.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(
        listed["credentials"].as_array().unwrap().len(),
        1,
        "{listed}"
    );
    done(&host, &["seal"], b"");
    let again = refused(&host, &["restore", text(&file)], b"");
    assert_eq!(
        again["code"], "conflict",
        "the old one is still aside: {again}"
    );
    host.unseal();
    let removed = done(&host, &["restore", "--remove-old", "--yes"], b"");
    assert_eq!(removed["removed"], true);
    assert_eq!(host.ask("GET", "/v1/status", None)["old_store"], false);
}

#[test]
fn nothing_changes_before_the_quorum_and_after_a_cancel_or_a_crash() {
    let (mut host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    let plan = begin(&host, &file)["digest"].clone();
    done(&host, &["restore", "--give"], host.share(1).expose());
    let twice = refused(&host, &["restore", "--give"], host.share(1).expose());
    assert_eq!(twice["code"], "share_refused", "{twice}");
    done(&host, &["restore", "--cancel"], b"");
    // A share under the plan that is gone serves no other act.
    let ticket = host.ticket(&json!({ "share": { "plan": plan } }));
    let late = host.bring(&ticket, &host.share(2));
    assert_eq!(late["share"]["refused"]["reason"], "other_plan", "{late}");
    begin(&host, &file);
    done(&host, &["restore", "--give"], host.share(1).expose());
    host.kill_and_restart();
    let gone = refused(&host, &["restore", "--give"], host.share(2).expose());
    assert_eq!(gone["code"], "not_found", "{gone}");
    host.unseal();
    works(&host);
    assert_eq!(host.ask("GET", "/v1/status", None)["old_store"], false);
}

#[test]
fn a_store_that_was_opened_while_a_restore_waited_is_not_replaced() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    let plan = begin(&host, &file)["digest"].clone();
    done(&host, &["restore", "--give"], host.share(1).expose());
    let again = refused(&host, &["restore", text(&file)], b"");
    assert_eq!(again["code"], "conflict", "{again}");
    host.unseal();
    host.put_credential("later", "bearer", "a-credential-put-later");
    // The holder who comes last, by the command and under the plan that was shown.
    let late = refused(&host, &["restore", "--give"], host.share(3).expose());
    assert_eq!(late["code"], "not_found", "{late}");
    let ticket = host.ticket(&json!({ "share": { "plan": plan } }));
    let late = host.bring(&ticket, &host.share(3));
    assert_eq!(late["error"]["code"], "already_unsealed", "{late}");
    // Nor does the plan wait for the next seal.
    done(&host, &["seal"], b"");
    let late = refused(&host, &["restore", "--give"], host.share(3).expose());
    assert_eq!(late["code"], "not_found", "{late}");
    host.unseal();
    works(&host);
    let listed = host.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(
        listed["credentials"].as_array().unwrap().len(),
        2,
        "{listed}"
    );
    assert_eq!(host.ask("GET", "/v1/status", None)["old_store"], false);
}

#[test]
fn a_damaged_or_foreign_backup_is_refused_by_name_and_costs_nothing() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    let good = std::fs::read(&file).unwrap();
    let bad = desk.path().join("bad.backup");
    let middle = good.len() / 2;
    let mut flipped = good.clone();
    flipped[middle] ^= 1;
    done(&host, &["seal"], b"");
    let cases: [&[u8]; 4] = [
        &flipped,
        &good[..good.len() - 1],
        &[good.as_slice(), b"x"].concat(),
        b"not a backup",
    ];
    for bytes in cases {
        std::fs::write(&bad, bytes).unwrap();
        for args in [
            &["restore", text(&bad)][..],
            &["backup", "inspect", text(&bad)],
        ] {
            let error = refused(&host, args, b"");
            assert_eq!(error["code"], "backup_refused", "{error}");
        }
    }
    let mut other = Appliance::start();
    other.init();
    let foreign = refused(&other, &["backup", "verify", text(&file)], b"");
    assert_eq!(foreign["code"], "sealed", "{foreign}");
    other.unseal();
    let foreign = refused(&other, &["backup", "verify", text(&file)], b"");
    assert_eq!(foreign["code"], "backup_refused", "{foreign}");
    done(&other, &["seal"], b"");
    let foreign = refused(&other, &["restore", text(&file)], b"");
    assert_eq!(foreign["code"], "backup_refused", "{foreign}");
    host.unseal();
    works(&host);
}

#[test]
fn a_blank_host_takes_no_store_without_its_token() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&first, &["backup", text(&file)], b"");
    let blank = Appliance::start();
    let wrong = desk.path().join("token");
    std::fs::write(&wrong, "00".repeat(32)).unwrap();
    let args = ["restore", text(&file), "--token-file", text(&wrong)];
    let error = refused(&blank, &args, b"");
    assert_eq!(error["code"], "ticket_invalid", "{error}");
    assert_eq!(
        blank.ask("GET", "/v1/status", None)["state"],
        "uninitialised"
    );
}

#[test]
fn what_the_secret_socket_is_handed_for_a_backup_must_be_an_empty_file() {
    let (host, _service) = host();
    let nothing = Secret::copy_of(b"x").unwrap();
    for purpose in ["backup", "verify_backup", "restore"] {
        let ticket = host.ticket(&json!(purpose));
        let answer = host.bring(&ticket, &nothing);
        assert_eq!(answer["error"]["code"], "request_invalid", "{answer}");
    }
    works(&host);
}

#[test]
fn a_new_root_key_makes_a_backup_due_and_leaves_the_old_one_to_a_restore() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let old = desk.path().join("old.backup");
    done(&host, &["backup", text(&old)], b"");
    assert!(alarms(&host).is_empty());
    let open = host.ask("POST", "/v1/ceremony", Some(&json!("rotate_root")));
    for share in [1, 2] {
        let ticket = host.ticket(&json!({ "share": { "plan": open["digest"] } }));
        host.bring(&ticket, &host.share(share));
    }
    assert_eq!(alarms(&host), ["backup_due"]);
    let error = refused(&host, &["backup", "verify", text(&old)], b"");
    assert_eq!(error["code"], "backup_refused", "{error}");
    // It stands over a seal, and until a backup was made since.
    done(&host, &["seal"], b"");
    host.unseal();
    assert_eq!(alarms(&host), ["backup_due"]);
    done(
        &host,
        &["backup", text(&desk.path().join("new.backup"))],
        b"",
    );
    assert!(alarms(&host).is_empty());
    done(&host, &["seal"], b"");
    restore(&host, &old, &host);
    host.unseal();
    works(&host);
}
