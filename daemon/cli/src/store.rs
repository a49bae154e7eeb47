//! `status` and `credential`.
//!
//! A credential's payload is asked for, never an argument; what comes back of a credential is everything but that.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mcpist_core::api::{
    Alarm, Credentials, Done, ModuleState, Progress, Purpose, Status, StoreState, path,
};
use mcpist_core::date;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{CredentialName, PrincipalName, VaultName};
use mcpist_secret::Secret;

use crate::error::{Error, Result};
use crate::output::{joined, table};
use crate::vault::{health, records, remark};
use crate::{Context, rekey, secret};

/// Show what runs, and how it is; works sealed
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist status
  mcpist status -q >/dev/null; test $? = 2 && echo sealed

Exit status: 0 unsealed, 2 sealed, 1 no store or no daemon.")]
pub(crate) struct StatusArgs {}

pub(crate) async fn status(context: &Context) -> Result<u8> {
    let status: Status = context.client.get(path::STATUS).await?;
    context.out.data(&status, show)?;
    Ok(status.state.exit_code())
}

/// The folder held a store, and its control.db is not there.
pub(crate) fn is_lost(status: &Status) -> bool {
    let says = |alarm: &Alarm| alarm.code == ErrorCode::NotInitialised;
    status.state == StoreState::Uninitialised && status.alarms.iter().any(says)
}

fn show(status: &Status) -> String {
    let (state, next) = match status.state {
        // One was here; its alarm says what to do.
        StoreState::Uninitialised if is_lost(status) => ("none", ""),
        StoreState::Uninitialised => ("none", "; next: mcpist init"),
        StoreState::Sealed => ("sealed", "; next: mcpist unseal"),
        StoreState::Unsealed => ("unsealed", ""),
    };
    let dev = if status.dev {
        " (development store)"
    } else {
        ""
    };
    let mut lines = vec![format!("store     {state}{dev}{next}")];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    if let Some(progress) = status.unseal.as_ref().filter(|p| p.given > 0) {
        line(
            "unseal",
            format!(
                "{} of {}: {}{}",
                progress.given,
                progress.needed,
                progress.holders.join(", "),
                expires(progress)
            ),
        );
    }
    if let Some(open) = &status.ceremony {
        line(
            "ceremony",
            format!("{}; see: mcpist ceremony", rekey::summary(open)),
        );
    }
    if let Some(open) = &status.restore {
        line(
            if open.drill { "drill" } else { "restore" },
            format!(
                "{} of {} shares given{}; next: mcpist restore --give | --cancel",
                open.progress.given,
                open.progress.needed,
                expires(&open.progress)
            ),
        );
    }
    if let Some(store) = &status.store {
        line("id", store.clone());
    }
    if let Some(shares) = &status.shares {
        line(
            "shares",
            format!(
                "{} of {}, generation {}: {}",
                shares.needed,
                shares.holders.len(),
                shares.generation,
                shares.holders.join(", ")
            ),
        );
    }
    if let Some(site) = &status.site {
        line("site", site.to_string());
    }
    match status.time_floor {
        None => {}
        Some(0) => line(
            "floor",
            "not set; next: mcpist registry time-floor DATE --key FILE".to_owned(),
        ),
        Some(floor) => line("floor", format!("{}, for bundles", date::date(floor))),
    }
    if let Some(backup) = &status.backup {
        line(
            "backup",
            format!(
                "of {}, generation {}{}{}",
                date::date(backup.created),
                backup.generation,
                match backup.carried.is_empty() {
                    true => String::new(),
                    false => format!(
                        ", {} carried sealed: keep the older ones, and their shares",
                        backup.carried.join(", ")
                    ),
                },
                match backup.without.is_empty() {
                    true => String::new(),
                    false => format!(
                        ", WITHOUT {}: keep the older ones, and the shares that open them",
                        backup.without.join(", ")
                    ),
                }
            ),
        );
    }
    if status.old_store {
        line(
            "old store",
            match status.state {
                StoreState::Unsealed => "kept aside by a restore; once this one serves as it should: mcpist restore --remove-old",
                _ => "kept aside by a restore; it may be the better one until this one was opened",
            }
            .to_owned(),
        );
    }
    line(
        "daemon",
        format!(
            "{}, up {} s, {} calls running",
            status.version, status.uptime_s, status.calls_in_flight
        ),
    );
    let missing = if status.memory.missing.is_empty() {
        String::new()
    } else {
        format!(", missing: {}", status.memory.missing.join(", "))
    };
    line("memory", format!("{}{missing}", status.memory.pages));
    for runner in &status.runners {
        line(
            "runner",
            format!(
                "{} {}",
                runner.role,
                if runner.connected {
                    "connected"
                } else {
                    "not connected"
                }
            ),
        );
    }
    for module in &status.modules {
        line(
            "module",
            format!(
                "{} {}, {} tools, registry {}{}",
                module.name,
                match module.state {
                    ModuleState::Ready => "ready",
                    ModuleState::Loading => "waits for its runner",
                    ModuleState::Broken => "BROKEN",
                    ModuleState::Quarantined => "QUARANTINED",
                },
                module.tools,
                module.registry.short(),
                why(module.reason.as_deref())
            ),
        );
    }
    for vault in &status.vaults {
        line(
            "vault",
            format!(
                "{} {}, {} records{}",
                vault.name,
                health(vault.health),
                records(vault),
                why(remark(vault).as_deref())
            ),
        );
    }
    if let Some(witness) = &status.witness {
        line(
            "witness",
            format!(
                "receipt of generation {}, {} s old; {} newer commits cannot be proven{}",
                witness.generation,
                witness.age_s,
                witness.newer,
                if witness.newer == 0 {
                    ""
                } else {
                    "; next: mcpist witness pull"
                }
            ),
        );
    }
    if let Some(audit) = &status.audit {
        line("audit", format!("line {}, head {}", audit.seq, audit.head));
    }
    for alarm in &status.alarms {
        line("ALARM", format!("{}: {}", alarm.code, alarm.message));
    }
    lines.join("\n")
}

