//! Backups of a store that is written meanwhile, and the store that a restore makes of one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mcpist_quorum::{BackupError, BackupItem, BackupWriter};

use super::support::{Site, delete, edit, file_name, put, read};
use crate::aside::{aside, remove_aside, tidy};
use crate::backup::{BackupFault, SourceFile, StoredBackup, items, take};
use crate::batch::Op;
use crate::error::VaultError;
use crate::restore::{RestoreError, RestoreFiles, RestoredSystem, restore};
use crate::rows::Table;
use crate::{Barrier, OpenError, UnsealReport, Unsealed};

/// A file to back up into, with its path.
pub(super) fn target(site: &Site, name: &str) -> (File, PathBuf) {
    let path = site.path.with_file_name(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    (file, path)
}

pub(super) fn back_up(site: &Site, barrier: &Barrier<Unsealed>, name: &str) -> StoredBackup {
    let (file, _) = target(site, name);
    barrier.backup(barrier.config(), &file, &[]).unwrap();
    StoredBackup::read(file).unwrap()
}

/// Takes what comes, and adds one line to the system vault's outbox.
#[derive(Default)]
pub(super) struct Files {
    names: Vec<String>,
    bytes: Vec<Vec<u8>>,
    ended: usize,
    pub(super) seen: Option<String>,
    /// Lives that are known besides the backup's.
    others: Vec<u64>,
    /// The lives that were shown.
    lives: Vec<u64>,
}

impl RestoreFiles for Files {
    fn begin(&mut self, name: &str, _length: u64) -> io::Result<()> {
        self.names.push(name.to_owned());
        self.bytes.push(Vec::new());
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.last_mut().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended += 1;
        Ok(())
    }

    fn lives(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<u64>, VaultError> {
        let note = system.open("note")?;
        self.lives.push(system.incarnation.counter);
        self.seen = Some(String::from_utf8(note.expose().to_vec()).unwrap());
        Ok(self.others.clone())
    }

    fn records(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError> {
        self.lives.push(system.incarnation.counter);
        Ok(vec![Op::Outbox(b"restored".to_vec())])
    }
}

/// Opens the store in `dir` with the site's shares.
pub(super) fn unseal_at(site: &Site, dir: &Path) -> (Barrier<Unsealed>, UnsealReport) {
    site.unseal_from(Barrier::open(dir).unwrap())
}

#[test]
fn what_a_backup_held_is_in_the_store_that_a_restore_makes() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "hello")]).unwrap();
    barrier.create_vault("main", None).unwrap();
    let vault = barrier.vault("main").unwrap();
    let many: Vec<_> = (0..700).map(|n| put(&format!("r{n}"), "x")).collect();
    vault.commit(many).unwrap();
    vault
        .commit(vec![delete("r7"), Op::Outbox(b"line".to_vec())])
        .unwrap();
    let source = site.path.with_file_name("manifest");
    fs::write(&source, vec![7; 200_000]).unwrap();
    let (file, _) = target(&site, "backup");
    let sources = [SourceFile {
        name: "registries/manifest".to_owned(),
        path: source,
    }];
    let report = barrier.backup(barrier.config(), &file, &sources).unwrap();
    assert_eq!((report.vaults, report.records, report.files), (2, 701, 1));
    assert!(report.left_out.is_empty());
    let before = barrier.point().unwrap().incarnation;
    drop(site.seal(barrier));

    // A host that never had the store.
    let stored = StoredBackup::read(file).unwrap();
    let standby = site.path.with_file_name("standby");
    let mut files = Files::default();
    let restored = restore(&stored, site.foundation.kek(), &standby, &mut files).unwrap();
    assert_eq!((restored.vaults, restored.records), (2, 701));
    assert!(!restored.is_kept && !aside(&standby).exists());
    assert_eq!(files.names, ["registries/manifest"]);
    assert_eq!((files.ended, files.bytes[0].len()), (1, 200_000));
    assert_eq!(files.seen.as_deref(), Some("hello"));
    let (barrier, found) = unseal_at(&site, &standby);
    assert_eq!((found.verified, found.records), (2, 701));
    assert!(found.quarantined.is_empty() && found.unavailable.is_empty());
    let vault = barrier.vault("main").unwrap();
    assert_eq!(read(&vault, "r699").unwrap(), "x");
    assert!(matches!(read(&vault, "r7"), Err(VaultError::NotFound(_))));
    assert_eq!(vault.outbox().unwrap(), [(1, b"line".to_vec())]);
    let lines = barrier.system().outbox().unwrap();
    assert_eq!(lines.last().unwrap().1, b"restored");
    let after = barrier.point().unwrap().incarnation;
    assert_eq!(after, restored.incarnation);
    assert_eq!((after.counter, after.parent), (2, before.id));
    let of_vault = vault.run(|disk| Ok(disk.head.head.incarnation)).unwrap();
    assert_eq!(of_vault, after, "every head begins the new life");
    vault.commit(vec![put("new", "life")]).unwrap();
    let (barrier, _) = unseal_at(&site, {
        drop(site.seal(barrier));
        &standby
    });
    assert_eq!(
        read(&barrier.vault("main").unwrap(), "new").unwrap(),
        "life"
    );
}

