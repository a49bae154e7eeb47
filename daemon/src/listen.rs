//! Stage 1: who is at the other end of a client connection.
//!
//! Owns the MCP listeners and [`Peer`], the only place that makes [`PeerEvidence`]. A peer is asked for its kernel
//! credentials once, at accept; each request then begins with fresh evidence, so that a principal who was taken away
//! is gone with the next request and not with the next connection. Promises that nobody whom no principal stands for holds
//! a user's place. Does not know what a principal may see.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use mcpist_core::ids::PrincipalName;
use mcpist_core::principal::{Identities, PeerEvidence};
use mcpist_wire::stream::split;
use tokio::net::{UnixListener, UnixStream};

use crate::config::Listener;
use crate::connections::{Connections, Held, Reads, User, hung_up};
use crate::gateway::ClientGateway;
use crate::house::House;
use crate::refusals::refused;

/// Of the places of users, how many as much again there are for peers of whom nobody can say who they are.
const UNKNOWN: usize = 4;

/// The places of client connections, over all listeners.
///
/// While the store is open, a user whom no principal stands for is turned away. While it is sealed nobody is known: who
/// comes then gets one of a few places that are nobody else's, and keeps it, so that whoever fills those takes none from
/// the users that come once it is open.
#[derive(Clone)]
pub(crate) struct Places {
    known: Arc<Connections>,
    unknown: Arc<Connections>,
}

impl Places {
    /// At most `all` connections of users, `of_one` of each, and a quarter as many of the unknown.
    pub(crate) fn new(all: usize, of_one: usize) -> Self {
        let unknown = |places: usize| (places / UNKNOWN).max(1);
        Self {
            known: Connections::new(all, of_one),
            unknown: Connections::new(unknown(all), unknown(of_one)),
        }
    }

    /// A place for `peer`. `identities` are those of the open store.
    fn admit(&self, peer: &Peer, identities: Option<&Identities>) -> Result<Held, Refused> {
        let places = match (&peer.0, identities) {
            (Kind::Fixed(_), _) => &self.known,
            (Kind::Unix { .. }, None) => &self.unknown,
            (Kind::Unix { .. }, Some(identities)) => {
                identities
                    .identify(peer.evidence())
                    .ok_or(Refused::Unidentified)?;
                &self.known
            }
        };
        places.admit(peer.user()).ok_or(Refused::TooMany)
    }
}

/// Why a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Unidentified,
    TooMany,
}

impl Refused {
    /// What the client reads before its connection is closed.
    fn line(self) -> &'static [u8] {
        match self {
            Refused::Unidentified => {
                b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"unidentified: no principal has this user's uid; ask an officer to add it\",\"data\":{\"code\":\"unidentified\"}}}\n"
            }
            Refused::TooMany => {
                b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"busy: this user, or all together, have as many connections as may be; close one\",\"data\":{\"code\":\"busy\"}}}\n"
            }
        }
    }
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

    fn uid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Unix { uid, .. } => Some(*uid),
            Kind::Fixed(_) => None,
        }
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

/// Serves MCP clients on one listener until the process ends.
pub(crate) async fn serve(
    house: Arc<House>,
    listener: UnixListener,
    config: Listener,
    places: Places,
) {
    let name = config.path.display().to_string();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of descriptors, most likely: the next accept would fail at once as well.
                log::warn!("{name}: accept failed: {}", e.kind());
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(peer) = Peer::of(&stream, config.principal.as_ref()) else {
            refused(&house, &name, None);
            continue;
        };
        let live = house.live();
        let held = match places.admit(&peer, live.as_ref().map(|live| &live.identities)) {
            Ok(held) => held,
            Err(why) => {
                refused(&house, &name, peer.uid());
                // The socket is new: it has room for a line, or the peer is gone.
                let _ = stream.try_write(why.line());
                continue;
            }
        };
        let limits = house.stream_limits();
        let idle = house.config.idle;
        let share = house.lines.share(peer.user());
        let gateway = ClientGateway::new(Arc::clone(&house), peer);
        tokio::spawn(async move {
            let _held = held;
            let reads = Reads::default();
            let parts = hung_up(&stream).and_then(|gone| Ok((split(stream)?, gone)));
            let served = match parts {
                Ok(((read, write), gone)) => tokio::select! {
                    served = mcpist_mcp::serve(reads.of(read), write, gone, gateway, limits, &share) => served,
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
pub(crate) mod tests {
    use mcpist_core::principal::{IdentityRule, PrincipalRecord};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;

    pub(crate) fn unix(uid: u32) -> Peer {
        Peer(Kind::Unix {
            uid,
            gid: uid,
            pid: 1,
        })
    }

    /// One principal for each of `uids`.
    fn identities(uids: &[u32]) -> Identities {
        let record = |uid: &u32| PrincipalRecord {
            name: PrincipalName::parse(&format!("p{uid}")).unwrap(),
            groups: Vec::new(),
            rules: vec![IdentityRule::Uid(*uid)],
        };
        Identities::new(uids.iter().map(record), false)
    }

    #[test]
    fn who_is_nobody_holds_no_place_while_the_store_is_open() {
        let places = Places::new(4, 2);
        let open = identities(&[1]);
        for uid in 2..100 {
            let refused = places.admit(&unix(uid), Some(&open)).err();
            assert_eq!(refused, Some(Refused::Unidentified));
        }
        let _held = [(); 2].map(|()| places.admit(&unix(1), Some(&open)).ok().unwrap());
        let refused = places.admit(&unix(1), Some(&open)).err();
        assert_eq!(refused, Some(Refused::TooMany));
    }

    #[test]
    fn whoever_comes_while_it_is_sealed_takes_no_place_of_a_user() {
        let places = Places::new(8, 4);
        let held: Vec<_> = (0..100)
            .filter_map(|uid| places.admit(&unix(uid), None).ok())
            .collect();
        assert_eq!(held.len(), 2);
        let open = identities(&[1, 2]);
        let users = [1, 1, 1, 1, 2, 2, 2, 2].map(|uid| places.admit(&unix(uid), Some(&open)).ok());
        assert!(users.iter().all(Option::is_some));
        drop(held);
        assert!(places.admit(&unix(7), None).is_ok());
    }

    #[tokio::test]
    async fn a_user_at_the_bound_gets_a_line_and_others_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = format!("state = {:?}\nrun = {:?}\n", at("state"), at("run"));
        std::fs::write(at("mcpist.toml"), text).unwrap();
        let house = Arc::new(House::new(Config::load(&at("mcpist.toml"), true).unwrap()));
        let places = Places::new(4, 1);
        for name in ["ada", "bob"] {
            let config = Listener {
                path: at(name),
                principal: Some(PrincipalName::parse(name).unwrap()),
            };
            let listener = bind(&at(name), 0o600).unwrap();
            tokio::spawn(serve(Arc::clone(&house), listener, config, places.clone()));
        }
        let mut first = UnixStream::connect(at("ada")).await.unwrap();
        let mut second = UnixStream::connect(at("ada")).await.unwrap();
        let mut told = Vec::new();
        second.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, Refused::TooMany.line());
        for why in [Refused::TooMany, Refused::Unidentified] {
            assert!(serde_json::from_slice::<serde_json::Value>(why.line()).is_ok());
        }
        // The one that was there, and somebody else's, are answered.
        let mut other = UnixStream::connect(at("bob")).await.unwrap();
        for client in [&mut first, &mut other] {
            client.write_all(b"no JSON\n").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'{');
        }
    }
}
