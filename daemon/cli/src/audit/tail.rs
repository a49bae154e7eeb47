//! `audit tail`: the last lines as they stand, verified as they come.

use std::io::Write;

use clap::Args;
use mcpist_core::api::{AskLines, Lines, LinesFrom, path};
use mcpist_core::audit::{Seq, Verifier, place};

use super::source;
use crate::Context;
use crate::error::{Error, Result};

#[derive(Args)]
pub(super) struct TailArgs {
    /// Lines to begin with
    #[arg(short = 'n', long, default_value_t = 20, value_name = "LINES")]
    lines: u64,
    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(context: &Context, args: TailArgs) -> Result<u8> {
    // From the beginning of a segment, which is what a chain can be verified from.
    let mut verifier = Verifier::resume();
    let from = LinesFrom::Last(args.lines);
    let mut after = None;
    let mut open = true;
    let mut last = source::from_daemon(&context.client, from, &mut verifier, |line, lines| {
        // What the log held when it was asked for the first time; what came since is new, and shown.
        let after = *after.get_or_insert(lines.last.saturating_sub(args.lines));
        if open && place(line).is_some_and(|(Seq(seq), _)| seq > after) {
            open = show(line)?;
        }
        Ok(())
    })
    .await?;
    while args.follow && open && !verifier.has_failed() {
        let ask = AskLines {
            from: LinesFrom::Cursor(last.next),
            wait: true,
        };
        let lines: Lines = context.client.post(path::AUDIT_LINES, &ask).await?;
        for line in lines.text.as_bytes().split_inclusive(|b| *b == b'\n') {
            open = open && verifier.feed(line) && show(line)?;
        }
        last = lines;
    }
    let report = verifier.finish();
    if report.lines == 0 && report.problem.is_some() && last.last == 0 {
        return Err(Error::new("audit_empty", "the log has no line yet"));
    }
    match report.problem {
        None => {
            context.out.note(&format!(
                "verified from line {} on, {} lines at the end not yet signed",
                report.anchor.seq + 1 - report.lines,
                report.unsigned_tail
            ));
            Ok(0)
        }
        Some(problem) => Err(Error::new(
            "audit_damaged",
            format!("the log does not hold: {problem}"),
        )),
    }
}

/// Shows a line; false where nobody reads any more.
fn show(line: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(line).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(Error::from),
    }
}
