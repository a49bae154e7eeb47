//! A vault with a quorum of its own: made, opened, sealed and given to others alone.
//!
//! Owns what the system vault's record says of such a vault beside its id ([`Named`]), and the acts of [`Vaults`] on it.
//! The vault's seal config stands in clear before its wrapped keys; its digest stands in the record that names the vault,
//! so that the system vault's head covers it: an older config with its older wrap is seen before a share is asked for.
//!
//! Promises: the store's quorum alone opens nothing of it, and its own quorum nothing of the store; its file is not looked at
//! before its quorum has opened its root key, and then verified and judged by the ledger as at the store's unseal, before
//! anything of it is served; sealing it takes its keys alone, and that of the store takes them with all others. Each change
//! is one transaction of control.db; a generation of shares that was tried is in it before one of them leaves.
//!
//! # Limits
//! Its name and its number of writes are the system vault's to know. A backup of the store has it as it stands, verified where
//! it is open ([`crate::backup`]), and a restore leaves its head as it is: it says the life in which the vault was made, and
//! is judged by the ledger alone. It is not rebuilt ([`crate::rotate`]), and a new root key of the store leaves it alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use mcpist_quorum::{
    ConfigDigest, Generation, StoreId, Switch, ValidShares, VaultConfig, combine, derive_kek,
};
use mcpist_secret::Key;

use crate::batch::{Expect, Op};
use crate::codec::{Malformed, Reader};
use crate::commit::{Extra, RawPut};
use crate::disk::{Disk, Role, tampered};
use crate::error::{Health, VaultError};
use crate::ids::{VaultId, VaultName};
use crate::keyring::{KeyCell, KeysError, OwnRoot, OwnRow, VaultKeys};
use crate::looking::Looking;
use crate::new_vault::NewVault;
use crate::rebuild::Freeze;
use crate::record::Place;
use crate::rekey::SwitchError;
use crate::rows::{Access, Table};
use crate::unseal::{Found, keys_error, shared};
use crate::vault::{OpenVault, now};
use crate::vaults::{Vaults, name_record, outbox_line};

/// What the system vault's record says of a vault's own quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnNote {
    config: ConfigDigest,
    tried: Generation,
}

/// The payload of the record that names a vault: `id[16]`, and where a quorum of its own opens it
/// `config digest[32] | highest generation tried u32`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: VaultId,
    pub(crate) own: Option<OwnNote>,
}

impl Named {
    pub(crate) fn of(id: VaultId, own: Option<&VaultQuorum>) -> Named {
        let own = own.map(|own| OwnNote {
            config: own.config.digest(),
            tried: own.tried,
        });
        Named { id, own }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.id.as_bytes().to_vec();
        if let Some(own) = &self.own {
            out.extend_from_slice(own.config.as_bytes());
            out.extend_from_slice(&own.tried.get().to_be_bytes());
        }
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Named, VaultError> {
        let read = |payload| {
            let mut read = Reader::new(payload);
            let id = VaultId::of(read.array()?);
            if read.clone().end().is_ok() {
                return Ok(Named { id, own: None });
            }
            let config = ConfigDigest::from_bytes(read.array()?);
            let tried = Generation::new(read.u32()?).ok_or(Malformed)?;
            read.end()?;
            let own = Some(OwnNote { config, tried });
            Ok::<_, Malformed>(Named { id, own })
        };
        read(payload).map_err(|_| tampered("a vault's record names no vault"))
    }
}

/// The quorum of its own that opens a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultQuorum {
    /// The vault's seal config.
    pub config: VaultConfig,
    /// The highest generation that shares were made of.
    pub tried: Generation,
}

impl VaultQuorum {
    /// The quorum whose seal config stands in `row`, if that is the one of the vault's record.
    pub(crate) fn of(
        store: StoreId,
        vault: VaultId,
        note: &OwnNote,
        row: &[u8],
    ) -> Result<VaultQuorum, VaultError> {
        let config = VaultConfig::from_bytes(OwnRow::parse(row)?.config)
            .map_err(|error| tampered(&format!("its seal config cannot be read: {error}")))?;
        if config.digest() != note.config {
            return Err(tampered(
                "its seal config is not the one that control.db records",
            ));
        }
        if (config.store(), config.vault()) != (store, vault.as_bytes()) {
            return Err(tampered("its seal config is that of another vault"));
        }
        Ok(VaultQuorum {
            config,
            tried: note.tried,
        })
    }
}

