//! MCP in both protocol eras, to and from core's types: the only crate that names rmcp.
//!
//! Owns: one connection of newline-delimited JSON, from its bytes to calls of a [`Gateway`] and back.
//! Both eras are served, 2026-07-28 (stateless, `server/discover`) and 2025-11-25 (`initialize`), and
//! no other. What a client finds is always the same two tools, `get_module_schema` and
//! `call_module_tool`; what they show and reach is the gateway's to say.
//!
//! Promises:
//! - Every line that is not an accepted notification or a response is answered, whatever it holds;
//!   a line over the limit costs no memory beyond the limit, and none of them ends the connection.
//! - The bytes of a call's arguments reach the gateway as they came: scanned once
//!   ([`mcpist_core::scan`]) for depth, duplicate names and numbers that would be bent, never
//!   re-serialised. The content of a result leaves as the gateway gave it, never escaped again.
//! - Calls in flight are bounded for each connection in number and in bytes; past the bound the next
//!   line is left unread, which is felt by the peer as backpressure. All connections together are
//!   bounded by a [`Budget`], and those of a user by a share of it; a line or a call for which it has
//!   nothing left is answered `busy`. Long lines leave short calls their room.
//! - A peer that goes away, or cancels, cancels its calls at once, through [`ToolCall::cancel`]; one
//!   that only ends its input still gets the answers to what it has asked. A call is told and never dropped, so that its outcome can still be recorded.
//!
//! Does not: know a principal, a mask or a module; listen, or judge who connected.
//!
//! # What rmcp is used for
//!
//! For the life cycle of both eras, and the shape of what is not a call. It never parses a line: the
//! decoder of this crate builds its request types, with the arguments beside them and not in them. So
//! neither its log lines (it writes whole requests and results at debug) nor its parser (it would bend
//! large numbers and merge duplicate names) ever meets an argument or a result.
//!
//! # Logging
//!
//! rmcp logs through `tracing`, which hands its lines to `log` while no subscriber is installed.
//! A compile-time cap of `tracing` would not remove them (only one of `log` would, and it would remove
//! ours as well), so every logger of a program with this crate asks [`may_log`] first, which holds
//! rmcp to warnings.

mod budget;
mod decode;
mod gateway;
mod handler;
mod json;
mod lines;
mod outbox;
mod reply;
mod schema;
mod tools;
mod transport;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use budget::Budget;
pub use gateway::{CallAnswer, Gateway, RawArguments, ToolCall};
pub use schema::{Detail, Offer, SchemaEntry, SchemaPage, SchemaQuery};

use std::io;
use std::time::Duration;

use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;
use crate::transport::{End, LineTransport};

/// What one connection may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest line in bytes, its end not counted.
    pub line_bytes: usize,
    /// Requests in flight. A long line counts for more than one, so that one of full length takes
    /// half of them: the lines in flight take at most `line_bytes` twice over.
    pub in_flight: usize,
    /// How long a peer may take until its first whole request.
    pub first_request: Duration,
}

impl Default for Limits {
    /// 8 MiB, 64 requests, 10 seconds.
    fn default() -> Limits {
        Limits {
            line_bytes: 8 * 1024 * 1024,
            in_flight: 64,
            first_request: Duration::from_secs(10),
        }
    }
}

/// Why a connection ended other than by its peer's wish.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Nothing asked in time.
    #[error("no request within {} s of connecting", .0.as_secs_f32())]
    Silent(Duration),
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The life cycle could not be opened.
    #[error("the MCP session could not be opened")]
    Lifecycle,
    /// A task of the connection panicked.
    #[error("the connection's task ended by a panic: its backtrace is on standard error")]
    Panic,
}

/// Serves one connection until its peer ends it, with lines of `budget`; returns when every call of it has ended, or 5
/// seconds later. Dropping the future ends the connection as a peer that goes away would.
///
/// The end of the peer's input ends the connection once all that it asked is answered. `gone` is done when the peer has
/// hung up both ways, and nobody is left to be answered: then its calls are cancelled.
///
/// # Errors
/// [`ServeError`]; a peer that just goes away is no error.
pub async fn serve<R, W, G>(
    read: R,
    write: W,
    gone: impl Future<Output = ()> + Send + 'static,
    gateway: G,
    limits: Limits,
    budget: &Budget,
) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
    G: Gateway,
{
    let closed = CancellationToken::new();
    let _close_on_drop = closed.clone().drop_guard();
    let (transport, ending) = LineTransport::new(read, write, gone, limits, budget, closed);
    let handler = Handler::new(gateway, limits);
    match serve_server_with_ct(handler, transport, CancellationToken::new()).await {
        Ok(running) => {
            running.waiting().await.map_err(|_| ServeError::Panic)?;
        }
        Err(ServerInitializeError::ConnectionClosed(_)) => {}
        Err(ServerInitializeError::TransportError { error, .. }) => {
            return Err(ServeError::Io(io::Error::other(error.error)));
        }
        Err(_) => return Err(ServeError::Lifecycle),
    }
    match ending.take() {
        Some(End::Silent) => Err(ServeError::Silent(limits.first_request)),
        Some(End::Broken(error)) => Err(ServeError::Io(error)),
        Some(End::Closed) | None => Ok(()),
    }
}

/// Whether a logger may take a line: everything but what rmcp says below a warning.
pub fn may_log(line: &log::Metadata<'_>) -> bool {
    let target = line.target();
    let rmcp = target
        .strip_prefix("rmcp")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    !rmcp || line.level() <= log::Level::Warn
}
