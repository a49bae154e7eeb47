//! Blobs beside the stream: a module's code goes to the runner as a sealed memfd, passed by descriptor.
//!
//! The channel is a SOCK_SEQPACKET socket: one message is one blob, 32 bytes of digest and one descriptor.
//! [`Blob::receive`] promises that what it returns cannot change any more and has the digest that was asked
//! for: first the seals are checked, then the length, then the bytes are hashed, in this order, so that nobody
//! who still holds the descriptor can change the bytes after the look. Every descriptor of a message is owned
//! before the message is judged, and closed when it is refused.
//!
//! The calls block, for as long as the socket does; reading and hashing takes the time of the blob. Kind `http`
//! brings no blobs; the kinds with code do.
#![allow(unsafe_code)] // Adoption of passed file descriptors: the kernel hands them over as numbers.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use mcpist_core::ids::Digest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use ring::digest::{Context, SHA256};

/// What must be sealed: nothing may grow, shrink or write it, and nobody may change that.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);
/// Descriptors for which a message's buffer has room: as many as the kernel lets into one message
/// (SCM_MAX_FD). With less room it cuts the list, and those that it did install would be lost open.
const ROOM: usize = 253;
const CHUNK: usize = 64 * 1024;

/// Bytes that nobody can change, and their digest.
#[derive(Debug)]
pub struct Blob {
    file: std::fs::File,
    digest: Digest,
    length: u64,
}

/// Why there is no blob. The descriptors are closed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The kernel refused.
    #[error("the blob's descriptor could not be used: {0}")]
    Io(#[from] io::Error),
    /// The other end closed the channel.
    #[error("the other end closed the channel; make a new link")]
    End,
    /// Not 32 bytes and one descriptor.
    #[error("the message is no blob: it has {bytes} bytes and {descriptors} descriptors")]
    Message {
        /// Bytes of the message.
        bytes: usize,
        /// Its descriptors.
        descriptors: usize,
    },
    /// The descriptor can still be changed by somebody, or is no memfd at all.
    #[error("the blob is not sealed against every change; pass a memfd with all seals")]
    NotSealed,
    /// Longer than the reader takes.
    #[error("the blob has {length} bytes, over the limit of {limit}")]
    TooLong {
        /// Bytes that it has.
        length: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The bytes are others than announced.
    #[error("the blob's bytes are not those of {0}; import the bundle again")]
    Digest(Digest),
}

impl From<Errno> for BlobError {
    fn from(error: Errno) -> BlobError {
        BlobError::Io(error.into())
    }
}

/// A new channel: one end for mcpistd, one for the runner.
///
/// # Errors
/// The kernel gives no sockets.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        flags,
    )?)
}

impl Blob {
    /// Copies `bytes` into a memfd and seals it.
    ///
    /// # Errors
    /// [`BlobError::Io`]: no memory, or no descriptors.
    pub fn new(bytes: &[u8]) -> Result<Blob, BlobError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"mcpist-blob", flags)?);
        file.write_all(bytes)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(Blob {
            file,
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
        })
    }

    /// Takes a descriptor that somebody else made, when it is sealed, at most `limit` bytes long and has the
    /// digest `expected`.
    ///
    /// # Errors
    /// [`BlobError`]; the descriptor is closed.
    pub fn adopt(fd: OwnedFd, expected: &Digest, limit: u64) -> Result<Blob, BlobError> {
        let file = std::fs::File::from(fd);
        // A file that cannot be sealed answers EINVAL.
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| BlobError::NotSealed)?;
        if !SealFlag::from_bits_retain(seals).contains(SEALS) {
            return Err(BlobError::NotSealed);
        }
        let length = file.metadata()?.len();
        if length > limit {
            return Err(BlobError::TooLong { length, limit });
        }
        if hash(&file, length)? != *expected {
            return Err(BlobError::Digest(*expected));
        }
        Ok(Blob {
            file,
            digest: *expected,
            length,
        })
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Passes the blob through `channel`; this end keeps its own.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn send(&self, channel: BorrowedFd<'_>) -> Result<(), BlobError> {
        let parts = [IoSlice::new(self.digest.as_bytes())];
        let descriptors = [self.file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(
            channel.as_raw_fd(),
            &parts,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Takes the next blob from `channel`, of at most `limit` bytes, and verifies it.
    ///
    /// # Errors
    /// [`BlobError`]; after all but [`BlobError::End`] and [`BlobError::Io`] the channel is good for the next.
    pub fn receive(channel: BorrowedFd<'_>, limit: u64) -> Result<Blob, BlobError> {
        // One byte more than a blob's message has, so that a longer one is seen.
        let mut bytes = [0; size_of::<Digest>() + 1];
        let (count, descriptors) = receive_message(channel, &mut bytes)?;
        let announced = <[u8; size_of::<Digest>()]>::try_from(&bytes[..count]).ok();
        let found = descriptors.len();
        match (announced, <[OwnedFd; 1]>::try_from(descriptors)) {
            (Some(digest), Ok([fd])) => Blob::adopt(fd, &Digest::from_bytes(digest), limit),
            _ if count == 0 && found == 0 => Err(BlobError::End),
            _ => Err(BlobError::Message {
                bytes: count,
                descriptors: found,
            }),
        }
    }
}

impl AsFd for Blob {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// One message and every descriptor that came with it.
fn receive_message(
    channel: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), BlobError> {
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; ROOM]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut owned = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // Needed: SCM_RIGHTS gives descriptors as numbers, and only `from_raw_fd` makes them owned.
            // SAFETY: the kernel has just installed these descriptors for this message; no one else in the
            // process knows the numbers, each occurs once, and each is wrapped once.
            owned.extend(
                numbers
                    .into_iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
            );
        }
    }
    Ok((message.bytes, owned))
}

