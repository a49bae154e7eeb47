//! `principal`, `grant`, `binding`, `join`, `registry`, `change` and `mask`: what officers decide.
//!
//! Every change takes one way: it is proposed, the review is shown, and it is approved by an officer's key over the
//! digests that this program computed, or by the store's own key where the store is a development store. Promises that
//! an officer's signature is made over a change that was shown.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mcpist_bundle::SigningKey;
use mcpist_core::access::Access;
use mcpist_core::api::{
    Approve, Bindings, ChangeOutcome, ExplainMask, Grants, Joins, Principals, ProposeChange,
    Proposed, Registries, Status, path,
};
use mcpist_core::binding::{
    Binding, BindingFields, HostName, Inject, Join, PathPrefix, Scheme, Trust,
};
use mcpist_core::change::{Approval, Change, Signature, approval_message};
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::http::Method;
use mcpist_core::ids::{
    BindingName, CredentialName, Digest, GrantName, GroupName, ModuleName, PrincipalName,
    RegistryId, SlotName, ToolName, VaultName,
};
use mcpist_core::mask::Explanation;
use mcpist_core::principal::{IdentityRule, PrincipalRecord};

use crate::bundle::read_key;
use crate::error::{Error, Result};
use crate::output::table;
use crate::{Context, secret};

const MAX_FILE: u64 = 1 << 20;

/// How a change is approved.
#[derive(Args, Clone, Default)]
pub(crate) struct ApproveArgs {
    /// Approve with this officer key; not needed in a development store
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the proposal to this file, for another officer's 'mcpist change approve'
    #[arg(long, value_name = "FILE")]
    proposal: Option<PathBuf>,
}

/// What a change came to.
#[derive(serde::Serialize)]
struct Outcome {
    proposed: Proposed,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<ChangeOutcome>,
}

/// Proposes a change and approves it, as far as one caller can.
async fn decide(context: &Context, change: Change, args: &ApproveArgs) -> Result<()> {
    let proposed = propose(context, change).await?;
    if let Some(file) = &args.proposal {
        let json = serde_json::to_vec_pretty(&proposed).map_err(|e| Error::new("internal", e))?;
        secret::create(file, 0o644, &json)?;
    }
    let status: Status = context.client.get(path::STATUS).await?;
    let approve = match &args.key {
        Some(key) => Some(sign(&proposed, &read_key(key)?)?),
        None if status.dev => Some(Approve::Dev),
        None => None,
    };
    let outcome = match approve {
        Some(approve) => Some(approve_change(context, &proposed, &approve).await?),
        None => None,
    };
    context
        .out
        .data(&Outcome { proposed, outcome }, show_outcome)
}

/// Proposes a change, and checks that the daemon understood this very one.
async fn propose(context: &Context, change: Change) -> Result<Proposed> {
    let digest = change.digest();
    let proposed: Proposed = context
        .client
        .post(path::CHANGES, &ProposeChange { change })
        .await?;
    if proposed.review.change != digest || proposed.change.digest() != digest {
        return Err(Error::new(
            "version_mismatch",
            "the daemon proposed another change than the one that was sent",
        ));
    }
    Ok(proposed)
}

async fn approve_change(
    context: &Context,
    proposed: &Proposed,
    approve: &Approve,
) -> Result<ChangeOutcome> {
    context
        .client
        .post(&path::approvals(&proposed.review.change), approve)
        .await
}

/// Stores a change that one officer may decide, as in a development store.
pub(crate) async fn store(context: &Context, change: Change, officer: &SigningKey) -> Result<()> {
    let proposed = propose(context, change).await?;
    match approve_change(context, &proposed, &sign(&proposed, officer)?).await? {
        ChangeOutcome::Stored { .. } => Ok(()),
        ChangeOutcome::Pending { needs, .. } => Err(Error::new(
            "approvals_missing",
            format!("the change needs {needs} officers"),
        )),
    }
}

