//! rmcp's transport over one stream: what it reads from and answers to. The thin async shell.
//!
//! Owns: the table of requests in flight, the gate before it, and the connection's end.
//! Promises: rmcp sees requests only. Notifications, responses and refusals are dealt with here, so
//! that a notification as first line ends nothing, and a cancelled request is told here and at once.
//! A request holds its slots of the gate until its answer is written, and both take room of the user's
//! budget, so neither calls nor answers pile up behind a peer that does not read. The end of the peer's input ends the connection once every
//! request is answered and the answers are written; that the peer is gone ends it, and cancels them, at once.
//! Does not: decide what a line is ([`crate::decode`]) or what an answer says ([`crate::reply`]).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ErrorData, GetExtensions, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Limits;
use crate::budget::{Budget, Charge};
use crate::decode::{Incoming, Refusal, Request, decode};
use crate::lines::{Line, Lines};
use crate::outbox::Outbox;

/// One request in flight: shared by the transport's table and, through rmcp's extensions, the handler.
pub(crate) struct Call {
    arguments: Mutex<Option<Box<RawValue>>>,
    /// Cancelled when the client gives the request up or goes away.
    pub(crate) cancel: CancellationToken,
    answer: Mutex<Option<Vec<u8>>>,
    _slots: OwnedSemaphorePermit,
    _charge: Charge,
}

impl Call {
    /// The raw arguments of a tool call, for who reads them; they are not kept beside what is made of them.
    pub(crate) fn take_arguments(&self) -> Option<Box<RawValue>> {
        taken(&self.arguments)
    }

    /// Leaves the finished line of the answer, to be sent in place of rmcp's own.
    pub(crate) fn answer(&self, line: Vec<u8>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    fn take_answer(&self) -> Option<Vec<u8>> {
        taken(&self.answer)
    }
}

fn taken<T>(kept: &Mutex<Option<T>>) -> Option<T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer ended it.
    Closed,
    /// The peer asked nothing in time.
    Silent,
    /// Reading or writing failed.
    Broken(io::Error),
}

/// Says, afterwards, how a connection ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<End>>>);

impl Ending {
    pub(crate) fn take(&self) -> Option<End> {
        taken(&self.0)
    }

    fn set(&self, end: End) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(end);
    }
}

/// A request that was read and waits for its slots.
struct Held {
    request: Box<Request>,
    slots: u32,
    charge: Charge,
}

/// What an answer holds until it is written: its request's slots, and the room of both.
struct Due {
    _call: Arc<Call>,
    _charge: Option<Charge>,
}

/// See the module.
pub(crate) struct LineTransport<R, W> {
    lines: Lines<R>,
    /// Done once the peer neither sends nor reads any more.
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    budget: Budget,
    out: Arc<Outbox<W>>,
    limits: Limits,
    open: HashMap<RequestId, Arc<Call>>,
    gate: Arc<Semaphore>,
    held: Option<Held>,
    /// A refusal is queued and not known to be written.
    owing: bool,
    /// Until when the first request must be there; `None` once it is.
    first_until: Option<Instant>,
    closed: CancellationToken,
    ending: Ending,
}

