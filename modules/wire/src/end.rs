//! Why a link ended, in words for the log. No I/O.

use crate::codec::PayloadError;
use crate::inbox::ReadError;
use crate::message::{Close, CloseCode};

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// The other end closed its socket without a word.
    #[error("the other end is gone")]
    Gone,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(String),
    /// The other end broke the protocol; it was told so.
    #[error("the other end broke the protocol: {0}")]
    Protocol(String),
    /// The other end closed the link and said why.
    #[error("the other end closed the link: {0}")]
    Closed(Close),
    /// This end closed the link.
    #[error("closed by this end")]
    Stopped,
}

impl LinkEnd {
    /// What the other end is told before the socket closes; `None` when it knows already or is gone.
    pub(crate) fn farewell(&self) -> Option<Close> {
        match self {
            LinkEnd::Protocol(text) => Some(Close::new(CloseCode::Protocol, text)),
            LinkEnd::Gone | LinkEnd::Io(_) | LinkEnd::Closed(_) | LinkEnd::Stopped => None,
        }
    }
}

impl From<ReadError> for LinkEnd {
    fn from(error: ReadError) -> LinkEnd {
        match error {
            ReadError::End => LinkEnd::Gone,
            ReadError::Io(error) => LinkEnd::Io(error.to_string()),
            ReadError::Frame(error) => LinkEnd::Protocol(error.to_string()),
        }
    }
}

impl From<PayloadError> for LinkEnd {
    fn from(error: PayloadError) -> LinkEnd {
        LinkEnd::Protocol(error.to_string())
    }
}
