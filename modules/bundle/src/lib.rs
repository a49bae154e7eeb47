//! Bundles: the one file in which modules travel, made and verified without a network.
//!
//! | by task | module |
//! |---|---|
//! | the bytes of the container | [`container`] |
//! | whom a site trusts | [`root`] |
//! | a bundle's way in: quarantine, verification, staging, loading | [`quarantine`], [`verify`], [`stage`](mod@stage) |
//! | making one: module folders to a signed file | [`build`](mod@build), [`keys`] |
//! | looking at one without trusting it | [`inspect`](mod@inspect) |
//!
//! # Threat model
//! The stick, its file system and every byte of the file are hostile. Signatures are checked over the manifest's raw
//! bytes before a byte of it is parsed; each blob's digest stands in the manifest; there are no names of files to
//! follow, no links, modes or compression. What is verified is a copy that nobody else can write. *Limits:* a
//! publisher's key that signs what it should not; that is for the root, revocation and two officers.

pub mod build;
pub mod container;
pub mod inspect;
pub mod keys;
pub mod quarantine;
pub mod root;
pub mod stage;
pub mod verify;

pub use build::{BuildError, BuildOptions, build};
pub use container::{ContainerError, Role};
pub use inspect::{Inspection, inspect};
pub use keys::SigningKey;
pub use quarantine::{Quarantined, TakeError, take};
pub use root::{Root, RootError, RootParts};
pub use stage::{LoadError, Loaded, StageError, clean, load};
pub use verify::{Floor, Verified, VerifyError};
