//! Disks that fail or hang, below the rows trait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::{Fail, Site, delete, file_name, key, put, read};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::rows::{Access, Table};
use crate::unseal::{Unseal, UnsealError};
use crate::vault::OpenVault;

const CONTROL: &str = "control.db";

fn site_with(names: &[&str]) -> (Site, crate::Barrier<crate::Unsealed>, Vec<OpenVault>) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vaults = names
        .iter()
        .map(|name| {
            barrier.create_vault(name, None).unwrap();
            let vault = barrier.vault(name).unwrap();
            vault.commit(vec![put("git", "old")]).unwrap();
            vault
        })
        .collect();
    (site, barrier, vaults)
}

/// A failed commit, and what is there afterwards and after a restart.
fn after(file: &str, how: Fail, expected: &str) {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let vault = vaults[0].clone();
    let file = if file == CONTROL {
        file.to_owned()
    } else {
        file_name(&vault)
    };
    site.faults.fail_next(&file, how);
    match vault.commit(vec![put("git", "new"), put("more", "x")]) {
        Ok(_) => assert!(how == Fail::Made),
        Err(error) => assert!(matches!(error, VaultError::Full(_)), "{error}"),
    }
    assert_eq!(read(&vault, "git").unwrap(), expected);
    vault
        .commit(vec![put("ci", "next"), Op::Outbox(b"line".to_vec())])
        .unwrap();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    assert!(report.last_write_missing.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(read(&vault, "git").unwrap(), expected);
    assert_eq!(read(&vault, "ci").unwrap(), "next");
}

#[test]
fn a_row_that_cannot_be_put() {
    after("vault", Fail::Put, "old");
}

#[test]
fn a_commit_that_is_lost() {
    after("vault", Fail::Lost, "old");
}

#[test]
fn a_commit_that_is_made_and_reported_lost() {
    after("vault", Fail::Made, "new");
}

#[test]
fn an_announcement_that_cannot_be_put() {
    after(CONTROL, Fail::Put, "old");
}

#[test]
fn an_announcement_that_is_lost() {
    after(CONTROL, Fail::Lost, "old");
}

#[test]
fn an_announcement_that_is_made_and_reported_lost() {
    after(CONTROL, Fail::Made, "new");
}

#[test]
fn a_failed_write_leaves_no_mark_at_the_next_unseal() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    site.faults.fail_next(&file_name(&vaults[0]), Fail::Put);
    vaults[0].commit(vec![put("git", "new")]).unwrap_err();
    barrier.settle().unwrap();
    let (_, report) = site.unseal_from(site.seal(barrier));
    assert!(report.last_write_missing.is_empty() && report.quarantined.is_empty());
}

#[test]
fn a_commit_in_doubt_at_seal_is_settled_by_the_file() {
    for (how, expected) in [(Fail::Lost, "old"), (Fail::Made, "new")] {
        let (site, barrier, vaults) = site_with(&["prod"]);
        let file = file_name(&vaults[0]);
        site.faults.fail_next(&file, how);
        site.faults.blind_next(&file);
        let error = vaults[0].commit(vec![put("git", "new")]).unwrap_err();
        assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert!(report.quarantined.is_empty());
        // A lost one was announced and nobody could look: that is shown.
        assert_eq!(report.last_write_missing.is_empty(), how == Fail::Made);
        assert_eq!(
            read(&barrier.vault("prod").unwrap(), "git").unwrap(),
            expected
        );
    }
}

