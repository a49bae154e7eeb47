//! One vault out of a backup: in the place of a damaged one, of one that serves, and of none.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use mcpist_quorum::{BackupError, BackupItem, Plan};

use super::backup::{back_up, rewritten};
use super::rekey::consented;
use super::support::{Fail, Site, delete, edit, key, put, read, rows};
use crate::backup::{BackupFault, StoredBackup};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::rebuild::Replaced;
use crate::rows::Table;
use crate::vault_restore::{VaultInBackup, VaultRestore};

/// A site whose vault `prod` was backed up with `git` and `ci`, and holds since then another `git`, `late`, and no `ci`.
fn changed() -> (Site, Barrier<Unsealed>, StoredBackup, PathBuf) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("git", "old"), put("ci", "steady")])
        .unwrap();
    let stored = back_up(&site, &barrier, "backup");
    vault
        .commit(vec![put("git", "new"), put("late", "x")])
        .unwrap();
    vault.commit(vec![delete("ci")]).unwrap();
    vault.commit(vec![Op::Outbox(b"line".to_vec())]).unwrap();
    let file = site.file(&vault);
    barrier.settle().unwrap();
    (site, barrier, stored, file)
}

/// The same, and the vault does not verify any more.
fn damaged() -> (Site, Barrier<Unsealed>, StoredBackup, PathBuf) {
    let (site, barrier, stored, file) = changed();
    let sealed = site.seal(barrier);
    let (name, mut row) = rows(&file, "record").swap_remove(0);
    let middle = row.len() / 2;
    row[middle] ^= 1;
    let put = "UPDATE record SET value = ?2 WHERE key = ?1";
    edit(&file, |conn| conn.execute(put, (name, row))).unwrap();
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    (site, barrier, stored, file)
}

fn look(barrier: &Barrier<Unsealed>, stored: &StoredBackup) -> VaultInBackup {
    let found = barrier.look_into_backup(stored, "prod", true).unwrap();
    let again = barrier.look_into_backup(stored, "prod", true).unwrap();
    assert_eq!(found, again, "looking changes nothing");
    found
}

fn built(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    found: &VaultInBackup,
) -> VaultRestore {
    let restore = barrier.restore_vault(stored, "prod", found.digest, true, 1);
    let restore = restore.unwrap();
    assert_eq!(restore.found(), found);
    restore
}

fn restored(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    found: &VaultInBackup,
) -> Result<Replaced, VaultError> {
    built(barrier, stored, found).commit(vec![Op::Outbox(b"restored".to_vec())])
}

/// Holds that the vault is what the backup has of it, now and after the next unseal, above every version that was.
fn is_restored(site: &Site, barrier: Barrier<Unsealed>) -> Barrier<Unsealed> {
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.health(), Health::Ok);
    assert_eq!(read(&vault, "git").unwrap(), "old");
    assert_eq!(read(&vault, "ci").unwrap(), "steady");
    assert!(matches!(
        vault.load(&key("late")),
        Err(VaultError::NotFound(_))
    ));
    let versions = ["git", "ci"].map(|name| vault.meta(&key(name)).unwrap().version);
    assert_eq!(versions[0], versions[1]);
    assert!(versions[0] > 4, "the vault had four commits");
    vault.commit(vec![put("more", "written")]).unwrap();
    assert!(vault.meta(&key("more")).unwrap().version > versions[0]);
    let left = barrier.remove_retired().unwrap();
    assert!(left.unknown.is_empty(), "the former file: {left:?}");
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(read(&vault, "more").unwrap(), "written");
    assert_eq!(read(&vault, "git").unwrap(), "old");
    barrier.verify("prod", |_| {}).unwrap();
    barrier
}

