//! Keys: how they hang together, and how they are lent and taken back. No I/O.
//!
//! ```text
//! shares → split secret ─HKDF→ KEK ─wraps→ root key ─wraps→ per vault: data key (one per epoch),
//!                                                            names key, head key; system: audit key
//! ```
//! Every key but the KEK is 32 random bytes; a wrap is a sealed record of [`mcpist_quorum`] whose AAD names
//! the store, the vault and the epoch, so a wrapped key cannot be moved. The AAD of the root key's wrap is
//! the seal config's canonical bytes: a config that was edited opens nothing.
//!
//! A vault's names and head keys are no children of its data key: a new epoch re-seals records and
//! leaves their lookup names and the head's lineage alone. A vault with a quorum of its own has the same
//! three keys, wrapped by a root key of its own ([`own`]), which that quorum's KEK wraps; nothing else differs.
//!
//! # How a key is reached
//! Keys live in secret memory inside a [`KeyCell`], behind a reader-writer lock. [`KeyCell::lend`] takes
//! the read half for one open or seal in memory (microseconds; no I/O is ever done inside), and
//! [`KeyCell::revoke`] the write half to drop, and thereby wipe, the keys. So revoking waits for
//! arithmetic only, never for a disk, and what is lent afterwards is refused.

use std::sync::{Arc, PoisonError, RwLock};

use mcpist_quorum::{RecordError, StoreId, unwrap_key, wrap_key};
use mcpist_secret::{Key, MemoryError};
use ring::hmac;

use crate::codec::{Malformed, Reader, put_bytes};
use crate::ids::VaultId;

mod own;

pub(crate) use own::{OwnRoot, OwnRow};

/// Version byte of a row of wrapped keys.
const KEYS_V1: u8 = 1;
/// No vault has more epochs than this at once: rotation keeps the old one until every record is moved.
pub(crate) const MAX_EPOCHS: u32 = 16;

/// Marks one generation of a vault's data key.
pub(crate) type Epoch = [u8; 16];

/// The keys were taken back: the store is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revoked;

/// Keys that are lent for one operation in memory and can be taken back at any time.
pub(crate) struct KeyCell<T>(RwLock<Option<T>>);

impl<T> KeyCell<T> {
    pub(crate) fn new(keys: T) -> KeyCell<T> {
        KeyCell(RwLock::new(Some(keys)))
    }

    /// A cell that never held keys.
    pub(crate) fn empty() -> KeyCell<T> {
        KeyCell(RwLock::new(None))
    }

    /// Lends the keys to `use_them`, which must neither block nor do I/O.
    pub(crate) fn lend<R>(&self, use_them: impl FnOnce(&T) -> R) -> Result<R, Revoked> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().map(use_them).ok_or(Revoked)
    }

    /// Puts other keys in the place of those that are there; of keys that were taken back there is no other.
    pub(crate) fn replace(&self, keys: T) -> Result<(), Revoked> {
        self.update(|there| *there = keys)
    }

    /// Changes the keys, for all who share the cell.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) -> Result<(), Revoked> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.as_mut().map(change).ok_or(Revoked)
    }

    /// Takes the keys out, to be put into another cell.
    pub(crate) fn take(&self) -> Result<T, Revoked> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.take().ok_or(Revoked)
    }

    /// Drops the keys. When this returns they are wiped and nobody holds them.
    pub(crate) fn revoke(&self) {
        drop(self.take());
    }
}

/// The wrapped root key, as it stands beside the seal config that is its AAD.
pub(crate) fn wrap_root(kek: &Key, config: &[u8], root: &Key) -> Result<Vec<u8>, RecordError> {
    wrap_key(kek, "root", config, root)
}

/// Opens what [`wrap_root`] made; fails under another KEK and under an edited config.
pub(crate) fn unwrap_root(kek: &Key, config: &[u8], wrapped: &[u8]) -> Result<Key, RecordError> {
    unwrap_key(kek, "root", config, wrapped)
}

/// The data key of an epoch that begins.
pub(crate) struct NextEpoch {
    pub(crate) id: Epoch,
    key: Key,
}

impl NextEpoch {
    pub(crate) fn random() -> Result<NextEpoch, MemoryError> {
        Ok(NextEpoch {
            id: mcpist_secret::random_bytes()?,
            key: Key::random()?,
        })
    }
}

/// The keys of one vault.
pub(crate) struct VaultKeys {
    /// Data keys, the newest last; never empty.
    epochs: Vec<(Epoch, Key)>,
    names: Key,
    head: Key,
    /// What wraps them in place of the store's root key.
    own: Option<OwnRoot>,
}