fn hash(file: &std::fs::File, length: u64) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        // The seals keep the length, so an early end is an error of the kernel's.
        let count = file.read_at(&mut chunk, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        context.update(&chunk[..count]);
        at += count as u64;
    }
    let mut digest = [0; size_of::<Digest>()];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Digest::from_bytes(digest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    /// A memfd with `bytes` and these seals.
    fn memfd(bytes: &[u8], seals: SealFlag) -> OwnedFd {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"test", flags).unwrap());
        file.write_all(bytes).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        file.into()
    }

    fn send_raw(channel: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        let parts = [IoSlice::new(bytes)];
        sendmsg::<()>(channel.as_raw_fd(), &parts, rights, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn a_blob_arrives_with_its_bytes_and_cannot_be_changed() {
        let (ours, theirs) = channel().unwrap();
        let bytes = vec![7; 3 * CHUNK + 1];
        let sent = Blob::new(&bytes).unwrap();
        sent.send(ours.as_fd()).unwrap();
        Blob::new(b"").unwrap().send(ours.as_fd()).unwrap();
        let got = Blob::receive(theirs.as_fd(), LIMIT).unwrap();
        assert_eq!(
            (got.digest(), got.length()),
            (&Digest::of(&bytes), bytes.len() as u64)
        );
        assert!(got.file.write_at(b"x", 0).is_err());
        assert!(sent.file.set_len(1).is_err());
        assert_eq!(Blob::receive(theirs.as_fd(), LIMIT).unwrap().length(), 0);
        drop(ours);
        assert!(matches!(
            Blob::receive(theirs.as_fd(), LIMIT),
            Err(BlobError::End)
        ));
    }

    #[test]
    fn every_seal_is_needed() {
        let digest = Digest::of(b"code");
        for seal in SEALS.iter() {
            let adopted = Blob::adopt(memfd(b"code", SEALS.difference(seal)), &digest, LIMIT);
            assert!(
                matches!(adopted, Err(BlobError::NotSealed)),
                "without {seal:?}"
            );
        }
        assert!(Blob::adopt(memfd(b"code", SEALS), &digest, LIMIT).is_ok());
    }

    #[test]
    fn what_cannot_be_sealed_is_refused() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let adopted = Blob::adopt(null.into(), &Digest::of(b""), LIMIT);
        assert!(matches!(adopted, Err(BlobError::NotSealed)));
    }

    #[test]
    fn other_bytes_than_announced_are_refused() {
        let adopted = Blob::adopt(memfd(b"code", SEALS), &Digest::of(b"Code"), LIMIT);
        assert!(matches!(adopted, Err(BlobError::Digest(_))));
    }

    #[test]
    fn more_bytes_than_the_limit_are_refused_unread() {
        let adopted = Blob::adopt(memfd(b"code", SEALS), &Digest::of(b"code"), 3);
        assert!(matches!(
            adopted,
            Err(BlobError::TooLong {
                length: 4,
                limit: 3
            })
        ));
    }

    #[test]
    fn a_message_that_is_no_blob_is_refused_and_its_descriptors_are_closed() {
        let (ours, theirs) = channel().unwrap();
        let (witness, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        let digest = [1; 32];
        send_raw(&ours, &digest, &[]);
        send_raw(&ours, &digest, &[passed.as_fd(), passed.as_fd()]);
        send_raw(&ours, &digest, &[passed.as_fd(); ROOM]);
        send_raw(&ours, &digest[1..], &[passed.as_fd()]);
        send_raw(&ours, &[1; 33], &[passed.as_fd()]);
        for expected in [(32, 0), (32, 2), (32, ROOM), (31, 1), (33, 1)] {
            match Blob::receive(theirs.as_fd(), LIMIT) {
                Err(BlobError::Message { bytes, descriptors }) => {
                    assert_eq!((bytes, descriptors), expected);
                }
                other => panic!("{expected:?}: {other:?}"),
            }
        }
        drop(passed);
        // The last copy is gone: the witness reads the end.
        let mut end = [0];
        assert_eq!(io::Read::read(&mut &witness, &mut end).unwrap(), 0);
        // And the channel is still good.
        Blob::new(b"code").unwrap().send(ours.as_fd()).unwrap();
        assert!(Blob::receive(theirs.as_fd(), LIMIT).is_ok());
    }
}
