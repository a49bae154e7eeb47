//! A disk without room for the audit log: nothing happens that could not be recorded, and the log goes on by itself.
//!
//! Two ways to a disk that takes no more: a limit on the size of the daemon's files, which any user may set on any host
//! and which stops the store's files as well, and a small file system of its own for the log.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::{cli, program};
use mcpist_tests::service::Service;
use mcpist_tests::start::Start;
use serde_json::{Value, json};

use super::{CREDENTIAL, Site, code, open, works};

/// The daemon's files may grow to `bytes` and no further.
fn limit(site: &Site, bytes: &str) {
    let set = Command::new("prlimit")
        .arg(format!("--pid={}", site.pid()))
        .arg(format!("--fsize={bytes}:unlimited"))
        .status()
        .expect("prlimit (util-linux) is installed");
    assert!(set.success(), "the limit was not set");
}

/// The length of the audit log's only segment.
fn length(site: &Site) -> u64 {
    let segment = site.folder().join("state/audit/audit-00000000.jsonl");
    std::fs::metadata(segment).expect("a segment").len()
}

/// Nothing that must be recorded happens: no call of any access, no denial that goes unrecorded, no change. An operator
/// is told `admin`.
fn stopped(site: &Site, admin: &str) {
    let seen = site.service.seen().len();
    let (mut ada, mut bob) = (site.client("ada"), site.client("bob"));
    for _ in 0..3 {
        for answer in [
            ada.call("echo", "get", &json!({ "item": "x" })),
            ada.call("echo", "put", &json!({ "value": "x" })),
            bob.call("echo", "get", &json!({ "item": "x" })),
        ] {
            assert_eq!(code(&answer), "audit_unavailable", "{answer}");
        }
    }
    assert_eq!(site.service.seen().len(), seen, "the service was asked");

    let principals = site.ask("GET", "/v1/principals", None);
    let change = json!({ "change": { "principal-put": { "name": "carol" } } });
    let proposed = site.ask("POST", "/v1/changes", Some(&change));
    let digest = proposed["review"]["change"].as_str().expect("a digest");
    let path = format!("/v1/changes/{digest}/approvals");
    let (status, refused) = site.admin("POST", &path, Some(&json!("dev")));
    assert!([503, 507].contains(&status), "{refused}");
    assert_eq!(refused["error"]["code"], admin, "{refused}");
    assert_eq!(site.ask("GET", "/v1/principals", None), principals);

    let vaults = || {
        site.ask("GET", "/v1/vaults", None)["vaults"]
            .as_array()
            .map(Vec::len)
    };
    let before = vaults();
    let more = json!({ "name": "more" });
    let (_, refused) = site.admin("POST", "/v1/vaults", Some(&more));
    assert_eq!(refused["error"]["code"], admin, "{refused}");
    assert_eq!(vaults(), before);

    let stored = site.put_credential("token", "bearer", "canary-of-the-full-disk");
    assert_eq!(stored["error"]["code"], admin, "{stored}");
    let listed = site.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(listed["credentials"][0]["version"], 1, "{listed}");

    // What records nothing goes on.
    assert!(ada.schema(&json!({})).to_string().contains("echo"));
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "unsealed");
    assert_eq!(alarms_that_stop(&status), [admin], "{status}");
}

/// The codes of the alarms that say that nothing happens any more.
fn alarms_that_stop(status: &Value) -> Vec<&str> {
    let alarms = status["alarms"].as_array().expect("a list").iter();
    let stop = |alarm: &&Value| alarm.to_string().contains("no call is made");
    alarms
        .filter(stop)
        .filter_map(|alarm| alarm["code"].as_str())
        .collect()
}

/// With room again all goes on without anybody's doing, and the log is one chain.
fn goes_on(site: &Site, audit: &Path) {
    works(site);
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(alarms_that_stop(&status), [""; 0], "{status}");
    site.change(&json!({ "principal-put": { "name": "carol" } }));
    site.ask("POST", "/v1/seal", None);
    let verdict = cli()
        .args(["--output", "json", "audit", "verify"])
        .arg(audit)
        .args(["--key", &super::audit::first_key(site)])
        .output()
        .expect("mcpist runs");
    let said = String::from_utf8_lossy(&verdict.stdout);
    let errors = String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success(), "{said}{errors}");
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(said["data"]["unsigned_tail"], 0, "{said}");
    assert_eq!(said["data"]["recovered"], 0, "nothing was torn: {said}");
    site.unseal();
    works(site);
}

#[test]
fn no_room_for_an_intent_stops_all_that_it_would_record_until_there_is_room() {
    let site = open();
    works(&site);
    let audit = site.folder().join("state/audit");
    // Not a byte, and half a line, which is taken back.
    for room in [0, 100] {
        limit(&site, &(length(&site) + room).to_string());
        stopped(&site, "audit_unavailable");
        limit(&site, "unlimited");
        goes_on(&site, &audit);
    }
}

#[test]
fn no_room_for_an_outcome_marks_the_answer_and_stops_the_next_call() {
    let site = open();
    let before = length(&site);
    works(&site);
    // Intent and outcome of one call; the outcome is the shorter one.
    let call = length(&site) - before;
    limit(&site, &(length(&site) + call * 3 / 4).to_string());
    let mut ada = site.client("ada");
    let answer = ada.call("echo", "get", &json!({ "item": "y" }));
    assert_eq!(answer["isError"], false, "{answer}");
    assert_eq!(answer["_meta"]["mcpist/audit_lost"], true, "{answer}");
    assert_eq!(site.service.seen().len(), 2);
    let answer = ada.call("echo", "get", &json!({ "item": "z" }));
    // The room that the outcome did not fill is too small for an intent as well.
    assert_eq!(code(&answer), "audit_unavailable", "{answer}");
    assert_eq!(site.service.seen().len(), 2);
    limit(&site, "unlimited");
    goes_on(&site, &site.folder().join("state/audit"));
    assert_eq!(recorded(&site, "audit_lost", "\"calls\":1,"), 1);
}

