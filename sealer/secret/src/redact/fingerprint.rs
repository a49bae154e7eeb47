//! From a secret to its fingerprint: the forms, the anchor and the MAC, and the bytes on the wire.
//!
//! Owns: which forms a secret has and where their anchors lie.
//! Encoded: `count u8` (1 to 16) `| kinds u8`, then per form `length u32 | offset u32 | hash u32 |
//! hash u32 | mac[16]`, all big-endian; nothing may follow. An anchor's 8 bytes are two windows of
//! 7, and each has its hash: so that a search need look at every second byte only.

use std::fmt;

use ring::hmac;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::memory::{MAX_SECRET, MemoryError};
use crate::secret::Key;
use crate::stack::wiped;

/// The shortest secret that can be told from ordinary text, in bytes.
pub const MIN_SECRET: usize = 8;

/// Bytes under an anchor.
pub(super) const ANCHOR: usize = 8;
/// Bytes under a window: an anchor holds two, one at an even and one at an odd place of the body.
pub(super) const WINDOW: usize = ANCHOR - 1;
const MAC: usize = 16;
/// The stack below a MAC's computation that is wiped, in bytes.
const MAC_STACK: usize = 8 * 1024;
const MAX_FORMS: usize = 16;
/// The longest form: [`MAX_SECRET`] in hexadecimal.
const MAX_FORM: usize = 2 * MAX_SECRET;
const FORM_LEN: usize = 4 + 4 + 4 + 4 + MAC;
/// How many windows are looked at to choose an anchor.
const ANCHOR_CHOICES: usize = 32;

/// A value too short to be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a secret of {len} bytes is too short to be redacted; use at least {MIN_SECRET} bytes")]
pub struct TooShort {
    /// The value's length in bytes.
    pub len: usize,
}

/// Why bytes are not an encoded fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FingerprintError {
    /// No form, or more than a secret has.
    #[error("a fingerprint of {0} forms is refused; 1 to {MAX_FORMS} are expected")]
    Count(u8),
    /// The length does not fit the count.
    #[error("a fingerprint of {found} bytes is refused; its count asks for {expected}")]
    Length {
        /// Bytes that the count asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// Kinds of bytes that do not exist.
    #[error("a fingerprint with kinds {0:#04x} is refused")]
    Kinds(u8),
    /// A form whose length no secret has, or whose anchor is not inside it.
    #[error("form {0} of a fingerprint is out of range")]
    Form(usize),
}

/// The random key under which fingerprints are made; one per link or process.
pub struct RedactKey {
    key: Key,
    mac: hmac::Key,
    multiplier: u64,
}

impl RedactKey {
    /// A fresh key.
    ///
    /// # Errors
    /// Those of [`Key::random`].
    pub fn random() -> Result<RedactKey, MemoryError> {
        RedactKey::new(Key::random()?)
    }

