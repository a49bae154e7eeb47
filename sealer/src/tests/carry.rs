//! Vaults with quorums of their own in backups: carried open or sealed, and judged by their quorum in the next life.

use std::fs::{self, File};
use std::path::PathBuf;

use mcpist_quorum::{BackupItem, Share};
use proptest::prelude::*;

use super::backup::{Files, back_up, rewritten, target, unseal_at, without};
use super::own::{is_sealed, next, put_keys, reads, unseal, with_own};
use super::support::{Fail, Site, edit, file_name, put, rows};
use crate::backup::{BackupFault, StoredBackup};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::restore::{Restored, restore};
use crate::rows::Table;

const OPS: &str = "ops";

fn ops(records: u64) -> Vec<(String, u64)> {
    vec![(OPS.to_owned(), records)]
}

/// A store with a vault of its own quorum that can be restored.
fn with_note() -> (Site, Barrier<Unsealed>, Vec<Share>) {
    let made = with_own();
    made.1.system().commit(vec![put("note", "a")]).unwrap();
    made
}

fn restored(site: &Site, stored: &StoredBackup, name: &str) -> (PathBuf, Restored) {
    let dir = site.path.with_file_name(name);
    let made = restore(stored, site.foundation.kek(), &dir, &mut Files::default());
    (dir, made.unwrap())
}

#[test]
fn it_goes_along_open_or_sealed_and_its_quorum_opens_it_in_the_next_life() {
    let (site, mut barrier, shares) = with_note();
    let line = Op::Outbox(b"line".to_vec());
    barrier.vault(OPS).unwrap().commit(vec![line]).unwrap();
    for (is_open, name) in [(true, "open"), (false, "sealed")] {
        if !is_open {
            // Sealed by a seal of the store, and its head not settled.
            (barrier, _) = site.unseal_from(site.seal(barrier));
        }
        let (file, _) = target(&site, name);
        let report = barrier.backup(barrier.config(), &file, &[]).unwrap();
        assert!(report.left_out.is_empty(), "{report:?}");
        assert_eq!(report.carried, if is_open { vec![] } else { ops(1) });
        let stored = StoredBackup::read(file).unwrap();
        if is_open {
            barrier.seal_own(OPS).unwrap();
        } else {
            unseal(&barrier, &shares).unwrap();
        }
        let again = barrier.verify_backup(&stored).unwrap();
        assert_eq!(again.carried, if is_open { ops(1) } else { vec![] });
        assert_eq!((again.vaults, again.records), (3, report.records));

        let (dir, done) = restored(&site, &stored, &format!("from-{name}"));
        assert_eq!((done.vaults, done.records), (3, report.records));
        assert_eq!((done.carried, done.left_out.len()), (ops(1), 0));
        let (store, found) = unseal_at(&site, &dir);
        assert_eq!(
            (found.verified, &found.sealed[..]),
            (2, &[OPS.to_owned()][..])
        );
        is_sealed(&store);
        assert_eq!(unseal(&store, &shares).unwrap(), 1);
        assert_eq!(reads(&store, OPS).unwrap(), "secret");
        let vault = store.vault(OPS).unwrap();
        assert_eq!(vault.outbox().unwrap(), [(1, b"line".to_vec())]);
        vault.commit(vec![put("git", "later")]).unwrap();
        let sealed = site.seal(store);
        let (store, _) = site.unseal_from(sealed);
        unseal(&store, &shares).unwrap();
        assert_eq!(reads(&store, OPS).unwrap(), "later");
    }
}

#[test]
fn one_whose_data_key_is_gone_since_still_verifies() {
    let (site, barrier, _) = with_note();
    let stored = back_up(&site, &barrier, "old.backup");
    for (n, version) in ["later", "last"].into_iter().enumerate() {
        barrier.begin_epoch(OPS, []).unwrap();
        let vault = barrier.vault(OPS).unwrap();
        vault.commit(vec![put("git", version)]).unwrap();
        // With the second epoch the one of the backup goes.
        assert!(barrier.verify_backup(&stored).is_ok(), "epoch {n}");
    }
    barrier.begin_epoch(OPS, []).unwrap();
    let held = barrier.keys_held();
    let again = barrier.verify_backup(&stored).unwrap();
    assert_eq!(again.carried, [], "every record was opened");
    assert!(barrier.keys_held() <= held + 1);
}

