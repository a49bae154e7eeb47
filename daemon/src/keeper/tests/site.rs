//! A development store of one share, and what the tests ask of it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcpist_bundle::root::{Delegation, Keys};
use mcpist_bundle::{BuildOptions, Role, Root, RootParts, SigningKey};
use mcpist_core::api::{ApiError, Approve, Base64, ChangeOutcome, InitRequest, NewHolder};
use mcpist_core::api::{CredentialStored, Imported, Proposed, ShareOutcome};
use mcpist_core::change::Change;
use mcpist_core::ids::{BundleName, CredentialName, Digest, Namespace, SiteId, VaultName};
use mcpist_quorum::{Identity, Share, open_share_file};
use mcpist_secret::Secret;

use crate::config::Config;
use crate::house::House;
use crate::keeper::credentials::Spec;
use crate::keeper::{Keeper, KeeperHandle, start};

/// Who acts where it does not matter.
pub(super) const UID: u32 = 1000;
/// How long anything may take before the test gives up. Nothing is judged by it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test's future.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    runtime.shutdown_background();
    done.expect("the test got no answer")
}

/// Names the one test that runs in a process of its own.
const CHILD: &str = "MCPIST_TEST_IN_OWN_PROCESS";

/// Runs the future of test `name` in a process of its own, and judges how that ended.
pub(super) fn in_own_process(
    name: &str,
    judge: impl FnOnce(std::process::ExitStatus),
    future: impl Future<Output = ()>,
) {
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return run(future);
    }
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, name)
        .output()
        .unwrap();
    judge(ended.status);
}

pub(super) struct Site {
    pub(super) folder: tempfile::TempDir,
    pub(super) keeper: KeeperHandle,
    share: Secret,
    keys: [SigningKey; 2],
}

