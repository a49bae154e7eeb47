//! docs/OPERATIONS.md, typed into a shell: a daemon and a runner as on a host (no `--dev`), `mcpist` as a program.
//!
//! Every `console` block is run in its order and compared with what it says it answers; `…` stands for anything. What
//! the page leaves to a person (a passphrase, a `y`, a password store, `sudo`) is done by small scripts on PATH, and what it
//! leaves to systemd by this program. Runs as root, where runner and client are users of their own, and as an ordinary user, who is then all of them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mcpist_bundle::{BuildOptions, Role, SigningKey};
use mcpist_quorum::Identity;
use mcpist_tests::look;
use mcpist_tests::programs::{program, workspace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User};

#[path = "operators/page.rs"]
mod page;

use page::{blocks, commands, fits};

const CANARY: &str = "canary-5b0e8d417c9a2f36";
const HOLDERS: [&str; 5] = ["ada", "bob", "eve", "joe", "kim"];

/// A host: its folders, its daemon and its runner.
struct Host {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    runner: Option<Child>,
    service: u16,
    /// The bundles' registries, in the order of their numbers.
    registries: Vec<String>,
    /// The head of the log that was shown last.
    head: String,
}

/// The users of the parts: each its own where root can make it so.
struct Users {
    runner: u32,
    client: u32,
}

fn users() -> Users {
    let own = Uid::effective();
    if own.is_root() {
        Users {
            runner: 2,
            client: 1,
        }
    } else {
        Users {
            runner: own.as_raw(),
            client: own.as_raw(),
        }
    }
}

/// The group that this test's own user has from the start: it stands for all four role groups.
fn own_group() -> String {
    let user = User::from_uid(Uid::effective()).unwrap();
    let gid = user.map_or(Gid::effective(), |user| user.gid);
    Group::from_gid(gid)
        .unwrap()
        .expect("a group of this user's")
        .name
}

