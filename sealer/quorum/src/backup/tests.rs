use proptest::prelude::*;

use super::*;
use crate::fixtures::{key, parts, three_of_five};
use crate::split::split;
use crate::vectors::{BACKUP_HEX, BACKUP_NAME_HEX};
use crate::{Generation, SetId};

/// The header of the vectors: two of two, everything fixed.
fn header() -> BackupHeader {
    let config = hex::decode(crate::vectors::SEAL_CONFIG_HEX).unwrap();
    BackupHeader {
        id: [0x66; 16],
        config: SealConfig::from_bytes(&config).unwrap(),
        root: vec![0x77; 4],
        incarnation: Incarnation {
            counter: 1,
            id: [0x88; 16],
            parent: [0; 16],
        },
        generation: 9,
        created: 1_790_000_000,
    }
}

const ITEMS: [BackupItem<'static>; 11] = [
    BackupItem::Vault {
        id: [1; 16],
        name: "main",
    },
    BackupItem::Row {
        table: 0,
        key: b"key",
        value: b"value",
    },
    BackupItem::Gone {
        table: 0,
        key: b"old",
    },
    BackupItem::EndOfVault { records: 1 },
    BackupItem::LeftOut {
        id: [2; 16],
        name: "away",
        reason: "its disk hangs",
    },
    BackupItem::Vault {
        id: [3; 16],
        name: "own",
    },
    BackupItem::EndOfOwn {
        records: 0,
        entry: b"entry",
    },
    BackupItem::File {
        path: "registries/ab/manifest",
        length: 3,
    },
    BackupItem::Piece(b"abc"),
    BackupItem::Piece(b""),
    BackupItem::Counts {
        vaults: 2,
        left_out: 1,
        records: 1,
        files: 1,
    },
];

/// A backup with one chunk for each of `chunks`.
fn written(header: BackupHeader, root: &Key, chunks: &[&[BackupItem<'_>]]) -> Vec<u8> {
    let (mut writer, mut file) = BackupWriter::new(header);
    for items in chunks {
        for item in *items {
            assert!(!writer.push(item).unwrap());
        }
        file.extend(writer.seal(root).unwrap());
    }
    file.extend(writer.finish(root).unwrap().0);
    file
}

fn small() -> Vec<u8> {
    written(header(), &key(7), &[&ITEMS[..2], &ITEMS[2..7], &ITEMS[7..]])
}

/// Reads a whole file as every reader has to; the opened chunks and the end.
fn read(file: &[u8], root: &Key) -> Result<(Vec<Vec<u8>>, BackupEnd), BackupError> {
    let (mut scan, mut at) = (BackupScan::default(), 0);
    let (mut header, mut chunks) = (None, Vec::new());
    loop {
        let given = &file[at..file.len().min(at + scan.wants())];
        at += given.len();
        match scan.take(given)? {
            None => {}
            Some(BackupPart::Header(found)) => header = Some(found),
            Some(BackupPart::Chunk(number)) => {
                let mut chunk = given.to_vec();
                open_chunk(header.as_ref().unwrap(), root, number, &mut chunk)?;
                for item in BackupItems::of(&chunk) {
                    item?;
                }
                chunks.push(chunk);
            }
            Some(BackupPart::End(end)) => {
                end.check(header.as_ref().unwrap(), root)?;
                assert_eq!(scan.wants(), 0);
                if at != file.len() {
                    return Err(BackupError::Damaged("behind its end"));
                }
                return Ok((chunks, end));
            }
        }
    }
}

#[test]
fn the_example_in_hex_reads_back() {
    let file = small();
    assert_eq!(hex::encode(&file), BACKUP_HEX);
    let (chunks, end) = read(&file, &key(7)).unwrap();
    let items = chunks
        .iter()
        .flat_map(|chunk| BackupItems::of(chunk).map(Result::unwrap));
    assert!(items.eq(ITEMS));
    assert_eq!((end.chunks, chunks.len()), (3, 3));
    assert_eq!(hex::encode(end.name()), BACKUP_NAME_HEX);
}

#[test]
fn a_file_that_was_cut_or_grew_is_refused() {
    let file = small();
    for len in 0..file.len() {
        assert!(read(&file[..len], &key(7)).is_err(), "{len}");
    }
    assert!(read(&[file.as_slice(), &[0]].concat(), &key(7)).is_err());
}

#[test]
fn every_byte_that_was_changed_is_found_without_a_key() {
    let file = small();
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let (mut scan, mut read) = (BackupScan::default(), 0);
        let found = loop {
            let given = &bad[read..bad.len().min(read + scan.wants())];
            read += given.len();
            match scan.take(given) {
                Err(_) => break true,
                Ok(Some(BackupPart::End(_))) => break false,
                Ok(_) => {}
            }
        };
        // The last 32 bytes are the MAC, which nobody without the key can judge.
        assert_eq!(found, at < file.len() - 32, "{at}");
        assert!(self::read(&bad, &key(7)).is_err(), "{at}");
    }
}

/// The frames of a file: header, chunks with their lengths, end.
fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut scan, mut at, mut start) = (BackupScan::default(), 0, 0);
    let mut frames = Vec::new();
    loop {
        at += scan.wants();
        if scan.take(&file[at - scan.wants()..at]).unwrap().is_some() {
            frames.push(file[start..at].to_vec());
            start = at;
        }
        if scan.wants() == 0 {
            return frames;
        }
    }
}

