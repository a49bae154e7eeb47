//! Imports beside the keeper, and repairs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use mcpist_bundle::TakeError;
use mcpist_core::api::{ApiError, Imported, ModuleState, RegistryState};
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use tokio::task::JoinHandle;

use super::site::{Site, UID, run};
use crate::admin::{Stuck, shown};

/// An import of `uid` from a stick that hangs: what lets it go on, and how it ends.
async fn hanging(
    site: &Site,
    uid: u32,
    bundle: &[u8],
) -> (Sender<()>, JoinHandle<Result<Imported, ApiError>>) {
    let (release, hang) = channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel();
    let (keeper, bytes) = (site.keeper.clone(), bundle.to_vec());
    let take = move |quarantine: &Path| {
        tell.send(()).unwrap();
        hang.recv().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        mcpist_bundle::take(&file, quarantine, 1 << 20)
    };
    let import = tokio::spawn(async move { keeper.import_from(uid, take).await });
    told.await.unwrap();
    (release, import)
}

#[test]
fn a_stick_that_hangs_keeps_nobody_waiting_and_a_seal_comes_through() {
    run(async {
        let site = Site::open().await;
        let bundle = site.bundle(1, "");
        let (release, import) = hanging(&site, UID, &bundle).await;
        // Other acts go on.
        site.put_credential().await;
        let sealed = site.keeper.ask(|k| k.seal(Some(UID), "a test")).await;
        assert!(sealed.is_ok(), "{sealed:?}");
        // What began before the seal ends without a registry, also where the store is open again.
        site.unseal().await;
        release.send(()).unwrap();
        let ended = import.await.unwrap();
        assert_eq!(ended.unwrap_err().code, ErrorCode::Sealed);
        let registries = site.keeper.ask(|k| k.registries()).await.unwrap();
        assert_eq!(registries, []);
        site.import(&bundle).await.unwrap();
    });
}

#[test]
fn sticks_of_one_user_that_hang_leave_room_for_another_user() {
    run(async {
        let site = Site::open().await;
        let bundle = site.bundle(1, "");
        let (release, import) = hanging(&site, 7, &bundle).await;
        let busy = async |uid| {
            let unread = |_: &Path| -> Result<_, TakeError> { panic!("there is a place") };
            let refused = site.keeper.import_from(uid, unread).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Busy);
            refused.message
        };
        let own = busy(7).await;
        assert!(own.contains("of uid 7;"), "{own}");
        site.import(&bundle).await.unwrap();
        let mut more = Vec::new();
        for uid in 8..11 {
            more.push(hanging(&site, uid, &bundle).await);
        }
        let all = busy(UID).await;
        assert!(all.contains("of uid 7, 8, 9, 10;"), "{all}");
        // Its end gives the place back.
        release.send(()).unwrap();
        let again = import.await.unwrap().unwrap_err();
        assert_eq!(again.code, ErrorCode::AlreadyImported);
        site.import(&site.bundle(2, "")).await.unwrap();
        for (release, import) in more {
            release.send(()).unwrap();
            import.await.unwrap().unwrap_err();
        }
    });
}

#[test]
fn imports_at_once_of_one_bundle_make_one_registry() {
    run(async {
        let site = Site::open().await;
        let bundle = site.bundle(1, "");
        let import_as = |uid| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bundle).unwrap();
            site.keeper.import(uid, file)
        };
        let (one, two) = tokio::join!(import_as(1), import_as(2));
        let refused = if one.is_ok() { two } else { one };
        assert_eq!(refused.unwrap_err().code, ErrorCode::AlreadyImported);
    });
}

#[test]
fn a_refusal_names_the_bundles_own_code() {
    run(async {
        let site = Site::open().await;
        let mut bundle = site.bundle(1, "");
        let last = bundle.len() - 1;
        bundle[last] ^= 1;
        let refused = site.import(&bundle).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::BundleRefused);
        assert_eq!(refused.reason.as_deref(), Some("bad_blob"));
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let refused = site.keeper.import(UID, directory).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("not_a_file"));
    });
}

