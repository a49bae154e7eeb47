//! `dev`: a development site that stays in a folder, and a module that is rebuilt, signed and activated on each save.
//!
//! Promises that what was stored stays from one run to the next, and that a save which does not build leaves the module
//! that serves in place. Promises no secrecy: the one share and its identity stand beside the store, and the command
//! says so.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use mcpist_bundle::root::{Delegation, Keys};
use mcpist_bundle::{BuildOptions, Root, RootParts, SigningKey};
use mcpist_core::access::Access;
use mcpist_core::api::{
    Base64, InitRequest, Joins, NewHolder, NewOfficer, Principals, Registries, Registry,
    RegistryState, ShareOutcome, Status, StoreState, Vaults, path,
};
use mcpist_core::binding::Join;
use mcpist_core::change::Change;
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::{
    BundleName, GrantName, IdError, ModuleName, Namespace, PrincipalName, RegistryId, SiteId,
    VaultName,
};
use mcpist_core::principal::PrincipalRecord;
use mcpist_quorum::Identity;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::host::{Daemon, show_init_token};
use crate::share::{share_of, write_shares};
use crate::{Context, bundle, change, init, secret, unseal, vault};

const NAME: &str = "dev";
const PUBLISHER: &str = "publisher.key";
const OFFICER: &str = "officer.key";
/// The folder of the one share, its identity and the ceremony record.
const SHARE: &str = "dev-share";
/// Between two looks at the module's files.
const WATCH: Duration = Duration::from_millis(500);
const YEAR: u64 = 365 * 86_400;
const MAX_FILE: u64 = 64 * 1024;

/// Run a development site in a folder, and rebuild a module on each save
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist dev                                   a site in ./mcpist-dev
  mcpist dev --module prometheus/              rebuilds, signs, imports and activates on each save
  mcpist dev site-b --module wiki/

Not for real credentials: the share that opens this store is kept beside it.")]
pub(crate) struct DevArgs {
    /// The site's folder; made if it is not there
    #[arg(default_value = "mcpist-dev")]
    folder: PathBuf,
    /// A module folder to build and watch
    #[arg(long, value_name = "DIR")]
    module: Option<PathBuf>,
}

/// The two keys that sign here.
struct Signers {
    publisher: SigningKey,
    officer: SigningKey,
}

#[derive(Serialize)]
struct Running {
    folder: PathBuf,
    run: PathBuf,
    mcp: PathBuf,
}

pub(crate) async fn run(context: &Context, args: DevArgs) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|e| Error::file(&args.folder, e))?;
    let folder = args
        .folder
        .canonicalize()
        .map_err(|e| Error::file(&args.folder, e))?;
    let mut daemon = Daemon::start(&folder, &[NAME]).await?;
    let context = Context {
        client: daemon.client().clone(),
        out: context.out,
    };
    let signers = open(&context, &folder).await?;
    let running = Running {
        run: folder.join("run"),
        mcp: folder.join("run/dev.sock"),
        folder,
    };
    context.out.data(&running, |r| {
        format!(
            "A development site runs in {}. Its share is kept there too: not for real credentials.\n  \
             manage   mcpist --run {} status\n  client   mcpist connect --mcp {}\nCtrl-C ends it.",
            r.folder.display(),
            r.run.display(),
            r.mcp.display()
        )
    })?;
    let outcome = watch(&context, &mut daemon, args.module.as_deref(), &signers).await;
    daemon.stop()?;
    outcome
}

/// Makes the store where there is none, and opens it. Gives the keys that sign here.
async fn open(context: &Context, folder: &Path) -> Result<Signers> {
    let mut status: Status = context.client.get(path::STATUS).await?;
    if status.state == StoreState::Uninitialised {
        initialise(context, folder).await?;
        status = context.client.get(path::STATUS).await?;
    }
    if status.state == StoreState::Sealed {
        let identity = Identity::parse(
            secret::read_secret_file(&folder.join(SHARE).join("identity"))?.expose(),
        )
        .map_err(|e| Error::new("identity", e))?;
        let share = share_of(
            &identity,
            &secret::read_file(&folder.join(SHARE).join("share-1-dev.age"), MAX_FILE)?,
        )?;
        let (_, digest, _) = unseal::unseal_plan(context).await?;
        let ShareOutcome::Opened(_) = unseal::give(context, digest, &share).await? else {
            return Err(Error::new(
                "dev",
                "the kept share does not open this store by itself",
            ));
        };
    }
    let signers = Signers {
        publisher: bundle::read_key(&folder.join(PUBLISHER))?,
        officer: bundle::read_key(&folder.join(OFFICER))?,
    };
    admit(context, &signers.officer).await?;
    Ok(signers)
}

