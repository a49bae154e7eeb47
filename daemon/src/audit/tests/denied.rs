//! Floods of calls that are denied.

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
    let appended = audit.append_denied(&principal, &event, at).unwrap();
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
    let refused = audit.append_denied(&principal, &STOP, later);
    assert!(matches!(refused, Err(AuditError::Write(_))));
    accept(&audit, good);
    assert!(audit.close(LONG));
    assert_eq!(told(&fixture, "mallory"), [32, 1]);
}
