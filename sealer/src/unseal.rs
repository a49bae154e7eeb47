//! Unsealing: from a quorum of shares to verified vaults.
//!
//! Owns [`Barrier::submit`] and its answers. The last share of a ceremony gives the KEK, which opens the root
//! key only under the very seal config that was read (its bytes are the wrap's AAD); the root key opens the
//! keys of control.db, which is verified in full; its records name the vaults, and each of those is verified
//! in full on a thread of its own. A vault that fails is quarantined alone, one whose disk does not answer is
//! unavailable alone; a control.db that fails fails the unseal, since all policy is in it.
//!
//! What every vault's file shows is judged by the ledger ([`crate::ledger`]): put back alone, it is neither
//! at the recorded point nor at the intended one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use mcpist_quorum::{
    CombineError, PlanDigest, Progress, RecordError, Share, ShareRefusal, Submission, ValidShares,
    combine, derive_kek,
};
use mcpist_secret::{Key, MemoryError};

use crate::barrier::{Barrier, Base, OpenError, Options, Owner, Sealed, Unsealed};
use crate::create::{AUDIT, ROOT};
use crate::disk::{Disk, Role, Stats};
use crate::error::VaultError;
use crate::ids::{VaultId, VaultName};
use crate::keyring::{AuditKey, KeyCell, KeysError, VaultKeys, unwrap_audit, unwrap_root};
use crate::ledger::{Inbox, Ledger};
use crate::looking::Looking;
use crate::moves::Move;
use crate::own::VaultQuorum;
use crate::pool::{Gathering, Pool};
use crate::record::Place;
use crate::registrar::Registrar;
use crate::rekey::key_rows;
use crate::rows::{Access, Rows, RowsError, Table};
use crate::vault::{OpenVault, Shared};
use crate::vaults::{Live, Vaults};
use crate::verify::{Candidate, NamedVault};

/// How long an unseal waits for databases that an earlier session still holds open.
const CLOSING: Duration = Duration::from_secs(5);

/// The answer to a share.
#[must_use]
pub enum Unseal {
    /// Accepted; more are needed.
    Pending(Barrier<Sealed>, Progress),
    /// Not accepted, and why. What was given before still counts.
    Rejected(Barrier<Sealed>, ShareRefusal),
    /// Accepted, and the store is open.
    Opened(Barrier<Unsealed>, UnsealReport),
    /// Accepted, and the store did not open. A new ceremony has begun.
    Failed(Barrier<Sealed>, UnsealError),
}

/// Why a quorum did not open the store.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// The shares fit no secret.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// The root key does not open under this secret and this seal config.
    #[error(
        "the root key does not open ({0}): the seal config in control.db was changed, restore it from a backup"
    )]
    RootKey(RecordError),
    /// control.db is not what was written.
    #[error("control.db: {0}")]
    System(VaultError),
    /// The seal config that opens the store cannot be read.
    #[error(transparent)]
    Config(#[from] OpenError),
    /// A disk job of the last session has not ended.
    #[error(
        "a disk of the store does not answer, so its files are still in use: look at the disk and try again"
    )]
    StillOpen,
    /// No threads.
    #[error("the threads for the vaults could not be started: {0}")]
    Threads(#[from] std::io::Error),
    /// No secret memory, or no randomness.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<VaultError> for UnsealError {
    fn from(error: VaultError) -> Self {
        UnsealError::System(error)
    }
}

impl From<RowsError> for UnsealError {
    fn from(error: RowsError) -> Self {
        UnsealError::System(error.into())
    }
}

impl From<KeysError> for UnsealError {
    fn from(error: KeysError) -> Self {
        UnsealError::System(keys_error(error))
    }
}

/// What an unseal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnsealReport {
    /// How many vaults verified, the system vault among them.
    pub verified: usize,
    /// How many records they hold, all of which were opened.
    pub records: u64,
    /// The vaults that did not verify, and why.
    pub quarantined: Vec<(String, String)>,
    /// The vaults whose disk did not answer, or whose file is not there.
    pub unavailable: Vec<String>,
    /// The vaults whose last announced write is not there; a custodian confirms it.
    pub last_write_missing: Vec<String>,
    /// The vaults that wait for a quorum of their own.
    pub sealed: Vec<String>,
}

