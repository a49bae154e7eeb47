//! The full exchange of each era, and nothing of any other.

use super::*;

fn meta(version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}
    })
}

/// A request of the stateless era.
fn stateless(id: u32, method: &str, mut params: Value) -> String {
    params["_meta"] = meta("2026-07-28");
    request(json!(id), method, params)
}

fn names(list: &Value) -> Vec<&str> {
    let tools = list["result"]["tools"].as_array().unwrap();
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_handshake_era_from_first_to_last_line() {
    let mut client = connect(Limits::default(), 1 << 20);
    let opened = client.initialize("2025-11-25").await;
    assert_eq!(opened["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(opened["result"]["serverInfo"]["name"], "mcpist");
    assert_eq!(opened["result"]["capabilities"], json!({"tools": {}}));
    client
        .line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    assert_eq!(
        client.ask(request(json!(1), "ping", json!({}))).await["result"],
        json!({})
    );

    let list = client.ask(request(json!(2), "tools/list", json!({}))).await;
    assert_eq!(names(&list), ["get_module_schema", "call_module_tool"]);
    let schema = &list["result"]["tools"][0];
    assert_eq!(schema["annotations"]["readOnlyHint"], true);
    let required = &list["result"]["tools"][1]["inputSchema"]["required"];
    assert_eq!(*required, json!(["module", "tool_name", "arguments"]));
    for later in ["resultType", "ttlMs", "cacheScope"] {
        assert_eq!(
            list["result"].get(later),
            None,
            "{later} is of the other era"
        );
    }

    let ask =
        json!({"name": "get_module_schema", "arguments": {"module": "demo", "tool_name": "echo"}});
    let page = client.ask(request(json!(3), "tools/call", ask)).await;
    let shown = &page["result"]["structuredContent"];
    assert_eq!(
        shown["tools"][0]["tool"]["inputSchema"]["properties"],
        json!({"z": {}, "a": {}})
    );
    let text = page["result"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), *shown);

    let done = client.ask(call(4, "echo", r#"{"a":1}"#)).await;
    assert_eq!(done["result"]["content"][0]["text"], r#"{"a":1}"#);
    assert_eq!(done["result"]["isError"], false);
    assert_eq!(done["result"].get("resultType"), None);
    client.end().await.unwrap();
}

#[tokio::test]
async fn the_stateless_era_from_first_to_last_line() {
    let mut client = connect(Limits::default(), 1 << 20);
    let found = client.ask(stateless(1, "server/discover", json!({}))).await;
    assert_eq!(
        found["result"]["supportedVersions"],
        json!(["2025-11-25", "2026-07-28"])
    );
    assert_eq!(found["result"]["resultType"], "complete");
    assert_eq!(found["result"]["cacheScope"], "private");
    // Between discovery and the first real request a notification is still no end.
    client
        .line(r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#)
        .await;

    let list = client.ask(stateless(2, "tools/list", json!({}))).await;
    assert_eq!(names(&list), ["get_module_schema", "call_module_tool"]);
    assert_eq!(list["result"]["ttlMs"], 300_000);
    assert_eq!(list["result"]["cacheScope"], "private");

    let ask = json!({"name": "get_module_schema"});
    let page = client.ask(stateless(3, "tools/call", ask)).await;
    assert_eq!(page["result"]["resultType"], "complete");
    let tool = &page["result"]["structuredContent"]["tools"][0];
    assert_eq!(tool["description"], "Says it again");
    assert_eq!(tool.get("tool"), None, "a list is a summary");

    let ask = json!({"name": "call_module_tool",
        "arguments": {"module": "demo", "tool_name": "echo", "arguments": {"a": [1]}}});
    let done = client.ask(stateless(4, "tools/call", ask)).await;
    assert_eq!(done["result"]["structuredContent"], json!({"a": [1]}));
    assert_eq!(done["result"]["resultType"], "complete");
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_single_call_needs_nothing_before_it() {
    let mut client = connect(Limits::default(), 1 << 20);
    let ask = json!({"name": "call_module_tool",
        "arguments": {"module": "demo", "tool_name": "echo", "arguments": {}}});
    let done = client.ask(stateless(1, "tools/call", ask)).await;
    assert_eq!(done["result"]["isError"], false);
}

#[tokio::test]
async fn no_other_version_is_spoken() {
    for old in ["2024-11-05", "2025-03-26", "2025-06-18", "1999-01-01"] {
        let mut client = connect(Limits::default(), 1 << 20);
        let opened = client.initialize(old).await;
        assert_eq!(opened["result"]["protocolVersion"], "2025-11-25", "{old}");

        let mut client = connect(Limits::default(), 1 << 20);
        let ask = request(json!(1), "tools/list", json!({"_meta": meta(old)}));
        assert_eq!(client.ask(ask).await["error"]["code"], -32022, "{old}");
    }
}

#[tokio::test]
async fn a_session_that_was_not_opened_is_refused_and_can_be_opened_still() {
    let mut client = connect(Limits::default(), 1 << 20);
    let refused = client.ask(call(1, "echo", "{}")).await;
    assert_eq!(refused["error"]["code"], -32602);
    client
        .line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    assert!(client.initialize("2025-11-25").await["result"].is_object());
}

#[tokio::test]
async fn what_is_not_served_is_method_not_found() {
    let mut client = opened().await;
    for method in [
        "prompts/list",
        "resources/read",
        "logging/setLevel",
        "subscriptions/listen",
        "x",
    ] {
        let answer = client.ask(request(json!(1), method, json!({"a": 1}))).await;
        assert_eq!(answer["error"]["code"], -32601, "{method}");
    }
}
