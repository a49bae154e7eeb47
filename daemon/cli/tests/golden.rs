//! Transcripts of the command line, compared with the files in `tests/golden`.
//!
//! Wording is reviewed like code: `UPDATE=1 cargo test -p mcpist --test golden` writes the files anew, and the diff
//! shows what changed. Keys, times and the audit log are fixed, so every digest in a transcript is, too. A line of
//! standard error begins with `! `; a status other than 0 stands at the end.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mcpist_core::access::Access;
use mcpist_core::api::ApiError;
use mcpist_core::audit::{Anchor, Chain, Copied, Seq, UnixMs};
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{ArgumentsMac, Event, Outcome};
use mcpist_core::ids::{
    CallId, Digest, ModuleName, ModuleRev, PrincipalName, RegistryId, ToolName,
};
use serde_json::{Value, json};

const FIRST_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// Runs the commands in a folder of their own and compares what they say.
fn golden(name: &str, folder: &Path, commands: &[&str]) {
    let mut transcript = String::new();
    for line in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_mcpist"))
            .args(words(line))
            .current_dir(folder)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        writeln!(transcript, "$ mcpist {line}").unwrap();
        transcript.push_str(&String::from_utf8(output.stdout).unwrap());
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            writeln!(transcript, "! {line}").unwrap();
        }
        let code = output.status.code().unwrap();
        if code != 0 {
            writeln!(transcript, "[exit {code}]").unwrap();
        }
        transcript.push('\n');
    }
    // A line's end in white space is nobody's wording.
    let transcript: String = transcript
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &transcript).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        transcript,
        expected,
        "{} differs; UPDATE=1 writes it anew",
        file.display()
    );
}

/// Splits at spaces; single quotes hold a word together.
fn words(line: &str) -> Vec<String> {
    line.split('\'')
        .enumerate()
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

/// A folder with two keys whose seeds are known, and the catalogue's own module.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, digit) in [("one.key", "1"), ("two.key", "2")] {
        let text = format!("mcpist-signing-key-1 {}\n", digit.repeat(64));
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let module = folder.path().join("plant");
    std::fs::create_dir(&module).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/plant");
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), module.join(entry.file_name())).unwrap();
    }
    folder
}

fn public(folder: &Path, key: &str) -> String {
    let text = std::fs::read(folder.join(key)).unwrap();
    mcpist_bundle::SigningKey::from_throwaway_text(&text)
        .unwrap()
        .public()
        .to_string()
}

/// A log of four lines under a fixed key.
fn log(folder: &Path) -> PathBuf {
    let mut chain = Chain::new(Anchor::genesis([0x11; 32]));
    let mut bytes = Vec::new();
    let at = |second: u64| UnixMs(1_700_000_000_000 + second * 1_000);
    chain.append_segment(at(0), 0, &Copied::new(), &mut bytes);
    for second in 1..4 {
        let event = Event::AdminRefused {
            uid: 1000,
            action: "seal",
            code: ErrorCode::Forbidden,
        };
        chain.append(at(second), &event, &mut bytes);
    }
    let log = folder.join("audit");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("audit-00000000.jsonl"), bytes).unwrap();
    log
}

#[test]
fn help() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "",
        "status",
        "init",
        "unseal",
        "seal",
        "vault",
        "vault create",
        "vault confirm",
        "vault list",
        "credential",
        "credential put",
        "credential list",
        "credential delete",
        "principal",
        "principal put",
        "principal list",
        "principal delete",
        "grant",
        "grant put",
        "grant list",
        "grant delete",
        "binding",
        "binding put",
        "binding list",
        "binding delete",
        "join",
        "join put",
        "join list",
        "join delete",
        "change",
        "change approve",
        "change show",
        "change list",
        "change withdraw",
        "mask",
        "mask explain",
        "registry",
        "registry list",
        "registry activate",
        "registry retire",
        "registry time-floor",
        "bundle",
        "bundle keygen",
        "bundle root",
        "bundle build",
        "bundle sign",
        "bundle inspect",
        "bundle verify",
        "bundle import",
        "audit",
        "audit verify",
        "audit head",
        "audit export",
        "audit tail",
        "audit report",
        "audit match",
        "tools",
        "call",
        "connect",
        "client-config",
        "doctor",
        "dev",
        "demo",
        "completions",
        "man",
    ];
    let lines: Vec<String> = commands
        .iter()
        .map(|c| format!("{c} --help").trim().to_owned())
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    golden("help.txt", folder.path(), &lines);
}

