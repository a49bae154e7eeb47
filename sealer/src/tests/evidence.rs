//! What is changed behind the store's back is found, and costs one vault.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::{Site, delete, edit, file_name, key, put, read, rows};
use crate::barrier::{Barrier, Sealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::rows::{Access, Table};
use crate::unseal::{Unseal, UnsealError, UnsealReport};

/// A site with the vaults `prod` and `test`, sealed; prod holds `git` (twice put), `ci` and two outbox lines.
fn two_vaults() -> (Site, Barrier<Sealed>, PathBuf) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    for name in ["prod", "test"] {
        barrier.create_vault(name, None).unwrap();
        let vault = barrier.vault(name).unwrap();
        vault
            .commit(vec![put("git", "old"), put("ci", "steady")])
            .unwrap();
        vault.commit(vec![put("git", "new")]).unwrap();
        vault
            .commit(vec![Op::Outbox(b"1".to_vec()), Op::Outbox(b"2".to_vec())])
            .unwrap();
    }
    let file = site.file(&barrier.vault("prod").unwrap());
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    (site, sealed, file)
}

/// Unseals, and holds that prod alone is quarantined; gives the reason.
fn only_prod_is_lost(site: &Site, sealed: Barrier<Sealed>) -> String {
    let (barrier, report) = site.unseal_from(sealed);
    let UnsealReport {
        verified,
        mut quarantined,
        ..
    } = report;
    assert_eq!(
        (verified, quarantined.len()),
        (2, 1),
        "system and test verify"
    );
    let (name, reason) = quarantined.remove(0);
    assert_eq!(name, "prod");
    let prod = barrier.vault("prod").unwrap();
    assert_eq!(prod.health(), Health::Quarantined(reason.clone()));
    assert!(matches!(
        prod.load(&key("ci")),
        Err(VaultError::Quarantined(_))
    ));
    assert!(matches!(
        prod.commit(vec![put("ci", "x")]),
        Err(VaultError::Quarantined(_))
    ));
    let test = barrier.vault("test").unwrap();
    assert_eq!(read(&test, "git").unwrap(), "new");
    test.commit(vec![put("git", "newer")]).unwrap();
    barrier
        .system()
        .commit(vec![put("still", "works")])
        .unwrap();
    reason
}

/// Changes prod's closed file and holds that this is found.
fn found(change: impl FnOnce(&rusqlite::Connection, &Path)) -> String {
    let (site, sealed, file) = two_vaults();
    edit(&file, |conn| change(conn, &file));
    only_prod_is_lost(&site, sealed)
}

#[test]
fn an_untouched_store_verifies() {
    let (site, sealed, _) = two_vaults();
    let (_, report) = site.unseal_from(sealed);
    assert_eq!((report.verified, report.records), (3, 2 + 2 + 2));
    assert!(report.quarantined.is_empty() && report.last_write_missing.is_empty());
}

#[test]
fn a_bit_of_a_row() {
    found(|conn, file| {
        let (key, mut row) = rows(file, "record").swap_remove(0);
        let middle = row.len() / 2;
        row[middle] ^= 1;
        let changed = conn.execute("UPDATE record SET value = ?2 WHERE key = ?1", [key, row]);
        assert_eq!(changed.unwrap(), 1);
    });
}

#[test]
fn a_row_taken_away() {
    let reason = found(|conn, _| {
        conn.execute(
            "DELETE FROM record WHERE key = (SELECT min(key) FROM record)",
            [],
        )
        .unwrap();
    });
    assert!(
        reason.contains("holds 1 records and its head says 2"),
        "{reason}"
    );
}

#[test]
fn two_rows_swapped() {
    found(|conn, file| {
        let all = rows(file, "record");
        for (key, value) in [(&all[0].0, &all[1].1), (&all[1].0, &all[0].1)] {
            conn.execute("UPDATE record SET value = ?2 WHERE key = ?1", [key, value])
                .unwrap();
        }
    });
}

#[test]
fn a_row_of_another_vault() {
    let (site, sealed, file) = two_vaults();
    let folder = file.parent().unwrap();
    let other = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| *path != file && path.extension().unwrap() == "db")
        .unwrap();
    let (key, row) = rows(&other, "record").swap_remove(0);
    edit(&file, |conn| {
        conn.execute(
            "DELETE FROM record WHERE key = (SELECT min(key) FROM record)",
            [],
        )
        .unwrap();
        conn.execute("INSERT INTO record VALUES (?1, ?2)", [key, row])
            .unwrap();
    });
    only_prod_is_lost(&site, sealed);
}

