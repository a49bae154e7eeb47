//! Where log lines go: the journal when systemd started the process, else stderr.
//!
//! Promises: only lines of this product pass. What HTTP and TLS libraries log names hosts and
//! headers, and stays out at every level.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

fn ours(metadata: &Metadata<'_>) -> bool {
    metadata.level() <= LevelFilter::Info && metadata.target().starts_with("mcpist")
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ours(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if ours(record.metadata()) {
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

struct Journal(systemd_journal_logger::JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ours(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if ours(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {}
}

/// Installs the process's logger. Called once, at start.
pub(crate) fn init() {
    let journal = systemd_journal_logger::connected_to_journal()
        .then(systemd_journal_logger::JournalLog::new)
        .and_then(Result::ok);
    let logger: Box<dyn Log> = match journal {
        Some(journal) => Box::new(Journal(journal)),
        None => Box::new(Stderr),
    };
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