    /// The key that the other end of a link made.
    ///
    /// # Errors
    /// [`MemoryError::ArenaFull`].
    pub fn new(key: Key) -> Result<RedactKey, MemoryError> {
        let mac = key.derive(b"", b"mcpist-redact-mac-v1")?;
        let anchor = key.derive(b"", b"mcpist-redact-anchor-v1")?;
        // Odd, so that the multiplication is one to one before it is cut.
        let multiplier = anchor
            .expose()
            .first_chunk()
            .map_or(1, |key| u64::from_le_bytes(*key) | 1);
        Ok(RedactKey {
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac.expose()),
            key,
            multiplier,
        })
    }

    /// The 32 bytes, for the link's hello.
    pub fn expose(&self) -> &[u8; 32] {
        self.key.expose()
    }

    /// All forms of one secret. Of a value longer than [`MAX_SECRET`], which no
    /// [`crate::Secret`] is, the first [`MAX_SECRET`] bytes count.
    ///
    /// # Errors
    /// [`TooShort`] for fewer than [`MIN_SECRET`] bytes.
    pub fn fingerprint(&self, secret: &[u8]) -> Result<Fingerprint, TooShort> {
        if secret.len() < MIN_SECRET {
            return Err(TooShort { len: secret.len() });
        }
        let secret = &secret[..secret.len().min(MAX_SECRET)];
        let anchor = choose_anchor(secret);
        let mut forms = Vec::with_capacity(MAX_FORMS);
        let mut kinds = 0;
        let mut add = |text: &[u8], offset: usize| {
            kinds |= text.iter().fold(0, |kinds, &byte| kinds | kind(byte));
            let form = Form {
                len: text.len() as u32,
                offset: offset as u32,
                hashes: [0, 1].map(|second| self.hash(load(&text[offset + second..]))),
                mac: self.mac_of(|mac| mac.update(text)),
            };
            // Digits have no case and most base64 is in both alphabets: one form is enough then.
            if !forms.contains(&form) {
                forms.push(form);
            }
        };
        add(secret, anchor);
        if secret.contains(&b' ') {
            let plus = |&byte: &u8| if byte == b' ' { b'+' } else { byte };
            add(
                &Zeroizing::new(secret.iter().map(plus).collect::<Vec<u8>>()),
                anchor,
            );
        }
        for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
            add(&hexadecimal(secret, digits), 2 * anchor + ANCHOR / 2);
        }
        for tail in [*b"+/", *b"-_"] {
            for alignment in 0..3usize {
                let before = (8 * alignment).div_ceil(6);
                let offset = (8 * (alignment + anchor)).div_ceil(6) - before;
                add(&base64_inner(secret, alignment, tail), offset);
            }
        }
        Ok(Fingerprint { kinds, forms })
    }

    /// The hash of a [`load`]ed window: multiply-shift, so that two different windows collide
    /// with a chance of 2⁻³¹ over the choice of the key.
    pub(super) fn hash(&self, window: u64) -> u32 {
        (window.wrapping_mul(self.multiplier) >> 32) as u32
    }

    pub(super) fn multiplier(&self) -> u64 {
        self.multiplier
    }

    /// HMAC-SHA-256 (RFC 2104), cut to 16 bytes, of what `write` puts in. The last block of it would
    /// stay on the stack, in ring's context.
    pub(super) fn mac_of(&self, write: impl FnOnce(&mut hmac::Context)) -> Mac {
        wiped::<MAC_STACK, _>(|| {
            let mut context = hmac::Context::with_key(&self.mac);
            write(&mut context);
            let mut cut = Mac([0; MAC]);
            cut.0.copy_from_slice(&context.sign().as_ref()[..MAC]);
            cut
        })
    }
}

impl fmt::Debug for RedactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactKey(redacted)")
    }
}

/// One form of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Length of the form in bytes.
    pub(super) len: u32,
    /// Where the anchor starts in the form, in bytes.
    pub(super) offset: u32,
    /// Of the anchor's two windows.
    pub(super) hashes: [u32; 2],
    pub(super) mac: Mac,
}

/// The MAC of a form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mac([u8; MAC]);

impl Mac {
    /// Compares in constant time.
    pub(super) fn is(&self, other: &Mac) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// All forms of one secret under one [`RedactKey`].
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which [`kind`]s of bytes the forms are made of.
    kinds: u8,
    forms: Vec<Form>,
}

impl Fingerprint {
    pub(super) fn kinds(&self) -> u8 {
        self.kinds
    }

    pub(super) fn forms(&self) -> &[Form] {
        &self.forms
    }

    /// The bytes on the wire; the layout is at the top of this module.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.forms.len() * FORM_LEN);
        bytes.extend([self.forms.len() as u8, self.kinds]);
        for Form {
            len,
            offset,
            hashes: [even, odd],
            mac,
        } in &self.forms
        {
            for number in [len, offset, even, odd] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(&mac.0);
        }
        bytes
    }

    /// Reads what [`Fingerprint::encode`] wrote.
    ///
    /// # Errors
    /// [`FingerprintError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Fingerprint, FingerprintError> {
        let [count, kinds, rest @ ..] = bytes else {
            return Err(FingerprintError::Count(0));
        };
        let (count, kinds) = (*count, *kinds);
        if !(1..=MAX_FORMS).contains(&usize::from(count)) {
            return Err(FingerprintError::Count(count));
        }
        let (chunks, left) = rest.as_chunks::<FORM_LEN>();
        if chunks.len() != usize::from(count) || !left.is_empty() {
            let expected = 2 + usize::from(count) * FORM_LEN;
            return Err(FingerprintError::Length {
                expected,
                found: bytes.len(),
            });
        }
        if kinds & !KINDS != 0 {
            return Err(FingerprintError::Kinds(kinds));
        }
        let form = |(index, chunk): (usize, &[u8; FORM_LEN])| {
            let number = |at: usize| {
                u32::from_be_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]])
            };
            let (len, offset) = (number(0), number(4));
            let fits = (ANCHOR..=MAX_FORM).contains(&(len as usize))
                && offset as usize <= len as usize - ANCHOR;
            let mut mac = Mac([0; MAC]);
            mac.0.copy_from_slice(&chunk[16..]);
            let hashes = [number(8), number(12)];
            let form = Form {
                len,
                offset,
                hashes,
                mac,
            };
            if fits {
                Ok(form)
            } else {
                Err(FingerprintError::Form(index))
            }
        };
        let forms = chunks
            .iter()
            .enumerate()
            .map(form)
            .collect::<Result<_, _>>()?;
        Ok(Fingerprint { kinds, forms })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({} forms)", self.forms.len())
    }
}