impl Barrier<Sealed> {
    /// Takes one share, given with the digest of the plan that its holder saw.
    ///
    /// `now` is in seconds on a clock that does not go backwards. The last share blocks until every vault is
    /// verified.
    pub fn submit(mut self, share: Share, plan: PlanDigest, now: u64) -> Unseal {
        if let Err(error) = self.settle() {
            return Unseal::Failed(self, error.into());
        }
        match self.state.collector.submit(share, plan, now) {
            Submission::Pending(progress) => Unseal::Pending(self, progress),
            Submission::Refused(refusal) => {
                if self.state.collector.closed().is_some() {
                    self.begin_anew();
                }
                Unseal::Rejected(self, refusal)
            }
            Submission::Complete(shares) => match self.unseal(&shares) {
                Ok((live, next, report)) => {
                    let state = Unsealed {
                        owner: Owner(Vaults::new(live)),
                        next,
                    };
                    Unseal::Opened(
                        Barrier {
                            base: self.base,
                            state,
                        },
                        report,
                    )
                }
                Err(error) => {
                    self.begin_anew();
                    Unseal::Failed(self, error)
                }
            },
        }
    }

    fn begin_anew(&mut self) {
        if let Err(error) = self.renew() {
            log::error!("no new plan for unsealing: {error}; cancel the ceremony to try again");
        }
    }

    fn unseal(&self, shares: &ValidShares) -> Result<(Live, Sealed, UnsealReport), UnsealError> {
        let base = &self.base;
        if !base.store.wait_closed(CLOSING) {
            return Err(UnsealError::StillOpen);
        }
        let next = Sealed::fresh(&base.config)?;
        let kek = {
            let secret = combine(shares)?;
            derive_kek(&secret, shares.set(), shares.generation())?
        };
        let mut control = Control::read(base)?;
        let config = base.config.to_bytes();
        let root = unwrap_root(&kek, &config, &control.root).map_err(UnsealError::RootKey)?;
        drop(kek);
        let store = base.config.store();
        let audit = unwrap_audit(&root, store, &control.audit).map_err(VaultError::from)?;
        let keys = VaultKeys::unwrap(&root, store, VaultId::SYSTEM, &control.keys)?;
        let inbox = Arc::new(Inbox::default());
        let (mut system, named) = control.verify(base, keys, &inbox)?;
        let mut tx = system.rows.begin(Access::Read)?;
        let mut wrapped = BTreeMap::new();
        for vault in &named {
            let row = tx.get(Table::Vault, vault.id.as_bytes())?;
            wrapped.insert(vault.id, row.unwrap_or_default());
        }
        drop(tx);
        let moves = key_rows(&mut system)?;
        let moves = moves
            .iter()
            .filter_map(|(key, row)| Move::parse(VaultId::from_bytes(key)?, row));
        Opening {
            moving: moves.map(|one| one.id).collect(),
            base,
            root,
            audit,
            inbox,
            wrapped,
        }
        .open(system, named, next)
    }
}

/// What stands in clear in control.db, and its open file.
struct Control {
    rows: Option<Box<dyn Rows>>,
    root: Vec<u8>,
    audit: Vec<u8>,
    keys: Vec<u8>,
}

impl Control {
    fn read(base: &Base) -> Result<Control, UnsealError> {
        let mut rows = base.backend.open(&base.store.control())?;
        let mut tx = rows.begin(Access::Read)?;
        let root = tx.get(Table::Config, ROOT)?.unwrap_or_default();
        let audit = tx.get(Table::Config, AUDIT)?.unwrap_or_default();
        let keys = tx.get(Table::Vault, VaultId::SYSTEM.as_bytes())?;
        let keys = keys.unwrap_or_default();
        drop(tx);
        Ok(Control {
            rows: Some(rows),
            root,
            audit,
            keys,
        })
    }

