//! Why a request got no answer: coded, and without URL, header or body. No I/O.
//!
//! Owns: [`EgressError`], its stable code and its text for a client, and the reading of the HTTP
//! client's own errors, whose texts (they hold URLs) end here.
//! Does not: judge statuses; a module kind does.

use std::error::Error;
use std::io;

use mcpist_core::binding::BindingRefusal;
use mcpist_core::error::ErrorCode;
use mcpist_core::result::ToolError;
use thiserror::Error;

use super::address::AddressRefusal;
use crate::breaker::Outcome;
use crate::gate::{GateError, seconds};

/// Why a request got no answer. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressError {
    /// The binding does not permit it.
    #[error("{0}")]
    Binding(#[from] BindingRefusal),
    /// The URL would not say what the binding judged.
    #[error("the request's path or query cannot be written as a URL")]
    Url,
    /// A header that no module may set, or that the binding injects.
    #[error("the module may not set the header or parameter \"{0}\"")]
    Reserved(String),
    /// A header that is none.
    #[error("the module set a header that is malformed")]
    Header,
    /// The host resolves to what the binding does not allow.
    #[error("{0}")]
    Address(#[from] AddressRefusal),
    /// The credential holds a byte that its place cannot.
    #[error("the credential cannot stand where the binding injects it; put it again")]
    Credential,
    /// The call has used up its requests.
    #[error("the call made all of its {0} requests")]
    Requests(u32),
    /// The gate did not let it through.
    #[error("{0}")]
    Gate(#[from] GateError),
    /// No connection.
    #[error("no connection to the service")]
    Unreachable,
    /// The server did not prove itself.
    #[error("the service's certificate is not the one that the binding names")]
    Tls,
    /// The deadline passed.
    #[error("the service did not answer in time")]
    Timeout,
    /// The connection broke off, or what came is no HTTP.
    #[error("the service broke off or sent no valid HTTP answer")]
    Broken,
    /// The answer is encoded although identity was asked for.
    #[error("the service sent an encoded body although none was asked for")]
    Encoded,
    /// Too long.
    #[error("the service's answers are over the limit of {0} bytes")]
    TooLarge(u64),
}

impl EgressError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            EgressError::Binding(_)
            | EgressError::Url
            | EgressError::Reserved(_)
            | EgressError::Address(_) => ErrorCode::BindingRefused,
            EgressError::Header | EgressError::Requests(_) => ErrorCode::ModuleFailed,
            EgressError::Credential => ErrorCode::CredentialSuspect,
            EgressError::Gate(GateError::Busy) => ErrorCode::Busy,
            EgressError::Gate(GateError::Open(_)) => ErrorCode::UpstreamUnreachable,
            EgressError::Gate(GateError::Paused(_)) => ErrorCode::UpstreamThrottled,
            EgressError::Unreachable => ErrorCode::UpstreamUnreachable,
            EgressError::Tls => ErrorCode::UpstreamTls,
            EgressError::Timeout => ErrorCode::UpstreamTimeout,
            EgressError::Broken | EgressError::Encoded => ErrorCode::UpstreamInvalid,
            EgressError::TooLarge(_) => ErrorCode::UpstreamTooLarge,
        }
    }

    /// What the breaker learns from it: only what the service did counts.
    pub fn outcome(&self) -> Outcome {
        match self {
            EgressError::Unreachable
            | EgressError::Tls
            | EgressError::Timeout
            | EgressError::Broken => Outcome::Failed,
            EgressError::Encoded | EgressError::TooLarge(_) => Outcome::Answered,
            _ => Outcome::Unknown,
        }
    }

    /// Reads the error of a request that got no head of an answer; its text goes nowhere.
    pub(super) fn of_request(error: &hyper_util::client::legacy::Error) -> EgressError {
        EgressError::of_causes(error).unwrap_or(match error.is_connect() {
            true => EgressError::Unreachable,
            false => EgressError::Broken,
        })
    }

    /// Reads the error of an answer that broke off.
    pub(super) fn of_body(error: &hyper::Error) -> EgressError {
        EgressError::of_causes(error).unwrap_or(EgressError::Broken)
    }

    /// What one of the causes of `error` says.
    fn of_causes(error: &(dyn Error + 'static)) -> Option<EgressError> {
        let mut cause = Some(error);
        while let Some(here) = cause {
            if let Some(refusal) = here.downcast_ref::<AddressRefusal>() {
                return Some(EgressError::Address(*refusal));
            }
            if here.is::<rustls::Error>() {
                return Some(EgressError::Tls);
            }
            cause = match here.downcast_ref::<io::Error>() {
                Some(io) if io.kind() == io::ErrorKind::TimedOut => {
                    return Some(EgressError::Timeout);
                }
                // An I/O error's source skips what it wraps.
                Some(io) if io.get_ref().is_some() => {
                    io.get_ref().map(|inner| inner as &(dyn Error + 'static))
                }
                _ => here.source(),
            };
        }
        None
    }
}

impl From<EgressError> for ToolError {
    fn from(error: EgressError) -> ToolError {
        ToolError::with(error.code(), &error.to_string())
    }
}

/// The error of a service that answered 429: its pause in whole seconds.
pub fn throttled(pause: std::time::Duration) -> ToolError {
    let text = format!("the service asked to wait {} s", seconds(pause));
    ToolError::with(ErrorCode::UpstreamThrottled, &text)
}
