//! The client: one request out, one answer in, on a blocking socket; nothing is parsed while the clock runs.
//!
//! A request and its answer are fixed bytes but for the request's id, which has a fixed width and is written in place.
//! An answer is whole when it ends with `}` and a line feed: the MCP peers' lines do, and so do the service's bodies.

use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The id of a connection's first request; all that follow are as wide.
pub(crate) const FIRST_ID: u64 = 10_000_000;
/// How long an answer may take before the run fails. Nothing is judged by it.
const PATIENCE: Duration = Duration::from_secs(60);
/// An answer that is longer is not one of ours.
const LONGEST: usize = 16 * 1024;

/// Fixed bytes around an id.
#[derive(Clone)]
struct Message {
    bytes: Vec<u8>,
    /// Where the id begins; the direct path has none.
    id: Option<usize>,
}

impl Message {
    fn new(bytes: Vec<u8>) -> Message {
        let first = FIRST_ID.to_string();
        let id = bytes
            .windows(first.len())
            .position(|w| w == first.as_bytes());
        Message { bytes, id }
    }

    fn set_id(&mut self, mut id: u64) {
        let width = FIRST_ID.ilog10() as usize + 1;
        let Some(digits) = self.id.and_then(|at| self.bytes.get_mut(at..at + width)) else {
            return;
        };
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (id % 10) as u8;
            id /= 10;
        }
    }
}

enum Address {
    Unix(PathBuf),
    Tcp(u16),
}

impl Address {
    fn connect(&self) -> Result<File> {
        let socket: OwnedFd = match self {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.into()
            }
            Address::Tcp(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                stream.into()
            }
        };
        Ok(File::from(socket))
    }
}

/// Somebody who answers, with the question and the answer that every call must give.
pub(crate) struct Peer {
    address: Address,
    request: Message,
    answer: Message,
}

impl Peer {
    /// An MCP server on a Unix socket. `right` judges the first answer.
    ///
    /// # Errors
    /// When it cannot be reached or the first answer is not right; so does [`Peer::tcp`].
    pub(crate) fn unix(path: &Path, request: String, right: fn(&[u8]) -> bool) -> Result<Peer> {
        Peer::meet(Address::Unix(path.to_owned()), request, right)
    }

    /// A service on loopback.
    pub(crate) fn tcp(port: u16, request: String, right: fn(&[u8]) -> bool) -> Result<Peer> {
        Peer::meet(Address::Tcp(port), request, right)
    }

    fn meet(address: Address, request: String, right: fn(&[u8]) -> bool) -> Result<Peer> {
        let mut socket = address.connect()?;
        socket.write_all(request.as_bytes())?;
        let mut answer = Answer::new();
        while !answer.read(&mut socket)? {}
        if !right(answer.bytes()) {
            return Err(answer.wrong());
        }
        Ok(Peer {
            address,
            request: Message::new(request.into_bytes()),
            answer: Message::new(answer.bytes().to_vec()),
        })
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// When it is not accepted.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Ok(Connection {
            socket: self.address.connect()?,
            request: self.request.clone(),
            expected: self.answer.clone(),
            id: FIRST_ID,
            answer: Answer::new(),
        })
    }
}

/// The bytes of one answer as far as they came.
struct Answer {
    buffer: Box<[u8]>,
    length: usize,
}

