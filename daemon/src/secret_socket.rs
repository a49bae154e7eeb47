//! The secret socket: frames with a ticket and a secret, or a ticket and a descriptor (and a payload of one byte that is not looked at).
//!
//! Owns the way of a secret into secret memory: the payload is read from the socket into the arena and nowhere else.
//! Promises that a frame without a good ticket costs one bounded read and nothing more, that a ticket is used up by the first
//! frame that names it, that a connection which sends no frame is cut off and keeps no other user's out meanwhile, and that
//! a descriptor is one of a regular file of the peer's own opening, never a path.
//! Each connection brings one frame and gets one line of JSON back. Does not decide roles: the ticket's issue did.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_core::api::{ApiError, Redeemed};
use mcpist_core::error::ErrorCode;
use mcpist_secret::Secret;
use mcpist_secret::frame::{HEADER_LEN, Header};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::net::UnixListener;

pub(crate) use mcpist_core::api::Purpose;

use crate::clock::steady_seconds;
use crate::connections::{Connections, User};
use crate::house::House;
use crate::keeper::restore::Aim;
use crate::keeper::{KeeperHandle, export_error, lock};
use crate::refusals::refused;

/// Connections served at once; each holds one thread of the blocking pool, and a payload's secret memory while it sends.
const AT_ONCE: usize = 8;
/// Of them, those of one user: a share finds a place whatever another user's connections wait for.
const OF_ONE_USER: usize = 2;
/// A peer whose whole frame is not there after this time, or that does not read for as long, is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came in: an admitted frame.
struct Frame {
    uid: u32,
    purpose: Purpose,
    payload: Secret,
    descriptor: Option<OwnedFd>,
}

/// Serves the socket until the process ends.
pub(crate) async fn serve(house: Arc<House>, keeper: KeeperHandle, listener: UnixListener) {
    let connections = Connections::new(AT_ONCE, OF_ONE_USER);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                log::warn!("secret socket: accept failed: {}", e.kind());
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(uid) = stream.peer_cred().map(|cred| cred.uid()) else {
            continue;
        };
        let Some(held) = connections.admit(User::Uid(uid)) else {
            refused(&house, "secret.sock", Some(uid));
            busy(&stream);
            continue;
        };
        let (house, keeper) = (Arc::clone(&house), keeper.clone());
        tokio::spawn(async move {
            let _held = held;
            connection(&house, &keeper, stream, uid).await;
        });
    }
}

/// Says that there is no place. The socket is new: it has room for a line, or the peer is gone.
fn busy(stream: &tokio::net::UnixStream) {
    let error = ApiError::new(
        ErrorCode::Busy,
        "this user, or all together, send as many secrets as may be at once",
    );
    if let Ok(line) = line(&Redeemed::Error(error)) {
        let _ = stream.try_write(&line);
    }
}

async fn connection(
    house: &Arc<House>,
    keeper: &KeeperHandle,
    stream: tokio::net::UnixStream,
    uid: u32,
) {
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let tickets = Arc::clone(house);
    let read = tokio::task::spawn_blocking(move || {
        let frame = receive(&stream, uid, &tickets, Instant::now() + PATIENCE);
        (stream, frame)
    });
    let Ok((stream, frame)) = read.await else {
        return;
    };
    let redeemed = match frame {
        Ok(frame) => redeem(house, keeper, frame)
            .await
            .unwrap_or_else(Redeemed::Error),
        Err(e) => Redeemed::Error(e),
    };
    if let Redeemed::Error(e) = &redeemed {
        log::warn!("secret socket: uid {uid}: {}", e.code);
    }
    let _ = tokio::task::spawn_blocking(move || answer(&stream, &redeemed)).await;
}

fn answer(mut stream: &UnixStream, redeemed: &Redeemed) -> std::io::Result<()> {
    stream.write_all(&line(redeemed)?)
}

