//! One vault goes back to a backup while the store is open.

use std::fs::File;

use mcpist_core::api::{ApiError, CeremonyRequest, VaultHealth, VaultInBackup, VaultRestored};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, VaultName};

use super::care::{alarm, has_alarm, health, main_vault};
use super::site::{Site, UID, run};
use super::vault_quorum::{begin, with_own};
use crate::keeper::Keeper;

/// An open store with a credential, its backup, and another version of the credential.
async fn backed_up() -> (Site, File) {
    let site = Site::open().await;
    site.put_credential().await;
    let file = tempfile::tempfile().unwrap();
    let target = file.try_clone().unwrap();
    site.keeper.backup(UID, target).await.unwrap();
    site.put_version().await;
    (site, file)
}

async fn look(site: &Site, file: &File, replace: bool) -> Result<VaultInBackup, ApiError> {
    let file = file.try_clone().unwrap();
    let looking = site.keeper.look_into_backup(file, main_vault(), replace);
    looking.await
}

async fn restore(
    site: &Site,
    file: &File,
    plan: Digest,
    replace: bool,
) -> Result<VaultRestored, ApiError> {
    let file = file.try_clone().unwrap();
    let restoring = site
        .keeper
        .restore_vault(UID, file, main_vault(), plan, replace);
    restoring.await
}

#[test]
fn a_quarantined_vault_is_restored_as_it_was_shown_and_its_file_is_kept() {
    run(async {
        let (site, file) = backed_up().await;
        site.spoil_vaults().await;
        site.unseal().await;
        assert_eq!(health(&site), VaultHealth::Quarantined);
        let found = look(&site, &file, false).await.unwrap();
        assert_eq!((found.records, found.here), (1, Some(0)));
        assert!(found.quarantined && found.lost.is_empty());
        assert!(!found.sure, "nothing of it can be read");
        let other = restore(&site, &file, Digest::of(b"another"), false).await;
        let other = other.unwrap_err();
        assert_eq!(other.code, ErrorCode::Conflict);
        let next = "mcpist vault restore main --from FILE";
        assert_eq!(other.next.as_deref(), Some(next));
        assert_eq!(health(&site), VaultHealth::Quarantined);

        let done = restore(&site, &file, found.plan, false).await.unwrap();
        assert_eq!(done.found, found);
        assert_eq!(health(&site), VaultHealth::Ok);
        let alarm = alarm(&site, ErrorCode::VaultRepaired).unwrap();
        assert!(alarm.contains("an unknown number were lost"), "{alarm}");
        let former = done.file.unwrap();
        let former = site.state().join(format!("store/vaults/{former}.db"));
        assert_eq!(std::fs::read(&former).unwrap(), b"not a database");
        // The store remembers it, and takes nothing for the log's loss.
        site.put_version().await;
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert!(has_alarm(&site, ErrorCode::VaultRepaired));
        assert!(!has_alarm(&site, ErrorCode::StoreBehindLog));
        let discard = |k: &mut Keeper| k.discard_damaged(UID, &main_vault());
        assert_eq!(site.keeper.ask(discard).await.unwrap(), 1);
        assert!(!former.exists() && !has_alarm(&site, ErrorCode::VaultRepaired));
        site.keeper.seal(None, "a test").await.unwrap();
        assert_eq!(site.lines(&["\"vault_restored\""]).len(), 1);
    });
}

#[test]
fn a_vault_that_serves_is_restored_only_where_that_was_said_and_as_it_was_seen() {
    run(async {
        let (site, file) = backed_up().await;
        let refused = look(&site, &file, false).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        assert!(refused.next.unwrap().ends_with("--replace"));
        let found = look(&site, &file, true).await.unwrap();
        assert_eq!((found.here, found.other, found.lost.len()), (Some(1), 1, 1));
        let unsaid = restore(&site, &file, found.plan, false).await.unwrap_err();
        assert_eq!(unsaid.code, ErrorCode::Conflict);
        site.put_version().await;
        let moved = restore(&site, &file, found.plan, true).await.unwrap_err();
        assert_eq!(moved.code, ErrorCode::Conflict);
        let found = look(&site, &file, true).await.unwrap();
        restore(&site, &file, found.plan, true).await.unwrap();
        // Above every version that it had: what binds it follows.
        let put = site.put_token().await.unwrap();
        assert!(put.version > 4, "{}", put.version);
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert_eq!(health(&site), VaultHealth::Ok);
        assert!(!has_alarm(&site, ErrorCode::StoreBehindLog));
    });
}

#[test]
fn one_that_its_own_holders_open_is_not_taken_back_behind_them() {
    run(async {
        let (site, _share) = with_own().await;
        let file = tempfile::tempfile().unwrap();
        let target = file.try_clone().unwrap();
        site.keeper.backup(UID, target).await.unwrap();
        let seal = |k: &mut Keeper| k.seal_vault(UID, &main_vault());
        site.keeper.ask(seal).await.unwrap();
        let unsaid = look(&site, &file, false).await.unwrap_err();
        assert_eq!(unsaid.code, ErrorCode::Conflict);
        assert!(unsaid.next.unwrap().ends_with("--replace"));
        let found = look(&site, &file, true).await.unwrap();
        assert!(found.own_quorum && !found.sure);

        let vault = main_vault();
        begin(&site, CeremonyRequest::UnsealVault { vault })
            .await
            .unwrap();
        for refused in [
            look(&site, &file, true).await.unwrap_err(),
            restore(&site, &file, found.plan, true).await.unwrap_err(),
        ] {
            assert_eq!(refused.code, ErrorCode::Conflict);
            assert!(
                refused.message.contains("a ceremony of vault main"),
                "{refused}"
            );
        }
        site.keeper.ask(|k| k.cancel_ceremony(UID)).await.unwrap();
        let done = restore(&site, &file, found.plan, true).await.unwrap();
        assert!(done.file.is_some() && has_alarm(&site, ErrorCode::VaultRepaired));
    });
}

#[test]
fn what_is_no_backup_or_lacks_the_vault_restores_nothing() {
    run(async {
        let (site, file) = backed_up().await;
        let name = VaultName::parse("other").unwrap();
        let source = file.try_clone().unwrap();
        let looking = site.keeper.look_into_backup(source, name, false).await;
        let lacking = looking.unwrap_err();
        assert_eq!(lacking.code, ErrorCode::BackupRefused);
        assert!(lacking.message.contains("does not hold vault"), "{lacking}");
        let empty = look(&site, &tempfile::tempfile().unwrap(), true).await;
        assert_eq!(empty.unwrap_err().code, ErrorCode::BackupRefused);
        let (_other, theirs) = backed_up().await;
        let foreign = look(&site, &theirs, true).await.unwrap_err();
        assert_eq!(foreign.code, ErrorCode::BackupRefused);
        assert!(foreign.message.contains("another store"), "{foreign}");
    });
}
