//! The answer of `get_module_schema`: one page of what a principal may see. Pure functions, no I/O.
//!
//! Owns: which of the offered tools a page shows, how, and where the next page starts.
//! Promises: the same offers and query give the same bytes; in full detail each entry holds the whole
//! inner MCP tool in its own bytes, beside their digest; a page is bounded, one entry excepted.
//! Does not: decide what a principal may see. What is not offered is answered as what does not exist.

use mcpist_core::access::Access;
use mcpist_core::catalogue::Tool;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, ModuleName, SchemaRef, ToolName};
use mcpist_core::result::ToolError;
use mcpist_core::text::excerpt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::reply::quoted;

/// Bytes of entries after which a page ends.
const PAGE_BYTES: usize = 32 * 1024;
/// Longest description in a summary, in bytes.
const SUMMARY_BYTES: usize = 240;

/// How much of each tool is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Module and tool name.
    Names,
    /// Those, access, title and the start of the description.
    Summary,
    /// The whole tool with its schemas, its digest and its `schema_ref`.
    Full,
}

/// What a client asks to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaQuery {
    /// Only this module: any text.
    pub module: Option<String>,
    /// Only tools of this name: any text.
    pub tool_name: Option<String>,
    /// Words in lower case, all of which must occur in a tool's names, title or description.
    pub words: Vec<String>,
    /// How much of each.
    pub detail: Detail,
    /// Only what comes after this tool.
    pub after: Option<(ModuleName, ToolName)>,
}

/// A tool that a principal may see.
#[derive(Debug, Clone, Copy)]
pub struct SchemaEntry<'a> {
    /// Its module.
    pub module: &'a ModuleName,
    /// Its name in the module.
    pub tool_name: &'a ToolName,
    /// What it can do.
    pub access: Access,
    /// The whole inner MCP tool.
    pub tool: &'a RawValue,
    /// SHA-256 of the bytes of `tool`.
    pub digest: &'a Digest,
    /// What a call echoes.
    pub schema_ref: SchemaRef,
}

impl<'a> From<&'a Tool> for SchemaEntry<'a> {
    fn from(tool: &'a Tool) -> SchemaEntry<'a> {
        SchemaEntry {
            module: tool.module(),
            tool_name: tool.name(),
            access: tool.access(),
            tool: tool.inner(),
            digest: tool.digest(),
            schema_ref: tool.schema_ref(),
        }
    }
}

/// What became of an offered tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is on the page.
    Shown,
    /// The query does not ask for it, or an earlier page had it.
    Skipped,
    /// The page is full and names this tool as the start of the next one: offer no more.
    Full,
}

/// A page in the making.
#[derive(Debug)]
pub struct SchemaPage {
    query: SchemaQuery,
    entries: String,
    /// The module and tool that the query names are there, whatever else it asks for.
    named_exists: bool,
    last: Option<(ModuleName, ToolName)>,
    full: bool,
}

impl SchemaPage {
    /// An empty page for `query`.
    pub fn new(query: SchemaQuery) -> SchemaPage {
        SchemaPage {
            query,
            entries: String::new(),
            named_exists: false,
            last: None,
            full: false,
        }
    }

    /// What is asked for.
    pub fn query(&self) -> &SchemaQuery {
        &self.query
    }

