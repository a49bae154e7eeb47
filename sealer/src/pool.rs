//! The threads on which vaults touch the disk.
//!
//! Owns a small fixed number of threads and one [`Lane`] per vault: a queue, and the state that the
//! queue's jobs may change. Promises that a lane runs one job at a time, so no vault can take more than
//! one thread; that a caller is answered by its deadline; and that a job which overstays it (a disk that
//! hangs) makes its lane answer [`LaneError::Overdue`] at once until it returns, while one replacement thread
//! keeps the others going. A thread that was replaced ends when its job does.
//!
//! Does not cancel a running job: a system call that hangs cannot be called back. A queued job whose caller
//! gave up is dropped and never runs.
//!
//! Nothing here knows of keys. Stopping a pool waits for nobody.

mod together;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use together::{Gathering, Together};

/// Why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// It was never started and never will be.
    NotStarted,
    /// It was started and has not ended by its deadline; it may still take effect.
    Overdue,
    /// The pool was stopped before the job ran.
    Stopped,
    /// The state was given up, or the job panicked.
    Broken,
}

/// What a lane holds.
pub(crate) trait LaneState: Send + 'static {
    /// Called as a job of its own once the time that [`Lane::wake_in`] set has come. Answers when to be
    /// called again.
    fn wake(&mut self) -> Option<Duration>;
}

type Work = Box<dyn FnOnce() + Send>;

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DROPPED: u8 = 2;

struct Job {
    work: Work,
    stage: Arc<AtomicU8>,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// When the running job was started.
    running: Option<Instant>,
    /// The running job is past its deadline and its thread was replaced.
    overdue: bool,
    wake: Option<Instant>,
    on_wake: Arc<dyn Fn() + Send + Sync>,
    on_stop: Option<Work>,
    /// The state is gone: the queue goes with its last job.
    ended: bool,
}

struct Inner {
    lanes: HashMap<u64, Queue>,
    ready: VecDeque<u64>,
    next: u64,
    stopped: bool,
}

