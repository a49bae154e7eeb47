//! One level of a JSON object at a time, its members left raw. Pure functions, no I/O.
//!
//! Owns: [`members`], by which lines, params and tool inputs alike are taken apart.
//! Promises: no recursion, whatever the nesting; a member twice is an error, an array is no object;
//! what is not asked for costs a skip and no memory.
//! Does not: look into a value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The asked members of an object, in the order asked; a `null` counts as absent.
#[derive(Debug)]
pub(crate) struct Members<'a, const N: usize> {
    pub(crate) found: [Option<&'a RawValue>; N],
    /// The first member that was not asked for.
    pub(crate) stranger: Option<String>,
}

/// Why a text was not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is not JSON in UTF-8.
    NotJson,
    /// It is not an object, or a member asked for is there twice.
    NotSuchObject,
}

/// Takes the members `names` out of the one object that `text` must be.
pub(crate) fn members<'a, const N: usize>(
    text: &'a [u8],
    names: [&'static str; N],
) -> Result<Members<'a, N>, Unfit> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let members = Names(names).deserialize(&mut parser).map_err(unfit)?;
    parser.end().map_err(unfit)?;
    Ok(members)
}

fn unfit(error: serde_json::Error) -> Unfit {
    match error.classify() {
        Category::Data => Unfit::NotSuchObject,
        Category::Syntax | Category::Eof | Category::Io => Unfit::NotJson,
    }
}

struct Names<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Names<N> {
    type Value = Members<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Names<N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members {
            found: [None; N],
            stranger: None,
        };
        let mut seen = [false; N];
        while let Some(name) = map.next_key_seed(Key)? {
            match self.0.iter().position(|asked| *asked == name) {
                Some(at) if seen[at] => return Err(de::Error::custom("a member twice")),
                Some(at) => {
                    seen[at] = true;
                    let value: &RawValue = map.next_value()?;
                    members.found[at] = (value.get() != "null").then_some(value);
                }
                None => {
                    members.stranger.get_or_insert_with(|| name.into_owned());
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// A member name, borrowed where it holds no escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_raw_and_null_is_absent() {
        let text = br#" {"b":{"x":[1, 2]},"a":null,"\u0063":1e400,"d":0} "#;
        let Members {
            found: [a, b, c],
            stranger,
        } = members(text, ["a", "b", "c"]).unwrap();
        assert!(a.is_none());
        assert_eq!(b.unwrap().get(), r#"{"x":[1, 2]}"#);
        assert_eq!(c.unwrap().get(), "1e400");
        assert_eq!(stranger.as_deref(), Some("d"));
    }

    #[test]
    fn a_member_twice_and_an_array_are_no_such_object() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":null,"\u0061":1}"#,
            "[1]",
            "7",
            "null",
        ] {
            assert_eq!(
                members(text.as_bytes(), ["a"]).unwrap_err(),
                Unfit::NotSuchObject,
                "{text}"
            );
        }
    }

    #[test]
    fn broken_text_is_not_json() {
        for text in [
            &b"{"[..],
            b"{\"a\":1} x",
            b"{\"a\":[}",
            b"{\"a\":\"\xff\"}",
            b"",
        ] {
            assert_eq!(
                members(text, ["a"]).unwrap_err(),
                Unfit::NotJson,
                "{text:?}"
            );
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(
            "{{\"a\":{}{}}}",
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        assert!(members(deep.as_bytes(), ["a"]).unwrap().found[0].is_some());
        assert!(members(deep.as_bytes(), ["b"]).is_ok());
    }
}
