//! The policy in memory and the store behind it.

use mcpist_core::api::{ChangeOutcome, RegistryState, StoreState};
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::PrincipalName;
use mcpist_sealer::{Expect, RecordKey, VaultError};

use super::site::{Site, UID, run};
use crate::keeper::{records, vault_error};

fn principal(name: &str) -> Change {
    let record = serde_json::json!({ "principal-put": { "name": name } });
    serde_json::from_value(record).unwrap()
}

fn binding(vault: &str, credential: &str) -> Change {
    let record = serde_json::json!({ "binding-put": {
        "name": "service", "vault": vault, "credential": credential, "scheme": "http", "host": "127.0.0.1",
        "port": 80, "path_prefix": "/", "methods": ["GET"], "trust": "none", "inject": "bearer",
        "allow_local": true } });
    serde_json::from_value(record).unwrap()
}

async fn serves(site: &Site) -> bool {
    site.keeper.house.live().is_some()
}

#[test]
fn a_commit_in_doubt_cuts_clients_off_until_the_policy_was_read_anew() {
    run(async {
        let conflict = VaultError::Conflict {
            name: "a test".into(),
            expected: 1,
            found: 2,
        };
        for error in [VaultError::OutcomeUnknown, conflict] {
            let site = Site::open().await;
            site.put_credential().await;
            let id = site.import(&site.bundle(1, "")).await.unwrap().registry.id;
            site.change(Change::RegistryActivate(id)).await.unwrap();
            site.change(Change::RegistryRetire(id)).await.unwrap();
            let proposed = site.propose(UID, principal("ada")).await.unwrap();
            assert!(serves(&site).await);
            let followed = site.inside(move |k| k.follow::<()>(Err(error))).await;
            assert!(followed.is_err());
            assert!(!serves(&site).await);
            let refused = site.approve(proposed.review.change).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
            let refused = site.import(&site.bundle(2, "")).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
            let refused = site.put_token().await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
            let refused = site.delete_token().await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
            // Nor does what else makes a snapshot bring the old policy back.
            site.inside(|k| k.end_drains(u64::MAX).unwrap()).await;
            assert!(!serves(&site).await);
            site.inside(|k| k.tick()).await;
            assert!(serves(&site).await);
            // What was proposed still waits.
            site.approve(proposed.review.change).await.unwrap();
        }
    });
}

#[test]
fn what_was_redacted_before_a_doubt_is_redacted_after_it() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        site.change(binding("main", "token")).await.unwrap();
        site.delete_token().await.unwrap();
        let hits = || {
            let live = site.keeper.house.live().unwrap();
            live.redactor.redact(b"canary-7f3a9c1e5b2d".to_vec()).hits
        };
        assert_eq!(hits(), 1);
        let doubt = Err(VaultError::OutcomeUnknown);
        let followed = site.inside(|k| k.follow::<()>(doubt)).await;
        assert!(followed.is_err());
        site.inside(|k| k.tick()).await;
        assert_eq!(hits(), 1);
    });
}

#[test]
fn a_refusal_that_is_none_of_doubt_cuts_nobody_off() {
    run(async {
        let site = Site::open().await;
        for error in [
            VaultError::TooLarge { found: 2, limit: 1 },
            VaultError::Unavailable,
            VaultError::Storage("a test".into()),
            VaultError::Full("a test".into()),
        ] {
            let code = vault_error(&error).code;
            let followed = site.inside(move |k| k.follow::<()>(Err(error))).await;
            assert_eq!(followed.unwrap_err().code, code);
            assert!(serves(&site).await);
            site.change(principal("ada")).await.unwrap();
        }
    });
}

#[test]
fn a_commit_of_which_no_snapshot_can_be_made_cuts_clients_off() {
    run(async {
        let site = Site::open().await;
        let id = site.import(&site.bundle(1, "")).await.unwrap().registry.id;
        site.change(Change::RegistryActivate(id)).await.unwrap();
        let other = site.import(&site.bundle(2, "")).await.unwrap();
        site.inside(move |k| {
            // Two active registries with a module of one name, in memory alone.
            let policy = &mut k.open().unwrap().policy;
            let other = policy.registries.get_mut(&other.registry.id).unwrap();
            other.state = RegistryState::Active;
            k.follow(Ok(())).unwrap();
        })
        .await;
        assert!(!serves(&site).await);
        site.inside(|k| k.tick()).await;
        assert!(serves(&site).await);
    });
}

