//! Lines that no honest client sends: each is answered, and the connection goes on.

use super::*;

async fn refusal(client: &mut Client, line: impl AsRef<[u8]>) -> (i64, Value) {
    let answer = client.ask(line).await;
    (
        answer["error"]["code"].as_i64().unwrap(),
        answer.get("id").cloned().unwrap_or_default(),
    )
}

/// The code and message of a tool-level error.
async fn failure(client: &mut Client, line: impl AsRef<[u8]>) -> (String, String) {
    let answer = client.ask(line).await;
    let result = &answer["result"];
    assert_eq!(result["isError"], true, "{answer}");
    let content = &result["structuredContent"];
    let text = |name: &str| content[name].as_str().unwrap().to_owned();
    let said = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(said, format!("{}: {}", text("code"), text("message")));
    (text("code"), text("message"))
}

#[tokio::test]
async fn bad_lines_are_answered_before_and_after_the_session_opens() {
    let mut client = connect(Limits::default(), 1 << 20);
    for _ in 0..2 {
        client
            .line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
            .await;
        client.line("").await;
        assert_eq!(refusal(&mut client, "hello").await, (-32700, Value::Null));
        assert_eq!(
            refusal(&mut client, b"{\"id\":\"\xff\"}").await,
            (-32700, Value::Null)
        );
        assert_eq!(refusal(&mut client, "[]").await, (-32600, Value::Null));
        assert_eq!(
            refusal(&mut client, r#"{"jsonrpc":"1.0","id":5}"#).await,
            (-32600, json!(5))
        );
        let wrong = request(json!("w"), "tools/call", json!({"name": 7}));
        assert_eq!(refusal(&mut client, wrong).await, (-32602, json!("w")));
        client.initialize("2025-11-25").await;
    }
    client.end().await.unwrap();
}

#[tokio::test]
async fn an_over_long_line_is_answered_and_skipped() {
    let limits = Limits {
        line_bytes: 4_096,
        ..Limits::default()
    };
    let mut client = opened_with(limits, 1 << 20).await;
    let long = call(1, "echo", &format!(r#"{{"x":"{}"}}"#, "x".repeat(100_000)));
    assert_eq!(refusal(&mut client, long).await, (-32600, Value::Null));
    assert_eq!(client.ask(call(2, "echo", "{}")).await["id"], 2);
}

#[tokio::test]
async fn what_all_clients_send_is_bounded_together_and_refused_with_a_code() {
    // A line of 150 KiB takes 256 while it is read, and 150 until it is answered.
    let budget = Budget::new(500 * 1024, 64 * 1024);
    let open = async || {
        let mut client = connect_within(&budget, Limits::default(), 1 << 20);
        client.initialize("2025-11-25").await;
        client
    };
    let (mut first, mut second) = (open().await, open().await);
    let long = |id, tool| {
        call(
            id,
            tool,
            &format!(r#"{{"x":"{}"}}"#, "x".repeat(150 * 1024)),
        )
    };
    // The line is gone; its arguments stay while the call is in flight.
    first.line(long(1, "wait")).await;
    first.event().await;
    let busy = |answer: Value| answer["error"]["data"]["code"] == "busy";
    assert!(busy(second.ask(long(1, "echo")).await));
    let short = second.ask(call(2, "echo", "{}")).await;
    assert_eq!(short["result"]["isError"], false, "{short}");
    first.release.add_permits(1);
    assert_eq!(first.answer().await["id"], 1);
    let long = second.ask(long(3, "echo")).await;
    assert_eq!(long["id"], 3, "{long}");
}

#[tokio::test]
async fn lines_that_one_user_never_ends_leave_room_for_its_short_calls_and_for_others() {
    let budget = Budget::new(2 << 20, 128 * 1024);
    let (one, other) = (budget.share(), budget.share());
    let open = async |share: &Budget| {
        let mut client = connect_within(share, Limits::default(), 1 << 20);
        let opened = client.initialize("2025-11-25").await;
        assert_eq!(opened["result"]["protocolVersion"], "2025-11-25");
        client
    };
    // Each takes 128 KiB of the share's 512; the fifth is told, and reads on.
    let begun = format!(r#"{{"x":"{}"#, "x".repeat(100 * 1024));
    let mut unended = Vec::new();
    for _ in 0..4 {
        let mut client = open(&one).await;
        client.write.write_all(begun.as_bytes()).await.unwrap();
        unended.push(client);
    }
    settle().await;
    let mut fifth = open(&one).await;
    let told = fifth.ask(&begun).await;
    assert_eq!(told["error"]["data"]["code"], "busy", "{told}");
    let short = fifth.ask(call(1, "echo", "{}")).await;
    assert_eq!(short["result"]["isError"], false, "{short}");
    let mut others = open(&other).await;
    let arguments = format!(r#"{{"x":"{}"}}"#, "x".repeat(100 * 1024));
    let long = others.ask(call(1, "echo", &arguments)).await;
    assert_eq!(long["result"]["isError"], false, "{long}");
}

#[tokio::test]
async fn what_is_parsed_whole_is_bounded() {
    let mut client = connect(Limits::default(), 1 << 20);
    let pad = "0,".repeat(64 * 1024);
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{"experimental":{{"x":{{"y":[{pad}0]}}}}}},"clientInfo":{{"name":"t","version":"1"}}}}}}"#
    );
    assert_eq!(refusal(&mut client, long).await, (-32602, json!(1)));
    client.initialize("2025-11-25").await;
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"ping","params":{{"_meta":{{"x":[{pad}0]}}}}}}"#
    );
    assert_eq!(refusal(&mut client, long).await, (-32602, json!(2)));
}