#[test]
fn one_whose_file_is_not_there_is_told_apart_and_may_come_back() {
    let (site, barrier, shares) = with_note();
    let files = [OPS, "prod"].map(|name| site.file(&barrier.vault(name).unwrap()));
    let sealed = site.seal(barrier);
    let away = files.map(|file| {
        let away = file.with_extension("away");
        fs::rename(&file, &away).unwrap();
        (file, away)
    });
    let (barrier, mut found) = site.unseal_from(sealed);
    found.unavailable.sort();
    assert_eq!(found.unavailable, [OPS, "prod"]);
    assert_eq!((found.sealed, found.quarantined), (vec![], vec![]));
    for (name, health) in [(OPS, Health::Sealed), ("prod", Health::Unavailable)] {
        let status = barrier.vault(name).unwrap().status();
        assert_eq!((status.health, status.is_gone), (health, true));
        let refused = barrier.examine(name, &[], drop).unwrap_err();
        assert!(matches!(refused, VaultError::Gone), "{refused}");
    }
    let told = unseal(&barrier, &shares).unwrap_err().to_string();
    assert!(told.contains("file is not here"), "{told}");
    let (file, _) = target(&site, "backup");
    let made = barrier.backup(barrier.config(), &file, &[]).unwrap();
    assert_eq!(made.left_out.len(), 2);
    for (_, reason) in made.left_out {
        assert!(reason.contains("file is not here"), "{reason}");
    }
    for (file, away) in &away {
        fs::rename(away, file).unwrap();
    }
    assert_eq!(unseal(&barrier, &shares).unwrap(), 1);
    assert!(!barrier.vault(OPS).unwrap().status().is_gone);
    barrier.seal_own(OPS).unwrap();
    let refused = barrier.examine(OPS, &[], drop).unwrap_err();
    assert!(matches!(refused, VaultError::VaultSealed(_)), "{refused}");
}

#[test]
fn one_that_is_written_after_it_was_copied_opens_as_it_was() {
    let (site, barrier, shares) = with_note();
    let vault = barrier.vault(OPS).unwrap();
    // The backup comes to this one later, and to control.db after it.
    let later = (0..).map(|n| format!("later-{n}")).find_map(|name| {
        barrier.create_vault(&name, None).unwrap();
        let later = barrier.vault(&name).unwrap();
        (later.id() > vault.id()).then(|| file_name(&later))
    });
    let later = later.unwrap();
    site.faults.hang(&later);
    let (file, _) = target(&site, "backup");
    std::thread::scope(|scope| {
        let made = scope.spawn(|| barrier.backup(barrier.config(), &file, &[]));
        site.faults.wait_hanging(&later);
        for n in 0..3 {
            vault
                .commit(vec![put("git", &format!("later {n}"))])
                .unwrap();
        }
        site.faults.release(&later);
        assert!(made.join().unwrap().unwrap().carried.is_empty());
    });
    let stored = StoredBackup::read(file).unwrap();
    let (dir, _) = restored(&site, &stored, "standby");
    let (store, _) = unseal_at(&site, &dir);
    assert_eq!(unseal(&store, &shares).unwrap(), 1);
    assert_eq!(reads(&store, OPS).unwrap(), "secret");
}

