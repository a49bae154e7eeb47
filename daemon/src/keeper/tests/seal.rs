//! Sealing comes through, whatever hangs.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mcpist_core::api::{ShareOutcome, StoreState};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::Digest;
use mcpist_sealer::{RecordKey, VaultError};
use mcpist_secret::Secret;

use super::site::{PATIENCE, Site, UID, in_own_process, keeper_in, run};
use crate::audit::{CheckpointStore, FirstKey};
use crate::keeper::{Keeper, lock};

#[test]
fn a_keeper_that_hangs_does_not_keep_the_keys() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let vaults = site.keeper.view().keys.clone().unwrap();
        let vault = vaults.vault("main").unwrap();
        let key = RecordKey {
            owner: None,
            name: "token",
        };
        let kept = vault.load(&key).unwrap();
        assert!(site.keeper.house.live().is_some());
        let (release, hang) = channel::<()>();
        let keeper = site.keeper.clone();
        let hanging =
            tokio::spawn(async move { keeper.ask(move |_| Ok(hang.recv().is_ok())).await });
        tokio::task::yield_now().await;
        let sealed = site
            .keeper
            .seal_within(Duration::ZERO, Some(UID), "a test")
            .await;
        assert!(sealed.is_ok(), "{sealed:?}");
        // Everything of it while the keeper still hangs.
        assert!(matches!(vault.open(&kept), Err(VaultError::Sealed)));
        assert!(vaults.audit_mac_key().mac(b"x").is_err());
        assert!(site.keeper.house.live().is_none());
        assert_eq!(site.keeper.view().state, StoreState::Sealed);
        assert!(site.keeper.view().vaults().is_none());
        let again = site.keeper.seal(Some(UID), "a test").await;
        assert_eq!(again.unwrap_err().code, ErrorCode::Sealed);
        release.send(()).unwrap();
        assert_eq!(hanging.await.unwrap(), Ok(true));
        // The keeper catches up, and the store opens again.
        site.unseal().await;
        assert_eq!(site.keeper.view().state, StoreState::Unsealed);
        assert!(site.keeper.house.live().is_some());
    });
}

#[test]
fn an_act_that_comes_after_the_keys_were_taken_back_finds_the_store_sealed() {
    run(async {
        let site = Site::open().await;
        let keys = site.keeper.view().keys.clone().unwrap();
        keys.revoke();
        let vault = mcpist_core::ids::VaultName::parse("late").unwrap();
        let made = site.keeper.ask(move |k| k.create_vault(UID, &vault)).await;
        assert_eq!(made.unwrap_err().code, ErrorCode::Sealed);
        assert_eq!(site.keeper.view().state, StoreState::Sealed);
        let sealed = site.inside(|k| k.seal(None, "a test")).await;
        assert!(sealed.is_ok(), "{sealed:?}");
        // The log too, which nobody had closed.
        let (uid, reason) = (None, "a test");
        let late = site
            .keeper
            .house
            .audit
            .append(&Event::Sealed { uid, reason });
        assert!(late.is_err());
        site.unseal().await;
    });
}

#[test]
fn a_seal_that_comes_while_the_store_is_being_opened_wins() {
    run(async {
        let site = Site::sealed().await;
        let keeper = site.keeper.clone();
        let sealing = std::thread::spawn(move || {
            while keeper.view().keys.is_none() {
                std::hint::spin_loop();
            }
            // What a seal does at once, before it waits for the keeper.
            keeper.house.close();
        });
        site.unseal().await;
        sealing.join().unwrap();
        assert!(site.keeper.house.live().is_none());
        site.inside(|k| k.refresh().unwrap()).await;
        assert!(site.keeper.house.live().is_none());
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert!(site.keeper.house.live().is_some());
    });
}

#[test]
fn a_seal_that_comes_while_shares_are_verified_wins() {
    run(async {
        let site = Site::sealed().await;
        let plan = site.keeper.ask(|k| k.unseal_plan()).await.unwrap().digest;
        let share = site.share();
        let (tell, told) = tokio::sync::oneshot::channel();
        let (release, hang) = channel::<()>();
        let keeper = site.keeper.clone();
        let unsealing = tokio::spawn(async move {
            let act = move |k: &mut Keeper| {
                k.opening();
                tell.send(()).unwrap();
                let _ = hang.recv();
                let outcome = k.take_share(UID, &plan, share)?;
                Ok((outcome, k.house.live().is_some()))
            };
            keeper.ask(act).await
        });
        told.await.unwrap();
        // The disk does not answer: nobody can take keys back that are not there yet.
        let late = site.keeper.seal_within(Duration::ZERO, Some(UID), "a test");
        assert_eq!(late.await.unwrap_err().code, ErrorCode::Unavailable);
        release.send(()).unwrap();
        let (outcome, serves) = unsealing.await.unwrap().unwrap();
        assert!(matches!(outcome, ShareOutcome::Opened(_)), "{outcome:?}");
        assert!(!serves);
        // The seal that was given up on.
        let state = site.keeper.ask(|k| k.unseal_plan()).await;
        assert!(state.is_ok(), "{state:?}");
        assert_eq!(site.keeper.view().state, StoreState::Sealed);
        let idle = site.keeper.seal(None, "a test").await;
        assert_eq!(idle.unwrap_err().code, ErrorCode::Sealed);
        site.unseal().await;
        assert!(site.keeper.house.live().is_some());
    });
}

