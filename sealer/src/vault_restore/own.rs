//! A vault with a quorum of its own, out of a backup: its rows as they stood, for that quorum to open and to judge.
//!
//! Owns [`OwnFile`]. Promises: only a vault that is quarantined, or gone, is
//! replaced, and a sealed one where that was said; one transaction of control.db makes
//! the new file the vault's, with the entry of the ledger by which its head is judged (as [`crate::restore`] does), and the
//! renames that follow are ended by whoever comes next ([`crate::moves`]); the former file stays, beside the data keys that
//! it had, and the keys of one that is not there do for when it comes back. *The quorum is the one of today*: its seal config and the wrap of the vault's root key stay, and only the data keys
//! are those of the backup. So a quorum that a rekey replaced gets nothing back, from whichever time the backup is.
//!
//! Does not say what would be lost, nor give records a version of its own: nothing of it opens here. Its versions and
//! the numbers of its audit lines go on from those of the backup.

use std::sync::{Arc, PoisonError};

use mcpist_quorum::BackupItem;
use ring::digest::{Context, SHA256};

use super::{Made, VaultInBackup, VaultRestore};
use crate::backup::{BackupFault, Section, StoredBackup, items, section_of, table_of};
use crate::batch::Op;
use crate::commit::{Extra, RawPut};
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::keyring::OwnRow;
use crate::ledger::Entry;
use crate::moves::Move;
use crate::new_vault::Making;
use crate::own::{Named, VaultQuorum};
use crate::pool::LaneError;
use crate::rebuild::{Freeze, Replaced};
use crate::restore::{Filling, Write};
use crate::rows::Table;
use crate::store::DbFile;
use crate::unseal::Found;
use crate::vault::{OpenVault, now};
use crate::vaults::Vaults;

/// What a backup holds of such a vault, and control.db beside it.
pub(super) struct OwnInBackup {
    pub(super) found: VaultInBackup,
    /// What its head is to be judged by.
    entry: Entry,
    /// The wrapped keys of today, and those of the backup for the quorum of today.
    rows: (Vec<u8>, Vec<u8>),
}

/// The new file, closed, under a name of its own. Dropped, it is removed unless control.db knows it.
pub(super) struct OwnFile {
    vault: OpenVault,
    file: DbFile,
    new: VaultId,
    kept: VaultId,
    entry: Entry,
    rows: (Vec<u8>, Vec<u8>),
    records: u64,
    known: bool,
    _making: Making,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.known {
            return;
        }
        if let Err(error) = self.file.remove() {
            log::warn!("the file of a vault that was not restored stays: {error}");
        }
    }
}

impl Vaults {
    /// The vault `name`, if a quorum of its own opens it, which may be replaced: a sealed one may be as good as ever, so that
    /// it is only where `may_serve`.
    pub(super) fn own_here(
        &self,
        name: &str,
        may_serve: bool,
    ) -> Result<Option<OpenVault>, VaultError> {
        let vault = match self.vault(name) {
            Err(VaultError::NoSuchVault(_)) => return Ok(None),
            vault => vault?,
        };
        if vault.0.own.is_none() {
            return Ok(None);
        }
        match vault.health() {
            Health::Quarantined(_) => Ok(Some(vault)),
            Health::Sealed if may_serve || super::is_gone(self, &vault)? => Ok(Some(vault)),
            Health::Sealed => Err(VaultError::Serves(name.to_owned())),
            _ => Err(VaultError::OwnOpen(name.to_owned())),
        }
    }

