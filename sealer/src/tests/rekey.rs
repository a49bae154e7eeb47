//! A new quorum and a new root key: what opens before, afterwards, and after a disk that failed in between.

use std::fs;
use std::time::Duration;

use mcpist_quorum::{
    Consent, Delivery, Generation, Identity, Plan, PlannedHolder, Proof, Share, ShareRefusal,
    Submission, Switch, Threshold, ValidShares, open_share_file,
};

use super::support::{Fail, Site, again, edit, file_name, put, read, rows};
use crate::barrier::{Barrier, Sealed, Unsealed};
use crate::batch::Op;
use crate::error::VaultError;
use crate::rekey::{SwitchError, commit, rewrap};
use crate::unseal::{Unseal, UnsealError};

const CONTROL: &str = "control.db";

fn line() -> Vec<Op> {
    vec![put("tried", "2"), Op::Outbox(b"rekeyed".to_vec())]
}

/// The consent of the holders of share 1 and 3 to `plan`.
pub(super) fn consented(
    site: &Site,
    barrier: &Barrier<Unsealed>,
    plan: &Plan,
) -> (Consent, ValidShares) {
    let mut consent = Consent::begin(plan.clone(), barrier.config(), 0).unwrap();
    let _ = consent.submit(site.share(0), plan.digest(), 0);
    match consent.submit(site.share(2), plan.digest(), 0) {
        Submission::Complete(shares) => (consent, shares),
        other => panic!("{other:?}"),
    }
}

/// New shares, 2 of 2, that have been proved.
fn switch(site: &Site, barrier: &Barrier<Unsealed>, rotate_root: bool) -> (Switch, Vec<Share>) {
    let identities = [Identity::generate(), Identity::generate()];
    let holders = ["Dee", "Eve"].iter().zip(&identities);
    let holders = holders.map(|(label, identity)| PlannedHolder {
        label: (*label).to_owned(),
        recipient: identity.recipient(),
    });
    let plan = Plan::rekey(
        barrier.config(),
        Generation::new(2).unwrap(),
        Threshold::new(2, 2).unwrap(),
        holders.collect(),
        rotate_root,
    )
    .unwrap();
    let (consent, shares) = consented(site, barrier, &plan);
    barrier.consent(&shares).unwrap();
    let delivery = Delivery::make(consent, shares, barrier.config()).unwrap();
    let letters = identities.iter().zip(delivery.letters());
    let new: Vec<Share> = letters
        .map(|(identity, letter)| open_share_file(identity, letter.age.as_bytes()).unwrap())
        .collect();
    let Proof::Pending(delivery, _) = delivery.prove(again(&new[0]), plan.digest(), 0) else {
        panic!("one of two is not enough")
    };
    match delivery.prove(again(&new[1]), plan.digest(), 0) {
        Proof::Complete(switch) => (switch, new),
        other => panic!("{other:?}"),
    }
}

fn submit_all(mut barrier: Barrier<Sealed>, shares: &[Share]) -> Unseal {
    let plan = barrier.unseal_plan().digest();
    for share in shares {
        match barrier.submit(again(share), plan, 0) {
            Unseal::Pending(back, _) => barrier = back,
            other => return other,
        }
    }
    panic!("{} shares are not enough", shares.len())
}

fn opened(unseal: Unseal) -> Barrier<Unsealed> {
    match unseal {
        Unseal::Opened(barrier, report) => {
            assert!(report.quarantined.is_empty(), "{report:?}");
            barrier
        }
        Unseal::Failed(_, error) => panic!("{error}"),
        Unseal::Rejected(_, refusal) => panic!("{refusal}"),
        Unseal::Pending(..) => panic!("more shares are needed"),
    }
}

fn open_with(site: &Site, shares: &[Share]) -> Barrier<Unsealed> {
    opened(submit_all(site.open(), shares))
}

fn with_vault() -> (Site, Barrier<Unsealed>) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "secret")]).unwrap();
    (site, barrier)
}

fn holds_all(barrier: &Barrier<Unsealed>) {
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "git").unwrap(),
        "secret"
    );
    barrier.audit_mac_key().mac(b"value").unwrap();
}

