//! New keys for a vault: what is refused meanwhile, what follows, and what is on record.

use std::sync::Arc;

use mcpist_core::api::{ApiError, RotationStatus, VaultRotated, VaultStatus};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::VaultName;
use mcpist_sealer::VaultError;

use super::site::{Site, UID, run};
use crate::admin::shown;
use crate::keeper::backup::due_op;
use crate::keeper::rotate::Order;
use crate::keeper::{records_error, vault_error};

fn name(vault: &str) -> VaultName {
    VaultName::parse(vault).unwrap()
}

async fn rotate(site: &Site, vault: &str, lazy: bool) -> Result<VaultRotated, ApiError> {
    site.keeper.rotate_vault(UID, name(vault), lazy).await
}

fn order() -> Order {
    Order {
        uid: UID,
        vault: name("main"),
        lazy: false,
    }
}

/// As the status shows a vault.
fn vault(site: &Site, vault: &str) -> VaultStatus {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let mut vaults = status.vaults.into_iter();
    vaults.find(|v| v.name == name(vault)).unwrap()
}

fn is_due(site: &Site) -> bool {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let mut alarms = status.alarms.iter();
    alarms.any(|alarm| alarm.code == ErrorCode::BackupDue)
}

#[test]
fn nothing_of_a_vault_is_changed_while_it_is_copied() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let begun = site.keeper.ask(|k| k.begin_rotation(&order())).await;
        let (mut rotation, rotating) = begun.unwrap();
        let under_way = RotationStatus {
            copied: 0,
            records: 1,
        };
        assert_eq!(vault(&site, "main").rotation, Some(under_way));
        let refused = [
            site.put_token().await.map(drop).unwrap_err(),
            site.delete_token().await.unwrap_err(),
            rotate(&site, "main", false).await.map(drop).unwrap_err(),
            rotate(&site, "main", true).await.map(drop).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.code, ErrorCode::Busy, "{error}");
            assert!(error.message.contains("vault main gets new keys, 0 of 1"));
            assert!(error.next.unwrap().contains("mcpist vault list"));
        }
        // What is no change of it goes on.
        let other = name("other");
        let made = site.keeper.ask(move |k| k.create_vault(UID, &other)).await;
        made.unwrap();
        let copied = rotation.copy(|_| {}).map(|id| (rotation, id));
        let ended = site.keeper.ask(move |k| {
            drop(rotating);
            k.end_rotation(&order(), copied)
        });
        assert_eq!(ended.await.unwrap().records, 1);
        assert_eq!(vault(&site, "main").rotation, None);
        assert_eq!(site.put_token().await.unwrap().version, 2);
    });
}

#[test]
fn a_rotation_that_is_given_up_leaves_the_vault_as_it_was() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let begun = site.keeper.ask(|k| k.begin_rotation(&order())).await;
        drop(begun.unwrap());
        assert_eq!(site.put_token().await.unwrap().version, 2);
        assert!(!is_due(&site));
    });
}

#[test]
fn a_rotation_has_its_lines_a_backup_that_is_due_and_the_same_credentials() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        assert!(!is_due(&site));
        let file = || {
            let files = std::fs::read_dir(site.state().join("store/vaults")).unwrap();
            files.map(|f| f.unwrap().file_name()).collect::<Vec<_>>()
        };
        let before = file();
        let rotated = rotate(&site, "main", false).await.unwrap();
        assert_eq!((rotated.records, rotated.old_records), (1, 0));
        assert!(is_due(&site));
        assert_eq!(site.put_token().await.unwrap().version, 2);
        site.keeper.seal(None, "a test").await.unwrap();
        assert_ne!(file(), before);
        let begun = site.lines(&["vault_rotation", "\"begun\"", "\"records\":1"]);
        let completed = site.lines(&["vault_rotation", "\"completed\"", "\"records\":1"]);
        assert_eq!((begun.len(), completed.len()), (1, 1));
        let file = file().remove(0).into_string().unwrap();
        let id = file.split('.').next().unwrap().to_owned();
        assert!(completed[0].contains(&id), "{id} is not in {completed:?}");
        site.unseal().await;
        assert!(is_due(&site), "it is due still");
        assert_eq!(vault(&site, "main").records, 1);
    });
}

#[test]
fn a_lazy_rotation_says_what_keeps_its_key() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let rotated = rotate(&site, "main", true).await.unwrap();
        assert_eq!((rotated.records, rotated.old_records), (0, 1));
        assert!(is_due(&site));
        assert_eq!(vault(&site, "main").old_records, 1);
        site.put_version().await;
        assert_eq!(vault(&site, "main").old_records, 0);
        let lines = site.lines(&["vault_rotation", "\"lazy\":true"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn a_commit_in_doubt_that_was_made_shows_its_backup_due_before_the_next_unseal() {
    run(async {
        let site = Site::open().await;
        let made = site.keeper.ask(|k| {
            let due = due_op("a test").map_err(|e| records_error(&e))?;
            let committed = k.open()?.system().commit(vec![due]);
            committed.map(drop).map_err(|e| vault_error(&e))
        });
        made.await.unwrap();
        assert!(!is_due(&site), "nobody knows");
        let doubt = Err(VaultError::OutcomeUnknown);
        let followed = site.inside(|k| k.follow::<()>(doubt)).await;
        assert!(followed.is_err());
        site.inside(|k| k.tick()).await;
        assert!(is_due(&site));
    });
}

#[test]
fn the_system_vault_is_sealed_anew_as_a_whole() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let lazy = rotate(&site, "system", true).await.unwrap_err();
        assert_eq!(lazy.code, ErrorCode::RequestInvalid);
        let rotated = rotate(&site, "system", false).await.unwrap();
        assert_eq!(rotated.old_records, 0);
        assert_eq!(rotated.records, vault(&site, "system").records);
        assert!(is_due(&site));
        site.put_version().await;
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert!(is_due(&site), "it is due still");
        let lines = site.lines(&["vault_rotation", "\"completed\""]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn a_rotation_that_fails_has_a_line_and_one_that_a_seal_ends_has_that_of_the_seal() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let begun = site.keeper.ask(|k| k.begin_rotation(&order())).await;
        let (rotation, rotating) = begun.unwrap();
        let failed = Err(VaultError::Full("no room".into()));
        drop((rotation, rotating));
        let ended = site.keeper.ask(move |k| k.end_rotation(&order(), failed));
        assert_eq!(ended.await.unwrap_err().code, ErrorCode::DiskFull);
        let lines = site.lines(&["vault_rotation", "\"failed\"", "disk_full"]);
        assert_eq!(lines.len(), 1, "{lines:?}");

        let begun = site.keeper.ask(|k| k.begin_rotation(&order())).await;
        let (mut rotation, rotating) = begun.unwrap();
        site.keeper.seal(None, "a test").await.unwrap();
        let copied = rotation.copy(|_| {}).map(|id| (rotation, id));
        assert!(Arc::strong_count(&rotating) == 1);
        let ended = site.keeper.ask(move |k| k.end_rotation(&order(), copied));
        assert_eq!(ended.await.unwrap_err().code, ErrorCode::Sealed);
        site.unseal().await;
        site.put_version().await;
        assert_eq!(vault(&site, "main").rotation, None);
    });
}