impl Answer {
    fn new() -> Answer {
        Answer {
            buffer: vec![0; LONGEST].into(),
            length: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Reads once. True when the answer is whole.
    fn read(&mut self, socket: &mut impl Read) -> Result<bool> {
        let free = self.buffer.get_mut(self.length..).unwrap_or_default();
        let read = socket.read(free)?;
        if read == 0 {
            return Err(self.wrong());
        }
        self.length += read;
        Ok(self.bytes().ends_with(b"}\n"))
    }

    /// The error for an answer that is not the one that was to come, or none.
    fn wrong(&self) -> Error {
        let excerpt = self.bytes().get(..400).unwrap_or(self.bytes());
        Error::other(format!(
            "a wrong answer: {:?}",
            excerpt.escape_ascii().to_string()
        ))
    }
}

/// One connection, with one call under way at most.
pub(crate) struct Connection {
    socket: File,
    request: Message,
    expected: Message,
    id: u64,
    answer: Answer,
}

impl Connection {
    fn send(&mut self) -> Result<()> {
        self.id += 1;
        self.request.set_id(self.id);
        self.expected.set_id(self.id);
        self.answer.length = 0;
        self.socket.write_all(&self.request.bytes)
    }

    /// Reads once. True when the answer is there and the right one.
    fn receive(&mut self) -> Result<bool> {
        let whole = self.answer.read(&mut self.socket)?;
        if whole && self.answer.bytes() != self.expected.bytes {
            return Err(self.answer.wrong());
        }
        Ok(whole)
    }

    /// One call.
    ///
    /// # Errors
    /// When the answer differs from the first one or does not come.
    pub(crate) fn exchange(&mut self) -> Result<()> {
        self.send()?;
        while !self.receive()? {}
        Ok(())
    }
}

/// Makes `each` calls on every connection, all connections at once, from this one thread: on a machine of two cores
/// more threads would take the peer's time.
///
/// # Errors
/// As [`Connection::exchange`].
pub(crate) fn run(connections: &mut [Connection], each: usize) -> Result<()> {
    // Further descriptors of the same sockets: poll borrows these while the connections change.
    let sockets = connections
        .iter()
        .map(|c| c.socket.try_clone())
        .collect::<Result<Vec<File>>>()?;
    let mut ready: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN))
        .collect();
    let mut left = vec![each; connections.len()];
    let mut open = if each == 0 { 0 } else { connections.len() };
    for connection in connections.iter_mut().take(open) {
        connection.send()?;
    }
    while open > 0 {
        let timeout = PollTimeout::try_from(PATIENCE).map_err(Error::other)?;
        if poll(&mut ready, timeout)? == 0 {
            return Err(Error::other(format!("{open} clients got no answer")));
        }
        for ((connection, ready), left) in connections.iter_mut().zip(&ready).zip(&mut left) {
            if !ready.any().unwrap_or(true) || !connection.receive()? {
                continue;
            }
            *left -= 1;
            if *left == 0 {
                open -= 1;
            } else {
                connection.send()?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A server that answers a line with what `answer` makes of its number, until the client goes.
    fn peer(answer: fn(u64) -> String) -> (tempfile::TempDir, Result<Peer>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    for line in lines.map_while(Result::ok) {
                        let _ = writeln!(stream, "{}", answer(line.parse().unwrap()));
                    }
                });
            }
        });
        let peer = Peer::unix(&path, format!("{FIRST_ID}\n"), |a| !a.starts_with(b"{no"));
        (folder, peer)
    }

    #[test]
    fn every_call_has_an_id_of_its_own_and_its_answer_is_compared() {
        let (_folder, peer) = peer(|id| format!("{{\"id\":{id}}}"));
        let peer = peer.unwrap();
        let mut connections = vec![peer.connect().unwrap(), peer.connect().unwrap()];
        run(&mut connections, 12).unwrap();
        run(&mut connections, 0).unwrap();
        for connection in &mut connections {
            assert_eq!(connection.id, FIRST_ID + 12);
            connection.exchange().unwrap();
            assert_eq!(connection.answer.bytes(), b"{\"id\":10000013}\n");
        }
    }

    #[test]
    fn an_answer_that_differs_ends_the_run() {
        let (_folder, peer) = peer(|id| match id - FIRST_ID {
            3 => "{\"error\":1}".to_owned(),
            _ => format!("{{\"id\":{id}}}"),
        });
        let mut connections = vec![peer.unwrap().connect().unwrap()];
        let error = run(&mut connections, 5).unwrap_err();
        assert!(error.to_string().contains("error"), "{error}");
        assert_eq!(connections[0].id, FIRST_ID + 3);
    }

    #[test]
    fn a_first_answer_that_is_not_right_is_refused() {
        let (_folder, peer) = peer(|_| "{no}".to_owned());
        assert!(peer.is_err());
    }
}
