//! What a credential's payload may be, by kind. No I/O.
//!
//! Owns the kinds and their rules. The payload is the text that is injected, so there is nothing to parse when a lease
//! is granted: for `basic` it is `user:password` (RFC 7617), for the others the key or token itself. Promises that a
//! payload that was accepted fits into a header field and is long enough to be redacted. Does not say where it may go.

use std::fmt;
use std::ops::Range;

use mcpist_core::binding::Inject;
use mcpist_secret::redact::MIN_SECRET;

/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// How a service wants a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key in a header field or a query parameter of its own.
    ApiKey,
    /// A token for `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// User and password for `Authorization: Basic` (RFC 7617).
    Basic,
}

/// Why a payload or a kind is refused. Never says what the payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// Not a kind.
    #[error("no such kind of credential; use api-key, bearer or basic")]
    Kind,
    /// Over [`MAX_PAYLOAD`].
    #[error("the secret is longer than {MAX_PAYLOAD} bytes")]
    TooLong,
    /// Too short to be found in an answer.
    #[error(
        "the secret is shorter than {MIN_SECRET} bytes, too short to be redacted; have a longer one issued"
    )]
    TooShort,
    /// A byte that no header field carries.
    #[error(
        "the secret holds a control character or a line break; give it without a trailing newline"
    )]
    Control,
    /// A space or a byte outside ASCII where none may be.
    #[error("a key or token is printable ASCII without spaces")]
    NotAToken,
    /// No user, or no colon.
    #[error("a basic credential is user:password, with a user")]
    NoUser,
}

impl Kind {
    /// The kind with this name.
    ///
    /// # Errors
    /// [`PayloadFault::Kind`].
    pub fn parse(text: &str) -> Result<Kind, PayloadFault> {
        match text {
            "api-key" => Ok(Kind::ApiKey),
            "bearer" => Ok(Kind::Bearer),
            "basic" => Ok(Kind::Basic),
            _ => Err(PayloadFault::Kind),
        }
    }

    /// The name, as on the command line and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ApiKey => "api-key",
            Kind::Bearer => "bearer",
            Kind::Basic => "basic",
        }
    }

    /// Whether a binding may inject it like this.
    #[must_use]
    pub fn fits(self, inject: &Inject) -> bool {
        match inject {
            Inject::Bearer => self == Kind::Bearer,
            Inject::Basic => self == Kind::Basic,
            Inject::Header { .. } | Inject::Query { .. } => self == Kind::ApiKey,
        }
    }

    /// Checks a payload when it is put.
    ///
    /// # Errors
    /// [`PayloadFault`].
    pub fn check(self, payload: &[u8]) -> Result<(), PayloadFault> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PayloadFault::TooLong);
        }
        if payload.iter().any(|b| b.is_ascii_control()) {
            return Err(PayloadFault::Control);
        }
        match self {
            Kind::ApiKey | Kind::Bearer if payload.iter().all(u8::is_ascii_graphic) => {}
            Kind::ApiKey | Kind::Bearer => return Err(PayloadFault::NotAToken),
            Kind::Basic if matches!(colon(payload), Some(1..)) => {}
            Kind::Basic => return Err(PayloadFault::NoUser),
        }
        let short = self
            .parts(payload)
            .iter()
            .any(|part| part.len() < MIN_SECRET);
        if short {
            Err(PayloadFault::TooShort)
        } else {
            Ok(())
        }
    }

    /// How many [`parts`](Kind::parts) a payload of this kind has.
    #[must_use]
    pub fn part_count(self) -> usize {
        if self == Kind::Basic { 2 } else { 1 }
    }

    /// The parts of a payload that must not come back, each on its own: the whole of it (as sent, a basic
    /// credential is its base64, which is a form of the whole), and the password of a basic credential.
    #[must_use]
    pub fn parts(self, payload: &[u8]) -> Vec<Range<usize>> {
        let whole = 0..payload.len();
        match (self, colon(payload)) {
            (Kind::Basic, Some(colon)) => vec![whole, colon + 1..payload.len()],
            _ => vec![whole],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn colon(payload: &[u8]) -> Option<usize> {
    payload.iter().position(|b| *b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_malformed_payload_has_its_own_fault() {
        let fault = |kind: Kind, payload: &str| kind.check(payload.as_bytes());
        assert_eq!(fault(Kind::Bearer, "long-enough-token"), Ok(()));
        assert_eq!(fault(Kind::Bearer, "short"), Err(PayloadFault::TooShort));
        assert_eq!(
            fault(Kind::Bearer, "trailing-newline\n"),
            Err(PayloadFault::Control)
        );
        assert_eq!(
            fault(Kind::ApiKey, "two words here"),
            Err(PayloadFault::NotAToken)
        );
        assert_eq!(
            fault(Kind::ApiKey, "schlüssel-schlüssel"),
            Err(PayloadFault::NotAToken)
        );
        assert_eq!(fault(Kind::Basic, "user:password"), Ok(()));
        assert_eq!(fault(Kind::Basic, "user:pass"), Err(PayloadFault::TooShort));
        assert_eq!(fault(Kind::Basic, ":password1"), Err(PayloadFault::NoUser));
        assert_eq!(
            fault(Kind::Basic, "passwordalone"),
            Err(PayloadFault::NoUser)
        );
        assert_eq!(
            fault(Kind::Bearer, &"x".repeat(MAX_PAYLOAD + 1)),
            Err(PayloadFault::TooLong)
        );
    }

    #[test]
    fn a_password_is_a_part_of_its_own_and_may_hold_colons() {
        let payload = b"user:pa:ssword";
        assert_eq!(Kind::Basic.parts(payload), vec![0..14, 5..14]);
        assert_eq!(Kind::Bearer.parts(payload), vec![(0..14)]);
    }

    #[test]
    fn a_kind_is_injected_in_its_own_way_only() {
        let header = Inject::Header {
            name: "x-api-key".into(),
        };
        assert!(Kind::ApiKey.fits(&header) && !Kind::ApiKey.fits(&Inject::Bearer));
        assert!(Kind::Basic.fits(&Inject::Basic) && !Kind::Basic.fits(&header));
        assert!(Kind::Bearer.fits(&Inject::Bearer) && !Kind::Bearer.fits(&Inject::Basic));
    }
}
