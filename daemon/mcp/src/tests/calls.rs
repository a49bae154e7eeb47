//! Calls in flight: their order, their bound, their end.

use super::*;

fn cancel(id: u32) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
        .to_string()
}

#[tokio::test]
async fn arguments_and_content_keep_their_bytes() {
    let mut client = opened().await;
    let sent = r#"{"z": 1.10,  "a":18446744073709551615,"é":"\u00e9\u2028","n":-0.0}"#;
    client.line(call(1, "echo", sent)).await;
    let text = client.text().await;
    assert!(
        text.contains(&format!(r#""structuredContent":{sent}"#)),
        "{text}"
    );
}

#[tokio::test]
async fn arguments_may_be_a_json_string() {
    let mut client = opened().await;
    let done = client.ask(call(1, "echo", r#""{\"a\": [1]}""#)).await;
    assert_eq!(done["result"]["content"][0]["text"], r#"{"a": [1]}"#);
}

#[tokio::test]
async fn answers_overtake_each_other() {
    let mut client = opened().await;
    client.line(call(1, "wait", r#"{"n":1}"#)).await;
    assert_eq!(client.event().await, r#"start {"n":1}"#);
    client
        .line([call(2, "echo", "{}"), call(3, "echo", "{}")].join("\n"))
        .await;
    let mut first = [
        client.answer().await["id"].clone(),
        client.answer().await["id"].clone(),
    ];
    first.sort_by_key(Value::as_u64);
    assert_eq!(first, [2, 3]);
    client.release.add_permits(1);
    assert_eq!(client.answer().await["id"], 1);
}

#[tokio::test]
async fn a_changed_schema_comes_with_the_answer() {
    let mut client = opened().await;
    let answer = client.ask(call(1, "changed", "{}")).await;
    let content = &answer["result"]["structuredContent"];
    assert_eq!(content["code"], "schema_changed");
    assert_eq!(content["current"]["tool"]["name"], "echo");
    assert!(
        content["current"]["schema_ref"]
            .as_str()
            .unwrap()
            .starts_with("r:")
    );
    assert!(
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("inputSchema")
    );
}

#[tokio::test]
async fn a_cancelled_call_is_told_and_never_answered() {
    let mut client = opened().await;
    client.line(call(1, "wait", "{}")).await;
    assert_eq!(client.event().await, "start {}");
    client.line(cancel(1)).await;
    assert_eq!(client.event().await, "cancel {}");
    settle().await;
    // The id is free again, and the next answer is that of the new call.
    let next = client.ask(call(1, "echo", r#"{"new":1}"#)).await;
    assert_eq!(next["result"]["structuredContent"], json!({"new": 1}));
}

#[tokio::test]
async fn an_id_in_flight_is_not_taken_twice() {
    let mut client = opened().await;
    client.line(call(1, "wait", "{}")).await;
    assert_eq!(client.event().await, "start {}");
    assert_eq!(
        client.ask(call(1, "echo", "{}")).await["error"]["code"],
        -32600
    );
    client.release.add_permits(1);
    assert_eq!(
        client.answer().await["result"]["structuredContent"]["code"],
        "busy"
    );
}

#[tokio::test]
async fn a_disconnect_cancels_calls_at_once() {
    let mut client = opened().await;
    client
        .line([call(1, "wait", r#"{"n":1}"#), call(2, "wait", r#"{"n":2}"#)].join("\n"))
        .await;
    let mut started = [client.event().await, client.event().await];
    started.sort();
    assert_eq!(started, [r#"start {"n":1}"#, r#"start {"n":2}"#]);
    drop((client.read, client.write, client.there));
    let mut ended = [
        client.events.recv().await.unwrap(),
        client.events.recv().await.unwrap(),
    ];
    ended.sort();
    assert_eq!(ended, [r#"cancel {"n":1}"#, r#"cancel {"n":2}"#]);
    client.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_input_leaves_every_answer_to_come() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut client = opened_with(limits, 1 << 20).await;
    // The third waits at the gate when the input ends.
    let lines = [1, 2, 3].map(|id| call(id, "wait", "{}"));
    client.line(lines.join("\n")).await;
    client.write.shutdown().await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.event().await, "start {}");
    }
    settle().await;
    client.release.add_permits(3);
    let mut answered = Vec::new();
    for _ in 0..3 {
        answered.push(client.answer().await["id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    assert_eq!(client.text().await, "", "the stream ends");
    client.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_service_cancels_calls_at_once() {
    let mut client = opened().await;
    client.line(call(1, "wait", "{}")).await;
    assert_eq!(client.event().await, "start {}");
    client.served.abort();
    assert_eq!(client.event().await, "cancel {}");
    assert_eq!(client.text().await, "", "the stream ends");
}

#[tokio::test]
async fn calls_over_the_bound_wait_unread() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut client = opened_with(limits, 1 << 20).await;
    let lines: Vec<String> = (1..=3)
        .map(|n| call(n, "wait", &format!("{{\"n\":{n}}}")))
        .collect();
    client.line(lines.join("\n")).await;
    let mut started = [client.event().await, client.event().await];
    started.sort();
    assert_eq!(started, [r#"start {"n":1}"#, r#"start {"n":2}"#]);
    settle().await;
    assert!(client.events.try_recv().is_err(), "the third call waits");
    client.release.add_permits(1);
    client.answer().await;
    assert_eq!(client.event().await, r#"start {"n":3}"#);
}

#[tokio::test]
async fn a_disconnect_shows_while_calls_wait_at_the_gate() {
    let limits = Limits {
        in_flight: 1,
        ..Limits::default()
    };
    let mut client = opened_with(limits, 1 << 20).await;
    client
        .line([call(1, "wait", "{}"), call(2, "wait", "{}")].join("\n"))
        .await;
    assert_eq!(client.event().await, "start {}");
    settle().await;
    drop((client.read, client.write, client.there));
    assert_eq!(client.events.recv().await.unwrap(), "cancel {}");
    client.served.await.unwrap().unwrap();
    assert_eq!(
        client.events.recv().await,
        None,
        "the second call never started"
    );
}

#[tokio::test]
async fn answers_do_not_pile_up_behind_a_peer_that_does_not_read() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut client = opened_with(limits, 256).await;
    let big = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000));
    let writer = tokio::spawn(async move {
        for n in 1..=2 {
            client.line(call(n, "echo", &big)).await;
        }
        client.line(call(3, "wait", "{}")).await;
        client
    });
    let mut client = writer.await.unwrap();
    settle().await;
    assert!(
        client.events.try_recv().is_err(),
        "two answers are unread, so nothing starts"
    );
    client.answer().await;
    client.answer().await;
    assert_eq!(client.event().await, "start {}");
}
