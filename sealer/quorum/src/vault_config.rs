//! No I/O. The seal config of one vault that has a quorum of its own.
//!
//! Owns: [`VaultConfig`], its canonical bytes and its rules, which are those of [`crate::SealConfig`] for
//! holders. The bytes are the AAD of the wrap of the vault's own root key, and the system vault keeps their digest in
//! the record that names the vault: a changed threshold, digest or recipient opens nothing, and an older config in its
//! place is seen before a share is asked for.
//!
//! # Layout (`crate::codec`)
//! ```text
//! "mcpvconf" | version u16 = 1 | store [16] | vault [16] | set [16] | generation u32 | needed u8 | total u8 |
//! holders { label text ≤ 64 | recipient text ≤ 4096 | share digest [32] } in order of index |
//! dev u8 | created u64
//! ```
//! The set is the vault's own, so that a share of the store's quorum is of another set by name.

use crate::codec::{Format, Reader, Writer, digest};
use crate::config::ConfigError;
use crate::ids::{ConfigDigest, StoreId};
use crate::sharing::{Shared, Sharing};

const FORMAT: Format = Format {
    name: "seal config of a vault",
    magic: *b"mcpvconf",
    version: 1,
};

/// The fields of a [`VaultConfig`], not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfigParts {
    /// The store that the vault is in.
    pub store: StoreId,
    /// The vault.
    pub vault: [u8; 16],
    /// The sharing that opens it.
    pub sharing: Sharing,
    /// Whether it is in a dev store.
    pub dev: bool,
    /// When its first quorum was made, in seconds since 1970.
    pub created: u64,
}

/// A seal config of a vault that obeys the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig(VaultConfigParts);

impl VaultConfig {
    /// Checks the rules: one distinct holder per share with a recipient (none needed in dev), and a threshold of one in
    /// dev only.
    pub fn new(parts: VaultConfigParts) -> Result<VaultConfig, ConfigError> {
        parts.sharing.check(parts.dev)?;
        Ok(VaultConfig(parts))
    }

    /// The canonical bytes (see the module for the layout).
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts = &self.0;
        let mut out = Writer::new(&FORMAT);
        out.raw(parts.store.as_bytes()).raw(&parts.vault);
        parts.sharing.write(&mut out);
        out.u8(parts.dev.into()).u64(parts.created).finish()
    }

    /// Reads canonical bytes and checks the rules.
    pub fn from_bytes(bytes: &[u8]) -> Result<VaultConfig, ConfigError> {
        let mut reader = Reader::new(&FORMAT, bytes)?;
        let parts = VaultConfigParts {
            store: StoreId::from_bytes(reader.raw("store")?),
            vault: reader.raw("vault")?,
            sharing: Sharing::read(&mut reader)?,
            dev: reader.flag("dev")?,
            created: reader.u64("created")?,
        };
        reader.finish()?;
        VaultConfig::new(parts)
    }

    /// SHA-256("mcpist-vault-config-v1" ‖ 0 ‖ canonical bytes).
    pub fn digest(&self) -> ConfigDigest {
        ConfigDigest::from_bytes(digest("mcpist-vault-config-v1", &[&self.to_bytes()]))
    }

    /// The store that the vault is in.
    pub fn store(&self) -> StoreId {
        self.0.store
    }

    /// The vault.
    pub fn vault(&self) -> &[u8; 16] {
        &self.0.vault
    }

    /// The sharing that opens it.
    pub fn sharing(&self) -> &Sharing {
        &self.0.sharing
    }

    /// Whether it is in a dev store.
    pub fn is_dev(&self) -> bool {
        self.0.dev
    }

    /// When its first quorum was made, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.0.created
    }
}

impl Shared for VaultConfig {
    fn sharing(&self) -> &Sharing {
        &self.0.sharing
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{parts, share, store, three_of_five};

    fn config() -> VaultConfig {
        let shares: Vec<_> = (1..=5)
            .map(|index| {
                let one = share();
                let value = crate::fixtures::key_of(&[index; 32]);
                crate::Share::new(one.set(), one.generation(), index, one.threshold(), value)
            })
            .collect();
        VaultConfig::new(VaultConfigParts {
            store: store(),
            vault: [0x44; 16],
            sharing: parts(three_of_five(), &shares).sharing,
            dev: false,
            created: 1_790_000_000,
        })
        .unwrap()
    }

    #[test]
    fn a_vaults_config_reads_back_and_nothing_else_does() {
        let config = config();
        let bytes = config.to_bytes();
        assert_eq!(VaultConfig::from_bytes(&bytes).unwrap(), config);
        for end in 0..bytes.len() {
            assert!(
                VaultConfig::from_bytes(&bytes[..end]).is_err(),
                "cut at {end}"
            );
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(VaultConfig::from_bytes(&longer).is_err());
        let store_config = crate::fixtures::sharing(1, 1).0.to_bytes();
        assert!(VaultConfig::from_bytes(&store_config).is_err());
    }

    #[test]
    fn the_example_in_hex_reads_back() {
        let bytes = hex::decode(crate::vectors::VAULT_CONFIG_HEX).unwrap();
        let config = VaultConfig::from_bytes(&bytes).unwrap();
        assert_eq!(config.to_bytes(), bytes);
        assert_eq!((config.vault(), config.is_dev()), (&[0x44; 16], false));
        let digest = config.digest().to_string();
        assert_eq!(digest, crate::vectors::VAULT_CONFIG_DIGEST_HEX);
    }

    #[test]
    fn each_byte_of_it_is_in_its_digest() {
        let (config, bytes) = (config(), config().to_bytes());
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let digest = VaultConfig::from_bytes(&other).map(|other| other.digest());
            assert_ne!(digest.ok(), Some(config.digest()), "byte {at}");
        }
    }

    #[test]
    fn one_holder_is_enough_in_dev_alone() {
        let mut lone = config().0;
        lone.sharing.threshold = crate::Threshold::dev(1, 1).unwrap();
        lone.sharing.holders.truncate(1);
        let refused = VaultConfig::new(lone.clone());
        assert_eq!(refused.unwrap_err(), ConfigError::SingleHolder);
        lone.dev = true;
        assert!(VaultConfig::new(lone).is_ok());
    }
}
