//! A vault with a quorum of its own: who opens it, what stays closed, and what a disk can do about it.

use std::fs;

use mcpist_quorum::{
    Consent, Delivery, Generation, Identity, Plan, PlannedHolder, PlannedVault, Proof, Share,
    ShareRefusal, Submission, Switch, Threshold, ValidShares, VaultConfig, open_share_file,
};

use super::support::{Fail, Site, again, edit, file_name, put, read, rows};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::rekey::SwitchError;

const CONTROL: &str = "control.db";

/// Two people who can read what is encrypted to them.
fn people(labels: [&str; 2]) -> ([Identity; 2], Vec<PlannedHolder>) {
    let identities = [Identity::generate(), Identity::generate()];
    let holders = labels.iter().zip(&identities);
    let holders = holders.map(|(label, identity)| PlannedHolder {
        label: (*label).to_owned(),
        recipient: identity.recipient(),
    });
    let holders = holders.collect();
    (identities, holders)
}

/// Both new holders prove their shares.
fn proved(
    delivery: Delivery<VaultConfig>,
    identities: &[Identity],
) -> (Switch<VaultConfig>, Vec<Share>) {
    let letters = identities.iter().zip(delivery.letters());
    let open = |(identity, letter): (&Identity, &mcpist_quorum::Letter)| {
        open_share_file(identity, letter.age.as_bytes()).unwrap()
    };
    let new: Vec<Share> = letters.map(open).collect();
    let plan = delivery.plan().digest();
    let Proof::Pending(delivery, _) = delivery.prove(again(&new[0]), plan, 0) else {
        panic!("one of two is not enough")
    };
    match delivery.prove(again(&new[1]), plan, 0) {
        Proof::Complete(switch) => (switch, new),
        other => panic!("{other:?}"),
    }
}

/// A vault that is to be made, 2 of 2.
fn first(barrier: &Barrier<Unsealed>) -> (Switch<VaultConfig>, Vec<Share>) {
    let (identities, holders) = people(["Dee", "Eve"]);
    let vault = PlannedVault {
        id: *VaultId::random().unwrap().as_bytes(),
        name: "ops".to_owned(),
    };
    let two = Threshold::new(2, 2).unwrap();
    let plan = Plan::new_vault(barrier.config(), vault, two, holders).unwrap();
    let delivery = Delivery::make_first(&plan, 1_790_000_000, 0).unwrap();
    proved(delivery, &identities)
}

/// The vault's quorum gives its shares to `plan`.
pub(crate) fn given(
    barrier: &Barrier<Unsealed>,
    plan: Plan,
    shares: &[Share],
) -> Result<(Consent, ValidShares), ShareRefusal> {
    let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
    let digest = plan.digest();
    let mut consent = Consent::begin_vault(plan, &own.config, 0).unwrap();
    for share in shares {
        match consent.submit(again(share), digest, 0) {
            Submission::Complete(shares) => return Ok((consent, shares)),
            Submission::Refused(refusal) => return Err(refusal),
            Submission::Pending(_) => {}
        }
    }
    panic!("more shares are needed")
}

pub(crate) fn unseal(barrier: &Barrier<Unsealed>, shares: &[Share]) -> Result<u64, SwitchError> {
    let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
    let plan = Plan::unseal_vault(&own.config, "ops").unwrap();
    let (_, shares) = given(barrier, plan, shares).unwrap();
    barrier.unseal_own("ops", &shares)
}

/// New shares of the vault, 2 of 2, that have been proved.
pub(crate) fn next(
    barrier: &Barrier<Unsealed>,
    old: &[Share],
) -> (Switch<VaultConfig>, Vec<Share>) {
    let (identities, holders) = people(["Fay", "Gus"]);
    let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
    let generation = Generation::new(own.tried.get() + 1).unwrap();
    let two = Threshold::new(2, 2).unwrap();
    let plan = Plan::rekey_vault(&own.config, "ops", generation, two, holders).unwrap();
    let (consent, shares) = given(barrier, plan, old).unwrap();
    barrier.consent_own("ops", &shares).unwrap();
    let delivery = Delivery::make_for_vault(consent, shares, &own.config).unwrap();
    barrier.note_tried("ops", generation, None).unwrap();
    proved(delivery, &identities)
}

/// A store with a vault of its own quorum and one of the store's.
pub(crate) fn with_own() -> (Site, Barrier<Unsealed>, Vec<Share>) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let (switch, shares) = first(&barrier);
    let line = Some(b"made".to_vec());
    barrier.create_own_vault(&switch, line).unwrap();
    for name in ["ops", "prod"] {
        let vault = barrier.vault(name).unwrap();
        vault.commit(vec![put("git", "secret")]).unwrap();
    }
    (site, barrier, shares)
}

