#![allow(clippy::unwrap_used)]

mod outbox;
mod point;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;
use ring::signature::Ed25519KeyPair;

use super::*;
use crate::event::Event;

fn pair(number: u64) -> Ed25519KeyPair {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

fn first_key() -> AuditKey {
    public_key(&pair(1))
}

/// A log with its writer, as the daemon keeps them.
struct Log {
    chain: Chain,
    bytes: Vec<u8>,
    time: u64,
    segments: u64,
    copied: Copied,
}

impl Log {
    fn new() -> Log {
        let chain = Chain::new(Anchor::genesis(first_key()));
        let mut log = Log {
            chain,
            bytes: Vec::new(),
            time: 1_700_000_000_000,
            segments: 0,
            copied: Copied::new(),
        };
        log.segment();
        log
    }

    fn now(&mut self) -> UnixMs {
        self.time += 7;
        UnixMs(self.time)
    }

    fn segment(&mut self) {
        let time = self.now();
        self.chain
            .append_segment(time, self.segments, &self.copied, &mut self.bytes);
        self.segments += 1;
    }

    fn event(&mut self, text: &str) -> Anchor {
        let time = self.now();
        let event = Event::PeerRefused {
            listener: text,
            uid: Some(1_000),
            peers: 1,
        };
        self.chain.append(time, &event, &mut self.bytes);
        *self.chain.anchor()
    }

    fn sign(&mut self, synced: &Anchor) -> Checkpoint {
        let last = *self.chain.anchor();
        let statement = Statement {
            number: last.checkpoint + 1,
            count: synced.seq,
            head: synced.head,
            previous: last.checkpoint_digest,
            next_key: public_key(&pair(last.checkpoint + 2)),
            time: self.now(),
        };
        statement.sign(&pair(last.checkpoint + 1))
    }

    fn checkpoint(&mut self) {
        let here = *self.chain.anchor();
        self.checkpoint_of(&here);
    }

    fn checkpoint_of(&mut self, synced: &Anchor) {
        let checkpoint = self.sign(synced);
        self.chain.append_checkpoint(&checkpoint, &mut self.bytes);
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        self.bytes
            .split_inclusive(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    }
}

/// Segments, lagging checkpoints, an outbox row and an unsigned tail.
fn sample() -> Log {
    let mut log = Log::new();
    log.event("one");
    let synced = log.event("two\n\u{202e}\"");
    log.event("three");
    log.checkpoint_of(&synced);
    let vault = VaultName::parse("team").unwrap();
    let body = Body::new(
        &Event::VaultCreated {
            vault: &vault,
            uid: 5,
        },
        UnixMs(9),
    );
    let time = log.now();
    log.chain
        .append_outbox(time, &vault, 12, &body, &mut log.bytes);
    log.copied.insert("team".into(), 12);
    log.checkpoint();
    log.segment();
    let event = Event::Recovered {
        length: 17,
        digest: &Digest::of(b"torn"),
    };
    let time = log.now();
    log.chain.append(time, &event, &mut log.bytes);
    log.checkpoint();
    log.event("tail one");
    log.event("tail two");
    log
}

/// The bytes of [`sample`], signed once for all cases of a property.
fn sample_bytes() -> Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| sample().bytes).clone()
}

fn verify(bytes: &[u8]) -> Report {
    let mut verifier = Verifier::new(first_key());
    verifier.feed(bytes);
    verifier.finish()
}

fn problem(bytes: &[u8]) -> (u64, Fault) {
    let problem = verify(bytes).problem.expect("a problem");
    (problem.line, problem.fault)
}

/// Gives every line of a forged log the sequence and hash that its place asks for: what an attacker
/// can do who writes the file but holds no key.
fn rehash(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut head = Anchor::genesis(first_key()).head;
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let text = String::from_utf8(line.clone()).unwrap();
        let fields = &text[text.find(",\"time\"").unwrap()..text.rfind(",\"hash\"").unwrap()];
        let signed = format!("{{\"seq\":{}{fields}", at + 1);
        head = Digest::of_parts(&[head.as_bytes(), signed.as_bytes()]);
        out.extend_from_slice(format!("{signed},\"hash\":\"{head}\"}}\n").as_bytes());
    }
    out
}