#[test]
fn an_unseal_writes_nothing_and_what_it_found_rides_with_the_next_write() {
    for how in [Fail::Lost, Fail::Made] {
        let (site, barrier, vaults) = site_with(&["prod"]);
        let file = file_name(&vaults[0]);
        site.faults.fail_next(&file, how);
        site.faults.blind_next(&file);
        vaults[0].commit(vec![put("git", "new")]).unwrap_err();
        let sealed = site.seal(barrier);
        // The disk of control.db is full, and stays so for one write after the unseal.
        site.faults.fail_next(CONTROL, Fail::Put);
        let commits = site.faults.commits(CONTROL);
        let (barrier, report) = site.unseal_from(sealed);
        assert_eq!(site.faults.commits(CONTROL), commits);
        let missing = usize::from(how == Fail::Lost);
        assert_eq!(report.last_write_missing.len(), missing);
        let vault = barrier.vault("prod").unwrap();
        let error = vault.commit(vec![put("git", "newer")]).unwrap_err();
        assert!(matches!(error, VaultError::Full(_)), "{error}");
        vault.commit(vec![put("git", "newest")]).unwrap();
        // The mark is on the disk before the vault's write is.
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert!(report.quarantined.is_empty());
        assert_eq!(report.last_write_missing.len(), missing);
        assert_eq!(
            read(&barrier.vault("prod").unwrap(), "git").unwrap(),
            "newest"
        );
    }
}

#[test]
fn a_commit_that_was_made_while_the_store_was_sealed_is_not_told_as_none() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let file = file_name(&vaults[0]);
    let handle = barrier.handle();
    site.faults.fail_next(&file, Fail::Made);
    site.faults.once_made(&file, move || handle.revoke());
    let error = vaults[0].commit(vec![put("git", "new")]).unwrap_err();
    assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let now = read(&barrier.vault("prod").unwrap(), "git").unwrap();
    assert_eq!(now, "new");
}

#[test]
fn control_db_recovers_from_a_commit_in_doubt() {
    for how in [Fail::Put, Fail::Lost, Fail::Made] {
        let (site, barrier, vaults) = site_with(&["prod"]);
        site.faults.fail_next(CONTROL, how);
        site.faults.blind_next(CONTROL);
        let error = barrier.system().commit(vec![put("grant", "new")]);
        let error = error.unwrap_err();
        let known = matches!(error, VaultError::Full(_));
        assert_eq!(known, how == Fail::Put, "{error}");
        if known {
            // Nobody had to look.
            read(&barrier.system(), "grant").unwrap_err();
        }
        let there = read(&barrier.system(), "grant");
        assert_eq!(there.is_ok(), how == Fail::Made);
        vaults[0].commit(vec![put("git", "new")]).unwrap();
        barrier
            .system()
            .commit(vec![put("grant", "newer")])
            .unwrap();
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert_eq!(report.verified, 2);
        assert_eq!(read(&barrier.system(), "grant").unwrap(), "newer");
    }
}

#[test]
fn an_announcement_in_doubt_leaves_the_vault_as_it_was() {
    for how in [Fail::Lost, Fail::Made] {
        let (site, barrier, vaults) = site_with(&["prod"]);
        site.faults.fail_next(CONTROL, how);
        site.faults.blind_next(CONTROL);
        let error = vaults[0].commit(vec![put("git", "new")]).unwrap_err();
        assert!(matches!(error, VaultError::Unavailable), "{error}");
        assert_eq!(read(&vaults[0], "git").unwrap(), "old");
        vaults[0].commit(vec![put("git", "newer")]).unwrap();
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert!(report.quarantined.is_empty() && report.last_write_missing.is_empty());
        assert_eq!(
            read(&barrier.vault("prod").unwrap(), "git").unwrap(),
            "newer"
        );
    }
}

