//! The frame: the unit that both ends of a link write and read. No I/O.
//!
//! A frame is a header of 16 bytes and a payload; both together are at most 64 KiB, so that a reader
//! with one fixed buffer can always hold the next frame and no sender can make it grow.
//!
//! ```text
//! payload length u32 | kind u8 | flags u8 | reserved u16 (zero) | call u64     all big endian
//! ```
//!
//! This module promises that every byte sequence either is a header or is refused with a coded reason.
//! It knows nothing of what payloads mean (see `message`), nor which end may send which kind (see
//! `daemon` and `runner`).

/// Bytes of a frame's header.
pub const HEADER: usize = 16;
/// Bytes of the longest frame, header included.
pub const MAX_FRAME: usize = 64 * 1024;
/// Bytes of the longest payload of one frame.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER;
/// Flag: the message goes on in the next frame of the same call.
pub const MORE: u8 = 1;

/// What a frame is. The numbers are the format; a number once given is never used for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Runner to daemon, first frame: versions, role, process id. Its layout is the same in all versions.
    Hello = 1,
    /// Daemon to runner, the answer to `Hello`: the version chosen and the link's redaction key.
    Welcome = 2,
    /// Either end, last frame: a code and a text. Its layout is the same in all versions.
    Close = 3,
    /// Daemon to runner: a registry and its bundle's manifest.
    Load = 4,
    /// Daemon to runner: a binding and its version.
    Bind = 5,
    /// Daemon to runner: a fingerprint to redact.
    Redact = 6,
    /// Daemon to runner: undo one of the three above.
    Drop = 7,
    /// Daemon to runner: a secret for the call that follows at once. The only frame with a credential.
    Lease = 8,
    /// Daemon to runner: a call.
    Call = 9,
    /// Daemon to runner: the call's answer is wanted no more.
    Cancel = 10,
    /// Daemon to runner: the call may send so many bytes more.
    Credit = 11,
    /// Runner to daemon: the head and the first bytes of a call's answer.
    Answer = 12,
    /// Runner to daemon: the next bytes of a call's answer.
    Chunk = 13,
    /// Runner to daemon: the call failed, with a code.
    Error = 14,
    /// Daemon to runner: are you there? The call field is a number to be sent back.
    Ping = 15,
    /// Runner to daemon: yes; the call field is the ping's.
    Pong = 16,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Close,
            4 => Kind::Load,
            5 => Kind::Bind,
            6 => Kind::Redact,
            7 => Kind::Drop,
            8 => Kind::Lease,
            9 => Kind::Call,
            10 => Kind::Cancel,
            11 => Kind::Credit,
            12 => Kind::Answer,
            13 => Kind::Chunk,
            14 => Kind::Error,
            15 => Kind::Ping,
            16 => Kind::Pong,
            _ => return None,
        })
    }

    /// True for the kinds whose message may be longer than one frame. `Answer` is continued by `Chunk`,
    /// which may be interleaved with other calls; the others are continued by themselves, at once.
    #[must_use]
    pub fn may_continue(self) -> bool {
        matches!(
            self,
            Kind::Load | Kind::Bind | Kind::Redact | Kind::Call | Kind::Answer | Kind::Chunk
        )
    }

    /// True for the kinds whose payload holds secret bytes and is wiped wherever it was read.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Kind::Lease | Kind::Welcome)
    }
}

/// A frame's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    more: bool,
    length: u32,
    call: u64,
}

/// Why 16 bytes are no header. Each closes the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload length is over [`MAX_PAYLOAD`].
    #[error("a frame announces {0} bytes, over the limit of {MAX_PAYLOAD}; close the link")]
    TooLong(u32),
    /// The kind has no meaning in this version.
    #[error("a frame has the unknown kind {0}; close the link")]
    UnknownKind(u8),
    /// A flag other than [`MORE`], or [`MORE`] on a kind that is never continued.
    #[error("a frame of kind {kind:?} has the flags {flags:#04x}; close the link")]
    Flags {
        /// The frame's kind.
        kind: Kind,
        /// The flags as they came.
        flags: u8,
    },
    /// The reserved field is not zero.
    #[error("a frame has {0:#06x} in its reserved field; close the link")]
    Reserved(u16),
}

