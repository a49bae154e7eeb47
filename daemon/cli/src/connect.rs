//! `connect`: the bridge between a client's standard streams and an MCP socket.
//!
//! Promises that bytes go on as they come, in both directions at once; that the end of the client's input closes that
//! direction only, so that answers still under way arrive; that a client which reads no more is hung up on its behalf, so
//! that its calls end; that a user who is turned away is told so and gets a status other than 0; and that nothing of the
//! environment is needed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::Context;
use crate::client::unreachable;
use crate::error::{Error, Result};
use crate::tools::for_client;

const CHUNK: usize = 64 * 1024;
/// Longest refusal in bytes.
const MAX_REFUSAL: usize = 4096;

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
    let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut said = Vec::new();
    let ended = bridge(&stream, stdin, &Arc::new(stdout), &mut said);
    match refusal(&said) {
        Some(refusal) => Err(for_client(refusal)),
        None => ended.map_err(|e| Error::new("connection_lost", e)),
    }
}

/// Why the daemon turned this user away, where that is all that it said.
fn refusal(said: &[u8]) -> Option<Error> {
    let line: Value = serde_json::from_slice(said).ok()?;
    let code = line["error"]["data"]["code"].as_str()?;
    let code = ErrorCode::parse(code).filter(|_| line["id"].is_null())?;
    Some(ApiError::of(code).into())
}

/// Returns when the daemon has closed, or nobody reads what it says; the beginning of that is in `said`.
fn bridge(
    stream: &Arc<UnixStream>,
    stdin: File,
    stdout: &Arc<File>,
    said: &mut Vec<u8>,
) -> std::io::Result<()> {
    // Neither thread is joined: when the daemon closes, a client that still holds its ends open must not keep us here.
    let up = Arc::clone(stream);
    std::thread::spawn(move || {
        // Whatever ended it, the daemon is told that no more comes.
        let _ = pump(&stdin, &*up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let (left, out) = (Arc::clone(stream), Arc::clone(stdout));
    std::thread::spawn(move || {
        if unread(&*out).is_ok() {
            let _ = left.shutdown(Shutdown::Both);
        }
    });
    let stdout = &**stdout;
    pump(&**stream, Remembers { to: stdout, said })
}

/// Writes on, and remembers the beginning.
struct Remembers<'a, W> {
    to: W,
    said: &'a mut Vec<u8>,
}

impl<W: Write> Write for Remembers<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        let room = (MAX_REFUSAL + 1).saturating_sub(self.said.len());
        self.said.extend_from_slice(&bytes[..written.min(room)]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Waits until nobody can read what is written to `to`. Of a file that does not end.
fn unread(to: impl AsFd) -> nix::Result<()> {
    // Asked for nothing, poll tells of errors and hang-ups.
    let mut watched = [PollFd::new(to.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use super::*;

    /// The client's ends of its two pipes, the daemon's end, and the bridge between them.
    fn bridged() -> (
        File,
        File,
        UnixStream,
        thread::JoinHandle<std::io::Result<()>>,
    ) {
        let (stdin, to) = nix::unistd::pipe().unwrap();
        let (from, stdout) = nix::unistd::pipe().unwrap();
        let (ours, daemon) = UnixStream::pair().unwrap();
        let (stdin, stdout) = (File::from(stdin), Arc::new(File::from(stdout)));
        let bridge =
            thread::spawn(move || bridge(&Arc::new(ours), stdin, &stdout, &mut Vec::new()));
        (to.into(), from.into(), daemon, bridge)
    }

    #[test]
    fn answers_come_after_the_end_of_the_input() {
        let (mut to, mut from, mut daemon, bridge) = bridged();
        to.write_all(b"asked").unwrap();
        drop(to);
        let (mut asked, mut answered) = (String::new(), [0; 8]);
        daemon.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "asked");
        daemon.write_all(b"answered").unwrap();
        drop(daemon);
        from.read_exact(&mut answered).unwrap();
        assert_eq!(&answered, b"answered");
        bridge.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_that_reads_no_more_is_hung_up() {
        let (to, from, daemon, bridge) = bridged();
        drop(from);
        unread(&daemon).unwrap();
        bridge.join().unwrap().unwrap();
        drop(to);
    }
}