#[test]
fn a_change_is_stored_over_the_version_that_it_was_judged_by() {
    run(async {
        let site = Site::open().await;
        site.change(principal("ada")).await.unwrap();
        let name = "principal/ada";
        // A write that memory knows nothing of.
        site.inside(move |k| {
            let record = serde_json::json!({ "name": "ada", "groups": ["late"] });
            let put = records::put("principal", name.into(), Some(&record), Expect::Any).unwrap();
            k.open().unwrap().system().commit(vec![put]).unwrap();
        })
        .await;
        let refused = site.change(principal("ada")).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Conflict);
        assert!(!serves(&site).await);
        site.inside(|k| k.tick()).await;
        let stored = site.change(principal("ada")).await.unwrap();
        assert!(matches!(stored, ChangeOutcome::Stored { .. }));
        let version = site
            .inside(move |k| {
                let key = RecordKey { owner: None, name };
                k.open().unwrap().system().meta(&key).unwrap().version
            })
            .await;
        assert_eq!(version, 3);
        // What was taken away counts on.
        let ada = PrincipalName::parse("ada").unwrap();
        site.change(Change::PrincipalDelete(ada)).await.unwrap();
        site.change(principal("ada")).await.unwrap();
    });
}

#[test]
fn an_import_that_meets_a_registry_unknown_to_memory_cuts_clients_off() {
    run(async {
        let site = Site::open().await;
        let bundle = site.bundle(1, "");
        // Of the same manifest.
        let other = Site::open().await;
        let id = other.import(&other.bundle(1, "")).await;
        let id = id.unwrap().registry.id;
        site.inside(move |k| {
            let name = records::registry_name(&id);
            let put = records::put::<()>("registry", name, None, Expect::Any).unwrap();
            k.open().unwrap().system().commit(vec![put]).unwrap();
        })
        .await;
        let refused = site.import(&bundle).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Conflict);
        assert!(!serves(&site).await);
        site.inside(|k| k.tick()).await;
        assert!(serves(&site).await);
        site.import(&bundle).await.unwrap();
    });
}

#[test]
fn a_credential_that_cannot_be_looked_up_is_not_taken_for_one_that_never_was() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let state = |change| async {
            let proposed = site.propose(UID, change).await;
            proposed.map(|p| p.review.state)
        };
        let (there, absent) = (binding("main", "token"), binding("main", "other"));
        assert_ne!(state(there.clone()).await, state(absent).await);
        state(binding("nowhere", "token")).await.unwrap();
        site.spoil_vaults().await;
        site.unseal().await;
        assert_eq!(site.keeper.view().state, StoreState::Unsealed);
        let refused = state(there).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::VaultQuarantined);
    });
}

#[test]
fn a_proposal_waits_until_its_proposer_withdraws_it() {
    run(async {
        let site = Site::open().await;
        let digest = site
            .propose(UID, principal("ada"))
            .await
            .unwrap()
            .review
            .change;
        let waiting = site.keeper.ask(|k| k.waiting()).await.unwrap();
        assert_eq!((waiting[0].change, waiting[0].uid), (digest, UID));
        assert_eq!(waiting[0].object, "principal/ada");
        let other = site.keeper.ask(move |k| k.withdraw(UID + 1, &digest)).await;
        assert_eq!(other.unwrap_err().code, ErrorCode::Forbidden);
        let own = site.keeper.ask(move |k| k.withdraw(UID, &digest)).await;
        own.unwrap();
        let gone = site.approve(digest).await.unwrap_err();
        assert_eq!(gone.code, ErrorCode::NotFound);
        assert_eq!(site.keeper.ask(|k| k.waiting()).await.unwrap(), []);
    });
}
