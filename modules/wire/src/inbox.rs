//! What one end of a link reads: whole frames out of one fixed buffer.
//!
//! One read takes whatever the socket holds, so that under load one system call brings many frames. The
//! buffer is as large at the end as it was at the start, whatever the peer sends. An end that receives
//! secrets keeps its buffer in secret memory, and a frame that held one is wiped as soon as it was
//! decoded; the kernel's socket buffer is the only other place where such a frame stands.

use std::io;

use mcpist_secret::Secret;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroize;

use crate::frame::{FrameError, HEADER, Header, MAX_FRAME};

/// Bytes of the buffer of an end that receives no secrets.
const PLAIN: usize = 2 * MAX_FRAME;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the other end is gone")]
    End,
    #[error("reading from the link failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

enum Storage {
    Plain(Box<[u8]>),
    Secret(Secret),
}

impl Storage {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Storage::Plain(bytes) => bytes,
            Storage::Secret(secret) => secret.expose_mut(),
        }
    }
}

/// The reader of one link's end.
pub(crate) struct Inbox<R> {
    source: R,
    storage: Storage,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    /// A reader whose peer sends no secrets.
    pub(crate) fn plain(source: R) -> Inbox<R> {
        let storage = Storage::Plain(vec![0; PLAIN].into_boxed_slice());
        Inbox {
            source,
            storage,
            start: 0,
            end: 0,
        }
    }

    /// A reader that keeps what it reads in `buffer`, of at least [`MAX_FRAME`] bytes.
    pub(crate) fn secret(source: R, buffer: Secret) -> Inbox<R> {
        Inbox {
            source,
            storage: Storage::Secret(buffer),
            start: 0,
            end: 0,
        }
    }

    /// Waits until the buffer holds a whole frame and gives its header; [`Inbox::take`] must follow before
    /// the next. Cancelled, it loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Header, ReadError> {
        loop {
            if let Some(header) = self.whole()? {
                return Ok(header);
            }
            self.compact();
            let count = self
                .source
                .read(&mut self.storage.bytes()[self.end..])
                .await?;
            if count == 0 {
                return Err(ReadError::End);
            }
            self.end += count;
        }
    }

    fn whole(&mut self) -> Result<Option<Header>, FrameError> {
        let held = &self.storage.bytes()[self.start..self.end];
        let Some((header, rest)) = held.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        Ok((rest.len() >= header.length()).then_some(header))
    }

    /// Decodes the frame that [`Inbox::next`] announced, wipes it when it held a secret, and goes past it.
    pub(crate) fn take<T>(&mut self, header: Header, decode: impl FnOnce(&[u8]) -> T) -> T {
        let from = self.start + HEADER;
        let to = from + header.length();
        let payload = &mut self.storage.bytes()[from..to];
        let decoded = decode(payload);
        if header.kind().is_secret() {
            payload.zeroize();
        }
        self.start = to;
        decoded
    }

    /// Moves what is left of an unfinished frame to the front, and leaves no second copy of it.
    fn compact(&mut self) {
        let (start, end) = (self.start, self.end);
        if start == 0 {
            return;
        }
        let left = end - start;
        let is_secret = matches!(self.storage, Storage::Secret(_));
        let bytes = self.storage.bytes();
        bytes.copy_within(start..end, 0);
        if is_secret {
            bytes[left.max(start)..end].zeroize();
        }
        self.start = 0;
        self.end = left;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let header = Header::new(kind, false, payload.len(), 1).unwrap();
        [&header.encode()[..], payload].concat()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn holds(inbox: &mut Inbox<impl AsyncRead>, needle: &[u8]) -> bool {
        inbox
            .storage
            .bytes()
            .windows(needle.len())
            .any(|window| window == needle)
    }

    #[test]
    fn a_frame_with_a_secret_is_wiped_once_it_was_taken() {
        let bytes = [
            frame(Kind::Call, b"ordinary"),
            frame(Kind::Lease, b"hunter2 hunter2"),
        ]
        .concat();
        let mut inbox = Inbox::secret(&bytes[..], Secret::zeroed(MAX_FRAME).unwrap());
        block_on(async {
            let header = inbox.next().await.unwrap();
            inbox.take(header, |_| ());
            let header = inbox.next().await.unwrap();
            assert!(holds(&mut inbox, b"hunter2"));
            let taken = inbox.take(header, <[u8]>::to_vec);
            assert_eq!(taken, b"hunter2 hunter2");
            assert!(!holds(&mut inbox, b"hunter2"));
            assert!(matches!(inbox.next().await, Err(ReadError::End)));
        });
    }

    /// Gives a few bytes at a time.
    struct Sips<'a>(&'a [u8], usize);

    impl AsyncRead for Sips<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let count = self.1.min(self.0.len()).min(buf.remaining());
            let (sip, rest) = self.0.split_at(count);
            buf.put_slice(sip);
            self.0 = rest;
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_secret_that_is_moved_to_the_front_leaves_no_copy() {
        let lead = vec![b'x'; MAX_FRAME - 100];
        let bytes = [
            frame(Kind::Call, &lead),
            frame(Kind::Lease, b"hunter2 hunter2"),
        ]
        .concat();
        // 92 bytes of room are left behind the first frame: one byte more than the second frame's first
        // 91 would be needed, so its start stands at the end of the buffer and is moved.
        let mut inbox = Inbox::secret(Sips(&bytes, 27), Secret::zeroed(MAX_FRAME).unwrap());
        block_on(async {
            let header = inbox.next().await.unwrap();
            inbox.take(header, |_| ());
            let header = inbox.next().await.unwrap();
            let count = inbox
                .storage
                .bytes()
                .windows(7)
                .filter(|w| w == b"hunter2")
                .count();
            assert_eq!(count, 2, "the payload's own two");
            inbox.take(header, |_| ());
            assert!(!holds(&mut inbox, b"hunter2"));
        });
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let long = vec![b'y'; MAX_FRAME - HEADER];
        let payloads: [&[u8]; 5] = [b"", b"a", &long, b"bc", &long];
        let bytes: Vec<u8> = payloads
            .iter()
            .flat_map(|p| frame(Kind::Chunk, p))
            .collect();
        for sip in [1, 15, 16, 17, 1000, 65_535, 65_536, 65_537, 1 << 20] {
            let mut inbox = Inbox::secret(Sips(&bytes, sip), Secret::zeroed(MAX_FRAME).unwrap());
            block_on(async {
                for payload in payloads {
                    let header = inbox.next().await.unwrap();
                    assert!(inbox.take(header, |got| got == payload));
                }
                assert!(matches!(inbox.next().await, Err(ReadError::End)));
            });
        }
    }
}