#[test]
fn bundles_from_key_to_verdict() {
    let folder = site();
    let (one, two) = (
        public(folder.path(), "one.key"),
        public(folder.path(), "two.key"),
    );
    let keys = format!("--publisher {one} --publisher {two} --root-key {one} --revoke-key {two}");
    let root = |file, site, threshold| {
        format!(
            "bundle root {file} --site {site} --namespace acme --publisher-threshold {threshold} {keys}"
        )
    };
    let build = "--namespace acme --name monitoring --sequence 4 --site plant-7 --created 1700000000 --days 30";
    golden(
        "bundle.txt",
        folder.path(),
        &[
            &root("root.json", "plant-7", 2),
            &root("other.json", "plant-8", 1),
            &root("root.json", "plant-7", 2),
            &root("none.json", "plant-7", 3),
            &format!("bundle build plant {build} --out m.bundle"),
            "bundle verify m.bundle --root root.json",
            "bundle sign m.bundle --key one.key",
            "bundle verify m.bundle --root root.json",
            "bundle sign m.bundle --key one.key",
            "bundle sign m.bundle --key two.key",
            "bundle verify m.bundle --root root.json",
            "bundle verify m.bundle --root root.json --time 2023-12-14",
            "bundle verify m.bundle --root root.json --time 2023-12-15",
            "bundle verify m.bundle --root root.json --time 2023",
            "bundle verify m.bundle --root root.json --output json",
            "bundle verify m.bundle --root other.json",
            "bundle inspect m.bundle",
            "bundle inspect one.key",
            "bundle inspect missing.bundle --output json",
            &format!("bundle build missing {build} --out n.bundle"),
        ],
    );
}

#[test]
fn the_same_folder_gives_the_same_file() {
    let (a, b) = (site(), site());
    for folder in [&a, &b] {
        let line = "bundle build plant --namespace acme --name m --sequence 1 --site s --created 1700000000 --out m.bundle";
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpist"));
        assert!(
            command
                .args(words(line))
                .current_dir(folder.path())
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("m.bundle")).unwrap();
    assert_eq!(read(&a), read(&b));
}

#[test]
fn audit_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path()).join("audit-00000000.jsonl");
    let whole = std::fs::read_to_string(&log).unwrap();
    let (changed, cut) = (
        folder.path().join("changed.jsonl"),
        folder.path().join("cut.jsonl"),
    );
    std::fs::write(&changed, whole.replacen("1000", "1001", 1)).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    std::fs::write(&cut, format!("{}\n", lines[..3].join("\n"))).unwrap();
    let head = Command::new(env!("CARGO_BIN_EXE_mcpist"))
        .args(["audit", "verify", "audit", "--key", FIRST_KEY])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let head = String::from_utf8(head.stdout).unwrap();
    let head = head.lines().find_map(|l| l.strip_prefix("head "));
    let head = head.unwrap();
    golden(
        "audit.txt",
        folder.path(),
        &[
            &format!("audit verify audit --key {FIRST_KEY} --expect {head}"),
            &format!("audit verify audit --key {FIRST_KEY} --output json"),
            &format!("audit verify changed.jsonl --key {FIRST_KEY}"),
            &format!("audit verify cut.jsonl --key {FIRST_KEY} --expect {head}"),
            &format!("audit verify missing --key {FIRST_KEY}"),
            "audit verify audit --key 11",
            "audit verify audit",
        ],
    );
}

