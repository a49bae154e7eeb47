//! Signing keys: drawn, kept in files, used.
//!
//! A key file is an age file (passphrase, scrypt) around the line `mcpist-signing-key-1 <64 hex of the seed>`; a
//! throwaway key of demo and dev is the same line in a file of mode 0600. The seed is in secret memory; `ring` keeps
//! a copy of it while it signs. Does not ask for passphrases: the command line does.

use std::io::{Read, Write};

use mcpist_core::api::PublicKey;
use mcpist_core::ids::Digest;
use mcpist_secret::{MemoryError, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::container::{Block, Role, signed_message};

const PREFIX: &[u8] = b"mcpist-signing-key-1 ";
const SEED_LEN: usize = 32;
/// Longest key file in bytes.
pub const MAX_KEY_FILE: u64 = 16 * 1024;

/// An Ed25519 signing key.
pub struct SigningKey {
    seed: Secret,
    public: PublicKey,
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No room in secret memory, or no randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The file holds something else.
    #[error("the file is no signing key; make one with 'mcpist bundle keygen'")]
    NotAKey,
    /// The passphrase opens nothing.
    #[error("the passphrase does not open this key file")]
    Passphrase,
    /// Encryption failed.
    #[error("the key could not be written: {0}")]
    Write(std::io::Error),
}

impl SigningKey {
    /// Draws a key.
    ///
    /// # Errors
    /// [`KeyError::Memory`].
    pub fn generate() -> Result<SigningKey, KeyError> {
        let seed = Secret::fill(SEED_LEN, |out| {
            SystemRandom::new()
                .fill(out)
                .map_err(|_| MemoryError::Random)
        })?;
        SigningKey::of(seed)
    }

    fn of(seed: Secret) -> Result<SigningKey, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyError::NotAKey)?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(SigningKey {
            seed,
            public: PublicKey(public),
        })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Its id: SHA-256 of the public half.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.public.0)
    }

    /// Signs any message, such as an approval's.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`], which does not happen to a key that exists.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(self.seed.expose())
            .map_err(|_| KeyError::NotAKey)?;
        let mut signature = [0; 64];
        signature.copy_from_slice(pair.sign(message).as_ref());
        Ok(signature)
    }

    /// A signature block over a manifest.
    ///
    /// # Errors
    /// As [`SigningKey::sign`].
    pub fn block(&self, role: Role, manifest: &[u8]) -> Result<Block, KeyError> {
        Ok(Block {
            role,
            key: self.id(),
            signature: self.sign(&signed_message(role, manifest))?,
        })
    }

    /// The key in clear, for the 0600 file of a throwaway key.
    ///
    /// # Errors
    /// [`KeyError::Memory`].
    pub fn to_throwaway_text(&self) -> Result<Secret, KeyError> {
        let hex_len = 2 * SEED_LEN;
        Ok(Secret::fill(PREFIX.len() + hex_len, |out| {
            out[..PREFIX.len()].copy_from_slice(PREFIX);
            // The lengths are those above.
            hex::encode_to_slice(self.seed.expose(), &mut out[PREFIX.len()..])
                .map_err(|_| MemoryError::Random)
        })?)
    }

    /// Reads the text of [`SigningKey::to_throwaway_text`]; a line break after it is ignored.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_throwaway_text(text: &[u8]) -> Result<SigningKey, KeyError> {
        let digits = text
            .trim_ascii()
            .strip_prefix(PREFIX)
            .ok_or(KeyError::NotAKey)?;
        let seed = Secret::fill(SEED_LEN, |out| {
            hex::decode_to_slice(digits, out).map_err(|_| KeyError::NotAKey)
        })?;
        SigningKey::of(seed)
    }

    /// The key as an age file under a passphrase.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn to_file(&self, passphrase: &Secret) -> Result<Vec<u8>, KeyError> {
        let encryptor = age::Encryptor::with_user_passphrase(age_passphrase(passphrase)?);
        let mut out = Vec::new();
        let mut writer = encryptor.wrap_output(&mut out).map_err(KeyError::Write)?;
        writer
            .write_all(self.to_throwaway_text()?.expose())
            .map_err(KeyError::Write)?;
        writer.finish().map_err(KeyError::Write)?;
        Ok(out)
    }

    /// Reads a key file: an age file under `passphrase`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_file(file: &[u8], passphrase: &Secret) -> Result<SigningKey, KeyError> {
        let identity = age::scrypt::Identity::new(age_passphrase(passphrase)?);
        let decryptor = age::Decryptor::new(file).map_err(|_| KeyError::NotAKey)?;
        let mut reader = decryptor
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .map_err(|_| KeyError::Passphrase)?;
        let mut text = Secret::zeroed(PREFIX.len() + 2 * SEED_LEN)?;
        reader
            .read_exact(text.expose_mut())
            .map_err(|_| KeyError::NotAKey)?;
        SigningKey::from_throwaway_text(text.expose())
    }
}

fn age_passphrase(passphrase: &Secret) -> Result<age::secrecy::SecretString, KeyError> {
    let text = std::str::from_utf8(passphrase.expose()).map_err(|_| KeyError::Passphrase)?;
    Ok(age::secrecy::SecretString::from(text.to_owned()))
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id().short())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_shows_no_seed() {
        let key = SigningKey::generate().unwrap();
        let text = key.to_throwaway_text().unwrap();
        assert_eq!(
            SigningKey::from_throwaway_text(text.expose())
                .unwrap()
                .public(),
            key.public()
        );
        let seed = std::str::from_utf8(&text.expose()[PREFIX.len()..]).unwrap();
        assert!(!format!("{key:?}").contains(&seed[..8]));
        assert!(matches!(
            SigningKey::from_throwaway_text(b"mcpist-signing-key-1 00"),
            Err(KeyError::NotAKey)
        ));
        assert!(matches!(
            SigningKey::from_throwaway_text(b"hello"),
            Err(KeyError::NotAKey)
        ));
    }
}
