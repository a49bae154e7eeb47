//! The two tools that every client finds, and how their inputs are read. Pure functions, no I/O.
//!
//! Owns: names, descriptions, annotations and input schemas of `get_module_schema` and
//! `call_module_tool`, in one fixed order.
//! Promises: what is read here has passed [`mcpist_core::scan`] first; a refusal is a coded error that
//! names the path and the rule, never the value, and that a model can act upon.
//! Does not: check the inner tool's arguments against its schema; core does, once the tool is known.

use std::sync::{Arc, LazyLock};

use mcpist_core::error::ErrorCode;
use mcpist_core::ids::SchemaRef;
use mcpist_core::result::ToolError;
use mcpist_core::scan::{self, scan};
use mcpist_core::text::Pointer;
use rmcp::model::{Tool, ToolAnnotations, object};
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::gateway::{RawArguments, ToolCall};
use crate::json::{Members, members};
use crate::schema::{Detail, SchemaQuery, parse_cursor};

/// The tool that shows what there is.
pub(crate) const SCHEMA: &str = "get_module_schema";
/// The tool that calls it.
pub(crate) const CALL: &str = "call_module_tool";

/// Longest `query` in bytes.
const MAX_QUERY: usize = 256;

/// What the server says of itself.
pub(crate) const INSTRUCTIONS: &str = "Tools live in modules. 1. get_module_schema without arguments \
lists the tools you may use. 2. get_module_schema with module and tool_name gives one tool's input \
schema. 3. call_module_tool runs it: module, tool_name and the tool's own arguments.";

/// Both tools, in the order in which they are listed.
pub(crate) fn tools() -> &'static [Tool] {
    static TOOLS: LazyLock<[Tool; 2]> = LazyLock::new(|| [schema_tool(), call_tool()]);
    &*TOOLS
}

fn schema_tool() -> Tool {
    let input = json!({
        "type": "object",
        "properties": {
            "module": {"type": "string", "description": "Only this module."},
            "tool_name": {"type": "string", "description": "Only this tool."},
            "query": {
                "type": "string",
                "maxLength": MAX_QUERY,
                "description": "Words to search for in names and descriptions."
            },
            "detail": {
                "type": "string",
                "enum": ["names", "summary", "full"],
                "description": "full holds input schemas. Default: full if tool_name is given, else summary."
            },
            "cursor": {"type": "string", "description": "next_cursor of the last answer, for more."}
        },
        "additionalProperties": false
    });
    Tool::new(
        SCHEMA,
        "Start here. Lists the tools of all modules that you may use; with module and tool_name it \
         gives that tool's full input schema. Then run it with call_module_tool.",
        Arc::new(object(input)),
    )
    .with_title("Find tools and read their schemas")
    .with_annotations(
        ToolAnnotations::new()
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false),
    )
}

fn call_tool() -> Tool {
    let input = json!({
        "type": "object",
        "properties": {
            "module": {
                "type": "string",
                "description": "Module, as get_module_schema names it.",
                "x-mcp-header": "Module"
            },
            "tool_name": {
                "type": "string",
                "description": "Tool of that module, as get_module_schema names it.",
                "x-mcp-header": "Tool-Name"
            },
            "arguments": {
                "type": ["object", "string"],
                "description": "The tool's own arguments, by its input schema: an object (or that object as JSON text)."
            },
            "schema_ref": {
                "type": "string",
                "description": "schema_ref of get_module_schema, to be told if the schema has changed since. Optional."
            }
        },
        "required": ["module", "tool_name", "arguments"],
        "additionalProperties": false
    });
    Tool::new(
        CALL,
        "Runs one tool of a module. Read the tool's input schema with get_module_schema first. \
         Example: {\"module\": \"wiki\", \"tool_name\": \"search\", \"arguments\": {\"text\": \"backup\"}}",
        Arc::new(object(input)),
    )
    .with_title("Run a tool")
    .with_annotations(
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(false).open_world(true),
    )
}

