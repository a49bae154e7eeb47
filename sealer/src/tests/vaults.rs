//! Records, versions, batches, listings and the outbox of vaults that nobody harms.

use std::fs;
use std::time::Duration;

use mcpist_secret::Secret;

use super::support::{Site, delete, edit, key, put, put_if, read};
use crate::batch::{Expect, MAX_BATCH, Op};
use crate::error::{Health, VaultError};
use crate::ids::NameError;
use crate::record::MAX_RECORD;
use crate::vault::RecordKey;
use crate::{AuditKey, OpenVault, SealedRecord, Vaults};

#[test]
fn versions_count_up_and_never_mean_two_things() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    let versions = |ops| vault.commit(ops).unwrap().versions;
    assert_eq!(versions(vec![put("a", "1"), put("b", "1")]), [1, 1]);
    assert_eq!(versions(vec![put("a", "2")]), [2]);
    assert_eq!(versions(vec![put("a", "3"), delete("b")]), [3, 1]);
    assert_eq!(versions(vec![delete("a")]), [3]);
    // Above every version that was deleted, whichever record it was of.
    assert_eq!(versions(vec![put("b", "2")]), [4]);
    assert_eq!(versions(vec![put("a", "4")]), [4]);
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    assert_eq!(
        barrier
            .system()
            .commit(vec![put("c", "1")])
            .unwrap()
            .versions,
        [4]
    );
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    vault.commit(vec![put("a", "1")]).unwrap();
    let refused = vault.commit(vec![put("a", "2"), put_if("b", "1", Expect::Version(7))]);
    assert!(matches!(
        refused,
        Err(VaultError::Conflict {
            expected: 7,
            found: 0,
            ..
        })
    ));
    let refused = vault.commit(vec![put("a", "2"), delete("nothing")]);
    assert!(matches!(refused, Err(VaultError::NotFound(name)) if name == "nothing"));
    let refused = vault.commit(vec![put("a", "2"), delete("a")]);
    assert!(matches!(refused, Err(VaultError::Batch { .. })));
    assert_eq!(
        (read(&vault, "a").unwrap(), vault.status().generation),
        ("1".into(), 2)
    );
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    assert_eq!(read(&barrier.system(), "a").unwrap(), "1");
}

#[test]
fn expectations_are_held_to() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    vault
        .commit(vec![put_if("a", "1", Expect::Absent)])
        .unwrap();
    let refused = vault.commit(vec![put_if("a", "1", Expect::Absent)]);
    assert!(matches!(
        refused,
        Err(VaultError::Conflict {
            expected: 0,
            found: 1,
            ..
        })
    ));
    vault
        .commit(vec![put_if("a", "2", Expect::Version(1))])
        .unwrap();
    let stale = Op::Delete {
        owner: None,
        name: "a".into(),
        expect: Expect::Version(1),
    };
    assert!(matches!(
        vault.commit(vec![stale]),
        Err(VaultError::Conflict { found: 2, .. })
    ));
}

#[test]
fn what_is_no_name_size_or_batch_is_refused_before_anything_is_done() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    let refused = |op: Op| vault.commit(vec![op]).unwrap_err();
    assert!(matches!(
        refused(put("", "x")),
        VaultError::Name(NameError::Record)
    ));
    assert!(matches!(
        refused(delete("a\u{1}")),
        VaultError::Name(NameError::Record)
    ));
    let own = Op::Delete {
        owner: Some("\u{1}vault".into()),
        name: "a".into(),
        expect: Expect::Any,
    };
    assert!(matches!(refused(own), VaultError::Name(NameError::Owner)));
    let long = "x".repeat(MAX_RECORD + 1);
    assert!(matches!(
        refused(Op::Outbox(long.into_bytes())),
        VaultError::TooLarge { .. }
    ));
    assert!(matches!(
        vault.commit(Vec::new()),
        Err(VaultError::Batch { .. })
    ));
    let many = (0..=MAX_BATCH).map(|_| Op::Outbox(Vec::new())).collect();
    assert!(matches!(vault.commit(many), Err(VaultError::Batch { .. })));
    assert!(matches!(
        vault.load(&RecordKey {
            owner: Some(""),
            name: "a"
        }),
        Err(VaultError::Name(NameError::Owner))
    ));
}

