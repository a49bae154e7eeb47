//! A binding: where a credential may go, and how. No I/O.
//!
//! Owns: [`Binding`], its judgement of a finished request ([`Binding::permits`]), and [`Join`],
//! which gives a binding to a module's slot.
//! Promises: https names what to trust and http names nothing; a path that is permitted reads the
//! same to this code and to a server that decodes it once, is within the prefix on a segment border
//! and climbs nowhere.
//! Does not: resolve or connect (egress does, and asks here for each request), nor hold the
//! credential.

mod host;
mod path;

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::http::{self, Method};
use crate::ids::{
    BindingName, CredentialName, Digest, ModuleName, RegistryId, SlotName, VaultName,
};

pub use host::HostName;
pub use path::{PathFault, PathPrefix};

/// Longest CA bundle in bytes.
pub const MAX_CA: usize = 64 * 1024;

/// The fields of a binding whose checks are still to be made; the only use is [`Binding::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingFields {
    /// Its name.
    pub name: BindingName,
    /// The vault of its credential.
    pub vault: VaultName,
    /// The credential that goes out.
    pub credential: CredentialName,
    /// http or https.
    pub scheme: Scheme,
    /// The one host it goes to.
    pub host: HostName,
    /// The port there, not 0.
    pub port: u16,
    /// The part of the service it may reach.
    pub path_prefix: PathPrefix,
    /// The methods it may use; at least one, each once.
    pub methods: Vec<Method>,
    /// How the server proves itself.
    pub trust: Trust,
    /// Where the credential goes in a request.
    pub inject: Inject,
    /// The host may be loopback, link-local or an address of this machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_local: bool,
}

/// A checked binding. Its fields are read through [`BindingFields`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BindingFields", into = "BindingFields")]
pub struct Binding(BindingFields);

/// The scheme of a service's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain text; needs a second officer.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The text, as in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// How the server proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A certificate chain to one of these CA certificates (PEM), and the host's name in it.
    Ca(String),
    /// SHA-256 of the end-entity certificate's SubjectPublicKeyInfo (as in RFC 7469 §2.4), without
    /// regard to names or dates.
    Pin(Digest),
    /// Not at all: http.
    None,
}

/// Where the credential goes in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Inject {
    /// `Authorization: Bearer <secret>` (RFC 6750).
    Bearer,
    /// `Authorization: Basic <base64 of user:password>` (RFC 7617).
    Basic,
    /// A header field of its own; the name in lower case.
    Header {
        /// The name.
        name: String,
    },
    /// A query parameter of its own.
    Query {
        /// The name.
        name: String,
    },
}

/// Gives a binding to a slot of one registry's module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The registry.
    pub registry: RegistryId,
    /// Its module.
    pub module: ModuleName,
    /// The module's slot.
    pub slot: SlotName,
    /// The binding that fills it.
    pub binding: BindingName,
}

/// What is wrong with a binding as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BindingError {
    /// Port 0.
    #[error("binding \"{0}\" has port 0; name the service's port")]
    Port(BindingName),
    /// No method, or one twice.
    #[error("binding \"{0}\" must name each method once, and at least one")]
    Methods(BindingName),
    /// https without trust, or http with it.
    #[error(
        "binding \"{0}\" has a scheme and a trust that do not go together; https needs `ca` or `pin`, http needs `none`"
    )]
    Trust(BindingName),
    /// Not PEM certificates.
    #[error("binding \"{0}\" has a CA that is not PEM certificates of at most 64 KiB")]
    Ca(BindingName),
    /// An injection into a header that frames the message, or a bad name.
    #[error(
        "binding \"{0}\" injects into a name that cannot take a credential; use a header of the service (lower case) or a query name"
    )]
    Inject(BindingName),
}

/// Why a binding does not permit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BindingRefusal {
    /// The method is not listed.
    #[error("the binding does not list the method {0}")]
    Method(Method),
    /// The path could mean another one to the server.
    #[error("the path {0}")]
    Path(PathFault),
    /// The path is outside the prefix.
    #[error("the path is outside the binding's prefix")]
    Prefix,
}

impl Binding {
    /// Checks what the fields cannot know alone.
    pub fn new(fields: BindingFields) -> Result<Binding, BindingError> {
        let name = || fields.name.clone();
        if fields.port == 0 {
            return Err(BindingError::Port(name()));
        }
        let twice = |(i, m): (usize, &Method)| fields.methods[..i].contains(m);
        if fields.methods.is_empty() || fields.methods.iter().enumerate().any(twice) {
            return Err(BindingError::Methods(name()));
        }
        match (fields.scheme, &fields.trust) {
            (Scheme::Http, Trust::None) | (Scheme::Https, Trust::Pin(_)) => {}
            (Scheme::Https, Trust::Ca(pem)) if is_pem(pem) => {}
            (Scheme::Https, Trust::Ca(_)) => return Err(BindingError::Ca(name())),
            _ => return Err(BindingError::Trust(name())),
        }
        let injectable = match &fields.inject {
            Inject::Bearer | Inject::Basic => true,
            Inject::Header { name } => is_injectable_header(name),
            Inject::Query { name } => http::plain_name(name),
        };
        if !injectable {
            return Err(BindingError::Inject(name()));
        }
        Ok(Binding(fields))
    }

    /// Judges a finished request: `path` is encoded, absolute and without query. Egress asks this
    /// before every request and sends nothing on a refusal.
    pub fn permits(&self, method: Method, path: &str) -> Result<(), BindingRefusal> {
        if !self.methods.contains(&method) {
            return Err(BindingRefusal::Method(method));
        }
        path::check(path).map_err(BindingRefusal::Path)?;
        if self.path_prefix.covers(path) {
            Ok(())
        } else {
            Err(BindingRefusal::Prefix)
        }
    }
}

impl Deref for Binding {
    type Target = BindingFields;
    fn deref(&self) -> &BindingFields {
        &self.0
    }
}

impl TryFrom<BindingFields> for Binding {
    type Error = BindingError;
    fn try_from(fields: BindingFields) -> Result<Binding, BindingError> {
        Binding::new(fields)
    }
}

impl From<Binding> for BindingFields {
    fn from(binding: Binding) -> BindingFields {
        binding.0
    }
}

/// Looks like PEM certificates (RFC 7468); whether they parse is known where TLS is.
fn is_pem(text: &str) -> bool {
    text.len() <= MAX_CA
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\n' | b'\r' | b'\t'))
        && text.contains("-----BEGIN CERTIFICATE-----")
        && text.contains("-----END CERTIFICATE-----")
        && !text.contains("PRIVATE KEY")
}

/// A credential may go where a module may not write, save into fields that frame the message.
fn is_injectable_header(name: &str) -> bool {
    let carries = matches!(name, "authorization" | "cookie") || name.starts_with("sec-");
    http::is_token(name) && (carries || !http::is_reserved_header(name))
}

#[cfg(test)]
pub(crate) mod tests;