/// A site whose prod has been put back to before its last write, in part or in whole, as `put_back` does it.
fn put_back(put_back: impl FnOnce(&Path, &Path)) -> (Site, Barrier<Sealed>) {
    let (site, sealed, file) = two_vaults();
    let before = file.with_extension("before");
    fs::copy(&file, &before).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "newest")])
        .unwrap();
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    put_back(&before, &file);
    (site, sealed)
}

fn replace_table(from: &Path, to: &Path, table: &str) {
    let old = rows(from, table);
    edit(to, |conn| {
        conn.execute(&format!("DELETE FROM {table}"), []).unwrap();
        for (key, value) in old {
            conn.execute(
                &format!("INSERT INTO {table} VALUES (?1, ?2)"),
                [key, value],
            )
            .unwrap();
        }
    });
}

#[test]
fn rows_put_back() {
    let (site, sealed) = put_back(|before, file| replace_table(before, file, "record"));
    let reason = only_prod_is_lost(&site, sealed);
    assert!(reason.contains("some were put back"), "{reason}");
}

#[test]
fn rows_and_head_put_back() {
    let (site, sealed) = put_back(|before, file| {
        replace_table(before, file, "record");
        replace_table(before, file, "head");
    });
    let reason = only_prod_is_lost(&site, sealed);
    assert!(
        reason.contains("put back: it shows generation 4, control.db recorded 5"),
        "{reason}"
    );
}

#[test]
fn a_whole_file_put_back() {
    let (site, sealed) = put_back(|before, file| {
        fs::copy(before, file).unwrap();
    });
    let reason = only_prod_is_lost(&site, sealed);
    assert!(
        reason.contains("put back: it shows generation 4, control.db recorded 5"),
        "{reason}"
    );
}

#[test]
fn an_outbox_line_taken_away() {
    for which in ["min", "max"] {
        let reason = found(|conn, _| {
            let one = format!("DELETE FROM outbox WHERE key = (SELECT {which}(key) FROM outbox)");
            assert_eq!(conn.execute(&one, []).unwrap(), 1);
        });
        assert!(reason.contains("outbox"), "{reason}");
    }
}

#[test]
fn a_missing_head() {
    let reason = found(|conn, _| {
        conn.execute("DELETE FROM head", []).unwrap();
    });
    assert!(reason.contains("head"), "{reason}");
}

#[test]
fn a_missing_file() {
    let (site, sealed, file) = two_vaults();
    fs::remove_file(&file).unwrap();
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(
        (report.verified, report.unavailable),
        (2, vec!["prod".to_owned()])
    );
    assert_eq!(barrier.vault("prod").unwrap().health(), Health::Unavailable);
    assert_eq!(read(&barrier.vault("test").unwrap(), "git").unwrap(), "new");
}

#[test]
fn a_file_that_is_no_database() {
    let (site, sealed, file) = two_vaults();
    fs::write(&file, vec![b'x'; 8192]).unwrap();
    only_prod_is_lost(&site, sealed);
}

#[test]
fn a_trigger() {
    let reason = found(|conn, _| {
        let trigger = "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM outbox; END";
        conn.execute(trigger, []).unwrap();
    });
    assert!(reason.contains("schema"), "{reason}");
}

/// A site with two branches of prod that both wrote outbox line 3; what the other one wrote stands beside its file.
fn forked() -> (Site, Barrier<Sealed>, PathBuf, PathBuf) {
    let (site, sealed, file) = two_vaults();
    let control = site.path.join("control.db");
    let (before, other) = (file.with_extension("before"), file.with_extension("other"));
    fs::copy(&file, &before).unwrap();
    fs::copy(&control, control.with_extension("before")).unwrap();
    let write = |sealed, line: &[u8]| {
        let (barrier, _) = site.unseal_from(sealed);
        let prod = barrier.vault("prod").unwrap();
        prod.commit(vec![Op::Outbox(line.to_vec())]).unwrap();
        site.seal(barrier)
    };
    let sealed = write(sealed, b"taken out");
    fs::copy(&file, &other).unwrap();
    fs::copy(&before, &file).unwrap();
    fs::copy(control.with_extension("before"), &control).unwrap();
    let sealed = write(sealed, b"put in");
    (site, sealed, file, other)
}

#[test]
fn an_outbox_line_of_another_branch() {
    let (site, sealed, file, other) = forked();
    replace_table(&other, &file, "outbox");
    let reason = only_prod_is_lost(&site, sealed);
    assert!(reason.contains("outbox lines are not"), "{reason}");
}

