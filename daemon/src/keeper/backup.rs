//! Backups of the open store, made and verified beside the keeper.
//!
//! Owns what the store remembers of them: the last one that was verified, and that one is due since keys, shares or life
//! changed. Promises that one is made at a time, on a thread of its own; that a backup counts, and the alarm goes, only
//! once it was read back whole, every record of every vault opened, and the store was not changed so meanwhile: one that
//! carries a sealed vault may hold a ruined file; and that the file is one of the caller's opening, checked by
//! fstat. Registries whose folder cannot be read are left out, as they serve nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Weak};

use mcpist_core::api::{Alarm, ApiError, BackupMade, Carried, LastBackup, LeftOut};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, RegistryId};
use mcpist_quorum::SealConfig;
use mcpist_sealer::{
    BackupFault, BackupReport, Expect, Op, OpenVault, SourceFile, StoredBackup, VaultError, Vaults,
};
use serde::{Deserialize, Serialize};

use super::records::{self, RecordsError};
use super::{Keeper, KeeperHandle, Open, io_code, outbox_line, records_error, vault_error};

/// Kind of both records.
const KIND: &str = "backup";
const LAST: &str = "backup/last";
const DUE: &str = "backup/due";
/// What a rekey or a new root key makes a backup due for.
pub(super) const CHANGED: &str = "shares or keys changed";
/// Where the files of registries stand in a backup.
pub(super) const REGISTRIES: &str = "registries/";

/// Since when a backup is due: a word for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Due {
    since: String,
}

/// What an open store remembers of its backups.
#[derive(Default)]
pub(super) struct Backups {
    last: Option<LastBackup>,
    due: Option<Due>,
    /// Counts what made one due, so that a backup that began before does not count.
    changes: u64,
    /// Alive while one is being made.
    running: Weak<()>,
}

impl Backups {
    pub(super) fn read(system: &OpenVault) -> Result<Self, RecordsError> {
        Ok(Self {
            last: records::get(system, LAST)?,
            due: records::get(system, DUE)?,
            ..Self::default()
        })
    }

    /// Takes what the store says, after a commit of which nobody knew whether it was made. A backup that began before
    /// does not count.
    pub(super) fn read_anew(&mut self, system: &OpenVault) -> Result<(), RecordsError> {
        let Self { last, due, .. } = Self::read(system)?;
        (self.last, self.due) = (last, due);
        self.changes += 1;
        Ok(())
    }

    pub(super) fn last(&self) -> Option<&LastBackup> {
        self.last.as_ref()
    }

    pub(super) fn alarm(&self) -> Option<Alarm> {
        let since = &self.due.as_ref()?.since;
        let sealed = self.last.as_ref().map_or(&[][..], |last| &last.carried);
        let message = match sealed.first() {
            None => format!(
                "no backup was made since {since}: older ones open with what was in use before; mcpist backup FILE"
            ),
            Some(first) => format!(
                "no backup that was verified whole was made since {since}: the last one carries {} sealed, so keep the older ones and their shares; mcpist vault unseal {first}, then mcpist backup FILE",
                sealed.join(", ")
            ),
        };
        Some(Alarm {
            code: ErrorCode::BackupDue,
            message,
        })
    }

    /// Since its own commit with [`due_op`], a backup is due.
    pub(super) fn is_due(&mut self, since: &str) {
        self.changes += 1;
        self.due = Some(Due {
            since: since.to_owned(),
        });
    }
}

/// The write that says that a backup is due, for the commit of what makes it so.
pub(super) fn due_op(since: &str) -> Result<Op, RecordsError> {
    let due = Due {
        since: since.to_owned(),
    };
    records::put(KIND, DUE.to_owned(), Some(&due), Expect::Any)
}

/// What a backup is made of.
struct Ground {
    vaults: Vaults,
    config: SealConfig,
    registries: Vec<RegistryId>,
    changes: u64,
    _running: Arc<()>,
}

impl KeeperHandle {
    /// Makes a backup in `target`.
    pub(crate) async fn backup(&self, uid: u32, target: File) -> Result<BackupMade, ApiError> {
        let ground = self.ask(|keeper| keeper.backup_ground()).await?;
        let folder = self.house.config.registries();
        let changes = ground.changes;
        let made = blocking(move || {
            is_empty_file(&target).map_err(|e| refused(&e))?;
            let sources = sources(&folder, &ground.registries).map_err(|e| refused(&e))?;
            let made = ground.vaults.backup(&ground.config, &target, &sources);
            made.map_err(|e| fault(&e))
        })
        .await?;
        self.ask(move |keeper| keeper.backed_up(uid, &made, changes))
            .await
    }

    /// Reads a backup of this store whole.
    pub(crate) async fn verify_backup(&self, file: File) -> Result<BackupMade, ApiError> {
        let ground = self.ask(|keeper| keeper.backup_ground()).await?;
        blocking(move || {
            let stored = StoredBackup::read(file).map_err(|e| fault(&e))?;
            let report = ground.vaults.verify_backup(&stored);
            report.map(|r| shown(&r)).map_err(|e| fault(&e))
        })
        .await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::of(ErrorCode::Internal))?
}

