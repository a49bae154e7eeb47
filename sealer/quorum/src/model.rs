//! Random ceremonies against a store of three rows, and a vault of three with a quorum of its own.
//!
//! The store is a model: a seal config, a root key wrapped under it, and a secret wrapped under the root key; the vault
//! ([`vault`]) has the same three of its own. The plans, the collectors, the phases of a rekey, the shares and the wraps are the
//! real ones. After every step: the quorum of each config on the disk opens its secret, one share fewer does not, and no share of
//! another sharing is taken, the one's for the other neither; whatever was begun, given wrongly, repeated, cancelled, let
//! expire, or cut off by a crash before.

mod vault;

use std::collections::BTreeMap;

use mcpist_secret::Key;
use proptest::prelude::*;

use crate::ceremony::Foundation;
use crate::collector::{Collector, Submission};
use crate::config::SealConfig;
use crate::consent::{CEREMONY_SECONDS, Consent};
use crate::delivery::{Identity, open_share_file};
use crate::fixtures::{again, key_of, officers};
use crate::ids::{Generation, Threshold};
use crate::plan::{Act, InitTerms, Plan, PlannedHolder};
use crate::record::{unwrap_key, wrap_key};
use crate::rekey::{Delivery, Proof, Switch};
use crate::share::Share;
use crate::split::{combine, derive_kek};
use crate::vault_config::VaultConfig;
use vault::VaultDisk;

/// What the store keeps for its people.
const SECRET: [u8; 32] = [0x5a; 32];

/// What survives a crash.
#[derive(Clone)]
struct Disk {
    config: SealConfig,
    root: Vec<u8>,
    secret: Vec<u8>,
    /// The highest generation that shares were made of.
    tried: u32,
    vault: VaultDisk,
}

impl Disk {
    fn write(config: SealConfig, kek: &Key, root: &Key, tried: u32, vault: VaultDisk) -> Disk {
        Disk {
            root: wrap_key(kek, "root", &config.to_bytes(), root).unwrap(),
            secret: wrap_key(root, "vault", b"", &key_of(&SECRET)).unwrap(),
            config,
            tried,
            vault,
        }
    }

    /// The root key that these shares open, as the store would.
    fn open(&self, shares: &[&Share]) -> Option<(Key, Key)> {
        let plan = Plan::unseal(&self.config).unwrap().digest();
        let mut collector = Collector::new(self.config.sharing(), self.config.digest(), plan);
        for share in shares {
            if let Submission::Complete(valid) = collector.submit(again(share), plan, 0) {
                let secret = combine(&valid).unwrap();
                let kek = derive_kek(&secret, valid.set(), valid.generation()).unwrap();
                let root = unwrap_key(&kek, "root", &self.config.to_bytes(), &self.root).ok()?;
                return Some((kek, root));
            }
        }
        None
    }

    fn secret_of(&self, root: &Key) -> Option<[u8; 32]> {
        let secret = unwrap_key(root, "vault", b"", &self.secret).ok()?;
        Some(*secret.expose())
    }
}

/// A ceremony that waits for shares; in memory alone.
enum Running {
    Consent(Consent),
    Proof(Delivery),
    VaultConsent(Consent),
    VaultProof(Delivery<VaultConfig>),
}

struct World {
    disk: Disk,
    backups: Vec<Disk>,
    /// Every share that ever left, by the digest of the config that knows it.
    issued: BTreeMap<[u8; 32], Vec<Share>>,
    /// The root key of an open store.
    root: Option<Key>,
    /// The root key of the open vault.
    vault_root: Option<Key>,
    running: Option<Running>,
    /// Who can open the new shares' letters.
    identities: Vec<Identity>,
    now: u64,
    switches: usize,
    vault_switches: usize,
}

