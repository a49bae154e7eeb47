//! The client of the secret socket, and the ways by which a secret comes to this program.
//!
//! Promises that a secret comes from a terminal without echo, from standard input or from a file opened with
//! O_NOFOLLOW, never from an argument or the environment; that it stands in secret memory from then on; and that it
//! is sent as one frame under a ticket for this one purpose.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, IsTerminal, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use mcpist_core::api::{
    ApiError, BackupMade, CredentialStored, ExportFrom, Exported, Imported, OpenRestore, Purpose,
    Redeemed, ShareOutcome, TicketRequest, VaultInBackup, VaultRestored, path,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, VaultName};
use mcpist_secret::Secret;
use mcpist_secret::frame::{Ticket, write_frame};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use zeroize::Zeroize;

use crate::client::{Client, unreachable};
use crate::error::{Error, Result};

/// Longest secret that is read, in bytes.
const MAX: usize = mcpist_secret::MAX_SECRET;
/// Longest answer of the secret socket, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Sends a secret for `purpose`.
async fn send(client: &Client, purpose: Purpose, payload: &Secret) -> Result<Redeemed> {
    let ticket = ticket(client, purpose).await?;
    let stream = connect(client)?;
    write_frame(&mut &stream, &ticket, payload).map_err(|e| lost(&e))?;
    answer(stream)
}

/// Shows the init token.
pub(crate) async fn init_token(client: &Client, token: &Secret) -> Result<()> {
    match send(client, Purpose::InitToken, token).await? {
        Redeemed::InitToken => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// Gives one share.
pub(crate) async fn share(client: &Client, plan: Digest, share: &Secret) -> Result<ShareOutcome> {
    match send(client, Purpose::Share { plan }, share).await? {
        Redeemed::Share(outcome) => Ok(outcome),
        other => Err(unexpected(other)),
    }
}

/// Stores the payload of a credential.
pub(crate) async fn credential(
    client: &Client,
    purpose: Purpose,
    payload: &Secret,
) -> Result<CredentialStored> {
    match send(client, purpose, payload).await? {
        Redeemed::Credential(stored) => Ok(stored),
        other => Err(unexpected(other)),
    }
}

/// Hands over a new, empty file for a backup.
pub(crate) async fn backup(client: &Client, target: &File) -> Result<BackupMade> {
    match pass(client, Purpose::Backup, target).await? {
        Redeemed::Backup(made) => Ok(made),
        other => Err(unexpected(other)),
    }
}

/// Hands over a backup to verify.
pub(crate) async fn verify_backup(client: &Client, file: &File) -> Result<BackupMade> {
    match pass(client, Purpose::VerifyBackup, file).await? {
        Redeemed::Backup(made) => Ok(made),
        other => Err(unexpected(other)),
    }
}

/// Hands over a backup: [`Purpose::Restore`] or [`Purpose::Drill`].
pub(crate) async fn restore(client: &Client, purpose: Purpose, file: &File) -> Result<OpenRestore> {
    match pass(client, purpose, file).await? {
        Redeemed::Restore(open) => Ok(open),
        other => Err(unexpected(other)),
    }
}

/// Hands over a backup to see what it holds of a vault.
pub(crate) async fn look_into_backup(
    client: &Client,
    file: &File,
    vault: &VaultName,
    replace: bool,
) -> Result<VaultInBackup> {
    let purpose = Purpose::RestoreVault {
        vault: vault.clone(),
        plan: None,
        replace,
    };
    match pass(client, purpose, file).await? {
        Redeemed::VaultInBackup(found) => Ok(found),
        other => Err(unexpected(other)),
    }
}

/// Hands over a backup to restore a vault out of, as `plan` says.
pub(crate) async fn restore_vault(
    client: &Client,
    file: &File,
    vault: &VaultName,
    plan: Digest,
    replace: bool,
) -> Result<VaultRestored> {
    let purpose = Purpose::RestoreVault {
        vault: vault.clone(),
        plan: Some(plan),
        replace,
    };
    match pass(client, purpose, file).await? {
        Redeemed::VaultRestored(done) => Ok(done),
        other => Err(unexpected(other)),
    }
}

/// Hands over an open bundle file.
pub(crate) async fn import(client: &Client, bundle: &File) -> Result<Imported> {
    match pass(client, Purpose::Import, bundle).await? {
        Redeemed::Import(imported) => Ok(imported),
        other => Err(unexpected(other)),
    }
}

/// Hands over an empty file for lines of the audit log.
pub(crate) async fn export(client: &Client, from: ExportFrom, target: &File) -> Result<Exported> {
    match pass(client, Purpose::Export { from }, target).await? {
        Redeemed::Export(exported) => Ok(exported),
        other => Err(unexpected(other)),
    }
}

/// Hands over an open file for `purpose`.
async fn pass(client: &Client, purpose: Purpose, file: &File) -> Result<Redeemed> {
    let ticket = ticket(client, purpose).await?;
    let stream = connect(client)?;
    // A frame is never empty: one zero byte stands for "the descriptor is the payload".
    let mut frame = Vec::with_capacity(37);
    frame.extend_from_slice(ticket.as_bytes());
    frame.extend_from_slice(&1u32.to_be_bytes());
    frame.push(0);
    let descriptors = [file.as_raw_fd()];
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&frame)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    frame.zeroize();
    match sent {
        Ok(37) => answer(stream),
        Ok(_) => Err(lost(&std::io::Error::other("the frame was cut off"))),
        Err(e) => Err(lost(&e.into())),
    }
}

async fn ticket(client: &Client, purpose: Purpose) -> Result<Ticket> {
    let issued: mcpist_core::api::Ticket = client
        .post(path::TICKET, &TicketRequest { purpose })
        .await?;
    Ticket::parse(&issued.ticket).map_err(|e| Error::new("version_mismatch", e))
}

fn connect(client: &Client) -> Result<UnixStream> {
    let socket = client.socket("secret.sock");
    UnixStream::connect(&socket).map_err(|e| unreachable(&socket, &e))
}

fn lost(e: &std::io::Error) -> Error {
    Error::new("connection_lost", format!("the secret socket: {e}"))
}

fn answer(stream: UnixStream) -> Result<Redeemed> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_line(&mut line)
        .map_err(|e| lost(&e))?;
    serde_json::from_str(&line).map_err(|e| lost(&e.into()))
}