fn line(redeemed: &Redeemed) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(redeemed)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one frame, which must be there by `until`. One without a good ticket holds its payload, at most 64 KiB of secret memory, until it is read.
fn receive(
    stream: &UnixStream,
    uid: u32,
    house: &House,
    until: Instant,
) -> Result<Frame, ApiError> {
    let broken = |_| ApiError::new(ErrorCode::RequestInvalid, "the frame was cut off");
    stream.set_nonblocking(false).map_err(broken)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    let (header, descriptor) = receive_header(stream, until).map_err(broken)?;
    let invalid =
        |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::RequestInvalid, &e.to_string());
    let header = Header::parse(&header).map_err(|e| invalid(&e))?;
    let redeemed = lock(&house.tickets).redeem(header.ticket(), uid, steady_seconds());
    // Read in any case: an answer that comes before the peer has sent all is lost with the connection.
    let mut payload = header.payload().map_err(|e| invalid(&e))?;
    read_until(stream, payload.expose_mut(), until).map_err(broken)?;
    let purpose = redeemed.map_err(|e| {
        log::warn!("secret socket: uid {uid}: {e}");
        ApiError::of(ErrorCode::TicketInvalid)
    })?;
    Ok(Frame {
        uid,
        purpose,
        payload,
        descriptor,
    })
}

/// The header's bytes, and the descriptor that came with the first of them.
fn receive_header(
    stream: &UnixStream,
    until: Instant,
) -> std::io::Result<([u8; HEADER_LEN], Option<OwnedFd>)> {
    let mut header = [0; HEADER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    wait_until(stream, until)?;
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut header)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.by_ref().flatten().next();
    read_until(stream, &mut header[received.bytes..], until)?;
    Ok((header, descriptor))
}

/// Lets the next read wait no longer than the frame may take.
fn wait_until(stream: &UnixStream, until: Instant) -> std::io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))
}

