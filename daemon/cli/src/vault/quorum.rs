//! `vault create` with a quorum, `vault unseal` and `vault seal`: a vault that has a quorum of its own.
//!
//! Promises that the plan is shown under the digest that this program computed before new shares are written or one is given,
//! and that a vault which was not confirmed is not made.

use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::{CeremonyAct, CeremonyRequest, NewShares, OpenCeremony, Sealed, path};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::VaultName;

use crate::Context;
use crate::error::Result;
use crate::holders::named_holders;
use crate::plan::read_plan;
use crate::rekey::{self, begin_confirmed, listed, write};
use crate::share::GivenShare;
use crate::witness::Keeping;

/// Make a vault, for the store's quorum or with one of its own
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault create team
  mcpist vault create payroll --threshold 2 --holder ada=age1… --holder eve=age1… --out shares

With holders, the store's shares do not open the vault: after each unseal of the store it waits for
its own (mcpist vault unseal). Its shares are written to DIR, encrypted to their holders; it is made
once enough of them have given theirs (mcpist ceremony give). A backup carries it as it stands;
its own quorum verifies it.")]
pub(super) struct CreateArgs {
    /// Its name
    pub(super) name: VaultName,
    /// Shares that open it
    #[arg(long, value_name = "N", requires = "holders")]
    pub(super) threshold: Option<u8>,
    /// A holder of a share and the age recipient to encrypt it to; repeat
    #[arg(
        long = "holder",
        value_name = "LABEL=RECIPIENT",
        requires = "threshold"
    )]
    holders: Vec<String>,
    /// Folder for its shares
    #[arg(long, value_name = "DIR", default_value = ".", requires = "threshold")]
    out: PathBuf,
    /// Do not ask for confirmation
    #[arg(long, requires = "threshold")]
    yes: bool,
}

/// Give a share of a vault's own quorum, and open the vault with the last one that is needed
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault unseal payroll                           asks for the share, its text or its words
  mcpist vault unseal payroll --share-file share-1-ada.age --identity ada.txt
  age -d -i ada.txt share-1-ada.age | mcpist vault unseal payroll
  mcpist ceremony cancel                                drops the shares given so far")]
pub(super) struct UnsealArgs {
    /// Its name
    name: VaultName,
    #[command(flatten)]
    given: GivenShare,
    #[command(flatten)]
    keeping: Keeping,
}

/// Makes a vault that opens for `threshold` of its own shares.
pub(super) async fn create(context: &Context, args: CreateArgs, threshold: u8) -> Result<()> {
    let request = CeremonyRequest::NewVault {
        vault: args.name.clone(),
        threshold,
        holders: named_holders(&args.holders)?,
    };
    let question = format!("Make vault {} for these holders?", args.name);
    let open = begin_confirmed(context, &request, args.yes, &question).await?;
    let NewShares { shares } = context.client.get(path::CEREMONY_SHARES).await?;
    let (plan, _) = read_plan(&open.plan)?;
    let files = write(&args.out, &plan, &shares).map_err(|e| {
        e.during("the vault's shares are made and wait")
            .next("mcpist ceremony shares --out DIR")
    })?;
    let needed = open.progress.needed;
    context.out.data(&rekey::Written { files }, |w| {
        format!(
            "{}\nvault {} is made once {needed} of the holders have given theirs to prove that they have it\nnext: give each file to its holder, who runs mcpist ceremony give",
            listed(&w.files),
            args.name
        )
    })
}

/// Begins to unseal the vault, or goes on with it, and gives a share.
pub(super) async fn unseal(context: &Context, args: UnsealArgs) -> Result<()> {
    let request = CeremonyRequest::UnsealVault {
        vault: args.name.clone(),
    };
    let begun: Result<OpenCeremony> = context.client.post(path::CEREMONY, &request).await;
    match begun {
        Err(e) if e.code() == ErrorCode::Conflict.as_str() => {
            begun_before(context, &args.name).await.ok_or(e)?
        }
        begun => begun?,
    };
    rekey::give(context, &args.given, Path::new("."), &args.keeping).await
}

/// The open ceremony, if it is the one that unseals this vault.
async fn begun_before(context: &Context, vault: &VaultName) -> Option<OpenCeremony> {
    let open: OpenCeremony = context.client.get(path::CEREMONY).await.ok()?;
    let is_it = open.act == CeremonyAct::UnsealVault && open.vault.as_ref() == Some(vault);
    is_it.then_some(open)
}

pub(super) async fn seal(context: &Context, name: &VaultName) -> Result<()> {
    let done: Sealed = context.client.act(&path::seal_vault(name)).await?;
    context.out.data(&done, |done| {
        let dropped = match done.dropped {
            0 => String::new(),
            1 => "; the share that had been given was dropped".to_owned(),
            n => format!("; {n} shares that had been given were dropped"),
        };
        format!(
            "vault {name} sealed{dropped}; its own quorum opens it again: mcpist vault unseal {name}"
        )
    })
}
