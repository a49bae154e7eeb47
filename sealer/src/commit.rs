//! One transaction: staged in memory under lent keys, announced, written without keys.
//!
//! Owns the change of a [`Disk`]. Promises: a batch is applied whole or not at all; rows, outbox lines and
//! head are in the same transaction; the index in memory changes with the file and is put back when the
//! file did not change; a write of a vault is announced in control.db before it is made
//! ([`crate::ledger`]); before anything is written on top of it, the file must still show the head that this
//! process wrote last.
//!
//! *Groups.* Batches that came while the database was busy share one transaction, in the order in which they came. Each is
//! judged as if those before it had been made, and its refusal costs the others nothing. What becomes of the transaction
//! becomes of all of them: where it fails, each gets its error, also a batch that was refused, since it was judged against
//! what is not there. The generation rises by one for each batch, so that no record has a higher version.
//!
//! *Fsyncs.* A transaction costs one of the database's own log, and for a vault the announcement, one of
//! control.db's log that all vaults writing at that time share. A delete adds a truncation of the log, and in
//! the system vault a put over a record too: there the key that signed a checkpoint ends so.

mod doubt;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpist_quorum::{Buckets, Entry, NameHmac};

use crate::batch::{Committed, MAX_BATCH, Op};
use crate::disk::{Disk, Role, checked, tampered};
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::keyring::{Epoch, KeyCell, VaultKeys};
use crate::ledger::{self, End};
use crate::new_vault::NewVault;
use crate::outbox::Standing;
use crate::rows::{Access, RowsError, Table, Transaction};

pub(crate) use doubt::Doubt;
use stage::Staged;

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

impl Change {
    fn name(&self) -> &NameHmac {
        match self {
            Change::Set(name, _) | Change::Remove(name) => name,
        }
    }
}

/// A batch's operations, and when it came.
pub(crate) type Asked<'a> = (&'a [Op], u64);

/// What became of each batch of a group.
pub(crate) type Outcomes = Vec<Result<Committed, VaultError>>;

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
        self.try_all(&[(ops, now)]).and_then(only)
    }

    /// Applies batches that came one after the other, in one transaction.
    pub(crate) fn commit_all(&mut self, batches: &[Asked<'_>]) -> Outcomes {
        match self.try_all(batches) {
            Ok(outcomes) => outcomes,
            Err(error) => batches.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// The error is that of the whole transaction.
    fn try_all(&mut self, batches: &[Asked<'_>]) -> Result<Outcomes, VaultError> {
        self.ready()?;
        self.is_free()?;
        self.truncate_log();
        match &self.role {
            Role::System { .. } => self.commit_with_inbox(batches, Extra::default()),
            Role::Vault(registrar) => {
                let registrar = Arc::clone(registrar);
                let vault = self.place.vault;
                let mut staged = self.stage(batches, Extra::default())?;
                if staged.is_refused() {
                    return Ok(self.refused(staged));
                }
                let point = staged.head.point();
                if let Err(error) = registrar.intend(vault, point) {
                    self.unstage(&mut staged);
                    registrar.over(vault, point, End::NotMade);
                    return Err(error);
                }
                match self.write(staged) {
                    Ok(outcomes) => {
                        registrar.over(vault, point, End::Made);
                        Ok(outcomes)
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
        extra: Extra,
    ) -> Result<Committed, VaultError> {
        self.ready()?;
        self.commit_with_inbox(&[(ops, now)], extra).and_then(only)
    }

    fn commit_with_inbox(
        &mut self,
        batches: &[Asked<'_>],
        mut extra: Extra,
    ) -> Result<Outcomes, VaultError> {
        let Role::System { ledger, inbox } = &self.role else {
            return Err(VaultError::Storage(
                "only control.db keeps the ledger".into(),
            ));
        };
        let inbox = Arc::clone(inbox);
        let taken = inbox.take();
        extra.ledger.extend(taken.apply(ledger, extra.confirmed));
        let staged = match self.stage(batches, extra) {
            Ok(staged) if !staged.is_refused() => staged,
            // It is the batches that are wrong, not what came along.
            refused => {
                taken.put_back(&inbox);
                return refused.map(|staged| self.refused(staged));
            }
        };
        match self.write(staged) {
            Ok(outcomes) => {
                taken.written();
                Ok(outcomes)
            }
            Err(WriteError::NotMade(error) | WriteError::InDoubt(error)) => {
                taken.refused(&inbox, &error);
                Err(error)
            }
        }
    }

    /// The first commit of a vault's file, of which control.db does not know yet.
    pub(crate) fn commit_first(&mut self) -> Result<(), VaultError> {
        let staged = self.stage(&[(&[], 0)], Extra::default())?;
        match self.write(staged) {
            Ok(outcomes) => only(outcomes).map(drop),
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

    /// No batch of it can be made: the file has nothing to do with it.
    fn refused(&mut self, mut staged: Staged) -> Outcomes {
        self.unstage(&mut staged);
        staged.outcomes
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
    fn write(&mut self, mut staged: Staged) -> Result<Outcomes, WriteError> {
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
        Ok(staged.outcomes)
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

/// What became of the only batch.
fn only(outcomes: Outcomes) -> Result<Committed, VaultError> {
    let none = Err(VaultError::Batch { limit: MAX_BATCH });
    outcomes.into_iter().next().unwrap_or(none)
}

/// The epochs of the rows under an old key that go with a transaction, as their rows still say. They are compared with
/// the index, since an epoch whose count is wrong would be dropped too early. Of a record that changes more than once the
/// first undo is what the file still has.
fn left(
    tx: &mut dyn Transaction,
    undo: &[Change],
    old: &BTreeMap<Epoch, u64>,
) -> Result<Vec<Epoch>, VaultError> {
    let mut left = Vec::new();
    let mut seen = BTreeSet::new();
    for change in undo {
        let first = seen.insert(*change.name());
        let Change::Set(name, known) = change else {
            continue;
        };
        if !first {
            continue;
        }
        let bytes = tx.get(Table::Record, name.as_bytes())?;
        let row = checked(Some(*known), name, bytes.as_deref())?;
        let epoch = row.map(|row| row.epoch);
        left.extend(epoch.filter(|epoch| old.contains_key(epoch)));
    }
    Ok(left)
}
