//! Restore: the ceremony that makes a store out of a backup, in place of a sealed one or on a host that has none.
//!
//! The backup comes in over the secret socket and is copied aside; its plan names the backup and the seal config that it
//! carries, and the quorum of that config gives its shares under it. Promises that nothing is touched before the quorum is
//! there and the whole backup was opened; that a host where no store was opened needs the init token besides; that the
//! store which was here stays aside; and that the audit log of the new life begins in a folder and under a key of its own,
//! with a line that names the backup and where the log before it stood. The store is sealed afterwards: the same quorum
//! opens it, as any other day.
//!
//! Does not end the host that the backup came from: a witness receipt of the new life does, at its next unseal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcpist_core::api::{
    ApiError, Base64, Done, OldRemoved, OpenRestore, PublicKey, RestoreDone, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{Ceremony, Event, Step};
use mcpist_core::ids::Digest;
use mcpist_quorum::{
    CeremonyRecord, Consent, Plan, PlanDigest, Recorded, Share, Submission, combine, derive_kek,
};
use mcpist_sealer::{
    Barrier, Op, OpenError, RestoreError, RestoreFiles, Restored, RestoredSystem, StoreError,
    StoredBackup, VaultError, is_kept_aside, remove_aside, restore,
};
use mcpist_secret::Secret;

use super::backup::{REGISTRIES, blocking, due_op, fault, left_out};
use super::codes::refusal_code;
use super::init::{STORE_KEY, signer};
use super::unseal::progress;
use super::{Keeper, KeeperHandle, Phase, io_code, outbox_line, today};
use crate::audit::{CHECKPOINT_RECORD, FirstKey, signed_head};
use crate::clock::steady_seconds;
use crate::config::{Config, life_file};

/// Largest backup that is taken, in bytes.
const MAX_BACKUP: u64 = 256 << 30;
/// Bytes that are copied at once.
const SLICE: usize = 1 << 20;

/// A restore that waits for its quorum.
pub(super) struct Restoring {
    stored: StoredBackup,
    consent: Consent,
}

impl KeeperHandle {
    /// Copies the backup aside and plans its restore.
    pub(crate) async fn begin_restore(
        &self,
        uid: u32,
        source: File,
    ) -> Result<OpenRestore, ApiError> {
        self.ask(move |keeper| keeper.may_restore(uid)).await?;
        let quarantine = self.house.config.quarantine();
        let stored = blocking(move || {
            let copy = copy(&source, &quarantine).map_err(|e| {
                ApiError::new(io_code(&e, ErrorCode::BackupRefused), &e.to_string())
            })?;
            StoredBackup::read(copy).map_err(|e| fault(&e))
        })
        .await?;
        self.ask(move |keeper| keeper.plan_restore(uid, stored))
            .await
    }
}

/// Copies a regular file, whatever the descriptor's own offset is, into one without a name: whatever becomes of the stick, and of this process, nothing stays.
fn copy(source: &File, folder: &Path) -> io::Result<File> {
    let found = source.metadata()?;
    if !found.is_file() || found.len() > MAX_BACKUP {
        return Err(io::Error::other(
            "a backup is a regular file of at most 256 GiB",
        ));
    }
    let name: [u8; 8] = mcpist_secret::random_bytes().map_err(io::Error::other)?;
    let path = folder.join(format!("{}.bundle", hex::encode(name)));
    let mut copy = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let mut slice = vec![0; SLICE];
    let mut left = found.len();
    while left > 0 {
        match source.read_at(&mut slice, found.len() - left)? {
            0 => return Err(io::Error::other("the backup was cut while it was read")),
            n => {
                let take = n.min(usize::try_from(left).unwrap_or(n));
                copy.write_all(&slice[..take])?;
                left -= take as u64;
            }
        }
    }
    Ok(copy)
}

