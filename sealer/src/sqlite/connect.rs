//! The connection to a file: its settings, and the schema that it must have.
//!
//! Owns what is set before a statement runs, the check of the schema, and the migration of a file from an older one.
//! Promises that a connection which came out of here is on a file with exactly the tables that were asked for, and that
//! nothing but these tables can run in it (no trigger, no view, no extension, no attached file).

use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::fault;
use crate::rows::RowsError;
use crate::schema::{Version, Way, way};
use crate::store::DbFile;

/// Marks a file as ours (`PRAGMA application_id`): "MCPi".
pub(super) const APPLICATION_ID: i32 = 0x4d43_5069;
/// How long a second connection waits for the first one, which a `seal` may just be closing.
const BUSY: Duration = Duration::from_secs(2);
/// No value, statement or row is longer than this: a record is at most 64 KiB of payload and its meta.
const MAX_VALUE: i32 = 1 << 20;
/// The page cache of a connection, in KiB.
pub(super) const CACHE: RangeInclusive<u64> = 64..=4096;

/// Opens `file` with the settings that every connection has.
pub(super) fn connect(file: &DbFile) -> Result<Connection, RowsError> {
    // No CREATE: the store makes files itself, with their mode. No URI: a path is only ever a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let conn = Connection::open_with_flags(file.path(), flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 4096),
        (Limit::SQLITE_LIMIT_COLUMN, 8),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 16),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, value)?;
    }
    // The lock first: the log must never be opened in shared mode.
    set(&conn, "locking_mode", "EXCLUSIVE", "exclusive")?;
    set(&conn, "journal_mode", "WAL", "wal")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "secure_delete", "ON")?;
    conn.pragma_update(None, "cell_size_check", "ON")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    set_cache(&conn, *CACHE.start())?;
    conn.pragma_update(None, "mmap_size", 0)?;
    Ok(conn)
}

pub(super) fn set_cache(conn: &Connection, kib: u64) -> Result<(), RowsError> {
    // A negative size counts KiB and not pages.
    let size = i64::try_from(kib).unwrap_or(i64::MAX);
    Ok(conn.pragma_update(None, "cache_size", -size)?)
}

/// Sets a pragma that answers with the value it took, and insists on it.
fn set(conn: &Connection, name: &str, value: &str, expect: &str) -> Result<(), RowsError> {
    let took: String = conn
        .pragma_update_and_check(None, name, value, |row| row.get::<_, String>(0))
        .map_err(unread)?;
    if took.eq_ignore_ascii_case(expect) {
        Ok(())
    } else {
        Err(RowsError::Failed(format!(
            "{name} stayed {took}, wanted {expect}"
        )))
    }
}

/// The first look into a file: what SQLite takes for an error of the statement, which is constant, is one of the header.
fn unread(error: rusqlite::Error) -> RowsError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::Unknown) => RowsError::Damaged(error.to_string()),
        _ => error.into(),
    }
}

/// Opens a file of any version that is known, and has it at the newest one.
pub(super) fn open_known(file: &DbFile, known: &[Version]) -> Result<Connection, RowsError> {
    let conn = connect(file)?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(RowsError::Damaged("not a file of this program".into()));
    }
    let tables = |version: &Version| (version.tables)(file.role());
    match way(known, found) {
        Way::Here(version) => check_tables(&conn, &tables(version))?,
        Way::Up { from, through } => {
            check_tables(&conn, &tables(from))?;
            return migrate(file, conn, from, through);
        }
        Way::Newer => {
            let known = known.last().map_or(0, |version| version.number);
            return Err(RowsError::Newer { found, known });
        }
        Way::Nowhere => {
            return Err(RowsError::Damaged(format!(
                "no release wrote schema version {found}"
            )));
        }
    }
    Ok(conn)
}

/// Takes a file of the version `from` up, after a copy of it was made: in one transaction, so that it is of the one or of
/// the other whatever happens.
fn migrate(
    file: &DbFile,
    conn: Connection,
    from: &Version,
    through: &[Version],
) -> Result<Connection, RowsError> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| RowsError::from(error))?;
    file.keep_copy(from.number)
        .map_err(|error| RowsError::Failed(error.to_string()))?;
    let mut conn = connect(file)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for version in through {
        for step in (version.steps)(file.role()) {
            tx.execute(step, [])?;
        }
        tx.pragma_update(None, "user_version", version.number)?;
        check_tables(&tx, &(version.tables)(file.role()))?;
        log::info!(
            "{}: schema version {}",
            file.path().display(),
            version.number
        );
    }
    fault::database(file.role(), "migrate")?;
    tx.commit()?;
    fault::database(file.role(), "migrated")?;
    Ok(conn)
}

/// Compares the file's schema with the one that it should have, byte for byte.
pub(super) fn check_tables(conn: &Connection, tables: &[&str]) -> Result<(), RowsError> {
    let mut found = Vec::new();
    let mut query = conn.prepare("SELECT sql FROM sqlite_schema ORDER BY name LIMIT 32")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        found.push(row.get::<_, Option<String>>(0)?.unwrap_or_default());
    }
    if found.iter().map(String::as_str).eq(tables.iter().copied()) {
        Ok(())
    } else {
        Err(RowsError::Damaged("the schema was changed".into()))
    }
}
