//! Rotation of vaults: what stays, what goes, and what a fault at each step leaves.

use std::path::Path;

use super::support::{Fail, Site, delete, file_name, key, put, read, rows};
use crate::batch::{Expect, Op};
use crate::error::VaultError;
use crate::vault::OpenVault;
use crate::{Barrier, Unsealed};
use mcpist_secret::Secret;

pub(super) const CONTROL: &str = "control.db";
pub(super) const RECORDS: usize = 700;

/// A vault of more records than a slice, one of them deleted, with outbox lines that were not all handed on.
pub(super) fn filled() -> (Site, Barrier<Unsealed>, OpenVault) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    let puts = (0..RECORDS).map(|n| put(&format!("n{n}"), &format!("of-secrets-{n}")));
    vault.commit(puts.collect()).unwrap();
    let owned = Op::Put {
        owner: Some("ada".into()),
        name: "git".into(),
        kind: "basic".into(),
        expiry: 1_900_000_000,
        hosts: vec!["a.example".into(), "b.example".into()],
        payload: Secret::copy_of(b"hers").unwrap(),
        expect: Expect::Absent,
    };
    let line = |n: u8| Op::Outbox(vec![b'l', n]);
    vault
        .commit(vec![owned, put("n0", "second"), line(b'1'), line(b'2')])
        .unwrap();
    vault.commit(vec![put("gone", "x"), line(b'3')]).unwrap();
    vault.commit(vec![put("gone", "y")]).unwrap();
    vault.commit(vec![delete("gone")]).unwrap();
    vault.outbox_done(1).unwrap();
    (site, barrier, vault)
}

/// Everything that may be known of a vault from outside: its records, the lines that wait, and the version that a new
/// record gets.
type Contents = (Vec<String>, Vec<(u64, Vec<u8>)>, u64);

pub(super) fn contents(vault: &OpenVault) -> Contents {
    let mut records: Vec<String> = vault
        .list(None)
        .unwrap()
        .into_iter()
        .map(|listed| {
            let owner = listed.owner.as_deref();
            let key = crate::RecordKey {
                owner,
                name: &listed.name,
            };
            let payload = vault.open(&vault.load(&key).unwrap()).unwrap();
            format!("{:?} {:?}", listed, payload.expose())
        })
        .collect();
    records.sort();
    let next = vault.next_version(&key("never")).unwrap();
    (records, vault.outbox().unwrap(), next)
}

/// Waits until the only vault's file is the only one in its folder.
fn wait_alone(site: &Site, vault: &OpenVault) {
    let file = site.file(vault);
    let others = |folder: &Path| {
        std::fs::read_dir(folder).unwrap().any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            !name.starts_with(&file_name(vault))
        })
    };
    while others(file.parent().unwrap()) {
        std::thread::yield_now();
    }
}

