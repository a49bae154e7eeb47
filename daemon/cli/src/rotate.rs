//! `rotate`: new keys under the same shares.

use clap::{Args, Subcommand};
use mcpist_core::api::CeremonyRequest;

use crate::error::Result;
use crate::{Context, rekey};

/// Replace the store's root key
#[derive(Args)]
pub(crate) struct RotateArgs {
    #[command(subcommand)]
    command: RotateCommand,
}

#[derive(Subcommand)]
enum RotateCommand {
    /// Replace the root key, and wrap every vault's keys anew; the shares stay the same
    #[command(after_help = "Examples:
  mcpist rotate root                   then each holder: mcpist ceremony give

For new keys of what is in a vault: mcpist vault rotate")]
    Root {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn rotate(context: &Context, args: RotateArgs) -> Result<()> {
    let RotateCommand::Root { yes } = args.command;
    let question = "Begin to replace the root key?";
    rekey::begin(context, &CeremonyRequest::RotateRoot, yes, question).await
}
