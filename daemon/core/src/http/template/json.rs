//! A JSON value with holes, for a request's body.
//!
//! Owns: [`JsonTemplate`]. Promises: no object has one key twice, at most 16 levels and 1,024
//! values, numbers as serde_json reads them. Does not: change the type of what an argument brings;
//! a string that is exactly `"{name}"` becomes the argument's own JSON value.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ArgName, Template};

const MAX_DEPTH: usize = 16;
const MAX_VALUES: usize = 1024;

/// A JSON value whose strings may hold holes.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTemplate {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as written.
    Number(serde_json::Number),
    /// A string that is one hole: the argument's JSON value. Absent, the member or item is left
    /// out.
    Hole(ArgName),
    /// A string, with or without holes in it. An absent argument leaves the member or item out.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, in the order written; keys are literal and distinct.
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    /// The arguments it names, as often as it does.
    pub fn holes(&self) -> impl Iterator<Item = &ArgName> {
        let mut out = Vec::new();
        self.collect_holes(&mut out);
        out.into_iter()
    }

    fn collect_holes<'a>(&'a self, out: &mut Vec<&'a ArgName>) {
        match self {
            JsonTemplate::Null | JsonTemplate::Bool(_) | JsonTemplate::Number(_) => {}
            JsonTemplate::Hole(name) => out.push(name),
            JsonTemplate::Text(text) => out.extend(text.holes()),
            JsonTemplate::Array(items) => items.iter().for_each(|i| i.collect_holes(out)),
            JsonTemplate::Object(members) => members.iter().for_each(|(_, v)| v.collect_holes(out)),
        }
    }

    fn text<E: de::Error>(text: &str) -> Result<JsonTemplate, E> {
        let template = Template::parse(text).map_err(E::custom)?;
        Ok(match template.whole() {
            Some(name) => JsonTemplate::Hole(name.clone()),
            None => JsonTemplate::Text(template),
        })
    }
}

impl Serialize for JsonTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            JsonTemplate::Null => serializer.serialize_unit(),
            JsonTemplate::Bool(value) => serializer.serialize_bool(*value),
            JsonTemplate::Number(value) => value.serialize(serializer),
            JsonTemplate::Hole(name) => serializer.collect_str(&format_args!("{{{name}}}")),
            JsonTemplate::Text(text) => text.serialize(serializer),
            JsonTemplate::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items
                    .iter()
                    .try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            JsonTemplate::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members
                    .iter()
                    .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for JsonTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut left = MAX_VALUES;
        Reader {
            depth: 0,
            left: &mut left,
        }
        .deserialize(deserializer)
    }
}

/// Reads one value at `depth`, with `left` values to go.
struct Reader<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Reader<'_> {
    fn inner(&mut self) -> Reader<'_> {
        Reader {
            depth: self.depth + 1,
            left: self.left,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = JsonTemplate;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonTemplate, D::Error> {
        if self.depth > MAX_DEPTH || *self.left == 0 {
            return Err(de::Error::custom(
                "the body has over 16 levels or 1024 values; make it smaller",
            ));
        }
        *self.left -= 1;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = JsonTemplate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<JsonTemplate, E> {
        Ok(JsonTemplate::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<JsonTemplate, E> {
        Ok(JsonTemplate::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<JsonTemplate, E> {
        Ok(JsonTemplate::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<JsonTemplate, E> {
        Ok(JsonTemplate::Number(value.into()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<JsonTemplate, E> {
        serde_json::Number::from_f64(value)
            .map(JsonTemplate::Number)
            .ok_or_else(|| E::custom("a number is not finite"))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonTemplate, E> {
        JsonTemplate::text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<JsonTemplate, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(JsonTemplate::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<JsonTemplate, A::Error> {
        let mut members: Vec<(String, JsonTemplate)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.iter().any(|(other, _)| *other == key) {
                return Err(de::Error::custom("an object has one key twice; keep one"));
            }
            let value = map.next_value_seed(self.inner())?;
            members.push((key, value));
        }
        Ok(JsonTemplate::Object(members))
    }
}
