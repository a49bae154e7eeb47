//! A vault with a quorum of its own, without sockets.

use mcpist_core::api::{
    ApiError, CeremonyAct, CeremonyPhase, CeremonyRequest, NewHolder, OpenCeremony, ShareOutcome,
    VaultHealth,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{Identity, Share, open_share_file};

use super::site::{Site, UID, run};
use crate::admin::shown;

fn main_vault() -> VaultName {
    VaultName::parse("main").unwrap()
}

pub(super) async fn begin(site: &Site, request: CeremonyRequest) -> Result<OpenCeremony, ApiError> {
    let begin = site.keeper.ask(move |k| k.begin_ceremony(UID, request));
    begin.await
}

async fn give(site: &Site, plan: Digest, share: &Share) -> Result<ShareOutcome, ApiError> {
    let share = share.to_text().unwrap();
    let give = site.keeper.ask(move |k| k.submit_share(UID, &plan, &share));
    give.await
}

fn eve(identity: &Identity) -> Vec<NewHolder> {
    vec![NewHolder {
        label: "eve".into(),
        recipient: identity.recipient(),
    }]
}

/// A new share of the open ceremony.
async fn new_share(site: &Site, identity: &Identity) -> Share {
    let shares = site.keeper.ask(|k| k.new_shares()).await.unwrap().shares;
    open_share_file(identity, shares[0].age.as_bytes()).unwrap()
}

/// A store whose vault `main` has one holder of its own, and a credential.
pub(super) async fn with_own() -> (Site, Share) {
    let site = Site::open().await;
    let identity = Identity::generate();
    let request = CeremonyRequest::NewVault {
        vault: main_vault(),
        threshold: 1,
        holders: eve(&identity),
    };
    let open = begin(&site, request).await.unwrap();
    assert_eq!(
        (open.act, open.phase, open.vault),
        (
            CeremonyAct::NewVault,
            CeremonyPhase::Proof,
            Some(main_vault())
        )
    );
    let early = site.put_token().await.unwrap_err();
    assert_eq!(early.code, ErrorCode::NotFound, "it is not made yet");
    let share = new_share(&site, &identity).await;
    let ShareOutcome::Completed(done) = give(&site, open.digest, &share).await.unwrap() else {
        panic!("one is enough")
    };
    assert!(done.record_text.unwrap().contains("rekey vault"));
    assert_eq!(done.vault, Some(main_vault()));
    site.put_version().await;
    (site, share)
}

async fn open_with(site: &Site, share: &Share) -> Result<ShareOutcome, ApiError> {
    let vault = main_vault();
    let open = begin(site, CeremonyRequest::UnsealVault { vault }).await?;
    give(site, open.digest, share).await
}

fn health(site: &Site) -> VaultHealth {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let main = status.vaults.into_iter().find(|v| v.name == main_vault());
    main.unwrap().health
}

fn backup_is_due(site: &Site) -> bool {
    let status = shown(&site.keeper.house, &site.keeper.view(), Ok(None));
    let mut alarms = status.alarms.iter();
    alarms.any(|alarm| alarm.code == ErrorCode::BackupDue)
}

#[test]
fn after_each_unseal_it_waits_for_its_own_quorum_and_the_rest_serves() {
    run(async {
        let (site, share) = with_own().await;
        site.keeper.seal(None, "a test").await.unwrap();
        let ShareOutcome::Opened(opened) = site.give_share().await.unwrap() else {
            panic!("one is enough")
        };
        assert_eq!(opened.sealed, [main_vault()]);
        assert!(opened.quarantined.is_empty());
        assert_eq!(health(&site), VaultHealth::Sealed);
        let refused = site.put_token().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::VaultSealed);
        assert!(refused.message.contains("\"main\""), "{refused}");
        let other = VaultName::parse("other").unwrap();
        site.keeper
            .ask(move |k| k.create_vault(UID, &other))
            .await
            .unwrap();

        // The store's own share has nothing to say, and costs nothing.
        let vault = main_vault();
        let open = begin(&site, CeremonyRequest::UnsealVault { vault });
        let open = open.await.unwrap();
        let outcome = give(&site, open.digest, &site.share()).await.unwrap();
        let ShareOutcome::Refused {
            reason, message, ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(reason, "other_set");
        assert!(message.contains("the shares of vault main to set"));
        let outcome = give(&site, open.digest, &share).await.unwrap();
        assert!(matches!(outcome, ShareOutcome::Completed(_)), "{outcome:?}");
        assert_eq!(health(&site), VaultHealth::Ok);
        site.put_version().await;
        let again = open_with(&site, &share).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::Conflict, "it is open");
        site.keeper.seal(None, "a test").await.unwrap();
        let lines = site.lines(&["\"unseal_vault\"", "\"main\""]);
        let steps = ["planned", "share_refused", "completed"];
        assert_eq!(lines.len(), steps.len(), "{lines:?}");
        for (line, step) in lines.iter().zip(steps) {
            assert!(line.contains(step), "{line}");
        }
    });
}

