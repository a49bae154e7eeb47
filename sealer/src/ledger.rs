//! What control.db knows of the other vaults' heads.
//!
//! Owns the ledger: per vault the *recorded* point (generation and head digest), the *intent* that a write
//! announced before it was made, and the mark of a write that went missing. It stands in clear in
//! control.db, MACed under the system vault's head key; the MAC is part of the system vault's sealed
//! head, so that no row of it can be put back alone.
//!
//! ```text
//! row  = 1 | recorded generation u64 | recorded digest[32] | 0 or 1 | intent generation u64 |
//!        intent digest[32] | missing generation u64 (0: none)
//! MAC  = HMAC-SHA-256(head key, "mcpist-ledger-v1" | n × (vault id[16] | row))   in the order of ids
//! ```
//!
//! # The protocol of a write
//! 1. The vault's job seals everything in memory and knows its next head.
//! 2. It hands the next point to the [`Inbox`] and waits. Whoever writes control.db next takes all that
//!    lies in the inbox along in one transaction: one fsync for all vaults that write at that time.
//! 3. It commits its own file, head included: one fsync.
//! 4. It puts "settled" into the inbox and answers. That waits for nothing: it rides with the next
//!    transaction of control.db, and at the latest a second later causes one.
//!
//! A write may be several batches that came together. The generation rises by one for each, so that the intended point is
//! as many above the recorded one, and no version of a record can be higher than it.
//!
//! At unseal a vault file must show the recorded point or exactly the intended one. The recorded one under an
//! open intent means that the last write is missing: the crash came between 2 and 3, or somebody put the
//! file back by one write; a person has to say which, so the mark stays until it is confirmed. What unseal
//! finds goes the way of 4: it needs no room on the disk, the file says the same until it is written, and it
//! is written before the vault's next write, whose announcement it rides with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mcpist_secret::Key;

use crate::codec::{Malformed, Reader};
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::hmac_sha256;

const ENTRY_V1: u8 = 1;

/// A state of a vault: which generation, and the digest of its sealed head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    pub(crate) generation: u64,
    pub(crate) digest: [u8; 32],
}

/// What control.db knows of one vault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) recorded: Point,
    pub(crate) intent: Option<Point>,
    /// The generation of a write that was announced and is not there.
    pub(crate) missing: Option<u64>,
}

/// What the ledger says to the head that a vault's file shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is the recorded one.
    Recorded,
    /// It is the intended one: the write was made and not yet settled.
    Intended,
    /// It is the recorded one, and a write was announced after it.
    LastWriteMissing,
    /// It is neither: how the file's generation stands to the recorded one.
    Foreign,
}

impl Entry {
    pub(crate) fn new(recorded: Point) -> Entry {
        Entry {
            recorded,
            intent: None,
            missing: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![ENTRY_V1];
        out.extend_from_slice(&self.recorded.generation.to_be_bytes());
        out.extend_from_slice(&self.recorded.digest);
        out.push(u8::from(self.intent.is_some()));
        let intent = self.intent.unwrap_or(Point {
            generation: 0,
            digest: [0; 32],
        });
        out.extend_from_slice(&intent.generation.to_be_bytes());
        out.extend_from_slice(&intent.digest);
        out.extend_from_slice(&self.missing.unwrap_or(0).to_be_bytes());
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Entry, Malformed> {
        let mut read = Reader::new(row);
        read.expect(ENTRY_V1)?;
        let recorded = Point {
            generation: read.u64()?,
            digest: read.array()?,
        };
        let open = read.u8()?;
        let intent = Point {
            generation: read.u64()?,
            digest: read.array()?,
        };
        let missing = Some(read.u64()?).filter(|generation| *generation != 0);
        read.end()?;
        let intent = match open {
            0 => None,
            1 => Some(intent),
            _ => return Err(Malformed),
        };
        Ok(Entry {
            recorded,
            intent,
            missing,
        })
    }

    /// Judges the head that a file shows.
    pub(crate) fn judge(&self, found: Point) -> Verdict {
        if self.intent == Some(found) {
            Verdict::Intended
        } else if self.recorded != found {
            Verdict::Foreign
        } else if self.intent.is_some() {
            Verdict::LastWriteMissing
        } else {
            Verdict::Recorded
        }
    }

    /// An announced write is over.
    pub(crate) fn end(&mut self, point: Point, end: End) {
        if self.intent != Some(point) {
            return;
        }
        self.intent = None;
        match end {
            End::Made => self.recorded = point,
            End::NotMade => {}
            End::Missing => self.missing = Some(point.generation),
        }
    }
}

/// How an announced write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It was made.
    Made,
    /// It was not.
    NotMade,
    /// An unseal did not find it.
    Missing,
}

/// The whole ledger, as the system vault's state holds it.
#[derive(Clone, Default)]
pub(crate) struct Ledger(pub(crate) BTreeMap<VaultId, Entry>);

impl Ledger {
    /// What one transaction makes of it.
    pub(crate) fn change(&mut self, changes: &[(VaultId, Entry)], gone: Option<VaultId>) {
        self.0.extend(changes.iter().copied());
        if let Some(gone) = gone {
            self.0.remove(&gone);
        }
    }

