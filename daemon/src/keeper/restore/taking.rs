//! What a restore takes out of a backup for the daemon, and what it puts into the new store.
//!
//! Owns [`Taking`]: registries are written beside their places and get their names before the store is made, since a folder
//! that no record names does no harm; the life's audit folder and the file that names it are there before the store is. A
//! name in a backup is `registries/DIGEST/PATH` and leads nowhere else. A drill does all of it in its own folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcpist_core::api::{ApiError, Base64, PublicKey, RestoreDone};
use mcpist_core::audit::{AuditKey, public_key};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, RegistryId};
use mcpist_quorum::{CeremonyRecord, Incarnation, Receipt, Recorded};
use mcpist_sealer::{
    Expect, Op, RestoreFiles, Restored, RestoredSystem, VaultError, aside, drilled,
};
use mcpist_secret::Secret;
use ring::signature::Ed25519KeyPair;

use super::{Aim, Restoring, named};
use crate::audit::{CHECKPOINT_RECORD, FirstKey, log_end, signed_head};
use crate::config::Config;
use crate::keeper::backup::{REGISTRIES, carried, due_op, left_out};
use crate::keeper::init::{STORE_KEY, signer};
use crate::keeper::records::{self, RecordsError};
use crate::keeper::{outbox_line, today};
use crate::life::{self, Life};

/// Name and kind of the record that holds the ceremony record of the restore which began the store's life.
pub(super) const LIFE_RECORD: &str = "life-record";

/// What the daemon takes out of a backup, and puts into the new store.
pub(super) struct Taking<'a> {
    open: &'a Restoring,
    registries: PathBuf,
    /// The folder of the store that is being built.
    store: PathBuf,
    /// Where the folder of its log will be.
    audit: PathBuf,
    backup: Digest,
    uid: u32,
    file: Option<File>,
    /// Folders that are written beside their place.
    staged: Vec<String>,
    /// Witness receipts that wait; once its key is known, those of this store.
    receipts: Vec<Receipt>,
    /// The life of the store that is here, as its folder says.
    here: u64,
    /// Where its log ends.
    replaced: Option<(u64, Digest)>,
    /// The first audit key of the new life, and the record that vouches for it.
    recorded: Option<(AuditKey, CeremonyRecord)>,
}

impl Taking<'_> {
    pub(super) fn new<'a>(
        config: &Config,
        uid: u32,
        open: &'a Restoring,
        receipts: Vec<Receipt>,
    ) -> Taking<'a> {
        let (registries, store, audit) = match open.aim {
            Aim::Restore => (
                config.registries(),
                aside(&config.store()),
                config.state().to_owned(),
            ),
            Aim::Drill => {
                let scratch = drilled(&config.store());
                (scratch.join("registries"), scratch.clone(), scratch)
            }
        };
        Taking {
            open,
            registries,
            store,
            audit,
            backup: named(&open.stored),
            uid,
            file: None,
            staged: Vec::new(),
            receipts,
            here: life::number(&config.store()),
            replaced: log_end(&config.audit()).unwrap_or_else(|e| {
                log::error!("where the log here ends cannot be read: {e}");
                None
            }),
            recorded: None,
        }
    }

    /// The answer to the last share of a restore that is in its place.
    pub(super) fn done(
        self,
        restored: &Restored,
        unsettled: Option<String>,
    ) -> Result<RestoreDone, ApiError> {
        let recorded = self.recorded;
        let (audit_key, record) = recorded.ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
        Ok(RestoreDone {
            backup: self.backup,
            vaults: restored.vaults,
            records: restored.records,
            files: restored.files,
            carried: carried(&restored.carried),
            left_out: left_out(&restored.left_out),
            life: restored.incarnation.counter,
            kept: restored.is_kept,
            audit_key: PublicKey(audit_key),
            record: Base64(record.to_bytes()),
            record_text: record.to_text(),
            unsettled,
        })
    }

    /// Signs the record of the life that begins with `audit_key`: before there is a store that needs it.
    fn record(&mut self, audit_key: AuditKey, pair: &Ed25519KeyPair) -> Result<Op, RecordsError> {
        let record = CeremonyRecord::sign(
            Recorded::Restore,
            self.open.stored.header().config(),
            self.open.consent.plan().digest(),
            today(),
            audit_key,
            pair,
        );
        let kept = Secret::copy_of(&record.to_bytes())?;
        self.recorded = Some((audit_key, record));
        let name = LIFE_RECORD.to_owned();
        records::put_bytes(LIFE_RECORD, name, kept, Expect::Any)
    }

    /// Life and generation of each receipt that waits and would close the store as the backup has it, up to the life that
    /// begins: the quorum decides to go back all the same.
    fn overridden(&self, begins: &Incarnation) -> Vec<(u64, u64)> {
        let header = self.open.stored.header();
        let life = header.incarnation();
        let shown = self.receipts.iter().map(Receipt::at).filter(|at| {
            let is_newer = at.generation > header.generation() || at.incarnation != *life;
            is_newer && (life.counter..begins.counter).contains(&at.incarnation.counter)
        });
        shown
            .map(|at| (at.incarnation.counter, at.generation))
            .collect()
    }

    /// Gives the registries that came their names; one that is there already and holds stays.
    fn place_registries(&mut self) -> io::Result<()> {
        private_folder(&self.registries)?;
        for name in std::mem::take(&mut self.staged) {
            let (staged, place) = (
                staging(&self.registries, &name),
                self.registries.join(&name),
            );
            let holds = name.parse::<Digest>().is_ok_and(|digest| {
                let id = RegistryId::new(digest);
                mcpist_bundle::load(&self.registries, &id)
                    .is_ok_and(|loaded| loaded.check().is_ok())
            });
            if holds {
                std::fs::remove_dir_all(&staged)?;
                continue;
            }
            match std::fs::remove_dir_all(&place) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => std::fs::rename(&staged, &place)?,
            }
        }
        File::open(&self.registries)?.sync_all()
    }
}

