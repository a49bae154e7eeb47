//! What the system counts of a live process, and a process that lives as long as its value.

use std::io::{Error, Result};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

/// A process by its id.
pub struct Process(u32);

impl Process {
    /// The process `pid`.
    pub fn of(pid: u32) -> Process {
        Process(pid)
    }

    /// CPU of all its threads so far: utime and stime of proc(5)'s `stat`, which count in ticks of 10 ms. `getrusage`
    /// knows nothing of a child that still lives.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name, in parentheses, may hold anything; fields 14 and 15 of the whole are 12 and 13 after it.
        let ticks: u64 = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Resident memory (MiB), shared pages and all: `VmRSS` of proc(5)'s `status`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .map(|kib: f64| kib / 1024.0)
            .ok_or_else(|| Error::other(format!("process {} has no memory left", self.0)))
    }
}

/// A program of the run. It is killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts `program SOCKET` and waits until the socket accepts.
    ///
    /// # Errors
    /// When it does not start or ends before that.
    pub fn start(program: &Path, socket: &Path) -> Result<Running> {
        let child = Command::new(program)
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::other(format!("{}: {e}", program.display())))?;
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(socket).is_err() {
            if let Some(status) = running.0.try_wait()? {
                return Err(Error::other(format!("{}: {status}", program.display())));
            }
            if Instant::now() > deadline {
                return Err(Error::other(format!(
                    "{} does not listen",
                    program.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_cpu_and_memory() {
        let own = Process::of(std::process::id());
        let before = own.cpu().unwrap();
        while own.cpu().unwrap() == before {}
        assert!(own.resident_mib().unwrap() > 0.0);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Process::of(child.id()).cpu().is_err());
    }
}