#[test]
fn a_file_that_was_put_back_before_the_backup_is_caught_after_the_restore() {
    let (site, barrier, shares) = with_note();
    let file = site.file(&barrier.vault(OPS).unwrap());
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let before = fs::read(&file).unwrap();
    unseal(&barrier, &shares).unwrap();
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("git", "later")]).unwrap();
    barrier.settle().unwrap();
    barrier.seal_own(OPS).unwrap();
    let right = fs::read(&file).unwrap();
    fs::write(&file, before).unwrap();
    let stored = back_up(&site, &barrier, "old.backup");
    fs::write(&file, right).unwrap();
    let (dir, done) = restored(&site, &stored, "standby");
    assert_eq!(done.carried, ops(1), "nobody can tell yet");
    let (store, _) = unseal_at(&site, &dir);
    let error = unseal(&store, &shares).unwrap_err().to_string();
    assert!(error.contains("was put back"), "{error}");
    let health = store.vault(OPS).unwrap().health();
    assert!(matches!(health, Health::Quarantined(_)), "{health:?}");
    assert_eq!(reads(&store, "prod").unwrap(), "secret");
    // Whoever verifies that backup while the vault is open is told.
    unseal(&barrier, &shares).unwrap();
    let told = barrier.verify_backup(&stored).unwrap_err().to_string();
    assert!(told.contains("put back before the backup"), "{told}");
}

#[test]
fn what_has_no_shape_is_left_out_and_what_has_is_for_its_quorum_to_judge() {
    let edits = [
        ("UPDATE record SET key = substr(key, 2)", true),
        ("UPDATE record SET value = substr(value, 1, 20)", true),
        // The data key's mark, which stands behind version, magic and suite.
        (
            "UPDATE record SET value = CAST(substr(value, 1, 14) || zeroblob(16) || substr(value, 31) AS BLOB)",
            true,
        ),
        (
            "UPDATE record SET value = CAST(value || zeroblob(1000000) AS BLOB)",
            true,
        ),
        ("DELETE FROM head", true),
        (
            "UPDATE record SET value = CAST(substr(value, 1, length(value) - 8) || zeroblob(8) AS BLOB)",
            false,
        ),
        ("DELETE FROM record", false),
        ("DELETE FROM outbox", false),
    ];
    for (n, (change, is_left_out)) in edits.into_iter().enumerate() {
        let (site, barrier, shares) = with_note();
        let vault = barrier.vault(OPS).unwrap();
        vault.commit(vec![Op::Outbox(b"line".to_vec())]).unwrap();
        let file = site.file(&vault);
        barrier.seal_own(OPS).unwrap();
        edit(&file, |db| {
            assert_eq!(db.execute(change, []).unwrap(), 1, "{change}")
        });
        let (out, _) = target(&site, "backup");
        let made = barrier.backup(barrier.config(), &out, &[]).unwrap();
        let stored = StoredBackup::read(out).unwrap();
        assert_eq!(
            made.left_out.len(),
            usize::from(is_left_out),
            "{change}: {made:?}"
        );
        assert_eq!(
            made.carried.len(),
            usize::from(!is_left_out),
            "{change}: {made:?}"
        );
        let (dir, _) = restored(&site, &stored, &format!("standby-{n}"));
        let (store, _) = unseal_at(&site, &dir);
        unseal(&store, &shares).unwrap_err();
        assert!(reads(&store, OPS).is_err(), "{change}");
        assert_eq!(reads(&store, "prod").unwrap(), "secret");
    }
}

#[test]
fn more_rows_than_its_head_allows_cost_the_vault_alone_its_place() {
    const ROWS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
    let forged = [
        "INSERT INTO record SELECT randomblob(32), (SELECT value FROM record) FROM n",
        "INSERT INTO outbox SELECT randomblob(8), zeroblob(64) FROM n",
        "INSERT INTO head SELECT x'ffff', zeroblob(64) FROM n LIMIT 1",
    ];
    for change in forged {
        let (site, barrier, _) = with_note();
        let file = site.file(&barrier.vault(OPS).unwrap());
        barrier.settle().unwrap();
        barrier.seal_own(OPS).unwrap();
        edit(&file, |db| {
            db.execute(&format!("{ROWS} {change}"), []).unwrap()
        });
        let (out, _) = target(&site, "backup");
        let made = barrier.backup(barrier.config(), &out, &[]).unwrap();
        let (name, why) = &made.left_out[0];
        assert_eq!((name.as_str(), made.vaults), (OPS, 2), "{change}");
        assert!(why.contains("more rows than were ever written"), "{why}");
    }
}

