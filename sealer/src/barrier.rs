//! The barrier: sealed or unsealed, as a type.
//!
//! `Barrier<Sealed>` takes shares and has nothing else to give than the seal config. `Barrier<Unsealed>`
//! gives out [`crate::OpenVault`] handles. Each change of state consumes the one and makes the other, so that no
//! code can hold a sealed barrier and open a record. ([`crate::unseal`] is the way from the first to the
//! second.)
//!
//! [`Barrier::seal`] takes the keys back from every handle, wipes them and returns; it waits for arithmetic
//! only. Jobs that hang on a disk keep their file open after that, without a key; the next unseal waits for
//! them, up to five seconds.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mcpist_quorum::{Collector, ConfigError, Plan, Progress, SealConfig};
use mcpist_secret::MemoryError;

use crate::create::CONFIG;
use crate::rows::{Access, RowsError, SharedBackend, Table};
use crate::sqlite::Sqlite;
use crate::store::{Store, StoreError};
use crate::vaults::{Live, Vaults};

/// How vaults use threads and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads that all vaults share; control.db has one of its own besides.
    pub threads: usize,
    /// How long a job may take before its vault counts as unavailable.
    pub deadline: Duration,
    /// After how long without use a database is closed.
    pub idle: Duration,
    /// How long the end of a write may wait before control.db is told of it.
    pub settle: Duration,
}

impl Default for Options {
    /// Four threads, five seconds, a minute, a second.
    fn default() -> Options {
        Options {
            threads: 4,
            deadline: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            settle: Duration::from_secs(1),
        }
    }
}

