//! A tool's request template and a call's arguments become one request. Pure, no I/O.
//!
//! Owns: [`render`] and [`Rendered`].
//! Promises: each hole is encoded by its position ([`crate::encode`]), a number leaves with the
//! digits that came, an array fills a parameter by repeating it, an absent (or, outside of JSON,
//! null) argument leaves its parameter out; an absent one in the path is an error.
//! Does not: judge where the request may go (the binding does), nor check arguments against the
//! schema (mcpistd did).

use std::borrow::Cow;

use mcpist_core::http::Template;
use mcpist_core::http::{
    ArgName, Body, HttpTool, JsonTemplate, Method, Param, PathTemplate, Piece,
};
use thiserror::Error;

use crate::encode::{self, EncodeError};
use crate::json::{Doc, JsonError, Kind, Value};
use crate::room::Room;

/// Why arguments do not fill a template. The argument is named; its value is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The arguments are no JSON object.
    #[error("the arguments are no JSON object: {0}")]
    Arguments(JsonError),
    /// The arguments are JSON, but no object.
    #[error("the arguments are no JSON object")]
    NoObject,
    /// The path needs an argument that is absent.
    #[error("argument \"{0}\" is missing; the path needs it")]
    Missing(String),
    /// An array or object where only one text can stand.
    #[error("argument \"{0}\" must be a string, a number or a boolean here")]
    NotText(String),
    /// The value cannot stand in its position.
    #[error("argument \"{name}\": {source}")]
    Encode {
        /// The argument.
        name: String,
        /// The rule.
        source: EncodeError,
    },
    /// A path segment made of several pieces is `.` or `..`.
    #[error("the arguments make a path segment that steps up; give other values")]
    Segment,
}

/// A request without its host and its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The method.
    pub method: Method,
    /// The encoded path, from its slash.
    pub path: String,
    /// The encoded query without `?`; empty for none.
    pub query: String,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// Content type and bytes.
    pub body: Option<(&'static str, Vec<u8>)>,
}

impl Rendered {
    /// Adds a query parameter.
    pub fn add_query(&mut self, name: &str, value: &str) {
        push_pair(&mut self.query, name, value);
    }
}

/// Fills `tool` with `arguments`, a JSON object's text.
///
/// # Errors
/// [`RenderError`], which names the argument.
pub fn render(tool: &HttpTool, arguments: &[u8]) -> Result<Rendered, RenderError> {
    let doc = Doc::parse(arguments, &mut Room::unbounded()).map_err(RenderError::Arguments)?;
    if doc.root().kind() != Kind::Object {
        return Err(RenderError::NoObject);
    }
    let arguments = Arguments(doc.root());
    let mut query = String::new();
    arguments.pairs(&tool.query, &mut query)?;
    let mut headers = Vec::with_capacity(tool.headers.len());
    for param in &tool.headers {
        arguments.values(&param.value, |name, text| {
            encode::header_value(&text).map_err(|source| bad(name, source))?;
            headers.push((param.name.clone(), text.into_owned()));
            Ok(())
        })?;
    }
    let body = match &tool.body {
        None => None,
        Some(Body::Form(form)) => {
            let mut out = String::new();
            arguments.pairs(form, &mut out)?;
            Some(("application/x-www-form-urlencoded", out.into_bytes()))
        }
        Some(Body::Json(template)) => {
            let mut out = Vec::with_capacity(256);
            // A body that is one absent argument is no JSON text; null is the closest.
            if !arguments.json(template, &mut out)? {
                out.extend_from_slice(b"null");
            }
            Some(("application/json", out))
        }
    };
    Ok(Rendered {
        method: tool.method,
        path: arguments.path(&tool.path)?,
        query,
        headers,
        body,
    })
}

fn bad(name: Option<&ArgName>, source: EncodeError) -> RenderError {
    RenderError::Encode {
        name: name.map_or("", ArgName::as_str).to_owned(),
        source,
    }
}

fn push_pair(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push('&');
    }
    encode::parameter_name(out, name);
    out.push('=');
    encode::component(out, value);
}

struct Arguments<'d>(Value<'d>);

