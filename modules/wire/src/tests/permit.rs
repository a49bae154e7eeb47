//! What is made of a permit: leases and calls.

use std::collections::BTreeMap;

use mcpist_core::access::Access;
use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::catalogue::{ActiveModule, Catalogue};
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::{CallId, GrantName, PrincipalName};
use mcpist_core::manifest::{BlobPath, ModuleManifest};
use mcpist_core::mask::Mask;
use mcpist_core::permit::{Intent, IntentError, IntentSink, Permit};
use mcpist_core::principal::{Identities, IdentityRule, PeerEvidence, PrincipalRecord};
use mcpist_core::route::Route;
use mcpist_secret::Secret;

use super::*;
use crate::call::CallRefused;
use crate::lease::{GrantError, MAX_LEASE_SECRET};

struct Nowhere;

impl IntentSink for Nowhere {
    async fn intent(&self, _: &Intent<'_>) -> Result<Seq, IntentError> {
        Ok(Seq(1))
    }
}

/// A permit of call `id` for a tool whose slot `s0` is joined to the binding `inventory-api`.
async fn permit(id: u64) -> Permit {
    let manifest = serde_json::json!({
        "name": "inventory", "title": "Inventory", "description": "d", "version": "1",
        "kind": "http", "limits": {"client_bytes": 2048},
        "slots": [{"name": "s0", "auth": ["bearer"], "hosts": ["inventory.lan"], "description": ""}],
        "tools": [{
            "name": "list_hosts", "title": "List", "description": "d", "access": "read",
            "input_schema": "in.json",
            "http": {"slot": "s0", "method": "GET", "path": "/hosts"}
        }]
    });
    let source = ActiveModule {
        rev: rev(),
        manifest: ModuleManifest::parse(manifest.to_string().as_bytes()).unwrap(),
        schemas: BTreeMap::from([(
            BlobPath::parse("in.json").unwrap(),
            br#"{"type":"object"}"#.to_vec(),
        )]),
        joins: vec![(slot("s0"), BindingName::parse("inventory-api").unwrap())],
    };
    let catalogue = Arc::new(Catalogue::new(vec![source]).unwrap());
    let ada = PrincipalName::parse("ada").unwrap();
    let record = PrincipalRecord {
        name: ada.clone(),
        groups: Vec::new(),
        rules: vec![IdentityRule::Uid(1000)],
    };
    let identities = Identities::new([record], false);
    let principal = identities
        .identify(PeerEvidence::unix(1000, 1000, 1))
        .unwrap();
    let grant = Grant {
        name: GrantName::parse("all").unwrap(),
        subject: Subject::Principal(ada),
        module: ModuleSel::All,
        tools: ToolSel::All,
        access: Access::Read,
    };
    let mask = Mask::new(vec![grant], Arc::clone(&catalogue));
    let visible = mask.visible(&principal, "inventory", "list_hosts").unwrap();
    let route = Route::choose(visible, None, &catalogue).unwrap();
    let arguments = Arguments::parse(br#"{"b":1.0,"a":2}"#.to_vec(), &route).unwrap();
    Permit::issue(route, arguments, CallId(id), &Nowhere)
        .await
        .unwrap()
}

fn slot(name: &str) -> SlotName {
    SlotName::parse(name).unwrap()
}

fn secret(length: usize) -> Secret {
    Secret::copy_of(&vec![b'k'; length]).unwrap()
}

#[tokio::test]
async fn a_call_carries_what_the_permit_says() {
    let permit = permit(5).await;
    let lease = Lease::grant(&permit, &slot("s0"), 8, secret(40)).unwrap();
    assert_eq!((lease.call(), lease.version()), (CallId(5), 8));
    assert_eq!(lease.binding().as_str(), "inventory-api");
    let call = ModuleCall::new(permit, vec![lease], Duration::from_millis(1500)).unwrap();
    let (link, _, mut requests) = pair().await;
    let calling = tokio::spawn(async move { link.call(call).await });
    let Request::Call(got, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(
        (got.call(), got.rev(), got.tool().as_str()),
        (CallId(5), &rev(), "list_hosts")
    );
    assert_eq!(&got.arguments()[..], br#"{"b":1.0,"a":2}"#, "as they came");
    assert_eq!(got.deadline(), Duration::from_millis(1500));
    assert_eq!(
        (got.client_bytes(), got.answer_limit()),
        (2048, 4 * 2048 + 4096)
    );
    assert_eq!(
        got.lease(&slot("s0")).unwrap().secret().expose(),
        vec![b'k'; 40]
    );
    responder.answer(answer("[]")).await;
    calling.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_lease_for_a_slot_that_the_tool_does_not_use() {
    let refused = Lease::grant(&permit(1).await, &slot("s1"), 1, secret(40)).unwrap_err();
    assert_eq!(refused, GrantError::NoSuchSlot(slot("s1")));
}

#[tokio::test]
async fn the_longest_secret_travels_and_a_longer_one_is_refused() {
    let permit = permit(1).await;
    let long = Lease::grant(&permit, &slot("s0"), 1, secret(MAX_LEASE_SECRET + 1)).unwrap_err();
    assert_eq!(long, GrantError::TooLong(slot("s0")));
    let lease = Lease::grant(&permit, &slot("s0"), 1, secret(MAX_LEASE_SECRET)).unwrap();
    let call = ModuleCall::new(permit, vec![lease], Duration::from_secs(1)).unwrap();
    let (link, _, mut requests) = pair().await;
    let calling = tokio::spawn(async move { link.call(call).await });
    let Request::Call(got, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(got.leases()[0].secret().len(), MAX_LEASE_SECRET);
    drop(responder);
    assert!(calling.await.unwrap().is_err());
}

#[tokio::test]
async fn a_call_needs_a_lease_for_each_slot_and_only_its_own() {
    let none = ModuleCall::new(permit(1).await, Vec::new(), Duration::ZERO).unwrap_err();
    assert_eq!(none, CallRefused::SlotWithoutLease(slot("s0")));

    let other = Lease::grant(&permit(2).await, &slot("s0"), 1, secret(9)).unwrap();
    let foreign = ModuleCall::new(permit(1).await, vec![other], Duration::ZERO).unwrap_err();
    assert_eq!(foreign, CallRefused::ForeignLease(slot("s0")));

    let permit = permit(1).await;
    let lease = || Lease::grant(&permit, &slot("s0"), 1, secret(9)).unwrap();
    let twice = vec![lease(), lease()];
    let twice = ModuleCall::new(permit, twice, Duration::ZERO).unwrap_err();
    assert_eq!(twice, CallRefused::ForeignLease(slot("s0")));
}

#[tokio::test]
async fn a_lease_shows_no_secret() {
    let lease = Lease::grant(&permit(1).await, &slot("s0"), 1, secret(40)).unwrap();
    let shown = format!("{lease:?}");
    assert!(
        shown.contains("inventory-api") && !shown.contains("kk"),
        "{shown}"
    );
}