    pub(crate) fn mac(&self, head_key: &Key) -> [u8; 32] {
        let mut message = b"mcpist-ledger-v1".to_vec();
        for (id, entry) in &self.0 {
            message.extend_from_slice(id.as_bytes());
            message.extend_from_slice(&entry.encode());
        }
        hmac_sha256(head_key, &[&message])
    }
}

/// How the waiting vault hears of its intent.
pub(crate) type Slot = Arc<OnceLock<Result<(), VaultError>>>;

/// What one vault wants written into its entry with the next transaction.
#[derive(Default)]
struct Pending {
    /// Intents that are over, oldest first.
    over: Vec<(Point, End)>,
    intent: Option<(Point, Slot)>,
}

/// Changes of the ledger that wait for the next transaction of control.db.
#[derive(Default)]
pub(crate) struct Inbox(Mutex<BTreeMap<VaultId, Pending>>);

/// What [`Inbox::take`] took, to be written together.
pub(crate) struct Taken(BTreeMap<VaultId, Pending>);

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VaultId, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// How many announcements wait.
    #[cfg(test)]
    pub(crate) fn intents(&self) -> usize {
        self.lock()
            .values()
            .filter(|pending| pending.intent.is_some())
            .count()
    }

    /// Announces a write. A vault has one job at a time, so it has at most one intent here.
    pub(crate) fn intend(&self, vault: VaultId, point: Point) -> Slot {
        let slot = Slot::default();
        self.lock().entry(vault).or_default().intent = Some((point, Arc::clone(&slot)));
        slot
    }

    /// Says how an announced write ended. An intent that was not yet written goes away with it.
    pub(crate) fn over(&self, vault: VaultId, point: Point, end: End) {
        let mut inbox = self.lock();
        let pending = inbox.entry(vault).or_default();
        pending.intent = pending.intent.take().filter(|(intent, _)| *intent != point);
        pending.over.push((point, end));
    }

    pub(crate) fn take(&self) -> Taken {
        Taken(std::mem::take(&mut *self.lock()))
    }
}

impl Taken {
    /// The entries as they are to be written. `confirmed`: a person has seen that this vault's last write is
    /// missing.
    pub(crate) fn apply(
        &self,
        ledger: &Ledger,
        confirmed: Option<VaultId>,
    ) -> Vec<(VaultId, Entry)> {
        let mut changed = Vec::new();
        for (id, before) in &ledger.0 {
            let mut entry = *before;
            if let Some(pending) = self.0.get(id) {
                for (point, end) in &pending.over {
                    entry.end(*point, *end);
                }
                if let Some((point, _)) = &pending.intent {
                    entry.intent = Some(*point);
                }
            }
            if confirmed == Some(*id) {
                entry.missing = None;
            }
            if entry != *before {
                changed.push((*id, entry));
            }
        }
        changed
    }

    /// The transaction is durable.
    pub(crate) fn written(self) {
        for (_, slot) in self.0.into_values().filter_map(|pending| pending.intent) {
            // A slot is set once, and read by the one vault that waits for it.
            drop(slot.set(Ok(())));
        }
    }

    /// The transaction failed: intents are refused, the rest waits for the next one.
    pub(crate) fn refused(mut self, inbox: &Inbox, error: &VaultError) {
        for pending in self.0.values_mut() {
            if let Some((_, slot)) = pending.intent.take() {
                drop(slot.set(Err(error.clone())));
            }
        }
        self.put_back(inbox);
    }

