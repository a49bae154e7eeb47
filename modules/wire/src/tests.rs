//! Both ends over a real socket pair, and each end against a peer that writes raw frames.

use std::sync::Arc;
use std::time::Duration;

use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{BindingName, Digest, ModuleName, ModuleRev, RegistryId, SlotName};
use mcpist_core::result::ToolError;
use mcpist_secret::redact::{RedactKey, Redactor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::codec::{put_name, put_u32, put_u64};
use crate::daemon::{AcceptError, TellError};
use crate::frame::{HEADER, Header, Kind, MAX_PAYLOAD};
use crate::message::{AnswerHead, put_rev};
use crate::runner::{ConnectError, Welcome, connect};
use crate::*;

mod hostile;
mod link;
mod permit;

fn rev() -> ModuleRev {
    ModuleRev {
        registry: RegistryId::new(Digest::of(b"manifest")),
        module: ModuleName::parse("inventory").unwrap(),
    }
}

/// A call as the wire's decoder makes it, with one lease for each of `secrets` in slots s0, s1, …
fn module_call(id: u64, arguments: &[u8], secrets: &[&[u8]], limit: u32) -> ModuleCall {
    let leases = secrets.iter().enumerate().map(|(number, secret)| {
        Lease::decode(id, &lease_payload(&format!("s{number}"), secret)).unwrap()
    });
    let leases: Vec<Lease> = leases.collect();
    let payload = limited_payload(leases.len(), arguments, limit);
    ModuleCall::decode(id, &payload, leases).unwrap()
}

fn lease_payload(slot: &str, secret: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    put_name(&mut payload, slot);
    put_name(&mut payload, "inventory-api");
    put_u64(&mut payload, 3);
    payload.extend_from_slice(secret);
    payload
}

fn call_payload(leases: usize, arguments: &[u8]) -> Vec<u8> {
    limited_payload(leases, arguments, 1_000)
}

fn limited_payload(leases: usize, arguments: &[u8], limit: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    put_u32(&mut payload, 10_000);
    put_u32(&mut payload, limit);
    payload.push(leases as u8);
    put_rev(&mut payload, &rev());
    put_name(&mut payload, "list_hosts");
    payload.extend_from_slice(arguments);
    payload
}

async fn pair() -> (DaemonLink, Welcome, Requests) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let key = RedactKey::random().unwrap();
    let daemon = async { Greeting::accept(ours).await.unwrap().welcome(&key).unwrap() };
    let (link, runner) = tokio::join!(daemon, connect(theirs, Role::Run, 7));
    let (welcome, requests) = runner.unwrap();
    (link, welcome, requests)
}

fn answer(content: impl Into<Vec<u8>>) -> Answer {
    Answer {
        content: content.into(),
        ..Answer::default()
    }
}

/// A peer that writes and reads frames by hand.
struct Raw(UnixStream);

impl Raw {
    async fn send(&mut self, kind: Kind, more: bool, call: u64, payload: &[u8]) {
        let header = Header::new(kind, more, payload.len(), call).unwrap();
        self.bytes(&[&header.encode(), payload].concat()).await;
    }

    /// Writes what the other end still takes.
    async fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<(Kind, bool, u64, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).await.ok()?;
        let header = Header::decode(&header).unwrap();
        let mut payload = vec![0; header.length()];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((header.kind(), header.more(), header.call(), payload))
    }

    /// Reads until the other end closes, and gives its reason.
    async fn closed(&mut self) -> Close {
        while let Some((kind, _, _, payload)) = self.next().await {
            if kind == Kind::Close {
                let close = Close::decode(&payload).unwrap();
                assert!(self.next().await.is_none(), "nothing follows a close");
                return close;
            }
        }
        panic!("closed without a word");
    }

    async fn send_answer(&mut self, call: u64, more: bool, announced: u32, content: &[u8]) {
        let mut payload = Vec::new();
        let head = AnswerHead {
            is_error: false,
            truncated: false,
            hits: 0,
            content: announced,
            structured: None,
        };
        head.encode(&mut payload);
        payload.extend_from_slice(content);
        self.send(Kind::Answer, more, call, &payload).await;
    }
}

/// A real daemon's end and a runner made by hand.
async fn raw_runner() -> (DaemonLink, Raw) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut raw = Raw(theirs);
    let mut hello = Vec::new();
    Hello {
        versions: message::VERSIONS,
        role: Role::Run,
        pid: 1,
    }
    .encode(&mut hello);
    raw.send(Kind::Hello, false, 0, &hello).await;
    let greeting = Greeting::accept(ours).await.unwrap();
    let link = greeting.welcome(&RedactKey::random().unwrap()).unwrap();
    assert_eq!(raw.next().await.unwrap().0, Kind::Welcome);
    (link, raw)
}

/// A real runner's end and a daemon made by hand.
async fn raw_daemon() -> (Raw, Requests) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut raw = Raw(ours);
    let greet = async {
        assert_eq!(raw.next().await.unwrap().0, Kind::Hello);
        let payload = [&[0, 1][..], &[7; 32]].concat();
        raw.send(Kind::Welcome, false, 0, &payload).await;
    };
    let ((), runner) = tokio::join!(greet, connect(theirs, Role::Vault, 7));
    (raw, runner.unwrap().1)
}

fn spawn_call(link: &DaemonLink, id: u64, limit: u32) -> JoinHandle<Result<Answer, CallError>> {
    let link = link.clone();
    tokio::spawn(async move { link.call(module_call(id, b"{}", &[], limit)).await })
}
