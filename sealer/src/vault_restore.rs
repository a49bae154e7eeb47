//! One vault out of a backup, while the store serves.
//!
//! Owns [`Vaults::look_into_backup`], [`Vaults::restore_vault`] and [`VaultRestore`]. The whole backup is verified first, as
//! before any use of it; the vault's records are then rebuilt under entirely fresh keys ([`crate::rebuild`]), and one
//! transaction of control.db gives them the vault's name. Promises that what would be lost of the vault that is here is
//! counted, and named, before anything is done; that only what was shown is done; that a vault which is not quarantined is
//! replaced only where that was said, and takes no change while it is; that every record gets one version above all that
//! the name ever had, here or in the backup; and that the former file stays, and its keys in control.db, until
//! [`Vaults::discard`] is called: also of one that is not there, whose disk may come back.
//!
//! A vault with a quorum of its own comes back as it stood, sealed ([`own`]). What of a damaged vault does not open is not
//! compared, and it is said that it was not.
//!
//! Does not open a backup from before a new root key: only that key's quorum does ([`crate::restore`]). Does not merge: of a
//! vault whose records are in part older, nobody could say what it holds.
//!
//! Memory: three indices, those of both vaults and of the new file, and a slice of rows.

mod own;

use std::sync::Arc;

use mcpist_quorum::{Entry, Incarnation, OpenRoom};
use ring::digest::{Context, SHA256};

use crate::backup::{BackupFault, Reading, StoredBackup, records};
use crate::batch::Op;
use crate::disk::{Disk, tampered};
use crate::error::{Health, VaultError};
use crate::examine::{Case, Patient};
use crate::head::HeadState;
use crate::ids::{VaultId, VaultName};
use crate::keyring::{KeyCell, VaultKeys};
use crate::rebuild::{Draft, Finished, Freeze, Replaced};
use crate::record::{Place, Row, name_from_key, name_of};
use crate::repair::LINES;
use crate::rows;
use crate::vault::OpenVault;
use crate::vaults::Vaults;
use own::OwnFile;

/// So many records that would be lost are named.
const NAMED: usize = 32;

/// What a backup holds of a vault, beside what is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VaultInBackup {
    /// Over the backup and what is here: what a restore is confirmed by.
    pub digest: [u8; 32],
    /// What names the backup.
    pub backup: [u8; 32],
    /// When the backup began, in seconds since 1970.
    pub created: u64,
    /// Records that it holds.
    pub records: u64,
    /// Records here that open; none where there is no vault of that name.
    pub here: Option<u64>,
    /// The vault here is quarantined, or its file is gone: of its records some may not open.
    pub is_quarantined: bool,
    /// Rows here that do not open.
    pub damaged: u64,
    /// What is counted as lost is all that is. Where it is not so, records that do not open or that are not there any more
    /// are lost as well, unless the backup has them.
    pub is_sure: bool,
    /// Commits since the backup that control.db knows of the same vault; none where it cannot know.
    pub since: Option<u64>,
    /// Of those here, the ones that the backup has in another version.
    pub other: u64,
    /// Of those here, the ones that the backup does not have.
    pub missing: u64,
    /// The first of both: owner and name.
    pub lost: Vec<(Option<String>, String)>,
    /// Audit lines of a damaged file that are lost; none where no head opens.
    pub lines_lost: Option<u64>,
    /// A quorum of its own opens the vault: nobody can say here what of it would be lost.
    pub is_own: bool,
}

/// A vault out of a backup that is whole, and not yet the vault. Dropped, it leaves all as it was.
#[must_use]
pub struct VaultRestore {
    vaults: Vaults,
    made: Made,
    found: VaultInBackup,
    kept: Option<VaultId>,
}

/// The new file.
enum Made {
    /// Its records were sealed anew.
    Rebuilt(Box<Finished>),
    /// Its rows are those of the backup.
    Own(Box<OwnFile>),
}

/// What the name stands for now.
enum Here {
    Nothing,
    /// Of which nothing opens: its file is gone, or its keys in control.db are no good.
    Lost(Case),
    Damaged(Box<Patient>),
    Serving {
        vault: OpenVault,
        head: HeadState,
        /// The first outbox line that was not handed on.
        outbox: u64,
        freeze: Option<Freeze>,
    },
}

