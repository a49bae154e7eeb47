//! A store in a temporary folder, its shares, and a backend that does as a test says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mcpist_quorum::{Foundation, InitTerms, OfficerKey, Plan, PlannedHolder, Share, Threshold};
use mcpist_secret::Secret;
use tempfile::TempDir;

use crate::barrier::{Barrier, Options, Sealed, Unsealed};
use crate::batch::{Expect, Op};
use crate::create::create_on;
use crate::rows::{Access, Backend, Row, Rows, RowsError, Table, Transaction};
use crate::sqlite::Sqlite;
use crate::store::DbFile;
use crate::unseal::{Unseal, UnsealReport};
use crate::vault::{OpenVault, RecordKey};

/// How a commit fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// While rows are put, before the commit.
    Put,
    /// At the commit, which has not happened.
    Lost,
    /// At the commit, which has happened.
    Made,
}

#[derive(Default)]
struct State {
    /// Commits of each file, by its name.
    commits: BTreeMap<String, u64>,
    fail: BTreeMap<String, Fail>,
    /// Files whose next transactions that read do not begin, and how many.
    blind: BTreeMap<String, u32>,
    /// What reads of the table `record` find in place of what stands there.
    serve: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What is done once the next commit of a file was made, before its caller hears of it.
    made: BTreeMap<String, Box<dyn FnOnce() + Send>>,
    /// What is done once the next commit of a file was lost, likewise.
    lost: BTreeMap<String, Box<dyn FnOnce() + Send>>,
    /// Files whose transactions wait.
    hang: BTreeMap<String, bool>,
}

/// What a test does to the databases of one site.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<(Mutex<State>, Condvar)>);

impl Faults {
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    pub(crate) fn commits(&self, file: &str) -> u64 {
        self.with(|state| state.commits.get(file).copied().unwrap_or(0))
    }

    pub(crate) fn fail_next(&self, file: &str, how: Fail) {
        self.with(|state| state.fail.insert(file.to_owned(), how));
    }

    /// Keeps the file from being read once, or once more.
    pub(crate) fn blind_next(&self, file: &str) {
        self.with(|state| *state.blind.entry(file.to_owned()).or_default() += 1);
    }

    pub(crate) fn serve(&self, key: &[u8], row: Option<Vec<u8>>) {
        self.with(|state| state.serve.insert(key.to_vec(), row));
    }

    pub(crate) fn once_made(&self, file: &str, act: impl FnOnce() + Send + 'static) {
        self.with(|state| state.made.insert(file.to_owned(), Box::new(act)));
    }

    pub(crate) fn once_lost(&self, file: &str, act: impl FnOnce() + Send + 'static) {
        self.with(|state| state.lost.insert(file.to_owned(), Box::new(act)));
    }

    pub(crate) fn hang(&self, file: &str) {
        self.with(|state| state.hang.insert(file.to_owned(), false));
    }

    pub(crate) fn release(&self, file: &str) {
        self.with(|state| state.hang.remove(file));
    }

    /// Waits until a transaction of the file hangs.
    pub(crate) fn wait_hanging(&self, file: &str) {
        let state = self.0.0.lock().unwrap();
        let waits = |state: &mut State| state.hang.get(file) != Some(&true);
        drop(self.0.1.wait_while(state, waits).unwrap());
    }
}

struct FaultyBackend(Faults);

struct FaultyRows {
    inner: Box<dyn Rows>,
    file: String,
    faults: Faults,
}

struct FaultyTransaction<'a> {
    inner: Box<dyn Transaction + 'a>,
    file: &'a str,
    faults: &'a Faults,
    access: Access,
}

impl FaultyBackend {
    fn rows(&self, file: &DbFile, inner: Box<dyn Rows>) -> Box<dyn Rows> {
        let file = file
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        Box::new(FaultyRows {
            inner,
            file,
            faults: self.0.clone(),
        })
    }
}

