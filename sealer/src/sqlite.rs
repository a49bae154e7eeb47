//! SQLite behind [`crate::rows`]: this file and those of its folder alone name it.
//!
//! Owns the rows of a file and the translation of errors; [`tables`] owns the schema and its statements, [`connect`] the
//! settings of a connection and the way to it. Promises that a file is
//! used only with exactly the schema this program writes (so no trigger, view or generated column that
//! somebody else put there ever runs), without following a link, and with every commit synced
//! (`synchronous=FULL` in WAL mode: one fsync of the log a commit).
//!
//! Does not judge a row: a row that was put back by another program reads like any other here.
//!
//! A connection costs 64 KiB of page cache, and up to 4 MiB where there are a million records: so much hold all of
//! their tree but its two lowest levels. `locking_mode=EXCLUSIVE` is set before the log is first touched, so SQLite keeps
//! its index of the log in memory and makes no shared-memory file.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::fault;
use crate::rows::{Access, Backend, Rows, RowsError, SCAN_BYTES, Table, Transaction};
use crate::schema::Version;
use crate::store::{DbFile, Role};

use self::connect::{APPLICATION_ID, CACHE, check_tables, connect, open_known, set_cache};
use self::tables::{NEWEST, VERSIONS, schema, sql};

mod connect;
mod tables;
#[cfg(test)]
mod tests;

/// So many records are worth 1 KiB of the page cache.
const RECORDS_A_KIB: u64 = 256;

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, Utf8Error};
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, TypeMismatch};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase | TypeMismatch) => {
                RowsError::Damaged(error.to_string())
            }
            // What is read is of another kind than all that was written.
            None if matches!(
                error,
                FromSqlConversionFailure(..) | InvalidColumnType(..) | Utf8Error(..)
            ) =>
            {
                RowsError::Damaged(error.to_string())
            }
            Some(DiskFull) => RowsError::Full(error.to_string()),
            _ => RowsError::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for RowsError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            RowsError::Full(error.to_string())
        } else {
            RowsError::Failed(error.to_string())
        }
    }
}

/// The [`Backend`] that ships.
pub(crate) struct Sqlite;

impl Backend for Sqlite {
    fn create(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError> {
        fault::database(file.role(), "create")?;
        let mut conn = connect(file)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for table in schema(file.role()) {
            tx.execute(table.create, [])?;
        }
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", NEWEST.number)?;
        tx.commit()?;
        fault::database(file.role(), "created")?;
        check_tables(&conn, &(NEWEST.tables)(file.role()))?;
        let mut rows = SqliteRows::new(file, &VERSIONS);
        rows.conn = Some(conn);
        Ok(Box::new(rows))
    }

    fn open(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError> {
        Ok(Box::new(SqliteRows::new(file, &VERSIONS)))
    }
}

struct SqliteRows {
    file: DbFile,
    conn: Option<Connection>,
    /// What the connection has, or is given when it is opened.
    cache: u64,
    known: &'static [Version],
}

impl SqliteRows {
    fn new(file: &DbFile, known: &'static [Version]) -> SqliteRows {
        SqliteRows {
            file: file.clone(),
            conn: None,
            cache: *CACHE.start(),
            known,
        }
    }

    fn conn(&mut self) -> Result<&mut Connection, RowsError> {
        if self.conn.is_none() {
            fault::database(self.file.role(), "open")?;
            let conn = open_known(&self.file, self.known)?;
            set_cache(&conn, self.cache)?;
            self.conn = Some(conn);
        }
        self.conn
            .as_mut()
            .ok_or_else(|| RowsError::Failed("the connection is gone".into()))
    }
}

impl Rows for SqliteRows {
    fn begin(&mut self, access: Access) -> Result<Box<dyn Transaction + '_>, RowsError> {
        let behavior = match access {
            Access::Read => TransactionBehavior::Deferred,
            Access::Write => TransactionBehavior::Immediate,
        };
        let role = self.file.role();
        let tx = self.conn()?.transaction_with_behavior(behavior)?;
        Ok(Box::new(SqliteTransaction { tx, role }))
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        // A single statement is a transaction; BEGIN and ROLLBACK around it cost as much as it does.
        get(self.conn()?, table, key)
    }

    fn expect(&mut self, records: u64) {
        let cache = (records / RECORDS_A_KIB).clamp(*CACHE.start(), *CACHE.end());
        if self.cache != cache {
            self.cache = cache;
            if let Some(Err(error)) = self.conn.as_ref().map(|conn| set_cache(conn, cache)) {
                log::warn!("a database keeps the cache that it has: {error}");
            }
        }
    }

    fn truncate_log(&mut self) -> Result<(), RowsError> {
        fault::database(self.file.role(), "truncate")?;
        let busy: i64 = self
            .conn()?
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        fault::database(self.file.role(), "truncated")?;
        if busy == 0 {
            Ok(())
        } else {
            Err(RowsError::Failed(
                "the log could not be truncated, a reader holds it".into(),
            ))
        }
    }

    fn close(&mut self) -> Result<(), RowsError> {
        match self.conn.take() {
            None => Ok(()),
            Some(conn) => {
                fault::database(self.file.role(), "close")?;
                conn.close().map_err(|(_, error)| error)?;
                Ok(fault::database(self.file.role(), "closed")?)
            }
        }
    }
}

/// A column, where it stands. No other type gets into a table of ours.
fn blob<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Result<&'a [u8], RowsError> {
    let value = row.get_ref(column)?.as_blob();
    value.map_err(|error| RowsError::Damaged(error.to_string()))
}

fn get(conn: &Connection, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
    let mut query = conn.prepare_cached(sql(table).get)?;
    Ok(query.query_row([key], |row| row.get(0)).optional()?)
}

struct SqliteTransaction<'a> {
    tx: rusqlite::Transaction<'a>,
    role: Role,
}

impl Transaction for SqliteTransaction<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        get(&self.tx, table, key)
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowsError> {
        self.tx
            .prepare_cached(sql(table).put)?
            .execute([key, value])?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), RowsError> {
        self.tx.prepare_cached(sql(table).delete)?.execute([key])?;
        Ok(())
    }

    fn each(
        &mut self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), RowsError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut query;
        let mut rows = match after {
            None => {
                query = self.tx.prepare_cached(sql(table).scan)?;
                query.query([limit])?
            }
            Some(after) => {
                query = self.tx.prepare_cached(sql(table).scan_after)?;
                query.query(rusqlite::params![limit, after])?
            }
        };
        let mut bytes = 0;
        while bytes < SCAN_BYTES
            && let Some(row) = rows.next()?
        {
            let (key, value) = (blob(row, 0)?, blob(row, 1)?);
            bytes += key.len() + value.len();
            each(key, value);
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), RowsError> {
        fault::database(self.role, "commit")?;
        self.tx.commit()?;
        Ok(fault::database(self.role, "committed")?)
    }
}