pub(crate) fn reads(barrier: &Barrier<Unsealed>, name: &str) -> Result<String, VaultError> {
    read(&barrier.vault(name).unwrap(), "git")
}

pub(crate) fn is_sealed(barrier: &Barrier<Unsealed>) {
    assert!(matches!(
        reads(barrier, "ops"),
        Err(VaultError::VaultSealed(name)) if name == "ops"
    ));
    assert_eq!(barrier.vault("ops").unwrap().health(), Health::Sealed);
    assert_eq!(reads(barrier, "prod").unwrap(), "secret");
}

#[test]
fn its_own_quorum_opens_it_and_the_stores_does_not() {
    let (site, barrier, shares) = with_own();
    assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!(
        (report.verified, &report.sealed[..]),
        (2, &["ops".to_owned()][..])
    );
    assert!(report.quarantined.is_empty() && report.unavailable.is_empty());
    is_sealed(&barrier);
    let status = barrier
        .vaults()
        .into_iter()
        .find(|v| v.name == "ops")
        .unwrap();
    assert!(status.has_own_quorum);
    let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
    let plan = Plan::unseal_vault(&own.config, "ops").unwrap();
    let of_store = [site.share(0), site.share(2)];
    let refusal = given(&barrier, plan, &of_store).unwrap_err();
    assert!(
        matches!(&refusal, ShareRefusal::OtherSet { vault, .. } if vault == "ops"),
        "{refusal}"
    );
    assert_eq!(unseal(&barrier, &shares).unwrap(), 1);
    assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
    let vault = barrier.vault("ops").unwrap();
    vault.commit(vec![put("more", "x")]).unwrap();
}

#[test]
fn it_is_sealed_alone_and_with_all_others() {
    let (site, barrier, shares) = with_own();
    let kept = barrier.vault("ops").unwrap();
    let loaded = kept.load(&super::support::key("git")).unwrap();
    barrier.seal_own("ops").unwrap();
    is_sealed(&barrier);
    barrier.seal_own("ops").unwrap();
    assert!(matches!(
        kept.open(&loaded),
        Err(VaultError::VaultSealed(_))
    ));
    assert!(matches!(
        kept.commit(vec![put("late", "x")]),
        Err(VaultError::VaultSealed(_))
    ));
    assert!(matches!(
        barrier.seal_own("prod"),
        Err(VaultError::NoOwnQuorum(name)) if name == "prod"
    ));
    unseal(&barrier, &shares).unwrap();
    assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
    let opened = barrier.vault("ops").unwrap();
    drop(site.seal(barrier));
    assert!(matches!(opened.open(&loaded), Err(VaultError::Sealed)));
    assert!(opened.0.keys.lend(|_| ()).is_err(), "its keys are gone too");
}

#[test]
fn a_new_root_key_of_the_store_leaves_it_alone() {
    let (site, mut barrier, shares) = with_own();
    let id = barrier.vault("ops").unwrap().id();
    for is_open in [true, false] {
        if !is_open {
            barrier.seal_own("ops").unwrap();
        }
        let plan = Plan::rotate_root(barrier.config()).unwrap();
        let mut consent = Consent::begin(plan, barrier.config(), 0).unwrap();
        let digest = consent.plan().digest();
        let _ = consent.submit(site.share(0), digest, 0);
        let Submission::Complete(given) = consent.submit(site.share(1), digest, 0) else {
            panic!("two are enough")
        };
        let consented = barrier.consent(&given).unwrap();
        barrier
            .rotate_root(&consented, vec![put("done", "x")], 0)
            .unwrap();
    }
    let sealed = site.seal(barrier);
    let wraps = rows(&site.path.join(CONTROL), "vault");
    let own = wraps.iter().find(|row| row.0 == id.as_bytes()).unwrap();
    assert_eq!(own.1[0], 2, "its keys hang under a root key of its own");
    let (barrier, _) = site.unseal_from(sealed);
    assert_eq!(reads(&barrier, "prod").unwrap(), "secret");
    unseal(&barrier, &shares).unwrap();
    assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
}

