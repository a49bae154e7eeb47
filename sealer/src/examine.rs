//! A quarantined vault's file, read for what can be kept of it.
//!
//! Owns [`Patient`], the file that is read without an index to compare it with, and [`Findings`], what is to be said of it
//! before anybody decides. Every row stands for itself here: what opens under the vault's keys, at its place, was written
//! by this store and is kept; the rest is counted. Where a page of the file cannot be read, reading goes on behind it.
//!
//! Promises that nothing is written, that a hostile file costs time and no more memory than an index and a slice of rows,
//! and that the digest of [`Findings`] is over all that was read, so that a decision is about these bytes and no others.
//!
//! Does not know whether a row that opens is the newest of its name: only a head that control.db knows, over exactly these
//! rows, tells that ([`Findings::is_sure`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpist_quorum::{Buckets, Incarnation, NameHmac, OpenRoom, RecordError};
use ring::digest::{Context, SHA256};

use crate::disk::{Role, tampered};
use crate::error::{Health, VaultError};
use crate::head::HeadState;
use crate::keyring::{KeyCell, VaultKeys};
use crate::ledger::{Entry, Verdict};
use crate::pool::LaneError;
use crate::record::{Place, Row, RowError, name_from_key, name_of, open_head, open_outbox};
use crate::rows::{self, Access, Rows, RowsError, Table};
use crate::store::OpenGuard;
use crate::unseal::keys_error;
use crate::vault::{OpenVault, RecordKey};
use crate::vaults::Vaults;

/// Rows read at once.
const SLICE: usize = 256;
/// So many damaged rows are named.
const NAMED: usize = 32;

/// What was found in the file of a quarantined vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Over all that was read: what a repair is confirmed by.
    pub digest: [u8; 32],
    /// Records that open.
    pub kept: u64,
    /// Rows that open under no key of this vault at their place.
    pub damaged: u64,
    /// The names of the first of them, as far as anybody can tell: the beginnings of their HMACs, in hex.
    pub damaged_rows: Vec<String>,
    /// Places where the file could not be read.
    pub unreadable: u64,
    /// How many records the last write left, by the head; none where no head opens.
    pub expected: Option<u64>,
    /// The records that are kept are exactly those of the last write that control.db knows. Where they are not, any of them
    /// may be an older version that was put back.
    pub is_sure: bool,
    /// Audit lines that are kept.
    pub lines: u64,
    /// Audit lines that the head names and that are not there; none where no head opens.
    pub lines_lost: Option<u64>,
    /// Of the names that were asked about, those of which no record is kept: owner and name.
    pub lost: Vec<(Option<String>, String)>,
}

impl Findings {
    /// How many records the head counts for which there is not even a damaged row.
    pub fn missing(&self) -> Option<u64> {
        let there = self.kept + self.damaged;
        self.expected.map(|count| count.saturating_sub(there))
    }
}

/// What control.db knows of a vault whose file nobody has open.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) old: OpenVault,
    pub(crate) incarnation: Incarnation,
    /// Of its head.
    entry: Option<Entry>,
    wrapped: Vec<u8>,
}

/// A quarantined vault's file, and keys for it that a seal takes back.
pub(crate) struct Patient {
    pub(crate) case: Case,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) place: Place,
    vaults: Vaults,
    rows: Box<dyn Rows>,
    _open: OpenGuard,
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.keys.revoke();
        self.vaults.live().forget_cell(&self.keys);
    }
}

/// What is no record: read first, since the new file's outbox begins by it.
pub(crate) struct Frame {
    pub(crate) head: Option<HeadState>,
    /// Lines that follow each other up to the head's last.
    pub(crate) lines: Vec<(u64, Vec<u8>)>,
    context: Context,
}

