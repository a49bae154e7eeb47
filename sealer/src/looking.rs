//! One vault's file, looked at: verified in full on a thread of its own, and its head judged by the ledger.
//!
//! Owns [`Looking`], for the unseal of the store and for that of one vault alone. Promises that a disk which hangs holds
//! nobody longer than the options' deadline, and that keys which opened nothing are wiped. Writes nothing: what was found
//! out about an announced write goes into the inbox.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;

use crate::barrier::Options;
use crate::disk::{Disk, Role, tampered};
use crate::error::VaultError;
use crate::keyring::{KeyCell, VaultKeys};
use crate::ledger::{End, Entry, Verdict};
use crate::record::Place;
use crate::registrar::Registrar;
use crate::rows::SharedBackend;
use crate::store::Store;
use crate::unseal::Found;
use crate::verify::Candidate;

/// Where a vault's file is, and who hears what is found in it.
pub(crate) struct Looking<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) backend: &'a SharedBackend,
    pub(crate) options: Options,
    pub(crate) place: Place,
    pub(crate) registrar: &'a Arc<Registrar>,
}

impl Looking<'_> {
    /// Verifies the file and judges its head by the vault's `entry` of the ledger, which is read once nobody else can
    /// write the file.
    pub(crate) fn find(
        self,
        keys: Arc<KeyCell<VaultKeys>>,
        entry: impl FnOnce() -> Result<Option<Entry>, VaultError>,
    ) -> Found {
        let judged = self
            .verify(&keys)
            .and_then(|disk| Ok((entry()?, disk)))
            .and_then(|(entry, disk)| self.judge(entry, disk));
        match judged {
            Ok((disk, missing)) => Found {
                disk: Ok(disk),
                keys,
                missing,
                own: None,
            },
            // Not wanted any more, and a verification that hangs should hold none.
            Err(error) => {
                keys.revoke();
                Found {
                    disk: Err(error),
                    keys,
                    missing: None,
                    own: None,
                }
            }
        }
    }

    fn judge(&self, entry: Option<Entry>, disk: Disk) -> Result<(Disk, Option<u64>), VaultError> {
        let mut entry = entry.ok_or_else(|| tampered("control.db does not know its head"))?;
        let found = disk.head.point();
        let end = match entry.judge(found) {
            Verdict::Foreign => return Err(foreign(found.generation, entry.recorded.generation)),
            Verdict::Recorded => None,
            Verdict::Intended => Some(End::Made),
            Verdict::LastWriteMissing => Some(End::Missing),
        };
        if let (Some(end), Some(intent)) = (end, entry.intent) {
            entry.end(intent, end);
            self.registrar.over(self.place.vault, intent, end);
        }
        Ok((disk, entry.missing))
    }

    /// Verifies the file on a thread of its own, which has the options' deadline for each slice.
    fn verify(&self, keys: &Arc<KeyCell<VaultKeys>>) -> Result<Disk, VaultError> {
        let Looking { store, options, .. } = self;
        let file = store.vault(self.place.vault);
        if file.is_gone() {
            return Err(VaultError::Gone);
        }
        let candidate = Candidate {
            place: Place::new(self.place.store, self.place.vault),
            keys: Arc::clone(keys),
            rows: self.backend.open(&file)?,
            idle: options.idle,
            open: store.lease(),
        };
        let role = Role::Vault(Arc::clone(self.registrar));
        let (tell, told) = sync_channel(1);
        let work = move || {
            // Nobody listens any more where the deadline has passed.
            let alive = || drop(tell.try_send(None));
            let result = candidate.verify(role, alive);
            drop(tell.send(Some(result)));
        };
        let started = thread::Builder::new().name("verify".to_owned()).spawn(work);
        started.map_err(|error| VaultError::Storage(error.to_string()))?;
        loop {
            match told.recv_timeout(options.deadline) {
                Ok(None) => {}
                Ok(Some(result)) => return result,
                Err(RecvTimeoutError::Timeout) => return Err(VaultError::Unavailable),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(tampered("its file broke the reader"));
                }
            }
        }
    }
}

fn foreign(found: u64, recorded: u64) -> VaultError {
    VaultError::Quarantined(match found.cmp(&recorded) {
        std::cmp::Ordering::Less => format!(
            "its file was put back: it shows generation {found}, control.db recorded {recorded}"
        ),
        std::cmp::Ordering::Equal => {
            format!("its file shows another generation {found} than the one control.db recorded")
        }
        std::cmp::Ordering::Greater => format!(
            "its file shows generation {found}, control.db recorded {recorded} only: control.db was put back"
        ),
    })
}