#[test]
fn a_line_has_this_form() {
    let mut log = Log::new();
    log.event("tls");
    let line = String::from_utf8(log.lines()[1].clone()).unwrap();
    let genesis = Digest::of_parts(&[b"mcpist-audit-v1\0", &first_key()]);
    let segment = format!(
        "{{\"seq\":1,\"time\":\"2023-11-14T22:13:20.007Z\",\"event\":\"segment\",\"format\":1,\
         \"segment\":0,\"prev\":\"{genesis}\",\"checkpoint\":0,\"covered\":0,\
         \"checkpoint_digest\":\"{genesis}\",\"key\":\"{}\"",
        hex::encode(first_key())
    );
    let first = Digest::of_parts(&[genesis.as_bytes(), segment.as_bytes()]);
    let signed = "{\"seq\":2,\"time\":\"2023-11-14T22:13:20.014Z\",\"event\":\"peer_refused\",\
                  \"listener\":\"tls\",\"uid\":1000,\"peers\":1";
    let second = Digest::of_parts(&[first.as_bytes(), signed.as_bytes()]);
    assert_eq!(line, format!("{signed},\"hash\":\"{second}\"}}\n"));
}

#[test]
fn a_whole_log_verifies_and_is_counted() {
    let log = sample();
    let report = verify(&log.bytes);
    assert_eq!(report.problem, None);
    assert_eq!(report.lines, 12);
    assert_eq!(
        (report.segments, report.checkpoints, report.recovered),
        (2, 3, 1)
    );
    assert_eq!(report.unsigned_tail, 2);
    assert_eq!(report.anchor, *log.chain.anchor());
    assert_eq!(report.good_bytes, log.bytes.len() as u64);
    assert_eq!(
        report.outbox.last,
        BTreeMap::from([("team".to_owned(), 12)])
    );
}

#[test]
fn nothing_is_unsigned_right_after_a_checkpoint() {
    let mut log = sample();
    log.checkpoint();
    assert_eq!(verify(&log.bytes).unsigned_tail, 0);
}

#[test]
fn an_empty_log_verifies_as_such() {
    let report = verify(b"");
    assert_eq!((report.lines, report.problem), (0, None));
}

#[test]
fn the_key_decides_whose_log_it_is() {
    let mut verifier = Verifier::new(public_key(&pair(2)));
    assert!(!verifier.feed(&sample().bytes));
    assert_eq!(
        verifier.finish().problem,
        Some(Problem {
            line: 1,
            fault: Fault::OtherLog
        })
    );
}

#[test]
fn removed_swapped_repeated_and_added_lines_are_found() {
    let lines = sample().lines();
    let mut removed = lines.clone();
    removed.remove(2);
    assert_eq!(problem(&removed.concat()), (3, Fault::Sequence));
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert_eq!(problem(&swapped.concat()), (2, Fault::Sequence));
    let mut repeated = lines.clone();
    repeated.insert(3, lines[2].clone());
    assert_eq!(problem(&repeated.concat()), (4, Fault::Sequence));
    let mut added = lines;
    added.insert(2, b"{}\n".to_vec());
    assert_eq!(problem(&added.concat()), (3, Fault::Form));
}

#[test]
fn a_rewritten_history_is_found_at_the_next_checkpoint() {
    let lines = sample().lines();
    assert_eq!(rehash(&lines), lines.concat(), "the forger's tool is exact");
    let mut changed = lines.clone();
    changed[1] = String::from_utf8(lines[1].clone())
        .unwrap()
        .replace("one", "won")
        .into_bytes();
    assert_eq!(problem(&rehash(&changed)), (5, Fault::Head));
    let mut removed = lines.clone();
    removed.remove(1);
    assert_eq!(problem(&rehash(&removed)), (4, Fault::Head));
    // Without the checkpoint that would show it, the next one is missing its predecessor.
    removed.remove(3);
    assert_eq!(problem(&rehash(&removed)), (5, Fault::Checkpoint));
}

#[test]
fn the_unsigned_tail_is_only_chained_and_the_report_says_so() {
    let mut lines = sample().lines();
    let last = lines.len() - 1;
    lines[last] = String::from_utf8(lines[last].clone())
        .unwrap()
        .replace("tail two", "forged")
        .into_bytes();
    let report = verify(&rehash(&lines));
    assert_eq!(report.problem, None);
    assert_eq!(report.unsigned_tail, 2);
}

#[test]
fn a_checkpoint_by_another_key_or_out_of_turn_is_found() {
    let mut log = Log::new();
    let synced = log.event("one");
    let statement = *log.sign(&synced).statement();
    for (forged, fault) in [
        (statement.sign(&pair(99)), Fault::Signature),
        (
            Statement {
                number: 2,
                ..statement
            }
            .sign(&pair(1)),
            Fault::Checkpoint,
        ),
        (
            Statement {
                previous: synced.head,
                ..statement
            }
            .sign(&pair(1)),
            Fault::Checkpoint,
        ),
        (
            Statement {
                count: 3,
                ..statement
            }
            .sign(&pair(1)),
            Fault::Checkpoint,
        ),
        (
            Statement {
                count: 1,
                ..statement
            }
            .sign(&pair(1)),
            Fault::Head,
        ),
    ] {
        let mut bytes = log.bytes.clone();
        let mut chain = Chain::new(synced);
        chain.append_checkpoint(&forged, &mut bytes);
        assert_eq!(problem(&bytes), (3, fault), "{fault}");
    }
}

