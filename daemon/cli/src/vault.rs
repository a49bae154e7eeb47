//! `vault`: the sealed files that credentials stand in, and what is done to one as a whole.

use clap::{Args, Subcommand};
use mcpist_core::api::{
    Done, NewVault, ReadingStatus, RotationStatus, VaultHealth, VaultStatus, Vaults, path,
};
use mcpist_core::ids::VaultName;

use crate::Context;
use crate::error::Result;
use crate::output::table;

mod care;
mod quorum;
mod restore;
mod rotate;

/// Vaults: the sealed files that credentials stand in
#[derive(Args)]
pub(crate) struct VaultArgs {
    #[command(subcommand)]
    command: VaultCommand,
}

#[derive(Subcommand)]
enum VaultCommand {
    Create(quorum::CreateArgs),
    Unseal(quorum::UnsealArgs),
    /// Take the keys of a vault that has a quorum of its own, and leave the others open
    #[command(after_help = "Examples:\n  mcpist vault seal payroll")]
    Seal {
        /// Its name
        name: VaultName,
    },
    /// Say that a vault's last write is missing, as its alarm tells, and was put again
    #[command(after_help = "Examples:\n  mcpist vault confirm team")]
    Confirm {
        /// Its name
        name: VaultName,
    },
    Verify(care::VerifyArgs),
    Repair(care::RepairArgs),
    Restore(restore::RestoreArgs),
    Discard(care::DiscardArgs),
    Rotate(rotate::RotateArgs),
    /// List the vaults and their health
    #[command(after_help = "Examples:\n  mcpist vault list --output json")]
    List,
}

pub(crate) async fn vault(context: &Context, args: VaultArgs) -> Result<()> {
    match args.command {
        VaultCommand::Create(args) => match args.threshold {
            Some(threshold) => quorum::create(context, args, threshold).await,
            None => {
                let done = create_vault(context, args.name.clone()).await?;
                context
                    .out
                    .data(&done, |_| format!("vault {} made", args.name))
            }
        },
        VaultCommand::Unseal(args) => quorum::unseal(context, args).await,
        VaultCommand::Seal { name } => quorum::seal(context, &name).await,
        VaultCommand::Confirm { name } => {
            let done: Done = context.client.act(&path::confirm_last_write(&name)).await?;
            context.out.data(&done, |_| {
                format!("vault {name}: the missing write is confirmed")
            })
        }
        VaultCommand::Verify(args) => care::verify(context, args).await,
        VaultCommand::Repair(args) => care::repair(context, args).await,
        VaultCommand::Restore(args) => restore::restore(context, args).await,
        VaultCommand::Discard(args) => care::discard(context, args).await,
        VaultCommand::Rotate(args) => rotate::rotate(context, args).await,
        VaultCommand::List => {
            let vaults: Vaults = context.client.get(path::VAULTS).await?;
            context.out.data(&vaults, |vaults| {
                let row = |v: &VaultStatus| {
                    vec![
                        v.name.to_string(),
                        health(v.health).to_owned(),
                        records(v),
                        remark(v).unwrap_or_default(),
                    ]
                };
                let rows: Vec<_> = vaults.vaults.iter().map(row).collect();
                table(&["vault", "health", "records", "remark"], &rows)
            })
        }
    }
}

pub(crate) async fn create_vault(context: &Context, name: VaultName) -> Result<Done> {
    context.client.post(path::VAULTS, &NewVault { name }).await
}

/// What there is to say of a vault beside its health: how far it is read, why it is not well, how far a rotation is, or what
/// one left.
pub(crate) fn remark(vault: &VaultStatus) -> Option<String> {
    let VaultStatus {
        reason,
        rotation,
        reading,
        old_records,
        ..
    } = vault;
    let reading = reading.as_ref().map(being_read);
    reading
        .or_else(|| reason.clone())
        .or_else(|| match rotation {
            Some(RotationStatus { copied, records }) => {
                Some(format!("rotating, {copied} of {records} records"))
            }
            None if *old_records > 0 => Some(format!("{old_records} records under an earlier key")),
            None => None,
        })
}

/// How far a vault is read whole.
fn being_read(reading: &ReadingStatus) -> String {
    match *reading {
        ReadingStatus { read, records: 0 } => format!("being read, {read} rows so far"),
        ReadingStatus { read, records } => format!("being read, {read} of {records} records"),
    }
}

/// How many records a vault holds, where anybody has seen them.
pub(crate) fn records(vault: &VaultStatus) -> String {
    match vault.health {
        VaultHealth::Sealed => "-".to_owned(),
        _ => vault.records.to_string(),
    }
}

/// The word of a vault's health.
pub(crate) fn health(health: VaultHealth) -> &'static str {
    match health {
        VaultHealth::Ok => "ok",
        VaultHealth::Unavailable => "unavailable",
        VaultHealth::Quarantined => "quarantined",
        VaultHealth::Sealed => "sealed",
    }
}
