//! SQLite behind [`crate::rows`]: the only file of the workspace that names it.
//!
//! Owns the settings of a connection, the schema and the translation of errors. Promises that a file is
//! used only with exactly the schema this program writes (so no trigger, view or generated column that
//! somebody else put there ever runs), without following a link, and with every commit synced
//! (`synchronous=FULL` in WAL mode: one fsync of the log a commit).
//!
//! Does not judge a row: a row that was put back by another program reads like any other here.
//!
//! A connection costs 64 KiB of page cache, and up to 4 MiB where there are a million records: so much hold all of
//! their tree but its two lowest levels. `locking_mode=EXCLUSIVE` is set before the log is first touched, so SQLite keeps
//! its index of the log in memory and makes no shared-memory file.

use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::fault;
use crate::rows::{Access, Backend, Rows, RowsError, SCAN_BYTES, Table, Transaction};
use crate::schema::{Version, Way, way};
use crate::store::{DbFile, Role};

/// Marks a file as ours (`PRAGMA application_id`): "MCPi".
const APPLICATION_ID: i32 = 0x4d43_5069;
/// The versions of the schema (`PRAGMA user_version`) that this program knows, its own last.
static VERSIONS: [Version; 1] = [Version {
    number: 1,
    tables: |role| schema(role).iter().map(|table| table.create).collect(),
    steps: |_| Vec::new(),
}];
/// How long a second connection waits for the first one, which a `seal` may just be closing.
const BUSY: Duration = Duration::from_secs(2);
/// No value, statement or row is longer than this: a record is at most 64 KiB of payload and its meta.
const MAX_VALUE: i32 = 1 << 20;

/// The page cache of a connection, in KiB.
const CACHE: RangeInclusive<u64> = 64..=4096;
/// So many records are worth 1 KiB of it.
const RECORDS_A_KIB: u64 = 256;

/// The statements of one table, spelled out so that none is ever put together from input.
struct Sql {
    create: &'static str,
    get: &'static str,
    put: &'static str,
    delete: &'static str,
    scan: &'static str,
    scan_after: &'static str,
}

macro_rules! table {
    ($name:literal) => {
        Sql {
            create: concat!(
                "CREATE TABLE ",
                $name,
                " (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID"
            ),
            get: concat!("SELECT value FROM ", $name, " WHERE key = ?1"),
            put: concat!(
                "INSERT INTO ",
                $name,
                " (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"
            ),
            delete: concat!("DELETE FROM ", $name, " WHERE key = ?1"),
            scan: concat!("SELECT key, value FROM ", $name, " ORDER BY key LIMIT ?1"),
            scan_after: concat!(
                "SELECT key, value FROM ",
                $name,
                " WHERE key > ?2 ORDER BY key LIMIT ?1"
            ),
        }
    };
}

const RECORD: Sql = table!("record");
const OUTBOX: Sql = table!("outbox");
const HEAD: Sql = table!("head");
const CONFIG: Sql = table!("config");
const VAULT: Sql = table!("vault");
const LEDGER: Sql = table!("ledger");

fn sql(table: Table) -> &'static Sql {
    match table {
        Table::Record => &RECORD,
        Table::Outbox => &OUTBOX,
        Table::Head => &HEAD,
        Table::Config => &CONFIG,
        Table::Vault => &VAULT,
        Table::Ledger => &LEDGER,
    }
}

/// The tables of a file, in the order of their names.
fn schema(role: Role) -> &'static [Sql] {
    match role {
        Role::Vault => &[HEAD, OUTBOX, RECORD],
        Role::Control => &[CONFIG, HEAD, LEDGER, OUTBOX, RECORD, VAULT],
    }
}

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, TypeMismatch};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase | TypeMismatch) => {
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
        tx.pragma_update(None, "user_version", VERSIONS[VERSIONS.len() - 1].number)?;
        tx.commit()?;
        fault::database(file.role(), "created")?;
        check_tables(&conn, &(VERSIONS[VERSIONS.len() - 1].tables)(file.role()))?;
        let mut rows = SqliteRows::new(file, &VERSIONS);
        rows.conn = Some(conn);
        Ok(Box::new(rows))
    }

    fn open(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError> {
        Ok(Box::new(SqliteRows::new(file, &VERSIONS)))
    }
}

