//! mcpistd: the daemon that holds the sealed store and serves tools over MCP.
//!
//! Start order: secret memory and hardening first, then the state folder's lock, then the sockets, then readiness. Two
//! runtimes of one thread each: one for clients and runners, and one for the admin and the secret socket and for signals,
//! so that neither a busy call path nor a disk that hangs under it keeps an operator out.

mod admin;
mod anchor;
mod attend;
mod audit;
mod call;
mod clock;
mod config;
mod connections;
mod dev;
mod gateway;
mod house;
mod inflight;
mod intent;
mod keeper;
#[cfg(feature = "test-leak")]
mod leak;
mod leaks;
mod life;
mod listen;
mod live;
mod log;
mod refusals;
mod roles;
mod runner;
mod secret_socket;
mod shown;
mod tickets;
mod tpm;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mcpist_secret::alloc::ZeroOnFree;
use mcpist_secret::memory::{self, Policy};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::admin::Admin;
use crate::config::{Config, Listener};
use crate::house::House;
use crate::keeper::KeeperHandle;
use crate::listen::{Places, bind};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

const USAGE: &str = "usage: mcpistd [--dev] [--config FILE]
  --config FILE  the configuration, /etc/mcpist/mcpist.toml if left out
  --dev          serve a development store: own sockets, own runner, fixed principals";

/// Why the daemon does not start or does not go on.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error("this host lacks a protection of secret memory: {0}")]
    Memory(#[from] mcpist_secret::MemoryError),
    #[error("another mcpistd holds the folder {0}: stop it first, or configure another")]
    InUse(PathBuf),
    #[error(transparent)]
    Start(#[from] keeper::StartError),
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    #[error(
        "a socket named {0:?} was passed and is not served; name each by FileDescriptorName=: admin, secret or runner (not with --dev) once, mcp as often as wanted"
    )]
    NotServed(String),
    #[error("the thread that serves clients ended; that is a defect")]
    Clients,
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
}

fn main() -> ExitCode {
    log::init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            ::log::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    config: PathBuf,
    dev: bool,
}

fn arguments() -> Result<Option<Arguments>, MainError> {
    let mut parsed = Arguments {
        config: "/etc/mcpist/mcpist.toml".into(),
        dev: false,
    };
    let mut rest = std::env::args_os().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--dev") => parsed.dev = true,
            Some("--config") => {
                parsed.config = rest
                    .next()
                    .ok_or(MainError::Usage("--config needs a file".into()))?
                    .into();
            }
            Some("--help" | "-h") => return Ok(None),
            _ => return Err(MainError::Usage(format!("unknown argument {argument:?}"))),
        }
    }
    Ok(Some(parsed))
}

fn run() -> Result<(), MainError> {
    let Some(arguments) = arguments()? else {
        use std::io::Write;
        return writeln!(std::io::stdout(), "{USAGE}")
            .map_err(|e| MainError::Io("standard output", e));
    };
    memory::harden_process(cfg!(feature = "test-dumpable"))?;
    outlive_file_limit()?;
    let config = Config::load(&arguments.config, arguments.dev)?;
    let policy = if config.dev {
        Policy::Warn
    } else {
        Policy::Require
    };
    let protections = memory::init(config.arena_bytes, policy)?;
    if let Some(missing) = protections.missing() {
        ::log::warn!("secret memory: {missing} is missing on this host");
    }
    admin::started();
    make_folders(&config)?;
    let _lock = lock_state(config.state(), for_a_second())?;
    // Only now: before, an import of another daemon might hold what looks left over.
    mcpist_bundle::clean(&config.registries(), &config.quarantine())
        .map_err(|e| MainError::Io("staging leftovers", e))?;
    if !config.dev {
        config.roles.warn_of_missing();
    }
    let mut passed = Passed::from_env(config.dev)?;
    let house = Arc::new(House::new(config));
    house.audit.started(house.config.dev);
    let keeper = keeper::start(Arc::clone(&house))?;
    let admin = serve_admin(&house, &keeper, &mut passed)?;
    let clients = serve_clients(&house, &mut passed)?;
    attend::attend(admin, clients, &keeper)
}

/// A runtime of one thread.
fn runtime() -> Result<Runtime, MainError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| MainError::Io("runtime", e))
}

/// A file that may grow no further is an error where it is written, and answered there like a full disk. The signal
/// that comes with it would end the process instead; blocked before any thread begins, it ends none.
fn outlive_file_limit() -> Result<(), MainError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    let blocked = signals.thread_block();
    blocked.map_err(|errno| MainError::Io("signals", errno.into()))
}

fn make_folders(config: &Config) -> Result<(), MainError> {
    use std::os::unix::fs::DirBuilderExt;
    let make = |path: PathBuf| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    };
    [config.audit(), config.registries(), config.quarantine()]
        .into_iter()
        .try_for_each(make)
        .map_err(|e| MainError::Io("state folder", e))
}

/// Takes the state folder for this process, a blank one too: its init token and its leftovers have one owner. A child
/// of a daemon that was killed holds it until it runs its own program, so it is tried as long as `again` says.
fn lock_state(folder: &Path, mut again: impl FnMut() -> bool) -> Result<Flock<File>, MainError> {
    let mut opened = File::open(folder).map_err(|e| MainError::Io("state folder", e))?;
    loop {
        opened = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) if again() => unlocked,
            Err((_, Errno::EWOULDBLOCK)) => return Err(MainError::InUse(folder.to_owned())),
            Err((_, errno)) => return Err(MainError::Io("state folder", errno.into())),
        }
    }
}