#[test]
fn a_new_key_of_it_stays_under_its_quorum_and_a_new_file_is_refused() {
    let (site, barrier, shares) = with_own();
    assert!(matches!(
        barrier.rotate("ops"),
        Err(VaultError::OwnQuorum(_))
    ));
    barrier.begin_epoch("ops", None).unwrap();
    let vault = barrier.vault("ops").unwrap();
    vault.commit(vec![put("new", "x")]).unwrap();
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    is_sealed(&barrier);
    assert_eq!(unseal(&barrier, &shares).unwrap(), 2);
    assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
}

#[test]
fn a_disk_that_fails_while_it_is_made_leaves_it_whole_or_not_at_all() {
    for how in [Fail::Put, Fail::Lost, Fail::Made] {
        let site = Site::new();
        let (barrier, _) = site.unseal();
        let (switch, shares) = first(&barrier);
        site.faults.fail_next(CONTROL, how);
        let made = barrier.create_own_vault(&switch, None).is_ok();
        assert_eq!(made, how == Fail::Made);
        // Sealed, it waits until a file that is none was removed.
        let (mut barrier, _) = site.unseal_from(site.seal(barrier));
        if !made {
            assert!(barrier.vault("ops").is_err());
            barrier.create_own_vault(&switch, None).unwrap();
            (barrier, _) = site.unseal_from(site.seal(barrier));
        }
        assert_eq!(unseal(&barrier, &shares).unwrap(), 0);
    }
}

#[test]
fn a_disk_that_fails_at_its_rekey_leaves_the_old_quorum_or_the_new_one() {
    for how in [None, Some(Fail::Put), Some(Fail::Lost), Some(Fail::Made)] {
        let (site, barrier, old) = with_own();
        let (switch, new) = next(&barrier, &old);
        if let Some(how) = how {
            site.faults.fail_next(CONTROL, how);
        }
        let done = barrier.rekey_own(&switch, Some(Op::Outbox(b"given".to_vec())));
        let made = matches!(how, None | Some(Fail::Made));
        assert_eq!(done.is_ok(), made, "{done:?}");
        assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
        let (right, wrong) = if made { (&new, &old) } else { (&old, &new) };
        // A new key of the vault is wrapped under the quorum that it has by now.
        barrier.begin_epoch("ops", None).unwrap();
        barrier.seal_own("ops").unwrap();
        unseal(&barrier, right).unwrap();
        let (barrier, _) = site.unseal_from(site.seal(barrier));
        let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
        assert_eq!(own.tried.get(), 2, "no generation is made twice");
        let plan = Plan::unseal_vault(&own.config, "ops").unwrap();
        match given(&barrier, plan, wrong).unwrap_err() {
            ShareRefusal::Superseded { .. } if made => {}
            ShareRefusal::Newer { .. } if !made => {}
            other => panic!("{other}"),
        }
        unseal(&barrier, right).unwrap();
        assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
    }
}

#[test]
fn a_rekey_in_doubt_seals_it_until_control_db_can_be_read() {
    for how in [Fail::Lost, Fail::Made] {
        let (site, barrier, old) = with_own();
        let (switch, new) = next(&barrier, &old);
        let faults = site.faults.clone();
        site.faults.fail_next(CONTROL, how);
        let blind = move || (0..2).for_each(|_| faults.blind_next(CONTROL));
        match how {
            Fail::Made => site.faults.once_made(CONTROL, blind),
            // The row of keys is read before the commit.
            _ => site.faults.once_lost(CONTROL, blind),
        }
        let error = barrier.rekey_own(&switch, None).unwrap_err();
        assert!(matches!(error, SwitchError::VaultInDoubt(_)), "{error}");
        is_sealed(&barrier);
        let (barrier, _) = site.unseal_from(site.seal(barrier));
        let right = if how == Fail::Made { &new } else { &old };
        unseal(&barrier, right).unwrap();
        assert_eq!(reads(&barrier, "ops").unwrap(), "secret");
    }
}

/// Puts `value` in the place of the row of keys of `id`.
pub(crate) fn put_keys(site: &Site, id: VaultId, value: &[u8]) {
    edit(&site.path.join(CONTROL), |conn| {
        let put = "UPDATE vault SET value = ?1 WHERE key = ?2";
        let done = conn.execute(put, rusqlite::params![value, id.as_bytes()]);
        assert_eq!(done.unwrap(), 1);
    });
}