#[test]
fn rows_that_the_file_has_in_no_order_are_left_out() {
    let (site, barrier, _) = with_note();
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("more", "x")]).unwrap();
    barrier.settle().unwrap();
    barrier.seal_own(OPS).unwrap();
    let file = site.file(&vault);
    let (root, size): (u32, u32) = edit(&file, |db| {
        let of =
            "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'record'";
        db.query_row(of, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    });
    // A leaf of two cells: their places stand behind its eight bytes of header.
    let mut bytes = fs::read(&file).unwrap();
    let page = &mut bytes[((root - 1) * size) as usize..];
    assert_eq!((page[0], page[3], page[4]), (0x0a, 0, 2));
    let (first, second) = page[8..12].split_at_mut(2);
    first.swap_with_slice(second);
    fs::write(&file, bytes).unwrap();
    let (out, _) = target(&site, "backup");
    let made = barrier.backup(barrier.config(), &out, &[]).unwrap();
    let (name, why) = &made.left_out[0];
    assert_eq!(name, OPS);
    assert!(why.contains("in no order"), "{why}");
}

/// The backup with other items in it, verified with the vault open and sealed: refused, and no store is made of it.
fn refused(
    site: &Site,
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
    name: &str,
    keep: impl FnMut(&BackupItem<'_>) -> bool,
) -> Result<(), BackupFault> {
    let out: File = target(site, name).0;
    let lacking = without(barrier, stored, &out, keep);
    barrier.verify_backup(&lacking).map(drop)
}

#[test]
fn rows_that_are_missing_are_seen_as_far_as_they_can_be() {
    let (site, barrier, _) = with_note();
    let line = Op::Outbox(b"line".to_vec());
    barrier.vault(OPS).unwrap().commit(vec![line]).unwrap();
    let id = *barrier.vault(OPS).unwrap().id().as_bytes();
    let stored = back_up(&site, &barrier, "backup");
    for is_open in [true, false] {
        if !is_open {
            barrier.seal_own(OPS).unwrap();
        }
        // An outbox line is for the keys alone to miss.
        let seen = [
            (Table::Record, true),
            (Table::Head, true),
            (Table::Outbox, is_open),
        ];
        for (table, is_seen) in seen {
            let mut within = false;
            let name = format!("{is_open}-{}", table.number());
            let checked = refused(&site, &barrier, &stored, &name, |item| {
                if let BackupItem::Vault { id: of, .. } = item {
                    within = *of == id;
                }
                let row =
                    matches!(item, BackupItem::Row { table: of, .. } if *of == table.number());
                !(within && row)
            });
            assert_eq!(checked.is_err(), is_seen, "{name}: {checked:?}");
        }
    }
}

#[test]
fn one_whose_keys_were_changed_is_left_out_by_name() {
    let (site, barrier, _) = with_note();
    let vaults = ["ops", "prod"].map(|name| barrier.vault(name).unwrap().id());
    drop(site.seal(barrier));
    let of = |id: &crate::ids::VaultId| {
        let rows = rows(&site.path.join("control.db"), "vault");
        rows.into_iter()
            .find(|row| row.0 == id.as_bytes())
            .unwrap()
            .1
    };
    let mut edited = of(&vaults[0]);
    edited[60] ^= 1;
    for (n, wrong) in [edited, of(&vaults[1]), Vec::new()].iter().enumerate() {
        put_keys(&site, vaults[0], wrong);
        let (barrier, _) = site.unseal();
        let (out, _) = target(&site, &format!("{n}.backup"));
        let made = barrier.backup(barrier.config(), &out, &[]).unwrap();
        assert_eq!((made.left_out.len(), made.left_out[0].0.as_str()), (1, OPS));
        drop(site.seal(barrier));
    }
}

#[test]
fn keys_that_are_not_those_of_its_rows_or_quorum_make_no_store() {
    let (site, barrier, shares) = with_note();
    let id = barrier.vault(OPS).unwrap().id();
    let now = || {
        let system = barrier.system();
        system.run(move |disk| disk.key_row(id)).unwrap()
    };
    let one_key = now();
    barrier.begin_epoch(OPS, None).unwrap();
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("more", "x")]).unwrap();
    let two_keys = now();
    let before = back_up(&site, &barrier, "before");
    let (switch, _) = next(&barrier, &shares);
    barrier.rekey_own(&switch, None).unwrap();
    let after = back_up(&site, &barrier, "after");
    barrier.seal_own(OPS).unwrap();
    let cases = [
        (&before, one_key, "under a key"),
        (&after, two_keys, "not the one that control.db records"),
    ];
    for (n, (stored, row, why)) in cases.into_iter().enumerate() {
        let (out, _) = target(&site, &format!("{n}.backup"));
        let vaults = Table::Vault.number();
        let other = rewritten(&barrier, stored, &out, |item, push| match item {
            BackupItem::Row { table, key, .. } if *table == vaults && *key == id.as_bytes() => {
                let (table, value) = (*table, &row[..]);
                push(&BackupItem::Row { table, key, value });
            }
            item => push(item),
        });
        let told = barrier.verify_backup(&other).unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put,
    /// A put whose commit fails, in the vault's file or in control.db.
    Failing {
        how: u8,
        control: bool,
    },
    SealIt,
    /// Seals all, and settles before or not.
    SealAll {
        settles: bool,
    },
    Backup,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Put),
        2 => (0..3u8, any::<bool>()).prop_map(|(how, control)| Step::Failing { how, control }),
        1 => Just(Step::SealIt),
        3 => any::<bool>().prop_map(|settles| Step::SealAll { settles }),
        4 => Just(Step::Backup),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_backup_brings_back_what_its_quorum_had_then(steps in prop::collection::vec(step(), 1..10)) {
        let (site, mut barrier, shares) = with_note();
        let ops = file_name(&barrier.vault(OPS).unwrap());
        // What may stand in it: two values after a commit of which nobody knows.
        let (mut holds, mut kept) = (vec!["secret".to_owned()], Vec::new());
        for (n, step) in steps.into_iter().enumerate() {
            let value = format!("value {n}");
            match step {
                Step::Put | Step::Failing { .. } if reads(&barrier, OPS).is_err() => {
                    // Sealed, or in doubt.
                    barrier.seal_own(OPS).unwrap();
                    unseal(&barrier, &shares).unwrap();
                    let now = reads(&barrier, OPS).unwrap();
                    prop_assert!(holds.contains(&now), "{now} of {holds:?}");
                    holds = vec![now];
                }
                Step::Put => {
                    barrier.vault(OPS).unwrap().commit(vec![put("git", &value)]).unwrap();
                    holds = vec![value];
                }
                Step::Failing { how, control } => {
                    let how = [Fail::Put, Fail::Lost, Fail::Made][usize::from(how)];
                    site.faults.fail_next(if control { "control.db" } else { &ops }, how);
                    match barrier.vault(OPS).unwrap().commit(vec![put("git", &value)]) {
                        Ok(_) => holds = vec![value],
                        Err(VaultError::OutcomeUnknown) => holds.push(value),
                        Err(_) => {}
                    }
                }
                Step::SealIt => barrier.seal_own(OPS).unwrap(),
                Step::SealAll { settles } => {
                    if settles {
                        barrier.settle().unwrap();
                    }
                    (barrier, _) = site.unseal_from(site.seal(barrier));
                }
                Step::Backup => {
                    let (file, _) = target(&site, &format!("{n}.backup"));
                    let made = barrier.backup(barrier.config(), &file, &[]).unwrap();
                    prop_assert!(made.left_out.is_empty(), "{made:?}");
                    kept.push((n, StoredBackup::read(file).unwrap(), holds.clone()));
                }
            }
        }
        drop(site.seal(barrier));
        for (n, stored, held) in kept {
            let (dir, done) = restored(&site, &stored, &format!("standby-{n}"));
            prop_assert_eq!(done.carried, self::ops(1));
            let (store, _) = unseal_at(&site, &dir);
            unseal(&store, &shares).unwrap();
            let now = reads(&store, OPS).unwrap();
            prop_assert!(held.contains(&now), "{now} of {held:?}");
            drop(site.seal(store));
        }
    }
}
