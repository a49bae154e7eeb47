//! `binding`, `join` and `registry`: which modules serve, and which service and credential stands behind each slot.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mcpist_core::api::{Bindings, Joins, Registries, path};
use mcpist_core::binding::{
    Binding, BindingFields, HostName, Inject, Join, PathPrefix, Scheme, Trust,
};
use mcpist_core::change::Change;
use mcpist_core::date;
use mcpist_core::http::Method;
use mcpist_core::ids::{
    BindingName, CredentialName, Digest, ModuleName, RegistryId, SlotName, VaultName,
};

use crate::change::{ApproveArgs, decide};
use crate::error::{Error, Result};
use crate::output::{joined, table};
use crate::{Context, secret};

/// Longest CA file in bytes.
const MAX_FILE: u64 = 1 << 20;

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
    /// SHA-256 of the public key (SubjectPublicKeyInfo) in the service's certificate
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
    /// Move the time floor: a bundle that was good until before it is neither imported nor activated
    #[command(after_help = "Examples:
  mcpist registry time-floor 2027-01-01 --key officer.key

It never goes back, and moves by 400 days at most; the host's clock never moves it. The first step
takes two officers, and is measured from the host's clock. 'mcpist status' shows where it stands.")]
    TimeFloor {
        /// Where it is to stand: a UTC date, or seconds since 1970
        #[arg(value_name = "DATE", value_parser = date::parse)]
        seconds: u64,
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
        RegistryCommand::TimeFloor { seconds, approve } => {
            decide(context, Change::TimeFloor(seconds), &approve).await
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
