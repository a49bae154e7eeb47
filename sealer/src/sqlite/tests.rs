//! Slices, migrations, page cache and errors, on real files.

use super::tables::{RECORD, Sql};
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
    NEWEST,
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
        NEWEST,
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
