//! A running vault is verified while it is written, and what changed under it is found.

use super::support::{Site, delete, edit, file_name, key, put, read};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::record::name_of;
use crate::reverify::Verified;
use crate::rows::{Access, Table};
use crate::vault::OpenVault;

/// More than one job reads.
const MANY: usize = 700;

fn running() -> (Site, Barrier<Unsealed>, OpenVault) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    let names: Vec<_> = (0..MANY).map(|n| format!("n{n}")).collect();
    for names in names.chunks(100) {
        let batch = names.iter().map(|name| put(name, "steady")).collect();
        vault.commit(batch).unwrap();
    }
    vault.commit(vec![Op::Outbox(b"line".to_vec())]).unwrap();
    (site, barrier, vault)
}

/// The key and the row of a record as they stand in the file.
fn row_of(vault: &OpenVault, name: &str) -> (Vec<u8>, Vec<u8>) {
    let name = name.to_owned();
    let found = vault.run(move |disk| {
        let key = disk
            .keys
            .lend(|keys| name_of(keys, &disk.place, "", &name))?;
        let row = disk
            .rows
            .begin(Access::Read)?
            .get(Table::Record, key.as_bytes())?;
        Ok((key.as_bytes().to_vec(), row.unwrap()))
    });
    found.unwrap()
}

fn reason(barrier: &Barrier<Unsealed>) -> String {
    let Err(VaultError::Quarantined(reason)) = barrier.verify("prod", |_| {}) else {
        panic!("what is wrong is found");
    };
    let health = barrier.vault("prod").unwrap().health();
    assert_eq!(health, Health::Quarantined(reason.clone()));
    reason
}

#[test]
fn a_vault_that_is_written_meanwhile_verifies() {
    let (_site, barrier, vault) = running();
    let whole = Verified {
        records: MANY as u64,
        lines: 1,
    };
    assert_eq!(barrier.verify("prod", |_| {}).unwrap(), whole);
    let mut round = 0;
    let verified = barrier.verify("prod", |_| {
        // Between two jobs: records change, go and come on both sides of what was read.
        for n in 0..20 {
            vault.commit(vec![put(&format!("n{n}"), "moved")]).unwrap();
            let gone = format!("n{}", 100 + round * 20 + n);
            vault.commit(vec![delete(&gone)]).unwrap();
            let new = format!("new{}", round * 20 + n);
            vault.commit(vec![put(&new, "new")]).unwrap();
        }
        round += 1;
    });
    assert!(verified.is_ok(), "{verified:?}");
    assert!(round > 2);
    assert_eq!(vault.health(), Health::Ok);
    assert_eq!(read(&vault, "n0").unwrap(), "moved");
    let system = barrier.verify("system", |_| {}).unwrap();
    assert_eq!(system.records, 1, "the vault's name");
}

#[test]
fn rows_that_are_not_those_written_are_counted_to_the_end() {
    let (site, barrier, vault) = running();
    // A bit of what a record says: version, commitment and tag are those of the index.
    let (damaged, mut row) = row_of(&vault, "n1");
    let at = row.len() - 20;
    row[at] ^= 1;
    site.faults.serve(&damaged, Some(row));
    for (name, old) in [("n2", "n3"), ("n4", "n5")] {
        let (key, _) = row_of(&vault, name);
        let (_, other) = row_of(&vault, old);
        site.faults.serve(&key, Some(other));
    }
    for name in ["n600", "n601", "n602"] {
        site.faults.serve(&row_of(&vault, name).0, None);
    }
    assert_eq!(
        reason(&barrier),
        "of its records, 1 damaged, 2 replaced, 3 missing"
    );
    assert!(matches!(
        vault.load(&key("n9")),
        Err(VaultError::Quarantined(_))
    ));
}

#[test]
fn a_row_that_nobody_wrote_is_found() {
    let (_site, barrier, vault) = running();
    let (mut key, row) = row_of(&vault, "n1");
    key[20] ^= 1;
    let added = vault.run(move |disk| {
        let mut tx = disk.rows.begin(Access::Write)?;
        tx.put(Table::Record, &key, &row)?;
        Ok(tx.commit()?)
    });
    added.unwrap();
    // Its first 16 bytes, which are all that the index has of a name, are those of another.
    assert_eq!(reason(&barrier), "of its records, 1 damaged");
}

#[test]
fn what_is_no_record_is_compared_too() {
    for table in ["head", "outbox"] {
        let (site, barrier, vault) = running();
        let change = match table {
            "head" => "UPDATE head SET value = x'00'",
            _ => "DELETE FROM outbox",
        };
        let file = site.file(&vault);
        vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
        edit(&file, |conn| conn.execute(change, [])).unwrap();
        reason(&barrier);
    }
}

#[test]
fn a_ledger_that_was_changed_is_found_while_it_runs() {
    let (_site, barrier, _) = running();
    let system = barrier.system();
    let path = barrier.live().store.control().path().to_owned();
    system.run(|disk| Ok(disk.rows.close()?)).unwrap();
    let changed = edit(&path, |conn| {
        conn.execute("UPDATE ledger SET value = x'00'", [])
    });
    assert_eq!(changed.unwrap(), 1);
    let found = barrier.verify("system", |_| {});
    assert!(
        matches!(found, Err(VaultError::Quarantined(_))),
        "{found:?}"
    );
}

#[test]
fn a_vault_that_hangs_is_not_waited_for() {
    let (site, barrier, vault) = running();
    let file = file_name(&vault);
    site.faults.hang(&file);
    let vaults = barrier.handle();
    let verifying = std::thread::spawn(move || vaults.verify("prod", |_| {}));
    site.faults.wait_hanging(&file);
    drop(barrier.seal());
    site.faults.release(&file);
    assert!(verifying.join().unwrap().is_err(), "a seal ends it");
}