/// True for a second, in which it is asked every hundredth of one.
fn for_a_second() -> impl FnMut() -> bool {
    let mut left = 100;
    move || {
        std::thread::sleep(Duration::from_millis(10));
        left -= 1;
        left > 0
    }
}

/// The admin and the secret socket on a runtime of their own.
fn serve_admin(
    house: &Arc<House>,
    keeper: &KeeperHandle,
    passed: &mut Passed,
) -> Result<Runtime, MainError> {
    let runtime = runtime()?;
    let mode = if house.config.dev { 0o600 } else { 0o660 };
    let (admin, secret) = {
        let _entered = runtime.enter();
        let mut socket = |name: &str| match passed.take(name)? {
            Some(listener) => Ok::<_, MainError>(listener),
            None => Ok(bind(&house.config.socket(&format!("{name}.sock")), mode)?),
        };
        (socket("admin")?, socket("secret")?)
    };
    let server = Admin {
        house: Arc::clone(house),
        keeper: keeper.clone(),
        clerk: admin::Clerk::start(Arc::clone(house))
            .map_err(|e| MainError::Io("admin clerk's thread", e))?,
    };
    runtime.spawn(secret_socket::serve(
        Arc::clone(house),
        keeper.clone(),
        secret,
    ));
    runtime.spawn(server.serve(admin));
    Ok(runtime)
}

/// The sockets that systemd passed in, by `FileDescriptorName=`. Read once: reading takes them out of the environment.
struct Passed {
    sockets: listenfd::ListenFd,
    names: Vec<String>,
}

impl Passed {
    /// Takes what was passed. A name that is not served here, or once too often, is refused: behind it somebody would
    /// wait for an answer in vain.
    fn from_env(dev: bool) -> Result<Self, MainError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = listenfd::ListenFd::from_env();
        let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
        names.resize(sockets.len(), "unknown".to_owned());
        for (position, name) in names.iter().enumerate() {
            let served = match name.as_str() {
                "mcp" => true,
                "admin" | "secret" => !names[..position].contains(name),
                "runner" => !dev && !names[..position].contains(name),
                _ => false,
            };
            if !served {
                return Err(MainError::NotServed(name.clone()));
            }
        }
        Ok(Self { sockets, names })
    }

    /// The next socket of this name. Needs an entered runtime.
    fn take(&mut self, name: &str) -> Result<Option<UnixListener>, MainError> {
        let io = |e| MainError::Io("passed socket", e);
        let Some(position) = self.names.iter().position(|n| n == name) else {
            return Ok(None);
        };
        self.names[position].clear();
        let taken = self.sockets.take_unix_listener(position).map_err(io)?;
        let Some(listener) = taken else {
            return Ok(None);
        };
        listener.set_nonblocking(true).map_err(io)?;
        UnixListener::from_std(listener).map(Some).map_err(io)
    }
}

/// Clients and runners. One thread: a call waits far longer for its service than it computes, and each hand-over between
/// threads would cost it a wake-up.
fn serve_clients(house: &Arc<House>, passed: &mut Passed) -> Result<Runtime, MainError> {
    let runtime = runtime()?;
    let entered = runtime.enter();
    let places = Places::new(house.config.connections, house.config.connections_per_user);
    let mode = if house.config.dev { 0o600 } else { 0o666 };
    let mut listeners: Vec<(UnixListener, Listener)> = Vec::new();
    while let Some(listener) = passed.take("mcp")? {
        listeners.push((
            listener,
            Listener {
                path: "mcp.socket".into(),
                principal: None,
            },
        ));
    }
    for config in &house.config.listeners {
        listeners.push((bind(&config.path, mode)?, config.clone()));
    }
    for (listener, config) in listeners {
        tokio::spawn(listen::serve(
            Arc::clone(house),
            listener,
            config,
            places.clone(),
        ));
    }
    if house.config.dev {
        tokio::spawn(dev::run_runner(Arc::clone(house)));
    } else {
        let listener = match passed.take("runner")? {
            Some(listener) => listener,
            None => bind(&house.config.socket("runner.sock"), 0o660)?,
        };
        tokio::spawn(runner::listen(Arc::clone(house), listener));
    }
    drop(entered);
    Ok(runtime)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_daemon_that_is_going_is_taken_once_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut going = Some(lock_state(folder.path(), || false).unwrap());
        let mut tries = 0;
        let taken = lock_state(folder.path(), || {
            tries += 1;
            if tries == 3 {
                going = None;
            }
            true
        });
        assert!(taken.is_ok());
        assert_eq!(tries, 3);
    }

    #[test]
    fn the_folder_of_a_daemon_that_stays_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _stays = lock_state(folder.path(), || false).unwrap();
        let mut left = 3;
        let refused = lock_state(folder.path(), || {
            left -= 1;
            left > 0
        });
        assert!(matches!(refused, Err(MainError::InUse(of)) if of == folder.path()));
        assert_eq!(left, 0);
    }
}