fn sign(proposed: &Proposed, key: &SigningKey) -> Result<Approve> {
    let (change, state) = (proposed.change.digest(), proposed.review.state);
    let signature = key
        .sign(&approval_message(&change, &state))
        .map_err(|e| Error::new("key", e))?;
    Ok(Approve::Approval(Approval {
        officer: key.id(),
        change,
        state,
        signature: Signature::from_bytes(signature),
    }))
}

fn show_outcome(outcome: &Outcome) -> String {
    let review = &outcome.proposed.review;
    let widens = review
        .reason
        .as_ref()
        .map(|r| format!("\nwidens: {r}"))
        .unwrap_or_default();
    match &outcome.outcome {
        Some(ChangeOutcome::Stored { change }) => format!(
            "stored: {} {}",
            outcome.proposed.change.kind(),
            change.short()
        ),
        Some(ChangeOutcome::Pending { approved, needs }) => format!(
            "proposed: {} {}, approved by {} of {needs} officers{widens}\nnext: another officer's mcpist change approve",
            outcome.proposed.change.kind(),
            review.change,
            approved.len()
        ),
        None => format!(
            "proposed: {} {}, needs {} officers{widens}\nnext: repeat with --key FILE, or mcpist change approve",
            outcome.proposed.change.kind(),
            review.change,
            review.needs
        ),
    }
}

/// Proposed changes
#[derive(Args)]
pub(crate) struct ChangeArgs {
    #[command(subcommand)]
    command: ChangeCommand,
}

#[derive(Subcommand)]
enum ChangeCommand {
    /// Approve a change that another officer proposed
    #[command(after_help = "Examples:
  mcpist grant put ops --principal ada --module prometheus --access read --key ada.key --proposal grant.json
  mcpist change approve grant.json --key bob.key")]
    Approve {
        /// The proposal, as --proposal wrote it
        proposal: PathBuf,
        /// The officer key to approve with
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}

pub(crate) async fn change(context: &Context, args: ChangeArgs) -> Result<()> {
    let ChangeCommand::Approve { proposal, key } = args.command;
    let bytes = secret::read_file(&proposal, MAX_FILE)?;
    let proposed: Proposed =
        serde_json::from_slice(&bytes).map_err(|e| Error::file(&proposal, e))?;
    if proposed.change.digest() != proposed.review.change {
        return Err(Error::file(
            &proposal,
            "its digest is not the change's; have it proposed again",
        ));
    }
    let shown =
        serde_json::to_string_pretty(&proposed.change).map_err(|e| Error::new("internal", e))?;
    context
        .out
        .note(&format!("change {}\n{shown}", proposed.review.change));
    let outcome = approve_change(context, &proposed, &sign(&proposed, &read_key(&key)?)?).await?;
    context.out.data(
        &Outcome {
            proposed,
            outcome: Some(outcome),
        },
        show_outcome,
    )
}

/// Principals: who may call
#[derive(Args)]
pub(crate) struct PrincipalArgs {
    #[command(subcommand)]
    command: PrincipalCommand,
}

#[derive(Subcommand)]
enum PrincipalCommand {
    /// Create or replace a principal
    #[command(
        after_help = "Examples:\n  mcpist principal put ada --uid 1000 --group ops --key officer.key"
    )]
    Put {
        /// Its name
        name: PrincipalName,
        /// A Unix user that it is; repeat
        #[arg(long = "uid", value_name = "UID")]
        uids: Vec<u32>,
        /// A group that it is in; repeat
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<GroupName>,
        #[command(flatten)]
        approve: ApproveArgs,
    },
    /// List the principals
    #[command(after_help = "Examples:\n  mcpist principal list")]
    List,
    /// Remove a principal
    #[command(after_help = "Examples:\n  mcpist principal delete ada --key officer.key")]
    Delete {
        /// Its name
        name: PrincipalName,
        #[command(flatten)]
        approve: ApproveArgs,
    },
}