#[test]
fn a_restore_over_a_store_keeps_it_aside_until_it_is_removed() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "old")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    barrier.system().commit(vec![put("note", "newer")]).unwrap();
    let sealed = site.seal(barrier);
    let kek = site.foundation.kek();
    let restored = restore(&stored, kek, &site.path, &mut Files::default()).unwrap();
    drop(sealed);
    assert!(restored.is_kept);
    let (barrier, _) = unseal_at(&site, &site.path);
    assert_eq!(read(&barrier.system(), "note").unwrap(), "old");
    drop(site.seal(barrier));
    let (kept, _) = unseal_at(&site, &aside(&site.path));
    assert_eq!(read(&kept.system(), "note").unwrap(), "newer");
    let again = restore(&stored, kek, &site.path, &mut Files::default());
    assert!(matches!(again, Err(RestoreError::KeptAside)));
    assert!(remove_aside(&site.path).is_err(), "somebody has it open");
    drop(site.seal(kept));
    assert!(remove_aside(&site.path).unwrap());
    assert!(!aside(&site.path).exists() && !remove_aside(&site.path).unwrap());
}

#[test]
fn a_restore_begins_a_life_above_all_that_are_known() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "old")]).unwrap();
    let stored = back_up(&site, &barrier, "one.backup");
    drop(site.seal(barrier));
    let mut files = Files {
        others: vec![4, 2, u64::MAX],
        ..Files::default()
    };
    let restored = restore(&stored, site.foundation.kek(), &site.path, &mut files).unwrap();
    assert_eq!((restored.incarnation.counter, files.lives), (5, vec![1, 5]));
    let (barrier, _) = unseal_at(&site, &site.path);
    assert_eq!(barrier.point().unwrap().incarnation, restored.incarnation);
}

#[test]
fn a_restore_keeps_the_vaults_of_a_store_whose_control_db_is_lost() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "old")]).unwrap();
    barrier.create_vault("main", None).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    let vault = barrier.vault("main").unwrap();
    vault.commit(vec![put("note", "newer")]).unwrap();
    let name = site.file(&vault).file_name().unwrap().to_owned();
    drop(site.seal(barrier));
    let control = fs::read(site.path.join("control.db")).unwrap();
    fs::remove_file(site.path.join("control.db")).unwrap();
    let kek = site.foundation.kek();
    let restored = restore(&stored, kek, &site.path, &mut Files::default()).unwrap();
    assert!(restored.is_kept);
    tidy(&site.path).unwrap();
    let left = aside(&site.path);
    assert!(left.join("vaults").join(&name).exists());
    // Found again, it fits.
    let found = left.join("control.db");
    fs::write(&found, control).unwrap();
    fs::set_permissions(&found, PermissionsExt::from_mode(0o600)).unwrap();
    let (kept, _) = unseal_at(&site, &left);
    assert_eq!(read(&kept.vault("main").unwrap(), "note").unwrap(), "newer");
    drop(site.seal(kept));
    fs::remove_file(&found).unwrap();
    assert!(remove_aside(&site.path).unwrap() && !left.exists());
}

#[test]
fn what_an_interrupted_restore_left_is_dropped_by_the_next() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    let sealed = site.seal(barrier);
    let left = aside(&site.path);
    fs::create_dir_all(left.join("vaults")).unwrap();
    fs::write(left.join("control.db.new"), b"half").unwrap();
    let kek = site.foundation.kek();
    restore(&stored, kek, &site.path, &mut Files::default()).unwrap();
    drop(sealed);
    unseal_at(&site, &site.path);
}

/// Fails at the last moment.
struct Full(Files);