impl OpenVault {
    /// The quorum of its own that opens the vault.
    ///
    /// # Errors
    /// [`VaultError::NoOwnQuorum`].
    pub fn own_quorum(&self) -> Result<VaultQuorum, VaultError> {
        let Some(own) = &self.0.own else {
            return Err(VaultError::NoOwnQuorum(self.name().to_owned()));
        };
        Ok(own.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn set_own_quorum(&self, quorum: VaultQuorum) {
        if let Some(own) = &self.0.own {
            *own.write().unwrap_or_else(PoisonError::into_inner) = quorum;
        }
    }
}

impl Vaults {
    /// Makes the vault of `switch`, which opens for its quorum alone; it is open until it is sealed. `outbox` goes into
    /// the system vault's outbox in the same transaction.
    ///
    /// # Errors
    /// Those of [`Vaults::create_vault`]; [`SwitchError::OtherConfig`] where it is of another store, or makes no vault.
    pub fn create_own_vault(
        &self,
        switch: &Switch<VaultConfig>,
        outbox: Option<Vec<u8>>,
    ) -> Result<(), SwitchError> {
        let config = switch.config();
        let name = match switch.plan().act() {
            mcpist_quorum::Act::RekeyVault(terms) if terms.replaces.is_none() => &terms.vault.name,
            _ => return Err(SwitchError::OtherConfig),
        };
        if config.store() != self.live().id {
            return Err(SwitchError::OtherConfig);
        }
        let name = VaultName::parse(name).map_err(VaultError::from)?;
        let own = VaultQuorum {
            config: config.clone(),
            tried: config.sharing().generation,
        };
        let keys = VaultKeys::random_under(OwnRoot::random(switch.kek(), config.to_bytes())?)?;
        let id = VaultId::of(*config.vault());
        Ok(self.make(name.clone(), outbox, |live| {
            let mut new = NewVault::with(live, name, id, keys)?;
            new.created = config.created();
            new.own = Some(own);
            Ok(new)
        })?)
    }

    /// Whether `shares` open the root key of the vault `name`, which is open: the consent of its quorum.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing is changed.
    pub fn consent_own(&self, name: &str, shares: &ValidShares) -> Result<(), SwitchError> {
        let vault = self.vault(name)?;
        let (_, row) = self.own_row(&vault, shares)?;
        let root = own_root(
            name,
            &OwnRow::parse(&row).map_err(VaultError::from)?,
            shares,
        )?;
        let same = vault.0.keys.lend(|keys| keys.is_own(&root));
        match same {
            Ok(true) => Ok(()),
            Ok(false) => Err(SwitchError::NotOfThisVault(name.to_owned())),
            Err(_) => Err(VaultError::VaultSealed(name.to_owned()).into()),
        }
    }

    /// Opens the vault `name` with the shares of its own quorum: how many records it holds. Takes as long as its file
    /// does; one that does not verify is quarantined.
    ///
    /// # Errors
    /// [`SwitchError`]; the vault stays sealed, but where its file is not what was written.
    pub fn unseal_own(&self, name: &str, shares: &ValidShares) -> Result<u64, SwitchError> {
        let vault = self.vault(name)?;
        if vault.health() != Health::Sealed {
            vault.run(Disk::ready)?;
            return Ok(vault.status().records);
        }
        let live = self.live();
        let _alone = Freeze::of(&vault.0.stats)?;
        self.finish_moves()?.allows(vault.id())?;
        let (own, row) = self.own_row(&vault, shares)?;
        let row = OwnRow::parse(&row).map_err(VaultError::from)?;
        let root = own_root(name, &row, shares)?;
        let keys = row.open(root, live.id, vault.id());
        let keys = Arc::new(KeyCell::new(keys.map_err(keys_error)?));
        live.hold(&keys)?;
        let looking = Looking {
            store: &live.store,
            backend: &live.backend,
            options: live.options,
            place: Place::new(live.id, vault.id()),
            registrar: &live.registrar,
        };
        let id = vault.id();
        let found = looking.find(keys, || live.system.run(move |disk| disk.entry(id)));
        match &found.disk {
            Ok(_) | Err(VaultError::Quarantined(_)) => {}
            Err(error) => return Err(error.clone().into()),
        }
        let found = Found {
            own: Some(own),
            ..found
        };
        let failed = found.disk.as_ref().err().cloned();
        let opened = self.replace(&vault, found)?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(opened.status().records),
        }
    }

    /// Takes the keys of the vault `name` back and wipes them, alone. Its quorum opens it again.
    ///
    /// # Errors
    /// [`VaultError::NoOwnQuorum`], [`VaultError::NoSuchVault`]; the vault is quarantined.
    pub fn seal_own(&self, name: &str) -> Result<(), VaultError> {
        let vault = self.vault(name)?;
        let own = vault.own_quorum()?;
        if let Health::Quarantined(reason) = vault.health() {
            return Err(VaultError::Quarantined(reason));
        }
        let sealed = || VaultError::VaultSealed(vault.name().to_owned());
        drop(vault.0.fault.set(sealed()));
        vault.0.keys.revoke();
        self.live().revoke_beside(vault.id());
        self.live().forget_cell(&vault.0.keys);
        let closed = vault.0.lane.as_ref().is_none_or(|lane| lane.end().is_ok());
        if !closed {
            log::warn!("vault {name} is sealed, and its file is in use until its disk answers");
        }
        self.replace(&vault, Found::closed(sealed(), Some(own)))
            .map(drop)
    }

    /// Remembers that shares of `generation` are made for the vault `name`: before the first of them leaves. `outbox` goes
    /// into the system vault's outbox in the same transaction.
    ///
    /// # Errors
    /// The vault has no quorum of its own, or the store's disk.
    pub fn note_tried(
        &self,
        name: &str,
        generation: Generation,
        outbox: Option<Vec<u8>>,
    ) -> Result<(), VaultError> {
        let vault = self.vault(name)?;
        let mut own = vault.own_quorum()?;
        own.tried = own.tried.max(generation);
        self.write_own(&vault, &own, Vec::new(), outbox_line(outbox)?)
    }

    /// Gives the vault of `switch`, which is open, to its new quorum. `ops` go into the system vault in the same
    /// transaction.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing is changed, but after [`SwitchError::VaultInDoubt`].
    pub fn rekey_own(
        &self,
        switch: &Switch<VaultConfig>,
        ops: impl IntoIterator<Item = Op>,
    ) -> Result<(), SwitchError> {
        let mcpist_quorum::Act::RekeyVault(terms) = switch.plan().act() else {
            return Err(SwitchError::OtherConfig);
        };
        let vault = self.vault(&terms.vault.name)?;
        let own = vault.own_quorum()?;
        if switch.replaces() != Some(own.config.digest()) {
            return Err(SwitchError::OtherConfig);
        }
        let (id, config) = (vault.id(), switch.config().to_bytes());
        let wrapped = vault
            .0
            .keys
            .lend(|keys| keys.wrap_own(switch.kek(), &config));
        let wrapped = match wrapped {
            Ok(wrapped) => wrapped?.ok_or(SwitchError::OtherConfig)?,
            Err(_) => return Err(VaultError::VaultSealed(terms.vault.name.clone()).into()),
        };
        let row = self.live().system.run(move |disk| disk.key_row(id))?;
        let mut new_row = OwnRow::parse(&row).map_err(VaultError::from)?;
        (new_row.config, new_row.wrapped) = (&config, &wrapped);
        let new_row = new_row.to_bytes();
        let put = RawPut(Table::Vault, id.as_bytes().to_vec(), new_row.clone());
        let new = VaultQuorum {
            config: switch.config().clone(),
            tried: own.tried.max(switch.config().sharing().generation),
        };
        match self.write_own(&vault, &new, vec![put], ops) {
            Err(VaultError::OutcomeUnknown) => {
                let found = self.live().system.run(move |disk| disk.key_row(id));
                match found {
                    Ok(found) if found == new_row => vault.set_own_quorum(new),
                    Ok(_) => {
                        let text = "the disk failed, and the change was not made: try again";
                        return Err(VaultError::Storage(text.into()).into());
                    }
                    Err(_) => {
                        // What is written from here on might stay under a quorum that is none.
                        self.seal_own(vault.name())?;
                        return Err(SwitchError::VaultInDoubt(terms.vault.name.clone()));
                    }
                }
            }
            done => done?,
        }
        // Sealed meanwhile, they are not wanted any more.
        let _ = vault.0.keys.update(|keys| keys.set_own(config, wrapped));
        Ok(())
    }

    /// Writes what the system vault says of a vault's quorum, and `puts` with it.
    fn write_own(
        &self,
        vault: &OpenVault,
        own: &VaultQuorum,
        puts: Vec<RawPut>,
        more: impl IntoIterator<Item = Op>,
    ) -> Result<(), VaultError> {
        let name = VaultName::parse(vault.name())?;
        let mut ops: Vec<Op> = vec![name_record(&name, vault.id(), Some(own), Expect::Any)?];
        ops.extend(more);
        let extra = Extra {
            erases: !puts.is_empty(),
            puts,
            ..Extra::default()
        };
        let system = &self.live().system;
        system.run(move |disk| disk.commit_system(&ops, now(), extra))?;
        vault.set_own_quorum(own.clone());
        Ok(())
    }

    /// The row of wrapped keys of a vault, which `shares` are for.
    fn own_row(
        &self,
        vault: &OpenVault,
        shares: &ValidShares,
    ) -> Result<(VaultQuorum, Vec<u8>), SwitchError> {
        let (own, id) = (vault.own_quorum()?, vault.id());
        if shares.config() != own.config.digest() {
            return Err(SwitchError::OtherConfig);
        }
        let row = self.live().system.run(move |disk| disk.key_row(id))?;
        let note = Named::of(id, Some(&own)).own;
        let note = note.ok_or(SwitchError::OtherConfig)?;
        VaultQuorum::of(self.live().id, id, &note, &row)?;
        Ok((own, row))
    }

    /// Puts what was found in the place of `old`, if that is still there and the store open.
    pub(crate) fn replace(&self, old: &OpenVault, found: Found) -> Result<OpenVault, VaultError> {
        let live = self.live();
        let name = VaultName::parse(old.name())?;
        let keys = Arc::clone(&found.keys);
        let id = (old.name().to_owned(), old.id(), old.0.created);
        let new = shared(id, found, &live.pool, live.options, &live.sealed);
        let mut named = live.vaults.write().unwrap_or_else(PoisonError::into_inner);
        let is_there = named
            .get(&name)
            .is_some_and(|there| Arc::ptr_eq(&there.0, &old.0));
        if !is_there || live.sealed.load(Ordering::Acquire) {
            keys.revoke();
            return Err(VaultError::Sealed);
        }
        named.insert(name, new.clone());
        Ok(new)
    }
}

impl Disk {
    /// The row of wrapped keys of a vault.
    pub(crate) fn key_row(&mut self, id: VaultId) -> Result<Vec<u8>, VaultError> {
        self.ready()?;
        let mut tx = self.rows.begin(Access::Read)?;
        Ok(tx.get(Table::Vault, id.as_bytes())?.unwrap_or_default())
    }

