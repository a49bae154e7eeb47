//! The sealer's benchmark: what reading, unsealing and writing a large store costs, beside SQLCipher and age files.
//!
//! Everything goes through the sealer's public API, as the daemon uses it. Each answer is compared with what was stored;
//! one that differs ends the run. Counts of fsyncs are judged, since they do not depend on the machine; no time is.
//!
//! Parts of the work are this program again, as a child: making a store (so that its memory is not counted) and the
//! writes whose system calls are traced.
//!
//! `tests/bench/run sealer` builds the programs and starts this one; its header explains the rows.

mod age_files;
mod fsyncs;
mod large;
mod site;
mod sqlcipher;
mod writes;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use mcpist_secret::alloc::ZeroOnFree;
use mcpist_secret::memory::{self, Policy};
use mcpist_tests::report::Report;

// The daemon's allocator: wiping is part of the cost.
#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

/// Secret memory; a batch of credentials stands in it while a store is made.
const ARENA: usize = 8 << 20;

/// Any failure of the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How much work is done.
struct Counts {
    /// Credentials of the stores, the largest first: memory that was used once hides what is used later.
    stores: &'static [usize],
    /// Reads of each kind.
    reads: usize,
    /// Commits of each kind by each of the writers.
    commits: usize,
    /// Credentials in age files.
    files: usize,
}

const FULL: Counts = Counts {
    stores: &[1_000_000, 100_000],
    reads: 200_000,
    commits: 200,
    files: 10_000,
};
const SHORT: Counts = Counts {
    stores: &[3_000],
    reads: 3_000,
    commits: 5,
    files: 200,
};

struct Options {
    counts: &'static Counts,
    json: bool,
    /// Where stores are made and kept for the next run.
    folder: PathBuf,
    /// The program of `tests/bench/sqlcipher.c`.
    sqlcipher: PathBuf,
}

fn options(arguments: &[String]) -> Result<Options> {
    let [folder, sqlcipher, flags @ ..] = arguments else {
        return Err("usage: bench-sealer FOLDER SQLCIPHER-PROGRAM [--short] [--json]".into());
    };
    let mut options = Options {
        counts: &FULL,
        json: false,
        folder: folder.into(),
        sqlcipher: sqlcipher.into(),
    };
    for flag in flags {
        match flag.as_str() {
            "--short" => options.counts = &SHORT,
            "--json" => options.json = true,
            other => return Err(format!("no {other:?} here: [--short] [--json]").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    memory::init(ARENA, Policy::Warn)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("make") => return site::make(&arguments),
        Some("commit") => return fsyncs::commit(&arguments),
        _ => {}
    }
    let options = options(&arguments)?;
    let report = measure(&options)?;
    let text = if options.json {
        report.to_json_lines()
    } else {
        report.to_table()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn measure(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let Options { counts, folder, .. } = options;
    for records in counts.stores {
        large::measure(folder, *records, counts.reads, &mut report)?;
    }
    let largest = counts.stores.first().ok_or("no size of a store")?;
    writes::measure(folder, counts.commits, &mut report)?;
    fsyncs::measure(folder, &mut report)?;
    sqlcipher::measure(options, *largest, &mut report)?;
    age_files::measure(counts.files, &size_name(*largest), &mut report)?;
    Ok(report)
}

/// A size as rows are named: `1m`, `100k`.
fn size_name(records: usize) -> String {
    match records {
        1_000_000.. => format!("{}m", records / 1_000_000),
        _ => format!("{}k", records / 1_000),
    }
}

/// This program as a child.
fn again(arguments: &[&str]) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// A path as an argument.
fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| "a path that is not UTF-8".into())
}