#[test]
fn a_damaged_vault_is_what_the_backup_has_of_it_and_its_file_stays() {
    let (site, barrier, stored, file) = damaged();
    let found = barrier.look_into_backup(&stored, "prod", false).unwrap();
    assert_eq!(found, look(&barrier, &stored));
    assert_eq!((found.records, found.here), (2, Some(1)), "one opens");
    assert!(found.is_quarantined);
    // Of `git` and `late` one is damaged; of the other it is said that it will be lost.
    assert_eq!((found.other + found.missing, found.lost.len()), (1, 1));
    assert_eq!(
        (found.damaged, found.is_sure, found.since),
        (1, false, Some(3))
    );
    assert_eq!(found.lines_lost, Some(0));
    let before = fs::read(&file).unwrap();
    let done = restored(&barrier, &stored, &found).unwrap();
    assert_eq!(done.records, 2);
    drop(done);
    let lines = barrier.vault("prod").unwrap().outbox().unwrap();
    assert_eq!(
        lines,
        [(1, b"line".to_vec())],
        "it waited in the damaged file"
    );
    let barrier = is_restored(&site, barrier);
    assert_eq!(fs::read(&file).unwrap(), before);
    let id = file.file_stem().unwrap().to_str().unwrap();
    barrier.discard(id, Vec::new()).unwrap();
    assert!(!file.exists());
    barrier.verify("prod", |_| {}).unwrap();
}

#[test]
fn a_vault_that_serves_is_replaced_only_where_that_is_said() {
    let (site, barrier, stored, file) = changed();
    let asked = barrier.look_into_backup(&stored, "prod", false);
    assert!(matches!(
        asked,
        Err(BackupFault::Store(VaultError::Serves(_)))
    ));
    let found = look(&barrier, &stored);
    assert_eq!((found.here, found.is_quarantined), (Some(2), false));
    assert_eq!((found.other, found.missing), (1, 1));
    assert!(found.is_sure);
    let mut names: Vec<_> = found.lost.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["git", "late"]);
    let unsaid = barrier.restore_vault(&stored, "prod", found.digest, false, 1);
    assert!(matches!(
        unsaid.err(),
        Some(BackupFault::Store(VaultError::Serves(_)))
    ));

    let vault = barrier.vault("prod").unwrap();
    let restore = built(&barrier, &stored, &found);
    let frozen = vault.commit(vec![put("git", "meanwhile")]);
    assert!(matches!(frozen, Err(VaultError::Frozen)));
    assert_eq!(read(&vault, "git").unwrap(), "new", "it is read meanwhile");
    drop(restore);
    assert_eq!(look(&barrier, &stored), found, "given up, all is as it was");
    vault.commit(vec![put("git", "since")]).unwrap();
    let moved = barrier.restore_vault(&stored, "prod", found.digest, true, 1);
    assert!(matches!(
        moved.err(),
        Some(BackupFault::Store(VaultError::Moved(_)))
    ));

    let found = look(&barrier, &stored);
    let sealed = vault.load(&key("git")).unwrap();
    let done = restored(&barrier, &stored, &found).unwrap();
    assert_eq!(
        vault.open(&sealed).unwrap().expose(),
        b"since",
        "until it is dropped"
    );
    drop(done);
    assert!(matches!(vault.open(&sealed), Err(VaultError::Rotated)));
    let lines = barrier.vault("prod").unwrap().outbox().unwrap();
    assert_eq!(lines, [(1, b"line".to_vec())]);
    drop(is_restored(&site, barrier));
    assert!(file.exists());
}

