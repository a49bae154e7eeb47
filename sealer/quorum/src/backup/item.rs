//! No I/O. What the chunks of a backup hold.
//!
//! # Layout (`crate::codec`)
//! ```text
//! 1 vault    | id [16] | name            what follows, up to 4, 5 or 9, are its rows
//! 2 row      | table u8 | key | value    as it stands in the store; a later one replaces an earlier one
//! 3 gone     | table u8 | key            a row that an earlier item brought, and that was deleted meanwhile
//! 4 end      | records u64               of the vault
//! 5 left out | id [16] | name | reason   a vault that could not be read
//! 6 file     | path | length u64         of the daemon; its bytes follow in pieces
//! 7 piece    | bytes
//! 8 counts   | vaults u32 | left out u32 | records u64 | files u32     the last item
//! 9 own end  | records u64 | entry       in the place of 4, of a vault that a quorum of its own opens: what the store knew
//!                                        of its head, by which that quorum's unseal judges it after a restore
//! ```
//! An item never goes over the border of a chunk.

use crate::codec::{FormatError, Reader, Writer};

use super::{FORMAT, MAX_CHUNK};

/// The longest path of a file, in bytes.
pub const MAX_PATH: usize = 512;
/// The longest reason for leaving a vault out, in bytes.
pub const MAX_REASON: usize = 512;
/// The longest name of a vault, in bytes.
const MAX_NAME: usize = 64;
/// The longest entry that the store has of a vault's head, in bytes.
const MAX_ENTRY: usize = 256;

/// One item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the layout
pub enum BackupItem<'a> {
    Vault {
        id: [u8; 16],
        name: &'a str,
    },
    Row {
        table: u8,
        key: &'a [u8],
        value: &'a [u8],
    },
    Gone {
        table: u8,
        key: &'a [u8],
    },
    EndOfVault {
        records: u64,
    },
    LeftOut {
        id: [u8; 16],
        name: &'a str,
        reason: &'a str,
    },
    File {
        path: &'a str,
        length: u64,
    },
    Piece(&'a [u8]),
    Counts {
        vaults: u32,
        left_out: u32,
        records: u64,
        files: u32,
    },
    EndOfOwn {
        records: u64,
        entry: &'a [u8],
    },
}

impl BackupItem<'_> {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::bare();
        match self {
            BackupItem::Vault { id, name } => out.u8(1).raw(&id).bytes(name.as_bytes()),
            BackupItem::Row { table, key, value } => out.u8(2).u8(table).bytes(key).bytes(value),
            BackupItem::Gone { table, key } => out.u8(3).u8(table).bytes(key),
            BackupItem::EndOfVault { records } => out.u8(4).u64(records),
            BackupItem::LeftOut { id, name, reason } => out
                .u8(5)
                .raw(&id)
                .bytes(name.as_bytes())
                .bytes(reason.as_bytes()),
            BackupItem::File { path, length } => out.u8(6).bytes(path.as_bytes()).u64(length),
            BackupItem::Piece(bytes) => out.u8(7).bytes(bytes),
            BackupItem::Counts {
                vaults,
                left_out,
                records,
                files,
            } => out.u8(8).u32(vaults).u32(left_out).u64(records).u32(files),
            BackupItem::EndOfOwn { records, entry } => out.u8(9).u64(records).bytes(entry),
        };
        out.finish()
    }
}

/// The items of an opened chunk.
pub struct BackupItems<'a>(Reader<'a>);

impl<'a> BackupItems<'a> {
    /// Reads what [`super::open_chunk`] opened.
    pub fn of(opened: &'a [u8]) -> BackupItems<'a> {
        BackupItems(Reader::bare(&FORMAT, opened))
    }

    fn read(&mut self) -> Result<BackupItem<'a>, FormatError> {
        let reader = &mut self.0;
        Ok(match reader.u8("item")? {
            1 => BackupItem::Vault {
                id: reader.raw("vault")?,
                name: reader.text_ref("vault name", MAX_NAME)?,
            },
            2 => BackupItem::Row {
                table: reader.u8("table")?,
                key: reader.bytes("key", MAX_CHUNK)?,
                value: reader.bytes("value", MAX_CHUNK)?,
            },
            3 => BackupItem::Gone {
                table: reader.u8("table")?,
                key: reader.bytes("key", MAX_CHUNK)?,
            },
            4 => BackupItem::EndOfVault {
                records: reader.u64("records")?,
            },
            5 => BackupItem::LeftOut {
                id: reader.raw("vault")?,
                name: reader.text_ref("vault name", MAX_NAME)?,
                reason: reader.text_ref("reason", MAX_REASON)?,
            },
            6 => BackupItem::File {
                path: reader.text_ref("path", MAX_PATH)?,
                length: reader.u64("length")?,
            },
            7 => BackupItem::Piece(reader.bytes("piece", MAX_CHUNK)?),
            8 => BackupItem::Counts {
                vaults: reader.u32("vaults")?,
                left_out: reader.u32("left out")?,
                records: reader.u64("records")?,
                files: reader.u32("files")?,
            },
            9 => BackupItem::EndOfOwn {
                records: reader.u64("records")?,
                entry: reader.bytes("entry", MAX_ENTRY)?,
            },
            other => return Err(reader.value("item", other.into())),
        })
    }
}

impl<'a> Iterator for BackupItems<'a> {
    type Item = Result<BackupItem<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_at_end()).then(|| self.read())
    }
}