/// Beside its place; what stays there is removed at the daemon's start.
fn staging(registries: &Path, name: &str) -> PathBuf {
    registries.join(format!("{name}.staging"))
}

/// `registries/DIGEST/PATH` as the digest and the path, which stays inside its folder.
fn registry_file(name: &str) -> Option<(&str, &str)> {
    let (digest, path) = name.strip_prefix(REGISTRIES)?.split_once('/')?;
    let plain = |part: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(fine)
    };
    let is_digest = digest.len() == 64 && digest.bytes().all(|b| b"0123456789abcdef".contains(&b));
    (is_digest && path.split('/').all(plain)).then_some((digest, path))
}

impl RestoreFiles for Taking<'_> {
    fn begin(&mut self, name: &str, _length: u64) -> io::Result<()> {
        let (digest, path) = registry_file(name)
            .ok_or_else(|| io::Error::other("the name is none of a registry's file"))?;
        let folder = staging(&self.registries, digest);
        if !self.staged.iter().any(|known| known == digest) {
            match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.staged.push(digest.to_owned()),
            }
        }
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            private_folder(parent)?;
        }
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)?;
        self.file = Some(opened);
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::other("bytes of no file")),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.file.take() {
            Some(file) => file.sync_all(),
            None => Ok(()),
        }
    }

    /// The life of the store that is here, and those of the receipts that wait and are of this store.
    fn lives(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<u64>, VaultError> {
        let pair = signer(&system.open(STORE_KEY)?).map_err(|e| VaultError::Storage(e.message))?;
        let (store, key) = (
            self.open.stored.header().config().store(),
            public_key(&pair),
        );
        (self.receipts).retain(|receipt| receipt.store() == store && *receipt.key() == key);
        let shown = self.receipts.iter().map(|r| r.at().incarnation.counter);
        Ok(shown.chain([self.here]).collect())
    }

    /// The registries get their places, the log of the new life its folder and key, and its first line its row.
    fn records(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError> {
        let storage = |e: io::Error| VaultError::Storage(e.to_string());
        self.place_registries().map_err(storage)?;
        let life = Life::of(&system.incarnation);
        private_folder(&self.audit.join(life.audit())).map_err(storage)?;
        life.write(&self.store).map_err(storage)?;
        let (line, head) = signed_head(&system.open(CHECKPOINT_RECORD)?);
        let pair = signer(&system.open(STORE_KEY)?).map_err(|e| VaultError::Storage(e.message))?;
        let key = FirstKey::generate()?;
        let record = self.record(key.public(), &pair);
        let record = record.map_err(|e| VaultError::Storage(e.to_string()))?;
        let event = Event::Restored {
            backup: &self.backup,
            from: self.open.stored.header().incarnation().counter,
            life: system.incarnation.counter,
            overridden: &self.overridden(&system.incarnation),
            line,
            head: &head,
            replaced: self.replaced,
            uid: self.uid,
        };
        let due = due_op("it was restored").map_err(|e| VaultError::Storage(e.to_string()))?;
        let line = Op::Outbox(outbox_line(&event));
        Ok(vec![key.renew(), record, due, line])
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_registry_stays_inside_it() {
        let digest = "a".repeat(64);
        let of = |path: &str| format!("registries/{digest}/{path}");
        assert_eq!(
            registry_file(&of("blobs/schema.json")),
            Some((digest.as_str(), "blobs/schema.json"))
        );
        for name in [
            of("../x"),
            of("a/../../x"),
            of("/etc/passwd"),
            of(""),
            of("a//b"),
            of("a\0b"),
            format!("registries/{}/x", "A".repeat(64)),
            "registries/../x".to_owned(),
            "store/control.db".to_owned(),
            digest.clone(),
        ] {
            assert_eq!(registry_file(&name), None, "{name:?}");
        }
    }
}
