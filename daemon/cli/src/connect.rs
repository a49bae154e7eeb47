//! `connect`: the bridge between a client's standard streams and an MCP socket.
//!
//! Promises that bytes go on as they come, in both directions at once; that the end of the client's input closes that
//! direction only, so that answers still under way arrive; and that nothing of the environment is needed.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::Context;
use crate::client::unreachable;
use crate::error::{Error, Result};
use crate::tools::for_client;

const CHUNK: usize = 64 * 1024;

/// Connect an MCP client that speaks over standard input and output
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist connect                                   uses mcp.sock in --run
  mcpist connect --mcp /run/mcpist/mcp.sock
  {\"mcpServers\": {\"site\": {\"command\": \"mcpist\", \"args\": [\"connect\"]}}}")]
pub(crate) struct ConnectArgs {
    /// The MCP socket
    #[arg(long, value_name = "SOCKET")]
    mcp: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: ConnectArgs) -> Result<()> {
    let socket = args
        .mcp
        .unwrap_or_else(|| context.client.socket("mcp.sock"));
    let stream =
        Arc::new(UnixStream::connect(&socket).map_err(|e| for_client(unreachable(&socket, &e)))?);
    let up = Arc::clone(&stream);
    let stdin = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    // Not joined: when the daemon closes, a client that still holds its end open must not keep us here.
    std::thread::spawn(move || {
        // Whatever ended it, the daemon is told that no more comes.
        let _ = pump(&stdin, &*up);
        let _ = up.shutdown(Shutdown::Write);
    });
    pump(&*stream, &stdout).map_err(|e| Error::new("connection_lost", e))
}

/// Copies until the end, each piece as soon as it is there.
fn pump(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&chunk[..read])?;
    }
}
