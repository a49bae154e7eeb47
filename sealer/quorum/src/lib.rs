//! No I/O. Who can open a store, and the bytes that a store consists of.
//!
//! A store's secret is split among holders; a quorum of them gives it back; the key derived from it
//! wraps the root key, which wraps everything else. This crate owns each step of that as pure
//! functions and values, and every byte format on the way:
//!
//! - *who*: [`SealConfig`] (in clear, authenticated by the root key's wrap), [`VaultConfig`] (likewise, for
//!   one vault that has a quorum of its own), [`Plan`] (what a
//!   ceremony is about to do), [`CeremonyRecord`] (what it did, on paper).
//! - *shares*: [`Foundation`] makes them, [`split`] and [`combine`] are the arithmetic, [`Share`] is
//!   one of them with its text, [`seal_shares_to`] encrypts one to its holder, [`Collector`] takes
//!   them back and names each wrong one.
//! - *records*: [`seal_record`] and [`open_record`], [`wrap_key`] and [`unwrap_key`].
//! - *backup*: [`BackupWriter`] and [`BackupScan`], one file that the store's own quorum opens.
//! - *tamper evidence*: [`Buckets`] (the index and Merkle tree of a vault), [`Head`], and [`Receipt`], which stays
//!   outside the store and is what [`judge`] holds a store against that was put back whole.
//!
//! # Threat model
//! The adversary may own the disk, give any share text in any order, and hold up to one share fewer
//! than the threshold. They learn no bit of a secret from shares; no wrong share opens, or undoes
//! progress; no row opens in another place than its own; no earlier state of a vault passes for the
//! current one while its head is known. Each module says what it leaves to others. Root on a running,
//! unsealed host is outside this crate: secret memory ([`mcpist_secret`]) narrows what such a one
//! finds, it does not stop them.
//!
//! Values parse or do not exist: a [`Threshold`], [`Share`], [`SealConfig`], [`Plan`] or
//! [`ValidShares`] needs no second check. Secrets, keys and share values live in secret memory; they
//! have no Display, Serialize or Clone, and their Debug shows no byte of them.

mod backup;
mod buckets;
mod ceremony;
mod ceremony_record;
mod codec;
mod collector;
mod config;
mod consent;
mod delivery;
mod head;
mod ids;
mod new_sharing;
mod plan;
mod record;
mod rekey;
mod share;
mod sharing;
mod split;
mod vault_config;
mod witness;
mod words;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fixtures;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod model;
#[cfg(test)]
mod vectors;

pub use backup::{
    BackupEnd, BackupError, BackupHeader, BackupItem, BackupItems, BackupPart, BackupScan,
    BackupWriter, MAX_PATH, MAX_REASON, open_chunk,
};
pub use buckets::{BUCKETS, Buckets, ENTRY_LEN, Entry, NameHmac, SameName};
pub use ceremony::{FoundError, Foundation};
pub use ceremony_record::{CeremonyRecord, CeremonyRecordError, NotOfRecord, Recorded};
pub use codec::FormatError;
pub use collector::{
    ClosedBy, Collector, PENDING_SECONDS, Progress, ShareRefusal, Submission, ValidShares,
};
pub use config::{
    ConfigError, MAX_LABEL, MAX_OFFICERS, MAX_RECIPIENT, OfficerKey, SealConfig, SealConfigParts,
};
pub use consent::{CEREMONY_SECONDS, Consent, NotConsentable};
pub use delivery::{
    DeliverError, Identity, IdentityError, MAX_SHARE_FILE, OpenShareError, RecipientError,
    check_recipient, open_share_file, seal_shares_to,
};
pub use head::{HEAD_LEN, Head, Incarnation, LifeError};
pub use ids::{
    ConfigDigest, Generation, HexError, MAX_SHARES, PlanDigest, SetId, ShareDigest, StoreId,
    Threshold, ThresholdError,
};
pub use plan::{
    Act, InitTerms, Plan, PlanError, PlannedHolder, PlannedVault, RekeyTerms, VaultTerms,
};
pub use record::{
    MAX_AAD, MAX_PLAINTEXT, OpenRoom, RECORD_OVERHEAD, RecordAad, RecordError, RecordTag,
    open_record, seal_record, unwrap_key, wrap_key,
};
pub use rekey::{Delivery, Letter, Proof, RekeyError, Switch};
pub use share::{MAX_SHARE_TEXT, SHARE_TEXT_LEN, Share, ShareError};
pub use sharing::{Holder, Shared, Sharing};
pub use split::{CombineError, SplitError, combine, derive_kek, split};
pub use vault_config::{VaultConfig, VaultConfigParts};
pub use witness::{
    Contradiction, CounterVerdict, Ignored, Judgement, LogPoint, RECEIPT_LEN, RECEIPT_TEXT_LEN,
    Receipt, ReceiptError, StorePoint, judge, judge_counter,
};
pub use words::{
    MAX_WORDS_TEXT, SHARE_WORDS, WordsError, is_share_word, nearest_words, read_share, words_of,
};
