//! The frame that carries a secret into a process: `ticket[32] | length u32 BE | payload`.
//!
//! Owns: the bytes of the frame. What a ticket stands for and how long it is good is decided by
//! whoever issued it.
//! Promises: the payload is read straight into secret memory, after its length was checked; one
//! frame is read and not a byte more.
//! Does not promise: a reader that buffers keeps its own copy, so give these functions the socket
//! itself. An async reader reads [`HEADER_LEN`] bytes, calls [`Header::parse`], and reads into
//! [`Header::payload`]'s `expose_mut()`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::memory::{MAX_SECRET, MemoryError};
use crate::secret::{Secret, random_bytes};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 36;

/// A single-use permission to send one frame: 32 random bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Ticket([u8; 32]);

/// A text that is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a ticket: 64 hexadecimal digits are expected, as the admin socket gave them")]
pub struct NotATicket;

impl Ticket {
    /// A fresh ticket.
    ///
    /// # Errors
    /// [`MemoryError::Random`].
    pub fn random() -> Result<Ticket, MemoryError> {
        random_bytes().map(Ticket)
    }

    /// A ticket from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Ticket {
        Ticket(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits, of either case.
    ///
    /// # Errors
    /// [`NotATicket`], which does not repeat the text.
    pub fn parse(text: &str) -> Result<Ticket, NotATicket> {
        let (digits, rest) = text.as_bytes().as_chunks::<2>();
        if digits.len() != 32 || !rest.is_empty() {
            return Err(NotATicket);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NotATicket);
        let mut ticket = Ticket([0; 32]);
        for (byte, [high, low]) in ticket.0.iter_mut().zip(digits) {
            *byte = (value(*high)? << 4 | value(*low)?) as u8;
        }
        Ok(ticket)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_text(&self) -> String {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
        self.0
            .iter()
            .flat_map(|&byte| [digit(byte >> 4), digit(byte)])
            .collect()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(redacted)")
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Ticket) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Ticket {}

impl Hash for Ticket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Why a frame could not be read.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer closed or the read failed inside the frame.
    #[error("the secret's frame was cut off or unreadable: {0}")]
    Io(#[from] io::Error),
    /// A length that no secret has.
    #[error("a frame of {len} bytes is refused; send 1 to {MAX_SECRET} bytes")]
    Length {
        /// The length that the frame announced, in bytes.
        len: u32,
    },
    /// No room in secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The part before the payload, with its length already checked.
#[derive(Debug)]
pub struct Header {
    ticket: Ticket,
    len: usize,
}

impl Header {
    /// Reads the first [`HEADER_LEN`] bytes of a frame.
    ///
    /// # Errors
    /// [`FrameError::Length`] for 0 or more than [`MAX_SECRET`] bytes.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let mut ticket = Ticket([0; 32]);
        let mut announced = [0; 4];
        ticket.0.copy_from_slice(&bytes[..32]);
        announced.copy_from_slice(&bytes[32..]);
        let announced = u32::from_be_bytes(announced);
        match usize::try_from(announced) {
            Ok(len) if (1..=MAX_SECRET).contains(&len) => Ok(Header { ticket, len }),
            _ => Err(FrameError::Length { len: announced }),
        }
    }

    /// The ticket, to be checked before the payload is read.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Secret memory of the payload's length, to be read into.
    ///
    /// # Errors
    /// [`FrameError::Memory`] when the arena is full.
    pub fn payload(&self) -> Result<Secret, FrameError> {
        Ok(Secret::zeroed(self.len)?)
    }
}

/// Writes one frame.
///
/// # Errors
/// Those of the writer, and `InvalidInput` for an empty payload, which no reader takes.
pub fn write_frame(w: &mut impl Write, ticket: &Ticket, payload: &Secret) -> io::Result<()> {
    let len = match u32::try_from(payload.len()) {
        Ok(len) if len > 0 => len,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an empty secret is not sent",
            ));
        }
    };
    w.write_all(&ticket.0)?;
    w.write_all(&len.to_be_bytes())?;
    w.write_all(payload.expose())?;
    w.flush()
}

