//! Ceremonies of an open store, without sockets.

use mcpist_core::api::{
    ApiError, CeremonyPhase, CeremonyRequest, NewHolder, OpenCeremony, ShareOutcome,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use mcpist_quorum::{CeremonyRecord, Identity, Receipt, open_share_file};
use mcpist_secret::Secret;

use super::site::{Site, UID};
use crate::audit::tests::{accept, refuse_with_room};
use crate::keeper::sharings::Sharings;

async fn begin(site: &Site, request: CeremonyRequest) -> Result<OpenCeremony, ApiError> {
    site.keeper
        .ask(move |k| k.begin_ceremony(UID, request))
        .await
}

async fn give(site: &Site, plan: Digest, share: Secret) -> Result<ShareOutcome, ApiError> {
    site.keeper
        .ask(move |k| k.submit_share(UID, &plan, &share))
        .await
}

fn rekey(identity: &Identity) -> CeremonyRequest {
    CeremonyRequest::Rekey {
        threshold: 1,
        holders: vec![NewHolder {
            label: "eve".into(),
            recipient: identity.recipient(),
        }],
        rotate_root: true,
    }
}

#[tokio::test]
async fn a_seal_config_from_before_a_rekey_opens_nothing_more() {
    let site = Site::open().await;
    // As control.db says it once the config and root wrap of generation 1 were put back beside a later one.
    let later = Sharings {
        tried: 2,
        current: 2,
    };
    let committed = site.inside(move |k| {
        let system = k.open().unwrap().system();
        system.commit(vec![later.op().unwrap()]).map(drop)
    });
    committed.await.unwrap();
    site.keeper.seal(Some(UID), "a test").await.unwrap();
    let refused = site.give_share().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::VaultQuarantined, "{refused}");
    assert!(refused.message.contains("put back"), "{refused}");
    let view = site.keeper.view();
    assert!(view.vaults().is_none(), "it was sealed again");
}

#[tokio::test]
async fn a_generation_that_was_tried_is_not_made_again() {
    let site = Site::open().await;
    let identity = Identity::generate();
    for expected in [2, 3] {
        let open = begin(&site, rekey(&identity)).await.unwrap();
        assert_eq!(open.phase, CeremonyPhase::Consent);
        let share = Secret::copy_of(site.share().to_text().unwrap().expose()).unwrap();
        let outcome = give(&site, open.digest, share).await.unwrap();
        let ShareOutcome::Delivered { shares, .. } = outcome else {
            panic!("{outcome:?}")
        };
        let new = open_share_file(&identity, shares[0].age.as_bytes()).unwrap();
        assert_eq!(new.generation().get(), expected);
        site.keeper.ask(|k| k.cancel_ceremony(UID)).await.unwrap();
        let gone = give(&site, open.digest, new.to_text().unwrap()).await;
        assert_eq!(gone.unwrap_err().code, ErrorCode::AlreadyUnsealed);
    }
}

#[tokio::test]
async fn new_shares_are_handed_out_in_their_phase_alone() {
    let site = Site::open().await;
    let none = site.keeper.ask(|k| k.new_shares()).await.unwrap_err();
    assert_eq!(none.code, ErrorCode::NotFound);
    let identity = Identity::generate();
    let open = begin(&site, rekey(&identity)).await.unwrap();
    let early = site.keeper.ask(|k| k.new_shares()).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::NotFound);
    assert!(early.message.contains("consent first"), "{early}");
    let share = site.share().to_text().unwrap();
    give(&site, open.digest, share).await.unwrap();
    let shares = site.keeper.ask(|k| k.new_shares()).await.unwrap().shares;
    let new = open_share_file(&identity, shares[0].age.as_bytes()).unwrap();
    let done = give(&site, open.digest, new.to_text().unwrap()).await;
    assert!(matches!(done.unwrap(), ShareOutcome::Completed(done) if done.generation == 2));
    let view = site.keeper.view();
    assert!(view.ceremony.is_none());
    let due = view.alarms.iter().any(|a| a.code == ErrorCode::BackupDue);
    assert!(due, "a backup from before opens with the old shares");
}

#[tokio::test]
async fn what_keeps_a_new_root_key_from_being_made_costs_no_share() {
    let site = Site::open().await;
    site.put_credential().await;
    // Its keys are wrapped under the root key of now, and nobody can wrap them anew.
    let rotation = || {
        site.inside(|k| {
            let mut rotation = k.open().unwrap().vaults().rotate("main").unwrap();
            rotation.copy(|_| ()).unwrap();
            rotation
        })
    };
    let identity = Identity::generate();
    let under_way = rotation().await;
    for request in [CeremonyRequest::RotateRoot, rekey(&identity)] {
        let refused = begin(&site, request).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        assert!(site.keeper.view().ceremony.is_none());
    }
    drop(under_way);
    let open = begin(&site, CeremonyRequest::RotateRoot).await.unwrap();
    let under_way = rotation().await;
    let refused = give(&site, open.digest, site.share().to_text().unwrap()).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Busy);
    drop(under_way);
    // The same ceremony goes on.
    let done = give(&site, open.digest, site.share().to_text().unwrap()).await;
    assert!(matches!(done.unwrap(), ShareOutcome::Completed(_)));
}

#[tokio::test]
async fn a_rekey_whose_end_the_log_does_not_take_gives_record_and_receipt_and_says_so() {
    let site = Site::open().await;
    let identity = Identity::generate();
    let open = begin(&site, rekey(&identity)).await.unwrap();
    let share = site.share().to_text().unwrap();
    give(&site, open.digest, share).await.unwrap();
    let shares = site.keeper.ask(|k| k.new_shares()).await.unwrap().shares;
    let new = open_share_file(&identity, shares[0].age.as_bytes()).unwrap();

    let audit = &site.keeper.house.audit;
    let file = refuse_with_room(audit);
    let outcome = give(&site, open.digest, new.to_text().unwrap()).await;
    let ShareOutcome::Completed(done) = outcome.unwrap() else {
        panic!("it is done")
    };
    assert!(done.audit_lost.is_some());
    let record = CeremonyRecord::from_bytes(&done.record.unwrap().0).unwrap();
    assert_eq!(record.generation().get(), 2);
    let receipt = Receipt::parse(&done.receipt.unwrap()).unwrap();
    assert_eq!(receipt.store(), record.store());

    // The line waits in the store, and follows once the log takes lines.
    let line = ["\"rekey\"", "\"completed\""];
    assert!(site.lines(&line).is_empty());
    accept(audit, file);
    site.keeper.ask(|k| k.drain_system()).await.unwrap();
    assert_eq!(site.lines(&line).len(), 1);
}
