//! Stage 1: who is at the other end of a client connection.
//!
//! Owns the MCP listeners and [`Peer`], the only place that makes [`PeerEvidence`]. A peer is asked for its kernel
//! credentials once, at accept; each request then begins with fresh evidence, so that a principal who was taken away
//! is gone with the next request and not with the next connection. Does not know what a principal may see.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use mcpist_core::ids::PrincipalName;
use mcpist_core::principal::PeerEvidence;
use tokio::net::{UnixListener, UnixStream};

use crate::config::Listener;
use crate::connections::{Connections, Reads};
use crate::gateway::ClientGateway;
use crate::house::House;

/// Told to a user with as many connections as one may have, before the next one is closed.
const TOO_MANY: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"busy: this user has as many connections as one may have; close one\",\"data\":{\"code\":\"busy\"}}}\n";

/// Whose connection it is, as far as bounds go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    /// A user of the host.
    Uid(u32),
    /// Dev only: whoever uses a listener with a fixed principal.
    Fixed(PrincipalName),
}

/// What the kernel, or the listener's own configuration, says of one connection.
pub(crate) struct Peer(Kind);

enum Kind {
    Unix { uid: u32, gid: u32, pid: i32 },
    Fixed(PrincipalName),
}

impl Peer {
    fn of(stream: &UnixStream, fixed: Option<&PrincipalName>) -> std::io::Result<Self> {
        if let Some(name) = fixed {
            return Ok(Self(Kind::Fixed(name.clone())));
        }
        let cred = stream.peer_cred()?;
        Ok(Self(Kind::Unix {
            uid: cred.uid(),
            gid: cred.gid(),
            pid: cred.pid().unwrap_or(0),
        }))
    }

    fn user(&self) -> User {
        match &self.0 {
            Kind::Unix { uid, .. } => User::Uid(*uid),
            Kind::Fixed(name) => User::Fixed(name.clone()),
        }
    }

    /// Evidence for one request.
    pub(crate) fn evidence(&self) -> PeerEvidence {
        match &self.0 {
            Kind::Unix { uid, gid, pid } => PeerEvidence::unix(*uid, *gid, *pid),
            Kind::Fixed(name) => PeerEvidence::fixed(name.clone()),
        }
    }
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Something that is no socket stands at the path.
    #[error("{0} exists and is no socket; remove it or configure another path")]
    InTheWay(PathBuf),
    /// Another process listens there.
    #[error("{0} is in use by another process; stop it first")]
    InUse(PathBuf),
    /// The system said no.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Binds a Unix socket with `mode`. A socket file that nobody listens on any more is replaced.
pub(crate) fn bind(path: &PathBuf, mode: u32) -> Result<UnixListener, BindError> {
    let io = |source| BindError::Io {
        path: path.clone(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::InTheWay(path.clone())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(BindError::InUse(path.clone())),
            Err(_) => std::fs::remove_file(path).map_err(io)?,
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io)?;
    Ok(listener)
}

/// Serves MCP clients on one listener until the process ends. `connections` is shared by all listeners.
pub(crate) async fn serve(
    house: Arc<House>,
    listener: UnixListener,
    config: Listener,
    connections: Arc<Connections>,
) {
    loop {
        let Some(place) = connections.place().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of descriptors, most likely: the next accept would fail at once as well.
                log::warn!("{}: accept failed: {}", config.path.display(), e.kind());
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = match Peer::of(&stream, config.principal.as_ref()) {
            Ok(peer) => peer,
            Err(e) => {
                log::warn!(
                    "{}: no peer credentials: {}",
                    config.path.display(),
                    e.kind()
                );
                continue;
            }
        };
        let Some(held) = connections.take(place, peer.user()) else {
            log::warn!("{:?} has as many connections as one may have", peer.user());
            // The socket is new: it has room for a line, or the peer is gone.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let limits = house.stream_limits();
        let gateway = ClientGateway::new(Arc::clone(&house), peer);
        let idle = connections.idle;
        tokio::spawn(async move {
            let _held = held;
            let reads = Reads::default();
            let served = match mcpist_wire::stream::split(stream) {
                Ok((read, write)) => tokio::select! {
                    served = mcpist_mcp::serve(reads.of(read), write, gateway, limits) => served,
                    () = reads.unused(|| tokio::time::sleep(idle)) => {
                        log::debug!("client connection closed: nothing came for {} s", idle.as_secs());
                        Ok(())
                    }
                },
                Err(e) => Err(e.into()),
            };
            if let Err(e) = served {
                log::debug!("client connection ended: {e}");
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_user_at_the_bound_gets_a_line_and_others_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = format!("state = {:?}\nrun = {:?}\n", at("state"), at("run"));
        std::fs::write(at("mcpist.toml"), text).unwrap();
        let house = Arc::new(House::new(Config::load(&at("mcpist.toml"), true).unwrap()));
        let connections = Arc::new(Connections::new(4, 1, Duration::from_secs(600)));
        for name in ["ada", "bob"] {
            let config = Listener {
                path: at(name),
                principal: Some(PrincipalName::parse(name).unwrap()),
            };
            let listener = bind(&at(name), 0o600).unwrap();
            let (house, connections) = (Arc::clone(&house), Arc::clone(&connections));
            tokio::spawn(serve(house, listener, config, connections));
        }
        let mut first = UnixStream::connect(at("ada")).await.unwrap();
        let mut second = UnixStream::connect(at("ada")).await.unwrap();
        let mut told = Vec::new();
        second.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, TOO_MANY);
        assert!(serde_json::from_slice::<serde_json::Value>(&told).is_ok());
        // The one that was there, and somebody else's, are answered.
        let mut other = UnixStream::connect(at("bob")).await.unwrap();
        for client in [&mut first, &mut other] {
            client.write_all(b"no JSON\n").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'{');
        }
    }
}
