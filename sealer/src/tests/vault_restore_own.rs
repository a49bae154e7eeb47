//! A vault with a quorum of its own out of a backup: in the place of a damaged file, under the quorum of today, and with the
//! renames cut off.

use std::fs;
use std::path::{Path, PathBuf};

use mcpist_quorum::{Plan, Share};

use super::backup::{back_up, target};
use super::own::{given, is_sealed, next, reads, unseal, with_own};
use super::rekey::consented;
use super::support::{Fail, Site, edit, put};
use crate::backup::{BackupFault, StoredBackup};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::Op;
use crate::commit::Extra;
use crate::error::{Health, VaultError};
use crate::ids::VaultId;
use crate::moves::Move;

const OPS: &str = "ops";

/// A vault whose file was changed since it was backed up, and was found out at its unseal.
fn damaged() -> (Site, Barrier<Unsealed>, Vec<Share>, StoredBackup, PathBuf) {
    let (site, barrier, shares) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("git", "newer")]).unwrap();
    let file = site.file(&vault);
    barrier.settle().unwrap();
    barrier.seal_own(OPS).unwrap();
    let spoil = "UPDATE record SET value = CAST(substr(value, 1, length(value) - 8) || zeroblob(8) AS BLOB)";
    edit(&file, |conn| conn.execute(spoil, [])).unwrap();
    let error = unseal(&barrier, &shares).unwrap_err().to_string();
    let health = barrier.vault(OPS).unwrap().health();
    assert!(matches!(health, Health::Quarantined(_)), "{error}");
    (site, barrier, shares, stored, file)
}

/// Makes the vault what the backup has of it: the id of the former file.
fn restored(
    barrier: &Barrier<Unsealed>,
    stored: &StoredBackup,
) -> Result<Option<VaultId>, VaultError> {
    let found = barrier.look_into_backup(stored, OPS, true).unwrap();
    assert!(found.is_own && found.records == 1, "{found:?}");
    let restore = barrier.restore_vault(stored, OPS, found.digest, true, 1);
    let restore = restore.unwrap();
    let kept = restore.kept();
    let done = restore.commit(vec![Op::Outbox(b"restored".to_vec())])?;
    assert_eq!(done.records, 1);
    Ok(kept)
}

/// Holds that its quorum opens what the backup had, now and after the next unseal of the store.
fn opens(site: &Site, barrier: Barrier<Unsealed>, shares: &[Share]) -> Barrier<Unsealed> {
    assert_eq!(barrier.vault(OPS).unwrap().health(), Health::Sealed);
    assert_eq!(unseal(&barrier, shares).unwrap(), 1);
    assert_eq!(reads(&barrier, OPS).unwrap(), "secret");
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("more", "x")]).unwrap();
    let left = barrier.remove_retired().unwrap();
    assert!(left.unknown.is_empty(), "{left:?}");
    let (barrier, _) = site.unseal_from(site.seal(barrier));
    assert_eq!(unseal(&barrier, shares).unwrap(), 2);
    assert_eq!(reads(&barrier, OPS).unwrap(), "secret");
    barrier.verify(OPS, |_| {}).unwrap();
    barrier
}

fn of(file: &Path, id: VaultId) -> PathBuf {
    file.with_file_name(format!("{id}.db"))
}

#[test]
fn a_quarantined_one_comes_back_sealed_and_its_file_stays() {
    let (site, mut barrier, shares, stored, file) = damaged();
    let before = fs::read(&file).unwrap();
    let kept = restored(&barrier, &stored).unwrap().unwrap();
    assert_eq!(fs::read(of(&file, kept)).unwrap(), before);
    let lines = barrier.system().outbox().unwrap();
    assert_eq!(lines.last().unwrap().1, b"restored");
    // A new root key has nothing to do with the former file's keys.
    let plan = Plan::rotate_root(barrier.config()).unwrap();
    let (_, given) = consented(&site, &barrier, &plan);
    let consent = barrier.consent(&given).unwrap();
    let line = vec![Op::Outbox(b"rotated".to_vec())];
    barrier.rotate_root(&consent, line, 0).unwrap();
    let barrier = opens(&site, barrier, &shares);
    barrier.discard(&kept.to_string(), Vec::new()).unwrap();
    assert!(!of(&file, kept).exists() && file.exists());
    let again = back_up(&site, &barrier, "again");
    assert!(barrier.verify_backup(&again).unwrap().carried.is_empty());
}

#[test]
fn the_former_file_put_back_is_seen() {
    let (site, barrier, shares) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("git", "newer")]).unwrap();
    let file = site.file(&vault);
    barrier.settle().unwrap();
    barrier.seal_own(OPS).unwrap();
    let kept = restored(&barrier, &stored).unwrap().unwrap();
    fs::rename(of(&file, kept), &file).unwrap();
    let error = unseal(&barrier, &shares).unwrap_err().to_string();
    assert!(error.contains("control.db was put back"), "{error}");
    // And comes back once more.
    restored(&barrier, &stored).unwrap();
    drop(opens(&site, barrier, &shares));
}

