//! What a vault that is made in the middle of a backup is to it.

use super::*;
use crate::tests::own::with_own;

#[test]
fn a_vault_that_was_made_after_control_db_was_copied_is_none_of_the_backup() {
    let (_site, barrier, _) = with_own();
    let file = tempfile::tempfile().unwrap();
    let live = barrier.live();
    let root = live.system.run(|disk| {
        let mut tx = disk.rows.begin(Access::Read)?;
        Ok(tx.get(Table::Config, ROOT)?.unwrap_or_default())
    });
    let incarnation = barrier.point().unwrap().incarnation;
    let header = BackupHeader::new(barrier.config().clone(), root.unwrap(), incarnation, 1, 1);
    let (writer, begin) = BackupWriter::new(header.unwrap());
    let mut writing = Writing {
        live,
        file: &file,
        writer,
        report: BackupReport::default(),
        known: BTreeSet::new(),
        stuck: Stuck::default(),
    };
    writing.write(&begin).unwrap();
    let mut done = BTreeSet::new();
    barrier.each(&mut writing, &mut done, |_| true).unwrap();
    barrier.create_vault("between", None).unwrap();
    writing.vault(&live.system).unwrap();
    barrier.create_vault("later", None).unwrap();
    let known = std::mem::take(&mut writing.known);
    let is_known = |id: &VaultId| known.contains(id);
    barrier.each(&mut writing, &mut done, is_known).unwrap();
    assert_eq!(writing.finish().unwrap().0.vaults, 4);
    let stored = StoredBackup::read(file).unwrap();
    assert_eq!(barrier.verify_backup(&stored).unwrap().vaults, 4);
}
