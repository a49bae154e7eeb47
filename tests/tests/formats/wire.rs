//! The frames between mcpistd and a runner, seen from a socket.

use mcpist_core::binding::Binding;
use mcpist_core::ids::{CallId, ModuleName, ModuleRev, RegistryId, SlotName};
use mcpist_secret::redact::RedactKey;
use mcpist_wire::{
    Answer, Bind, CloseCode, DaemonLink, Dropped, Greeting, Load, Request, Requests, Role, runner,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{bytes, key, shows};

const PID: u32 = 4242;

/// Both ends of a link by hand: `near` is the test's, the other was given to the crate.
async fn daemon_side() -> (UnixStream, DaemonLink) {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&bytes("wire-hello")).await.unwrap();
    let greeting = Greeting::accept(far).await.unwrap();
    assert_eq!(
        (
            greeting.hello().role,
            greeting.hello().pid,
            greeting.version()
        ),
        (Role::Run, PID, 1)
    );
    let link = greeting
        .welcome(&RedactKey::new(key(0x0c)).unwrap())
        .unwrap();
    comes(&mut near, "wire-welcome").await;
    (near, link)
}

async fn runner_side() -> (UnixStream, Requests) {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&bytes("wire-welcome")).await.unwrap();
    let (welcome, requests) = runner::connect(far, Role::Run, PID).await.unwrap();
    assert!(welcome.version == 1 && welcome.key.expose() == &[0x0c; 32]);
    comes(&mut near, "wire-hello").await;
    (near, requests)
}

/// The next bytes from the crate's end are the example.
async fn comes(near: &mut UnixStream, name: &str) {
    let mut got = vec![0; 16];
    near.read_exact(&mut got).await.unwrap();
    let length = u32::from_be_bytes(*got.first_chunk().unwrap());
    got.resize(16 + length as usize, 0);
    near.read_exact(&mut got[16..]).await.unwrap();
    shows(name, got);
}

fn rev() -> ModuleRev {
    ModuleRev {
        registry: RegistryId::of_manifest(b"{}"),
        module: ModuleName::parse("gitlab").unwrap(),
    }
}

fn binding() -> Binding {
    serde_json::from_value(serde_json::json!({
        "name": "gitlab-ro", "vault": "ops", "credential": "gitlab", "scheme": "http", "host": "gitlab.example",
        "port": 80, "path_prefix": "/api", "methods": ["GET"], "trust": "none", "inject": "bearer",
        "allow_local": false,
    }))
    .unwrap()
}

#[tokio::test]
async fn what_the_daemon_tells_a_runner() {
    let (mut near, link) = daemon_side().await;
    link.load(&Load {
        registry: rev().registry,
        manifest: b"{}".to_vec().into(),
    })
    .unwrap();
    comes(&mut near, "wire-load").await;
    link.bind(&Bind {
        version: 3,
        binding: binding(),
    })
    .unwrap();
    comes(&mut near, "wire-bind").await;
    link.redact(
        1,
        &RedactKey::new(key(0x0c))
            .unwrap()
            .fingerprint(b"s3cr3t-token")
            .unwrap(),
    )
    .unwrap();
    comes(&mut near, "wire-redact").await;
    link.drop(&Dropped::Fingerprint(1)).unwrap();
    comes(&mut near, "wire-drop").await;
    link.close(CloseCode::Stopping);
    comes(&mut near, "wire-close").await;
}

#[tokio::test]
async fn a_call_with_its_lease_and_its_answer() {
    let (mut near, mut requests) = runner_side().await;
    near.write_all(&bytes("wire-lease")).await.unwrap();
    near.write_all(&bytes("wire-call")).await.unwrap();
    let Request::Call(call, responder) = requests.next().await.unwrap() else {
        panic!("a call was sent")
    };
    assert_eq!(
        (call.call(), call.rev(), call.tool().as_str()),
        (CallId(7), &rev(), "get_issue")
    );
    assert_eq!(
        (call.deadline().as_millis(), call.client_bytes()),
        (10_000, 65_536)
    );
    assert_eq!(&call.arguments()[..], br#"{"id":12}"#);
    let lease = call.lease(&SlotName::parse("api").unwrap()).unwrap();
    assert_eq!(
        (
            lease.binding().as_str(),
            lease.version(),
            lease.secret().expose()
        ),
        ("gitlab-ro", 3, &b"s3cr3t-token"[..])
    );
    responder
        .answer(Answer {
            content: b"[]".to_vec(),
            structured: Some(b"{}".to_vec()),
            hits: 1,
            ..Answer::default()
        })
        .await;
    comes(&mut near, "wire-answer").await;
    near.write_all(&bytes("wire-ping")).await.unwrap();
    let mut pong = bytes("wire-ping");
    pong[4] += 1;
    let reading = async {
        let mut got = vec![0; 16];
        near.read_exact(&mut got).await.unwrap();
        got
    };
    tokio::select! {
        got = reading => assert_eq!(got, pong),
        ended = requests.next() => panic!("nothing was asked: {:?}", ended.err()),
    }
}
