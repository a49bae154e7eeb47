//! `tools` and `call`: what a principal sees, and one call, over an MCP socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use mcpist_core::text::excerpt;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::{PATIENCE, within};
use crate::error::{Error, Result};
use crate::output::table;
use crate::{Context, mcp};

/// How long a call is waited for: the longest deadline that a module may have (300 s), and its answer's way.
const CALL: Duration = Duration::from_secs(310);

/// List the tools that this user may see
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist tools
  mcpist tools --mcp /run/mcpist/mcp.sock backup
  mcpist tools --module prometheus --tool query    shows the whole input schema")]
pub(crate) struct ToolsArgs {
    /// Words that must occur in a tool's name or description
    words: Vec<String>,
    /// Only this module
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Only tools of this name, with their schemas
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// The MCP socket
    #[arg(long, value_name = "SOCKET")]
    mcp: Option<PathBuf>,
}

pub(crate) async fn tools(context: &Context, args: ToolsArgs) -> Result<()> {
    let socket = args
        .mcp
        .clone()
        .unwrap_or_else(|| context.client.socket("mcp.sock"));
    let mut tools = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut ask = json!({"query": args.words.join(" ")});
        for (name, value) in [
            ("module", json!(args.module)),
            ("tool_name", json!(args.tool)),
            ("cursor", cursor),
        ] {
            if !value.is_null() {
                ask[name] = value;
            }
        }
        let answer = within(&socket, PATIENCE, mcp::schema(&socket, ask)).await;
        let mut page = result(answer)?;
        let page = page["structuredContent"].take();
        tools.extend(page["tools"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    if tools.is_empty() {
        context.out.note(
            "no tool is visible to this user\nnext: an officer's mcpist mask explain PRINCIPAL MODULE TOOL",
        );
    }
    context.out.data(&json!({"tools": tools}), |data| {
        let list = data["tools"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if args.tool.is_some() {
            return list
                .iter()
                .map(|t| format!("{t:#}"))
                .collect::<Vec<_>>()
                .join("\n");
        }
        let cell = |tool: &Value, name: &str| tool[name].as_str().unwrap_or_default().to_owned();
        let row = |tool: &Value| {
            ["module", "tool_name", "access", "description"]
                .map(|n| cell(tool, n))
                .to_vec()
        };
        table(
            &["module", "tool", "access", "description"],
            &list.iter().map(row).collect::<Vec<_>>(),
        )
    })
}

/// Call one tool
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist call prometheus query '{\"query\": \"up\"}'
  mcpist call prometheus alerts --mcp /run/mcpist/mcp.sock --output json")]
pub(crate) struct CallArgs {
    /// The module
    module: String,
    /// The tool
    tool: String,
    /// The tool's arguments, a JSON object
    #[arg(default_value = "{}")]
    arguments: String,
    /// The MCP socket
    #[arg(long, value_name = "SOCKET")]
    mcp: Option<PathBuf>,
}

pub(crate) async fn call(context: &Context, args: CallArgs) -> Result<()> {
    let socket = args
        .mcp
        .unwrap_or_else(|| context.client.socket("mcp.sock"));
    let arguments = RawValue::from_string(args.arguments)
        .map_err(|e| Error::usage(format!("the arguments are not JSON: {e}")))?;
    let calling = mcp::call(&socket, &args.module, &args.tool, &arguments);
    let told = async {
        tokio::time::sleep(PATIENCE).await;
        context.out.note(
            "no answer yet; a tool may take 300 s. Where mcpist tools does not answer either, the daemon hangs",
        );
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = within(&socket, CALL, calling) => answer,
        never = told => never,
    };
    context.out.data(&result(answer)?, text)
}

/// The result of a request, or why there is none, as a user of tools may read it.
fn result(answer: Result<mcp::Exchange>) -> Result<Value> {
    answer
        .and_then(|answer| answer.result())
        .and_then(checked)
        .map_err(for_client)
}

/// The same error for a user of tools, who has no role here: what takes one is for somebody else to do.
pub(crate) fn for_client(error: Error) -> Error {
    let next = match error.next_step() {
        Some(next) if takes_a_role(next) => format!("ask who has a role on this host: {next}"),
        _ => return error,
    };
    error.next(next)
}

fn takes_a_role(next: &str) -> bool {
    let names = |word| next.contains(word);
    (names("mcpist ") && !names("mcpist tools")) || names("systemctl") || names("journalctl")
}

/// A result of a tool, or the tool's own error.
pub(crate) fn checked(result: Value) -> Result<Value> {
    if result["isError"] != Value::Bool(true) {
        return Ok(result);
    }
    // The daemon's own refusals carry their code beside the text.
    let refusal = &result["structuredContent"];
    match (
        refusal["code"].as_str().and_then(ErrorCode::parse),
        refusal["message"].as_str(),
    ) {
        (Some(code), Some(message)) => Err(ApiError::new(code, message).into()),
        _ => Err(Error::new("tool_failed", excerpt(&text(&result), 2048))),
    }
}

/// The text items of a result.
fn text(result: &Value) -> String {
    let items = result["content"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["text"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_tools_is_sent_to_no_command_that_takes_a_role() {
        for code in ErrorCode::ALL {
            let error = for_client(ApiError::of(*code).into());
            let next = error.next_step().unwrap_or_default();
            let own = next.starts_with("mcpist tools") || !next.contains("mcpist ");
            let others = next.starts_with("ask who has a role on this host: ");
            assert!(own || others, "{code}: {next}");
        }
        let own = for_client(ApiError::of(ErrorCode::ArgumentsInvalid).into());
        assert_eq!(own.next_step(), ErrorCode::ArgumentsInvalid.next());
    }

    #[test]
    fn an_error_of_a_tool_is_a_failure_with_its_code() {
        let ok = json!({"isError": false, "content": [{"type": "text", "text": "a"}]});
        assert_eq!(text(&checked(ok).unwrap()), "a");
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "no"}],
            "structuredContent": {"code": "sealed", "message": "no"}});
        let error = checked(failed).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("sealed", 2));
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "no"}]});
        assert_eq!(checked(failed).unwrap_err().code(), "tool_failed");
    }
}