#[test]
fn it_is_sealed_alone_and_no_rekey_of_it_ends_unasked() {
    run(async {
        let (site, share) = with_own().await;
        let identity = Identity::generate();
        let request = CeremonyRequest::RekeyVault {
            vault: main_vault(),
            threshold: 1,
            holders: eve(&identity),
        };
        let open = begin(&site, request.clone()).await.unwrap();
        let outcome = give(&site, open.digest, &share).await.unwrap();
        assert!(matches!(outcome, ShareOutcome::Delivered { .. }));
        let seal = |k: &mut crate::keeper::Keeper| k.seal_vault(UID, &main_vault());
        let refused = site.keeper.ask(seal).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let next = refused.next.unwrap();
        assert!(next.contains("mcpist ceremony cancel"), "{next}");
        assert_eq!(health(&site), VaultHealth::Ok);
        let ended = site.keeper.ask(|k| k.cancel_ceremony(UID)).await.unwrap();
        assert_eq!(
            (ended.act, ended.phase, ended.vault),
            (
                CeremonyAct::RekeyVault,
                CeremonyPhase::Proof,
                Some(main_vault())
            )
        );
        let sealed = site.keeper.ask(seal).await.unwrap();
        assert_eq!(sealed.dropped, 0);
        assert_eq!(health(&site), VaultHealth::Sealed);
        let refused = site.put_token().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::VaultSealed);
        // Its keys are needed to give it to others.
        let refused = begin(&site, request).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::VaultSealed);
        open_with(&site, &share).await.unwrap();
        site.put_version().await;
        let none = |k: &mut crate::keeper::Keeper| {
            let vault = VaultName::parse("main").unwrap();
            k.create_vault(UID, &vault)
        };
        assert_eq!(
            site.keeper.ask(none).await.unwrap_err().code,
            ErrorCode::Conflict
        );
        site.keeper.seal(None, "a test").await.unwrap();
        assert_eq!(site.lines(&["vault_sealed", "main"]).len(), 1);
    });
}

#[test]
fn a_name_that_was_mistyped_names_no_ceremony_to_cancel() {
    run(async {
        let (site, _) = with_own().await;
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        let vault = main_vault();
        let open = begin(&site, CeremonyRequest::UnsealVault { vault });
        open.await.unwrap();
        for request in [
            CeremonyRequest::UnsealVault {
                vault: VaultName::parse("mian").unwrap(),
            },
            CeremonyRequest::RekeyVault {
                vault: VaultName::parse("mian").unwrap(),
                threshold: 1,
                holders: eve(&Identity::generate()),
            },
        ] {
            let refused = begin(&site, request).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::NotFound, "{refused}");
        }
        let refused = begin(&site, CeremonyRequest::RotateRoot).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let text = "about vault main is open already, with 0 of 1 shares given";
        assert!(refused.message.contains(text), "{refused}");
    });
}

#[test]
fn its_quorum_gives_it_to_another_one_that_proves_its_shares() {
    run(async {
        let (site, share) = with_own().await;
        let identity = Identity::generate();
        for generation in [2, 3] {
            let request = CeremonyRequest::RekeyVault {
                vault: main_vault(),
                threshold: 1,
                holders: eve(&identity),
            };
            let open = begin(&site, request).await.unwrap();
            let outcome = give(&site, open.digest, &share).await.unwrap();
            assert!(matches!(outcome, ShareOutcome::Delivered { .. }));
            assert!(!backup_is_due(&site), "its shares are the same still");
            let new = new_share(&site, &identity).await;
            assert_eq!(new.generation().get(), generation, "none is made twice");
            if generation == 2 {
                // Abandoned: the shares before go on opening it.
                site.keeper.ask(|k| k.cancel_ceremony(UID)).await.unwrap();
                continue;
            }
            let outcome = give(&site, open.digest, &share).await.unwrap();
            assert!(
                matches!(outcome, ShareOutcome::Refused { reason, .. } if reason == "consent_given")
            );
            let outcome = give(&site, open.digest, &new).await.unwrap();
            let ShareOutcome::Completed(done) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!((done.act, done.generation), (CeremonyAct::RekeyVault, 3));
            assert!(backup_is_due(&site));
            site.put_version().await;
            site.keeper.seal(None, "a test").await.unwrap();
            site.unseal().await;
            assert!(backup_is_due(&site), "the commit says so");
            let outcome = open_with(&site, &share).await.unwrap();
            assert!(
                matches!(outcome, ShareOutcome::Refused { reason, .. } if reason == "superseded")
            );
            site.keeper.ask(|k| k.cancel_ceremony(UID)).await.unwrap();
            let outcome = open_with(&site, &new).await.unwrap();
            assert!(matches!(outcome, ShareOutcome::Completed(_)));
            site.put_version().await;
        }
    });
}
