//! One appliance in a folder of its own: a real mcpistd, in dev mode or as a service, driven over its real sockets.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use mcpist_bundle::root::{Delegation, Keys};
use mcpist_bundle::{BuildOptions, Role, Root, RootParts, SigningKey};
use mcpist_core::change::approval_message;
use mcpist_core::ids::{BundleName, Digest, Namespace, SiteId};
use mcpist_quorum::Identity;
use mcpist_secret::Secret;
use mcpist_secret::frame::Ticket;
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::look::{self, PATIENCE};
use crate::programs::{program, workspace};
use crate::start::Start;

/// The site of every test.
const SITE: &str = "test-site";

/// A running appliance. Its process is killed and its folder removed when dropped.
pub struct Appliance {
    folder: tempfile::TempDir,
    desk: Desk,
    start: Start,
    daemon: Child,
    shares: Vec<Secret>,
    keys: [SigningKey; 2],
    sequence: u64,
}

impl Appliance {
    /// Starts a blank appliance with the listeners `ada.sock` and `bob.sock`.
    ///
    /// # Panics
    /// When it does not start; so do all methods where the appliance does not answer at all.
    pub fn start() -> Appliance {
        Appliance::start_with(program("mcpistd"))
    }

    /// Starts a blank appliance of another build.
    pub fn start_with(program: &Path) -> Appliance {
        Appliance::start_by(Start::dev(program))
    }

    /// Starts a blank appliance in the way that `start` says.
    pub fn start_by(start: Start) -> Appliance {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = [(); 2].map(|()| SigningKey::generate().expect("a key"));
        start.furnish(folder.path());
        let daemon = start.launch(folder.path());
        let mut appliance = Appliance {
            desk: Desk::of(folder.path()),
            folder,
            start,
            daemon,
            shares: Vec::new(),
            keys,
            sequence: 0,
        };
        appliance.wait();
        appliance
    }