/// Opens `file` with the settings that every connection has.
fn connect(file: &DbFile) -> Result<Connection, RowsError> {
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

fn set_cache(conn: &Connection, kib: u64) -> Result<(), RowsError> {
    // A negative size counts KiB and not pages.
    let size = i64::try_from(kib).unwrap_or(i64::MAX);
    Ok(conn.pragma_update(None, "cache_size", -size)?)
}

/// Sets a pragma that answers with the value it took, and insists on it.
fn set(conn: &Connection, name: &str, value: &str, expect: &str) -> Result<(), RowsError> {
    let took: String =
        conn.pragma_update_and_check(None, name, value, |row| row.get::<_, String>(0))?;
    if took.eq_ignore_ascii_case(expect) {
        Ok(())
    } else {
        Err(RowsError::Failed(format!(
            "{name} stayed {took}, wanted {expect}"
        )))
    }
}

/// Opens a file of any version that is known, and has it at the newest one.
fn open_known(file: &DbFile, known: &[Version]) -> Result<Connection, RowsError> {
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
fn check_tables(conn: &Connection, tables: &[&str]) -> Result<(), RowsError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VaultId;
    use crate::rows::for_each_slice;
    use crate::store::Store;

    #[test]
    fn rows_as_large_as_somebody_made_them_come_in_slices_that_memory_holds() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::prepare(&dir.path().join("store")).unwrap();
        let file = store.new_vault(VaultId::random().unwrap()).unwrap();
        let mut rows = Sqlite.create(&file).unwrap();
        let mut tx = rows.begin(Access::Write).unwrap();
        for n in 0..40u8 {
            tx.put(Table::Record, &[n], &vec![n; 1_000_000]).unwrap();
        }
        let mut slices = Vec::new();
        for_each_slice(tx.as_mut(), Table::Record, 512, |slice| {
            let bytes: usize = slice.iter().map(|(_, value)| value.len()).sum();
            assert!(bytes <= SCAN_BYTES + 1_000_000);
            slices.extend(slice.into_iter().flat_map(|(key, _)| key));
            Ok::<(), RowsError>(())
        })
        .unwrap();
        assert!(slices.into_iter().eq(0..40), "none is left out");
    }

    /// A program of the next release: records have a column more.
    const NEXT_RECORD: &str = "CREATE TABLE record (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL, note BLOB) STRICT, WITHOUT ROWID";

    static NEXT: [Version; 2] = [
        Version {
            number: 1,
            tables: |role| schema(role).iter().map(|table| table.create).collect(),
            steps: |_| Vec::new(),
        },
        Version {
            number: 2,
            tables: |role| {
                let table = |table: &Sql| match table.create {
                    record if record == RECORD.create => NEXT_RECORD,
                    other => other,
                };
                schema(role).iter().map(table).collect()
            },
            steps: |_| vec!["ALTER TABLE record ADD COLUMN note BLOB"],
        },
    ];

    /// A file of today with one row, closed.
    fn written(dir: &tempfile::TempDir) -> DbFile {
        let store = Store::prepare(&dir.path().join("store")).unwrap();
        let file = store.new_vault(VaultId::random().unwrap()).unwrap();
        let mut rows = Sqlite.create(&file).unwrap();
        let mut tx = rows.begin(Access::Write).unwrap();
        tx.put(Table::Record, b"key", b"value").unwrap();
        tx.commit().unwrap();
        rows.close().unwrap();
        file
    }

    fn read(file: &DbFile, known: &'static [Version]) -> Result<Option<Vec<u8>>, RowsError> {
        let mut rows = SqliteRows::new(file, known);
        let row = rows.begin(Access::Read)?.get(Table::Record, b"key")?;
        rows.close()?;
        Ok(row)
    }

    #[test]
    fn a_newer_program_copies_a_file_aside_and_takes_it_up_and_an_older_one_refuses_it_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(&dir);
        let before = std::fs::read(file.path()).unwrap();
        assert_eq!(read(&file, &NEXT).unwrap().unwrap(), b"value");
        let copy = file.path().with_extension("db.v1");
        assert_eq!(std::fs::read(copy).unwrap(), before, "the copy is the file");
        assert_eq!(read(&file, &NEXT).unwrap().unwrap(), b"value");
        let after = std::fs::read(file.path()).unwrap();
        let refused = read(&file, &VERSIONS).unwrap_err();
        assert!(matches!(refused, RowsError::Newer { found: 2, known: 1 }));
        assert!(refused.to_string().contains("version 2"), "{refused}");
        assert_eq!(
            std::fs::read(file.path()).unwrap(),
            after,
            "nothing changed"
        );
    }

    #[test]
    fn a_migration_that_was_cut_off_left_the_old_file_and_is_done_again() {
        static BROKEN: [Version; 2] = [
            Version {
                number: 1,
                tables: |role| schema(role).iter().map(|table| table.create).collect(),
                steps: |_| Vec::new(),
            },
            Version {
                number: 2,
                tables: |_| Vec::new(),
                steps: |_| vec!["DROP TABLE record", "DROP TABLE nothing"],
            },
        ];
        let dir = tempfile::tempdir().unwrap();
        let file = written(&dir);
        assert!(read(&file, &BROKEN).is_err());
        assert_eq!(read(&file, &VERSIONS).unwrap().unwrap(), b"value");
        // A copy stands there, and half a one of another attempt.
        std::fs::write(file.path().with_extension("db.v1.new"), b"half").unwrap();
        assert_eq!(read(&file, &NEXT).unwrap().unwrap(), b"value");
    }

    #[test]
    fn a_file_that_was_changed_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(&dir);
        let conn = Connection::open(file.path()).unwrap();
        conn.execute("CREATE VIEW more AS SELECT 1", []).unwrap();
        drop(conn);
        assert!(matches!(read(&file, &NEXT), Err(RowsError::Damaged(_))));
        assert!(!file.path().with_extension("db.v1").exists());
    }

    #[test]
    fn more_records_have_more_cache_also_when_the_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(&dir);
        let mut rows = SqliteRows::new(&file, &VERSIONS);
        for (records, kib) in [(0, 64), (100_000, 390), (10_000_000, 4096), (100, 64)] {
            rows.expect(records);
            for _ in 0..2 {
                let conn = rows.conn().unwrap();
                let size = conn.pragma_query_value(None, "cache_size", |row| row.get::<_, i64>(0));
                assert_eq!(size.unwrap(), -kib);
                rows.expect(records);
                rows.close().unwrap();
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_damaged_file_and_from_the_rest() {
        let of = |code| {
            RowsError::from(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(code),
                None,
            ))
        };
        assert!(matches!(of(rusqlite::ffi::SQLITE_FULL), RowsError::Full(_)));
        assert!(matches!(
            of(rusqlite::ffi::SQLITE_CORRUPT),
            RowsError::Damaged(_)
        ));
        assert!(matches!(
            of(rusqlite::ffi::SQLITE_IOERR),
            RowsError::Failed(_)
        ));
    }
}