    /// What a backup, all of which is verified, holds of `vault`.
    pub(super) fn own_in(
        &self,
        stored: &StoredBackup,
        vault: &OpenVault,
    ) -> Result<OwnInBackup, BackupFault> {
        let (report, _) = self.read_backup(stored, None)?;
        let (live, id, name) = (self.live(), vault.id(), vault.name());
        let (mut held, mut row) = (None, Vec::new());
        let mut section = Section::Between;
        items(stored, &live.root, |item| {
            let before = std::mem::replace(&mut section, Section::Between);
            let is_it = matches!(&before, Section::Vault(of, _) if *of == id);
            section = section_of(before, &item)?;
            match item {
                BackupItem::EndOfOwn { records, entry } if is_it => {
                    held = Some((records, Entry::decode(entry).map_err(VaultError::from)?));
                }
                BackupItem::Row { table, key, value }
                    if table_of(table)? == Table::Vault && key == id.as_bytes() =>
                {
                    row = value.to_vec();
                }
                _ => {}
            }
            Ok::<(), BackupFault>(())
        })?;
        let Some((records, mut entry)) = held else {
            let left_out = report.left_out.iter().find(|(vault, _)| vault == name);
            let why = left_out.map_or_else(String::new, |(_, reason)| format!(": {reason}"));
            let vault = name.to_owned();
            return Err(BackupFault::Lacks { vault, why });
        };
        let read = live
            .system
            .run(move |disk| Ok((disk.entry(id)?, disk.key_row(id)?)));
        let (known, today) = read?;
        let note = Named::of(id, Some(&vault.own_quorum()?)).own;
        let note = note.ok_or_else(|| VaultError::NoOwnQuorum(name.to_owned()))?;
        VaultQuorum::of(live.id, id, &note, &today)?;
        let rows = (OwnRow::parse(&row), OwnRow::parse(&today));
        let (row, of_today) = (
            rows.0.map_err(VaultError::from)?,
            rows.1.map_err(VaultError::from)?,
        );
        let row = row.for_quorum_of(&of_today);
        // What a custodian has not confirmed is not confirmed by this.
        entry.missing = known.and_then(|known| known.missing).or(entry.missing);
        let mut found = VaultInBackup {
            backup: stored.name(),
            created: stored.header().created(),
            records,
            here: Some(0),
            is_quarantined: matches!(vault.health(), Health::Quarantined(_)),
            is_own: true,
            ..VaultInBackup::default()
        };
        let mut context = Context::new(&SHA256);
        context.update(b"mcpist-vault-restore-own-v1\0");
        context.update(&found.backup);
        context.update(id.as_bytes());
        context.update(&known.map(|known| known.encode()).unwrap_or_default());
        context.update(&today);
        found.digest.copy_from_slice(context.finish().as_ref());
        Ok(OwnInBackup {
            found,
            entry,
            rows: (today, row),
        })
    }

    /// Builds the file of `vault` out of a backup, if that is what `digest` was given for.
    pub(super) fn restore_own(
        &self,
        stored: &StoredBackup,
        vault: OpenVault,
        digest: [u8; 32],
    ) -> Result<VaultRestore, BackupFault> {
        let live = self.live();
        self.finish_moves()?.allows(vault.id())?;
        let OwnInBackup { found, entry, rows } = self.own_in(stored, &vault)?;
        if found.digest != digest {
            return Err(VaultError::Moved(vault.name().to_owned()).into());
        }
        let random = || VaultId::random().map_err(VaultError::from);
        let (making, new, kept) = (Making::of(live), random()?, random()?);
        let made = OwnFile {
            file: live.store.new_vault(new).map_err(VaultError::from)?,
            vault,
            new,
            kept,
            entry,
            rows,
            records: found.records,
            known: false,
            _making: making,
        };
        made.fill(self, stored)?;
        Ok(VaultRestore {
            vaults: self.clone(),
            made: Made::Own(Box::new(made)),
            found,
            kept: Some(kept),
        })
    }
}