#[test]
fn a_checkpoint_that_is_not_written_as_signed_is_found() {
    let mut lines = sample().lines();
    let text = String::from_utf8(lines[4].clone()).unwrap();
    assert!(text.contains("\"event\":\"checkpoint\""));
    lines[4] = text
        .replace("2023-11-14T22:13", "2023-11-14T22:14")
        .into_bytes();
    assert_eq!(problem(&rehash(&lines)), (5, Fault::Checkpoint));
    lines[4] = text
        .replace("\"count\"", "\"note\":1,\"count\"")
        .into_bytes();
    assert_eq!(problem(&rehash(&lines)), (5, Fault::Checkpoint));
}

#[test]
fn an_expected_head_shows_a_truncation() {
    let log = sample();
    let head = log.chain.anchor().head;
    let expecting = |bytes: &[u8]| {
        let mut verifier = Verifier::new(first_key()).expecting(head);
        verifier.feed(bytes);
        verifier.finish()
    };
    assert_eq!(expecting(&log.bytes).expected_at, Some(12));
    let mut grown = log.bytes.clone();
    let mut chain = Chain::new(*log.chain.anchor());
    chain.append(UnixMs(0), &Event::AuditLost { calls: 1 }, &mut grown);
    assert_eq!(expecting(&grown).expected_at, Some(12));
    let lines = log.lines();
    let cut = expecting(&lines[..11].concat());
    assert_eq!(
        cut.problem,
        Some(Problem {
            line: 12,
            fault: Fault::Truncated
        })
    );
    assert_eq!(verify(&lines[..11].concat()).problem, None);
}

#[test]
fn a_torn_end_is_recovered_by_exactly_one_kind_of_line() {
    let log = sample();
    let lines = log.lines();
    let whole = lines[..11].concat();
    let torn = [&whole[..], &lines[11][..40]].concat();
    let report = verify(&torn);
    assert_eq!(
        report.problem,
        Some(Problem {
            line: 12,
            fault: Fault::Torn
        })
    );
    assert_eq!(report.good_bytes, whole.len() as u64);

    let (mut bytes, cut) = (
        torn[..report.good_bytes as usize].to_vec(),
        &torn[whole.len()..],
    );
    let mut chain = Chain::new(report.anchor);
    let event = Event::Recovered {
        length: cut.len() as u64,
        digest: &Digest::of(cut),
    };
    chain.append(UnixMs(1), &event, &mut bytes);
    let recovered = verify(&bytes);
    assert_eq!((recovered.problem, recovered.recovered), (None, 2));
}

#[test]
fn a_later_segment_verifies_alone_from_what_it_says() {
    let log = sample();
    let lines = log.lines();
    let mut verifier = Verifier::resume();
    assert!(verifier.feed(&lines[7..].concat()));
    let report = verifier.finish();
    assert_eq!(report.problem, None);
    assert_eq!((report.lines, report.checkpoints), (5, 1));
    assert_eq!((report.next_segment, &report.outbox.last), (2, &log.copied));
    assert_eq!(report.anchor, *log.chain.anchor());

    let mut verifier = Verifier::resume();
    assert!(!verifier.feed(&lines[8..].concat()));
    assert_eq!(verifier.finish().problem.unwrap().fault, Fault::Segment);
}

#[test]
fn segments_in_files_are_one_log() {
    let lines = sample().lines();
    let mut verifier = Verifier::new(first_key());
    assert!(verifier.feed(&lines[..7].concat()));
    assert!(verifier.next_file());
    assert!(verifier.feed(&lines[7..].concat()));
    let report = verifier.finish();
    assert_eq!(report.problem, None);
    assert_eq!(report.good_bytes, lines[7..].concat().len() as u64);

    let mut verifier = Verifier::new(first_key());
    assert!(verifier.feed(&lines[..7].concat()[..500]));
    assert!(!verifier.next_file(), "a file that ends within a line");
    assert_eq!(verifier.finish().problem.unwrap().fault, Fault::Torn);
}

