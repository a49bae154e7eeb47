//! Shares, the lock, the seal config, and what is left after seal.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mcpist_quorum::{
    ClosedBy, Foundation, InitTerms, Plan, PlannedHolder, SealConfig, Share, ShareRefusal,
};
use mcpist_secret::Key;

use super::support::{Site, edit, key, put, read, rows};
use crate::barrier::{Barrier, OpenError, Sealed};
use crate::create::{CreateError, create, replace_with};
use crate::error::{Health, VaultError};
use crate::store::StoreError;
use crate::unseal::{Unseal, UnsealError};

#[test]
fn a_quorum_opens_what_was_stored_with_init() {
    let site = Site::with(&[put("first", "of all")]);
    let (barrier, report) = site.unseal();
    assert_eq!((report.verified, report.records), (1, 1));
    assert_eq!(read(&barrier.system(), "first").unwrap(), "of all");
    assert_eq!(
        barrier.system().meta(&key("first")).unwrap().created,
        1_790_000_000
    );
}

/// Submits a share that must be refused, and gives the barrier back.
fn refused(
    barrier: Barrier<Sealed>,
    share: Share,
    plan: mcpist_quorum::PlanDigest,
) -> (Barrier<Sealed>, ShareRefusal) {
    match barrier.submit(share, plan, 0) {
        Unseal::Rejected(barrier, refusal) => (barrier, refusal),
        _ => panic!("the share was taken"),
    }
}

#[test]
fn wrong_shares_cost_no_progress() {
    let (site, other) = (Site::new(), Site::new());
    let barrier = site.open();
    let plan = barrier.unseal_plan().digest();
    let Unseal::Pending(barrier, _) = barrier.submit(site.share(1), plan, 0) else {
        panic!("one share is not enough")
    };
    let (barrier, refusal) = refused(barrier, site.share(1), plan);
    assert!(matches!(
        refusal,
        ShareRefusal::AlreadyGiven { index: 2, .. }
    ));
    let (barrier, refusal) = refused(barrier, other.share(0), plan);
    assert!(matches!(refusal, ShareRefusal::OtherStore { .. }));
    let foreign_plan = other.open().unseal_plan().digest();
    let (barrier, refusal) = refused(barrier, site.share(0), foreign_plan);
    assert!(matches!(refusal, ShareRefusal::OtherPlan));
    assert_eq!(
        (barrier.progress().given, barrier.unseal_plan().digest()),
        (1, plan)
    );
    assert!(matches!(
        barrier.submit(site.share(0), plan, 0),
        Unseal::Opened(..)
    ));
}

#[test]
fn a_ceremony_that_expired_or_was_cancelled_begins_anew() {
    let site = Site::new();
    let barrier = site.open();
    let plan = barrier.unseal_plan().digest();
    let Unseal::Pending(mut barrier, _) = barrier.submit(site.share(1), plan, 0) else {
        panic!("one share is not enough")
    };
    assert!(!barrier.expire(599).unwrap());
    let Unseal::Rejected(barrier_back, refusal) = barrier.submit(site.share(0), plan, 600) else {
        panic!("an expired ceremony takes no share")
    };
    barrier = barrier_back;
    assert_eq!(refusal, ShareRefusal::Closed(ClosedBy::Expiry));
    let second = barrier.unseal_plan().digest();
    assert_ne!(second, plan);
    assert_eq!(barrier.progress().given, 0);
    barrier.cancel().unwrap();
    assert_ne!(barrier.unseal_plan().digest(), second);
    let (barrier, refusal) = refused(barrier, site.share(0), second);
    assert!(matches!(refusal, ShareRefusal::OtherPlan));
    site.unseal_from(barrier);
}

#[test]
fn a_second_opener_is_refused() {
    let site = Site::new();
    let barrier = site.open();
    let Err(error) = Barrier::open(&site.path) else {
        panic!("two have the store")
    };
    assert!(matches!(
        &error,
        OpenError::Store(StoreError::StoreLocked(_))
    ));
    assert!(error.to_string().contains("another mcpistd"), "{error}");
    drop(barrier);
    Barrier::open(&site.path).unwrap();
}

#[test]
fn a_lock_lasts_while_unsealed_and_after_seal() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    assert!(Barrier::open(&site.path).is_err());
    let sealed = barrier.seal();
    assert!(Barrier::open(&site.path).is_err());
    drop(sealed);
}

