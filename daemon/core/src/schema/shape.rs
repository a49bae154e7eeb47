//! What a schema may look like before the engine sees it: its references and its work.
//!
//! Every subschema is walked once. A reference is followed only in thought, with the weight of its
//! target, so a small document cannot unfold into endless work.

use std::collections::BTreeMap;

use serde_json::Value;

use super::SchemaError;
use crate::text::Pointer;

/// Most subschemas that matching a flat value may visit.
const MAX_WEIGHT: u64 = 20_000;
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords whose subschema applies to the same value.
const SAME: [&str; 4] = ["not", "if", "then", "else"];
/// The same, as lists of subschemas.
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose subschema applies to a part of the value.
const PART: [&str; 6] = [
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose members' values are subschemas for a part of the value.
const PART_MAPS: [&str; 2] = ["properties", "patternProperties"];

pub(super) fn check(root: &Value) -> Result<(), SchemaError> {
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
    let mut walk = Walk {
        root,
        known: BTreeMap::new(),
        parts: 0,
    };
    let mut weight = walk.weigh(root)?;
    // Definitions that nothing refers to are compiled all the same.
    for map in ["$defs", "definitions"] {
        for schema in object
            .and_then(|o| o.get(map))
            .and_then(Value::as_object)
            .into_iter()
        {
            for schema in schema.values() {
                weight = weight.max(walk.weigh(schema)?);
            }
        }
    }
    if weight > MAX_WEIGHT {
        return Err(too_heavy());
    }
    Ok(())
}

enum Known {
    /// Being walked; the number of parts that were entered on the way to it.
    Open(u32),
    Weight(u64),
}

struct Walk<'a> {
    root: &'a Value,
    known: BTreeMap<*const Value, Known>, // by address within `root`, which does not move
    parts: u32,
}

impl<'a> Walk<'a> {
    /// Subschemas that matching one value against `schema` visits; a recursion into a part of the
    /// value counts once.
    fn weigh(&mut self, schema: &'a Value) -> Result<u64, SchemaError> {
        let Value::Object(object) = schema else {
            return Ok(1);
        };
        let address: *const Value = schema;
        match self.known.get(&address) {
            Some(Known::Weight(weight)) => return Ok(*weight),
            Some(Known::Open(parts)) if *parts < self.parts => return Ok(1),
            Some(Known::Open(_)) => {
                let instead = "let the recursion descend into a property or an item";
                return Err(unsupported("$ref", "a loop", instead));
            }
            None => {}
        }
        for keyword in ["$dynamicRef", "$dynamicAnchor", "$anchor", "$recursiveRef"] {
            if object.contains_key(keyword) {
                let instead = "refer by `$ref` to `#/$defs/…`";
                return Err(unsupported(
                    keyword,
                    "a dynamic or named reference",
                    instead,
                ));
            }
        }
        if object.contains_key("$id") && !std::ptr::eq(schema, self.root) {
            let instead = "leave `$id` out but at the top";
            return Err(unsupported("$id", "a document of its own", instead));
        }
        self.known.insert(address, Known::Open(self.parts));
        let mut weight = 1u64;
        for (keyword, value) in object {
            let keyword = keyword.as_str();
            let inner = if keyword == "$ref" {
                let target = value
                    .as_str()
                    .and_then(|text| self.target(text))
                    .ok_or_else(|| {
                        let instead = "refer to `#` or `#/…` within this document";
                        unsupported("$ref", "a reference that leads nowhere here", instead)
                    })?;
                self.weigh(target)?
            } else if SAME.contains(&keyword) {
                self.weigh(value)?
            } else if SAME_LISTS.contains(&keyword) {
                self.weigh_all(value.as_array().into_iter().flatten())?
            } else if keyword == "dependentSchemas" {
                self.weigh_all(value.as_object().into_iter().flat_map(|o| o.values()))?
            } else if PART.contains(&keyword) {
                self.weigh_parts(std::iter::once(value))?
            } else if keyword == "prefixItems" {
                self.weigh_parts(value.as_array().into_iter().flatten())?
            } else if PART_MAPS.contains(&keyword) {
                self.weigh_parts(value.as_object().into_iter().flat_map(|o| o.values()))?
            } else {
                0
            };
            weight = weight.saturating_add(inner);
        }
        self.known.insert(address, Known::Weight(weight));
        Ok(weight)
    }

    fn weigh_all(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Result<u64, SchemaError> {
        schemas
            .map(|schema| self.weigh(schema))
            .try_fold(0u64, |sum, w| Ok(sum.saturating_add(w?)))
    }

    fn weigh_parts(
        &mut self,
        schemas: impl Iterator<Item = &'a Value>,
    ) -> Result<u64, SchemaError> {
        self.parts += 1;
        let weight = self.weigh_all(schemas);
        self.parts -= 1;
        weight
    }

    /// The subschema that a `$ref` names, where it is a plain pointer into this document.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.contains('%') {
            return None; // percent-encoded pointers: one spelling only
        }
        self.root.pointer(pointer)
    }
}

fn unsupported(keyword: &str, what: &'static str, instead: &'static str) -> SchemaError {
    let mut path = Pointer::root();
    path.push_name(keyword);
    SchemaError::Unsupported {
        path,
        what,
        instead,
    }
}

fn too_heavy() -> SchemaError {
    SchemaError::Unsupported {
        path: Pointer::root(),
        what: "more work than any tool needs",
        instead: "repeat less in allOf, anyOf and oneOf",
    }
}
