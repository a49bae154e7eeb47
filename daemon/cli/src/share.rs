//! Shares outside the daemon: the files that they leave in, and the ways in which one comes back.
//!
//! Promises that share files are new files, each still encrypted to its holder, and that a share in plain text is in secret
//! memory only.

mod files;

use mcpist_quorum::{Identity, open_share_file};
use mcpist_secret::Secret;

use crate::error::{Error, Result};

pub(crate) use self::files::{check_room, write_shares};

/// The longest share file, trust root or record that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 64 * 1024;

/// The text of a share from its age file.
pub(crate) fn share_of(identity: &Identity, file: &[u8]) -> Result<Secret> {
    let share = open_share_file(identity, file).map_err(|e| Error::new("share_file", e))?;
    Ok(share.to_text()?)
}
