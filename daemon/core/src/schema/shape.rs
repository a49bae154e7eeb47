//! What a schema may look like before the engine sees it: its keywords, its references and its work.
//!
//! Every subschema is visited once, from a list, so neither depth nor references cost stack. Work is
//! counted level by level of a value, as deep as arguments may be: how many subschemas are applied
//! to one part of it at most. A recursion that is applied twice to one part doubles with each level
//! and so counts itself out; one that goes into different parts stays as it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::compile::{Size, text_parts};
use super::{SchemaError, costly};
use crate::scan::Limits;
use crate::text::Pointer;

/// Most subschemas that may be applied to one part of a value.
const MAX_APPLIED: u64 = 4096;
/// Most subschemas within each other on one part of a value: the engine's stack, at each level.
const MAX_NESTED: usize = 16;
/// Most subschemas of one schema: each is compiled to a hundred times of the three bytes that it may
/// take here.
const MAX_SUBSCHEMAS: usize = 10_000;
/// Most patterns of one schema: each is compiled, whether it is used or not.
const MAX_PATTERNS: usize = 64;
/// Names, in parts, and entries of an `enum` that count as one subschema.
const PARTS: u64 = 8;
/// Deepest value to be compared with: the engine may compare what is within each object twice.
const MAX_COMPARED: u64 = 4;
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords that are not taken, and what to write instead. Those that look at what other keywords
/// have evaluated make the engine compile and apply these again at each level.
const REFUSED: [(&str, &str); 10] = [
    ("$dynamicRef", REFER),
    ("$dynamicAnchor", REFER),
    ("$anchor", REFER),
    ("$recursiveRef", REFER),
    ("$recursiveAnchor", REFER),
    ("unevaluatedProperties", CLOSE),
    ("unevaluatedItems", CLOSE),
    (
        "dependencies",
        "write `dependentRequired` or `dependentSchemas`",
    ),
    ("additionalItems", "write `items`, after `prefixItems`"),
    ("contentSchema", "leave it out: it checks nothing"),
];
const REFER: &str = "refer by `$ref` to `#/$defs/…`";
const CLOSE: &str =
    "name what is allowed in one place, and close it by `additionalProperties` or `items`";

/// Checks the schema and gives the number of subschemas that are applied to one part of a value at
/// most.
pub(super) fn check(root: &Value) -> Result<u64, SchemaError> {
    let object = root.as_object();
    let draft = object.and_then(|o| o.get("$schema"));
    if draft.is_some_and(|d| d.as_str().map(|d| d.trim_end_matches('#')) != Some(DRAFT)) {
        let instead = "leave `$schema` out, or name draft 2020-12";
        return Err(unsupported("$schema", "another draft", instead));
    }
    if object.and_then(|o| o.get("type")).and_then(Value::as_str) != Some("object") {
        let instead = "a tool's schema begins with \"type\": \"object\"";
        return Err(unsupported("type", "no `object`", instead));
    }
    let graph = Graph::of(root)?;
    let order = graph.order()?;
    let applied = graph.applied(&order);
    if applied > MAX_APPLIED {
        let instead = "repeat less in allOf, anyOf and oneOf, and let one branch alone recurse";
        return Err(unsupported("", "more work than any tool needs", instead));
    }
    Ok(applied)
}

/// One subschema and where its own subschemas apply, as places in [`Graph::nodes`].
#[derive(Default)]
struct Node {
    /// What it costs by itself, in subschemas.
    own: u64,
    /// To the same value.
    same: Vec<usize>,
    /// To a part of it, and at most one of these to each part.
    apart: Vec<usize>,
    /// To a part of it, perhaps all to one part.
    shared: Vec<usize>,
}

/// The subschemas of a document, the root first.
struct Graph<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    /// By address within `root`, which does not move.
    known: BTreeMap<*const Value, usize>,
    /// Known and not read yet, each at its place in `nodes`.
    due: Vec<(usize, &'a Value)>,
    patterns: usize,
}