#[test]
fn an_audit_report_is_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(Anchor::genesis([0x11; 32]));
    let mut bytes = Vec::new();
    let at = |second: u64| UnixMs(1_700_000_000_000 + second * 1_000);
    chain.append_segment(at(0), 0, &Copied::new(), &mut bytes);
    let point = chain.anchor().point();
    let ada = PrincipalName::parse("ada").unwrap();
    let rev = ModuleRev {
        registry: RegistryId::of_manifest(b"manifest"),
        module: ModuleName::parse("plant").unwrap(),
    };
    let tool = ToolName::parse("read").unwrap();
    let (arguments, recorded) = (ArgumentsMac([7; 32]), &[]);
    for (second, call) in [(1, 1), (3, 2), (2, 3)] {
        let (call, principal, rev, tool) = (CallId(call), &ada, &rev, &tool);
        let access = Access::Read;
        let intent = Event::CallIntent {
            call,
            principal,
            rev,
            tool,
            access,
            arguments,
            recorded,
        };
        let Seq(intent) = chain.append(at(second), &intent, &mut bytes);
        let error = (call == CallId(2)).then_some(ErrorCode::UpstreamStatus);
        let outcome = Outcome {
            error,
            is_error: error.is_some(),
            truncated: false,
            bytes: 9,
            hits: 0,
            micros: 4_000,
        };
        if call != CallId(3) {
            let outcome = Event::CallOutcome {
                call,
                intent,
                outcome,
            };
            chain.append(at(second), &outcome, &mut bytes);
        }
    }
    let denied = Event::CallDenied {
        principal: &ada,
        module: "<b>plant</b>",
        tool: "write\u{202e}",
        code: ErrorCode::UnknownTool,
    };
    chain.append(at(4), &denied, &mut bytes);
    std::fs::write(folder.path().join("march.jsonl"), bytes).unwrap();
    golden(
        "report.txt",
        folder.path(),
        &[
            &format!("audit report march.jsonl --point {point}"),
            "audit report march.jsonl --tool plant.read --from 2023-11-14T22:13:22Z",
            "audit report march.jsonl --principal nobody",
            "audit report march.jsonl --format html",
            "audit report march.jsonl --from yesterday",
            "audit report march.jsonl --key 1111111111111111111111111111111111111111111111111111111111111111 --point 11",
        ],
    );
}

#[test]
fn errors_say_what_why_and_what_next() {
    let folder = tempfile::tempdir().unwrap();
    golden(
        "errors.txt",
        folder.path(),
        &[
            "status --run run",
            "status --run run --output json",
            "call plant readings 'not json' --run run",
            "call plant readings --run run",
            "connect --run run",
            "credential put team grafana --kind basic --host grafana.lan",
            "credential put team grafana --kind bearer --host grafana.lan --run run",
            "binding put b --vault v --credential c --url ftp://x/ --method GET --inject bearer",
            "binding put b --vault v --credential c --url https://x --method GET --inject bearer",
            "grant put g --access all",
            "grant put g --access read",
            "init --threshold 3 --holder ada --root root.json",
            "vault create ../team",
            "no-such-command",
            "vault create --output json",
        ],
    );
}

/// A daemon that gives these answers at its admin socket, one to each connection, and then none.
fn daemon(run: &Path, answers: Vec<(u16, String)>) {
    std::fs::create_dir(run).unwrap();
    let listener = UnixListener::bind(run.join("admin.sock")).unwrap();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            // All of the request, or what is unread at the end would cut the answer off.
            let mut request = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            while request.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            request.read_exact(&mut vec![0; length]).unwrap();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            (&stream)
                .write_all(format!("{head}\r\n{body}").as_bytes())
                .unwrap();
        }
    });
}

fn reply(data: &Value) -> (u16, String) {
    (200, json!({ "schema": 1, "data": data }).to_string())
}

/// A change as the daemon shows it.
fn proposed(change: Value, replaces: Value, registry: Value, reason: Value) -> Value {
    let change: Change = serde_json::from_value(change).unwrap();
    let needs = if reason.is_null() { 1 } else { 2 };
    json!({ "change": change, "replaces": replaces, "registry": registry, "review": { "change": change.digest(),
        "state": Digest::of(b"a state"), "needs": needs, "reason": reason } })
}

fn grant(access: &str) -> Value {
    json!({ "grant-put": { "name": "ops-read", "subject": { "group": "ops" }, "module": { "named": "plant" },
        "tools": "all", "access": access } })
}