#[test]
fn the_new_quorum_opens_and_the_old_one_is_refused_by_name() {
    for rotate_root in [false, true] {
        let (site, mut barrier) = with_vault();
        let mac = barrier.audit_mac_key().mac(b"value").unwrap();
        let (switch, new) = switch(&site, &barrier, rotate_root);
        barrier.rekey(&switch, line(), 0).unwrap();
        holds_all(&barrier);
        let outbox = barrier.system().outbox().unwrap();
        assert_eq!(outbox[0].1, b"rekeyed", "the line came with the switch");
        assert_eq!(barrier.config().generation().get(), 2);
        // A vault that is made now hangs under the root key of now.
        barrier.create_vault("later", None).unwrap();

        let sealed = site.seal(barrier);
        let plan = sealed.unseal_plan();
        assert_eq!((plan.generation().get(), plan.threshold().needed()), (2, 2));
        let Unseal::Rejected(sealed, refusal) = sealed.submit(site.share(0), plan.digest(), 0)
        else {
            panic!("an old share was taken")
        };
        assert!(matches!(refusal, ShareRefusal::Superseded { .. }));
        let barrier = opened(submit_all(sealed, &new));
        holds_all(&barrier);
        assert_eq!(barrier.audit_mac_key().mac(b"value").unwrap(), mac);
        assert_eq!(barrier.vaults().len(), 3);
        drop(site.seal(barrier));
        holds_all(&open_with(&site, &new));
    }
}

#[test]
fn a_rekey_that_is_not_switched_leaves_the_old_quorum_and_names_the_new_shares() {
    let (site, barrier) = with_vault();
    let (_, new) = switch(&site, &barrier, false);
    let sealed = site.seal(barrier);
    let plan = sealed.unseal_plan().digest();
    let Unseal::Rejected(sealed, refusal) = sealed.submit(again(&new[0]), plan, 0) else {
        panic!("a share of an abandoned rekey was taken")
    };
    assert!(matches!(refusal, ShareRefusal::Newer { .. }));
    assert!(refusal.to_string().contains("never completed"), "{refusal}");
    let (barrier, _) = site.unseal_from(sealed);
    holds_all(&barrier);
}

#[test]
fn a_new_root_key_opens_everything_and_the_old_wraps_nothing() {
    let (site, mut barrier) = with_vault();
    barrier.settle().unwrap();
    let sealed = site.seal(barrier);
    let control = site.path.join(CONTROL);
    let before = [rows(&control, "config"), rows(&control, "vault")];
    let (open, _) = site.unseal_from(sealed);
    barrier = open;
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consented = barrier.consent(&shares).unwrap();
    barrier.rotate_root(&consented, line(), 0).unwrap();
    holds_all(&barrier);
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert_eq!(report.verified, 2);
    holds_all(&barrier);
    drop(site.seal(barrier));
    let after = [rows(&control, "config"), rows(&control, "vault")];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(after) {
            let is_config = before.0 == b"config";
            assert_eq!(before.1 == after.1, is_config, "{:?}", before.0);
        }
    }
    // The old wrap of the root key put back: its root key is none of this store any more.
    edit(&control, |conn| {
        let old = &before[0].iter().find(|row| row.0 == b"root").unwrap().1;
        let put = "UPDATE config SET value = ?1 WHERE key = CAST('root' AS BLOB)";
        assert_eq!(conn.execute(put, [old]).unwrap(), 1);
    });
    let Unseal::Failed(_, error) = site.submit(site.open()) else {
        panic!("the old root key opened something")
    };
    assert!(matches!(error, UnsealError::System(_)), "{error}");
}

#[test]
fn no_replaced_wrap_is_in_any_file() {
    for rotate_root in [false, true] {
        let (site, barrier) = with_vault();
        drop(site.seal(barrier));
        let control = site.path.join(CONTROL);
        let replaced =
            |row: &(Vec<u8>, Vec<u8>)| row.0 == b"root" || rotate_root && row.0 == b"audit";
        let mut wraps: Vec<Vec<u8>> = rows(&control, "config")
            .into_iter()
            .filter(replaced)
            .map(|row| row.1)
            .collect();
        if rotate_root {
            wraps.extend(rows(&control, "vault").into_iter().map(|row| row.1));
        }
        let (mut barrier, _) = site.unseal();
        // The first commit after an unseal truncates the log in any case.
        barrier.system().commit(vec![put("first", "x")]).unwrap();
        let (switch, _) = switch(&site, &barrier, rotate_root);
        barrier.rekey(&switch, line(), 0).unwrap();
        // The store is open: its log is there too.
        for file in fs::read_dir(&site.path).unwrap().map(Result::unwrap) {
            if !file.file_type().unwrap().is_file() {
                continue;
            }
            let bytes = fs::read(file.path()).unwrap();
            for wrap in &wraps {
                let part = &wrap[wrap.len() - 32..];
                let found = bytes.windows(part.len()).any(|window| window == part);
                assert!(!found, "{:?}", file.file_name());
            }
        }
    }
}