impl Backend for FaultyBackend {
    fn create(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError> {
        Ok(self.rows(file, Sqlite.create(file)?))
    }

    fn open(&self, file: &DbFile) -> Result<Box<dyn Rows>, RowsError> {
        Ok(self.rows(file, Sqlite.open(file)?))
    }
}

impl Rows for FaultyRows {
    fn begin(&mut self, access: Access) -> Result<Box<dyn Transaction + '_>, RowsError> {
        let mut state = self.faults.0.0.lock().unwrap();
        while let Some(hanging) = state.hang.get_mut(&self.file) {
            *hanging = true;
            self.faults.0.1.notify_all();
            state = self.faults.0.1.wait(state).unwrap();
        }
        if access == Access::Read
            && let Some(left @ 1..) = state.blind.get_mut(&self.file)
        {
            *left -= 1;
            return Err(RowsError::Failed("injected".into()));
        }
        drop(state);
        Ok(Box::new(FaultyTransaction {
            inner: self.inner.begin(access)?,
            file: &self.file,
            faults: &self.faults,
            access,
        }))
    }

    fn truncate_log(&mut self) -> Result<(), RowsError> {
        self.inner.truncate_log()
    }

    fn close(&mut self) -> Result<(), RowsError> {
        self.inner.close()
    }
}

impl FaultyTransaction<'_> {
    fn fails(&self, how: Fail) -> Result<(), RowsError> {
        let fails = self.access == Access::Write
            && self.faults.with(|state| {
                let fails = state.fail.get(self.file) == Some(&how);
                if fails {
                    state.fail.remove(self.file);
                }
                fails
            });
        if fails {
            Err(RowsError::Full("injected".into()))
        } else {
            Ok(())
        }
    }
}

impl Transaction for FaultyTransaction<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let served = self.faults.with(|state| state.serve.get(key).cloned());
        match served {
            Some(row) if table == Table::Record => Ok(row),
            _ => self.inner.get(table, key),
        }
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowsError> {
        self.fails(Fail::Put)?;
        self.inner.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), RowsError> {
        self.inner.delete(table, key)
    }

    fn each(
        &mut self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), RowsError> {
        let serve = match table {
            Table::Record => self.faults.with(|state| state.serve.clone()),
            _ => BTreeMap::new(),
        };
        self.inner
            .each(table, after, limit, &mut |key, row| match serve.get(key) {
                Some(Some(served)) => each(key, served),
                Some(None) => {}
                None => each(key, row),
            })
    }

    fn commit(self: Box<Self>) -> Result<(), RowsError> {
        if let Err(lost) = self.fails(Fail::Lost) {
            if let Some(act) = self.faults.with(|state| state.lost.remove(self.file)) {
                act();
            }
            return Err(lost);
        }
        let made = self.fails(Fail::Made);
        let (file, faults) = (self.file, self.faults);
        self.inner.commit()?;
        let act = faults.with(|state| {
            *state.commits.entry(file.to_owned()).or_default() += 1;
            state.made.remove(file)
        });
        if let Some(act) = act {
            act();
        }
        made
    }
}