impl Keeper {
    fn backup_ground(&mut self) -> Result<Ground, ApiError> {
        let open = self.open_for_change()?;
        if open.backups.running.strong_count() > 0 {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "a backup is being made or verified: wait for its end",
            ));
        }
        let running = Arc::new(());
        open.backups.running = Arc::downgrade(&running);
        Ok(Ground {
            vaults: open.vaults().clone(),
            config: open.barrier.config().clone(),
            registries: open.policy.registries.keys().copied().collect(),
            changes: open.backups.changes,
            _running: running,
        })
    }

    /// Remembers a backup that was read back whole. What became due while it was made stays due.
    fn backed_up(
        &mut self,
        uid: u32,
        report: &BackupReport,
        changes: u64,
    ) -> Result<BackupMade, ApiError> {
        let made = shown(report);
        let last = LastBackup {
            backup: made.backup,
            created: made.created,
            generation: made.generation,
            without: made.left_out.iter().map(|one| one.vault.clone()).collect(),
            carried: made.carried.iter().map(|one| one.vault.clone()).collect(),
        };
        let event = Event::BackupMade {
            backup: &made.backup,
            generation: made.generation,
            records: made.records,
            carried: made.carried.len() as u64,
            left_out: made.left_out.len() as u64,
            uid,
        };
        let open = self.open_for_change()?;
        let is_whole = made.left_out.is_empty() && made.carried.is_empty();
        let counts = open.backups.changes == changes && is_whole;
        let mut batch = vec![
            records::put(KIND, LAST.to_owned(), Some(&last), Expect::Any)
                .map_err(|e| records_error(&e))?,
            Op::Outbox(outbox_line(&event)),
        ];
        if counts && open.backups.due.is_some() {
            batch.push(
                records::put(KIND, DUE.to_owned(), None::<&Due>, Expect::Any)
                    .map_err(|e| records_error(&e))?,
            );
        }
        remember(open, batch)?;
        open.backups.last = Some(last);
        if counts {
            open.backups.due = None;
        }
        self.drain_system()?;
        log::info!("backup made and verified: {}", made.backup.short());
        Ok(made)
    }
}

fn remember(open: &Open, batch: Vec<Op>) -> Result<(), ApiError> {
    let committed = open.system().commit(batch);
    committed.map(drop).map_err(|e| vault_error(&e))
}

fn is_empty_file(target: &File) -> io::Result<()> {
    let found = target.metadata()?;
    if !found.is_file() || found.len() > 0 {
        return Err(io::Error::other("a backup goes into a new, empty file"));
    }
    // What cannot be read back cannot be verified.
    target.read_at(&mut [0], 0).map(drop)
}

/// Every file of the registries whose folder is there.
fn sources(folder: &Path, registries: &[RegistryId]) -> io::Result<Vec<SourceFile>> {
    let mut sources = Vec::new();
    for id in registries {
        let name = id.digest().to_string();
        match walk(
            &folder.join(&name),
            &format!("{REGISTRIES}{name}"),
            &mut sources,
        ) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(sources)
}

fn walk(folder: &Path, name: &str, sources: &mut Vec<SourceFile>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else {
            continue;
        };
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&path, &name, sources)?;
        } else if kind.is_file() {
            sources.push(SourceFile { name, path });
        }
    }
    Ok(())
}

pub(super) fn shown(report: &BackupReport) -> BackupMade {
    BackupMade {
        backup: Digest::from_bytes(report.name),
        created: report.created,
        generation: report.generation,
        bytes: report.bytes,
        vaults: report.vaults,
        records: report.records,
        files: report.files,
        carried: carried(&report.carried),
        left_out: left_out(&report.left_out),
    }
}

pub(super) fn carried(vaults: &[(String, u64)]) -> Vec<Carried> {
    let shown = |(vault, records): &(String, u64)| Carried {
        vault: vault.clone(),
        records: *records,
    };
    vaults.iter().map(shown).collect()
}

pub(super) fn left_out(vaults: &[(String, String)]) -> Vec<LeftOut> {
    let shown = |(vault, reason): &(String, String)| LeftOut {
        vault: vault.clone(),
        reason: reason.clone(),
    };
    vaults.iter().map(shown).collect()
}

fn refused(error: &io::Error) -> ApiError {
    let code = io_code(error, ErrorCode::RequestInvalid);
    ApiError::new(code, &error.to_string()).next("name a new file: mcpist backup FILE")
}

pub(super) fn fault(error: &BackupFault) -> ApiError {
    let text = error.to_string();
    match error {
        BackupFault::Store(VaultError::Sealed) => ApiError::of(ErrorCode::Sealed),
        BackupFault::Store(e) => vault_error(e),
        BackupFault::Io { source, .. } => {
            ApiError::new(io_code(source, ErrorCode::BackupRefused), &text)
        }
        BackupFault::Busy(_) => ApiError::new(ErrorCode::Busy, &text),
        BackupFault::Format(_) | BackupFault::Content(_) | BackupFault::Lacks { .. } => {
            ApiError::new(ErrorCode::BackupRefused, &text)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_goes_into_an_empty_file_that_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("backup");
        std::fs::write(&at, b"").unwrap();
        let open = |write| {
            let opened = File::options().read(true).write(write).open(&at);
            opened.unwrap()
        };
        is_empty_file(&open(true)).unwrap();
        let blind = File::options().write(true).open(&at).unwrap();
        assert!(is_empty_file(&blind).is_err(), "cannot be read back");
        assert!(is_empty_file(&File::open(folder.path()).unwrap()).is_err());
        std::fs::write(&at, b"x").unwrap();
        assert!(is_empty_file(&open(true)).is_err(), "holds something");
    }

    #[test]
    fn the_files_of_the_registries_go_in_by_name_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let id = RegistryId::of_manifest(b"manifest");
        let at = folder.path().join(id.digest().to_string());
        std::fs::create_dir_all(at.join("blobs")).unwrap();
        std::fs::write(at.join("blobs/schema"), b"{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at.join("link")).unwrap();
        let missing = RegistryId::of_manifest(b"gone");
        let found = sources(folder.path(), &[id, missing]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].name,
            format!("registries/{}/blobs/schema", id.digest())
        );
    }
}