#[test]
fn a_quorum_that_was_replaced_since_the_backup_gets_nothing_back() {
    let (site, barrier, old) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    // The backup's records stand under a data key that is none any more.
    barrier.begin_epoch(OPS, None).unwrap();
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("git", "newer")]).unwrap();
    barrier.settle().unwrap();
    let (switch, new) = next(&barrier, &old);
    barrier.rekey_own(&switch, None).unwrap();
    barrier.seal_own(OPS).unwrap();
    restored(&barrier, &stored).unwrap();
    let own = barrier.vault(OPS).unwrap().own_quorum().unwrap();
    assert_eq!(&own.config, switch.config());
    let plan = Plan::unseal_vault(&own.config, OPS).unwrap();
    assert!(given(&barrier, plan, &old).is_err(), "they are superseded");
    drop(opens(&site, barrier, &new));
}

#[test]
fn an_open_one_is_not_replaced_and_what_moved_is_looked_at_again() {
    let (site, barrier, shares) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    for may_serve in [false, true] {
        let open = barrier.look_into_backup(&stored, OPS, may_serve);
        assert!(matches!(open, Err(BackupFault::Store(VaultError::OwnOpen(name))) if name == OPS));
    }
    barrier.seal_own(OPS).unwrap();
    // One that is only sealed is as good as ever.
    let unsaid = barrier.look_into_backup(&stored, OPS, false);
    assert!(matches!(unsaid, Err(BackupFault::Store(VaultError::Serves(name))) if name == OPS));
    let found = barrier.look_into_backup(&stored, OPS, true).unwrap();
    let unsaid = barrier.restore_vault(&stored, OPS, found.digest, false, 1);
    assert!(matches!(
        unsaid.err(),
        Some(BackupFault::Store(VaultError::Serves(_)))
    ));
    let restore = barrier.restore_vault(&stored, OPS, found.digest, true, 1);
    let restore = restore.unwrap();
    unseal(&barrier, &shares).unwrap();
    let open = restore.commit(Vec::new());
    assert!(matches!(open, Err(VaultError::OwnOpen(_))));
    let vault = barrier.vault(OPS).unwrap();
    vault.commit(vec![put("git", "newer")]).unwrap();
    barrier.seal_own(OPS).unwrap();
    let moved = barrier.restore_vault(&stored, OPS, found.digest, true, 1);
    let moved = moved.err().unwrap();
    assert!(matches!(moved, BackupFault::Store(VaultError::Moved(_))));
    let left = barrier.remove_retired().unwrap();
    assert!(left.unknown.is_empty(), "what was not made is gone");
    restored(&barrier, &stored).unwrap();
    drop(opens(&site, barrier, &shares));
}

#[test]
fn one_whose_file_is_gone_comes_back() {
    let (site, barrier, shares) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    let file = site.file(&barrier.vault(OPS).unwrap());
    barrier.seal_own(OPS).unwrap();
    fs::remove_file(&file).unwrap();
    unseal(&barrier, &shares).unwrap_err();
    barrier.look_into_backup(&stored, OPS, false).unwrap();
    let kept = restored(&barrier, &stored).unwrap().unwrap();
    let keys = barrier.system().run(move |disk| disk.key_row(kept));
    assert!(!keys.unwrap().is_empty(), "of the file that may come back");
    drop(opens(&site, barrier, &shares));
}

#[test]
fn a_restore_that_fails_at_its_commit_is_not_made_and_can_be_repeated() {
    for how in [Fail::Put, Fail::Lost] {
        let (site, barrier, shares, stored, file) = damaged();
        let before = fs::read(&file).unwrap();
        let found = barrier.look_into_backup(&stored, OPS, false).unwrap();
        let restore = barrier.restore_vault(&stored, OPS, found.digest, false, 1);
        let restore = restore.unwrap();
        site.faults.fail_next("control.db", how);
        assert!(restore.commit(vec![put("note", "x")]).is_err());
        assert_eq!(fs::read(&file).unwrap(), before);
        let health = barrier.vault(OPS).unwrap().health();
        assert!(matches!(health, Health::Quarantined(_)));
        restored(&barrier, &stored).unwrap();
        drop(opens(&site, barrier, &shares));
    }
}