#[test]
fn the_longest_record_fits() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    let most = MAX_RECORD - (36 + 255 + 255 + 64 + 64 * (4 + 255));
    let put = |payload| Op::Put {
        owner: Some("o".repeat(255)),
        name: "n".repeat(255),
        kind: "k".repeat(64),
        expiry: u64::MAX,
        hosts: vec!["h".repeat(255); 64],
        payload: Secret::copy_of(&vec![7; payload]).unwrap(),
        expect: Expect::Any,
    };
    let refused = vault.commit(vec![put(most + 1)]).unwrap_err();
    assert!(matches!(refused, VaultError::TooLarge { limit, .. } if limit == most));
    vault.commit(vec![put(most)]).unwrap();
    let (owner, name) = ("o".repeat(255), "n".repeat(255));
    let kept = vault
        .load(&RecordKey {
            owner: Some(&owner),
            name: &name,
        })
        .unwrap();
    assert_eq!(vault.open(&kept).unwrap().len(), most);
    assert_eq!(
        (kept.meta().hosts.len(), kept.meta().expiry),
        (64, u64::MAX)
    );
}

#[test]
fn an_owner_has_records_of_their_own() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    let mut own = put("git", "alice's");
    if let Op::Put { owner, kind, .. } = &mut own {
        *owner = Some("alice".into());
        *kind = "basic".into();
    }
    vault.commit(vec![put("git", "shared"), own]).unwrap();
    let alice = RecordKey {
        owner: Some("alice"),
        name: "git",
    };
    let opened = vault.open(&vault.load(&alice).unwrap()).unwrap();
    assert_eq!(opened.expose(), b"alice's");
    assert_eq!(read(&vault, "git").unwrap(), "shared");
    let basic = vault.list(Some("basic")).unwrap();
    assert_eq!(basic.len(), 1);
    assert_eq!(
        (basic[0].owner.as_deref(), basic[0].name.as_str()),
        (Some("alice"), "git")
    );
    assert_eq!(vault.list(None).unwrap().len(), 2);
}

#[test]
fn a_listing_of_many_slices_is_complete() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit((0..700).map(|n| put(&format!("r{n}"), "x")).collect())
        .unwrap();
    let mut names: Vec<_> = vault
        .list(None)
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 700);
    let (_, report) = site.unseal_from(site.seal(barrier));
    assert_eq!((report.verified, report.records), (2, 701));
}

#[test]
fn vaults_are_made_once_and_found_again() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier
        .create_vault("prod", Some(b"vault made".to_vec()))
        .unwrap();
    assert!(matches!(
        barrier.create_vault("prod", None),
        Err(VaultError::VaultExists(_))
    ));
    assert!(matches!(
        barrier.create_vault("system", None),
        Err(VaultError::Name(_))
    ));
    assert!(matches!(
        barrier.vault("none"),
        Err(VaultError::NoSuchVault(_))
    ));
    assert_eq!(
        barrier.system().outbox().unwrap(),
        [(1, b"vault made".to_vec())]
    );
    assert!(
        barrier.system().list(None).unwrap().is_empty(),
        "vaults' names are no listed records"
    );
    let id = barrier.vault("prod").unwrap().id();
    barrier
        .vault("prod")
        .unwrap()
        .commit(vec![put("git", "hunter22")])
        .unwrap();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!((report.verified, report.quarantined.len()), (2, 0));
    assert_eq!(barrier.vault("prod").unwrap().id(), id);
    let names: Vec<_> = barrier
        .vaults()
        .into_iter()
        .map(|status| status.name)
        .collect();
    assert_eq!(names, ["system", "prod"]);
    assert!(
        barrier
            .vaults()
            .iter()
            .all(|status| status.health == Health::Ok)
    );
}

#[test]
fn a_record_opens_in_its_own_vault_only() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "hunter22")]).unwrap();
    let kept = vault.load(&key("git")).unwrap();
    assert!(matches!(
        barrier.system().open(&kept),
        Err(VaultError::OtherVault)
    ));
}

