//! The demo's site and its steps.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mcpist_bundle::root::{Delegation, Keys};
use mcpist_bundle::{BuildOptions, Root, RootParts, SigningKey};
use mcpist_core::access::Access;
use mcpist_core::api::{
    AuditHead, Base64, Done, InitRequest, NewHolder, NewOfficer, Purpose, ShareOutcome, path,
};
use mcpist_core::binding::{
    Binding, BindingFields, HostName, Inject, Join, PathPrefix, Scheme, Trust,
};
use mcpist_core::change::Change;
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::http::Method;
use mcpist_core::ids::{
    BindingName, BundleName, CredentialName, GrantName, IdError, ModuleName, Namespace,
    PrincipalName, RegistryId, SiteId, SlotName, ToolName, VaultName,
};
use mcpist_core::principal::PrincipalRecord;
use mcpist_quorum::Identity;
use mcpist_secret::Secret;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Steps;
use super::search::{forms, search};
use super::service::Service;
use crate::error::{Error, Result};
use crate::host::{Daemon, show_init_token};
use crate::mcp::Exchange;
use crate::share::{share_of, write_shares};
use crate::{Context, audit, bundle, change, init, mcp, secret, tools, unseal, vault};

const SITE: &str = "demo";
const TOTAL: usize = 5;
const NEEDED: u8 = 3;
/// The longest wait for the runner to load what it was told to.
const LOADING: Duration = Duration::from_secs(20);
const MODULE: [(&str, &str); 3] = [
    ("module.toml", include_str!("plant/module.toml")),
    ("none.json", include_str!("plant/none.json")),
    ("set_valve.json", include_str!("plant/set_valve.json")),
];

/// Everything that a demo makes.
pub(crate) struct Site {
    folder: PathBuf,
    daemon: Daemon,
    context: Context,
    publishers: [SigningKey; 2],
    officer: SigningKey,
    root: Vec<u8>,
    identities: Vec<Identity>,
    shares: Vec<String>,
    record: Vec<u8>,
    registry: Option<RegistryId>,
    token: Secret,
    service: Option<Service>,
}

impl Site {
    /// Keys, root, and a daemon that runs without a store.
    pub(crate) async fn prepare(steps: &mut Steps, folder: PathBuf) -> Result<Site> {
        let mut made = None;
        steps
            .step("make throwaway keys", async {
                let key = |_| SigningKey::generate().map_err(|e| Error::new("key", e));
                let (publishers, officer) = ([key(0)?, key(1)?], key(2)?);
                let root = root(&publishers)?;
                let identities: Vec<_> = (0..TOTAL).map(|_| Identity::generate()).collect();
                made = Some((publishers, officer, root, identities));
                Ok(format!("two publisher keys, an officer key, a trust root for site {SITE:?} and {TOTAL} age identities, all throwaway"))
            })
            .await?;
        let mut started = None;
        steps
            .step("start mcpistd", async {
                let daemon = Daemon::start(&folder, &["ada", "bob"]).await?;
                let text = format!(
                    "mcpistd runs as process {} in {}, without a store",
                    daemon.pid(),
                    folder.display()
                );
                started = Some(daemon);
                Ok(text)
            })
            .await?;
        let (Some((publishers, officer, root, identities)), Some(daemon)) = (made, started) else {
            return Err(Error::new("internal", "a step made nothing"));
        };
        let context = Context {
            client: daemon.client().clone(),
            out: steps.out,
        };
        let token = Secret::copy_of(
            format!("demo-{}", hex::encode(mcpist_secret::random_bytes::<20>()?)).as_bytes(),
        )?;
        Ok(Site {
            folder,
            daemon,
            context,
            publishers,
            officer,
            root,
            identities,
            shares: Vec::new(),
            record: Vec::new(),
            registry: None,
            token,
            service: None,
        })
    }

