//! Where log lines go: the journal when systemd started us, readable lines on stderr otherwise.
//!
//! Log lines carry names, codes and counts. They never carry arguments, answers, shares or credentials; what an
//! event means for the record belongs to the audit file, not here.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

/// Lines on stderr: `level target: message`.
struct Stderr;

fn wanted(metadata: &Metadata<'_>) -> bool {
    // Our own crates alone below a warning: a library's spans and requests are nobody's business here.
    let own = metadata.target().starts_with("mcpist") || metadata.level() <= LevelFilter::Warn;
    metadata.level() <= LevelFilter::Info && own && mcpist_mcp::may_log(metadata)
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if wanted(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            // A closed stderr is no reason to stop serving.
            let _ = writeln!(
                std::io::stderr(),
                "{level:5} {}: {}",
                record.target(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}

/// The journal behind the same cap.
struct Journal(systemd_journal_logger::JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if wanted(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {}
}

/// Installs the process's logger. Called once, at start.
pub(crate) fn init() {
    let logger: Box<dyn Log> = if systemd_journal_logger::connected_to_journal() {
        match systemd_journal_logger::JournalLog::new() {
            Ok(journal) => Box::new(Journal(journal)),
            Err(_) => Box::new(Stderr),
        }
    } else {
        Box::new(Stderr)
    };
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