    /// Puts the tool on the page if it belongs there. Offers must come in ascending order of (module,
    /// tool).
    pub fn offer(&mut self, entry: &SchemaEntry<'_>) -> Offer {
        if self.full {
            return Offer::Full;
        }
        let named = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|a| a == name);
        if !named(&self.query.module, entry.module.as_str())
            || !named(&self.query.tool_name, entry.tool_name.as_str())
        {
            return Offer::Skipped;
        }
        self.named_exists = true;
        let key = (entry.module, entry.tool_name);
        if self
            .query
            .after
            .as_ref()
            .is_some_and(|(module, tool)| key <= (module, tool))
        {
            return Offer::Skipped;
        }
        let head = Head::of(entry.tool);
        if !self.query.words.is_empty() && !head.has_words(entry, &self.query.words) {
            return Offer::Skipped;
        }
        let text = match self.query.detail {
            Detail::Names => entry.names(),
            Detail::Summary => entry.summary(&head),
            Detail::Full => entry.full(),
        };
        if self.last.is_some() {
            if self.entries.len() + text.len() > PAGE_BYTES {
                self.full = true;
                return Offer::Full;
            }
            self.entries.push(',');
        }
        self.entries.push_str(&text);
        self.last = Some((entry.module.clone(), entry.tool_name.clone()));
        Offer::Shown
    }

    /// The page as JSON text.
    ///
    /// # Errors
    /// `unknown_module` or `unknown_tool` when the query names one that was not offered.
    pub(crate) fn finish(self) -> Result<String, ToolError> {
        if !self.named_exists {
            let code = match (&self.query.module, &self.query.tool_name) {
                (_, Some(_)) => Some(ErrorCode::UnknownTool),
                (Some(_), None) => Some(ErrorCode::UnknownModule),
                (None, None) => None,
            };
            if let Some(code) = code {
                let hint = "call get_module_schema without arguments to list what there is";
                return Err(ToolError::with(code, &format!("{}: {hint}", code.about())));
            }
        }
        let tail = match (self.full, &self.last) {
            (true, Some((module, tool))) => format!(r#","next_cursor":"{module}/{tool}""#),
            (_, None) if self.query.after.is_some() => String::new(),
            (_, None) if !self.query.words.is_empty() => {
                r#","note":"no tool has all these words: use fewer or others""#.to_owned()
            }
            (_, None) => r#","note":"no tool is granted to you""#.to_owned(),
            (false, Some(_)) => String::new(),
        };
        Ok(format!(r#"{{"tools":[{}]{tail}}}"#, self.entries))
    }
}

/// Reads a cursor back.
pub(crate) fn parse_cursor(text: &str) -> Option<(ModuleName, ToolName)> {
    let (module, tool) = text.split_once('/')?;
    Some((ModuleName::parse(module).ok()?, ToolName::parse(tool).ok()?))
}

impl SchemaEntry<'_> {
    // Names, access, digest and reference hold no character that JSON escapes (core's promise).
    fn names(&self) -> String {
        format!(
            r#"{{"module":"{}","tool_name":"{}"}}"#,
            self.module, self.tool_name
        )
    }

    fn summary(&self, head: &Head) -> String {
        let mut text = format!(
            r#"{{"module":"{}","tool_name":"{}","access":"{}""#,
            self.module, self.tool_name, self.access
        );
        for (name, value) in [("title", &head.title), ("description", &head.description)] {
            if let Some(value) = value {
                let value = quoted(excerpt(value, SUMMARY_BYTES));
                text.push_str(&format!(r#","{name}":{value}"#));
            }
        }
        text.push('}');
        text
    }

    pub(crate) fn full(&self) -> String {
        format!(
            r#"{{"module":"{}","tool_name":"{}","access":"{}","schema_ref":"{}","digest":"{}","tool":{}}}"#,
            self.module,
            self.tool_name,
            self.access,
            self.schema_ref,
            self.digest,
            self.tool.get()
        )
    }
}

/// What a summary and a search read of an inner tool.
#[derive(Default, Deserialize)]
struct Head {
    title: Option<String>,
    description: Option<String>,
}

impl Head {
    fn of(tool: &RawValue) -> Head {
        serde_json::from_str(tool.get()).unwrap_or_default()
    }

    fn has_words(&self, entry: &SchemaEntry<'_>, words: &[String]) -> bool {
        let text = format!(
            "{} {} {} {}",
            entry.module,
            entry.tool_name,
            self.title.as_deref().unwrap_or_default(),
            self.description.as_deref().unwrap_or_default()
        )
        .to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::ids::{ModuleRev, RegistryId};
    use serde_json::Value;

    use super::*;

    struct Own {
        module: ModuleName,
        name: ToolName,
        inner: Box<RawValue>,
        digest: Digest,
        schema_ref: SchemaRef,
    }

    impl Own {
        fn new(module: &str, name: &str, description: &str) -> Own {
            let inner = format!(
                r#"{{"name":"{name}","title":"T","description":"{description}","inputSchema":{{"type":"object"}}}}"#
            );
            let digest = Digest::of(inner.as_bytes());
            let module = ModuleName::parse(module).unwrap();
            let rev = ModuleRev {
                registry: RegistryId::of_manifest(b"m"),
                module: module.clone(),
            };
            Own {
                module,
                name: ToolName::parse(name).unwrap(),
                inner: RawValue::from_string(inner).unwrap(),
                digest,
                schema_ref: SchemaRef::of(&rev, &digest),
            }
        }

        fn entry(&self) -> SchemaEntry<'_> {
            SchemaEntry {
                module: &self.module,
                tool_name: &self.name,
                access: Access::Read,
                tool: &self.inner,
                digest: &self.digest,
                schema_ref: self.schema_ref,
            }
        }
    }

    fn query(detail: Detail) -> SchemaQuery {
        SchemaQuery {
            module: None,
            tool_name: None,
            words: Vec::new(),
            detail,
            after: None,
        }
    }

    fn page(tools: &[Own], query: SchemaQuery) -> Result<Value, ToolError> {
        let mut page = SchemaPage::new(query);
        for tool in tools {
            page.offer(&tool.entry());
        }
        page.finish()
            .map(|text| serde_json::from_str(&text).unwrap())
    }

    fn some_tools() -> Vec<Own> {
        vec![
            Own::new("metrics", "query", "Ask a metrics store"),
            Own::new("wiki", "page", "Read one page"),
            Own::new("wiki", "search", "Find pages by text"),
        ]
    }

    #[test]
    fn full_detail_holds_the_inner_tool_in_its_own_bytes() {
        let tools = some_tools();
        let query = SchemaQuery {
            module: Some("metrics".into()),
            ..query(Detail::Full)
        };
        let mut page = SchemaPage::new(query);
        assert_eq!(page.offer(&tools[0].entry()), Offer::Shown);
        assert_eq!(page.offer(&tools[1].entry()), Offer::Skipped);
        let text = page.finish().unwrap();
        assert!(text.contains(tools[0].inner.get()), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["tools"][0]["digest"],
            Digest::of(tools[0].inner.get().as_bytes()).to_string()
        );
        assert_eq!(
            value["tools"][0]["schema_ref"],
            tools[0].schema_ref.to_string()
        );
    }

    #[test]
    fn words_must_all_occur() {
        let words = |words: &[&str]| SchemaQuery {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            ..query(Detail::Names)
        };
        let found = page(&some_tools(), words(&["page", "find"])).unwrap();
        assert_eq!(found["tools"].as_array().unwrap().len(), 1);
        assert_eq!(found["tools"][0]["tool_name"], "search");
        let none = page(&some_tools(), words(&["page", "metrics"])).unwrap();
        assert!(none["tools"].as_array().unwrap().is_empty() && none["note"].is_string());
    }

    #[test]
    fn what_is_not_offered_is_unknown_and_an_empty_page_is_not() {
        let named = |module: Option<&str>, tool: Option<&str>| SchemaQuery {
            module: module.map(Into::into),
            tool_name: tool.map(Into::into),
            ..query(Detail::Full)
        };
        let code = |q| page(&some_tools(), q).unwrap_err().code();
        assert_eq!(
            code(named(Some("wiki"), Some("drop"))),
            ErrorCode::UnknownTool
        );
        assert_eq!(code(named(Some("secret"), None)), ErrorCode::UnknownModule);
        assert_eq!(
            page(&[], query(Detail::Names)).unwrap()["tools"],
            serde_json::json!([])
        );
    }

    #[test]
    fn pages_follow_each_other_without_a_gap_or_a_repeat() {
        let description = "x".repeat(3_000);
        let tools: Vec<Own> = (0..40)
            .map(|n| Own::new("big", &format!("t{n:02}"), &description))
            .collect();
        let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let found = page(
                &tools,
                SchemaQuery {
                    after,
                    ..query(Detail::Full)
                },
            )
            .unwrap();
            assert!(found.to_string().len() < PAGE_BYTES + 4_000);
            seen.extend(
                found["tools"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t["tool_name"].to_string()),
            );
            pages += 1;
            let Some(cursor) = found["next_cursor"].as_str() else {
                break;
            };
            after = Some(parse_cursor(cursor).unwrap());
        }
        let expected: Vec<String> = (0..40).map(|n| format!("\"t{n:02}\"")).collect();
        assert_eq!(seen, expected);
        assert!(pages > 2);
    }

    #[test]
    fn one_entry_over_the_bound_still_shows() {
        let tools = [
            Own::new("a", "huge", &"x".repeat(PAGE_BYTES * 2)),
            Own::new("a", "next", "n"),
        ];
        let found = page(&tools, query(Detail::Full)).unwrap();
        assert_eq!(found["tools"].as_array().unwrap().len(), 1);
        assert_eq!(found["next_cursor"], "a/huge");
    }
}