/// How many lines of the log are of `event` and hold `fragment`.
fn recorded(site: &Site, event: &str, fragment: &str) -> usize {
    let folder = seen_by_daemon(site, "state/audit");
    let segment = std::fs::read_to_string(folder.join("audit-00000000.jsonl"));
    let event = format!("\"event\":\"{event}\"");
    let is_it = |line: &&str| line.contains(&event) && line.contains(fragment);
    segment.expect("lines").lines().filter(is_it).count()
}

/// Takes the room that the daemon has reserved for itself away from it, and then the rest of it.
fn fill(site: &Site, audit: &Path) {
    for name in ["audit-00000000.jsonl", "audit.next"] {
        let path = audit.join(name);
        let end = std::fs::metadata(&path).expect("a file").len();
        let punched = Command::new("fallocate")
            .args(["--punch-hole", "--length", "8MiB", "--offset"])
            .arg(end.to_string())
            .arg(path)
            .status()
            .expect("fallocate (util-linux) is installed");
        assert!(punched.success(), "the room was not given back");
    }
    let mut more = std::fs::File::create(audit.join("more-in-the-way")).expect("a file");
    while more.write_all(&[0; 4096]).is_ok() {}
    // The last page of the log has room for some lines: first for long ones, then for short ones.
    for name in ["ada", "bob"] {
        let mut client = site.client(name);
        let mut last = || client.call("echo", "get", &json!({ "item": "x" }));
        let stopped = (0..30).any(|_| code(&last()) == "audit_unavailable");
        assert!(stopped, "the file system does not fill");
    }
}

/// A store that serves, with its log on a file system of its own: of four MiB, and with a file `in-the-way`.
fn on_a_small_disk() -> (Site, PathBuf) {
    let mount = "mount -t tmpfs -o size=4m,mode=700 none state/audit; \
                 head -c 1500000 /dev/zero >state/audit/in-the-way; exec \"$@\"";
    // The folder is there before the daemon makes it.
    let start = Start::dev(program("mcpistd"))
        .in_namespace(&format!("mkdir state/audit; {mount}"))
        .with_config("[audit]\nrotate-mib = 1\n");
    let (mut appliance, service) = (Appliance::start_by(start), Service::start());
    appliance.set_up(service.port(), CREDENTIAL);
    let site = Site { appliance, service };
    let audit = seen_by_daemon(&site, "state/audit");
    works(&site);
    (site, audit)
}

#[test]
fn a_file_system_without_room_stops_calls_and_the_log_goes_on_when_there_is_room() {
    let (site, audit) = on_a_small_disk();
    fill(&site, &audit);
    stopped(&site, "disk_full");
    assert_eq!(recorded(&site, "disk_alarm", "\"raised\":true"), 1);
    std::fs::remove_file(audit.join("in-the-way")).expect("a file");
    goes_on(&site, &audit);
}

#[test]
fn a_file_system_without_room_takes_no_share_until_there_is_room() {
    let (site, audit) = on_a_small_disk();
    fill(&site, &audit);
    // Sealed it is; that line found no room.
    let (_, sealed) = site.admin("POST", "/v1/seal", None);
    assert_eq!(sealed["error"]["code"], "audit_lost", "{sealed}");
    let refused = site.give(&site.share(1));
    assert_eq!(refused["error"]["code"], "disk_full", "{refused}");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed");
    assert_eq!(status["unseal"]["given"], 0, "{status}");
    assert_eq!(status["alarms"][0]["code"], "disk_full", "{status}");
    std::fs::remove_file(audit.join("in-the-way")).expect("a file");
    site.unseal();
    works(&site);
}

#[test]
fn a_full_disk_leaves_space_to_seal_to_unseal_and_to_export() {
    let (site, audit) = on_a_small_disk();
    let mut more = std::fs::File::create(audit.join("more-in-the-way")).expect("a file");
    while more.write_all(&[0; 4096]).is_ok() {}
    // What is reserved for the log takes calls until the rest of it is kept.
    std::thread::scope(|at_once| {
        for _ in 0..8 {
            at_once.spawn(|| {
                let mut ada = site.client("ada");
                let mut get = || ada.call("echo", "get", &json!({ "item": "x" }));
                while code(&get()) != "audit_unavailable" {}
            });
        }
    });
    stopped(&site, "disk_full");
    let (status, sealed) = site.admin("POST", "/v1/seal", None);
    assert_eq!(status, 200, "its last line is written and signed: {sealed}");
    site.unseal();
    stopped(&site, "disk_full");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = elsewhere.path().join("log.jsonl");
    let mcpist = |arguments: &[&str]| {
        let out = cli()
            .arg("--run")
            .arg(site.folder().join("run"))
            .args(["audit", arguments[0]])
            .arg(&file)
            .args(&arguments[1..])
            .output()
            .expect("mcpist runs");
        assert!(out.status.success(), "{out:?}");
    };
    mcpist(&["export"]);
    mcpist(&["verify", "--key", &super::audit::first_key(&site)]);
    std::fs::remove_file(audit.join("in-the-way")).expect("a file");
    goes_on(&site, &audit);
}

/// A path of the folder as it is in the daemon's own namespace.
fn seen_by_daemon(site: &Site, path: &str) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", site.pid()));
    let inside = site.folder().join(path);
    root.join(inside.strip_prefix("/").expect("an absolute path"))
}
