//! Backups: the example is read as a restore reads one.

use mcpist_quorum::{BackupItem, BackupItems, BackupPart, BackupScan, open_chunk};

use super::{bytes, key, shows};

#[test]
fn a_backup_opens_under_its_root_key_and_holds_these_items() {
    let file = bytes("backup");
    let (mut scan, mut at) = (BackupScan::default(), 0);
    let (mut header, mut kinds) = (None, Vec::new());
    let end = loop {
        let part = &file[at..at + scan.wants()];
        at += part.len();
        match scan.take(part).unwrap() {
            None => {}
            Some(BackupPart::Header(found)) => header = Some(found),
            Some(BackupPart::Chunk(number)) => {
                let mut chunk = part.to_vec();
                open_chunk(header.as_ref().unwrap(), &key(7), number, &mut chunk).unwrap();
                kinds.extend(BackupItems::of(&chunk).map(|item| kind(&item.unwrap())));
            }
            Some(BackupPart::End(end)) => break end,
        }
    };
    assert_eq!(at, file.len());
    assert_eq!(kinds, [1, 2, 3, 4, 5, 1, 9, 6, 7, 7, 8]);
    let header = header.unwrap();
    end.check(&header, &key(7)).unwrap();
    assert_eq!((header.id(), header.generation()), (&[0x66; 16], 9));
    assert_eq!(
        (header.incarnation().counter, header.created()),
        (1, 1_790_000_000)
    );
    assert_eq!(header.config().to_bytes(), bytes("seal-config"));
    shows("backup-name", end.name());
}

fn kind(item: &BackupItem<'_>) -> u8 {
    match item {
        BackupItem::Vault { .. } => 1,
        BackupItem::Row { .. } => 2,
        BackupItem::Gone { .. } => 3,
        BackupItem::EndOfVault { .. } => 4,
        BackupItem::LeftOut { .. } => 5,
        BackupItem::File { .. } => 6,
        BackupItem::Piece(_) => 7,
        BackupItem::Counts { .. } => 8,
        BackupItem::EndOfOwn { .. } => 9,
    }
}
