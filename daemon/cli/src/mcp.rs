//! The smallest client of MCP: one stateless request of revision 2026-07-28 in one line, and its answer.
//!
//! Promises that the answer is bounded. Does no handshake, keeps no session and shows everything as the daemon said.

use std::path::Path;

use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::client::unreachable;
use crate::error::{Error, Result};

/// Longest answer in bytes.
const MAX_ANSWER: u64 = 16 << 20;
const VERSION: &str = "2026-07-28";

/// One exchange: the line that was sent and the line that came back.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) sent: String,
    pub(crate) received: String,
}

impl Exchange {
    /// The result, or the error of the protocol.
    pub(crate) fn result(&self) -> Result<Value> {
        let mut answer: Value = serde_json::from_str(&self.received)
            .map_err(|e| Error::new("connection_lost", format!("not an MCP answer: {e}")))?;
        if answer.get("error").is_some() {
            let error = &answer["error"];
            let text = error["message"].as_str().unwrap_or_default();
            let code = error["data"]["code"].as_str().and_then(ErrorCode::parse);
            return Err(match code {
                Some(code) => ApiError::of(code).into(),
                None => Error::new("mcp", mcpist_core::text::excerpt(text, 512)),
            });
        }
        Ok(answer["result"].take())
    }
}

/// Lists tools that contain all words of `query`, page by page.
pub(crate) async fn schema(socket: &Path, arguments: Value) -> Result<Exchange> {
    request(socket, "get_module_schema", &arguments.to_string()).await
}

/// Calls a module's tool; the arguments go as they were written.
pub(crate) async fn call(
    socket: &Path,
    module: &str,
    tool: &str,
    arguments: &RawValue,
) -> Result<Exchange> {
    // Written by hand around the raw text, so that no number is bent on its way through a parser.
    let arguments = format!(
        r#"{{"module":{},"tool_name":{},"arguments":{}}}"#,
        json!(module),
        json!(tool),
        arguments.get().replace(['\n', '\r'], " ")
    );
    request(socket, "call_module_tool", &arguments).await
}

async fn request(socket: &Path, name: &str, arguments: &str) -> Result<Exchange> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "mcpist", "version": env!("CARGO_PKG_VERSION")},
    });
    let sent = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{},"arguments":{arguments},"_meta":{meta}}}}}"#,
        json!(name)
    );
    let lost =
        |e: std::io::Error| Error::new("connection_lost", format!("{}: {e}", socket.display()));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|e| unreachable(socket, &e))?;
    let (read, mut write) = stream.into_split();
    let written = write.write_all(format!("{sent}\n").as_bytes()).await;
    // Who is turned away at once is told so, although nobody reads.
    let mut received = String::new();
    BufReader::new(read.take(MAX_ANSWER))
        .read_line(&mut received)
        .await
        .map_err(lost)?;
    if received.is_empty() {
        written.map_err(lost)?;
        return Err(lost(std::io::Error::other("closed without an answer")));
    }
    Ok(Exchange {
        sent,
        received: received.trim_end().to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_turned_away_unread_is_told_the_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let refuse = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x","data":{"code":"unidentified"}}}"#;
            stream.write_all(line).await.unwrap();
        };
        let arguments = json!({ "query": "x".repeat(1 << 20) });
        let (exchange, ()) = tokio::join!(schema(&path, arguments), refuse);
        let error = exchange.unwrap().result().unwrap_err();
        assert_eq!(error.code(), "unidentified");
    }
}
