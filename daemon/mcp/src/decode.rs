//! One line of JSON-RPC 2.0 to what it asks. Pure functions, no I/O.
//!
//! Owns: which methods exist, and what a line must be to reach them.
//! Promises: rmcp's types are built here and not parsed by rmcp, and hold no argument of a call: those
//! stay raw beside them. Of a method that is not served only name and `_meta` are kept. A refusal
//! names the request when its id can be read, and repeats nothing else of the line.
//! Does not: scan the arguments, nor know the state of the session.

use std::fmt;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, CustomRequest, DiscoverRequest,
    DiscoverRequestParams, ErrorCode, GetExtensions, InitializeRequest, ListToolsRequest,
    PingRequest, RequestId, RequestMetaObject,
};
use serde_json::value::RawValue;

use crate::json::{Members, Unfit, members};

/// Longest method name and longest id; what is longer is refused, since errors repeat both.
const MAX_NAME: usize = 128;
/// Longest protocol version in `_meta`, which an error repeats.
const MAX_VERSION: usize = 32;
/// Longest `_meta`, and longest parameters of `initialize`: both are parsed whole.
const MAX_PARSED: usize = 64 * 1024;
/// What a byte of JSON may take once it is parsed.
const PARSED: usize = 16;
/// JSON-RPC's first code for what is a server's own matter.
const BUSY: ErrorCode = ErrorCode(-32000);
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// What a line is.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request.
    Request(Box<Request>),
    /// The client gives up the request with this id.
    Cancel(RequestId),
    /// A notification, a response or an empty line: nothing is due.
    Nothing,
    /// An error is due.
    Refused(Refusal),
}

/// A request and, of a tool call, its arguments. Those may hold what a user typed, so its Debug does without them.
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) what: ClientRequest,
    pub(crate) arguments: Option<Box<RawValue>>,
    /// About what it takes in memory until it is answered.
    pub(crate) bytes: usize,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?}, {:?})", self.id, self.what)
    }
}

/// A JSON-RPC error that is due at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) id: Option<RequestId>,
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
    /// The product's own code, where there is one for it.
    pub(crate) data: Option<mcpist_core::error::ErrorCode>,
}

impl Refusal {
    /// The requests of this user, or of all, take as much as they may.
    pub(crate) fn busy(id: Option<RequestId>) -> Refusal {
        Refusal {
            id,
            code: BUSY,
            message: "busy: the requests of this user, or of all together, take as much memory as they may; try again shortly",
            data: Some(mcpist_core::error::ErrorCode::Busy),
        }
    }

    pub(crate) fn invalid(id: Option<RequestId>, message: &'static str) -> Refusal {
        Refusal {
            id,
            code: ErrorCode::INVALID_REQUEST,
            message,
            data: None,
        }
    }

    fn params(id: RequestId, message: &'static str) -> Refusal {
        Refusal {
            id: Some(id),
            code: ErrorCode::INVALID_PARAMS,
            message,
            data: None,
        }
    }
}

/// Says what `line` is.
pub(crate) fn decode(line: &[u8]) -> Incoming {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Incoming::Nothing;
    }
    message(line).unwrap_or_else(Incoming::Refused)
}

fn message(line: &[u8]) -> Result<Incoming, Refusal> {
    let names = ["jsonrpc", "id", "method", "params", "result", "error"];
    let Members {
        found: [version, id, method, params, result, error],
        ..
    } = members(line, names).map_err(|unfit| match unfit {
        Unfit::NotJson => Refusal {
            id: None,
            code: ErrorCode::PARSE_ERROR,
            message: "not JSON in UTF-8: send one JSON-RPC message a line",
            data: None,
        },
        Unfit::NotSuchObject => Refusal::invalid(
            None,
            "a line must be one JSON-RPC object, each member of it once",
        ),
    })?;
    if version.is_none_or(|v| v.get() != "\"2.0\"") {
        let id = id.and_then(|id| request_id(id).ok());
        return Err(Refusal::invalid(id, "jsonrpc must be \"2.0\""));
    }
    let Some(method) = method else {
        return match result.or(error) {
            Some(_) => Ok(Incoming::Nothing),
            None => Err(Refusal::invalid(None, "method is missing")),
        };
    };
    let id = id.map(request_id).transpose()?;
    let method = match serde_json::from_str::<String>(method.get()) {
        Ok(method) if method.len() <= MAX_NAME => method,
        _ => {
            return Err(Refusal::invalid(
                id,
                "method must be a string of at most 128 bytes",
            ));
        }
    };
    match id {
        Some(id) => request(id, &method, params).map(|r| Incoming::Request(Box::new(r))),
        None if method == "notifications/cancelled" => Ok(cancelled(params)),
        None => Ok(Incoming::Nothing),
    }
}