#[test]
fn an_outbox_line_of_another_branch_under_the_live_store() {
    let (site, sealed, _, other) = forked();
    let (key, row) = rows(&other, "outbox").swap_remove(2);
    let (barrier, _) = site.unseal_from(sealed);
    let prod = barrier.vault("prod").unwrap();
    assert_eq!(prod.outbox().unwrap()[2].1, b"put in");
    prod.run(move |disk| {
        let mut tx = disk.rows.begin(Access::Write)?;
        tx.put(Table::Outbox, &key, &row)?;
        Ok(tx.commit()?)
    })
    .unwrap();
    let error = prod.outbox().unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
}

/// Changes control.db's closed file and gives the error of the unseal.
fn control(change: impl FnOnce(&rusqlite::Connection)) -> UnsealError {
    let (site, sealed, _) = two_vaults();
    edit(&site.path.join("control.db"), change);
    match site.submit(sealed) {
        Unseal::Failed(_, error) => error,
        _ => panic!("a changed control.db opened"),
    }
}

#[test]
fn a_ledger_is_read_no_longer_than_the_store_has_vaults() {
    let error = control(|conn| {
        let sql = "INSERT INTO ledger SELECT zeroblob(16), value FROM ledger LIMIT 1";
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    });
    assert!(error.to_string().contains("more vaults"), "{error}");
}

#[test]
fn a_ledger_row_put_back_with_its_vault() {
    let (site, sealed, file) = two_vaults();
    let control = site.path.join("control.db");
    let (old_file, old_control) = (
        file.with_extension("before"),
        control.with_extension("before"),
    );
    fs::copy(&file, &old_file).unwrap();
    fs::copy(&control, &old_control).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "newest")])
        .unwrap();
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    fs::copy(&old_file, &file).unwrap();
    replace_table(&old_control, &control, "ledger");
    let Unseal::Failed(_, error) = site.submit(sealed) else {
        panic!("a ledger row was put back")
    };
    assert!(error.to_string().contains("ledger"), "{error}");
}

#[test]
fn control_db_put_back_alone() {
    let (site, sealed, _) = two_vaults();
    let control = site.path.join("control.db");
    let before = control.with_extension("before");
    fs::copy(&control, &before).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "newest")])
        .unwrap();
    let sealed = site.seal(barrier);
    fs::copy(&before, &control).unwrap();
    let reason = only_prod_is_lost(&site, sealed);
    assert!(reason.contains("control.db was put back"), "{reason}");
}

#[test]
fn a_vault_taken_out_of_control_db() {
    let error = control(|conn| {
        let one = "DELETE FROM record WHERE key = (SELECT min(key) FROM record)";
        assert_eq!(conn.execute(one, []).unwrap(), 1);
    });
    assert!(error.to_string().contains("records"), "{error}");
}

#[test]
fn wrapped_keys_taken_away_cost_one_vault() {
    let (site, sealed, file) = two_vaults();
    let id = file.file_stem().unwrap().to_str().unwrap().replace('-', "");
    edit(&site.path.join("control.db"), |conn| {
        let one = format!("DELETE FROM vault WHERE key = x'{id}'");
        assert_eq!(conn.execute(&one, []).unwrap(), 1);
    });
    let reason = only_prod_is_lost(&site, sealed);
    assert!(reason.contains("keys"), "{reason}");
}

/// A write of prod that was announced, made, not settled, and then put back with its file.
fn last_write_lost() -> (Site, Barrier<Sealed>) {
    let (site, sealed, file) = two_vaults();
    let before = file.with_extension("before");
    fs::copy(&file, &before).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "newest")])
        .unwrap();
    let sealed = site.seal(barrier);
    fs::copy(&before, &file).unwrap();
    (site, sealed)
}

#[test]
fn a_last_write_that_is_missing_is_shown_until_it_is_confirmed() {
    let (site, sealed) = last_write_lost();
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.last_write_missing, ["prod"]);
    assert!(report.quarantined.is_empty());
    let prod = barrier.vault("prod").unwrap();
    assert_eq!(read(&prod, "git").unwrap(), "new");
    assert_eq!(prod.status().last_write_missing, Some(5));
    // It opens and works, and is shown again until a custodian has confirmed it.
    prod.commit(vec![put("git", "after")]).unwrap();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!(report.last_write_missing, ["prod"]);
    assert!(matches!(
        barrier.confirm_last_write_missing("test", None),
        Err(VaultError::NothingMissing(_))
    ));
    barrier
        .confirm_last_write_missing("prod", Some(b"confirmed".to_vec()))
        .unwrap();
    assert_eq!(
        barrier.vault("prod").unwrap().status().last_write_missing,
        None
    );
    let lines = barrier.system().outbox().unwrap();
    assert_eq!(lines.last().unwrap().1, b"confirmed");
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.last_write_missing.is_empty());
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "git").unwrap(),
        "after"
    );
}