/// Reads the input of `get_module_schema`.
pub(crate) fn schema_query(
    input: Option<&RawValue>,
    limits: &scan::Limits,
) -> Result<SchemaQuery, ToolError> {
    let names = ["module", "tool_name", "query", "detail", "cursor"];
    let [module, tool_name, query, detail, cursor] = read(input, names, limits, "leave it out")?;
    let module = text(module, "module")?;
    let tool_name = text(tool_name, "tool_name")?;
    let query = text(query, "query")?.unwrap_or_default();
    if query.len() > MAX_QUERY {
        return Err(invalid("/query is over 256 bytes: use a few words"));
    }
    let detail = match text(detail, "detail")?.as_deref() {
        Some("names") => Detail::Names,
        Some("summary") => Detail::Summary,
        Some("full") => Detail::Full,
        None if tool_name.is_some() => Detail::Full,
        None => Detail::Summary,
        Some(_) => return Err(invalid("/detail must be names, summary or full")),
    };
    let after = match text(cursor, "cursor")? {
        None => None,
        Some(cursor) => Some(parse_cursor(&cursor).ok_or_else(|| {
            invalid("/cursor is not a next_cursor of this tool: leave it out to start again")
        })?),
    };
    let words = query.split_whitespace().map(str::to_lowercase).collect();
    Ok(SchemaQuery {
        module,
        tool_name,
        words,
        detail,
        after,
    })
}

/// Reads the input of `call_module_tool`.
pub(crate) fn tool_call(
    input: Option<&RawValue>,
    limits: &scan::Limits,
    cancel: CancellationToken,
) -> Result<ToolCall, ToolError> {
    let names = ["module", "tool_name", "arguments", "schema_ref"];
    let hint = "the tool's own arguments go into arguments";
    let [module, tool_name, arguments, schema_ref] = read(input, names, limits, hint)?;
    let missing = |name: &str| invalid(&format!("/{name} is missing: see get_module_schema"));
    let module = text(module, "module")?.ok_or_else(|| missing("module"))?;
    let tool_name = text(tool_name, "tool_name")?.ok_or_else(|| missing("tool_name"))?;
    let schema_ref = match text(schema_ref, "schema_ref")? {
        None => None,
        Some(given) => Some(SchemaRef::parse(&given).map_err(|_| {
            invalid("/schema_ref is not one of get_module_schema: copy it whole or leave it out")
        })?),
    };
    let arguments = RawArguments::new(inner_arguments(arguments, limits)?);
    Ok(ToolCall {
        module,
        tool_name,
        arguments,
        schema_ref,
        cancel,
    })
}

/// The members `names` of a tool's input, once its bytes have been scanned.
fn read<'a, const N: usize>(
    input: Option<&'a RawValue>,
    names: [&'static str; N],
    limits: &scan::Limits,
    hint: &str,
) -> Result<[Option<&'a RawValue>; N], ToolError> {
    let Some(input) = input else {
        return Ok([None; N]);
    };
    let bytes = input.get().as_bytes();
    scan(bytes, limits).map_err(|error| invalid(&error.to_string()))?;
    let Members { found, stranger } =
        members(bytes, names).map_err(|_| invalid("the input must be an object"))?;
    match stranger {
        None => Ok(found),
        Some(name) => {
            let mut path = Pointer::root();
            path.push_name(&name);
            Err(invalid(&format!(
                "{path} is not a member of this input: {hint}"
            )))
        }
    }
}