/// The files of the vaults, logs and all.
fn files(site: &Site) -> Vec<String> {
    let folder = std::fs::read_dir(site.path.join("vaults")).unwrap();
    folder
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_vault_that_cannot_be_made_is_not_there() {
    for how in [Fail::Put, Fail::Lost] {
        let (site, barrier, _) = site_with(&["prod"]);
        let keys = barrier.keys_held();
        site.faults.fail_next(CONTROL, how);
        barrier.create_vault("more", None).unwrap_err();
        assert!(matches!(
            barrier.vault("more"),
            Err(VaultError::NoSuchVault(_))
        ));
        assert_eq!(barrier.keys_held(), keys);
        let sealed = site.seal(barrier);
        assert_eq!(files(&site).len(), 1, "the file went with it");
        let (barrier, _) = site.unseal_from(sealed);
        barrier.create_vault("more", None).unwrap();
        let (_, report) = site.unseal_from(site.seal(barrier));
        assert_eq!((report.verified, report.quarantined.len()), (3, 0));
    }
}

#[test]
fn a_vault_that_was_made_and_reported_lost_is_there() {
    for blind in [0, 1] {
        let (site, barrier, _) = site_with(&["prod"]);
        site.faults.fail_next(CONTROL, Fail::Made);
        for _ in 0..blind {
            site.faults.blind_next(CONTROL);
        }
        barrier.create_vault("more", None).unwrap();
        let vault = barrier.vault("more").unwrap();
        vault.commit(vec![put("git", "new")]).unwrap();
        let (_, report) = site.unseal_from(site.seal(barrier));
        assert_eq!((report.verified, report.quarantined.len()), (3, 0));
    }
}

#[test]
fn a_vault_in_doubt_is_there_or_not_once_control_db_can_be_read() {
    for (how, there) in [(Fail::Made, true), (Fail::Lost, false)] {
        let (site, barrier, _) = site_with(&["prod"]);
        let keys = barrier.keys_held();
        site.faults.fail_next(CONTROL, how);
        site.faults.blind_next(CONTROL);
        site.faults.blind_next(CONTROL);
        let error = barrier.create_vault("more", None).unwrap_err();
        assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
        assert!(barrier.vault("more").is_err());
        // Whatever job of control.db comes next looks.
        barrier.system().outbox().unwrap();
        assert_eq!(barrier.keys_held(), keys + usize::from(there));
        match barrier.vault("more") {
            Ok(vault) => drop(vault.commit(vec![put("git", "new")]).unwrap()),
            Err(_) => barrier.create_vault("more", None).unwrap(),
        }
        let error = barrier.create_vault("more", None).unwrap_err();
        assert!(matches!(error, VaultError::VaultExists(_)), "{error}");
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert_eq!((report.verified, report.quarantined.len()), (3, 0));
        assert_eq!(read(&barrier.vault("more").unwrap(), "git").is_ok(), there);
        drop(site.seal(barrier));
        assert_eq!(files(&site).len(), 2);
    }
}

#[test]
fn a_vault_in_doubt_at_seal_is_settled_by_control_db() {
    for (how, verified) in [(Fail::Made, 3), (Fail::Lost, 2)] {
        let (site, barrier, _) = site_with(&["prod"]);
        site.faults.fail_next(CONTROL, how);
        site.faults.blind_next(CONTROL);
        site.faults.blind_next(CONTROL);
        barrier.create_vault("more", None).unwrap_err();
        let (_, report) = site.unseal_from(site.seal(barrier));
        assert_eq!((report.verified, report.quarantined.len()), (verified, 0));
    }
}

#[test]
fn a_vault_whose_maker_gave_up_waiting_is_there_all_the_same() {
    let (mut site, barrier, _) = site_with(&["prod"]);
    drop(site.seal(barrier));
    site.options.deadline = Duration::from_secs(3);
    let (barrier, _) = site.unseal();
    let handle = barrier.handle();
    let line = Some(b"made".to_vec());
    site.faults.hang(CONTROL);
    let error = handle.create_vault("more", line).unwrap_err();
    assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
    site.faults.release(CONTROL);
    // The job ends, and with it the vault is named.
    while barrier.system().outbox().map_or(0, |lines| lines.len()) == 0 {
        thread::yield_now();
    }
    barrier.vault("more").unwrap();
}

#[test]
fn a_vault_whose_disk_hangs_stands_alone() {
    let (mut site, barrier, _) = site_with(&["prod", "test"]);
    let sealed = site.seal(barrier);
    drop(sealed);
    site.options.deadline = Duration::from_secs(3);
    let (barrier, _) = site.unseal();
    let (prod, test) = (
        barrier.vault("prod").unwrap(),
        barrier.vault("test").unwrap(),
    );
    let kept = prod.load(&key("git")).unwrap();
    site.faults.hang(&file_name(&prod));
    let error = prod.commit(vec![put("git", "new")]).unwrap_err();
    assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
    assert_eq!(prod.health(), Health::Unavailable);
    let error = prod.load(&key("git")).map(drop).unwrap_err();
    assert!(matches!(error, VaultError::Unavailable), "at once: {error}");
    assert_eq!(
        prod.open(&kept).unwrap().expose(),
        b"old",
        "memory opens all the same"
    );
    test.commit(vec![put("git", "new")]).unwrap();
    assert_eq!(read(&test, "git").unwrap(), "new");
    // Seal does not wait for it, and wipes its keys too.
    let sealed = barrier.seal();
    assert!(matches!(prod.open(&kept), Err(VaultError::Sealed)));
    assert!(!sealed.base.store.wait_closed(Duration::ZERO));
    site.faults.release(&file_name(&prod));
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!((report.verified, report.quarantined.len()), (3, 0));
    let now = read(&barrier.vault("prod").unwrap(), "git").unwrap();
    assert_eq!(now, "new", "the write that was under way took effect");
}

#[test]
fn a_vault_whose_disk_hangs_at_unseal_stands_alone() {
    let (mut site, barrier, vaults) = site_with(&["prod", "test"]);
    let file = file_name(&vaults[0]);
    drop(site.seal(barrier));
    site.options.deadline = Duration::from_secs(3);
    site.faults.hang(&file);
    let (barrier, report) = site.unseal();
    assert_eq!(
        (report.verified, report.unavailable),
        (2, vec!["prod".to_owned()])
    );
    assert_eq!(barrier.vault("prod").unwrap().health(), Health::Unavailable);
    assert_eq!(read(&barrier.vault("test").unwrap(), "git").unwrap(), "old");
    let sealed = barrier.seal();
    site.faults.release(&file);
    let (_, report) = site.unseal_from(sealed);
    assert_eq!(report.verified, 3);
}

#[test]
fn control_db_that_is_still_in_use_fails_the_unseal_only() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let file = file_name(&vaults[0]);
    site.faults.hang(&file);
    let vault = vaults[0].clone();
    let writer = thread::spawn(move || vault.commit(vec![put("git", "new")]));
    site.faults.wait_hanging(&file);
    let sealed = barrier.seal();
    let Unseal::Failed(sealed, UnsealError::StillOpen) = site.submit(sealed) else {
        panic!("a file was open twice")
    };
    site.faults.release(&file);
    drop(writer.join().unwrap());
    site.unseal_from(sealed);
}

