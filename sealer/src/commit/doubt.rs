//! A commit of which nobody knows yet whether it was made.
//!
//! Owns [`Doubt`]: what is left of the transaction until the file, opened anew, says which head it shows. Promises that memory
//! follows the file: the index, the ledger and the keys of a re-sealed vault change only where the file did, and a new vault
//! hears how it ended.

use std::sync::Arc;

use super::{Change, Outcomes, Staged, Twin, WriteError};
use crate::disk::{Disk, Role, tampered};
use crate::error::VaultError;
use crate::head::HeadState;
use crate::ids::VaultId;
use crate::keyring::Epoch;
use crate::ledger::{self, End, Point};
use crate::new_vault::NewVault;
use crate::outbox::Standing;
use crate::rows::{Access, Table};

/// A transaction whose commit failed, and the file did not yet say which head it shows: the old one or this.
pub(crate) struct Doubt {
    redo: Vec<Change>,
    head: HeadState,
    head_row: Vec<u8>,
    ledger: Vec<(VaultId, ledger::Entry)>,
    standing: Standing,
    new: Option<Box<NewVault>>,
    gone: Option<VaultId>,
    left: Vec<Epoch>,
    twin: Option<Box<Twin>>,
}

impl Disk {
    /// A commit failed with `error`. A full disk often says so here, and the file can be read all the same: it is asked
    /// at once, so that a refusal is told from a doubt.
    pub(super) fn doubted(
        &mut self,
        mut staged: Staged,
        error: VaultError,
    ) -> Result<Outcomes, WriteError> {
        self.unstage(&mut staged);
        if let Some(new) = &mut staged.new {
            new.in_doubt();
        }
        self.doubt = Some(Doubt {
            redo: staged.redo,
            head: staged.head,
            head_row: staged.head_row,
            ledger: staged.ledger,
            standing: staged.standing,
            new: staged.new,
            gone: staged.gone,
            left: staged.left,
            twin: staged.twin,
        });
        match self.ask_file() {
            Ok(Some((_, true))) => Ok(staged.outcomes),
            Ok(_) => Err(WriteError::NotMade(error)),
            Err(unread @ VaultError::Quarantined(_)) => Err(WriteError::InDoubt(unread)),
            Err(unread) => {
                log::error!(
                    "a commit failed, and whether it was made cannot be read: {error}; {unread}"
                );
                Err(WriteError::InDoubt(VaultError::OutcomeUnknown))
            }
        }
    }

    /// Settles a doubt that is left of an earlier commit.
    pub(crate) fn resolve_doubt(&mut self) -> Result<(), VaultError> {
        if let Some((point, made)) = self.ask_file()?
            && let Role::Vault(registrar) = &self.role
        {
            let end = if made { End::Made } else { End::NotMade };
            registrar.over(self.place.vault, point, end);
        }
        Ok(())
    }

    /// After a commit that failed: asks the file, opened anew, which head it shows. Answers which transaction was in
    /// doubt and whether it was made.
    fn ask_file(&mut self) -> Result<Option<(Point, bool)>, VaultError> {
        let Some(doubt) = &self.doubt else {
            return Ok(None);
        };
        if let Err(error) = self.rows.close() {
            log::warn!("a database whose commit failed did not close cleanly: {error}");
        }
        let found = self
            .rows
            .begin(Access::Read)?
            .get(Table::Head, b"")?
            .unwrap_or_default();
        let made = found == doubt.head_row;
        if !made && found != self.head_row {
            return Err(tampered("after a failed write the file shows neither head"));
        }
        let Some(doubt) = self.doubt.take() else {
            return Ok(None);
        };
        let point = doubt.head.point();
        if made {
            let mut twin = doubt.twin;
            self.swap(&mut twin);
            for change in doubt.redo {
                self.change(change);
            }
            let keys = Arc::clone(&self.keys);
            keys.lend(|keys| self.buckets.root(keys.head()))?;
            self.take_ledger(&doubt.ledger, doubt.gone);
            self.forget_old(&doubt.left);
            self.settle_twin(twin);
            self.log_due = true;
            self.adopt(doubt.head, doubt.head_row, doubt.standing);
        }
        if let Some(new) = doubt.new {
            new.ended(made);
        }
        Ok(Some((point, made)))
    }
}