fn unexpected(redeemed: Redeemed) -> Error {
    match redeemed {
        Redeemed::Error(e) => e.into(),
        _ => ApiError::new(
            ErrorCode::VersionMismatch,
            "the secret socket answered another question",
        )
        .into(),
    }
}

/// Opens a file to read, and no link.
pub(crate) fn open(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => Error::file(path, "is a symbolic link, and none is followed")
                .next("name the file that it leads to"),
            _ => Error::file(path, e),
        })
}

/// A new file that can be read back; what stands there already is not touched.
pub(crate) fn new_file(path: &Path, mode: u32) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::file(path, e).next("name another file, or move that one away")
            }
            _ => Error::file(path, e),
        })
}

/// Makes a new file of these bytes; what could not be written whole does not stay.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut file = new_file(path, mode)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|e| {
            // What matters is why it could not be written.
            let _ = std::fs::remove_file(path);
            Error::file(path, e)
        })
}

/// Waits until the names of new files in a folder are on its disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::file(folder, e))
}

/// Reads a public file of at most `max` bytes.
pub(crate) fn read_file(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::file(path, e))?;
    if bytes.len() as u64 > max {
        return Err(Error::file(path, format!("longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Reads a secret from a text file.
pub(crate) fn read_secret_file(path: &Path) -> Result<Secret> {
    read_secret(&mut open(path)?).map_err(|e| Error::file(path, e))
}

/// Reads a file that is or may be secret, every byte of it.
pub(crate) fn read_secret_bytes(path: &Path) -> Result<Secret> {
    read_all(&mut open(path)?).map_err(|e| Error::file(path, e))
}

/// Reads a secret to the end of its stream; the line break at its end is not part of it.
fn read_secret(source: &mut impl Read) -> Result<Secret> {
    let mut secret = read_all(source)?;
    let mut len = secret.len();
    for end in [b'\n', b'\r'] {
        if len > 0 && secret.expose()[len - 1] == end {
            len -= 1;
        }
    }
    if len == 0 {
        return Err(Error::usage("the secret is empty"));
    }
    secret.truncate(len);
    Ok(secret)
}

/// Reads a stream to its end, straight into secret memory.
fn read_all(source: &mut impl Read) -> Result<Secret> {
    let mut secret = Secret::zeroed(MAX)?;
    let mut len = 0;
    loop {
        match source.read(&mut secret.expose_mut()[len..])? {
            0 if len == MAX => return Err(Error::usage("the secret is too long")),
            0 => break,
            n => len += n,
        }
    }
    secret.truncate(len);
    Ok(secret)
}

/// Asks for a secret: without echo on a terminal, else all of standard input.
pub(crate) fn ask(prompt: &str) -> Result<Secret> {
    if std::io::stdin().is_terminal() {
        return prompt_for(prompt);
    }
    read_secret(&mut piped()?)
}

/// Every byte of standard input.
pub(crate) fn read_piped() -> Result<Secret> {
    read_all(&mut piped()?)
}

/// Standard input, unbuffered, so that no copy stays behind in its buffer.
fn piped() -> Result<File> {
    let stdin = std::io::stdin();
    Ok(File::from(
        std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?,
    ))
}

/// Asks for a secret that nobody could tell again if it were mistyped: twice on a terminal, else once.
pub(crate) fn ask_twice(prompt: &str) -> Result<Secret> {
    let first = ask(prompt)?;
    if std::io::stdin().is_terminal() && !first.ct_eq(prompt_for("Once more: ")?.expose()) {
        return Err(Error::usage("the two are not the same"));
    }
    Ok(first)
}

/// Asks on the terminal, whatever standard input is.
pub(crate) fn prompt_for(prompt: &str) -> Result<Secret> {
    let mut typed = rpassword::prompt_password(prompt)
        .map_err(|e| Error::new("no_terminal", format!("cannot ask for a secret: {e}")))?
        .into_bytes();
    if typed.is_empty() {
        return Err(Error::usage("the secret is empty"));
    }
    Ok(Secret::take(&mut typed)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_a_secret() {
        for (given, kept) in [
            ("abc\n", "abc"),
            ("abc\r\n", "abc"),
            ("abc", "abc"),
            ("abc\n\n", "abc\n"),
        ] {
            assert_eq!(
                read_secret(&mut given.as_bytes()).unwrap().expose(),
                kept.as_bytes()
            );
        }
        assert!(read_secret(&mut &b"\n"[..]).is_err());
        assert!(read_secret(&mut vec![b'x'; MAX + 1].as_slice()).is_err());
    }

    #[test]
    fn a_link_is_not_followed_and_a_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        create(&file, 0o600, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_secret_file(&link).is_err());
        assert!(create(&file, 0o600, b"two").is_err());
        assert_eq!(read_secret_file(&file).unwrap().expose(), b"one");
    }
}