impl Inner {
    /// The queue of a lane that takes jobs.
    fn queue(&mut self, lane: u64) -> Result<&mut Queue, LaneError> {
        if self.stopped {
            return Err(LaneError::Stopped);
        }
        match self.lanes.get_mut(&lane) {
            None => Err(LaneError::Broken),
            Some(queue) if queue.overdue => Err(LaneError::NotStarted),
            Some(queue) => Ok(queue),
        }
    }
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    name: &'static str,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of threads.
pub(crate) struct Pool(Arc<Shared>);

impl Pool {
    /// Starts `threads` threads called `name`.
    pub(crate) fn start(name: &'static str, threads: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                lanes: HashMap::new(),
                ready: VecDeque::new(),
                next: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
            name,
        });
        let pool = Pool(shared);
        for _ in 0..threads.max(1) {
            spawn(&pool.0)?;
        }
        Ok(pool)
    }

    /// Adds a lane with its state.
    pub(crate) fn lane<S: LaneState>(&self, state: S, deadline: Duration) -> Lane<S> {
        let state = Arc::new(Mutex::new(Some(state)));
        let (waking, stopping) = (Arc::clone(&state), Arc::clone(&state));
        let shared = Arc::downgrade(&self.0);
        let mut inner = self.0.lock();
        let id = inner.next;
        inner.next += 1;
        let on_wake = move || {
            let next = match waking.lock() {
                Ok(mut state) => state.as_mut().and_then(S::wake),
                Err(_) => None,
            };
            if let (Some(next), Some(shared)) = (next, shared.upgrade()) {
                wake_in(&shared, id, next);
            }
        };
        let on_stop = move || {
            stopping
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        };
        let queue = Queue {
            jobs: VecDeque::new(),
            running: None,
            overdue: false,
            wake: None,
            on_wake: Arc::new(on_wake),
            on_stop: Some(Box::new(on_stop)),
            ended: false,
        };
        inner.lanes.insert(id, queue);
        drop(inner);
        Lane {
            shared: Arc::clone(&self.0),
            id,
            state,
            deadline,
        }
    }

    /// Refuses all further jobs, drops the queued ones, and lets the threads give up every lane's state
    /// and end. Returns at once.
    pub(crate) fn stop(&self) {
        let mut inner = self.0.lock();
        if std::mem::replace(&mut inner.stopped, true) {
            return;
        }
        inner.ready.clear();
        let mut ready = Vec::new();
        let mut dropped = Vec::new();
        for (id, queue) in &mut inner.lanes {
            dropped.extend(queue.jobs.drain(..));
            queue.wake = None;
            if let Some(work) = queue.on_stop.take() {
                queue.jobs.push_back(Job {
                    work,
                    stage: Arc::new(AtomicU8::new(QUEUED)),
                });
                if queue.running.is_none() {
                    ready.push(*id);
                }
            }
        }
        inner.ready.extend(ready);
        drop(inner);
        self.0.changed.notify_all();
        // Only now, without the lock: dropping a job answers its caller.
        drop(dropped);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One vault's place in a pool.
pub(crate) struct Lane<S> {
    shared: Arc<Shared>,
    id: u64,
    state: Arc<Mutex<Option<S>>>,
    deadline: Duration,
}

impl<S: LaneState> Lane<S> {
    /// Runs `job` on the lane's state and waits for its answer.
    ///
    /// The deadline counts from the call while the job is queued, and anew from its start.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, LaneError> {
        self.run_on(|state| state.as_mut().map(job))
    }

    /// Has the lane give up its state, whose end this waits for, and take no job any more.
    pub(crate) fn end(&self) -> Result<(), LaneError> {
        let shared = Arc::clone(&self.shared);
        let id = self.id;
        self.run_on(move |state| {
            if let Some(queue) = shared.lock().lanes.get_mut(&id) {
                queue.ended = true;
            }
            drop(state.take());
            Some(())
        })
    }

    fn run_on<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Option<S>) -> Option<T> + Send + 'static,
    ) -> Result<T, LaneError> {
        let (answer, answered) = sync_channel(1);
        let state = Arc::clone(&self.state);
        let work = move || {
            let result = match state.lock() {
                Ok(mut state) => job(&mut state).ok_or(LaneError::Broken),
                Err(_) => Err(LaneError::Broken),
            };
            // The caller may have gone; the job has taken effect all the same.
            drop(answer.send(result));
        };
        let stage = self.submit(Box::new(work))?;
        self.wait(&stage, &answered)
    }

    /// Waits for the answer of a job, or of a part of one, in `stage`.
    fn wait<T>(
        &self,
        stage: &AtomicU8,
        answered: &Receiver<Result<T, LaneError>>,
    ) -> Result<T, LaneError> {
        let mut wait = self.deadline;
        loop {
            match answered.recv_timeout(wait) {
                Ok(result) => return result,
                // The job was dropped unrun by `stop`, or it panicked.
                Err(RecvTimeoutError::Disconnected) if self.shared.lock().stopped => {
                    return Err(LaneError::Stopped);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(LaneError::Broken),
                Err(RecvTimeoutError::Timeout) => match self.overdue(stage) {
                    Ok(more) => wait = more,
                    // It may have ended between the two looks.
                    Err(error) => return answered.try_recv().unwrap_or(Err(error)),
                },
            }
        }
    }

    /// Whether the running job is past its deadline.
    pub(crate) fn is_overdue(&self) -> bool {
        self.shared
            .lock()
            .lanes
            .get(&self.id)
            .is_some_and(|queue| queue.overdue)
    }

    /// Has [`LaneState::wake`] called after `delay`, or earlier if that was asked before.
    pub(crate) fn wake_in(&self, delay: Duration) {
        wake_in(&self.shared, self.id, delay);
    }

    /// Whether a job may be queued.
    fn takes_jobs(&self) -> Result<(), LaneError> {
        self.shared.lock().queue(self.id).map(drop)
    }

    fn submit(&self, work: Work) -> Result<Arc<AtomicU8>, LaneError> {
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let mut inner = self.shared.lock();
        let queue = inner.queue(self.id)?;
        queue.jobs.push_back(Job {
            work,
            stage: Arc::clone(&stage),
        });
        if queue.running.is_none() && queue.jobs.len() == 1 {
            inner.ready.push_back(self.id);
            drop(inner);
            self.shared.changed.notify_one();
        }
        Ok(stage)
    }

    /// The caller's patience has ended: for how much longer to wait, or why not at all.
    fn overdue(&self, stage: &AtomicU8) -> Result<Duration, LaneError> {
        let mut inner = self.shared.lock();
        let Some(queue) = inner.lanes.get_mut(&self.id) else {
            return Err(LaneError::Broken);
        };
        let since = queue.running.map(|started| started.elapsed());
        let late = since.is_some_and(|since| since >= self.deadline);
        let replace = late && !queue.overdue;
        if late {
            queue.overdue = true;
        }
        let mine = stage
            .compare_exchange(QUEUED, DROPPED, Ordering::Relaxed, Ordering::Relaxed)
            .is_err();
        drop(inner);
        if replace && let Err(error) = spawn(&self.shared) {
            log::error!("no replacement for a thread whose disk hangs: {error}");
        }
        match since {
            Some(since) if mine && !late => Ok(self.deadline - since),
            Some(_) if mine => Err(LaneError::Overdue),
            // It has ended: the answer is there.
            None if mine => Ok(self.deadline),
            _ => Err(LaneError::NotStarted),
        }
    }
}

