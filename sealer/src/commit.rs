//! One transaction: staged in memory under lent keys, announced, written without keys.
//!
//! Owns the change of a [`Disk`]. Promises: a batch is applied whole or not at all; rows, outbox lines and
//! head are in the same transaction; the index in memory changes with the file and is put back when the
//! file did not change; a write of a vault is announced in control.db before it is made
//! ([`crate::ledger`]); before anything is written on top of it, the file must still show the head that this
//! process wrote last.
//!
//! *Fsyncs.* A commit costs one of the database's own log, and for a vault the announcement, one of
//! control.db's log that all vaults writing at that time share. A delete adds a truncation of the log, and in
//! the system vault a put over a record too: there the key that signed a checkpoint ends so.

mod doubt;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpist_quorum::{Buckets, Entry, NameHmac};

use crate::batch::{Committed, MAX_BATCH, Op};
use crate::disk::{Disk, Role, tampered};
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{Epoch, KeyCell, VaultKeys};
use crate::ledger::{self, End};
use crate::new_vault::NewVault;
use crate::outbox::Standing;
use crate::record::{Meta, Opened, Row, name_of, seal_head, seal_outbox, seal_row};
use crate::rows::{Access, RowsError, Table, Transaction};

pub(crate) use doubt::Doubt;

/// With so many lines handed on, the outbox is cleaned at once and not with the next commit.
const OUTBOX_DUE: u64 = 256;

/// A change of rows that is no operation on records.
pub(crate) struct RawPut(pub(crate) Table, pub(crate) Vec<u8>, pub(crate) Vec<u8>);

/// What rides with a commit of control.db.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) puts: Vec<RawPut>,
    pub(crate) ledger: Vec<(VaultId, ledger::Entry)>,
    /// The vault whose missing last write was confirmed.
    pub(crate) confirmed: Option<VaultId>,
    /// The vault that this makes known; it hears how it ends.
    pub(crate) new: Option<Box<NewVault>>,
    /// The vault that is none any more: its wrapped keys and its place in the ledger go.
    pub(crate) gone: Option<VaultId>,
    /// Its keys stay, for its file does.
    pub(crate) keeps_keys: bool,
    /// What it replaces must not be found any more.
    pub(crate) erases: bool,
    /// Every row of control.db under other keys.
    pub(crate) resealed: Option<Resealed>,
}

/// A whole database under other keys: what stands in for the one that is there, until the transaction is made.
pub(crate) struct Resealed {
    pub(crate) writes: Vec<Write>,
    pub(crate) standing: Standing,
    pub(crate) twin: Box<Twin>,
}

/// Keys and the index that belongs to them: before the transaction those to come, after it those that were.
pub(crate) struct Twin {
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    pub(crate) buckets: Buckets,
}

pub(crate) enum Write {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

#[derive(Clone, Copy)]
enum Change {
    Set(NameHmac, Entry),
    Remove(NameHmac),
}

/// Everything of a transaction but its writing. The index already shows it.
struct Staged {
    writes: Vec<Write>,
    redo: Vec<Change>,
    undo: Vec<Change>,
    head: HeadState,
    head_row: Vec<u8>,
    ledger: Vec<(VaultId, ledger::Entry)>,
    versions: Vec<u64>,
    /// Something was there that must not be found any more.
    erases: bool,
    standing: Standing,
    new: Option<Box<NewVault>>,
    gone: Option<VaultId>,
    /// The epochs of the rows under an old key that are replaced or removed.
    left: Vec<Epoch>,
    twin: Option<Box<Twin>>,
}

/// Why a staged transaction was not written.
enum WriteError {
    /// The file is as it was.
    NotMade(VaultError),
    /// Nobody knows yet: the commit failed, and the file cannot be read either.
    InDoubt(VaultError),
}

impl Disk {
    /// Applies a batch.
    pub(crate) fn commit(&mut self, ops: &[Op], now: u64) -> Result<Committed, VaultError> {
        self.ready()?;
        self.is_free()?;
        self.truncate_log();
        match &self.role {
            Role::System { .. } => self.commit_system(ops, now, Extra::default()),
            Role::Vault(registrar) => {
                let registrar = Arc::clone(registrar);
                let vault = self.place.vault;
                let mut staged = self.stage(ops, now, Extra::default())?;
                let point = staged.head.point();
                if let Err(error) = registrar.intend(vault, point) {
                    self.unstage(&mut staged);
                    registrar.over(vault, point, End::NotMade);
                    return Err(error);
                }
                match self.write(staged) {
                    Ok(committed) => {
                        registrar.over(vault, point, End::Made);
                        Ok(committed)
                    }
                    Err(WriteError::NotMade(error)) => {
                        registrar.over(vault, point, End::NotMade);
                        Err(error)
                    }
                    Err(WriteError::InDoubt(error)) => Err(error),
                }
            }
        }
    }