/// Where a crash comes at the store's one commit of an act.
#[derive(Debug, Clone, Copy)]
enum Crash {
    Never,
    Before,
    After,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Unseal,
    Seal,
    Rekey {
        needed: u8,
        total: u8,
        rotate: bool,
    },
    Rotate,
    SealVault,
    /// Opens the vault, or gives the open one to others.
    Vault {
        needed: u8,
        total: u8,
    },
    /// The share that the ceremony waits for next, of this holder.
    Give {
        holder: usize,
        crash: Crash,
    },
    /// A share of any sharing that ever was, under this ceremony's plan.
    GiveAny {
        sharing: usize,
        holder: usize,
    },
    OtherPlan {
        holder: usize,
    },
    Damaged {
        holder: usize,
    },
    Cancel,
    Wait(u64),
    Backup,
    Restore {
        backup: usize,
        crash: Crash,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let crash = prop_oneof![
        16 => Just(Crash::Never),
        1 => Just(Crash::Before),
        1 => Just(Crash::After),
    ];
    let holder = 0..4_usize;
    let step = prop_oneof![
        4 => Just(Step::Unseal),
        1 => Just(Step::Seal),
        3 => (1..4_u8, 0..3_u8, any::<bool>()).prop_map(|(needed, more, rotate)| Step::Rekey {
            needed,
            total: needed + more,
            rotate,
        }),
        2 => Just(Step::Rotate),
        1 => Just(Step::SealVault),
        8 => (1..4_u8, 0..3_u8).prop_map(|(needed, more)| Step::Vault {
            needed,
            total: needed + more,
        }),
        60 => (holder.clone(), crash.clone()).prop_map(|(holder, crash)| Step::Give { holder, crash }),
        2 => (0..5_usize, holder.clone())
            .prop_map(|(sharing, holder)| Step::GiveAny { sharing, holder }),
        1 => holder.clone().prop_map(|holder| Step::OtherPlan { holder }),
        1 => holder.prop_map(|holder| Step::Damaged { holder }),
        1 => Just(Step::Cancel),
        1 => prop_oneof![Just(700), Just(CEREMONY_SECONDS)].prop_map(Step::Wait),
        1 => Just(Step::Backup),
        1 => (0..3_usize, crash).prop_map(|(backup, crash)| Step::Restore { backup, crash }),
    ];
    proptest::collection::vec(step, 16..80)
}

fn holders(identities: &[Identity]) -> Vec<PlannedHolder> {
    let holder = |(at, identity): (usize, &Identity)| PlannedHolder {
        label: format!("holder-{at}"),
        recipient: identity.recipient(),
    };
    identities.iter().enumerate().map(holder).collect()
}

fn opened(identities: &[Identity], letters: &[crate::Letter]) -> Vec<Share> {
    let open = |(identity, letter): (&Identity, &crate::Letter)| {
        open_share_file(identity, letter.age.as_bytes()).unwrap()
    };
    identities.iter().zip(letters).map(open).collect()
}

impl World {
    /// Init: two of three; and a vault, two of three others.
    fn new() -> World {
        let identities: Vec<_> = (0..6).map(|_| Identity::generate()).collect();
        let terms = InitTerms {
            holders: holders(&identities[..3]),
            officers: officers(),
            root_digest: [0x33; 32],
            dev: true,
        };
        let plan = Plan::init(Threshold::new(2, 3).unwrap(), terms).unwrap();
        let made = Foundation::lay(&plan, 0).unwrap();
        let root = Key::random().unwrap();
        let (vault, of_vault) = vault::made(made.config(), &identities[3..]);
        let issued = BTreeMap::from([
            (
                *made.config().digest().as_bytes(),
                made.shares().iter().map(again).collect(),
            ),
            (*vault.config.digest().as_bytes(), of_vault),
        ]);
        World {
            disk: Disk::write(made.config().clone(), made.kek(), &root, 1, vault),
            backups: Vec::new(),
            issued,
            root: None,
            vault_root: None,
            running: None,
            identities,
            now: 0,
            switches: 0,
            vault_switches: 0,
        }
    }

    /// Everything that is in memory alone.
    fn forget(&mut self) {
        (self.root, self.vault_root, self.running) = (None, None, None);
    }

