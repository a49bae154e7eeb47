//! Tests of the whole crate from its own inside: with faults below the rows trait, and with files that are
//! changed behind the store's back.

mod attacks;
mod backup;
mod barrier;
mod carry;
mod drill;
mod epochs;
mod evidence;
mod faults;
mod flips;
mod groups;
mod model;
pub(crate) mod own;
mod rebuild;
mod rekey;
mod repair;
mod reverify;
mod support;
mod vault_restore;
mod vault_restore_own;
mod vaults;
