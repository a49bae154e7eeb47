//! A runner whose secret memory is full. A process of its own: the arena is one for all of it.
#![allow(clippy::unwrap_used)]

use mcpist_secret::Secret;
use mcpist_secret::memory::{Policy, init};
use mcpist_wire::frame::{HEADER, Header, Kind};
use mcpist_wire::{Request, Role, runner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn frame(kind: Kind, call: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(kind, false, payload.len(), call).unwrap();
    [&header.encode(), payload].concat()
}

/// Two leases and the call that they are for.
fn call(id: u64) -> Vec<u8> {
    let lease = |slot: &[u8; 2]| {
        let fields = [b"\x02", &slot[..], b"\x03api", &[0, 0, 0, 0, 0, 0, 0, 1]];
        frame(
            Kind::Lease,
            id,
            &[&fields.concat()[..], b"hunter2 hunter2"].concat(),
        )
    };
    let mut payload = [&[0, 0, 0x27, 0x10, 0, 0, 4, 0, 2][..], &[7; 32]].concat();
    payload.extend_from_slice(b"\x05notes\x04read{}");
    [lease(b"s0"), lease(b"s1"), frame(Kind::Call, id, &payload)].concat()
}

#[tokio::test]
async fn a_lease_without_room_fails_its_call_and_no_other() {
    init(512 * 1024, Policy::Warn).unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let welcome = [&[0, 1][..], &[7; 32]].concat();
    near.write_all(&frame(Kind::Welcome, 0, &welcome))
        .await
        .unwrap();
    let (_, mut requests) = runner::connect(far, Role::Run, 1).await.unwrap();
    let mut hello = [0; HEADER + 17];
    near.read_exact(&mut hello).await.unwrap();

    // Every size down to a lease's own, until nothing more fits.
    let mut all = Vec::new();
    let mut size = 64 * 1024;
    while size >= 16 {
        match Secret::zeroed(size) {
            Ok(secret) => all.push(secret),
            Err(_) => size /= 2,
        }
    }
    near.write_all(&call(1)).await.unwrap();
    // Read while the arena is full; there is nothing to hand on.
    let mut answer = [0; HEADER];
    tokio::select! {
        biased;
        request = requests.next() => panic!("{request:?}"),
        read = near.read_exact(&mut answer) => { read.unwrap(); }
    }
    let header = Header::decode(&answer).unwrap();
    assert_eq!((header.kind(), header.call()), (Kind::Error, 1));
    let mut text = vec![0; header.length()];
    near.read_exact(&mut text).await.unwrap();
    assert!(text.starts_with(b"\x04busy"), "{text:?}");

    drop(all);
    near.write_all(&call(2)).await.unwrap();
    let Request::Call(call, _responder) = requests.next().await.unwrap() else {
        panic!("a call was sent")
    };
    assert_eq!((call.call().0, call.leases().len()), (2, 2));
}