fn refusal(code: ErrorCode) -> (u16, String) {
    let body = serde_json::to_string(&ApiError::of(code).into_failure()).unwrap();
    (code.http_status(), body)
}

/// A proposal as `--proposal` writes it, and what an officer sees before a key signs: whatever is asked to be quiet.
#[test]
fn what_is_signed_is_shown_always() {
    let folder = site();
    let path = |name: &str| folder.path().join(name);
    let reason = json!("it grants destructive tools");
    let shown = proposed(grant("destructive"), grant("read"), Value::Null, reason);
    std::fs::write(path("grant.json"), shown.to_string()).unwrap();
    // What the file says beside the change is its bringer's word, and not shown.
    let mut flattering = shown.clone();
    flattering["review"]["needs"] = json!(1);
    flattering["replaces"] = grant("destructive");
    std::fs::write(path("flattering.json"), flattering.to_string()).unwrap();
    let other = shown.to_string().replace("ops-read", "ops-write");
    std::fs::write(path("changed.json"), &other).unwrap();
    let pending = json!({ "pending": { "approved": [Digest::of(b"key")], "needs": 2 } });
    for name in ["one", "two", "three", "four", "five"] {
        daemon(&path(name), vec![reply(&shown), reply(&pending)]);
    }
    // Who approved, and repeats the command for the file, approves no second time.
    let key =
        mcpist_bundle::SigningKey::from_throwaway_text(&std::fs::read(path("one.key")).unwrap());
    let waiting = json!({ "changes": [{ "change": shown["review"]["change"], "kind": "grant-put",
        "object": "grant/ops-read", "uid": 1000, "approved": [key.unwrap().id()], "expires_s": 1500 }] });
    let again = vec![reply(&shown), reply(&status("unsealed")), reply(&waiting)];
    daemon(&path("again"), again);
    daemon(&path("gone"), vec![refusal(ErrorCode::NotFound)]);
    let another = proposed(grant("write"), Value::Null, Value::Null, Value::Null);
    daemon(&path("liar"), vec![reply(&another)]);
    golden(
        "signing.txt",
        folder.path(),
        &[
            "change approve grant.json --key one.key --run one",
            "change approve grant.json --key one.key --run two --quiet",
            "change approve grant.json --key one.key --run three --quiet --output json",
            "change approve flattering.json --key grant.json --run four",
            "grant put ops-read --group ops --module plant --access destructive --key one.key --proposal again.json --run again",
            "change approve again.json --key two.key --run five",
            "change approve grant.json --key one.key --run gone",
            "change approve grant.json --key one.key --run liar",
            "change approve changed.json --key one.key --run run",
            "change approve one.key --key one.key --run run",
        ],
    );
}

/// Each kind of change as it is read.
#[test]
fn changes_are_shown_as_people_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let (id, notes) = ("11".repeat(32), "New: alerts.\nneeds 0 officers\n\u{1b}[2J");
    let registry = json!({ "registry": { "id": id, "namespace": "acme", "name": "monitoring", "sequence": 2,
        "state": "imported", "modules": ["prometheus"], "imported": 1_795_478_400 },
        "not_after": 1_803_254_400, "notes": notes });
    let binding = |ca: &str, methods: &[&str]| {
        json!({ "binding-put": { "name": "prom", "vault": "team", "credential": "prom", "scheme": "https",
            "host": "prom.lan", "port": 9090, "path_prefix": "/api", "methods": methods,
            "trust": { "ca": ca }, "inject": { "header": { "name": "x-api-key" } } } })
    };
    let (ca, new_ca) = (
        include_str!("golden/ca.pem"),
        include_str!("golden/new-ca.pem"),
    );
    let join = |binding: &str| json!({ "join-put": { "registry": id, "module": "prometheus", "slot": "server", "binding": binding } });
    let alice = json!({ "principal-put": { "name": "alice", "groups": ["ops"], "rules": [{ "uid": 1000 }] } });
    let none = || Value::Null;
    let changes = [
        (
            binding(new_ca, &["GET", "POST"]),
            binding(ca, &["GET"]),
            none(),
            json!("it changes the CA or the key pin"),
        ),
        (
            join("prom"),
            none(),
            registry.clone(),
            json!("it puts a credential within reach of a module"),
        ),
        (
            json!({ "registry-activate": id }),
            none(),
            registry.clone(),
            json!("the bundle brings a new tool"),
        ),
        (
            json!({ "registry-retire": id }),
            none(),
            Value::Null,
            none(),
        ),
        (
            json!({ "time-floor": 1_811_030_400 }),
            json!({ "time-floor": 1_795_478_400 }),
            none(),
            none(),
        ),
        (
            json!({ "principal-delete": "alice" }),
            alice,
            none(),
            none(),
        ),
    ];
    let mut commands = Vec::new();
    for (index, (change, replaces, registry, reason)) in changes.into_iter().enumerate() {
        let mut shown = proposed(change, replaces, registry, reason);
        shown["binding"] = binding(ca, &["GET"])["binding-put"].clone();
        daemon(&folder.path().join(index.to_string()), vec![reply(&shown)]);
        let digest = &shown["review"]["change"];
        commands.push(format!(
            "change show {} --run {index}",
            digest.as_str().unwrap()
        ));
    }
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    golden("changes.txt", folder.path(), &commands);
}