    fn current(&self) -> &[Share] {
        &self.issued[self.disk.config.digest().as_bytes()]
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Unseal if self.root.is_none() => {
                let shares: Vec<&Share> = self.current().iter().rev().collect();
                self.root = self.disk.open(&shares).map(|(_, root)| root);
            }
            Step::Seal => self.forget(),
            Step::Rekey {
                needed,
                total,
                rotate,
            } => self.begin(|world| {
                Plan::rekey(
                    &world.disk.config,
                    Generation::new(world.disk.tried + 1).unwrap(),
                    Threshold::dev(needed, total).unwrap(),
                    holders(&world.identities[..total.into()]),
                    rotate,
                )
                .unwrap()
            }),
            Step::Rotate => self.begin(|world| Plan::rotate_root(&world.disk.config).unwrap()),
            Step::SealVault => self.vault_root = None,
            Step::Vault { needed, total } => self.begin_vault(needed, total),
            Step::Give { holder, crash } => {
                let config = match &self.running {
                    Some(Running::Proof(delivery)) => delivery.config().digest(),
                    Some(Running::VaultProof(delivery)) => delivery.config().digest(),
                    Some(Running::VaultConsent(_)) => self.disk.vault.config.digest(),
                    _ => self.disk.config.digest(),
                };
                let shares = &self.issued[config.as_bytes()];
                if let Some(share) = shares.get(holder).map(again) {
                    self.give(share, None, crash);
                }
            }
            Step::GiveAny { sharing, holder } => {
                let found = self.issued.values().nth(sharing);
                if let Some(share) = found.and_then(|shares| shares.get(holder)).map(again) {
                    self.give(share, None, Crash::Never);
                }
            }
            Step::OtherPlan { holder } => {
                let other = Plan::unseal(&self.disk.config).unwrap();
                if let Some(share) = self.current().get(holder).map(again) {
                    self.give(share, Some(&other), Crash::Never);
                }
            }
            Step::Damaged { holder } => {
                let damaged = self.current().get(holder).map(|share| {
                    let mut value = *share.value().expose();
                    value[7] ^= 0x10;
                    let (set, generation) = (share.set(), share.generation());
                    let threshold = share.threshold();
                    Share::new(set, generation, share.index(), threshold, key_of(&value))
                });
                if let Some(share) = damaged {
                    self.give(share, None, Crash::Never);
                }
            }
            Step::Cancel => self.running = None,
            Step::Wait(seconds) => {
                self.now += seconds;
                let over = match &mut self.running {
                    Some(Running::Consent(consent) | Running::VaultConsent(consent)) => {
                        consent.expire(self.now)
                    }
                    Some(Running::Proof(delivery)) => delivery.has_expired(self.now),
                    Some(Running::VaultProof(delivery)) => delivery.has_expired(self.now),
                    None => false,
                };
                if over {
                    self.running = None;
                }
            }
            Step::Backup if self.root.is_some() => self.backups.push(self.disk.clone()),
            Step::Restore { backup, crash } => self.restore(backup, crash),
            Step::Unseal | Step::Backup => {}
        }
    }

    fn begin(&mut self, plan: impl FnOnce(&World) -> Plan) {
        if self.root.is_some() && self.running.is_none() {
            let consent = Consent::begin(plan(self), &self.disk.config, self.now).unwrap();
            self.running = Some(Running::Consent(consent));
        }
    }

    /// Gives a share of the open ceremony, as the daemon does.
    fn give(&mut self, share: Share, other: Option<&Plan>, crash: Crash) {
        match self.running.take() {
            None => {}
            Some(Running::VaultConsent(consent)) => {
                let digest = other.unwrap_or(consent.plan()).digest();
                self.give_to_vault(consent, share, digest, crash);
            }
            Some(Running::VaultProof(delivery)) => {
                let digest = other.unwrap_or(delivery.plan()).digest();
                self.prove_for_vault(delivery, share, digest, crash);
            }
            Some(Running::Consent(mut consent)) => {
                let digest = other.unwrap_or(consent.plan()).digest();
                match consent.submit(share, digest, self.now) {
                    Submission::Complete(shares) => {
                        let secret = combine(&shares).unwrap();
                        let kek = derive_kek(&secret, shares.set(), shares.generation()).unwrap();
                        let config = self.disk.config.clone();
                        let root = unwrap_key(&kek, "root", &config.to_bytes(), &self.disk.root);
                        let root = root.unwrap();
                        assert!(self.root.as_ref().unwrap().ct_eq(&root));
                        if matches!(consent.plan().act(), Act::RotateRoot(_)) {
                            let root = Key::random().unwrap();
                            let vault = self.disk.vault.clone();
                            let disk = Disk::write(config, &kek, &root, self.disk.tried, vault);
                            self.commit(disk, root, crash);
                        } else {
                            let delivery = Delivery::make(consent, shares, &config).unwrap();
                            self.deliver(delivery, crash);
                        }
                    }
                    _ if consent.expire(self.now) => {}
                    _ => self.running = Some(Running::Consent(consent)),
                }
            }
            Some(Running::Proof(delivery)) => {
                let digest = other.unwrap_or(delivery.plan()).digest();
                match delivery.prove(share, digest, self.now) {
                    Proof::Complete(switch) => self.switch(switch, crash),
                    Proof::Pending(delivery, _) | Proof::Refused(delivery, _) => {
                        self.running = Some(Running::Proof(delivery));
                    }
                }
            }
        }
    }