    /// Applies a batch to control.db, together with all that waits in the inbox.
    pub(crate) fn commit_system(
        &mut self,
        ops: &[Op],
        now: u64,
        mut extra: Extra,
    ) -> Result<Committed, VaultError> {
        self.ready()?;
        let Role::System { ledger, inbox } = &self.role else {
            return Err(VaultError::Storage(
                "only control.db keeps the ledger".into(),
            ));
        };
        let inbox = Arc::clone(inbox);
        let taken = inbox.take();
        extra.ledger.extend(taken.apply(ledger, extra.confirmed));
        let staged = match self.stage(ops, now, extra) {
            Ok(staged) => staged,
            Err(error) => {
                // It is this batch that is wrong, not what came along.
                taken.put_back(&inbox);
                return Err(error);
            }
        };
        match self.write(staged) {
            Ok(committed) => {
                taken.written();
                Ok(committed)
            }
            Err(WriteError::NotMade(error) | WriteError::InDoubt(error)) => {
                taken.refused(&inbox, &error);
                Err(error)
            }
        }
    }

    /// The first commit of a vault's file, of which control.db does not know yet.
    pub(crate) fn commit_first(&mut self) -> Result<(), VaultError> {
        let staged = self.stage(&[], 0, Extra::default())?;
        match self.write(staged) {
            Ok(_) => Ok(()),
            Err(WriteError::NotMade(error) | WriteError::InDoubt(error)) => Err(error),
        }
    }