/// The first 7 bytes as a window: in the upper bytes, the first one lowest, as if they had been
/// rolled in one by one. Bytes that are not there count as zeros in front.
#[inline]
pub(super) fn load(bytes: &[u8]) -> u64 {
    let newest = |window: u64, &byte: &u8| window >> 8 | u64::from(byte) << 56;
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word) << 8,
        None => bytes.iter().take(WINDOW).fold(0, newest),
    }
}

/// All kinds of bytes.
const KINDS: u8 = 0x7F;

/// What kind of byte this is, as one bit. An escape that stands for a kind that is in no form ends
/// every form, and need not be looked at: so `\n` and `\"` cost little while secrets are tokens.
#[inline]
pub(super) fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'+' | b'-' | b'_' | b'.' | b'~' | b'=' => 0x01,
        b'/' => 0x02,
        b'"' => 0x04,
        b'\\' => 0x08,
        0..b' ' | 0x7F => 0x10,
        b' '..0x7F => 0x20,
        0x80.. => 0x40,
    }
}

/// Where the anchor of a secret starts: in the second half, which is behind any common prefix
/// (`Bearer `, `-----BEGIN`, a JWT's header) and, in a long secret, before any common end; there
/// where most bytes differ, so that runs and padding are not anchors.
fn choose_anchor(secret: &[u8]) -> usize {
    let last = secret.len() - ANCHOR;
    let first = last / 2;
    let distinct = |&start: &usize| {
        let window = &secret[start..start + ANCHOR];
        (0..ANCHOR)
            .filter(|&at| !window[..at].contains(&window[at]))
            .count()
    };
    (first..=last.min(first + ANCHOR_CHOICES))
        .max_by_key(distinct)
        .unwrap_or(first)
}

fn hexadecimal(secret: &[u8], digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * secret.len()));
    for byte in secret {
        text.push(digits[usize::from(byte >> 4)]);
        text.push(digits[usize::from(byte & 15)]);
    }
    text
}