/// Keeps control.db from being read `times` after the next commit has failed with `how`.
fn blind_after(site: &Site, reads_before: bool, how: Fail, times: u32) {
    let faults = site.faults.clone();
    let blind = move || (0..times).for_each(|_| faults.blind_next(CONTROL));
    match how {
        Fail::Made => site.faults.once_made(CONTROL, blind),
        Fail::Lost if !reads_before => blind(),
        Fail::Lost | Fail::Put => {}
    }
}

#[test]
fn a_disk_that_fails_at_the_switch_leaves_the_old_quorum_or_the_new_one() {
    for rotate_root in [false, true] {
        for how in [Fail::Put, Fail::Lost, Fail::Made] {
            for blind in [false, true] {
                let (site, mut barrier) = with_vault();
                let (switch, new) = switch(&site, &barrier, rotate_root);
                site.faults.fail_next(CONTROL, how);
                if blind {
                    blind_after(&site, rotate_root, how, 1);
                }
                let made = how == Fail::Made;
                let result = barrier.rekey(&switch, line(), 0);
                assert_eq!(result.is_ok(), made, "blind {blind}: {result:?}");
                holds_all(&barrier);
                let generation = if made { 2 } else { 1 };
                assert_eq!(barrier.config().generation().get(), generation);
                let sealed = site.seal(barrier);
                assert_eq!(sealed.unseal_plan().generation().get(), generation);
                let shares = if made {
                    new
                } else {
                    vec![site.share(0), site.share(2)]
                };
                holds_all(&opened(submit_all(sealed, &shares)));
            }
        }
    }
}

#[test]
fn a_switch_in_doubt_at_seal_is_settled_by_the_file() {
    let cases = [(Fail::Lost, false), (Fail::Made, false), (Fail::Made, true)];
    for (how, rotate_root) in cases {
        let (site, mut barrier) = with_vault();
        let (switch, new) = switch(&site, &barrier, rotate_root);
        site.faults.fail_next(CONTROL, how);
        blind_after(&site, rotate_root, how, 2);
        let result = barrier.rekey(&switch, line(), 0);
        assert!(matches!(result, Err(SwitchError::InDoubt)), "{result:?}");
        // Nothing is wrapped under a root key that may be none any more.
        barrier.create_vault("later", None).unwrap_err();
        let sealed = site.seal(barrier);
        site.faults.blind_next(CONTROL);
        let unknown = sealed.unseal_plan().digest();
        let Unseal::Failed(sealed, error) = sealed.submit(site.share(0), unknown, 0) else {
            panic!("a share was taken for a config that may be none any more")
        };
        assert!(matches!(error, UnsealError::Config(_)), "{error}");
        let mut sealed = sealed;
        sealed.settle().unwrap();
        let generation = if how == Fail::Made { 2 } else { 1 };
        assert_eq!(sealed.unseal_plan().generation().get(), generation);
        let shares = if how == Fail::Made {
            new
        } else {
            vec![site.share(0), site.share(2)]
        };
        holds_all(&opened(submit_all(sealed, &shares)));
    }
}

#[test]
fn a_vault_whose_keys_do_not_open_keeps_its_root_key() {
    let (site, barrier) = with_vault();
    let vault = barrier.vault("prod").unwrap();
    let (name, id) = (file_name(&vault), vault.id());
    drop((vault, site.seal(barrier)));
    let control = site.path.join(CONTROL);
    edit(&control, |conn| {
        let cut = "UPDATE vault SET value = substr(value, 1, 40) WHERE key = ?1";
        assert_eq!(conn.execute(cut, [id.as_bytes()]).unwrap(), 1);
    });
    let (mut barrier, report) = site.unseal();
    assert_eq!(report.quarantined.len(), 1, "{name}");
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consented = barrier.consent(&shares).unwrap();
    // Known before a share is given for it.
    for refused in [
        barrier.may_rotate_root(),
        barrier.rotate_root(&consented, line(), 0),
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, SwitchError::Keys(found) if found == id),
            "{error}"
        );
    }
    // A rekey alone touches no vault.
    let (switch, new) = switch(&site, &barrier, false);
    barrier.rekey(&switch, line(), 0).unwrap();
    drop(site.seal(barrier));
    let Unseal::Opened(..) = submit_all(site.open(), &new) else {
        panic!("the new quorum opens what is left")
    };
}