    /// The transaction was not tried: all waits for the next one. What came in meanwhile is newer.
    pub(crate) fn put_back(self, inbox: &Inbox) {
        let mut again = inbox.lock();
        for (id, pending) in self.0 {
            let newer = again.entry(id).or_default();
            if newer.intent.is_none() && newer.over.is_empty() {
                newer.intent = pending.intent;
            }
            newer.over.splice(0..0, pending.over);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn point(generation: u64) -> Point {
        Point {
            generation,
            digest: [u8::try_from(generation).unwrap(); 32],
        }
    }

    fn entry() -> Entry {
        Entry {
            recorded: point(4),
            intent: Some(point(5)),
            missing: Some(3),
        }
    }

    #[test]
    fn an_entry_reads_back_and_every_other_length_is_refused() {
        let row = entry().encode();
        assert_eq!(Entry::decode(&row).unwrap(), entry());
        let closed = Entry::new(point(4));
        assert_eq!(Entry::decode(&closed.encode()).unwrap(), closed);
        for len in 0..row.len() {
            assert_eq!(Entry::decode(&row[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(
            Entry::decode(&[row.as_slice(), &[0]].concat()),
            Err(Malformed)
        );
        let mut bad = row;
        bad[41] = 2;
        assert_eq!(
            Entry::decode(&bad),
            Err(Malformed),
            "neither open nor closed"
        );
    }

    #[test]
    fn a_file_is_accepted_at_the_recorded_point_or_exactly_the_next() {
        assert_eq!(entry().judge(point(5)), Verdict::Intended);
        assert_eq!(entry().judge(point(4)), Verdict::LastWriteMissing);
        assert_eq!(Entry::new(point(4)).judge(point(4)), Verdict::Recorded);
        for generation in [3, 6] {
            assert_eq!(entry().judge(point(generation)), Verdict::Foreign);
        }
        let twin = Point {
            digest: [9; 32],
            ..point(5)
        };
        assert_eq!(
            entry().judge(twin),
            Verdict::Foreign,
            "another head of that generation"
        );
    }

    #[test]
    fn the_intent_ends_as_it_is_told_and_no_other_does() {
        let ended = |at, end| {
            let mut ended = entry();
            ended.end(point(at), end);
            ended
        };
        assert_eq!(
            ended(5, End::Made),
            Entry {
                missing: Some(3),
                ..Entry::new(point(5))
            }
        );
        assert_eq!(
            ended(5, End::NotMade),
            Entry {
                missing: Some(3),
                ..Entry::new(point(4))
            }
        );
        assert_eq!(
            ended(5, End::Missing),
            Entry {
                missing: Some(5),
                ..Entry::new(point(4))
            }
        );
        assert_eq!(ended(6, End::Made), entry());
    }

    #[test]
    fn the_mac_covers_every_row() {
        let key = Key::random().unwrap();
        let id = VaultId::random().unwrap();
        let mut ledger = Ledger::default();
        let none = ledger.mac(&key);
        ledger.0.insert(id, entry());
        let one = ledger.mac(&key);
        ledger.0.insert(id, Entry::new(point(5)));
        let settled = ledger.mac(&key);
        assert!(none != one && one != settled && none != settled);
    }

    #[test]
    fn the_end_of_a_write_rides_with_the_next_intent() {
        let (inbox, id) = (Inbox::default(), VaultId::random().unwrap());
        let mut ledger = Ledger::default();
        ledger.0.insert(
            id,
            Entry {
                missing: None,
                ..entry()
            },
        );
        inbox.over(id, point(5), End::Made);
        let slot = inbox.intend(id, point(6));
        let taken = inbox.take();
        let (_, after) = taken.apply(&ledger, None)[0];
        assert_eq!((after.recorded, after.intent), (point(5), Some(point(6))));
        assert!(slot.get().is_none());
        taken.written();
        assert!(matches!(slot.get(), Some(Ok(()))));
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_failed_transaction_refuses_intents_and_keeps_the_rest() {
        let (inbox, id) = (Inbox::default(), VaultId::random().unwrap());
        inbox.over(id, point(5), End::Made);
        let slot = inbox.intend(id, point(6));
        inbox.take().refused(&inbox, &VaultError::Unavailable);
        assert!(matches!(slot.get(), Some(Err(VaultError::Unavailable))));
        let mut ledger = Ledger::default();
        ledger.0.insert(
            id,
            Entry {
                missing: None,
                ..entry()
            },
        );
        let (_, after) = inbox.take().apply(&ledger, None)[0];
        assert_eq!((after.recorded, after.intent), (point(5), None));
    }

    #[test]
    fn a_write_that_was_not_made_withdraws_its_intent() {
        let (inbox, id) = (Inbox::default(), VaultId::random().unwrap());
        inbox.intend(id, point(5));
        inbox.over(id, point(5), End::NotMade);
        let mut ledger = Ledger::default();
        ledger.0.insert(id, entry());
        let (_, after) = inbox.take().apply(&ledger, None)[0];
        assert_eq!((after.recorded, after.intent), (point(4), None));
    }

    #[test]
    fn the_end_of_a_write_outlives_a_later_one_that_was_given_up() {
        // The caller of write 6 gives up while control.db is still at the transaction, which then fails.
        let (inbox, id) = (Inbox::default(), VaultId::random().unwrap());
        inbox.over(id, point(5), End::Made);
        inbox.intend(id, point(6));
        let taken = inbox.take();
        inbox.over(id, point(6), End::NotMade);
        taken.refused(&inbox, &VaultError::Unavailable);
        let mut ledger = Ledger::default();
        ledger.0.insert(id, entry());
        let (_, after) = inbox.take().apply(&ledger, None)[0];
        assert_eq!((after.recorded, after.intent), (point(5), None));
    }

    #[test]
    fn a_confirmed_vault_has_no_missing_write() {
        let (inbox, id) = (Inbox::default(), VaultId::random().unwrap());
        let mut ledger = Ledger::default();
        ledger.0.insert(id, entry());
        inbox.over(id, point(5), End::Made);
        let (_, after) = inbox.take().apply(&ledger, Some(id))[0];
        assert_eq!((after.recorded, after.missing), (point(5), None));
        assert!(inbox.take().apply(&ledger, None).is_empty());
    }
}
