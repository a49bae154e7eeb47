//! Repairing a quarantined vault: what still opens, in a new file.
//!
//! Owns [`Vaults::repair`] and [`Repair`]. The records that [`crate::examine`] keeps are rebuilt under entirely fresh keys
//! ([`crate::rebuild`]), and one transaction of control.db gives them the vault's name. Promises that the file is read anew
//! and only what the confirmed findings were about is built; that until the commit the vault is quarantined as before; that
//! a record which is put again gets a version above every one that the vault ever had; and that the damaged file stays,
//! and its keys in control.db, until [`Vaults::discard`] is called.

use std::sync::PoisonError;

use crate::batch::Op;
use crate::commit::Extra;
use crate::disk::Disk;
use crate::error::VaultError;
use crate::examine::{Findings, Patient};
use crate::ids::VaultId;
use crate::moves::Move;
use crate::orphans::{self, RETIRED};
use crate::rebuild::{Draft, Finished, Replaced};
use crate::rows::{Access, Table};
use crate::vault::{RecordKey, now};
use crate::vaults::Vaults;

/// Outbox lines written at once.
pub(crate) const LINES: usize = 256;

/// A repaired file that is whole, and not yet the vault. Dropped, it leaves the vault as it was.
#[must_use]
pub struct Repair {
    vaults: Vaults,
    finished: Finished,
    findings: Findings,
    id: VaultId,
}

impl Vaults {
    /// Builds the file of the quarantined vault `name` anew from what still opens, if that is what `digest` was given for.
    /// `logged` is the last of its audit lines that the log has: the new file's lines have higher numbers. `asked` and
    /// `progress` are those of [`Vaults::examine`].
    ///
    /// # Errors
    /// [`VaultError::Moved`] where the file is not as it was found before; those of [`Vaults::examine`].
    pub fn repair(
        &self,
        name: &str,
        digest: [u8; 32],
        logged: u64,
        asked: &[RecordKey<'_>],
        mut progress: impl FnMut(u64),
    ) -> Result<Repair, VaultError> {
        let mut patient = Patient::admit(self, name)?;
        let mut frame = patient.frame()?;
        let first = frame.keep_lines(logged);
        let generation = patient.case.generation(frame.head.as_ref());
        let (old, keys, place) = (
            patient.case.old.clone(),
            std::sync::Arc::clone(&patient.keys),
            patient.place.clone(),
        );
        let of = patient.case.incarnation;
        let mut draft = Draft::begin(self, name, Some(&old), None, of, first)?;
        draft.keeps_old = true;
        for lines in frame.lines.chunks(LINES) {
            draft.take_lines(lines)?;
        }
        let findings = patient.records(frame, asked, |rows, read| {
            progress(read);
            draft.take(&keys, &place, rows)
        })?;
        if findings.digest != digest {
            return Err(VaultError::Moved(name.to_owned()));
        }
        let finished = draft.finish(self, generation, generation, || {})?;
        Ok(Repair {
            vaults: self.clone(),
            finished,
            findings,
            id: old.id(),
        })
    }

    /// Discards the file of a vault that was repaired, which was `id` then, and its keys. `ops` go with that into the system
    /// vault. The file goes at once, or with a later [`Vaults::remove_retired`] while a vault is quarantined.
    ///
    /// # Errors
    /// [`VaultError::NotKept`]; the store is sealed, or its disk.
    pub fn discard(&self, id: &str, ops: Vec<Op>) -> Result<(), VaultError> {
        let live = self.live();
        let not_kept = || VaultError::NotKept(id.chars().take(64).collect());
        let id = VaultId::parse(id).ok_or_else(not_kept)?;
        {
            let _one_at_a_time = live.creating.lock().unwrap_or_else(PoisonError::into_inner);
            let is_kept = live.system.run(move |disk| disk.has_keys(id))?;
            let is_named = id == VaultId::SYSTEM || live.named().values().any(|v| v.id() == id);
            if !is_kept || is_named {
                return Err(not_kept());
            }
            let extra = Extra {
                puts: vec![orphans::mark(id)],
                erases: true,
                ..Extra::default()
            };
            live.system
                .run(move |disk| disk.commit_system(&ops, now(), extra))?;
        }
        if let Err(error) = self.remove_retired() {
            log::warn!("the damaged file of a repaired vault stays: {error}");
        }
        Ok(())
    }
}

impl Repair {
    /// What is kept, and what is not.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The identity of the damaged file.
    pub fn damaged(&self) -> VaultId {
        self.id
    }

    /// Makes the new file the vault; `ops` go into the system vault with it. Blocks on the store's disk, up to its deadline.
    ///
    /// # Errors
    /// The store was sealed, or its disk. After [`VaultError::OutcomeUnknown`] the vault is the new file as soon as
    /// control.db shows that it was made.
    pub fn commit(self, ops: Vec<Op>) -> Result<Replaced, VaultError> {
        self.finished.commit(&self.vaults, ops)
    }
}

impl Disk {
    /// Whether control.db has keys of the vault `id`.
    fn has_keys(&mut self, id: VaultId) -> Result<bool, VaultError> {
        self.ready()?;
        let mut tx = self.rows.begin(Access::Read)?;
        let row = tx.get(Table::Vault, id.as_bytes())?;
        Ok(row.is_some_and(|row| row != RETIRED && Move::parse(id, &row).is_none()))
    }
}
