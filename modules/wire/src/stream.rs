//! A Unix stream in two halves that wakes its reader for bytes, and for nothing else.
//!
//! Tokio registers a socket for reading and writing at once. On a Unix stream the kernel reports "writable" each time
//! that the peer has read, so that every message costs its sender a wake-up for nothing. Here the socket is registered
//! for reading only; a write is tried at once, and only a full socket is registered for writing, by a descriptor of its
//! own, until it has room again.
//!
//! It promises what tokio's own halves do: reads and writes that lose nothing when they are cancelled, and the end of
//! the peer's input when the writing half is dropped. It does not know peers or frames.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// The reading half: a descriptor that is registered for reading only, which is what Tokio calls a pipe's receiver.
#[derive(Debug)]
pub struct ReadHalf(pipe::Receiver);

/// The writing half. Dropped, it ends the peer's input.
#[derive(Debug)]
pub struct WriteHalf {
    socket: Socket,
    /// While the socket is full.
    full: Option<pipe::Sender>,
}

/// Splits `stream`. Needs a Tokio runtime.
///
/// # Errors
/// When the kernel does not register the socket anew.
pub fn split(stream: UnixStream) -> io::Result<(ReadHalf, WriteHalf)> {
    let socket = stream.into_std()?;
    let read = pipe::Receiver::from_owned_fd_unchecked(socket.try_clone()?.into())?;
    Ok((ReadHalf(read), WriteHalf { socket, full: None }))
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl WriteHalf {
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(cx))?;
            }
            match write(&self.socket) {
                Ok(count) => {
                    self.full = None;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A new one each time: it is ready when the kernel says so after this very attempt.
                    let again = self.socket.try_clone()?.into();
                    self.full = Some(pipe::Sender::from_owned_fd_unchecked(again)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // Of a peer that is gone already there is nothing to end.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> ((ReadHalf, WriteHalf), (ReadHalf, WriteHalf)) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (split(ours).unwrap(), split(theirs).unwrap())
    }

    #[tokio::test]
    async fn bytes_cross_both_ways_and_dropping_ends_the_input() {
        let ((mut read, mut write), (mut their_read, mut their_write)) = pair();
        write.write_all(b"to them").await.unwrap();
        their_write.write_all(b"to us").await.unwrap();
        drop((write, their_write));
        let (mut here, mut there) = (Vec::new(), Vec::new());
        read.read_to_end(&mut here).await.unwrap();
        their_read.read_to_end(&mut there).await.unwrap();
        assert_eq!((&here[..], &there[..]), (&b"to us"[..], &b"to them"[..]));
    }

    #[tokio::test]
    async fn a_full_socket_takes_the_rest_once_it_has_room() {
        let ((_, mut write), (mut their_read, _their_write)) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write
        });
        // Nobody reads yet: the writer fills the socket and waits.
        tokio::task::yield_now().await;
        let mut got = vec![0; expected.len()];
        their_read.read_exact(&mut got).await.unwrap();
        assert_eq!(got, expected);
        assert!(writing.await.unwrap().full.is_none());
    }

    #[tokio::test]
    async fn a_write_to_a_peer_that_is_gone_is_an_error() {
        let ((_, mut write), theirs) = pair();
        drop(theirs);
        let error = write.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
