//! Epochs of a vault's data key, and the system vault's new keys: what is written under which, and when an old one goes.

use std::path::Path;

use super::rebuild::{CONTROL, RECORDS, contents, filled, is_anywhere, rotate, wrapped};
use super::support::{Fail, Site, delete, key, put, read, rows};
use crate::batch::Op;
use crate::error::VaultError;
use crate::record::Row;
use crate::vault::OpenVault;
use crate::{Barrier, Unsealed};

#[test]
fn a_lazy_rotation_seals_what_is_written_from_then_on() {
    let (site, barrier, vault) = filled();
    let all = RECORDS as u64 + 1;
    assert_eq!(vault.status().old_records, 0);
    let loaded = vault.load(&key("n1")).unwrap();
    barrier
        .begin_epoch("prod", Some(Op::Outbox(b"lazy".to_vec())))
        .unwrap();
    assert_eq!(vault.status().old_records, all);
    assert_eq!(vault.open(&loaded).unwrap().expose(), b"of-secrets-1");
    let file = site.file(&vault);
    let epochs = |file: &Path| {
        let epoch = |(_, row): (Vec<u8>, Vec<u8>)| Row::parse(&row).unwrap().epoch;
        let all = rows(file, "record").into_iter().map(epoch);
        all.collect::<std::collections::BTreeSet<_>>().len()
    };
    vault
        .commit(vec![put("n1", "under the new"), delete("n2")])
        .unwrap();
    assert_eq!(vault.status().old_records, all - 2);
    let sealed = site.seal(barrier);
    assert_eq!(epochs(&file), 2);
    let (barrier, report) = site.unseal_from(sealed);
    assert!(report.quarantined.is_empty());
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.status().old_records, all - 2);
    assert_eq!(read(&vault, "n1").unwrap(), "under the new");
    assert_eq!(read(&vault, "n3").unwrap(), "of-secrets-3");
    let lines = barrier.system().outbox().unwrap();
    assert_eq!(lines.last().unwrap().1, b"lazy");
}

#[test]
fn an_epoch_without_a_record_goes_with_the_next_rotation_and_sixteen_are_the_most() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    let keys = |vault: &OpenVault| vault.0.keys.lend(|keys| keys.epochs().count()).unwrap();
    for n in 0..40 {
        let line = Op::Outbox(b"line".to_vec());
        vault
            .commit(vec![put("git", &format!("of-secrets-{n}")), line])
            .unwrap();
        vault.outbox_done(n + 1).unwrap();
        barrier.begin_epoch("prod", None).unwrap();
        assert_eq!(keys(&vault), 2, "one of the record, one of the next");
    }
    let stale = vault.load(&key("git")).unwrap();
    vault.commit(vec![put("git", "newest")]).unwrap();
    barrier.begin_epoch("prod", None).unwrap();
    assert!(matches!(vault.open(&stale), Err(VaultError::Rotated)));
    // A line that waits keeps its key.
    vault
        .commit(vec![delete("git"), Op::Outbox(b"waits".to_vec())])
        .unwrap();
    barrier.begin_epoch("prod", None).unwrap();
    let held = keys(&vault);
    assert!(held > 2);
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.outbox().unwrap()[0].1, b"waits");
    for n in held..16 {
        vault
            .commit(vec![put(&format!("n{n}"), "of-secrets")])
            .unwrap();
        barrier.begin_epoch("prod", None).unwrap();
    }
    vault.commit(vec![put("last", "of-secrets")]).unwrap();
    let error = barrier.begin_epoch("prod", None).unwrap_err();
    assert!(matches!(error, VaultError::Epochs { .. }), "{error}");
    assert!(error.to_string().contains("re-seal it whole"), "{error}");
    drop(rotate(&barrier).unwrap());
    assert_eq!(keys(&barrier.vault("prod").unwrap()), 1);
    barrier.begin_epoch("prod", None).unwrap();
}

#[test]
fn a_lazy_rotation_that_fails_leaves_a_vault_that_opens() {
    for (how, blind) in [
        (Fail::Put, 0),
        (Fail::Lost, 0),
        (Fail::Made, 0),
        (Fail::Lost, 1),
        (Fail::Made, 1),
    ] {
        let (site, barrier, vault) = filled();
        site.faults.fail_next(CONTROL, how);
        (0..blind).for_each(|_| site.faults.blind_next(CONTROL));
        let done = barrier.begin_epoch("prod", None);
        assert_eq!(done.is_ok(), how == Fail::Made && blind == 0, "{done:?}");
        vault.commit(vec![put("n1", "after")]).unwrap();
        barrier.begin_epoch("prod", None).unwrap();
        vault.commit(vec![put("n2", "later")]).unwrap();
        let (barrier, report) = site.unseal_from(site.seal(barrier));
        assert!(report.quarantined.is_empty(), "{report:?}");
        let vault = barrier.vault("prod").unwrap();
        assert_eq!(read(&vault, "n1").unwrap(), "after");
        assert_eq!(read(&vault, "n2").unwrap(), "later");
    }
}

