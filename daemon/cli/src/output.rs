//! What is written where: results to standard output as text or versioned JSON, the rest to standard error.
//!
//! Promises that standard output holds the result and nothing else, in JSON one object
//! `{"schema":1,"data":…}` or `{"schema":1,"error":…}`, that progress is shown on a terminal only, and that `-q` never
//! hides what a person signs or confirms.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use mcpist_core::api::{Reply, SCHEMA};
use serde::Serialize;

use crate::error::{Error, Result};

/// How often a line of progress is brought up to date.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one object with a schema version.
    Json,
}

/// Where results and notes go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

#[derive(Serialize)]
struct Failed<'a> {
    schema: u16,
    error: &'a Error,
}

impl Output {
    pub(crate) fn new(format: Format, quiet: bool) -> Output {
        Output { format, quiet }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// The result of a command.
    pub(crate) fn data<T: Serialize>(
        self,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let text = if self.is_json() {
            serde_json::to_string(&Reply::new(data)).map_err(|e| Error::new("internal", e))?
        } else {
            text(data)
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            // A reader such as `head` that has enough is no failure.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// A remark that is no result: standard error, unless `-q`.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // Nobody to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// What a person signs, confirms or gives a share under: standard error, always.
    pub(crate) fn terms(self, text: &str) {
        // Nobody to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// What `act` gives; a changing line says meanwhile that it goes on.
    pub(crate) async fn while_busy<T>(
        self,
        doing: &'static str,
        act: impl Future<Output = T>,
    ) -> T {
        self.while_told(doing, act, async || None).await
    }

    /// The same, and the line says what `told` says of it, asked again and again.
    pub(crate) async fn while_told<T>(
        self,
        doing: &'static str,
        act: impl Future<Output = T>,
        told: impl AsyncFn() -> Option<String>,
    ) -> T {
        let shown = !self.quiet && std::io::stderr().is_terminal();
        if !shown {
            return act.await;
        }
        let line = indicatif::ProgressBar::new_spinner().with_message(doing);
        line.enable_steady_tick(Duration::from_millis(120));
        let mut act = std::pin::pin!(act);
        let done = loop {
            match tokio::time::timeout(TOLD_EVERY, act.as_mut()).await {
                Ok(done) => break done,
                Err(_) => line.set_message(told().await.unwrap_or_else(|| doing.to_owned())),
            }
        };
        line.finish_and_clear();
        done
    }

    /// Says why a command failed, and gives its exit status.
    pub(crate) fn failure(self, error: &Error) -> ExitCode {
        if self.is_json() {
            let failed = Failed {
                schema: SCHEMA,
                error,
            };
            if let Ok(json) = serde_json::to_string(&failed) {
                let _ = writeln!(std::io::stdout(), "{json}");
            }
        } else {
            let mut err = std::io::stderr().lock();
            let reason = error.reason().filter(|r| *r != error.code());
            let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
            let _ = writeln!(err, "error[{}{reason}]: {error}", error.code());
            if let Some(next) = error.next_step() {
                let _ = writeln!(err, "next: {next}");
            }
        }
        ExitCode::from(error.exit())
    }
}

/// Rows in columns that are as wide as their widest cell.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            out.push_str(&format!("{cell:<width$}  "));
        }
        out.trim_end().to_owned()
    };
    let mut out = vec![line(&mut header.iter().copied())];
    out.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    out.join("\n")
}

/// The items in one cell.
pub(crate) fn joined(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["team-vault".to_owned(), "ok".to_owned()]];
        assert_eq!(
            table(&["name", "state"], &rows),
            "name        state\nteam-vault  ok"
        );
    }
}
