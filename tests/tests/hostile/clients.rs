//! What a model, or its client, may send.

use mcpist_tests::appliance::Client;
use serde_json::json;

use super::{OPEN, Site, code, works};

/// A call of echo/get with `arguments` as they stand.
pub(super) fn raw_call(id: u64, arguments: &str) -> String {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"tests","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"call_module_tool","arguments":{{"module":"echo","tool_name":"get","arguments":{arguments}}},"_meta":{meta}}}}}"#
    )
}

/// The connection that took something bad still serves, and the service saw nothing of it.
fn goes_on(site: &Site, client: &mut Client, seen: usize) {
    assert_eq!(site.service.seen().len(), seen, "the service was asked");
    let answer = client.call("echo", "get", &json!({ "item": "after" }));
    assert_eq!(answer["isError"], false, "{answer}");
}

#[test]
fn an_unknown_module_and_a_hidden_tool_are_the_same_bytes() {
    OPEN.with(|site| {
        let line = |module: &str, tool: &str| {
            let mut bob = site.client("bob");
            bob.call(module, tool, &json!({ "item": "x" }));
            bob.transcript.pop().expect("an answer")
        };
        let hidden = line("echo", "get");
        assert!(hidden.contains("unknown_tool"), "{hidden}");
        assert_eq!(hidden, line("echo", "nothing"));
        assert_eq!(hidden, line("nothing", "get"));
    });
}

#[test]
fn wrong_arguments_are_refused_with_path_and_rule() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        for (arguments, path, rule) in [
            (r#"{"item":7}"#, "/item", "type"),
            (r#"{}"#, "item", "required"),
            (
                r#"{"item":"x","other":1}"#,
                "other",
                "Additional properties",
            ),
            (r#"{"item":"x","tags":["y",7]}"#, "/tags/1", "type"),
            (r#"{"item":"x","item":"y"}"#, "/item", "twice"),
            (
                r#"{"item":"x","count":9223372036854775808000}"#,
                "/count",
                "out of range",
            ),
            (
                r#"{"item":"x","count":-9223372036854775809}"#,
                "/count",
                "out of range",
            ),
            (r#"{"item":"x","tags":[1e999]}"#, "/tags/0", "out of range"),
        ] {
            ada.send(&raw_call(7, arguments));
            let answer = ada.receive();
            assert_eq!(code(&answer["result"]), "arguments_invalid", "{answer}");
            let said = answer["result"]["content"][0]["text"].as_str();
            let said = said.expect("text");
            assert!(
                said.contains(path) && said.contains(rule),
                "{arguments}: {said}"
            );
        }
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn arguments_of_ten_thousand_levels_are_answered() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        ada.send(&raw_call(7, &format!(r#"{{"item":{deep}}}"#)));
        let answer = ada.receive();
        assert_eq!(answer["id"], 7);
        assert_eq!(code(&answer["result"]), "arguments_invalid", "{answer}");
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn a_line_over_eight_mebibytes_is_answered_and_skipped() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        let long = "x".repeat(8 << 20);
        ada.send(&raw_call(7, &format!(r#"{{"item":"{long}"}}"#)));
        let answer = ada.receive();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn lines_that_are_not_json_are_answered() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        for line in ["hello", "{", "\0", r#"{"id":1,"id":2}"#] {
            ada.send(line);
            let answer = ada.receive();
            assert!(answer["error"]["code"].is_i64(), "{line}: {answer}");
        }
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn an_integer_over_64_bits_in_an_answer_is_refused_or_passed_as_it_is() {
    OPEN.with(|site| {
        let mut ada = site.client("ada");
        // Without an output schema the answer is text, digit for digit.
        let answer = ada.call("echo", "get", &json!({ "item": "number" }));
        let text = r#"{"big":123456789012345678901234567890}"#;
        assert_eq!(answer["content"][0]["text"], text, "{answer}");
        assert!(answer.get("structuredContent").is_none(), "{answer}");
        // With one it would become a number of the client's, which cannot hold it.
        let answer = ada.call("echo", "typed", &json!({ "item": "number" }));
        assert_eq!(code(&answer), "upstream_invalid", "{answer}");
        let said = answer["content"][0]["text"].as_str().expect("text");
        assert!(said.contains("/big is a number out of range"), "{said}");
        works(site);
    });
}
