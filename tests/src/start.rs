//! How an appliance's daemon is started: in dev mode, as a service, or behind another command.
//!
//! A service takes roles and principals from the host's users. So that a test needs none of them and may run as
//! anybody, its daemon runs in a user namespace in which the tests' own user has the uid [`Start::UID`] and is in every
//! group of MCPist. A host that forbids user namespaces fails these tests, and says so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
}

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

    /// Whether this is dev mode.
    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// Makes what the daemon finds in `folder`.
    pub(crate) fn furnish(&self, folder: &Path) {
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
    pub(crate) fn launch(&self, folder: &Path) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log");
        let mut command = match self.before.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        if self.dev {
            command.arg("--dev");
        }
        command
            .arg("--config")
            .arg(folder.join("mcpist.toml"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts")
    }
}
