//! Everything of a transaction but its writing. Memory only.
//!
//! Owns [`Staged`]: a group of batches, sealed and shown to the index, under the head that they make together. Promises that
//! a batch is sealed apart and added whole, so that one which is refused left nothing behind; and that what is staged can be
//! taken back until it was written.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcpist_quorum::NameHmac;

use super::{Asked, Change, Extra, Outcomes, RawPut, Twin, Write};
use crate::batch::{Committed, MAX_BATCH, Op};
use crate::disk::{Disk, Role};
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::{Epoch, VaultKeys};
use crate::ledger;
use crate::new_vault::NewVault;
use crate::outbox::Standing;
use crate::record::{Meta, Opened, name_of, seal_head, seal_outbox, seal_row};
use crate::rows::Table;

/// A transaction that waits to be written. The index already shows it.
pub(super) struct Staged {
    pub(super) writes: Vec<Write>,
    pub(super) redo: Vec<Change>,
    pub(super) undo: Vec<Change>,
    pub(super) head: HeadState,
    pub(super) head_row: Vec<u8>,
    pub(super) ledger: Vec<(VaultId, ledger::Entry)>,
    /// What each batch is told once the transaction was made.
    pub(super) outcomes: Outcomes,
    /// Something was there that must not be found any more.
    pub(super) erases: bool,
    pub(super) standing: Standing,
    pub(super) new: Option<Box<NewVault>>,
    pub(super) gone: Option<VaultId>,
    /// The epochs of the rows under an old key that are replaced or removed.
    pub(super) left: Vec<Epoch>,
    pub(super) twin: Option<Box<Twin>>,
}

impl Staged {
    /// Whether there is nothing to write, since no batch can be made.
    pub(super) fn is_refused(&self) -> bool {
        self.outcomes.iter().all(Result::is_err)
    }
}

/// One batch, sealed and not yet staged.
#[derive(Default)]
struct Sealed {
    writes: Vec<Write>,
    /// The rows of its outbox lines.
    lines: Vec<Vec<u8>>,
    changes: Vec<Change>,
    versions: Vec<u64>,
    /// The highest version that it removes.
    removed: u64,
    erases: bool,
}

impl Disk {
    /// Seals batches, each judged after those before it, shows them to the index, and seals the head over that.
    pub(super) fn stage(
        &mut self,
        batches: &[Asked<'_>],
        mut extra: Extra,
    ) -> Result<Staged, VaultError> {
        let resealed = extra.resealed.take();
        let mut staged = self.begin(extra);
        if let Some(resealed) = resealed {
            staged.erases = true;
            staged.writes.extend(resealed.writes);
            staged.standing = resealed.standing;
            staged.twin = Some(resealed.twin);
            self.swap(&mut staged.twin);
        }
        let keys = Arc::clone(&self.keys);
        let sealed = keys.lend(|keys| {
            for (ops, now) in batches {
                let outcome = self
                    .seal_batch(keys, ops, *now, &staged.head)
                    .map(|sealed| self.add(sealed, &mut staged));
                staged.outcomes.push(outcome);
            }
            if staged.is_refused() {
                return Ok(());
            }
            self.stage_head(keys, &mut staged)
        });
        match sealed.map_err(VaultError::from).flatten() {
            Ok(()) => Ok(staged),
            Err(error) => {
                self.unstage(&mut staged);
                Err(error)
            }
        }
    }

    /// A transaction of all that is no batch.
    fn begin(&self, extra: Extra) -> Staged {
        let mut staged = Staged {
            writes: Vec::new(),
            redo: Vec::new(),
            undo: Vec::new(),
            head: self.head,
            head_row: Vec::new(),
            ledger: extra.ledger,
            outcomes: Vec::new(),
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
        staged
    }

    /// Seals a batch on top of `head` and the index as they are now, and changes neither.
    fn seal_batch(
        &self,
        keys: &VaultKeys,
        ops: &[Op],
        now: u64,
        head: &HeadState,
    ) -> Result<Sealed, VaultError> {
        let mut sealed = Sealed::default();
        let mut seen = BTreeSet::new();
        for op in ops {
            let (owner, name, expect) = match op {
                Op::Outbox(line) => {
                    let sequence = head.outbox_next + sealed.lines.len() as u64;
                    sealed
                        .lines
                        .push(seal_outbox(keys, &self.place, sequence, line)?);
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
                    sealed.erases |= found > 0 && matches!(self.role, Role::System { .. });
                    let floor = head.floor.max(sealed.removed);
                    let version = if found > 0 { found } else { floor } + 1;
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
                    sealed.put(key, row);
                    sealed.versions.push(version);
                    sealed.changes.push(Change::Set(key, entry));
                }
                _ => {
                    if found == 0 {
                        return Err(VaultError::NotFound(name.clone()));
                    }
                    sealed.removed = sealed.removed.max(found);
                    sealed.erases = true;
                    sealed.versions.push(found);
                    sealed.remove(key);
                    sealed.changes.push(Change::Remove(key));
                }
            }
        }
        Ok(sealed)
    }

    /// Adds a sealed batch to the transaction and shows it to the index.
    fn add(&mut self, sealed: Sealed, staged: &mut Staged) -> Committed {
        staged.writes.extend(sealed.writes);
        for row in sealed.lines {
            let key = staged.head.outbox_next.to_be_bytes().to_vec();
            staged.standing.push(&row);
            staged.writes.push(Write::Put(Table::Outbox, key, row));
            staged.head.outbox_next += 1;
        }
        for change in sealed.changes {
            staged.redo.push(change);
            staged.undo.push(self.change(change));
        }
        staged.erases |= sealed.erases;
        staged.head.floor = staged.head.floor.max(sealed.removed);
        staged.head.head.generation += 1;
        Committed {
            versions: sealed.versions,
            generation: staged.head.head.generation,
        }
    }

    fn stage_head(&mut self, keys: &VaultKeys, staged: &mut Staged) -> Result<(), VaultError> {
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
}

impl Sealed {
    fn put(&mut self, key: NameHmac, row: Vec<u8>) {
        let key = key.as_bytes().to_vec();
        self.writes.push(Write::Put(Table::Record, key, row));
    }

    fn remove(&mut self, key: NameHmac) {
        let key = key.as_bytes().to_vec();
        self.writes.push(Write::Delete(Table::Record, key));
    }
}