    fn verify(
        &mut self,
        base: &Base,
        keys: VaultKeys,
        inbox: &Arc<Inbox>,
    ) -> Result<(Disk, Vec<NamedVault>), UnsealError> {
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => base.backend.open(&base.store.control())?,
        };
        let candidate = Candidate {
            place: Place::new(base.config.store(), VaultId::SYSTEM),
            keys: Arc::new(KeyCell::new(keys)),
            rows,
            idle: base.options.idle,
            open: base.store.lease(),
        };
        let inbox = Arc::clone(inbox);
        Ok(candidate.verify_system(|ledger| Role::System { ledger, inbox })?)
    }
}

/// An unseal after control.db was verified: from here on nothing is written, and nothing but the machine itself
/// can fail it.
struct Opening<'a> {
    base: &'a Base,
    root: Key,
    audit: Key,
    inbox: Arc<Inbox>,
    wrapped: BTreeMap<VaultId, Vec<u8>>,
    /// The vaults whose file is on its way into its place.
    moving: BTreeSet<VaultId>,
}

/// How a vault's file was found.
pub(crate) struct Found {
    pub(crate) disk: Result<Disk, VaultError>,
    pub(crate) keys: Arc<KeyCell<VaultKeys>>,
    /// The generation of a write that is missing and was not confirmed.
    pub(crate) missing: Option<u64>,
    pub(crate) own: Option<VaultQuorum>,
}

impl Found {
    /// Its file was not looked at.
    pub(crate) fn closed(error: VaultError, own: Option<VaultQuorum>) -> Found {
        Found {
            disk: Err(error),
            keys: Arc::new(KeyCell::empty()),
            missing: None,
            own,
        }
    }
}

impl Opening<'_> {
    fn open(
        self,
        system: Disk,
        named: Vec<NamedVault>,
        next: Sealed,
    ) -> Result<(Live, Sealed, UnsealReport), UnsealError> {
        let options = self.base.options;
        let system_pool = Pool::start("control.db", 1)?;
        let pool = Pool::start("vault", options.threads)?;
        let ledger = match &system.role {
            Role::System { ledger, .. } => ledger.clone(),
            Role::Vault(_) => Ledger::default(),
        };
        let mut report = UnsealReport {
            verified: 1,
            records: system.buckets.count(),
            ..UnsealReport::default()
        };
        let sealed = Arc::new(AtomicBool::new(false));
        let mut cells = vec![Arc::clone(&system.keys)];
        let (system_keys, system_stats) = (Arc::clone(&system.keys), Arc::clone(&system.stats));
        let lane = Arc::new(system_pool.lane(system, options.deadline));
        let registrar = Arc::new(Registrar {
            inbox: Arc::clone(&self.inbox),
            lane: Arc::clone(&lane),
            settle: options.settle,
        });
        let mut vaults = BTreeMap::new();
        for vault in named {
            let found = self.find(&vault, &ledger, &registrar);
            cells.push(Arc::clone(&found.keys));
            note(&mut report, &vault.name, &found);
            if let Ok(name) = VaultName::parse(&vault.name) {
                vaults.insert(name, self.shared(vault, found, &pool, &sealed));
            }
        }
        let system = Shared {
            name: VaultName::SYSTEM.to_owned(),
            id: VaultId::SYSTEM,
            created: self.base.config.created(),
            sealed: Arc::clone(&sealed),
            keys: system_keys,
            lane: Some(lane),
            waiting: Gathering::default(),
            stats: system_stats,
            idle: options.idle,
            fault: OnceLock::new(),
            missing: AtomicU64::new(0),
            own: None,
        };
        system.watch_idle();
        let system = OpenVault(Arc::new(system));
        let live = Live {
            store: Arc::clone(&self.base.store),
            backend: Arc::clone(&self.base.backend),
            options,
            id: self.base.config.store(),
            sealed,
            root: KeyCell::new(self.root),
            audit: AuditKey::new(self.audit),
            system,
            vaults: RwLock::new(vaults),
            cells: Mutex::new(Some(cells)),
            beside: Mutex::default(),
            creating: Mutex::new(()),
            making: AtomicUsize::new(0),
            registrar,
            system_pool,
            pool,
        };
        Ok((live, next, report))
    }

    /// Verifies the file of one vault and judges its head. One that has a quorum of its own stays closed.
    fn find(&self, vault: &NamedVault, ledger: &Ledger, registrar: &Arc<Registrar>) -> Found {
        let store = self.base.config.store();
        let wrapped = self.wrapped.get(&vault.id).map_or(&[][..], Vec::as_slice);
        if let Some(note) = &vault.own {
            return match VaultQuorum::of(store, vault.id, note, wrapped) {
                Ok(own)
                    if !self.moving.contains(&vault.id)
                        && self.base.store.vault(vault.id).is_gone() =>
                {
                    Found::closed(VaultError::Gone, Some(own))
                }
                Ok(own) => Found::closed(VaultError::VaultSealed(vault.name.clone()), Some(own)),
                Err(error) => Found::closed(error, None),
            };
        }
        let keys = match VaultKeys::unwrap(&self.root, store, vault.id, wrapped) {
            Ok(keys) => Arc::new(KeyCell::new(keys)),
            Err(error) => return Found::closed(keys_error(error), None),
        };
        let (base, entry) = (self.base, ledger.0.get(&vault.id));
        let looking = Looking {
            store: &base.store,
            backend: &base.backend,
            options: base.options,
            place: Place::new(store, vault.id),
            registrar,
        };
        looking.find(keys, || Ok(entry.copied()))
    }

    fn shared(
        &self,
        vault: NamedVault,
        found: Found,
        pool: &Pool,
        sealed: &Arc<AtomicBool>,
    ) -> OpenVault {
        let id = (vault.name, vault.id, vault.created);
        shared(id, found, pool, self.base.options, sealed)
    }
}