pub(crate) async fn principal(context: &Context, args: PrincipalArgs) -> Result<()> {
    match args.command {
        PrincipalCommand::Put {
            name,
            uids,
            groups,
            approve,
        } => {
            let rules = uids.into_iter().map(IdentityRule::Uid).collect();
            decide(
                context,
                Change::PrincipalPut(PrincipalRecord {
                    name,
                    groups,
                    rules,
                }),
                &approve,
            )
            .await
        }
        PrincipalCommand::Delete { name, approve } => {
            decide(context, Change::PrincipalDelete(name), &approve).await
        }
        PrincipalCommand::List => {
            let list: Principals = context.client.get(path::PRINCIPALS).await?;
            context.out.data(&list, |list| {
                let row = |p: &PrincipalRecord| {
                    let uids = p.rules.iter().map(|IdentityRule::Uid(uid)| uid.to_string());
                    vec![
                        p.name.to_string(),
                        uids.collect::<Vec<_>>().join(","),
                        joined(&p.groups),
                    ]
                };
                table(
                    &["principal", "uids", "groups"],
                    &list.principals.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
    }
}

fn joined(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// Grants: what principals may see and call
#[derive(Args)]
pub(crate) struct GrantArgs {
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(Subcommand)]
enum GrantCommand {
    /// Create or replace a grant
    #[command(after_help = "Examples:
  mcpist grant put ops-read --group ops --module prometheus --access read --key officer.key
  mcpist grant put ada-query --principal ada --module prometheus --tool query --access read --key officer.key")]
    Put(GrantPut),
    /// List the grants
    #[command(after_help = "Examples:\n  mcpist grant list")]
    List,
    /// Remove a grant
    #[command(after_help = "Examples:\n  mcpist grant delete ops-read --key officer.key")]
    Delete {
        /// Its name
        name: GrantName,
        #[command(flatten)]
        approve: ApproveArgs,
    },
}

#[derive(Args)]
struct GrantPut {
    /// Its name
    name: GrantName,
    /// To this principal
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "group",
        conflicts_with = "group"
    )]
    principal: Option<PrincipalName>,
    /// To this group
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// This module; left out, all modules
    #[arg(long, value_name = "NAME")]
    module: Option<ModuleName>,
    /// This tool; repeat; left out, all tools
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<ToolName>,
    /// The most that a tool may do: read, write or destructive
    #[arg(long, value_parser = access, default_value = "read")]
    access: Access,
    #[command(flatten)]
    approve: ApproveArgs,
}

fn access(text: &str) -> std::result::Result<Access, String> {
    [Access::Read, Access::Write, Access::Destructive]
        .into_iter()
        .find(|a| a.as_str() == text)
        .ok_or_else(|| "use read, write or destructive".to_owned())
}

pub(crate) async fn grant(context: &Context, args: GrantArgs) -> Result<()> {
    match args.command {
        GrantCommand::Put(put) => {
            let subject = match (put.principal, put.group) {
                (Some(name), _) => Subject::Principal(name),
                (None, Some(name)) => Subject::Group(name),
                (None, None) => return Err(Error::usage("give --principal or --group")),
            };
            let grant = Grant {
                name: put.name,
                subject,
                module: put.module.map_or(ModuleSel::All, ModuleSel::Named),
                tools: if put.tools.is_empty() {
                    ToolSel::All
                } else {
                    ToolSel::Named(put.tools)
                },
                access: put.access,
            };
            decide(context, Change::GrantPut(grant), &put.approve).await
        }
        GrantCommand::Delete { name, approve } => {
            decide(context, Change::GrantDelete(name), &approve).await
        }
        GrantCommand::List => {
            let list: Grants = context.client.get(path::GRANTS).await?;
            context.out.data(&list, |list| {
                let row = |g: &Grant| {
                    let subject = match &g.subject {
                        Subject::Principal(name) => name.to_string(),
                        Subject::Group(name) => format!("group {name}"),
                    };
                    let module = match &g.module {
                        ModuleSel::All => "all".to_owned(),
                        ModuleSel::Named(name) => name.to_string(),
                    };
                    let tools = match &g.tools {
                        ToolSel::All => "all".to_owned(),
                        ToolSel::Named(names) => joined(names),
                    };
                    vec![
                        g.name.to_string(),
                        subject,
                        module,
                        tools,
                        g.access.as_str().to_owned(),
                    ]
                };
                let rows: Vec<_> = list.grants.iter().map(row).collect();
                table(&["grant", "to", "module", "tools", "access"], &rows)
            })
        }
    }
}

/// Bindings: which host a credential goes to, and how
#[derive(Args)]
pub(crate) struct BindingArgs {
    #[command(subcommand)]
    command: BindingCommand,
}

#[derive(Subcommand)]
enum BindingCommand {
    /// Create or replace a binding
    #[command(after_help = "Examples:
  mcpist binding put prom --vault team --credential prom --url https://prom.lan:9090/api \\
      --method GET --ca site-ca.pem --inject basic --key officer.key
  mcpist binding put wiki --vault team --credential wiki --url https://wiki.lan \\
      --method GET --method POST --pin 64HEX --inject header:x-api-key --key officer.key")]
    Put(BindingPut),
    /// List the bindings
    #[command(after_help = "Examples:\n  mcpist binding list")]
    List,
    /// Remove a binding
    #[command(after_help = "Examples:\n  mcpist binding delete prom --key officer.key")]
    Delete {
        /// Its name
        name: BindingName,
        #[command(flatten)]
        approve: ApproveArgs,
    },
}

#[derive(Args)]
struct BindingPut {
    /// Its name
    name: BindingName,
    /// The vault of the credential
    #[arg(long, value_name = "NAME")]
    vault: VaultName,
    /// The credential
    #[arg(long, value_name = "NAME")]
    credential: CredentialName,
    /// Scheme, host, port and the prefix of the paths that requests may have
    #[arg(long, value_name = "URL")]
    url: String,
    /// A method that requests may have; repeat
    #[arg(long = "method", value_name = "METHOD", required = true)]
    methods: Vec<String>,
    /// The CA of the service's certificate, as PEM
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    ca: Option<PathBuf>,
    /// SHA-256 of the service's certificate
    #[arg(long, value_name = "HEX")]
    pin: Option<Digest>,
    /// How the credential goes into a request: bearer, basic, header:NAME or query:NAME
    #[arg(long, value_name = "HOW", value_parser = inject)]
    inject: Inject,
    /// The host may be an address of this machine
    #[arg(long)]
    allow_local: bool,
    #[command(flatten)]
    approve: ApproveArgs,
}

fn inject(text: &str) -> std::result::Result<Inject, String> {
    match text.split_once(':') {
        None if text == "bearer" => Ok(Inject::Bearer),
        None if text == "basic" => Ok(Inject::Basic),
        Some(("header", name)) => Ok(Inject::Header {
            name: name.to_owned(),
        }),
        Some(("query", name)) => Ok(Inject::Query {
            name: name.to_owned(),
        }),
        _ => Err("use bearer, basic, header:NAME or query:NAME".to_owned()),
    }
}

/// Where a binding leads: scheme, host, port and path prefix.
fn target(url: &str) -> Result<(Scheme, HostName, u16, PathPrefix)> {
    let wrong = |why: &dyn std::fmt::Display| Error::usage(format!("--url {url:?}: {why}"));
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => return Err(wrong(&"begins with neither https:// nor http://")),
    };
    let (authority, prefix) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let standard = if scheme == Scheme::Https { 443 } else { 80 };
    let after_bracket = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[after_bracket..].rfind(':') {
        Some(at) => {
            let (host, port) = authority.split_at(after_bracket + at);
            (host, port[1..].parse().map_err(|e| wrong(&e))?)
        }
        None => (authority, standard),
    };
    let host = HostName::parse(host.trim_start_matches('[').trim_end_matches(']'))
        .map_err(|e| wrong(&e))?;
    Ok((
        scheme,
        host,
        port,
        PathPrefix::parse(prefix).map_err(|e| wrong(&e))?,
    ))
}

fn binding_of(put: &BindingPut) -> Result<Binding> {
    let (scheme, host, port, path_prefix) = target(&put.url)?;
    let mut methods = Vec::new();
    for text in &put.methods {
        methods.push(
            Method::parse(text)
                .ok_or_else(|| Error::usage(format!("{text:?} is no method; use GET, POST, …")))?,
        );
    }
    let trust = match (&put.ca, put.pin) {
        (Some(file), _) => Trust::Ca(
            String::from_utf8(secret::read_file(file, MAX_FILE)?)
                .map_err(|e| Error::file(file, e))?,
        ),
        (None, Some(pin)) => Trust::Pin(pin),
        (None, None) => Trust::None,
    };
    Binding::new(BindingFields {
        name: put.name.clone(),
        vault: put.vault.clone(),
        credential: put.credential.clone(),
        scheme,
        host,
        port,
        path_prefix,
        methods,
        trust,
        inject: put.inject.clone(),
        allow_local: put.allow_local,
    })
    .map_err(Error::usage)
}

pub(crate) async fn binding(context: &Context, args: BindingArgs) -> Result<()> {
    match args.command {
        BindingCommand::Put(put) => {
            let binding = binding_of(&put)?;
            decide(context, Change::BindingPut(Box::new(binding)), &put.approve).await
        }
        BindingCommand::Delete { name, approve } => {
            decide(context, Change::BindingDelete(name), &approve).await
        }
        BindingCommand::List => {
            let list: Bindings = context.client.get(path::BINDINGS).await?;
            context.out.data(&list, |list| {
                let row = |b: &Binding| {
                    let url = format!(
                        "{}://{}:{}{}",
                        b.scheme.as_str(),
                        b.host.authority(),
                        b.port,
                        b.path_prefix.as_str()
                    );
                    vec![
                        b.name.to_string(),
                        format!("{}/{}", b.vault, b.credential),
                        url,
                        joined(&b.methods),
                    ]
                };
                table(
                    &["binding", "credential", "to", "methods"],
                    &list.bindings.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
    }
}

/// Joins: which binding serves a module's slot
#[derive(Args)]
pub(crate) struct JoinArgs {
    #[command(subcommand)]
    command: JoinCommand,
}

#[derive(Args)]
struct Place {
    /// The registry's id, as 'mcpist registry list' shows it
    #[arg(long, value_name = "ID")]
    registry: RegistryId,
    /// Its module
    #[arg(long, value_name = "NAME")]
    module: ModuleName,
    /// The module's slot
    #[arg(long, value_name = "NAME")]
    slot: SlotName,
}

#[derive(Subcommand)]
enum JoinCommand {
    /// Create or replace a join
    #[command(after_help = "Examples:
  mcpist join put --registry ID --module prometheus --slot server --binding prom --key officer.key")]
    Put {
        #[command(flatten)]
        place: Place,
        /// The binding
        #[arg(long, value_name = "NAME")]
        binding: BindingName,
        #[command(flatten)]
        approve: ApproveArgs,
    },
    /// List the joins
    #[command(after_help = "Examples:\n  mcpist join list")]
    List,
    /// Remove a join
    #[command(after_help = "Examples:
  mcpist join delete --registry ID --module prometheus --slot server --key officer.key")]
    Delete {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        approve: ApproveArgs,
    },
}

pub(crate) async fn join(context: &Context, args: JoinArgs) -> Result<()> {
    match args.command {
        JoinCommand::Put {
            place:
                Place {
                    registry,
                    module,
                    slot,
                },
            binding,
            approve,
        } => {
            decide(
                context,
                Change::JoinPut(Join {
                    registry,
                    module,
                    slot,
                    binding,
                }),
                &approve,
            )
            .await
        }
        JoinCommand::Delete {
            place:
                Place {
                    registry,
                    module,
                    slot,
                },
            approve,
        } => {
            decide(
                context,
                Change::JoinDelete {
                    registry,
                    module,
                    slot,
                },
                &approve,
            )
            .await
        }
        JoinCommand::List => {
            let list: Joins = context.client.get(path::JOINS).await?;
            context.out.data(&list, |list| {
                let row = |j: &Join| {
                    vec![
                        j.registry.short(),
                        j.module.to_string(),
                        j.slot.to_string(),
                        j.binding.to_string(),
                    ]
                };
                table(
                    &["registry", "module", "slot", "binding"],
                    &list.joins.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
    }
}

/// Registries: imported bundles, and which of them serve
#[derive(Args)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Subcommand)]
enum RegistryCommand {
    /// List the registries with their full ids
    #[command(after_help = "Examples:\n  mcpist registry list")]
    List,
    /// Let an imported registry serve calls
    #[command(after_help = "Examples:\n  mcpist registry activate ID --key officer.key")]
    Activate {
        /// Its id
        id: RegistryId,
        #[command(flatten)]
        approve: ApproveArgs,
    },
    /// Take a registry out of service
    #[command(after_help = "Examples:\n  mcpist registry retire ID --key officer.key")]
    Retire {
        /// Its id
        id: RegistryId,
        #[command(flatten)]
        approve: ApproveArgs,
    },
}

pub(crate) async fn registry(context: &Context, args: RegistryArgs) -> Result<()> {
    match args.command {
        RegistryCommand::Activate { id, approve } => {
            decide(context, Change::RegistryActivate(id), &approve).await
        }
        RegistryCommand::Retire { id, approve } => {
            decide(context, Change::RegistryRetire(id), &approve).await
        }
        RegistryCommand::List => {
            let list: Registries = context.client.get(path::REGISTRIES).await?;
            context.out.data(&list, |list| {
                let row = |r: &mcpist_core::api::Registry| {
                    let name = format!("{}/{} {}", r.namespace, r.name, r.sequence);
                    vec![
                        r.id.digest().to_string(),
                        name,
                        r.state.as_str().to_owned(),
                        joined(&r.modules),
                    ]
                };
                table(
                    &["registry", "bundle", "state", "modules"],
                    &list.registries.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
    }
}

/// The mask: what a principal sees, and why
#[derive(Args)]
pub(crate) struct MaskArgs {
    #[command(subcommand)]
    command: MaskCommand,
}

#[derive(Subcommand)]
enum MaskCommand {
    /// Say why a principal sees a tool or does not
    #[command(after_help = "Examples:\n  mcpist mask explain ada prometheus query")]
    Explain {
        /// The principal
        principal: PrincipalName,
        /// The module
        module: String,
        /// The tool
        tool: String,
    },
}

pub(crate) async fn mask(context: &Context, args: MaskArgs) -> Result<()> {
    let MaskCommand::Explain {
        principal,
        module,
        tool,
    } = args.command;
    let shown: Explanation = context
        .client
        .post(
            path::MASK_EXPLAIN,
            &ExplainMask {
                principal,
                module,
                tool,
            },
        )
        .await?;
    context.out.data(&shown, |e| {
        let mut lines = vec![match (e.visible, e.loaded, e.unjoined) {
            (true, _, _) => format!("visible, granted by {}", joined(&e.granted_by)),
            (false, true, _) => "not visible: no grant selects it".to_owned(),
            (false, false, true) => "not visible: a slot of it has no join".to_owned(),
            (false, false, false) => "not visible: no active registry has it".to_owned(),
        }];
        for miss in &e.near_misses {
            lines.push(
                format!("grant {} would, but for its {:?}", miss.grant, miss.lacks).to_lowercase(),
            );
        }
        lines.join("\n")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_scheme_host_port_and_prefix() {
        for (url, host, port, prefix) in [
            ("https://prom.lan/api", "prom.lan", 443, "/api"),
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
            ("https://[::1]:9090/", "::1", 9090, "/"),
        ] {
            let (_, found, at, below) = target(url).unwrap();
            assert_eq!(
                (found.as_str(), at, below.as_str()),
                (host, port, prefix),
                "{url}"
            );
        }
        for wrong in [
            "prom.lan",
            "ftp://prom.lan/",
            "https://prom.lan:x/",
            "https:///",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn injections_have_four_forms() {
        assert_eq!(inject("bearer"), Ok(Inject::Bearer));
        assert_eq!(
            inject("header:x-key"),
            Ok(Inject::Header {
                name: "x-key".into()
            })
        );
        assert!(inject("cookie").is_err());
    }
}
