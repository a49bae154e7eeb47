//! Transcripts of the command line, compared with the files in `tests/golden`.
//!
//! Wording is reviewed like code: `UPDATE=1 cargo test -p mcpist --test golden` writes the files anew, and the diff
//! shows what changed. Keys, times and the audit log are fixed, so every digest in a transcript is, too. A line of
//! standard error begins with `! `; a status other than 0 stands at the end.
#![allow(clippy::unwrap_used)]

mod daemon;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mcpist_core::access::Access;
use mcpist_core::audit::{Anchor, Chain, Copied, Seq, UnixMs};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{ArgumentsMac, Event, Outcome};
use mcpist_core::ids::{CallId, ModuleName, ModuleRev, PrincipalName, RegistryId, ToolName};

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
        "rekey",
        "rotate",
        "rotate root",
        "ceremony",
        "ceremony shares",
        "ceremony give",
        "ceremony cancel",
        "share",
        "share inspect",
        "share verify",
        "share record",
        "witness",
        "witness pull",
        "witness present",
        "witness show",
        "witness verify",
        "backup",
        "backup inspect",
        "backup verify",
        "restore",
        "vault",
        "vault create",
        "vault confirm",
        "vault list",
        "vault rotate",
        "vault verify",
        "vault repair",
        "vault restore",
        "vault discard",
        "vault unseal",
        "vault seal",
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
        "audit confirm",
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

    // A page is installed for each command there is, and each of these is above.
    let pages = Command::new(env!("CARGO_BIN_EXE_mcpist"))
        .args(["man", "pages"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(pages.status.success());
    let known: Vec<String> = commands.iter().map(|c| c.replace(' ', "-")).collect();
    let pages = std::fs::read_dir(folder.path().join("pages")).unwrap();
    for page in pages.map(|p| p.unwrap().file_name().into_string().unwrap()) {
        let name = page.trim_start_matches("mcpist").trim_end_matches(".1");
        let name = name.trim_start_matches('-').to_owned();
        assert!(known.contains(&name), "the help of {page} is not above");
    }
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