/// A vault as all its handles will share it.
pub(crate) fn shared(
    (name, id, created): (String, VaultId, u64),
    found: Found,
    pool: &Pool,
    options: Options,
    sealed: &Arc<AtomicBool>,
) -> OpenVault {
    let (lane, stats, fault) = match found.disk {
        Ok(disk) => {
            let stats = Arc::clone(&disk.stats);
            (
                Some(Arc::new(pool.lane(disk, options.deadline))),
                stats,
                OnceLock::new(),
            )
        }
        Err(error) => (None, Arc::new(Stats::default()), OnceLock::from(error)),
    };
    let shared = Shared {
        name,
        id,
        created,
        sealed: Arc::clone(sealed),
        keys: found.keys,
        lane,
        waiting: Gathering::default(),
        stats,
        idle: options.idle,
        fault,
        missing: AtomicU64::new(found.missing.unwrap_or(0)),
        own: found.own.map(RwLock::new),
    };
    shared.watch_idle();
    OpenVault(Arc::new(shared))
}

fn note(report: &mut UnsealReport, name: &str, found: &Found) {
    match &found.disk {
        Ok(disk) => {
            report.verified += 1;
            report.records += disk.buckets.count();
        }
        Err(VaultError::Quarantined(reason)) => {
            report.quarantined.push((name.to_owned(), reason.clone()));
        }
        Err(VaultError::VaultSealed(_)) => report.sealed.push(name.to_owned()),
        Err(error) => {
            log::error!("vault {name}: {error}");
            report.unavailable.push(name.to_owned());
        }
    }
    if found.missing.is_some() {
        report.last_write_missing.push(name.to_owned());
    }
}

pub(crate) fn keys_error(error: KeysError) -> VaultError {
    match error {
        KeysError::Wrap(RecordError::Memory(error)) => error.into(),
        other => VaultError::Quarantined(format!("its wrapped keys do not open: {other}")),
    }
}
