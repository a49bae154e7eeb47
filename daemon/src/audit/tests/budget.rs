//! Floods of what can be asked for without end.

use mcpist_core::error::ErrorCode;
use mcpist_core::ids::PrincipalName;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn deny(audit: &Audit, who: &str, at: Instant) -> bool {
    let principal = PrincipalName::parse(who).unwrap();
    let event = Event::CallDenied {
        principal: &principal,
        module: "any",
        tool: "any",
        code: ErrorCode::UnknownTool,
    };
    let asker = Asker::Principal(principal.clone());
    let appended = audit.append_limited(asker, &event, at).unwrap();
    appended.is_some()
}

/// Calls of each kind that the log tells of `who`: with a line each, and counted.
fn told(fixture: &Fixture, who: &str) -> [u64; 2] {
    let lines = |name: &str| {
        let mut lines = fixture.lines(&format!("\"event\":\"{name}\""));
        lines.retain(|line| line["principal"] == who);
        lines
    };
    let counted = lines("calls_denied");
    let counted = counted.iter().map(|line| line["calls"].as_u64().unwrap());
    [lines("call_denied").len() as u64, counted.sum()]
}

#[test]
fn a_flood_of_denied_calls_costs_few_lines_and_none_is_lost() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let began = Instant::now();
    let with_lines = (0..10_000).filter(|_| deny(&audit, "mallory", began));
    assert_eq!(with_lines.count(), 32);
    // Another one's budget is its own.
    assert!(deny(&audit, "ada", began));
    // Later there is a line again; before it stands what had none.
    assert!(deny(&audit, "mallory", began + Duration::from_secs(1)));
    assert_eq!(told(&fixture, "mallory"), [33, 9_968]);
    assert!(!deny(&audit, "mallory", began + Duration::from_secs(1)));
    assert!(audit.close(LONG));
    assert_eq!(told(&fixture, "mallory"), [33, 9_969]);
    assert_eq!(told(&fixture, "ada"), [1, 0]);
    let report = fixture.verify();
    assert_eq!((report.problem, report.unsigned_tail), (None, 0));
    assert!(report.lines < 50);
}

#[test]
fn what_has_no_line_is_counted_after_the_next_checkpoint() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let began = Instant::now();
    let with_lines = (0..40).filter(|_| deny(&audit, "mallory", began));
    assert_eq!(with_lines.count(), 32);
    let counted = || told(&fixture, "mallory")[1] > 0;
    while !counted() {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
    assert_eq!(told(&fixture, "mallory"), [32, 8]);
    assert!(audit.close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn a_count_that_the_disk_refuses_stays() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let began = Instant::now();
    while deny(&audit, "mallory", began) {}
    let good = refuse(&fixture, &audit);
    let later = began + Duration::from_secs(1);
    let principal = PrincipalName::parse("mallory").unwrap();
    let refused = audit.append_limited(Asker::Principal(principal), &STOP, later);
    assert!(matches!(refused, Err(AuditError::Write(_))));
    accept(&audit, good);
    assert!(audit.close(LONG));
    assert_eq!(told(&fixture, "mallory"), [32, 1]);
}

fn refuse_request(audit: &Audit, uid: u32, at: Instant) -> bool {
    let event = Event::AdminRefused {
        uid,
        action: "seal",
        code: ErrorCode::Forbidden,
    };
    let appended = audit.append_limited(Asker::User(uid), &event, at);
    appended.unwrap().is_some()
}

#[test]
fn many_users_cost_few_lines_and_none_of_their_requests_is_lost() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let began = Instant::now();
    let refuse = |uid, at| refuse_request(&audit, uid, at);
    assert_eq!((0..100).filter(|_| refuse(7, began)).count(), 32);
    let with_lines = (1000..2000).filter(|uid| refuse(*uid, began));
    // Those with a budget of their own, and the first of all others.
    assert_eq!(with_lines.count(), 255 + 32);
    assert!(!refuse(2000, began));
    assert!(refuse(1000, began), "whose budget is there keeps it");
    // Budgets that are whole again make way.
    let later = began + Duration::from_secs(60);
    assert!((0..32).all(|_| refuse(2000, later)));
    assert!(refuse(2001, later));
    assert!(audit.close(LONG));
    let requests = |uid: serde_json::Value| {
        let lines = fixture.lines("requests_refused");
        let lines = lines.iter().filter(|line| line["uid"] == uid);
        let counts = lines.filter_map(|line| line["requests"].as_u64());
        counts.sum::<u64>()
    };
    assert_eq!(requests(7.into()), 68);
    assert_eq!(requests(serde_json::Value::Null), 1000 - 255 - 32 + 1);
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn what_is_denied_while_the_log_is_closed_is_in_it_once_it_opens() {
    let fixture = Fixture::new();
    let audit = Audit::closed();
    let event = Event::AdminRefused {
        uid: 7,
        action: "seal",
        code: ErrorCode::Forbidden,
    };
    for _ in 0..100 {
        let closed = audit.append_limited(Asker::User(7), &event, Instant::now());
        assert_eq!(closed, Err(AuditError::Closed));
    }
    fixture.open_in(&audit, 1 << 20).unwrap();
    assert_eq!(fixture.lines("\"boot\"")[0]["repeats"], 100);
    assert!(audit.close(LONG));
}

#[test]
fn what_is_served_has_a_budget_of_its_own_and_hides_no_refusal() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let began = Instant::now();
    let pull = |uid| {
        let event = Event::ReceiptGiven { generation: 1, uid };
        let appended = audit.append_limited(Asker::Served(uid), &event, began);
        appended.unwrap().is_some()
    };
    assert_eq!((0..1_000).filter(|_| pull(7)).count(), 32);
    assert!(pull(8));
    assert_eq!(
        (0..100)
            .filter(|_| refuse_request(&audit, 7, began))
            .count(),
        32
    );
    assert!(audit.close(LONG));
    let counted = |event: &str| {
        let lines = fixture.lines(event);
        assert!(lines.iter().all(|line| line["uid"] == 7));
        lines
            .iter()
            .filter_map(|line| line["requests"].as_u64())
            .sum::<u64>()
    };
    assert_eq!(counted("requests_served"), 968);
    assert_eq!(counted("requests_refused"), 68);
    assert_eq!(fixture.verify().problem, None);
}
