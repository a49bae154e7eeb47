//! The writing half of a connection, shared by all that answer on it.
//!
//! Owns: the bytes that are due, and the stream they go to.
//! Promises: each message is one line and lines never mix; lines that are queued while another is
//! being written go out together. A flush that is dropped midway loses nothing: the next one goes on
//! at the very byte.
//! Does not: bound what is queued. Its users do: an answer keeps its place among the requests in flight
//! until it is written, and the reader reads on only when its own refusals are.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// A buffer above this is given back once it is written.
const KEEP: usize = 256 * 1024;

/// Lines due to a stream.
pub(crate) struct Outbox<W> {
    due: Mutex<Vec<u8>>,
    writer: tokio::sync::Mutex<Writer<W>>,
}

struct Writer<W> {
    stream: W,
    /// What is being written, from `at` on.
    going: Vec<u8>,
    at: usize,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    pub(crate) fn new(stream: W) -> Outbox<W> {
        let writer = Writer {
            stream,
            going: Vec::new(),
            at: 0,
        };
        Outbox {
            due: Mutex::default(),
            writer: tokio::sync::Mutex::new(writer),
        }
    }

    /// Queues a finished line, its end included.
    pub(crate) fn push_line(&self, line: Vec<u8>) {
        let mut due = self.due();
        if due.is_empty() {
            *due = line;
        } else {
            due.extend_from_slice(&line);
        }
    }

    /// Queues a message that is not serialised yet.
    ///
    /// # Errors
    /// What serde says; nothing is queued then.
    pub(crate) fn push(&self, message: &impl Serialize) -> io::Result<()> {
        let mut due = self.due();
        let before = due.len();
        if let Err(error) = serde_json::to_writer(&mut *due, message) {
            due.truncate(before);
            return Err(error.into());
        }
        due.push(b'\n');
        Ok(())
    }

    /// Returns once everything queued before this call is written.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let Writer { stream, going, at } = &mut *writer;
        loop {
            if *at == going.len() {
                going.clear();
                *at = 0;
                if going.capacity() > KEEP {
                    *going = Vec::new();
                }
                std::mem::swap(going, &mut *self.due());
                if going.is_empty() {
                    return stream.flush().await;
                }
            }
            match stream.write(&going[*at..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => *at += written,
            }
        }
    }

    /// Ends the stream, unless somebody is still stuck writing to a peer that does not read.
    pub(crate) async fn close(&self) -> io::Result<()> {
        match self.writer.try_lock() {
            Ok(mut writer) => writer.stream.shutdown().await,
            Err(_) => Ok(()),
        }
    }

    fn due(&self) -> MutexGuard<'_, Vec<u8>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_dropped_flush_goes_on_at_the_byte() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let outbox = Outbox::new(ours);
        outbox.push_line(b"0123456789\n".to_vec());
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = outbox.flush() => unreachable!("nobody reads"),
                () = tokio::task::yield_now() => {}
            }
        }
        outbox.push(&"x").unwrap();
        let mut read = vec![0; 15];
        let (flushed, _) = tokio::join!(outbox.flush(), theirs.read_exact(&mut read));
        flushed.unwrap();
        assert_eq!(read, b"0123456789\n\"x\"\n");
    }

    #[tokio::test]
    async fn lines_of_many_writers_never_mix() {
        let (ours, mut theirs) = tokio::io::duplex(7);
        let outbox = Arc::new(Outbox::new(ours));
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..32u8 {
            let outbox = Arc::clone(&outbox);
            writers.spawn(async move {
                outbox.push_line(
                    format!("{}\n", char::from(b'A' + n % 26).to_string().repeat(9)).into(),
                );
                outbox.flush().await
            });
        }
        let mut read = vec![0; 320];
        theirs.read_exact(&mut read).await.unwrap();
        while let Some(written) = writers.join_next().await {
            written.unwrap().unwrap();
        }
        for line in read.chunks(10) {
            assert!(line[..9].iter().all(|b| *b == line[0]) && line[9] == b'\n');
        }
    }

    #[tokio::test]
    async fn closing_does_not_wait_for_a_stuck_writer() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let outbox = Arc::new(Outbox::new(ours));
        outbox.push_line(b"stuck\n".to_vec());
        let stuck = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.flush().await }
        });
        while outbox.writer.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        outbox.close().await.unwrap();
        stuck.abort();
    }
}