impl RestoreFiles for Full {
    fn begin(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.0.begin(name, length)
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.piece(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.end()
    }

    fn lives(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<u64>, VaultError> {
        self.0.lives(system)
    }

    fn records(&mut self, _: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError> {
        Err(VaultError::Full("a test".to_owned()))
    }
}

#[test]
fn a_restore_that_fails_leaves_the_old_store_and_no_rest() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    barrier.system().commit(vec![put("note", "b")]).unwrap();
    let sealed = site.seal(barrier);
    let kek = site.foundation.kek();
    let failed = restore(&stored, kek, &site.path, &mut Full(Files::default()));
    assert!(failed.is_err() && !aside(&site.path).exists());
    let (barrier, _) = site.unseal_from(sealed);
    assert_eq!(read(&barrier.system(), "note").unwrap(), "b");
}

#[test]
fn a_record_that_changes_behind_the_reader_is_read_again() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    let many: Vec<_> = (0..600).map(|n| put(&format!("r{n}"), "x")).collect();
    vault.commit(many).unwrap();
    let noted = vault.0.stats.journal.begin();
    let slice = vault.run(|disk| disk.copy_slice(None)).unwrap();
    assert_eq!(slice.len(), 256);
    vault.commit(vec![put("r1", "y"), delete("r2")]).unwrap();
    let last = vault
        .run(move |disk| disk.copy_last(&noted))
        .unwrap()
        .unwrap();
    let gone = last.rows.iter().filter(|(_, _, row)| row.is_none()).count();
    let here = (last.rows.iter())
        .filter(|(table, _, row)| *table == Table::Record && row.is_some())
        .count();
    assert_eq!((gone, here, last.records), (1, 1, 599));
    // Once the backup is over, nothing is noted.
    let noted = vault.0.stats.journal.begin();
    let many: Vec<_> = (0..300).map(|n| put(&format!("s{n}"), "x")).collect();
    vault.commit(many).unwrap();
    let held = std::sync::Arc::clone(&noted);
    assert!(
        vault
            .run(move |disk| disk.copy_last(&held))
            .unwrap()
            .is_none()
    );
    assert_eq!(take(&noted).len(), 300);
}

#[test]
fn a_store_that_is_written_all_the_time_is_backed_up_whole() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    barrier.create_vault("main", None).unwrap();
    let vault = barrier.vault("main").unwrap();
    let many: Vec<_> = (0..1000).map(|n| put(&format!("r{n}"), "x")).collect();
    vault.commit(many).unwrap();
    let stop = AtomicBool::new(false);
    let stored = std::thread::scope(|scope| {
        let (writer, stop) = (vault.clone(), &stop);
        let written = scope.spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("r{}", n * 37 % 1000);
                writer.commit(vec![put(&name, "y")]).unwrap();
                n += 1;
            }
            n
        });
        let (file, _) = target(&site, "backup");
        let made = barrier.backup(barrier.config(), &file, &[]);
        // The writer ends whatever came of it.
        stop.store(true, Ordering::Relaxed);
        assert!(written.join().unwrap() > 0);
        made.unwrap();
        StoredBackup::read(file).unwrap()
    });
    drop(site.seal(barrier));
    let standby = site.path.with_file_name("standby");
    restore(
        &stored,
        site.foundation.kek(),
        &standby,
        &mut Files::default(),
    )
    .unwrap();
    let (_, found) = unseal_at(&site, &standby);
    assert_eq!((found.verified, found.records), (2, 1002));
}

#[test]
fn a_vault_that_cannot_be_read_is_named_and_the_rest_is_there() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    for name in ["bad", "good"] {
        barrier.create_vault(name, None).unwrap();
        let vault = barrier.vault(name).unwrap();
        vault.commit(vec![put("r", name)]).unwrap();
    }
    let file = site.file(&barrier.vault("bad").unwrap());
    let sealed = site.seal(barrier);
    edit(&file, |db| db.execute("DELETE FROM record", [])).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    let (out, _) = target(&site, "backup");
    let report = barrier.backup(barrier.config(), &out, &[]).unwrap();
    assert_eq!((report.vaults, report.left_out.len()), (2, 1));
    assert_eq!(report.left_out[0].0, "bad");
    let stored = StoredBackup::read(out).unwrap();
    assert_eq!(barrier.verify_backup(&stored).unwrap(), report);
    drop(site.seal(barrier));
    let standby = site.path.with_file_name("standby");
    let kek = site.foundation.kek();
    let restored = restore(&stored, kek, &standby, &mut Files::default()).unwrap();
    assert_eq!(restored.left_out, report.left_out);
    let (barrier, found) = unseal_at(&site, &standby);
    assert_eq!(found.verified, 2);
    assert_eq!(read(&barrier.vault("good").unwrap(), "r").unwrap(), "good");
    assert!(read(&barrier.vault("bad").unwrap(), "r").is_err());
}