    pub(crate) async fn initialise(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("init", async {
                show_init_token(&self.context.client, &self.folder).await?;
                let holder = |(index, identity): (usize, &Identity)| NewHolder {
                    label: format!("custodian-{}", index + 1),
                    recipient: identity.recipient(),
                };
                let request = InitRequest {
                    threshold: NEEDED,
                    holders: self.identities.iter().enumerate().map(holder).collect(),
                    root: Base64(self.root.clone()),
                    officers: vec![NewOfficer { name: "officer".to_owned(), public: self.officer.public() }],
                    dev: true,
                };
                let init::Planned { plan, digest, .. } = init::plan_init(&self.context, &request).await?;
                let done = init::confirm_init(&self.context, digest).await?;
                write_shares(&self.folder.join("shares"), &done, |_| true)?;
                self.record = done.record.0;
                self.shares = done.shares.into_iter().map(|s| s.age).collect();
                Ok(format!("a sealed store {}: {NEEDED} of {TOTAL} shares open it, each encrypted to its holder", plan.store()))
            })
            .await
    }

    /// Gives three of the five shares.
    pub(crate) async fn unseal(&mut self, steps: &mut Steps, which: [usize; 3]) -> Result<()> {
        steps
            .step("unseal", async {
                let (_, digest, _) = unseal::unseal_plan(&self.context).await?;
                let mut last = None;
                for index in which {
                    let (Some(identity), Some(file)) = (self.identities.get(index), self.shares.get(index)) else {
                        return Err(Error::new("internal", "no such share"));
                    };
                    let share = share_of(identity, file.as_bytes())?;
                    last = Some(unseal::give(&self.context, digest, &share).await?);
                }
                match last {
                    Some(ShareOutcome::Opened(found)) => {
                        let holders = which.map(|i| (i + 1).to_string()).join(", ");
                        Ok(format!("unsealed with {NEEDED} of {TOTAL} shares (custodians {holders}); {} records verified", found.records))
                    }
                    _ => Err(Error::new("demo", "three shares did not open the store")),
                }
            })
            .await
    }

    /// Builds, signs and imports the module.
    pub(crate) async fn publish(&mut self, steps: &mut Steps) -> Result<()> {
        let file = self.folder.join("plant.bundle");
        steps
            .step("build and sign a bundle", async {
                let module = self.folder.join("plant");
                std::fs::create_dir(&module).map_err(|e| Error::file(&module, e))?;
                for (name, text) in MODULE {
                    secret::create(&module.join(name), 0o644, text.as_bytes())?;
                }
                let created = now();
                let options = BuildOptions {
                    namespace: name(Namespace::parse, "demo")?,
                    name: name(BundleName::parse, "plant")?,
                    sequence: 1,
                    audience: vec![name(SiteId::parse, SITE)?],
                    created,
                    not_after: created + 86_400,
                    notes: "made by mcpist demo".to_owned(),
                };
                let mut bytes = bundle::build(&[module], &options)?;
                for key in &self.publishers {
                    bytes = bundle::sign(&bytes, key)?;
                }
                secret::create(&file, 0o644, &bytes)?;
                Ok(format!(
                    "module \"plant\" built into a bundle of {} bytes, signed by both publishers",
                    bytes.len()
                ))
            })
            .await?;
        steps
            .step("import the bundle", async {
                let imported = secret::import(&self.context.client, &secret::open(&file)?).await?;
                self.registry = Some(imported.registry.id);
                Ok(format!(
                    "imported as registry {}: both signatures, all digests and the audience hold",
                    imported.registry.id.short()
                ))
            })
            .await
    }

