//! The scene: an appliance, credentials of every kind, and calls of every outcome.
//!
//! Owns: what is done and what is kept of it as text. Where something is looked for is [`Looked`].

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::needle::{Needles, token};
use mcpist_tests::programs::workspace;
use mcpist_tests::service::Service;
use mcpist_tests::shares::Shares;
use serde_json::{Value, json};

use crate::Result;
use crate::image::Image;

const GIVE_UP: Duration = Duration::from_secs(30);
/// Images of mcpistd while calls are under way, at moments that the machine chooses.
const UNDER_WAY: usize = 4;

/// What the service is asked for; each has an outcome of its own (`mcpist_tests::service`).
const OUTCOMES: [&str; 8] = [
    "plain",
    "echo",
    "fails",
    "picked",
    "redirects",
    "number",
    "refuses",
    WAITS,
];
/// The one that gets no answer.
const WAITS: &str = "hang";

/// A place in which secrets are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Looked {
    /// mcpistd's memory: opened, while calls are under way, afterwards, and sealed again.
    Daemon,
    /// The runner's memory while a call waits for its service. The credential must be there.
    RunnerAtWork,
    /// The runner's memory after its calls ended and its connections closed.
    Runner,
    /// Every file below the appliance's folder but the logs: store, audit log, record, leftovers.
    Files,
    /// What mcpistd and the runner logged.
    Log,
    /// What clients sent and got.
    Transcript,
    /// What operators got: answers and errors of the admin and the secret socket, and the output of `mcpist`.
    Operator,
    /// Environment, command line and names of both processes.
    Process,
}

impl Looked {
    /// Where the build with deliberate leaks leaks.
    pub(crate) const LEAKED: [Looked; 5] = [
        Looked::Daemon,
        Looked::Runner,
        Looked::Files,
        Looked::Log,
        Looked::Transcript,
    ];
}

/// One kind of credential.
struct Kind {
    name: &'static str,
    kind: &'static str,
    inject: Value,
    secret: String,
}

/// A running appliance with a service.
pub(crate) struct Scene {
    appliance: Appliance,
    service: Service,
    cli: PathBuf,
    kinds: [Kind; Scene::KINDS],
    needles: Needles,
    registry: String,
    /// Sockets of the runner before its first request.
    idle_sockets: BTreeSet<String>,
    transcript: Vec<String>,
    operator: Vec<String>,
}

/// Looks at an image that was taken of a place.
type Look<'l> = dyn FnMut(&Scene, Looked, &Image) + 'l;

impl Scene {
    /// How many kinds of credentials there are.
    pub(crate) const KINDS: usize = 4;

    /// An opened store with everything but bindings of the credentials.
    pub(crate) fn set(programs: &Path) -> Result<Scene> {
        let header = json!({ "header": { "name": "x-api-key" } });
        let query = json!({ "query": { "name": "key" } });
        let kind = |name, kind, inject, secret| Kind {
            name,
            kind,
            inject,
            secret,
        };
        let kinds = [
            kind("bearer", "bearer", json!("bearer"), token(48, false)),
            kind(
                "basic",
                "basic",
                json!("basic"),
                format!("{}:{}", token(16, false), token(48, false)),
            ),
            kind("header", "api-key", header, token(48, true)),
            kind("query", "api-key", query, token(48, true)),
        ];
        let service = Service::start();
        let mut appliance = Appliance::start_with(&programs.join("mcpistd"));
        appliance.init();
        let texts = [1, 2, 3].map(|number| appliance.share(number));
        let opened_by = Shares::of(&texts)?;
        let credentials = kinds.iter().map(|k| (k.name, k.secret.as_bytes()));
        let needles = Needles::new(credentials.chain(opened_by.secrets()));
        let mut scene = Scene {
            appliance,
            service,
            cli: programs.join("mcpist"),
            kinds,
            needles,
            registry: String::new(),
            idle_sockets: BTreeSet::new(),
            transcript: Vec::new(),
            operator: Vec::new(),
        };
        scene.furnish()?;
        Ok(scene)
    }

    /// What is looked for.
    pub(crate) fn needles(&self) -> &Needles {
        &self.needles
    }

