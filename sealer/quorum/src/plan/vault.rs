//! No I/O. The plans about one vault that has a quorum of its own, or gets one: acts 6 and 7.
//!
//! Owns: [`VaultTerms`], the makers of these plans, their rules and their part of a plan's bytes
//! ([`super`] has the layout). The vault's name stands in the plan so that holders read what they open.

use mcpist_secret::{MemoryError, random_bytes};

use super::{
    Act, Plan, PlanError, PlannedHolder, check_people, read_config, read_people, write_people,
};
use crate::codec::{FormatError, Reader, Writer};
use crate::config::{
    ConfigError, MAX_LABEL, SealConfig, is_label, read_generation, read_threshold,
};
use crate::ids::{ConfigDigest, Generation, SetId, Threshold};
use crate::vault_config::VaultConfig;

/// The vault that a plan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVault {
    /// Its identity.
    pub id: [u8; 16],
    /// Its name, for people to read.
    pub name: String,
}

/// What quorum a vault is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultTerms {
    /// The vault.
    pub vault: PlannedVault,
    /// Its seal config whose quorum consents; none where the vault is made by this.
    pub replaces: Option<ConfigDigest>,
    /// The generation of the new shares: above every one that was tried before.
    pub generation: Generation,
    /// How many of the new shares open it, of how many.
    pub threshold: Threshold,
    /// The holder of the new share 1, 2, and so on.
    pub holders: Vec<PlannedHolder>,
    /// Whether it is in a dev store.
    pub dev: bool,
}

impl Plan {
    /// Plans the opening of the vault `name`, with a fresh nonce.
    pub fn unseal_vault(config: &VaultConfig, name: &str) -> Result<Plan, MemoryError> {
        let act = Act::UnsealVault {
            vault: PlannedVault {
                id: *config.vault(),
                name: name.to_owned(),
            },
            config: config.digest(),
        };
        Plan::under(config.store(), config.sharing(), act)
    }

    /// Plans a vault in the store of `config` whose first quorum these are, with a lineage of its own, after
    /// checking its people as [`Plan::init`] does.
    pub fn new_vault(
        config: &SealConfig,
        vault: PlannedVault,
        threshold: Threshold,
        holders: Vec<PlannedHolder>,
    ) -> Result<Plan, PlanError> {
        let plan = Plan {
            nonce: random_bytes()?,
            store: config.store(),
            set: SetId::random()?,
            generation: Generation::FIRST,
            threshold,
            act: Act::RekeyVault(VaultTerms {
                vault,
                replaces: None,
                generation: Generation::FIRST,
                threshold,
                holders,
                dev: config.is_dev(),
            }),
        };
        plan.check()?;
        Ok(plan)
    }

    /// Plans new shares of `generation` for the vault `name`, after checking its people as [`Plan::init`] does.
    pub fn rekey_vault(
        config: &VaultConfig,
        name: &str,
        generation: Generation,
        threshold: Threshold,
        holders: Vec<PlannedHolder>,
    ) -> Result<Plan, PlanError> {
        let terms = VaultTerms {
            vault: PlannedVault {
                id: *config.vault(),
                name: name.to_owned(),
            },
            replaces: Some(config.digest()),
            generation,
            threshold,
            holders,
            dev: config.is_dev(),
        };
        let plan = Plan::under(config.store(), config.sharing(), Act::RekeyVault(terms))?;
        plan.check()?;
        Ok(plan)
    }

    /// The vault that it is about; none where it is about the store.
    pub(crate) fn vault(&self) -> Option<&PlannedVault> {
        match &self.act {
            Act::UnsealVault { vault, .. } => Some(vault),
            Act::RekeyVault(terms) => Some(&terms.vault),
            _ => None,
        }
    }

    pub(super) fn check_vault(&self, terms: &VaultTerms) -> Result<(), PlanError> {
        check_vault_name(&terms.vault)?;
        let current = self.generation;
        // The header of one that is made is that of the sharing that it gets.
        let follows = match terms.replaces {
            Some(_) => terms.generation > current,
            None => (terms.generation, terms.threshold) == (current, self.threshold),
        };
        if !follows {
            return Err(PlanError::Generation {
                current,
                planned: terms.generation,
            });
        }
        check_people(terms.threshold, &terms.holders, terms.dev)
    }
}

pub(super) fn check_vault_name(vault: &PlannedVault) -> Result<(), ConfigError> {
    if is_label(&vault.name) {
        return Ok(());
    }
    Err(ConfigError::Label {
        role: "vault",
        position: 1,
    })
}

pub(super) fn write_vault_terms(out: &mut Writer, terms: &VaultTerms) {
    write_vault(out, &terms.vault);
    out.u8(terms.replaces.is_some().into());
    if let Some(config) = &terms.replaces {
        out.raw(config.as_bytes());
    }
    out.u32(terms.generation.get())
        .u8(terms.threshold.needed())
        .u8(terms.threshold.total());
    write_people(out, &terms.holders);
    out.u8(terms.dev.into());
}

pub(super) fn read_vault_terms(reader: &mut Reader<'_>) -> Result<VaultTerms, ConfigError> {
    Ok(VaultTerms {
        vault: read_vault(reader)?,
        replaces: match reader.flag("replaces")? {
            true => Some(read_config(reader)?),
            false => None,
        },
        generation: read_generation(reader)?,
        threshold: read_threshold(reader)?,
        holders: read_people(reader)?,
        dev: reader.flag("dev")?,
    })
}

pub(super) fn write_vault(out: &mut Writer, vault: &PlannedVault) {
    out.raw(&vault.id).bytes(vault.name.as_bytes());
}

pub(super) fn read_vault(reader: &mut Reader<'_>) -> Result<PlannedVault, FormatError> {
    Ok(PlannedVault {
        id: reader.raw("vault")?,
        name: reader.text("vault name", MAX_LABEL)?,
    })
}