/// What goes on in the new file of what is here.
struct Goes {
    of: Incarnation,
    generation: u64,
    first: u64,
    lines: Vec<(u64, Vec<u8>)>,
}

impl Vaults {
    /// Reads a backup whole, and what it holds of the vault `name`; says what of the vault that is here would be lost. Writes
    /// nothing. `may_serve`: one that is not quarantined is to be replaced. Takes as long as both disks do.
    ///
    /// # Errors
    /// [`BackupFault`], with [`VaultError::Serves`] and [`VaultError::OwnOpen`] in it; the backup does not hold the vault.
    pub fn look_into_backup(
        &self,
        stored: &StoredBackup,
        name: &str,
        may_serve: bool,
    ) -> Result<VaultInBackup, BackupFault> {
        if let Some(vault) = self.own_here(name, may_serve)? {
            return Ok(self.own_in(stored, &vault)?.found);
        }
        let mut here = Here::of(self, name, may_serve, false)?;
        let backup = self.vault_in(stored, name)?;
        Ok(here.compare(self, stored, &backup, 0)?.0)
    }

    /// Builds the vault `name` out of a backup, if that is what `digest` was given for. `logged` is the last of its audit
    /// lines that the log has: the new file's lines have higher numbers.
    ///
    /// # Errors
    /// [`VaultError::Moved`] where the vault is not as it was shown; those of [`Vaults::look_into_backup`].
    pub fn restore_vault(
        &self,
        stored: &StoredBackup,
        name: &str,
        digest: [u8; 32],
        may_serve: bool,
        logged: u64,
    ) -> Result<VaultRestore, BackupFault> {
        if let Some(vault) = self.own_here(name, may_serve)? {
            return self.restore_own(stored, vault, digest);
        }
        let backup = self.vault_in(stored, name)?;
        let mut here = Here::of(self, name, may_serve, true)?;
        let (found, goes) = here.compare(self, stored, &backup, logged)?;
        if found.digest != digest {
            return Err(VaultError::Moved(name.to_owned()).into());
        }
        let (old, freeze) = here.give();
        let mut draft = Draft::begin(self, name, old.as_ref(), freeze, goes.of, goes.first)?;
        // No record of the backup, and none that was here, had a version above the commits of its vault.
        let known = backup.head.map_or(0, |head| head.head.generation);
        let version = goes.generation.max(known) + 1;
        draft.version = Some(version);
        draft.keeps_old = true;
        for lines in goes.lines.chunks(LINES) {
            draft.take_lines(lines)?;
        }
        records(stored, &self.live().root, &backup, |rows| {
            draft
                .take(&backup.keys, &backup.place, rows)
                .map_err(BackupFault::from)
        })?;
        let finished = draft.finish(self, version, version, || {})?;
        if finished.records() != backup.buckets.count() {
            let text = "the file changed while it was read";
            return Err(BackupFault::Content(text.to_owned()));
        }
        Ok(VaultRestore {
            vaults: self.clone(),
            made: Made::Rebuilt(Box::new(finished)),
            found,
            kept: old.map(|old| old.id()),
        })
    }

    /// The vault `name` as a backup holds it, all of which was verified.
    fn vault_in(&self, stored: &StoredBackup, name: &str) -> Result<Reading, BackupFault> {
        let (report, found) = self.read_backup(stored, Some(name))?;
        found.ok_or_else(|| {
            let left_out = report.left_out.iter().find(|(vault, _)| vault == name);
            let why = match left_out {
                Some((_, reason)) => format!(": {reason}"),
                None if report.carried.iter().any(|(vault, _)| vault == name) => {
                    " under the store's keys: its own quorum opens it, after `mcpist restore`"
                        .to_owned()
                }
                None => String::new(),
            };
            BackupFault::Lacks {
                vault: name.to_owned(),
                why,
            }
        })
    }
}

impl VaultRestore {
    /// What was found.
    pub fn found(&self) -> &VaultInBackup {
        &self.found
    }

    /// The identity of the file that was the vault, and stays, where it is there; none where there was no vault.
    pub fn kept(&self) -> Option<VaultId> {
        self.kept
    }

