//! An audit report as a page: for a terminal, and as one HTML file to print. Pure functions.
//!
//! Promises that the HTML needs nothing but itself, runs nothing (its own policy forbids all but its style), and shows
//! whatever a line holds as text; and that both forms end with head, point and the state of the verification.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Figures, Kind, Page, Row};
use crate::output::table;

const STYLE: &str = "@page{size:A4 landscape;margin:12mm}body{font:10pt/1.35 sans-serif;margin:1em;color:#000}\
h1{font-size:15pt}h2{font-size:12pt;margin-top:1.4em}table{border-collapse:collapse;width:100%}\
thead{display:table-header-group}tr{break-inside:avoid}th,td{text-align:left;vertical-align:top;\
padding:2px 6px;border-bottom:1px solid #bbb;overflow-wrap:anywhere}td.n{text-align:right}\
tr.failed td,tr.refused td{font-weight:bold}footer{margin-top:1.5em;border-top:2px solid #000;break-inside:avoid}\
code{font:9pt monospace;overflow-wrap:anywhere}.bad{border:3px solid #000;padding:.5em;font-weight:bold}";

/// What was asked for, in words.
fn selection(page: &Page) -> String {
    let all = || "all".to_owned();
    format!(
        "principal: {}; tool: {}; from: {}; to: {} (UTC)",
        page.principal.clone().unwrap_or_else(all),
        page.tool.clone().unwrap_or_else(all),
        page.from.as_deref().unwrap_or("the first line"),
        page.to.as_deref().unwrap_or("the last line"),
    )
}

/// The state of the verification, in words.
fn verification(page: &Page) -> String {
    let verdict = &page.verdict;
    let mut said = match &verdict.problem {
        Some(problem) => {
            format!("THE LOG DOES NOT HOLD: {problem}; the page tells of the lines before it")
        }
        None => "The log holds".to_owned(),
    };
    let _ = write!(
        said,
        ": {} lines, {} signed checkpoints, {} lines at the end not yet signed, {} recoveries.",
        verdict.lines, verdict.checkpoints, verdict.unsigned_tail, verdict.recovered
    );
    said.push_str(if page.trusted {
        " Verified from a key or point that was given."
    } else {
        " What the first line says of the log before it was not checked: give --record, --key or --point."
    });
    if page.clock_back > 0 {
        let at: Vec<String> = page.clock_back_at.iter().map(u64::to_string).collect();
        let _ = write!(
            said,
            " The host's clock went back {} times (line {}): rows stand in the order of the log, and times and spans there are not to be relied on.",
            page.clock_back,
            at.join(", ")
        );
    }
    said
}

fn cells(figures: &Figures) -> [String; 5] {
    [
        figures.calls,
        figures.succeeded,
        figures.failed,
        figures.unknown,
        figures.refused,
    ]
    .map(|n| n.to_string())
}

const COLUMNS: [&str; 5] = ["calls", "succeeded", "failed", "no outcome", "refused"];

/// The figures of all, of each principal and of each tool.
fn groups(page: &Page) -> [(&'static str, Vec<Vec<String>>); 3] {
    let of = |groups: &BTreeMap<String, Figures>| {
        let row = |(name, figures): (&String, &Figures)| {
            let mut row = vec![name.clone()];
            row.extend(cells(figures));
            row
        };
        groups.iter().map(row).collect()
    };
    let mut all = vec!["all".to_owned()];
    all.extend(cells(&page.figures));
    [
        ("total", vec![all]),
        ("who", of(&page.principals)),
        ("tool", of(&page.tools)),
    ]
}

fn row_cells(row: &Row) -> Vec<String> {
    let [seq, time] = [row.seq.to_string(), row.time.replace('T', " ")];
    vec![
        seq,
        time,
        row.who.clone(),
        row.what.clone(),
        row.outcome.clone(),
    ]
}

const ROW: [&str; 5] = ["line", "time (UTC)", "who", "what", "outcome"];

/// The page for a terminal.
pub(super) fn text(page: &Page) -> String {
    let mut out = format!("Audit report\n{}\n", selection(page));
    for (name, rows) in groups(page) {
        if !rows.is_empty() {
            let mut header = vec![name];
            header.extend(COLUMNS);
            let _ = write!(out, "\n{}\n", table(&header, &rows));
        }
    }
    let rows: Vec<Vec<String>> = page.rows.iter().map(row_cells).collect();
    let _ = write!(
        out,
        "\n{}\n\n{}\nhead {}\npoint {}\n",
        table(&ROW, &rows),
        verification(page),
        page.verdict.head,
        page.verdict.point
    );
    out
}

/// The page as one HTML file.
pub(super) fn html(page: &Page) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>Audit report</title>\n<style>{STYLE}</style></head>\n\
         <body>\n<h1>Audit report</h1>\n<p>{}</p>\n",
        escaped(&selection(page))
    );
    for (name, rows) in groups(page) {
        if !rows.is_empty() {
            let mut header = vec![name];
            header.extend(COLUMNS);
            let rows = rows.iter().map(|row| ("", row.as_slice()));
            push_table(&mut out, &header, rows);
        }
    }
    out.push_str("<h2>Line by line</h2>\n");
    let rows: Vec<(&str, Vec<String>)> = page
        .rows
        .iter()
        .map(|row| (class(row.kind), row_cells(row)))
        .collect();
    let rows = rows.iter().map(|(class, cells)| (*class, cells.as_slice()));
    push_table(&mut out, &ROW, rows);
    let bad = if page.verdict.ok {
        ""
    } else {
        " class=\"bad\""
    };
    let _ = write!(
        out,
        "<footer><p{bad}>{}</p>\n<p>head <code>{}</code><br>point <code>{}</code></p></footer>\n</body></html>\n",
        escaped(&verification(page)),
        page.verdict.head,
        page.verdict.point
    );
    out
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed | Kind::Unknown => "failed",
        Kind::Refused => "refused",
        Kind::Succeeded | Kind::Event => "",
    }
}

fn push_table<'r>(
    out: &mut String,
    header: &[&str],
    rows: impl Iterator<Item = (&'r str, &'r [String])>,
) {
    out.push_str("<table><thead><tr>");
    for name in header {
        let _ = write!(out, "<th>{}</th>", escaped(name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for (class, cells) in rows {
        let _ = write!(out, "<tr class=\"{class}\">");
        for cell in cells {
            let number = cell.bytes().all(|b| b.is_ascii_digit());
            let class = if number { " class=\"n\"" } else { "" };
            let _ = write!(out, "<td{class}>{}</td>", escaped(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}

/// Text in HTML, in an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