    /// Writes what waits in the inbox, if anything does.
    pub(crate) fn flush(&mut self) -> Result<(), VaultError> {
        match &self.role {
            Role::System { inbox, .. } if !inbox.is_empty() => {
                self.commit_system(&[], 0, Extra::default()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The lines up to `through` were handed on. They leave the file with the next commit: after a crash
    /// they may be handed out once more, by the same sequence.
    pub(crate) fn outbox_done(&mut self, through: u64, now: u64) -> Result<(), VaultError> {
        self.ready()?;
        let handed = through.saturating_add(1).min(self.head.outbox_next);
        self.outbox_handed = self.outbox_handed.max(handed);
        if self.outbox_handed - self.head.outbox_first < OUTBOX_DUE || self.is_free().is_err() {
            return Ok(());
        }
        self.commit(&[], now).map(drop)
    }

    /// Truncates the log if it still shows what was erased.
    pub(crate) fn truncate_log(&mut self) {
        if self.log_due {
            match self.rows.truncate_log() {
                Ok(()) => self.log_due = false,
                Err(error) => log::warn!("a log that shows an erased row stays: {error}"),
            }
        }
    }

    /// Seals a batch, shows it to the index, and seals the head over that. Memory only.
    fn stage(&mut self, ops: &[Op], now: u64, mut extra: Extra) -> Result<Staged, VaultError> {
        let resealed = extra.resealed.take();
        let mut staged = Staged {
            writes: Vec::new(),
            redo: Vec::new(),
            undo: Vec::new(),
            head: self.head,
            head_row: Vec::new(),
            ledger: extra.ledger,
            versions: Vec::new(),
            erases: extra.erases,
            standing: self.standing.clone(),
            new: extra.new,
            gone: extra.gone,
            left: Vec::new(),
            twin: None,
        };
        if let Some(gone) = extra.gone {
            staged.erases = true;
            let tables = [Table::Ledger, Table::Vault];
            let tables = &tables[..if extra.keeps_keys { 1 } else { 2 }];
            for table in tables.iter().copied() {
                let key = gone.as_bytes().to_vec();
                staged.writes.push(Write::Delete(table, key));
            }
        }
        staged.writes.extend(
            extra
                .puts
                .into_iter()
                .map(|RawPut(t, k, v)| Write::Put(t, k, v)),
        );
        for sequence in self.head.outbox_first..self.outbox_handed {
            staged.writes.push(Write::Delete(
                Table::Outbox,
                sequence.to_be_bytes().to_vec(),
            ));
        }
        let passed = self.outbox_handed - self.head.outbox_first;
        staged.standing.pass(passed);
        staged.head.outbox_first = self.outbox_handed;
        if let Some(resealed) = resealed {
            staged.erases = true;
            staged.writes.extend(resealed.writes);
            staged.standing = resealed.standing;
            staged.twin = Some(resealed.twin);
            self.swap(&mut staged.twin);
        }
        let keys = Arc::clone(&self.keys);
        let sealed = keys.lend(|keys| {
            self.stage_ops(keys, ops, now, &mut staged)?;
            self.stage_head(keys, &mut staged)
        });
        match sealed {
            Ok(Ok(())) => Ok(staged),
            Ok(Err(error)) => {
                self.unstage(&mut staged);
                Err(error)
            }
            Err(revoked) => {
                self.unstage(&mut staged);
                Err(revoked.into())
            }
        }
    }

    fn stage_ops(
        &mut self,
        keys: &VaultKeys,
        ops: &[Op],
        now: u64,
        staged: &mut Staged,
    ) -> Result<(), VaultError> {
        let mut seen = BTreeSet::new();
        for op in ops {
            let (owner, name, expect) = match op {
                Op::Outbox(line) => {
                    let sequence = staged.head.outbox_next;
                    let row = seal_outbox(keys, &self.place, sequence, line)?;
                    let key = sequence.to_be_bytes().to_vec();
                    staged.standing.push(&row);
                    staged.writes.push(Write::Put(Table::Outbox, key, row));
                    staged.head.outbox_next += 1;
                    continue;
                }
                Op::Put {
                    owner,
                    name,
                    expect,
                    ..
                }
                | Op::Delete {
                    owner,
                    name,
                    expect,
                } => (owner.as_deref().unwrap_or(""), name, *expect),
            };
            let key = name_of(keys, &self.place, owner, name);
            if !seen.insert(key) {
                return Err(VaultError::Batch { limit: MAX_BATCH });
            }
            let found = self.buckets.get(&key).map_or(0, |entry| entry.version());
            expect.check(name, found)?;
            match op {
                Op::Put {
                    kind,
                    expiry,
                    hosts,
                    payload,
                    ..
                } => {
                    staged.erases |= found > 0 && matches!(self.role, Role::System { .. });
                    let version = if found > 0 { found } else { staged.head.floor } + 1;
                    let record = Opened {
                        owner: owner.to_owned(),
                        name: name.clone(),
                        meta: Meta {
                            version,
                            kind: kind.clone(),
                            expiry: *expiry,
                            hosts: hosts.clone(),
                            created: now,
                        },
                    };
                    let (_, row, entry) = seal_row(keys, &self.place, &record, payload.expose())?;
                    staged
                        .writes
                        .push(Write::Put(Table::Record, key.as_bytes().to_vec(), row));
                    staged.versions.push(version);
                    self.stage_change(Change::Set(key, entry), staged);
                }
                _ => {
                    if found == 0 {
                        return Err(VaultError::NotFound(name.clone()));
                    }
                    staged.head.floor = staged.head.floor.max(found);
                    staged.erases = true;
                    staged.versions.push(found);
                    let key_bytes = key.as_bytes().to_vec();
                    staged.writes.push(Write::Delete(Table::Record, key_bytes));
                    self.stage_change(Change::Remove(key), staged);
                }
            }
        }
        Ok(())
    }

    fn stage_head(&mut self, keys: &VaultKeys, staged: &mut Staged) -> Result<(), VaultError> {
        staged.head.head.generation += 1;
        staged.head.head.count = self.buckets.count();
        staged.head.head.root = self.buckets.root(keys.head());
        staged.head.outbox = staged.standing.digest();
        if let Role::System { ledger, .. } = &self.role {
            staged
                .ledger
                .retain(|(id, _)| staged.gone.is_none_or(|gone| gone != *id));
            let mut next = ledger.clone();
            next.change(&staged.ledger, staged.gone);
            staged.head.ledger = next.mac(keys.head());
            for (id, entry) in &staged.ledger {
                let (key, row) = (id.as_bytes().to_vec(), entry.encode());
                staged.writes.push(Write::Put(Table::Ledger, key, row));
            }
        }
        staged.head_row = seal_head(keys, &self.place, &staged.head.encode())?;
        Ok(())
    }

    fn stage_change(&mut self, change: Change, staged: &mut Staged) {
        staged.redo.push(change);
        staged.undo.push(self.change(change));
    }

    /// Changes the index; the answer undoes it.
    fn change(&mut self, change: Change) -> Change {
        let (name, before) = match change {
            Change::Set(name, entry) => (name, self.buckets.set(entry)),
            Change::Remove(name) => (name, self.buckets.remove(&name)),
        };
        self.stats.journal.note(name);
        match before {
            Some(entry) => Change::Set(name, entry),
            None => Change::Remove(name),
        }
    }

    fn unstage(&mut self, staged: &mut Staged) {
        for change in staged.undo.iter().rev() {
            self.change(*change);
        }
        self.swap(&mut staged.twin);
    }

    /// Has keys and index change places with those of a twin.
    fn swap(&mut self, twin: &mut Option<Box<Twin>>) {
        if let Some(twin) = twin {
            std::mem::swap(&mut self.keys, &mut twin.keys);
            std::mem::swap(&mut self.buckets, &mut twin.buckets);
        }
    }

    /// The twin's keys are the database's now, also for the handles, which share the cell of those that were.
    fn settle_twin(&mut self, twin: Option<Box<Twin>>) {
        if let Some(twin) = twin {
            let fresh = std::mem::replace(&mut self.keys, twin.keys);
            // Where the store was sealed meanwhile, there are none and none are wanted.
            let _ = fresh.take().and_then(|keys| self.keys.replace(keys));
            self.old_epochs.clear();
        }
    }

    /// Writes a staged transaction. No key is needed any more, and none is held.
    fn write(&mut self, mut staged: Staged) -> Result<Committed, WriteError> {
        match self.write_rows(&mut staged) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.doubted(staged, error.into()),
            Err(error) => {
                self.unstage(&mut staged);
                return Err(WriteError::NotMade(error));
            }
        }
        self.log_due |= staged.erases;
        self.take_ledger(&staged.ledger, staged.gone);
        self.forget_old(&staged.left);
        self.settle_twin(staged.twin);
        self.adopt(staged.head, staged.head_row, staged.standing);
        self.truncate_log();
        if let Some(new) = staged.new {
            new.ended(true);
        }
        Ok(Committed {
            versions: staged.versions,
            generation: staged.head.head.generation,
        })
    }

    /// The inner result is that of the commit itself.
    fn write_rows(&mut self, staged: &mut Staged) -> Result<Result<(), RowsError>, VaultError> {
        let mut tx = self.rows.begin(Access::Write)?;
        if tx.get(Table::Head, b"")?.unwrap_or_default() != self.head_row {
            return Err(tampered(
                "the file shows another head than the one written last",
            ));
        }
        if !self.old_epochs.is_empty() {
            staged.left = left(tx.as_mut(), &staged.undo, &self.old_epochs)?;
        }
        for write in &staged.writes {
            match write {
                Write::Put(table, key, value) => tx.put(*table, key, value)?,
                Write::Delete(table, key) => tx.delete(*table, key)?,
            }
        }
        tx.put(Table::Head, b"", &staged.head_row)?;
        Ok(tx.commit())
    }

    fn take_ledger(&mut self, changes: &[(VaultId, ledger::Entry)], gone: Option<VaultId>) {
        if let Role::System { ledger, .. } = &mut self.role {
            ledger.change(changes, gone);
        }
    }
}

/// The epochs of the rows under an old key that go with a transaction, as their rows still say. They are compared with
/// the index, since an epoch whose count is wrong would be dropped too early.
fn left(
    tx: &mut dyn Transaction,
    undo: &[Change],
    old: &BTreeMap<Epoch, u64>,
) -> Result<Vec<Epoch>, VaultError> {
    let mut left = Vec::new();
    for change in undo {
        let Change::Set(name, known) = change else {
            continue;
        };
        let bytes = tx.get(Table::Record, name.as_bytes())?;
        let bytes = bytes.ok_or_else(|| tampered("a record was taken out of the file"))?;
        let row = Row::parse(&bytes)?;
        if row.entry(name) != *known {
            return Err(tampered("a record was replaced in the file"));
        }
        left.extend(Some(row.epoch).filter(|epoch| old.contains_key(epoch)));
    }
    Ok(left)
}
