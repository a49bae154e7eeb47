//! The two types that hold secret bytes: [`Secret`] of any length and [`Key`] of 32 bytes.
//!
//! Promises: the bytes live in the arena of [`crate::memory`] and are wiped on drop; no `Clone`,
//! `Display` or serialisation; `Debug` shows a length. Values are filled in place.
//! Does not promise: what `expose` lends may be copied by whoever it is lent to.

use std::fmt;

use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::memory::{MemoryError, Slot};
use crate::stack::wiped;

/// Secret bytes of any length up to [`crate::MAX_SECRET`].
pub struct Secret {
    slot: Slot,
    len: usize,
}

impl Secret {
    /// `len` zero bytes, to be filled through [`Secret::expose_mut`].
    ///
    /// # Errors
    /// [`MemoryError::TooLarge`] and [`MemoryError::ArenaFull`].
    pub fn zeroed(len: usize) -> Result<Secret, MemoryError> {
        Ok(Secret {
            slot: Slot::new(len)?,
            len,
        })
    }

    /// `len` bytes that `fill` writes in place; on its error they are wiped.
    ///
    /// # Errors
    /// Those of [`Secret::zeroed`], and whatever `fill` returns.
    pub fn fill<E: From<MemoryError>>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Secret, E> {
        let mut secret = Secret::zeroed(len)?;
        fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// Moves bytes into secret memory: copies them and wipes the source, on error too.
    ///
    /// # Errors
    /// Those of [`Secret::zeroed`].
    pub fn take(source: &mut [u8]) -> Result<Secret, MemoryError> {
        let secret = Secret::copy_of(source);
        source.zeroize();
        secret
    }

    /// Copies bytes into secret memory; the source is the caller's to wipe.
    ///
    /// # Errors
    /// Those of [`Secret::zeroed`].
    pub fn copy_of(source: &[u8]) -> Result<Secret, MemoryError> {
        let mut secret = Secret::zeroed(source.len())?;
        secret.expose_mut().copy_from_slice(source);
        Ok(secret)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.slot.bytes()[..self.len]
    }

    /// The bytes, to be written in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.slot.bytes_mut()[..self.len]
    }

    /// Keeps the first `len` bytes and wipes the rest; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.expose_mut().get_mut(len..) {
            rest.zeroize();
            self.len = len;
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Compares in a time that depends on the lengths only.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.expose().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes, redacted)", self.len)
    }
}

/// The stack below a derivation that is wiped, in bytes.
const DERIVE_STACK: usize = 8 * 1024;

/// A key of exactly 32 bytes.
pub struct Key(Secret);

impl Key {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A fresh random key.
    ///
    /// # Errors
    /// [`MemoryError::Random`] and those of [`Secret::zeroed`].
    pub fn random() -> Result<Key, MemoryError> {
        Key::fill(|bytes| {
            SystemRandom::new()
                .fill(bytes)
                .map_err(|_| MemoryError::Random)
        })
    }

    /// A key that `fill` writes in place; on its error the bytes are wiped.
    ///
    /// # Errors
    /// Those of [`Secret::zeroed`], and whatever `fill` returns.
    pub fn fill<E: From<MemoryError>>(
        fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>,
    ) -> Result<Key, E> {
        let mut key = Key(Secret::zeroed(Self::LEN)?);
        fill(key.expose_mut())?;
        Ok(key)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0
            .expose()
            .first_chunk()
            .expect("a key is made of 32 bytes")
    }

    /// Compares in constant time.
    pub fn ct_eq(&self, other: &Key) -> bool {
        self.0.ct_eq(other.expose())
    }

    fn expose_mut(&mut self) -> &mut [u8; 32] {
        self.0
            .expose_mut()
            .first_chunk_mut()
            .expect("a key is made of 32 bytes")
    }

    /// A key derived from this one by HKDF-SHA-256 (RFC 5869), 32 bytes of output.
    ///
    /// # Errors
    /// [`MemoryError::Derive`] and those of [`Secret::zeroed`].
    pub fn derive(&self, salt: &[u8], info: &[u8]) -> Result<Key, MemoryError> {
        Key::fill(|bytes| {
            wiped::<DERIVE_STACK, _>(|| {
                let extracted = Salt::new(HKDF_SHA256, salt).extract(self.expose());
                let info = [info];
                let expanded = extracted
                    .expand(&info, HKDF_SHA256)
                    .map_err(|_| MemoryError::Derive)?;
                expanded.fill(bytes).map_err(|_| MemoryError::Derive)
            })
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(32 bytes, redacted)")
    }
}

/// Random bytes for public use: nonces, salts, identifiers. A key is made by [`Key::random`].
///
/// # Errors
/// [`MemoryError::Random`].
pub fn random_bytes<const N: usize>() -> Result<[u8; N], MemoryError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| MemoryError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::MAX_SECRET;

    #[test]
    fn take_moves_and_wipes_the_source() {
        let mut source = *b"correct horse";
        let secret = Secret::take(&mut source).unwrap();
        assert!(secret.ct_eq(b"correct horse"));
        assert_eq!(source, [0; 13]);
    }

    #[test]
    fn take_wipes_the_source_on_error_too() {
        let mut source = vec![7; MAX_SECRET + 1];
        assert!(Secret::take(&mut source).is_err());
        assert!(source.iter().all(|&b| b == 0));
    }

    #[test]
    fn truncate_wipes_the_rest() {
        let mut secret = Secret::copy_of(b"0123456789").unwrap();
        secret.truncate(20);
        assert_eq!(secret.len(), 10);
        secret.truncate(4);
        assert_eq!(secret.expose(), b"0123");
        assert!(secret.slot.bytes()[4..].iter().all(|&b| b == 0));
    }

    #[test]
    fn comparison_sees_content_and_length() {
        let secret = Secret::copy_of(b"0123").unwrap();
        assert!(secret.ct_eq(b"0123"));
        assert!(!secret.ct_eq(b"0124"));
        assert!(!secret.ct_eq(b"012"));
        assert!(Secret::zeroed(0).unwrap().ct_eq(b""));
    }

    #[test]
    fn debug_shows_no_content() {
        let secret = Secret::copy_of(b"hunter2hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(14 bytes, redacted)");
        assert_eq!(
            format!("{:?}", Key::random().unwrap()),
            "Key(32 bytes, redacted)"
        );
    }

    #[test]
    fn a_failed_fill_gives_its_own_error() {
        let refused = Secret::fill(8, |_| Err(MemoryError::Derive));
        assert_eq!(refused.err(), Some(MemoryError::Derive));
    }

    #[test]
    fn derive_is_hkdf_sha256_of_rfc_5869() {
        // RFC 5869 has no vector with a 32-byte input; this one is from an independent HMAC:
        // PRK = HMAC(salt, key), OKM = HMAC(PRK, info ‖ 0x01).
        use ring::hmac;
        let key = Key::fill::<MemoryError>(|k| {
            k.fill(0x0b);
            Ok(())
        })
        .unwrap();
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"salt"), &[0x0b; 32]);
        let okm = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()),
            b"info\x01",
        );
        assert_eq!(key.derive(b"salt", b"info").unwrap().expose(), okm.as_ref());
    }

    #[test]
    fn keys_and_random_bytes_differ() {
        assert_ne!(
            Key::random().unwrap().expose(),
            Key::random().unwrap().expose()
        );
        assert_ne!(random_bytes::<16>().unwrap(), random_bytes::<16>().unwrap());
    }
}
