//! The loop behind a real link: permits from core's own stages, a service on loopback.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcpist_core::access::Access;
use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::catalogue::{ActiveModule, Catalogue};
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::{CallId, Digest, GrantName, PrincipalName, RegistryId, SlotName};
use mcpist_core::manifest::{BlobPath, Manifest};
use mcpist_core::mask::Mask;
use mcpist_core::permit::{Intent, IntentError, IntentSink, Permit};
use mcpist_core::principal::{Identities, IdentityRule, PeerEvidence, Principal, PrincipalRecord};
use mcpist_core::route::Route;
use mcpist_wire::{CallError, DaemonLink, Greeting, Lease, runner};
use tokio::net::UnixStream;

use super::*;
use crate::testing::{self, Reply, Seen, TOKEN, binding, ok, secret};

struct Sink;

impl IntentSink for Sink {
    async fn intent(&self, _: &Intent<'_>) -> Result<Seq, IntentError> {
        Ok(Seq(1))
    }
}

const SCHEMA: &[u8] =
    br#"{"type":"object","required":["id"],"properties":{"id":{"type":"string"}}}"#;

fn manifest() -> Vec<u8> {
    serde_json::json!({
        "format": 1, "namespace": "acme", "name": "notes", "sequence": 1, "audience": ["site"],
        "created": 1, "not_after": 2,
        "modules": [{
            "name": "notes", "title": "Notes", "description": "Notes", "version": "1",
            "kind": "http", "limits": {"deadline_ms": 300_000}, "slots": [{"name": "api", "auth": ["bearer"]}],
            "tools": [{
                "name": "read", "title": "Read", "description": "Reads", "access": "read",
                "input_schema": "read.json",
                "http": {"slot": "api", "method": "GET", "path": "/notes/{id}"}
            }]
        }],
        "blobs": [{"path": "read.json", "digest": Digest::of(SCHEMA), "length": SCHEMA.len()}]
    })
    .to_string()
    .into_bytes()
}

/// mcpistd's side: a link, a policy and the module `notes` with its one tool.
struct Desk {
    link: DaemonLink,
    key: RedactKey,
    rev: ModuleRev,
    ada: Principal,
    mask: Mask,
    upstream: testing::Service,
    next: AtomicU64,
}

