//! What a verifier says of the outbox rows in a log.

use super::*;

#[test]
fn outbox_rows_that_no_checkpoint_covers_are_told_apart_by_their_bodies() {
    let mut log = sample();
    let vault = VaultName::parse("team").unwrap();
    let body = |uid| Body::new(&Event::VaultCreated { vault: &vault, uid }, UnixMs(9));
    let mut copy = |row, body: &Body| {
        let time = log.now();
        log.chain
            .append_outbox(time, &vault, row, body, &mut log.bytes);
        *log.chain.anchor()
    };
    let synced = copy(13, &body(5));
    copy(14, &body(5));
    copy(14, &body(6));
    log.checkpoint_of(&synced);
    let report = verify(&log.bytes);
    assert_eq!(report.problem, None);
    assert_eq!(
        report.outbox.last,
        BTreeMap::from([("team".to_owned(), 14)])
    );
    let signed = BTreeMap::from([("team".to_owned(), 13)]);
    assert_eq!(report.outbox.signed, signed);
    let unsigned = [5, 6].map(|uid| UnsignedRow {
        vault: "team".into(),
        row: 14,
        body: Digest::of(body(uid).as_bytes()),
    });
    assert_eq!(report.outbox.unsigned, unsigned);
}

#[test]
fn an_outbox_row_has_one_form() {
    let mut log = Log::new();
    let vault = VaultName::parse("team").unwrap();
    let event = Event::VaultCreated {
        vault: &vault,
        uid: 5,
    };
    let time = log.now();
    let body = Body::new(&event, UnixMs(9));
    log.chain
        .append_outbox(time, &vault, 1, &body, &mut log.bytes);
    let mut lines = log.lines();
    let text = String::from_utf8(lines.pop().unwrap()).unwrap();
    lines.push(text.replace("\"row\":1", "\"row\": 1").into_bytes());
    assert_eq!(problem(&rehash(&lines)), (2, Fault::Form));
}
