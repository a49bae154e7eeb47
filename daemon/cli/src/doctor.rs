//! `doctor`: what this host lacks, each line with what to do about it.
//!
//! Reads the host as its caller sees it, and the daemon's own word where the daemon answers, sealed or not. Promises to
//! change nothing and to need no root; what only the daemon can know (how its own process is protected) is taken from the
//! daemon. Each check is a pure function of a text or a number that was read; a thin shell reads them. The names of the
//! checks are for programs too: they stay.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mcpist_core::api::{Status, path};
use mcpist_core::error::EXIT_FAILURE;
use serde::Serialize;

use crate::Context;
use crate::error::Result;

mod daemon;
mod machine;

/// How long the daemon's own word is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Look for what this host lacks, and say what to do about it; changes nothing
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist doctor
  mcpist doctor --state /srv/mcpist --output json

Exit status: 0 nothing is wrong, 1 something is. A remark is nothing wrong.")]
pub(crate) struct DoctorArgs {
    /// Folder of the daemon's state, whose disk is looked at
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mcpist")]
    state: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Remark,
    Wrong,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cow<'static, str>>,
}

#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Check>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        level: Level::Ok,
        found: found.into(),
        next: None,
    }
}

fn remark(name: &'static str, found: impl Into<String>, next: &'static str) -> Check {
    Check {
        level: Level::Remark,
        next: Some(next.into()),
        ..ok(name, found)
    }
}

fn wrong(name: &'static str, found: impl Into<String>, next: &'static str) -> Check {
    Check {
        level: Level::Wrong,
        ..remark(name, found, next)
    }
}

pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Result<u8> {
    let client = context.client.within(PATIENCE);
    let status = client.get::<Status>(path::STATUS).await;
    let mut checks = match &status {
        Ok(status) => daemon::checks(status),
        Err(e) => [vec![daemon::unheard(e)], machine::of_this_user()].concat(),
    };
    checks.extend(machine::memory(Path::new("/")));
    checks.extend(machine::state(&args.state));
    for (name, closed) in [
        ("admin.sock", true),
        ("secret.sock", true),
        ("mcp.sock", false),
    ] {
        checks.push(machine::socket(name, &context.client.socket(name), closed));
    }
    let findings = Findings {
        ok: checks.iter().all(|c| c.level != Level::Wrong),
        checks,
    };
    context.out.data(&findings, show)?;
    Ok(if findings.ok { 0 } else { EXIT_FAILURE })
}

fn show(findings: &Findings) -> String {
    let mut lines = Vec::new();
    for check in &findings.checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Remark => "remark",
            Level::Wrong => "WRONG",
        };
        lines.push(format!("{level:<7} {:<12} {}", check.name, check.found));
        if let Some(next) = &check.next {
            lines.push(format!("{:<7} next: {next}", ""));
        }
    }
    lines.join("\n")
}
