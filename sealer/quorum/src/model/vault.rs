//! The vault of the model: its rows, its ceremonies, and who opens it.

use mcpist_secret::Key;

use super::{Crash, Running, SECRET, World, holders, opened};
use crate::collector::{Collector, Submission};
use crate::config::SealConfig;
use crate::consent::Consent;
use crate::delivery::Identity;
use crate::fixtures::{again, key_of};
use crate::ids::{Generation, PlanDigest, Threshold};
use crate::plan::{Act, Plan, PlannedVault};
use crate::record::{unwrap_key, wrap_key};
use crate::rekey::{Delivery, Proof, Switch};
use crate::share::Share;
use crate::split::{combine, derive_kek};
use crate::vault_config::VaultConfig;

/// What of it survives a crash.
#[derive(Clone)]
pub(super) struct VaultDisk {
    pub(super) config: VaultConfig,
    root: Vec<u8>,
    secret: Vec<u8>,
    tried: u32,
}

impl VaultDisk {
    fn write(config: VaultConfig, kek: &Key, root: &Key, tried: u32) -> VaultDisk {
        VaultDisk {
            root: wrap_key(kek, "vault-root", &config.to_bytes(), root).unwrap(),
            secret: wrap_key(root, "vault", b"own", &key_of(&SECRET)).unwrap(),
            config,
            tried,
        }
    }

    /// The root key that these shares open.
    fn open(&self, shares: &[&Share]) -> Option<Key> {
        let plan = Plan::unseal_vault(&self.config, "ops").unwrap().digest();
        let mut collector = Collector::new(self.config.sharing(), self.config.digest(), plan);
        for share in shares {
            if let Submission::Complete(valid) = collector.submit(again(share), plan, 0) {
                let secret = combine(&valid).unwrap();
                let kek = derive_kek(&secret, valid.set(), valid.generation()).unwrap();
                return unwrap_key(&kek, "vault-root", &self.config.to_bytes(), &self.root).ok();
            }
        }
        None
    }

    fn secret_of(&self, root: &Key) -> [u8; 32] {
        *unwrap_key(root, "vault", b"own", &self.secret)
            .unwrap()
            .expose()
    }
}

/// A vault that was made for two of three of these people.
pub(super) fn made(store: &SealConfig, people: &[Identity]) -> (VaultDisk, Vec<Share>) {
    let vault = PlannedVault {
        id: [4; 16],
        name: "ops".to_owned(),
    };
    let two = Threshold::new(2, 3).unwrap();
    let plan = Plan::new_vault(store, vault, two, holders(people)).unwrap();
    let delivery = Delivery::make_first(&plan, 0, 0).unwrap();
    let shares = opened(people, delivery.letters());
    let Proof::Pending(delivery, _) = delivery.prove(again(&shares[2]), plan.digest(), 0) else {
        panic!("one of two is not enough")
    };
    let Proof::Complete(switch) = delivery.prove(again(&shares[0]), plan.digest(), 0) else {
        panic!("two of three are enough")
    };
    let root = Key::random().unwrap();
    let disk = VaultDisk::write(switch.config().clone(), switch.kek(), &root, 1);
    (disk, shares)
}

impl World {
    /// Begins to open the vault, or to give the open one to `needed` of `total`.
    pub(super) fn begin_vault(&mut self, needed: u8, total: u8) {
        if self.root.is_none() || self.running.is_some() {
            return;
        }
        let vault = &self.disk.vault;
        let plan = match &self.vault_root {
            None => Plan::unseal_vault(&vault.config, "ops").unwrap(),
            Some(_) => Plan::rekey_vault(
                &vault.config,
                "ops",
                Generation::new(vault.tried + 1).unwrap(),
                Threshold::dev(needed, total).unwrap(),
                holders(&self.identities[..total.into()]),
            )
            .unwrap(),
        };
        let consent = Consent::begin_vault(plan, &vault.config, self.now).unwrap();
        self.running = Some(Running::VaultConsent(consent));
    }

    pub(super) fn give_to_vault(
        &mut self,
        mut consent: Consent,
        share: Share,
        plan: PlanDigest,
        crash: Crash,
    ) {
        match consent.submit(share, plan, self.now) {
            Submission::Complete(shares) => {
                let given: Vec<Share> = shares.shares().iter().map(again).collect();
                let root = self.disk.vault.open(&given.iter().collect::<Vec<_>>());
                let root = root.expect("its quorum opens it");
                if matches!(consent.plan().act(), Act::UnsealVault { .. }) {
                    self.vault_root = Some(root);
                    return;
                }
                let config = self.disk.vault.config.clone();
                let delivery = Delivery::make_for_vault(consent, shares, &config).unwrap();
                self.deliver_for_vault(delivery, crash);
            }
            _ if consent.expire(self.now) => {}
            _ => self.running = Some(Running::VaultConsent(consent)),
        }
    }

    /// The generation is on the disk before a share leaves.
    fn deliver_for_vault(&mut self, delivery: Delivery<VaultConfig>, crash: Crash) {
        if matches!(crash, Crash::Before) {
            return self.forget();
        }
        let generation = delivery.config().sharing().generation.get();
        assert!(generation > self.disk.vault.tried, "one generation twice");
        self.disk.vault.tried = generation;
        let new = opened(&self.identities, delivery.letters());
        let config = *delivery.config().digest().as_bytes();
        self.issued.insert(config, new);
        if matches!(crash, Crash::After) {
            return self.forget();
        }
        self.running = Some(Running::VaultProof(delivery));
    }

    pub(super) fn prove_for_vault(
        &mut self,
        delivery: Delivery<VaultConfig>,
        share: Share,
        plan: PlanDigest,
        crash: Crash,
    ) {
        match delivery.prove(share, plan, self.now) {
            Proof::Complete(switch) => self.switch_vault(&switch, crash),
            Proof::Pending(delivery, _) | Proof::Refused(delivery, _) => {
                self.running = Some(Running::VaultProof(delivery));
            }
        }
    }

    /// One that was sealed meanwhile is not given to others.
    fn switch_vault(&mut self, switch: &Switch<VaultConfig>, crash: Crash) {
        let Some(root) = &self.vault_root else { return };
        let (config, tried) = (switch.config().clone(), self.disk.vault.tried);
        let disk = VaultDisk::write(config, switch.kek(), root, tried);
        if !matches!(crash, Crash::Before) {
            self.disk.vault = disk;
            self.vault_switches += 1;
        }
        if !matches!(crash, Crash::Never) {
            self.forget();
        }
    }

    /// Some issued quorum of its own opens the vault, no smaller set does, none of the store's does, and what it holds is
    /// what it was.
    pub(super) fn check_vault(&self) {
        let vault = &self.disk.vault;
        let own = vault.config.digest();
        let needed = usize::from(vault.config.sharing().threshold.needed());
        let shares = &self.issued[own.as_bytes()];
        for quorum in shares.windows(needed) {
            let quorum: Vec<&Share> = quorum.iter().collect();
            let root = vault.open(&quorum).expect("a quorum opens");
            assert_eq!(vault.secret_of(&root), SECRET);
            assert!(vault.open(&quorum[1..]).is_none());
        }
        let others = self.issued.iter();
        let others = others.filter(|(config, _)| *config != own.as_bytes());
        let mut few: Vec<&Share> = others.flat_map(|(_, shares)| shares).collect();
        few.extend(&shares[1..needed]);
        assert!(vault.open(&few).is_none());
        if let Some(root) = &self.vault_root {
            assert_eq!(vault.secret_of(root), SECRET, "memory is as the disk");
        }
    }
}