    /// What control.db knows of a vault's head, all that waits for it written.
    pub(crate) fn entry(
        &mut self,
        id: VaultId,
    ) -> Result<Option<crate::ledger::Entry>, VaultError> {
        self.ready()?;
        self.flush()?;
        match &self.role {
            Role::System { ledger, .. } => Ok(ledger.0.get(&id).copied()),
            Role::Vault(_) => Ok(None),
        }
    }
}

/// The root key of a vault that these shares open.
fn own_root(name: &str, row: &OwnRow<'_>, shares: &ValidShares) -> Result<Key, SwitchError> {
    let kek = {
        let secret = combine(shares)?;
        derive_kek(&secret, shares.set(), shares.generation())?
    };
    row.root(&kek)
        .map_err(|error| match KeysError::from(error) {
            KeysError::Wrap(mcpist_quorum::RecordError::Memory(error)) => error.into(),
            _ => SwitchError::NotOfThisVault(name.to_owned()),
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_vault_reads_back_and_nothing_else_does() {
        let id = VaultId::random().unwrap();
        let own = OwnNote {
            config: ConfigDigest::from_bytes([7; 32]),
            tried: Generation::new(3).unwrap(),
        };
        for own in [None, Some(own)] {
            let named = Named { id, own };
            let bytes = named.encode();
            assert_eq!(Named::decode(&bytes).unwrap(), named);
            for end in (0..bytes.len()).filter(|end| *end != 16) {
                assert!(Named::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
            assert!(Named::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
        }
        let none = [id.as_bytes().as_slice(), &[7; 32], &[0; 4]].concat();
        assert!(Named::decode(&none).is_err(), "there is no generation 0");
    }
}
