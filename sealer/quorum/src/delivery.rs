//! No I/O. Shares on their way to their holders, and the only user of the `age` crate.
//!
//! A share leaves as an armored age file (age-encryption.org/v1) whose plaintext is the share's text
//! ([`crate::Share::to_text`]). Recipients: `age1…` (X25519), and the two encrypt-only forms that
//! hardware plugins publish, `age1tag1…` (P-256) and `age1tagpq1…` (ML-KEM-768 with P-256). SSH keys
//! are not taken: the `age` crate's support for them brings in `rsa`, which has an open advisory
//! (RUSTSEC-2023-0071). No plugin is ever executed; holders open such files with the `age` program.
//!
//! # Limits
//! `age` works on ordinary memory: the text passes through its buffers in plain once when sealed and
//! once when opened. What is ours is in secret memory; what is age's is wiped on free only where the
//! program installs [`mcpist_secret::alloc::ZeroOnFree`].

use std::io::{Read, Write};
use std::iter;
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret;
use age::{DecryptError, Decryptor, Encryptor, tag, tagpq, x25519};
use mcpist_secret::{MemoryError, Secret};

use crate::share::{MAX_SHARE_TEXT, Share, ShareError};

/// The longest armored share file that is looked at; hybrid recipients make about 3 KB.
pub const MAX_SHARE_FILE: usize = 16 * 1024;

const MAX_IDENTITY: usize = 256;

/// Why a text cannot be encrypted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// It is an SSH public key.
    #[error("SSH keys are not taken as recipients; make an age key with `age-keygen`")]
    Ssh,
    /// It is a plugin's recipient of a kind that needs the plugin.
    #[error(
        "this recipient needs an age plugin, and no plugin is executed here; take an age1, age1tag1 or age1tagpq1 recipient"
    )]
    Plugin,
    /// It is an identity: a secret key.
    #[error(
        "this is an age secret key, not a recipient; treat it as exposed, and give the public `age1…` line of a new one"
    )]
    Identity,
    /// It is none of these.
    #[error("not an age recipient; it begins with age1, and has no blank in it")]
    Unknown,
}

/// Why a share was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The recipient is not usable.
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    /// age refused.
    #[error(
        "the share could not be encrypted to this recipient: take a recipient from `age-keygen`"
    )]
    Encrypt,
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Why an age file does not give a share.
#[derive(Debug, thiserror::Error)]
pub enum OpenShareError {
    /// Too long for a share.
    #[error(
        "an encrypted share is at most {MAX_SHARE_FILE} bytes, got {found}: check which file was given"
    )]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// Not an age file.
    #[error("not an age file, or damaged: take another copy")]
    NotAge,
    /// Encrypted to someone else.
    #[error("the file is not encrypted to this identity: give the identity of its holder")]
    OtherRecipient,
    /// The file opens and does not hold a share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A text that is no age identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not the text of an X25519 identity.
    #[error("not an age identity; the line begins with AGE-SECRET-KEY-1")]
    NotIdentity,
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// An X25519 identity: what opens a share file. Its key has no Debug, Display or Clone.
pub struct Identity(x25519::Identity);

impl Identity {
    /// A throwaway identity, for showing a share on a terminal and for demos.
    pub fn generate() -> Identity {
        Identity(x25519::Identity::generate())
    }

    /// Reads `AGE-SECRET-KEY-1…`; white space around it, empty lines and `#` comments (as
    /// `age-keygen` writes them) are ignored.
    pub fn parse(text: &[u8]) -> Result<Identity, IdentityError> {
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(IdentityError::NotIdentity);
        };
        if line.len() > MAX_IDENTITY {
            return Err(IdentityError::NotIdentity);
        }
        let line = std::str::from_utf8(line).map_err(|_| IdentityError::NotIdentity)?;
        x25519::Identity::from_str(line)
            .map(Identity)
            .map_err(|_| IdentityError::NotIdentity)
    }

    /// The identity's text, in secret memory.
    pub fn to_text(&self) -> Result<Secret, MemoryError> {
        Secret::copy_of(self.0.to_string().expose_secret().as_bytes())
    }

    /// The recipient that it opens files of.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.recipient()).finish()
    }
}

/// Whether a share can be encrypted to `text`.
pub fn check_recipient(text: &str) -> Result<(), RecipientError> {
    parse_recipient(text).map(|_| ())
}

fn parse_recipient(text: &str) -> Result<Box<dyn age::Recipient>, RecipientError> {
    if let Ok(recipient) = x25519::Recipient::from_str(text) {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = tag::Recipient::from_str(text) {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = tagpq::Recipient::from_str(text) {
        return Ok(Box::new(recipient));
    }
    // A plugin's recipient is `age1NAME1…`: two separators. X25519's has one, for the data part
    // of Bech32 holds no `1`.
    Err(if text.starts_with("ssh-") || text.starts_with("ecdsa-") {
        RecipientError::Ssh
    } else if text
        .get(..10)
        .is_some_and(|head| head.eq_ignore_ascii_case("AGE-SECRET"))
    {
        RecipientError::Identity
    } else if text
        .strip_prefix("age1")
        .is_some_and(|rest| rest.contains('1'))
    {
        RecipientError::Plugin
    } else {
        RecipientError::Unknown
    })
}

/// Encrypts a share's text to a recipient, as an armored age file.
pub fn seal_shares_to(recipient: &str, share: &Share) -> Result<String, DeliverError> {
    let recipient = parse_recipient(recipient)?;
    let text = share.to_text()?;
    let sealed = || -> std::io::Result<Vec<u8>> {
        let encryptor = Encryptor::with_recipients(iter::once(recipient.as_ref()))
            .map_err(std::io::Error::other)?;
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armor)?;
        writer.write_all(text.expose())?;
        writer.finish()?.finish()
    };
    let armored = sealed().map_err(|_| DeliverError::Encrypt)?;
    String::from_utf8(armored).map_err(|_| DeliverError::Encrypt)
}

/// Opens a share file, armored or binary, with its holder's identity.
pub fn open_share_file(identity: &Identity, file: &[u8]) -> Result<Share, OpenShareError> {
    if file.len() > MAX_SHARE_FILE {
        return Err(OpenShareError::TooLong { found: file.len() });
    }
    let decryptor = Decryptor::new(ArmoredReader::new(file)).map_err(|_| OpenShareError::NotAge)?;
    let mut reader = decryptor
        .decrypt(iter::once(&identity.0 as &dyn age::Identity))
        .map_err(|error| match error {
            DecryptError::NoMatchingKeys => OpenShareError::OtherRecipient,
            _ => OpenShareError::NotAge,
        })?;
    // One byte more than the longest text, so that a longer one is seen and not cut.
    let mut text = Secret::zeroed(MAX_SHARE_TEXT + 1)?;
    let mut len = 0;
    loop {
        match reader
            .read(&mut text.expose_mut()[len..])
            .map_err(|_| OpenShareError::NotAge)?
        {
            0 => break,
            more => len += more,
        }
    }
    text.truncate(len);
    Ok(Share::parse(text.expose())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
