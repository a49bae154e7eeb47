//! How an appliance's daemon is started: in dev mode, as a service, or behind another command.
//!
//! A service takes roles and principals from the host's users. So that a test needs none of them and may run as
//! anybody, its daemon runs in a user namespace in which the tests' own user has the uid [`Start::UID`] and is in every
//! group of MCPist. A host that forbids user namespaces fails these tests, and says so.

use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

/// What the users of a service are.
const PASSWD: &str = "site:x:1000:1000::/:/bin/false\n";
const GROUP: &str = "site:x:1000:\nmcpist-operator:x:2001:site\nmcpist-custodian:x:2002:site\n\
                     mcpist-officer:x:2003:site\nmcpist-auditor:x:2004:site\n";

/// A way to start mcpistd.
pub struct Start {
    program: PathBuf,
    dev: bool,
    /// A command that ends by executing its further arguments; run in the appliance's folder.
    before: Vec<String>,
    config: String,
    /// Names and files of the sockets that are bound here and passed to the daemon.
    passed: Vec<(String, String)>,
}

/// The lowest of the descriptors that passed sockets have on their way.
const LOWEST: i32 = 20;

impl Start {
    /// The uid that a service sees the tests' user as.
    pub const UID: u32 = 1000;

    /// `program` in dev mode, with the listeners `ada.sock` and `bob.sock`.
    pub fn dev(program: &Path) -> Start {
        Start {
            program: program.to_owned(),
            dev: true,
            before: Vec::new(),
            config: String::new(),
            passed: Vec::new(),
        }
    }

    /// `program` as systemd would start it, with the listener `mcp.sock`, for a runner of `runner_uid`.
    ///
    /// # Panics
    /// When the host forbids user namespaces.
    pub fn service(program: &Path, runner_uid: u32) -> Start {
        let script = "mount --bind passwd /etc/passwd; mount --bind group /etc/group; \
                      exec unshare -U --map-user=1000 --map-group=1000 \"$@\"";
        let start = Start {
            program: program.to_owned(),
            dev: false,
            before: Vec::new(),
            config: format!("[runner]\nuid = {runner_uid}\n"),
            passed: Vec::new(),
        };
        start.in_namespace(script)
    }

    /// The same as root of a user and mount namespace of its own, after `script` (of sh, `"$@"` is the daemon).
    ///
    /// # Panics
    /// When the host forbids user namespaces.
    #[must_use]
    pub fn in_namespace(mut self, script: &str) -> Start {
        let allowed = Command::new("unshare").args(["-rm", "true"]).output();
        let allowed = allowed.expect("unshare (util-linux) is installed");
        let said = String::from_utf8_lossy(&allowed.stderr);
        assert!(
            allowed.status.success(),
            "this test needs user namespaces and this host forbids them: {said}"
        );
        let script = format!("set -e; {script}");
        self.before = ["unshare", "-rm", "sh", "-c", &script, "sh"]
            .map(str::to_owned)
            .to_vec();
        self
    }

    /// The same behind `command`, which executes its further arguments and keeps its process id.
    #[must_use]
    pub fn behind(mut self, command: &[&str]) -> Start {
        self.before = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// The same with further lines of configuration, tables of TOML.
    #[must_use]
    pub fn with_config(mut self, lines: &str) -> Start {
        self.config.push_str(lines);
        self
    }

    /// The same with sockets that are bound before, as systemd does: (name, file in the run folder) of each.
    #[must_use]
    pub fn passing(mut self, sockets: &[(&str, &str)]) -> Start {
        let own = |&(name, file): &(&str, &str)| (name.to_owned(), file.to_owned());
        self.passed = sockets.iter().map(own).collect();
        self
    }

    /// Whether this is dev mode.
    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// Makes what the daemon finds in `folder`.
    pub fn furnish(&self, folder: &Path) {
        let at = folder.display();
        let mut config = format!("state = \"{at}/state\"\nrun = \"{at}/run\"\n");
        if self.dev {
            for name in ["ada", "bob"] {
                config += &format!(
                    "[[listener]]\npath = \"{at}/run/{name}.sock\"\nprincipal = \"{name}\"\n"
                );
            }
        } else {
            config += &format!("[[listener]]\npath = \"{at}/run/mcp.sock\"\n");
        }
        for name in ["state", "run"] {
            std::fs::create_dir(folder.join(name)).expect("a folder");
        }
        let files = [
            ("mcpist.toml", config + &self.config),
            ("passwd", PASSWD.to_owned()),
            ("group", GROUP.to_owned()),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a file");
        }
    }

    /// Starts the daemon on `folder`; what it says goes to the file `log` there.
    pub fn launch(&self, folder: &Path) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log");
        let said = log.try_clone().expect("a descriptor");
        let sockets: Vec<UnixListener> = (self.passed.iter())
            .map(|(_, file)| UnixListener::bind(folder.join("run").join(file)).expect("a socket"))
            .collect();
        let passed: Vec<RawFd> = sockets.iter().map(inherited).collect();
        let mut words = self.adopting(&passed);
        words.extend(self.before.iter().cloned());
        words.push(self.program.display().to_string());
        if self.dev {
            words.push("--dev".to_owned());
        }
        let daemon = Command::new(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(folder.join("mcpist.toml"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(log)
            .spawn();
        for fd in passed {
            nix::unistd::close(fd).expect("ours to close");
        }
        daemon.expect("the daemon starts")
    }

    /// A command that gives the descriptors the places and the environment that systemd would.
    fn adopting(&self, passed: &[RawFd]) -> Vec<String> {
        if passed.is_empty() {
            return Vec::new();
        }
        let moves = passed.iter().zip(3..);
        let moves: Vec<String> = moves
            .map(|(fd, to)| format!("{to}<&{fd} {fd}<&-"))
            .collect();
        let names: Vec<&str> = self.passed.iter().map(|(name, _)| name.as_str()).collect();
        let script = format!(
            "exec {}; export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; exec \"$@\"",
            moves.join(" "),
            passed.len(),
            names.join(":")
        );
        ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec()
    }
}

/// A second descriptor of `socket` that programs started from here inherit, above those that they know themselves.
fn inherited(socket: &UnixListener) -> RawFd {
    fcntl(socket, FcntlArg::F_DUPFD(LOWEST)).expect("a descriptor")
}
