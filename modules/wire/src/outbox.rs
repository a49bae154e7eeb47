//! What one end of a link still has to write: one queue, filled by many, emptied by one writer task.
//!
//! A frame's header and small fields are encoded into one buffer that the whole queue shares; large
//! bodies are moved in and never copied; secrets are moved in and written from secret memory by the
//! kernel itself, so that no buffer of this process ever holds them. The writer takes all that is queued
//! and hands it to the kernel in vectored writes, so that under load one system call carries many frames.
//!
//! It promises that a message's frames are queued together and in order. It does not bound what is
//! queued, except where the caller asks ([`Outbox::push_within`]): what may be in flight is the concern of
//! `daemon` and `runner`.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mcpist_secret::Secret;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::frame::{HEADER, Header, Kind, MAX_PAYLOAD};

/// Bodies shorter than this are copied behind their header; an own slice in the vectored write, and its
/// allocation's way through the queue, would cost more than the copy.
const COPY_BELOW: usize = 2 * 1024;
/// Slices in one vectored write.
const SLICES: usize = 64;
/// Capacity that the shared buffer keeps after a burst.
const KEEP: usize = 256 * 1024;

/// The bytes behind a message's fixed fields: up to two buffers, one after the other.
#[derive(Default)]
pub(crate) struct Body {
    first: Bytes,
    second: Bytes,
}

impl Body {
    pub(crate) fn of(first: Bytes, second: Bytes) -> Body {
        Body { first, second }
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Takes the first `count` bytes, or all when there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> Body {
        let head = count.min(self.first.len());
        let tail = (count - head).min(self.second.len());
        Body {
            first: self.first.split_to(head),
            second: self.second.split_to(tail),
        }
    }
}

/// A message whose fixed fields do not fit into a frame. Cannot happen with names of their types' lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoesNotFit;

enum Part {
    /// So many bytes of the shared buffer.
    Inline(usize),
    Shared(Bytes),
    Secret(Secret),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Inline(length) => *length,
            Part::Shared(bytes) => bytes.len(),
            Part::Secret(secret) => secret.len(),
        }
    }
}

/// Frames that are written together.
#[derive(Default)]
pub(crate) struct Batch {
    inline: Vec<u8>,
    /// How much of `inline` stands in `parts`.
    recorded: usize,
    parts: Vec<Part>,
    bytes: usize,
}

impl Batch {
    /// Queues a message: `fields` writes its fixed fields, `body` follows. What does not fit into the first
    /// frame goes on in frames of kind `next`.
    pub(crate) fn message(
        &mut self,
        kind: Kind,
        next: Kind,
        call: u64,
        fields: impl FnOnce(&mut Vec<u8>),
        mut body: Body,
    ) -> Result<(), DoesNotFit> {
        let start = self.inline.len();
        let room = self.open(fields, start)?;
        let piece = body.take(room);
        self.frame(kind, body.len() > 0, call, start, piece)?;
        while body.len() > 0 {
            let piece = body.take(MAX_PAYLOAD);
            self.chunk(next, body.len() > 0, call, piece)?;
        }
        Ok(())
    }

    /// Queues the first frame of a message whose other frames follow later, by [`Batch::chunk`].
    pub(crate) fn start(
        &mut self,
        kind: Kind,
        call: u64,
        fields: impl FnOnce(&mut Vec<u8>),
        body: &mut Body,
    ) -> Result<usize, DoesNotFit> {
        let start = self.inline.len();
        let room = self.open(fields, start)?;
        let piece = body.take(room);
        let sent = piece.len();
        self.frame(kind, body.len() > 0, call, start, piece)?;
        Ok(sent)
    }

    /// Queues one frame that holds only `body`.
    pub(crate) fn chunk(
        &mut self,
        kind: Kind,
        more: bool,
        call: u64,
        body: Body,
    ) -> Result<(), DoesNotFit> {
        let start = self.inline.len();
        self.inline.extend_from_slice(&[0; HEADER]);
        self.frame(kind, more, call, start, body)
    }

    /// Queues one frame of `fields` and a secret.
    pub(crate) fn secret(
        &mut self,
        kind: Kind,
        call: u64,
        fields: impl FnOnce(&mut Vec<u8>),
        secret: Secret,
    ) -> Result<(), DoesNotFit> {
        let start = self.inline.len();
        let room = self.open(fields, start)?;
        if secret.len() > room {
            self.inline.truncate(start);
            return Err(DoesNotFit);
        }
        let length = MAX_PAYLOAD - room + secret.len();
        self.close(kind, false, call, start, length)?;
        self.part(Part::Secret(secret));
        Ok(())
    }

