//! Witness receipts: what the store says of itself for people to keep outside of it.
//!
//! A receipt crosses as its text, one line; its type is the quorum crate's.

use serde::{Deserialize, Serialize};

/// Presents a receipt: the store does not open, or not go on, where it is older than that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentReceipt {
    /// The receipt's text.
    pub receipt: String,
}

/// What became of a receipt that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presented {
    /// The store is sealed: the receipt waits for the quorum, which gives the key to judge it by.
    Waiting {
        /// How many receipts wait, this one among them.
        receipts: u64,
    },
    /// The open store agrees with it.
    Agrees {
        /// How many commits of the store are newer than the receipt.
        newer: u64,
    },
}

/// A receipt of the store as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Its text.
    pub receipt: String,
}

/// The reply to a seal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sealed {
    /// A receipt of the store as it was closed; absent where its disk did not answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Shares that were given to an unseal, or to an open store's ceremony as consent, and are dropped.
    #[serde(default)]
    pub dropped: u8,
}

/// The newest receipt that was given out since the store opened, and what it does not cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Seconds since it was given out.
    pub age_s: u64,
    /// The store's generation that it names.
    pub generation: u64,
    /// Commits of the store that are newer: were the disk put back to it, nobody could prove them.
    pub newer: u64,
}