#[test]
fn a_restore_of_which_nobody_knows_whether_it_was_made_is_an_error() {
    for how in [Fail::Lost, Fail::Made] {
        let (site, barrier, shares, stored, _) = damaged();
        let found = barrier.look_into_backup(&stored, OPS, false).unwrap();
        let restore = barrier.restore_vault(&stored, OPS, found.digest, false, 1);
        let restore = restore.unwrap();
        site.faults.fail_next("control.db", how);
        // Neither the commit nor who made it can read what became of it.
        let faults = site.faults.clone();
        let blind = move || (0..2).for_each(|_| faults.blind_next("control.db"));
        match how {
            Fail::Made => site.faults.once_made("control.db", blind),
            _ => site.faults.once_lost("control.db", blind),
        }
        let done = restore.commit(Vec::new());
        assert!(matches!(done.err(), Some(VaultError::OutcomeUnknown)));
        let (barrier, _) = site.unseal_from(site.seal(barrier));
        match how {
            Fail::Made => drop(opens(&site, barrier, &shares)),
            _ => {
                unseal(&barrier, &shares).unwrap_err();
                restored(&barrier, &stored).unwrap();
                is_sealed(&barrier);
                assert_eq!(unseal(&barrier, &shares).unwrap(), 1);
            }
        }
    }
}

#[test]
fn one_that_was_open_when_it_was_quarantined_is_tried_again_after_a_failed_commit() {
    let (site, barrier, shares) = with_own();
    let stored = back_up(&site, &barrier, "backup");
    let vault = barrier.vault(OPS).unwrap();
    barrier.settle().unwrap();
    vault.run(|disk| Ok(disk.rows.close()?)).unwrap();
    let spoil = "UPDATE record SET value = CAST(substr(value, 1, length(value) - 8) || zeroblob(8) AS BLOB)";
    edit(&site.file(&vault), |conn| conn.execute(spoil, [])).unwrap();
    assert!(barrier.verify(OPS, |_| {}).is_err());
    let health = barrier.vault(OPS).unwrap().health();
    assert!(matches!(health, Health::Quarantined(_)));
    let found = barrier.look_into_backup(&stored, OPS, false).unwrap();
    let built = barrier.restore_vault(&stored, OPS, found.digest, false, 1);
    let built = built.unwrap();
    site.faults.fail_next("control.db", Fail::Put);
    assert!(built.commit(Vec::new()).is_err());
    restored(&barrier, &stored).unwrap();
    drop(opens(&site, barrier, &shares));
}

/// Brings a restore back to where its commit had just been made, but for the former file: the id of the new one.
fn before_its_renames(barrier: &Barrier<Unsealed>, file: &Path, kept: VaultId) -> VaultId {
    let new = VaultId::random().unwrap();
    let id = barrier.vault(OPS).unwrap().id();
    let extra = Extra {
        puts: vec![Move { new, id, kept }.put()],
        ..Extra::default()
    };
    let system = barrier.system();
    system
        .run(move |disk| disk.commit_system(&[], 0, extra))
        .unwrap();
    fs::rename(file, of(file, new)).unwrap();
    new
}

#[test]
fn renames_that_were_cut_off_are_ended_by_whoever_comes_next() {
    for (was_set_aside, is_unsealed) in [(false, false), (true, false), (false, true), (true, true)]
    {
        let (site, barrier, shares, stored, file) = damaged();
        let before = fs::read(&file).unwrap();
        let kept = restored(&barrier, &stored).unwrap().unwrap();
        let new = before_its_renames(&barrier, &file, kept);
        if !was_set_aside {
            fs::rename(of(&file, kept), &file).unwrap();
        }
        let refused = barrier.discard(&new.to_string(), Vec::new());
        assert!(matches!(refused, Err(VaultError::NotKept(_))));
        let barrier = if is_unsealed {
            let (barrier, _) = site.unseal_from(site.seal(barrier));
            barrier.remove_retired().unwrap();
            assert!(file.exists());
            barrier
        } else {
            barrier
        };
        let barrier = opens(&site, barrier, &shares);
        assert!(!of(&file, new).exists());
        assert_eq!(fs::read(of(&file, kept)).unwrap(), before);
        drop(barrier);
    }
}

#[test]
fn one_whose_file_does_not_get_its_place_costs_no_other_vault_anything() {
    let (site, barrier, shares, stored, file) = damaged();
    let kept = restored(&barrier, &stored).unwrap().unwrap();
    before_its_renames(&barrier, &file, kept);
    fs::rename(of(&file, kept), &file).unwrap();
    // Somebody put this where the former file is to go.
    fs::create_dir(of(&file, kept)).unwrap();

    let refused = unseal(&barrier, &shares).unwrap_err().to_string();
    assert!(refused.contains("does not get its place"), "{refused}");
    barrier.remove_retired().unwrap();
    let (into, _) = target(&site, "second");
    let report = barrier.backup(barrier.config(), &into, &[]).unwrap();
    let left_out: Vec<_> = report
        .left_out
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(left_out, [OPS]);

    fs::remove_dir(of(&file, kept)).unwrap();
    drop(opens(&site, barrier, &shares));
}
