//! A daemon as systemd starts it: who may be its runner, and whom it serves by uid.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcpist_tests::appliance::{Appliance, Client};
use mcpist_tests::programs::program;
use mcpist_tests::service::Service;
use mcpist_tests::start::Start;
use mcpist_wire::frame::{HEADER, Header, Kind};
use serde_json::{Value, json};

use super::{CREDENTIAL, Shared, Site, code};

/// How long anything may take before the test gives up. Nothing is judged by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An open service without a runner, that accepts one of the tests' own uid.
static SERVICE: Shared = Shared::new(|| serve(Start::UID));

fn serve(runner_uid: u32) -> Site {
    let service = Service::start();
    let mut appliance = Appliance::start_by(Start::service(program("mcpistd"), runner_uid));
    appliance.set_up(service.port(), CREDENTIAL);
    Site { appliance, service }
}

/// A real runner; killed when dropped.
struct Runner(Child);

impl Runner {
    /// Starts one for the socket of `site` and waits until it is in.
    fn connected(site: &Site) -> Runner {
        wait_for(site, "no runner before", |s| !has_runner(s));
        let child = Command::new(program("mcpist-runner"))
            .args(["--role", "run", "--connect"])
            .arg(site.socket("runner"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a runner starts");
        let runner = Runner(child);
        wait_for(site, "a runner", has_runner);
        runner
    }

    fn kill(&mut self) {
        self.0.kill().expect("ours to kill");
        self.0.wait().expect("it was killed");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_runner(site: &Site) -> bool {
    let status = site.ask("GET", "/v1/status", None);
    status["runners"][0]["connected"] == true
}

fn wait_for(site: &Site, what: &str, there: impl Fn(&Site) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there(site) {
        assert!(Instant::now() < deadline, "{what}: {}", site.log());
        std::thread::yield_now();
    }
}

/// A connection to the runner socket.
fn connect(site: &Site) -> UnixStream {
    let stream = UnixStream::connect(site.socket("runner")).expect("the runner socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// The hello of a runner that speaks the versions `min` to `max`.
fn hello(min: u16, max: u16, role: u8) -> Vec<u8> {
    let mut payload = b"mcpwire\0".to_vec();
    payload.extend(min.to_be_bytes());
    payload.extend(max.to_be_bytes());
    payload.push(role);
    payload.extend(std::process::id().to_be_bytes());
    let header = Header::new(Kind::Hello, false, payload.len(), 0).expect("it fits");
    [&header.encode()[..], &payload].concat()
}

/// Code and text of the close that answers `bytes`, after which the connection ends.
fn closed(site: &Site, bytes: &[u8]) -> (String, String) {
    let mut stream = connect(site);
    stream.write_all(bytes).expect("a hello");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let (header, rest) = answer.split_at(HEADER);
    let header = Header::decode(header.try_into().expect("a header")).expect("a header");
    assert_eq!((header.kind(), header.length()), (Kind::Close, rest.len()));
    let (code, rest) = rest[1..].split_at(rest[0].into());
    let text = &rest[1..];
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (utf8(code), utf8(text))
}

/// How many lines of the audit log are of `event` and hold `fragment`.
fn audited(site: &Site, event: &str, fragment: &str) -> usize {
    let files = super::audit::audit_files(site.folder());
    let text = String::from_utf8(files.concat()).expect("UTF-8");
    let event = format!("\"{event}\"");
    text.lines()
        .filter(|line| line.contains(&event) && line.contains(fragment))
        .count()
}

/// The peer that says `bytes` is closed with `code`, that is in the log, and the runner's place is free as before.
fn refused(site: &Site, bytes: &[u8], code: &str, reason: &str) {
    let before = audited(site, "runner_refused", reason);
    let (said, text) = closed(site, bytes);
    assert_eq!(said, code, "{text}");
    // The peer may be told before the line is written.
    wait_for(site, "the refusal's line", |s| {
        audited(s, "runner_refused", reason) > before
    });
    assert_eq!(audited(site, "runner_refused", reason), before + 1);
}

fn get(client: &mut Client, item: &str) -> Value {
    client.call("echo", "get", &json!({ "item": item }))
}

fn calls(site: &Site, item: &str) {
    let answer = get(&mut site.client("mcp"), item);
    assert_eq!(answer["isError"], false, "{answer}\n{}", site.log());
    let seen = site.service.seen();
    let last = seen.last().expect("a request");
    assert!(last.line.contains(item), "{}", last.line);
    let bearer = format!("Bearer {CREDENTIAL}");
    assert_eq!(last.header("authorization"), Some(bearer.as_str()));
}

// Runners.

#[test]
fn a_runner_of_another_uid_is_refused_and_audited() {
    // The daemon waits for the runner's own user, and we are another.
    let site = serve(Start::UID + 1);
    refused(&site, &hello(1, 1, 1), "role_refused", "uid_refused");
    let uid = format!("\"uid\":{}", Start::UID);
    assert_eq!(audited(&site, "runner_refused", &uid), 1);
    assert!(!has_runner(&site));
    let answer = get(&mut site.client("mcp"), "x");
    assert_eq!(code(&answer), "runner_lost", "{answer}");
    assert!(site.service.seen().is_empty());
}

#[test]
fn a_runner_of_another_wire_version_is_refused() {
    SERVICE.with(|site| {
        refused(site, &hello(7, 9, 1), "wire_version", "wire_version");
        let _runner = Runner::connected(site);
        calls(site, "after-version");
    });
}

#[test]
fn a_runner_of_a_role_that_is_not_served_is_refused() {
    SERVICE.with(|site| {
        refused(site, &hello(1, 1, 2), "role_refused", "role_not_served");
        let _runner = Runner::connected(site);
        calls(site, "after-role");
    });
}

#[test]
fn a_peer_that_says_no_hello_is_closed() {
    SERVICE.with(|site| {
        for bytes in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &hello(1, 1, 9)] {
            refused(site, bytes, "wire_protocol", "wire_protocol");
        }
        let _runner = Runner::connected(site);
        calls(site, "after-noise");
    });
}

#[test]
fn a_peer_that_says_nothing_or_half_a_hello_is_closed_and_holds_no_place() {
    SERVICE.with(|site| {
        let before = audited(site, "runner_refused", "hello_timeout");
        let (mut silent, mut half) = (connect(site), connect(site));
        half.write_all(&hello(1, 1, 1)[..20]).expect("a half");
        // While both stand there, the real one gets in.
        let _runner = Runner::connected(site);
        calls(site, "beside-the-silent");
        for stream in [&mut silent, &mut half] {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("an end");
            assert!(rest.is_empty(), "{rest:?}");
        }
        calls(site, "after-the-silent");
        wait_for(site, "the lines of both", |s| {
            audited(s, "runner_refused", "hello_timeout") == before + 2
        });
    });
}

#[test]
fn a_second_runner_is_refused_while_one_is_there() {
    SERVICE.with(|site| {
        let _runner = Runner::connected(site);
        refused(site, &hello(1, 1, 1), "role_taken", "role_taken");
        calls(site, "after-second");
    });
}

#[test]
fn a_runner_that_is_killed_makes_room_for_the_next() {
    SERVICE.with(|site| {
        let mut first = Runner::connected(site);
        calls(site, "first-runner");
        first.kill();
        wait_for(site, "the runner's end", |s| !has_runner(s));
        let answer = get(&mut site.client("mcp"), "between");
        assert_eq!(code(&answer), "runner_lost", "{answer}");
        let _second = Runner::connected(site);
        calls(site, "second-runner");
    });
}

// Clients.

#[test]
fn a_client_is_who_its_uid_says_and_nobody_from_the_moment_that_this_ends() {
    SERVICE.with(|site| {
        let _runner = Runner::connected(site);
        let mut client = site.client("mcp");
        assert_eq!(get(&mut client, "mine")["isError"], false);
        let rules =
            |uid: u32| json!({ "principal-put": { "name": "ada", "rules": [{ "uid": uid }] } });

        site.change(&rules(Start::UID + 2));
        let seen = site.service.seen().len();
        let answer = get(&mut client, "not-mine");
        assert_eq!(code(&answer), "unidentified", "{answer}");
        let schema = client.schema(&json!({}));
        assert_eq!(code(&schema), "unidentified", "{schema}");
        // Who comes now is turned away at the door.
        let uid = format!("\"uid\":{}", Start::UID);
        let before = audited(site, "peer_refused", &uid);
        let refused = site.client("mcp").receive();
        assert_eq!(
            refused["error"]["data"]["code"], "unidentified",
            "{refused}"
        );
        wait_for(site, "the refusal's line", |s| {
            audited(s, "peer_refused", &uid) > before
        });
        assert_eq!(site.service.seen().len(), seen, "the service was asked");

        site.change(&rules(Start::UID));
        assert_eq!(get(&mut client, "mine-again")["isError"], false);
    });
}
