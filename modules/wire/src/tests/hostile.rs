//! Each end against a peer that keeps no rule. One test per way to break one.

use super::*;

#[tokio::test]
async fn a_hello_without_a_common_version_is_refused_with_wire_version() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut raw = Raw(theirs);
    let hello = b"mcpwire\0\x00\x02\x00\x03\x01\x00\x00\x00\x07";
    raw.send(Kind::Hello, false, 0, hello).await;
    let error = Greeting::accept(ours).await.err().unwrap();
    assert!(matches!(error, AcceptError::Version { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("wire_version: the runner speaks versions 2 to 3")
    );
    assert_eq!(raw.closed().await.code.as_str(), "wire_version");
}

#[tokio::test]
async fn a_newer_hello_that_still_speaks_ours_is_welcome() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut raw = Raw(theirs);
    let hello = b"mcpwire\0\x00\x01\x00\x02\x02\x00\x00\x00\x07";
    raw.send(Kind::Hello, false, 0, hello).await;
    let greeting = Greeting::accept(ours).await.unwrap();
    assert_eq!(
        (greeting.version(), greeting.hello().role),
        (1, Role::Vault)
    );
    assert_eq!(greeting.hello().pid, 7);
}

#[tokio::test]
async fn what_is_no_hello_is_told_so() {
    for (kind, payload) in [
        (
            Kind::Answer,
            &b"mcpwire\0\x00\x01\x00\x01\x01\x00\x00\x00\x07"[..],
        ),
        (
            Kind::Hello,
            b"mcpwirE\0\x00\x01\x00\x01\x01\x00\x00\x00\x07",
        ),
        (
            Kind::Hello,
            b"mcpwire\0\x00\x01\x00\x01\x03\x00\x00\x00\x07",
        ),
        (
            Kind::Hello,
            b"mcpwire\0\x00\x02\x00\x01\x01\x00\x00\x00\x07",
        ),
        (
            Kind::Hello,
            b"mcpwire\0\x00\x01\x00\x01\x01\x00\x00\x00\x07+",
        ),
        (Kind::Hello, b""),
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut raw = Raw(theirs);
        raw.send(kind, false, 0, payload).await;
        assert!(matches!(
            Greeting::accept(ours).await,
            Err(AcceptError::NoHello(_))
        ));
        assert_eq!(raw.closed().await.code, CloseCode::Protocol);
    }
}

#[tokio::test]
async fn a_refused_runner_learns_why() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let daemon = async {
        let greeting = Greeting::accept(ours).await.unwrap();
        greeting
            .refuse(CloseCode::RoleTaken, "a runner of role run is live")
            .await;
    };
    let ((), runner) = tokio::join!(daemon, connect(theirs, Role::Run, 7));
    let Err(ConnectError::NoWelcome(LinkEnd::Closed(close))) = runner else {
        panic!()
    };
    assert_eq!(
        close.to_string(),
        "role_taken: a runner of role run is live"
    );
}

#[tokio::test]
async fn an_answer_given_twice_counts_once() {
    let (link, mut raw) = raw_runner().await;
    let first = spawn_call(&link, 1, 10);
    assert_eq!(raw.next().await.unwrap().0, Kind::Call);
    raw.send_answer(1, false, 2, b"[]").await;
    raw.send_answer(1, false, 3, b"[2]").await;
    raw.send(Kind::Error, false, 1, b"\x04busy\0\0\0\0").await;
    assert_eq!(first.await.unwrap().unwrap().content, b"[]");
    let second = spawn_call(&link, 2, 10);
    assert_eq!(raw.next().await.unwrap().2, 2);
    raw.send_answer(2, false, 3, b"[3]").await;
    assert_eq!(second.await.unwrap().unwrap().content, b"[3]");
}

#[tokio::test]
async fn what_belongs_to_no_call_is_ignored() {
    let (link, mut raw) = raw_runner().await;
    raw.send_answer(77, true, u32::MAX, b"[").await;
    raw.send(Kind::Chunk, true, 77, b"x").await;
    raw.send(Kind::Error, false, 77, b"\x04busy\0\0\0\0").await;
    raw.send(Kind::Pong, false, 77, b"").await;
    let call = spawn_call(&link, 1, 10);
    assert_eq!(raw.next().await.unwrap().0, Kind::Call);
    raw.send_answer(1, false, 2, b"[]").await;
    assert!(call.await.unwrap().is_ok());
}

