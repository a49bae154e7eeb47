//! One run's appliance: a copy of a template's state, and a daemon whose disk may fail on order.
//!
//! Owns the template, which every run of a scenario begins with, and the copy. Promises that a daemon which is gone is
//! met as [`Trouble::Gone`] and ends no run. Does not judge.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::desk::{Desk, Trouble};
use mcpist_tests::look::PATIENCE;
use mcpist_tests::start::Start;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::damage::Damaged;
use crate::{Result, canaries, own_quorum};

/// What a request came to.
pub(crate) type Done = std::result::Result<Value, Trouble>;

/// How `program` is started in every run.
fn start(program: &Path) -> Start {
    Start::dev(program).with_config("[audit]\nrotate-mib = 1\n")
}

/// What the runs of a scenario begin with: a state folder that no process has open, and what is known of it.
pub(crate) struct Template {
    pub(crate) appliance: Appliance,
    program: PathBuf,
    /// A backup, where the scenario has one.
    pub(crate) backup: Vec<u8>,
    /// A bundle that is not imported.
    pub(crate) bundle: Vec<u8>,
    /// The registry of another bundle, imported and not active.
    pub(crate) registry: String,
    /// The shares of a vault that has a quorum of its own, where the scenario begins with one.
    pub(crate) own: Vec<Secret>,
    /// The vault whose file is damaged before, where the scenario begins with one.
    pub(crate) damaged: Option<Damaged>,
    /// The store was made.
    pub(crate) made: bool,
}

impl Template {
    /// A blank appliance, or with `made` one with a vault, a credential, principals, an active registry and another one.
    pub(crate) fn make(program: &Path, made: bool, prepare: fn(&mut Template)) -> Template {
        let mut template = Template {
            appliance: Appliance::start_by(start(program)),
            program: program.to_owned(),
            backup: Vec::new(),
            bundle: Vec::new(),
            registry: String::new(),
            own: Vec::new(),
            damaged: None,
            made,
        };
        if made {
            template.furnish();
            prepare(&mut template);
            template.appliance.ask("POST", "/v1/seal", None);
        }
        let folder = template.appliance.folder().to_owned();
        if let Some(damaged) = &mut template.damaged {
            let struck = damaged.strike(&folder);
            struck.unwrap_or_else(|e| panic!("no vault is damaged: {e}"));
        }
        template.appliance.stop();
        template
    }

    fn furnish(&mut self) {
        let echo = mcpist_tests::programs::workspace().join("tests/fixtures/echo");
        // No call is made: nothing listens there.
        self.appliance.set_up(9, crate::CREDENTIAL);
        let bundle = self.appliance.bundle(&echo);
        let imported = self.appliance.import(&bundle);
        let id = imported["import"]["registry"]["id"].as_str();
        self.registry = id.expect("a registry").to_owned();
        self.bundle = self.appliance.bundle(&echo);
    }

    fn shares(&self) -> Vec<Secret> {
        let numbers = (1..=3).filter(|_| self.made);
        numbers.map(|n| self.appliance.share(n)).collect()
    }

    fn own_quorums(&self) -> Result<Vec<Vec<Secret>>> {
        let copies = self.own.iter().map(|share| Secret::copy_of(share.expose()));
        let shares = copies.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Vec::from_iter((!shares.is_empty()).then_some(shares)))
    }
}

/// The appliance of one run.
pub(crate) struct Site<'t> {
    folder: tempfile::TempDir,
    daemon: Child,
    pub(crate) desk: Desk,
    pub(crate) template: &'t Template,
    /// The shares of every quorum that came out of a ceremony, the newest last.
    pub(crate) quorums: RefCell<Vec<Vec<Secret>>>,
    /// The same of the vault that has a quorum of its own.
    pub(crate) own: RefCell<Vec<Vec<Secret>>>,
    /// Those that have opened the store, and that vault.
    opened_by: Cell<(usize, usize)>,
}

