//! Logs that were rewritten while the store was sealed, by somebody with the files, every public key and no seed.

use std::sync::mpsc;

use mcpist_core::audit::{Anchor, Chain, Checkpoint, Copied};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A log of two checkpoints, closed; the files, and the newest checkpoint.
fn signed_twice() -> (Fixture, Vec<u8>, Checkpoint) {
    let fixture = Fixture::new();
    for _ in 0..2 {
        let audit = fixture.open().unwrap();
        audit.append(&STOP).unwrap();
        audit.append(&STOP).unwrap();
        assert!(audit.close(LONG));
    }
    let record = fixture.store.load().unwrap();
    let newest = Checkpoint::from_bytes(&record.expose()[64..]).unwrap();
    let whole = std::fs::read(fixture.file()).unwrap();
    (fixture, whole, newest)
}

/// Where a log stands that claims to hold `newest` already.
fn claiming(newest: &Checkpoint) -> Anchor {
    let signed = newest.statement();
    Anchor {
        seq: signed.count + 1,
        head: signed.head,
        checkpoint: signed.number,
        covered: signed.count,
        checkpoint_digest: newest.digest(),
        key: signed.next_key,
        exported: 0,
        confirmed: 0,
    }
}

fn is_refused(fixture: &Fixture) -> bool {
    matches!(
        fixture.open(),
        Err(OpenError::Behind { .. } | OpenError::Damaged { .. })
    )
}

#[test]
fn lines_forged_in_place_of_signed_ones_keep_the_log_closed() {
    let (fixture, whole, newest) = signed_twice();
    let text = std::str::from_utf8(&whole).unwrap();
    let first = text.find("\"event\":\"checkpoint\"").unwrap();
    let end = first + text[first..].find('\n').unwrap() + 1;
    let mut verifier = Verifier::new(fixture.first);
    verifier.feed(&whole[..end]);
    let mut chain = Chain::new(verifier.finish().anchor);
    let mut forged = whole[..end].to_vec();
    while chain.anchor().seq < newest.statement().count + 3 {
        chain.append(now(), &STOP, &mut forged);
    }
    std::fs::write(fixture.file(), &forged).unwrap();
    assert!(is_refused(&fixture));
    assert_eq!(std::fs::read(fixture.file()).unwrap(), forged);
    // Torn as well, so that it looks like a crash.
    std::fs::write(fixture.file(), [&forged[..], b"{"].concat()).unwrap();
    assert!(is_refused(&fixture));
    std::fs::write(fixture.file(), whole).unwrap();
    assert!(fixture.open().unwrap().close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn a_lone_later_segment_is_not_believed_what_it_says() {
    let (fixture, _, newest) = signed_twice();
    let write = |number: u64, chain: &mut Chain| {
        let mut bytes = Vec::new();
        chain.append_segment(now(), number, &Copied::new(), &mut bytes);
        std::fs::write(fixture.segment(number), bytes).unwrap();
    };
    std::fs::remove_file(fixture.file()).unwrap();
    write(7, &mut Chain::new(claiming(&newest)));
    assert!(is_refused(&fixture));
    // Two, the second of which follows the first.
    let mut chain = Chain::new(claiming(&newest));
    write(6, &mut chain);
    write(7, &mut chain);
    assert!(is_refused(&fixture));
    // Nor where nothing was signed yet.
    let fresh = Fixture::new();
    let mut chain = Chain::new(Anchor::genesis(fresh.first));
    for number in [1, 2] {
        let mut bytes = Vec::new();
        chain.append_segment(now(), number, &Copied::new(), &mut bytes);
        std::fs::write(fresh.segment(number), bytes).unwrap();
    }
    assert!(is_refused(&fresh));
}

#[test]
fn a_pipe_in_place_of_a_segment_does_not_hold_up_the_opening() {
    let fixture = Fixture::new();
    nix::unistd::mkfifo(&fixture.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (told, opened) = mpsc::channel();
    std::thread::spawn(move || {
        let refused = fixture.open().err().map(|e| e.to_string());
        let _ = told.send(refused.unwrap_or_default());
    });
    let refused = opened.recv_timeout(LONG).unwrap();
    assert!(refused.ends_with("not a regular file"), "{refused}");
}

#[test]
fn without_a_checkpoint_the_log_goes_on_in_the_full_segment() {
    let fixture = Fixture::new();
    let audit = Audit::closed();
    let folder = fixture.folder.path();
    audit
        .open(
            folder,
            Box::new(Unable(fixture.store.clone())),
            fixture.rotation(4096),
        )
        .unwrap();
    for _ in 0..40 {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
    // Closed, and its last lines are not signed.
    assert!(!audit.close(LONG));
    let report = fixture.verify();
    assert_eq!((report.problem, report.segments), (None, 1));
    assert!(fixture.open().unwrap().close(LONG));
}

/// A store that takes nothing.
struct Unable(Memory);

impl CheckpointStore for Unable {
    fn load(&self) -> Result<Secret, String> {
        self.0.load()
    }

    fn save(&self, _: Secret) -> Result<(), String> {
        Err("a test".into())
    }
}
