//! A quarantined vault is looked at, and what still opens is its new file.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::support::{Fail, Site, edit, key, put, read, rows};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::examine::Findings;
use crate::rebuild::Replaced;
use crate::vault::RecordKey;

const ASKED: [RecordKey<'static>; 2] = [
    RecordKey {
        owner: None,
        name: "git",
    },
    RecordKey {
        owner: None,
        name: "ci",
    },
];

/// A site whose vault `prod` holds `git` (twice put), `ci` and two outbox lines, and whose closed file was then changed.
fn damaged(change: impl FnOnce(&Path, &[u8])) -> (Site, Barrier<Unsealed>, PathBuf) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("git", "old"), put("ci", "steady")])
        .unwrap();
    let file = site.file(&vault);
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    let before = fs::read(&file).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "new")]).unwrap();
    let lines = ["1", "2"].map(|line| Op::Outbox(line.as_bytes().to_vec()));
    vault.commit(lines.into()).unwrap();
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    change(&file, &before);
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    (site, barrier, file)
}

fn examine(barrier: &Barrier<Unsealed>) -> Findings {
    let findings = barrier.examine("prod", &ASKED, |_| {}).unwrap();
    let again = barrier.examine("prod", &ASKED, |_| {}).unwrap();
    assert_eq!(findings, again, "looking changes nothing");
    findings
}

fn repair(barrier: &Barrier<Unsealed>, findings: &Findings) -> Result<Replaced, VaultError> {
    let repair = barrier.repair("prod", findings.digest, 2, &ASKED, |_| {})?;
    assert_eq!(repair.findings(), findings);
    repair.commit(vec![Op::Outbox(b"repaired".to_vec())])
}

/// Repairs, and holds that the vault is a whole one that keeps what was found, now and after the next unseal.
fn repaired(site: &Site, barrier: Barrier<Unsealed>, file: &Path) -> Findings {
    let findings = examine(&barrier);
    let done = repair(&barrier, &findings).unwrap();
    assert_eq!(done.records, findings.kept);
    drop(done);
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.health(), Health::Ok);
    for asked in &ASKED {
        let is_lost = findings.lost.iter().any(|(_, name)| name == asked.name);
        let found = vault.load(asked);
        assert_eq!(found.is_err(), is_lost, "{}", asked.name);
    }
    vault.commit(vec![put("more", "written")]).unwrap();
    assert!(vault.outbox_next().unwrap() > 2, "the log has two lines");
    let lines = vault.outbox().unwrap();
    assert_eq!(lines.len() as u64, findings.lines);
    let left = barrier.remove_retired().unwrap();
    assert_eq!(left, Default::default(), "the damaged file");
    assert!(file.exists());
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "more").unwrap(),
        "written"
    );
    barrier.verify("prod", |_| {}).unwrap();
    let id = file.file_stem().unwrap().to_str().unwrap();
    barrier.discard(id, Vec::new()).unwrap();
    assert!(!file.exists());
    let again = barrier.discard(id, Vec::new());
    assert!(matches!(again, Err(VaultError::NotKept(_))));
    findings
}

fn change_of(sql: &'static str) -> Findings {
    let (site, barrier, file) = damaged(|file, _| {
        edit(file, |conn| assert_eq!(conn.execute(sql, []).unwrap(), 1));
    });
    repaired(&site, barrier, &file)
}

#[test]
fn a_record_that_does_not_open_is_lost_and_the_other_kept() {
    let (site, barrier, file) = damaged(|file, _| {
        let (key, mut row) = rows(file, "record").swap_remove(0);
        let middle = row.len() / 2;
        row[middle] ^= 1;
        edit(file, |conn| {
            conn.execute("UPDATE record SET value = ?2 WHERE key = ?1", (key, row))
        })
        .unwrap();
    });
    let found = repaired(&site, barrier, &file);
    assert_eq!(
        (found.kept, found.damaged, found.missing()),
        (1, 1, Some(0))
    );
    assert_eq!((found.lost.len(), found.damaged_rows.len()), (1, 1));
    assert!(!found.is_sure, "the other may be an older one");
}

