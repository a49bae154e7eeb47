//! The runner's end of a link.
//!
//! [`connect`] greets mcpistd and yields the link's redaction key and its [`Requests`]. Whoever owns
//! `Requests` drives the link: [`Requests::next`] reads, answers pings, hands out credit and cancellations,
//! and returns what the runner has to do, in the order in which mcpistd sent it. Each call comes with a
//! [`Responder`], which may go to a task of its own.
//!
//! What is read stands in secret memory until it is decoded: leases go from there into their own slots and
//! are wiped behind. An answer longer than the credit waits for more and holds up no other call.

use std::sync::Arc;

use mcpist_secret::redact::{Fingerprint, RedactKey};
use mcpist_secret::{Key, MemoryError, Secret};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::GRACE;
use crate::call::ModuleCall;
use crate::codec::{Cursor, PayloadError};
use crate::end::LinkEnd;
use crate::frame::{Header, Kind, MAX_FRAME};
use crate::inbox::Inbox;
use crate::message::{Bind, Close, Dropped, Hello, Load, Role, VERSIONS};
use crate::outbox::Body;
use crate::stream::{ReadHalf, split};

mod calls;
mod incoming;

pub use calls::Responder;
use calls::Shared;
use incoming::Incoming;

/// Why the runner got no link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The link ended before it began; [`LinkEnd::Closed`] carries mcpistd's reason.
    #[error("mcpistd gave no welcome: {0}")]
    NoWelcome(#[from] LinkEnd),
    /// Secret memory has no room for the link.
    #[error("no secret memory for the link: {0}")]
    Memory(#[from] MemoryError),
}

/// What mcpistd settled at the start of a link.
pub struct Welcome {
    /// The wire version that both ends speak from here on.
    pub version: u16,
    /// The key under which this link's fingerprints are made.
    pub key: RedactKey,
}

/// Greets mcpistd over `stream`. Has no time limit of its own; needs a Tokio runtime.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    stream: UnixStream,
    role: Role,
    pid: u32,
) -> Result<(Welcome, Requests), ConnectError> {
    let (reader, writer) = split(stream).map_err(|e| LinkEnd::Io(e.to_string()))?;
    let mut inbox = Inbox::secret(reader, Secret::zeroed(MAX_FRAME)?);
    let shared = Arc::new(Shared::new());
    let hello = Hello {
        versions: VERSIONS,
        role,
        pid,
    };
    // The outbox is new: it is open, and a hello fits into a frame.
    let _ = shared.outbox.push(|batch| {
        batch.message(
            Kind::Hello,
            Kind::Hello,
            0,
            |out| hello.encode(out),
            Body::default(),
        )
    });
    let writing = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { shared.outbox.write_to(writer).await }
    });
    let mut link = Link { shared, writing };
    let read = async {
        let header = inbox.next().await.map_err(LinkEnd::from)?;
        inbox.take(header, |payload| decode_welcome(header, payload))
    };
    match read.await {
        Ok(welcome) => {
            let incoming = Incoming::new(Arc::clone(&link.shared));
            Ok((
                welcome,
                Requests {
                    inbox,
                    link,
                    incoming,
                    ended: None,
                },
            ))
        }
        Err(end) => {
            link.end(&end).await;
            Err(end.into())
        }
    }
}

fn decode_welcome(header: Header, payload: &[u8]) -> Result<Welcome, LinkEnd> {
    match header.kind() {
        Kind::Welcome => {
            let mut cursor = Cursor::new(payload);
            let version = cursor.u16("the version")?;
            if !VERSIONS.hold(version) {
                return Err(PayloadError::Invalid("the version").into());
            }
            let key = cursor.take(Key::LEN, "the redaction key")?;
            cursor.end()?;
            let key = Key::fill::<MemoryError>(|bytes| {
                bytes.copy_from_slice(key);
                Ok(())
            });
            let key = key.and_then(RedactKey::new);
            let key = key.map_err(|_| PayloadError::NoRoom("the redaction key"))?;
            Ok(Welcome { version, key })
        }
        Kind::Close => Err(LinkEnd::Closed(Close::decode(payload)?)),
        other => Err(LinkEnd::Protocol(format!("{other:?} came before welcome"))),
    }
}

/// What mcpistd asks of the runner.
#[derive(Debug)]
pub enum Request {
    /// Have this registry's modules ready.
    Load(Load),
    /// Know this binding.
    Bind(Bind),
    /// Redact what has this fingerprint.
    Redact {
        /// The number by which it is dropped.
        id: u64,
        /// The forms of one secret, under the link's key.
        fingerprint: Fingerprint,
    },
    /// Forget something.
    Drop(Dropped),
    /// Run a tool and answer.
    Call(ModuleCall, Responder),
}

/// What mcpistd sends, in order. Dropping it closes the link and cancels every call.
pub struct Requests {
    inbox: Inbox<ReadHalf>,
    link: Link,
    incoming: Incoming,
    ended: Option<LinkEnd>,
}

impl Requests {
    /// The next thing to do. Cancelled, it loses nothing.
    ///
    /// # Errors
    /// [`LinkEnd`] when the link has ended, and again at each later call. All calls are cancelled then.
    pub async fn next(&mut self) -> Result<Request, LinkEnd> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        let end = loop {
            let header = match self.inbox.next().await {
                Ok(header) => header,
                Err(error) => break LinkEnd::from(error),
            };
            let incoming = &mut self.incoming;
            match self
                .inbox
                .take(header, |payload| incoming.receive(header, payload))
            {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                Err(end) => break end,
            }
        };
        self.ended = Some(end.clone());
        self.link.end(&end).await;
        Err(end)
    }

    /// Writes the answers that are queued, for at most a second, and closes the link.
    pub async fn close(mut self) {
        self.link.end(&LinkEnd::Stopped).await;
    }
}

/// Closes the link when it is dropped.
struct Link {
    shared: Arc<Shared>,
    writing: JoinHandle<std::io::Result<()>>,
}

impl Link {
    async fn end(&mut self, end: &LinkEnd) {
        self.shared.cancel_all();
        if let Some(close) = end.farewell() {
            let _ = self.shared.outbox.push(|batch| {
                batch.message(
                    Kind::Close,
                    Kind::Close,
                    0,
                    |out| close.encode(out),
                    Body::default(),
                )
            });
        }
        self.shared.outbox.finish();
        if !self.writing.is_finished() {
            // Whether the last bytes were read is the other end's concern.
            let _ = tokio::time::timeout(GRACE, &mut self.writing).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.cancel_all();
        self.shared.outbox.close();
        self.writing.abort();
    }
}
