//! A store of 2 of 3 with its shares beside it, made once and kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcpist_quorum::{Foundation, InitTerms, OfficerKey, Plan, PlannedHolder, Share, Threshold};
use mcpist_sealer::{
    Barrier, Expect, MAX_BATCH, Op, OpenError, Options, RecordKey, Sealed, StoreError, Unseal,
    UnsealReport, Unsealed, create,
};
use mcpist_secret::Secret;

use crate::{Result, again, text};

/// The vault that holds the credentials.
pub(crate) const VAULT: &str = "main";

/// Where a store and its shares are.
pub(crate) struct Site(PathBuf);

impl Site {
    /// A new store without vaults. Its shares are two files beside it: they open nothing but what this run made.
    pub(crate) fn new(folder: &Path) -> Result<Site> {
        std::fs::create_dir_all(folder)?;
        let holder = |label: &str| PlannedHolder {
            label: label.to_owned(),
            recipient: String::new(),
        };
        let officer = OfficerKey {
            name: "olga".to_owned(),
            public: [1; 32],
        };
        let terms = InitTerms {
            holders: ["ada", "bob", "eve"].map(holder).to_vec(),
            officers: vec![officer],
            root_digest: [2; 32],
            dev: true,
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let plan = Plan::init(Threshold::new(2, 3)?, terms)?;
        let foundation = Foundation::lay(&plan, clock)?;
        let site = Site(folder.to_owned());
        for (share, index) in foundation.shares().iter().zip(0..2) {
            std::fs::write(site.share(index), share.to_text()?.expose())?;
        }
        let config = foundation.config().clone();
        create(&site.store(), config, foundation.kek(), clock)?;
        Ok(site)
    }

    /// The store of `records` credentials below `folder`: the one of an earlier run, or a new one where there is none
    /// or it does not open any more. A child looks, and makes it.
    pub(crate) fn with(folder: &Path, records: usize) -> Result<Site> {
        let path = folder.join(format!("store-{records}"));
        let ready = again(&["make", text(&path)?, &records.to_string()])?.status()?;
        ready
            .success()
            .then_some(Site(path))
            .ok_or_else(|| "the store could not be made".into())
    }

    /// Opens the store with both shares.
    pub(crate) fn unseal(&self, options: Options) -> Result<(Barrier<Unsealed>, UnsealReport)> {
        let mut barrier = self.take(options)?;
        let plan = barrier.unseal_plan().digest();
        for index in 0..2 {
            let share = Share::parse(&std::fs::read(self.share(index))?)?;
            barrier = match barrier.submit(share, plan, 0) {
                Unseal::Pending(barrier, _) => barrier,
                Unseal::Opened(barrier, report) => return Ok((barrier, report)),
                Unseal::Rejected(_, refusal) => return Err(refusal.to_string().into()),
                Unseal::Failed(_, error) => return Err(error.into()),
            };
        }
        Err("two shares are not enough".into())
    }

    /// Takes the store, once the threads of one that this process sealed have let go of it.
    fn take(&self, options: Options) -> Result<Barrier<Sealed>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Barrier::open_with(&self.store(), options) {
                Err(OpenError::Store(StoreError::StoreLocked(_))) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                taken => return Ok(taken?),
            }
        }
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn share(&self, index: usize) -> PathBuf {
        self.0.join(format!("share-{index}"))
    }
}

/// The name of a credential.
pub(crate) fn name(number: usize) -> String {
    format!("service-{number:07}")
}

/// Its payload, in the length of a usual token.
pub(crate) fn payload(number: usize) -> String {
    format!("token-{number:07}-5b1c8e02d94f7a63c0e8b15d")
}

/// All numbers below `count`, in an order that is none: `count` is no multiple of the prime.
pub(crate) fn scattered(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |step| (step * 7_368_787) % count)
}

/// The put of a credential.
pub(crate) fn put(number: usize) -> Result<Op> {
    Ok(Op::Put {
        owner: None,
        name: name(number),
        kind: "bearer".to_owned(),
        expiry: 0,
        hosts: vec!["service.example".to_owned()],
        payload: Secret::copy_of(payload(number).as_bytes())?,
        expect: Expect::Any,
    })
}

/// Nobody's record of that name.
pub(crate) fn key(name: &str) -> RecordKey<'_> {
    RecordKey { owner: None, name }
}

/// An error where `opened` is not the payload of that credential.
pub(crate) fn right(opened: &Secret, number: usize) -> Result<()> {
    if opened.ct_eq(payload(number).as_bytes()) {
        Ok(())
    } else {
        Err(format!("credential {number} has another payload").into())
    }
}

/// The child `make FOLDER RECORDS`.
pub(crate) fn make(arguments: &[String]) -> Result<()> {
    let [_, folder, records] = arguments else {
        return Err("usage: bench-sealer make FOLDER RECORDS".into());
    };
    let records: usize = records.parse()?;
    let folder = Path::new(folder);
    let kept = Site(folder.to_owned()).unseal(Options::default());
    // One record more names the vault.
    if kept.is_ok_and(|(_, report)| report.records == records as u64 + 1) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let site = Site::new(folder)?;
    let (barrier, _) = site.unseal(Options::default())?;
    barrier.create_vault(VAULT, None)?;
    let vault = barrier.vault(VAULT)?;
    let mut numbers = (0..records).peekable();
    while numbers.peek().is_some() {
        let batch: Result<Vec<Op>> = numbers.by_ref().take(MAX_BATCH).map(put).collect();
        vault.commit(batch?)?;
    }
    barrier.settle()?;
    Ok(())
}
