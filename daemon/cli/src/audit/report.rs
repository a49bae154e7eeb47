//! `audit report`: what happened, from the lines of a log. The page is made by [`super::page`].
//!
//! Owns which lines are told of and how they are counted. Promises that a line is looked at only after it was verified; that rows
//! stand in the order of the log, whatever the host's clock said, and that the page tells where that clock went back; and
//! that every figure is a count of lines. A call without an outcome is shown as such.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mcpist_core::api::LinesFrom;
use mcpist_core::audit::{Verifier, place};
use mcpist_core::date;
use mcpist_core::error::EXIT_FAILURE;
use mcpist_core::text::excerpt;
use serde::Serialize;
use serde_json::Value;

use super::verify::{Start, Verdict};
use super::{page, source, verify};
use crate::Context;
use crate::error::{Error, Result};

/// Rows of a page.
const MAX_ROWS: usize = 100_000;
/// Places where the clock went back that are told one by one.
const MAX_BACK: usize = 100;
/// Longest cell in bytes.
const CELL: usize = 200;

#[derive(Args)]
pub(super) struct ReportArgs {
    /// The folder of a log, or its files or exports in order; none: the lines that the daemon has
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    selection: Selected,
    /// The form of the page; --output json goes before it
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// For a terminal.
    Text,
    /// One file for a browser, to be printed.
    Html,
}

/// Which lines are told of.
#[derive(Args)]
struct Selected {
    /// Calls of this principal alone
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Calls of this tool alone: MODULE.TOOL, or MODULE for all of its tools
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// From this time on: a UTC date, or 2027-01-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

/// What was asked for, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub(super) principal: Option<String>,
    pub(super) tool: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) figures: Figures,
    pub(super) principals: BTreeMap<String, Figures>,
    pub(super) tools: BTreeMap<String, Figures>,
    pub(super) rows: Vec<Row>,
    /// Lines whose time is before that of the line before.
    pub(super) clock_back: u64,
    /// The first of them.
    pub(super) clock_back_at: Vec<u64>,
    /// What shows that the first line is genuine.
    pub(super) trusted: bool,
    pub(super) verdict: Verdict,
}

/// Counts of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    /// Calls that were made.
    pub(super) calls: u64,
    /// Of them, those that gave a result.
    pub(super) succeeded: u64,
    /// Those that gave an error.
    pub(super) failed: u64,
    /// Those whose end no line tells.
    pub(super) unknown: u64,
    /// Attempts that were refused, and are none of the calls.
    pub(super) refused: u64,
}

/// What a row tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Succeeded,
    Failed,
    Unknown,
    Refused,
    /// An act or an event that is no call.
    Event,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) time: String,
    pub(super) who: String,
    pub(super) what: String,
    pub(super) outcome: String,
    pub(super) kind: Kind,
    /// How many of them the line stands for.
    pub(super) times: u64,
}

pub(super) async fn run(context: &Context, args: ReportArgs) -> Result<u8> {
    let mut book = Book::new(&args.selection)?;
    let trusted = args.start.verifier()?;
    let is_trusted = trusted.is_some();
    let mut verifier = trusted.unwrap_or_else(Verifier::resume).overlapping();
    if args.paths.is_empty() {
        source::from_daemon(
            &context.client,
            LinesFrom::Beginning,
            &mut verifier,
            |line, _| book.line(line),
        )
        .await?;
    } else {
        let files = verify::files(&args.paths)?;
        let reading = async { source::from_files(&files, &mut verifier, |line| book.line(line)) };
        context.out.while_busy("reading", reading).await?;
    }
    let page = book.page(args.selection, is_trusted, verifier.finish().into());
    context.out.data(&page, |page| match args.format {
        Form::Text => page::text(page),
        Form::Html => page::html(page),
    })?;
    Ok(if page.verdict.ok { 0 } else { EXIT_FAILURE })
}

/// The page while it is written.
struct Book {
    principal: Option<String>,
    tool: Option<String>,
    from: u64,
    to: u64,
    rows: Vec<Row>,
    /// Rows of calls without an outcome, by the sequence of the intent.
    open: HashMap<u64, usize>,
    latest: u64,
    clock_back: u64,
    clock_back_at: Vec<u64>,
}

impl Book {
    fn new(selected: &Selected) -> Result<Book> {
        let time = |text: &Option<String>| {
            text.as_deref()
                .map(date::parse)
                .transpose()
                .map_err(Error::usage)
        };
        Ok(Book {
            principal: selected.principal.clone(),
            tool: selected.tool.clone(),
            from: time(&selected.from)?.unwrap_or_default(),
            to: time(&selected.to)?.unwrap_or(u64::MAX),
            rows: Vec::new(),
            open: HashMap::new(),
            latest: 0,
            clock_back: 0,
            clock_back_at: Vec::new(),
        })
    }

