//! Verification of a log whose older segments are elsewhere, and of what leaves it.

use super::*;

/// A log of three segments: the lines of each, and where the log stood after each line.
fn segments() -> (Vec<Vec<u8>>, Vec<Anchor>) {
    let mut log = Log::new();
    let mut parts = Vec::new();
    let mut anchors = vec![*log.chain.anchor()];
    for part in 0..3 {
        if part > 0 {
            log.segment();
            anchors.push(*log.chain.anchor());
        }
        for text in ["one", "two"] {
            anchors.push(log.event(text));
        }
        if part == 0 {
            export(&mut log, 1, 2);
            anchors.push(*log.chain.anchor());
        }
        log.checkpoint();
        anchors.push(*log.chain.anchor());
        parts.push(std::mem::take(&mut log.bytes));
    }
    (parts, anchors)
}

fn export(log: &mut Log, first: u64, through: u64) {
    let digest = Digest::of(b"a file");
    let event = Event::AuditExported {
        first,
        through,
        head: &digest,
        digest: &digest,
        uid: 4,
    };
    let time = log.now();
    log.chain.append(time, &event, &mut log.bytes);
}

fn verified(mut verifier: Verifier, files: &[Vec<u8>]) -> Report {
    for (number, file) in files.iter().enumerate() {
        if number > 0 {
            verifier.next_file();
        }
        verifier.feed(file);
    }
    verifier.finish()
}

fn fault(report: Report) -> Option<Fault> {
    report.problem.map(|p| p.fault)
}

#[test]
fn later_segments_verify_from_every_point_that_they_hold() {
    let (parts, anchors) = segments();
    let whole = verified(Verifier::new(first_key()), &parts);
    assert_eq!(whole.problem, None);
    let before = anchors.iter().position(|a| a.seq == 5).unwrap();
    for (place, anchor) in anchors.iter().enumerate() {
        let later = verified(Verifier::from_point(anchor.point()), &parts[1..]);
        if place >= before {
            assert_eq!(
                (later.problem, later.anchor),
                (None, whole.anchor),
                "{place}"
            );
        } else {
            assert_eq!(fault(later), Some(Fault::NoPoint), "{place}");
        }
    }
}

#[test]
fn a_first_line_that_says_something_else_does_not_have_the_point() {
    let (parts, anchors) = segments();
    let point = anchors.iter().find(|a| a.seq == 5).unwrap().point();
    let text = String::from_utf8(parts[1].clone()).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    // A chain of one's own over a key of one's own, after the very line that was noted down.
    let mut anchor = *anchors.iter().find(|a| a.seq == 5).unwrap();
    assert_eq!(first["prev"], anchor.head.to_string());
    anchor.key = public_key(&pair(99));
    let mut forged = Vec::new();
    Chain::new(anchor).append_segment(UnixMs(1), 1, &Copied::new(), &mut forged);
    let report = verified(Verifier::from_point(point), &[forged]);
    assert_eq!(fault(report), Some(Fault::NoPoint));
}