fn why(reason: Option<&str>) -> String {
    reason.map(|r| format!(": {r}")).unwrap_or_default()
}

/// How long the shares of an unseal stand, as a person watches it.
pub(crate) fn expires(progress: &Progress) -> String {
    let left = progress.expires_s.map(date::span);
    left.map(|left| format!("; expires in {left}"))
        .unwrap_or_default()
}

/// Credentials: they go in and never come out
#[derive(Args)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Subcommand)]
enum CredentialCommand {
    /// Store a credential, or a new version of it
    #[command(after_help = "Examples:
  mcpist credential put team grafana --kind bearer --host grafana.lan           asks without echo
  pass show grafana | mcpist credential put team grafana --kind bearer --host grafana.lan
  mcpist credential put team prom --kind basic --user scraper --host prom.lan --secret-file pw.txt

The secret is never an argument: it comes from the terminal, standard input or a file.")]
    Put(Put),
    /// List the credentials of a vault, without their secrets
    #[command(after_help = "Examples:\n  mcpist credential list team")]
    List {
        /// The vault
        vault: VaultName,
    },
    /// Delete a credential
    #[command(after_help = "Examples:\n  mcpist credential delete team grafana")]
    Delete {
        /// The vault
        vault: VaultName,
        /// The credential
        name: CredentialName,
    },
}

#[derive(Args)]
struct Put {
    /// The vault
    vault: VaultName,
    /// The credential
    name: CredentialName,
    /// How services take it
    #[arg(long, value_enum)]
    kind: Kind,
    /// A host that it is for; repeat
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// The user of a basic credential; the password is asked for
    #[arg(long, value_name = "NAME", required_if_eq("kind", "basic"))]
    user: Option<String>,
    /// Whose it is, if not shared by all
    #[arg(long, value_name = "PRINCIPAL")]
    owner: Option<PrincipalName>,
    /// Until when it is good: a UTC date, or seconds since 1970; 0 is for ever
    #[arg(long, value_name = "DATE", value_parser = date::parse, default_value = "0")]
    expiry: u64,
    /// Read the secret from this file
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    ApiKey,
    Bearer,
    Basic,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::ApiKey => "api-key",
            Kind::Bearer => "bearer",
            Kind::Basic => "basic",
        }
    }
}

pub(crate) async fn credential(context: &Context, args: CredentialArgs) -> Result<()> {
    match args.command {
        CredentialCommand::Put(put) => {
            if put.user.is_some() && put.kind != Kind::Basic {
                return Err(Error::usage("--user goes with --kind basic only"));
            }
            let payload = match &put.secret_file {
                Some(file) => secret::read_secret_file(file)?,
                None => secret::ask("Secret: ")?,
            };
            let payload = match &put.user {
                Some(user) => basic(user, &payload)?,
                None => payload,
            };
            let purpose = Purpose::Credential {
                vault: put.vault,
                name: put.name,
                owner: put.owner,
                kind: put.kind.as_str().to_owned(),
                hosts: put.hosts,
                expiry: put.expiry,
            };
            let stored = secret::credential(&context.client, purpose, &payload).await?;
            context.out.data(&stored, |s| {
                format!(
                    "credential {}/{} stored as version {}",
                    s.vault, s.name, s.version
                )
            })
        }
        CredentialCommand::List { vault } => {
            let list: Credentials = context.client.get(&path::credentials(&vault)).await?;
            context.out.data(&list, |list| {
                let row = |c: &mcpist_core::api::Credential| {
                    let owner = c
                        .owner
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    vec![
                        c.name.to_string(),
                        c.kind.clone(),
                        c.version.to_string(),
                        c.hosts.join(","),
                        match c.expiry {
                            0 => "for ever".to_owned(),
                            expiry => date::date(expiry),
                        },
                        owner,
                    ]
                };
                let rows: Vec<_> = list.credentials.iter().map(row).collect();
                let header = [
                    "credential",
                    "kind",
                    "version",
                    "hosts",
                    "good until",
                    "owner",
                ];
                let shown = table(&header, &rows);
                if list.missing.is_empty() {
                    return shown;
                }
                let missing = joined(&list.missing);
                format!("{shown}\nmissing, and named by a binding: {missing}")
            })
        }
        CredentialCommand::Delete { vault, name } => {
            let done: Done = context
                .client
                .delete(&path::credential(&vault, &name))
                .await?;
            context
                .out
                .data(&done, |_| format!("credential {vault}/{name} deleted"))
        }
    }
}

/// `user:password` (RFC 7617 §2), joined in secret memory.
fn basic(user: &str, password: &Secret) -> Result<Secret> {
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage(
            "the user of a basic credential is not empty and holds no colon",
        ));
    }
    let at = user.len() + 1;
    Secret::fill(at + password.len(), |out| {
        out[..at - 1].copy_from_slice(user.as_bytes());
        out[at - 1] = b':';
        out[at..].copy_from_slice(password.expose());
        Ok(())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_credential_is_user_colon_password() {
        let password = Secret::copy_of(b"pass:word").unwrap();
        assert_eq!(basic("ada", &password).unwrap().expose(), b"ada:pass:word");
        assert!(basic("a:da", &password).is_err());
        assert!(basic("", &password).is_err());
    }
}