#[test]
fn a_chunk_opens_under_its_own_number_and_header_alone() {
    let root = key(7);
    let parts = frames(&small());
    let (header, first) = (header(), parts[1][4..].to_vec());
    open_chunk(&header, &root, 0, &mut first.clone()).unwrap();
    assert!(open_chunk(&header, &root, 1, &mut first.clone()).is_err());
    assert!(open_chunk(&header, &key(8), 0, &mut first.clone()).is_err());
    for other in [
        BackupHeader {
            id: [0x67; 16],
            ..header.clone()
        },
        BackupHeader {
            generation: 10,
            ..header.clone()
        },
    ] {
        assert!(open_chunk(&other, &root, 0, &mut first.clone()).is_err());
    }
}

#[test]
fn an_end_of_another_backup_is_refused_whatever_its_digest_says() {
    let root = key(7);
    let file = small();
    let end = read(&file, &root).unwrap().1;
    end.check(&header(), &root).unwrap();
    assert!(end.check(&header(), &key(8)).is_err());
    let other = BackupHeader {
        id: [0x67; 16],
        ..header()
    };
    assert!(end.check(&other, &root).is_err());
}

#[test]
fn swapped_doubled_and_left_out_chunks_are_refused() {
    let root = key(7);
    let parts = frames(&small());
    let with = |order: &[usize]| {
        let file: Vec<u8> = order.iter().flat_map(|n| parts[*n].clone()).collect();
        read(&file, &root).is_err()
    };
    assert!(!with(&[0, 1, 2, 3, 4]));
    for order in [
        &[0, 2, 1, 3, 4][..],
        &[0, 1, 1, 2, 3, 4],
        &[0, 1, 3, 4],
        &[0, 4],
    ] {
        assert!(with(order), "{order:?}");
    }
}

#[test]
fn lengths_beyond_the_bounds_are_refused_before_they_are_read() {
    let file = small();
    let chunk = frames(&file)[0].len();
    for (at, length) in [(10, u32::MAX), (10, 0), (chunk, 16), (chunk, (1 << 20) + 1)] {
        let mut bad = file.clone();
        bad[at..at + 4].copy_from_slice(&length.to_be_bytes());
        assert!(read(&bad, &key(7)).is_err(), "{at} {length}");
    }
    let (mut writer, _) = BackupWriter::new(header());
    let large = vec![0; MAX_CHUNK - FILL];
    assert!(writer.push(&BackupItem::Piece(&large)).is_err());
    assert!(writer.push(&BackupItem::Piece(&large[..FILL])).unwrap());
}

#[test]
fn a_header_reads_back_with_a_config_of_many_holders() {
    let shares = split(
        &key(1),
        three_of_five(),
        SetId::from_bytes([2; 16]),
        Generation::FIRST,
    )
    .unwrap();
    let config = SealConfig::new(parts(three_of_five(), &shares)).unwrap();
    let header = BackupHeader::new(config, vec![1; 93], header().incarnation, 1, 2).unwrap();
    assert_eq!(
        BackupHeader::from_bytes(&header.to_bytes()).unwrap(),
        header
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_items_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for item in BackupItems::of(&bytes) {
            if item.is_err() {
                break;
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_backup(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes, &key(7)).is_err());
    }
}