/// Overwrites the first file below `folder`.
fn damage_one_file(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap();
    let first = entries.flatten().next().unwrap().path();
    if first.is_dir() {
        return damage_one_file(&first);
    }
    std::fs::write(&first, b"damaged").unwrap();
    first
}

#[test]
fn a_damaged_registry_is_shown_and_comes_in_again() {
    run(async {
        let site = Site::open().await;
        let (first, second) = (site.bundle(1, ""), site.bundle(2, ""));
        let id = site.import(&first).await.unwrap().registry.id;
        site.change(Change::RegistryActivate(id)).await.unwrap();
        site.import(&second).await.unwrap();
        // Whole, it is refused: the older one of the two as older.
        let again = site.import(&second).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::AlreadyImported);
        let older = site.import(&first).await.unwrap_err();
        assert_eq!(older.reason.as_deref(), Some("older_sequence"));
        let has_echo = || {
            let live = site.keeper.house.live().unwrap();
            live.registries().next().is_some()
        };
        assert!(has_echo());

        site.keeper.seal(None, "a test").await.unwrap();
        let manifest = site
            .state()
            .join(format!("registries/{}/manifest", id.digest()));
        std::fs::write(&manifest, b"{}").unwrap();
        site.unseal().await;
        let alarms = site.keeper.view().alarms.clone();
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        assert!(alarms[0].message.contains(&id.short()), "{alarms:?}");
        assert!(!has_echo());
        let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
        assert_eq!(status.modules.len(), 1);
        assert_eq!(status.modules[0].state, ModuleState::Broken);
        assert_eq!(status.alarms, alarms);

        let mended = site.import(&first).await.unwrap();
        assert_eq!(mended.registry.id, id);
        assert_eq!(mended.registry.state, RegistryState::Active);
        assert_eq!(site.keeper.view().alarms, []);
        assert!(has_echo());
        let status = shown(&site.keeper.house, &site.keeper.view(), Err(Stuck));
        // No runner is connected in this test.
        assert_eq!(status.modules[0].state, ModuleState::Loading);
        assert_eq!(status.alarms[0].code, ErrorCode::AuditUnavailable);
        // A blob counts as well.
        let schemas = manifest.with_file_name("blobs");
        let damaged = damage_one_file(&schemas);
        site.import(&first).await.unwrap();
        assert_ne!(std::fs::read(&damaged).unwrap(), b"damaged");
        // Another bundle of that sequence is none of ours, damaged or not.
        std::fs::write(&manifest, b"{}").unwrap();
        let other = site.import(&site.bundle(1, "another")).await.unwrap_err();
        assert_eq!(other.reason.as_deref(), Some("older_sequence"));
    });
}

#[test]
fn a_damaged_blob_costs_its_module_and_what_serves_nothing_is_not_read() {
    run(async {
        let site = Site::open().await;
        let (first, second) = (site.bundle(1, ""), site.bundle(2, ""));
        let id = site.import(&first).await.unwrap().registry.id;
        site.change(Change::RegistryActivate(id)).await.unwrap();
        let idle = site.import(&second).await.unwrap().registry.id;
        site.keeper.seal(None, "a test").await.unwrap();
        for id in [id, idle] {
            let blobs = format!("registries/{}/blobs", id.digest());
            damage_one_file(&site.state().join(blobs));
        }
        site.unseal().await;
        assert_eq!(site.keeper.view().alarms, []);
        let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
        assert_eq!(status.modules[0].state, ModuleState::Broken);
        assert_eq!(status.alarms.len(), 1, "{:?}", status.alarms);
        assert!(status.alarms[0].message.contains(&id.short()));
        site.import(&first).await.unwrap();
        let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
        assert_eq!(
            (status.modules[0].state, status.alarms.len()),
            (ModuleState::Loading, 0)
        );
    });
}
