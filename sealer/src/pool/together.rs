//! One job for all that comes while a lane is busy.
//!
//! Owns [`Lane::join`]: parts that wait for a lane are done together, in the order in which they came, and each caller gets
//! its own answer. Where they wait is a [`Gathering`], one for each lane that is joined. Promises of a part what [`Lane::run`]
//! promises of a job: it is answered by its deadline, and not done where its caller gave up before the start. A part waits
//! for no other: the first makes a job, and those that come until a thread starts that one go along.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Lane, LaneError, LaneState, QUEUED, RUNNING};

/// A lane's state that does several parts at once.
pub(crate) trait Together: LaneState {
    /// What a caller brings.
    type Part: Send + 'static;
    /// What becomes of a part.
    type Answer: Send + 'static;
    /// How large the parts that are done together may be. One that is larger is done alone.
    const MOST: usize;
    /// How large a part is.
    fn size(part: &Self::Part) -> usize;
    /// Does parts that came in this order, and gives an answer for each.
    fn together(&mut self, parts: Vec<Self::Part>) -> Vec<Self::Answer>;
}

/// A caller that waits, and what it brought.
struct Waiting<S: Together> {
    part: S::Part,
    stage: Arc<AtomicU8>,
    answer: SyncSender<Result<S::Answer, LaneError>>,
}

/// The parts of one job, in the order in which they came.
struct Parts<S: Together> {
    waiting: Vec<Waiting<S>>,
    size: usize,
}

/// A job's parts until it is started, none from then on.
type Gathered<S> = Mutex<Option<Parts<S>>>;

/// The job that the next part may join. It is the queue's: one that is dropped takes its parts with it.
pub(crate) struct Gathering<S: Together>(Mutex<Weak<Gathered<S>>>);

impl<S: Together> Default for Gathering<S> {
    fn default() -> Self {
        Gathering(Mutex::new(Weak::new()))
    }
}

impl<S: Together> Lane<S> {
    /// Has `part` done together with the others that wait, and waits for its answer.
    ///
    /// # Errors
    /// Those of [`Lane::run`]; where a job panics or hangs, its parts all have them.
    pub(crate) fn join(
        &self,
        gathering: &Gathering<S>,
        part: S::Part,
    ) -> Result<S::Answer, LaneError> {
        let (answer, answered) = sync_channel(1);
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let size = S::size(&part);
        let waiting = Waiting {
            part,
            stage: Arc::clone(&stage),
            answer,
        };
        self.gather(gathering, waiting, size)?;
        self.wait(&stage, &answered)
    }

    /// Adds a part to the job that waits, or makes one of it.
    fn gather(
        &self,
        gathering: &Gathering<S>,
        waiting: Waiting<S>,
        size: usize,
    ) -> Result<(), LaneError> {
        let mut open = gathering.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.takes_jobs()?;
        let job = open.upgrade();
        if let Some(job) = &job
            && let Some(parts) = &mut *job.lock().unwrap_or_else(PoisonError::into_inner)
            && parts.size + size <= S::MOST
        {
            parts.size += size;
            parts.waiting.push(waiting);
            return Ok(());
        }
        let parts = Parts {
            waiting: vec![waiting],
            size,
        };
        let job = Arc::new(Mutex::new(Some(parts)));
        *open = Arc::downgrade(&job);
        let state = Arc::clone(&self.state);
        self.submit(Box::new(move || work(&state, &job))).map(drop)
    }
}

#[cfg(test)]
impl<S: Together> Gathering<S> {
    /// How many parts wait in the job that may still be joined.
    #[allow(clippy::unwrap_used)] // a test's own
    pub(crate) fn len(&self) -> usize {
        let job = self.0.lock().unwrap().upgrade();
        job.map_or(0, |job| {
            let parts = job.lock().unwrap();
            parts.as_ref().map_or(0, |parts| parts.waiting.len())
        })
    }
}

/// The job: does the parts whose callers still wait.
fn work<S: Together>(state: &Mutex<Option<S>>, job: &Gathered<S>) {
    let parts = job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (mut wanted, mut answers) = (Vec::new(), Vec::new());
    for one in parts.into_iter().flat_map(|parts| parts.waiting) {
        let started =
            one.stage
                .compare_exchange(QUEUED, RUNNING, Ordering::Relaxed, Ordering::Relaxed);
        if started.is_ok() {
            wanted.push(one.part);
            answers.push(one.answer);
        }
    }
    if wanted.is_empty() {
        return;
    }
    let done = match state.lock() {
        Ok(mut state) => state.as_mut().map(|state| state.together(wanted)),
        Err(_) => None,
    };
    let mut done = done.into_iter().flatten();
    for answer in answers {
        // The caller may have gone; its part has taken effect all the same.
        drop(answer.send(done.next().ok_or(LaneError::Broken)));
    }
}