/// Why a store could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder: locked, missing, open to others.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// control.db cannot be read.
    #[error("control.db could not be read: {0}; restore it from a backup")]
    Database(String),
    /// A newer program wrote control.db.
    #[error("control.db: {0}")]
    Newer(String),
    /// The seal config is not one.
    #[error("the seal config in control.db is damaged: {0}; restore it from a backup")]
    Config(#[from] ConfigError),
    /// No randomness for a plan.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A store, sealed or unsealed by its type.
pub struct Barrier<S> {
    pub(crate) base: Base,
    pub(crate) state: S,
}

/// What does not change with the state.
pub(crate) struct Base {
    pub(crate) store: Arc<Store>,
    pub(crate) backend: SharedBackend,
    pub(crate) options: Options,
    pub(crate) config: SealConfig,
    /// Nobody knows whether control.db still has this config ([`crate::SwitchError::InDoubt`]).
    pub(crate) stale: bool,
}

impl Base {
    /// Reads the seal config anew where it is in doubt.
    fn settle_config(&mut self) -> Result<(), OpenError> {
        if self.stale {
            self.config = read_config(&self.store, &self.backend)?;
            self.stale = false;
        }
        Ok(())
    }
}

fn read_config(store: &Arc<Store>, backend: &SharedBackend) -> Result<SealConfig, OpenError> {
    let _open = store.lease();
    let database = |error: RowsError| match error {
        RowsError::Newer { .. } => OpenError::Newer(error.to_string()),
        error => OpenError::Database(error.to_string()),
    };
    let mut rows = backend.open(&store.control()).map_err(database)?;
    let mut tx = rows.begin(Access::Read).map_err(database)?;
    let bytes = tx.get(Table::Config, CONFIG).map_err(database)?;
    let bytes = bytes.ok_or_else(|| OpenError::Database("it has no seal config".into()))?;
    Ok(SealConfig::from_bytes(&bytes)?)
}

/// The state of a barrier that takes shares.
pub struct Sealed {
    pub(crate) plan: Plan,
    pub(crate) collector: Collector,
}

impl Sealed {
    pub(crate) fn fresh(config: &SealConfig) -> Result<Sealed, MemoryError> {
        let plan = Plan::unseal(config)?;
        let collector = Collector::new(config.sharing(), config.digest(), plan.digest());
        Ok(Sealed { plan, collector })
    }
}

/// The state of a barrier that gives out handles.
pub struct Unsealed {
    pub(crate) owner: Owner,
    /// The ceremony that begins when this one ends; made before, since sealing must not fail.
    pub(crate) next: Sealed,
}

impl<S> Barrier<S> {
    /// The seal config. It is authentic only while the barrier is unsealed; before, it is what the disk says.
    pub fn config(&self) -> &SealConfig {
        &self.base.config
    }
}

impl Barrier<Sealed> {
    /// Takes the store in `dir` for this process.
    ///
    /// # Errors
    /// [`OpenError`]; [`StoreError::StoreLocked`] where another mcpistd has it.
    pub fn open(dir: &Path) -> Result<Barrier<Sealed>, OpenError> {
        Self::open_with(dir, Options::default())
    }

    /// Like [`Barrier::open`], with other options.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(dir: &Path, options: Options) -> Result<Barrier<Sealed>, OpenError> {
        Self::open_on(Arc::new(Sqlite), dir, options)
    }

    pub(crate) fn open_on(
        backend: SharedBackend,
        dir: &Path,
        options: Options,
    ) -> Result<Barrier<Sealed>, OpenError> {
        let store = Store::take(dir)?;
        let config = read_config(&store, &backend)?;
        let state = Sealed::fresh(&config)?;
        Ok(Barrier {
            base: Base {
                store,
                backend,
                options,
                config,
                stale: false,
            },
            state,
        })
    }

    /// What the next shares are for. The same until the ceremony is cancelled, has expired, or has ended.
    pub fn unseal_plan(&self) -> Plan {
        self.state.plan.clone()
    }

    /// How far the ceremony is.
    pub fn progress(&self) -> Progress {
        self.state.collector.progress()
    }

    /// Wipes the shares given so far and begins a new ceremony.
    ///
    /// # Errors
    /// No randomness for the new plan; the shares are wiped, and shares are refused until this succeeds.
    pub fn cancel(&mut self) -> Result<(), MemoryError> {
        self.state.collector.cancel();
        self.renew()
    }

    /// Reads the seal config anew where a switch ended in doubt ([`crate::SwitchError::InDoubt`]), and begins a
    /// new ceremony for it. A share that comes before tries it too.
    ///
    /// # Errors
    /// The disk of control.db; no randomness for the new plan.
    pub fn settle(&mut self) -> Result<(), OpenError> {
        if self.base.stale {
            self.base.settle_config()?;
            self.renew()?;
        }
        Ok(())
    }

    /// Wipes the shares if the ceremony has expired at `now` and begins a new one; whether it had. Call it
    /// from a timer; `now` is in seconds on a clock that does not go backwards.
    ///
    /// # Errors
    /// No randomness for the new plan, as for [`Barrier::cancel`].
    pub fn expire(&mut self, now: u64) -> Result<bool, MemoryError> {
        let expired = self.state.collector.expire(now);
        if expired {
            self.renew()?;
        }
        Ok(expired)
    }

    pub(crate) fn renew(&mut self) -> Result<(), MemoryError> {
        self.state = Sealed::fresh(&self.base.config)?;
        Ok(())
    }
}

impl Barrier<Unsealed> {
    pub(crate) fn live(&self) -> &Live {
        self.state.owner.0.live()
    }

    /// A handle to all that the barrier offers but [`Barrier::seal`], for threads that do not own it.
    pub fn handle(&self) -> Vaults {
        self.state.owner.0.clone()
    }

    /// Takes all keys back and wipes them. Waits for no disk; every handle is refused from here on.
    pub fn seal(self) -> Barrier<Sealed> {
        let Unsealed { owner, next } = self.state;
        drop(owner);
        Barrier {
            base: self.base,
            state: next,
        }
    }
}

/// An unsealed barrier is its [`Vaults`], and can seal.
impl Deref for Barrier<Unsealed> {
    type Target = Vaults;

    fn deref(&self) -> &Vaults {
        &self.state.owner.0
    }
}

/// The one [`Vaults`] whose end ends all others: a barrier that is dropped seals.
pub(crate) struct Owner(pub(crate) Vaults);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.revoke();
    }
}
