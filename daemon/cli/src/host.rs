//! A daemon of one's own, for `dev` and `demo`: found, configured, started, waited for, stopped.
//!
//! Promises that mcpistd is found beside this executable or in the folder that the build fixed, never on PATH; that it
//! is up when [`Daemon::start`] returns, since its admin socket answered; and that it does not outlive its value.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcpist_core::api::{Status, path};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::secret;

const PROGRAM: &str = "mcpistd";
/// The longest wait for the daemon to answer, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that says no when it is not there yet.
const POLL: Duration = Duration::from_millis(20);

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    client: Client,
    log: PathBuf,
}

impl Daemon {
    /// Starts a development daemon that keeps everything in `folder`: `state/`, `run/`, `mcpist.toml`, `mcpistd.log`.
    /// Each principal gets the listener `run/NAME.sock`.
    pub(crate) async fn start(folder: &Path, principals: &[&str]) -> Result<Daemon> {
        let program = find()?;
        for name in ["state", "run"] {
            let path = folder.join(name);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|e| Error::file(&path, e))?;
        }
        let config = folder.join("mcpist.toml");
        let text = configuration(folder, principals)?;
        std::fs::write(&config, text).map_err(|e| Error::file(&config, e))?;
        let log = folder.join("mcpistd.log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| Error::file(&log, e))?;
        let child = Command::new(&program)
            .arg("--dev")
            .arg("--config")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            .spawn()
            .map_err(|e| Error::file(&program, e))?;
        let mut daemon = Daemon {
            child,
            client: Client::new(folder.join("run")),
            log,
        };
        daemon
            .wait_until(|_| true, "its admin socket to answer")
            .await?;
        Ok(daemon)
    }

    /// The client of its sockets.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks for its status until it is as wanted.
    pub(crate) async fn wait_until(
        &mut self,
        wanted: impl Fn(&Status) -> bool,
        what: &str,
    ) -> Result<Status> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(format!("mcpistd ended ({status}) before {what}")));
            }
            match self.client.get::<Status>(path::STATUS).await {
                Ok(status) if wanted(&status) => return Ok(status),
                Err(e) if e.code() != "daemon_unreachable" => return Err(e),
                _ if started.elapsed() > PATIENCE => {
                    return Err(self.failed(format!("mcpistd took too long for {what}")));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// An error with the last lines that the daemon logged.
    fn failed(&self, message: String) -> Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        let tail: Vec<_> = lines
            .into_iter()
            .rev()
            .map(|l| mcpist_core::text::excerpt(l, 400))
            .collect();
        Error::new("daemon_failed", format!("{message}\n{}", tail.join("\n")))
            .next(format!("read {}", self.log.display()))
    }

    /// Stops it as systemd would, and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.ended()? {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).map_err(|e| Error::new("internal", e))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| Error::new("daemon_failed", e))?;
        let started = Instant::now();
        while !self.ended()? {
            if started.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                return Err(
                    self.failed("mcpistd did not stop when told to, and was killed".to_owned())
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The caller's own error is the one to show.
        let _ = self.stop();
    }
}

fn find() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().map(|folder| folder.join(PROGRAM));
    let fixed = option_env!("MCPIST_LIBEXEC").map(|folder| Path::new(folder).join(PROGRAM));
    beside
        .into_iter()
        .chain(fixed)
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::new(
                "daemon_missing",
                format!("{PROGRAM} is not beside {}", own.display()),
            )
            .next("install the whole package, or build the whole workspace")
        })
}

fn configuration(folder: &Path, principals: &[&str]) -> Result<String> {
    let text = |path: PathBuf| {
        path.to_str()
            .map(|p| toml::Value::from(p).to_string())
            .ok_or_else(|| Error::file(&path, "not UTF-8"))
    };
    let mut out = format!(
        "state = {}\nrun = {}\n",
        text(folder.join("state"))?,
        text(folder.join("run"))?
    );
    for name in principals {
        let socket = text(folder.join("run").join(format!("{name}.sock")))?;
        out.push_str(&format!(
            "\n[[listener]]\npath = {socket}\nprincipal = \"{name}\"\n"
        ));
    }
    Ok(out)
}

/// Shows the token that the daemon wrote into its state folder.
pub(crate) async fn show_init_token(client: &Client, folder: &Path) -> Result<()> {
    let token = secret::read_secret_file(&folder.join("state/init-token"))?;
    secret::init_token(client, &token).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_a_listener_for_each_principal() {
        let text = configuration(Path::new("/tmp/a \"b\""), &["ada", "bob"]).unwrap();
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(parsed["state"].as_str(), Some("/tmp/a \"b\"/state"));
        let listeners = parsed["listener"].as_array().unwrap();
        assert_eq!(
            listeners[1]["path"].as_str(),
            Some("/tmp/a \"b\"/run/bob.sock")
        );
    }
}