#[test]
fn consent_is_asked_of_the_disk_and_of_the_keys_in_use() {
    let (site, mut barrier) = with_vault();
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let (other, other_barrier) = with_vault();
    let other_plan = Plan::rotate_root(other_barrier.config()).unwrap();
    let (_, foreign) = consented(&other, &other_barrier, &other_plan);
    assert!(matches!(
        barrier.consent(&foreign),
        Err(SwitchError::OtherConfig)
    ));
    // A wrap that was put back while the store is open.
    let stale = barrier.consent(&shares).unwrap();
    barrier.rotate_root(&stale, line(), 0).unwrap();
    barrier.consent(&shares).unwrap();
    let (switched, _) = switch(&site, &barrier, false);
    barrier.rekey(&switched, line(), 0).unwrap();
    assert!(matches!(
        barrier.rotate_root(&stale, line(), 0),
        Err(SwitchError::OtherConfig)
    ));
    assert!(matches!(
        barrier.consent(&shares),
        Err(SwitchError::OtherConfig)
    ));
    assert!(matches!(
        barrier.rekey(&switched, line(), 0),
        Err(SwitchError::OtherConfig)
    ));
}

#[test]
fn a_new_root_key_waits_for_a_vault_that_is_on_its_way() {
    let (site, mut barrier) = with_vault();
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consented = barrier.consent(&shares).unwrap();
    let mut rotation = barrier.rotate("prod").unwrap();
    rotation.copy(|_| ()).unwrap();
    // Its keys are wrapped under the root key of now, and control.db does not know them yet.
    for refused in [
        barrier.may_rotate_root(),
        barrier.rotate_root(&consented, line(), 0),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, SwitchError::Busy), "{error}");
    }
    drop(rotation.commit(None).unwrap());
    // The mark of the retired vault is no key.
    barrier.may_rotate_root().unwrap();
    barrier.rotate_root(&consented, line(), 0).unwrap();
    holds_all(&barrier);
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    holds_all(&barrier);
}

#[test]
fn every_epoch_and_the_system_vault_hang_under_the_new_root_key() {
    let (site, mut barrier) = with_vault();
    barrier.begin_epoch("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("ci", "newer")]).unwrap();
    barrier.reseal_system(None).unwrap();
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consented = barrier.consent(&shares).unwrap();
    barrier.rotate_root(&consented, line(), 0).unwrap();
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    holds_all(&barrier);
    assert_eq!(
        read(&barrier.vault("prod").unwrap(), "ci").unwrap(),
        "newer"
    );
}

#[test]
fn keys_that_were_changed_after_they_were_wrapped_anew_are_not_replaced() {
    let (site, barrier) = with_vault();
    let new = rewrap(barrier.live()).unwrap();
    barrier.begin_epoch("prod", None).unwrap();
    let done = commit(barrier.live(), new.puts, Some(new.from), line(), 0, b"");
    let error = done.unwrap_err();
    assert!(
        matches!(error, SwitchError::Vault(VaultError::Storage(_))),
        "{error}"
    );
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    holds_all(&barrier);
}

#[test]
fn an_epoch_that_a_slow_disk_makes_late_hangs_under_the_root_key_of_then() {
    let mut site = Site::new();
    site.options.deadline = Duration::from_secs(1);
    let (mut barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    let line_of = Op::Outbox(b"l".to_vec());
    vault.commit(vec![put("git", "secret"), line_of]).unwrap();
    vault.outbox_done(1).unwrap();
    barrier.settle().unwrap();
    // The job of the rotation writes to the vault's file first, and its caller has gone when that answers.
    let file = file_name(&vault);
    site.faults.hang(&file);
    let late = barrier.begin_epoch("prod", None);
    assert!(matches!(late, Err(VaultError::OutcomeUnknown)), "{late:?}");
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, shares) = consented(&site, &barrier, &plan);
    let consented = barrier.consent(&shares).unwrap();
    let faults = site.faults.clone();
    site.faults.once_made(CONTROL, move || {
        faults.release(&file);
        // The new root key is in control.db and not in memory yet: time enough to wrap under the old one. Where the job
        // waits, as it has to, there is nothing else to wait for.
        std::thread::sleep(Duration::from_millis(100));
    });
    barrier.rotate_root(&consented, line(), 0).unwrap();
    // Behind the late job in the vault's lane.
    while let Err(VaultError::Unavailable) = vault.run(|disk| disk.ready()) {
        std::thread::yield_now();
    }
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    assert_eq!(read(&vault, "git").unwrap(), "secret");
}
