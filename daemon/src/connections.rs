//! How many connections a socket has, whose, and which of them nobody uses.
//!
//! Owns [`Connections`], of which each socket has its own. Promises that one user's connections leave room for the
//! others', that one too many is refused and not kept waiting, and that a client connection on which nothing came for a
//! whole period is closed within the next. Does not read what comes, and takes no time on the way: reads are counted, and
//! one timer for each connection looks at the count.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use mcpist_core::ids::PrincipalName;
use tokio::io::{AsyncRead, ReadBuf};

use crate::keeper::lock;

/// Whose connection it is, as far as bounds go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    /// A user of the host.
    Uid(u32),
    /// Dev only: whoever uses a listener with a fixed principal.
    Fixed(PrincipalName),
}

/// The bounds, and who holds what.
pub(crate) struct Connections {
    held: Mutex<BTreeMap<User, usize>>,
    all: usize,
    of_one: usize,
}

/// One connection of one user, until it is dropped.
pub(crate) struct Held {
    of: Arc<Connections>,
    user: User,
}

impl Connections {
    /// At most `all` at once, and `of_one` of each user.
    pub(crate) fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
            all,
            of_one,
        })
    }

    /// A place for a connection of `user`, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, user: User) -> Option<Held> {
        let mut held = lock(&self.held);
        let own = held.get(&user).copied().unwrap_or_default();
        if own >= self.of_one || held.values().sum::<usize>() >= self.all {
            return None;
        }
        held.insert(user.clone(), own + 1);
        Some(Held {
            of: Arc::clone(self),
            user,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = lock(&self.of.held);
        match held.get_mut(&self.user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                held.remove(&self.user);
            }
        }
    }
}

/// How often a connection's peer was heard.
#[derive(Clone, Default)]
pub(crate) struct Reads(Arc<AtomicU64>);

impl Reads {
    /// `stream`, whose reads count here.
    pub(crate) fn of<R>(&self, stream: R) -> Counted<R> {
        Counted {
            stream,
            reads: self.clone(),
        }
    }

    /// Done when nothing was read for a whole period; `period` waits for the end of one.
    pub(crate) async fn unused<P: Future<Output = ()>>(&self, mut period: impl FnMut() -> P) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            period().await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// A reading half that counts.
pub(crate) struct Counted<R> {
    stream: R,
    reads: Reads,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.reads.0.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_user_at_the_bound_is_refused_and_others_are_not() {
        let connections = Connections::new(8, 2);
        let admit = |uid| connections.admit(User::Uid(uid));
        let first = admit(1).unwrap();
        let _second = admit(1).unwrap();
        assert!(admit(1).is_none());
        let _other = admit(2).unwrap();
        drop(first);
        assert!(admit(1).is_some());
    }

    #[test]
    fn all_together_are_bounded_and_leave_nothing_behind() {
        let connections = Connections::new(8, 2);
        let admit = |uid| connections.admit(User::Uid(uid));
        let held: Vec<_> = (0..8).map(|n| admit(n / 2).unwrap()).collect();
        assert!(admit(1000).is_none());
        drop(held);
        assert!(lock(&connections.held).is_empty());
        assert!(admit(1000).is_some());
    }

    #[tokio::test]
    async fn what_comes_is_counted_and_the_end_as_well() {
        let (mut client, server) = tokio::io::duplex(64);
        let reads = Reads::default();
        let mut server = reads.of(server);
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        assert_eq!(reads.0.load(Ordering::Relaxed), 1);
        drop(client);
        server.read_u8().await.unwrap_err();
        assert_eq!(reads.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_connection_is_unused_after_a_period_without_a_byte() {
        let reads = Reads::default();
        let mut periods = 0;
        let three_with_a_byte = || {
            periods += 1;
            if periods <= 3 {
                reads.0.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(())
        };
        reads.unused(three_with_a_byte).await;
        assert_eq!(periods, 4);
    }
}