#[test]
fn a_write_that_was_made_and_not_settled_is_accepted() {
    let (site, sealed, _) = two_vaults();
    let (barrier, _) = site.unseal_from(sealed);
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "newest")])
        .unwrap();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.last_write_missing.is_empty());
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "git").unwrap(),
        "newest"
    );
}

#[test]
fn a_row_put_back_under_the_live_store() {
    let (site, sealed, file) = two_vaults();
    let old = rows(&file, "record");
    let (barrier, _) = site.unseal_from(sealed);
    let prod = barrier.vault("prod").unwrap();
    let kept = prod.load(&key("git")).unwrap();
    prod.commit(vec![put("git", "newest"), put("ci", "moved")])
        .unwrap();
    for (key, row) in old {
        site.faults.serve(&key, Some(row));
    }
    let error = prod.load(&key("git")).map(drop).unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
    assert!(matches!(prod.health(), Health::Quarantined(_)));
    assert!(
        matches!(prod.open(&kept), Err(VaultError::Quarantined(_))),
        "nor from memory"
    );
    assert!(matches!(
        prod.load(&key("ci")),
        Err(VaultError::Quarantined(_))
    ));
    assert_eq!(read(&barrier.vault("test").unwrap(), "git").unwrap(), "new");
}

#[test]
fn a_row_taken_away_or_brought_back_under_the_live_store() {
    let (site, sealed, file) = two_vaults();
    let old = rows(&file, "record");
    let (barrier, _) = site.unseal_from(sealed);
    let prod = barrier.vault("prod").unwrap();
    prod.commit(vec![delete("git"), delete("ci")]).unwrap();
    assert!(matches!(
        prod.load(&key("git")),
        Err(VaultError::NotFound(_))
    ));
    for (key, row) in old {
        site.faults.serve(&key, Some(row));
    }
    let error = prod.load(&key("git")).map(drop).unwrap_err();
    assert!(error.to_string().contains("put back"), "{error}");
    let test = barrier.vault("test").unwrap();
    let kept = test.load(&key("git")).unwrap();
    assert_eq!(kept.meta().version, 2);
    for (key, _) in barrier_rows(&barrier, &site) {
        site.faults.serve(&key, None);
    }
    let error = test.load(&key("git")).map(drop).unwrap_err();
    assert!(error.to_string().contains("taken out"), "{error}");
}

/// The keys of test's records, read through its own lane.
fn barrier_rows(barrier: &crate::Vaults, _site: &Site) -> Vec<crate::rows::Row> {
    let test = barrier.vault("test").unwrap();
    test.run(|disk| {
        Ok(disk
            .rows
            .begin(Access::Read)?
            .scan(Table::Record, None, 10)?)
    })
    .unwrap()
}

#[test]
fn a_listing_compares_every_row() {
    let (site, sealed, _) = two_vaults();
    let (barrier, _) = site.unseal_from(sealed);
    let test = barrier.vault("test").unwrap();
    // Behind the index: the row goes from the file, through the vault's own connection.
    test.run(|disk| {
        let mut tx = disk.rows.begin(Access::Write)?;
        let (key, _) = tx.scan(Table::Record, None, 1)?.swap_remove(0);
        tx.delete(Table::Record, &key)?;
        Ok(tx.commit()?)
    })
    .unwrap();
    let error = test.list(None).unwrap_err();
    assert!(error.to_string().contains("taken out"), "{error}");
    assert!(matches!(test.health(), Health::Quarantined(_)));
}

#[test]
fn nothing_is_written_on_top_of_a_head_that_was_put_back() {
    let (site, sealed, _) = two_vaults();
    let (barrier, _) = site.unseal_from(sealed);
    let prod = barrier.vault("prod").unwrap();
    let old = prod.run(|disk| Ok(disk.head_row.clone())).unwrap();
    prod.commit(vec![put("git", "newest")]).unwrap();
    prod.run(move |disk| {
        let mut tx = disk.rows.begin(Access::Write)?;
        tx.put(Table::Head, b"", &old)?;
        Ok(tx.commit()?)
    })
    .unwrap();
    let error = prod.commit(vec![put("git", "last")]).unwrap_err();
    assert!(error.to_string().contains("another head"), "{error}");
    assert_eq!(file_name(&prod), format!("{}.db", prod.id()));
}
