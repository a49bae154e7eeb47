//! Proposed changes: what is refused before anybody signs, what an officer reads, and what a refusal of the store costs.

use mcpist_bundle::SigningKey;
use mcpist_core::api::{ApiError, Approve, ChangeOutcome, Proposed};
use mcpist_core::change::{Approval, Change, Officer, Officers, Signature, approval_message};
use mcpist_core::error::ErrorCode;
use mcpist_core::floor;

use super::site::{Site, UID, run};
use crate::keeper::today;

fn change(json: serde_json::Value) -> Change {
    serde_json::from_value(json).unwrap()
}

fn grant(access: &str) -> Change {
    change(serde_json::json!({ "grant-put": {
        "name": "ops", "subject": { "group": "ops" }, "module": "all", "tools": "all", "access": access } }))
}

async fn code(site: &Site, change: Change) -> ErrorCode {
    site.propose(UID, change).await.unwrap_err().code
}

async fn approve(
    site: &Site,
    proposed: &Proposed,
    key: &SigningKey,
) -> Result<ChangeOutcome, ApiError> {
    approve_as(site, UID, proposed, key).await
}

async fn approve_as(
    site: &Site,
    uid: u32,
    proposed: &Proposed,
    key: &SigningKey,
) -> Result<ChangeOutcome, ApiError> {
    let (change, state) = (proposed.review.change, proposed.review.state);
    let signature = key.sign(&approval_message(&change, &state)).unwrap();
    let approval = Approve::Approval(Approval {
        officer: key.id(),
        change,
        state,
        signature: Signature::from_bytes(signature),
    });
    let act = move |k: &mut crate::keeper::Keeper| k.approve(uid, &change, approval);
    site.keeper.ask(act).await
}

/// The officers of this store from now on, as outside a development store.
async fn two_officers(site: &Site) -> [SigningKey; 2] {
    let keys = [(); 2].map(|()| SigningKey::generate().unwrap());
    let officers = keys.each_ref().map(|key| Officer {
        name: key.id().short(),
        public: key.public().0,
    });
    site.inside(move |k| k.open().unwrap().officers = Officers::new(officers, false))
        .await;
    keys
}

#[test]
fn who_approves_what_another_proposed_for_him_is_one_of_two() {
    run(async {
        let site = Site::open().await;
        let ada = serde_json::json!({ "name": "ada", "rules": [{ "uid": 1 }], "groups": ["ops"] });
        let ada = change(serde_json::json!({ "principal-put": ada }));
        site.change(ada).await.unwrap();
        let keys = two_officers(&site).await;
        let proposed = site.propose(2, grant("read")).await.unwrap();
        assert_eq!(proposed.review.needs, 1);
        let own = approve_as(&site, 1, &proposed, &keys[0]).await.unwrap();
        assert!(matches!(own, ChangeOutcome::Pending { needs: 2, .. }));
        // Whoever looks at it now is told so, and proposing it again changes nothing.
        let digest = proposed.review.change;
        let shown = site.keeper.ask(move |k| k.proposed(&digest)).await.unwrap();
        assert_eq!(shown.review.needs, 2);
        let again = site.propose(2, grant("read")).await.unwrap();
        assert_eq!(again.review.needs, 2);
        let second = approve_as(&site, 2, &proposed, &keys[1]).await.unwrap();
        assert!(matches!(second, ChangeOutcome::Stored { .. }));
        // It takes one where none who asks for it gains.
        let proposed = site.propose(2, grant("write")).await.unwrap();
        let other = approve_as(&site, 2, &proposed, &keys[1]).await.unwrap();
        assert!(matches!(other, ChangeOutcome::Stored { .. }));
    });
}

#[test]
fn a_store_that_is_busy_costs_no_approval() {
    run(async {
        let site = Site::open().await;
        let keys = two_officers(&site).await;
        // The first time floor takes two.
        let proposed = site.propose(UID, Change::TimeFloor(today())).await.unwrap();
        let first = approve(&site, &proposed, &keys[0]).await.unwrap();
        assert!(matches!(first, ChangeOutcome::Pending { needs: 2, .. }));
        site.inside(|k| k.open().unwrap().stale = true).await;
        let busy = approve(&site, &proposed, &keys[1]).await.unwrap_err();
        assert_eq!(busy.code, ErrorCode::Busy);
        let waiting = site.keeper.ask(|k| k.waiting()).await.unwrap();
        assert_eq!(waiting[0].approved, [keys[0].id()]);
        site.inside(|k| k.open().unwrap().stale = false).await;
        let stored = approve(&site, &proposed, &keys[1]).await.unwrap();
        assert!(matches!(stored, ChangeOutcome::Stored { .. }));
        assert_eq!(site.keeper.ask(|k| k.waiting()).await.unwrap(), []);
    });
}

