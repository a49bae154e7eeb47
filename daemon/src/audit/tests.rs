//! The log across openings, crashes and full disks. Checkpoints go into a store in memory.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::sync::{Arc, Mutex};

use mcpist_core::audit::{AuditKey, Report, Verifier};
use mcpist_secret::Secret;

use super::*;

/// The checkpoint record, shared by the openings of one test.
#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl CheckpointStore for Memory {
    fn load(&self) -> Result<Secret, String> {
        Secret::copy_of(&self.0.lock().unwrap()).map_err(|e| e.to_string())
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        *self.0.lock().unwrap() = payload.expose().to_vec();
        Ok(())
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Memory,
    first: AuditKey,
}

impl Fixture {
    fn new() -> Fixture {
        let key = FirstKey::generate().unwrap();
        let first = key.public();
        let Op::Put { payload, .. } = key.into_op() else {
            panic!("a key is put")
        };
        let store = Memory(Arc::new(Mutex::new(payload.expose().to_vec())));
        Fixture {
            folder: tempfile::tempdir().unwrap(),
            store,
            first,
        }
    }

    fn open(&self) -> Result<Audit, OpenError> {
        let audit = Audit::closed();
        audit.open(self.folder.path(), Box::new(self.store.clone()), 1 << 20)?;
        Ok(audit)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("audit-00000000.jsonl")
    }

    fn verify(&self) -> Report {
        let mut verifier = Verifier::new(self.first);
        verifier.feed(&std::fs::read(self.file()).unwrap());
        verifier.finish()
    }
}

use mcpist_sealer::Op;

const STOP: Event<'_> = Event::Stop { reason: "a test" };

#[test]
fn a_closed_log_takes_nothing() {
    assert_eq!(Audit::closed().append(&STOP), Err(AuditError::Closed));
}

#[test]
fn a_log_that_was_closed_goes_on_and_verifies_from_its_first_key() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let seq = audit.append(&STOP).unwrap();
    audit.synced_blocking(seq).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    assert_eq!(audit.append(&STOP), Err(AuditError::Closed));

    let audit = fixture.open().unwrap();
    assert!(audit.append(&STOP).unwrap() > seq);
    assert!(audit.close(Duration::from_secs(30)));
    let report = fixture.verify();
    assert_eq!(report.problem, None);
    assert_eq!((report.checkpoints, report.unsigned_tail), (2, 0));
}

#[test]
fn a_torn_end_is_cut_and_recorded() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    let whole = std::fs::read(fixture.file()).unwrap();
    std::fs::write(fixture.file(), [&whole[..], b"{\"seq\":9,\"time"].concat()).unwrap();

    let audit = fixture.open().unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    let report = fixture.verify();
    assert_eq!((report.problem, report.recovered), (None, 1));
}

#[test]
fn signed_lines_that_are_missing_or_changed_keep_the_log_closed() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    let whole = std::fs::read(fixture.file()).unwrap();

    let line = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    std::fs::write(fixture.file(), &whole[..line]).unwrap();
    assert!(matches!(fixture.open(), Err(OpenError::Behind)));
    let mut changed = whole.clone();
    changed[line + 10] ^= 1;
    std::fs::write(fixture.file(), changed).unwrap();
    assert!(matches!(fixture.open(), Err(OpenError::Damaged { .. })));
    std::fs::remove_file(fixture.file()).unwrap();
    assert!(matches!(fixture.open(), Err(OpenError::Behind)));
}

#[test]
fn a_checkpoint_that_was_stored_and_not_written_is_appended() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    let whole = std::fs::read(fixture.file()).unwrap();
    // The checkpoint's line is the last one; the store has its bytes.
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    std::fs::write(fixture.file(), &whole[..last]).unwrap();
    let audit = fixture.open().unwrap();
    assert_eq!(audit.head().unwrap().checkpoint, 1);
    assert!(audit.close(Duration::from_secs(30)));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn a_line_that_the_disk_refuses_leaves_the_chain_as_it_was() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let before = audit.head().unwrap();
    let good = {
        // A descriptor that cannot be written stands for a disk that refuses.
        let shared = audit.shared.load();
        let mut tail = shared.tail();
        let writer = tail.writer.as_mut().unwrap();
        std::mem::replace(
            &mut writer.file,
            Arc::new(File::open(fixture.file()).unwrap()),
        )
    };
    assert!(matches!(audit.append(&STOP), Err(AuditError::Write(_))));
    assert_eq!(audit.head().unwrap(), before);
    {
        let shared = audit.shared.load();
        let mut tail = shared.tail();
        let writer = tail.writer.as_mut().unwrap();
        (writer.file, writer.failed) = (good, false);
    }
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    assert_eq!(fixture.verify().problem, None);
}