#[test]
fn the_keys_of_an_earlier_quorum_put_back_open_nothing() {
    let (site, barrier, old) = with_own();
    let id = barrier.vault("ops").unwrap().id();
    let sealed = site.seal(barrier);
    let before = rows(&site.path.join(CONTROL), "vault");
    let row_of = |rows: &[(Vec<u8>, Vec<u8>)], id: VaultId| {
        let row = rows.iter().find(|row| row.0 == id.as_bytes());
        row.unwrap().1.clone()
    };
    let (barrier, _) = site.unseal_from(sealed);
    unseal(&barrier, &old).unwrap();
    let (switch, _) = next(&barrier, &old);
    barrier.rekey_own(&switch, None).unwrap();
    let prod = barrier.vault("prod").unwrap().id();
    drop(site.seal(barrier));
    // The old quorum's, one that was edited, and one that hangs under the store's root key.
    let mut edited = row_of(&rows(&site.path.join(CONTROL), "vault"), id);
    edited[60] ^= 1;
    for wrong in [
        row_of(&before, id),
        edited,
        row_of(&before, prod),
        Vec::new(),
    ] {
        put_keys(&site, id, &wrong);
        let (barrier, report) = site.unseal();
        assert_eq!(report.quarantined.len(), 1, "{report:?}");
        assert_eq!(report.quarantined[0].0, "ops");
        assert!(report.sealed.is_empty());
        assert!(barrier.vault("ops").unwrap().own_quorum().is_err());
        assert_eq!(reads(&barrier, "prod").unwrap(), "secret");
        drop(site.seal(barrier));
    }
}

#[test]
fn its_file_put_back_is_seen_when_its_quorum_opens_it() {
    let (site, barrier, shares) = with_own();
    let vault = barrier.vault("ops").unwrap();
    let (file, name) = (site.file(&vault), file_name(&vault));
    drop((vault, site.seal(barrier)));
    let before = fs::read(&file).unwrap();
    let (barrier, _) = site.unseal();
    unseal(&barrier, &shares).unwrap();
    let vault = barrier.vault("ops").unwrap();
    vault.commit(vec![put("git", "later")]).unwrap();
    barrier.settle().unwrap();
    drop((vault, site.seal(barrier)));
    fs::write(&file, before).unwrap();
    let (barrier, report) = site.unseal();
    assert_eq!(report.sealed, ["ops"], "nobody can tell yet: {name}");
    let error = unseal(&barrier, &shares).unwrap_err().to_string();
    assert!(error.contains("was put back"), "{error}");
    let health = barrier.vault("ops").unwrap().health();
    assert!(matches!(health, Health::Quarantined(_)), "{health:?}");
    barrier.seal_own("ops").unwrap_err();
}

#[test]
fn a_last_write_that_is_missing_shows_when_it_is_opened() {
    let (site, barrier, shares) = with_own();
    let vault = barrier.vault("ops").unwrap();
    let file = site.file(&vault);
    barrier.settle().unwrap();
    drop((vault, site.seal(barrier)));
    let before = fs::read(&file).unwrap();
    let (barrier, _) = site.unseal();
    unseal(&barrier, &shares).unwrap();
    // Announced, and not settled before the crash.
    let vault = barrier.vault("ops").unwrap();
    vault.commit(vec![put("git", "later")]).unwrap();
    drop((vault, site.seal(barrier)));
    fs::write(&file, before).unwrap();
    let (barrier, _) = site.unseal();
    unseal(&barrier, &shares).unwrap();
    let status = barrier.vault("ops").unwrap().status();
    assert!(status.last_write_missing.is_some());
    barrier.confirm_last_write_missing("ops", None).unwrap();
    assert_eq!(
        barrier.vault("ops").unwrap().status().last_write_missing,
        None
    );
}

#[test]
fn shares_of_another_quorum_change_nothing() {
    let (site, barrier, shares) = with_own();
    let (switch, _) = next(&barrier, &shares);
    let own = barrier.vault("ops").unwrap().own_quorum().unwrap();
    let plan = Plan::unseal_vault(&own.config, "ops").unwrap();
    let (_, valid) = given(&barrier, plan, &shares).unwrap();
    barrier.rekey_own(&switch, None).unwrap();
    // Collected before the rekey, and given after it.
    assert!(matches!(
        barrier.consent_own("ops", &valid),
        Err(SwitchError::OtherConfig)
    ));
    barrier.seal_own("ops").unwrap();
    assert!(matches!(
        barrier.unseal_own("ops", &valid),
        Err(SwitchError::OtherConfig)
    ));
    assert!(matches!(
        barrier.rekey_own(&switch, None),
        Err(SwitchError::OtherConfig)
    ));
    is_sealed(&barrier);
    assert_eq!(own.config.sharing().holders.len(), 2);
    drop(site);
}