async fn initialise(context: &Context, folder: &Path) -> Result<()> {
    let (publisher, officer) = (
        kept_key(&folder.join(PUBLISHER))?,
        kept_key(&folder.join(OFFICER))?,
    );
    let keys = || Keys {
        threshold: 1,
        keys: vec![publisher.public()],
    };
    let root = Root::new(RootParts {
        version: 1,
        site: name(SiteId::parse)?,
        publisher: keys(),
        root: keys(),
        revoke: keys(),
        namespaces: vec![Delegation {
            namespace: name(Namespace::parse)?,
            keys: keys().keys,
        }],
    })
    .and_then(|root| root.to_bytes())
    .map_err(|e| Error::new("root", e))?;
    let share = folder.join(SHARE);
    // What an init that was cut off has left opens no store.
    match std::fs::remove_dir_all(&share) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file(&share, e)),
        _ => {}
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&share)
        .map_err(|e| Error::file(&share, e))?;
    secret::create(&share.join("root.json"), 0o644, &root)?;
    let identity = Identity::generate();
    secret::create(&share.join("identity"), 0o600, identity.to_text()?.expose())?;
    show_init_token(&context.client, folder).await?;
    let holder = NewHolder {
        label: NAME.to_owned(),
        recipient: identity.recipient(),
    };
    let request = InitRequest {
        threshold: 1,
        holders: vec![holder],
        root: Base64(root),
        officers: vec![NewOfficer {
            name: "officer".to_owned(),
            public: officer.public(),
        }],
        dev: true,
    };
    let planned = init::plan_init(context, &request).await?;
    let done = init::confirm_init(context, planned.digest).await?;
    write_shares(&share, &done, |_| true).map(drop)
}

/// The key in this file, or a new one where there is none.
fn kept_key(file: &Path) -> Result<SigningKey> {
    if file.exists() {
        bundle::read_key(file)
    } else {
        bundle::keygen(file)
    }
}

/// One principal who may use everything, and one vault. The principal comes last, so that it is missing where this was
/// cut off.
async fn admit(context: &Context, officer: &SigningKey) -> Result<()> {
    let principal = name(PrincipalName::parse)?;
    let there: Principals = context.client.get(path::PRINCIPALS).await?;
    if there.principals.iter().any(|p| p.name == principal) {
        return Ok(());
    }
    let vault = name(VaultName::parse)?;
    let there: Vaults = context.client.get(path::VAULTS).await?;
    if !there.vaults.iter().any(|v| v.name == vault) {
        vault::create_vault(context, vault).await?;
    }
    let record = PrincipalRecord {
        name: principal.clone(),
        groups: Vec::new(),
        rules: Vec::new(),
    };
    let grant = Grant {
        name: name(GrantName::parse)?,
        subject: Subject::Principal(principal),
        module: ModuleSel::All,
        tools: ToolSel::All,
        access: Access::Destructive,
    };
    change::store(context, Change::GrantPut(grant), officer).await?;
    change::store(context, Change::PrincipalPut(record), officer)
        .await
        .map(drop)
}

/// Publishes the module at each change of its files, until a signal or the daemon's end.
async fn watch(
    context: &Context,
    daemon: &mut Daemon,
    module: Option<&Path>,
    signers: &Signers,
) -> Result<()> {
    let signals = |kind| signal(kind).map_err(Error::from);
    let (mut interrupt, mut terminate) = (
        signals(SignalKind::interrupt())?,
        signals(SignalKind::terminate())?,
    );
    let mut seen = None;
    loop {
        if daemon.ended()? {
            return Err(Error::new("daemon_failed", "mcpistd ended")
                .next("read mcpistd.log in the site's folder"));
        }
        if let Some(module) = module {
            let now = snapshot(module)?;
            if seen.as_ref() != Some(&now) {
                seen = Some(now);
                // A save that does not build is said, and the module before it goes on serving.
                match publish(context, module, signers).await {
                    Ok(id) => context.out.note(&format!(
                        "{} serves as registry {}",
                        module.display(),
                        id.short()
                    )),
                    Err(e) => context.out.note(&format!("error[{}]: {e}", e.code())),
                }
            }
        }
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

/// When each file below `folder` was changed last, and its length.
fn snapshot(folder: &Path) -> Result<BTreeMap<PathBuf, (SystemTime, u64)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let io = |e| Error::file(&folder, e);
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // An editor's temporary file may be gone by now.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), (meta.modified().map_err(io)?, meta.len()));
            }
        }
    }
    Ok(found)
}