#[test]
fn a_vault_that_is_not_here_comes_back_and_takes_no_name_from_another() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("git", "old"), put("ci", "steady")])
        .unwrap();
    for payload in ["2", "3", "4"] {
        vault.commit(vec![put("late", payload)]).unwrap();
    }
    vault.commit(vec![delete("late")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    // As an older control.db has it.
    let gone = crate::commit::Extra {
        gone: Some(vault.id()),
        ..Default::default()
    };
    let record = Op::Delete {
        owner: Some(crate::record::OWNER_VAULTS.to_owned()),
        name: "prod".to_owned(),
        expect: crate::batch::Expect::Any,
    };
    let system = barrier.system();
    system
        .run(move |disk| disk.commit_system(&[record], 0, gone))
        .unwrap();
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    assert!(barrier.vault("prod").is_err());

    let found = barrier.look_into_backup(&stored, "prod", false).unwrap();
    assert_eq!((found.records, found.here, found.lost.len()), (2, None, 0));
    let restore = built(&barrier, &stored, &found);
    assert_eq!(restore.kept(), None);
    barrier.create_vault("prod", None).unwrap();
    let taken = restore.commit(Vec::new());
    assert!(matches!(taken, Err(VaultError::VaultExists(_))));
    assert_eq!(barrier.vault("prod").unwrap().status().records, 0);

    let other = barrier.look_into_backup(&stored, "other", false);
    let other = other.unwrap_err().to_string();
    assert!(other.contains("does not hold vault \"other\""), "{other}");
    let found = look(&barrier, &stored);
    drop(restored(&barrier, &stored, &found).unwrap());
    let vault = barrier.vault("prod").unwrap();
    assert!(
        vault.meta(&key("git")).unwrap().version > 5,
        "the backup's commits"
    );
    assert_eq!(vault.outbox_next().unwrap(), 1, "it had no line");
}

#[test]
fn a_record_of_the_same_version_and_another_content_is_another() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "first")]).unwrap();
    let files = [site.file(&vault), site.path.join("control.db")];
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    let before = files.each_ref().map(|file| fs::read(file).unwrap());
    let (barrier, _) = site.unseal_from(sealed);
    let write = |barrier: &Barrier<Unsealed>, payload| {
        let vault = barrier.vault("prod").unwrap();
        vault.commit(vec![put("git", payload)]).unwrap();
    };
    write(&barrier, "second");
    let stored = back_up(&site, &barrier, "backup");
    // The disk goes back, and another life begins there.
    let sealed = site.seal(barrier);
    for (file, bytes) in files.iter().zip(before) {
        fs::write(file, bytes).unwrap();
    }
    let (barrier, _) = site.unseal_from(sealed);
    write(&barrier, "another");
    let found = look(&barrier, &stored);
    assert_eq!((found.other, found.missing), (1, 0));
}

#[test]
fn a_backup_under_another_root_key_is_refused_by_name() {
    let (site, mut barrier, stored, _) = changed();
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consent = barrier.consent(&shares).unwrap();
    let line = vec![Op::Outbox(b"rotated".to_vec())];
    barrier.rotate_root(&consent, line, 0).unwrap();
    let refused = barrier.look_into_backup(&stored, "prod", true);
    let by_name = matches!(&refused, Err(BackupFault::Format(BackupError::Sealed(_))));
    assert!(by_name, "{refused:?}");
}

/// The same backup with `more` right behind the beginning of the vault `prod`.
fn with(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    out: &File,
    more: &[BackupItem<'_>],
) -> StoredBackup {
    rewritten(barrier, stored, out, |item, push| {
        push(item);
        if matches!(item, BackupItem::Vault { name: "prod", .. }) {
            more.iter().for_each(push);
        }
    })
}

#[test]
fn rows_that_a_later_one_replaced_in_the_backup_are_none_of_the_vault() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("git", "older"), put("gone", "x")])
        .unwrap();
    barrier.settle().unwrap();
    vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
    let old = rows(&site.file(&vault), "record");
    vault.commit(vec![delete("gone")]).unwrap();
    vault
        .commit(vec![put("git", "old"), put("ci", "steady")])
        .unwrap();
    let stored = back_up(&site, &barrier, "backup");
    // As a backup has them where they changed while it was written.
    let table = Table::Record.number();
    let mut more: Vec<_> = (old.iter())
        .map(|(key, value)| BackupItem::Row { table, key, value })
        .collect();
    more.extend(old.iter().map(|(key, _)| BackupItem::Gone { table, key }));
    let out = tempfile::tempfile().unwrap();
    let stored = with(&barrier, &stored, &out, &more);
    vault.commit(vec![put("git", "new")]).unwrap();
    let found = look(&barrier, &stored);
    assert_eq!((found.records, found.other, found.missing), (2, 1, 0));
    drop(restored(&barrier, &stored, &found).unwrap());
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(read(&vault, "git").unwrap(), "old");
    assert_eq!(vault.list(None).unwrap().len(), 2);
}