    /// Makes room for a header at `start`, writes the fields, and says how much payload is left.
    fn open(
        &mut self,
        fields: impl FnOnce(&mut Vec<u8>),
        start: usize,
    ) -> Result<usize, DoesNotFit> {
        self.inline.extend_from_slice(&[0; HEADER]);
        fields(&mut self.inline);
        let used = self.inline.len() - start - HEADER;
        MAX_PAYLOAD.checked_sub(used).ok_or_else(|| {
            self.inline.truncate(start);
            DoesNotFit
        })
    }

    /// Writes the header at `start` for the fields behind it and `body`, and queues `body`.
    fn frame(
        &mut self,
        kind: Kind,
        more: bool,
        call: u64,
        start: usize,
        body: Body,
    ) -> Result<(), DoesNotFit> {
        let length = self.inline.len() - start - HEADER + body.len();
        self.close(kind, more, call, start, length)?;
        for piece in [body.first, body.second] {
            if piece.len() < COPY_BELOW {
                self.bytes += piece.len();
                self.inline.extend_from_slice(&piece);
            } else {
                self.part(Part::Shared(piece));
            }
        }
        Ok(())
    }

    fn close(
        &mut self,
        kind: Kind,
        more: bool,
        call: u64,
        start: usize,
        length: usize,
    ) -> Result<(), DoesNotFit> {
        let Some(header) = Header::new(kind, more, length, call) else {
            self.inline.truncate(start);
            return Err(DoesNotFit);
        };
        self.inline[start..start + HEADER].copy_from_slice(&header.encode());
        self.bytes += self.inline.len() - start;
        Ok(())
    }

    fn part(&mut self, part: Part) {
        self.record();
        self.bytes += part.len();
        self.parts.push(part);
    }

    fn record(&mut self) {
        let length = self.inline.len() - self.recorded;
        if length > 0 {
            self.parts.push(Part::Inline(length));
            self.recorded = self.inline.len();
        }
    }

    fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.parts.is_empty()
    }

    /// Forgets everything; secrets are wiped by their own drop.
    fn clear(&mut self) {
        self.parts.clear();
        self.inline.clear();
        self.inline.shrink_to(KEEP);
        self.recorded = 0;
        self.bytes = 0;
    }

    /// Writes all of it, in as few vectored writes as the kernel takes.
    async fn write(&mut self, sink: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.record();
        let (mut first, mut inside, mut inline) = (0, 0, 0);
        while first < self.parts.len() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            let (mut skip, mut at) = (inside, inline);
            for (slice, part) in slices.iter_mut().zip(&self.parts[first..]) {
                let bytes = match part {
                    Part::Inline(length) => {
                        at += length;
                        &self.inline[at - length..at]
                    }
                    Part::Shared(bytes) => bytes,
                    Part::Secret(secret) => secret.expose(),
                };
                *slice = IoSlice::new(&bytes[skip..]);
                skip = 0;
                count += 1;
            }
            let mut written = sink.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(part) = self.parts.get(first) {
                let left = part.len() - inside;
                if written < left {
                    inside += written;
                    break;
                }
                written -= left;
                inside = 0;
                first += 1;
                if let Part::Inline(length) = part {
                    inline += length;
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What is queued is still written; nothing is taken any more.
    Finishing,
    Closed,
}

struct Queue {
    batch: Batch,
    state: State,
}

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    Full,
    DoesNotFit,
}

impl From<DoesNotFit> for Refused {
    fn from(_: DoesNotFit) -> Refused {
        Refused::DoesNotFit
    }
}

/// The queue of one link's end. The lock is held for an encoding or a swap, never across an await.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Calls open on this link: with more than one, the writer waits for its turn before it writes, and
    /// finds the frames of the others beside the first.
    pub(crate) open: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        let queue = Queue {
            batch: Batch::default(),
            state: State::Open,
        };
        Outbox {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            open: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what `encode` writes.
    pub(crate) fn push<T>(
        &self,
        encode: impl FnOnce(&mut Batch) -> Result<T, DoesNotFit>,
    ) -> Result<T, Refused> {
        self.push_within(usize::MAX, encode)
    }

    /// Queues what `encode` writes, unless `limit` bytes are waiting already.
    pub(crate) fn push_within<T>(
        &self,
        limit: usize,
        encode: impl FnOnce(&mut Batch) -> Result<T, DoesNotFit>,
    ) -> Result<T, Refused> {
        let mut queue = self.lock();
        if queue.state != State::Open {
            return Err(Refused::Closed);
        }
        if queue.batch.bytes >= limit {
            return Err(Refused::Full);
        }
        let was_empty = queue.batch.is_empty();
        let result = encode(&mut queue.batch);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(result?)
    }

    /// Takes nothing more; what is queued is still written.
    pub(crate) fn finish(&self) {
        let mut queue = self.lock();
        if queue.state == State::Open {
            queue.state = State::Finishing;
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes nothing more and drops what is queued.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.batch.clear();
        drop(queue);
        self.filled.notify_one();
    }

    /// Waits for something to write and swaps it with the emptied `batch`; false at the end.
    async fn swap(&self, batch: &mut Batch) -> bool {
        loop {
            {
                let mut queue = self.lock();
                if !queue.batch.is_empty() {
                    std::mem::swap(&mut queue.batch, batch);
                    return true;
                }
                if queue.state != State::Open {
                    return false;
                }
            }
            self.filled.notified().await;
            if self.open.load(Ordering::Relaxed) > 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The writer: writes what is queued until the outbox is finished or closed, then shuts `sink` down.
    ///
    /// # Errors
    /// What the socket said. The outbox is closed then.
    pub(crate) async fn write_to(&self, mut sink: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut batch = Batch::default();
        while self.swap(&mut batch).await {
            if let Err(error) = batch.write(&mut sink).await {
                self.close();
                return Err(error);
            }
            batch.clear();
        }
        self.close();
        sink.shutdown().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::frame::Header;
    use proptest::prelude::*;

    /// Takes at most `step` bytes of each write, so that every kind of partial write happens.
    struct Trickle {
        step: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Trickle {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let before = self.taken.len();
            for slice in slices {
                let room = self.step - (self.taken.len() - before);
                let count = room.min(slice.len());
                self.taken.extend_from_slice(&slice[..count]);
            }
            Poll::Ready(Ok(self.taken.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(outbox: &Outbox, step: usize) -> Vec<u8> {
        outbox.finish();
        let mut sink = Trickle {
            step,
            taken: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(outbox.write_to(&mut sink)).unwrap();
        sink.taken
    }

    /// The payloads of one call, joined, after a check that the frames are whole and well flagged.
    fn join(mut bytes: &[u8]) -> Vec<(Kind, bool, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
            let header = Header::decode(header).unwrap();
            let (payload, rest) = rest.split_at(header.length());
            frames.push((header.kind(), header.more(), payload.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_queued_is_written_in_order_and_whole(
            fields in proptest::collection::vec(any::<u8>(), 0..64),
            first in 0usize..150_000,
            second in 0usize..5_000,
            secret in 1usize..600,
            step in 1usize..70_000,
        ) {
            let outbox = Outbox::new();
            let (first, second) = (vec![1u8; first], vec![2u8; second]);
            let body = Body::of(first.clone().into(), second.clone().into());
            outbox
                .push(|batch| {
                    let held = Secret::copy_of(&vec![3; secret]).unwrap();
                    batch.secret(Kind::Lease, 9, |out| out.push(7), held)?;
                    batch.message(Kind::Call, Kind::Call, 9, |out| out.extend(&fields), body)
                })
                .unwrap();
            let frames = join(&write(&outbox, step));
            prop_assert_eq!(frames[0].0, Kind::Lease);
            prop_assert_eq!(&frames[0].2, &[&[7u8][..], &vec![3; secret]].concat());
            let whole: Vec<u8> = frames[1..].iter().flat_map(|(_, _, p)| p.clone()).collect();
            prop_assert_eq!(whole, [fields, first, second].concat());
            let last = frames.len() - 1;
            for (number, (_, more, payload)) in frames.iter().enumerate().skip(1) {
                prop_assert_eq!(*more, number != last);
                prop_assert!(payload.len() <= MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn a_secret_that_does_not_fit_leaves_nothing_behind() {
        let outbox = Outbox::new();
        let secret = Secret::copy_of(&vec![3; MAX_PAYLOAD]).unwrap();
        let refused = outbox.push(|batch| batch.secret(Kind::Lease, 1, |out| out.push(7), secret));
        assert_eq!(refused, Err(Refused::DoesNotFit));
        assert!(write(&outbox, 10).is_empty());
    }

    #[test]
    fn a_full_outbox_refuses_and_a_closed_one_too() {
        let outbox = Outbox::new();
        let push = |limit| {
            outbox.push_within(limit, |batch| {
                batch.chunk(Kind::Cancel, false, 1, Body::default())
            })
        };
        assert_eq!(push(1), Ok(()));
        assert_eq!(push(HEADER), Err(Refused::Full));
        assert_eq!(push(HEADER + 1), Ok(()));
        outbox.finish();
        assert_eq!(push(usize::MAX), Err(Refused::Closed));
        assert_eq!(write(&outbox, 3).len(), 2 * HEADER);
    }
}