#[test]
fn a_vault_whose_disk_hangs_does_not_keep_the_others_out() {
    let mut site = Site::new();
    // The vaults that answer have it too, on a machine that is busy.
    site.options.deadline = std::time::Duration::from_secs(2);
    let (barrier, _) = site.unseal();
    barrier.create_vault("main", None).unwrap();
    let vault = barrier.vault("main").unwrap();
    let name = file_name(&vault);
    site.faults.hang(&name);
    let (out, _) = target(&site, "backup");
    let report = barrier.backup(barrier.config(), &out, &[]).unwrap();
    assert_eq!((report.vaults, report.left_out.len()), (1, 1));
    site.faults.release(&name);
}

#[test]
fn a_changed_backup_restores_nothing_and_touches_no_store() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    let (file, path) = target(&site, "backup");
    barrier.backup(barrier.config(), &file, &[]).unwrap();
    let sealed = site.seal(barrier);
    let length = file.metadata().unwrap().len();
    for at in [0, 20, length / 2, length - 40, length - 1] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let kek = site.foundation.kek();
        let refused = StoredBackup::read(File::open(&path).unwrap())
            .map_err(RestoreError::from)
            .and_then(|stored| restore(&stored, kek, &site.path, &mut Files::default()));
        assert!(refused.is_err(), "byte {at}");
        assert!(!aside(&site.path).join("control.db").exists());
        file.write_all_at(&byte, at).unwrap();
    }
    file.set_len(length - 1).unwrap();
    assert!(StoredBackup::read(File::open(&path).unwrap()).is_err());
    file.set_len(length + 1).unwrap();
    assert!(StoredBackup::read(File::open(&path).unwrap()).is_err());
    site.unseal_from(sealed);
}

/// The same backup under the same keys, but for the items that `keep` does not want.
pub(super) fn without(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    out: &File,
    mut keep: impl FnMut(&BackupItem<'_>) -> bool,
) -> StoredBackup {
    rewritten(barrier, stored, out, |item, push| {
        if keep(item) {
            push(item);
        }
    })
}

/// The same backup under the same keys, with what `change` hands on of each item.
pub(super) fn rewritten(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    out: &File,
    mut change: impl FnMut(&BackupItem<'_>, &mut dyn FnMut(&BackupItem<'_>)),
) -> StoredBackup {
    let root = &barrier.live().root;
    let (mut writer, begin) = BackupWriter::new(stored.header().clone());
    out.write_all_at(&begin, 0).unwrap();
    items(stored, root, |item| {
        // All of it goes into one chunk.
        change(&item, &mut |item| assert!(!writer.push(item).unwrap()));
        Ok::<(), BackupFault>(())
    })
    .unwrap();
    let (end, _) = root.lend(|root| writer.finish(root)).unwrap().unwrap();
    out.write_all_at(&end, begin.len() as u64).unwrap();
    StoredBackup::read(out.try_clone().unwrap()).unwrap()
}

#[test]
fn a_backup_that_lacks_a_row_is_no_store_though_its_seal_is_good() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    barrier.create_vault("main", None).unwrap();
    let vault = barrier.vault("main").unwrap();
    vault
        .commit(vec![put("r", "1"), Op::Outbox(b"line".to_vec())])
        .unwrap();
    barrier.settle().unwrap();
    let stored = back_up(&site, &barrier, "backup");
    for table in [Table::Record, Table::Outbox, Table::Head, Table::Ledger] {
        let mut left = 1;
        let (out, _) = target(&site, &format!("without-{}", table.number()));
        let lacking = without(&barrier, &stored, &out, |item| match item {
            BackupItem::Row { table: found, .. } if *found == table.number() && left > 0 => {
                left -= 1;
                false
            }
            _ => true,
        });
        let refused = barrier.verify_backup(&lacking);
        assert!(matches!(refused, Err(BackupFault::Content(_))), "{table:?}");
        let standby = site
            .path
            .with_file_name(format!("standby-{}", table.number()));
        let kek = site.foundation.kek();
        assert!(restore(&lacking, kek, &standby, &mut Files::default()).is_err());
        assert!(!standby.exists() && !aside(&standby).exists(), "{table:?}");
    }
}