impl<'t> Site<'t> {
    /// Starts a daemon under `order` (`MCPIST_FAULTS`) on a copy of the template.
    pub(crate) fn begin(template: &'t Template, order: &str) -> Result<Site<'t>> {
        let folder = tempfile::tempdir()?;
        let start = start(&template.program);
        start.furnish(folder.path());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(template.appliance.folder().join("state/."))
            .arg(folder.path().join("state"))
            .status()?;
        if !copied.success() {
            return Err("the template could not be copied".into());
        }
        let order = format!("MCPIST_FAULTS={order}");
        let daemon = start.behind(&["env", &order]).launch(folder.path());
        Ok(Site {
            desk: Desk::of(folder.path()),
            folder,
            daemon,
            template,
            quorums: RefCell::new(Vec::from_iter([template.shares()])),
            own: RefCell::new(template.own_quorums()?),
            opened_by: Cell::new((0, 0)),
        })
    }

    /// Starts a daemon whose disk is sound on the same folder, after [`Site::end`].
    pub(crate) fn resume(&mut self) {
        self.daemon = start(&self.template.program).launch(self.folder.path());
    }

    /// Waits until the daemon answers; `false` where it ended instead.
    pub(crate) fn is_up(&mut self) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.desk.ask("GET", "/v1/status", None) {
                Ok(_) => return Ok(true),
                Err(Trouble::Refused(said)) => return Err(said.to_string().into()),
                Err(Trouble::Gone(_)) if self.daemon.try_wait()?.is_some() => return Ok(false),
                Err(Trouble::Gone(_)) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        Err("the daemon neither answers nor ends".into())
    }

    /// Ends the daemon in order where it still runs; whether SIGKILL ended it.
    pub(crate) fn end(&mut self) -> Result<bool> {
        if self.daemon.try_wait()?.is_none() {
            kill(
                Pid::from_raw(i32::try_from(self.daemon.id())?),
                Signal::SIGTERM,
            )?;
        }
        Ok(self.daemon.wait()?.signal() == Some(Signal::SIGKILL as i32))
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The folder of the log: `audit`, and after a restore one of the store's new life.
    pub(crate) fn log_folder(&self) -> Result<PathBuf> {
        let state = std::fs::read_dir(self.path("state"))?;
        let mut folders = state.flatten().map(|entry| entry.path());
        let is_later = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("audit-")
        };
        Ok(folders
            .find(is_later)
            .unwrap_or_else(|| self.path("state/audit")))
    }

    /// What the daemons of this run logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Unseals with the newest quorum that the store takes, and so the vault that waits for its own; gives what the
    /// store's last share was answered.
    pub(crate) fn unseal(&self) -> Done {
        let mut said = Value::Null;
        for (number, quorum) in self.quorums.borrow().iter().enumerate().rev() {
            for share in quorum.iter().take(2) {
                said = self.desk.give(share)?;
                if said["share"]["opened"].is_object() {
                    let opened = said["share"]["opened"].take();
                    let waits = opened["sealed"].as_array().is_some_and(|s| !s.is_empty());
                    let own = if waits { own_quorum::unseal(self)? } else { 0 };
                    self.opened_by.set((number, own));
                    return Ok(opened);
                }
            }
        }
        Err(Trouble::Refused(said))
    }

    /// No file of the run holds a credential or what its quorums have, nor does `answered`, the template's log or the backup.
    pub(crate) fn holds_no_secret(&self, answered: &str) -> Result<()> {
        let credentials = [crate::CREDENTIAL, crate::CANARY, crate::NEXT];
        let (quorums, own) = (self.quorums.borrow(), self.own.borrow());
        let quorums = quorums.iter().chain(own.iter()).map(Vec::as_slice);
        let log = std::fs::read(self.template.appliance.folder().join("log"))?;
        let others = [
            ("an answer", answered.as_bytes()),
            ("the log of before", &log),
            ("the backup", &self.template.backup),
        ];
        canaries::are_nowhere(&credentials, quorums, self.folder.path(), &others)
    }

    /// Puts a credential into the vault `main`.
    pub(crate) fn put(&self, name: &str, secret: &str) -> Done {
        self.put_into("main", name, secret)
    }

    /// Puts a credential into a vault.
    pub(crate) fn put_into(&self, vault: &str, name: &str, secret: &str) -> Done {
        put(&self.desk, vault, name, secret)
    }

    /// Proposes a change and approves it with the development key.
    pub(crate) fn change(&self, change: &Value) -> Done {
        let change = json!({ "change": change });
        let proposed = self.desk.ask("POST", "/v1/changes", Some(&change))?;
        let digest = proposed["review"]["change"].as_str().unwrap_or_default();
        let path = format!("/v1/changes/{digest}/approvals");
        self.desk.ask("POST", &path, Some(&json!("dev")))
    }

    /// What stands in the store, without what differs from run to run.
    pub(crate) fn view(&self) -> Done {
        let mut view = json!({});
        for list in [
            "vaults",
            "principals",
            "grants",
            "bindings",
            "joins",
            "registries",
        ] {
            view[list] = self.desk.ask("GET", &format!("/v1/{list}"), None)?;
        }
        let main = self.desk.ask("GET", "/v1/vaults/main/credentials", None);
        view["main"] = match main {
            Err(Trouble::Refused(mut error)) if error["code"] == "vault_quarantined" => {
                error["code"].take()
            }
            shown => shown?,
        };
        if view["vaults"].to_string().contains(own_quorum::OWN) {
            let path = format!("/v1/vaults/{}/credentials", own_quorum::OWN);
            view["own"] = self.desk.ask("GET", &path, None)?;
        }
        strip(&mut view);
        let status = self.desk.ask("GET", "/v1/status", None)?;
        view["backed up"] = status["backup"].is_object().into();
        view["quorum"] = json!(self.opened_by.get());
        Ok(view)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Puts a credential into a vault.
pub(crate) fn put(desk: &Desk, vault: &str, name: &str, secret: &str) -> Done {
    let of = json!({ "vault": vault, "name": name, "kind": "bearer", "hosts": ["127.0.0.1"] });
    let ticket = desk.ticket(&json!({ "credential": of }))?;
    let secret = Secret::copy_of(secret.as_bytes()).map_err(std::io::Error::other)?;
    said(desk.bring(&ticket, &secret)?)
}

/// The line of the secret socket, as a refusal where it is one.
pub(crate) fn said(mut line: Value) -> Done {
    match line["error"].take() {
        Value::Null => Ok(line),
        error => Err(Trouble::Refused(error)),
    }
}

/// Takes out what says when, and what a lucky or an unlucky run may both say.
fn strip(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.iter_mut().for_each(strip);
            // Under other keys a list has another order.
            list.sort_by_key(Value::to_string);
        }
        Value::Object(members) => {
            for volatile in [
                "records",
                "created",
                "generation",
                "last_write_missing",
                "imported",
                "since",
            ] {
                members.remove(volatile);
            }
            members.values_mut().for_each(strip);
        }
        _ => {}
    }
}
