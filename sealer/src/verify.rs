//! Full verification of a database, and the only maker of a [`Disk`] from a file.
//!
//! Promises: a [`Disk`] exists only after every record and outbox line of its file was opened under the
//! vault's keys, its count, Merkle root and outbox are those of the sealed head, and, for control.db, the ledger
//! is the one that the head was sealed over. What is found differs from what was written in the first
//! place that the error names.
//!
//! Cost: reading is one scan; opening is spread over the cores, while the next slices are read. Memory: a few slices of
//! rows, however large they were made, and the index.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mcpist_quorum::{Buckets, Entry, Incarnation, OpenRoom};

use crate::disk::{Disk, Role, Stats, tampered};
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{Epoch, KeyCell, VaultKeys};
use crate::ledger::{self, Ledger};
use crate::outbox::Standing;
use crate::own::{Named, OwnNote};
use crate::record::{OWNER_VAULTS, Place, Row, name_from_key, open_head, open_outbox};
use crate::rows::{Access, Packed, Rows, Table, Transaction, for_each_packed, for_each_slice};
use crate::store::OpenGuard;

/// Rows read at once, usually 200 KB.
const SLICE: usize = 512;
/// Fewer records than this are not worth a thread.
const WORTH_A_THREAD: u64 = 128;

/// A vault that a record of the system vault names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedVault {
    pub(crate) name: String,
    pub(crate) id: VaultId,
    pub(crate) created: u64,
    /// What is known of the quorum of its own that opens it.
    pub(crate) own: Option<OwnNote>,
}

/// An open file that is not believed yet.
pub(crate) struct Candidate {
    pub(crate) place: Place,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) rows: Box<dyn Rows>,
    pub(crate) idle: Duration,
    pub(crate) open: OpenGuard,
}

impl Candidate {
    /// A database that holds nothing yet, not even a head.
    pub(crate) fn empty(self, incarnation: Incarnation, role: Role) -> Disk {
        let empty = Checked {
            buckets: Buckets::new(self.place.text()),
            head: HeadState::unwritten(incarnation),
            head_row: Vec::new(),
            standing: Standing::default(),
            epochs: BTreeMap::new(),
            named: Vec::new(),
        };
        self.disk(empty, role)
    }

    fn disk(self, checked: Checked, role: Role) -> Disk {
        let Checked {
            buckets,
            head,
            head_row,
            standing,
            epochs,
            named: _,
        } = checked;
        let disk = Disk {
            // A crash may have come between a commit that erased something and the log's truncation.
            log_due: !head_row.is_empty(),
            place: self.place,
            keys: self.keys,
            rows: self.rows,
            buckets,
            head,
            head_row,
            doubt: None,
            outbox_handed: head.outbox_first,
            standing,
            old_epochs: epochs,
            role,
            stats: Arc::new(Stats::default()),
            idle: self.idle,
            used: Instant::now(),
            _open: self.open,
        };
        disk.publish_stats();
        disk
    }

    /// The file of a database that was just written, to be verified like one that was found.
    pub(crate) fn of(disk: Disk) -> (Candidate, Role) {
        let candidate = Candidate {
            place: disk.place,
            keys: disk.keys,
            rows: disk.rows,
            idle: disk.idle,
            open: disk._open,
        };
        (candidate, disk.role)
    }

    /// Verifies a vault's file. `alive` is called between slices.
    pub(crate) fn verify(
        mut self,
        role: Role,
        mut alive: impl FnMut(),
    ) -> Result<Disk, VaultError> {
        let checked = self.check(&mut alive)?;
        Ok(self.disk(checked, role))
    }

    /// Verifies a vault's file that stays in no disk: the head that it shows.
    pub(crate) fn verified_head(&mut self) -> Result<HeadState, VaultError> {
        Ok(self.check(&mut || {})?.head)
    }

