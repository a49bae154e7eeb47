//! `audit`: the log verified from its files, without the daemon, and where it stands.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::api::{AuditHead, PublicKey, path};
use mcpist_core::audit::{Report, Verifier};
use mcpist_core::error::EXIT_FAILURE;
use mcpist_core::ids::Digest;
use mcpist_quorum::CeremonyRecord;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::{Context, secret};

const MAX_RECORD: u64 = 64 * 1024;
const CHUNK: usize = 256 * 1024;

/// The audit log
#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Verify the files of a log: every hash, every signed checkpoint; needs no daemon
    #[command(after_help = "Examples:
  mcpist audit verify /var/lib/mcpist/audit --record ceremony.bin
  mcpist audit verify copies/ --key 64HEX --expect HEAD

--expect proves that nothing was cut off at the end: it demands a head that was noted down before.
Exit status: 0 the log holds, 1 it does not or cannot be read.")]
    Verify(Verify),
    /// Show the last line's number and hash, to be noted down
    #[command(after_help = "Examples:\n  mcpist audit head")]
    Head,
}

#[derive(Args)]
struct Verify {
    /// The folder of the log, or its files in order
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The ceremony record of init, which holds the first audit key
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "key",
        conflicts_with = "key"
    )]
    record: Option<PathBuf>,
    /// The first audit key
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
    /// A head that the log must contain
    #[arg(long, value_name = "HEAD")]
    expect: Option<Digest>,
}

/// What a verification found.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// Whether everything holds.
    pub(crate) ok: bool,
    /// Lines that hold.
    pub(crate) lines: u64,
    /// Signed checkpoints among them.
    pub(crate) checkpoints: u64,
    /// Lines after the last checkpoint, chained but not signed.
    pub(crate) unsigned_tail: u64,
    /// Restarts that cut a damaged end.
    pub(crate) recovered: u64,
    /// Hash of the last line that holds.
    pub(crate) head: Digest,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl From<Report> for Verdict {
    fn from(report: Report) -> Verdict {
        Verdict {
            ok: report.problem.is_none(),
            lines: report.lines,
            checkpoints: report.checkpoints,
            unsigned_tail: report.unsigned_tail,
            recovered: report.recovered,
            head: report.anchor.head,
            problem: report.problem.map(|p| p.to_string()),
        }
    }
}

pub(crate) async fn run(context: &Context, args: AuditArgs) -> Result<u8> {
    match args.command {
        AuditCommand::Head => {
            let head: AuditHead = context.client.get(path::AUDIT_HEAD).await?;
            context.out.data(&head, |h| {
                format!(
                    "line {}, head {}\ncheckpoint {} covers {} lines",
                    h.seq, h.head, h.checkpoint, h.covered
                )
            })?;
            Ok(0)
        }
        AuditCommand::Verify(verify) => {
            let key = match (&verify.key, &verify.record) {
                (Some(key), _) => {
                    PublicKey::parse(key)
                        .ok_or_else(|| {
                            Error::usage("--key is not 64 lower-case hexadecimal digits")
                        })?
                        .0
                }
                (None, Some(record)) => first_key(&secret::read_file(record, MAX_RECORD)?)?,
                (None, None) => return Err(Error::usage("give --record or --key")),
            };
            let files = files(&verify.paths)?;
            let verifying = async { verify_files(&files, key, verify.expect) };
            let verdict = context.out.while_busy("verifying", verifying).await?;
            context.out.data(&verdict, show)?;
            Ok(if verdict.ok { 0 } else { EXIT_FAILURE })
        }
    }
}

/// The first audit key of a ceremony record.
pub(crate) fn first_key(record: &[u8]) -> Result<[u8; 32]> {
    let record =
        CeremonyRecord::from_bytes(record).map_err(|e| Error::new("ceremony_record", e))?;
    Ok(*record.audit_key())
}

/// The files of a log: those of a folder in their order, or the given ones.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let [folder] = paths else {
        return Ok(paths.to_vec());
    };
    if !folder.is_dir() {
        return Ok(paths.to_vec());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
        let path = entry.map_err(|e| Error::file(folder, e))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with("audit-") && path.extension().is_some_and(|e| e == "jsonl") {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::file(folder, "holds no audit-*.jsonl"));
    }
    found.sort();
    Ok(found)
}

/// Verifies the files of one log in order.
pub(crate) fn verify_files(
    files: &[PathBuf],
    first_key: [u8; 32],
    expect: Option<Digest>,
) -> Result<Verdict> {
    let mut verifier = Verifier::new(first_key);
    if let Some(head) = expect {
        verifier = verifier.expecting(head);
    }
    for (index, path) in files.iter().enumerate() {
        if index > 0 && !verifier.next_file() {
            break;
        }
        if !feed(&mut verifier, path)? {
            break;
        }
    }
    Ok(verifier.finish().into())
}

fn feed(verifier: &mut Verifier, path: &Path) -> Result<bool> {
    let mut file: File = secret::open(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(|e| Error::file(path, e))? {
            0 => return Ok(true),
            n if !verifier.feed(&chunk[..n]) => return Ok(false),
            _ => {}
        }
    }
}

fn show(verdict: &Verdict) -> String {
    let found = format!(
        "{} lines, {} checkpoints, {} lines not yet signed, {} recoveries\nhead {}",
        verdict.lines, verdict.checkpoints, verdict.unsigned_tail, verdict.recovered, verdict.head
    );
    match &verdict.problem {
        None => format!("the log holds: {found}"),
        Some(problem) => format!("THE LOG DOES NOT HOLD: {problem}\nbefore that: {found}"),
    }
}
