//! How many sharings the store has had, as a record of its own.
//!
//! Owns [`Sharings`]: the seal config stands in clear and says of which generation it is; this record says it sealed, and
//! which generations were tried besides. Promises that a config which was put back from before a rekey opens the root key
//! and nothing more, and that no generation is made twice in the life of a store.

use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use mcpist_quorum::SealConfig;
use mcpist_sealer::{Expect, Op, OpenVault};
use serde::{Deserialize, Serialize};

use super::{records, records_error};

/// Kind and name of the record.
const SHARINGS: &str = "sharings";

/// The generations of the store's sharings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sharings {
    /// The highest that shares were made of.
    pub(super) tried: u32,
    /// The one that opens the store.
    pub(super) current: u32,
}

impl Sharings {
    /// As the store says. One that was never rekeyed has no record of it.
    pub(super) fn read(system: &OpenVault, config: &SealConfig) -> Result<Sharings, ApiError> {
        let stored = records::get(system, SHARINGS).map_err(|e| records_error(&e))?;
        let current = config.generation().get();
        Ok(stored.unwrap_or(Sharings {
            tried: current,
            current,
        }))
    }

    /// The write of it.
    pub(super) fn op(self) -> Result<Op, ApiError> {
        records::put(SHARINGS, SHARINGS.to_owned(), Some(&self), Expect::Any)
            .map_err(|e| records_error(&e))
    }

    /// Refuses a seal config that is not the one which the last rekey left: somebody put an old one back.
    pub(super) fn judge(system: &OpenVault, config: &SealConfig) -> Result<(), ApiError> {
        let current = Sharings::read(system, config)?.current;
        if current == config.generation().get() {
            return Ok(());
        }
        let text = format!(
            "the seal config was put back: it is of generation {}, the store was rekeyed to {current}; restore the store from a backup, and find out who had the disk",
            config.generation()
        );
        Err(ApiError::new(ErrorCode::VaultQuarantined, &text))
    }
}