    /// Takes the next line, which was verified.
    fn line(&mut self, line: &[u8]) -> Result<()> {
        let form = || Error::new("audit_damaged", "a line that verifies is not an audit line");
        let (seq, seconds) = place(line).ok_or_else(form)?;
        let value: Value = serde_json::from_slice(line).map_err(|_| form())?;
        if seconds < self.latest {
            self.clock_back += 1;
            if self.clock_back_at.len() < MAX_BACK {
                self.clock_back_at.push(seq.0);
            }
        }
        self.latest = seconds;
        if text(&value, "event") == "call_outcome" {
            self.outcome(&value);
        } else if (self.from..self.to).contains(&seconds) {
            self.event(seq.0, &value);
        }
        if self.rows.len() > MAX_ROWS {
            return Err(Error::new(
                "audit_many",
                format!("more than {MAX_ROWS} rows are no page to read"),
            ));
        }
        Ok(())
    }

    fn outcome(&mut self, value: &Value) {
        let intent = value["intent"].as_u64().unwrap_or_default();
        let Some(row) = self.open.remove(&intent) else {
            return;
        };
        let row = &mut self.rows[row];
        let code = text(value, "code");
        let ms = value["micros"].as_u64().unwrap_or_default() / 1_000;
        let is_error = value["is_error"] == true;
        row.kind = if code == "ok" && !is_error {
            Kind::Succeeded
        } else {
            Kind::Failed
        };
        row.outcome = match (code, is_error) {
            ("ok", false) => format!("done in {ms} ms"),
            ("ok", true) => format!("the tool reported a failure, {ms} ms"),
            (code, _) => format!("{}, {ms} ms", excerpt(code, CELL)),
        };
    }

    fn event(&mut self, seq: u64, value: &Value) {
        let name = text(value, "event");
        let (kind, who, what, outcome, times) = match name {
            "call_intent" => {
                let access = text(value, "access");
                let what = format!("{} ({access})", tool_of(value));
                (
                    Kind::Unknown,
                    text(value, "principal").to_owned(),
                    what,
                    "no outcome recorded".to_owned(),
                    1,
                )
            }
            "call_denied" => {
                let code = text(value, "code").to_owned();
                (
                    Kind::Refused,
                    text(value, "principal").to_owned(),
                    tool_of(value),
                    code,
                    1,
                )
            }
            "calls_denied" => {
                let times = value["calls"].as_u64().unwrap_or(1);
                let what = "tools that it may not see".to_owned();
                (
                    Kind::Refused,
                    text(value, "principal").to_owned(),
                    what,
                    format!("refused {times} times"),
                    times,
                )
            }
            // Of the chain itself; the foot of the page tells of them.
            "segment" | "checkpoint" => return,
            _ => {
                let refused = name.ends_with("_refused")
                    || text(value, "step") == "share_refused"
                    || name == "requests_refused";
                let kind = if refused { Kind::Refused } else { Kind::Event };
                let times = ["requests", "peers", "repeats"]
                    .iter()
                    .find_map(|n| value[n].as_u64());
                let who = value["uid"].as_u64().map(|uid| format!("uid {uid}"));
                (
                    kind,
                    who.unwrap_or_default(),
                    name.replace('_', " "),
                    details(value),
                    times.unwrap_or(1),
                )
            }
        };
        if !self.is_selected(name, value) {
            return;
        }
        if kind == Kind::Unknown {
            self.open.insert(seq, self.rows.len());
        }
        self.rows.push(Row {
            seq,
            time: text(value, "time").to_owned(),
            who: excerpt(&who, CELL),
            what: excerpt(&what, CELL),
            outcome: excerpt(&outcome, CELL),
            kind,
            times,
        });
    }

    /// Whether it is of the principal and of the tool that were asked for. What is no call is of neither.
    fn is_selected(&self, name: &str, value: &Value) -> bool {
        let principal = (self.principal.as_deref()).is_none_or(|p| text(value, "principal") == p);
        let tool = self.tool.as_deref().is_none_or(|wanted| {
            let of = tool_of(value);
            name != "calls_denied" && (of == wanted || text(value, "module") == wanted)
        });
        principal && tool
    }

    fn page(self, selected: Selected, trusted: bool, verdict: Verdict) -> Page {
        let mut page = Page {
            principal: selected.principal,
            tool: selected.tool,
            from: selected.from,
            to: selected.to,
            figures: Figures::default(),
            principals: BTreeMap::new(),
            tools: BTreeMap::new(),
            rows: self.rows,
            clock_back: self.clock_back,
            clock_back_at: self.clock_back_at,
            trusted,
            verdict,
        };
        for row in &page.rows {
            page.figures.count(row);
            if row.kind != Kind::Event && !row.who.is_empty() {
                page.principals
                    .entry(row.who.clone())
                    .or_default()
                    .count(row);
            }
            let is_call = !matches!(row.kind, Kind::Event | Kind::Refused);
            if let Some((tool, _)) = row.what.rsplit_once(" (").filter(|_| is_call) {
                page.tools.entry(tool.to_owned()).or_default().count(row);
            }
        }
        page
    }
}