    /// Makes the new file the vault; `ops` go into the system vault with it. Blocks on the store's disk, up to its deadline.
    ///
    /// # Errors
    /// The store was sealed, or its disk. After [`VaultError::OutcomeUnknown`] the vault is the new file as soon as
    /// control.db shows that it was made.
    pub fn commit(self, ops: Vec<Op>) -> Result<Replaced, VaultError> {
        match self.made {
            Made::Rebuilt(finished) => finished.commit(&self.vaults, ops),
            Made::Own(file) => file.commit(&self.vaults, ops),
        }
    }
}

impl Here {
    /// What is here, with `freeze` not to be changed while this lives.
    fn of(vaults: &Vaults, name: &str, may_serve: bool, freeze: bool) -> Result<Here, VaultError> {
        VaultName::parse(name)?;
        let vault = match vaults.vault(name) {
            Err(VaultError::NoSuchVault(_)) => return Ok(Here::Nothing),
            vault => vault?,
        };
        match vault.health() {
            Health::Quarantined(_) => return Here::of_damaged(vaults, vault),
            // Nobody could open it.
            Health::Unavailable if vault.0.lane.is_none() && is_gone(vaults, &vault)? => {
                return Here::of_damaged(vaults, vault);
            }
            _ if !may_serve => return Err(VaultError::Serves(name.to_owned())),
            _ => {}
        }
        let (head, outbox, freeze) = vault.run(move |disk| {
            disk.ready()?;
            let freeze = freeze.then(|| Freeze::of(&disk.stats)).transpose()?;
            Ok((disk.head, disk.outbox_handed, freeze))
        })?;
        Ok(Here::Serving {
            vault,
            head,
            outbox,
            freeze,
        })
    }

    fn of_damaged(vaults: &Vaults, vault: OpenVault) -> Result<Here, VaultError> {
        let is_gone = is_gone(vaults, &vault)?;
        let case = Case::admit(vaults, vault)?;
        if is_gone {
            return Ok(Here::Lost(case));
        }
        match Patient::open(vaults, case.clone()) {
            Ok(patient) => Ok(Here::Damaged(Box::new(patient))),
            Err(VaultError::Quarantined(_)) => Ok(Here::Lost(case)),
            Err(error) => Err(error),
        }
    }

    /// The vault that is here.
    fn vault_id(&self) -> Option<VaultId> {
        match self {
            Here::Nothing => None,
            Here::Lost(case) => Some(case.old.id()),
            Here::Damaged(patient) => Some(patient.case.old.id()),
            Here::Serving { vault, .. } => Some(vault.id()),
        }
    }

    /// The vault in whose place another comes.
    fn give(self) -> (Option<OpenVault>, Option<Freeze>) {
        match self {
            Here::Nothing => (None, None),
            Here::Lost(case) => (Some(case.old), None),
            Here::Damaged(patient) => (Some(patient.case.old.clone()), None),
            Here::Serving { vault, freeze, .. } => (Some(vault), freeze),
        }
    }