impl<'a> Graph<'a> {
    fn of(root: &'a Value) -> Result<Graph<'a>, SchemaError> {
        let mut graph = Graph {
            root,
            nodes: Vec::new(),
            known: BTreeMap::new(),
            due: Vec::new(),
            patterns: 0,
        };
        graph.place(root);
        while let Some((at, schema)) = graph.due.pop() {
            if graph.nodes.len() > MAX_SUBSCHEMAS {
                let instead = "use at most 10000 in one schema";
                return Err(unsupported("", "too many subschemas", instead));
            }
            graph.nodes[at] = match schema {
                Value::Object(object) => graph.read(schema, object)?,
                _ => Node {
                    own: 1,
                    ..Node::default()
                },
            };
        }
        Ok(graph)
    }

    /// Where the subschema is, or will be once it is read.
    fn place(&mut self, schema: &'a Value) -> usize {
        let address: *const Value = schema;
        *self.known.entry(address).or_insert_with(|| {
            self.nodes.push(Node::default());
            self.due.push((self.nodes.len() - 1, schema));
            self.nodes.len() - 1
        })
    }

    fn place_all(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Vec<usize> {
        schemas.map(|schema| self.place(schema)).collect()
    }

    fn read(
        &mut self,
        schema: &'a Value,
        object: &'a Map<String, Value>,
    ) -> Result<Node, SchemaError> {
        for (keyword, instead) in REFUSED {
            if object.contains_key(keyword) {
                let what = "a keyword that is not taken here";
                return Err(unsupported(keyword, what, instead));
            }
        }
        if object.contains_key("$id") && !std::ptr::eq(schema, self.root) {
            let instead = "leave `$id` out but at the top";
            return Err(unsupported("$id", "a document of its own", instead));
        }
        let mut node = Node {
            own: 1,
            ..Node::default()
        };
        for (keyword, value) in object {
            let one = std::iter::once(value);
            match keyword.as_str() {
                "$ref" => {
                    let target = value.as_str().and_then(|text| self.target(text));
                    let target = target.ok_or_else(|| {
                        let instead = "refer to `#` or `#/…` within this document";
                        unsupported("$ref", "a reference that leads nowhere here", instead)
                    })?;
                    node.same.push(self.place(target));
                }
                "not" | "if" | "then" | "else" => node.same.extend(self.place_all(one)),
                "allOf" | "anyOf" | "oneOf" => node.same.extend(self.place_all(items(value))),
                "dependentSchemas" => node.same.extend(self.place_all(members(Some(value)))),
                "items" | "additionalProperties" => node.apart.extend(self.place_all(one)),
                "prefixItems" => node.apart.extend(self.place_all(items(value))),
                "properties" => {
                    let names = value.as_object().into_iter().flat_map(Map::keys);
                    node.own += names.map(|name| text_parts(name)).sum::<u64>() / PARTS;
                    node.apart.extend(self.place_all(members(Some(value))));
                }
                "contains" | "propertyNames" => node.shared.extend(self.place_all(one)),
                "patternProperties" => {
                    let patterns = value.as_object().into_iter().flat_map(Map::keys);
                    self.patterns += patterns.clone().count();
                    within_patterns(self.patterns)?;
                    node.own += patterns.map(|pattern| costly::weight(pattern)).sum::<u64>();
                    node.shared.extend(self.place_all(members(Some(value))));
                }
                "pattern" => {
                    self.patterns += 1;
                    within_patterns(self.patterns)?;
                }
                "enum" | "const" => {
                    if Size::of(value).depth > MAX_COMPARED {
                        let instead = "describe its members by subschemas";
                        return Err(unsupported(keyword, "a value nested deeply", instead));
                    }
                    if keyword == "enum" {
                        node.own += items(value).count() as u64 / PARTS;
                    }
                }
                "required" | "dependentRequired" | "type" => {
                    if !lists_texts(value) {
                        return Err(unsupported(
                            keyword,
                            "an entry that is no text",
                            "list texts",
                        ));
                    }
                    node.own += Size::of(value).parts / PARTS;
                }
                // What nothing refers to is held to the same rules.
                "$defs" | "definitions" => {
                    self.place_all(members(Some(value)));
                }
                _ => {}
            }
        }
        Ok(node)
    }

    /// The subschema that a `$ref` names, where it is a plain pointer into this document.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.contains('%') {
            return None; // percent-encoded pointers: one spelling only
        }
        self.root.pointer(pointer)
    }

    /// All places, each after those that apply to the same value.
    fn order(&self) -> Result<Vec<usize>, SchemaError> {
        let mut above = vec![Vec::new(); self.nodes.len()];
        let mut left = vec![0; self.nodes.len()];
        let mut nested = vec![1; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            left[at] = node.same.len();
            node.same.iter().for_each(|&below| above[below].push(at));
        }
        let mut order: Vec<usize> = (0..left.len()).filter(|&at| left[at] == 0).collect();
        let mut next = 0;
        while let Some(&below) = order.get(next) {
            next += 1;
            for &at in &above[below] {
                nested[at] = nested[at].max(nested[below] + 1);
                left[at] -= 1;
                if left[at] == 0 {
                    order.push(at);
                }
            }
        }
        if order.len() < self.nodes.len() {
            let instead = "let the recursion descend into a property or an item";
            return Err(unsupported("$ref", "a loop", instead));
        }
        if nested.into_iter().any(|nested| nested > MAX_NESTED) {
            let instead = "nest and refer at most 16 deep without a property or an item between";
            return Err(unsupported("", "too much nesting", instead));
        }
        Ok(order)
    }

    /// The most subschemas that the root applies to one part, at whatever level of the value.
    fn applied(&self, order: &[usize]) -> u64 {
        let mut most = 0;
        let mut above = vec![0u64; self.nodes.len()];
        for level in 0..=Limits::DEPTH {
            let mut here = vec![0u64; self.nodes.len()];
            for &at in order {
                let node = &self.nodes[at];
                let sum = |places: &[usize], of: &[u64]| {
                    places
                        .iter()
                        .fold(0u64, |sum, &p| sum.saturating_add(of[p]))
                };
                let by_parts = if level == 0 {
                    node.own
                } else {
                    let one = node.apart.iter().map(|&p| above[p]).max();
                    one.unwrap_or(0).saturating_add(sum(&node.shared, &above))
                };
                here[at] = by_parts.saturating_add(sum(&node.same, &here));
            }
            most = most.max(here[0]); // the root's place
            above = here;
        }
        most
    }
}

/// Whether there are texts alone below, however listed: the meta-schema compares them.
fn lists_texts(value: &Value) -> bool {
    match value {
        Value::Object(lists) => lists.values().all(lists_texts),
        Value::Array(texts) => texts.iter().all(Value::is_string),
        other => other.is_string(),
    }
}

fn within_patterns(count: usize) -> Result<(), SchemaError> {
    if count > MAX_PATTERNS {
        let instead = "use at most 64 in one schema";
        return Err(unsupported("pattern", "too many patterns", instead));
    }
    Ok(())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let object = value.and_then(Value::as_object);
    object.into_iter().flat_map(|object| object.values())
}

/// `keyword` is empty for the schema as a whole.
fn unsupported(keyword: &str, what: &'static str, instead: &'static str) -> SchemaError {
    let mut path = Pointer::root();
    if !keyword.is_empty() {
        path.push_name(keyword);
    }
    SchemaError::Unsupported {
        path,
        what,
        instead,
    }
}