fn read_until(
    mut stream: &UnixStream,
    mut buffer: &mut [u8],
    until: Instant,
) -> std::io::Result<()> {
    while !buffer.is_empty() {
        wait_until(stream, until)?;
        match stream.read(buffer) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = &mut buffer[read..],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn redeem(
    house: &Arc<House>,
    keeper: &KeeperHandle,
    frame: Frame,
) -> Result<Redeemed, ApiError> {
    let Frame {
        uid,
        purpose,
        payload,
        descriptor,
    } = frame;
    match purpose {
        Purpose::InitToken => keeper
            .ask(move |k| k.show_init_token(uid, &payload))
            .await
            .map(|()| Redeemed::InitToken),
        Purpose::Share { plan } => keeper
            .ask(move |k| k.submit_share(uid, &plan, &payload))
            .await
            .map(Redeemed::Share),
        Purpose::Credential {
            vault,
            name,
            owner,
            kind,
            hosts,
            expiry,
        } => {
            let spec = crate::keeper::credentials::Spec {
                vault,
                name,
                owner,
                kind,
                hosts,
                expiry,
            };
            keeper
                .ask(move |k| k.put_credential(uid, spec, &payload))
                .await
                .map(Redeemed::Credential)
        }
        Purpose::Import => {
            let source = passed(descriptor)?;
            keeper.import(uid, source).await.map(Redeemed::Import)
        }
        Purpose::Backup => {
            let target = passed(descriptor)?;
            keeper.backup(uid, target).await.map(Redeemed::Backup)
        }
        Purpose::VerifyBackup => {
            let file = passed(descriptor)?;
            keeper.verify_backup(file).await.map(Redeemed::Backup)
        }
        Purpose::Restore => {
            let file = passed(descriptor)?;
            let open = keeper.begin_restore(uid, file, Aim::Restore).await;
            open.map(Redeemed::Restore)
        }
        Purpose::Drill => {
            let file = passed(descriptor)?;
            let open = keeper.begin_restore(uid, file, Aim::Drill).await;
            open.map(Redeemed::Restore)
        }
        Purpose::RestoreVault {
            vault,
            plan: None,
            replace,
        } => {
            let file = passed(descriptor)?;
            let found = keeper.look_into_backup(file, vault, replace).await;
            found.map(Redeemed::VaultInBackup)
        }
        Purpose::RestoreVault {
            vault,
            plan: Some(plan),
            replace,
        } => {
            let file = passed(descriptor)?;
            let restored = keeper.restore_vault(uid, file, vault, plan, replace).await;
            restored.map(Redeemed::VaultRestored)
        }
        Purpose::Export { from } => {
            let (house, target) = (Arc::clone(house), passed(descriptor)?);
            let folder = house.config.audit();
            let exported = tokio::task::spawn_blocking(move || {
                house.audit.export(&folder, &from, &target, uid)
            });
            match exported.await {
                Ok(exported) => exported.map(Redeemed::Export).map_err(|e| export_error(&e)),
                Err(_) => Err(ApiError::of(ErrorCode::Internal)),
            }
        }
    }
}

/// The file that came with a ticket for one.
fn passed(descriptor: Option<OwnedFd>) -> Result<File, ApiError> {
    descriptor.map(File::from).ok_or_else(|| {
        ApiError::new(
            ErrorCode::RequestInvalid,
            "no file descriptor came with the ticket",
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;
    use crate::listen::bind;

    fn house(folder: &std::path::Path) -> Arc<House> {
        let at = |name: &str| folder.join(name);
        let text = format!("state = {:?}\nrun = {:?}\n", at("state"), at("run"));
        std::fs::write(at("mcpist.toml"), text).unwrap();
        let config = Config::load(&at("mcpist.toml"), true).unwrap();
        crate::make_folders(&config).unwrap();
        Arc::new(House::new(config))
    }

    #[test]
    fn a_connection_that_sends_nothing_or_half_a_frame_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let house = house(folder.path());
        for sent in [&b""[..], &[0; HEADER_LEN - 1]] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            Write::write_all(&mut theirs, sent).unwrap();
            let until = Instant::now() + Duration::from_millis(1);
            let refused = receive(&ours, 7, &house, until).err().unwrap();
            assert_eq!(refused.code, ErrorCode::RequestInvalid);
        }
    }

    #[tokio::test]
    async fn a_user_at_the_bound_is_told_so_and_a_place_is_given_back() {
        let _ = mcpist_secret::memory::init(4 << 20, mcpist_secret::memory::Policy::Warn);
        let folder = tempfile::tempdir().unwrap();
        let house = house(folder.path());
        let keeper = crate::keeper::start(Arc::clone(&house)).unwrap();
        let path = folder.path().join("secret.sock");
        let listener = bind(&path, 0o600).unwrap();
        tokio::spawn(serve(house, keeper, listener));
        let connect = || tokio::net::UnixStream::connect(&path);
        let mut silent = Vec::new();
        for _ in 0..OF_ONE_USER {
            silent.push(connect().await.unwrap());
        }
        let code = async |mut stream: tokio::net::UnixStream| {
            let mut told = Vec::new();
            stream.read_to_end(&mut told).await.unwrap();
            match serde_json::from_slice(&told).unwrap() {
                Redeemed::Error(e) => e.code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(code(connect().await.unwrap()).await, ErrorCode::Busy);
        // One of them goes, and its place serves the next.
        let mut ended = silent.pop().unwrap();
        ended.shutdown().await.unwrap();
        assert_eq!(code(ended).await, ErrorCode::RequestInvalid);
        loop {
            let mut next = connect().await.unwrap();
            // Turned away, it may be closed already.
            let _ = next.shutdown().await;
            match code(next).await {
                // Its answer comes before its place.
                ErrorCode::Busy => {}
                other => break assert_eq!(other, ErrorCode::RequestInvalid),
            }
        }
    }
}
