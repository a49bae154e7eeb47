//! Names, digests and references: parsed once, valid ever after.
//!
//! Owns: one newtype per kind of name, [`Digest`], and what is built of them ([`RegistryId`],
//! [`ModuleRev`], [`SchemaRef`], [`CallId`]).
//! Promises: a value holds only the characters that its kind allows, so it can stand in a log line,
//! a file name or a JSON text without escaping; parsing accepts one spelling and changes nothing.
//! Does not: know whether the named thing exists.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::text::excerpt;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a {kind}: \"{value}\"; use {rule}")]
pub struct IdError {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

impl IdError {
    /// An error about `value`, of which a bounded and escaped part is kept.
    pub(crate) fn new(kind: &'static str, value: &str, rule: &'static str) -> IdError {
        IdError {
            kind,
            value: excerpt(value, 48),
            rule,
        }
    }
}

/// Serde and comparison by text for a type with `parse` and `as_str`.
macro_rules! by_text {
    ($name:ident, $expecting:literal) => {
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        $crate::ids::by_parse!($name, $expecting);

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

/// `FromStr` and `Deserialize` for a type with `parse`.
macro_rules! by_parse {
    ($name:ident, $expecting:literal) => {
        impl ::std::str::FromStr for $name {
            type Err = $crate::ids::IdError;
            fn from_str(text: &str) -> Result<Self, $crate::ids::IdError> {
                Self::parse(text)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                struct Text;
                impl ::serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: ::serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        <$name>::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $first:ident, $rest:ident, $rule:literal;)*) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!("Form: ", $rule, ".")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most characters such a name may have.
            pub const MAX: usize = $max;

            /// Takes `text` if it has the form of this kind of name.
            pub fn parse(text: &str) -> Result<$name, IdError> {
                let bytes = text.as_bytes();
                let valid = bytes.len() <= $max
                    && bytes.first().is_some_and(|b| $first(*b))
                    && bytes.iter().all(|b| $rest(*b));
                if valid { Ok($name(text.into())) } else { Err(IdError::new($kind, text, $rule)) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        by_text!($name, $kind);
    )*};
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}
fn module_char(b: u8) -> bool {
    lower_or_digit(b) || b == b'_' || b == b'-'
}
fn tool_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}
fn name_char(b: u8) -> bool {
    module_char(b) || b == b'.'
}
fn account_char(b: u8) -> bool {
    name_char(b) || b == b'@'
}

names! {
    /// A module, as clients name it.
    ModuleName, "module name", 32, lower_or_digit, module_char, "1 to 32 of a-z 0-9 _ -, first a letter or digit";
    /// A tool of a module, as clients name it.
    ToolName, "tool name", 64, tool_char, tool_char, "1 to 64 of A-Z a-z 0-9 _ -";
    /// A place in a module's manifest that a binding fills.
    SlotName, "slot name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A vault of the store.
    VaultName, "vault name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A credential in a vault.
    CredentialName, "credential name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A binding record.
    BindingName, "binding name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A grant record.
    GrantName, "grant name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A principal record.
    PrincipalName, "principal name", 64, lower_or_digit, account_char, "1 to 64 of a-z 0-9 . _ - @, first a letter or digit";
    /// A group of principals; it exists by being named.
    GroupName, "group name", 64, lower_or_digit, account_char, "1 to 64 of a-z 0-9 . _ - @, first a letter or digit";
    /// Who publishes a bundle; the root delegates it to keys.
    Namespace, "namespace", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// A bundle within its namespace.
    BundleName, "bundle name", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
    /// One appliance's site, the audience of bundles.
    SiteId, "site id", 64, lower_or_digit, name_char, "1 to 64 of a-z 0-9 . _ -, first a letter or digit";
}

const DIGEST_RULE: &str = "64 lower-case hexadecimal digits";

/// A SHA-256 digest (FIPS 180-4). Text: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A [`Digest`] of bytes that come some at a time.
pub struct DigestBuilder(ring::digest::Context);

impl DigestBuilder {
    /// Of no bytes yet.
    pub fn begin() -> DigestBuilder {
        DigestBuilder(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// More bytes, after those before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Digest(out)
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::of_parts(&[bytes])
    }

    /// The digest of the parts, one after the other, with nothing between them.
    pub fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut hash = DigestBuilder::begin();
        parts.iter().for_each(|part| hash.update(part));
        hash.finish()
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 64 lower-case hexadecimal digits, and no other spelling.
    pub fn parse(text: &str) -> Result<Digest, IdError> {
        let mut out = [0; 32];
        if text.bytes().any(|b| b.is_ascii_uppercase())
            || hex::decode_to_slice(text, &mut out).is_err()
        {
            return Err(IdError::new("digest", text, DIGEST_RULE));
        }
        Ok(Digest(out))
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

by_parse!(Digest, "64 lower-case hexadecimal digits");

/// A registry: the digest of its bundle's manifest, over the manifest's bytes as signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegistryId(Digest);

impl RegistryId {
    /// The registry of the bundle whose manifest has this digest.
    pub const fn new(manifest: Digest) -> RegistryId {
        RegistryId(manifest)
    }

    /// The registry of the bundle with these manifest bytes.
    pub fn of_manifest(bytes: &[u8]) -> RegistryId {
        RegistryId(Digest::of(bytes))
    }

    /// The manifest's digest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// Takes 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<RegistryId, IdError> {
        Digest::parse(text).map(RegistryId)
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for RegistryId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

/// One registry's edition of a module. Text: `<module>@<12 hexadecimal digits>`, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleRev {
    /// The registry that holds it.
    pub registry: RegistryId,
    /// The module's name in it.
    pub module: ModuleName,
}

impl fmt::Display for ModuleRev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.module, self.registry.short())
    }
}

/// What a client echoes to say which edition of a tool's schema it has read. Opaque to clients.
/// Text: `r:` and 32 hexadecimal digits, the first 16 bytes of a digest over registry, module and
/// the tool's own digest. Short, since a model has to copy it; it protects from staleness, not from
/// forgery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaRef([u8; 16]);

impl SchemaRef {
    /// The reference to the tool with digest `tool` in this edition of its module.
    pub fn of(rev: &ModuleRev, tool: &Digest) -> SchemaRef {
        let digest = Digest::of_parts(&[
            b"mcpist-schema-ref-v1\0",
            rev.registry.digest().as_bytes(),
            tool.as_bytes(),
            rev.module.as_str().as_bytes(),
        ]);
        let mut out = [0; 16];
        out.copy_from_slice(&digest.as_bytes()[..16]);
        SchemaRef(out)
    }

    /// Takes the text form.
    pub fn parse(text: &str) -> Result<SchemaRef, IdError> {
        let error = || {
            IdError::new(
                "schema_ref",
                text,
                "the schema_ref of get_module_schema as it was given",
            )
        };
        let digits = text.strip_prefix("r:").ok_or_else(error)?;
        let mut out = [0; 16];
        if digits.bytes().any(|b| b.is_ascii_uppercase())
            || hex::decode_to_slice(digits, &mut out).is_err()
        {
            return Err(error());
        }
        Ok(SchemaRef(out))
    }
}

impl fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SchemaRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

by_parse!(SchemaRef, "a schema_ref");

/// One call, numbered by the daemon since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

pub(crate) use by_parse;
pub(crate) use by_text;

#[cfg(test)]
mod tests;