#[test]
fn a_backup_whose_store_opens_for_another_quorum_than_it_names_is_none() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    for row in ["config", "root"] {
        // As a rekey leaves it that ends while the backup is written.
        let (out, _) = target(&site, row);
        let config = Table::Config.number();
        let other = rewritten(&barrier, &stored, &out, |item, push| match item {
            BackupItem::Row { table, key, value } if (*table, *key) == (config, row.as_bytes()) => {
                let mut value = value.to_vec();
                *value.last_mut().unwrap() ^= 1;
                let (table, value) = (*table, &value[..]);
                push(&BackupItem::Row { table, key, value });
            }
            item => push(item),
        });
        let refused = barrier.verify_backup(&other);
        assert!(matches!(refused, Err(BackupFault::Content(_))), "{row}");
        let standby = site.path.with_file_name(format!("standby-{row}"));
        let kek = site.foundation.kek();
        let refused = restore(&other, kek, &standby, &mut Files::default()).err();
        assert!(
            format!("{refused:?}").contains("another quorum"),
            "{row}: {refused:?}"
        );
        assert!(!standby.exists() && !aside(&standby).exists(), "{row}");
    }
}

#[test]
fn shares_of_another_store_restore_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let (barrier, _) = site.unseal();
    let stored = back_up(&site, &barrier, "backup");
    let standby = site.path.with_file_name("standby");
    let kek = other.foundation.kek();
    let refused = restore(&stored, kek, &standby, &mut Files::default());
    assert!(matches!(refused, Err(RestoreError::RootKey(_))));
    assert!(matches!(Barrier::open(&standby), Err(OpenError::Store(_))));
    let (theirs, _) = other.unseal();
    let foreign = theirs.verify_backup(&stored);
    assert!(matches!(foreign, Err(BackupFault::Content(_))));
}

#[test]
fn a_seal_ends_a_backup_and_takes_its_keys() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let stored = back_up(&site, &barrier, "backup");
    let vaults = barrier.handle();
    let config = barrier.config().clone();
    drop(site.seal(barrier));
    let (file, _) = target(&site, "late");
    assert!(matches!(
        vaults.backup(&config, &file, &[]),
        Err(BackupFault::Store(VaultError::Sealed))
    ));
    assert!(matches!(
        vaults.verify_backup(&stored),
        Err(BackupFault::Store(VaultError::Sealed) | BackupFault::Format(BackupError::Sealed(_)))
    ));
}

#[test]
fn a_backup_restores_what_stands_under_old_and_new_keys() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "a")]).unwrap();
    for name in ["lazy", "eager"] {
        barrier.create_vault(name, None).unwrap();
        barrier
            .vault(name)
            .unwrap()
            .commit(vec![put("old", name)])
            .unwrap();
    }
    barrier.begin_epoch("lazy", None).unwrap();
    let lazy = barrier.vault("lazy").unwrap();
    lazy.commit(vec![put("new", "lazy")]).unwrap();
    let before = back_up(&site, &barrier, "before");
    let mut rotation = barrier.rotate("eager").unwrap();
    rotation.copy(|_| {}).unwrap();
    drop(rotation.commit(None).unwrap());
    barrier.reseal_system(None).unwrap();
    let after = back_up(&site, &barrier, "after");
    // What was made before is of the same root key, and opens with the keys that it carries.
    barrier.verify_backup(&before).unwrap();
    drop(site.seal(barrier));
    for (name, stored) in [("one", before), ("two", after)] {
        let standby = site.path.with_file_name(name);
        let kek = site.foundation.kek();
        restore(&stored, kek, &standby, &mut Files::default()).unwrap();
        let (barrier, found) = unseal_at(&site, &standby);
        assert_eq!((found.verified, found.quarantined.len()), (3, 0), "{name}");
        let lazy = barrier.vault("lazy").unwrap();
        assert_eq!(read(&lazy, "old").unwrap(), "lazy");
        assert_eq!(read(&lazy, "new").unwrap(), "lazy");
        let eager = barrier.vault("eager").unwrap();
        assert_eq!(read(&eager, "old").unwrap(), "eager");
        drop(site.seal(barrier));
    }
}