impl Frame {
    /// Leaves the lines with which a file in this one's place begins, and gives the number of its first one. `logged` is
    /// the last that the log has: lines that it has under other texts would pass for these.
    pub(crate) fn keep_lines(&mut self, logged: u64) -> u64 {
        let known = self.head.map_or(1, |head| head.outbox_next);
        let next = known.max(logged + 1);
        if known < next {
            self.lines.clear();
        }
        self.lines.first().map_or(next, |(sequence, _)| *sequence)
    }
}

impl Case {
    /// Takes the file of a vault that does not serve from whoever has it open.
    pub(crate) fn admit(vaults: &Vaults, old: OpenVault) -> Result<Case, VaultError> {
        if old.0.own.is_some() {
            return Err(VaultError::OwnQuorum(old.name().to_owned()));
        }
        if let Some(lane) = &old.0.lane {
            match lane.end() {
                // It was taken before.
                Ok(()) | Err(LaneError::Broken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let id = old.id();
        let (wrapped, entry, incarnation) = vaults.live().system.run(move |disk| {
            disk.ready()?;
            let wrapped = disk
                .rows
                .begin(Access::Read)?
                .get(Table::Vault, id.as_bytes())?;
            let entry = match &disk.role {
                Role::System { ledger, .. } => ledger.0.get(&id).copied(),
                Role::Vault(_) => None,
            };
            let incarnation = disk.head.head.incarnation;
            Ok((wrapped.unwrap_or_default(), entry, incarnation))
        })?;
        Ok(Case {
            old,
            incarnation,
            entry,
            wrapped,
        })
    }

    /// How many commits the vault had, as far as anybody knows. Each raises a record's version by one, so none is above.
    pub(crate) fn generation(&self, head: Option<&HeadState>) -> u64 {
        let recorded = self.entry.map_or(0, |entry| {
            let intended = entry.intent.map_or(0, |intent| intent.generation);
            entry.recorded.generation.max(intended)
        });
        head.map_or(0, |h| h.head.generation).max(recorded)
    }
}

impl Patient {
    /// Takes the file of the quarantined vault `name` from whoever has it open.
    pub(crate) fn admit(vaults: &Vaults, name: &str) -> Result<Patient, VaultError> {
        let old = vaults.vault(name)?;
        match old.health() {
            Health::Quarantined(_) => {}
            _ if old.status().is_gone => return Err(VaultError::Gone),
            Health::Sealed if old.0.own.is_some() => {
                return Err(VaultError::VaultSealed(name.to_owned()));
            }
            Health::Sealed => return Err(VaultError::Sealed),
            _ => return Err(VaultError::NotQuarantined(name.to_owned())),
        }
        Patient::open(vaults, Case::admit(vaults, old)?)
    }

    /// Opens the keys of the vault; its file is opened where it is read.
    pub(crate) fn open(vaults: &Vaults, case: Case) -> Result<Patient, VaultError> {
        let (live, id) = (vaults.live(), case.old.id());
        let keys = live
            .root
            .lend(|root| VaultKeys::unwrap(root, live.id, id, &case.wrapped))?
            .map_err(keys_error)?;
        let keys = Arc::new(KeyCell::new(keys));
        live.hold(&keys)?;
        Ok(Patient {
            keys,
            place: Place::new(live.id, id),
            rows: live.backend.open(&live.store.vault(id))?,
            _open: live.store.lease(),
            vaults: vaults.clone(),
            case,
        })
    }

    /// Reads what is no record.
    pub(crate) fn frame(&mut self) -> Result<Frame, VaultError> {
        let mut context = Context::new(&SHA256);
        context.update(b"mcpist-findings-v1\0");
        context.update(self.place.vault.as_bytes());
        let read = self.rows.begin(Access::Read);
        let row = readable(read.and_then(|mut tx| tx.get(Table::Head, b"")))?.flatten();
        let row = row.unwrap_or_default();
        take(&mut context, &[&row]);
        let opened = self.keys.lend(|keys| open_head(keys, &self.place, &row))?;
        let head = authentic(opened)?.and_then(|head| HeadState::decode(head.expose()).ok());
        let mut frame = Frame {
            head,
            lines: Vec::new(),
            context,
        };
        self.lines(&mut frame)?;
        Ok(frame)
    }

    fn lines(&mut self, frame: &mut Frame) -> Result<(), VaultError> {
        let known = frame.head.map_or(0..0, |h| h.outbox_first..h.outbox_next);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let read = self.rows.begin(Access::Read);
            let read = read.and_then(|mut tx| tx.scan(Table::Outbox, after.as_deref(), SLICE));
            // Behind what cannot be read there may be more, but none that follows what is here.
            let Some(rows) = readable(read)? else { break };
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, sealed) in &rows {
                take(&mut frame.context, &[key, sealed]);
                let sequence = key.as_slice().try_into().map(u64::from_be_bytes);
                let Ok(sequence) = sequence else { continue };
                if !known.contains(&sequence) {
                    continue;
                }
                let opened = self
                    .keys
                    .lend(|keys| open_outbox(keys, &self.place, sequence, sealed))?;
                if let Some(line) = authentic(opened)? {
                    if frame.lines.last().is_some_and(|(s, _)| s + 1 != sequence) {
                        frame.lines.clear();
                    }
                    frame.lines.push((sequence, line.expose().to_vec()));
                }
            }
        }
        if frame.lines.last().is_some_and(|(s, _)| s + 1 != known.end) {
            frame.lines.clear();
        }
        Ok(())
    }

    /// Reads the records. `each` gets those that open, a slice at a time, and how many rows were read.
    pub(crate) fn records(
        &mut self,
        frame: Frame,
        asked: &[RecordKey<'_>],
        mut each: impl FnMut(&[rows::Row], u64) -> Result<(), VaultError>,
    ) -> Result<Findings, VaultError> {
        let Patient {
            keys, place, rows, ..
        } = self;
        let (keys, place) = (&**keys, &*place);
        let mut wanted: BTreeMap<NameHmac, RecordKey<'_>> = keys.lend(|keys| {
            let of = |key: &RecordKey<'_>| name_of(keys, place, key.owner.unwrap_or(""), key.name);
            asked.iter().map(|key| (of(key), *key)).collect()
        })?;
        let mut context = frame.context;
        let mut buckets = Buckets::new(place.text());
        let mut room = OpenRoom::new()?;
        let (mut damaged, mut damaged_rows, mut read) = (0, Vec::new(), 0);
        let unreadable = read_around(rows.as_mut(), |mut slice| {
            read += slice.len() as u64;
            let mut failed = None;
            slice.retain(|row| {
                take(&mut context, &[&row.0, &row.1]);
                match open(&mut room, keys, place, row) {
                    Ok(Some((name, entry))) => {
                        buckets.set(entry);
                        wanted.remove(&name);
                        true
                    }
                    Ok(None) => {
                        damaged += 1;
                        if damaged_rows.len() < NAMED {
                            let name = row.0.iter().take(8).map(|byte| format!("{byte:02x}"));
                            damaged_rows.push(name.collect());
                        }
                        false
                    }
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                }
            });
            failed.map_or(Ok(()), Err)?;
            each(&slice, read)
        })?;
        context.update(&unreadable.to_be_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let root = keys.lend(|keys| buckets.root(keys.head()))?;
        let is_whole = |head: &HeadState| {
            let verdict = self.case.entry.map(|entry| entry.judge(head.point()));
            verdict.is_some_and(|verdict| verdict != Verdict::Foreign)
                && (head.head.root, head.head.count) == (root, buckets.count())
        };
        let lines = frame.lines.len() as u64;
        let lost = wanted.into_values();
        Ok(Findings {
            digest,
            kept: buckets.count(),
            damaged,
            damaged_rows,
            unreadable,
            expected: frame.head.map(|head| head.head.count),
            is_sure: frame.head.as_ref().is_some_and(is_whole),
            lines,
            lines_lost: frame
                .head
                .map(|head| head.outbox_next - head.outbox_first - lines),
            lost: lost
                .map(|key| (key.owner.map(str::to_owned), key.name.to_owned()))
                .collect(),
        })
    }
}

impl Vaults {
    /// Reads the file of the quarantined vault `name` for what can be kept of it; of the names in `asked` it says which are
    /// lost. `progress` hears how many rows were read. Writes nothing. Takes as long as the disk does.
    ///
    /// # Errors
    /// [`VaultError::NotQuarantined`]; the store is sealed, or a disk; [`VaultError::Quarantined`] where the vault's keys do
    /// not open, and nothing can be kept.
    pub fn examine(
        &self,
        name: &str,
        asked: &[RecordKey<'_>],
        mut progress: impl FnMut(u64),
    ) -> Result<Findings, VaultError> {
        let mut patient = Patient::admit(self, name)?;
        let frame = patient.frame()?;
        patient.records(frame, asked, |_, read| {
            progress(read);
            Ok(())
        })
    }
}

/// A row's name and entry, if it opens.
fn open(
    room: &mut OpenRoom,
    keys: &KeyCell<VaultKeys>,
    place: &Place,
    (key, bytes): &rows::Row,
) -> Result<Option<(NameHmac, mcpist_quorum::Entry)>, VaultError> {
    let (Ok(name), Ok(row)) = (name_from_key(key), Row::parse(bytes)) else {
        return Ok(None);
    };
    let opened = keys.lend(|keys| row.open_in(room, keys, place, &name).map(drop))?;
    Ok(authentic(opened)?.map(|()| (name, row.entry(&name))))
}

/// What opened; nothing where it is not what was sealed, an error where that could not be told.
fn authentic<T>(opened: Result<T, RowError>) -> Result<Option<T>, VaultError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(RowError::Record(RecordError::Memory(error))) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// What was read; nothing where the file is damaged there.
fn readable<T>(read: Result<T, RowsError>) -> Result<Option<T>, VaultError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(RowsError::Damaged(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn take(context: &mut Context, parts: &[&[u8]]) {
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
}

/// Every record that can be read, in slices; answers at how many places none could be. Behind such a place it goes on with
/// the next of the 65,536 first pairs of bytes that names have.
fn read_around(
    rows: &mut dyn Rows,
    mut each: impl FnMut(Vec<rows::Row>) -> Result<(), VaultError>,
) -> Result<u64, VaultError> {
    let (mut after, mut limit, mut gaps) = (None::<Vec<u8>>, SLICE, 0);
    if readable(rows.begin(Access::Read).map(drop))?.is_none() {
        return Ok(1);
    }
    loop {
        let read = rows.begin(Access::Read);
        let read = read.and_then(|mut tx| tx.scan(Table::Record, after.as_deref(), limit));
        match readable(read)? {
            Some(slice) => {
                let Some((last, _)) = slice.last() else {
                    return Ok(gaps);
                };
                if after.as_ref().is_some_and(|after| after >= last) {
                    return Err(tampered("its rows are in no order"));
                }
                after = Some(last.clone());
                limit = SLICE;
                each(slice)?;
            }
            None if limit > 1 => limit = (limit / 4).max(1),
            None => {
                // A name that was read is followed by one that was not: the gap begins.
                gaps += u64::from(after.as_ref().is_none_or(|after| after.len() != 2));
                let pair = |at: usize| after.as_ref().and_then(|a| a.get(at)).copied();
                let before = u16::from_be_bytes([pair(0).unwrap_or(0), pair(1).unwrap_or(0)]);
                match before.checked_add(1) {
                    Some(next) => after = Some(next.to_be_bytes().to_vec()),
                    None => return Ok(gaps),
                }
            }
        }
    }
}