fn request_id(raw: &RawValue) -> Result<RequestId, Refusal> {
    let id = (raw.get().len() <= MAX_NAME).then(|| serde_json::from_str(raw.get()));
    match id {
        Some(Ok(id)) => Ok(id),
        _ => Err(Refusal::invalid(
            None,
            "id must be an integer or a string of at most 126 bytes",
        )),
    }
}

/// A notification is never answered, so one that names no request is passed over.
fn cancelled(params: Option<&RawValue>) -> Incoming {
    let id = params
        .and_then(|params| members(params.get().as_bytes(), ["requestId"]).ok())
        .and_then(|Members { found: [id], .. }| request_id(id?).ok());
    id.map_or(Incoming::Nothing, Incoming::Cancel)
}

fn request(id: RequestId, method: &str, params: Option<&RawValue>) -> Result<Request, Refusal> {
    let text = params.map_or("{}", RawValue::get).as_bytes();
    let Ok(Members {
        found: [meta, name, arguments],
        ..
    }) = members(text, ["_meta", "name", "arguments"])
    else {
        return Err(Refusal::params(
            id,
            "params must be an object, each member of it once",
        ));
    };
    let mut parsed = meta.map_or(0, |raw| raw.get().len());
    let Some(meta) = request_meta(meta) else {
        return Err(Refusal::params(
            id,
            "params._meta is not an object that can be read, of at most 64 KiB",
        ));
    };
    let mut kept = None;
    let mut what = match method {
        "tools/call" => {
            let Some(Ok(name)) = name.map(|name| serde_json::from_str::<String>(name.get())) else {
                return Err(Refusal::params(id, "params.name must be a string"));
            };
            if arguments.is_some_and(|raw| !raw.get().starts_with('{')) {
                return Err(Refusal::params(id, "params.arguments must be an object"));
            }
            kept = arguments.map(ToOwned::to_owned);
            ClientRequest::from(CallToolRequest::new(CallToolRequestParams::new(name)))
        }
        "tools/list" => ClientRequest::from(ListToolsRequest::default()),
        "ping" => ClientRequest::from(PingRequest::default()),
        "server/discover" => {
            ClientRequest::from(DiscoverRequest::new(DiscoverRequestParams::default()))
        }
        "initialize" => {
            parsed += text.len();
            let params = (text.len() <= MAX_PARSED).then(|| serde_json::from_slice(text));
            let Some(Ok(params)) = params else {
                return Err(Refusal::params(
                    id,
                    "initialize needs protocolVersion, capabilities and clientInfo, in at most 64 KiB",
                ));
            };
            ClientRequest::from(InitializeRequest::new(params))
        }
        _ => ClientRequest::from(CustomRequest::new(method, None)),
    };
    what.extensions_mut().insert(meta);
    let arguments = kept.as_ref().map_or(0, |raw| raw.get().len());
    Ok(Request {
        id,
        what,
        arguments: kept,
        bytes: arguments + PARSED * parsed,
    })
}