    fn furnish(&mut self) -> Result<()> {
        let canary = Secret::copy_of(self.kinds[0].secret.as_bytes())?;
        // A secret in the place of a share: refused, with a reason.
        let refused = self.appliance.give(&canary);
        self.operator.push(refused.to_string());
        self.appliance.unseal();
        self.appliance
            .ask("POST", "/v1/vaults", Some(&json!({ "name": "main" })));
        for name in ["ada", "bob"] {
            self.appliance
                .change(&json!({ "principal-put": { "name": name } }));
        }
        self.put_credentials()?;
        let bundle = self
            .appliance
            .bundle(&workspace().join("tests/fixtures/echo"));
        let imported = self.appliance.import(&bundle);
        let registry = imported["import"]["registry"]["id"]
            .as_str()
            .ok_or("no registry")?;
        self.registry = registry.to_owned();
        for kind in &self.kinds {
            self.appliance.change(&json!({ "binding-put": {
                "name": kind.name, "vault": "main", "credential": kind.name, "scheme": "http", "host": "127.0.0.1",
                "port": self.service.port(), "path_prefix": "/api", "methods": ["GET", "POST"], "trust": "none",
                "inject": kind.inject, "allow_local": true } }));
        }
        self.join("bearer");
        self.appliance
            .change(&json!({ "registry-activate": self.registry }));
        self.appliance.change(&json!({ "grant-put": {
            "name": "ada-echo", "subject": { "principal": "ada" }, "module": { "named": "echo" }, "tools": "all",
            "access": "write" } }));
        self.idle_sockets = self.runner_sockets()?;
        Ok(())
    }

    /// Over the secret socket, the first one by the command line; and what is refused there.
    fn put_credentials(&mut self) -> Result<()> {
        let (by_cli, by_frame) = self.kinds.split_at(1);
        let put = [
            "credential",
            "put",
            "main",
            "bearer",
            "--kind",
            "bearer",
            "--host",
            "127.0.0.1",
        ];
        let bearer = by_cli[0].secret.clone();
        for kind in by_frame {
            let stored = self
                .appliance
                .put_credential(kind.name, kind.kind, &kind.secret);
            self.operator.push(stored.to_string());
            // A second version, so that there is one before it.
            let again = self
                .appliance
                .put_credential(kind.name, kind.kind, &kind.secret);
            self.operator.push(again.to_string());
        }
        let wrong = format!("{bearer}\n");
        for refused in [
            self.appliance.put_credential("bearer", "basic", &bearer),
            self.appliance.put_credential("bearer", "bearer", &wrong),
            self.appliance.put_credential("bearer", "nothing", &bearer),
        ] {
            assert!(refused["error"].is_object(), "{refused}");
            self.operator.push(refused.to_string());
        }
        self.mcpist(&put, &bearer)
    }

