//! The turn from a full segment to the next, and a crash at each of its steps.

use std::os::unix::fs::MetadataExt;

use mcpist_core::audit::Fault;

use super::*;

/// Small enough to be full after a dozen lines.
const BYTES: u64 = 4096;
const LONG: Duration = Duration::from_secs(30);

/// Appends until segment `number` has begun.
fn fill(fixture: &Fixture, audit: &Audit, number: u64) {
    let begun = || std::fs::metadata(fixture.segment(number)).is_ok_and(|m| m.len() > 0);
    while !begun() {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
}

fn read(fixture: &Fixture, number: u64) -> Vec<u8> {
    std::fs::read(fixture.segment(number)).unwrap()
}

/// `bytes` without their last line.
fn less_a_line(bytes: &[u8]) -> &[u8] {
    let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n');
    &bytes[..last.unwrap() + 1]
}

#[test]
fn full_segments_follow_each_other_and_verify_as_one_log() {
    let fixture = Fixture::new();
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    fill(&fixture, &audit, 1);
    fill(&fixture, &audit, 2);
    assert!(audit.close(LONG));
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    fill(&fixture, &audit, 3);
    assert!(audit.close(LONG));

    let report = fixture.verify();
    assert_eq!(
        (report.problem, report.segments, report.recovered),
        (None, 4, 0)
    );
    assert_eq!(report.unsigned_tail, 0);
    for number in 0..3 {
        let text = String::from_utf8(read(&fixture, number)).unwrap();
        assert!(
            text.contains("\"event\":\"checkpoint\""),
            "segment {number}"
        );
        assert!(text.len() as u64 >= BYTES - BYTES / 8, "segment {number}");
    }
}

#[test]
fn every_segment_has_its_space_before_its_lines() {
    let fixture = Fixture::new();
    let (audit, _) = fixture.open_with(1 << 20).unwrap();
    let spare = fixture.folder.path().join("audit.next");
    let has_space =
        |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.blocks() * 512 >= 1 << 20);
    assert!(has_space(&fixture.segment(0)));
    while !has_space(&spare) {
        std::thread::yield_now();
    }
    assert!(audit.close(LONG));
    // Opened again, and after a cut, which gives the space behind the end back.
    let whole = read(&fixture, 0);
    std::fs::write(fixture.segment(0), [&whole[..], b"torn"].concat()).unwrap();
    let (audit, _) = fixture.open_with(1 << 20).unwrap();
    assert!(has_space(&fixture.segment(0)));
    assert!(audit.close(LONG));
}

#[test]
fn outbox_rows_of_older_segments_are_known() {
    let fixture = Fixture::new();
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    let vault = VaultName::parse("main").unwrap();
    let body = Body::new(&STOP, now());
    audit.append_outbox(&vault, 7, &body).unwrap();
    fill(&fixture, &audit, 1);
    fill(&fixture, &audit, 2);
    fill(&fixture, &audit, 3);
    assert!(audit.close(LONG));
    let (audit, logged) = fixture.open_with(BYTES).unwrap();
    assert_eq!(logged.last.get("main"), Some(&7));
    assert!(audit.close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn without_room_for_the_next_segment_the_log_goes_on_in_the_full_one() {
    let fixture = Fixture::new();
    // A folder in its place stands for a disk that is full.
    std::fs::create_dir(fixture.folder.path().join("audit.next")).unwrap();
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    for _ in 0..40 {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
    assert!(audit.close(LONG));
    let report = fixture.verify();
    assert_eq!((report.problem, report.segments), (None, 1));
}

/// A log whose process dies right after a turn: nothing was appended or signed since.
fn just_turned() -> Fixture {
    let fixture = Fixture::new();
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    fill(&fixture, &audit, 1);
    // What the thread writes on its way out is taken back: the files are those of the turn.
    let files = [read(&fixture, 0), read(&fixture, 1)];
    let record = fixture.store.load().unwrap().expose().to_vec();
    assert!(audit.close(LONG));
    for (number, bytes) in files.iter().enumerate() {
        std::fs::write(fixture.segment(number as u64), bytes).unwrap();
    }
    *fixture.store.0.lock().unwrap() = record;
    fixture
}

/// Opens, goes on, closes; how many recoveries the log shows then.
fn goes_on(fixture: &Fixture) -> u64 {
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    let seq = audit.append(&STOP).unwrap();
    audit.synced_blocking(seq).unwrap();
    assert!(audit.close(LONG));
    let report = fixture.verify();
    assert_eq!((report.problem, report.unsigned_tail), (None, 0));
    report.recovered
}

#[test]
fn killed_before_the_next_segment_has_a_line() {
    let fixture = just_turned();
    std::fs::write(fixture.segment(1), b"").unwrap();
    assert_eq!(goes_on(&fixture), 0);
}

#[test]
fn killed_before_the_checkpoint_of_the_full_segment_was_written() {
    let fixture = just_turned();
    std::fs::write(fixture.segment(1), b"").unwrap();
    let full = read(&fixture, 0);
    std::fs::write(fixture.segment(0), less_a_line(&full)).unwrap();
    assert_eq!(goes_on(&fixture), 0);
}

#[test]
fn killed_within_the_first_line_of_the_next_segment() {
    let fixture = just_turned();
    let next = read(&fixture, 1);
    std::fs::write(fixture.segment(1), &next[..next.len() / 2]).unwrap();
    assert_eq!(goes_on(&fixture), 1);
}

#[test]
fn killed_before_the_end_of_the_full_segment_was_on_disk() {
    for torn in [0, 9] {
        let fixture = just_turned();
        let full = read(&fixture, 0);
        let kept = less_a_line(&full).len() + torn;
        std::fs::write(fixture.segment(0), &full[..kept]).unwrap();
        assert_eq!(goes_on(&fixture), 1, "{torn}");
        // The next turn takes the number that was given back.
        let (audit, _) = fixture.open_with(BYTES).unwrap();
        fill(&fixture, &audit, 1);
        assert!(audit.close(LONG));
        assert_eq!(fixture.verify().problem, None);
    }
}

#[test]
fn killed_after_the_turn() {
    assert_eq!(goes_on(&just_turned()), 0);
}

#[test]
fn signed_lines_that_a_turn_did_not_lose_are_missed() {
    let fixture = just_turned();
    let full = read(&fixture, 0);
    let half = full[..full.len() / 2]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    std::fs::write(fixture.segment(0), &full[..half]).unwrap();
    assert!(matches!(
        fixture.open_with(BYTES),
        Err(OpenError::Damaged { .. } | OpenError::Behind { .. })
    ));
}

#[test]
fn a_missing_middle_segment_is_named() {
    let fixture = Fixture::new();
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    fill(&fixture, &audit, 1);
    fill(&fixture, &audit, 2);
    assert!(audit.close(LONG));
    let mut verifier = Verifier::new(fixture.first);
    verifier.feed(&read(&fixture, 0));
    verifier.next_file();
    verifier.feed(&read(&fixture, 2));
    let problem = verifier.finish().problem.unwrap();
    assert_eq!(problem.fault, Fault::MissingSegment(1));
}