#[tokio::test]
async fn ten_thousand_levels_cost_an_answer() {
    let mut client = opened().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let (code, message) =
        failure(&mut client, call(1, "echo", &format!(r#"{{"a":{deep}}}"#))).await;
    assert_eq!(code, "arguments_invalid");
    assert!(message.contains("nested deeper than"), "{message}");
    assert_eq!(refusal(&mut client, &deep).await, (-32600, Value::Null));
    let meta = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"_meta":{{"a":{deep}}},"name":"x"}}}}"#
    );
    assert_eq!(refusal(&mut client, meta).await, (-32602, json!(2)));
    let unused = format!(r#"{{"jsonrpc":"2.0","id":3,"method":"ping","params":{{"b":{deep}}}}}"#);
    assert_eq!(client.ask(unused).await["result"], json!({}));
}

#[tokio::test]
async fn duplicate_names_and_bent_numbers_are_refused_with_their_path() {
    let mut client = opened().await;
    for (arguments, path) in [
        (
            r#"{"a":{"b":1,"\u0062":2}}"#,
            "/arguments/a/b appears twice",
        ),
        (
            r#"{"n":[0,12345678901234567890123]}"#,
            "/arguments/n/1 is a number out of range",
        ),
        (
            r#"{"n":-9223372036854775809}"#,
            "/arguments/n is a number out of range",
        ),
        (r#"{"n":1e400}"#, "/arguments/n is a number out of range"),
        (
            r#""{\"a\":1,\"a\":2}""#,
            "in the text of /arguments: /a appears twice",
        ),
    ] {
        let (code, message) = failure(&mut client, call(1, "echo", arguments)).await;
        assert_eq!(code, "arguments_invalid");
        assert!(message.contains(path), "{arguments}: {message}");
    }
}

#[tokio::test]
async fn wrong_inputs_of_the_two_tools_are_told_to_the_model() {
    let mut client = opened().await;
    for (tool, input, words) in [
        (
            "call_module_tool",
            json!({"module": "demo"}),
            "/tool_name is missing",
        ),
        (
            "call_module_tool",
            json!({"module": "demo", "tool_name": "echo", "a": 1}),
            "/a is not a member",
        ),
        (
            "get_module_schema",
            json!({"detail": "all"}),
            "/detail must be",
        ),
    ] {
        let line = request(
            json!(1),
            "tools/call",
            json!({"name": tool, "arguments": input}),
        );
        let (code, message) = failure(&mut client, line).await;
        assert_eq!(code, "arguments_invalid");
        assert!(message.contains(words), "{message}");
    }
    let hidden =
        json!({"name": "get_module_schema", "arguments": {"module": "hidden", "tool_name": "t"}});
    assert_eq!(
        failure(&mut client, request(json!(1), "tools/call", hidden))
            .await
            .0,
        "unknown_tool"
    );
    let inner = request(
        json!(1),
        "tools/call",
        json!({"name": "echo", "arguments": {}}),
    );
    assert_eq!(refusal(&mut client, inner).await, (-32602, json!(1)));
}

#[tokio::test]
async fn who_asks_nothing_in_time_is_cut_off() {
    let limits = Limits {
        first_request: Duration::ZERO,
        ..Limits::default()
    };
    let mut client = connect(limits, 1 << 20);
    client
        .line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    assert!(matches!(
        client.served.await.unwrap(),
        Err(ServeError::Silent(Duration::ZERO))
    ));
}

#[tokio::test]
async fn a_flood_of_bad_lines_is_read_no_faster_than_its_answers() {
    let mut client = connect(Limits::default(), 512);
    let flood = tokio::spawn(async move {
        client
            .write
            .write_all("x\n".repeat(10_000).as_bytes())
            .await
            .unwrap();
    });
    settle().await;
    // 512 bytes of answers and the buffers between: far below twenty thousand bytes of lines.
    assert!(!flood.is_finished());
    flood.abort();
}
