//! mcpist: the command line of operators, officers, publishers and clients.
//!
//! Owns the commands and their help. Each group of commands is one file; `client`, `secret` and `mcp` are the three
//! ways to the daemon. Promises one form of result, one form of error and stable exit statuses: 0, 2 when the store is
//! sealed, 3 when what is done lacks a vault, 1 for everything else.

mod audit;
mod backup;
mod binding;
mod bundle;
mod certificate;
mod change;
mod client;
mod clients;
mod connect;
mod demo;
mod dev;
mod doctor;
mod error;
mod guided;
mod holders;
mod host;
mod init;
mod manual;
mod mcp;
mod medium;
mod output;
mod plan;
mod policy;
mod rekey;
mod restore;
mod reveal;
mod review;
mod rotate;
mod secret;
mod share;
mod store;
mod terminal;
mod tools;
mod unseal;
mod vault;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mcpist_secret::alloc::ZeroOnFree;
use mcpist_secret::memory::harden_process;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::output::{Format, Output};

/// Heading of the options that every command has.
const GLOBAL: &str = "Options of every command";

#[derive(Parser)]
#[command(
    name = "mcpist",
    version,
    about = "Sealed credentials and signed tools for MCP clients, without internet",
    after_help = "Examples:
  mcpist demo                          see everything once, in a temporary folder
  mcpist status                        is the store open? exit status 0, sealed 2
  mcpist doctor                        what does this host lack?
  mcpist unseal                        give one share
  mcpist tools --mcp /run/mcpist/mcp.sock

Exit status: 0 success, 2 the store is sealed, 3 done, but a vault is left out, 1 any other failure.",
    disable_help_subcommand = true
)]
struct Cli {
    /// Folder of the daemon's sockets
    #[arg(long, visible_alias = "socket", global = true, help_heading = GLOBAL,
        help_heading = GLOBAL,
        value_name = "DIR",
        default_value = "/run/mcpist"
    )]
    run: PathBuf,
    /// Form of results
    #[arg(long, global = true, help_heading = GLOBAL, value_enum,
        value_name = "FORM",
        default_value = "text"
    )]
    output: Format,
    /// Say nothing but results, errors and what is signed or confirmed
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Status(store::StatusArgs),
    Init(init::InitArgs),
    Unseal(unseal::UnsealArgs),
    Seal(unseal::SealArgs),
    Rekey(rekey::RekeyArgs),
    Rotate(rotate::RotateArgs),
    Ceremony(rekey::CeremonyArgs),
    Share(share::ShareArgs),
    Witness(witness::WitnessArgs),
    Vault(vault::VaultArgs),
    Credential(store::CredentialArgs),
    Principal(policy::PrincipalArgs),
    Grant(policy::GrantArgs),
    Binding(binding::BindingArgs),
    Join(binding::JoinArgs),
    Change(change::ChangeArgs),
    Mask(policy::MaskArgs),
    Registry(binding::RegistryArgs),
    Bundle(bundle::BundleArgs),
    Audit(audit::AuditArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Tools(tools::ToolsArgs),
    Call(tools::CallArgs),
    Connect(connect::ConnectArgs),
    ClientConfig(clients::ClientConfigArgs),
    Doctor(doctor::DoctorArgs),
    Dev(dev::DevArgs),
    Demo(demo::DemoArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// What every command gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The daemon.
    pub(crate) client: Client,
    /// Where results go.
    pub(crate) out: Output,
}

/// Freed memory is wiped: shares and passphrases pass through buffers of libraries.
#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let out = Output::new(cli.output, cli.quiet);
    match run(cli, out) {
        Ok(code) => ExitCode::from(code),
        Err(e) => out.failure(&e),
    }
}

/// Help and version end well; a wrong command line is a failure as any other, since status 2 means "sealed".
fn usage(e: &clap::Error) -> ExitCode {
    if !e.use_stderr() {
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    let text = e.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    // Our own next step says the same.
    let hint = "For more information, try '--help'.";
    let text = text.strip_suffix(hint).unwrap_or(text).trim_end();
    // Parsing ended before it could say which form was asked for.
    let words: Vec<_> = std::env::args_os().collect();
    let json = words
        .windows(2)
        .any(|w| w[0] == "--output" && w[1] == "json")
        || words.iter().any(|w| w == "--output=json");
    if json {
        let reason: Vec<_> = text
            .lines()
            .take_while(|line| !line.is_empty())
            .map(str::trim)
            .collect();
        return Output::new(Format::Json, false).failure(&Error::usage(reason.join(" ")));
    }
    Output::new(Format::Text, false).failure(&Error::new("usage", text))
}

fn run(cli: Cli, out: Output) -> Result<u8> {
    // Shares, passphrases and credentials pass through this process: no dump, and no look from its user's others.
    harden_process(false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::new("io", e))?;
    let context = Context {
        client: Client::new(cli.run),
        out,
    };
    let outcome = runtime.block_on(dispatch(cli.command, context));
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command, context: Context) -> Result<u8> {
    let done = match command {
        Command::Status(_) => return store::status(&context).await,
        Command::Audit(args) => return audit::run(&context, args).await,
        Command::Doctor(args) => return doctor::run(&context, args).await,
        Command::Backup(args) => return backup::backup(&context, args).await,
        Command::Restore(args) => return restore::restore(&context, args).await,
        Command::Init(args) => init::init(&context, args).await,
        Command::Unseal(args) => return unseal::unseal(&context, args).await,
        Command::Seal(args) => unseal::seal(&context, args).await,
        Command::Share(args) => share::run(&context, args),
        Command::Witness(args) => witness::run(&context, args).await,
        Command::Rekey(args) => rekey::rekey(&context, args).await,
        Command::Rotate(args) => rotate::rotate(&context, args).await,
        Command::Ceremony(args) => rekey::ceremony(&context, args).await,
        Command::Vault(args) => vault::vault(&context, args).await,
        Command::Credential(args) => store::credential(&context, args).await,
        Command::Principal(args) => policy::principal(&context, args).await,
        Command::Grant(args) => policy::grant(&context, args).await,
        Command::Binding(args) => binding::binding(&context, args).await,
        Command::Join(args) => binding::join(&context, args).await,
        Command::Change(args) => change::run(&context, args).await,
        Command::Mask(args) => policy::mask(&context, args).await,
        Command::Registry(args) => binding::registry(&context, args).await,
        Command::Bundle(args) => bundle::run(&context, args).await,
        Command::Tools(args) => tools::tools(&context, args).await,
        Command::Call(args) => tools::call(&context, args).await,
        Command::Connect(args) => connect::run(&context, args),
        Command::ClientConfig(args) => clients::config(&context, args),
        Command::Completions(args) => manual::completions(&context, args, Cli::command()),
        Command::Man(args) => manual::man(&context, args, Cli::command()),
        Command::Dev(args) => dev::run(&context, args).await,
        Command::Demo(args) => demo::run(&context, args).await,
    };
    done.map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        check(&command);
    }

    fn check(command: &clap::Command) {
        if command.has_subcommands() {
            command.get_subcommands().for_each(check);
            return;
        }
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            help.contains("mcpist "),
            "{} has no example",
            command.get_name()
        );
    }
}
