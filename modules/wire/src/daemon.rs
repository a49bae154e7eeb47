//! mcpistd's end of a link: one connection of one runner.
//!
//! [`Greeting::accept`] reads the runner's hello; the caller checks the peer and either refuses it or
//! [welcomes](Greeting::welcome) it to a [`DaemonLink`]. Calls are made through the link by any number of
//! tasks at once; two tasks of the link itself read and write. A link that ends fails every call in flight
//! with `runner_lost` and is not used again: after a reconnect there is a new link, and mcpistd sends its
//! modules, bindings and fingerprints anew.
//!
//! It promises that a runner, whatever it sends, can neither make mcpistd hold more than the calls' own
//! limits nor disturb a call that is not its fault. It does not keep time: who calls sets the deadline
//! and drops the call's future, which cancels the call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mcpist_core::error::ErrorCode;
use mcpist_core::result::ToolError;
use mcpist_secret::redact::{Fingerprint, RedactKey};
use mcpist_secret::{MemoryError, Secret};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::GRACE;
use crate::call::{Answer, ModuleCall};
use crate::codec::{put_u16, put_u64};
use crate::end::LinkEnd;
use crate::frame::Kind;
use crate::inbox::Inbox;
use crate::message::{
    Bind, Close, CloseCode, Dropped, Hello, Load, MAX_FINGERPRINT, MAX_MANIFEST, VERSIONS, Versions,
};
use crate::outbox::{Body, Outbox, Refused};
use crate::stream::{ReadHalf, WriteHalf, split};

mod calls;

use calls::Shared;

/// Bytes that may wait for a runner that does not read; above it a new call is `busy`.
const MAX_QUEUED: usize = 64 * 1024 * 1024;

/// A connection whose hello was read and that is neither welcomed nor refused yet.
pub struct Greeting {
    hello: Hello,
    version: u16,
    inbox: Inbox<ReadHalf>,
    writer: WriteHalf,
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The runner speaks none of our versions; it was told so.
    #[error(
        "wire_version: the runner speaks versions {theirs}, mcpistd {ours}; restart the runner after the upgrade"
    )]
    Version {
        /// What the runner speaks.
        theirs: Versions,
        /// What mcpistd speaks.
        ours: Versions,
    },
    /// The connection ended before, or its first frame was no hello.
    #[error("the connection gave no hello: {0}")]
    NoHello(LinkEnd),
}

impl Greeting {
    /// Reads the hello and settles on a version. Has no time limit of its own.
    ///
    /// # Errors
    /// [`AcceptError`]; the runner was told why where it could be.
    pub async fn accept(stream: UnixStream) -> Result<Greeting, AcceptError> {
        let (reader, writer) =
            split(stream).map_err(|e| AcceptError::NoHello(LinkEnd::Io(e.to_string())))?;
        let mut inbox = Inbox::plain(reader);
        let read = async {
            let header = inbox.next().await?;
            if header.kind() != Kind::Hello {
                return Err(LinkEnd::Protocol(format!(
                    "{:?} came before hello",
                    header.kind()
                )));
            }
            Ok(inbox.take(header, Hello::decode)?)
        };
        let hello = match read.await {
            Ok(hello) => hello,
            Err(end) => {
                if let LinkEnd::Protocol(text) = &end {
                    refuse(writer, &Close::new(CloseCode::Protocol, text)).await;
                }
                return Err(AcceptError::NoHello(end));
            }
        };
        let Some(version) = VERSIONS.common(hello.versions) else {
            let error = AcceptError::Version {
                theirs: hello.versions,
                ours: VERSIONS,
            };
            refuse(writer, &Close::new(CloseCode::WireVersion, &error)).await;
            return Err(error);
        };
        Ok(Greeting {
            hello,
            version,
            inbox,
            writer,
        })
    }

    /// What the runner said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The version that the link will speak.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Tells the runner why it is not wanted, and closes.
    pub async fn refuse(self, code: CloseCode, text: &str) {
        refuse(self.writer, &Close::new(code, text)).await;
    }

    /// Makes the link, whose fingerprints are made under `key`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// Secret memory had no room for the copy of the key that is written.
    pub fn welcome(self, key: &RedactKey) -> Result<DaemonLink, MemoryError> {
        let secret = Secret::copy_of(key.expose())?;
        let outbox = Outbox::new();
        let version = self.version;
        // The outbox is new: it is open, and 34 bytes fit into a frame.
        let _ = outbox
            .push(|batch| batch.secret(Kind::Welcome, 0, |out| put_u16(out, version), secret));
        let shared = Arc::new(Shared::new(outbox));
        tokio::spawn(Arc::clone(&shared).run(self.inbox, self.writer));
        Ok(DaemonLink {
            handle: Arc::new(Handle(shared)),
        })
    }
}

async fn refuse(mut writer: WriteHalf, close: &Close) {
    let outbox = Outbox::new();
    let _ = outbox.push(|batch| {
        batch.message(
            Kind::Close,
            Kind::Close,
            0,
            |out| close.encode(out),
            Body::default(),
        )
    });
    outbox.finish();
    // The peer may be gone already; there is nobody else to tell.
    let _ = tokio::time::timeout(GRACE, outbox.write_to(&mut writer)).await;
}

/// A live connection to a runner. Clones are handles of the same link; when the last is dropped, the link
/// is closed.
#[derive(Clone)]
pub struct DaemonLink {
    handle: Arc<Handle>,
}

/// Closes the link when nobody can use it any more.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop(CloseCode::Stopping);
    }
}