impl OwnFile {
    /// Writes the rows of the backup, and closes the file.
    fn fill(&self, vaults: &Vaults, stored: &StoredBackup) -> Result<(), BackupFault> {
        let (live, id) = (vaults.live(), self.vault.id());
        let rows = live.backend.create(&self.file).map_err(VaultError::from)?;
        let mut filling = Filling::of(self.new, rows);
        let mut section = Section::Between;
        items(stored, &live.root, |item| {
            section = section_of(std::mem::replace(&mut section, Section::Between), &item)?;
            if !matches!(&section, Section::Vault(of, _) if *of == id) {
                return Ok(());
            }
            let write = match item {
                BackupItem::Row { table, key, value } => {
                    Write::Put(table_of(table)?, key.to_vec(), value.to_vec())
                }
                BackupItem::Gone { table, key } => Write::Delete(table_of(table)?, key.to_vec()),
                _ => return Ok(()),
            };
            Ok::<(), BackupFault>(filling.push(write)?)
        })?;
        filling.flush()?;
        let mut rows = filling.rows;
        rows.truncate_log().map_err(VaultError::from)?;
        rows.close().map_err(VaultError::from)?;
        Ok(live.store.sync_vaults().map_err(VaultError::from)?)
    }

    /// The one commit: the file is the vault's from then on, which is sealed. `ops` go into the system vault with it.
    pub(super) fn commit(mut self, vaults: &Vaults, ops: Vec<Op>) -> Result<Replaced, VaultError> {
        let (live, id, new) = (vaults.live(), self.vault.id(), self.new);
        let own = self.vault.own_quorum()?;
        // Nobody opens it meanwhile, and it is closed.
        let _alone = Freeze::of(&self.vault.0.stats)?;
        let there = vaults.own_here(self.vault.name(), true)?;
        if !there.is_some_and(|there| Arc::ptr_eq(&there.0, &self.vault.0)) {
            return Err(VaultError::Moved(self.vault.name().to_owned()));
        }
        if let Some(lane) = &self.vault.0.lane {
            match lane.end() {
                // An attempt before this one took it.
                Ok(()) | Err(LaneError::Broken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.vault.0.keys.revoke();
        live.forget_cell(&self.vault.0.keys);
        let one_at_a_time = live.creating.lock();
        let one_at_a_time = one_at_a_time.unwrap_or_else(PoisonError::into_inner);
        live.finish_moves()?.allows(id)?;
        let (today, row) = std::mem::take(&mut self.rows);
        let kept = self.kept;
        let keys = OwnRow::parse(&today)?.without_wrap();
        let puts = vec![
            RawPut(Table::Vault, id.as_bytes().to_vec(), row),
            Move { new, id, kept }.put(),
            RawPut(Table::Vault, kept.as_bytes().to_vec(), keys),
        ];
        let (name, entry) = (self.vault.name().to_owned(), self.entry);
        let made = live.system.run(move |disk| {
            if disk.key_row(id)? != today {
                return Err(VaultError::Moved(name));
            }
            // What waits for the former file's entry is not for the new one's.
            disk.flush()?;
            let extra = Extra {
                puts,
                ledger: vec![(id, entry)],
                erases: true,
                ..Extra::default()
            };
            disk.commit_system(&ops, now(), extra)
        });
        if let Err(error) = made {
            let in_doubt = matches!(error, VaultError::OutcomeUnknown);
            // It may be readable by now.
            let row = live.system.run(move |disk| disk.key_row(new));
            let is_made = row.map(|row| Move::parse(new, &row).is_some());
            // Where nobody can say, control.db may know the file, which stays.
            self.known = in_doubt && !matches!(is_made, Ok(false));
            if !self.known || is_made.is_err() {
                return Err(error);
            }
        }
        self.known = true;
        if let Err(error) = live.finish_moves().and_then(|stuck| stuck.allows(id)) {
            log::warn!("a restored vault's file gets its place at its unseal: {error}");
        }
        drop(one_at_a_time);
        let sealed = VaultError::VaultSealed(self.vault.name().to_owned());
        vaults.replace(&self.vault, Found::closed(sealed, Some(own)))?;
        Ok(Replaced {
            _retired: None,
            records: self.records,
        })
    }
}