#[test]
fn a_host_without_a_store_says_so() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper_in(&folder);
        assert_eq!(keeper.view().why_closed(), ErrorCode::NotInitialised);
        let sealed = keeper.seal(None, "a test").await;
        assert_eq!(sealed.unwrap_err().code, ErrorCode::NotInitialised);
        let sealed = keeper.ask(|k| k.seal(None, "a test")).await;
        assert_eq!(sealed.unwrap_err().code, ErrorCode::NotInitialised);
        let site = Site::sealed().await;
        assert_eq!(site.keeper.view().why_closed(), ErrorCode::Sealed);
    });
}

/// Checkpoints go to a disk that hangs for as long as the other end of `hang` is there.
struct Hanging {
    hang: Mutex<Receiver<()>>,
    record: Mutex<Vec<u8>>,
}

impl CheckpointStore for Hanging {
    fn load(&self) -> Result<Secret, String> {
        Secret::copy_of(&lock(&self.record)).map_err(|e| e.to_string())
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        let _ = lock(&self.hang).recv();
        *lock(&self.record) = payload.expose().to_vec();
        Ok(())
    }
}

/// Gives the site a log in `folder`, whose disk hangs until what is given back is dropped.
pub(super) fn hang_log(site: &Site, folder: &Path) -> Sender<()> {
    let first = FirstKey::generate().unwrap().into_op();
    let mcpist_sealer::Op::Put { payload, .. } = first else {
        panic!("a key is put")
    };
    let (release, hang) = channel();
    let store = Hanging {
        hang: Mutex::new(hang),
        record: Mutex::new(payload.expose().to_vec()),
    };
    let audit = &site.keeper.house.audit;
    assert!(audit.close(PATIENCE));
    let rotation = crate::audit::Rotation {
        bytes: 1 << 20,
        age: u64::MAX,
        keep: 2,
        remove: crate::audit::Remove::Confirmed,
    };
    audit.open(folder, Box::new(store), rotation).unwrap();
    release
}

#[test]
fn a_log_on_a_disk_that_hangs_costs_its_last_lines_and_not_the_seal() {
    run(async {
        let site = Site::open().await;
        let folder = tempfile::tempdir().unwrap();
        let release = hang_log(&site, folder.path());
        let keys = site.keeper.view().keys.clone().unwrap();
        let sealed = site.keeper.ask(|k| k.seal(Some(UID), "a test")).await;
        assert_eq!(sealed.unwrap_err().code, ErrorCode::AuditLost);
        assert!(keys.audit_mac_key().mac(b"x").is_err());
        assert_eq!(site.keeper.view().state, StoreState::Sealed);
        drop(release);
    });
}

#[test]
fn refused_shares_are_in_the_log_once_it_opens() {
    run(async {
        let site = Site::sealed().await;
        let plan = site.keeper.ask(|k| k.unseal_plan()).await.unwrap();
        let garbage = Secret::copy_of(b"no share").unwrap();
        let submit = move |k: &mut Keeper| k.submit_share(UID, &plan.digest, &garbage);
        let refused = site.keeper.ask(submit).await.unwrap();
        assert!(matches!(refused, ShareOutcome::Refused { .. }));
        let other = Digest::of(b"another plan");
        site.give_share_under(other).await.unwrap();
        site.give_share_under(other).await.unwrap();
        site.unseal().await;
        let uid = format!("\"uid\":{UID}");
        let noted = |code, repeats| {
            site.lines(&["\"boot\"", "\"ceremony\"", code, &uid, repeats])
                .len()
        };
        assert_eq!(noted("\"not_a_share\"", "\"repeats\":1"), 1);
        assert_eq!(noted("\"other_plan\"", "\"repeats\":2"), 1);
    });
}

#[test]
fn a_panic_of_the_keeper_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    in_own_process(
        "keeper::tests::seal::a_panic_of_the_keeper_ends_the_process",
        |status| assert_eq!(status.signal(), Some(6), "{status:?}"),
        async {
            let folder = tempfile::tempdir().unwrap();
            let keeper = keeper_in(&folder);
            let _ = keeper.ask(|_| -> Result<(), _> { panic!("a test") }).await;
        },
    );
}

#[test]
fn no_share_is_taken_where_a_segment_of_the_log_is_missing() {
    run(async {
        let site = Site::open().await;
        site.keeper.seal(None, "a test").await.unwrap();
        let (there, away) = ("audit/audit-00000000.jsonl", "audit/taken-away");
        let newer = site.state().join("audit/audit-00000001.jsonl");
        let rename = |from, to| {
            std::fs::rename(site.state().join(from), site.state().join(to)).unwrap();
        };
        rename(there, away);
        std::fs::write(&newer, b"").unwrap();
        let refused = site.give_share().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::AuditUnavailable);
        let said = "segment 0 of the audit log is missing: no share is taken";
        assert!(refused.message.starts_with(said), "{}", refused.message);
        rename(away, there);
        std::fs::remove_file(newer).unwrap();
        site.unseal().await;
    });
}
