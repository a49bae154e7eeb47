//! An auditor's day: the log exported, verified elsewhere, read, reported on and compared, while calls are made.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::{cli, program};
use mcpist_tests::service::Service;
use mcpist_tests::start::Start;
use serde_json::{Value, json};

const CREDENTIAL: &str = "canary-0a0d170250fa11ed";
const PATIENCE: Duration = Duration::from_secs(60);

/// An appliance whose ada may call, the service behind it, and a folder on "another machine".
struct Site {
    appliance: Appliance,
    _service: Service,
    elsewhere: tempfile::TempDir,
}

impl Site {
    fn start(config: &str) -> Site {
        let start = Start::dev(program("mcpistd")).with_config(config);
        let (mut appliance, service) = (Appliance::start_by(start), Service::start());
        appliance.set_up(service.port(), CREDENTIAL);
        let elsewhere = tempfile::tempdir().expect("a folder");
        Site {
            appliance,
            _service: service,
            elsewhere,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.elsewhere.path().join(name)
    }

    fn calls(&self, principal: &str, item: &str, times: usize) {
        let mut client = self.appliance.client(principal);
        for _ in 0..times {
            client.call("echo", "get", &json!({ "item": item }));
        }
    }

    fn mcpist(&self, arguments: &[&str]) -> Output {
        cli()
            .arg("--run")
            .arg(self.appliance.folder().join("run"))
            .args(["--output", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("mcpist runs")
    }

    /// The data of a command that succeeds.
    fn asks(&self, arguments: &[&str]) -> Value {
        let out = self.mcpist(arguments);
        assert!(out.status.success(), "{arguments:?}: {out:?}");
        let said: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        said["data"].clone()
    }

    fn export(&self, name: &str, more: &[&str]) -> Value {
        let file = self.file(name);
        self.asks(&[&["audit", "export", text(&file)], more].concat())
    }

    /// The first audit key, as the ceremony record has it on paper.
    fn key(&self) -> String {
        let record = std::fs::read_to_string(self.appliance.folder().join("ceremony-record"));
        let record = record.expect("a record");
        let key = record.lines().find_map(|l| l.strip_prefix("audit key"));
        key.expect("the key's line").trim().to_owned()
    }

    /// The lines that hold `fragment`, once `count` of them are on disk.
    fn lines(&self, count: usize, fragment: &str) -> Vec<Value> {
        let mut found = Vec::new();
        self.appliance.until(fragment, || {
            let tail = self.mcpist(&["audit", "tail", "-n", "50"]);
            let text = String::from_utf8(tail.stdout).expect("UTF-8");
            let lines = text.lines().filter(|line| line.contains(fragment));
            found = lines
                .map(|l| serde_json::from_str(l).expect("JSON"))
                .collect();
            found.len() == count
        });
        found
    }

    /// The lines of the log's files that hold `fragment`.
    fn written(&self, fragment: &str) -> Vec<Value> {
        let folder = self.appliance.folder().join("state/audit");
        let read = |name: String| std::fs::read_to_string(folder.join(name)).expect("a segment");
        let text: String = self.segments().into_iter().map(read).collect();
        let lines = text.lines().filter(|line| line.contains(fragment));
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn segments(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.appliance.folder().join("state/audit"));
        let names = folder.expect("a folder").flatten();
        let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        let mut segments: Vec<String> = names.filter(|n| n.ends_with(".jsonl")).collect();
        segments.sort();
        segments
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What came of a command, whatever its status.
fn said(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
}

#[test]
fn an_export_verifies_elsewhere_and_a_report_of_it_counts_the_calls_that_were_made() {
    let site = Site::start("");
    site.calls("ada", "x", 5);
    site.calls("ada", "fails", 2);
    site.calls("bob", "x", 3);
    let exported = site.export("all.jsonl", &[]);
    assert_eq!(exported["unsigned_tail"], 0, "{exported}");
    let (file, key) = (site.file("all.jsonl"), site.key());
    let sum = Command::new("sha256sum")
        .arg(&file)
        .output()
        .expect("sha256sum (coreutils)");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    assert!(
        sum.starts_with(exported["digest"].as_str().expect("a digest")),
        "{sum}"
    );

    // Sealed or gone, the host is not needed any more.
    site.appliance.ask("POST", "/v1/seal", None);
    let verdict = site.asks(&["audit", "verify", text(&file), "--key", &key]);
    assert_eq!(
        (&verdict["ok"], &verdict["head"]),
        (&json!(true), &exported["head"])
    );
    let page = site.asks(&["audit", "report", text(&file), "--key", &key]);
    let figures = json!({ "calls": 7, "succeeded": 5, "failed": 2, "unknown": 0, "refused": 3 });
    assert_eq!(page["figures"], figures, "{page}");
    assert_eq!(page["principals"]["bob"]["refused"], 3, "{page}");
    assert_eq!(page["tools"]["echo.get"]["calls"], 7, "{page}");
    let of_bob = site.asks(&["audit", "report", text(&file), "--principal", "bob"]);
    assert_eq!(of_bob["rows"].as_array().map(Vec::len), Some(3), "{of_bob}");
    assert_eq!(of_bob["trusted"], false);

    let html = cli()
        .args([
            "audit",
            "report",
            text(&file),
            "--key",
            &key,
            "--format",
            "html",
        ])
        .output()
        .expect("mcpist runs");
    let html = String::from_utf8(html.stdout).expect("UTF-8");
    assert!(
        html.contains("<!doctype html>") && html.contains("The log holds"),
        "{html}"
    );
    let lines = std::fs::read_to_string(&file).expect("the export");
    for (what, text) in [("the page", &html), ("the export", &lines)] {
        assert!(!text.contains(CREDENTIAL), "the credential is in {what}");
    }
}

#[test]
fn a_changed_export_is_no_log_and_the_page_says_so() {
    let site = Site::start("");
    site.calls("ada", "x", 3);
    site.export("all.jsonl", &[]);
    let file = site.file("all.jsonl");
    let lines = std::fs::read_to_string(&file).expect("the export");
    std::fs::write(&file, lines.replacen("\"ada\"", "\"eve\"", 1)).expect("a file");
    let key = site.key();
    for command in ["verify", "report"] {
        let out = site.mcpist(&["audit", command, text(&file), "--key", &key]);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let problem = said(&out).to_string();
        assert!(
            problem.contains("its bytes do not match its hash"),
            "{problem}"
        );
    }
    // The export of another store's log is told from this one's.
    let out = site.mcpist(&["audit", "verify", text(&file), "--key", &"1".repeat(64)]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let problem = said(&out).to_string();
    assert!(problem.contains("of another log or life"), "{problem}");
}

#[test]
fn an_export_goes_into_a_new_file_and_to_who_may_have_it() {
    let site = Site::start("");
    let file = site.file("taken.jsonl");
    std::fs::write(&file, b"kept").expect("a file");
    let out = site.mcpist(&["audit", "export", text(&file)]);
    assert_eq!(said(&out)["error"]["code"], "file", "{out:?}");
    assert_eq!(std::fs::read(&file).expect("the file"), b"kept");
    site.export("all.jsonl", &[]);
    // Nothing half done stays where it is refused.
    site.appliance.ask("POST", "/v1/seal", None);
    let late = site.file("late.jsonl");
    let out = site.mcpist(&["audit", "export", text(&late)]);
    assert_eq!(said(&out)["error"]["code"], "sealed", "{out:?}");
    assert!(!late.exists());
}

#[test]
fn a_tail_shows_lines_as_they_come_and_ends_with_its_reader() {
    let site = Site::start("");
    site.calls("ada", "x", 2);
    let mut tail = cli()
        .arg("--run")
        .arg(site.appliance.folder().join("run"))
        .args(["audit", "tail", "-n", "3", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mcpist runs");
    let out = tail.stdout.take().expect("piped");
    let mut lines = BufReader::new(out).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    let mut last = next()["seq"].as_u64().expect("a sequence");
    site.calls("bob", "secret-plans", 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the call is not in the tail");
        let line = next();
        let seq = line["seq"].as_u64().expect("a sequence");
        assert_eq!(seq, last + 1, "{line}");
        last = seq;
        if line["event"] == "call_denied" {
            assert_eq!(line["principal"], "bob");
            break;
        }
    }
    // Nobody reads any more: it ends with the next line.
    drop(lines);
    while tail.try_wait().expect("ours").is_none() {
        assert!(Instant::now() < deadline, "the tail goes on");
        site.calls("bob", "x", 1);
    }
}

#[test]
fn arguments_match_what_their_line_recorded_and_others_do_not() {
    let site = Site::start("");
    site.calls("ada", "x", 1);
    let intent = site.lines(1, "\"call_intent\"").remove(0);
    let recorded = intent["arguments"].as_str().expect("a MAC");
    let sent = site.file("sent.json");
    for (bytes, matched) in [("{\"item\":\"x\"}", true), ("{\"item\":\"y\"}", false)] {
        std::fs::write(&sent, bytes).expect("a file");
        let out = site.mcpist(&["audit", "match", recorded, "--file", text(&sent)]);
        assert_eq!(said(&out)["data"]["matched"], matched, "{out:?}");
        assert_eq!(out.status.code(), Some(i32::from(!matched)));
    }
    let told = site.lines(2, "\"audit_matched\"");
    let told: Vec<&Value> = told.iter().map(|line| &line["matched"]).collect();
    assert_eq!(told, [&json!(true), &json!(false)]);
}

#[test]
fn each_guess_at_arguments_that_is_answered_is_in_the_log_and_a_flood_is_refused() {
    let site = Site::start("");
    site.calls("ada", "x", 1);
    let recorded = site.lines(1, "\"call_intent\"").remove(0)["arguments"].clone();
    let guess = |arguments: &str| {
        let asked = json!({ "recorded": recorded, "arguments": arguments });
        let answer = site
            .appliance
            .admin("POST", "/v1/audit/match", Some(&asked));
        answer.1
    };
    let is_refused = |answer: &Value| answer["error"]["code"] == "busy";
    // Far more than the budget, and so fast that few of it come back: {} is wrong.
    let answers: Vec<Value> = (0..2_000).map(|_| guess("e30=")).collect();
    let mut answered = (answers.iter().filter(|answer| !is_refused(answer))).count();
    assert!((32..2_000).contains(&answered), "{answered}");
    // {"item":"x"} is right, once it is answered.
    let deadline = Instant::now() + PATIENCE;
    let hit = loop {
        let hit = guess("eyJpdGVtIjoieCJ9");
        if !is_refused(&hit) {
            break hit;
        }
        assert!(Instant::now() < deadline, "{hit}");
    };
    answered += 1;
    assert!(hit.to_string().contains("\"matched\":true"), "{hit}");
    site.appliance.ask("POST", "/v1/seal", None);
    let told = site.written("\"audit_matched\"");
    assert_eq!(told.len(), answered);
    assert_eq!(told[told.len() - 1]["matched"], true);
    assert!(!site.written("\"requests_refused\"").is_empty());
}

#[test]
fn who_pulls_receipts_and_tickets_without_end_costs_few_lines_and_hides_no_call() {
    let site = Site::start("");
    let lines = |fragment: &str| site.written(fragment);
    let of_served = || {
        let counted = lines("\"requests_served\"");
        let counted = counted.iter().filter_map(|line| line["requests"].as_u64());
        let own = lines("\"receipt_given\"").len() + lines("\"ticket_issued\"").len();
        (own as u64, counted.sum::<u64>())
    };
    let (began, before) = (Instant::now(), of_served());
    for n in 0..150 {
        site.appliance.ask("GET", "/v1/witness", None);
        if n % 30 == 0 {
            site.appliance.ticket(&json!("import"));
        }
        site.calls("ada", "x", 1);
    }
    site.appliance.ask("POST", "/v1/seal", None);
    let after = of_served();
    let (own, counted) = (after.0 - before.0, after.1 - before.1);
    // A line more for each second that this took.
    assert!(own <= 33 + began.elapsed().as_secs(), "{own} lines");
    assert_eq!(own + counted, 155, "{counted} are counted");
    assert_eq!(lines("\"call_intent\"").len(), 150);
    assert_eq!(lines("\"call_outcome\"").len(), 150);
}

#[test]
fn old_segments_leave_once_exported_and_what_stays_verifies_from_the_exports_point() {
    let config = "[audit]\nrotate-mib = 1\nkeep = 2\n";
    let mut site = Site::start(config);
    std::thread::scope(|at_once| {
        for _ in 0..8 {
            at_once.spawn(|| {
                while site.segments().len() < 3 {
                    site.calls("ada", "x", 50);
                }
            });
        }
    });
    // A crash right after a turn loses nothing of it.
    site.appliance.kill_and_restart();
    site.appliance.unseal();
    assert_eq!(
        site.segments()[0],
        "audit-00000000.jsonl",
        "nothing leaves unexported"
    );
    let first = site.export("first.jsonl", &[]);
    assert_eq!(first["first"], 1);
    // One person's word lets nothing leave, and the status says whose is missing.
    site.appliance.until("an alarm", || {
        let alarms = site.asks(&["status"])["alarms"].to_string();
        alarms.contains("export_unconfirmed") && alarms.contains("mcpist audit confirm FILE")
    });
    let (one, other) = (site.file("first.jsonl"), site.file("other.jsonl"));
    std::fs::write(&other, b"other").expect("a file");
    for (file, code) in [(&one, "forbidden"), (&other, "not_found")] {
        let out = site.mcpist(&["audit", "confirm", text(file)]);
        assert_eq!(said(&out)["error"]["code"], code, "{out:?}");
    }
    assert_eq!(site.segments().len(), 3);
    // Root may be content with an export.
    let file = site.appliance.folder().join("mcpist.toml");
    let before = std::fs::read_to_string(&file).expect("a file");
    let after = before.replace(config, &format!("{config}remove = \"exported\"\n"));
    std::fs::write(&file, after).expect("a file");
    site.appliance.kill_and_restart();
    site.appliance.unseal();
    site.appliance
        .until("two segments stay", || site.segments().len() == 2);

    site.calls("ada", "x", 2);
    let second = site.export("second.jsonl", &["--new"]);
    assert!(second["first"].as_u64() > Some(1), "{second}");
    let point = first["point"].as_str().expect("a point");
    let later = site.file("second.jsonl");
    let verdict = site.asks(&["audit", "verify", text(&later), "--point", point]);
    assert_eq!(
        (&verdict["ok"], &verdict["head"]),
        (&json!(true), &second["head"])
    );
    // Both together verify from the first key, though the second repeats lines of the first; the wrong way round not.
    let both = [text(&one), text(&later)];
    let key = site.key();
    let verdict = site.asks(&["audit", "verify", both[0], both[1], "--key", &key]);
    assert_eq!(
        (&verdict["ok"], &verdict["head"]),
        (&json!(true), &second["head"])
    );
    let out = site.mcpist(&["audit", "verify", both[1], both[0], "--key", &key]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    // From the first key alone the later file has no beginning.
    let out = site.mcpist(&["audit", "verify", text(&later), "--key", &site.key()]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    // The daemon's own lines go on, and open again.
    let page = site.asks(&["audit", "report", "--point", point]);
    assert_eq!(
        (&page["trusted"], &page["verdict"]["ok"]),
        (&json!(true), &json!(true))
    );
    site.appliance.ask("POST", "/v1/seal", None);
    site.appliance.unseal();
}