    /// Runs `mcpist` and keeps what it wrote.
    fn mcpist(&mut self, arguments: &[&str], input: &str) -> Result<()> {
        let mut child = Command::new(&self.cli)
            .args(["--output", "json", "--run"])
            .arg(self.appliance.folder().join("run"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let out = child.wait_with_output()?;
        for bytes in [&out.stdout, &out.stderr] {
            self.operator
                .push(String::from_utf8_lossy(bytes).into_owned());
        }
        if !out.status.success() {
            return Err(format!("mcpist {arguments:?}: {:?}", self.operator.last()).into());
        }
        Ok(())
    }

    fn join(&self, binding: &str) {
        self.appliance.change(&json!({ "join-put": {
            "registry": self.registry, "module": "echo", "slot": "service", "binding": binding } }));
    }

    /// Calls with the first `kinds` kinds and of every outcome, and a look at each image.
    pub(crate) fn play(&mut self, kinds: usize, look: &mut Look<'_>) -> Result<()> {
        let runner = self.runner()?;
        look(self, Looked::Daemon, &self.image(self.appliance.pid())?);
        let names = self.kinds.each_ref().map(|kind| kind.name);
        for name in names.into_iter().take(kinds) {
            self.join(name);
            self.calls(look)?;
            self.seal(look)?;
            // What comes later may overwrite what was left behind: each outcome is once the last.
            for item in OUTCOMES {
                self.appliance.unseal();
                self.last_call(item, look)?;
                self.seal(look)?;
            }
            self.appliance.unseal();
        }
        for arguments in [
            &["status"][..],
            &["credential", "list", "main"],
            &["audit", "head"],
        ] {
            self.mcpist(arguments, "")?;
        }
        let (_, error) =
            self.appliance
                .admin("POST", "/v1/vaults", Some(&json!({ "name": "main" })));
        self.operator.push(error.to_string());
        if self.runner()? != runner {
            return Err("the runner is another than the one that made the calls".into());
        }
        Ok(())
    }

    /// Calls of every outcome, while mcpistd is looked at.
    fn calls(&mut self, look: &mut Look<'_>) -> Result<()> {
        let mut ada = self.appliance.client("ada");
        let ended = AtomicBool::new(false);
        let mut images = Vec::new();
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for item in OUTCOMES.iter().filter(|item| **item != WAITS) {
                        ada.call("echo", "get", &json!({ "item": item, "q": "a b" }));
                        ada.call("echo", "typed", &json!({ "item": item }));
                    }
                    ada.call("echo", "put", &json!({ "value": "x" }));
                }
            });
            for _ in 0..UNDER_WAY {
                images.push(self.image(self.appliance.pid()));
            }
            ended.store(true, Ordering::Relaxed);
            calling.join()
        })
        .map_err(|_| format!("a call got no answer: {}", self.appliance.log()))?;
        self.transcript.append(&mut ada.transcript);
        for image in images {
            look(self, Looked::Daemon, &image?);
        }
        Ok(())
    }

    /// One call; both processes are looked at while it waits for its service, if it does.
    fn last_call(&mut self, item: &'static str, look: &mut Look<'_>) -> Result<()> {
        let before = self.service.seen().len();
        let mut ada = self.appliance.client("ada");
        let calling = std::thread::spawn(move || {
            ada.call("echo", "get", &json!({ "item": item }));
            ada.transcript
        });
        if item == WAITS {
            until("the call at the service", || {
                Ok(self.service.seen().len() > before)
            })?;
            look(self, Looked::RunnerAtWork, &self.image(self.runner()?)?);
            look(self, Looked::Daemon, &self.image(self.appliance.pid())?);
        }
        let transcript = calling.join().map_err(|_| "a call got no answer")?;
        self.transcript.extend(transcript);
        Ok(())
    }

    /// Seals the store: the bindings go, and with them the runner's connections.
    fn seal(&mut self, look: &mut Look<'_>) -> Result<()> {
        self.appliance.ask("POST", "/v1/seal", None);
        until("the runner's connections to close", || {
            Ok(self.runner_sockets()?.is_subset(&self.idle_sockets))
        })?;
        look(self, Looked::Daemon, &self.image(self.appliance.pid())?);
        look(self, Looked::Runner, &self.image(self.runner()?)?);
        Ok(())
    }

    fn image(&self, pid: u32) -> Result<Image> {
        let image = Image::of(pid)?;
        // What is left out must be the arena of secret pages alone: a few MiB.
        let arena = 1 << 20..=64 << 20;
        if !arena.contains(&image.left_out) {
            return Err(format!("process {pid} hides {} bytes from a core", image.left_out).into());
        }
        // Its folder stands in its configuration, for as long as it lives.
        let folder = self.appliance.folder().display().to_string();
        if pid == self.appliance.pid() && !image.contains(folder.as_bytes()) {
            return Err("mcpistd's folder is not in its image: that is not its memory".into());
        }
        Ok(image)
    }

    fn runner(&self) -> Result<u32> {
        let pids = self.appliance.runner_pids();
        match pids[..] {
            [pid] => Ok(pid),
            _ => Err(format!("one runner is expected: {pids:?}").into()),
        }
    }

    fn runner_sockets(&self) -> Result<BTreeSet<String>> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.runner()?))?;
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let names = targets.map(|target| target.display().to_string());
        Ok(names.filter(|name| name.starts_with("socket:")).collect())
    }

    /// Everything that is text or a file: where it is, its name, its bytes.
    pub(crate) fn texts(&self) -> Result<Vec<(Looked, String, Vec<u8>)>> {
        let mut texts = Vec::new();
        let lines = |looked, lines: &[String]| {
            let line = move |line: &String| (looked, String::new(), line.clone().into_bytes());
            lines.iter().map(line).collect::<Vec<_>>()
        };
        texts.extend(lines(Looked::Transcript, &self.transcript));
        texts.extend(lines(Looked::Operator, &self.operator));
        files(self.appliance.folder(), &mut texts)?;
        for pid in [self.appliance.pid(), self.runner()?] {
            for name in ["environ", "cmdline", "comm", "status"] {
                let bytes = std::fs::read(format!("/proc/{pid}/{name}"))?;
                texts.push((Looked::Process, name.to_owned(), bytes));
            }
        }
        let seen = |looked| texts.iter().filter(|(l, ..)| *l == looked).count();
        let counts = [
            Looked::Files,
            Looked::Log,
            Looked::Transcript,
            Looked::Operator,
        ]
        .map(seen);
        crate::say(&format!(
            "files, logs, lines of clients, answers to operators: {counts:?}"
        ));
        if counts.contains(&0) {
            return Err("one of them has nothing to look at".into());
        }
        Ok(texts)
    }
}

fn files(folder: &Path, texts: &mut Vec<(Looked, String, Vec<u8>)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        if kind.is_dir() {
            files(&path, texts)?;
        } else if kind.is_file() {
            let log = path.file_name().is_some_and(|name| name == "log");
            let looked = if log { Looked::Log } else { Looked::Files };
            texts.push((looked, path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !done()? {
        if since.elapsed() > GIVE_UP {
            return Err(format!("gave up waiting for {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}
