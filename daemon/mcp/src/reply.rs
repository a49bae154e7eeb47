//! Finished lines of `tools/call` answers. Pure functions, no I/O.
//!
//! Owns: the shape of a tool's result in both eras.
//! Promises: one line each; content and structured content are the bytes that were given, but for a
//! line end between two tokens of them, which becomes a space.
//! Does not: check that those bytes are JSON; the gateway promises it.

use mcpist_core::result::{ToolError, ToolResult};
use rmcp::model::RequestId;
use serde_json::Value;

use crate::gateway::{CallAnswer, NewSchema};

/// The protocol era that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25: opened by `initialize`; structured content must be an object.
    Handshake,
    /// 2026-07-28: every request says its version; every result says its type.
    Stateless,
}

/// Which request an answer is to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    pub(crate) id: &'a RequestId,
    pub(crate) era: Era,
}

/// The parts of a result.
struct Parts<'a> {
    content: &'a [u8],
    structured: Option<&'a str>,
    is_error: bool,
    meta: &'static str,
}

impl Reply<'_> {
    /// The line for a call.
    pub(crate) fn call(&self, answer: &CallAnswer) -> Vec<u8> {
        match answer {
            CallAnswer::Done { result, audit_lost } => self.result(result, *audit_lost),
            CallAnswer::Failed(error) => self.error(error),
            CallAnswer::SchemaChanged(NewSchema(entry)) => {
                let error = ToolError::of(mcpist_core::error::ErrorCode::SchemaChanged);
                self.failure(&error, &format!(r#","current":{entry}"#))
            }
        }
    }

    /// The line for a page of schemas, a JSON object.
    pub(crate) fn page(&self, page: &str) -> Vec<u8> {
        let content = text_content(page.to_owned());
        let (content, structured) = (content.as_bytes(), Some(page));
        self.line(&Parts {
            content,
            structured,
            is_error: false,
            meta: "",
        })
    }

    /// The line for a coded error, as a result that a model can read.
    pub(crate) fn error(&self, error: &ToolError) -> Vec<u8> {
        self.failure(error, "")
    }

    fn result(&self, result: &ToolResult, audit_lost: bool) -> Vec<u8> {
        let structured = result.structured.as_ref().map(|raw| raw.get());
        let structured =
            structured.filter(|text| self.era == Era::Stateless || text.starts_with('{'));
        let meta = match (result.truncated, audit_lost) {
            (false, false) => "",
            (true, false) => r#"{"mcpist/truncated":true}"#,
            (false, true) => r#"{"mcpist/audit_lost":true}"#,
            (true, true) => r#"{"mcpist/truncated":true,"mcpist/audit_lost":true}"#,
        };
        let content = if result.content.is_empty() {
            b"[]"
        } else {
            &result.content[..]
        };
        self.line(&Parts {
            content,
            structured,
            is_error: result.is_error,
            meta,
        })
    }

    fn failure(&self, error: &ToolError, more: &str) -> Vec<u8> {
        let (code, message) = (error.code(), quoted(error.message().to_owned()));
        let structured = format!(r#"{{"code":"{code}","message":{message}{more}}}"#);
        // A model that is shown the text alone must be able to go on with it.
        let text = if more.is_empty() {
            error.to_string()
        } else {
            structured.clone()
        };
        let content = text_content(text);
        let (content, structured) = (content.as_bytes(), Some(&structured[..]));
        self.line(&Parts {
            content,
            structured,
            is_error: true,
            meta: "",
        })
    }

    fn line(&self, parts: &Parts<'_>) -> Vec<u8> {
        let Parts {
            content,
            structured,
            is_error,
            meta,
        } = *parts;
        let mut line = Vec::with_capacity(content.len() + structured.map_or(0, str::len) + 192);
        let mut put = |piece: &[u8]| line.extend_from_slice(piece);
        put(br#"{"jsonrpc":"2.0","id":"#);
        match self.id {
            RequestId::Number(number) => put(number.to_string().as_bytes()),
            RequestId::String(text) => put(quoted(text.to_string()).as_bytes()),
        }
        put(br#","result":{"#);
        if self.era == Era::Stateless {
            put(br#""resultType":"complete","#);
        }
        put(br#""content":"#);
        put(content);
        if let Some(structured) = structured {
            put(br#","structuredContent":"#);
            put(structured.as_bytes());
        }
        put(if is_error {
            br#","isError":true"#
        } else {
            br#","isError":false"#
        });
        if !meta.is_empty() {
            put(br#","_meta":"#);
            put(meta.as_bytes());
        }
        put(b"}}");
        // In JSON a raw line end stands between tokens only.
        for byte in &mut line {
            // Written so that it compiles to vector instructions.
            *byte = if matches!(*byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            };
        }
        line.push(b'\n');
        line
    }
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: String) -> String {
    Value::String(text).to_string()
}

fn text_content(text: String) -> String {
    format!(r#"[{{"type":"text","text":{}}}]"#, quoted(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::error::ErrorCode;
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn result(content: &str, structured: Option<&str>) -> CallAnswer {
        CallAnswer::from(ToolResult {
            content: content.as_bytes().to_vec(),
            structured: structured.map(|s| RawValue::from_string(s.into()).unwrap()),
            is_error: false,
            truncated: true,
        })
    }

    fn read(line: &[u8]) -> Value {
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn content_keeps_its_bytes_and_line_ends_between_tokens_become_spaces() {
        let id = RequestId::String("a\"\n".into());
        let reply = Reply {
            id: &id,
            era: Era::Stateless,
        };
        let line = reply.call(&result(
            "[{\"type\":\"text\",\n\"text\":\"\\u00e9\\n\"}]",
            Some("{\"n\":1.50}"),
        ));
        let text = std::str::from_utf8(&line).unwrap();
        assert!(
            text.contains(r#"[{"type":"text", "text":"\u00e9\n"}]"#),
            "{text}"
        );
        assert!(text.contains(r#""structuredContent":{"n":1.50}"#), "{text}");
        let value = read(&line);
        assert_eq!(value["id"], "a\"\n");
        assert_eq!(value["result"]["resultType"], "complete");
        assert_eq!(value["result"]["_meta"], json!({"mcpist/truncated": true}));
    }

    #[test]
    fn an_older_client_gets_no_result_type_and_only_an_object_as_structured_content() {
        let id = RequestId::Number(-7);
        let reply = Reply {
            id: &id,
            era: Era::Handshake,
        };
        let value = read(&reply.call(&result("[]", Some("[1]"))));
        assert_eq!(value["id"], -7);
        assert_eq!(value["result"].get("resultType"), None);
        assert_eq!(value["result"].get("structuredContent"), None);
        let value = read(&reply.call(&result("", Some("{}"))));
        assert_eq!(value["result"]["content"], json!([]));
        assert_eq!(value["result"]["structuredContent"], json!({}));
    }

    #[test]
    fn a_coded_error_is_a_result_that_a_model_can_read() {
        let id = RequestId::Number(1);
        let reply = Reply {
            id: &id,
            era: Era::Stateless,
        };
        let value = read(&reply.call(&ToolError::with(ErrorCode::Busy, "say \"again\"").into()));
        assert_eq!(value["result"]["isError"], true);
        assert_eq!(
            value["result"]["structuredContent"],
            json!({"code": "busy", "message": "say \"again\""})
        );
        assert_eq!(value["result"]["content"][0]["text"], "busy: say \"again\"");
    }
}