#[test]
fn exports_count_while_they_leave_no_gap_and_the_next_segment_says_so() {
    let mut log = Log::new();
    log.event("one");
    for (first, through, expected) in [(1, 2, 2), (5, 9, 2), (3, 99, 2), (2, 4, 4), (1, 3, 4)] {
        export(&mut log, first, through);
        assert_eq!(
            log.chain.anchor().exported,
            expected,
            "{first} to {through}"
        );
    }
    log.checkpoint();
    let older = std::mem::take(&mut log.bytes);
    log.segment();
    let text = String::from_utf8(log.bytes.clone()).unwrap();
    assert!(text.contains("\"exported\":4"), "{text}");
    let whole = verified(
        Verifier::new(first_key()),
        &[older.clone(), log.bytes.clone()],
    );
    assert_eq!((whole.problem, whole.anchor.exported), (None, 4));
    let later = verified(Verifier::resume(), std::slice::from_ref(&log.bytes));
    assert_eq!((later.problem, later.anchor.exported), (None, 4));
    // Another number than the lines before add up to.
    let mut anchor = *log.chain.anchor();
    anchor = Anchor {
        seq: anchor.seq - 1,
        exported: 3,
        ..anchor
    };
    let mut other = Vec::new();
    Chain::new(anchor).append_segment(UnixMs(1), 1, &Copied::new(), &mut other);
    let report = verified(Verifier::new(first_key()), &[older, other]);
    assert!(report.problem.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// What leaves the log in one file is the same log: any edit of it is found, or changes the unsigned end alone.
    #[test]
    fn any_edit_of_an_export_is_found(at in any::<prop::sample::Index>(), to in any::<u8>(), kind in 0..4) {
        let (parts, anchors) = segments();
        let mut file = parts[1..].concat();
        let whole = file.clone();
        let at = at.index(file.len());
        match kind {
            0 => file[at] = to,
            1 => { file.remove(at); }
            2 => file.insert(at, to),
            _ => file.truncate(at),
        }
        prop_assume!(file != whole);
        let point = anchors.iter().find(|a| a.seq == 5).unwrap().point();
        let head = anchors.last().unwrap().head;
        let report = verified(Verifier::from_point(point).expecting(head), &[file]);
        prop_assert!(report.problem.is_some());
    }
}

/// The three segments as two exports: the second begins with a segment of which the first holds some lines.
fn overlapping() -> [Vec<u8>; 2] {
    let (parts, _) = segments();
    let cut = parts[1].iter().position(|b| *b == b'\n').unwrap() + 1;
    [
        [&parts[0], &parts[1][..cut]].concat(),
        [&parts[1][..], &parts[2]].concat(),
    ]
}

#[test]
fn exports_that_overlap_verify_together_and_count_each_line_once() {
    let (parts, _) = segments();
    let whole = verified(Verifier::new(first_key()), &parts);
    let both = verified(Verifier::new(first_key()).overlapping(), &overlapping());
    assert_eq!((both.problem, both.lines), (None, whole.lines));
    assert_eq!(both.anchor, whole.anchor);
    assert_eq!((both.segments, both.checkpoints), (3, 3));
    let mut verifier = Verifier::new(first_key()).overlapping();
    let mut repeated = Vec::new();
    for file in overlapping() {
        verifier.next_file();
        for line in file.split_inclusive(|b| *b == b'\n') {
            verifier.feed(line);
            repeated.push(verifier.is_repeated());
        }
    }
    assert_eq!(repeated.iter().filter(|is| **is).count(), 1);
    // Who goes on writing reads no line twice.
    let twice = verified(Verifier::new(first_key()), &overlapping());
    assert_eq!(fault(twice), Some(Fault::Sequence));
}

#[test]
fn an_overlap_that_differs_is_named_by_its_first_line() {
    let [first, second] = overlapping();
    let (parts, anchors) = segments();
    let begins = parts[0].iter().filter(|b| **b == b'\n').count() as u64 + 1;
    // Another log that has the same lines up to there: its segment line says another time.
    let text = String::from_utf8(second.clone()).unwrap();
    let line = text.lines().next().unwrap();
    let (says, _) = hashed(line.as_bytes()).unwrap();
    let forged = String::from_utf8(says.to_vec()).unwrap();
    let forged = forged.replacen("\"time\":\"2023", "\"time\":\"2024", 1);
    assert_ne!(forged.as_bytes(), says);
    let before = anchors.iter().find(|a| a.seq == begins - 1).unwrap().head;
    let hash = Digest::of_parts(&[before.as_bytes(), forged.as_bytes()]);
    let forged = format!("{forged},\"hash\":\"{hash}\"}}\n");
    let verify = |second: &[u8]| {
        let files = [first.clone(), second.to_vec()];
        let report = verified(Verifier::new(first_key()).overlapping(), &files);
        report.problem.map(|p| (p.line, p.fault))
    };
    let differs = verify(forged.as_bytes());
    assert_eq!(
        differs.map(|(_, fault)| fault),
        Some(Fault::Overlap(begins))
    );
    // A byte that was changed there is named by its line.
    let mut flipped = second.clone();
    flipped[20] ^= 1;
    assert_eq!(verify(&flipped), Some((begins, Fault::Hash)));
    // What ends before it says anything new cannot be compared.
    let report = verified(
        Verifier::new(first_key()).overlapping(),
        &[first.clone(), parts[0].clone()],
    );
    assert_eq!(fault(report), Some(Fault::NothingNew));
}

#[test]
fn the_record_of_another_log_or_life_is_told_from_damage() {
    let (mut parts, _) = segments();
    let other = || Verifier::new(public_key(&pair(9)));
    assert_eq!(fault(verified(other(), &parts)), Some(Fault::OtherLog));
    parts[0][20] ^= 1;
    assert_eq!(fault(verified(other(), &parts)), Some(Fault::Hash));
}