/// Writes another seal config into control.db.
fn edit_config(site: &Site, change: impl FnOnce(&mut Vec<u8>)) {
    let file = site.path.join("control.db");
    let (key, mut config) = rows(&file, "config")
        .into_iter()
        .find(|(key, _)| key == b"config")
        .unwrap();
    change(&mut config);
    edit(&file, |conn| {
        conn.execute(
            "UPDATE config SET value = ?2 WHERE key = ?1",
            [&key, &config],
        )
        .unwrap()
    });
}

#[test]
fn an_edited_root_digest_refuses_to_open() {
    let site = Site::new();
    edit_config(&site, |config| {
        let at = config
            .windows(32)
            .position(|window| window == [2; 32])
            .unwrap();
        config[at] = 3;
    });
    let barrier = site.open();
    assert_ne!(barrier.config().root_digest(), &[2; 32]);
    let before = barrier.unseal_plan().digest();
    let Unseal::Failed(barrier, error) = site.submit(barrier) else {
        panic!("an edited config opened")
    };
    assert!(matches!(error, UnsealError::RootKey(_)), "{error}");
    assert_ne!(
        barrier.unseal_plan().digest(),
        before,
        "the shares of a failed ceremony are gone"
    );
}

#[test]
fn an_edited_threshold_takes_no_share() {
    let site = Site::new();
    let mut parts = None;
    edit_config(&site, |config| {
        // magic 8, version 2, store 16, set 16, generation 4, then the threshold.
        assert_eq!(config[46..48], [2, 3]);
        config[46] = 1;
        parts = Some(SealConfig::from_bytes(config).unwrap());
    });
    let barrier = site.open();
    assert_eq!(barrier.config().threshold().needed(), 1);
    let plan = barrier.unseal_plan().digest();
    let (_, refusal) = refused(barrier, site.share(0), plan);
    assert!(matches!(refusal, ShareRefusal::Damaged { index: 1 }));
}

#[test]
fn sealed_handles_refuse() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let (vault, audit, vaults) = (
        barrier.vault("prod").unwrap(),
        barrier.audit_mac_key(),
        barrier.handle(),
    );
    vault.commit(vec![put("git", "hunter22")]).unwrap();
    let kept = vault.load(&key("git")).unwrap();
    assert_eq!(vault.open(&kept).unwrap().expose(), b"hunter22");
    let sealed = barrier.seal();
    let refused = |result: Result<(), VaultError>| {
        assert!(matches!(result, Err(VaultError::Sealed)), "{result:?}");
    };
    for vault in [&vault, &vaults.system()] {
        refused(vault.load(&key("git")).map(drop));
        refused(vault.meta(&key("git")).map(drop));
        refused(vault.list(None).map(drop));
        refused(vault.commit(vec![put("git", "again")]).map(drop));
        refused(vault.outbox().map(drop));
        refused(vault.outbox_done(1));
        assert_eq!(vault.health(), Health::Sealed);
    }
    refused(vault.open(&kept).map(drop));
    refused(vaults.create_vault("late", None));
    refused(vaults.settle());
    assert!(audit.mac(b"value").is_err());
    let (barrier, _) = site.unseal_from(sealed);
    refused(vault.open(&kept).map(drop));
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "git").unwrap(),
        "hunter22"
    );
}

#[test]
fn keys_that_another_thread_took_back_are_gone_and_the_owner_seals_later() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let (vault, audit) = (barrier.vault("prod").unwrap(), barrier.audit_mac_key());
    vault.commit(vec![put("git", "hunter22")]).unwrap();
    let kept = vault.load(&key("git")).unwrap();
    let handle = barrier.handle();
    std::thread::spawn(move || handle.revoke()).join().unwrap();
    assert!(matches!(vault.open(&kept), Err(VaultError::Sealed)));
    assert!(audit.mac(b"value").is_err());
    assert!(matches!(
        barrier.create_vault("late", None),
        Err(VaultError::Sealed)
    ));
    let (barrier, report) = site.unseal_from(barrier.seal());
    assert!(report.quarantined.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(read(&vault, "git").unwrap(), "hunter22");
}

#[test]
fn a_barrier_that_is_dropped_seals() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let system = barrier.system();
    drop(barrier);
    assert_eq!(system.health(), Health::Sealed);
}