#[test]
fn a_record_that_is_gone_is_missing() {
    let found = change_of("DELETE FROM record WHERE key = (SELECT min(key) FROM record)");
    assert_eq!(
        (found.kept, found.damaged, found.missing()),
        (1, 0, Some(1))
    );
    assert_eq!((found.lost.len(), found.is_sure), (1, false));
    assert_eq!((found.lines, found.lines_lost), (2, Some(0)));
}

#[test]
fn rows_in_the_place_of_others_are_none() {
    let (site, barrier, file) = damaged(|file, _| {
        let all = rows(file, "record");
        edit(file, |conn| {
            for (key, value) in [(&all[0].0, &all[1].1), (&all[1].0, &all[0].1)] {
                conn.execute("UPDATE record SET value = ?2 WHERE key = ?1", (key, value))
                    .unwrap();
            }
        });
    });
    let found = repaired(&site, barrier, &file);
    assert_eq!((found.kept, found.damaged, found.lost.len()), (0, 2, 2));
}

#[test]
fn without_a_head_nothing_is_sure() {
    for sql in ["UPDATE head SET value = x'00'", "DELETE FROM head"] {
        let found = change_of(sql);
        assert_eq!(
            (found.kept, found.expected, found.missing()),
            (2, None, None)
        );
        assert_eq!((found.lines, found.lines_lost), (0, None));
        assert!(!found.is_sure && found.lost.is_empty());
    }
}

#[test]
fn a_lost_audit_line_costs_no_record() {
    let found = change_of("DELETE FROM outbox WHERE key = (SELECT min(key) FROM outbox)");
    assert_eq!((found.kept, found.is_sure), (2, true));
    assert_eq!((found.lines, found.lines_lost), (1, Some(1)));
    let found = change_of("DELETE FROM outbox WHERE key = (SELECT max(key) FROM outbox)");
    assert_eq!(
        (found.lines, found.lines_lost),
        (0, Some(2)),
        "a hole behind"
    );
}

#[test]
fn an_older_file_or_row_is_kept_and_never_sure() {
    let (site, barrier, file) = damaged(|file, before| fs::write(file, before).unwrap());
    let found = repaired(&site, barrier, &file);
    assert_eq!(
        (found.kept, found.expected, found.is_sure),
        (2, Some(2), false)
    );
    let (_site, barrier, _) = damaged(|file, before| {
        let old = file.with_extension("before");
        fs::write(&old, before).unwrap();
        let rows = rows(&old, "record");
        fs::remove_file(&old).unwrap();
        edit(file, |conn| {
            for (key, row) in rows {
                conn.execute("UPDATE record SET value = ?2 WHERE key = ?1", (key, row))
                    .unwrap();
            }
        });
    });
    let found = examine(&barrier);
    assert_eq!((found.kept, found.damaged, found.is_sure), (2, 0, false));
}

#[test]
fn what_stands_behind_a_page_that_cannot_be_read_is_kept() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    for batch in 0..10 {
        let one = |n| put(&format!("n{}", batch * 100 + n), "steady");
        vault.commit((0..100).map(one).collect()).unwrap();
    }
    let file = site.file(&vault);
    let sealed = site.seal(barrier);
    let pages = fs::metadata(&file).unwrap().len() / 4096;
    assert!(pages > 40);
    let damage = fs::File::options().write(true).open(&file).unwrap();
    for page in [pages / 3, pages / 2] {
        damage.write_all_at(&[0xee; 4096], page * 4096).unwrap();
    }
    let (barrier, _) = site.unseal_from(sealed);
    let found = barrier.examine("prod", &[], |_| {}).unwrap();
    assert!(found.unreadable >= 2, "{found:?}");
    assert!(found.kept > 800 && found.kept < 1000, "{found:?}");
    assert_eq!(found.missing(), Some(1000 - found.kept));
    drop(repair_all(&barrier, &found));
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.list(None).unwrap().len() as u64, found.kept);
    // Above every version that there ever was.
    vault.commit(vec![put("again", "x")]).unwrap();
    assert!(vault.meta(&key("again")).unwrap().version > 10);
}

