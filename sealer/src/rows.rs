//! Rows in a transaction: all that the rest of the crate knows of a database.
//!
//! Owns the two traits through which vaults reach their rows, and the fixed list of tables. A table is
//! an ordered map from byte strings to byte strings; nothing else is asked of a database, so that
//! SQLite ([`crate::sqlite`]) can be joined by another engine without a change above this file.
//!
//! Promises: a transaction is atomic and, once [`Transaction::commit`] has returned `Ok`, durable; one
//! that is dropped leaves no trace. After an `Err` from `commit` the outcome is *unknown*, and the
//! caller settles it by reading the head again.
//!
//! Does not promise that what is read is what was written. Rows are hostile until they were opened
//! under a key and compared with the index.

use std::sync::Arc;

use crate::store::DbFile;

/// The tables of a database. `Vault` and `Ledger` and `Config` exist in `control.db` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// Name HMAC (32 bytes) → row of a record ([`crate::record`]).
    Record,
    /// Sequence (u64, big-endian) → sealed outbox line.
    Outbox,
    /// One row, key empty: the sealed head.
    Head,
    /// Clear text names → seal config and wrapped root key.
    Config,
    /// Vault id (16 bytes) → wrapped keys.
    Vault,
    /// Vault id (16 bytes) → recorded generation and open intent.
    Ledger,
}

impl Table {
    const ALL: [Table; 6] = [
        Table::Record,
        Table::Outbox,
        Table::Head,
        Table::Config,
        Table::Vault,
        Table::Ledger,
    ];

    /// The table's number in a backup.
    pub(crate) fn number(self) -> u8 {
        match self {
            Table::Record => 0,
            Table::Outbox => 1,
            Table::Head => 2,
            Table::Config => 3,
            Table::Vault => 4,
            Table::Ledger => 5,
        }
    }

    /// The table of that number in a backup.
    pub(crate) fn of_number(number: u8) -> Option<Table> {
        Table::ALL
            .into_iter()
            .find(|table| table.number() == number)
    }
}

/// Whether a transaction may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads only; takes no write lock.
    Read,
    /// Reads and writes; takes the write lock at once, so that it cannot fail for it later.
    Write,
}

/// What went wrong below the trait. The text comes from the engine and names no row's content.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RowsError {
    /// The file is not what this program wrote: schema, format, magic or page structure.
    #[error("the file is damaged or was not written by this program: {0}")]
    Damaged(String),
    /// A newer program wrote the file.
    #[error(
        "a newer release wrote this store: its schema has version {found}, this one knows {known}; start that release again, nothing was changed"
    )]
    Newer {
        /// The file's version.
        found: i32,
        /// The newest that is known here.
        known: i32,
    },
    /// There is no room on the disk.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The engine or the disk refused.
    #[error("the database could not be used: {0}")]
    Failed(String),
}

/// How much of a file is in memory at once, whatever somebody put there: no 256 rows of ours take so much.
pub(crate) const SCAN_BYTES: usize = 32 << 20;

/// One row: key and value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Rows that were read together, in one piece of memory: what takes a piece for each key and each value spends a tenth of an
/// unseal on that.
#[derive(Default)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    /// Where each key and its value end.
    ends: Vec<(usize, usize)>,
}

impl Packed {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Key and value of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(key_end, end)| {
            let row = (&self.bytes[start..*key_end], &self.bytes[*key_end..*end]);
            start = *end;
            row
        })
    }
}

/// One database. Opens its file when it is first used and again after [`Rows::close`].
pub(crate) trait Rows: Send {
    /// Starts a transaction.
    fn begin(&mut self, access: Access) -> Result<Box<dyn Transaction + '_>, RowsError>;
    /// The value under `key`, in a transaction of its own.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.begin(Access::Read)?.get(table, key)
    }
    /// How many records there are, from the next use on: more of them are worth more memory.
    fn expect(&mut self, _records: u64) {}
    /// Moves the log into the database and truncates it, so that no replaced row survives in it.
    fn truncate_log(&mut self) -> Result<(), RowsError>;
    /// Lets go of the file until the next use.
    fn close(&mut self) -> Result<(), RowsError>;
}

/// Rows seen and changed by one transaction. Dropping it rolls it back.
pub(crate) trait Transaction {
    /// The value under `key`.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;
    /// Inserts or replaces.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowsError>;
    /// Removes; a missing row is no error.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), RowsError>;
    /// Hands key and value of the next rows to `each`, in key order, those after `after` only: at most `limit`, and none
    /// more once they take [`SCAN_BYTES`]. None only where there are none.
    fn each(
        &mut self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), RowsError>;
    /// The rows that [`Transaction::each`] hands out.
    fn scan(
        &mut self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, RowsError> {
        let mut rows = Vec::new();
        self.each(table, after, limit, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
        })?;
        Ok(rows)
    }
    /// Makes the changes durable. On `Err` they may or may not be.
    fn commit(self: Box<Self>) -> Result<(), RowsError>;
}

/// Makes [`Rows`] for a file of the store.
pub(crate) trait Backend: Send + Sync {
    /// Creates the database with its empty tables; the file must exist and be empty.
    fn create(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError>;
    /// Names an existing database. The file is touched at the first transaction.
    fn open(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError>;
}

/// A shared [`Backend`].
pub(crate) type SharedBackend = Arc<dyn Backend>;

/// Every row of `table`, in slices of `slice` rows, handed to `each` in key order.
pub(crate) fn for_each_slice<E: From<RowsError>>(
    tx: &mut dyn Transaction,
    table: Table,
    slice: usize,
    mut each: impl FnMut(Vec<Row>) -> Result<(), E>,
) -> Result<(), E> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = tx.scan(table, after.as_deref(), slice)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        each(rows)?;
    }
}

/// Like [`for_each_slice`], for many rows.
pub(crate) fn for_each_packed<E: From<RowsError>>(
    tx: &mut dyn Transaction,
    table: Table,
    slice: usize,
    mut each: impl FnMut(Packed) -> Result<(), E>,
) -> Result<(), E> {
    let mut after: Option<Vec<u8>> = None;
    let mut room = 0;
    loop {
        let mut rows = Packed {
            bytes: Vec::with_capacity(room),
            ends: Vec::with_capacity(slice),
        };
        tx.each(table, after.as_deref(), slice, &mut |key, value| {
            rows.push(key, value);
        })?;
        let Some((last, _)) = rows.rows().last() else {
            return Ok(());
        };
        after = Some(last.to_vec());
        // The next slice is about as long.
        room = rows.bytes.len() + rows.bytes.len() / 8;
        each(rows)?;
    }
}
