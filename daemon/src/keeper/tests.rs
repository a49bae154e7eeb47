//! The keeper on a real store in a folder of its own, driven as the sockets drive it.

#![allow(clippy::unwrap_used)]

mod calls;
mod care;
mod ceremony;
mod drain;
mod import;
mod outbox;
mod policy;
mod proposals;
mod restore;
mod rotate;
mod seal;
mod site;
mod vault_quorum;
mod vault_restore;
mod vaults;
