//! The runner's end of a link.
//!
//! [`connect`] greets mcpistd and yields the link's redaction key and its [`Requests`]. Whoever owns
//! `Requests` drives the link: [`Requests::next`] reads, answers pings, hands out credit and cancellations,
//! and returns what the runner has to do, in the order in which mcpistd sent it. Each call comes with a
//! [`Responder`], which may go to a task of its own.
//!
//! What is read stands in secret memory until it is decoded: leases go from there into their own slots and
//! are wiped behind. An answer longer than the credit waits for more and holds up no other call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::CallId;
use mcpist_core::result::ToolError;
use mcpist_secret::redact::{Fingerprint, RedactKey};
use mcpist_secret::{Key, MemoryError, Secret};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::call::{Answer, MAX_ARGUMENTS, MAX_LEASES, ModuleCall};
use crate::codec::{Cursor, PayloadError};
use crate::end::LinkEnd;
use crate::frame::{Header, Kind, MAX_FRAME, MAX_PAYLOAD};
use crate::inbox::Inbox;
use crate::lease::Lease;
use crate::message::{
    AnswerHead, Bind, Close, Dropped, Hello, Load, MAX_BINDING, MAX_FINGERPRINT, MAX_MANIFEST,
    Role, VERSIONS, encode_error,
};
use crate::outbox::{Batch, Body, Outbox};
use crate::{GRACE, MAX_IN_FLIGHT, WINDOW};

/// More than any message's fixed fields need.
const FIELDS: usize = 1024;

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
    let (reader, writer) = stream.into_split();
    let mut inbox = Inbox::secret(reader, Secret::zeroed(MAX_FRAME)?);
    let shared = Arc::new(Shared {
        outbox: Outbox::new(),
        calls: Mutex::default(),
    });
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
            let incoming = Incoming {
                shared: Arc::clone(&link.shared),
                leases: Vec::new(),
                partial: None,
            };
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
    /// Have this module ready.
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
    inbox: Inbox<OwnedReadHalf>,
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

struct Shared {
    outbox: Outbox,
    calls: Mutex<HashMap<u64, Arc<Flow>>>,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Arc<Flow>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, call: u64) -> Option<Arc<Flow>> {
        let flow = self.calls().remove(&call)?;
        self.outbox.open.fetch_sub(1, Ordering::Relaxed);
        Some(flow)
    }

    fn cancel_all(&self) {
        let calls = std::mem::take(&mut *self.calls());
        self.outbox.open.fetch_sub(calls.len(), Ordering::Relaxed);
        for flow in calls.into_values() {
            flow.cancel();
        }
    }
}

/// One call's credit, and whether its answer is still wanted.
struct Flow {
    credit: AtomicUsize,
    cancelled: AtomicBool,
    changed: Notify,
}

