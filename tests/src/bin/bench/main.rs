//! The benchmark: what a call costs through the whole appliance, beside what its parts cost alone.
//!
//! Three peers answer the same few bytes, measured one after the other in one run on one machine: the floor (rmcp's
//! own server on a Unix socket, `daemon/mcp/examples/echo.rs`), the service called directly (HTTP/1.1, kept alive), and
//! the whole path (Unix socket → mcpistd → runner → that service). Every answer is compared byte for byte with the
//! first one, which is read as JSON; one that differs ends the run. No time is judged: figures are for a reader.
//!
//! `tests/bench/run` builds the programs and starts this one; its header explains the rows.

mod client;
mod service;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::process::{Process, Running};
use mcpist_tests::report::Report;
use serde_json::{Value, json};

use crate::client::{FIRST_ID, Peer};

/// What the service answers, and the text that the floor echoes.
const BODY: &str = r#"{"id":"item-1","name":"first","ready":true,"count":42}"#;
/// The credential that the service must see. Nothing secret: it opens nothing but this run's own service.
const CREDENTIAL: &str = "bench-credential-5d1f0c7a";
/// CPU of mcpistd and its runner that a call may cost on two cores (µs).
const CPU_BUDGET: f64 = 75.0;
/// Connections of the load.
const CLIENTS: usize = 32;
/// Every measurement is preceded by its count of calls over this number.
const WARM_UP: usize = 10;
/// How long a started appliance may take until it answers its first call.
const GIVE_UP: Duration = Duration::from_secs(10);

/// How many calls are made of each peer.
struct Counts {
    /// By one client.
    alone: usize,
    /// By each of [`CLIENTS`].
    each: usize,
}

const FULL: Counts = Counts {
    alone: 20_000,
    each: 5_000,
};
const SHORT: Counts = Counts {
    alone: 200,
    each: 20,
};

