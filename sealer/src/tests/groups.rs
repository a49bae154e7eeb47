//! Batches of several writers in one transaction: what each is told, and that a fault leaves all of them or none.

use std::sync::mpsc::channel;
use std::thread;

use super::support::{Fail, Site, delete, file_name, key, put, put_if, read};
use crate::batch::{Committed, Expect, Op};
use crate::error::VaultError;
use crate::vault::OpenVault;
use crate::{Barrier, Unsealed};

const CONTROL: &str = "control.db";

/// Has writers come with one batch each, in this order, while the vault is busy; `meanwhile` happens before it is free.
pub(super) fn together(
    vault: &OpenVault,
    batches: Vec<Vec<Op>>,
    meanwhile: impl FnOnce(),
) -> Vec<Result<Committed, VaultError>> {
    let waiting = &vault.0.waiting;
    let (let_go, go) = channel::<()>();
    let (runs, running) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let job = move |_: &mut crate::disk::Disk| {
                runs.send(()).unwrap();
                go.recv().unwrap();
                Ok(())
            };
            vault.run(job).unwrap();
        });
        running.recv().unwrap();
        let writer = |batch| {
            let before = waiting.len();
            let writer = scope.spawn(move || vault.commit(batch));
            while waiting.len() == before && !writer.is_finished() {
                thread::yield_now();
            }
            writer
        };
        let writers: Vec<_> = batches.into_iter().map(writer).collect();
        meanwhile();
        let_go.send(()).unwrap();
        let ended = writers.into_iter().map(|writer| writer.join().unwrap());
        ended.collect()
    })
}

fn site() -> (Site, Barrier<Unsealed>, OpenVault) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let vault = barrier.vault("prod").unwrap();
    vault.commit(vec![put("git", "old")]).unwrap();
    barrier.settle().unwrap();
    (site, barrier, vault)
}

fn reopened(site: &Site, barrier: Barrier<Unsealed>) -> (Barrier<Unsealed>, OpenVault) {
    let (barrier, report) = site.unseal_from(site.seal(barrier));
    assert!(report.quarantined.is_empty(), "{report:?}");
    let vault = barrier.vault("prod").unwrap();
    (barrier, vault)
}

#[test]
fn writers_that_wait_for_one_vault_share_its_transaction_and_the_announcement() {
    const WRITERS: u64 = 20;
    let (site, barrier, vault) = site();
    let file = file_name(&vault);
    let count = || (site.faults.commits(&file), site.faults.commits(CONTROL));
    let (before, generation) = (count(), vault.status().generation);
    let batch = |n| vec![put(&format!("n{n}"), "of-secrets")];
    let outcomes = together(&vault, (0..WRITERS).map(batch).collect(), || {});
    assert_eq!(count(), (before.0 + 1, before.1 + 1));
    for (outcome, n) in outcomes.into_iter().zip(1..) {
        let expected = Committed {
            versions: vec![1],
            generation: generation + n,
        };
        assert_eq!(outcome.unwrap(), expected);
    }
    let (_barrier, vault) = reopened(&site, barrier);
    assert_eq!(vault.status().records, WRITERS + 1);
    assert_eq!(vault.status().generation, generation + WRITERS);
}

#[test]
fn a_batch_is_judged_after_those_before_it_and_its_refusal_costs_the_others_nothing() {
    for system in [false, true] {
        let (site, barrier, prod) = site();
        let vault = if system { barrier.system() } else { prod };
        vault
            .commit(vec![put("key", "old"), Op::Outbox(b"first".to_vec())])
            .unwrap();
        barrier.settle().unwrap();
        let (first, _) = vault.outbox().unwrap().pop().unwrap();
        let file = site.file(&vault).file_name().unwrap().to_owned();
        let commits = || site.faults.commits(file.to_str().unwrap());
        let before = (commits(), vault.status().generation);
        let line = |text: &str| Op::Outbox(text.as_bytes().to_vec());
        let batches = vec![
            vec![put_if("key", "a", Expect::Version(1)), line("a")],
            vec![line("lost"), put_if("key", "b", Expect::Version(1))],
            vec![delete("key"), put("more", "c"), line("c")],
            vec![put("lost", "d"), delete("key")],
            vec![put_if("key", "e", Expect::Absent)],
            vec![put("lost", "f"), put("lost", "f")],
            vec![put("key", "g"), line("g")],
        ];
        let outcomes = together(&vault, batches, || {});
        assert_eq!(commits(), before.0 + 1);
        let made = |n: usize| outcomes[n].as_ref().unwrap().versions.clone();
        assert_eq!((made(0), made(2)), (vec![2], vec![2, 3]));
        assert_eq!((made(4), made(6)), (vec![3], vec![4]));
        let conflict = outcomes[1].as_ref().unwrap_err();
        assert!(
            matches!(conflict, VaultError::Conflict { found: 2, .. }),
            "{conflict}"
        );
        assert!(matches!(outcomes[3], Err(VaultError::NotFound(_))));
        assert!(matches!(outcomes[5], Err(VaultError::Batch { .. })));
        assert_eq!(vault.status().generation, before.1 + 4);
        let look = |vault: &OpenVault| {
            assert_eq!(read(vault, "key").unwrap(), "g");
            assert_eq!(read(vault, "more").unwrap(), "c");
            assert!(matches!(read(vault, "lost"), Err(VaultError::NotFound(_))));
            let lines = vault.outbox().unwrap();
            let expected = [b"first".as_slice(), b"a", b"c", b"g"];
            let expected = (first..).zip(expected.map(<[u8]>::to_vec));
            assert_eq!(lines, expected.collect::<Vec<_>>());
        };
        look(&vault);
        let (barrier, prod) = reopened(&site, barrier);
        look(&if system { barrier.system() } else { prod });
    }
}