/// Why a call through a link has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The runner says that the call failed.
    #[error(transparent)]
    Failed(#[from] ToolError),
    /// The link ended while the call was in flight, or before.
    #[error("the runner went away; the call may have been done")]
    RunnerLost,
    /// Too many calls are in flight, or the runner does not read.
    #[error("the runner has too much to do; try again shortly")]
    Busy,
    /// The runner announced or sent more than the call may have.
    #[error("the runner's answer has more than {0} bytes; the module's limit is not kept")]
    TooLarge(usize),
    /// The runner's answer makes no sense.
    #[error("the runner's answer is broken: {0}")]
    Broken(&'static str),
    /// Another call with this number is in flight.
    #[error("call {0} is in flight already; give each call its own number")]
    Duplicate(u64),
}

impl CallError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            CallError::Failed(error) => error.code(),
            CallError::RunnerLost => ErrorCode::RunnerLost,
            CallError::Busy => ErrorCode::Busy,
            CallError::TooLarge(_) | CallError::Broken(_) => ErrorCode::ModuleFailed,
            CallError::Duplicate(_) => ErrorCode::Internal,
        }
    }
}

impl From<CallError> for ToolError {
    fn from(error: CallError) -> ToolError {
        match error {
            CallError::Failed(error) => error,
            other => ToolError::of(other.code()),
        }
    }
}

/// Why the runner was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The link has ended.
    #[error("the link to the runner has ended; send it again after the reconnect")]
    Ended,
    /// The message is over its limit.
    #[error("{0} is too long for the link")]
    TooLong(&'static str),
}

impl DaemonLink {
    /// Runs a call. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`CallError`]; only [`CallError::Failed`] comes from the module, all others from the link.
    pub async fn call(&self, mut call: ModuleCall) -> Result<Answer, CallError> {
        let shared = &self.handle.0;
        let id = call.call().0;
        let (reply, answer) = oneshot::channel();
        let _in_flight = shared.enter(id, reply, call.answer_limit())?;
        let queued = shared.outbox.push_within(MAX_QUEUED, |batch| {
            let (leases, arguments) = call.take_parts();
            let count = leases.len();
            for lease in leases {
                lease.queue(batch)?;
            }
            let body = Body::of(arguments, Bytes::new());
            batch.message(
                Kind::Call,
                Kind::Call,
                id,
                |out| call.encode(count, out),
                body,
            )
        });
        match queued {
            Ok(()) => answer.await.unwrap_or(Err(CallError::RunnerLost)),
            Err(Refused::Closed) => Err(CallError::RunnerLost),
            Err(Refused::Full) => Err(CallError::Busy),
            Err(Refused::DoesNotFit) => {
                Err(CallError::Broken("the call does not fit into a frame"))
            }
        }
    }

    /// Tells the runner of a registry's modules. The manifest is at most [`MAX_MANIFEST`] bytes.
    ///
    /// # Errors
    /// [`TellError`].
    pub fn load(&self, load: &Load) -> Result<(), TellError> {
        if load.manifest.len() > MAX_MANIFEST {
            return Err(TellError::TooLong("the manifest"));
        }
        let body = Body::of(load.manifest.clone(), Bytes::new());
        self.tell(Kind::Load, |out| load.encode(out), body)
    }

    /// Tells the runner of a binding.
    ///
    /// # Errors
    /// [`TellError`].
    pub fn bind(&self, bind: &Bind) -> Result<(), TellError> {
        let record = bind.record().ok_or(TellError::TooLong("the binding"))?;
        self.tell(
            Kind::Bind,
            |out| bind.encode(out),
            Body::of(record, Bytes::new()),
        )
    }

    /// Tells the runner of a secret's fingerprint, made under this link's key. `id` names it for
    /// [`Dropped::Fingerprint`].
    ///
    /// # Errors
    /// [`TellError`].
    pub fn redact(&self, id: u64, fingerprint: &Fingerprint) -> Result<(), TellError> {
        let fingerprint = fingerprint.encode();
        if fingerprint.len() > MAX_FINGERPRINT {
            return Err(TellError::TooLong("the fingerprint"));
        }
        let body = Body::of(fingerprint.into(), Bytes::new());
        self.tell(Kind::Redact, |out| put_u64(out, id), body)
    }

    /// Takes something back.
    ///
    /// # Errors
    /// [`TellError`].
    pub fn drop(&self, dropped: &Dropped) -> Result<(), TellError> {
        self.tell(Kind::Drop, |out| dropped.encode(out), Body::default())
    }

    /// Asks the runner for a sign of life; done when it came. Has no time limit of its own.
    ///
    /// # Errors
    /// [`TellError`].
    pub async fn ping(&self) -> Result<(), TellError> {
        let (pong, ponged) = oneshot::channel();
        let shared = &self.handle.0;
        let number = shared.enter_ping(pong)?;
        shared
            .outbox
            .push(|batch| batch.chunk(Kind::Ping, false, number, Body::default()))
            .map_err(|_| TellError::Ended)?;
        ponged.await.map_err(|_| TellError::Ended)
    }

    /// Ends the link: the runner is told `code`, and calls in flight fail with `runner_lost`.
    pub fn close(&self, code: CloseCode) {
        self.handle.0.stop(code);
    }

    /// Calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.handle.0.outbox.open.load(Ordering::Relaxed)
    }

    /// Calls that failed because the link ended; 0 while it lives.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.handle.0.lost()
    }

    /// Waits for the link's end and says why it ended.
    pub async fn ended(&self) -> Arc<LinkEnd> {
        self.handle.0.ended().await
    }

    fn tell(
        &self,
        kind: Kind,
        fields: impl FnOnce(&mut Vec<u8>),
        body: Body,
    ) -> Result<(), TellError> {
        let outbox = &self.handle.0.outbox;
        outbox
            .push(|batch| batch.message(kind, kind, 0, fields, body))
            .map_err(|_| TellError::Ended)
    }
}
