//! What happened while the log was closed: held in memory, written when it opens.
//!
//! Owns the start of the process and a list of what was noted, each with its first time and a count. Promises that a
//! flood of one event costs [`KINDS`] lines and one more and takes no room from another event, and that what the log does
//! not take stays for its next opening. Does not outlive the process; the journal has all of it.

use mcpist_core::audit::UnixMs;
use mcpist_core::event::{Ceremony, Event, Step};

use super::writer::Writer;
use super::{AuditError, now};

/// Notes of one event that are kept apart.
const KINDS: usize = 32;
/// The same of refused peers: any local user makes those, one by each uid that is had.
const PEERS: usize = 8;
/// The code of what came when there were so many already. Of that no uid is noted.
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

    /// Notes an event of the sockets and of the runner, a refused share, shares that were dropped, what witness receipts
    /// said, and the steps of a restore, which waits while the store is closed. All others belong to an open store.
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
            Event::ReceiptIgnored { reason, uid } => (reason, Some(uid)),
            Event::StoreRefused { reason, uid, .. } => (reason, uid),
            Event::Ceremony {
                step: Step::ShareRefused { reason },
                uid,
                ..
            } => (reason, uid),
            Event::Ceremony {
                ceremony: Ceremony::Unseal,
                step: Step::Cancelled,
                uid,
                ..
            } => ("unseal_cancelled", uid),
            Event::Ceremony {
                ceremony: Ceremony::Restore,
                step,
                uid,
                ..
            } => (restore_step(step), uid),
            _ => return,
        };
        self.add(Note {
            since: now(),
            what: event.name(),
            code,
            uid,
            repeats: times,
        });
    }

    fn add(&mut self, mut new: Note) {
        let room = if new.what == "peer_refused" {
            PEERS
        } else {
            KINDS
        };
        let is_it = |n: &Note, new: &Note| (n.what, n.code, n.uid) == (new.what, new.code, new.uid);
        let is_known = self.notes.iter().any(|n| is_it(n, &new));
        let alike = self.notes.iter().filter(|n| n.what == new.what).count();
        if !is_known && alike >= room {
            (new.code, new.uid) = (OTHERS, None);
        }
        match self.notes.iter_mut().find(|n| is_it(n, &new)) {
            Some(note) => note.repeats = note.repeats.saturating_add(new.repeats),
            None => self.notes.push(new),
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
        for note in newer.notes {
            self.add(note);
        }
    }
}

/// What a note says of a step of a restore.
fn restore_step(step: Step) -> &'static str {
    match step {
        Step::Planned => "restore_planned",
        Step::ShareAccepted { .. } => "restore_share_accepted",
        Step::Cancelled => "restore_cancelled",
        Step::Expired => "restore_expired",
        Step::ShareRefused { reason } | Step::Failed { reason } => reason,
        // The new store's own line says that it was restored; new shares are none of a restore's.
        Step::Completed | Step::Delivered { .. } | Step::Proven { .. } => OTHERS,
    }
}
