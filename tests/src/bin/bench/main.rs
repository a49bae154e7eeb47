//! The benchmark: what a call costs through the whole appliance, beside what its parts cost alone.
//!
//! Three peers answer the same few bytes, measured one after the other in one run on one machine: the floor (rmcp's
//! own server on a Unix socket, `daemon/mcp/examples/echo.rs`), the service called directly (HTTP/1.1, kept alive), and
//! the whole path (Unix socket → mcpistd → runner → that service). Every answer is compared byte for byte with the
//! first one, which is read as JSON; one that differs ends the run. No time is judged: figures are for a reader.
//!
//! `tests/bench/run` builds the programs and starts this one; its header explains the rows.

mod client;
mod process;
mod report;
mod service;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

use crate::client::{FIRST_ID, Peer};
use crate::process::{Process, Running};
use crate::report::Report;

/// What the service answers, and the text that the floor echoes.
const BODY: &str = r#"{"id":"item-1","name":"first","ready":true,"count":42}"#;
/// The credential that the service must see. Nothing secret: it opens nothing but this run's own service.
const CREDENTIAL: &str = "bench-credential-5d1f0c7a";
/// CPU of mcpistd and its runner that a call may cost on two cores (µs).
const CPU_BUDGET: f64 = 75.0;
/// Connections of the load.
const CLIENTS: usize = 32;

/// How many calls are made of each peer, after a tenth as many to warm up.
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
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("floor.sock");
    let floor = Running::start(&programs.join("examples/echo"), &socket)?;
    let peer = Peer::unix(
        socket,
        tools_call("echo", &json!({ "text": BODY })),
        carries_body,
    )?;
    load("floor", &peer, counts, report, &[])?;
    drop(floor);

    let port = service::start(BODY, CREDENTIAL)?;
    let request = format!(
        "GET /api/item-1 HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {CREDENTIAL}\r\n\r\n"
    );
    let peer = Peer::tcp(port, request.into_bytes(), |answer| {
        answer.starts_with(b"HTTP/1.1 200 ")
    })?;
    load("direct", &peer, counts, report, &["floor"])?;

    let mut appliance = Appliance::start_with(&programs.join("mcpistd"));
    appliance.set_up(port, CREDENTIAL);
    appliance.kill();
    let started = Instant::now();
    appliance.restart();
    appliance.unseal();
    let arguments =
        json!({ "module": "echo", "tool_name": "get", "arguments": { "item": "item-1" } });
    let peer = Peer::unix(
        appliance.socket("ada"),
        tools_call("call_module_tool", &arguments),
        carries_body,
    )
    .map_err(|e| format!("{e}\n{}", appliance.log()))?;
    let start = started.elapsed();

    let runner = *appliance.runner_pids().first().ok_or("no runner")?;
    let parts = [
        ("mcpistd", Process::new(appliance.pid())),
        ("runner", Process::new(runner)),
    ];
    let mut idle = Vec::new();
    for (_, process) in &parts {
        idle.push(process.resident_mib()?);
    }
    let cpu = load("call", &peer, counts, report, &["floor", "direct"]);
    let cpu = match cpu {
        Ok(()) => whole_load(&peer, counts, &parts)?,
        Err(e) => return Err(format!("{e}\n{}", appliance.log()).into()),
    };
    report.row("cpu_budget", CPU_BUDGET, "us/call", &[]);
    for ((name, _), micros) in parts.iter().zip(&cpu) {
        report.row(&format!("cpu_{name}"), *micros, "us/call", &["cpu_budget"]);
    }
    report.row("cpu_both", cpu.iter().sum(), "us/call", &["cpu_budget"]);
    for ((name, process), idle) in parts.iter().zip(idle) {
        let name = format!("rss_{name}");
        report.row(&format!("{name}_idle"), idle, "MiB", &[]);
        let after = process.resident_mib()?;
        let before = format!("{name}_idle");
        report.row(&format!("{name}_after"), after, "MiB", &[before.as_str()]);
    }
    report.row("start_to_call", start.as_secs_f64() * 1e3, "ms", &[]);
    Ok(())
}