fn request_meta(raw: Option<&RawValue>) -> Option<RequestMetaObject> {
    let Some(raw) = raw else {
        return Some(RequestMetaObject::new());
    };
    if raw.get().len() > MAX_PARSED {
        return None;
    }
    let meta: RequestMetaObject = serde_json::from_str(raw.get()).ok()?;
    let version = meta.get(VERSION_KEY).and_then(serde_json::Value::as_str);
    version
        .is_none_or(|v| v.len() <= MAX_VERSION)
        .then_some(meta)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(line: &str) -> (i32, Option<RequestId>) {
        match decode(line.as_bytes()) {
            Incoming::Refused(refusal) => (refusal.code.0, refusal.id),
            other => panic!("{line} was taken: {other:?}"),
        }
    }

    fn taken(line: &str) -> Request {
        match decode(line.as_bytes()) {
            Incoming::Request(request) => *request,
            other => panic!("{line} was not taken: {other:?}"),
        }
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        for line in [
            "hello",
            "{",
            r#"{"jsonrpc":"2.0"} {}"#,
            r#"{"jsonrpc":"2.0","id":01}"#,
        ] {
            assert_eq!(refused(line), (-32700, None), "{line}");
        }
        assert!(matches!(
            decode(b"{\"a\":\"\xff\"}"),
            Incoming::Nothing | Incoming::Refused(_)
        ));
    }

    #[test]
    fn what_is_no_message_is_an_invalid_request() {
        for line in [
            "[]",
            r#"["2.0",1,"ping"]"#,
            "7",
            "{}",
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        ] {
            assert_eq!(refused(line), (-32600, None), "{line}");
        }
        let one = Some(RequestId::Number(1));
        assert_eq!(
            refused(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#),
            (-32600, one.clone())
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":1,"method":7}"#),
            (-32600, one)
        );
        let long = format!(
            r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#,
            "x".repeat(127)
        );
        assert_eq!(refused(&long), (-32600, None));
    }

    #[test]
    fn wrong_params_are_invalid_params_of_that_request() {
        for params in [
            "[]",
            "7",
            "{}",
            r#"{"name":7}"#,
            r#"{"name":["call_module_tool"]}"#,
            r#"{"name":"a","arguments":[]}"#,
            r#"{"name":"a","arguments":"{}"}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","arguments":{},"arguments":{}}"#,
            r#"{"name":"a","_meta":7}"#,
        ] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{params}}}"#);
            assert_eq!(
                refused(&line),
                (-32602, Some(RequestId::String("x".into()))),
                "{params}"
            );
        }
    }

    #[test]
    fn a_hostile_meta_is_refused_without_recursion() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        let line =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{deep}}}}}"#);
        assert_eq!(
            refused(&line).0,
            -32700,
            "the innermost member has no value"
        );
        let line = line.replacen("\"a\":}", "\"a\":1}", 1);
        assert_eq!(refused(&line).0, -32602);
        let version = "9".repeat(MAX_VERSION + 1);
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{{"{VERSION_KEY}":"{version}"}}}}}}"#
        );
        assert_eq!(refused(&line).0, -32602);
    }

    #[test]
    fn arguments_stay_raw_and_out_of_the_request() {
        let request = taken(
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"n":12345678901234567890123,"n":1 },"name":"t"},"id":3}"#,
        );
        assert!(!format!("{request:?}").contains("12345678901234567890123"));
        assert_eq!(
            request.arguments.unwrap().get(),
            r#"{"n":12345678901234567890123,"n":1 }"#
        );
        let ClientRequest::CallToolRequest(call) = request.what else {
            panic!("not a call")
        };
        assert_eq!(
            (call.params.name.as_ref(), call.params.arguments),
            ("t", None)
        );
    }

    #[test]
    fn only_the_name_of_a_method_that_is_not_served_is_kept() {
        let request = taken(
            r#"{"jsonrpc":"2.0","id":3,"method":"prompts/get","params":{"name":"x","arguments":{"k":"canary"}}}"#,
        );
        assert!(request.arguments.is_none());
        assert!(!format!("{:?}", request.what).contains("canary"));
    }

    #[test]
    fn nothing_is_due_for_notifications_responses_and_empty_lines() {
        for line in [
            "",
            " \r",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":7}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":{}}}"#,
            r#"{"jsonrpc":"2.0","id":9,"result":{}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"m"}}"#,
        ] {
            assert!(
                matches!(decode(line.as_bytes()), Incoming::Nothing),
                "{line}"
            );
        }
        let line =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#;
        assert!(matches!(
            decode(line.as_bytes()),
            Incoming::Cancel(RequestId::Number(4))
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_bytes_are_judged(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            decode(&line);
        }

        #[test]
        fn a_damaged_line_is_judged_and_its_arguments_are_bytes_of_it(
            at in 0usize..120,
            byte in any::<u8>(),
        ) {
            let mut line = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":{"a":[1,"b"]}}}"#.to_vec();
            if let Some(hit) = line.get_mut(at) {
                *hit = byte;
            }
            if let Incoming::Request(request) = decode(&line)
                && let Some(arguments) = request.arguments
            {
                let found = line.windows(arguments.get().len()).any(|w| w == arguments.get().as_bytes());
                prop_assert!(found);
            }
        }
    }
}