impl Keeper {
    /// Restores happen to a sealed store or where there is none, there with the init token.
    fn may_restore(&mut self, uid: u32) -> Result<(), ApiError> {
        match self.phase {
            Phase::Unsealed(_) => {
                return Err(ApiError::of(ErrorCode::AlreadyUnsealed)
                    .next("mcpist seal, then mcpist restore FILE"));
            }
            Phase::Nowhere => return Err(ApiError::of(ErrorCode::Internal)),
            Phase::Blank | Phase::Sealed(_) => {}
        }
        if self.init.is_some() {
            self.init_allowed(uid)?;
        }
        match is_kept_aside(&self.house.config.store()) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ApiError::new(
                ErrorCode::Conflict,
                &RestoreError::KeptAside.to_string(),
            )
            .next("mcpist restore --remove-old")),
            Err(e) => Err(ApiError::new(ErrorCode::Unavailable, &e.to_string())),
        }
    }

    fn plan_restore(&mut self, uid: u32, stored: StoredBackup) -> Result<OpenRestore, ApiError> {
        self.may_restore(uid)?;
        let config = stored.header().config();
        if config.is_dev() != self.house.config.dev {
            return Err(ApiError::new(
                ErrorCode::BackupRefused,
                "a development store's backup is restored by mcpistd --dev, and only such a one",
            ));
        }
        if let Phase::Sealed(barrier) = &self.phase
            && self.init.is_none()
            && barrier.config().store() != config.store()
        {
            return Err(ApiError::new(
                ErrorCode::BackupRefused,
                &format!(
                    "the backup is of store {}, and this host holds store {}",
                    config.store(),
                    barrier.config().store()
                ),
            ));
        }
        let failed =
            |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::Unavailable, &e.to_string());
        let plan = Plan::restore(config, stored.name()).map_err(|e| failed(&e))?;
        let consent = Consent::begin(plan, config, steady_seconds()).map_err(|e| failed(&e))?;
        log::warn!(
            "restore planned by uid {uid}: backup {}",
            named(&stored).short()
        );
        self.restoring = Some(Box::new(Restoring { stored, consent }));
        self.open_restore()
    }

    /// The restore that waits for shares.
    pub(crate) fn open_restore(&mut self) -> Result<OpenRestore, ApiError> {
        let replaces = matches!(self.phase, Phase::Sealed(_));
        let open = self.restoring()?;
        let header = open.stored.header();
        Ok(OpenRestore {
            plan: Base64(open.consent.plan().to_bytes()),
            digest: plan_digest(&open.consent),
            backup: named(&open.stored),
            created: header.created(),
            store: header.config().store().to_string(),
            generation: header.config().generation().get(),
            replaces,
            progress: progress(header.config(), &open.consent.progress()),
        })
    }

    /// Ends it and wipes its shares.
    pub(crate) fn cancel_restore(&mut self) -> Result<Done, ApiError> {
        self.restoring()?;
        self.restoring = None;
        log::info!("restore cancelled");
        Ok(Done {})
    }

    fn restoring(&mut self) -> Result<&mut Restoring, ApiError> {
        if let Some(open) = &mut self.restoring
            && open.consent.expire(steady_seconds())
        {
            self.restoring = None;
        }
        self.restoring.as_deref_mut().ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, "no restore waits for shares")
                .next("mcpist restore FILE")
        })
    }

    /// Whether `plan` is that of the restore that waits for shares.
    pub(super) fn restores(&self, plan: &Digest) -> bool {
        let open = self.restoring.as_deref();
        open.is_some_and(|open| plan_digest(&open.consent) == *plan)
    }

    /// Takes a share of the backup's quorum; the last one makes the store.
    pub(super) fn give_restore(
        &mut self,
        uid: u32,
        plan: &Digest,
        text: &Secret,
    ) -> Result<ShareOutcome, ApiError> {
        let open = self.restoring()?;
        let share = match Share::parse(text.expose()) {
            Ok(share) => share,
            Err(e) => return Ok(self.restore_refused(uid, plan, "not_a_share", &e)),
        };
        let digest = PlanDigest::from_bytes(*plan.as_bytes());
        match open.consent.submit(share, digest, steady_seconds()) {
            Submission::Pending(given) => Ok(ShareOutcome::Pending(progress(
                open.stored.header().config(),
                &given,
            ))),
            Submission::Refused(refusal) => {
                Ok(self.restore_refused(uid, plan, refusal_code(&refusal), &refusal))
            }
            Submission::Complete(shares) => {
                let kek = combine(&shares)
                    .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))
                    .and_then(|secret| {
                        derive_kek(&secret, shares.set(), shares.generation())
                            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))
                    });
                let Some(open) = self.restoring.take() else {
                    return Err(ApiError::of(ErrorCode::Internal));
                };
                let done = self.make_restored(uid, *open, &kek?)?;
                Ok(ShareOutcome::Restored(Box::new(done)))
            }
        }
    }

    fn restore_refused(
        &mut self,
        uid: u32,
        plan: &Digest,
        reason: &'static str,
        why: &dyn std::fmt::Display,
    ) -> ShareOutcome {
        log::warn!("restore: share of uid {uid} refused: {reason}");
        let _ = self.house.audit.append(&Event::Ceremony {
            ceremony: Ceremony::Restore,
            plan,
            step: Step::ShareRefused { reason },
            uid: Some(uid),
        });
        let progress = match self.restoring() {
            Ok(open) => progress(open.stored.header().config(), &open.consent.progress()),
            Err(_) => mcpist_core::api::Progress {
                given: 0,
                needed: 0,
                holders: Vec::new(),
                expires_s: None,
            },
        };
        ShareOutcome::Refused {
            reason: reason.into(),
            message: why.to_string(),
            progress,
        }
    }

    fn make_restored(
        &mut self,
        uid: u32,
        open: Restoring,
        kek: &mcpist_secret::Key,
    ) -> Result<RestoreDone, ApiError> {
        let folder = self.house.config.store();
        let mut taking = Taking::new(&self.house.config, uid, &open);
        // Its lock is on the folder, which is to move.
        let before = std::mem::replace(&mut self.phase, Phase::Nowhere);
        let made = restore(&open.stored, kek, &folder, &mut taking);
        drop(before);
        self.phase = match Barrier::open(&folder) {
            Ok(barrier) => Phase::sealed(barrier),
            Err(OpenError::Store(StoreError::Missing(_))) => Phase::Blank,
            Err(e) => {
                log::error!("the store could not be taken, restart mcpistd: {e}");
                Phase::Nowhere
            }
        };
        let restored = made.map_err(|e| not_restored(&e))?;
        // There is a store now that was in use: no init any more.
        self.end_init()?;
        log::warn!(
            "restored by uid {uid}: life {}",
            restored.incarnation.counter
        );
        taking.done(&open, &restored)
    }

    /// Removes the store that a restore replaced.
    pub(crate) fn remove_old(&mut self, uid: u32) -> Result<OldRemoved, ApiError> {
        let removed = remove_aside(&self.house.config.store())
            .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
        if removed {
            log::warn!("the store that was kept aside was removed by uid {uid}");
        }
        Ok(OldRemoved { removed })
    }
}

fn named(stored: &StoredBackup) -> Digest {
    Digest::from_bytes(stored.name())
}

fn plan_digest(consent: &Consent) -> Digest {
    Digest::from_bytes(*consent.plan().digest().as_bytes())
}

fn not_restored(error: &RestoreError) -> ApiError {
    let text = error.to_string();
    match error {
        RestoreError::Backup(e) => fault(e),
        RestoreError::RootKey(_) => ApiError::new(ErrorCode::BackupRefused, &text),
        RestoreError::KeptAside => ApiError::new(ErrorCode::Conflict, &text),
        RestoreError::File { source, .. } => {
            ApiError::new(io_code(source, ErrorCode::Unavailable), &text)
        }
        RestoreError::Store(_) | RestoreError::Memory(_) => {
            ApiError::new(ErrorCode::Unavailable, &text)
        }
    }
}

/// What the daemon takes out of a backup, and puts into the new store.
struct Taking {
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
    fn new(config: &Config, uid: u32, open: &Restoring) -> Taking {
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

    fn done(self, open: &Restoring, restored: &Restored) -> Result<RestoreDone, ApiError> {
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
                let id = mcpist_core::ids::RegistryId::new(digest);
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
