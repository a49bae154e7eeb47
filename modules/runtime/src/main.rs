//! `mcpist-runner`: one process, one role, one link to mcpistd at a time.
//!
//! Owns: start and end of the process: its protections, its log, its link, its signals.
//! Promises: nothing is read from the environment but what systemd sets for the log and readiness.
//! With `--connect` it comes back after the link's end, with a growing pause; with `--fd` (mcpistd in
//! development) it ends with the link. SIGTERM and SIGINT end it in good order.
//! Does not: run modules; the library does.

mod adopt;
mod logging;
mod options;

use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::time::Duration;

use mcpist_runtime::server;
use mcpist_secret::alloc::ZeroOnFree;
use mcpist_secret::memory::{self, Policy};
use mcpist_wire::{LinkEnd, Role, runner};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use options::{Link, Options, Parsed};

/// Freed memory is wiped: HTTP buffers of hyper and rustls hold credentials for a moment.
#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

/// Leases of the calls in flight and the buffer of the link; a lease is dropped with its call. Room for a thousand
/// credentials of up to 1 KiB; a call whose credential finds none is refused alone.
const ARENA: usize = 1024 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Say(text)) => {
            // A closed standard output loses nothing that matters.
            let _ = writeln!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "mcpist-runner: {error}");
            return ExitCode::from(2);
        }
    };
    // Before the log, or anything else, opens a descriptor.
    let adopted = match options.link {
        Link::Descriptor(number) => adopt::socket(number).map(Some),
        Link::Connect(_) => Ok(None),
    };
    logging::init();
    match adopted
        .map_err(StartError::from)
        .and_then(|adopted| run(&options, adopted))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

type StartError = Box<dyn std::error::Error>;

fn run(options: &Options, adopted: Option<StdStream>) -> Result<(), StartError> {
    memory::harden_process(cfg!(feature = "test-dumpable"))?;
    let policy = match options.link {
        Link::Connect(_) => Policy::Require,
        Link::Descriptor(_) => Policy::Warn,
    };
    if let Some(missing) = memory::init(ARENA, policy)?.missing() {
        log::warn!("secret memory lacks a protection: {missing}");
    }
    // One thread: a call waits far longer for its service than it computes, and each hand-over between threads would
    // cost it a wake-up.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::spawn(beat());
        let mut stop = Stop::listen()?;
        if let Some(socket) = adopted {
            return serve_once(socket, options.role, &mut stop).await;
        }
        if let Link::Connect(path) = &options.link {
            stay_connected(path, options.role, &mut stop).await;
        }
        Ok(())
    })
}

/// Tells systemd's watchdog each second that the runner runs. The timer that is always pending also spares calls a
/// wake-up: setting a deadline that is not the next one to come does not disturb the runtime.
async fn beat() {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    loop {
        beat.tick().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Stop> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The link of a socket pair: served once.
async fn serve_once(socket: StdStream, role: Role, stop: &mut Stop) -> Result<(), StartError> {
    socket.set_nonblocking(true)?;
    match serve(UnixStream::from_std(socket)?, role, stop).await {
        Ended::Asked | Ended::Link(LinkEnd::Gone | LinkEnd::Closed(_)) => Ok(()),
        Ended::Link(end) => Err(end.into()),
        Ended::NoWelcome(error) => Err(error.into()),
    }
}

/// Connects, serves and connects again until the process is asked to stop.
async fn stay_connected(path: &std::path::Path, role: Role, stop: &mut Stop) {
    let mut pause = FIRST_PAUSE;
    loop {
        let connected = tokio::select! {
            () = stop.asked() => return,
            connected = UnixStream::connect(path) => connected,
        };
        match connected {
            Ok(stream) => match serve(stream, role, stop).await {
                Ended::Asked => return,
                Ended::Link(end) => {
                    log::warn!("the link ended: {end}");
                    pause = FIRST_PAUSE;
                }
                Ended::NoWelcome(error) => log::warn!("{error}"),
            },
            Err(error) => log::warn!("no connection to {}: {error}", path.display()),
        }
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

enum Ended {
    Asked,
    Link(LinkEnd),
    NoWelcome(runner::ConnectError),
}

async fn serve(stream: UnixStream, role: Role, stop: &mut Stop) -> Ended {
    let greeted = tokio::select! {
        () = stop.asked() => return Ended::Asked,
        greeted = runner::connect(stream, role, std::process::id()) => greeted,
    };
    let (welcome, mut requests) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return Ended::NoWelcome(error),
    };
    log::info!(
        "linked as {}, wire version {}",
        role.as_str(),
        welcome.version
    );
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        () = stop.asked() => {}
        end = server::serve(role, welcome, &mut requests) => return Ended::Link(end),
    }
    requests.close().await;
    Ended::Asked
}