#[test]
fn the_audit_key_lasts_as_long_as_the_store() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    let mac = barrier.audit_mac_key().mac(b"value").unwrap();
    assert_ne!(mac, barrier.audit_mac_key().mac(b"other").unwrap());
    let (barrier, _) = site.unseal_from(barrier.seal());
    assert_eq!(barrier.audit_mac_key().mac(b"value").unwrap(), mac);
}

fn create_at(path: &Path, site: &Site) -> Result<(), CreateError> {
    create(
        path,
        site.foundation.config().clone(),
        &Key::random().unwrap(),
        0,
    )
}

#[test]
fn init_does_not_touch_a_store_that_is_there() {
    let site = Site::new();
    let error = create_at(&site.path, &site).unwrap_err();
    assert!(
        matches!(error, CreateError::Store(StoreError::Exists(_))),
        "{error}"
    );
    site.unseal();
}

fn replace(site: &Site) -> Result<Foundation, CreateError> {
    let plan = |other: &Foundation| {
        let config = other.config();
        let holders = config.holders().iter().map(|holder| PlannedHolder {
            label: holder.label.clone(),
            recipient: holder.recipient.clone(),
        });
        let terms = InitTerms {
            holders: holders.collect(),
            officers: config.officers().to_vec(),
            root_digest: *config.root_digest(),
            dev: true,
        };
        Plan::init(config.threshold(), terms).unwrap()
    };
    let made = Foundation::lay(&plan(&site.foundation), 1_790_000_000).unwrap();
    let config = made.config().clone();
    replace_with(&site.path, config, made.kek(), 0, Vec::new()).map(|()| made)
}

#[test]
fn a_store_that_init_made_is_replaced_whole() {
    let site = Site::new();
    let open = site.open();
    let error = replace(&site).unwrap_err();
    assert!(
        matches!(error, CreateError::Store(StoreError::StoreLocked(_))),
        "{error}"
    );
    drop(open);
    let made = replace(&site).unwrap();
    assert_eq!(site.open().config(), made.config());
    assert_ne!(made.config().store(), site.foundation.config().store());
}

#[test]
fn a_store_that_was_in_use_is_not_replaced() {
    for used in [
        "vaults/11111111-1111-4111-9111-111111111111.db",
        "control.db-wal",
    ] {
        let site = Site::new();
        fs::write(site.path.join(used), "x").unwrap();
        let error = replace(&site).unwrap_err();
        assert!(
            matches!(error, CreateError::Store(StoreError::InUse(_))),
            "{used}: {error}"
        );
        fs::remove_file(site.path.join(used)).unwrap();
        site.unseal();
    }
}

#[test]
fn an_interrupted_init_leaves_no_store_and_does_not_hinder_the_next() {
    let site = Site::new();
    let path = site.path.with_file_name("half");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("control.db.new"), b"half").unwrap();
    assert!(matches!(
        Barrier::open(&path),
        Err(OpenError::Store(StoreError::Missing(_)))
    ));
    create_at(&path, &site).unwrap();
    assert!(!path.join("control.db.new").exists());
    Barrier::open(&path).unwrap();
}

#[test]
fn a_store_that_others_can_reach_is_refused() {
    let site = Site::new();
    let control = site.path.join("control.db");
    for (path, open, closed) in [(&site.path, 0o750, 0o700), (&control, 0o644, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
        let result = Barrier::open(&site.path);
        assert!(matches!(
            result,
            Err(OpenError::Store(StoreError::Exposed { .. }))
        ));
        fs::set_permissions(path, fs::Permissions::from_mode(closed)).unwrap();
    }
    Barrier::open(&site.path).unwrap();
}

#[test]
fn a_link_in_place_of_control_db_is_not_followed() {
    let site = Site::new();
    let (control, moved) = (site.path.join("control.db"), site.path.join("moved.db"));
    fs::rename(&control, &moved).unwrap();
    symlink(&moved, &control).unwrap();
    assert!(matches!(
        Barrier::open(&site.path),
        Err(OpenError::Store(StoreError::Io { .. }))
    ));
}

#[test]
fn files_and_folders_are_closed_to_others() {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let file = site.file(&barrier.vault("prod").unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&site.path), mode(&site.path.join("vaults"))),
        (0o700, 0o700)
    );
    assert_eq!(
        (mode(&file), mode(&site.path.join("control.db"))),
        (0o600, 0o600)
    );
    let wal = file.with_extension("db-wal");
    assert_eq!(mode(&wal), 0o600);
    assert!(
        !file.with_extension("db-shm").exists(),
        "the lock is exclusive"
    );
}