impl<R, W> LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    /// Every call of the connection is cancelled with `closed`.
    pub(crate) fn new(
        read: R,
        write: W,
        gone: impl Future<Output = ()> + Send + 'static,
        limits: Limits,
        budget: &Budget,
        closed: CancellationToken,
    ) -> (LineTransport<R, W>, Ending) {
        let ending = Ending::default();
        let transport = LineTransport {
            lines: Lines::new(read, limits.line_bytes, budget),
            gone: Box::pin(gone),
            budget: budget.clone(),
            out: Arc::new(Outbox::new(write)),
            limits,
            open: HashMap::new(),
            gate: Arc::new(Semaphore::new(slots(&limits))),
            held: None,
            owing: false,
            first_until: Some(Instant::now() + limits.first_request),
            closed,
            ending: ending.clone(),
        };
        (transport, ending)
    }

    /// The next request. Whatever is awaited may be dropped: all state is in `self`.
    async fn next_request(&mut self) -> Result<ClientJsonRpcMessage, End> {
        loop {
            if self.owing {
                self.out.flush().await.map_err(End::Broken)?;
                self.owing = false;
            }
            if let Some(Held { slots, .. }) = self.held {
                let permit = self.slots(slots).await?;
                if let Some(held) = self.held.take() {
                    return Ok(self.admit(held, permit));
                }
            }
            let next = self.lines.next();
            let line = match self.first_until {
                Some(until) => timeout_at(until, next).await.map_err(|_| End::Silent)?,
                None => next.await,
            };
            match line.map_err(End::Broken)? {
                None => {
                    // With all slots nothing is in flight, and every answer is written.
                    let all = u32::try_from(slots(&self.limits)).unwrap_or(u32::MAX);
                    let _all = self.slots(all).await?;
                    return Err(End::Closed);
                }
                Some(Line::TooLong) => {
                    self.refuse(Refusal::invalid(
                        None,
                        "the line is over the limit and was skipped",
                    ))?;
                }
                Some(Line::NoRoom) => self.refuse(Refusal::busy(None))?,
                Some(Line::Text(text)) => {
                    let slots = slots_of(text.len(), &self.limits);
                    let incoming = decode(text);
                    self.take_in(incoming, slots)?;
                }
            }
        }
    }

    fn take_in(&mut self, incoming: Incoming, slots: u32) -> Result<(), End> {
        match incoming {
            Incoming::Nothing => Ok(()),
            Incoming::Refused(refusal) => self.refuse(refusal),
            Incoming::Cancel(id) => {
                if let Some(call) = self.open.get(&id) {
                    call.cancel.cancel();
                }
                Ok(())
            }
            Incoming::Request(request) if self.open.contains_key(&request.id) => self.refuse(
                Refusal::invalid(Some(request.id), "the id is of a request in flight"),
            ),
            Incoming::Request(request) => {
                self.first_until = None;
                match self.budget.take(request.bytes) {
                    Some(charge) => {
                        self.held = Some(Held {
                            request,
                            slots,
                            charge,
                        });
                        Ok(())
                    }
                    None => self.refuse(Refusal::busy(Some(request.id))),
                }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), End> {
        let data = refusal
            .data
            .map(|code| serde_json::json!({ "code": code.as_str() }));
        let error = ErrorData::new(refusal.code, refusal.message, data);
        let message = ServerJsonRpcMessage::error(error, refusal.id);
        self.out.push(&message).map_err(End::Broken)?;
        self.owing = true;
        Ok(())
    }

    /// Waits for slots of the gate, and meanwhile for the peer to go away.
    async fn slots(&mut self, slots: u32) -> Result<OwnedSemaphorePermit, End> {
        if let Ok(permit) = Arc::clone(&self.gate).try_acquire_many_owned(slots) {
            return Ok(permit);
        }
        tokio::select! {
            // The gate is never closed.
            permit = Arc::clone(&self.gate).acquire_many_owned(slots) => permit.map_err(|_| End::Closed),
            () = &mut self.gone => Err(End::Closed),
        }
    }

    fn admit(&mut self, held: Held, slots: OwnedSemaphorePermit) -> ClientJsonRpcMessage {
        let Request {
            id,
            mut what,
            arguments,
            bytes: _,
        } = *held.request;
        let call = Arc::new(Call {
            arguments: Mutex::new(arguments),
            cancel: self.closed.child_token(),
            answer: Mutex::default(),
            _slots: slots,
            _charge: held.charge,
        });
        what.extensions_mut().insert(Arc::clone(&call));
        self.open.insert(id.clone(), call);
        JsonRpcMessage::request(what, id)
    }

    /// Queues what is due for `message` and hands back what it holds until it is written, or `None` if nothing is due.
    ///
    /// # Errors
    /// The peer's user has too many answers that nobody reads. The act is done by now, so that no other answer would be
    /// true: the connection ends.
    fn queue(&mut self, message: ServerJsonRpcMessage) -> io::Result<Option<Due>> {
        let id = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let Some(call) = id.and_then(|id| self.open.remove(id)) else {
            return Ok(None);
        };
        if call.cancel.is_cancelled() {
            return Ok(None);
        }
        let is_call = matches!(&message, JsonRpcMessage::Response(response)
            if matches!(response.result, ServerResult::CallToolResult(_)));
        let mut charge = None;
        match call.take_answer() {
            Some(line) if is_call => {
                let room = self.budget.take(line.len());
                charge = Some(room.ok_or_else(|| io::Error::other("answers are not read"))?);
                self.out.push_line(line);
            }
            _ => self.out.push(&message)?,
        }
        Ok(Some(Due {
            _call: call,
            _charge: charge,
        }))
    }
}

impl<R, W> Transport<RoleServer> for LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let queued = self.queue(message);
        let out = Arc::clone(&self.out);
        let closed = self.closed.clone();
        async move {
            let written = match queued {
                Ok(None) => Ok(()),
                // Held until the line is written.
                Ok(Some(_due)) => out.flush().await,
                Err(e) => Err(e),
            };
            written.inspect_err(|_| closed.cancel())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        if self.closed.is_cancelled() {
            return None;
        }
        match self.next_request().await {
            Ok(message) => Some(message),
            Err(end) => {
                self.ending.set(end);
                self.closed.cancel();
                None
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.out.close().await
    }
}

/// How many slots the gate has.
fn slots(limits: &Limits) -> usize {
    limits.in_flight.clamp(1, Semaphore::MAX_PERMITS)
}

/// How many slots of the gate a line of `len` bytes takes: one, and up to half of them all.
fn slots_of(len: usize, limits: &Limits) -> u32 {
    let share = len.saturating_mul(limits.in_flight / 2) / limits.line_bytes.max(1);
    u32::try_from(share.clamp(1, slots(limits))).unwrap_or(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use rmcp::model::CallToolResult;
    use tokio::io::{AsyncWriteExt, duplex, split};

    use super::*;

    #[test]
    fn a_long_line_takes_half_of_the_gate_and_a_short_one_a_slot() {
        let limits = Limits::default();
        assert_eq!(slots_of(500, &limits), 1);
        assert_eq!(slots_of(limits.line_bytes / 2, &limits), 16);
        assert_eq!(slots_of(limits.line_bytes, &limits), 32);
        let narrow = Limits {
            in_flight: 1,
            ..limits
        };
        assert_eq!(slots_of(limits.line_bytes, &narrow), 1);
    }

    #[tokio::test]
    async fn only_the_first_request_has_a_time_limit() {
        let (mut client, server) = duplex(1_024);
        let (read, write) = split(server);
        let closed = CancellationToken::new();
        let (mut transport, _) = LineTransport::new(
            read,
            write,
            pending(),
            Limits::default(),
            &Budget::new(1 << 20, 1 << 20),
            closed,
        );
        client.write_all(b"\n{}\n").await.unwrap();
        tokio::select! {
            biased;
            _ = transport.receive() => unreachable!("there was no request"),
            () = tokio::task::yield_now() => {}
        }
        assert!(transport.first_until.is_some());
        client
            .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n")
            .await
            .unwrap();
        assert!(transport.receive().await.is_some());
        assert!(transport.first_until.is_none());
    }

    #[tokio::test]
    async fn an_answer_without_room_ends_the_connection() {
        for (bytes, fits) in [(2_000, true), (5_000, false)] {
            let (mut client, server) = duplex(8_192);
            let (read, write) = split(server);
            let closed = CancellationToken::new();
            let (limits, budget) = (Limits::default(), Budget::new(1 << 20, 4_096));
            let (mut transport, _) =
                LineTransport::new(read, write, pending(), limits, &budget, closed.clone());
            let line = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
            client.write_all(line).await.unwrap();
            assert!(transport.receive().await.is_some());
            transport.open[&RequestId::Number(1)].answer(vec![b'x'; bytes]);
            let result = ServerResult::CallToolResult(CallToolResult::success(Vec::new()));
            let message = ServerJsonRpcMessage::response(result, RequestId::Number(1));
            assert_eq!(transport.send(message).await.is_ok(), fits);
            assert_eq!(closed.is_cancelled(), !fits);
            assert!(budget.take(4_096).is_some(), "what was taken is given back");
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_has_every_call_cancelled_before_it_is_reported() {
        let (mut client, server) = duplex(1_024);
        let (read, write) = split(server);
        let (gone, closed) = (CancellationToken::new(), CancellationToken::new());
        let (mut transport, ending) = LineTransport::new(
            read,
            write,
            gone.clone().cancelled_owned(),
            Limits::default(),
            &Budget::new(1 << 20, 1 << 20),
            closed,
        );
        let line = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
        client.write_all(line).await.unwrap();
        assert!(transport.receive().await.is_some());
        let cancel = transport.open[&RequestId::Number(1)].cancel.clone();
        client.shutdown().await.unwrap();
        tokio::select! {
            biased;
            _ = transport.receive() => unreachable!("a request is open"),
            () = tokio::task::yield_now() => {}
        }
        assert!(!cancel.is_cancelled());
        gone.cancel();
        assert!(transport.receive().await.is_none());
        assert!(cancel.is_cancelled());
        assert!(matches!(ending.take(), Some(End::Closed)));
    }
}
