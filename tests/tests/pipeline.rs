//! The whole path with real parts: a quorum opens the store, a client calls, a service gets the credential.

use std::io::Write;
use std::process::{Child, Stdio};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::look;
use mcpist_tests::programs::cli;
use mcpist_tests::service::Service;
use serde_json::{Value, json};

const CANARY: &str = "canary-7f3a9c1e5b2d4860";

fn appliance() -> (Appliance, Service) {
    let service = Service::start();
    let mut appliance = Appliance::start();
    appliance.set_up(service.port(), CANARY);
    (appliance, service)
}

fn text(result: &Value) -> String {
    result["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn code(result: &Value) -> String {
    result["structuredContent"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_call_reaches_the_service_with_the_credential_and_answers() {
    let (appliance, service) = appliance();
    let mut ada = appliance.client("ada");
    let result = ada.call(
        "echo",
        "get",
        &json!({ "item": "a b", "q": "x&y", "tags": ["1", "2"] }),
    );
    assert_eq!(
        result["isError"],
        json!(false),
        "{result}\n{}",
        appliance.log()
    );
    assert!(text(&result).contains("/api/a%20b?q=x%26y"), "{result}");
    let seen = service.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].header("authorization"),
        Some(format!("Bearer {CANARY}").as_str())
    );
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn what_bob_may_not_see_does_not_exist_for_him() {
    let (appliance, service) = appliance();
    let (mut ada, mut bob) = (appliance.client("ada"), appliance.client("bob"));
    assert!(ada.schema(&json!({})).to_string().contains("Gets the item"));
    assert!(!bob.schema(&json!({})).to_string().contains("echo"));
    let hidden = bob.call("echo", "get", &json!({ "item": "x" }));
    let unknown = bob.call("nothing", "here", &json!({ "item": "x" }));
    assert_eq!(hidden, unknown);
    assert_eq!(code(&hidden), "unknown_tool");
    assert!(service.seen().is_empty());
}

#[test]
fn arguments_are_refused_with_path_and_rule_before_anything_is_sent() {
    let (appliance, service) = appliance();
    let mut ada = appliance.client("ada");
    let wrong = ada.call("echo", "get", &json!({ "item": 7 }));
    assert_eq!(code(&wrong), "arguments_invalid");
    assert!(text(&wrong).contains("/item"), "{wrong}");
    ada.send(
        r#"{"jsonrpc":"2.0","id":"big","method":"tools/call","params":{"name":"call_module_tool","arguments":{"module":"echo","tool_name":"get","arguments":{"item":"x","count":123456789012345678901}},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    );
    let big = ada.receive();
    assert!(big.to_string().contains("/count"), "{big}");
    assert!(service.seen().is_empty());
}

#[test]
fn a_sealed_store_answers_nothing_and_a_restart_is_sealed() {
    let (mut appliance, _service) = appliance();
    let mut ada = appliance.client("ada");
    appliance.ask("POST", "/v1/seal", None);
    assert_eq!(
        code(&ada.call("echo", "get", &json!({ "item": "x" }))),
        "sealed"
    );
    appliance.unseal();
    assert_eq!(
        ada.call("echo", "get", &json!({ "item": "x" }))["isError"],
        json!(false)
    );
    appliance.kill_and_restart();
    assert_eq!(appliance.ask("GET", "/v1/status", None)["state"], "sealed");
    appliance.unseal();
    let mut ada = appliance.client("ada");
    assert_eq!(
        ada.call("echo", "get", &json!({ "item": "x" }))["isError"],
        json!(false)
    );
}

#[test]
fn the_credential_is_in_no_file_no_log_and_no_transcript() {
    let (appliance, _service) = appliance();
    let mut ada = appliance.client("ada");
    for item in ["plain", "echo", "fails", "picked"] {
        ada.call("echo", "get", &json!({ "item": item }));
    }
    let echoed = ada.call("echo", "get", &json!({ "item": "echo" }));
    assert!(text(&echoed).contains("[redacted]"), "{echoed}");
    appliance.ask("POST", "/v1/seal", None);
    let hex: String = CANARY.bytes().map(|b| format!("{b:02x}")).collect();
    let forms = [CANARY, hex.as_str()];
    for line in &ada.transcript {
        assert!(!forms.iter().any(|form| line.contains(form)), "{line}");
    }
    for form in forms {
        // The log names the seal.
        look::holds_nowhere(form, "sealed", &[appliance.folder()]);
    }
}

#[test]
fn services_that_misbehave_give_coded_errors_and_harm_nothing() {
    let (appliance, _service) = appliance();
    let mut ada = appliance.client("ada");
    let mut outcome = |item: &str| code(&ada.call("echo", "get", &json!({ "item": item })));
    assert_eq!(outcome("fails"), "upstream_status");
    assert_eq!(outcome("picked"), "upstream_status");
    assert_eq!(outcome("redirects"), "upstream_status");
    assert_eq!(outcome("huge"), "upstream_too_large");
    assert_eq!(outcome("refuses"), "credential_suspect");
    assert!(["upstream_timeout", "deadline_exceeded"].contains(&outcome("hang").as_str()));
    let mut ada = appliance.client("ada");
    assert_eq!(
        ada.call("echo", "get", &json!({ "item": "plain" }))["isError"],
        json!(false)
    );
}

#[test]
fn a_killed_runner_costs_the_calls_in_flight_and_comes_back() {
    let (appliance, service) = appliance();
    let mut ada = appliance.client("ada");
    assert_eq!(
        ada.call("echo", "get", &json!({ "item": "x" }))["isError"],
        json!(false)
    );
    let runner = appliance.runner_pids();
    assert_eq!(runner.len(), 1);
    let hanging = appliance.client("ada");
    let waiting = std::thread::spawn(move || {
        let mut hanging = hanging;
        code(&hanging.call("echo", "get", &json!({ "item": "hang" })))
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(runner[0]).expect("a pid"));
    appliance.until("the call at the service", || {
        service.seen().iter().any(|s| s.line.contains("/api/hang"))
    });
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("our runner");
    assert_eq!(waiting.join().expect("the call"), "runner_lost");
    let again = |client: &mut mcpist_tests::appliance::Client| {
        client.call("echo", "get", &json!({ "item": "y" }))
    };
    appliance.until("the next runner", || {
        again(&mut ada)["isError"] == json!(false)
    });
    assert!(service.seen().iter().any(|s| s.line.contains("/api/y")));
}

/// The lines of the audit files.
fn audit_lines(appliance: &Appliance) -> Vec<Value> {
    let mut lines: Vec<String> = Vec::new();
    let folder = appliance.folder().join("state/audit");
    for entry in std::fs::read_dir(folder).expect("the log's folder") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("lines");
        lines.extend(text.lines().map(str::to_owned));
    }
    let line = |text: &String| serde_json::from_str(text).expect("JSON");
    lines.iter().map(line).collect()
}

/// The calls' outcomes in the log, as their codes, and whether they stand before the line of the seal.
fn outcomes(appliance: &Appliance) -> Vec<(String, bool)> {
    let lines = audit_lines(appliance);
    let sealed = lines.iter().find(|l| l["event"] == "sealed");
    let sealed = sealed.expect("a seal")["seq"].as_u64();
    let outcomes = lines.iter().filter(|l| l["event"] == "call_outcome");
    outcomes
        .map(|l| {
            let code = l["code"].as_str().unwrap_or_default().to_owned();
            (code, l["seq"].as_u64() < sealed)
        })
        .collect()
}

/// A call that hangs at the service: the code of its answer.
fn hang(appliance: &Appliance, service: &Service) -> std::thread::JoinHandle<String> {
    let mut client = appliance.client("ada");
    let waiting =
        std::thread::spawn(move || code(&client.call("echo", "get", &json!({ "item": "hang" }))));
    appliance.until("the call at the service", || {
        service.seen().iter().any(|s| s.line.contains("/api/hang"))
    });
    waiting
}

/// A bridge that was sent a whole session, with a call for `item`, and the end of its input.
fn bridge(appliance: &Appliance, item: &str) -> Child {
    let mut bridge = cli()
        .args(["connect", "--mcp"])
        .arg(appliance.socket("ada"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mcpist connect");
    let open = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let call = json!({ "module": "echo", "tool_name": "get", "arguments": { "item": item } });
    let mut stdin = bridge.stdin.take().expect("its input");
    for line in [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": open }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call",
            "params": { "name": "call_module_tool", "arguments": call } }),
    ] {
        writeln!(stdin, "{line}").expect("a line");
    }
    bridge
}

#[test]
fn who_ends_its_input_gets_every_answer() {
    let (appliance, _service) = appliance();
    let out = bridge(&appliance, "x").wait_with_output().expect("its end");
    let lines = String::from_utf8_lossy(&out.stdout);
    let mut answers: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers.len(), 3, "{lines}");
    assert!(text(&answers[2]["result"]).contains("/api/x"), "{lines}");
}

#[test]
fn a_client_that_is_gone_has_its_calls_cancelled() {
    let (appliance, service) = appliance();
    let mut bridge = bridge(&appliance, "hang");
    appliance.until("the call at the service", || {
        service.seen().iter().any(|s| s.line.contains("/api/hang"))
    });
    // Only the bridge can notice that its client has left.
    drop(bridge.stdout.take());
    appliance.until("the end of the connection", || service.hung_up() > 0);
    bridge.wait().expect("its end");
}

#[test]
fn a_seal_ends_the_calls_in_flight_and_their_outcomes_are_in_the_log() {
    let (appliance, service) = appliance();
    let waiting = hang(&appliance, &service);
    appliance.ask("POST", "/v1/seal", None);
    assert_eq!(waiting.join().expect("the call"), "sealed");
    assert_eq!(outcomes(&appliance), [("sealed".to_owned(), true)]);
    appliance.until("the end of the connection", || service.hung_up() > 0);
}

#[test]
fn a_clean_stop_ends_the_calls_in_flight_as_well() {
    let (mut appliance, service) = appliance();
    let waiting = hang(&appliance, &service);
    appliance.stop();
    assert_eq!(waiting.join().expect("the call"), "sealed");
    assert_eq!(outcomes(&appliance), [("sealed".to_owned(), true)]);
    appliance.until("the end of the connection", || service.hung_up() > 0);
}

#[test]
fn a_bundle_that_ended_before_the_time_floor_stays_out_whatever_the_clock_says() {
    const FLOOR: u64 = 1_790_000_000;
    let (mut appliance, _service) = appliance();
    let fixture = mcpist_tests::programs::workspace().join("tests/fixtures/echo");
    // The host's clock is asked by nobody: before the floor is set, any time will do.
    let early = appliance.bundle_with(&fixture, |options| options.not_after = FLOOR - 1);
    let imported = appliance.import(&early);
    let registry = imported["import"]["registry"]["id"].clone();
    assert!(registry.is_string(), "{imported}");
    appliance.change(&json!({ "time-floor": FLOOR }));

    // Nobody signs what would be refused.
    let refused = |appliance: &Appliance, change: Value| {
        let change = json!({ "change": change });
        let (_, answer) = appliance.admin("POST", "/v1/changes", Some(&change));
        answer["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        refused(&appliance, json!({ "registry-activate": registry })),
        "bundle_refused"
    );
    for step in [0, FLOOR - 1, FLOOR, FLOOR + 401 * 86_400] {
        assert_eq!(
            refused(&appliance, json!({ "time-floor": step })),
            "request_invalid",
            "{step}"
        );
    }
    // It is in the store: a restart does not forget it.
    appliance.kill_and_restart();
    appliance.unseal();
    let late = appliance.bundle_with(&fixture, |options| options.not_after = FLOOR - 1);
    let answer = appliance.import(&late);
    assert!(answer.to_string().contains("bundle_refused"), "{answer}");
    let good = appliance.bundle_with(&fixture, |options| options.not_after = FLOOR);
    let answer = appliance.import(&good);
    assert!(answer["import"]["registry"]["id"].is_string(), "{answer}");
}

#[test]
fn what_an_error_answer_gave_away_and_a_refused_credential_are_in_the_log() {
    let (appliance, _service) = appliance();
    let mut ada = appliance.client("ada");
    let mut outcome = |item: &str| code(&ada.call("echo", "get", &json!({ "item": item })));
    assert_eq!(outcome("picked"), "upstream_status");
    assert_eq!(outcome("refuses"), "credential_suspect");
    appliance.ask("POST", "/v1/seal", None);
    let lines = audit_lines(&appliance);
    let of = |event: &'static str| lines.iter().filter(move |l| l["event"] == event);
    let hits: Vec<_> = of("call_outcome").map(|l| l["hits"].clone()).collect();
    assert_eq!(hits, [json!(1), json!(0)]);
    let hits: Vec<_> = of("redaction_hit")
        .map(|l| (&l["module"], &l["stage"], &l["hits"]))
        .collect();
    assert_eq!(hits, [(&json!("echo"), &json!("runner"), &json!(1))]);
    let started: Vec<_> = of("start").map(|l| l["dev"].clone()).collect();
    assert_eq!(started, [true]);
    let suspects: Vec<_> = of("credential_suspect")
        .map(|l| l["binding"].clone())
        .collect();
    assert_eq!(suspects, ["service"]);
}

#[test]
fn a_call_without_a_reference_is_held_to_the_edition_that_was_read() {
    let (mut appliance, service) = appliance();
    let (mut reader, mut other) = (appliance.client("ada"), appliance.client("bob"));
    appliance.change(&json!({ "grant-put": {
        "name": "bob-echo", "subject": { "principal": "bob" }, "module": { "named": "echo" }, "tools": "all",
        "access": "read" } }));
    let shown = reader.schema(&json!({ "module": "echo", "detail": "full" }));
    assert_eq!(shown["isError"], json!(false), "{shown}");
    let text = shown["content"][0]["text"].as_str().expect("a page");
    let page: Value = serde_json::from_str(text).expect("JSON");
    let is_get = |t: &&Value| t["tool_name"] == "get";
    let tools = page["tools"].as_array().expect("tools");
    let reference = tools.iter().find(is_get).expect("a tool")["schema_ref"].clone();
    // Another edition of the same tools takes over.
    let fixture = mcpist_tests::programs::workspace().join("tests/fixtures/echo");
    let bundle = appliance.bundle(&fixture);
    let registries = appliance.ask("GET", "/v1/registries", None);
    let old = registries["registries"][0]["id"].clone();
    let new = appliance.import(&bundle)["import"]["registry"]["id"].clone();
    appliance.change(&json!({ "join-put": {
        "registry": new, "module": "echo", "slot": "service", "binding": "service" } }));
    appliance.change(&json!({ "registry-retire": old }));

    // It drains: who has read it goes on with it, also beside the next one, and for nobody else it is there.
    let item = json!({ "item": "x" });
    assert_eq!(reader.call("echo", "get", &item)["isError"], json!(false));
    assert_eq!(code(&other.call("echo", "get", &item)), "unknown_tool");
    appliance.change(&json!({ "registry-activate": new }));
    assert_eq!(reader.call("echo", "get", &item)["isError"], json!(false));
    let echoes =
        json!({ "module": "echo", "tool_name": "get", "arguments": item, "schema_ref": reference });
    let echoed = other.request(
        "tools/call",
        json!({ "name": "call_module_tool", "arguments": echoes }),
    );
    assert_eq!(echoed["result"]["isError"], json!(false), "{echoed}");
    let registries = appliance.ask("GET", "/v1/registries", None);
    let states: Vec<_> = (registries["registries"]
        .as_array()
        .expect("registries")
        .iter())
    .map(|r| (r["id"] == old, r["state"].clone()))
    .collect();
    assert!(states.contains(&(true, json!("draining"))), "{states:?}");
    assert!(states.contains(&(false, json!("active"))), "{states:?}");
    let lines = audit_lines(&appliance);
    let intents = lines.iter().filter(|l| l["event"] == "call_intent");
    assert!(intents.map(|l| &l["registry"]).eq([&old, &old, &old]));

    // A join that is taken away is gone at once, there as well.
    appliance.change(&json!({ "join-delete": {
        "registry": old, "module": "echo", "slot": "service" } }));
    let seen = service.seen().len();
    assert_eq!(code(&reader.call("echo", "get", &item)), "schema_changed");
    assert_eq!(service.seen().len(), seen);
    // The answer showed the edition of now; who never read one is not held to any.
    assert_eq!(reader.call("echo", "get", &item)["isError"], json!(false));
    assert_eq!(other.call("echo", "get", &item)["isError"], json!(false));
}
