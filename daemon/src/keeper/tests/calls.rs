//! What an officer takes away while a call waits for the disk under its intent.

use std::sync::Arc;
use std::time::Instant;

use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::CallId;
use mcpist_core::permit::{Intent, IntentError, IntentSink, Permit};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::site::{Site, UID, run};
use crate::call::{Named, choose, run as run_call};
use crate::listen::tests::unix;

fn change(value: Value) -> Change {
    serde_json::from_value(value).unwrap()
}

fn principal(name: &str, uid: u32) -> Change {
    change(json!({ "principal-put": { "name": name, "rules": [{ "uid": uid }] } }))
}

fn grant(name: &str, access: &str) -> Change {
    change(
        json!({ "grant-put": { "name": name, "subject": { "principal": "ada" },
        "module": { "named": "echo" }, "tools": "all", "access": access } }),
    )
}

fn binding(name: &str, host: &str) -> Change {
    change(
        json!({ "binding-put": { "name": name, "vault": "main", "credential": "token", "scheme": "http",
        "host": host, "port": 80, "path_prefix": "/", "methods": ["GET", "POST"], "trust": "none",
        "inject": "bearer", "allow_local": true } }),
    )
}

/// The disk under an intent that is slow enough for an officer.
struct Slow<'a>(&'a Site, Vec<Change>);

impl IntentSink for Slow<'_> {
    async fn intent(&self, _: &Intent<'_>) -> Result<Seq, IntentError> {
        for change in &self.1 {
            self.0.change(change.clone()).await.unwrap();
        }
        Ok(Seq(1))
    }
}

/// How a write of ada's ends where `changes` are made during the wait for its intent. No runner is connected: what gets
/// past its lease ends as `runner_lost`.
async fn ends(changes: impl FnOnce(Change, Change) -> Vec<Change>) -> ErrorCode {
    let site = Site::open().await;
    site.put_credential().await;
    let id = site.import(&site.bundle(1, "")).await.unwrap().registry.id;
    let join = |binding: &str| {
        change(
            json!({ "join-put": { "registry": id, "module": "echo", "slot": "service", "binding": binding } }),
        )
    };
    for change in [
        Change::RegistryActivate(id),
        principal("ada", UID),
        grant("echo", "write"),
        binding("service", "127.0.0.1"),
        binding("other", "127.0.0.1"),
        join("service"),
    ] {
        site.change(change).await.unwrap();
    }
    let house = Arc::clone(&site.keeper.house);
    let (mut live, peer) = (house.live().unwrap(), unix(UID));
    let named = Named {
        module: "echo",
        tool: "put",
        schema_ref: None,
    };
    let route = choose(&house, &live, &peer, named).unwrap();
    let arguments = Arguments::parse(br#"{"value":"x"}"#.to_vec(), &route).unwrap();
    let disk = Slow(&site, changes(Change::RegistryRetire(id), join("other")));
    let permit = Permit::issue(route, arguments, CallId(1), &disk)
        .await
        .unwrap();
    let never = CancellationToken::new();
    let ended = run_call(&house, &peer, &mut live, permit, Instant::now(), &never).await;
    ended.map(drop).unwrap_err().code()
}

#[test]
fn what_was_taken_away_while_an_intent_waited_gets_no_lease() {
    run(async {
        let grant_deleted = ends(|_, _| vec![change(json!({ "grant-delete": "echo" }))]).await;
        assert_eq!(grant_deleted, ErrorCode::UnknownTool);
        let narrowed = ends(|_, _| vec![grant("echo", "read")]).await;
        assert_eq!(narrowed, ErrorCode::UnknownTool);
        let unknown = ends(|_, _| vec![change(json!({ "principal-delete": "ada" }))]).await;
        assert_eq!(unknown, ErrorCode::Unidentified);
        let another = ends(|_, _| vec![principal("ada", UID + 1), principal("eve", UID)]).await;
        assert_eq!(another, ErrorCode::UnknownTool);
        let joined_anew = ends(|_, join| vec![join]).await;
        assert_eq!(joined_anew, ErrorCode::NotJoined);
        // Of another host, for which the credential is not.
        let bound_anew = ends(|_, _| vec![binding("service", "127.0.0.2")]).await;
        assert_eq!(bound_anew, ErrorCode::BindingRefused);
    });
}

#[test]
fn what_changed_elsewhere_while_an_intent_waited_ends_no_call() {
    run(async {
        let nothing = ends(|_, _| Vec::new()).await;
        assert_eq!(nothing, ErrorCode::RunnerLost);
        let elsewhere = ends(|_, _| vec![principal("eve", UID + 1), grant("more", "read")]).await;
        assert_eq!(elsewhere, ErrorCode::RunnerLost);
        let draining = ends(|retired, _| vec![retired]).await;
        assert_eq!(draining, ErrorCode::RunnerLost);
    });
}