impl Desk {
    async fn new(role: Role, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Desk {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let key = RedactKey::random().unwrap();
        let accept = async { Greeting::accept(ours).await.unwrap().welcome(&key).unwrap() };
        let (link, greeted) = tokio::join!(accept, runner::connect(theirs, role, 1));
        let (welcome, mut requests) = greeted.unwrap();
        tokio::spawn(async move { serve(role, welcome, &mut requests).await });

        let module = Manifest::parse(&manifest()).unwrap().modules[0].clone();
        let rev = ModuleRev {
            registry: RegistryId::of_manifest(&manifest()),
            module: module.name.clone(),
        };
        let schema = BlobPath::parse("read.json").unwrap();
        let active = ActiveModule {
            rev: rev.clone(),
            manifest: module,
            schemas: BTreeMap::from([(schema, SCHEMA.to_vec())]),
            joins: vec![(
                SlotName::parse("api").unwrap(),
                BindingName::parse("b").unwrap(),
            )],
        };
        let name = PrincipalName::parse("ada").unwrap();
        let grant = Grant {
            name: GrantName::parse("all").unwrap(),
            subject: Subject::Principal(name.clone()),
            module: ModuleSel::All,
            tools: ToolSel::All,
            access: Access::Read,
        };
        let rules = vec![IdentityRule::Uid(7)];
        let record = PrincipalRecord {
            name,
            groups: Vec::new(),
            rules,
        };
        let ada = Identities::new([record], false)
            .identify(PeerEvidence::unix(7, 7, 1))
            .unwrap();
        let mask = Mask::new(vec![grant], Arc::new(Catalogue::new(vec![active]).unwrap()));
        let upstream = testing::serve(None, reply).await;
        Desk {
            link,
            key,
            rev,
            ada,
            mask,
            upstream,
            next: AtomicU64::new(1),
        }
    }

    fn load(&self, manifest: Vec<u8>) {
        let load = Load {
            registry: self.rev.registry,
            manifest: manifest.into(),
        };
        self.link.load(&load).unwrap();
    }

    fn bind(&self, version: u64) {
        let binding = binding(self.upstream.port, "{}");
        self.link.bind(&Bind { version, binding }).unwrap();
    }

    async fn ready(role: Role, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Desk {
        let desk = Desk::new(role, reply).await;
        desk.load(manifest());
        desk.bind(1);
        desk
    }

    async fn call_as(&self, version: u64, id: &str) -> Result<Answer, CallError> {
        let visible = self.mask.visible(&self.ada, "notes", "read").unwrap();
        let route = Route::choose(visible, None, self.mask.catalogue()).unwrap();
        let raw = serde_json::json!({ "id": id }).to_string().into_bytes();
        let arguments = Arguments::parse(raw, &route).unwrap();
        let call = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let permit = Permit::issue(route, arguments, call, &Sink).await.unwrap();
        let slot = SlotName::parse("api").unwrap();
        let lease = Lease::grant(&permit, &slot, version, secret(TOKEN)).unwrap();
        let call = ModuleCall::new(permit, vec![lease], Duration::from_secs(300)).unwrap();
        self.link.call(call).await
    }

    async fn call(&self, id: &str) -> Result<Answer, CallError> {
        self.call_as(1, id).await
    }

    async fn code(&self, version: u64) -> ErrorCode {
        self.call_as(version, "x").await.unwrap_err().code()
    }

    fn rebuilt_redactor(&self, id: u64) {
        let fingerprint = self.key.fingerprint(TOKEN.as_bytes()).unwrap();
        self.link.redact(id, &fingerprint).unwrap();
    }
}

fn echo(seen: &Seen) -> Reply {
    ok(serde_json::json!({ "head": seen.head }).to_string())
}

#[tokio::test]
async fn what_is_unknown_is_not_loaded_and_what_is_dropped_is_unknown() {
    let desk = Desk::new(Role::Run, echo).await;
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
    desk.load(manifest());
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
    desk.bind(1);
    assert!(desk.call("a").await.is_ok());
    assert_eq!(desk.code(2).await, ErrorCode::NotLoaded);
    let name = BindingName::parse("b").unwrap();
    desk.link
        .drop(&Dropped::Binding { name, version: 1 })
        .unwrap();
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
    // The connection of the dropped binding was kept, and goes with it.
    desk.upstream.until_closed(1).await;
    desk.bind(1);
    assert!(desk.call("a").await.is_ok());
    desk.link
        .drop(&Dropped::Registry(desk.rev.registry))
        .unwrap();
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
    desk.upstream.until_closed(2).await;
}

#[tokio::test]
async fn a_manifest_of_another_registry_is_not_taken() {
    let desk = Desk::ready(Role::Run, echo).await;
    assert!(desk.call("a").await.is_ok());
    let mut other = manifest();
    other.push(b' ');
    desk.load(other);
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
}

#[tokio::test]
async fn a_runner_for_vaults_loads_no_module() {
    let desk = Desk::ready(Role::Vault, echo).await;
    assert_eq!(desk.code(1).await, ErrorCode::NotLoaded);
    assert_eq!(desk.upstream.connections(), 0);
}

#[tokio::test]
async fn connections_are_kept_per_binding_version() {
    let desk = Desk::ready(Role::Run, echo).await;
    for _ in 0..3 {
        desk.call("a").await.unwrap();
    }
    assert_eq!(desk.upstream.connections(), 1);
    desk.bind(2);
    for version in [2, 1, 2] {
        desk.call_as(version, "a").await.unwrap();
    }
    assert_eq!(desk.upstream.connections(), 2);
}

#[tokio::test]
async fn fingerprints_of_the_link_redact_from_the_next_call_on() {
    let desk = Desk::ready(Role::Run, echo).await;
    let shows = |answer: &Answer| String::from_utf8_lossy(&answer.content).contains(TOKEN);
    assert!(shows(&desk.call("a").await.unwrap()));
    desk.rebuilt_redactor(5);
    let answer = desk.call("a").await.unwrap();
    assert!(!shows(&answer) && answer.hits == 1);
    desk.link.drop(&Dropped::Fingerprint(5)).unwrap();
    assert!(shows(&desk.call("a").await.unwrap()));
}

#[tokio::test]
async fn a_cancelled_call_closes_its_connection() {
    let desk = Desk::ready(Role::Run, |_| Reply::Hang(Vec::new())).await;
    tokio::select! {
        _ = desk.call("a") => panic!("the service hangs"),
        () = desk.upstream.until_requests(1) => {}
    }
    desk.upstream.until_closed(1).await;
}

#[tokio::test]
async fn the_end_of_the_link_ends_its_calls() {
    let desk = Desk::ready(Role::Run, |_| Reply::Hang(Vec::new())).await;
    let closing = async {
        desk.upstream.until_requests(1).await;
        desk.link.close(mcpist_wire::CloseCode::Stopping);
    };
    let (outcome, ()) = tokio::join!(desk.call("a"), closing);
    assert!(outcome.is_err());
    desk.upstream.until_closed(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_get_their_own_answers() {
    let desk = Arc::new(Desk::ready(Role::Run, echo).await);
    let calls: Vec<_> = (0..64)
        .map(|number| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let answer = desk.call(&format!("n{number}")).await.unwrap();
                let text = String::from_utf8(answer.content).unwrap();
                assert!(
                    text.contains(&format!("GET /notes/n{number} HTTP")),
                    "{text}"
                );
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(desk.upstream.requests(), 64);
}
