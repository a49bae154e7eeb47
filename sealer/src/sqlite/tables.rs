//! No I/O. The tables of a file and the statements on them.
//!
//! Owns the schema, its versions and every statement that reads or changes a row. Promises that each statement is a
//! constant: none is ever put together from input.

use crate::rows::Table;
use crate::schema::Version;
use crate::store::Role;

/// The newest version that this program knows.
pub(super) const NEWEST: Version = Version {
    number: 1,
    tables: |role| schema(role).iter().map(|table| table.create).collect(),
    steps: |_| Vec::new(),
};
/// The versions of the schema (`PRAGMA user_version`) that this program knows, its own last.
pub(super) static VERSIONS: [Version; 1] = [NEWEST];

/// The statements of one table, spelled out.
pub(super) struct Sql {
    pub(super) create: &'static str,
    pub(super) get: &'static str,
    pub(super) put: &'static str,
    pub(super) delete: &'static str,
    pub(super) scan: &'static str,
    pub(super) scan_after: &'static str,
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

pub(super) const RECORD: Sql = table!("record");
const OUTBOX: Sql = table!("outbox");
const HEAD: Sql = table!("head");
const CONFIG: Sql = table!("config");
const VAULT: Sql = table!("vault");
const LEDGER: Sql = table!("ledger");

pub(super) fn sql(table: Table) -> &'static Sql {
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
pub(super) fn schema(role: Role) -> &'static [Sql] {
    match role {
        Role::Vault => &[HEAD, OUTBOX, RECORD],
        Role::Control => &[CONFIG, HEAD, LEDGER, OUTBOX, RECORD, VAULT],
    }
}
