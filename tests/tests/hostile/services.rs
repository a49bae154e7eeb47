//! A service that turned hostile, or is only broken: a code for the client, and nothing of it for the others.

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::program;
use mcpist_tests::service::{Service, encodings};
use mcpist_tests::start::Start;
use serde_json::{Value, json};

use super::large::peak_kib;
use super::{CREDENTIAL, Site, code, open, works};

/// How much the peak of a process may rise for an answer of 1 GiB, in KiB. The module takes 1 MiB of one.
const RISE_KIB: u64 = 8 * 1024;

fn get(site: &Site, item: &str) -> Value {
    site.client("ada")
        .call("echo", "get", &json!({ "item": item }))
}

/// The client is told `expected`, and neither the credential nor what the service said.
fn fails(site: &Site, item: &str, expected: &str) {
    let answer = get(site, item);
    assert_eq!(code(&answer), expected, "{answer}");
    let said = answer.to_string();
    for (form, text) in encodings(CREDENTIAL) {
        assert!(!said.contains(&text), "{form}: {said}");
    }
    works(site);
}

#[test]
fn an_error_status_is_a_code_and_its_body_stays_out() {
    let site = open();
    fails(&site, "fails", "upstream_status");
    assert!(!get(&site, "fails").to_string().contains("secret"));
}

#[test]
fn the_error_field_that_a_manifest_picks_is_redacted() {
    let site = open();
    fails(&site, "picked", "upstream_status");
    let said = get(&site, "picked").to_string();
    assert!(
        said.contains("bad [redacted]") || said.contains("bad Bearer [redacted]"),
        "{said}"
    );
}

#[test]
fn a_redirect_is_not_followed_not_even_to_the_same_host() {
    let site = open();
    fails(&site, "redirects", "upstream_status");
    fails(&site, "home", "upstream_status");
    let seen = site.service.seen();
    assert!(
        !seen.iter().any(|s| s.line.contains("elsewhere")),
        "followed"
    );
}

#[test]
fn a_service_that_hangs_costs_its_own_call_alone() {
    let site = open();
    let hanging = site.client("ada");
    let waiting = std::thread::spawn(move || {
        let mut hanging = hanging;
        code(&hanging.call("echo", "get", &json!({ "item": "hang" }))).to_owned()
    });
    while !site
        .service
        .seen()
        .iter()
        .any(|s| s.line.contains("/api/hang"))
    {
        std::thread::yield_now();
    }
    // While one call waits, others are served.
    works(&site);
    let told = waiting.join().expect("the call");
    assert!(
        ["upstream_timeout", "deadline_exceeded"].contains(&told.as_str()),
        "{told}"
    );
    works(&site);
}

#[test]
fn an_answer_of_one_gibibyte_is_cut_off_without_memory_for_it() {
    let site = open();
    works(&site);
    let runner = site.runner_pids();
    let processes = [site.pid(), runner[0]];
    let before = processes.map(peak_kib);
    fails(&site, "huge", "upstream_too_large");
    for (pid, before) in processes.into_iter().zip(before) {
        let rise = peak_kib(pid).saturating_sub(before);
        assert!(rise < RISE_KIB, "{rise} KiB more");
    }
}

#[test]
fn a_credential_that_comes_back_is_taken_out_in_each_encoding() {
    let site = open();
    let answer = get(&site, "echo");
    assert_eq!(answer["isError"], false, "{answer}");
    let text = answer["content"][0]["text"].as_str().expect("text");
    let fields: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    for (name, form) in encodings(CREDENTIAL) {
        let value = fields[name].as_str().expect("a field");
        assert!(value.contains("[redacted]"), "{name}: {value}");
        // The first and last characters of base64 depend on what stands beside the credential, too.
        let core = &form[4..form.len() - 4];
        assert!(
            !text.contains(core) && !value.contains(core),
            "{name}: {text}"
        );
        assert!(!value.contains(&CREDENTIAL[..12]), "{name}: {value}");
    }
}

#[test]
fn a_service_that_gives_the_credential_back_again_and_again_gets_no_calls_until_officers_say_so() {
    let start = Start::dev(program("mcpistd")).with_config("[limits]\nleaking-answers = 3\n");
    let (mut appliance, service) = (Appliance::start_by(start), Service::start());
    appliance.set_up(service.port(), CREDENTIAL);
    let site = Site { appliance, service };
    let module = || site.ask("GET", "/v1/status", None)["modules"][0].clone();
    for _ in 0..3 {
        works(&site);
        assert_eq!(get(&site, "echo")["isError"], false);
    }
    let seen = site.service.seen().len();
    for item in ["echo", "x"] {
        assert_eq!(code(&get(&site, item)), "module_quarantined");
    }
    assert_eq!(site.service.seen().len(), seen, "the service was asked");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(module()["state"], "quarantined", "{status}");
    assert!(
        status["alarms"].to_string().contains("module_quarantined"),
        "{status}"
    );

    let registry = module()["registry"].clone();
    site.change(&json!({ "registry-retire": registry }));
    site.change(&json!({ "registry-activate": registry }));
    works(&site);
    assert_eq!(module()["state"], "ready");
    site.ask("POST", "/v1/seal", None);
    let log = super::audit::audit_files(site.folder()).concat();
    let log = String::from_utf8(log).expect("UTF-8");
    assert_eq!(log.matches("\"event\":\"module_quarantined\"").count(), 1);
}
