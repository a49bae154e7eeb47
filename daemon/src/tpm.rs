//! A TPM 2 counter: the few commands that it takes, spoken to `/dev/tpmrm0`, with no library.
//!
//! Owns [`Tpm`]: a counter in the TPM's own memory that only rises, is read and raised under a password that the sealed
//! store holds, and that nobody lowers: a counter that is removed and defined anew begins above every count that this TPM
//! ever reached. Big-endian by hand, after "TPM 2.0 Library, Part 2: Structures" and "Part 3: Commands" (31.3
//! NV_DefineSpace, 31.6 NV_ReadPublic, 31.8 NV_Increment, 31.13 NV_Read). Promises that an answer is read strictly, that no
//! command is waited for longer than [`PATIENCE`], and that nothing but an index of exactly our attributes is used.
//!
//! Does not: define an index over another, remove one, or hide the password from who listens on the bus between
//! processor and TPM (such a one can raise the counter, which closes the store and opens nothing).
//!
//! A character device is taken, and in dev and tests a Unix socket, where swtpm listens.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use mcpist_secret::Secret;
use zeroize::Zeroizing;

/// What a command is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer: well over every one that is asked for.
const MAX_ANSWER: usize = 1024;
/// How often a command is sent again that the TPM was too busy for.
const TRIES: usize = 5;
/// Bytes of the password of a counter.
pub(crate) const AUTH_LEN: usize = 32;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const OWNER: u32 = 0x4000_0001;
const PASSWORD: u32 = 0x4000_0009;
const SHA256: u16 = 0x000b;
const NV_DEFINE_SPACE: u32 = 0x0000_012a;
const NV_INCREMENT: u32 = 0x0000_0134;
const NV_READ: u32 = 0x0000_014e;
const NV_READ_PUBLIC: u32 = 0x0000_0169;
/// A counter that its own password reads and raises, and that a wrong password does not lock.
const ATTRIBUTES: u32 = 0x0204_0014;
/// The TPM sets it with the first count.
const WRITTEN: u32 = 0x2000_0000;
const COUNTER_LEN: u16 = 8;
/// Indices that an owner may define.
pub(crate) const OWNERS_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;

/// Why the counter is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TpmError {
    /// The device.
    #[error("{path}: {reason}")]
    Device {
        /// The device of mcpist.toml.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the TPM does not answer")]
    Slow,
    /// It answered something else than its specification says.
    #[error("the TPM's answer is malformed")]
    Malformed,
    /// There is no counter.
    #[error("the TPM has no counter at index {0:#010x}: it was cleared, or is another TPM")]
    Missing(u32),
    /// What stands at the index is not ours.
    #[error("index {0:#010x} of the TPM is in use for something else")]
    Foreign(u32),
    /// The password of the counter is another.
    #[error("the TPM's counter at index {0:#010x} was not made by this store")]
    Password(u32),
    /// It has no count yet.
    #[error("the TPM's counter has never been raised")]
    Unwritten,
    /// Any other refusal.
    #[error("the TPM refused with code {0:#x}")]
    Refused(u32),
}

/// One counter of one TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tpm {
    device: PathBuf,
    index: u32,
    /// A Unix socket is taken as well.
    socket: bool,
}

impl Tpm {
    /// The counter at `index` behind `device`. Nothing is opened yet.
    pub(crate) fn new(device: PathBuf, index: u32, socket: bool) -> Tpm {
        Tpm {
            device,
            index,
            socket,
        }
    }

    /// Where the counter is.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The count.
    pub(crate) fn read(&self, auth: &Secret) -> Result<u64, TpmError> {
        let body = [COUNTER_LEN.to_be_bytes(), [0, 0]].concat();
        let answer = self.authorised(NV_READ, &[self.index, self.index], auth.expose(), &body)?;
        let mut read = Answer(&answer);
        let parameters = read.u32()?;
        let count = read.sized()?;
        // What is left is the password session's acknowledgement.
        if parameters != 2 + u32::from(COUNTER_LEN) {
            return Err(TpmError::Malformed);
        }
        let count = <[u8; 8]>::try_from(count).map_err(|_| TpmError::Malformed)?;
        Ok(u64::from_be_bytes(count))
    }

    /// Raises the counter by one.
    pub(crate) fn raise(&self, auth: &Secret) -> Result<(), TpmError> {
        let handles = [self.index, self.index];
        self.authorised(NV_INCREMENT, &handles, auth.expose(), &[])
            .map(drop)
    }

    /// Whether an index of our form is there.
    pub(crate) fn public(&self) -> Result<(), TpmError> {
        let command = command(NO_SESSIONS, NV_READ_PUBLIC, &self.index.to_be_bytes());
        let answer = self.send(&command, NO_SESSIONS)?;
        let mut read = Answer(&answer);
        let mut public = Answer(read.sized()?);
        let _name = read.sized()?;
        read.end()?;
        let (index, algorithm, attributes) = (public.u32()?, public.u16()?, public.u32()?);
        let (policy, size) = (public.sized()?, public.u16()?);
        public.end()?;
        if index != self.index {
            return Err(TpmError::Malformed);
        }
        let ours = algorithm == SHA256
            && attributes & !WRITTEN == ATTRIBUTES
            && policy.is_empty()
            && size == COUNTER_LEN;
        ours.then_some(()).ok_or(TpmError::Foreign(self.index))
    }

