//! The keeper on a real store in a folder of its own, driven as the sockets drive it.

#![allow(clippy::unwrap_used)]

mod import;
mod policy;
mod seal;
mod site;
mod vaults;
