//! Names and identifiers, parsed once. No I/O.
//!
//! Owns [`VaultId`] (the random identity of a vault: its file, its place in every AAD) and
//! [`VaultName`] (what an operator calls it, sealed on disk). A value that exists is valid.

use std::fmt;

use mcpist_secret::MemoryError;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A vault's name.
    #[error(
        "a vault's name is 1 to 64 of a-z, 0-9, '.', '_' and '-', starts with a letter or digit and is not 'system'"
    )]
    Vault,
    /// The name of a record.
    #[error("a record's name is 1 to 255 bytes without control characters")]
    Record,
    /// The owner of a record.
    #[error("an owner is 1 to 255 bytes without control characters, or left out")]
    Owner,
    /// The kind of a record.
    #[error("a kind is 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
    Kind,
    /// A bound host.
    #[error("hosts are at most 64, each 1 to 255 bytes without spaces or control characters")]
    Host,
}

/// The identity of a vault: 16 random bytes, written as a version 4 UUID; the system vault's are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultId([u8; 16]);

impl VaultId {
    /// The system vault, control.db.
    pub const SYSTEM: VaultId = VaultId([0; 16]);

    /// A new identity (RFC 9562 §5.4).
    pub fn random() -> Result<VaultId, MemoryError> {
        let mut bytes = mcpist_secret::random_bytes::<16>()?;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Ok(VaultId(bytes))
    }

    pub(crate) const fn of(bytes: [u8; 16]) -> VaultId {
        VaultId(bytes)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<VaultId> {
        bytes.try_into().ok().map(VaultId)
    }

    /// Reads exactly what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<VaultId> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok()?;
        Some(VaultId(number.to_be_bytes())).filter(|id| id.to_string() == text)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultId({self})")
    }
}

/// What an operator calls a vault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VaultName(String);

impl VaultName {
    /// The name of control.db's own vault; no other may have it.
    pub(crate) const SYSTEM: &'static str = "system";

    pub(crate) fn parse(text: &str) -> Result<VaultName, NameError> {
        let starts = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if starts && text != Self::SYSTEM && is_word(text) {
            Ok(VaultName(text.to_owned()))
        } else {
            Err(NameError::Vault)
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_text(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(crate) fn check_record(owner: Option<&str>, name: &str) -> Result<(), NameError> {
    if !is_text(name) {
        return Err(NameError::Record);
    }
    if owner.is_some_and(|owner| !is_text(owner)) {
        return Err(NameError::Owner);
    }
    Ok(())
}

pub(crate) fn check_kind(kind: &str) -> Result<(), NameError> {
    if is_word(kind) {
        Ok(())
    } else {
        Err(NameError::Kind)
    }
}

pub(crate) fn check_hosts(hosts: &[String]) -> Result<(), NameError> {
    let fine = |host: &String| is_text(host) && !host.contains(char::is_whitespace);
    if hosts.len() <= 64 && hosts.iter().all(fine) {
        Ok(())
    } else {
        Err(NameError::Host)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_id_reads_as_a_version_4_uuid() {
        let id = VaultId::random().unwrap();
        let text = id.to_string();
        assert_eq!(VaultId::parse(&text), Some(id));
        for other in [&text[1..], &text.to_uppercase(), &format!("{text}-"), ""] {
            assert_eq!(VaultId::parse(other), None, "{other}");
        }
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&text.as_bytes()[19]));
        assert_eq!(
            VaultId::SYSTEM.to_string(),
            "00000000-0000-0000-0000-000000000000"
        );
    }

    #[test]
    fn names_that_are_refused() {
        for name in [
            "",
            "system",
            "A",
            "-a",
            ".",
            "a/b",
            "a b",
            "ä",
            &"a".repeat(65),
        ] {
            assert_eq!(VaultName::parse(name), Err(NameError::Vault), "{name}");
        }
        for name in ["", "a\n", "a\0b", &"a".repeat(256)] {
            assert_eq!(check_record(None, name), Err(NameError::Record), "{name}");
            assert_eq!(
                check_record(Some(name), "ok"),
                Err(NameError::Owner),
                "{name}"
            );
        }
        assert_eq!(check_kind("Bearer"), Err(NameError::Kind));
        assert_eq!(check_hosts(&vec!["h".into(); 65]), Err(NameError::Host));
        assert_eq!(check_hosts(&["a b".into()]), Err(NameError::Host));
    }

    #[test]
    fn names_that_are_taken() {
        VaultName::parse("prod-2.a_b").unwrap();
        check_record(Some("alice@example"), "git lab/token ü").unwrap();
        check_hosts(&["[2001:db8::1]:8443".into()]).unwrap();
    }
}