impl Site {
    /// A new store, sealed.
    pub(super) async fn sealed() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let keys = [(); 2].map(|()| SigningKey::generate().unwrap());
        let keeper = keeper_in(&folder);
        let token = std::fs::read(folder.path().join("state/init-token")).unwrap();
        let token = Secret::copy_of(&token).unwrap();
        let shown = keeper.ask(move |k| k.show_init_token(UID, &token)).await;
        shown.unwrap();
        let identity = Identity::generate();
        let request = InitRequest {
            threshold: 1,
            holders: vec![NewHolder {
                label: "holder".into(),
                recipient: identity.recipient(),
            }],
            root: Base64(root(&keys)),
            officers: Vec::new(),
            dev: true,
        };
        let plan = keeper
            .ask(move |k| k.plan_init(UID, request))
            .await
            .unwrap();
        let done = keeper.ask(move |k| k.confirm_init(UID, &plan.digest)).await;
        let share = done.unwrap().shares.remove(0);
        let share = open_share_file(&identity, share.age.as_bytes()).unwrap();
        Site {
            folder,
            keeper,
            share: share.to_text().unwrap(),
            keys,
        }
    }

    /// A new store, unsealed.
    pub(super) async fn open() -> Site {
        let site = Site::sealed().await;
        site.unseal().await;
        site
    }

    pub(super) async fn unseal(&self) {
        let outcome = self.give_share().await.unwrap();
        assert!(matches!(outcome, ShareOutcome::Opened(_)), "{outcome:?}");
    }

    pub(super) async fn give_share(&self) -> Result<ShareOutcome, ApiError> {
        let plan = self.keeper.ask(|k| k.unseal_plan()).await?;
        self.give_share_under(plan.digest).await
    }

    pub(super) async fn give_share_under(&self, plan: Digest) -> Result<ShareOutcome, ApiError> {
        let share = Secret::copy_of(self.share.expose()).unwrap();
        self.keeper
            .ask(move |k| k.submit_share(UID, &plan, &share))
            .await
    }

    pub(super) fn share(&self) -> Share {
        Share::parse(self.share.expose()).unwrap()
    }

    /// Looks at the keeper's insides, or changes them.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Keeper) -> T + Send + 'static,
    ) -> T {
        self.keeper.ask(move |k| Ok(act(k))).await.unwrap()
    }

    pub(super) async fn propose(&self, uid: u32, change: Change) -> Result<Proposed, ApiError> {
        self.keeper.ask(move |k| k.propose(uid, change)).await
    }

    pub(super) async fn approve(&self, change: Digest) -> Result<ChangeOutcome, ApiError> {
        self.keeper
            .ask(move |k| k.approve(UID, &change, Approve::Dev))
            .await
    }

    /// Proposes a change and approves it with the store's own key.
    pub(super) async fn change(&self, change: Change) -> Result<ChangeOutcome, ApiError> {
        let proposed = self.propose(UID, change).await?;
        self.approve(proposed.review.change).await
    }

    /// Makes the vault `main` with the credential `token`.
    pub(super) async fn put_credential(&self) {
        let vault = VaultName::parse("main").unwrap();
        let name = vault.clone();
        let made = self.keeper.ask(move |k| k.create_vault(UID, &name)).await;
        made.unwrap();
        self.put_version().await;
    }

    /// Puts the next version of that credential.
    pub(super) async fn put_version(&self) {
        self.put_token().await.unwrap();
    }

    /// The same, which may be refused.
    pub(super) async fn put_token(&self) -> Result<CredentialStored, ApiError> {
        let spec = Spec {
            vault: VaultName::parse("main").unwrap(),
            name: CredentialName::parse("token").unwrap(),
            owner: None,
            kind: "bearer".into(),
            hosts: vec!["127.0.0.1".into()],
            expiry: 0,
        };
        let payload = Secret::copy_of(b"canary-7f3a9c1e5b2d").unwrap();
        self.keeper
            .ask(move |k| k.put_credential(UID, spec, &payload))
            .await
    }

    /// Deletes it.
    pub(super) async fn delete_token(&self) -> Result<(), ApiError> {
        let vault = VaultName::parse("main").unwrap();
        let name = CredentialName::parse("token").unwrap();
        self.keeper
            .ask(move |k| k.delete_credential(UID, &vault, &name))
            .await
    }

    /// A signed bundle of the echo module.
    pub(super) fn bundle(&self, sequence: u64, notes: &str) -> Vec<u8> {
        let options = BuildOptions {
            namespace: Namespace::parse("acme").unwrap(),
            name: BundleName::parse("tests").unwrap(),
            sequence,
            audience: vec![SiteId::parse("test-site").unwrap()],
            created: 1_700_000_000,
            not_after: 4_000_000_000,
            notes: notes.to_owned(),
        };
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/echo");
        let plain = mcpist_bundle::build(&[folder], &options).unwrap();
        self.keys.iter().fold(plain, |bundle, key| {
            mcpist_bundle::build::sign(&bundle, key, Role::Publisher).unwrap()
        })
    }

    pub(super) async fn import(&self, bundle: &[u8]) -> Result<Imported, ApiError> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bundle).unwrap();
        self.keeper.import(UID, file).await
    }

    /// Seals, and makes rubbish of every vault but the store's own.
    pub(super) async fn spoil_vaults(&self) {
        self.keeper.seal(None, "a test").await.unwrap();
        let vaults = self.state().join("store/vaults");
        wait_closed(&vaults);
        for file in std::fs::read_dir(vaults).unwrap() {
            std::fs::write(file.unwrap().path(), b"not a database").unwrap();
        }
    }

    /// The lines of the log that hold all of `parts`.
    pub(super) fn lines(&self, parts: &[&str]) -> Vec<String> {
        let log = std::fs::read_to_string(self.state().join("audit/audit-00000000.jsonl")).unwrap();
        let holds = |line: &&str| parts.iter().all(|part| line.contains(part));
        log.lines().filter(holds).map(str::to_owned).collect()
    }

    /// The trust root that its publishers' keys make.
    pub(super) fn root(&self) -> Vec<u8> {
        root(&self.keys)
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

/// Waits until no database of the folder is open. Closing one writes its log into it, and takes the log away.
pub(super) fn wait_closed(vaults: &Path) {
    let is_log = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "db-wal"))
    };
    while std::fs::read_dir(vaults).unwrap().any(is_log) {
        std::thread::yield_now();
    }
}

/// A keeper for the store in `folder`, or for a new one.
pub(super) fn keeper_in(folder: &tempfile::TempDir) -> KeeperHandle {
    // Refused where another test of this process was first.
    let _ = mcpist_secret::memory::init(4 << 20, mcpist_secret::memory::Policy::Warn);
    let path = folder.path().join("mcpist.toml");
    let text = format!(
        "state = \"{0}/state\"\nrun = \"{0}/run\"\n",
        folder.path().display()
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, true).unwrap();
    crate::make_folders(&config).unwrap();
    start(Arc::new(House::new(config))).unwrap()
}

fn root(keys: &[SigningKey]) -> Vec<u8> {
    let public: Vec<_> = keys.iter().map(SigningKey::public).collect();
    let keys = |threshold| Keys {
        threshold,
        keys: public.clone(),
    };
    let root = Root::new(RootParts {
        version: 1,
        site: SiteId::parse("test-site").unwrap(),
        publisher: keys(2),
        root: keys(1),
        revoke: keys(1),
        namespaces: vec![Delegation {
            namespace: Namespace::parse("acme").unwrap(),
            keys: public.clone(),
        }],
    });
    root.unwrap().to_bytes().unwrap()
}