impl Figures {
    fn count(&mut self, row: &Row) {
        match row.kind {
            Kind::Event => return,
            Kind::Refused => {
                self.refused += row.times;
                return;
            }
            Kind::Succeeded => self.succeeded += 1,
            Kind::Failed => self.failed += 1,
            Kind::Unknown => self.unknown += 1,
        }
        self.calls += 1;
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn tool_of(value: &Value) -> String {
    format!("{}.{}", text(value, "module"), text(value, "tool"))
}

/// The event's own fields, digests by their beginning.
fn details(value: &Value) -> String {
    let frame = ["seq", "time", "event", "hash", "outbox", "uid", "at"];
    let fields = value.as_object().into_iter().flatten();
    let own = fields.filter(|(name, _)| !frame.contains(&name.as_str()));
    let show = |(name, value): (&String, &Value)| match value {
        Value::String(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{name} {}…", &text[..12])
        }
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    };
    own.map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn selected() -> Selected {
        Selected {
            principal: None,
            tool: None,
            from: None,
            to: None,
        }
    }

    /// A page of lines without their hashes, the way they come after their verification.
    fn page(selected: Selected, lines: &[(&str, &str)]) -> Page {
        let mut book = Book::new(&selected).unwrap();
        for (seq, (time, fields)) in (1..).zip(lines) {
            let line = format!("{{\"seq\":{seq},\"time\":\"2026-11-24T{time}.000Z\",{fields}}}\n");
            book.line(line.as_bytes()).unwrap();
        }
        let verdict = Verifier::resume().finish().into();
        book.page(selected, true, verdict)
    }

    const INTENT: &str = r#""event":"call_intent","call":1,"principal":"ada","module":"echo","tool":"get","access":"read""#;
    const DENIED: &str = r#""event":"call_denied","principal":"bob","module":"echo","tool":"<script>","code":"unknown_tool""#;

    fn sample() -> Vec<(&'static str, &'static str)> {
        vec![
            ("10:00:00", INTENT),
            (
                "10:00:01",
                r#""event":"call_outcome","call":1,"intent":1,"code":"ok","is_error":false,"micros":2500"#,
            ),
            ("10:00:02", INTENT),
            (
                "10:00:03",
                r#""event":"call_outcome","call":2,"intent":3,"code":"upstream_status","is_error":true,"micros":1000"#,
            ),
            ("10:00:04", INTENT),
            ("10:00:05", DENIED),
            (
                "10:00:06",
                r#""event":"calls_denied","principal":"bob","calls":7"#,
            ),
            ("10:00:07", r#""event":"sealed","uid":1000,"reason":"x""#),
        ]
    }

    #[test]
    fn every_figure_is_a_count_of_lines() {
        let page = page(selected(), &sample());
        let figures = Figures {
            calls: 3,
            succeeded: 1,
            failed: 1,
            unknown: 1,
            refused: 8,
        };
        assert_eq!(page.figures, figures);
        assert_eq!(page.principals["bob"].refused, 8);
        assert_eq!((page.tools["echo.get"].calls, page.rows.len()), (3, 6));
    }

    #[test]
    fn a_selection_takes_calls_of_a_principal_a_tool_and_a_time() {
        let of = |principal: Option<&str>, tool: Option<&str>, from: Option<&str>| {
            let selected = Selected {
                principal: principal.map(str::to_owned),
                tool: tool.map(str::to_owned),
                from: from.map(str::to_owned),
                to: None,
            };
            page(selected, &sample()).figures
        };
        assert_eq!(of(Some("ada"), None, None).calls, 3);
        assert_eq!(of(Some("bob"), None, None).refused, 8);
        assert_eq!(of(None, Some("echo.get"), None).calls, 3);
        assert_eq!(of(None, Some("echo"), None).refused, 1);
        assert_eq!(of(None, Some("other"), None), Figures::default());
        // The outcome of a call is told of with it, whenever it came.
        assert_eq!(of(None, None, Some("2026-11-24T10:00:03Z")).calls, 1);
    }

    #[test]
    fn rows_keep_their_order_where_the_clock_goes_back_and_the_page_says_so() {
        let page = page(
            selected(),
            &[
                ("10:00:05", INTENT),
                ("09:00:00", INTENT),
                ("09:00:01", INTENT),
            ],
        );
        let order: Vec<u64> = page.rows.iter().map(|row| row.seq).collect();
        assert_eq!(
            (order, page.clock_back, page.clock_back_at.clone()),
            (vec![1, 2, 3], 1, vec![2])
        );
        assert!(page::text(&page).contains("The host's clock went back 1 times (line 2)"));
    }

    #[test]
    fn what_a_client_named_is_text_on_the_page() {
        let page = page(selected(), &sample());
        let html = page::html(&page);
        assert!(html.contains("echo.&lt;script&gt;"), "{html}");
        assert!(!html.contains("<script"), "{html}");
    }
}