    /// Starts the service, stores its token and binds it.
    pub(crate) async fn connect_service(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("start the service", async {
                let service = Service::start(Secret::copy_of(self.token.expose())?).await?;
                let text = format!(
                    "a small HTTP service on {} that demands a bearer token",
                    service.address
                );
                self.service = Some(service);
                Ok(text)
            })
            .await?;
        let (vault, credential) = (
            name(VaultName::parse, "demo")?,
            name(CredentialName::parse, "plant")?,
        );
        steps
            .step("store the credential", async {
                vault::create_vault(&self.context, vault.clone()).await?;
                let purpose = Purpose::Credential {
                    vault: vault.clone(),
                    name: credential.clone(),
                    owner: None,
                    kind: "bearer".to_owned(),
                    hosts: vec!["127.0.0.1".to_owned()],
                    expiry: 0,
                };
                let stored = secret::credential(&self.context.client, purpose, &self.token).await?;
                Ok(format!(
                    "the token stands sealed as {}/{}, version {}",
                    stored.vault, stored.name, stored.version
                ))
            })
            .await?;
        let port = self.service.as_ref().map_or(0, |s| s.address.port());
        let registry = self.registry()?;
        steps
            .step("bind and activate", async {
                let binding = Binding::new(BindingFields {
                    name: name(BindingName::parse, "plant")?,
                    vault,
                    credential,
                    scheme: Scheme::Http,
                    host: name(HostName::parse, "127.0.0.1")?,
                    port,
                    path_prefix: name(PathPrefix::parse, "/api")?,
                    methods: vec![Method::Get, Method::Post],
                    trust: Trust::None,
                    inject: Inject::Bearer,
                    allow_local: true,
                })
                .map_err(Error::usage)?;
                let join = Join {
                    registry,
                    module: name(ModuleName::parse, "plant")?,
                    slot: name(SlotName::parse, "api")?,
                    binding: binding.name.clone(),
                };
                for change in [Change::BindingPut(Box::new(binding)), Change::JoinPut(join), Change::RegistryActivate(registry)] {
                    change::store(&self.context, change, &self.officer).await?;
                }
                Ok(format!("the module's slot is bound to http://127.0.0.1:{port}/api and nothing else; the registry serves"))
            })
            .await
    }

    /// Two principals with two masks.
    pub(crate) async fn admit(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("admit two principals", async {
                let module = name(ModuleName::parse, "plant")?;
                let grant = |who: &str, tools, access| {
                    Ok::<_, Error>(Grant {
                        name: name(GrantName::parse, who)?,
                        subject: Subject::Principal(name(PrincipalName::parse, who)?),
                        module: ModuleSel::Named(module.clone()),
                        tools,
                        access,
                    })
                };
                for who in ["ada", "bob"] {
                    let record = PrincipalRecord {
                        name: name(PrincipalName::parse, who)?,
                        groups: Vec::new(),
                        rules: Vec::new(),
                    };
                    change::store(&self.context, Change::PrincipalPut(record), &self.officer)
                        .await?;
                }
                let readings = ToolSel::Named(vec![name(ToolName::parse, "readings")?]);
                for grant in [
                    grant("ada", ToolSel::All, Access::Write)?,
                    grant("bob", readings, Access::Read)?,
                ] {
                    change::store(&self.context, Change::GrantPut(grant), &self.officer).await?;
                }
                self.daemon
                    .wait_until(
                        |s| s.runners.iter().any(|r| r.connected),
                        "its runner to connect",
                    )
                    .await?;
                Ok("ada may use all tools up to write, bob only \"readings\"".to_owned())
            })
            .await
    }