    /// Makes the counter, under this password.
    pub(crate) fn define(&self, auth: &Secret) -> Result<(), TpmError> {
        let mut public = Vec::with_capacity(14);
        public.extend_from_slice(&self.index.to_be_bytes());
        public.extend_from_slice(&SHA256.to_be_bytes());
        public.extend_from_slice(&ATTRIBUTES.to_be_bytes());
        public.extend_from_slice(&sized(&[]));
        public.extend_from_slice(&COUNTER_LEN.to_be_bytes());
        let body = Zeroizing::new([sized(auth.expose()), sized(&public)].concat());
        // The owner's password is empty on a host whose TPM nobody manages otherwise.
        self.authorised(NV_DEFINE_SPACE, &[OWNER], &[], &body)
            .map(drop)
    }

    /// A command under a password.
    fn authorised(
        &self,
        code: u32,
        handles: &[u32],
        password: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let session = Zeroizing::new(
            [
                &PASSWORD.to_be_bytes()[..],
                &sized(&[]),
                &[0],
                &Zeroizing::new(sized(password)),
            ]
            .concat(),
        );
        let length = u32::try_from(session.len()).map_err(|_| TpmError::Malformed)?;
        let mut rest = Zeroizing::new(Vec::with_capacity(128));
        for handle in handles {
            rest.extend_from_slice(&handle.to_be_bytes());
        }
        rest.extend_from_slice(&length.to_be_bytes());
        rest.extend_from_slice(&session);
        rest.extend_from_slice(body);
        self.send(&command(SESSIONS, code, &rest), SESSIONS)
    }

    /// Sends a command until the TPM has time for it; what comes after the header of its answer.
    fn send(&self, command: &Zeroizing<Vec<u8>>, tag: u16) -> Result<Vec<u8>, TpmError> {
        for _ in 1..TRIES {
            let answer = self.exchange(command)?;
            match body(&answer, tag) {
                Err(Code(code)) if is_busy(code) => {}
                other => return other.map_err(|Code(code)| self.refusal(code)),
            }
        }
        body(&self.exchange(command)?, tag).map_err(|Code(code)| self.refusal(code))
    }

    fn refusal(&self, code: u32) -> TpmError {
        match code {
            MALFORMED => TpmError::Malformed,
            // HANDLE of the first or second handle, or of the first parameter's.
            0x18b | 0x28b => TpmError::Missing(self.index),
            // AUTH_FAIL and BAD_AUTH of the first session.
            0x98e | 0x9a2 => TpmError::Password(self.index),
            // NV_UNINITIALIZED.
            0x14a => TpmError::Unwritten,
            code => TpmError::Refused(code),
        }
    }

    /// One command and its answer, on a thread of its own: a device that hangs costs its caller [`PATIENCE`].
    fn exchange(&self, command: &Zeroizing<Vec<u8>>) -> Result<Vec<u8>, TpmError> {
        let (tell, told) = sync_channel(1);
        let (path, socket, command) = (self.device.clone(), self.socket, command.clone());
        let work = move || {
            // Nobody listens any more where the patience is over.
            let _ = tell.send(talk(&path, socket, &command));
        };
        let device = |reason: String| TpmError::Device {
            path: self.device.clone(),
            reason,
        };
        std::thread::Builder::new()
            .name("tpm".into())
            .spawn(work)
            .map_err(|e| device(e.to_string()))?;
        match told.recv_timeout(PATIENCE) {
            Ok(answer) => answer.map_err(|e| device(e.to_string())),
            Err(_) => Err(TpmError::Slow),
        }
    }
}

fn talk(path: &Path, socket: bool, command: &[u8]) -> std::io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_char_device() {
        let mut device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)?;
        // The driver takes a command by one write and gives its answer by one read.
        device.write_all(command)?;
        answer(&mut device)
    } else if kind.is_socket() && socket {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(command)?;
        answer(&mut stream)
    } else {
        Err(std::io::Error::other("no character device"))
    }
}

/// Reads one answer: as many bytes as its header says.
fn answer(source: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; MAX_ANSWER];
    let mut have = 0;
    loop {
        let expected = match buffer[..have].get(2..6) {
            Some(size) => size.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)),
            None => MAX_ANSWER,
        };
        if have >= expected || have == MAX_ANSWER {
            buffer.truncate(have);
            return Ok(buffer);
        }
        match source.read(&mut buffer[have..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => have += read,
        }
    }
}

fn command(tag: u16, code: u32, rest: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(10 + rest.len()).unwrap_or(u32::MAX);
    let mut out = Zeroizing::new(Vec::with_capacity(10 + rest.len()));
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(rest);
    out
}

/// A TPM2B: bytes behind their length. None of ours is longer than 32.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A response code that is not success.
struct Code(u32);
/// Stands for an answer that is none; no TPM gives it, since bit 31 is reserved.
const MALFORMED: u32 = u32::MAX;

/// What comes after the header of an answer.
fn body(answer: &[u8], tag: u16) -> Result<Vec<u8>, Code> {
    let mut read = Answer(answer);
    let malformed = |_| Code(MALFORMED);
    let found = read.u16().map_err(malformed)?;
    let length = read.u32().map_err(malformed)?;
    let code = read.u32().map_err(malformed)?;
    if usize::try_from(length).ok() != Some(answer.len()) {
        return Err(Code(MALFORMED));
    }
    if code != 0 {
        return Err(Code(code));
    }
    (found == tag)
        .then(|| read.0.to_vec())
        .ok_or(Code(MALFORMED))
}

/// RETRY, YIELDED, TESTING and NV_RATE.
fn is_busy(code: u32) -> bool {
    matches!(code, 0x922 | 0x908 | 0x90a | 0x920)
}

/// Reads an answer, strictly.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TpmError> {
        let (head, rest) = (self.0.split_at_checked(length)).ok_or(TpmError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        let bytes = self.take(2)?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | u16::from(*byte)))
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
    }

    fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn end(&self) -> Result<(), TpmError> {
        self.0.is_empty().then_some(()).ok_or(TpmError::Malformed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
