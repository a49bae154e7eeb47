//! A restore that waits for its quorum, and what comes between.

use std::fs::File;
use std::path::Path;

use mcpist_core::api::{
    ApiError, Base64, InitRequest, NewHolder, OpenRestore, ShareOutcome, StoreState,
};
use mcpist_core::error::ErrorCode;
use mcpist_quorum::{CEREMONY_SECONDS, Identity};
use mcpist_secret::Secret;

use super::site::{PATIENCE, Site, UID};
use crate::clock::steady_seconds;
use crate::keeper::restore::Aim;

/// An open store with a credential, its backup, and the store sealed again.
async fn backed_up() -> (Site, File) {
    let site = Site::open().await;
    site.put_credential().await;
    back_up(site).await
}

async fn back_up(site: Site) -> (Site, File) {
    let file = tempfile::tempfile().unwrap();
    let target = file.try_clone().unwrap();
    site.keeper.backup(UID, target).await.unwrap();
    site.keeper.seal(Some(UID), "a test").await.unwrap();
    (site, file)
}

async fn begin(site: &Site, file: &File) -> Result<OpenRestore, ApiError> {
    let source = file.try_clone().unwrap();
    site.keeper.begin_restore(UID, source, Aim::Restore).await
}

async fn waits(site: &Site) -> Option<ErrorCode> {
    let open = site.keeper.ask(|k| k.open_restore()).await;
    open.err().map(|e| e.code)
}

/// The notes of a restore that the log of the store has, once it was opened.
fn noted(site: &Site, code: &str) -> usize {
    let code = format!("\"{code}\"");
    site.lines(&["\"boot\"", "\"ceremony\"", &code]).len()
}

#[tokio::test]
async fn a_store_that_was_opened_meanwhile_is_not_replaced() {
    let (site, file) = backed_up().await;
    let plan = begin(&site, &file).await.unwrap().digest;
    // The plan stays, as if opening the store had not ended it: the last share alone must ask again.
    let kept = site.inside(|k| k.restoring.take()).await;
    site.unseal().await;
    site.inside(|k| k.restoring = kept).await;
    let late = site.give_share_under(plan).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::AlreadyUnsealed, "{late}");
    assert_eq!(site.keeper.view().state, StoreState::Unsealed);
    assert!(!site.state().join("store.aside").exists());
}

#[tokio::test]
async fn opening_the_store_ends_a_restore_that_waits() {
    let (site, file) = backed_up().await;
    begin(&site, &file).await.unwrap();
    site.unseal().await;
    assert_eq!(waits(&site).await, Some(ErrorCode::NotFound));
    assert_eq!(noted(&site, "restore_planned"), 1);
    let uid = format!("\"uid\":{UID}");
    let ended = site.lines(&["\"restore\"", "\"cancelled\"", &uid]);
    assert_eq!(ended.len(), 1, "{ended:?}");
}