#[test]
fn what_would_not_be_stored_is_not_proposed() {
    run(async {
        let site = Site::open().await;
        for floor in [0, today() * 1000, today() + floor::MAX_STEP + 600] {
            let refused = code(&site, Change::TimeFloor(floor)).await;
            assert_eq!(refused, ErrorCode::RequestInvalid, "{floor}");
        }
        let id = site.import(&site.bundle(1, "")).await.unwrap().registry.id;
        let other = site.import(&site.bundle(2, "")).await.unwrap().registry.id;
        site.change(Change::RegistryActivate(id)).await.unwrap();
        let refused = code(&site, Change::RegistryActivate(other)).await;
        assert_eq!(refused, ErrorCode::Conflict);
        site.change(Change::RegistryRetire(id)).await.unwrap();
        site.change(Change::RegistryActivate(other)).await.unwrap();
        site.inside(|k| k.open().unwrap().policy.time_floor = 4_000_000_001)
            .await;
        let late = site.propose(UID, Change::RegistryActivate(id)).await;
        let late = late.unwrap_err();
        assert_eq!(late.reason.as_deref(), Some("expired"));
        assert!(late.message.contains("acme/tests 1"), "{late}");
        assert_eq!(site.keeper.ask(|k| k.waiting()).await.unwrap(), []);
    });
}

#[test]
fn an_officer_reads_what_stands_and_what_comes() {
    run(async {
        let site = Site::open().await;
        let first = site.propose(UID, grant("read")).await.unwrap();
        assert_eq!((first.replaces, first.registry), (None, None));
        site.change(grant("read")).await.unwrap();
        let next = site.propose(UID, grant("write")).await.unwrap();
        assert_eq!(next.replaces, Some(grant("read")));
        let gone = change(serde_json::json!({ "grant-delete": "ops" }));
        let gone = site.propose(UID, gone).await.unwrap();
        assert_eq!(gone.replaces, Some(grant("read")));
        // For who approves it: the same, from the store as it is by then.
        let digest = next.review.change;
        let read = || site.keeper.ask(move |k| k.proposed(&digest));
        assert_eq!(read().await.unwrap(), next);
        site.approve(digest).await.unwrap();
        assert_eq!(read().await.unwrap_err().code, ErrorCode::NotFound);

        let id = site.import(&site.bundle(7, "what is new")).await;
        let id = id.unwrap().registry.id;
        let activate = site.propose(UID, Change::RegistryActivate(id)).await;
        let named = activate.unwrap().registry.unwrap();
        assert_eq!((named.registry.id, named.registry.sequence), (id, 7));
        assert_eq!(named.registry.namespace.as_str(), "acme");
        assert_eq!(named.registry.modules[0].as_str(), "echo");
        assert_eq!(named.notes.as_deref(), Some("what is new"));
        assert_eq!(named.not_after, Some(4_000_000_000));

        // A join names its binding alone: where the credential goes is shown from the store.
        let binding = change(serde_json::json!({ "binding-put": {
            "name": "echo", "vault": "main", "credential": "token", "scheme": "http", "host": "127.0.0.1",
            "port": 9, "path_prefix": "/", "methods": ["GET"], "trust": "none", "inject": "bearer" } }));
        site.change(binding.clone()).await.unwrap();
        let join = change(serde_json::json!({ "join-put": {
            "registry": id, "module": "echo", "slot": "service", "binding": "echo" } }));
        let join = site.propose(UID, join).await.unwrap();
        assert_eq!(join.binding.map(Change::BindingPut), Some(binding));

        assert_eq!(site.keeper.view().time_floor, Some(0));
        let floor = today();
        site.change(Change::TimeFloor(floor)).await.unwrap();
        assert_eq!(site.keeper.view().time_floor, Some(floor));
        let next = site.propose(UID, Change::TimeFloor(floor + 1)).await;
        assert_eq!(next.unwrap().replaces, Some(Change::TimeFloor(floor)));
    });
}

#[test]
fn refused_approvals_and_bundles_cost_the_log_few_lines() {
    run(async {
        const TIMES: u64 = 80;
        const OTHER: u32 = UID + 1;
        let site = Site::open().await;
        let put = serde_json::json!({ "principal-put": { "name": "bob" } });
        let proposed = site.propose(UID, change(put)).await.unwrap();
        let foreign = SigningKey::generate().unwrap();
        for _ in 0..TIMES {
            let refused = approve_as(&site, OTHER, &proposed, &foreign).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::ApprovalInvalid);
            let refused = site.import(b"no bundle").await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::BundleRefused);
        }
        site.keeper.seal(None, "a test").await.unwrap();
        for (uid, event) in [(OTHER, "change_refused"), (UID, "bundle_refused")] {
            let uid = format!("\"uid\":{uid}");
            let lines = |event: &str| site.lines(&[&format!("\"event\":\"{event}\""), &uid]);
            let counted = lines("requests_refused");
            let counted = counted.iter().map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["requests"].as_u64().unwrap()
            });
            let counted: u64 = counted.sum();
            assert!(counted > 0, "{event}");
            assert_eq!(lines(event).len() as u64 + counted, TIMES, "{event}");
        }
    });
}
