//! Vaults and credentials: made, put, listed, deleted; never read out.
//!
//! Promises that a payload was checked before it is stored, that its audit line is in the same commit, and that the
//! snapshot holds the new version, or none, before the custodian gets the answer.

use mcpist_broker::Kind;
use mcpist_core::api::{ApiError, Credential, CredentialStored, Credentials};
use mcpist_core::binding::HostName;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{CredentialName, PrincipalName, VaultName};
use mcpist_sealer::{Expect, Op, OpenVault};
use mcpist_secret::Secret;

use super::{Keeper, SYSTEM, outbox_line, vault_error};

/// What a credential is, beside its payload.
pub(crate) struct Spec {
    pub(crate) vault: VaultName,
    pub(crate) name: CredentialName,
    pub(crate) owner: Option<PrincipalName>,
    pub(crate) kind: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) expiry: u64,
}

impl Keeper {
    /// Makes a vault.
    pub(crate) fn create_vault(&mut self, uid: u32, name: &VaultName) -> Result<(), ApiError> {
        if name.as_str() == SYSTEM {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "the vault system is the store's own",
            ));
        }
        let line = outbox_line(&Event::VaultCreated { vault: name, uid });
        self.open()?;
        self.recordable()?;
        let open = self.open()?;
        open.vaults()
            .create_vault(name.as_str(), Some(line))
            .map_err(|e| vault_error(&e))?;
        self.drain_system()
    }

    /// A custodian has seen that the last write of a vault is missing.
    pub(crate) fn confirm_last_write(
        &mut self,
        uid: u32,
        name: &VaultName,
    ) -> Result<(), ApiError> {
        let line = outbox_line(&Event::LastWriteMissing {
            vault: name,
            confirmed: Some(uid),
        });
        self.open()?;
        self.recordable()?;
        let open = self.open()?;
        open.vaults()
            .confirm_last_write_missing(name.as_str(), Some(line))
            .map_err(|e| vault_error(&e))?;
        log::info!("vault {name}: uid {uid} has seen that its last write is missing");
        self.drain_system()
    }

    /// Stores a version of a credential.
    pub(crate) fn put_credential(
        &mut self,
        uid: u32,
        spec: Spec,
        payload: &Secret,
    ) -> Result<CredentialStored, ApiError> {
        let invalid =
            |e: &dyn std::fmt::Display| ApiError::new(ErrorCode::RequestInvalid, &e.to_string());
        let kind = Kind::parse(&spec.kind).map_err(|e| invalid(&e))?;
        kind.check(payload.expose()).map_err(|e| invalid(&e))?;
        if spec.hosts.is_empty() {
            return Err(invalid(
                &"a credential names the hosts that it is for; give --host",
            ));
        }
        for host in &spec.hosts {
            HostName::parse(host).map_err(|e| invalid(&e))?;
        }
        let vault = self.credential_vault(&spec.vault)?;
        self.open()?.changeable(&spec.vault)?;
        let owner = spec.owner.as_ref().map(PrincipalName::as_str);
        let key = mcpist_sealer::RecordKey {
            owner,
            name: spec.name.as_str(),
        };
        let current = match vault.meta(&key) {
            Ok(meta) => Some(meta.version),
            Err(mcpist_sealer::VaultError::NotFound(_)) => None,
            Err(e) => return Err(vault_error(&e)),
        };
        // The line names the version; nobody else writes to a vault.
        let version = vault.next_version(&key).map_err(|e| vault_error(&e))?;
        let event = Event::CredentialPut {
            vault: &spec.vault,
            name: &spec.name,
            owner: spec.owner.as_ref(),
            version,
            kind: kind.as_str(),
            uid: Some(uid),
        };
        let put = Op::Put {
            owner: owner.map(str::to_owned),
            name: spec.name.to_string(),
            kind: kind.as_str().to_owned(),
            expiry: spec.expiry,
            hosts: spec.hosts.clone(),
            payload: Secret::copy_of(payload.expose()).map_err(|e| invalid(&e))?,
            expect: current.map_or(Expect::Absent, Expect::Version),
        };
        self.open_for_change()?;
        let committed = vault.commit(vec![put, Op::Outbox(outbox_line(&event))]);
        self.follow(committed)?;
        self.drain(&spec.vault)?;
        Ok(CredentialStored {
            vault: spec.vault,
            name: spec.name,
            version,
        })
    }

    /// Deletes a shared credential.
    pub(crate) fn delete_credential(
        &mut self,
        uid: u32,
        vault_name: &VaultName,
        name: &CredentialName,
    ) -> Result<(), ApiError> {
        let vault = self.credential_vault(vault_name)?;
        self.open()?.changeable(vault_name)?;
        let key = mcpist_sealer::RecordKey {
            owner: None,
            name: name.as_str(),
        };
        let version = vault.meta(&key).map_err(|e| vault_error(&e))?.version;
        let event = Event::CredentialDeleted {
            vault: vault_name,
            name,
            owner: None,
            version,
            uid,
        };
        let delete = Op::Delete {
            owner: None,
            name: name.to_string(),
            expect: Expect::Version(version),
        };
        self.open_for_change()?;
        let committed = vault.commit(vec![delete, Op::Outbox(outbox_line(&event))]);
        self.follow(committed)?;
        self.drain(vault_name)
    }

    /// The credentials of a vault, without their payloads, and those that bindings name and that are not there.
    pub(crate) fn credentials(&mut self, vault: &VaultName) -> Result<Credentials, ApiError> {
        let listed = self
            .credential_vault(vault)?
            .list(None)
            .map_err(|e| vault_error(&e))?;
        let show = |l: mcpist_sealer::Listed| {
            Some(Credential {
                name: CredentialName::parse(&l.name).ok()?,
                owner: l.owner.and_then(|o| PrincipalName::parse(&o).ok()),
                kind: l.meta.kind,
                hosts: l.meta.hosts,
                version: l.meta.version,
                created: l.meta.created,
                expiry: l.meta.expiry,
            })
        };
        let credentials: Vec<_> = listed.into_iter().filter_map(show).collect();
        let mut missing = self.open()?.bound(vault);
        for there in credentials.iter().filter(|c| c.owner.is_none()) {
            missing.remove(&there.name);
        }
        Ok(Credentials {
            credentials,
            missing: missing.into_iter().collect(),
        })
    }

    fn credential_vault(&mut self, name: &VaultName) -> Result<OpenVault, ApiError> {
        if name.as_str() == SYSTEM {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "the vault system holds no credentials",
            ));
        }
        self.open()?
            .vaults()
            .vault(name.as_str())
            .map_err(|e| vault_error(&e))
    }
}