impl Host {
    /// A host with nothing running. `config` is what the page says, for this folder.
    fn new(config: &str) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let host = Host {
            folder,
            daemon: None,
            runner: None,
            service: service(),
            registries: vec![String::new()],
            head: String::new(),
        };
        for (name, mode) in [
            ("", 0o755),
            ("state", 0o700),
            ("run", 0o755),
            ("desk", 0o755),
            ("bin", 0o755),
        ] {
            let path = host.path(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::write(host.path("mcpist.toml"), host.local(config)).unwrap();
        // Copies, since another user may not reach the folder that they were built in.
        for name in ["mcpist", "mcpist-runner"] {
            std::fs::copy(program(name), host.path(&format!("bin/{name}.program"))).unwrap();
        }
        let folder = host.folder.path().display().to_string();
        host.script(
            "mcpist",
            &format!(
                "case \"$1 $2\" in\n\"bundle keygen\") set -- \"$@\" --throwaway ;;\n\"init \"*) set -- \"$@\" --yes ;;\nesac\n\
                 exec {folder}/bin/mcpist.program --run {folder}/run \"$@\""
            ),
        );
        let other = if Uid::effective().is_root() {
            let uid = users().client;
            format!("setpriv --reuid {uid} --regid {uid} --clear-groups ")
        } else {
            String::new()
        };
        host.script(
            "sudo",
            &format!("if [ \"$1\" = -u ]; then shift 2; exec {other}\"$@\"; fi\nexec \"$@\""),
        );
        host.script("pass", &format!("echo {CANARY}"));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(&format!("bin/{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The page's paths, in this host's folder.
    fn local(&self, text: &str) -> String {
        let path = |name| self.path(name).display().to_string();
        text.replace("/var/lib/mcpist", &path("state"))
            .replace("/run/mcpist", &path("run"))
    }

    /// Starts daemon and runner, and waits until they have found each other.
    fn start(&mut self) {
        self.start_with(self.daemon());
    }

    fn daemon(&self) -> Command {
        let mut daemon = Command::new(program("mcpistd"));
        daemon
            .arg("--config")
            .arg(self.path("mcpist.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("mcpistd.log")).unwrap());
        daemon
    }

    fn start_with(&mut self, mut daemon: Command) {
        self.daemon = Some(daemon.spawn().unwrap());
        let mut runner = Command::new(self.path("bin/mcpist-runner.program"));
        runner
            .args(["--role", "run", "--connect"])
            .arg(self.path("run/runner.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("runner.log")).unwrap());
        if Uid::effective().is_root() {
            // Of the daemon's group, which opens the socket.
            runner.uid(users().runner).gid(0);
        }
        self.runner = Some(runner.spawn().unwrap());
        self.wait_for_runner();
    }

    fn wait_for_runner(&self) {
        let log = || self.log();
        look::until("the runner", log, || log().contains("runner connected"));
    }

    /// What systemd does with the daemon alone; it says nothing.
    fn systemctl(&mut self, act: &str) -> String {
        if act == "stop" {
            let mut daemon = self.daemon.take().unwrap();
            let pid = i32::try_from(daemon.id()).unwrap();
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
            assert!(daemon.wait().unwrap().success(), "{}", self.log());
        } else {
            self.daemon = Some(self.daemon().spawn().unwrap());
            self.wait_for_runner();
        }
        String::new()
    }

    /// No file of the host holds `secret`.
    fn holds_nowhere(&self, secret: &str) {
        let places = ["state", "desk", "mcpistd.log", "runner.log"].map(|name| self.path(name));
        let places = places.each_ref().map(|place| place.as_path());
        look::holds_nowhere(secret, "runner connected", &places);
    }

    fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("{}\n{}", read("mcpistd.log"), read("runner.log"))
    }

    /// What the page's command says here: both streams, and the exit status where it is not 0.
    fn run(&self, line: &str) -> String {
        let path = self.path("bin").display().to_string();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{}", self.local(line))])
            .current_dir(self.path("desk"))
            .env_clear()
            .env("HOME", self.path("desk"))
            .env(
                "PATH",
                format!("{path}:/usr/local/bin:/usr/bin:/bin:/usr/sbin"),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut said = String::from_utf8(output.stdout).unwrap();
        match output.status.code() {
            Some(0) => {}
            code => said.push_str(&format!("[exit {}]\n", code.unwrap_or(-1))),
        }
        said.replace("127.0.0.1", "prom.lan")
    }

    /// The page's command with the keys, numbers and hosts of this host.
    fn command(&self, line: &str) -> String {
        let mut line = line
            .replace("--uid 1000", &format!("--uid {}", users().client))
            .replace(
                "--url https://prom.lan:9090/ --ca site-ca.pem",
                &format!("--url http://127.0.0.1:{}/ --allow-local", self.service),
            )
            .replace("--host prom.lan", "--host 127.0.0.1")
            .replace("--expect HEAD", &format!("--expect {}", self.head));
        for (name, registry) in [("ID", 0), ("OLD", 0), ("NEW", 1)] {
            for before in ["--registry", "activate", "retire"] {
                if let Some(id) = self.registries.get(registry) {
                    line = line.replace(&format!("{before} {name} "), &format!("{before} {id} "));
                }
            }
        }
        if line.ends_with("--key KEY") {
            let record = std::fs::read_to_string(self.path("desk/shares/ceremony.txt")).unwrap();
            let (_, key) = record.split_once("audit key").unwrap();
            line = line.replace("KEY", key.split_whitespace().next().unwrap());
        }
        if !Uid::effective().is_root() && line.starts_with("mcpist grant put") {
            // Here officer and client are one user, and a grant to oneself takes a second officer.
            line.push_str(" --proposal grant.json; mcpist change approve grant.json --key bob.key");
        }
        for name in HOLDERS {
            let file = self.path(&format!("desk/{name}.txt"));
            if let Ok(text) = std::fs::read(file) {
                let recipient = Identity::parse(text.trim_ascii()).unwrap().recipient();
                line = line.replace(&format!("{name}=age1…"), &format!("{name}={recipient}"));
            }
            let file = self.path(&format!("desk/{name}.key"));
            if let Ok(text) = std::fs::read(file) {
                let public = SigningKey::from_throwaway_text(&text).unwrap().public();
                line = line.replace(&format!("{name}=HEXKEY"), &format!("{name}={public}"));
            }
        }
        line
    }

    /// Types a block's commands and compares what they say; gives their number.
    fn types(&mut self, block: &str) -> usize {
        let commands = commands(block);
        for (command, expected) in &commands {
            let said = match command.strip_suffix(" mcpistd") {
                Some("systemctl stop") => self.systemctl("stop"),
                Some("systemctl start") => self.systemctl("start"),
                _ => self.run(&self.command(command)),
            };
            if command == "mcpist audit head" {
                let words = said.split_whitespace().skip_while(|word| *word != "head");
                self.head = words.skip(1).take(1).collect();
            }
            let lines: Vec<_> = said.lines().collect();
            assert!(
                fits(expected, &lines),
                "$ {command}\nsays\n{said}\nand is to say\n{}\n\n{}",
                expected.join("\n"),
                self.log()
            );
        }
        commands.len()
    }

    /// What others bring: the holders' identities, the publisher's root and a signed bundle.
    fn bring(&mut self) {
        for name in HOLDERS {
            let text = Identity::generate().to_text().unwrap();
            std::fs::write(self.path(&format!("desk/{name}.txt")), text.expose()).unwrap();
        }
        let publisher = SigningKey::generate().unwrap();
        let root = format!(
            "mcpist bundle root root.json --site plant-7 --namespace acme --publisher {0} --root-key {0} --revoke-key {0}",
            publisher.public()
        );
        self.run(&root);
        let module = workspace().join("modules/catalog/prometheus");
        let bundles = [
            ("monitoring.bundle", ""),
            (
                "monitoring-2.bundle",
                "Counts on: nothing but the number is new.",
            ),
        ];
        self.registries.clear();
        for (sequence, (file, notes)) in (1..).zip(bundles) {
            let options = BuildOptions {
                namespace: "acme".parse().unwrap(),
                name: "monitoring".parse().unwrap(),
                sequence,
                audience: vec!["plant-7".parse().unwrap()],
                created: 1_700_000_000,
                not_after: 4_000_000_000,
                notes: notes.to_owned(),
            };
            let plain = mcpist_bundle::build(std::slice::from_ref(&module), &options).unwrap();
            let signed = mcpist_bundle::build::sign(&plain, &publisher, Role::Publisher).unwrap();
            let digest = mcpist_bundle::inspect(&signed).unwrap().digest;
            self.registries.push(digest.to_string());
            std::fs::write(self.path(&format!("desk/{file}")), signed).unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.runner, &mut self.daemon].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A Prometheus that knows one metric and one bearer. Its threads end with the process.
fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let mut known = false;
                for line in lines {
                    known |= line.to_lowercase() == format!("authorization: bearer {CANARY}");
                    if !line.is_empty() {
                        continue;
                    }
                    let (status, body) = if known {
                        (
                            "200 OK",
                            r#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#,
                        )
                    } else {
                        ("401 Unauthorized", "{}")
                    };
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                    );
                    if (&stream)
                        .write_all(format!("{head}{body}").as_bytes())
                        .is_err()
                    {
                        return;
                    }
                    known = false;
                }
            });
        }
    });
    port
}

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/OPERATIONS.md")).unwrap()
}

/// The page's configuration for the users of this test.
fn config(page: &str) -> String {
    let toml = blocks(page, "toml").remove(0);
    let uid = users().runner;
    let group = own_group();
    toml.lines()
        .map(|line| match line.split_once(" = ") {
            Some(("uid", _)) => format!("uid = {uid}\n"),
            Some((role, name)) if name.starts_with("\"mcpist-") => {
                format!("{role} = \"{group}\"\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_page_is_what_happens() {
    let page = page();
    let mut host = Host::new(&config(&page));
    host.bring();
    host.start();
    let typed: usize = blocks(&page, "console")
        .iter()
        .map(|block| host.types(block))
        .sum();
    assert!(typed > 25, "{typed} commands");
    host.holds_nowhere(CANARY);
}

#[test]
fn each_error_says_what_and_what_next() {
    let mut host = Host::new(&config(&page()));
    host.bring();
    host.start();
    host.types(include_str!("../fixtures/errors.console"));
}

#[test]
fn who_is_in_no_group_has_no_role_and_is_told_which_there_are() {
    let page = page();
    let toml = config(&page);
    let (head, _) = toml.split_once("[roles]").unwrap();
    let mut host = Host::new(head);
    host.start();
    let said = host.run("mcpist status");
    assert!(said.starts_with("error[forbidden]: "), "{said}");
    assert!(
        said.contains("\nnext: ask for membership in mcpist-operator or "),
        "{said}"
    );
    assert!(
        host.log()
            .contains("no store was opened yet: 'mcpist init' needs "),
        "{}",
        host.log()
    );
}

#[test]
fn a_share_without_a_recipient_is_shown_on_a_terminal_and_nowhere_else() {
    let mut host = Host::new(&config(&page()));
    host.bring();
    host.start();
    host.run("mcpist bundle keygen ada.key; mcpist bundle keygen bob.key");
    let init = host.command(
        "mcpist init --threshold 2 --qr --holder ada --holder bob --holder eve --officer ada=HEXKEY \
         --officer bob=HEXKEY --root root.json --token-file /var/lib/mcpist/init-token --out shares",
    );
    let said = host.run(&format!("setsid -w {init}"));
    assert!(said.starts_with("error[no_terminal]: "), "{said}");
    assert!(host.run("mcpist status").starts_with("store     none"));
    // The terminal is one that `script` makes; what is typed is Enter, now and again, since what is typed ahead is dropped.
    let shown = host.run(&format!(
        "while sleep 0.1; do echo; done | script -qec '{init}' /dev/null"
    ));
    let shares: Vec<_> = shown
        .split("mcpist-share1")
        .skip(1)
        .map(|after| format!("mcpist-share1{}", after.split_whitespace().next().unwrap()))
        .collect();
    assert_eq!(shares.len(), 3, "{shown}");
    assert!(shown.contains('█'), "{shown}");
    let opened: Vec<_> = shares[1..]
        .iter()
        .map(|share| host.run(&format!("echo {share} | mcpist unseal")))
        .collect();
    assert!(
        opened[0].contains("taken: 1 of 2 shares (bob)"),
        "{}",
        opened[0]
    );
    assert!(opened[1].contains("unsealed: "), "{}", opened[1]);
    host.holds_nowhere("mcpist-share1");
}

#[test]
fn sockets_that_systemd_passes_are_served_by_their_names_and_left_as_they_are() {
    let toml = config(&page());
    let (before, listener) = toml.split_once("[[listener]]").unwrap();
    let (_, after) = listener.split_once("[runner]").unwrap();
    let mut host = Host::new(&format!("{before}[runner]{after}"));
    let bound = |name: &str, mode| {
        let path = host.path(&format!("run/{name}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        OwnedFd::from(listener)
    };
    // The shell puts them where systemd would: from descriptor 3 on, with their names in the environment.
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "log=$1; shift; exec 3<&0 4<&1 5<&2 </dev/null >/dev/null 2>\"$log\"\n\
             export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=mcp:secret:admin\nexec \"$@\"",
            "sh",
        ])
        .arg(host.path("mcpistd.log"))
        .arg(program("mcpistd"))
        .arg("--config")
        .arg(host.path("mcpist.toml"))
        .stdin(bound("mcp", 0o622))
        .stdout(bound("secret", 0o620))
        .stderr(bound("admin", 0o640));
    host.start_with(shell);
    assert!(
        host.run("mcpist status").starts_with("store     none"),
        "{}",
        host.log()
    );
    assert!(
        host.run("mcpist tools").starts_with("error[sealed]: "),
        "{}",
        host.log()
    );
    std::fs::write(host.path("desk/root.json"), "{}").unwrap();
    let refused = host
        .run("echo 00 | mcpist init --token-file - --threshold 2 --holder a=b --root root.json");
    assert!(
        refused.starts_with("error[ticket_invalid]: this is not the init token"),
        "{refused}"
    );
    for (name, mode) in [("mcp", 0o622), ("secret", 0o620), ("admin", 0o640)] {
        let meta = std::fs::metadata(host.path(&format!("run/{name}.sock"))).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
}