/// The text of a member; an empty one counts as absent, since models fill in what they leave open.
fn text(raw: Option<&RawValue>, name: &str) -> Result<Option<String>, ToolError> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| invalid(&format!("/{name} must be a string")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// The object of arguments, out of its JSON text where it was sent as one.
fn inner_arguments(
    raw: Option<&RawValue>,
    limits: &scan::Limits,
) -> Result<Box<RawValue>, ToolError> {
    let not_object = || invalid("/arguments must be an object, or the JSON text of one");
    let sent = match raw {
        None => "{}".to_owned(),
        Some(raw) if raw.get().starts_with('{') => return Ok(raw.to_owned()),
        Some(raw) => serde_json::from_str::<String>(raw.get()).map_err(|_| not_object())?,
    };
    let sent = if sent.trim().is_empty() {
        "{}".to_owned()
    } else {
        sent
    };
    scan(sent.as_bytes(), limits)
        .map_err(|error| invalid(&format!("in the text of /arguments: {error}")))?;
    match RawValue::from_string(sent) {
        Ok(object) if object.get().starts_with('{') => Ok(object),
        _ => Err(not_object()),
    }
}

fn invalid(message: &str) -> ToolError {
    ToolError::with(ErrorCode::ArgumentsInvalid, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMITS: scan::Limits = scan::Limits::bytes(1 << 20);

    fn call(input: &str) -> Result<ToolCall, ToolError> {
        let raw = RawValue::from_string(input.to_owned()).unwrap();
        tool_call(Some(&raw), &LIMITS, CancellationToken::new())
    }

    fn arguments(sent: &str) -> Result<String, String> {
        let input = format!(r#"{{"module":"m","tool_name":"t","arguments":{sent}}}"#);
        match call(&input) {
            Ok(call) => Ok(String::from_utf8(call.arguments.as_bytes().to_vec()).unwrap()),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::ArgumentsInvalid);
                Err(error.message().to_owned())
            }
        }
    }

    #[test]
    fn an_object_keeps_its_bytes() {
        let sent = r#"{"b": 1.10, "a":18446744073709551615,"é":"\u00e9"}"#;
        assert_eq!(arguments(sent).unwrap(), sent);
    }

    #[test]
    fn a_string_is_taken_as_the_text_that_it_says() {
        assert_eq!(
            arguments(r#"" {\"a\": \"\\n\"} ""#).unwrap(),
            r#"{"a": "\n"}"#
        );
        for empty in ["null", r#""""#, r#""  ""#, "{}"] {
            assert_eq!(arguments(empty).unwrap(), "{}", "{empty}");
        }
    }

    #[test]
    fn a_string_is_scanned_as_the_text_that_it_says() {
        let error = arguments(r#""{\"a\":1,\"\\u0061\":2}""#).unwrap_err();
        assert!(
            error.contains("in the text of /arguments: /a appears twice"),
            "{error}"
        );
        let error = arguments(r#""{\"a\":{\"n\":12345678901234567890123}}""#).unwrap_err();
        assert!(error.contains("/a/n is a number out of range"), "{error}");
        let deep = format!("\"{}{}\"", "[".repeat(10_000), "]".repeat(10_000));
        assert!(arguments(&deep).unwrap_err().contains("deeper than"));
        assert!(arguments(r#""{\"a\":""#).unwrap_err().contains("not JSON"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for sent in ["7", "[]", "true", r#""7""#, r#""[{}]""#, r#""\"{}\"""#] {
            assert!(
                arguments(sent).unwrap_err().contains("must be an object"),
                "{sent}"
            );
        }
    }

    #[test]
    fn a_refusal_names_path_and_rule_and_never_the_value() {
        for (input, words) in [
            (r#"{"tool_name":"t"}"#, "/module is missing"),
            (r#"{"module":"m","tool_name":""}"#, "/tool_name is missing"),
            (
                r#"{"module":{"k":"canary"},"tool_name":"t"}"#,
                "/module must be a string",
            ),
            (
                r#"{"module":"m","tool_name":"t","schema_ref":"canary"}"#,
                "/schema_ref is not one",
            ),
            (
                r#"{"module":"m","tool_name":"t","city":"canary"}"#,
                "/city is not a member",
            ),
            (
                r#"{"module":"m","tool_name":"t","arguments":{"a":{"x":"canary","x":1}}}"#,
                "/arguments/a/x appears twice",
            ),
            (
                r#"{"module":"m","module":"canary","tool_name":"t"}"#,
                "/module appears twice",
            ),
            (
                r#"{"module":"m","tool_name":"t","arguments":{"n":[1e999]}}"#,
                "/arguments/n/0 is a number out of range",
            ),
        ] {
            let error = call(input).unwrap_err();
            assert!(error.message().contains(words), "{input}: {error}");
            assert!(!error.message().contains("canary"), "{input}: {error}");
        }
    }

    #[test]
    fn detail_follows_what_is_named() {
        let query = |input: &str| {
            let raw = RawValue::from_string(input.to_owned()).unwrap();
            schema_query(Some(&raw), &LIMITS)
        };
        assert_eq!(schema_query(None, &LIMITS).unwrap().detail, Detail::Summary);
        assert_eq!(query(r#"{"module":"m"}"#).unwrap().detail, Detail::Summary);
        assert_eq!(
            query(r#"{"module":"m","tool_name":"t"}"#).unwrap().detail,
            Detail::Full
        );
        assert_eq!(
            query(r#"{"detail":"names","query":"Two  Words"}"#)
                .unwrap()
                .words,
            ["two", "words"]
        );
        for bad in [
            r#"{"detail":"all"}"#,
            r#"{"cursor":"x"}"#,
            r#"{"cursor":"A/b"}"#,
            r#"{"limit":1}"#,
        ] {
            assert_eq!(
                query(bad).unwrap_err().code(),
                ErrorCode::ArgumentsInvalid,
                "{bad}"
            );
        }
    }

    #[test]
    fn the_tools_are_two_in_a_fixed_order() {
        let names: Vec<_> = tools().iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, [SCHEMA, CALL]);
        for tool in tools() {
            assert!(tool.description.as_ref().unwrap().len() < 300);
        }
    }
}