#[test]
fn outbox_lines_come_in_order_until_they_are_handed_on() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("a", "1"), Op::Outbox(b"one".to_vec())])
        .unwrap();
    vault
        .commit(vec![
            Op::Outbox(b"two".to_vec()),
            Op::Outbox(b"three".to_vec()),
        ])
        .unwrap();
    let sequences = |lines: Vec<(u64, Vec<u8>)>| lines.into_iter().map(|line| line.0).collect();
    let all: Vec<u64> = sequences(vault.outbox().unwrap());
    assert_eq!(all, [1, 2, 3]);
    vault.outbox_done(2).unwrap();
    assert_eq!(vault.outbox().unwrap(), [(3, b"three".to_vec())]);
    // Nothing was committed since, so the lines are still in the file: they come once more.
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.outbox().unwrap().len(), 3);
    vault.outbox_done(2).unwrap();
    vault.commit(vec![put("a", "2")]).unwrap();
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(vault.outbox().unwrap(), [(3, b"three".to_vec())]);
    vault.outbox_done(u64::MAX).unwrap();
    assert!(vault.outbox().unwrap().is_empty());
    vault.commit(vec![Op::Outbox(b"four".to_vec())]).unwrap();
    assert_eq!(vault.outbox().unwrap(), [(4, b"four".to_vec())]);
}

#[test]
fn a_long_outbox_is_cleaned_without_a_commit_of_its_own_by_the_caller() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let vault = barrier.system();
    vault
        .commit((0..300).map(|_| Op::Outbox(b"line".to_vec())).collect())
        .unwrap();
    assert_eq!(vault.outbox().unwrap().len(), 256);
    vault.outbox_done(256).unwrap();
    let file = site.file(&vault);
    drop(site.seal(barrier));
    assert_eq!(super::support::rows(&file, "outbox").len(), 44);
}

#[test]
fn files_show_no_names() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("vault-of-secrets", None).unwrap();
    let vault = barrier.vault("vault-of-secrets").unwrap();
    let line = Op::Outbox(b"line-about-it".to_vec());
    vault
        .commit(vec![put("record-of-secrets", "payload-of-secrets"), line])
        .unwrap();
    let files = [site.file(&vault), site.path.join("control.db")];
    drop(site.seal(barrier));
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for text in ["of-secrets", "line-about-it", "git.example", "bearer"] {
            let shown = bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes());
            assert!(!shown, "{text} in {}", file.display());
        }
    }
}

#[test]
fn a_deleted_row_is_in_no_file() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault
        .commit(vec![put("git", "hunter22"), put("other", "x")])
        .unwrap();
    let file = site.file(&vault);
    let sealed = site.seal(barrier);
    let row = super::support::rows(&file, "record").swap_remove(0);
    let (barrier, _) = site.unseal_from(sealed);
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![delete("git"), delete("other")]).unwrap();
    // Looked at while the store is open, log included.
    let folder = file.parent().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let tail = &row.1[row.1.len() - 16..];
        assert!(
            !bytes.windows(16).any(|window| window == tail),
            "the deleted row is still there"
        );
    }
}

#[test]
fn the_settings_hold() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let file = site.file(&barrier.vault("prod").unwrap());
    let foreign = rusqlite::Connection::open(&file).unwrap();
    let locked = foreign.query_row("SELECT count(*) FROM record", [], |row| {
        row.get::<_, i64>(0)
    });
    assert!(
        locked.is_err(),
        "the lock is exclusive while the vault is in use"
    );
    drop(foreign);
    drop(site.seal(barrier));
    edit(&file, |conn| {
        let strict: Vec<String> = conn
            .prepare("SELECT name FROM pragma_table_list WHERE strict AND schema = 'main'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(strict.len(), 3);
        let mode: String = conn
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
    });
}

#[test]
fn an_idle_database_is_closed_and_opened_again() {
    let mut site = Site::new();
    site.options.idle = Duration::from_millis(1);
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "hunter22")]).unwrap();
    let wal = site.file(&vault).with_extension("db-wal");
    // A connection that closes removes its log.
    while wal.exists() {
        std::thread::yield_now();
    }
    assert_eq!(read(&vault, "git").unwrap(), "hunter22");
    vault.commit(vec![put("git", "hunter23")]).unwrap();
    assert_eq!(read(&vault, "git").unwrap(), "hunter23");
}

#[test]
fn handles_go_to_any_thread() {
    fn holds<T: Send + Sync + Clone + 'static>() {}
    holds::<OpenVault>();
    holds::<SealedRecord>();
    holds::<AuditKey>();
    holds::<Vaults>();
}
