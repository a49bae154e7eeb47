//! The root key of a vault with a quorum of its own, and the row that it stands in. No I/O.
//!
//! Promises that such a vault's keys are wrapped by its own root key alone, and that root key by its own quorum's KEK under
//! the vault's seal config: another quorum, the store's root key and an edited config open nothing.

use std::collections::BTreeSet;

use mcpist_quorum::{RecordError, StoreId, unwrap_key, wrap_key};
use mcpist_secret::{Key, MemoryError};

use super::{Epoch, KEYS_V1, KeysError, MAX_EPOCHS, VaultKeys};
use crate::codec::{Malformed, Reader, put_bytes};
use crate::ids::VaultId;

/// Version byte of a row of wrapped keys behind the wrap of a root key of its own.
const OWN_V1: u8 = 2;
/// The purpose of the wrap of such a root key.
const OWN_ROOT: &str = "vault-root";

/// The root key of one vault, which nothing but its own quorum's KEK wraps.
pub(crate) struct OwnRoot {
    pub(super) key: Key,
    /// The vault's seal config, the AAD of the wrap.
    config: Vec<u8>,
    wrapped: Vec<u8>,
}

impl OwnRoot {
    /// A fresh one.
    pub(crate) fn random(kek: &Key, config: Vec<u8>) -> Result<OwnRoot, RecordError> {
        let key = Key::random()?;
        let wrapped = wrap_key(kek, OWN_ROOT, &config, &key)?;
        Ok(OwnRoot {
            key,
            config,
            wrapped,
        })
    }

    pub(super) fn row<'a>(&'a self, keys: &'a [u8]) -> OwnRow<'a> {
        OwnRow {
            config: &self.config,
            wrapped: &self.wrapped,
            keys,
        }
    }
}

/// A row of keys that a root key of the vault's own wraps: `2 | bytes config | bytes wrap | keys`.
pub(crate) struct OwnRow<'a> {
    pub(crate) config: &'a [u8],
    pub(crate) wrapped: &'a [u8],
    keys: &'a [u8],
}

impl<'a> OwnRow<'a> {
    pub(crate) fn parse(row: &'a [u8]) -> Result<OwnRow<'a>, Malformed> {
        let mut read = Reader::new(row);
        read.expect(OWN_V1)?;
        Ok(OwnRow {
            config: read.bytes()?,
            wrapped: read.bytes()?,
            keys: read.rest(),
        })
    }

    /// The same keys for the quorum, and under the wrap, that `row` has of the same root key.
    pub(crate) fn for_quorum_of(&self, row: &OwnRow<'_>) -> Vec<u8> {
        let OwnRow {
            config, wrapped, ..
        } = *row;
        OwnRow {
            config,
            wrapped,
            keys: self.keys,
        }
        .to_bytes()
    }

    /// The same keys without their root key's wrap, which nobody opens.
    pub(crate) fn without_wrap(&self) -> Vec<u8> {
        OwnRow {
            config: b"",
            wrapped: b"",
            keys: self.keys,
        }
        .to_bytes()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![OWN_V1];
        put_bytes(&mut out, self.config);
        put_bytes(&mut out, self.wrapped);
        out.extend_from_slice(self.keys);
        out
    }

    /// The root key of the vault; fails under another KEK and under an edited config.
    pub(crate) fn root(&self, kek: &Key) -> Result<Key, RecordError> {
        unwrap_key(kek, OWN_ROOT, self.config, self.wrapped)
    }

    /// The epochs of its data keys, which stand in clear.
    pub(crate) fn epochs(&self) -> Result<BTreeSet<Epoch>, Malformed> {
        let mut read = Reader::new(self.keys);
        read.expect(KEYS_V1)?;
        let count = read.u32()?.min(MAX_EPOCHS);
        let mut epoch = || {
            let epoch = read.array()?;
            read.bytes().map(|_| epoch)
        };
        (0..count).map(|_| epoch()).collect()
    }

    /// The keys of the vault, out of its root key.
    pub(crate) fn open(
        &self,
        root: Key,
        store: StoreId,
        vault: VaultId,
    ) -> Result<VaultKeys, KeysError> {
        let mut keys = VaultKeys::unwrap(&root, store, vault, self.keys)?;
        keys.own = Some(OwnRoot {
            key: root,
            config: self.config.to_vec(),
            wrapped: self.wrapped.to_vec(),
        });
        Ok(keys)
    }
}

impl VaultKeys {
    /// Fresh keys under a root key of their own.
    pub(crate) fn random_under(own: OwnRoot) -> Result<VaultKeys, MemoryError> {
        let mut keys = VaultKeys::random()?;
        keys.own = Some(own);
        Ok(keys)
    }

    /// Their own root key, wrapped for another quorum; none where they have none.
    pub(crate) fn wrap_own(
        &self,
        kek: &Key,
        config: &[u8],
    ) -> Result<Option<Vec<u8>>, RecordError> {
        let own = self.own.as_ref();
        own.map(|own| wrap_key(kek, OWN_ROOT, config, &own.key))
            .transpose()
    }

    /// Their own root key was wrapped for another quorum.
    pub(crate) fn set_own(&mut self, config: Vec<u8>, wrapped: Vec<u8>) {
        if let Some(own) = &mut self.own {
            (own.config, own.wrapped) = (config, wrapped);
        }
    }

    /// Whether `root` is their own root key.
    pub(crate) fn is_own(&self, root: &Key) -> bool {
        self.own.as_ref().is_some_and(|own| own.key.ct_eq(root))
    }

    /// The keys that `row`, of any quorum that the vault had, holds under their own root key. Nothing where that does not
    /// open them.
    ///
    /// # Errors
    /// No secret memory.
    pub(crate) fn opened(
        &self,
        row: &OwnRow<'_>,
        store: StoreId,
        vault: VaultId,
    ) -> Result<Option<VaultKeys>, MemoryError> {
        let is_same = |own: &&OwnRoot| row.config != own.config || row.wrapped == own.wrapped;
        let Some(own) = self.own.as_ref().filter(is_same) else {
            return Ok(None);
        };
        match VaultKeys::unwrap(&own.key, store, vault, row.keys) {
            Ok(keys) => Ok(Some(keys)),
            Err(KeysError::Wrap(RecordError::Memory(error))) => Err(error),
            Err(_) => Ok(None),
        }
    }
}