    /// Kills the daemon with SIGKILL and starts it again: sealed.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("ours to kill");
        self.daemon.wait().expect("it was killed");
    }

    /// Ends the daemon in order, with SIGTERM.
    pub fn stop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).expect("a pid");
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("ours to end");
        self.daemon.wait().expect("it was told to end");
    }

    /// Starts the daemon again after [`Appliance::kill`] or [`Appliance::stop`]: sealed.
    pub fn restart(&mut self) {
        self.daemon = self.start.launch(self.folder.path());
        self.wait();
    }

    /// Waits for the admin socket to answer. One that was passed takes connections before there is a daemon.
    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket("admin")).is_err() {
            if let Some(status) = self.daemon.try_wait().expect("ours to wait for") {
                panic!("mcpistd ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "no admin socket: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ask("GET", "/v1/status", None);
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the daemon and its runner wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until `reached`; gives up with the log, in which `what` stands in front.
    pub fn until(&self, what: &str, reached: impl FnMut() -> bool) {
        look::until(what, || self.log(), reached);
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The process ids of the daemon's children: its runner.
    pub fn runner_pids(&self) -> Vec<u32> {
        let pid = self.pid();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a live process");
        let mut children = Vec::new();
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(
                text.split_ascii_whitespace()
                    .filter_map(|p| p.parse::<u32>().ok()),
            );
        }
        children
    }

    /// The path of its socket `name`: a listener's, `admin` or `secret`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.desk.socket(name)
    }

    /// One admin request: the status and the JSON of the answer.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.desk.admin(method, path, body).expect("an answer")
    }

    /// An admin request that must succeed: its data.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.admin(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["data"].clone()
    }

    /// A ticket for `purpose`.
    pub fn ticket(&self, purpose: &Value) -> Ticket {
        self.desk.ticket(purpose).expect("a ticket")
    }

    /// Brings a secret under a ticket and gives the line that comes back.
    pub fn bring(&self, ticket: &Ticket, payload: &Secret) -> Value {
        self.desk.bring(ticket, payload).expect("an answer")
    }

    /// Makes the store: 2 of 3.
    pub fn init(&mut self) {
        let identities: Vec<Identity> = (0..3).map(|_| Identity::generate()).collect();
        // A service needs two officers; a development store has one of its own.
        let officers: Vec<Value> = match self.start.is_dev() {
            true => Vec::new(),
            false => (self.keys.iter().zip(["one", "two"]))
                .map(|(key, name)| json!({ "name": name, "public": key.public() }))
                .collect(),
        };
        let request = json!({ "threshold": 2, "root": self.root_text(), "officers": officers, "dev": self.start.is_dev() });
        let (shares, record) = self.desk.init(request, &identities).expect("a store");
        self.shares = shares;
        std::fs::write(self.folder.path().join("ceremony-record"), record).expect("a file");
    }

    /// The trust root in base64, as `POST /v1/init` takes it.
    pub fn root_text(&self) -> String {
        base64(&self.root())
    }

    /// The trust root, as a file.
    pub fn root(&self) -> Vec<u8> {
        let public: Vec<_> = self.keys.iter().map(SigningKey::public).collect();
        let keys = |threshold| Keys {
            threshold,
            keys: public.clone(),
        };
        let namespace = Namespace::parse("acme").expect("a name");
        let root = Root::new(RootParts {
            version: 1,
            site: SiteId::parse(SITE).expect("a name"),
            publisher: keys(2),
            root: keys(1),
            revoke: keys(1),
            namespaces: vec![Delegation {
                namespace,
                keys: public.clone(),
            }],
        });
        root.expect("a root").to_bytes().expect("JSON")
    }

    /// Share `number`, from 1.
    pub fn share(&self, number: usize) -> Secret {
        Secret::copy_of(self.shares[number - 1].expose()).expect("memory")
    }

    /// Gives one share's text under the open plan.
    pub fn give(&self, text: &Secret) -> Value {
        self.desk.give(text).expect("an answer")
    }

    /// Unseals with shares 1 and 2.
    pub fn unseal(&self) {
        assert!(self.give(&self.share(1))["share"]["pending"].is_object());
        let opened = self.give(&self.share(2));
        assert!(opened["share"]["opened"].is_object(), "{opened}");
    }

    /// A signed bundle of the module folder `folder`, of the next sequence.
    pub fn bundle(&mut self, folder: &Path) -> Vec<u8> {
        self.bundle_with(folder, |_| ())
    }

    /// The same with what `edit` makes of its options.
    pub fn bundle_with(&mut self, folder: &Path, edit: impl FnOnce(&mut BuildOptions)) -> Vec<u8> {
        self.sequence += 1;
        let mut options = BuildOptions {
            namespace: Namespace::parse("acme").expect("a name"),
            name: BundleName::parse("tests").expect("a name"),
            sequence: self.sequence,
            audience: vec![SiteId::parse(SITE).expect("a name")],
            created: 1_700_000_000,
            not_after: 4_000_000_000,
            notes: String::new(),
        };
        edit(&mut options);
        let plain = mcpist_bundle::build(&[folder.to_owned()], &options).expect("a bundle");
        self.keys.iter().fold(plain, |bundle, key| {
            mcpist_bundle::build::sign(&bundle, key, Role::Publisher).expect("a signature")
        })
    }

    /// Imports a bundle's bytes over a passed descriptor and gives the line that comes back.
    pub fn import(&self, bundle: &[u8]) -> Value {
        let passed = self.desk.pass(&json!("import"), bundle);
        passed.expect("an answer")
    }

    /// Proposes a change and has it approved: by the development key, or by both officers of a service.
    pub fn change(&self, change: &Value) -> Value {
        let proposed = self.ask("POST", "/v1/changes", Some(&json!({ "change": change })));
        let review = &proposed["review"];
        let digest = review["change"].as_str().expect("a digest");
        let path = format!("/v1/changes/{digest}/approvals");
        if self.start.is_dev() {
            return self.ask("POST", &path, Some(&json!("dev")));
        }
        let parse = |name: &str| Digest::parse(review[name].as_str().expect("a digest"));
        let message = approval_message(
            &parse("change").expect("a digest"),
            &parse("state").expect("a digest"),
        );
        let needed = review["needs"].as_u64().expect("a number");
        let mut outcome = Value::Null;
        for (key, _) in self.keys.iter().zip(0..needed) {
            let signature = hex(&key.sign(&message).expect("a signature"));
            let approval = json!({ "officer": key.id(), "change": digest, "state": review["state"], "signature": signature });
            outcome = self.ask("POST", &path, Some(&json!({ "approval": approval })));
        }
        assert!(outcome["stored"].is_object(), "{outcome}");
        outcome
    }

    /// Stores a credential in the vault `main`.
    pub fn put_credential(&self, name: &str, kind: &str, secret: &str) -> Value {
        let purpose = json!({ "credential": { "vault": "main", "name": name, "kind": kind, "hosts": ["127.0.0.1"] } });
        let ticket = self.ticket(&purpose);
        self.bring(
            &ticket,
            &Secret::copy_of(secret.as_bytes()).expect("memory"),
        )
    }

    /// Everything up to a first call: store, vault, credential, principals, the echo module bound to `port`, and a
    /// grant of all its tools to ada. Bob has none.
    pub fn set_up(&mut self, port: u16, secret: &str) {
        self.init();
        self.unseal();
        self.ask("POST", "/v1/vaults", Some(&json!({ "name": "main" })));
        let stored = self.put_credential("token", "bearer", secret);
        assert_eq!(stored["credential"]["version"], 1, "{stored}");
        for (name, uid) in [("ada", Start::UID), ("bob", Start::UID + 1)] {
            let rules = json!([{ "uid": uid }]);
            self.change(&json!({ "principal-put": { "name": name, "rules": rules } }));
        }
        let bundle = self.bundle(&workspace().join("tests/fixtures/echo"));
        let imported = self.import(&bundle);
        let registry = imported["import"]["registry"]["id"]
            .as_str()
            .expect("a registry")
            .to_owned();
        self.change(&json!({ "binding-put": {
            "name": "service", "vault": "main", "credential": "token", "scheme": "http", "host": "127.0.0.1",
            "port": port, "path_prefix": "/api", "methods": ["GET", "POST"], "trust": "none", "inject": "bearer",
            "allow_local": true } }));
        self.change(&json!({ "join-put": {
            "registry": registry, "module": "echo", "slot": "service", "binding": "service" } }));
        self.change(&json!({ "registry-activate": registry }));
        self.change(&json!({ "grant-put": {
            "name": "ada-echo", "subject": { "principal": "ada" }, "module": { "named": "echo" }, "tools": "all",
            "access": "write" } }));
    }

    /// A client of the listener `name`.
    pub fn client(&self, name: &str) -> Client {
        let stream = UnixStream::connect(self.socket(name)).expect("an MCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let reader = BufReader::new(stream.try_clone().expect("a clone"));
        Client {
            stream,
            reader,
            id: 0,
            transcript: Vec::new(),
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // SIGTERM first, so that the runner ends with its daemon; a daemon that is gone already is as well.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.daemon.id()).unwrap_or(0));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    serde_json::to_value(mcpist_core::api::Base64(bytes.to_vec()))
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .expect("text")
}

/// An MCP client that speaks the stateless revision line by line.
pub struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    id: u64,
    /// Every line that was sent or came.
    pub transcript: Vec<String>,
}

impl Client {
    /// Sends a line as it is.
    ///
    /// # Panics
    /// When the connection is gone, as do all methods.
    pub fn send(&mut self, line: &str) {
        self.transcript.push(line.to_owned());
        self.stream.write_all(line.as_bytes()).expect("a line");
        self.stream.write_all(b"\n").expect("a line");
    }

    /// The next line.
    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        self.transcript.push(line.clone());
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    /// One request of the stateless revision, and its result or error.
    pub fn request(&mut self, method: &str, mut params: Value) -> Value {
        self.id += 1;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        self.send(
            &json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params })
                .to_string(),
        );
        self.receive()
    }

    /// Calls a tool of a module; gives the result.
    pub fn call(&mut self, module: &str, tool: &str, arguments: &Value) -> Value {
        let arguments = json!({ "module": module, "tool_name": tool, "arguments": arguments });
        self.request(
            "tools/call",
            json!({ "name": "call_module_tool", "arguments": arguments }),
        )["result"]
            .clone()
    }

    /// The page of `get_module_schema`.
    pub fn schema(&mut self, query: &Value) -> Value {
        self.request(
            "tools/call",
            json!({ "name": "get_module_schema", "arguments": query }),
        )["result"]
            .clone()
    }
}
