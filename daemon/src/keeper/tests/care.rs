//! A vault is verified while it serves, and repaired where it does not.

use mcpist_core::api::{VaultFindings, VaultHealth};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, VaultName};

use super::site::{Site, UID, run, wait_closed};
use crate::admin::shown;
use crate::keeper::Keeper;

pub(super) fn main_vault() -> VaultName {
    VaultName::parse("main").unwrap()
}

pub(super) fn has_alarm(site: &Site, code: ErrorCode) -> bool {
    alarm(site, code).is_some()
}

/// What the alarm says.
pub(super) fn alarm(site: &Site, code: ErrorCode) -> Option<String> {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let mut alarms = status.alarms.into_iter();
    let found = alarms.find(|alarm| alarm.code == code);
    found.map(|alarm| alarm.message)
}

pub(super) fn health(site: &Site) -> VaultHealth {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let mut vaults = status.vaults.into_iter();
    vaults.find(|v| v.name == main_vault()).unwrap().health
}

async fn examine(site: &Site) -> VaultFindings {
    site.keeper.examine_vault(main_vault()).await.unwrap()
}

#[test]
fn a_verified_vault_has_its_line_and_one_is_verified_at_a_time() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let found = site.keeper.verify_vault(UID, main_vault()).await.unwrap();
        assert_eq!(found.records, 1);
        let running = site
            .inside(|k| k.open().unwrap().begin_reading(&main_vault()).unwrap())
            .await;
        let busy = site.keeper.verify_vault(UID, main_vault()).await;
        assert_eq!(busy.unwrap_err().code, ErrorCode::Busy);
        drop(running);
        let system = VaultName::parse("system").unwrap();
        site.keeper.verify_vault(UID, system).await.unwrap();
        let healthy = site.keeper.examine_vault(main_vault()).await;
        assert_eq!(healthy.unwrap_err().code, ErrorCode::Conflict);
        site.keeper.seal(None, "a test").await.unwrap();
        assert_eq!(site.lines(&["vault_verified"]).len(), 2);
    });
}

#[test]
fn a_repair_is_done_as_it_was_shown_and_its_file_is_kept_until_it_is_discarded() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        site.spoil_vaults().await;
        site.unseal().await;
        assert_eq!(health(&site), VaultHealth::Quarantined);
        let found = examine(&site).await;
        assert_eq!((found.kept, found.unreadable, found.expected), (0, 1, None));
        let other = Digest::of(b"another file");
        let moved = site.keeper.repair_vault(UID, main_vault(), other).await;
        let moved = moved.unwrap_err();
        assert_eq!(moved.code, ErrorCode::Conflict);
        assert_eq!(moved.next.as_deref(), Some("mcpist vault repair main"));
        assert_eq!(health(&site), VaultHealth::Quarantined);

        let done = site.keeper.repair_vault(UID, main_vault(), found.plan);
        let done = done.await.unwrap();
        assert_eq!(done.findings, found);
        assert_eq!(health(&site), VaultHealth::Ok);
        assert!(has_alarm(&site, ErrorCode::VaultRepaired));
        site.put_version().await;
        // The store remembers it, and takes nothing for the log's loss.
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert!(has_alarm(&site, ErrorCode::VaultRepaired));
        assert!(!has_alarm(&site, ErrorCode::StoreBehindLog));
        let file = site.state().join(format!("store/vaults/{}.db", done.file));
        assert_eq!(std::fs::read(&file).unwrap(), b"not a database");

        let discard = |k: &mut Keeper| k.discard_damaged(UID, &main_vault());
        assert_eq!(site.keeper.ask(discard).await.unwrap(), 1);
        assert!(!file.exists());
        assert!(!has_alarm(&site, ErrorCode::VaultRepaired));
        let again = site.keeper.ask(discard).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::NotFound);
        site.keeper.seal(None, "a test").await.unwrap();
        let count = |kind| site.lines(&[kind]).len();
        assert_eq!(
            (count("\"vault_repaired\""), count("damaged_discarded")),
            (1, 1)
        );
        site.unseal().await;
        assert!(!has_alarm(&site, ErrorCode::VaultRepaired));
    });
}

#[test]
fn an_older_file_is_kept_with_a_caution_and_its_lines_do_not_come_twice() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        site.keeper.seal(None, "a test").await.unwrap();
        let vaults = site.state().join("store/vaults");
        wait_closed(&vaults);
        let file = std::fs::read_dir(&vaults).unwrap().next().unwrap().unwrap();
        let before = std::fs::read(file.path()).unwrap();
        site.unseal().await;
        site.put_version().await;
        site.put_version().await;
        site.keeper.seal(None, "a test").await.unwrap();
        wait_closed(&vaults);
        std::fs::write(file.path(), before).unwrap();
        site.unseal().await;
        let found = examine(&site).await;
        assert_eq!(
            (found.kept, found.expected, found.sure),
            (1, Some(1), false)
        );
        let done = site.keeper.repair_vault(UID, main_vault(), found.plan);
        done.await.unwrap();
        site.put_version().await;
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert!(!has_alarm(&site, ErrorCode::StoreBehindLog));
        assert_eq!(site.lines(&["\"credential_put\""]).len(), 4);
    });
}