/// A store of two of three in a folder of its own.
pub(crate) struct Site {
    _dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) foundation: Foundation,
    pub(crate) faults: Faults,
    pub(crate) options: Options,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site::with(&[])
    }

    pub(crate) fn with(first: &[Op]) -> Site {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("store");
        let holder = |label: &str| PlannedHolder {
            label: label.into(),
            recipient: String::new(),
        };
        let terms = InitTerms {
            holders: ["Ada", "Bo", "Cy"].map(holder).to_vec(),
            officers: vec![OfficerKey {
                name: "Olga".into(),
                public: [1; 32],
            }],
            root_digest: [2; 32],
            dev: true,
        };
        let plan = Plan::init(Threshold::new(2, 3).unwrap(), terms).unwrap();
        let foundation = Foundation::lay(&plan, 1_790_000_000).unwrap();
        let faults = Faults::default();
        let backend = Arc::new(FaultyBackend(faults.clone()));
        let config = foundation.config();
        create_on(
            backend,
            &path,
            config,
            foundation.kek(),
            1_790_000_000,
            first,
        )
        .unwrap();
        // What is not settled stays so until a test says otherwise; nothing is unavailable for being slow.
        let options = Options {
            deadline: Duration::from_secs(60),
            settle: Duration::from_secs(3600),
            ..Options::default()
        };
        Site {
            _dir: dir,
            path,
            foundation,
            faults,
            options,
        }
    }

    pub(crate) fn share(&self, index: usize) -> Share {
        again(&self.foundation.shares()[index])
    }

    pub(crate) fn open(&self) -> Barrier<Sealed> {
        let backend = Arc::new(FaultyBackend(self.faults.clone()));
        Barrier::open_on(backend, &self.path, self.options).unwrap()
    }

    pub(crate) fn submit(&self, barrier: Barrier<Sealed>) -> Unseal {
        let plan = barrier.unseal_plan().digest();
        let Unseal::Pending(barrier, progress) = barrier.submit(self.share(0), plan, 0) else {
            panic!("the first of two shares is not enough");
        };
        assert_eq!((progress.given, progress.needed), (1, 2));
        barrier.submit(self.share(2), plan, 0)
    }

    pub(crate) fn unseal_from(
        &self,
        barrier: Barrier<Sealed>,
    ) -> (Barrier<Unsealed>, UnsealReport) {
        match self.submit(barrier) {
            Unseal::Opened(barrier, report) => (barrier, report),
            Unseal::Failed(_, error) => panic!("{error}"),
            _ => panic!("two shares are enough"),
        }
    }

    pub(crate) fn unseal(&self) -> (Barrier<Unsealed>, UnsealReport) {
        self.unseal_from(self.open())
    }

    /// Seals and waits until no file is open any more.
    pub(crate) fn seal(&self, barrier: Barrier<Unsealed>) -> Barrier<Sealed> {
        let sealed = barrier.seal();
        assert!(sealed.base.store.wait_closed(Duration::from_secs(60)));
        sealed
    }

    pub(crate) fn file(&self, vault: &OpenVault) -> PathBuf {
        if vault.name() == "system" {
            self.path.join("control.db")
        } else {
            self.path.join("vaults").join(file_name(vault))
        }
    }
}

/// The name of a vault's file.
pub(crate) fn file_name(vault: &OpenVault) -> String {
    format!("{}.db", vault.id())
}

pub(crate) fn again(share: &Share) -> Share {
    Share::parse(share.to_text().unwrap().expose()).unwrap()
}

pub(crate) fn put(name: &str, payload: &str) -> Op {
    put_if(name, payload, Expect::Any)
}

pub(crate) fn put_if(name: &str, payload: &str, expect: Expect) -> Op {
    Op::Put {
        owner: None,
        name: name.into(),
        kind: "bearer".into(),
        expiry: 0,
        hosts: vec!["git.example".into()],
        payload: Secret::copy_of(payload.as_bytes()).unwrap(),
        expect,
    }
}

pub(crate) fn delete(name: &str) -> Op {
    Op::Delete {
        owner: None,
        name: name.into(),
        expect: Expect::Any,
    }
}

pub(crate) fn key(name: &str) -> RecordKey<'_> {
    RecordKey { owner: None, name }
}

/// The payload of a record, through load and open.
pub(crate) fn read(vault: &OpenVault, name: &str) -> Result<String, crate::VaultError> {
    let opened = vault.open(&vault.load(&key(name))?)?;
    Ok(String::from_utf8(opened.expose().to_vec()).unwrap())
}

/// Changes a closed file behind the store's back.
pub(crate) fn edit<R>(file: &Path, change: impl FnOnce(&rusqlite::Connection) -> R) -> R {
    let conn = rusqlite::Connection::open(file).unwrap();
    let result = change(&conn);
    conn.close().unwrap();
    result
}

/// All rows of a table of a closed file, in key order.
pub(crate) fn rows(file: &Path, table: &str) -> Vec<Row> {
    edit(file, |conn| {
        let mut query = conn
            .prepare(&format!("SELECT key, value FROM {table} ORDER BY key"))
            .unwrap();
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    })
}