struct Options {
    counts: Counts,
    json: bool,
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        counts: FULL,
        json: false,
    };
    for argument in arguments {
        match argument.as_str() {
            "call" => {}
            "--short" => options.counts = SHORT,
            "--json" => options.json = true,
            other => return Err(format!("no {other:?} here: [call] [--short] [--json]")),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options(std::env::args().skip(1))?;
    let programs = std::env::current_exe()?
        .parent()
        .map(Path::to_owned)
        .ok_or("no folder of programs")?;
    let mut report = Report::default();
    measure(&programs, &options.counts, &mut report)?;
    let text = if options.json {
        report.to_json_lines()
    } else {
        report.to_table()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn measure(programs: &Path, counts: &Counts, report: &mut Report) -> Result<(), Box<dyn Error>> {
    floor(programs, counts, report)?;
    let port = service::start(BODY, CREDENTIAL)?;
    direct(port, counts, report)?;
    let mut appliance = Appliance::start_with(&programs.join("mcpistd"));
    appliance.set_up(port, CREDENTIAL);
    whole_path(&mut appliance, counts, report)
        .map_err(|e| format!("{e}; mcpistd wrote: {}", appliance.log()).into())
}

/// rmcp's own server, transport and JSON on a Unix socket.
fn floor(programs: &Path, counts: &Counts, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("floor.sock");
    let _echo = Running::start(&programs.join("examples/echo"), &socket)?;
    let request = tools_call("echo", &json!({ "text": BODY }));
    let peer = Peer::unix(&socket, request, carries_body)?;
    alone("floor", &peer, counts, report, &[])?;
    together("floor", &peer, counts, report, &[])
}

/// The service without an appliance before it.
fn direct(port: u16, counts: &Counts, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let request = format!(
        "GET /api/item-1 HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {CREDENTIAL}\r\n\r\n"
    );
    let peer = Peer::tcp(port, request, |answer| answer.starts_with(b"HTTP/1.1 200 "))?;
    alone("direct", &peer, counts, report, &["floor"])?;
    together("direct", &peer, counts, report, &["floor"])
}

/// From a killed daemon with a store to a loaded one.
fn whole_path(
    appliance: &mut Appliance,
    counts: &Counts,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let beside = ["floor", "direct"];
    appliance.kill();
    let started = Instant::now();
    appliance.restart();
    appliance.unseal();
    let arguments = json!({
        "module": "echo", "tool_name": "get", "arguments": { "item": "item-1" }
    });
    let request = tools_call("call_module_tool", &arguments);
    let socket = appliance.socket("ada");
    // The runner connects on its own; until it has, calls are refused.
    let peer = loop {
        match Peer::unix(&socket, request.clone(), carries_body) {
            Ok(peer) => break peer,
            Err(e) if started.elapsed() > GIVE_UP => return Err(e.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let start = started.elapsed();

    let runner = *appliance.runner_pids().first().ok_or("no runner")?;
    let parts = [
        ("mcpistd", Process::of(appliance.pid())),
        ("runner", Process::of(runner)),
    ];
    let mut idle = Vec::new();
    for (_, process) in &parts {
        idle.push(process.resident_mib()?);
    }
    alone("call", &peer, counts, report, &beside)?;
    let mut before = Vec::new();
    for (_, process) in &parts {
        before.push(process.cpu()?);
    }
    together("call", &peer, counts, report, &beside)?;
    let calls = (counts.each + counts.each / WARM_UP) * CLIENTS;
    report.row("cpu_budget", CPU_BUDGET, "us/call", &[]);
    let mut both = 0.0;
    for ((name, process), before) in parts.iter().zip(before) {
        let spent = (process.cpu()? - before).as_secs_f64() * 1e6 / calls as f64;
        both += spent;
        report.row(&format!("cpu_{name}"), spent, "us/call", &["cpu_budget"]);
    }
    report.row("cpu_both", both, "us/call", &["cpu_budget"]);
    for ((name, process), idle) in parts.iter().zip(idle) {
        let first = format!("rss_{name}_idle");
        report.row(&first, idle, "MiB", &[]);
        let after = process.resident_mib()?;
        report.row(&format!("rss_{name}_after"), after, "MiB", &[&first]);
    }
    report.row("start_to_call", start.as_secs_f64() * 1e3, "ms", &[]);
    Ok(())
}

/// One client, one call after the other.
fn alone(
    name: &str,
    peer: &Peer,
    counts: &Counts,
    report: &mut Report,
    beside: &[&str],
) -> Result<(), Box<dyn Error>> {
    let mut connection = peer.connect()?;
    for _ in 0..counts.alone / WARM_UP {
        connection.exchange()?;
    }
    let mut times = Vec::with_capacity(counts.alone);
    for _ in 0..counts.alone {
        let sent = Instant::now();
        connection.exchange()?;
        times.push(sent.elapsed());
    }
    report.times(name, times, beside);
    Ok(())
}

/// All clients at once, each with one call under way.
fn together(
    name: &str,
    peer: &Peer,
    counts: &Counts,
    report: &mut Report,
    beside: &[&str],
) -> Result<(), Box<dyn Error>> {
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(peer.connect()?);
    }
    client::run(&mut connections, counts.each / WARM_UP)?;
    let started = Instant::now();
    client::run(&mut connections, counts.each)?;
    let rate = (counts.each * CLIENTS) as f64 / started.elapsed().as_secs_f64();
    report.beside(name, &format!("rate_{CLIENTS}"), rate, "calls/s", beside);
    Ok(())
}

/// A call of the stateless revision: no handshake before it.
fn tools_call(name: &str, arguments: &Value) -> String {
    let request = json!({
        "jsonrpc": "2.0", "id": FIRST_ID, "method": "tools/call",
        "params": { "name": name, "arguments": arguments, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    format!("{request}\n")
}

/// Whether a first answer is a result that carries what the service said.
fn carries_body(answer: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let text = answer["result"]["content"][0]["text"].as_str();
    let body: Value = serde_json::from_str(BODY).unwrap_or_default();
    answer["result"]["isError"] == json!(false)
        && text.and_then(|t| serde_json::from_str::<Value>(t).ok()) == Some(body)
}