fn wake_in(shared: &Shared, id: u64, delay: Duration) {
    let at = Instant::now() + delay;
    let mut inner = shared.lock();
    if inner.stopped {
        return;
    }
    if let Some(queue) = inner.lanes.get_mut(&id) {
        queue.wake = Some(queue.wake.map_or(at, |set| set.min(at)));
    }
    drop(inner);
    shared.changed.notify_one();
}

fn spawn(shared: &Arc<Shared>) -> io::Result<()> {
    let owned = Arc::clone(shared);
    thread::Builder::new()
        .name(shared.name.to_owned())
        .spawn(move || work(&owned))
        .map(drop)
}

/// The life of a thread.
fn work(shared: &Shared) {
    let mut inner = shared.lock();
    loop {
        queue_wakes(&mut inner);
        let Some(id) = inner.ready.pop_front() else {
            if inner.stopped {
                return;
            }
            inner = wait(shared, inner);
            continue;
        };
        if !inner.ready.is_empty() {
            shared.changed.notify_one();
        }
        let Some(queue) = inner.lanes.get_mut(&id) else {
            continue;
        };
        let Some(job) = queue.jobs.pop_front() else {
            continue;
        };
        let Job { work, stage } = job;
        let fresh = stage
            .compare_exchange(QUEUED, RUNNING, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        queue.running = Some(Instant::now());
        drop(inner);
        // Without the lock: what the work holds may end with it.
        if !fresh {
            drop(work);
        } else if catch_unwind(AssertUnwindSafe(work)).is_err() {
            log::error!(
                "a job of the pool {} panicked; its vault is given up",
                shared.name
            );
        }
        inner = shared.lock();
        let stopped = inner.stopped;
        let Some(queue) = inner.lanes.get_mut(&id) else {
            continue;
        };
        queue.running = None;
        let replaced = std::mem::take(&mut queue.overdue);
        let more = !queue.jobs.is_empty();
        let ended = queue.ended;
        if more {
            // This thread takes it, unless others stand before it.
            inner.ready.push_back(id);
        } else if ended {
            inner.lanes.remove(&id);
        }
        if replaced && !stopped {
            shared.changed.notify_one();
            return;
        }
    }
}

/// Turns wakes that are due into jobs.
fn queue_wakes(inner: &mut Inner) {
    let now = Instant::now();
    let Inner { lanes, ready, .. } = inner;
    for (id, queue) in lanes {
        if queue.wake.is_some_and(|at| at <= now) {
            queue.wake = None;
            let on_wake = Arc::clone(&queue.on_wake);
            queue.jobs.push_back(Job {
                work: Box::new(move || on_wake()),
                stage: Arc::new(AtomicU8::new(QUEUED)),
            });
            if queue.running.is_none() && queue.jobs.len() == 1 {
                ready.push_back(*id);
            }
        }
    }
}

fn wait<'a>(shared: &'a Shared, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
    let next = inner.lanes.values().filter_map(|queue| queue.wake).min();
    match next {
        None => shared
            .changed
            .wait(inner)
            .unwrap_or_else(PoisonError::into_inner),
        Some(at) => {
            let delay = at.saturating_duration_since(Instant::now());
            shared
                .changed
                .wait_timeout(inner, delay)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
