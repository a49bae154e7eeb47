//! The service behind the benchmark: the same answer to every GET that carries the credential, from one thread.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A request that is longer is not one of ours.
const LONGEST: usize = 16 * 1024;

/// A connection and what came of its next request.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
}

/// Serves on a free port of 127.0.0.1 until the process ends: `body` and a line feed as JSON, or 401. Gives the port.
///
/// # Errors
/// When loopback cannot be listened on.
pub(crate) fn start(body: &str, credential: &str) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}\n",
        body.len() + 1
    );
    let bearer = format!("authorization: Bearer {credential}\r\n");
    thread::spawn(move || serve(&listener, answer.as_bytes(), bearer.as_bytes()));
    Ok(port)
}

fn serve(listener: &TcpListener, answer: &[u8], bearer: &[u8]) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut ready = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let streams = connections.iter().map(|c| c.stream.as_fd());
        ready.extend(streams.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        poll(&mut ready, PollTimeout::NONE)?;
        let mut ready = ready
            .iter()
            .map(|r| r.any().unwrap_or(true))
            .collect::<Vec<bool>>()
            .into_iter();
        let waiting = ready.next().unwrap_or_default();
        // The listener's place was the first; the rest are the connections, in order.
        connections.retain_mut(|connection| {
            !ready.next().unwrap_or_default() || advance(connection, answer, bearer).is_ok()
        });
        if waiting {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            connections.push(Connection {
                stream,
                request: Vec::with_capacity(LONGEST),
            });
        }
    }
}

/// Reads once and answers a request that is whole. An error ends the connection.
fn advance(connection: &mut Connection, answer: &[u8], bearer: &[u8]) -> Result<()> {
    let mut block = [0; 4096];
    let read = connection.stream.read(&mut block)?;
    let request = &mut connection.request;
    request.extend_from_slice(block.get(..read).unwrap_or_default());
    if read == 0 || request.len() > LONGEST {
        return Err(Error::other("closed, or no request of ours"));
    }
    if request.ends_with(b"\r\n\r\n") {
        let known = request.windows(bearer.len()).any(|w| w == bearer);
        request.clear();
        connection.stream.write_all(if known {
            answer
        } else {
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
        })?;
    }
    Ok(())
}
