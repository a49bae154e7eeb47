//! `audit verify`: the log verified from its files or exports.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::PublicKey;
use mcpist_core::audit::{Report, Verifier};
use mcpist_core::error::EXIT_FAILURE;
use mcpist_core::ids::Digest;
use mcpist_quorum::CeremonyRecord;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::{Context, secret};

const MAX_RECORD: u64 = 64 * 1024;
const CHUNK: usize = 256 * 1024;

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The folder of the log, or its files in order
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    start: Start,
    /// A head that the log must contain
    #[arg(long, value_name = "HEAD")]
    expect: Option<Digest>,
}

/// What shows that the first line is genuine.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct Start {
    /// The ceremony record of init, or of the restore that began the log's life: it holds the first audit key
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The first audit key
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
    /// A point that a verification of earlier files showed
    #[arg(long, value_name = "POINT")]
    point: Option<Digest>,
}

impl Start {
    /// The verifier that begins there; none where nothing is given.
    pub(super) fn verifier(&self) -> Result<Option<Verifier>> {
        if let Some(point) = self.point {
            return Ok(Some(Verifier::from_point(point)));
        }
        let key = match (&self.key, &self.record) {
            (Some(key), _) => {
                PublicKey::parse(key)
                    .ok_or_else(|| Error::usage("--key is not 64 lower-case hexadecimal digits"))?
                    .0
            }
            (None, Some(record)) => first_key(&secret::read_file(record, MAX_RECORD)?)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Verifier::new(key)))
    }
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
    /// From where later files are verified without these.
    pub(crate) point: Digest,
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
            point: report.anchor.point(),
            problem: report.problem.map(|p| p.to_string()),
        }
    }
}

pub(super) async fn run(context: &Context, args: VerifyArgs) -> Result<u8> {
    let needs = || {
        Error::usage("give --record, --key or --point: what shows that the first line is genuine")
    };
    let verifier = args.start.verifier()?.ok_or_else(needs)?;
    let files = files(&args.paths)?;
    let verifying = async { verify_with(verifier, &files, args.expect) };
    let verdict = context.out.while_busy("verifying", verifying).await?;
    context.out.data(&verdict, show)?;
    Ok(if verdict.ok { 0 } else { EXIT_FAILURE })
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

/// Verifies the files of one log, from its first key on, in order.
pub(crate) fn verify_files(
    files: &[PathBuf],
    first_key: [u8; 32],
    expect: Option<Digest>,
) -> Result<Verdict> {
    verify_with(Verifier::new(first_key), files, expect)
}

fn verify_with(verifier: Verifier, files: &[PathBuf], expect: Option<Digest>) -> Result<Verdict> {
    let mut verifier = verifier.overlapping();
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
        "{} lines, {} checkpoints, {} lines not yet signed, {} recoveries\nhead {}\npoint {}",
        verdict.lines,
        verdict.checkpoints,
        verdict.unsigned_tail,
        verdict.recovered,
        verdict.head,
        verdict.point
    );
    match &verdict.problem {
        None => format!("the log holds: {found}"),
        Some(problem) => format!("THE LOG DOES NOT HOLD: {problem}\nbefore that: {found}"),
    }
}