/// Sends what `answer` sends to call 1, and sees that this call alone fails and is cancelled.
async fn fails_alone(answer: impl AsyncFnOnce(&mut Raw)) -> CallError {
    let (link, mut raw) = raw_runner().await;
    let bad = spawn_call(&link, 1, 1 << 20);
    assert_eq!(raw.next().await.unwrap().2, 1);
    let good = spawn_call(&link, 2, 10);
    assert_eq!(raw.next().await.unwrap().2, 2);
    answer(&mut raw).await;
    let error = bad.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModuleFailed);
    assert_eq!(raw.next().await.unwrap().0, Kind::Cancel);
    raw.send_answer(2, false, 2, b"[]").await;
    assert!(good.await.unwrap().is_ok());
    error
}

#[tokio::test]
async fn a_huge_total_fails_before_a_byte_of_it_is_held() {
    let error = fails_alone(async |raw| raw.send_answer(1, true, u32::MAX, b"[").await).await;
    assert!(matches!(error, CallError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn more_bytes_than_announced_fail_the_call() {
    let error = fails_alone(async |raw| raw.send_answer(1, false, 1, b"[]").await).await;
    assert_eq!(
        error.to_string(),
        "the runner's answer is broken: it brings more bytes than it announced"
    );
}

#[tokio::test]
async fn an_answer_that_ends_early_fails_the_call() {
    fails_alone(async |raw| raw.send_answer(1, false, 3, b"[]").await).await;
}

#[tokio::test]
async fn an_answer_that_goes_on_after_its_end_fails_the_call() {
    fails_alone(async |raw| raw.send_answer(1, true, 2, b"[]").await).await;
}

#[tokio::test]
async fn an_answer_that_begins_twice_fails_the_call() {
    let error = fails_alone(async |raw| {
        raw.send_answer(1, true, 100, b"[").await;
        raw.send_answer(1, true, 100, b"[").await;
    });
    assert!(matches!(error.await, CallError::Broken("it begins twice")));
}

#[tokio::test]
async fn a_chunk_without_a_beginning_fails_the_call() {
    fails_alone(async |raw| raw.send(Kind::Chunk, true, 1, b"x").await).await;
}

/// Sends one thing that no honest runner sends; the link must end with the code, the call with it.
async fn ends_the_link(send: impl AsyncFnOnce(&mut Raw)) -> String {
    let (link, mut raw) = raw_runner().await;
    let call = spawn_call(&link, 1, 100);
    assert_eq!(raw.next().await.unwrap().0, Kind::Call);
    send(&mut raw).await;
    let close = raw.closed().await;
    assert_eq!(close.code, CloseCode::Protocol);
    assert_eq!(
        call.await.unwrap().unwrap_err().code(),
        ErrorCode::RunnerLost
    );
    let LinkEnd::Protocol(text) = (*link.ended().await).clone() else {
        panic!()
    };
    assert_eq!(text, close.text, "both ends have the same words for it");
    text
}

#[tokio::test]
async fn an_unknown_kind_ends_the_link() {
    let text = ends_the_link(async |raw| {
        raw.bytes(&[0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            .await
    });
    assert_eq!(
        text.await,
        "a frame has the unknown kind 99; close the link"
    );
}

#[tokio::test]
async fn a_frame_too_long_ends_the_link() {
    ends_the_link(async |raw| {
        raw.bytes(&[0, 1, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            .await
    })
    .await;
}

#[tokio::test]
async fn what_only_mcpistd_sends_ends_the_link() {
    for kind in [
        Kind::Lease,
        Kind::Call,
        Kind::Load,
        Kind::Welcome,
        Kind::Credit,
        Kind::Hello,
    ] {
        ends_the_link(async |raw| raw.send(kind, false, 1, b"").await).await;
    }
}

#[tokio::test]
async fn a_broken_answer_head_ends_the_link() {
    ends_the_link(async |raw| raw.send(Kind::Answer, false, 1, &[0; 12]).await).await;
    ends_the_link(async |raw| raw.send(Kind::Answer, false, 1, &[8; 13]).await).await;
    ends_the_link(async |raw| raw.send(Kind::Error, false, 1, b"\x04bus").await).await;
    ends_the_link(async |raw| raw.send(Kind::Error, false, 1, b"\x04busy\0\0\0").await).await;
}

#[tokio::test]
async fn an_answer_waits_for_credit_and_holds_up_no_other() {
    let (mut raw, mut requests) = raw_daemon().await;
    raw.send(Kind::Call, false, 1, &call_payload(0, b"{}"))
        .await;
    raw.send(Kind::Call, false, 2, &call_payload(0, b"{}"))
        .await;
    let Request::Call(_, large) = requests.next().await.unwrap() else {
        panic!()
    };
    let Request::Call(_, small) = requests.next().await.unwrap() else {
        panic!()
    };
    let total = 2 * WINDOW;
    let sending = tokio::spawn(large.answer(answer(vec![b'x'; total])));
    let mut got = 0;
    while got < WINDOW {
        let (_, more, call, payload) = raw.next().await.unwrap();
        assert!(more && call == 1);
        got += payload.len() - if got == 0 { 13 } else { 0 };
    }
    assert_eq!(got, WINDOW, "no more than the credit");
    small.answer(answer("[2]")).await;
    assert_eq!(
        raw.next().await.unwrap().2,
        2,
        "the small answer passes the waiting one"
    );
    assert!(!sending.is_finished());
    let driver = tokio::spawn(async move { requests.next().await.map(|_| ()) });
    raw.send(Kind::Credit, false, 1, &(WINDOW as u32).to_be_bytes())
        .await;
    while got < total {
        let (kind, more, _, payload) = raw.next().await.unwrap();
        got += payload.len();
        assert_eq!((kind, more), (Kind::Chunk, got < total));
    }
    sending.await.unwrap();
    drop(raw);
    assert_eq!(driver.await.unwrap(), Err(LinkEnd::Gone));
}

/// The runner's end must refuse what `send` sends.
async fn runner_refuses(send: impl AsyncFnOnce(&mut Raw)) -> String {
    let (mut raw, mut requests) = raw_daemon().await;
    let mut held = Vec::new();
    let read = async {
        loop {
            match requests.next().await {
                Ok(request) => held.push(request),
                Err(end) => return end,
            }
        }
    };
    let (end, ()) = tokio::join!(read, send(&mut raw));
    let close = raw.closed().await;
    assert_eq!(LinkEnd::Protocol(close.text.clone()), end);
    close.text
}

#[tokio::test]
async fn a_lease_must_be_followed_by_its_call() {
    for kind in [Kind::Ping, Kind::Load, Kind::Cancel] {
        runner_refuses(async |raw| {
            raw.send(Kind::Lease, false, 1, &lease_payload("s0", b"secret"))
                .await;
            raw.send(kind, false, 1, b"").await;
        })
        .await;
    }
    let text = runner_refuses(async |raw| {
        raw.send(Kind::Lease, false, 1, &lease_payload("s0", b"secret"))
            .await;
        raw.send(Kind::Call, false, 2, &call_payload(1, b"{}"))
            .await;
    });
    assert_eq!(text.await, "Call came between a lease and its call");
}

#[tokio::test]
async fn the_count_of_leases_must_be_right() {
    for count in [0, 2] {
        runner_refuses(async |raw| {
            raw.send(Kind::Lease, false, 1, &lease_payload("s0", b"secret"))
                .await;
            raw.send(Kind::Call, false, 1, &call_payload(count, b"{}"))
                .await;
        })
        .await;
    }
    runner_refuses(async |raw| {
        for _ in 0..=call::MAX_LEASES {
            raw.send(Kind::Lease, false, 1, &lease_payload("s0", b"secret"))
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_is_continued_at_once_and_within_its_limit() {
    let text = runner_refuses(async |raw| {
        raw.send(Kind::Call, true, 1, &call_payload(0, b"{")).await;
        raw.send(Kind::Ping, false, 1, b"").await;
    });
    assert_eq!(text.await, "Ping came inside another message");
    let text = runner_refuses(async |raw| {
        for _ in 0..=message::MAX_BINDING / MAX_PAYLOAD + 1 {
            raw.send(Kind::Bind, true, 0, &[b' '; MAX_PAYLOAD]).await;
        }
    });
    assert_eq!(
        text.await,
        "a message in several frames is over its limit; close the link"
    );
}

#[tokio::test]
async fn a_call_in_flight_is_not_made_again() {
    let (mut raw, mut requests) = raw_daemon().await;
    for _ in 0..2 {
        raw.send(Kind::Call, false, 1, &call_payload(0, b"{}"))
            .await;
    }
    let Request::Call(_, first) = requests.next().await.unwrap() else {
        panic!()
    };
    let end = requests.next().await.unwrap_err();
    assert_eq!(end, LinkEnd::Protocol("call 1 is in flight already".into()));
    first.cancelled().await;
    assert_eq!(raw.closed().await.code, CloseCode::Protocol);
}

#[tokio::test]
async fn what_only_a_runner_sends_is_refused() {
    for kind in [
        Kind::Answer,
        Kind::Chunk,
        Kind::Error,
        Kind::Pong,
        Kind::Hello,
        Kind::Welcome,
    ] {
        runner_refuses(async |raw| raw.send(kind, false, 1, b"").await).await;
    }
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut raw = Raw(ours);
    let welcome = [&[0, 2][..], &[7; 32]].concat();
    raw.send(Kind::Welcome, false, 0, &welcome).await;
    let runner = connect(theirs, Role::Run, 7).await;
    assert!(matches!(
        runner,
        Err(ConnectError::NoWelcome(LinkEnd::Protocol(_)))
    ));
    assert_eq!(raw.next().await.unwrap().0, Kind::Hello);
    assert_eq!(raw.closed().await.code, CloseCode::Protocol);
}

mod any_bytes {
    use super::*;
    use crate::message::decode_error;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Hello::decode(&bytes);
            let _ = Close::decode(&bytes);
            let _ = Load::decode(&bytes).map(|load| load.verify().is_ok());
            let _ = Bind::decode(&bytes);
            let _ = Dropped::decode(&bytes);
            let _ = Lease::decode(1, &bytes);
            let _ = ModuleCall::decode(1, &bytes, Vec::new());
            let _ = AnswerHead::decode(&bytes);
            let _ = decode_error(&bytes);
        }

        #[test]
        fn round_trips_hold(
            hits: u32, content: u32, structured: Option<u32>, is_error: bool, truncated: bool,
            text in "\\PC{0,300}", version: u64,
        ) {
            let head = AnswerHead { is_error, truncated, hits, content, structured };
            let mut out = Vec::new();
            head.encode(&mut out);
            prop_assert_eq!(AnswerHead::decode(&out), Ok((head, &[][..])));

            let error = ToolError::with(ErrorCode::Busy, &text);
            let mut out = Vec::new();
            message::encode_error(&error, &mut out);
            prop_assert_eq!(decode_error(&out), Ok(error));

            let name = BindingName::parse("b").unwrap();
            for dropped in [Dropped::Binding { name, version }, Dropped::Fingerprint(version), Dropped::Registry(rev().registry)] {
                let mut out = Vec::new();
                dropped.encode(&mut out);
                prop_assert_eq!(Dropped::decode(&out), Ok(dropped));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Frames with good headers and any payload, from both sides: the link may end, nothing else may
        /// happen.
        #[test]
        fn never_make_an_end_panic(
            frames in proptest::collection::vec(
                (1u8..=16, any::<bool>(), 0u64..3, proptest::collection::vec(any::<u8>(), 0..80)),
                0..12,
            ),
        ) {
            let mut bytes = Vec::new();
            for (kind, more, call, payload) in frames {
                bytes.extend((payload.len() as u32).to_be_bytes());
                bytes.extend([kind, u8::from(more), 0, 0]);
                bytes.extend(call.to_be_bytes());
                bytes.extend(payload);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (link, mut raw) = raw_runner().await;
                let call = spawn_call(&link, 1, 60);
                assert_eq!(raw.next().await.unwrap().0, Kind::Call);
                raw.bytes(&bytes).await;
                drop(raw);
                link.ended().await;
                let _ = call.await.unwrap();
                assert_eq!(link.in_flight(), 0);

                let (mut raw, mut requests) = raw_daemon().await;
                raw.bytes(&bytes).await;
                drop(raw);
                while requests.next().await.is_ok() {}
            });
        }
    }
}
