//! How many connections a socket has, whose, and which of them nobody uses.
//!
//! Owns [`Connections`], of which each socket has its own. Promises that one user's connections leave room for the
//! others', that one too many is refused and not kept waiting, and that a client connection on which nothing came for a
//! whole period is closed within the next. Owns [`Shares`] as well, which promises that all connections of one user, on
//! whichever socket, share one part of what clients' lines may take. Does not read what comes, and takes no time on the way: reads are counted, and
//! one timer for each connection looks at the count.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use mcpist_core::ids::PrincipalName;
use mcpist_mcp::Budget;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

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

/// What clients' lines may take, by user.
pub(crate) struct Shares {
    all: Budget,
    users: Mutex<BTreeMap<User, Weak<Budget>>>,
}

impl Shares {
    /// Shares of `all`.
    pub(crate) fn of(all: Budget) -> Self {
        Self {
            all,
            users: Mutex::default(),
        }
    }

    /// The share of `user`, which is there for as long as one of its connections holds it.
    pub(crate) fn share(&self, user: User) -> Arc<Budget> {
        let mut users = lock(&self.users);
        if let Some(share) = users.get(&user).and_then(Weak::upgrade) {
            return share;
        }
        users.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(self.all.share());
        users.insert(user, Arc::downgrade(&share));
        share
    }
}

/// Done when the peer of `stream` has hung up both ways; one that ended its input alone may still read. Costs a descriptor,
/// and is registered when it is first asked.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn hung_up(stream: &UnixStream) -> io::Result<impl Future<Output = ()> + use<>> {
    let socket = stream.as_fd().try_clone_to_owned()?;
    Ok(async move {
        // Registered for writing only, as what Tokio calls a pipe's sender, it has no other end of reading than the
        // hang-up; an end of the input alone is not reported.
        if let Ok(socket) = pipe::Sender::from_owned_fd_unchecked(socket) {
            let _ = socket.ready(Interest::PRIORITY).await;
        }
    })
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

    #[test]
    fn a_user_has_one_share_over_all_its_connections_and_leaves_none_behind() {
        let shares = Shares::of(Budget::new(8, 8));
        let first = shares.share(User::Uid(1));
        assert!(Arc::ptr_eq(&first, &shares.share(User::Uid(1))));
        assert!(!Arc::ptr_eq(&first, &shares.share(User::Uid(2))));
        drop(first);
        let _third = shares.share(User::Uid(3));
        assert_eq!(lock(&shares.users).len(), 1);
    }

    #[tokio::test]
    async fn a_peer_has_hung_up_once_it_neither_sends_nor_reads() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let mut hung_up = Box::pin(hung_up(&server).unwrap());
        client.write_all(b"x").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        server.read_u8().await.unwrap_err();
        let turns = async {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = &mut hung_up => unreachable!("it may still read"),
            () = turns => {}
        }
        drop(client);
        hung_up.await;
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
