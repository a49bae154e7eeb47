//! The log across openings, crashes and full disks. Checkpoints go into a store in memory.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::sync::{Arc, Mutex};

use mcpist_core::audit::{AuditKey, Report, Verifier};
use mcpist_secret::Secret;

use super::*;

mod budget;
mod export;
mod forged;
mod trouble;
mod turn;

/// The checkpoint record, shared by the openings of one test, and all that it was before.
#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>, Arc<Mutex<Vec<Vec<u8>>>>);

impl CheckpointStore for Memory {
    fn load(&self) -> Result<Secret, String> {
        Secret::copy_of(&self.0.lock().unwrap()).map_err(|e| e.to_string())
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        let before = std::mem::replace(&mut *self.0.lock().unwrap(), payload.expose().to_vec());
        self.1.lock().unwrap().push(before);
        Ok(())
    }
}

pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    store: Memory,
    first: AuditKey,
    /// But for its size.
    rotation: Rotation,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let key = FirstKey::generate().unwrap();
        let first = key.public();
        let Op::Put { payload, .. } = key.into_op() else {
            panic!("a key is put")
        };
        let record = payload.expose().to_vec();
        let store = Memory(Arc::new(Mutex::new(record)), Arc::default());
        Fixture {
            folder: tempfile::tempdir().unwrap(),
            store,
            first,
            rotation: Rotation {
                bytes: 0,
                age: u64::MAX,
                keep: 2,
                remove: Remove::Exported,
            },
        }
    }

    fn open(&self) -> Result<Audit, OpenError> {
        self.open_with(1 << 20).map(|(audit, _)| audit)
    }

    /// With segments of `bytes`; gives the outbox rows that are in the log as well.
    fn open_with(&self, bytes: u64) -> Result<(Audit, Logged), OpenError> {
        let audit = Audit::closed();
        let logged = self.open_in(&audit, bytes)?;
        Ok((audit, logged))
    }

    pub(crate) fn open_in(&self, audit: &Audit, bytes: u64) -> Result<Logged, OpenError> {
        let rotation = self.rotation(bytes);
        audit.open(self.folder.path(), Box::new(self.store.clone()), rotation)
    }

    fn rotation(&self, bytes: u64) -> Rotation {
        Rotation {
            bytes,
            ..self.rotation
        }
    }

    /// The lines of the first segment that hold `fragment`, as they are now.
    pub(crate) fn lines(&self, fragment: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.file()).unwrap();
        let lines = text.lines().filter(|line| line.contains(fragment));
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn segment(&self, number: u64) -> std::path::PathBuf {
        segment::path_of(self.folder.path(), number)
    }

    fn file(&self) -> std::path::PathBuf {
        self.segment(0)
    }

    /// The record as it was before the last checkpoint.
    fn saved_before_last(&self) -> Vec<u8> {
        self.store.1.lock().unwrap().last().unwrap().clone()
    }

    /// Verifies all segments there are.
    fn verify(&self) -> Report {
        let mut verifier = Verifier::new(self.first);
        for number in 0.. {
            let Ok(bytes) = std::fs::read(self.segment(number)) else {
                break;
            };
            if number > 0 {
                verifier.next_file();
            }
            verifier.feed(&bytes);
        }
        verifier.finish()
    }
}

use mcpist_sealer::Op;

const STOP: Event<'_> = Event::Sealed {
    uid: None,
    reason: "a test",
};

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
fn a_crash_between_the_record_of_a_cut_and_the_cut_leaves_evidence_of_both() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    let whole = std::fs::read(fixture.file()).unwrap();
    let torn = [&whole[..], &[b'x'; 5000]].concat();
    std::fs::write(fixture.file(), &torn).unwrap();
    assert!(fixture.open().unwrap().close(Duration::from_secs(30)));
    let mended = std::fs::read(fixture.file()).unwrap();

    // The record was written over the torn end, and the process died before the rest of it was cut.
    let record = mended[whole.len()..]
        .iter()
        .position(|b| *b == b'\n')
        .unwrap()
        + 1;
    let between = whole.len() + record;
    let state = [&mended[..between], &torn[between..]].concat();
    std::fs::write(fixture.file(), state).unwrap();
    *fixture.store.0.lock().unwrap() = fixture.saved_before_last();
    assert!(fixture.open().unwrap().close(Duration::from_secs(30)));
    let report = fixture.verify();
    assert_eq!((report.problem, report.recovered), (None, 2));
}

#[test]
fn a_crash_while_the_first_segment_was_made_begins_it_again() {
    let fixture = Fixture::new();
    std::fs::write(fixture.file(), b"{\"seq\":1,\"ti").unwrap();
    assert!(fixture.open().unwrap().close(Duration::from_secs(30)));
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
    let named = |what: &str| {
        let error = fixture.open().err().unwrap();
        assert!(matches!(error, OpenError::Behind { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(what), "{said}");
    };
    std::fs::write(fixture.file(), &whole[..line]).unwrap();
    named(&format!("the newest file is {}", fixture.file().display()));
    let mut changed = whole.clone();
    changed[line + 10] ^= 1;
    std::fs::write(fixture.file(), changed).unwrap();
    assert!(matches!(fixture.open(), Err(OpenError::Damaged { .. })));
    std::fs::remove_file(fixture.file()).unwrap();
    named("there is no audit-*.jsonl in /");
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
    assert_eq!(audit.state().head.unwrap().checkpoint, 1);
    assert!(audit.close(Duration::from_secs(30)));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn a_line_that_the_disk_refuses_leaves_the_chain_as_it_was() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let before = audit.state().head.unwrap();
    let good = refuse(&fixture, &audit);
    assert!(matches!(audit.append(&STOP), Err(AuditError::Write(_))));
    assert_eq!(audit.state().head.unwrap(), before);
    accept(&audit, good);
    audit.append(&STOP).unwrap();
    assert!(audit.close(Duration::from_secs(30)));
    assert_eq!(fixture.verify().problem, None);
}

/// A descriptor that cannot be written stands for a disk that refuses. Gives the good one.
fn refuse(fixture: &Fixture, audit: &Audit) -> Arc<File> {
    let shared = audit.shared.load();
    let mut tail = shared.tail();
    let file = &mut tail.writer.as_mut().unwrap().file;
    std::mem::replace(file, Arc::new(File::open(fixture.file()).unwrap()))
}

/// From here on the disk has room for lines and takes none. Gives the file that takes them.
pub(crate) fn refuse_with_room(audit: &Audit) -> Arc<File> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let sealed = File::from(memfd_create(c"log", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
    fcntl(&sealed, seal).unwrap();
    let shared = audit.shared.load();
    let mut tail = shared.tail();
    let file = &mut tail.writer.as_mut().unwrap().file;
    std::mem::replace(file, Arc::new(sealed))
}

/// The disk takes lines again.
pub(crate) fn accept(audit: &Audit, good: Arc<File>) {
    let shared = audit.shared.load();
    let mut tail = shared.tail();
    let writer = tail.writer.as_mut().unwrap();
    (writer.file, writer.failed) = (good, false);
}
