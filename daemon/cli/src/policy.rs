//! `principal`, `grant` and `mask`: who may see and call what.

use clap::{Args, Subcommand};
use mcpist_core::access::Access;
use mcpist_core::api::{ExplainMask, Grants, Principals, path};
use mcpist_core::change::Change;
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::{GrantName, GroupName, ModuleName, PrincipalName, ToolName};
use mcpist_core::mask::Explanation;
use mcpist_core::principal::{IdentityRule, PrincipalRecord};

use crate::Context;
use crate::change::{ApproveArgs, decide};
use crate::error::{Error, Result};
use crate::output::{joined, table};

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