impl VaultKeys {
    /// Fresh keys with one epoch.
    pub(crate) fn random() -> Result<VaultKeys, MemoryError> {
        Ok(VaultKeys {
            epochs: vec![(mcpist_secret::random_bytes()?, Key::random()?)],
            names: Key::random()?,
            head: Key::random()?,
            own: None,
        })
    }

    /// The epoch that new records are sealed in.
    pub(crate) fn newest(&self) -> (Epoch, &Key) {
        // Both makers of the type put one in.
        let (epoch, key) = &self.epochs[self.epochs.len() - 1];
        (*epoch, key)
    }

    /// Every epoch, the newest last.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.epochs.iter().map(|(id, _)| *id)
    }

    /// The epoch `next` begins; of those before, the ones in `keep` go on.
    pub(crate) fn advance(&mut self, next: NextEpoch, keep: &[Epoch]) {
        self.epochs.retain(|(id, _)| keep.contains(id));
        self.epochs.push((next.id, next.key));
    }

    /// The data key of `epoch`.
    pub(crate) fn epoch(&self, epoch: Epoch) -> Option<&Key> {
        self.epochs
            .iter()
            .find(|(id, _)| *id == epoch)
            .map(|(_, key)| key)
    }

    pub(crate) fn head(&self) -> &Key {
        &self.head
    }

    pub(crate) fn names(&self) -> &Key {
        &self.names
    }

    /// The row of wrapped keys: `1 | n u32 | n × (epoch[16] | wrap) | names wrap | head wrap`. Keys with a root key of
    /// their own are wrapped by that in place of `by`, and their row is an [`OwnRow`].
    pub(crate) fn wrap(
        &self,
        by: &Key,
        store: StoreId,
        vault: VaultId,
    ) -> Result<Vec<u8>, RecordError> {
        let epochs = self.epochs.iter().map(|(id, key)| (id, key));
        self.wrap_epochs(by, store, vault, &epochs.collect::<Vec<_>>())
    }

    /// What [`VaultKeys::wrap`] will write once [`VaultKeys::advance`] was done.
    pub(crate) fn wrap_advanced(
        &self,
        by: &Key,
        store: StoreId,
        vault: VaultId,
        next: &NextEpoch,
        keep: &[Epoch],
    ) -> Result<Vec<u8>, RecordError> {
        let kept = self.epochs.iter().filter(|(id, _)| keep.contains(id));
        let kept = kept.map(|(id, key)| (id, key));
        let epochs: Vec<_> = kept.chain([(&next.id, &next.key)]).collect();
        self.wrap_epochs(by, store, vault, &epochs)
    }

    fn wrap_epochs(
        &self,
        by: &Key,
        store: StoreId,
        vault: VaultId,
        epochs: &[(&Epoch, &Key)],
    ) -> Result<Vec<u8>, RecordError> {
        let (mut out, by) = match &self.own {
            Some(own) => (own.row(&[]).to_bytes(), &own.key),
            None => (Vec::new(), by),
        };
        out.push(KEYS_V1);
        out.extend_from_slice(
            &u32::try_from(epochs.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for (epoch, key) in epochs {
            out.extend_from_slice(*epoch);
            put_bytes(
                &mut out,
                &wrap_key(by, "vault", &wrap_aad(store, vault, *epoch), key)?,
            );
        }
        for (purpose, key) in [("names", &self.names), ("head", &self.head)] {
            put_bytes(
                &mut out,
                &wrap_key(by, purpose, &wrap_aad(store, vault, &[]), key)?,
            );
        }
        Ok(out)
    }

    /// Reads back what [`VaultKeys::wrap`] wrote.
    pub(crate) fn unwrap(
        by: &Key,
        store: StoreId,
        vault: VaultId,
        row: &[u8],
    ) -> Result<VaultKeys, KeysError> {
        let mut read = Reader::new(row);
        read.expect(KEYS_V1)?;
        let count = read.u32()?;
        if !(1..=MAX_EPOCHS).contains(&count) {
            return Err(KeysError::Malformed(Malformed));
        }
        let mut epochs = Vec::new();
        for _ in 0..count {
            let epoch = read.array()?;
            let key = unwrap_key(by, "vault", &wrap_aad(store, vault, &epoch), read.bytes()?)?;
            epochs.push((epoch, key));
        }
        let aad = wrap_aad(store, vault, &[]);
        let names = unwrap_key(by, "names", &aad, read.bytes()?)?;
        let head = unwrap_key(by, "head", &aad, read.bytes()?)?;
        read.end()?;
        Ok(VaultKeys {
            epochs,
            names,
            head,
            own: None,
        })
    }
}

/// Why a vault's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Wrap(#[from] RecordError),
}

