//! What the command line says of a daemon's answers: changes to be signed, the status, refusals.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use mcpist_core::api::ApiError;
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use serde_json::{Value, json};

use crate::{golden, site};

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
    let (ca, new_ca) = (include_str!("ca.pem"), include_str!("new-ca.pem"));
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
    sealed["shares"] =
        json!({ "generation": 2, "needed": 3, "holders": ["ada", "bob", "eve", "kim"] });
    let mut open = sealed.clone();
    for (name, value) in [
        (
            "backup",
            json!({ "backup": id, "created": 1_795_478_400, "generation": 7, "without": ["team"] }),
        ),
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
