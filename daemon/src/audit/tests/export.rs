//! Exports, what may leave after them, and age.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use mcpist_core::api::{ExportFrom, Exported};
use mcpist_core::ids::Digest;

use super::*;
use crate::audit::export::ExportError;

const LONG: Duration = Duration::from_secs(30);
/// Small enough to be full after a dozen lines.
const BYTES: u64 = 4096;

/// A log of segments 0 to `last`, open.
fn of_segments(fixture: &Fixture, last: u64) -> Audit {
    let (audit, _) = fixture.open_with(BYTES).unwrap();
    while !std::fs::metadata(fixture.segment(last)).is_ok_and(|m| m.len() > 0) {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
    audit
}

fn export(
    fixture: &Fixture,
    audit: &Audit,
    from: ExportFrom,
) -> Result<(Exported, Vec<u8>), ExportError> {
    let target = tempfile::NamedTempFile::new().unwrap();
    let exported = audit.export(fixture.folder.path(), &from, target.as_file(), 7)?;
    Ok((exported, std::fs::read(target.path()).unwrap()))
}

fn verified(mut verifier: Verifier, bytes: &[u8]) -> Report {
    verifier.feed(bytes);
    verifier.finish()
}

fn numbers(fixture: &Fixture) -> Vec<u64> {
    segment::numbers(fixture.folder.path()).unwrap()
}

/// Waits until the segments are `expected`: they leave behind the log's thread.
fn until_there_are(fixture: &Fixture, expected: &[u64]) {
    let deadline = Instant::now() + LONG;
    while numbers(fixture) != expected {
        assert!(Instant::now() < deadline, "{:?}", numbers(fixture));
        std::thread::yield_now();
    }
}

#[test]
fn an_export_is_the_log_to_its_last_line_and_signed() {
    let mut fixture = Fixture::new();
    fixture.rotation.keep = 99;
    let audit = of_segments(&fixture, 2);
    let (exported, file) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let report = verified(Verifier::new(fixture.first), &file);
    assert_eq!(
        (report.problem, report.anchor.seq),
        (None, exported.through)
    );
    assert_eq!((exported.first, exported.unsigned_tail), (1, 0));
    assert_eq!(
        (exported.head, exported.point),
        (report.anchor.head, report.anchor.point())
    );
    assert_eq!(exported.digest, Digest::of(&file));

    // The next one goes on where that ended, and verifies from there.
    let (later, file) = export(&fixture, &audit, ExportFrom::LastExport).unwrap();
    assert!(later.first <= exported.through + 1 && later.first > 1);
    let report = verified(Verifier::from_point(exported.point), &file);
    assert_eq!((report.problem, report.anchor.seq), (None, later.through));
    assert!(
        later.through > exported.through,
        "the export is a line itself"
    );
    for (from, first) in [(ExportFrom::Seq(1), 1), (ExportFrom::Time(0), 1)] {
        assert_eq!(export(&fixture, &audit, from).unwrap().0.first, first);
    }
    assert!(audit.close(LONG));
}

#[test]
fn segments_leave_when_they_were_exported_and_never_before() {
    let fixture = Fixture::new();
    let audit = of_segments(&fixture, 4);
    assert_eq!(numbers(&fixture), [0, 1, 2, 3, 4]);
    // A gap before it: the older lines are in no export.
    let middle = std::fs::read_to_string(fixture.segment(2)).unwrap();
    let (Seq(seq), _) = mcpist_core::audit::place(middle.as_bytes()).unwrap();
    export(&fixture, &audit, ExportFrom::Seq(seq)).unwrap();
    assert!(audit.close(LONG));
    let audit = fixture.open_with(BYTES).unwrap().0;
    audit.sign_now();
    assert_eq!(numbers(&fixture)[..3], [0, 1, 2]);

    let (exported, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let newest = *numbers(&fixture).last().unwrap();
    until_there_are(&fixture, &[newest - 1, newest]);
    assert!(audit.close(LONG));
    // It is told in the log, which verifies from the export's point on, and opens.
    let rest = [newest - 1, newest].map(|n| std::fs::read(fixture.segment(n)).unwrap());
    let text = String::from_utf8(rest.concat()).unwrap();
    let told = format!(
        "\"event\":\"audit_removed\",\"first_segment\":0,\"last_segment\":{}",
        newest - 2
    );
    assert!(text.contains(&told), "{text}");
    let report = verified(Verifier::from_point(exported.point), &rest.concat());
    assert_eq!(report.problem, None);
    assert!(fixture.open_with(BYTES).unwrap().0.close(LONG));
}

#[test]
fn what_was_exported_is_known_after_turns_and_openings() {
    let fixture = Fixture::new();
    let audit = of_segments(&fixture, 1);
    let (exported, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    assert!(audit.close(LONG));
    let audit = of_segments(&fixture, 4);
    assert_eq!(audit.state().head.unwrap().exported, exported.through);
    until_there_are(&fixture, &[1, 2, 3, 4]);
    assert!(audit.close(LONG));
}

#[test]
fn killed_after_the_line_and_before_the_segments_were_gone_they_go_at_the_next_opening() {
    let fixture = Fixture::new();
    let audit = of_segments(&fixture, 3);
    let kept = [0, 1].map(|n| std::fs::read(fixture.segment(n)).unwrap());
    export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let newest = *numbers(&fixture).last().unwrap();
    until_there_are(&fixture, &[newest - 1, newest]);
    assert!(audit.close(LONG));
    for (n, bytes) in kept.iter().enumerate() {
        std::fs::write(fixture.segment(n as u64), bytes).unwrap();
    }
    // One is gone already, in the middle of what leaves.
    let audit = fixture.open_with(BYTES).unwrap().0;
    audit.sign_now();
    until_there_are(&fixture, &[newest - 1, newest]);
    assert!(audit.close(LONG));
}

#[test]
fn what_is_no_place_for_an_export_and_what_does_not_verify_count_for_nothing() {
    let fixture = Fixture::new();
    let audit = of_segments(&fixture, 2);
    let folder = fixture.folder.path();
    let try_in = |target: &File| audit.export(folder, &ExportFrom::Beginning, target, 7);
    let full = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(full.path(), b"x").unwrap();
    assert!(matches!(try_in(full.as_file()), Err(ExportError::Target)));
    let (pipe, _other) = std::io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
    assert!(matches!(try_in(&pipe), Err(ExportError::Target)));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(empty.path()).unwrap();
    assert!(matches!(try_in(&read_only), Err(ExportError::Medium(_))));

    let older = OpenOptions::new()
        .write(true)
        .open(fixture.segment(0))
        .unwrap();
    older.write_all_at(b"X", 900).unwrap();
    assert!(matches!(
        try_in(empty.as_file()),
        Err(ExportError::Damaged(_))
    ));
    assert_eq!(audit.state().head.unwrap().exported, 0);
    assert!(audit.close(LONG));
    assert!(matches!(
        audit.export(folder, &ExportFrom::Beginning, empty.as_file(), 7),
        Err(ExportError::Log(AuditError::Closed))
    ));
}

#[test]
fn a_segment_that_is_old_gives_way_to_the_next() {
    let mut fixture = Fixture::new();
    fixture.rotation.age = 0;
    let (audit, _) = fixture.open_with(1 << 20).unwrap();
    let seq = audit.append(&STOP).unwrap();
    audit.synced_blocking(seq).unwrap();
    while !fixture.segment(1).exists() {
        std::thread::yield_now();
    }
    assert!(audit.close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

/// A log whose segments leave once their export is confirmed.
fn of_confirmed(last: u64) -> (Fixture, Audit) {
    let mut fixture = Fixture::new();
    fixture.rotation.remove = Remove::Confirmed;
    let audit = of_segments(&fixture, last);
    (fixture, audit)
}

#[test]
fn segments_leave_when_somebody_else_has_their_export_and_never_before() {
    let (fixture, audit) = of_confirmed(3);
    let folder = fixture.folder.path();
    let (exported, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    // The alarm says that the thread has looked, and kept them.
    let waits = || audit.state().trouble == Some(Trouble::Unconfirmed(exported.through));
    while !waits() {
        std::thread::yield_now();
    }
    assert_eq!(numbers(&fixture)[..4], [0, 1, 2, 3]);
    let confirm = |audit: &Audit, digest, uid| audit.confirm(folder, digest, uid);
    let own = confirm(&audit, &exported.digest, 7);
    assert!(matches!(own, Err(ConfirmError::Own(7))), "{own:?}");
    let another = Digest::of(b"another file");
    let other = confirm(&audit, &another, 8);
    assert!(matches!(other, Err(ConfirmError::Unknown)), "{other:?}");
    assert!(audit.close(LONG));

    // Known after an opening, and once confirmed, after the next one.
    let audit = fixture.open_with(BYTES).unwrap().0;
    let confirmed = confirm(&audit, &exported.digest, 8).unwrap();
    assert_eq!(
        (confirmed.first, confirmed.through, confirmed.exporter),
        (1, exported.through, 7)
    );
    let newest = *numbers(&fixture).last().unwrap();
    until_there_are(&fixture, &[newest - 1, newest]);
    while audit.state().trouble.is_some() {
        std::thread::yield_now();
    }
    // The same again writes nothing.
    confirm(&audit, &exported.digest, 9).unwrap();
    assert!(audit.close(LONG));
    let rest = [newest - 1, newest].map(|n| std::fs::read(fixture.segment(n)).unwrap());
    let text = String::from_utf8(rest.concat()).unwrap();
    assert_eq!(text.matches("\"export_confirmed\"").count(), 1, "{text}");
    let audit = of_segments(&fixture, newest + 2);
    assert_eq!(audit.state().head.unwrap().confirmed, exported.through);
    assert!(audit.close(LONG));
    let mut verifier = Verifier::from_point(exported.point);
    for number in numbers(&fixture) {
        verifier.feed(&std::fs::read(fixture.segment(number)).unwrap());
        verifier.next_file();
    }
    assert_eq!(verifier.finish().problem, None);
}

#[test]
fn who_rewrites_whose_an_export_is_confirms_nothing() {
    let (fixture, audit) = of_confirmed(2);
    let folder = fixture.folder.path();
    let (exported, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let is_there = |number: &u64| {
        let text = std::fs::read_to_string(fixture.segment(*number)).unwrap();
        text.contains("\"audit_exported\"")
    };
    let number = numbers(&fixture).into_iter().find(is_there).unwrap();
    let right = std::fs::read_to_string(fixture.segment(number)).unwrap();
    let wrong = right.replace("\"uid\":7", "\"uid\":9");
    assert_ne!(wrong, right);
    let file = File::options().write(true).open(fixture.segment(number));
    let put = |text: &str| file.as_ref().unwrap().write_all_at(text.as_bytes(), 0);
    put(&wrong).unwrap();
    let own = audit.confirm(folder, &exported.digest, 7);
    assert!(matches!(own, Err(ConfirmError::Damaged(_))), "{own:?}");
    assert_eq!(audit.state().head.unwrap().confirmed, 0);
    put(&right).unwrap();
    let own = audit.confirm(folder, &exported.digest, 7);
    assert!(matches!(own, Err(ConfirmError::Own(7))), "{own:?}");
    audit.confirm(folder, &exported.digest, 8).unwrap();
    assert!(audit.close(LONG));
}

#[test]
fn a_confirmation_that_leaves_a_gap_is_refused() {
    let (fixture, audit) = of_confirmed(2);
    let folder = fixture.folder.path();
    let (whole, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let (later, _) = export(&fixture, &audit, ExportFrom::LastExport).unwrap();
    assert!(later.first > 1);
    let gap = audit.confirm(folder, &later.digest, 8);
    assert!(matches!(gap, Err(ConfirmError::Gap(1))), "{gap:?}");
    assert_eq!(audit.state().head.unwrap().confirmed, 0);
    audit.confirm(folder, &whole.digest, 8).unwrap();
    audit.confirm(folder, &later.digest, 8).unwrap();
    assert_eq!(audit.state().head.unwrap().confirmed, later.through);
    assert!(audit.close(LONG));
}

#[test]
fn what_left_before_root_asked_for_two_auditors_is_not_asked_for() {
    let mut fixture = Fixture::new();
    let audit = of_segments(&fixture, 3);
    export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    let newest = *numbers(&fixture).last().unwrap();
    until_there_are(&fixture, &[newest - 1, newest]);
    assert!(audit.close(LONG));
    fixture.rotation.remove = Remove::Confirmed;
    let audit = of_segments(&fixture, newest + 1);
    let (exported, _) = export(&fixture, &audit, ExportFrom::Beginning).unwrap();
    assert!(exported.first > 1);
    let folder = fixture.folder.path();
    audit.confirm(folder, &exported.digest, 8).unwrap();
    assert_eq!(audit.state().head.unwrap().confirmed, exported.through);
    assert!(audit.close(LONG));
}
