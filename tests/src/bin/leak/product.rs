//! The product itself: nobody of the same user may read its memory, and it leaves no core.
//!
//! `/proc/PID/mem` belongs to root where a process is not dumpable, and to the process's own user where it is. That
//! shows only for a user other than root: as root the programs are started as another one, from a copy that this
//! user may execute.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::start::Start;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::{Result, say};

const GIVE_UP: Duration = Duration::from_secs(30);
/// The user that stands for any other than root.
const NOBODY: u32 = 65534;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(0));
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Starts mcpistd with its runner and looks at what others may do with both.
pub(crate) fn check(programs: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = Uid::effective();
    let user = if own.is_root() { NOBODY } else { own.as_raw() };
    let programs = if own.is_root() {
        copy(programs, folder.path())?
    } else {
        programs.to_owned()
    };
    for name in ["state", "run"] {
        let path = folder.path().join(name);
        fs::create_dir(&path)?;
        chown(&path, Some(user), None)?;
    }
    let config = folder.path().join("mcpist.toml");
    fs::write(
        &config,
        format!(
            "state = \"{0}/state\"\nrun = \"{0}/run\"\n",
            folder.path().display()
        ),
    )?;
    let log = folder.path().join("log");
    let mut command = Command::new(programs.join("mcpistd"));
    command
        .args(["--dev", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(fs::File::create(&log)?);
    if own.is_root() {
        command.uid(user).gid(user);
    }
    let daemon = Running(command.spawn()?);
    let since = Instant::now();
    let runner = loop {
        match child(daemon.0.id(), "mcpist-runner") {
            Some(pid) if protected(pid, user).is_ok() || since.elapsed() > GIVE_UP => break pid,
            None if since.elapsed() > GIVE_UP => {
                return Err(format!("no runner: {}", fs::read_to_string(&log)?).into());
            }
            _ => std::thread::yield_now(),
        }
    };
    for (name, pid) in [("mcpistd", daemon.0.id()), ("mcpist-runner", runner)] {
        protected(pid, user).map_err(|e| format!("{name}: {e}"))?;
        say(&format!(
            "{name} of user {user}: its memory is root's to read, and its core limit is 0"
        ));
    }
    Ok(())
}

/// A daemon that may be read and may leave a core is told from the product by `mcpist doctor`.
pub(crate) fn lowered(programs: &Path) -> Result<()> {
    let start = Start::dev(&programs.join("mcpistd")).behind(&["prlimit", "--core=4096"]);
    let appliance = Appliance::start_by(start);
    let out = Command::new(programs.join("mcpist"))
        .arg("--run")
        .arg(appliance.folder().join("run"))
        .args(["--output", "json", "doctor"])
        .output()?;
    let said: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let checks = said["data"]["checks"].as_array().ok_or("no checks")?;
    for name in ["dumpable", "core-limit"] {
        if !checks
            .iter()
            .any(|c| c["name"] == name && c["level"] == "wrong")
        {
            return Err(format!("doctor does not see that {name} is lowered: {said}").into());
        }
    }
    say("doctor names what this build lacks");
    Ok(())
}

fn copy(programs: &Path, folder: &Path) -> Result<PathBuf> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for name in ["mcpistd", "mcpist-runner"] {
        fs::copy(programs.join(name), folder.join(name))?;
    }
    Ok(folder.to_owned())
}

/// The child of this name, once it has executed its program.
fn child(pid: u32, name: &str) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let text: String = children.collect();
    text.split_ascii_whitespace()
        .filter_map(|p| p.parse().ok())
        .find(|p: &u32| {
            fs::read_to_string(format!("/proc/{p}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
}

fn protected(pid: u32, user: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let runs_as = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next());
    if runs_as != Some(user.to_string().as_str()) {
        return Err(format!("it runs as {runs_as:?}").into());
    }
    let owner = fs::metadata(format!("/proc/{pid}/mem"))?.uid();
    if owner != 0 {
        return Err(format!("its memory is user {owner}'s to read: it is dumpable").into());
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<&str> = core.unwrap_or_default().split_ascii_whitespace().collect();
    if core[..] != ["0", "0", "bytes"] {
        return Err(format!("its core limit is {core:?}").into());
    }
    Ok(())
}
