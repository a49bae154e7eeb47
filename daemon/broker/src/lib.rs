//! The token broker: credentials out of vaults, as leases for permitted calls.
//!
//! | by task | module |
//! |---|---|
//! | what a credential is, and what of it must never come back | [`credential`] |
//! | a vault, whatever holds it | [`vault`] |
//! | bindings with their credentials, and the lease | [`broker`] |
//!
//! A [`Broker`] is an immutable snapshot: it is built when the store opens and again, before the act is answered,
//! whenever a binding or a credential changes. What it holds of a credential is its sealed bytes; a lease opens them
//! in memory, with no disk and no lock beside the key's own. So a credential that was rotated or taken away is gone
//! from the moment its custodian gets the answer. A vault that was away when the snapshot was built fails its own
//! bindings only, and is asked again by the next build ([`Broker::has_passing_faults`]).
//!
//! *Limits.* The version before is redacted only while the process that rotated it lives: the store keeps one
//! version. A lease that was granted before a rotation is used up by its call.

pub mod broker;
pub mod credential;
pub mod vault;

pub use broker::{BoundBinding, Broker, LeaseError};
pub use credential::{Kind, PayloadFault};
pub use vault::{Closed, Held, SealedVault, Vault, VaultFault};
