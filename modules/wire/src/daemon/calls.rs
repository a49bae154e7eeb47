//! The daemon's end from inside: the calls in flight, and the two tasks that serve them.
//!
//! The table of calls is behind a `std` mutex, held for a look-up and never across an await. What the
//! runner sends is judged in [`Shared::receive`], which does no I/O: a frame that breaks the protocol ends
//! the link, an answer that breaks its call's rules fails that call alone, and what belongs to no call in
//! flight (cancelled, answered, never made) is ignored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::{CallError, TellError};
use crate::call::Answer;
use crate::codec::put_u32;
use crate::end::LinkEnd;
use crate::frame::{Header, Kind};
use crate::inbox::Inbox;
use crate::message::{AnswerHead, Close, CloseCode, decode_error};
use crate::outbox::{Body, Outbox};
use crate::stream::{ReadHalf, WriteHalf};
use crate::{GRACE, MAX_IN_FLIGHT, WINDOW};

type Reply = oneshot::Sender<Result<Answer, CallError>>;

/// What handles and tasks of one link share.
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    calls: Mutex<Calls>,
    stop: watch::Sender<Option<CloseCode>>,
    ended: watch::Sender<Option<Arc<LinkEnd>>>,
}

#[derive(Default)]
struct Calls {
    waiting: HashMap<u64, Waiting>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    pinged: u64,
    ended: bool,
    /// How many calls failed with the link.
    lost: usize,
}

/// A call that has no answer yet.
struct Waiting {
    reply: Reply,
    limit: usize,
    partial: Option<Partial>,
}

/// An answer of which a part has come.
struct Partial {
    head: AnswerHead,
    content: Vec<u8>,
    structured: Vec<u8>,
    /// Bytes taken since the runner last got credit. That it waits for credit is for the sake of other
    /// calls; what bounds this end's memory is the call's limit.
    uncredited: usize,
}

impl Partial {
    fn new(head: AnswerHead) -> Partial {
        let structured = head.structured.unwrap_or(0) as usize;
        Partial {
            head,
            content: Vec::with_capacity(head.content as usize),
            structured: Vec::with_capacity(structured),
            uncredited: 0,
        }
    }

    fn missing(&self) -> usize {
        // Both fit: the total was compared with the call's limit, which is a usize.
        self.head.total() as usize - self.content.len() - self.structured.len()
    }

    /// Takes the next bytes; says how much credit to give back, or what is wrong.
    fn push(&mut self, bytes: &[u8], more: bool) -> Result<usize, &'static str> {
        let missing = self.missing();
        if bytes.len() > missing {
            return Err("it brings more bytes than it announced");
        }
        if more == (bytes.len() == missing) {
            return Err("its end is not where it was announced");
        }
        let content = self.head.content as usize - self.content.len();
        let (content, structured) = bytes.split_at(content.min(bytes.len()));
        self.content.extend_from_slice(content);
        self.structured.extend_from_slice(structured);
        self.uncredited += content.len() + structured.len();
        if more && self.uncredited >= WINDOW / 2 {
            return Ok(std::mem::take(&mut self.uncredited));
        }
        Ok(0)
    }

    fn finish(self) -> Answer {
        Answer {
            content: self.content,
            structured: self.head.structured.map(|_| self.structured),
            is_error: self.head.is_error,
            truncated: self.head.truncated,
            hits: self.head.hits,
        }
    }
}

/// A call that is in flight; dropped before its answer came, it is cancelled.
pub(super) struct InFlight<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.shared.leave(self.id).is_some() {
            self.shared.cancel(self.id);
        }
    }
}

