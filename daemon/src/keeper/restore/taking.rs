//! What a restore takes out of a backup for the daemon, and what it puts into the new store.
//!
//! Owns [`Taking`]: registries are written beside their places and get their names before the store is made, since a folder
//! that no record names does no harm; the life's audit folder and the file that names it are there before the store is. A
//! name in a backup is `registries/DIGEST/PATH` and leads nowhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcpist_core::api::{ApiError, Base64, PublicKey, RestoreDone};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{Digest, RegistryId};
use mcpist_quorum::{CeremonyRecord, Recorded};
use mcpist_sealer::{Op, RestoreFiles, Restored, RestoredSystem, VaultError};
use mcpist_secret::Secret;

use super::{Restoring, named};
use crate::audit::{CHECKPOINT_RECORD, FirstKey, signed_head};
use crate::config::{Config, life_file};
use crate::keeper::backup::{REGISTRIES, due_op, left_out};
use crate::keeper::init::{STORE_KEY, signer};
use crate::keeper::{outbox_line, today};

/// What the daemon takes out of a backup, and puts into the new store.
pub(super) struct Taking {
    registries: PathBuf,
    store: PathBuf,
    audit: PathBuf,
    backup: Digest,
    uid: u32,
    file: Option<File>,
    /// Folders that are written beside their place.
    staged: Vec<String>,
    /// The first audit key of the new life, and the store's.
    audit_key: Option<mcpist_core::audit::AuditKey>,
    store_key: Option<Secret>,
}

impl Taking {
    pub(super) fn new(config: &Config, uid: u32, open: &Restoring) -> Taking {
        Taking {
            registries: config.registries(),
            store: config.store(),
            audit: config.state().to_owned(),
            backup: named(&open.stored),
            uid,
            file: None,
            staged: Vec::new(),
            audit_key: None,
            store_key: None,
        }
    }

    pub(super) fn done(
        self,
        open: &Restoring,
        restored: &Restored,
    ) -> Result<RestoreDone, ApiError> {
        let internal = || ApiError::of(ErrorCode::Internal);
        let audit_key = self.audit_key.ok_or_else(internal)?;
        let pair = signer(&self.store_key.ok_or_else(internal)?)?;
        let record = CeremonyRecord::sign(
            Recorded::Restore,
            open.stored.header().config(),
            open.consent.plan().digest(),
            today(),
            audit_key,
            &pair,
        );
        Ok(RestoreDone {
            backup: self.backup,
            vaults: restored.vaults,
            records: restored.records,
            files: restored.files,
            left_out: left_out(&restored.left_out),
            life: restored.incarnation.counter,
            kept: restored.is_kept,
            audit_key: PublicKey(audit_key),
            record: Base64(record.to_bytes()),
            record_text: record.to_text(),
        })
    }

    /// Gives the registries that came their names; one that is there already and holds stays.
    fn place_registries(&mut self) -> io::Result<()> {
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

impl RestoreFiles for Taking {
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
            let mut made = std::fs::DirBuilder::new();
            made.recursive(true).mode(0o700).create(parent)?;
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

    /// The registries get their places, the log of the new life its folder and key, and its first line its row.
    fn records(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError> {
        let storage = |e: io::Error| VaultError::Storage(e.to_string());
        self.place_registries().map_err(storage)?;
        let life = hex::encode(system.incarnation.id);
        let audit = self.audit.join(format!("audit-{life}"));
        let mut folder = std::fs::DirBuilder::new();
        folder
            .recursive(true)
            .mode(0o700)
            .create(&audit)
            .map_err(storage)?;
        write_life(&life_file(&mcpist_sealer::aside(&self.store)), &life).map_err(storage)?;
        let (line, head) = signed_head(&system.open(CHECKPOINT_RECORD)?);
        self.store_key = Some(system.open(STORE_KEY)?);
        let key = FirstKey::generate()?;
        self.audit_key = Some(key.public());
        let event = Event::Restored {
            backup: &self.backup,
            life: system.incarnation.counter,
            line,
            head: &head,
            uid: self.uid,
        };
        let due = due_op("it was restored").map_err(|e| VaultError::Storage(e.to_string()))?;
        Ok(vec![key.renew(), due, Op::Outbox(outbox_line(&event))])
    }
}

fn write_life(file: &Path, life: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    file.write_all(life.as_bytes())?;
    file.sync_all()
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
