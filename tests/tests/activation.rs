//! mcpistd with the sockets that systemd passes in: all are served, and one that is not is an error.
//!
//! A test program of its own: while a daemon starts, the sockets on their way to it are inherited by whatever else the
//! process starts. One test at a time does.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::program;
use mcpist_tests::service::Service;
use mcpist_tests::start::Start;
use serde_json::json;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const ALL: [(&str, &str); 5] = [
    ("mcp", "passed-1.sock"),
    ("secret", "secret.sock"),
    ("runner", "runner.sock"),
    ("mcp", "passed-2.sock"),
    ("admin", "admin.sock"),
];

#[test]
fn every_passed_socket_is_served() {
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Start::service(program("mcpistd"), Start::UID).passing(&ALL);
    let service = Service::start();
    let mut appliance = Appliance::start_by(start);
    // Over the passed admin and secret sockets; nothing else is at their paths.
    appliance.set_up(service.port(), "canary-of-the-passed-socket");
    let mut runner = Command::new(program("mcpist-runner"))
        .args(["--role", "run", "--connect"])
        .arg(appliance.socket("runner"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a runner starts");
    appliance.until("the runner", || {
        appliance.ask("GET", "/v1/status", None)["runners"][0]["connected"] == true
    });
    // The configured listener as well.
    for name in ["passed-1", "passed-2", "mcp"] {
        let mut client = appliance.client(name);
        let answer = client.call("echo", "get", &json!({ "item": name }));
        assert_eq!(answer["isError"], false, "{name}: {answer}");
    }
    assert_eq!(service.seen().len(), 3);
    runner.kill().expect("ours to kill");
    runner.wait().expect("it was killed");
}

/// What the daemon says as it refuses to start with these sockets.
fn refused(start: Start, sockets: &[(&str, &str)]) -> String {
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let start = start.passing(sockets);
    start.furnish(folder.path());
    let mut daemon = start.launch(folder.path());
    let ended = daemon.wait().expect("ours to wait for");
    let said = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(!ended.success(), "{said}");
    // Nobody is left who would take a connection and not answer it.
    for (_, file) in sockets {
        let path = folder.path().join("run").join(file);
        if let Ok(mut stream) = UnixStream::connect(path) {
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            assert!(read.is_err() || rest.is_empty(), "{file} was served");
        }
    }
    said
}

#[test]
fn a_passed_socket_of_another_name_stops_the_start_and_is_named() {
    for name in ["mpc", "mcpist-admin.socket", "MCP"] {
        let said = refused(
            Start::dev(program("mcpistd")),
            &[("mcp", "a.sock"), (name, "b.sock"), ("admin", "c.sock")],
        );
        assert!(said.contains(&format!("a socket named {name:?}")), "{said}");
    }
}

#[test]
fn a_passed_socket_that_nobody_would_take_stops_the_start() {
    for name in ["admin", "secret"] {
        let twice = [(name, "a.sock"), (name, "b.sock")];
        let said = refused(Start::dev(program("mcpistd")), &twice);
        assert!(said.contains(&format!("a socket named {name:?}")), "{said}");
    }
    // In dev mode mcpistd starts its runner itself.
    let said = refused(Start::dev(program("mcpistd")), &[("runner", "a.sock")]);
    assert!(said.contains("a socket named \"runner\""), "{said}");
}
