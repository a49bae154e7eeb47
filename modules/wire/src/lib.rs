//! The protocol between mcpistd and a runner, both ends, and the lease that travels on it.
//!
//! | for whom | start here |
//! |---|---|
//! | mcpistd accepts a runner, tells it modules, bindings and fingerprints, and calls | [`daemon`] |
//! | the runner connects, is asked and answers | [`runner`] |
//! | the broker grants leases on a permit | [`lease`] |
//! | either passes a blob of code beside the stream | [`fd`] |
//! | whoever serves a Unix stream, without wake-ups for nothing | [`stream`] |
//! | the byte layout | [`frame`], `message`, `call` (and docs/FORMATS.md) |
//!
//! One connection per role, a byte stream of frames of at most 64 KiB. The runner says hello with the
//! versions that it speaks, mcpistd welcomes it with the version chosen and the link's redaction key, or
//! closes with a code. After that many calls are in flight at once; each answer has credit of its own
//! ([`WINDOW`]), so that a large one holds up no other.
//!
//! *Threats.* Either end treats the other's bytes as hostile: lengths are compared with limits before anything
//! is allocated, a frame that breaks the protocol ends the link with a code, an answer that breaks its call's
//! rules fails that call. Secrets are written from secret memory by the kernel and read into secret memory; no
//! ordinary buffer of either process holds one. *Limits.* The kernel's socket buffers do. The arguments of
//! calls are not secrets here and stand in ordinary memory. That a lease goes only where its binding says is
//! the runner's promise, which this crate cannot hold for it.

mod codec;
mod end;
mod inbox;
mod outbox;

pub mod call;
pub mod daemon;
pub mod fd;
pub mod frame;
pub mod lease;
pub mod message;
pub mod runner;
pub mod stream;

#[cfg(test)]
mod tests;

pub use call::{Answer, ModuleCall};
pub use codec::PayloadError;
pub use daemon::{CallError, DaemonLink, Greeting};
pub use end::LinkEnd;
pub use lease::Lease;
pub use message::{Bind, Close, CloseCode, Dropped, Hello, Load, Role};
pub use runner::{Request, Requests, Responder};

/// Calls in flight on one link at most; above it a new call is `busy`.
pub const MAX_IN_FLIGHT: usize = 4096;
/// Bytes of an answer that the runner may send ahead of mcpistd's credit.
pub const WINDOW: usize = 256 * 1024;

/// How long a closing link may take to write what it still has.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