#[test]
fn batches_that_are_all_refused_touch_no_disk() {
    let (site, barrier, vault) = site();
    let file = file_name(&vault);
    let count = || (site.faults.commits(&file), site.faults.commits(CONTROL));
    let before = count();
    let batches = vec![
        vec![delete("none")],
        vec![put_if("git", "new", Expect::Absent)],
    ];
    let outcomes = together(&vault, batches, || {});
    assert!(matches!(outcomes[0], Err(VaultError::NotFound(_))));
    assert!(matches!(outcomes[1], Err(VaultError::Conflict { .. })));
    assert_eq!(count(), before);
    vault.commit(vec![put("git", "new")]).unwrap();
    let (_barrier, vault) = reopened(&site, barrier);
    assert_eq!(read(&vault, "git").unwrap(), "new");
}

#[test]
fn a_fault_leaves_the_whole_group_or_none_of_it_and_all_are_told_so() {
    for control in [false, true] {
        for how in [Fail::Put, Fail::Lost, Fail::Made] {
            failing(control, how, false);
        }
        for how in [Fail::Lost, Fail::Made] {
            failing(control, how, true);
        }
    }
}

/// `blind`: whether the file cannot be asked at once which head it has.
fn failing(control: bool, how: Fail, blind: bool) {
    let (site, barrier, vault) = site();
    let file = if control {
        CONTROL.to_owned()
    } else {
        file_name(&vault)
    };
    let batches = vec![
        vec![put("git", "new"), Op::Outbox(b"new".to_vec())],
        vec![put_if("git", "none", Expect::Absent)],
        vec![put("more", "new")],
        vec![delete("git")],
    ];
    let outcomes = together(&vault, batches, || {
        site.faults.fail_next(&file, how);
        if blind {
            site.faults.blind_next(&file);
        }
    });
    let made = how == Fail::Made && !(control && blind);
    let told = |error: &VaultError| match (blind, control) {
        (false, _) => matches!(error, VaultError::Full(_)),
        (true, true) => matches!(error, VaultError::Unavailable),
        (true, false) => matches!(error, VaultError::OutcomeUnknown),
    };
    if made && !blind {
        let conflict = outcomes[1].as_ref().unwrap_err();
        assert!(matches!(conflict, VaultError::Conflict { .. }));
        assert_eq!(outcomes.iter().filter(|one| one.is_ok()).count(), 3);
    } else {
        for outcome in &outcomes {
            assert!(told(outcome.as_ref().unwrap_err()), "{outcome:?}");
        }
    }
    let (_barrier, vault) = reopened(&site, barrier);
    let found = (read(&vault, "git").ok(), read(&vault, "more").ok());
    let lines = vault.outbox().unwrap().len();
    match made {
        true => assert_eq!((found, lines), ((None, Some("new".into())), 1)),
        false => assert_eq!((found, lines), ((Some("old".into()), None), 0)),
    }
}

#[test]
fn no_version_is_higher_than_the_number_of_commits() {
    let (_site, _barrier, vault) = site();
    let mut batches: Vec<_> = (0..9).map(|n| vec![put("git", &n.to_string())]).collect();
    batches.push(vec![delete("git")]);
    batches.push(vec![put("git", "newest")]);
    for outcome in together(&vault, batches, || {}) {
        let committed = outcome.unwrap();
        assert!(committed.versions[0] <= committed.generation);
    }
    assert_eq!(vault.meta(&key("git")).unwrap().version, 11);
    assert!(
        vault.status().generation >= 11,
        "what a repair begins above"
    );
}

#[test]
fn a_record_under_an_old_key_that_changes_twice_leaves_it_once() {
    let (site, barrier, vault) = site();
    vault
        .commit(vec![put("more", "old"), put("stays", "old")])
        .unwrap();
    barrier.begin_epoch("prod", Vec::new()).unwrap();
    assert_eq!(vault.status().old_records, 3);
    let batches = vec![
        vec![put("git", "new")],
        vec![put("git", "newer"), delete("more")],
        vec![put("more", "new")],
    ];
    for outcome in together(&vault, batches, || {}) {
        outcome.unwrap();
    }
    assert_eq!(vault.status().old_records, 1);
    let (_barrier, vault) = reopened(&site, barrier);
    assert_eq!(vault.status().old_records, 1);
    assert_eq!(read(&vault, "git").unwrap(), "newer");
}