/// The characters of a base64 text (RFC 4648 §4, §5) that depend on `secret` alone, when
/// `alignment` bytes, modulo 3, stand before it and anything may follow.
fn base64_inner(secret: &[u8], alignment: usize, tail: [u8; 2]) -> Zeroizing<Vec<u8>> {
    let letter = |value: u32| match value & 63 {
        value @ 0..26 => b'A' + value as u8,
        value @ 26..52 => b'a' + (value - 26) as u8,
        value @ 52..62 => b'0' + (value - 52) as u8,
        62 => tail[0],
        _ => tail[1],
    };
    // The stream's bits are 8 for each byte; a character is stable when its 6 are all ours.
    let first = (8 * alignment).div_ceil(6);
    let end = 8 * (alignment + secret.len()) / 6;
    let byte = |at: usize| u32::from(secret.get(at - alignment).copied().unwrap_or(0));
    let mut text = Zeroizing::new(Vec::with_capacity(end - first));
    for index in first..end {
        let (at, bit) = (6 * index / 8, 6 * index % 8);
        text.push(letter((byte(at) << 8 | byte(at + 1)) >> (10 - bit)));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key() -> RedactKey {
        let key = Key::fill::<MemoryError>(|bytes| {
            bytes.fill(7);
            Ok(())
        });
        RedactKey::new(key.unwrap()).unwrap()
    }

    #[test]
    fn stable_base64_of_three_alignments() {
        // base64("Aladdin:open sesame") and the same with one and two bytes before it.
        let secret = b"Aladdin:open sesame";
        let whole = [
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "eEFsYWRkaW46b3BlbiBzZXNhbWU=",
            "eHhBbGFkZGluOm9wZW4gc2VzYW1l",
        ];
        for (alignment, whole) in whole.iter().enumerate() {
            let inner = base64_inner(secret, alignment, *b"+/");
            let start = (8 * alignment).div_ceil(6);
            assert_eq!(*inner, whole.as_bytes()[start..start + inner.len()]);
        }
    }

    #[test]
    fn fewer_than_eight_bytes_are_refused() {
        for len in 0..MIN_SECRET {
            assert_eq!(key().fingerprint(&vec![b'x'; len]), Err(TooShort { len }));
        }
        assert!(key().fingerprint(b"12345678").is_ok());
    }

    #[test]
    fn equal_forms_are_held_once() {
        // Digits only: both hexadecimal cases and both alphabets agree.
        assert_eq!(
            key().fingerprint(b"0123456789").unwrap().forms.len(),
            1 + 1 + 3
        );
        // 0xFB 0xFF… needs the last two letters in every alignment.
        assert_eq!(
            key().fingerprint(&[0xFB; 12]).unwrap().forms.len(),
            1 + 2 + 6
        );
    }

    #[test]
    fn anchors_keep_clear_of_prefixes_runs_and_ends() {
        assert!(choose_anchor(b"Bearer abcdefgh") >= 3);
        assert_eq!(choose_anchor(b"aaaaaaaaaaaaaaaabcdefghaaaa"), 16);
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            "MC4CAQAwBQYDK2VwBCIEIAeVq0Yb8wUQ4nGm2h6N".repeat(6)
        );
        let at = choose_anchor(pem.as_bytes());
        assert!(at >= 28 && at + ANCHOR < pem.len() - 26);
    }

    #[test]
    fn anchors_of_all_forms_lie_over_the_same_eight_bytes() {
        let secret: Vec<u8> = (0..100).collect();
        let (key, other) = (key(), choose_anchor(&secret));
        let mut changed = secret.clone();
        for (at, byte) in changed.iter_mut().enumerate() {
            if !(other..other + ANCHOR).contains(&at) {
                *byte = 0xEE;
            }
        }
        let hashes =
            |text: &[u8], offset: usize| [0, 1].map(|odd| key.hash(load(&text[offset + odd..])));
        for alignment in 0..3 {
            let offset = (8 * (alignment + other)).div_ceil(6) - (8 * alignment).div_ceil(6);
            let [a, b] = [&secret, &changed].map(|s| base64_inner(s, alignment, *b"+/"));
            assert_eq!(hashes(&a, offset), hashes(&b, offset));
        }
    }

    #[test]
    fn encoded_bytes_of_a_known_fingerprint() {
        // A fixed key and secret: the layout, and that a change of a derivation is seen.
        let fingerprint = key().fingerprint(b"0123456789").unwrap();
        let bytes = fingerprint.encode();
        assert_eq!(bytes.len(), 2 + 5 * FORM_LEN);
        assert_eq!(bytes[..10], [5, 0x01, 0, 0, 0, 10, 0, 0, 0, 2]);
        assert_eq!(Fingerprint::decode(&bytes), Ok(fingerprint));
    }

    #[test]
    fn malformed_fingerprints_are_refused() {
        let good = key().fingerprint(b"0123456789").unwrap().encode();
        assert_eq!(Fingerprint::decode(b""), Err(FingerprintError::Count(0)));
        assert_eq!(
            Fingerprint::decode(&[0, 0]),
            Err(FingerprintError::Count(0))
        );
        assert_eq!(
            Fingerprint::decode(&[17, 0]),
            Err(FingerprintError::Count(17))
        );
        let unknown = [&good[..1], &[0x80], &good[2..]].concat();
        assert_eq!(
            Fingerprint::decode(&unknown),
            Err(FingerprintError::Kinds(0x80))
        );
        for cut in 2..good.len() {
            assert!(matches!(
                Fingerprint::decode(&good[..cut]),
                Err(FingerprintError::Length { .. })
            ));
        }
        let long = [&good[..], &[0]].concat();
        assert!(matches!(
            Fingerprint::decode(&long),
            Err(FingerprintError::Length { .. })
        ));
        let with = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            Fingerprint::decode(&bytes)
        };
        assert_eq!(
            with(2, 7),
            Err(FingerprintError::Form(0)),
            "shorter than an anchor"
        );
        assert_eq!(
            with(2, MAX_FORM as u32 + 1),
            Err(FingerprintError::Form(0)),
            "too long"
        );
        assert_eq!(
            with(6, 3),
            Err(FingerprintError::Form(0)),
            "anchor past the end"
        );
        assert_eq!(
            with(6, u32::MAX),
            Err(FingerprintError::Form(0)),
            "no overflow"
        );
    }
}
