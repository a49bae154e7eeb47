//! The socket that mcpistd passed on, in development. `unsafe` is allowed here and nowhere else in
//! this crate.
//!
//! Owns: [`socket`]. Promises: the descriptor is open, is a Unix stream socket, and does not pass on
//! to a child. Does not: connect.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage};
use nix::sys::socket::{getsockname, getsockopt, sockopt};

/// Takes over the inherited socket with this number. Called once, before anything else opens a
/// descriptor.
///
/// # Errors
/// When the number is no open descriptor of a Unix stream socket.
pub(crate) fn socket(number: RawFd) -> io::Result<UnixStream> {
    let wrong = |what: &str| io::Error::other(format!("descriptor {number} {what}"));
    let link = format!("/proc/self/fd/{number}");
    if number < 0 || std::fs::read_link(link).is_err() {
        return Err(wrong("is not open; mcpistd passes its number with --fd"));
    }
    // Why needed: an inherited descriptor exists as a number only, and std gives no safe way to own it.
    // SAFETY: it was just seen to be open. This runs once, at the start of main, before anything else
    // of this process opened or owns a descriptor, so nobody else closes it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    let kind = getsockopt(&owned.as_fd(), sockopt::SockType);
    let family = getsockname::<SockaddrStorage>(owned.as_raw_fd()).map(|a| a.family());
    if kind != Ok(SockType::Stream) || family != Ok(Some(AddressFamily::Unix)) {
        return Err(wrong("is no Unix stream socket"));
    }
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(UnixStream::from(owned))
}