    /// Verifies control.db; gives the ledger and the vaults that its records name as well.
    pub(crate) fn verify_system(
        mut self,
        role: impl FnOnce(Ledger) -> Role,
    ) -> Result<(Disk, Vec<NamedVault>), VaultError> {
        let mut checked = self.check(&mut || {})?;
        let ledger = self.ledger(checked.named.len())?;
        let mac = self.keys.lend(|keys| ledger.mac(keys.head()))?;
        if mac != checked.head.ledger {
            return Err(tampered(
                "the ledger of the vaults' heads is not the one written last",
            ));
        }
        let named = std::mem::take(&mut checked.named);
        Ok((self.disk(checked, role(ledger)), named))
    }

    /// The ledger of at most `vaults` vaults. It is in memory before its MAC was compared.
    fn ledger(&mut self, vaults: usize) -> Result<Ledger, VaultError> {
        let mut ledger = Ledger::default();
        let mut tx = self.rows.begin(Access::Read)?;
        for_each_slice(tx.as_mut(), Table::Ledger, SLICE, |rows| {
            for (key, row) in rows {
                let id = VaultId::from_bytes(&key)
                    .ok_or_else(|| tampered("the ledger names no vault"))?;
                ledger.0.insert(id, ledger::Entry::decode(&row)?);
            }
            if ledger.0.len() > vaults {
                return Err(tampered("the ledger has more vaults than there are"));
            }
            Ok::<(), VaultError>(())
        })?;
        Ok(ledger)
    }

    fn check(&mut self, alive: &mut dyn FnMut()) -> Result<Checked, VaultError> {
        let Candidate {
            place, keys, rows, ..
        } = self;
        let (place, keys) = (&*place, &*keys);
        let mut tx = rows.begin(Access::Read)?;
        let head_row = tx
            .get(Table::Head, b"")?
            .ok_or_else(|| tampered("the head is missing"))?;
        let head = keys.lend(|keys| open_head(keys, place, &head_row))??;
        let head = HeadState::decode(head.expose())?;
        let mut buckets = Buckets::expecting(place.text(), head.head.count);
        let mut named = Vec::new();
        let mut epochs = BTreeMap::new();
        let reader = Reader { keys, place };
        reader.open_all(tx.as_mut(), head.head.count, alive, |slice| {
            for (entry, epoch) in slice.entries {
                buckets.set(entry);
                *epochs.entry(epoch).or_insert(0) += 1;
            }
            named.extend(slice.named);
        })?;
        let root = keys.lend(|keys| buckets.root(keys.head()))?;
        if buckets.count() != head.head.count {
            return Err(VaultError::Quarantined(format!(
                "the file holds {} records and its head says {}",
                buckets.count(),
                head.head.count
            )));
        }
        if root != head.head.root {
            return Err(tampered(
                "the records are not those of the head: some were put back",
            ));
        }
        let mut next = head.outbox_first;
        let mut standing = Standing::default();
        for_each_slice(tx.as_mut(), Table::Outbox, SLICE, |rows| {
            alive();
            for (key, sealed) in rows {
                if key != next.to_be_bytes() {
                    return Err(tampered("an outbox line is missing or was added"));
                }
                keys.lend(|keys| open_outbox(keys, place, next, &sealed))??;
                standing.push(&sealed);
                next += 1;
            }
            Ok(())
        })?;
        if next != head.outbox_next {
            return Err(tampered("an outbox line is missing or was added"));
        }
        if standing.digest() != head.outbox {
            return Err(tampered("the outbox lines are not those of the head"));
        }
        epochs.remove(&keys.lend(|keys| keys.newest().0)?);
        Ok(Checked {
            buckets,
            head,
            head_row,
            standing,
            epochs,
            named,
        })
    }
}

struct Checked {
    buckets: Buckets,
    head: HeadState,
    head_row: Vec<u8>,
    standing: Standing,
    /// The records under each data key but the newest.
    epochs: BTreeMap<Epoch, u64>,
    named: Vec<NamedVault>,
}

