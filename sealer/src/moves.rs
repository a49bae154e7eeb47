//! A file on its way into the place of a vault's former one, under the vault's own id.
//!
//! The rows of a vault that a quorum of its own opens say its id in what they are sealed with, and its file is named by that.
//! So what comes back out of a backup ([`crate::vault_restore`]) is built under another name, and the commit of control.db
//! that makes it the vault's leaves a [`Move`], in the place where that name's wrapped keys would stand. The renames follow.
//!
//! ```text
//! row of the new file's id = 3 | vault id[16] | the former file's id[16]
//! ```
//!
//! Owns that row and [`Vaults::finish_moves`]. Promises that from the commit on the new file is the vault's, whatever
//! interrupts the renames: whoever opens such a vault, and every unseal of the store, ends what was begun. One that cannot be
//! ended keeps its own vault shut ([`Stuck`]) and no other. Does not judge the
//! row's origin: who can write one in control.db can rename the files as well, and the ledger judges what is in them.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::codec::{Malformed, Reader};
use crate::commit::{Extra, RawPut};
use crate::disk::Disk;
use crate::error::VaultError;
use crate::ids::VaultId;
use crate::rekey::key_rows;
use crate::rows::Table;
use crate::vault::now;
use crate::vaults::{Live, Vaults};

const MOVE_V1: u8 = 3;

/// The file of `new` becomes that of the vault `id`, whose former one becomes that of `kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) new: VaultId,
    pub(crate) id: VaultId,
    pub(crate) kept: VaultId,
}

impl Move {
    /// The row, for the commit that makes the file the vault's.
    pub(crate) fn put(&self) -> RawPut {
        let mut row = vec![MOVE_V1];
        row.extend_from_slice(self.id.as_bytes());
        row.extend_from_slice(self.kept.as_bytes());
        RawPut(Table::Vault, self.new.as_bytes().to_vec(), row)
    }

    /// The move that stands in the row of `new`, if one does.
    pub(crate) fn parse(new: VaultId, row: &[u8]) -> Option<Move> {
        let read = || {
            let mut read = Reader::new(row);
            read.expect(MOVE_V1)?;
            let (id, kept) = (VaultId::of(read.array()?), VaultId::of(read.array()?));
            read.end()?;
            Ok::<_, Malformed>(Move { new, id, kept })
        };
        read().ok()
    }
}

/// The vaults whose file did not get its place, and why.
#[derive(Debug, Default)]
pub(crate) struct Stuck(BTreeMap<VaultId, VaultError>);

impl Stuck {
    /// Refuses the vault whose file is elsewhere.
    pub(crate) fn allows(&self, id: VaultId) -> Result<(), VaultError> {
        let why = self
            .0
            .get(&id)
            .map(|error| format!("its file does not get its place: {error}"));
        why.map_or(Ok(()), |why| Err(VaultError::Storage(why)))
    }
}

impl Live {
    /// Ends every move. The caller makes no vault meanwhile.
    pub(crate) fn finish_moves(&self) -> Result<Stuck, VaultError> {
        // Where an earlier transaction is in doubt, control.db is read first.
        let rows = self.system.run(|disk| {
            disk.ready()?;
            key_rows(disk)
        })?;
        let moves = rows.iter().filter_map(|(key, row)| {
            let new = VaultId::from_bytes(key)?;
            Move::parse(new, row)
        });
        let mut stuck = Stuck::default();
        for Move { new, id, kept } in moves {
            if let Err(error) = self.store.put_in_place(new, id, kept) {
                log::warn!("the file of vault {id} does not get its place: {error}");
                stuck.0.insert(id, error.into());
                continue;
            }
            let extra = Extra {
                gone: Some(new),
                ..Extra::default()
            };
            self.system
                .run(move |disk: &mut Disk| disk.commit_system(&[], now(), extra))?;
        }
        Ok(stuck)
    }
}

impl Vaults {
    /// [`Live::finish_moves`], while no vault is made.
    pub(crate) fn finish_moves(&self) -> Result<Stuck, VaultError> {
        let live = self.live();
        let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
        live.finish_moves()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_move_reads_back_and_nothing_else_does() {
        let [new, id, kept] = std::array::from_fn(|_| VaultId::random().unwrap());
        let one = Move { new, id, kept };
        let RawPut(_, key, row) = one.put();
        assert_eq!(key, new.as_bytes());
        assert_eq!(Move::parse(new, &row), Some(one));
        for end in 0..row.len() {
            assert_eq!(Move::parse(new, &row[..end]), None, "cut at {end}");
        }
        assert_eq!(Move::parse(new, &[row.as_slice(), b"x"].concat()), None);
    }
}