#[test]
fn one_commit_is_one_transaction_of_the_vault_and_one_of_control_db() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let file = file_name(&vaults[0]);
    let count = || (site.faults.commits(&file), site.faults.commits(CONTROL));
    let before = count();
    for n in 0..10 {
        vaults[0]
            .commit(vec![put("git", &n.to_string()), Op::Outbox(vec![n])])
            .unwrap();
        vaults[0].outbox().unwrap();
        vaults[0].outbox_done(u64::from(n) + 1).unwrap();
        read(&vaults[0], "git").unwrap();
    }
    assert_eq!(count(), (before.0 + 10, before.1 + 10));
    // The end of the tenth write is all that is left to say.
    barrier.settle().unwrap();
    barrier.settle().unwrap();
    assert_eq!(count(), (before.0 + 10, before.1 + 11));
}

#[test]
fn vaults_that_write_together_share_an_announcement() {
    let names = ["a", "b", "c", "d"];
    let (site, barrier, vaults) = site_with(&names);
    barrier.settle().unwrap();
    let before = site.faults.commits(CONTROL);
    site.faults.hang(CONTROL);
    let write = |vault: &OpenVault| {
        let vault = vault.clone();
        thread::spawn(move || vault.commit(vec![put("git", "new")]))
    };
    let first = write(&vaults[0]);
    site.faults.wait_hanging(CONTROL);
    let rest: Vec<_> = vaults[1..].iter().map(write).collect();
    let inbox = Arc::clone(&barrier.handle().registrar().inbox);
    while inbox.intents() < rest.len() {
        thread::yield_now();
    }
    site.faults.release(CONTROL);
    first.join().unwrap().unwrap();
    for writer in rest {
        writer.join().unwrap().unwrap();
    }
    assert_eq!(
        site.faults.commits(CONTROL),
        before + 2,
        "one for the first, one for all others"
    );
}