    /// The generation is on the disk before a share leaves.
    fn deliver(&mut self, delivery: Delivery, crash: Crash) {
        if matches!(crash, Crash::Before) {
            return self.forget();
        }
        let generation = delivery.config().generation().get();
        assert!(generation > self.disk.tried, "one generation twice");
        self.disk.tried = generation;
        let config = *delivery.config().digest().as_bytes();
        let new = opened(&self.identities, delivery.letters());
        self.issued.insert(config, new);
        if matches!(crash, Crash::After) {
            return self.forget();
        }
        self.running = Some(Running::Proof(delivery));
    }

    fn switch(&mut self, switch: Switch, crash: Crash) {
        let root = if switch.rotates_root() {
            Key::random().unwrap()
        } else {
            key_of(self.root.as_ref().unwrap().expose())
        };
        let disk = Disk::write(
            switch.config().clone(),
            switch.kek(),
            &root,
            self.disk.tried,
            self.disk.vault.clone(),
        );
        self.commit(disk, root, crash);
    }

    /// The one commit of an act, and a crash on either side of it.
    fn commit(&mut self, disk: Disk, root: Key, crash: Crash) {
        if !matches!(crash, Crash::Before) {
            self.disk = disk;
            self.root = Some(root);
            self.switches += 1;
        }
        if !matches!(crash, Crash::Never) {
            self.forget();
        }
    }

    /// A store out of a backup, by the quorum of the config that it carries. It counts generations on from its own, so
    /// that two sharings may have one number; their digests differ.
    fn restore(&mut self, backup: usize, crash: Crash) {
        let Some(backup) = self.backups.get(backup).cloned() else {
            return;
        };
        let plan = Plan::restore(&backup.config, [7; 32]).unwrap();
        let mut consent = Consent::begin(plan, &backup.config, self.now).unwrap();
        let digest = consent.plan().digest();
        for share in &self.issued[backup.config.digest().as_bytes()] {
            if let Submission::Complete(shares) = consent.submit(again(share), digest, self.now) {
                assert_eq!(shares.config(), backup.config.digest());
                if !matches!(crash, Crash::Before) {
                    self.disk = backup;
                }
                return self.forget();
            }
        }
        panic!("the quorum of a backup's config restores it");
    }

    /// Some issued quorum opens the store, no smaller set does, and the secret is what it was.
    fn check(&self) {
        let needed = usize::from(self.disk.config.threshold().needed());
        let quorums = self.current().windows(needed);
        for quorum in quorums.map(|quorum| quorum.iter().collect::<Vec<_>>()) {
            let (_, root) = self.disk.open(&quorum).expect("a quorum opens");
            assert_eq!(self.disk.secret_of(&root), Some(SECRET));
            assert!(self.disk.open(&quorum[1..]).is_none());
        }
        let current = self.disk.config.digest();
        let others = self
            .issued
            .iter()
            .filter(|(config, _)| *config != current.as_bytes());
        // All that were ever given out, and one share fewer than are needed.
        let mut few: Vec<&Share> = others.flat_map(|(_, shares)| shares).collect();
        few.extend(&self.current()[1..needed]);
        assert!(self.disk.open(&few).is_none());
        self.check_vault();
        if let Some(root) = &self.root {
            assert_eq!(
                self.disk.secret_of(root),
                Some(SECRET),
                "memory is as the disk"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn some_issued_quorum_opens_no_smaller_set_does_and_nothing_is_lost(steps in steps()) {
        let mut world = World::new();
        world.check();
        for step in steps {
            world.act(step);
            world.check();
        }
    }
}

#[test]
fn the_random_ceremonies_get_somewhere() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let worlds = (0..20).map(|_| {
        let mut world = World::new();
        for step in steps().new_tree(&mut runner).unwrap().current() {
            world.act(step);
        }
        (world.switches > 0, world.vault_switches > 0)
    });
    let worlds: Vec<_> = worlds.collect();
    let store = worlds.iter().filter(|(store, _)| *store).count();
    let vault = worlds.iter().filter(|(_, vault)| *vault).count();
    assert!(
        store >= 5,
        "too few of them change the store's key: {store}"
    );
    assert!(
        vault >= 3,
        "too few of them change the vault's quorum: {vault}"
    );
}
