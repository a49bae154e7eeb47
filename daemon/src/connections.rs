//! How many client connections there are, whose, and which of them nobody uses.
//!
//! Owns [`Connections`], shared by all listeners. Promises that one user's connections leave room for the others', and
//! that a connection on which nothing came for a whole period is closed within the next. Who a user is says
//! [`crate::listen`]. Does not read what comes, and takes no time on the way: reads are counted, and one timer for each
//! connection looks at the count.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::listen::User;

/// The bounds, and who holds what.
pub(crate) struct Connections {
    all: Arc<Semaphore>,
    by_user: Mutex<BTreeMap<User, usize>>,
    most: usize,
    /// How long the period of [`Reads::unused`] is.
    pub(crate) idle: Duration,
}

/// One connection of one user, until it is dropped.
pub(crate) struct Held {
    of: Arc<Connections>,
    user: User,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `all` at once, and `most` of each user.
    pub(crate) fn new(all: usize, most: usize, idle: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            by_user: Mutex::new(BTreeMap::new()),
            most,
            idle,
        }
    }

    fn by_user(&self) -> MutexGuard<'_, BTreeMap<User, usize>> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for one more connection of whomever. `None` is never the answer while the daemon runs.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives the place to `user`, or back where the user has as many as one may have.
    pub(crate) fn take(self: &Arc<Self>, place: OwnedSemaphorePermit, user: User) -> Option<Held> {
        let mut by_user = self.by_user();
        let held = by_user.entry(user.clone()).or_default();
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Held {
            of: Arc::clone(self),
            user,
            _place: place,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_user = self.of.by_user();
        if let Some(held) = by_user.get_mut(&self.user) {
            *held -= 1;
            if *held == 0 {
                by_user.remove(&self.user);
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

    const PERIOD: Duration = Duration::from_secs(600);

    async fn take(connections: &Arc<Connections>, uid: u32) -> Option<Held> {
        let place = connections.place().await.unwrap();
        connections.take(place, User::Uid(uid))
    }

    #[tokio::test]
    async fn a_user_at_the_bound_is_refused_and_others_are_not() {
        let connections = Arc::new(Connections::new(8, 2, PERIOD));
        let first = take(&connections, 1).await.unwrap();
        let _second = take(&connections, 1).await.unwrap();
        assert!(take(&connections, 1).await.is_none());
        let _other = take(&connections, 2).await.unwrap();
        // What was refused holds no place.
        assert_eq!(connections.all.available_permits(), 5);
        drop(first);
        assert!(take(&connections, 1).await.is_some());
    }

    #[tokio::test]
    async fn a_user_without_connections_leaves_nothing_behind() {
        let connections = Arc::new(Connections::new(8, 2, PERIOD));
        for uid in 0..100 {
            drop(take(&connections, uid).await.unwrap());
        }
        assert!(connections.by_user().is_empty());
        assert_eq!(connections.all.available_permits(), 8);
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