    /// Both call.
    pub(crate) async fn call(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("ada calls", async {
                let readings = tools::checked(self.ask("ada", "readings", "{}").await?.result()?)?;
                expect(&readings, "pump-1")?;
                let valve = tools::checked(self.ask("ada", "set_valve", r#"{"valve":"v1","open":true}"#).await?.result()?)?;
                expect(&valve, "v1")?;
                Ok("ada read two sensors and opened valve v1; the token went to the service, not to ada".to_owned())
            })
            .await?;
        steps
            .step("an answer is redacted", async {
                let echo = tools::checked(self.ask("ada", "echo", "{}").await?.result()?)?;
                expect(&echo, "[redacted]")?;
                Ok("a service that repeats the token in its answer is redacted: ada sees \"[redacted]\"".to_owned())
            })
            .await?;
        steps
            .step("bob calls", async {
                let readings = tools::checked(self.ask("bob", "readings", "{}").await?.result()?)?;
                expect(&readings, "pump-1")?;
                Ok("bob read the sensors as well".to_owned())
            })
            .await
    }

    /// What one sees the other does not.
    pub(crate) async fn hide(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("what is not granted does not exist", async {
                let (ada, bob) = (self.list("ada").await?, self.list("bob").await?);
                if ada != ["echo", "readings", "set_valve"] || bob != ["readings"] {
                    return Err(Error::new("demo", format!("ada sees {ada:?} and bob {bob:?}")));
                }
                let arguments = r#"{"valve":"v1","open":true}"#;
                let hidden = self.ask("bob", "set_valve", arguments).await?;
                let unknown = self.ask("bob", "no_such_tool", arguments).await?;
                if hidden.received != unknown.received || tools::checked(hidden.result()?).is_ok() {
                    return Err(Error::new("demo", "bob can tell a hidden tool from one that does not exist"));
                }
                Ok("bob's list holds one tool of three, and set_valve answers him like a tool that does not exist".to_owned())
            })
            .await
    }

    pub(crate) async fn search(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("search for the credential", async {
                let searched = search(&self.folder, &forms(self.token.expose()))?;
                if !searched.found.is_empty() {
                    return Err(Error::new(
                        "demo",
                        format!("the token stands in {}", searched.found.join(", ")),
                    ));
                }
                // A search that finds nothing anywhere would prove nothing.
                if search(&self.folder, &[b"pump-1".to_vec()])?
                    .found
                    .is_empty()
                {
                    return Err(Error::new(
                        "demo",
                        "the search does not even find a sensor's name",
                    ));
                }
                Ok(format!(
                    "the token is in none of {} files ({} KiB): store, log, audit, transcripts",
                    searched.files,
                    searched.bytes / 1024
                ))
            })
            .await
    }

    pub(crate) async fn verify_audit(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("verify the audit chain", async {
                let head: AuditHead = self.context.client.get(path::AUDIT_HEAD).await?;
                let files = audit::files(&[self.folder.join("state/audit")])?;
                let verdict =
                    audit::verify_files(&files, audit::first_key(&self.record)?, Some(head.head))?;
                match verdict.problem {
                    Some(problem) => Err(Error::new(
                        "demo",
                        format!("the audit chain does not hold: {problem}"),
                    )),
                    None => Ok(format!(
                        "the audit chain holds: {} lines from the ceremony's key to head {}",
                        verdict.lines,
                        head.head.short()
                    )),
                }
            })
            .await
    }

    pub(crate) async fn seal(&mut self, steps: &mut Steps) -> Result<()> {
        steps
            .step("seal", async {
                let Done {} = self.context.client.act(path::SEAL).await?;
                Ok("sealed: the keys are wiped".to_owned())
            })
            .await?;
        let before = self.service.as_ref().map(Service::counts);
        steps
            .step("a call is refused", async {
                let refused = self.ask("ada", "readings", "{}").await?.result().and_then(tools::checked);
                match refused {
                    Err(e) if e.code() == "sealed" => {}
                    Err(e) => return Err(e.during("refused, but not as sealed")),
                    Ok(_) => return Err(Error::new("demo", "a sealed store served a call")),
                }
                let after = self.service.as_ref().map(Service::counts);
                match (before, after) {
                    (Some((served, 0)), Some((same, 0))) if served == same => {
                        Ok(format!("ada's next call is refused; the service saw {served} requests, all with the token"))
                    }
                    other => Err(Error::new("demo", format!("the service's counts are {other:?}"))),
                }
            })
            .await
    }

    /// How a client connects, for `--keep`.
    pub(crate) fn how_to_connect(&self) -> Result<String> {
        let own = std::env::current_exe()?;
        let socket = |who: &str| self.context.client.socket(&format!("{who}.sock"));
        let (ada, bob) = (socket("ada"), socket("bob"));
        let config =
            json!({"mcpServers": {"demo": {"command": own, "args": ["connect", "--mcp", ada]}}});
        Ok(format!(
            "\nRunning until Ctrl-C.\n  as ada   {own} tools --mcp {ada}\n           {own} call plant readings --mcp {ada}\n  as bob   {own} tools --mcp {bob}\n  status   {own} status --run {run}\n  client   {config}",
            own = own.display(),
            ada = ada.display(),
            bob = bob.display(),
            run = self.folder.join("run").display(),
        ))
    }

    /// Ends what runs.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.daemon.stop()
    }

    fn registry(&self) -> Result<RegistryId> {
        self.registry
            .ok_or_else(|| Error::new("internal", "nothing was imported"))
    }

    /// One call, kept in the transcript. Repeated while the runner still loads what it was told to.
    async fn ask(&self, who: &str, tool: &str, arguments: &str) -> Result<Exchange> {
        let arguments =
            RawValue::from_string(arguments.to_owned()).map_err(|e| Error::new("internal", e))?;
        let socket = self.context.client.socket(&format!("{who}.sock"));
        let started = Instant::now();
        loop {
            let exchange = mcp::call(&socket, "plant", tool, &arguments).await?;
            self.keep(who, &exchange)?;
            let outcome = exchange.result().and_then(tools::checked);
            let loading = matches!(&outcome, Err(e) if e.code() == "not_loaded");
            if !loading || started.elapsed() > LOADING {
                return Ok(exchange);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The names of the tools that a principal sees, in order.
    async fn list(&self, who: &str) -> Result<Vec<String>> {
        let exchange = mcp::schema(
            &self.context.client.socket(&format!("{who}.sock")),
            json!({"detail": "names"}),
        )
        .await?;
        self.keep(who, &exchange)?;
        let result = tools::checked(exchange.result()?)?;
        let tools = result["structuredContent"]["tools"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut names: Vec<_> = tools
            .iter()
            .filter_map(|t| t["tool_name"].as_str())
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    fn keep(&self, who: &str, exchange: &Exchange) -> Result<()> {
        let path = self.folder.join(format!("transcript-{who}.jsonl"));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path);
        let mut file = file.map_err(|e| Error::file(&path, e))?;
        writeln!(file, "{}\n{}", exchange.sent, exchange.received)
            .map_err(|e| Error::file(&path, e))
    }
}

fn root(publishers: &[SigningKey; 2]) -> Result<Vec<u8>> {
    let keys = || {
        publishers
            .iter()
            .map(SigningKey::public)
            .collect::<Vec<_>>()
    };
    let role = |threshold| Keys {
        threshold,
        keys: keys(),
    };
    Root::new(RootParts {
        version: 1,
        site: name(SiteId::parse, SITE)?,
        publisher: role(2),
        root: role(1),
        revoke: role(1),
        namespaces: vec![Delegation {
            namespace: name(Namespace::parse, "demo")?,
            keys: keys(),
        }],
    })
    .and_then(|root| root.to_bytes())
    .map_err(|e| Error::new("root", e))
}

/// A fixed name, parsed.
fn name<T>(parse: impl FnOnce(&str) -> std::result::Result<T, IdError>, text: &str) -> Result<T> {
    parse(text).map_err(|e| Error::new("internal", e))
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

fn expect(result: &Value, text: &str) -> Result<()> {
    let shown = result.to_string();
    if shown.contains(text) {
        Ok(())
    } else {
        Err(Error::new(
            "demo",
            format!(
                "{text:?} is not in the answer: {}",
                mcpist_core::text::excerpt(&shown, 400)
            ),
        ))
    }
}
