//! Development only: mcpistd starts the runner itself and starts it again when it dies.
//!
//! The runner is found beside this executable, then in the folder that the build fixed, never on PATH. It gets its
//! end of a socket pair as standard input, so that it needs no path and no permission. Outside dev mcpistd executes
//! nothing; systemd starts the runner there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::house::House;

const PROGRAM: &str = "mcpist-runner";
/// The first pause before another start; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A runner that lived this long starts the pauses anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// Keeps one runner alive until the process ends.
pub(crate) async fn run_runner(house: Arc<House>) {
    let mut pause = FIRST;
    loop {
        let started = Instant::now();
        if let Err(e) = run_once(&house).await {
            log::error!("{PROGRAM}: {e}");
        }
        if started.elapsed() > HEALTHY {
            pause = FIRST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn run_once(house: &House) -> std::io::Result<()> {
    let program = find()?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = Command::new(&program)
        .args(["--role", "run", "--fd", "0"])
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .kill_on_drop(true)
        .spawn()?;
    let link = UnixStream::from_std(ours)?;
    let uid = Uid::effective().as_raw();
    house
        .runners
        .serve(link, uid, &house.audit, || house.live())
        .await;
    // The link is gone: a runner that is still there is of no use.
    let _ = child.start_kill();
    child.wait().await.map(drop)
}

fn find() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(|folder| folder.join(PROGRAM));
    let fixed = option_env!("MCPIST_LIBEXEC").map(|folder| Path::new(folder).join(PROGRAM));
    beside
        .into_iter()
        .chain(fixed)
        .find(|path| path.is_file())
        .ok_or_else(|| std::io::Error::other("not found beside mcpistd; build the whole workspace"))
}
