//! What happened while the log was closed: held in memory, written when it opens.
//!
//! Owns the start of the process and a list of what was noted, each with its first time and a count. Promises that a
//! flood costs [`KINDS`] lines and one more, and that what the log does not take stays for its next opening. Does not
//! outlive the process; the journal has all of it.

use mcpist_core::audit::UnixMs;
use mcpist_core::event::{Event, Step};

use super::writer::Writer;
use super::{AuditError, now};

/// Different notes that are kept apart.
const KINDS: usize = 32;
/// Stands for all that came when there were [`KINDS`] already.
const OTHERS: &str = "others";

#[derive(Default)]
pub(super) struct Boot {
    start: Option<(UnixMs, bool)>,
    notes: Vec<Note>,
}

struct Note {
    since: UnixMs,
    what: &'static str,
    code: &'static str,
    uid: Option<u32>,
    repeats: u64,
}

impl Boot {
    /// Notes that the process started, with a development configuration or without.
    pub(super) fn started(&mut self, dev: bool) {
        self.start = Some((now(), dev));
    }

    /// Notes an event of the sockets and of the runner, and a refused share. All others belong to an open store.
    pub(super) fn note(&mut self, event: &Event<'_>) {
        let mut times = 1;
        let (code, uid) = match *event {
            Event::AdminRefused { uid, code, .. } => (code.as_str(), Some(uid)),
            Event::TicketIssued { uid, purpose } => (purpose, Some(uid)),
            Event::PeerRefused { uid, peers, .. } => {
                times = peers;
                ("", uid)
            }
            Event::RunnerConnected { uid, .. } => ("", Some(uid)),
            Event::RunnerLost { reason, .. } => (reason, None),
            Event::RunnerRefused { uid, reason, .. } => (reason, Some(uid)),
            Event::Ceremony {
                step: Step::ShareRefused { reason },
                uid,
                ..
            } => (reason, uid),
            _ => return,
        };
        self.count(event.name(), code, uid, times);
    }

    fn count(&mut self, what: &'static str, code: &'static str, uid: Option<u32>, times: u64) {
        let is_it = |n: &&mut Note| (n.what, n.code, n.uid) == (what, code, uid);
        if let Some(note) = self.notes.iter_mut().find(is_it) {
            note.repeats = note.repeats.saturating_add(times);
        } else if self.notes.len() >= KINDS && what != OTHERS {
            self.count(OTHERS, "", None, times);
        } else {
            self.notes.push(Note {
                since: now(),
                what,
                code,
                uid,
                repeats: times,
            });
        }
    }

    /// Writes all of it, and forgets what is written.
    pub(super) fn write(&mut self, writer: &mut Writer) -> Result<(), AuditError> {
        if let Some((since, dev)) = self.start {
            let version = env!("CARGO_PKG_VERSION");
            let event = Event::Start {
                since,
                version,
                dev,
            };
            writer.append(&event)?;
            self.start = None;
        }
        while let Some(note) = self.notes.first() {
            let event = Event::Boot {
                since: note.since,
                what: note.what,
                code: note.code,
                uid: note.uid,
                repeats: note.repeats,
            };
            writer.append(&event)?;
            self.notes.remove(0);
        }
        Ok(())
    }

    /// Takes back what could not be written, before what was noted since.
    pub(super) fn put_back(&mut self, older: Boot) {
        let newer = std::mem::replace(self, older);
        self.start = self.start.or(newer.start);
        self.notes.extend(newer.notes);
        self.notes.truncate(KINDS + 1);
    }
}