impl Shared {
    pub(super) fn new(outbox: Outbox) -> Shared {
        let (stop, ended) = (watch::Sender::default(), watch::Sender::default());
        Shared {
            outbox,
            calls: Mutex::default(),
            stop,
            ended,
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call into the table.
    pub(super) fn enter(
        &self,
        id: u64,
        reply: Reply,
        limit: usize,
    ) -> Result<InFlight<'_>, CallError> {
        let mut calls = self.calls();
        if calls.ended {
            return Err(CallError::RunnerLost);
        }
        if calls.waiting.len() >= MAX_IN_FLIGHT {
            return Err(CallError::Busy);
        }
        match calls.waiting.entry(id) {
            Entry::Occupied(_) => return Err(CallError::Duplicate(id)),
            Entry::Vacant(entry) => entry.insert(Waiting {
                reply,
                limit,
                partial: None,
            }),
        };
        self.outbox.open.fetch_add(1, Ordering::Relaxed);
        Ok(InFlight { shared: self, id })
    }

    fn leave(&self, id: u64) -> Option<Waiting> {
        self.take(&mut self.calls(), id)
    }

    fn take(&self, calls: &mut Calls, id: u64) -> Option<Waiting> {
        let waiting = calls.waiting.remove(&id)?;
        self.outbox.open.fetch_sub(1, Ordering::Relaxed);
        Some(waiting)
    }

    /// Tells the runner that nobody waits for the call; on a link that has ended there is nobody to tell.
    fn cancel(&self, id: u64) {
        let _ = self
            .outbox
            .push(|batch| batch.chunk(Kind::Cancel, false, id, Body::default()));
    }

    pub(super) fn lost(&self) -> usize {
        self.calls().lost
    }

    /// Puts a ping into the table and gives its number.
    pub(super) fn enter_ping(&self, pong: oneshot::Sender<()>) -> Result<u64, TellError> {
        let mut calls = self.calls();
        if calls.ended {
            return Err(TellError::Ended);
        }
        // Who stopped waiting is forgotten with the next ping.
        calls.pings.retain(|_, waiting| !waiting.is_closed());
        calls.pinged += 1;
        let number = calls.pinged;
        calls.pings.insert(number, pong);
        Ok(number)
    }

    pub(super) fn stop(&self, code: CloseCode) {
        self.stop.send_replace(Some(code));
    }

    pub(super) async fn ended(&self) -> Arc<LinkEnd> {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(end)) => Arc::clone(end),
            // Cannot be: the sender lives as long as `self`.
            Ok(None) | Err(_) => Arc::new(LinkEnd::Stopped),
        }
    }

    /// Judges one frame from the runner.
    fn receive(&self, header: Header, payload: &[u8]) -> Result<(), LinkEnd> {
        match header.kind() {
            Kind::Answer | Kind::Chunk => self.receive_answer(header, payload),
            Kind::Error => {
                let error = decode_error(payload)?;
                if let Some(waiting) = self.leave(header.call()) {
                    // Who waited may be gone; then nobody wants the error.
                    let _ = waiting.reply.send(Err(CallError::Failed(error)));
                }
                Ok(())
            }
            Kind::Pong => {
                if let Some(waiting) = self.calls().pings.remove(&header.call()) {
                    let _ = waiting.send(());
                }
                Ok(())
            }
            Kind::Close => Err(LinkEnd::Closed(Close::decode(payload)?)),
            other => Err(LinkEnd::Protocol(format!("a runner never sends {other:?}"))),
        }
    }

    fn receive_answer(&self, header: Header, payload: &[u8]) -> Result<(), LinkEnd> {
        let id = header.call();
        // Decoded before the look-up: a broken head ends the link whether somebody waits or not.
        let (head, bytes) = match header.kind() {
            Kind::Answer => AnswerHead::decode(payload).map(|(head, bytes)| (Some(head), bytes))?,
            _ => (None, payload),
        };
        let mut calls = self.calls();
        let Some(waiting) = calls.waiting.get_mut(&id) else {
            return Ok(());
        };
        match waiting.push(head, bytes, header.more()) {
            Ok(credit) => {
                let done = if header.more() {
                    None
                } else {
                    self.take(&mut calls, id)
                };
                drop(calls);
                if let Some(Waiting {
                    reply,
                    partial: Some(partial),
                    ..
                }) = done
                {
                    let _ = reply.send(Ok(partial.finish()));
                } else if let Some(credit) = u32::try_from(credit).ok().filter(|c| *c > 0) {
                    // A closed outbox means that the link ends; the call fails with it.
                    let _ = self.outbox.push(|batch| {
                        let fields = |out: &mut Vec<u8>| put_u32(out, credit);
                        batch.message(Kind::Credit, Kind::Credit, id, fields, Body::default())
                    });
                }
            }
            Err(error) => {
                let failed = self.take(&mut calls, id);
                drop(calls);
                if let Some(failed) = failed {
                    let _ = failed.reply.send(Err(error));
                }
                self.cancel(id);
            }
        }
        Ok(())
    }

    /// The link's task: reads until the link ends for whatever reason, then fails what is in flight.
    pub(super) async fn run(self: Arc<Self>, inbox: Inbox<ReadHalf>, writer: WriteHalf) {
        let shared = Arc::clone(&self);
        let mut writing = tokio::spawn(async move { shared.outbox.write_to(writer).await });
        let mut stop = self.stop.subscribe();
        let (end, farewell) = tokio::select! {
            end = self.read(inbox) => {
                let farewell = end.farewell();
                (end, farewell)
            }
            written = &mut writing => {
                let end = match written {
                    Ok(Err(error)) => LinkEnd::Io(error.to_string()),
                    Ok(Ok(())) | Err(_) => LinkEnd::Stopped,
                };
                (end, None)
            }
            code = stop.wait_for(Option::is_some) => {
                let code = code.ok().and_then(|code| *code).unwrap_or(CloseCode::Stopping);
                (LinkEnd::Stopped, Some(Close::new(code, "closed by mcpistd")))
            }
        };
        self.fail_all();
        log::debug!("the link to the runner ended: {end}");
        match farewell {
            Some(close) => {
                let _ = self.outbox.push(|batch| {
                    batch.message(
                        Kind::Close,
                        Kind::Close,
                        0,
                        |out| close.encode(out),
                        Body::default(),
                    )
                });
                self.outbox.finish();
            }
            None => self.outbox.close(),
        }
        self.ended.send_replace(Some(Arc::new(end)));
        if !writing.is_finished() && tokio::time::timeout(GRACE, &mut writing).await.is_err() {
            writing.abort();
        }
        self.outbox.close();
    }

    async fn read(&self, mut inbox: Inbox<ReadHalf>) -> LinkEnd {
        loop {
            let header = match inbox.next().await {
                Ok(header) => header,
                Err(error) => return error.into(),
            };
            if let Err(end) = inbox.take(header, |payload| self.receive(header, payload)) {
                return end;
            }
        }
    }

    /// Dropping the senders is what fails the waiting.
    fn fail_all(&self) {
        let mut calls = self.calls();
        calls.ended = true;
        calls.lost = calls.waiting.len();
        let waiting = std::mem::take(&mut calls.waiting);
        let pings = std::mem::take(&mut calls.pings);
        drop(calls);
        self.outbox.open.fetch_sub(waiting.len(), Ordering::Relaxed);
        drop((waiting, pings));
    }
}

impl Waiting {
    /// Takes a frame of the answer; says how much credit to give back, or why the call fails.
    fn push(
        &mut self,
        head: Option<AnswerHead>,
        bytes: &[u8],
        more: bool,
    ) -> Result<usize, CallError> {
        let partial = match (head, &mut self.partial) {
            (Some(head), partial @ None) => {
                if head.total() > self.limit as u64 {
                    return Err(CallError::TooLarge(self.limit));
                }
                partial.insert(Partial::new(head))
            }
            (None, Some(partial)) => partial,
            (Some(_), Some(_)) => return Err(CallError::Broken("it begins twice")),
            (None, None) => return Err(CallError::Broken("it has no beginning")),
        };
        partial.push(bytes, more).map_err(CallError::Broken)
    }
}