/// Reads one frame, the payload straight into secret memory.
///
/// # Errors
/// [`FrameError`]; after one, the stream is of no further use.
pub fn read_frame(r: &mut impl Read) -> Result<(Ticket, Secret), FrameError> {
    let mut header = [0; HEADER_LEN];
    r.read_exact(&mut header)?;
    let header = Header::parse(&header)?;
    let mut payload = header.payload()?;
    r.read_exact(payload.expose_mut())?;
    Ok((header.ticket, payload))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frame(len: u32, payload: &[u8]) -> Vec<u8> {
        [&[0x11; 32][..], &len.to_be_bytes(), payload].concat()
    }

    #[test]
    fn the_bytes_are_ticket_length_payload() {
        let mut bytes = Vec::new();
        let payload = Secret::copy_of(b"s3cr3t").unwrap();
        write_frame(&mut bytes, &Ticket::from_bytes([0x11; 32]), &payload).unwrap();
        assert_eq!(bytes, frame(6, b"s3cr3t"));
    }

    #[test]
    fn a_frame_is_read_and_not_a_byte_more() {
        let bytes = [frame(6, b"s3cr3t"), b"next".to_vec()].concat();
        let mut reader = &bytes[..];
        let (ticket, payload) = read_frame(&mut reader).unwrap();
        assert_eq!(ticket, Ticket::from_bytes([0x11; 32]));
        assert_eq!(payload.expose(), b"s3cr3t");
        assert_eq!(reader, b"next");
    }

    #[test]
    fn the_largest_secret_passes_a_socket_into_secret_memory() {
        let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || {
            let payload = Secret::copy_of(&[0x5A; MAX_SECRET]).unwrap();
            write_frame(&mut near, &Ticket::from_bytes([1; 32]), &payload).unwrap();
        });
        let (_, payload) = read_frame(&mut far).unwrap();
        sender.join().unwrap();
        assert!(payload.ct_eq(&[0x5A; MAX_SECRET]));
    }

    #[test]
    fn an_empty_payload_is_refused_on_both_sides() {
        let refused = read_frame(&mut &frame(0, b"")[..]);
        assert!(matches!(refused, Err(FrameError::Length { len: 0 })));
        let empty = Secret::zeroed(0).unwrap();
        assert!(write_frame(&mut Vec::new(), &Ticket::from_bytes([0; 32]), &empty).is_err());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_any_read() {
        for len in [MAX_SECRET as u32 + 1, u32::MAX] {
            let refused = read_frame(&mut &frame(len, b"")[..]);
            assert!(matches!(refused, Err(FrameError::Length { len: l }) if l == len));
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_an_error() {
        let whole = frame(6, b"s3cr3t");
        for cut in 0..whole.len() {
            let refused = read_frame(&mut &whole[..cut]);
            assert!(matches!(refused, Err(FrameError::Io(_))), "cut at {cut}");
        }
    }

    #[test]
    fn a_ticket_is_64_hexadecimal_digits() {
        let ticket = Ticket::random().unwrap();
        let text = ticket.to_text();
        assert_eq!(text.len(), 64);
        assert_eq!(Ticket::parse(&text), Ok(ticket.clone()));
        assert_eq!(Ticket::parse(&text.to_uppercase()), Ok(ticket));
        for wrong in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.replacen(&text[..1], "g", 1),
        ] {
            assert_eq!(Ticket::parse(wrong), Err(NotATicket));
        }
        assert_eq!(Ticket::parse(&"é".repeat(32)), Err(NotATicket));
    }

    #[test]
    fn debug_shows_no_ticket() {
        assert_eq!(
            format!("{:?}", Ticket::from_bytes([7; 32])),
            "Ticket(redacted)"
        );
    }
}