impl Header {
    /// A header for `length` payload bytes; `None` when they do not fit, or when `more` is asked of a
    /// kind that is never continued.
    #[must_use]
    pub fn new(kind: Kind, more: bool, length: usize, call: u64) -> Option<Header> {
        if length > MAX_PAYLOAD || (more && !kind.may_continue()) {
            return None;
        }
        let length = u32::try_from(length).ok()?;
        Some(Header {
            kind,
            more,
            length,
            call,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = if self.more { MORE } else { 0 };
        bytes[8..].copy_from_slice(&self.call.to_be_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`]: the link has no further meaning and is to be closed.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Header, FrameError> {
        let [l0, l1, l2, l3, kind, flags, r0, r1, call @ ..] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let kind = Kind::of(kind).ok_or(FrameError::UnknownKind(kind))?;
        let reserved = u16::from_be_bytes([r0, r1]);
        if reserved != 0 {
            return Err(FrameError::Reserved(reserved));
        }
        if flags & !MORE != 0 || (flags == MORE && !kind.may_continue()) {
            return Err(FrameError::Flags { kind, flags });
        }
        Ok(Header {
            kind,
            more: flags == MORE,
            length,
            call: u64::from_be_bytes(call),
        })
    }

    /// What the frame is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// True when the message goes on in a later frame.
    #[must_use]
    pub fn more(self) -> bool {
        self.more
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// The call that the frame belongs to; 0 for what belongs to the link.
    #[must_use]
    pub fn call(self) -> u64 {
        self.call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 5 payload bytes of a call's answer that goes on, call 7.
    const EXAMPLE: [u8; HEADER] = [0, 0, 0, 5, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

    fn with(edit: impl FnOnce(&mut [u8; HEADER])) -> Result<Header, FrameError> {
        let mut bytes = EXAMPLE;
        edit(&mut bytes);
        Header::decode(&bytes)
    }

    #[test]
    fn the_example_reads_as_documented() {
        let header = Header::decode(&EXAMPLE).unwrap();
        assert_eq!(header, Header::new(Kind::Answer, true, 5, 7).unwrap());
        assert_eq!(header.encode(), EXAMPLE);
    }

    #[test]
    fn a_length_over_the_limit_is_refused() {
        assert_eq!(
            with(|b| b[..4].copy_from_slice(&65_521u32.to_be_bytes())),
            Err(FrameError::TooLong(65_521))
        );
        assert!(with(|b| b[..4].copy_from_slice(&65_520u32.to_be_bytes())).is_ok());
        assert_eq!(
            with(|b| b[..4].fill(0xff)),
            Err(FrameError::TooLong(u32::MAX))
        );
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(with(|b| b[4] = 0), Err(FrameError::UnknownKind(0)));
        assert_eq!(with(|b| b[4] = 17), Err(FrameError::UnknownKind(17)));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert_eq!(
            with(|b| b[5] = 2),
            Err(FrameError::Flags {
                kind: Kind::Answer,
                flags: 2
            })
        );
    }

    #[test]
    fn a_lease_is_never_continued() {
        let lease = with(|b| b[4] = Kind::Lease as u8);
        assert_eq!(
            lease,
            Err(FrameError::Flags {
                kind: Kind::Lease,
                flags: 1
            })
        );
    }

    #[test]
    fn a_reserved_bit_is_refused() {
        assert_eq!(with(|b| b[7] = 1), Err(FrameError::Reserved(1)));
    }

    #[test]
    fn no_header_is_made_for_what_does_not_fit() {
        assert!(Header::new(Kind::Call, false, MAX_PAYLOAD + 1, 1).is_none());
        assert!(Header::new(Kind::Cancel, true, 0, 1).is_none());
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in any::<[u8; HEADER]>()) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }

        #[test]
        fn every_kind_comes_back(number in 1u8..=16, more: bool, length in 0..=MAX_PAYLOAD, call: u64) {
            let kind = Kind::of(number).unwrap();
            if let Some(header) = Header::new(kind, more, length, call) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            } else {
                prop_assert!(more && !kind.may_continue());
            }
        }
    }
}
