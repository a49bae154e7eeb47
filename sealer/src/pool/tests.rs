//! Order, deadlines, panics and the end of a pool.

use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};

const NEVER: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Log {
    jobs: Vec<u32>,
    wakes: u32,
    woken: Option<Sender<u32>>,
    _dropped: Option<OnDrop>,
}

struct OnDrop(Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

impl Together for Log {
    type Part = u32;
    type Answer = (u32, usize);
    const MOST: usize = 10;

    fn size(part: &u32) -> usize {
        *part as usize
    }

    /// Answers each part with itself and how many were done together.
    fn together(&mut self, parts: Vec<u32>) -> Vec<(u32, usize)> {
        self.jobs.extend(&parts);
        parts.iter().map(|part| (*part, parts.len())).collect()
    }
}

impl LaneState for Log {
    fn wake(&mut self) -> Option<Duration> {
        self.wakes += 1;
        if let Some(woken) = &self.woken {
            woken.send(self.wakes).unwrap();
        }
        (self.wakes < 2).then_some(Duration::ZERO)
    }
}

/// A job that says when it runs and then waits to be let go.
fn gate() -> (
    impl FnOnce(&mut Log) + Send + 'static,
    Receiver<()>,
    Sender<()>,
) {
    let (runs, running) = channel();
    let (let_go, go) = channel();
    let job = move |log: &mut Log| {
        runs.send(()).unwrap();
        go.recv().unwrap();
        log.jobs.push(0);
    };
    (job, running, let_go)
}

#[test]
fn jobs_of_a_lane_run_one_at_a_time_and_in_order() {
    let pool = Pool::start("test", 4).unwrap();
    let lane = Arc::new(pool.lane(Log::default(), NEVER));
    let (job, running, let_go) = gate();
    thread::scope(|scope| {
        scope.spawn(|| lane.run(job).unwrap());
        running.recv().unwrap();
        let queued = || pool.0.lock().lanes[&lane.id].jobs.len();
        for n in 1..4 {
            let lane = Arc::clone(&lane);
            scope.spawn(move || lane.run(move |log| log.jobs.push(n)).unwrap());
            while queued() < n as usize {
                thread::yield_now();
            }
        }
        let_go.send(()).unwrap();
    });
    assert_eq!(lane.run(|log| log.jobs.clone()).unwrap(), [0, 1, 2, 3]);
}

#[test]
fn a_job_that_hangs_takes_its_lane_and_no_thread() {
    let pool = Pool::start("test", 1).unwrap();
    let slow = Arc::new(pool.lane(Log::default(), Duration::from_millis(50)));
    let other = pool.lane(Log::default(), NEVER);
    let (job, running, let_go) = gate();
    let hung = {
        let slow = Arc::clone(&slow);
        thread::spawn(move || slow.run(job))
    };
    running.recv().unwrap();
    assert_eq!(hung.join().unwrap(), Err(LaneError::Overdue));
    assert!(slow.is_overdue());
    assert_eq!(slow.run(|_| ()), Err(LaneError::NotStarted), "at once");
    assert_eq!(
        slow.join(&Gathering::default(), 1),
        Err(LaneError::NotStarted),
        "at once"
    );
    other.run(|log| log.jobs.push(1)).unwrap();
    let patient = Lane {
        shared: Arc::clone(&slow.shared),
        id: slow.id,
        state: Arc::clone(&slow.state),
        deadline: NEVER,
    };
    let_go.send(()).unwrap();
    while slow.is_overdue() {
        thread::yield_now();
    }
    assert_eq!(
        patient.run(|log| log.jobs.clone()),
        Ok(vec![0]),
        "it took effect"
    );
}

#[test]
fn a_queued_job_whose_caller_gave_up_never_runs() {
    let pool = Pool::start("test", 1).unwrap();
    let busy = Arc::new(pool.lane(Log::default(), NEVER));
    let waits = pool.lane(Log::default(), Duration::from_millis(50));
    let (job, running, let_go) = gate();
    let runs = {
        let busy = Arc::clone(&busy);
        thread::spawn(move || busy.run(job))
    };
    running.recv().unwrap();
    assert_eq!(
        waits.run(|log| log.jobs.push(1)),
        Err(LaneError::NotStarted)
    );
    assert!(!waits.is_overdue(), "it is the pool that was busy");
    let_go.send(()).unwrap();
    runs.join().unwrap().unwrap();
    // Once more with patience.
    let waits = Lane {
        deadline: NEVER,
        ..waits
    };
    assert_eq!(waits.run(|log| log.jobs.len()), Ok(0));
}

#[test]
fn a_job_that_panics_breaks_its_lane_alone() {
    let pool = Pool::start("test", 1).unwrap();
    let lane = pool.lane(Log::default(), NEVER);
    let other = pool.lane(Log::default(), NEVER);
    assert_eq!(
        lane.run(|_| panic!("on purpose")),
        Err::<(), _>(LaneError::Broken)
    );
    assert_eq!(lane.run(|_| ()), Err(LaneError::Broken));
    assert_eq!(other.run(|_| ()), Ok(()));
}

#[test]
fn a_lane_is_woken_until_it_asks_for_no_more() {
    let pool = Pool::start("test", 1).unwrap();
    let (woken, wakes) = channel();
    let lane = pool.lane(
        Log {
            woken: Some(woken),
            ..Log::default()
        },
        NEVER,
    );
    lane.wake_in(Duration::ZERO);
    assert_eq!((wakes.recv(), wakes.recv()), (Ok(1), Ok(2)));
    assert_eq!(lane.run(|log| log.wakes), Ok(2));
}

#[test]
fn stopping_waits_for_nobody_refuses_jobs_and_drops_the_state() {
    let pool = Pool::start("test", 2).unwrap();
    let (dropped, drops) = channel();
    let lane = Arc::new(pool.lane(
        Log {
            _dropped: Some(OnDrop(dropped)),
            ..Log::default()
        },
        NEVER,
    ));
    let (job, running, let_go) = gate();
    let runs = {
        let lane = Arc::clone(&lane);
        thread::spawn(move || lane.run(job))
    };
    running.recv().unwrap();
    let queued = {
        let lane = Arc::clone(&lane);
        thread::spawn(move || lane.run(|_| ()))
    };
    while pool.0.lock().lanes[&lane.id].jobs.is_empty() {
        thread::yield_now();
    }
    pool.stop();
    assert_eq!(queued.join().unwrap(), Err(LaneError::Stopped));
    assert_eq!(lane.run(|_| ()), Err(LaneError::Stopped));
    pool.stop();
    drop(pool);
    assert!(drops.try_recv().is_err(), "the job still runs");
    let_go.send(()).unwrap();
    runs.join().unwrap().unwrap();
    drops.recv().unwrap();
}

/// Parts that wait for a busy lane, one after the other.
fn joined(lane: &Arc<Lane<Log>>, gathering: &Arc<Gathering<Log>>, parts: &[u32]) -> Joined {
    let join = |part: &u32| {
        let (lane, part) = (Arc::clone(lane), *part);
        let (waits, before) = (Arc::clone(gathering), gathering.len());
        let thread = thread::spawn(move || lane.join(&waits, part));
        while gathering.len() == before {
            thread::yield_now();
        }
        thread
    };
    parts.iter().map(join).collect()
}

type Joined = Vec<thread::JoinHandle<Result<(u32, usize), LaneError>>>;

#[test]
fn parts_that_wait_are_done_together_in_order_up_to_the_most() {
    let pool = Pool::start("test", 2).unwrap();
    let lane = Arc::new(pool.lane(Log::default(), NEVER));
    let waits = Arc::default();
    assert_eq!(
        lane.join(&waits, 11),
        Ok((11, 1)),
        "too large to be joined, and done"
    );
    let (job, running, let_go) = gate();
    let busy = {
        let lane = Arc::clone(&lane);
        thread::spawn(move || lane.run(job))
    };
    running.recv().unwrap();
    let first = joined(&lane, &waits, &[3, 4, 2]);
    // No room for two more.
    let second = joined(&lane, &waits, &[2, 8]);
    let_go.send(()).unwrap();
    busy.join().unwrap().unwrap();
    let answers = |threads: Joined| {
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(answers(first), [(3, 3), (4, 3), (2, 3)]);
    assert_eq!(answers(second), [(2, 2), (8, 2)]);
    assert_eq!(
        lane.run(|log| log.jobs.clone()),
        Ok(vec![11, 0, 3, 4, 2, 2, 8])
    );
}

#[test]
fn a_part_whose_caller_gave_up_is_not_done_and_the_others_are() {
    let pool = Pool::start("test", 1).unwrap();
    let busy = Arc::new(pool.lane(Log::default(), NEVER));
    let hasty = pool.lane(Log::default(), Duration::from_millis(50));
    let (job, running, let_go) = gate();
    let runs = {
        let busy = Arc::clone(&busy);
        thread::spawn(move || busy.run(job))
    };
    running.recv().unwrap();
    let waits = Arc::new(Gathering::default());
    assert_eq!(hasty.join(&waits, 1), Err(LaneError::NotStarted));
    assert_eq!(waits.len(), 1, "its job still waits, and is joined");
    let patient = Arc::new(Lane {
        deadline: NEVER,
        ..hasty
    });
    let joins = joined(&patient, &waits, &[2]);
    let_go.send(()).unwrap();
    runs.join().unwrap().unwrap();
    for thread in joins {
        assert_eq!(thread.join().unwrap(), Ok((2, 1)));
    }
    assert_eq!(patient.run(|log| log.jobs.clone()), Ok(vec![2]));
}

#[test]
fn stopping_drops_the_parts_that_wait() {
    let pool = Pool::start("test", 1).unwrap();
    let lane = Arc::new(pool.lane(Log::default(), NEVER));
    let (job, running, let_go) = gate();
    let runs = {
        let lane = Arc::clone(&lane);
        thread::spawn(move || lane.run(job))
    };
    running.recv().unwrap();
    let waits = Arc::default();
    let joins = joined(&lane, &waits, &[1, 2]);
    pool.stop();
    for thread in joins {
        assert_eq!(thread.join().unwrap(), Err(LaneError::Stopped));
    }
    assert_eq!(lane.join(&waits, 3), Err(LaneError::Stopped));
    let_go.send(()).unwrap();
    runs.join().unwrap().unwrap();
}