#[test]
fn a_damaged_file_that_changed_since_it_was_looked_at_is_looked_at_again() {
    let (_site, barrier, stored, file) = damaged();
    let found = look(&barrier, &stored);
    edit(&file, |conn| conn.execute("DELETE FROM head", [])).unwrap();
    let moved = barrier.restore_vault(&stored, "prod", found.digest, true, 1);
    assert!(matches!(
        moved.err(),
        Some(BackupFault::Store(VaultError::Moved(_)))
    ));
    let again = look(&barrier, &stored);
    assert_eq!(again.lines_lost, None);
    drop(restored(&barrier, &stored, &again).unwrap());
    assert_eq!(read(&barrier.vault("prod").unwrap(), "git").unwrap(), "old");
}

#[test]
fn a_vault_of_which_nothing_opens_comes_back() {
    // Its file is gone, for as long as its disk is, or the keys in control.db are.
    for is_gone in [true, false] {
        let (site, barrier, stored, file) = changed();
        let id = barrier.vault("prod").unwrap().id();
        let (sealed, elsewhere) = (site.seal(barrier), site.path.join("elsewhere"));
        if is_gone {
            fs::rename(&file, &elsewhere).unwrap();
        } else {
            let spoil = "UPDATE vault SET value = x'01' WHERE key = ?1";
            edit(&site.path.join("control.db"), |conn| {
                conn.execute(spoil, [id.as_bytes().as_slice()])
            })
            .unwrap();
        }
        let (barrier, _) = site.unseal_from(sealed);
        assert_ne!(barrier.vault("prod").unwrap().health(), Health::Ok);
        let found = look(&barrier, &stored);
        assert_eq!((found.here, found.is_quarantined), (Some(0), true));
        assert_eq!(found.lines_lost, None);
        assert_eq!((found.is_sure, found.since), (false, Some(3)));
        let restore = built(&barrier, &stored, &found);
        assert_eq!(restore.kept(), Some(id));
        drop(restore.commit(Vec::new()).unwrap());
        let first = barrier.vault("prod").unwrap().outbox_next().unwrap();
        assert_eq!(first, 2, "the log has a line");
        if is_gone {
            let barrier = is_restored(&site, barrier);
            // It comes back, and whoever needs it has it until it is discarded.
            fs::rename(&elsewhere, &file).unwrap();
            let (barrier, _) = site.unseal_from(site.seal(barrier));
            barrier.remove_retired().unwrap();
            assert!(file.exists());
            barrier.discard(&id.to_string(), Vec::new()).unwrap();
            assert!(!file.exists());
        } else {
            let barrier = is_restored(&site, barrier);
            fs::remove_file(&file).unwrap();
            barrier.discard(&id.to_string(), Vec::new()).unwrap();
        }
    }
}

#[test]
fn a_restore_that_fails_at_its_commit_is_not_made_and_can_be_repeated() {
    for how in [Fail::Put, Fail::Lost] {
        let (site, barrier, stored, _) = changed();
        let found = look(&barrier, &stored);
        site.faults.fail_next("control.db", how);
        assert!(restored(&barrier, &stored, &found).is_err());
        let vault = barrier.vault("prod").unwrap();
        assert_eq!(read(&vault, "git").unwrap(), "new");
        let again = look(&barrier, &stored);
        assert_eq!(again, found, "and it is not frozen");
        drop(restored(&barrier, &stored, &again).unwrap());
        drop(is_restored(&site, barrier));
    }
}

#[test]
fn a_seal_ends_a_restore_and_leaves_the_vault_as_it_was() {
    let (site, barrier, stored, _) = damaged();
    let found = look(&barrier, &stored);
    let restore = built(&barrier, &stored, &found);
    let sealed = barrier.seal();
    assert!(restore.commit(Vec::new()).is_err());
    assert!(sealed.base.store.wait_closed(Duration::from_secs(60)));
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.quarantined.len(), 1);
    assert_eq!(look(&barrier, &stored), found);
    drop(restored(&barrier, &stored, &found).unwrap());
    drop(is_restored(&site, barrier));
}