#[tokio::test]
async fn an_init_ends_a_restore_that_waits() {
    let (_first, file) = backed_up().await;
    let site = Site::sealed().await;
    let token = std::fs::read(site.state().join("init-token")).unwrap();
    let token = Secret::copy_of(&token).unwrap();
    let shown = site
        .keeper
        .ask(move |k| k.show_init_token(UID, &token))
        .await;
    shown.unwrap();
    begin(&site, &file).await.unwrap();
    let request = InitRequest {
        threshold: 1,
        holders: vec![NewHolder {
            label: "holder".into(),
            recipient: Identity::generate().recipient(),
        }],
        root: Base64(site.root()),
        officers: Vec::new(),
        dev: true,
    };
    let plan = site.keeper.ask(move |k| k.plan_init(UID, request)).await;
    let digest = plan.unwrap().digest;
    let made = site.keeper.ask(move |k| k.confirm_init(UID, &digest)).await;
    made.unwrap();
    assert_eq!(waits(&site).await, Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_restore_that_waits_is_not_replaced_by_another() {
    let (site, file) = backed_up().await;
    let plan = begin(&site, &file).await.unwrap().digest;
    let second = begin(&site, &file).await.unwrap_err();
    assert_eq!(second.code, ErrorCode::Conflict, "{second}");
    let open = site.keeper.ask(|k| k.open_restore()).await.unwrap();
    assert_eq!(open.digest, plan);
    site.keeper.ask(|k| k.cancel_restore(UID)).await.unwrap();
    begin(&site, &file).await.unwrap();
    site.unseal().await;
    assert_eq!(noted(&site, "restore_cancelled"), 1);
    let planned = site.lines(&["\"restore_planned\"", "\"repeats\":2"]);
    assert_eq!(planned.len(), 1, "{planned:?}");
}

#[tokio::test]
async fn nobody_has_to_ask_for_a_restore_to_expire() {
    let (site, file) = backed_up().await;
    begin(&site, &file).await.unwrap();
    let is_there = |at: u64| {
        site.inside(move |k| {
            k.tick_at(steady_seconds() + at);
            k.restoring.is_some()
        })
    };
    assert!(is_there(CEREMONY_SECONDS - 60).await);
    assert!(!is_there(CEREMONY_SECONDS).await);
    site.unseal().await;
    assert_eq!(noted(&site, "restore_expired"), 1);
}

#[tokio::test]
async fn the_old_store_leaves_with_a_line_or_not_at_all() {
    let (site, file) = backed_up().await;
    let plan = begin(&site, &file).await.unwrap().digest;
    let outcome = site.give_share_under(plan).await.unwrap();
    assert!(matches!(outcome, ShareOutcome::Restored(_)), "{outcome:?}");
    site.unseal().await;
    let is_kept = || site.state().join("store.aside/control.db").exists();
    // An open store whose log takes nothing.
    assert!(site.keeper.house.audit.close(PATIENCE));
    let refused = site.keeper.ask(|k| k.remove_old(UID)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AuditUnavailable, "{refused}");
    assert!(is_kept());
    site.keeper.seal(Some(UID), "a test").await.unwrap_err();
    site.unseal().await;
    let removed = site.keeper.ask(|k| k.remove_old(UID)).await.unwrap();
    assert!(removed.removed && !is_kept());
    let none = site.keeper.ask(|k| k.remove_old(UID)).await.unwrap();
    assert!(!none.removed);
    let log = later_log(&site.state());
    let lines = log.matches("\"event\":\"old_store_removed\"").count();
    assert_eq!(lines, 1, "{log}");
}

/// The log of the life that a restore began.
fn later_log(state: &Path) -> String {
    let folders = std::fs::read_dir(state).unwrap();
    let mut folders = folders.map(|entry| entry.unwrap().path());
    let is_later = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("audit-")
    };
    let folder = folders.find(is_later).unwrap();
    std::fs::read_to_string(folder.join("audit-00000000.jsonl")).unwrap()
}

#[tokio::test]
async fn what_is_no_backup_is_refused_before_a_byte_of_it_is_copied() {
    let (site, file) = backed_up().await;
    // As much as may come, and more than any test has room for.
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(256 << 30).unwrap();
    let refused = begin(&site, &sparse).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BackupRefused, "{refused}");
    // One that is whole, and then goes on.
    let length = file.metadata().unwrap().len();
    file.set_len(200 << 30).unwrap();
    let refused = begin(&site, &file).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BackupRefused, "{refused}");
    assert!(refused.message.contains("after its end"), "{refused}");
    file.set_len(length).unwrap();
    begin(&site, &file).await.unwrap();
}

#[tokio::test]
async fn one_backup_at_a_time_is_on_its_way_in() {
    let (site, file) = backed_up().await;
    let turn = site.inside(|k| k.door.enter()).await.unwrap();
    let second = begin(&site, &file).await.unwrap_err();
    assert_eq!(second.code, ErrorCode::Busy, "{second}");
    drop(turn);
    begin(&site, &file).await.unwrap();
}

#[tokio::test]
async fn the_line_and_the_record_of_a_restored_life_name_all_that_it_follows() {
    let site = Site::open().await;
    // A seal signs what is there.
    site.keeper.seal(Some(UID), "a test").await.unwrap();
    site.unseal().await;
    let (site, file) = back_up(site).await;
    let before = site.lines(&[]);
    let hash_of = |line: u64| {
        let begins = format!("{{\"seq\":{line},");
        let found = before.iter().find(|l| l.starts_with(&begins)).unwrap();
        let said: serde_json::Value = serde_json::from_str(found).unwrap();
        said["hash"].clone()
    };
    let plan = begin(&site, &file).await.unwrap().digest;
    let ShareOutcome::Restored(done) = site.give_share_under(plan).await.unwrap() else {
        panic!("one share is its quorum")
    };
    site.unseal().await;
    let log = later_log(&site.state());
    let line = log.lines().find(|l| l.contains("\"restored\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let backup = serde_json::to_value(done.backup).unwrap();
    assert_eq!((&line["backup"], &line["uid"]), (&backup, &UID.into()));
    assert_eq!((&line["from"], &line["life"]), (&1.into(), &2.into()));
    // What the backup knew to be signed, and what the files here ended with.
    let signed = line["line"].as_u64().unwrap();
    assert!(signed > 1, "{line}");
    assert_eq!(line["head"], hash_of(signed));
    let last = before.len() as u64;
    assert!(signed < last, "the seal wrote more");
    assert_eq!(line["replaced_line"], last);
    assert_eq!(line["replaced_head"], hash_of(last));
    let kept = site.keeper.ask(|k| k.life_record()).await.unwrap();
    assert_eq!(kept.record.0, done.record.0);
    let record = mcpist_quorum::CeremonyRecord::from_bytes(&kept.record.0).unwrap();
    assert_eq!(record.act(), mcpist_quorum::Recorded::Restore);
    assert_eq!(*record.audit_key(), done.audit_key.0);
}