    fn compare(
        &mut self,
        vaults: &Vaults,
        stored: &StoredBackup,
        backup: &Reading,
        logged: u64,
    ) -> Result<(VaultInBackup, Goes), VaultError> {
        let mut found = VaultInBackup {
            backup: stored.name(),
            created: stored.header().created(),
            records: backup.buckets.count(),
            is_sure: true,
            ..VaultInBackup::default()
        };
        let mut context = Context::new(&SHA256);
        context.update(b"mcpist-vault-restore-v1\0");
        context.update(&found.backup);
        context.update(backup.place.vault.as_bytes());
        let goes = match self {
            Here::Nothing => {
                let of = vaults.live().system.run(|disk| {
                    disk.ready()?;
                    Ok(disk.head.head.incarnation)
                })?;
                Goes {
                    of,
                    generation: 0,
                    first: logged + 1,
                    lines: Vec::new(),
                }
            }
            Here::Lost(case) => {
                context.update(case.old.id().as_bytes());
                found.is_quarantined = true;
                found.here = Some(0);
                found.is_sure = false;
                Goes {
                    of: case.incarnation,
                    generation: case.generation(None),
                    first: logged + 1,
                    lines: Vec::new(),
                }
            }
            Here::Damaged(patient) => {
                let mut frame = patient.frame()?;
                let first = frame.keep_lines(logged);
                let goes = Goes {
                    of: patient.case.incarnation,
                    generation: patient.case.generation(frame.head.as_ref()),
                    first,
                    lines: frame.lines.clone(),
                };
                let (keys, place) = (Arc::clone(&patient.keys), patient.place.clone());
                let findings = patient.records(frame, &[], |rows, _| {
                    found.compare(backup, (&keys, &place), rows)
                })?;
                context.update(&findings.digest);
                found.is_quarantined = true;
                found.here = Some(findings.kept);
                found.damaged = findings.damaged;
                found.is_sure = findings.is_sure;
                found.lines_lost = findings.lines_lost;
                goes
            }
            Here::Serving {
                vault,
                head,
                outbox,
                ..
            } => {
                let (keys, place) = (&vault.0.keys, Place::new(vaults.live().id, vault.id()));
                let (mut after, mut read) = (None, 0);
                loop {
                    let rows = vault.run(move |disk| disk.slice(after))?;
                    let Some((last, _)) = rows.last() else { break };
                    after = Some(name_from_key(last)?);
                    read += rows.len() as u64;
                    found.compare(backup, (keys, &place), &rows)?;
                }
                context.update(vault.id().as_bytes());
                context.update(&head.point().digest);
                found.here = Some(read);
                Goes {
                    of: head.head.incarnation,
                    generation: head.head.generation.max(head.floor),
                    first: *outbox,
                    lines: waiting(vault, *outbox, head.outbox_next)?,
                }
            }
        };
        found.since = self
            .vault_id()
            .filter(|id| *id == backup.place.vault)
            .map(|_| {
                let known = backup.head.map_or(0, |head| head.head.generation);
                goes.generation.saturating_sub(known)
            });
        found.lost.sort();
        found.digest.copy_from_slice(context.finish().as_ref());
        Ok((found, goes))
    }
}

/// Whether the file of a vault is not there any more.
fn is_gone(vaults: &Vaults, vault: &OpenVault) -> Result<bool, VaultError> {
    let file = vaults.live().store.vault(vault.id());
    let there = file.path().try_exists();
    there
        .map(|there| !there)
        .map_err(|error| VaultError::Storage(error.to_string()))
}

/// The audit lines that wait in a vault that serves.
fn waiting(vault: &OpenVault, mut next: u64, end: u64) -> Result<Vec<(u64, Vec<u8>)>, VaultError> {
    let mut waiting = Vec::new();
    while next < end {
        let lines = vault.run(move |disk: &mut Disk| disk.outbox_from(next))?;
        let Some((last, _)) = lines.last() else {
            return Err(tampered("outbox lines were taken out of the file"));
        };
        next = last + 1;
        waiting.extend(lines);
    }
    Ok(waiting)
}

impl VaultInBackup {
    /// Counts what of these rows, which open, the backup does not have as they are.
    fn compare(
        &mut self,
        backup: &Reading,
        (keys, place): (&KeyCell<VaultKeys>, &Place),
        rows: &[rows::Row],
    ) -> Result<(), VaultError> {
        let mut room = OpenRoom::new()?;
        // Of two files the rows differ anyway: there the version is all that can be compared.
        let is_it = place.vault == backup.place.vault;
        let is_same = |there: Entry, here: Entry| match is_it {
            true => there == here,
            false => there.version() == here.version(),
        };
        for (key, bytes) in rows {
            let (name, row) = (name_from_key(key)?, Row::parse(bytes)?);
            let entry = row.entry(&name);
            let (owner, name) = keys.lend(|keys| {
                let content = row.open_in(&mut room, keys, place, &name)?;
                Ok::<_, VaultError>((content.owner.to_owned(), content.name.to_owned()))
            })??;
            let there = backup
                .keys
                .lend(|keys| name_of(keys, &backup.place, &owner, &name))?;
            match backup.buckets.get(&there) {
                Some(there) if is_same(there, entry) => continue,
                Some(_) => self.other += 1,
                None => self.missing += 1,
            }
            if self.lost.len() < NAMED {
                self.lost
                    .push((Some(owner).filter(|o| !o.is_empty()), name));
            }
        }
        Ok(())
    }
}