fn repair_all(barrier: &Barrier<Unsealed>, found: &Findings) -> Replaced {
    let repair = barrier.repair("prod", found.digest, 0, &[], |_| {});
    repair.unwrap().commit(Vec::new()).unwrap()
}

#[test]
fn a_file_that_is_none_leaves_an_empty_vault() {
    let (site, barrier, file) = damaged(|file, _| fs::write(file, [7; 9000]).unwrap());
    let found = repaired(&site, barrier, &file);
    assert_eq!((found.kept, found.unreadable, found.lost.len()), (0, 1, 2));
}

#[test]
fn a_file_that_changed_since_it_was_looked_at_is_looked_at_again() {
    let (_site, barrier, file) = damaged(|file, _| {
        edit(file, |conn| conn.execute("DELETE FROM head", [])).unwrap();
    });
    let findings = examine(&barrier);
    edit(&file, |conn| {
        conn.execute(
            "DELETE FROM record WHERE key = (SELECT min(key) FROM record)",
            [],
        )
    })
    .unwrap();
    let moved = barrier.repair("prod", findings.digest, 0, &ASKED, |_| {});
    assert!(matches!(moved, Err(VaultError::Moved(_))));
    assert_ne!(examine(&barrier).digest, findings.digest);
    let healthy = barrier.create_vault("other", None);
    healthy.unwrap();
    let healthy = barrier.examine("other", &[], |_| {});
    assert!(matches!(healthy, Err(VaultError::NotQuarantined(_))));
}

#[test]
fn a_vault_that_fails_while_it_runs_is_repaired_while_it_runs() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "x"), put("ci", "y")]).unwrap();
    let file = site.file(&vault);
    vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
    edit(&file, |conn| {
        conn.execute("UPDATE head SET value = x'00'", [])
    })
    .unwrap();
    assert!(barrier.verify("prod", |_| {}).is_err());
    let found = examine(&barrier);
    assert_eq!(found.kept, 2);
    drop(repair(&barrier, &found).unwrap());
    assert_eq!(read(&barrier.vault("prod").unwrap(), "git").unwrap(), "x");
    let old = vault.load(&key("git"));
    assert!(matches!(old, Err(VaultError::Quarantined(_))));
}

#[test]
fn a_repair_that_fails_at_its_commit_is_not_made_and_can_be_repeated() {
    for how in [Fail::Put, Fail::Lost] {
        let (site, barrier, file) = damaged(|file, _| {
            edit(file, |conn| conn.execute("DELETE FROM head", [])).unwrap();
        });
        let findings = examine(&barrier);
        site.faults.fail_next("control.db", how);
        assert!(repair(&barrier, &findings).is_err());
        let health = barrier.vault("prod").unwrap().health();
        assert!(matches!(health, Health::Quarantined(_)), "{health:?}");
        repaired(&site, barrier, &file);
    }
}

#[test]
fn a_repair_whose_commit_was_made_unheard_is_made() {
    let (site, barrier, file) = damaged(|file, _| {
        edit(file, |conn| conn.execute("DELETE FROM head", [])).unwrap();
    });
    let findings = examine(&barrier);
    site.faults.fail_next("control.db", Fail::Made);
    drop(repair(&barrier, &findings).unwrap());
    assert_eq!(barrier.vault("prod").unwrap().health(), Health::Ok);
    assert!(file.exists());
}

#[test]
fn a_seal_ends_a_repair_and_leaves_the_vault_as_it_was() {
    let (site, barrier, file) = damaged(|file, _| {
        edit(file, |conn| conn.execute("DELETE FROM head", [])).unwrap();
    });
    let findings = examine(&barrier);
    let repair = barrier.repair("prod", findings.digest, 0, &ASKED, |_| {});
    let repair = repair.unwrap();
    let sealed = barrier.seal();
    assert!(repair.commit(Vec::new()).is_err());
    assert!(sealed.base.store.wait_closed(Duration::from_secs(60)));
    let (barrier, report) = site.unseal_from(sealed);
    assert_eq!(report.quarantined.len(), 1);
    assert_eq!(examine(&barrier), findings);
    repaired(&site, barrier, &file);
}