/// The least that a daemon says of itself.
fn status(state: &str) -> Value {
    json!({ "version": "0.1.0", "state": state, "dev": false, "uptime_s": 5, "calls_in_flight": 0,
        "memory": { "pages": "memfd_secret" }, "runners": [{ "role": "run", "connected": true }] })
}

/// A store that is being opened, and one in which not all is well.
#[test]
fn status_says_what_is_not_well_and_for_how_long() {
    let folder = tempfile::tempdir().unwrap();
    let id = "11".repeat(32);
    let mut sealed = status("sealed");
    sealed["unseal"] =
        json!({ "given": 2, "needed": 3, "holders": ["ada", "bob"], "expires_s": 540 });
    let mut open = sealed.clone();
    for (name, value) in [
        ("state", json!("unsealed")),
        ("unseal", Value::Null),
        ("site", json!("plant-7")),
        ("time_floor", json!(1_795_478_400)),
        (
            "modules",
            json!([
                { "name": "prometheus", "registry": id, "state": "ready", "tools": 3 },
                { "name": "wiki", "registry": id, "state": "broken", "tools": 0,
                  "reason": "it could not be built; the alarms say why" },
            ]),
        ),
        (
            "vaults",
            json!([{ "name": "team", "health": "quarantined", "records": 0, "reason": "its file is not the one that was written" }]),
        ),
    ] {
        open[name] = value;
    }
    let mut unset = open.clone();
    unset["time_floor"] = json!(0);
    let waiting = json!({ "changes": [{ "change": id, "kind": "grant-put", "object": "grant/ops", "uid": 1000,
        "approved": [], "expires_s": 1500 }] });
    let credentials = json!({ "credentials": [
        { "name": "prom", "kind": "bearer", "hosts": ["prom.lan"], "version": 2, "created": 1_795_478_400, "expiry": 0 },
        { "name": "wiki", "owner": "alice", "kind": "basic", "hosts": ["wiki.lan"], "version": 1,
          "created": 1_795_478_400, "expiry": 1_798_761_600 },
    ] });
    for (run, data) in [
        ("credentials", &credentials),
        ("sealed", &sealed),
        ("open", &open),
        ("unset", &unset),
        ("waiting", &waiting),
    ] {
        daemon(&folder.path().join(run), vec![reply(data)]);
    }
    golden(
        "status.txt",
        folder.path(),
        &[
            "status --run sealed",
            "status --run open",
            "status --run unset",
            "change list --run waiting",
            "credential list team --run credentials",
        ],
    );
}

/// Every refusal that the daemon knows, as its operator sees it.
#[test]
fn refusals_of_the_daemon_say_what_and_what_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut commands = Vec::new();
    for code in ErrorCode::ALL {
        daemon(&folder.path().join(code.as_str()), vec![refusal(*code)]);
        commands.push(format!("vault list --run {code}"));
    }
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    golden("refusals.txt", folder.path(), &commands);
}
