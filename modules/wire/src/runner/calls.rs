//! The calls that the runner has in flight: their credit, their cancellation and their answers.
//!
//! The table is behind a `std` mutex, held for a look-up and never across an await. A [`Responder`] answers
//! once, whatever becomes of its task; what is no longer wanted is dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::CallId;
use mcpist_core::result::ToolError;
use tokio::sync::Notify;

use crate::call::Answer;
use crate::codec::PayloadError;
use crate::end::LinkEnd;
use crate::frame::{Kind, MAX_PAYLOAD};
use crate::message::{AnswerHead, encode_error};
use crate::outbox::{Batch, Body, Outbox};
use crate::{MAX_IN_FLIGHT, WINDOW};

/// What the link's reader, its writer and its responders share.
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    calls: Mutex<HashMap<u64, Arc<Flow>>>,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            outbox: Outbox::new(),
            calls: Mutex::default(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Arc<Flow>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call into the table and gives what answers it.
    pub(super) fn enter(self: &Arc<Self>, call: u64) -> Result<Responder, LinkEnd> {
        let mut calls = self.calls();
        if calls.len() >= MAX_IN_FLIGHT {
            return Err(PayloadError::TooLong("the list of calls in flight").into());
        }
        // The first call stays in the table, so that the link's end cancels it.
        let Entry::Vacant(entry) = calls.entry(call) else {
            return Err(LinkEnd::Protocol(format!(
                "call {call} is in flight already"
            )));
        };
        let flow = Arc::clone(entry.insert(Arc::new(Flow::new())));
        drop(calls);
        self.outbox.open.fetch_add(1, Ordering::Relaxed);
        Ok(Responder {
            call: CallId(call),
            flow,
            shared: Arc::clone(self),
            answered: false,
        })
    }

    /// Gives a call more credit; one that is not in flight needs none.
    pub(super) fn grant(&self, call: u64, bytes: usize) {
        if let Some(flow) = self.calls().get(&call) {
            flow.grant(bytes);
        }
    }

    pub(super) fn leave(&self, call: u64) -> Option<Arc<Flow>> {
        let flow = self.calls().remove(&call)?;
        self.outbox.open.fetch_sub(1, Ordering::Relaxed);
        Some(flow)
    }

    pub(super) fn cancel_all(&self) {
        let calls = std::mem::take(&mut *self.calls());
        self.outbox.open.fetch_sub(calls.len(), Ordering::Relaxed);
        for flow in calls.into_values() {
            flow.cancel();
        }
    }
}

/// One call's credit, and whether its answer is still wanted.
pub(super) struct Flow {
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

    pub(super) fn cancel(&self) {
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
        // A call that was cancelled has left already.
        if self.flow.is_cancelled() || self.shared.leave(id).is_none() {
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
