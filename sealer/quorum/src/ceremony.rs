//! No I/O. What init makes from a plan.
//!
//! Owns: [`Foundation`]: the split secret, its shares and the seal config, made together and checked.
//!
//! Does not: deliver shares ([`crate::seal_shares_to`]), record what was made ([`crate::CeremonyRecord`]) or write
//! anything.

use mcpist_secret::Key;

use crate::config::{ConfigError, SealConfig, SealConfigParts};
use crate::new_sharing::NewSharing;
use crate::plan::{Act, Plan};
use crate::share::Share;
use crate::split::SplitError;

/// Why init made nothing.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The plan is for another act.
    #[error("this plan does not make a store: begin with a plan of init")]
    NotInit,
    /// The config that results does not obey the rules.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret was not split.
    #[error(transparent)]
    Split(#[from] SplitError),
}

/// A new store's secret, before anything is written.
#[derive(Debug)]
pub struct Foundation {
    config: SealConfig,
    kek: Key,
    shares: Vec<Share>,
}

impl Foundation {
    /// Makes a fresh secret, splits it as the plan says, and forgets it: what stays is the key that
    /// wraps the root key, the shares, and the config that names them. `created` is in seconds
    /// since 1970.
    pub fn lay(plan: &Plan, created: u64) -> Result<Foundation, FoundError> {
        let Act::Init(terms) = plan.act() else {
            return Err(FoundError::NotInit);
        };
        let NewSharing {
            sharing,
            kek,
            shares,
        } = NewSharing::make(
            plan.set(),
            plan.generation(),
            plan.threshold(),
            &terms.holders,
        )?;
        let config = SealConfig::new(SealConfigParts {
            store: plan.store(),
            sharing,
            root_digest: terms.root_digest,
            officers: terms.officers.clone(),
            dev: terms.dev,
            created,
        })?;
        Ok(Foundation {
            config,
            kek,
            shares,
        })
    }

    /// The seal config of the new store.
    pub fn config(&self) -> &SealConfig {
        &self.config
    }

    /// The key that wraps the root key.
    pub fn kek(&self) -> &Key {
        &self.kek
    }

    /// The shares, in order of their holders.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