#[test]
fn a_segment_that_is_missing_in_the_middle_is_named() {
    let mut log = Log::new();
    let first = log.bytes.len();
    log.segment();
    log.event("of the second");
    let second = log.bytes.len();
    log.segment();
    let mut verifier = Verifier::new(first_key());
    verifier.feed(&log.bytes[..first]);
    verifier.next_file();
    assert!(!verifier.feed(&log.bytes[second..]));
    let problem = verifier.finish().problem.unwrap();
    assert_eq!((problem.line, problem.fault), (2, Fault::MissingSegment(1)));
    assert!(problem.to_string().contains("audit-00000001.jsonl"));
}

#[test]
fn a_segment_that_hides_outbox_rows_is_refused() {
    let mut log = sample();
    log.copied.clear();
    log.segment();
    assert_eq!(problem(&log.bytes).1, Fault::Segment);
}

#[test]
fn a_log_without_its_first_segment_is_refused() {
    let mut chain = Chain::new(Anchor::genesis(first_key()));
    let mut bytes = Vec::new();
    chain.append(UnixMs(1), &Event::AuditLost { calls: 1 }, &mut bytes);
    assert_eq!(problem(&bytes), (1, Fault::Segment));
}

#[test]
fn hostile_input_costs_one_line_of_memory() {
    let mut verifier = Verifier::new(first_key());
    assert!(verifier.feed(&vec![b'x'; MAX_LINE]));
    assert!(!verifier.feed(b"x"));
    assert_eq!(
        verifier.finish().problem,
        Some(Problem {
            line: 1,
            fault: Fault::TooLong
        })
    );
    assert_eq!(problem(b"\n"), (1, Fault::Form));
    assert_eq!(problem(&vec![0; 4_096]), (1, Fault::Torn));
}

#[test]
fn an_outbox_row_keeps_its_bytes_and_nothing_else_is_one() {
    let event = Event::AuditLost { calls: 3 };
    let body = Body::new(&event, UnixMs(1));
    assert_eq!(Body::parse(body.as_bytes()).unwrap(), body);
    let large = format!("{{\"event\":\"x\",\"a\":\"{}\"}}", "a".repeat(MAX_BODY));
    let own = Body::new(
        &Event::Recovered {
            length: 1,
            digest: &Digest::of(b""),
        },
        UnixMs(1),
    );
    for bytes in [
        &b""[..],
        b"{}",
        b"{\"event\":\"x\"",
        b"{\"event\":\"x\",\n\"a\":1}",
        b"{\"event\":\"x\",\"a\":1,\"a\":1}",
        b"{\"event\":\"checkpoint\"}",
        b"{\"event\":\"segment\"}",
        own.as_bytes(),
        large.as_bytes(),
    ] {
        assert_eq!(
            Body::parse(bytes),
            Err(BodyError),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_changed_byte_is_found_in_its_own_line(
        at in any::<prop::sample::Index>(),
        mask in 1u8..=255,
    ) {
        let mut bytes = sample_bytes();
        let at = at.index(bytes.len());
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count() as u64;
        bytes[at] ^= mask;
        let problem = verify(&bytes).problem;
        prop_assert_eq!(problem.map(|p| p.line), Some(line), "byte {}", at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_of_writes_verifies_whole_and_from_every_segment(
        acts in prop::collection::vec(0u8..6, 0..24),
    ) {
        let mut log = Log::new();
        let mut synced = *log.chain.anchor();
        let mut starts = vec![0];
        let mut appended = 1;
        for act in acts {
            match act {
                0 => {
                    starts.push(log.bytes.len());
                    log.segment();
                }
                1 => log.checkpoint_of(&synced),
                2 => synced = *log.chain.anchor(),
                _ => {
                    log.event("event");
                }
            }
            appended += u64::from(act != 2);
        }
        let report = verify(&log.bytes);
        prop_assert_eq!(&report.problem, &None);
        prop_assert_eq!(report.lines, appended);
        prop_assert_eq!(report.anchor, *log.chain.anchor());
        for start in starts {
            let mut verifier = Verifier::resume();
            prop_assert!(verifier.feed(&log.bytes[start..]));
            prop_assert_eq!(verifier.finish().anchor, *log.chain.anchor());
        }
    }

    #[test]
    fn chunks_change_nothing(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let bytes = sample_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let mut verifier = Verifier::new(first_key());
        let mut from = 0;
        for cut in cuts {
            verifier.feed(&bytes[from..cut]);
            from = cut;
        }
        verifier.feed(&bytes[from..]);
        prop_assert_eq!(verifier.finish(), verify(&bytes));
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = verify(&bytes);
        let mut verifier = Verifier::resume();
        verifier.feed(&bytes);
        let _ = verifier.finish();
    }
}