impl<'d> Arguments<'d> {
    fn get(&self, name: &ArgName) -> Option<Value<'d>> {
        self.0.get(name.as_str())
    }

    /// The text of an argument outside of JSON; `None` when absent or null.
    fn text(&self, name: &ArgName) -> Result<Option<Cow<'d, str>>, RenderError> {
        self.get(name).map_or(Ok(None), |value| scalar(name, value))
    }

    fn path(&self, path: &PathTemplate) -> Result<String, RenderError> {
        let mut out = String::with_capacity(64);
        for segment in path.segments() {
            out.push('/');
            let start = out.len();
            for piece in segment.pieces() {
                match piece {
                    Piece::Literal(text) => out.push_str(text),
                    Piece::Hole(name) => {
                        let text = self.text(name)?;
                        let text =
                            text.ok_or_else(|| RenderError::Missing(name.as_str().into()))?;
                        encode::path_hole(&mut out, &text).map_err(|e| bad(Some(name), e))?;
                    }
                }
            }
            // Only a literal segment may be empty: the one behind a trailing slash.
            if segment.literal().is_none() {
                encode::whole_segment(&out[start..]).map_err(|_| RenderError::Segment)?;
            }
        }
        Ok(out)
    }

    fn pairs(&self, params: &[Param], out: &mut String) -> Result<(), RenderError> {
        for param in params {
            self.values(&param.value, |_, text| {
                push_pair(out, &param.name, &text);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Calls `take` for each value that the parameter gets: none, one, or one for each element.
    fn values<'t>(
        &self,
        template: &'t Template,
        mut take: impl FnMut(Option<&'t ArgName>, Cow<'_, str>) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        if let Some(text) = template.literal() {
            return take(None, Cow::Borrowed(text));
        }
        if let Some(name) = template.whole() {
            let Some(value) = self.get(name) else {
                return Ok(());
            };
            if value.kind() == Kind::Array {
                for element in value.elements() {
                    if let Some(text) = scalar(name, element)? {
                        take(Some(name), text)?;
                    }
                }
                return Ok(());
            }
        }
        match self.joined(template)? {
            Some(text) => take(template.holes().next(), Cow::Owned(text)),
            None => Ok(()),
        }
    }

    /// Literals and arguments in a row; `None` when one is absent.
    fn joined(&self, template: &Template) -> Result<Option<String>, RenderError> {
        let mut out = String::new();
        for piece in template.pieces() {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Hole(name) => match self.text(name)? {
                    Some(text) => out.push_str(&text),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(out))
    }

    /// Writes the value, or nothing (`false`) when an argument that it needs is absent.
    fn json(&self, template: &JsonTemplate, out: &mut Vec<u8>) -> Result<bool, RenderError> {
        match template {
            JsonTemplate::Null => out.extend_from_slice(b"null"),
            JsonTemplate::Bool(value) => {
                out.extend_from_slice(if *value { b"true" } else { b"false" });
            }
            JsonTemplate::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            JsonTemplate::Hole(name) => match self.get(name) {
                Some(value) => out.extend_from_slice(value.raw().as_bytes()),
                None => return Ok(false),
            },
            JsonTemplate::Text(text) => match self.joined(text)? {
                Some(text) => push_string(out, &text),
                None => return Ok(false),
            },
            JsonTemplate::Array(items) => {
                out.push(b'[');
                let mut separator = Separator::new();
                for item in items {
                    let start = separator.begin(out);
                    let written = self.json(item, out)?;
                    separator.end(out, start, written);
                }
                out.push(b']');
            }
            JsonTemplate::Object(members) => {
                out.push(b'{');
                let mut separator = Separator::new();
                for (key, value) in members {
                    let start = separator.begin(out);
                    push_string(out, key);
                    out.push(b':');
                    let written = self.json(value, out)?;
                    separator.end(out, start, written);
                }
                out.push(b'}');
            }
        }
        Ok(true)
    }
}

/// Commas between the items that stay.
struct Separator {
    any: bool,
}

impl Separator {
    fn new() -> Separator {
        Separator { any: false }
    }

    fn begin(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        if self.any {
            out.push(b',');
        }
        start
    }

    fn end(&mut self, out: &mut Vec<u8>, start: usize, written: bool) {
        match written {
            true => self.any = true,
            false => out.truncate(start),
        }
    }
}

fn scalar<'d>(name: &ArgName, value: Value<'d>) -> Result<Option<Cow<'d, str>>, RenderError> {
    match value.kind() {
        Kind::Null => Ok(None),
        Kind::String => Ok(value.as_str()),
        Kind::Bool | Kind::Number => Ok(Some(Cow::Borrowed(value.raw()))),
        Kind::Array | Kind::Object => Err(RenderError::NotText(name.as_str().to_owned())),
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tool(json: &str) -> HttpTool {
        let tool: HttpTool = serde_json::from_str(json).unwrap();
        tool.check().unwrap();
        tool
    }

    fn get(path: &str, rest: &str) -> HttpTool {
        tool(&format!(
            r#"{{"slot":"s","method":"GET","path":"{path}"{rest}}}"#
        ))
    }

    fn query(rest: &str, arguments: &str) -> String {
        render(
            &get("/", &format!(",\"query\":{rest}")),
            arguments.as_bytes(),
        )
        .unwrap()
        .query
    }

    fn json_body(body: &str, arguments: &str) -> String {
        let tool = tool(&format!(
            r#"{{"slot":"s","method":"POST","path":"/","body":{{"json":{body}}}}}"#
        ));
        let (kind, bytes) = render(&tool, arguments.as_bytes()).unwrap().body.unwrap();
        assert_eq!(kind, "application/json");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_path_is_filled_segment_by_segment() {
        let tool = get("/api/{project}/v{n}.json/", "");
        let done = render(&tool, br#"{"project":"a b","n":1.10}"#).unwrap();
        assert_eq!(done.path, "/api/a%20b/v1.10.json/");
        assert_eq!(
            render(&tool, br#"{"n":1}"#).unwrap_err(),
            RenderError::Missing("project".into())
        );
        for evil in ["a/b", "..", "%2e%2e", "a\\\\b", "a\\r\\nb", ""] {
            let arguments = format!(r#"{{"project":"{evil}","n":1}}"#);
            let error = render(&tool, arguments.as_bytes()).unwrap_err();
            assert!(
                matches!(error, RenderError::Encode { .. }),
                "{evil}: {error}"
            );
        }
        // Two arguments that are harmless alone.
        let error = render(&get("/x/{a}{b}", ""), br#"{"a":".","b":"x"}"#).unwrap_err();
        assert!(matches!(error, RenderError::Encode { .. }));
        let error = render(&get("/x/.{a}", ""), br#"{"a":"."}"#).unwrap_err();
        assert!(matches!(error, RenderError::Encode { .. }));
    }

    #[test]
    fn parameters_repeat_and_vanish() {
        let spec = r#"[{"name":"f[]","value":"{list}"},{"name":"q","value":"a-{x}"},{"name":"n","value":"1"}]"#;
        assert_eq!(
            query(spec, r#"{"list":["a&b","c",null,2],"x":"y z"}"#),
            "f[]=a%26b&f[]=c&f[]=2&q=a-y%20z&n=1"
        );
        assert_eq!(query(spec, r#"{"list":[],"x":null}"#), "n=1");
        assert_eq!(query(spec, r#"{"list":true}"#), "f[]=true&n=1");
    }

    #[test]
    fn no_object_stands_in_a_text() {
        let tool = get("/", r#","query":[{"name":"q","value":"{a}"}]"#);
        for arguments in [r#"{"a":{}}"#, r#"{"a":[[1]]}"#] {
            let error = render(&tool, arguments.as_bytes()).unwrap_err();
            assert_eq!(error, RenderError::NotText("a".into()));
        }
        assert_eq!(render(&tool, b"[]").unwrap_err(), RenderError::NoObject);
    }

    #[test]
    fn a_header_takes_one_line_only() {
        let tool = get("/", r#","headers":[{"name":"x-a","value":"{a}"}]"#);
        let done = render(&tool, br#"{"a":["1","b c"]}"#).unwrap();
        assert_eq!(
            done.headers,
            [("x-a".into(), "1".into()), ("x-a".into(), "b c".into())]
        );
        for evil in ["a\\r\\nHost: b", "a\\u0000", "\\u00e9"] {
            let arguments = format!(r#"{{"a":"{evil}"}}"#);
            let error = render(&tool, arguments.as_bytes()).unwrap_err();
            assert!(matches!(error, RenderError::Encode { .. }), "{evil}");
        }
    }

    #[test]
    fn a_json_body_takes_arguments_as_they_came() {
        let body =
            r#"{"a":"{a}","b":"id-{b}","c":["{c}",1,{"d":"{d}"}],"e":null,"t":true,"n":2.5}"#;
        assert_eq!(
            json_body(body, r#"{"a":{"z":1.10,"y":[]},"b":"q\"","c":null}"#),
            r#"{"a":{"z":1.10,"y":[]},"b":"id-q\"","c":[null,1,{}],"e":null,"t":true,"n":2.5}"#
        );
        assert_eq!(
            json_body(body, "{}"),
            r#"{"c":[1,{}],"e":null,"t":true,"n":2.5}"#
        );
    }

    #[test]
    fn a_form_is_encoded_like_a_query() {
        let tool = tool(
            r#"{"slot":"s","method":"POST","path":"/","body":{"form":[{"name":"a","value":"{a}"}]}}"#,
        );
        let (kind, bytes) = render(&tool, br#"{"a":"x=1&y +"}"#).unwrap().body.unwrap();
        assert_eq!(kind, "application/x-www-form-urlencoded");
        assert_eq!(bytes, b"a=x%3D1%26y%20%2B");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_argument_changes_the_shape_of_the_request(a in ".{0,16}", b in ".{0,16}") {
            let tool = get("/p/{a}/q", r#","query":[{"name":"k","value":"{b}"}]"#);
            let arguments = serde_json::json!({"a": a, "b": b}).to_string();
            if let Ok(done) = render(&tool, arguments.as_bytes()) {
                prop_assert_eq!(done.path.split('/').count(), 4);
                prop_assert!(!done.path.contains(['?', '#', '\\', ' ']));
                prop_assert!(!done.query[2..].contains(['&', '=', '#', ' ']));
            }
        }

        #[test]
        fn a_json_body_is_always_json(a in ".{0,16}", n in any::<f64>(), absent in any::<bool>()) {
            let mut arguments = serde_json::json!({"a": a, "n": n});
            if absent { arguments.as_object_mut().unwrap().remove("a"); }
            let text = json_body(r#"{"x":["{a}","p{a}"],"y":"{n}"}"#, &arguments.to_string());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["x"].as_array().unwrap().len(), if absent { 0 } else { 2 });
        }
    }
}
