//! Two honest ends.

use super::*;

/// Serves until the link ends: each call is answered by what `reply` makes of it, in a task of its own.
fn serve<F>(
    mut requests: Requests,
    reply: impl Fn(ModuleCall) -> F + Copy + Send + Sync + 'static,
) -> JoinHandle<LinkEnd>
where
    F: Future<Output = Answer> + Send,
{
    tokio::spawn(async move {
        loop {
            match requests.next().await {
                Ok(Request::Call(call, responder)) => {
                    tokio::spawn(async move { responder.answer(reply(call).await).await });
                }
                Ok(other) => panic!("{other:?}"),
                Err(end) => return end,
            }
        }
    })
}

async fn echo(call: ModuleCall) -> Answer {
    let mut content = call.arguments().to_vec();
    for lease in call.leases() {
        content.extend_from_slice(lease.secret().expose());
    }
    answer(content)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_each_get_their_own_answer() {
    let (link, _, requests) = pair().await;
    let served = serve(requests, echo);
    let mut calls = Vec::new();
    for id in 0..600u64 {
        let link = link.clone();
        calls.push(tokio::spawn(async move {
            let arguments = vec![b'a' + (id % 26) as u8; (id * 37 % 5_000) as usize];
            let secrets = [&id.to_be_bytes()[..], b"second secret"];
            let got = link
                .call(module_call(id, &arguments, &secrets, 10_000))
                .await
                .unwrap();
            assert_eq!(got.content, [&arguments, &secrets.concat()[..]].concat());
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(link.in_flight(), 0);
    drop(link);
    let end = served.await.unwrap();
    assert!(
        matches!(
            end,
            LinkEnd::Closed(Close {
                code: CloseCode::Stopping,
                ..
            })
        ),
        "{end}"
    );
}

#[tokio::test]
async fn arguments_of_many_frames_and_all_fields_arrive() {
    let (link, _, mut requests) = pair().await;
    let arguments = vec![b'x'; 3 * MAX_PAYLOAD + 5];
    let call = module_call(9, &arguments, &[b"hunter2 hunter2"], 100);
    let calling = tokio::spawn(async move { link.call(call).await });
    let Request::Call(call, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(call.arguments(), &arguments[..]);
    assert_eq!((call.rev(), call.tool().as_str()), (&rev(), "list_hosts"));
    assert_eq!(call.deadline(), Duration::from_secs(10));
    let lease = call.lease(&SlotName::parse("s0").unwrap()).unwrap();
    assert_eq!(lease.binding().as_str(), "inventory-api");
    assert_eq!((lease.version(), lease.call().0), (3, 9));
    assert_eq!(lease.secret().expose(), b"hunter2 hunter2");
    let shown = format!("{call:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("xxxx"),
        "{}",
        shown.len()
    );
    let sent = Answer {
        content: b"[1]".to_vec(),
        structured: Some(b"{}".to_vec()),
        is_error: true,
        truncated: true,
        hits: 4,
    };
    responder.answer(sent.clone()).await;
    assert_eq!(calling.await.unwrap().unwrap(), sent);
}

#[tokio::test]
async fn a_runner_that_dies_fails_all_in_flight() {
    let (link, _, mut requests) = pair().await;
    let calls: Vec<_> = (0..50).map(|id| spawn_call(&link, id, 10)).collect();
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(requests.next().await.unwrap());
    }
    assert_eq!(link.in_flight(), 50);
    drop(requests);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::RunnerLost);
    }
    assert_eq!(*link.ended().await, LinkEnd::Gone);
    assert_eq!((link.in_flight(), link.lost()), (0, 50));
    let late = link
        .call(module_call(99, b"{}", &[], 10))
        .await
        .unwrap_err();
    assert!(matches!(late, CallError::RunnerLost));
    assert_eq!(link.ping().await, Err(TellError::Ended));
    assert_eq!(link.drop(&Dropped::Fingerprint(1)), Err(TellError::Ended));
}

#[tokio::test]
async fn a_daemon_that_goes_cancels_every_call() {
    let (link, _, mut requests) = pair().await;
    let call = spawn_call(&link, 1, 10);
    let Request::Call(_, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    link.close(CloseCode::Stopping);
    assert!(matches!(requests.next().await, Err(LinkEnd::Closed(_))));
    assert!(
        matches!(requests.next().await, Err(LinkEnd::Closed(_))),
        "and again"
    );
    responder.cancelled().await;
    responder.answer(answer("[]")).await;
    assert_eq!(
        call.await.unwrap().unwrap_err().code(),
        ErrorCode::RunnerLost
    );
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    let (link, _, mut requests) = pair().await;
    let call = spawn_call(&link, 1, 10);
    let Request::Call(_, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    call.abort();
    let other = spawn_call(&link, 2, 10);
    let Request::Call(_, second) = requests.next().await.unwrap() else {
        panic!()
    };
    responder.cancelled().await;
    responder.answer(answer("[]")).await;
    second.answer(answer("[2]")).await;
    assert_eq!(other.await.unwrap().unwrap().content, b"[2]");
}

#[tokio::test]
async fn failures_arrive_with_code_and_text() {
    let (link, _, mut requests) = pair().await;
    let (first, second) = (spawn_call(&link, 1, 10), spawn_call(&link, 2, 10));
    let Request::Call(_, one) = requests.next().await.unwrap() else {
        panic!()
    };
    let Request::Call(_, two) = requests.next().await.unwrap() else {
        panic!()
    };
    let sent = ToolError::with(ErrorCode::UpstreamStatus, "the service said 503").with_hits(3);
    one.fail(&sent);
    drop(two);
    let CallError::Failed(got) = first.await.unwrap().unwrap_err() else {
        panic!()
    };
    assert_eq!(got, sent);
    let dropped = second.await.unwrap().unwrap_err();
    assert_eq!(
        dropped.code(),
        ErrorCode::ModuleFailed,
        "a responder that is dropped fails its call"
    );
}

#[tokio::test]
async fn a_number_in_flight_is_not_used_twice() {
    let (link, _, mut requests) = pair().await;
    let first = spawn_call(&link, 1, 10);
    let Request::Call(_, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    let second = link.call(module_call(1, b"{}", &[], 10)).await.unwrap_err();
    assert!(matches!(second, CallError::Duplicate(1)));
    responder.answer(answer("[]")).await;
    assert!(first.await.unwrap().is_ok(), "the first is not disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_come_whole_beside_small_ones() {
    let (link, _, requests) = pair().await;
    let served = serve(requests, |call: ModuleCall| async move {
        let large = call.call().0.is_multiple_of(2);
        answer(vec![
            b'0' + (call.call().0 % 10) as u8;
            if large { 5_000_000 } else { 5 }
        ])
    });
    let calls: Vec<_> = (0..10).map(|id| spawn_call(&link, id, 5_000_000)).collect();
    for (id, call) in calls.into_iter().enumerate() {
        let content = call.await.unwrap().unwrap().content;
        assert_eq!(content.len(), if id % 2 == 0 { 5_000_000 } else { 5 });
        assert!(content.iter().all(|byte| usize::from(*byte - b'0') == id));
    }
    drop(link);
    served.await.unwrap();
}

#[tokio::test]
async fn an_answer_over_its_limit_fails_only_its_call() {
    let (link, _, mut requests) = pair().await;
    let (large, small) = (spawn_call(&link, 1, 1_000), spawn_call(&link, 2, 1_000));
    let Request::Call(_, one) = requests.next().await.unwrap() else {
        panic!()
    };
    let Request::Call(_, two) = requests.next().await.unwrap() else {
        panic!()
    };
    let sending = tokio::spawn(one.answer(answer(vec![b'x'; 50_000_000])));
    let error = large.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::TooLarge(8_096)), "{error}");
    assert_eq!(error.code(), ErrorCode::ModuleFailed);
    two.answer(answer("[]")).await;
    assert!(small.await.unwrap().is_ok());
    // The cancellation reaches the sender, which else would wait for credit for ever.
    let read = tokio::spawn(async move { requests.next().await.map(|_| ()) });
    sending.await.unwrap();
    drop(link);
    assert!(read.await.unwrap().is_err());
}

#[tokio::test]
async fn modules_bindings_and_fingerprints_arrive_in_order() {
    let (link, welcome, mut requests) = pair().await;
    let load = Load {
        registry: rev().registry,
        manifest: vec![b'm'; 200_000].into(),
    };
    link.load(&load).unwrap();
    let bind = Bind {
        version: 4,
        binding: binding(),
    };
    link.bind(&bind).unwrap();
    // Made under the key that the runner got, as mcpistd's own is the same.
    let fingerprint = welcome.key.fingerprint(b"correct horse battery").unwrap();
    link.redact(5, &fingerprint).unwrap();
    let dropped = [
        Dropped::Registry(rev().registry),
        Dropped::Binding {
            name: BindingName::parse("inventory-api").unwrap(),
            version: 4,
        },
        Dropped::Fingerprint(5),
    ];
    for what in &dropped {
        link.drop(what).unwrap();
    }
    let Request::Load(got) = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(got, load);
    assert!(got.verify().is_err(), "these bytes are no manifest");
    let Request::Bind(got) = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(got, bind);
    let Request::Redact { id, fingerprint } = requests.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(id, 5);
    let redactor = Redactor::new(Arc::new(welcome.key), [&fingerprint]);
    assert_eq!(
        redactor.redact(b"a correct horse battery b".to_vec()).hits,
        1
    );
    for what in dropped {
        let Request::Drop(got) = requests.next().await.unwrap() else {
            panic!()
        };
        assert_eq!(got, what);
    }
}

fn binding() -> mcpist_core::binding::Binding {
    serde_json::from_value(serde_json::json!({
        "name": "inventory-api", "vault": "main", "credential": "inventory", "scheme": "http",
        "host": "inventory.lan", "port": 80, "path_prefix": "/", "methods": ["GET"],
        "trust": "none", "inject": "bearer",
    }))
    .unwrap()
}

#[tokio::test]
async fn a_manifest_too_long_is_not_sent() {
    let (link, _, _requests) = pair().await;
    let manifest = vec![b'm'; message::MAX_MANIFEST + 1].into();
    let refused = link.load(&Load {
        registry: rev().registry,
        manifest,
    });
    assert_eq!(refused, Err(TellError::TooLong("the manifest")));
}

#[tokio::test]
async fn pings_come_back() {
    let (link, _, mut requests) = pair().await;
    let read = tokio::spawn(async move { requests.next().await.map(|_| ()) });
    link.ping().await.unwrap();
    link.ping().await.unwrap();
    drop(link);
    assert!(read.await.unwrap().is_err());
}

#[tokio::test]
async fn closing_writes_the_answers_that_are_queued() {
    let (link, _, mut requests) = pair().await;
    let call = spawn_call(&link, 1, 1_000_000);
    let Request::Call(_, responder) = requests.next().await.unwrap() else {
        panic!()
    };
    responder.answer(answer(vec![b'x'; 200_000])).await;
    requests.close().await;
    assert_eq!(call.await.unwrap().unwrap().content.len(), 200_000);
    assert_eq!(*link.ended().await, LinkEnd::Gone);
}