/// What is kept of a slice whose rows opened.
struct OpenedSlice {
    entries: Vec<(Entry, Epoch)>,
    named: Vec<NamedVault>,
}

fn broken() -> VaultError {
    tampered("a row broke its reader")
}

/// Opens the records of a file.
#[derive(Clone, Copy)]
struct Reader<'a> {
    keys: &'a KeyCell<VaultKeys>,
    place: &'a Place,
}

impl Reader<'_> {
    /// Opens every record, and tells `each` what is kept of it. Where there are enough of them the cores open one slice
    /// each while the next ones are read, so that `each` hears of them in an order that is none.
    fn open_all(
        self,
        tx: &mut dyn Transaction,
        count: u64,
        alive: &mut dyn FnMut(),
        mut each: impl FnMut(OpenedSlice),
    ) -> Result<(), VaultError> {
        let mut take = |opened: Result<OpenedSlice, VaultError>| opened.map(&mut each);
        if count < WORTH_A_THREAD {
            let mut room = OpenRoom::new()?;
            return for_each_packed(tx, Table::Record, SLICE, |rows| {
                alive();
                take(self.open(&mut room, &rows))
            });
        }
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (give, slices) = sync_channel(1);
        let slices = Arc::new(Mutex::new(slices));
        let (tell, opened) = channel();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cores)
                .map(|_| {
                    let (slices, tell) = (Arc::clone(&slices), tell.clone());
                    scope.spawn(move || self.work(&slices, &tell))
                })
                .collect();
            // Theirs alone: what they all left has no taker.
            drop(slices);
            let read = for_each_packed(tx, Table::Record, SLICE, |rows| {
                alive();
                give.send(rows).map_err(|_| broken())?;
                opened.try_iter().try_for_each(&mut take)
            });
            drop(give);
            let whole = workers
                .into_iter()
                .fold(true, |whole, worker| whole & worker.join().is_ok());
            read?;
            opened.try_iter().try_for_each(&mut take)?;
            if whole { Ok(()) } else { Err(broken()) }
        })
    }

    /// The life of a worker: slices, until there are no more.
    fn work(
        self,
        slices: &Mutex<Receiver<Packed>>,
        tell: &Sender<Result<OpenedSlice, VaultError>>,
    ) {
        let next = || slices.lock().ok()?.recv().ok();
        let mut room = OpenRoom::new();
        while let Some(rows) = next() {
            let opened = match &mut room {
                Ok(room) => self.open(room, &rows),
                Err(error) => Err((*error).into()),
            };
            // Whoever listens has ended where an earlier slice was an error.
            drop(tell.send(opened));
        }
    }

    /// Opens every row of a slice, for which the keys are lent.
    fn open(self, room: &mut OpenRoom, rows: &Packed) -> Result<OpenedSlice, VaultError> {
        let mut slice = OpenedSlice {
            entries: Vec::with_capacity(rows.len()),
            named: Vec::new(),
        };
        self.keys.lend(|keys| {
            for row in rows.rows() {
                open_row(room, keys, self.place, row, &mut slice)?;
            }
            Ok(slice)
        })?
    }
}

fn open_row(
    room: &mut OpenRoom,
    keys: &VaultKeys,
    place: &Place,
    (key, bytes): (&[u8], &[u8]),
    slice: &mut OpenedSlice,
) -> Result<(), VaultError> {
    let name = name_from_key(key)?;
    let row = Row::parse(bytes)?;
    let content = row.open_in(room, keys, place, &name)?;
    if content.owner == OWNER_VAULTS {
        let named = Named::decode(content.payload)?;
        slice.named.push(NamedVault {
            name: content.name.to_owned(),
            id: named.id,
            own: named.own,
            created: content.created,
        });
    }
    slice.entries.push((row.entry(&name), row.epoch));
    Ok(())
}