#[test]
fn deletes_truncate_the_log_and_a_log_that_stays_is_tried_again() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let wal = site.file(&vaults[0]).with_extension("db-wal");
    let len = || std::fs::metadata(&wal).unwrap().len();
    vaults[0].commit(vec![put("git", "new")]).unwrap();
    assert!(len() > 0);
    vaults[0].commit(vec![delete("git")]).unwrap();
    assert_eq!(len(), 0);
    drop(barrier);
}

#[test]
fn what_a_put_of_the_system_vault_replaces_is_in_no_file_of_it() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let system = barrier.system();
    let file = site.file(&system);
    let wal = file.with_extension("db-wal");
    // The ends of the sealed rows: a payload's last bytes and its tag.
    let bytes = |file: &std::path::Path| std::fs::read(file).unwrap();
    let holds = |file: &std::path::Path, row: &[u8]| {
        let found = bytes(file);
        found.windows(row.len()).any(|part| part == row)
    };
    let ends = |vault: &OpenVault| {
        let rows = vault.run(|disk| {
            Ok(disk
                .rows
                .begin(Access::Read)?
                .scan(Table::Record, None, 9)?)
        });
        let end = |row: Vec<u8>| row[row.len() - 32..].to_vec();
        rows.unwrap()
            .into_iter()
            .map(|(_, row)| end(row))
            .collect::<BTreeSet<_>>()
    };
    let before = ends(&system);
    let mut old: BTreeSet<Vec<u8>> = BTreeSet::new();
    for n in 0..50 {
        system
            .commit(vec![put("checkpoint", &n.to_string())])
            .unwrap();
        for row in &old {
            assert!(!holds(&file, row) && !holds(&wal, row), "{n}");
        }
        old = ends(&system).difference(&before).cloned().collect();
        assert_eq!(old.len(), 1);
        assert!(old.iter().all(|row| holds(&file, row) || holds(&wal, row)));
    }
    // Announcements of a vault's writes erase nothing and truncate nothing.
    let len = bytes(&wal).len();
    vaults[0].commit(vec![put("git", "new")]).unwrap();
    assert!(bytes(&wal).len() > len);
}

#[test]
fn a_log_that_a_crash_left_is_truncated_before_the_next_commit() {
    let (site, barrier, vaults) = site_with(&["prod"]);
    let file = site.file(&vaults[0]);
    let wal = file.with_extension("db-wal");
    for _ in 0..9 {
        vaults[0].commit(vec![put("git", "new")]).unwrap();
    }
    let (left, log) = (std::fs::read(&file).unwrap(), std::fs::read(&wal).unwrap());
    let sealed = site.seal(barrier);
    std::fs::write(&file, left).unwrap();
    std::fs::write(&wal, &log).unwrap();
    let (barrier, report) = site.unseal_from(sealed);
    assert!(report.quarantined.is_empty());
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "newest")]).unwrap();
    assert!(std::fs::read(&wal).unwrap().len() < log.len());
}