/// Builds, signs, imports and activates; where its modules served before, their joins are carried over and that registry
/// is retired.
async fn publish(context: &Context, module: &Path, signers: &Signers) -> Result<RegistryId> {
    let registries: Registries = context.client.get(path::REGISTRIES).await?;
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let options = BuildOptions {
        namespace: name(Namespace::parse)?,
        name: name(BundleName::parse)?,
        sequence: registries
            .registries
            .iter()
            .map(|r| r.sequence)
            .max()
            .unwrap_or(0)
            + 1,
        audience: vec![name(SiteId::parse)?],
        created,
        not_after: created + YEAR,
        notes: String::new(),
    };
    let bytes = bundle::sign(
        &bundle::build(&[module.to_owned()], &options)?,
        &signers.publisher,
    )?;
    let scratch = bundle::Scratch::new()?;
    let file = scratch.0.join("module.bundle");
    secret::create(&file, 0o600, &bytes)?;
    let imported = secret::import(&context.client, &secret::open(&file)?)
        .await?
        .registry;
    let joins: Joins = context.client.get(path::JOINS).await?;
    for old in replaced(&registries.registries, &imported.modules) {
        for join in joins
            .joins
            .iter()
            .filter(|j| j.registry == old.id && imported.modules.contains(&j.module))
        {
            let carried = change::store(
                context,
                Change::JoinPut(Join {
                    registry: imported.id,
                    ..join.clone()
                }),
                &signers.officer,
            )
            .await;
            if let Err(e) = carried {
                context
                    .out
                    .note(&format!("slot {} was not carried over: {e}", join.slot));
            }
        }
        change::store(context, Change::RegistryRetire(old.id), &signers.officer).await?;
    }
    change::store(
        context,
        Change::RegistryActivate(imported.id),
        &signers.officer,
    )
    .await?;
    Ok(imported.id)
}

/// The registries that serve one of these modules.
fn replaced<'r>(
    registries: &'r [Registry],
    modules: &'r [ModuleName],
) -> impl Iterator<Item = &'r Registry> {
    registries.iter().filter(|old| {
        old.state == RegistryState::Active && old.modules.iter().any(|m| modules.contains(m))
    })
}

/// The one name that everything in a development site has.
fn name<T>(parse: impl FnOnce(&str) -> std::result::Result<T, IdError>) -> Result<T> {
    parse(NAME).map_err(|e| Error::new("internal", e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_module_takes_the_place_of_its_own_registry_and_of_no_other() {
        let registry = |digit: &str, modules: &[&str], state: &str| -> Registry {
            serde_json::from_value(serde_json::json!({
                "id": digit.repeat(64), "namespace": NAME, "name": NAME, "sequence": 1, "state": state,
                "modules": modules, "imported": 0 }))
            .unwrap()
        };
        let registries = [
            registry("1", &["prometheus"], "active"),
            registry("2", &["wiki"], "active"),
            registry("3", &["wiki"], "retired"),
            registry("4", &["files", "wiki"], "active"),
        ];
        let wiki = [ModuleName::parse("wiki").unwrap()];
        let places: Vec<_> = replaced(&registries, &wiki).map(|r| r.id).collect();
        assert_eq!(places, [registries[1].id, registries[3].id]);
    }

    #[test]
    fn a_saved_file_changes_the_snapshot_and_a_read_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("schemas")).unwrap();
        let file = folder.path().join("schemas/a.json");
        std::fs::write(&file, "{}").unwrap();
        let before = snapshot(folder.path()).unwrap();
        std::fs::read(&file).unwrap();
        assert_eq!(snapshot(folder.path()).unwrap(), before);
        std::fs::write(&file, "{ }").unwrap();
        assert_ne!(snapshot(folder.path()).unwrap(), before);
    }
}
