//! Who attends to the process: its signals, systemd's watchdog, and the thread that serves clients.
//!
//! Owns the end of the process. Promises that SIGTERM and SIGINT close the store, and that the watchdog is told,
//! whatever clients wait for: all of it runs where operators are served. Does not serve anybody itself.
//!
//! What the watchdog is told each second is that operators are served, not that clients are. Where the audit log's disk
//! hangs, clients wait, and are served again once it answers; a restart in between would not mend the disk, and would
//! cost a quorum. So that state is an alarm: here in the log and in `systemctl status`, and `audit_unavailable` in
//! `mcpist status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::{NotifyState, notify};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::MainError;
use crate::keeper::KeeperHandle;

const BEAT: Duration = Duration::from_secs(1);
/// Beats without one of the clients' thread, after which that is an alarm.
const STILL: u32 = 5;
/// What the clients' thread may take to let go of what it holds, once the store is closed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs both runtimes until a signal comes, then closes the store. The clients' one gets a thread of its own.
pub(crate) fn attend(
    admin: Runtime,
    clients: Runtime,
    keeper: &KeeperHandle,
) -> Result<(), MainError> {
    let pulse = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = oneshot::channel::<()>();
    let (alive, mut ended) = oneshot::channel::<()>();
    let counter = Arc::clone(&pulse);
    std::thread::Builder::new()
        .name("clients".into())
        .spawn(move || {
            let _alive = alive;
            clients.block_on(async {
                tokio::select! {
                    () = beat(|| { counter.fetch_add(1, Ordering::Relaxed); }) => {}
                    _ = stopped => {}
                }
            });
            clients.shutdown_background();
        })
        .map_err(|e| MainError::Io("clients' thread", e))?;
    let outcome = admin.block_on(async {
        let signals = |kind| signal(kind).map_err(|e| MainError::Io("signals", e));
        let mut terminate = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let mut watch = Watch::default();
        tokio::spawn(beat(move || {
            let _ = notify(&[NotifyState::Watchdog]);
            watch.tell(pulse.load(Ordering::Relaxed));
        }));
        let _ = notify(&[NotifyState::Ready]);
        let version = env!("CARGO_PKG_VERSION");
        log::info!("mcpistd {version} is up, {:?}", keeper.view().state);
        let outcome = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = &mut ended => Err(MainError::Clients),
        };
        let _ = notify(&[NotifyState::Stopping]);
        log::info!("stopping");
        // A store that is not open has nothing to close.
        let _ = keeper.seal(None, "the daemon stops").await;
        drop(stop);
        if outcome.is_ok() {
            let _ = tokio::time::timeout(PATIENCE, ended).await;
        }
        outcome
    });
    admin.shutdown_background();
    outcome
}

/// Calls `each` once a second. On the clients' runtime, the timer that is always pending also spares calls a wake-up:
/// setting a deadline that is not the next one to come does not disturb the runtime.
async fn beat(mut each: impl FnMut()) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        each();
    }
}

/// The clients' thread, as seen from this one.
#[derive(Default)]
struct Watch {
    pulse: u64,
    still: u32,
}

impl Watch {
    /// Whether clients began to wait, or are served again; nothing while it is as it was.
    fn look(&mut self, pulse: u64) -> Option<bool> {
        if pulse == self.pulse {
            self.still = self.still.saturating_add(1);
            return (self.still == STILL).then_some(true);
        }
        let waited = self.still >= STILL;
        (self.pulse, self.still) = (pulse, 0);
        waited.then_some(false)
    }

    fn tell(&mut self, pulse: u64) {
        match self.look(pulse) {
            Some(true) => {
                log::error!("clients are not answered; see to the audit log's disk");
                let _ = notify(&[NotifyState::Status("clients are not answered")]);
            }
            Some(false) => {
                log::info!("clients are answered again");
                let _ = notify(&[NotifyState::Status("")]);
            }
            None => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;
    use crate::config::Config;
    use crate::house::House;

    /// How long it may take before the test gives up. Nothing is judged by it.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_signal_is_heard_while_the_clients_thread_hangs() {
        let _ = mcpist_secret::memory::init(4 << 20, mcpist_secret::memory::Policy::Warn);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = format!("state = {:?}\nrun = {:?}\n", at("state"), at("run"));
        std::fs::write(at("mcpist.toml"), text).unwrap();
        let config = Config::load(&at("mcpist.toml"), true).unwrap();
        crate::make_folders(&config).unwrap();
        let keeper = crate::keeper::start(Arc::new(House::new(config))).unwrap();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let (admin, clients) = (runtime(), runtime());
        let (hangs, hanging) = oneshot::channel();
        // Like a line that the disk neither takes nor refuses.
        clients.spawn(async move {
            hangs.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        admin.spawn(async move {
            hanging.await.unwrap();
            raise(Signal::SIGTERM).unwrap();
        });
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(attend(admin, clients, &keeper)));
        assert!(matches!(told.recv_timeout(LONG), Ok(Ok(()))));
    }

    #[test]
    fn clients_that_wait_are_an_alarm_once_and_its_end_as_well() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(1), None);
        for _ in 1..STILL {
            assert_eq!(watch.look(1), None);
        }
        assert_eq!(watch.look(1), Some(true));
        assert_eq!(watch.look(1), None);
        assert_eq!(watch.look(2), Some(false));
        assert_eq!(watch.look(3), None);
    }
}
