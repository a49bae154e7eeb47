//! `client-config`: how the MCP clients that people have are told of this host.
//!
//! Promises a configuration that needs no environment variable and holds no secret: each client launches
//! `mcpist connect`, and who it is says the kernel.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::Context;
use crate::error::{Error, Result};

/// Print the configuration with which an MCP client launches 'mcpist connect'
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist client-config ollmcp > servers.json && ollmcp --servers-json servers.json
  mcpist client-config generic --name plant-7 --mcp /run/mcpist/mcp.sock")]
pub(crate) struct ClientConfigArgs {
    /// The client
    #[arg(value_enum)]
    client: Kind,
    /// What the client calls this host; a client may put it before each tool's name
    #[arg(long, value_name = "NAME", default_value = "mcpist")]
    name: String,
    /// The MCP socket, if it is not mcp.sock in --run
    #[arg(long, value_name = "SOCKET")]
    mcp: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Any client that reads `mcpServers`
    Generic,
    /// The official Inspector
    Inspector,
    /// mcporter
    Mcporter,
    /// mcp-client-for-ollama
    Ollmcp,
    /// oterm
    Oterm,
}

impl Kind {
    /// What is done with the configuration.
    fn next(self) -> &'static str {
        match self {
            Kind::Generic => "add it to the client's configuration",
            Kind::Inspector => {
                "write it to servers.json; npx @modelcontextprotocol/inspector --config servers.json"
            }
            Kind::Mcporter => "write it to config/mcporter.json; mcporter list",
            Kind::Ollmcp => "write it to servers.json; ollmcp --servers-json servers.json",
            Kind::Oterm => "add it to ~/.local/share/oterm/config.json",
        }
    }
}

pub(crate) fn config(context: &Context, args: ClientConfigArgs) -> Result<()> {
    // Clients start in folders of their own: every path is absolute.
    let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|e| Error::file(&path, e));
    let program = std::env::current_exe().map_err(|e| Error::new("internal", e))?;
    let socket = match args.mcp {
        Some(socket) => socket,
        None => context.client.socket("mcp.sock"),
    };
    let config = config_of(args.client, &args.name, program, absolute(socket)?);
    context.out.note(&format!("next: {}", args.client.next()));
    context.out.data(&config, |config| format!("{config:#}"))
}

fn config_of(client: Kind, name: &str, program: PathBuf, socket: PathBuf) -> Value {
    let mut server = json!({"command": program, "args": ["connect", "--mcp", socket]});
    if client == Kind::Inspector {
        server["type"] = json!("stdio");
    }
    json!({"mcpServers": Map::from_iter([(name.to_owned(), server)])})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_client_launches_the_bridge_by_absolute_paths_and_without_an_environment() {
        for client in Kind::value_variants() {
            let config = config_of(
                *client,
                "site",
                "/usr/bin/mcpist".into(),
                "/run/m.sock".into(),
            );
            let server = config["mcpServers"]["site"].as_object().unwrap();
            assert_eq!(server["command"], "/usr/bin/mcpist");
            assert_eq!(server["args"], json!(["connect", "--mcp", "/run/m.sock"]));
            assert!(!server.contains_key("env"));
        }
    }
}