fn wrap_aad(store: StoreId, vault: VaultId, epoch: &[u8]) -> Vec<u8> {
    [store.as_bytes().as_slice(), vault.as_bytes(), epoch].concat()
}

/// Wraps the audit sub-key, which does not evolve.
pub(crate) fn wrap_audit(root: &Key, store: StoreId, audit: &Key) -> Result<Vec<u8>, RecordError> {
    wrap_key(root, "audit", store.as_bytes(), audit)
}

/// Opens what [`wrap_audit`] made.
pub(crate) fn unwrap_audit(root: &Key, store: StoreId, wrapped: &[u8]) -> Result<Key, RecordError> {
    unwrap_key(root, "audit", store.as_bytes(), wrapped)
}

/// The store is sealed, so the audit sub-key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is sealed: unseal it first")]
pub struct AuditKeySealed;

/// MACs values for the audit log under a sub-key that lasts as long as the store.
///
/// A handle: cheap to clone, refused after `seal()`.
#[derive(Clone)]
pub struct AuditKey(Arc<KeyCell<Key>>);

impl AuditKey {
    pub(crate) fn new(key: Key) -> AuditKey {
        AuditKey(Arc::new(KeyCell::new(key)))
    }

    /// HMAC-SHA-256 (RFC 2104) of `value`.
    ///
    /// # Errors
    /// [`AuditKeySealed`] after `seal()`.
    pub fn mac(&self, value: &[u8]) -> Result<[u8; 32], AuditKeySealed> {
        self.0
            .lend(|key| hmac_sha256(key, &[value]))
            .map_err(|Revoked| AuditKeySealed)
    }

    pub(crate) fn revoke(&self) {
        self.0.revoke();
    }
}

/// HMAC-SHA-256 over the parts, which the caller delimits.
pub(crate) fn hmac_sha256(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn store() -> StoreId {
        StoreId::from_bytes([7; 16])
    }

    #[test]
    fn keys_come_back_from_their_row() {
        let root = Key::random().unwrap();
        let vault = VaultId::random().unwrap();
        let keys = VaultKeys::random().unwrap();
        let row = keys.wrap(&root, store(), vault).unwrap();
        let back = VaultKeys::unwrap(&root, store(), vault, &row).unwrap();
        assert_eq!(back.newest().0, keys.newest().0);
        assert_eq!(back.newest().1.expose(), keys.newest().1.expose());
        assert_eq!(back.names.expose(), keys.names.expose());
        assert_eq!(back.head.expose(), keys.head.expose());
        assert!(back.epoch([0; 16]).is_none());
    }

    #[test]
    fn a_row_of_keys_moved_cut_or_changed_opens_nothing() {
        let root = Key::random().unwrap();
        let vault = VaultId::random().unwrap();
        let row = VaultKeys::random()
            .unwrap()
            .wrap(&root, store(), vault)
            .unwrap();
        let open = |root: &Key, store, vault, row: &[u8]| {
            VaultKeys::unwrap(root, store, vault, row).is_err()
        };
        assert!(
            open(&root, store(), VaultId::random().unwrap(), &row),
            "another vault"
        );
        assert!(
            open(&root, StoreId::from_bytes([8; 16]), vault, &row),
            "another store"
        );
        assert!(
            open(&Key::random().unwrap(), store(), vault, &row),
            "another root key"
        );
        for at in 0..row.len() {
            let mut bad = row.clone();
            bad[at] ^= 1;
            assert!(open(&root, store(), vault, &bad), "byte {at}");
            assert!(open(&root, store(), vault, &row[..at]), "cut at {at}");
        }
        assert!(
            open(&root, store(), vault, &[row.as_slice(), b"x"].concat()),
            "longer"
        );
    }

    #[test]
    fn an_edited_config_opens_no_root_key() {
        let (kek, root) = (Key::random().unwrap(), Key::random().unwrap());
        let wrapped = wrap_root(&kek, b"3 of 5", &root).unwrap();
        assert_eq!(
            unwrap_root(&kek, b"3 of 5", &wrapped).unwrap().expose(),
            root.expose()
        );
        assert!(unwrap_root(&kek, b"2 of 5", &wrapped).is_err());
    }

    #[test]
    fn what_is_revoked_is_not_lent() {
        let audit = AuditKey::new(Key::random().unwrap());
        let mac = audit.mac(b"value").unwrap();
        assert_eq!(audit.clone().mac(b"value").unwrap(), mac);
        audit.revoke();
        assert_eq!(audit.mac(b"value"), Err(AuditKeySealed));
    }
}