#[test]
fn a_row_that_was_replaced_is_not_counted_out_of_its_epoch() {
    let (site, barrier, vault) = filled();
    let file = site.file(&vault);
    let first = rows_of(&site.seal(barrier), &file);
    let (barrier, _) = site.unseal();
    let vault = barrier.vault("prod").unwrap();
    barrier.begin_epoch("prod", None).unwrap();
    vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
    // Another row in its place: the one whose turn it is now would be counted in its stead.
    super::support::edit(&file, |conn| {
        conn.execute("UPDATE record SET value = ?1", [&first])
            .unwrap()
    });
    let error = vault
        .commit(vec![put("n1", "x"), put("n2", "x")])
        .unwrap_err();
    assert!(matches!(error, VaultError::Quarantined(_)), "{error}");
}

/// The first row of a table of records; the store is sealed.
fn rows_of(_sealed: &Barrier<crate::Sealed>, file: &Path) -> Vec<u8> {
    rows(file, "record").swap_remove(0).1
}

/// The system vault with a record and a line that waits.
fn system() -> (Site, Barrier<Unsealed>) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let system = barrier.system();
    let line = |n: u8| Op::Outbox(vec![b'l', n]);
    system
        .commit(vec![put("grant", "first"), line(1), line(2)])
        .unwrap();
    system.commit(vec![put("grant", "second")]).unwrap();
    system.outbox_done(1).unwrap();
    (site, barrier)
}

#[test]
fn the_system_vault_is_resealed_in_one_transaction() {
    let (site, barrier) = system();
    let (system, prod) = (barrier.system(), barrier.vault("prod").unwrap());
    prod.commit(vec![put("git", "hunter22")]).unwrap();
    let loaded = system.load(&key("grant")).unwrap();
    let sealed = site.seal(barrier);
    let control = site.path.join(CONTROL);
    let old = (rows(&control, "record"), wrapped(&site, &system));
    let (barrier, _) = site.unseal_from(sealed);
    let (system, keys) = (barrier.system(), barrier.keys_held());
    drop(loaded);
    let loaded = system.load(&key("grant")).unwrap();
    let (commits, created) = (site.faults.commits(CONTROL), contents(&system).0);
    barrier
        .reseal_system(Some(Op::Outbox(b"resealed".to_vec())))
        .unwrap();
    assert_eq!(site.faults.commits(CONTROL), commits + 1);
    assert_eq!(barrier.keys_held(), keys);
    assert!(matches!(system.open(&loaded), Err(VaultError::Rotated)));
    assert_eq!(contents(&system).0, created);
    let lines = system.outbox().unwrap();
    let lines: Vec<_> = lines
        .iter()
        .map(|(n, line)| (*n, line.as_slice()))
        .collect();
    assert_eq!(lines, [(2, &[b'l', 2][..]), (3, b"resealed")]);
    assert!(
        !is_anywhere(&site, &old.1),
        "the old keys' wrap is still there"
    );
    for (name, row) in &old.0 {
        assert!(!is_anywhere(&site, name) && !is_anywhere(&site, &row[64..96]));
    }
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "hunter23")])
        .unwrap();
    system.commit(vec![put("grant", "third")]).unwrap();
    // What is done along with it stands under the new keys.
    barrier.reseal_system([put("grant", "along")]).unwrap();
    assert_eq!(read(&system, "grant").unwrap(), "along");
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!((report.verified, report.quarantined.len()), (2, 0));
    assert_eq!(
        barrier.system().load(&key("grant")).unwrap().meta().version,
        4
    );
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "git").unwrap(),
        "hunter23"
    );
}

#[test]
fn a_system_vault_whose_resealing_fails_is_the_old_or_the_new_one() {
    for (how, blind, is_new) in [
        (Fail::Put, 0, false),
        (Fail::Lost, 0, false),
        (Fail::Made, 0, true),
        (Fail::Made, 1, true),
    ] {
        for sealed_at_once in [false, true] {
            let (site, barrier) = system();
            let old = barrier.system().load(&key("grant")).unwrap();
            site.faults.fail_next(CONTROL, how);
            // Once the rows were read: the file cannot be asked how the commit ended.
            let faults = site.faults.clone();
            site.faults.once_made(CONTROL, move || {
                (0..blind).for_each(|_| faults.blind_next(CONTROL));
            });
            let done = barrier.reseal_system(None);
            assert_eq!(done.is_ok(), is_new && blind == 0, "{done:?}");
            let barrier = if sealed_at_once {
                site.unseal_from(site.seal(barrier)).0
            } else {
                assert_eq!(read(&barrier.system(), "grant").unwrap(), "second");
                let opened = barrier.system().open(&old);
                assert_eq!(opened.is_err(), is_new);
                barrier
            };
            barrier.create_vault("more", None).unwrap();
            barrier
                .system()
                .commit(vec![put("grant", "third")])
                .unwrap();
            let (barrier, report) = site.unseal_from(site.seal(barrier));
            assert_eq!((report.verified, report.quarantined.len()), (3, 0));
            assert_eq!(read(&barrier.system(), "grant").unwrap(), "third");
            let lines = barrier.system().outbox().unwrap();
            assert_eq!(lines.last().unwrap(), &(2, vec![b'l', 2]));
        }
    }
}
