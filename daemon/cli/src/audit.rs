//! `audit`: the log verified, read, exported and reported on. All but `head`, `tail`, `export`, `confirm` and `match` work
//! without the daemon, on any machine that has the files.

mod confirm;
mod export;
mod matching;
mod page;
mod report;
mod source;
mod tail;
mod verify;

use clap::{Args, Subcommand};
use mcpist_core::api::{AuditHead, path};

use crate::Context;
use crate::error::Result;

pub(crate) use verify::{files, first_key, verify_files};

/// The audit log
#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Verify the files of a log or its exports: every hash, every signed checkpoint; needs no daemon
    #[command(after_help = "Examples:
  mcpist audit verify /var/lib/mcpist/audit --record ceremony.bin
  mcpist audit verify copies/ --key 64HEX --expect HEAD
  mcpist audit verify march.jsonl --point POINT

--expect proves that nothing was cut off at the end: it demands a head that was noted down before.
--point verifies later files without the earlier ones: it takes the point that a verification of those showed.
Exit status: 0 the log holds, 1 it does not or cannot be read.")]
    Verify(verify::VerifyArgs),
    /// Show the last line's number and hash, to be noted down
    #[command(after_help = "Examples:\n  mcpist audit head")]
    Head,
    /// Write lines of the log into a new file, on a medium that leaves the host
    #[command(after_help = "Examples:
  mcpist audit export /media/stick/audit-2026-11.jsonl
  mcpist audit export /media/stick/new.jsonl --new
  mcpist audit export /media/stick/year.jsonl --since 2026-01-01

The file holds the log's own lines: 'mcpist audit verify FILE', grep and sha256sum read it. It begins with the segment
that holds the line which is asked for. Segments that exports hold make room by themselves once somebody else has
confirmed that: mcpist audit confirm ('keep' and 'remove' in mcpist.toml).")]
    Export(export::ExportArgs),
    /// Say that you have an export which another auditor made, so that its lines may leave the host
    #[command(after_help = "Examples:
  mcpist audit confirm /media/stick/audit-2026-11.jsonl
  mcpist audit confirm --digest 64HEX

Verify the file before, on another machine: mcpist audit verify FILE --record ceremony.bin. Who exported cannot confirm.")]
    Confirm(confirm::ConfirmArgs),
    /// Show the last lines, verified as they come
    #[command(after_help = "Examples:
  mcpist audit tail
  mcpist audit tail -n 100
  mcpist audit tail -f | grep call_denied

Lines are JSON and stand as they are in the log, with --output json as well.")]
    Tail(tail::TailArgs),
    /// Who did what, when, and what came of it: a page to print
    #[command(after_help = "Examples:
  mcpist audit report --principal ada --from 2026-11-01 --to 2026-12-01
  mcpist audit report --tool prometheus.query --format html > report.html
  mcpist audit report march.jsonl --point POINT --format html > march.html

Without files the daemon is asked for the lines that it has. Times are UTC, --to is not included.
Exit status: 0 the log holds, 1 it does not: the page says so too.")]
    Report(report::ReportArgs),
    /// Compare a value with what a call's line says of its arguments
    #[command(after_help = "Examples:
  mcpist audit match 64HEX --file arguments.json
  printf '{\"item\":\"x\"}' | mcpist audit match 64HEX

The bytes are to be those that the client sent. The comparison is recorded. Exit status: 0 the same, 1 others.")]
    Match(matching::MatchArgs),
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
        AuditCommand::Verify(args) => verify::run(context, args).await,
        AuditCommand::Export(args) => export::run(context, args).await,
        AuditCommand::Confirm(args) => confirm::run(context, args).await,
        AuditCommand::Tail(args) => tail::run(context, args).await,
        AuditCommand::Report(args) => report::run(context, args).await,
        AuditCommand::Match(args) => matching::run(context, args).await,
    }
}
