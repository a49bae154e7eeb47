//! What a change of a vault asks for, and what is checked of it before a disk is touched. No I/O.
//!
//! Owns [`Op`], [`Expect`], [`Committed`] and [`Batch`]. Promises of a [`Batch`]: 1 to [`MAX_BATCH`] operations, whose
//! names, kinds, hosts and sizes are acceptable. Whether records are in the state that is expected, and whether
//! two operations meet one record, [`crate::commit`] finds out.

use mcpist_secret::Secret;

use crate::error::VaultError;
use crate::ids::{check_hosts, check_kind, check_record};
use crate::record::{MAX_RECORD, Opened};

/// The most operations in one batch.
pub const MAX_BATCH: usize = 1024;
/// How many bytes the batches have that share a transaction. An operation counts for [`MIN_SIZE`] at least, so that they are
/// no more operations than one batch may have.
pub(crate) const MAX_GROUP: usize = MAX_BATCH * MIN_SIZE;
const MIN_SIZE: usize = 1024;

/// In what state a change expects a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any, or none.
    Any,
    /// There is no such record.
    Absent,
    /// It is at this version.
    Version(u64),
}

/// One operation of a batch.
pub enum Op {
    /// Puts a new version of a record.
    Put {
        /// The principal that owns it, or nobody.
        owner: Option<String>,
        /// Its name, 1 to 255 bytes.
        name: String,
        /// What the payload is, 1 to 64 of a-z, 0-9, '.', '_', '-'.
        kind: String,
        /// Seconds since 1970, or 0 for never.
        expiry: u64,
        /// The hosts that it is bound to.
        hosts: Vec<String>,
        /// The payload; [`MAX_RECORD`] bounds it together with the rest.
        payload: Secret,
        /// The state that the put is made for.
        expect: Expect,
    },
    /// Removes a record, which must exist.
    Delete {
        /// The principal that owns it, or nobody.
        owner: Option<String>,
        /// Its name.
        name: String,
        /// The state that the delete is made for.
        expect: Expect,
    },
    /// Puts a line into this database's outbox.
    Outbox(Vec<u8>),
}

/// What a batch became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// For each put its new version and for each delete the version that it removed, in the batch's order.
    pub versions: Vec<u64>,
    /// The vault's generation that the batch made: each batch makes one, also where several share a transaction.
    pub generation: u64,
}

impl Expect {
    pub(crate) fn check(self, name: &str, found: u64) -> Result<(), VaultError> {
        let expected = match self {
            Expect::Any => return Ok(()),
            Expect::Absent => 0,
            Expect::Version(version) => version,
        };
        if expected == found {
            return Ok(());
        }
        Err(VaultError::Conflict {
            name: name.to_owned(),
            expected,
            found,
        })
    }
}

/// A batch that was checked, and when it came, in seconds since 1970.
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) now: u64,
}

impl Batch {
    /// Checks it with [`check_batch`].
    pub(crate) fn check(ops: Vec<Op>, now: u64) -> Result<Batch, VaultError> {
        check_batch(&ops)?;
        Ok(Batch { ops, now })
    }

    /// What it counts for in [`MAX_GROUP`].
    pub(crate) fn size(&self) -> usize {
        let sizes = self.ops.iter().map(|op| match op {
            Op::Put { payload, .. } => payload.len(),
            Op::Delete { .. } => 0,
            Op::Outbox(line) => line.len(),
        });
        sizes.map(|size| size.max(MIN_SIZE)).sum()
    }
}

/// Checks operations that came from outside, before anything is done with them.
pub(crate) fn check_batch(ops: &[Op]) -> Result<(), VaultError> {
    if !(1..=MAX_BATCH).contains(&ops.len()) {
        return Err(VaultError::Batch { limit: MAX_BATCH });
    }
    ops.iter().try_for_each(check)
}

fn check(op: &Op) -> Result<(), VaultError> {
    let (len, limit) = match op {
        Op::Put {
            owner,
            name,
            kind,
            hosts,
            payload,
            ..
        } => {
            check_record(owner.as_deref(), name)?;
            check_kind(kind)?;
            check_hosts(hosts)?;
            let owner = owner.as_deref().unwrap_or("");
            (payload.len(), Opened::room(owner, name, kind, hosts))
        }
        Op::Delete { owner, name, .. } => {
            return check_record(owner.as_deref(), name).map_err(VaultError::from);
        }
        Op::Outbox(line) => (line.len(), MAX_RECORD),
    };
    if len > limit {
        return Err(VaultError::TooLarge { found: len, limit });
    }
    Ok(())
}