/// Whether a file of the store holds these bytes.
pub(super) fn is_anywhere(site: &Site, bytes: &[u8]) -> bool {
    let folders = [site.path.clone(), site.path.join("vaults")];
    let files = folders
        .iter()
        .flat_map(|f| std::fs::read_dir(f).unwrap().flatten());
    files.filter(|f| f.path().is_file()).any(|f| {
        let held = std::fs::read(f.path()).unwrap();
        held.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// The wrapped keys of a vault, as they stand in the closed control.db.
pub(super) fn wrapped(site: &Site, vault: &OpenVault) -> Vec<u8> {
    let all = rows(&site.path.join(CONTROL), "vault");
    let mine = all.into_iter().find(|(id, _)| id == vault.id().as_bytes());
    mine.unwrap().1
}

pub(super) fn rotate(barrier: &Barrier<Unsealed>) -> Result<crate::Replaced, VaultError> {
    let mut rotation = barrier.rotate("prod")?;
    rotation.copy(|_| {})?;
    rotation.commit(Some(Op::Outbox(b"rotated".to_vec())))
}

#[test]
fn an_eager_rotation_changes_every_key_and_nothing_else() {
    let (site, barrier, _) = filled();
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let old = barrier.vault("prod").unwrap();
    let (before, created) = (contents(&old), old.status().created);
    let loaded = old.load(&key("n1")).unwrap();
    let sealed = site.seal(barrier);
    let wrap = wrapped(&site, &old);
    let row = rows(&site.file(&old), "record").swap_remove(0).1;
    let (barrier, _) = site.unseal_from(sealed);
    let (old, keys) = (barrier.vault("prod").unwrap(), barrier.keys_held());
    drop(loaded);
    let loaded = old.load(&key("n1")).unwrap();
    let mut rotation = barrier.rotate("prod").unwrap();
    assert_eq!(rotation.records(), RECORDS as u64 + 1);
    let mut heard = Vec::new();
    rotation.copy(|copied| heard.push(copied)).unwrap();
    assert_eq!(heard, [512, RECORDS as u64 + 1]);
    let replaced = rotation
        .commit(Some(Op::Outbox(b"rotated".to_vec())))
        .unwrap();
    assert_eq!(replaced.records, RECORDS as u64 + 1);
    let new = barrier.vault("prod").unwrap();
    assert_ne!(new.id(), old.id());
    // Who has the old record in memory goes on, until the old one is let go.
    assert_eq!(old.open(&loaded).unwrap().expose(), b"of-secrets-1");
    assert!(matches!(new.open(&loaded), Err(VaultError::OtherVault)));
    drop(replaced);
    assert!(matches!(old.open(&loaded), Err(VaultError::Rotated)));
    assert!(matches!(read(&old, "n1"), Err(VaultError::Rotated)));
    assert_eq!(barrier.keys_held(), keys);
    assert!(contents(&new) == before);
    assert_eq!(new.status().created, created);
    wait_alone(&site, &new);
    assert!(
        !is_anywhere(&site, &wrap),
        "the old keys' wrap is still there"
    );
    assert!(
        !is_anywhere(&site, &row[64..96]),
        "an old row is still there"
    );
    new.commit(vec![put("n1", "newer"), Op::Outbox(b"l4".to_vec())])
        .unwrap();
    let lines = barrier.system().outbox().unwrap();
    assert_eq!(lines.last().unwrap().1, b"rotated");
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!((report.verified, report.quarantined.len()), (2, 0));
    assert!(report.last_write_missing.is_empty());
    let new = barrier.vault("prod").unwrap();
    assert_eq!(read(&new, "n1").unwrap(), "newer");
    assert_eq!(new.load(&key("n0")).unwrap().meta().version, 2);
    assert_eq!(new.outbox().unwrap().last().unwrap(), &(4, b"l4".to_vec()));
}

#[test]
fn a_vault_that_is_rebuilt_answers_reads_and_refuses_changes_until_that_is_over() {
    let (site, barrier, vault) = filled();
    let mut rotation = barrier.rotate("prod").unwrap();
    assert!(matches!(barrier.rotate("prod"), Err(VaultError::Frozen)));
    let during = vault.clone();
    rotation
        .copy(move |_| {
            assert_eq!(read(&during, "n5").unwrap(), "of-secrets-5");
            let refused = during.commit(vec![put("n5", "lost")]);
            assert!(matches!(refused, Err(VaultError::Frozen)));
        })
        .unwrap();
    assert!(matches!(
        barrier.begin_epoch("prod", None),
        Err(VaultError::Frozen)
    ));
    drop(rotation);
    vault.commit(vec![put("n5", "kept")]).unwrap();
    wait_alone(&site, &vault);
    let replaced = rotate(&barrier).unwrap();
    let refused = vault.commit(vec![put("n5", "lost")]);
    assert!(
        matches!(refused, Err(VaultError::Frozen)),
        "the old one stays shut"
    );
    drop(replaced);
    assert_eq!(read(&barrier.vault("prod").unwrap(), "n5").unwrap(), "kept");
}

#[test]
fn a_rotation_that_fails_at_its_commit_leaves_the_old_vault_or_the_new_one() {
    for (how, blind, is_new) in [
        (Fail::Put, 0, false),
        (Fail::Lost, 0, false),
        (Fail::Made, 0, true),
        (Fail::Made, 1, true),
        (Fail::Lost, 2, false),
        (Fail::Made, 2, true),
    ] {
        let (site, barrier, old) = filled();
        let (before, keys) = (contents(&old), barrier.keys_held());
        let mut rotation = barrier.rotate("prod").unwrap();
        rotation.copy(|_| {}).unwrap();
        site.faults.fail_next(CONTROL, how);
        (0..blind).for_each(|_| site.faults.blind_next(CONTROL));
        let done = rotation.commit(None).map(drop);
        assert_eq!(done.is_ok(), is_new && blind < 2, "{:?}", done.err());
        // Whatever job of control.db comes next looks.
        barrier.system().outbox().unwrap();
        let vault = barrier.vault("prod").unwrap();
        assert_eq!(vault.id() != old.id(), is_new);
        assert!(contents(&vault) == before);
        vault.commit(vec![put("n1", "after")]).unwrap();
        wait_alone(&site, &vault);
        assert_eq!(barrier.keys_held(), keys);
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert_eq!((report.verified, report.quarantined.len()), (2, 0));
        assert_eq!(
            read(&barrier.vault("prod").unwrap(), "n1").unwrap(),
            "after"
        );
    }
}

#[test]
fn a_rotation_that_was_cut_off_leaves_files_of_which_only_the_retired_one_goes() {
    for (after_commit, how) in [(false, Fail::Lost), (true, Fail::Lost), (true, Fail::Made)] {
        let (site, barrier, old) = filled();
        let before = contents(&old);
        let mut rotation = barrier.rotate("prod").unwrap();
        rotation.copy(|_| {}).unwrap();
        let mut left = None;
        if after_commit {
            // Nobody sees how it ended, and then the process is gone.
            site.faults.fail_next(CONTROL, how);
            (0..2).for_each(|_| site.faults.blind_next(CONTROL));
            rotation.commit(None).map(drop).unwrap_err();
        } else {
            let is_new = |path: &std::path::PathBuf| {
                path.extension().is_some_and(|e| e == "db") && *path != site.file(&old)
            };
            let folder = std::fs::read_dir(site.path.join("vaults")).unwrap();
            let file = folder.map(|f| f.unwrap().path()).find(is_new).unwrap();
            left = Some((std::fs::read(&file).unwrap(), file));
            drop(rotation);
            wait_alone(&site, &old);
        }
        let sealed = site.seal(barrier);
        if let Some((bytes, file)) = left {
            std::fs::write(file, bytes).unwrap();
        }
        let left = |barrier: &Barrier<Unsealed>| {
            let found = barrier.remove_retired().unwrap();
            (found.removed, found.unknown.len())
        };
        let (barrier, report) = site.unseal_from(sealed);
        assert!(report.quarantined.is_empty() && report.last_write_missing.is_empty());
        let vault = barrier.vault("prod").unwrap();
        let is_new = how == Fail::Made && after_commit;
        assert_eq!(vault.id() != old.id(), is_new);
        // One that was not made looks like one of a newer control.db, and stays.
        let unknown = usize::from(!is_new);
        assert_eq!(left(&barrier), (u64::from(is_new), unknown));
        assert_eq!(left(&barrier), (0, unknown));
        // That a line was handed on is known to memory alone.
        let (records, _, next) = contents(&vault);
        assert!(records == before.0 && next == before.2);
        if is_new {
            wait_alone(&site, &vault);
        }
    }
}

#[test]
fn a_control_db_that_was_put_back_costs_no_vault_that_it_does_not_know() {
    let (site, barrier, _) = filled();
    let sealed = site.seal(barrier);
    let control = site.path.join(CONTROL);
    let old = std::fs::read(&control).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    barrier.create_vault("late", None).unwrap();
    let late = barrier.vault("late").unwrap();
    late.commit(vec![put("git", "only here")]).unwrap();
    drop(site.seal(barrier));
    let new = std::fs::read(&control).unwrap();
    std::fs::write(&control, &old).unwrap();
    let (barrier, report) = site.unseal();
    assert!(report.quarantined.is_empty(), "{report:?}");
    let found = barrier.remove_retired().unwrap();
    assert_eq!(
        (found.removed, found.unknown.contains(&late.id())),
        (0, true)
    );
    drop(site.seal(barrier));
    std::fs::write(&control, &new).unwrap();
    let (barrier, report) = site.unseal();
    assert!(report.quarantined.is_empty(), "{report:?}");
    assert_eq!(barrier.remove_retired().unwrap(), Default::default());
    let late = barrier.vault("late").unwrap();
    assert_eq!(read(&late, "git").unwrap(), "only here");
}

#[test]
fn what_is_no_database_of_a_vault_is_left_alone_and_not_counted() {
    let (site, barrier, vault) = filled();
    drop(rotate(&barrier).unwrap());
    let new = barrier.vault("prod").unwrap();
    wait_alone(&site, &new);
    let beside = |vault: &OpenVault, suffix: &str| {
        let mut name = site.file(vault).into_os_string();
        name.push(suffix);
        std::path::PathBuf::from(name)
    };
    let kept = [beside(&vault, ".v1"), beside(&new, ".v1")];
    kept.iter()
        .for_each(|file| std::fs::write(file, "").unwrap());
    std::fs::write(beside(&vault, "-wal"), "").unwrap();
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let found = barrier.remove_retired().unwrap();
    assert_eq!((found.removed, found.unknown.len()), (1, 0));
    assert_eq!(barrier.remove_retired().unwrap(), Default::default());
    assert!(!beside(&vault, "-wal").exists());
    assert!(kept.iter().all(|file| file.exists()));
}

#[test]
fn an_old_file_that_is_put_back_opens_nothing_and_is_no_vault() {
    let (site, barrier, old) = filled();
    let sealed = site.seal(barrier);
    let (file, bytes) = (site.file(&old), std::fs::read(site.file(&old)).unwrap());
    let (barrier, _) = site.unseal_from(sealed);
    drop(rotate(&barrier).unwrap());
    let new = barrier.vault("prod").unwrap();
    wait_alone(&site, &new);
    let sealed = site.seal(barrier);
    std::fs::write(&file, &bytes).unwrap();
    // Under the new id as well: the file of another vault.
    let (barrier, report) = site.unseal_from(sealed);
    assert!(report.quarantined.is_empty());
    assert_eq!(barrier.remove_retired().unwrap().removed, 1);
    assert!(!file.exists());
    let sealed = site.seal(barrier);
    let current = std::fs::read(site.file(&new)).unwrap();
    std::fs::write(site.file(&new), &bytes).unwrap();
    std::fs::write(&file, &current).unwrap();
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    let found = barrier.remove_retired().unwrap();
    assert_eq!(
        (found.removed, found.unknown.contains(&old.id())),
        (0, true)
    );
    let sealed = site.seal(barrier);
    std::fs::write(site.file(&new), &current).unwrap();
    let (barrier, report) = site.unseal_from(sealed);
    assert!(report.quarantined.is_empty());
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "n1").unwrap(),
        "of-secrets-1"
    );
}

#[test]
fn a_row_that_is_put_back_under_the_rotation_quarantines_the_vault() {
    let (site, barrier, vault) = filled();
    let file = site.file(&vault);
    let sealed = site.seal(barrier);
    let (barrier, _) = site.unseal_from(sealed);
    let vault = barrier.vault("prod").unwrap();
    let mut rotation = barrier.rotate("prod").unwrap();
    vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
    super::support::edit(&file, |conn| {
        conn.execute(
            "DELETE FROM record WHERE key = (SELECT min(key) FROM record)",
            [],
        )
        .unwrap()
    });
    let error = rotation.copy(|_| {}).unwrap_err();
    assert!(matches!(error, VaultError::Quarantined(_)), "{error}");
    assert!(matches!(
        read(&vault, "n1"),
        Err(VaultError::Quarantined(_))
    ));
}

#[test]
fn seal_ends_a_rotation() {
    let (site, barrier, old) = filled();
    let mut rotation = barrier.rotate("prod").unwrap();
    let handle = barrier.handle();
    let error = rotation.copy(move |_| handle.revoke()).unwrap_err();
    assert!(matches!(error, VaultError::Sealed), "{error}");
    drop(rotation);
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty());
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.id(), old.id());
    vault.commit(vec![put("n1", "after")]).unwrap();
}

#[test]
fn a_missing_last_write_stays_missing_over_a_rotation() {
    let (site, barrier, old) = filled();
    let file = file_name(&old);
    site.faults.fail_next(&file, Fail::Lost);
    site.faults.blind_next(&file);
    old.commit(vec![put("n1", "lost")]).unwrap_err();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!(report.last_write_missing, ["prod"]);
    drop(rotate(&barrier).unwrap());
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!(report.last_write_missing, ["prod"]);
    barrier.confirm_last_write_missing("prod", None).unwrap();
}