impl Flow {
    fn new() -> Flow {
        let (credit, cancelled) = (AtomicUsize::new(WINDOW), AtomicBool::new(false));
        Flow {
            credit,
            cancelled,
            changed: Notify::new(),
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn grant(&self, bytes: usize) {
        self.credit.fetch_add(bytes, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Waits until `ready` yields something; asked anew at each change.
    async fn wait<T>(&self, ready: impl Fn(&Flow) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, so that no change falls between.
            changed.as_mut().enable();
            if let Some(value) = ready(self) {
                return value;
            }
            changed.await;
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Takes all the credit there is; `None` when the call is cancelled.
    async fn take_credit(&self) -> Option<usize> {
        self.wait(|flow| match flow.credit.swap(0, Ordering::AcqRel) {
            _ if flow.is_cancelled() => Some(None),
            0 => None,
            credit => Some(Some(credit)),
        })
        .await
    }
}

/// Answers one call, once.
pub struct Responder {
    call: CallId,
    flow: Arc<Flow>,
    shared: Arc<Shared>,
    answered: bool,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl Responder {
    /// Sends the answer. Returns at once when the credit allows it, else when the last byte is queued. An
    /// answer that is no longer wanted is dropped.
    pub async fn answer(mut self, answer: Answer) {
        let lengths = (
            u32::try_from(answer.content.len()),
            answer
                .structured
                .as_ref()
                .map(|bytes| u32::try_from(bytes.len()))
                .transpose(),
        );
        let (Ok(content), Ok(structured)) = lengths else {
            return self.fail(&ToolError::of(ErrorCode::ModuleFailed));
        };
        let Answer {
            is_error,
            truncated,
            hits,
            ..
        } = answer;
        let head = AnswerHead {
            is_error,
            truncated,
            hits,
            content,
            structured,
        };
        let structured = answer.structured.map_or_else(Bytes::new, Bytes::from);
        let mut body = Body::of(answer.content.into(), structured);
        let Some(mut credit) = self.flow.take_credit().await else {
            return;
        };
        let id = self.call.0;
        let outbox = &self.shared.outbox;
        if body.len() <= credit {
            self.answered = true;
            self.shared.leave(id);
            // A closed outbox means that the link has ended and nobody waits.
            let _ = outbox.push(|batch| {
                batch.message(Kind::Answer, Kind::Chunk, id, |out| head.encode(out), body)
            });
            return;
        }
        // The first frame is smaller than the window, so there is credit for it.
        let start =
            |batch: &mut Batch| batch.start(Kind::Answer, id, |out| head.encode(out), &mut body);
        let Ok(sent) = outbox.push(start) else { return };
        credit -= sent;
        while body.len() > 0 {
            if credit == 0 {
                match self.flow.take_credit().await {
                    Some(more) => credit = more,
                    None => return,
                }
            }
            let piece = body.take(credit.min(MAX_PAYLOAD));
            credit -= piece.len();
            let more = body.len() > 0;
            if outbox
                .push(|batch| batch.chunk(Kind::Chunk, more, id, piece))
                .is_err()
            {
                return;
            }
        }
        self.answered = true;
        self.shared.leave(id);
    }

    /// Says that the call failed.
    pub fn fail(mut self, error: &ToolError) {
        self.send_error(error);
    }

    /// Waits until the answer is no longer wanted: cancelled by mcpistd, or the link has ended.
    pub async fn cancelled(&self) {
        self.flow
            .wait(|flow| flow.is_cancelled().then_some(()))
            .await;
    }

    fn send_error(&mut self, error: &ToolError) {
        self.answered = true;
        let id = self.call.0;
        if self.shared.leave(id).is_none() {
            return;
        }
        // A closed outbox means that the link has ended and nobody waits.
        let _ = self.shared.outbox.push(|batch| {
            let fields = |out: &mut Vec<u8>| encode_error(error, out);
            batch.message(Kind::Error, Kind::Error, id, fields, Body::default())
        });
    }
}

impl Drop for Responder {
    /// A call whose task ended without an answer, by a panic or by being dropped, fails at once.
    fn drop(&mut self) {
        if !self.answered {
            self.send_error(&ToolError::of(ErrorCode::ModuleFailed));
        }
    }
}

/// What is to be remembered from frame to frame. No I/O.
struct Incoming {
    shared: Arc<Shared>,
    /// Leases of the call that has to follow.
    leases: Vec<Lease>,
    /// A message that goes on.
    partial: Option<Partial>,
}

struct Partial {
    kind: Kind,
    call: u64,
    bytes: Vec<u8>,
}

impl Incoming {
    /// Judges one frame from mcpistd.
    fn receive(&mut self, header: Header, payload: &[u8]) -> Result<Option<Request>, LinkEnd> {
        let (kind, call) = (header.kind(), header.call());
        if self
            .partial
            .as_ref()
            .is_some_and(|partial| (partial.kind, partial.call) != (kind, call))
        {
            return Err(LinkEnd::Protocol(format!(
                "{kind:?} came inside another message"
            )));
        }
        let expected = matches!(kind, Kind::Lease | Kind::Call);
        if self
            .leases
            .first()
            .is_some_and(|lease| !expected || lease.call().0 != call)
        {
            return Err(LinkEnd::Protocol(format!(
                "{kind:?} came between a lease and its call"
            )));
        }
        if self.partial.is_none() && !header.more() {
            return self.message(kind, call, payload);
        }
        let limit = FIELDS
            + match kind {
                Kind::Load => MAX_MANIFEST,
                Kind::Bind => MAX_BINDING,
                Kind::Redact => MAX_FINGERPRINT,
                Kind::Call => MAX_ARGUMENTS,
                other => return Err(unexpected(other)),
            };
        let partial = self.partial.get_or_insert(Partial {
            kind,
            call,
            bytes: Vec::new(),
        });
        if partial.bytes.len() + payload.len() > limit {
            return Err(PayloadError::TooLong("a message in several frames").into());
        }
        partial.bytes.extend_from_slice(payload);
        if header.more() {
            return Ok(None);
        }
        let whole = self
            .partial
            .take()
            .map(|partial| partial.bytes)
            .unwrap_or_default();
        self.message(kind, call, &whole)
    }

    fn message(
        &mut self,
        kind: Kind,
        call: u64,
        payload: &[u8],
    ) -> Result<Option<Request>, LinkEnd> {
        let request = match kind {
            Kind::Load => Request::Load(Load::decode(payload)?),
            Kind::Bind => Request::Bind(Bind::decode(payload)?),
            Kind::Redact => {
                let mut cursor = Cursor::new(payload);
                let id = cursor.u64("the fingerprint's number")?;
                let fingerprint = Fingerprint::decode(cursor.rest())
                    .map_err(|_| PayloadError::Invalid("the fingerprint"))?;
                Request::Redact { id, fingerprint }
            }
            Kind::Drop => Request::Drop(Dropped::decode(payload)?),
            Kind::Lease => {
                if self.leases.len() == MAX_LEASES {
                    return Err(PayloadError::TooLong("the list of leases").into());
                }
                self.leases.push(Lease::decode(call, payload)?);
                return Ok(None);
            }
            Kind::Call => {
                let leases = std::mem::take(&mut self.leases);
                let asked = ModuleCall::decode(call, payload, leases)?;
                Request::Call(asked, self.enter(call)?)
            }
            Kind::Cancel => {
                if let Some(flow) = self.shared.leave(call) {
                    flow.cancel();
                }
                return Ok(None);
            }
            Kind::Credit => {
                let mut cursor = Cursor::new(payload);
                let bytes = cursor.u32("the credit")? as usize;
                cursor.end()?;
                if let Some(flow) = self.shared.calls().get(&call) {
                    flow.grant(bytes);
                }
                return Ok(None);
            }
            Kind::Ping => {
                // A closed outbox means that the link ends; the next read says so.
                let pong =
                    |batch: &mut Batch| batch.chunk(Kind::Pong, false, call, Body::default());
                let _ = self.shared.outbox.push(pong);
                return Ok(None);
            }
            Kind::Close => return Err(LinkEnd::Closed(Close::decode(payload)?)),
            other => return Err(unexpected(other)),
        };
        Ok(Some(request))
    }

    fn enter(&self, call: u64) -> Result<Responder, LinkEnd> {
        let mut calls = self.shared.calls();
        if calls.len() >= MAX_IN_FLIGHT {
            return Err(PayloadError::TooLong("the list of calls in flight").into());
        }
        let flow = Arc::new(Flow::new());
        if calls.insert(call, Arc::clone(&flow)).is_some() {
            return Err(LinkEnd::Protocol(format!(
                "call {call} is in flight already"
            )));
        }
        drop(calls);
        self.shared.outbox.open.fetch_add(1, Ordering::Relaxed);
        Ok(Responder {
            call: CallId(call),
            flow,
            shared: Arc::clone(&self.shared),
            answered: false,
        })
    }
}

fn unexpected(kind: Kind) -> LinkEnd {
    LinkEnd::Protocol(format!("mcpistd never sends {kind:?}"))
}
