//! Disks that are slow, hang, fill up or fail, and what came while there was no log.

use std::sync::atomic::AtomicBool;

use mcpist_core::error::ErrorCode;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A log whose thread never gets to do anything, as where a sync hangs.
fn hanging(fixture: &Fixture) -> Audit {
    let keys = keys::Keys::load(Box::new(fixture.store.clone())).unwrap();
    let folder = fixture.folder.path();
    let segment = segment::open(folder, keys.genesis(), None, 1 << 20, now()).unwrap();
    let audit = Audit::closed();
    let shared = Shared::new(Some(Writer::new(segment)));
    audit.shared.store(Arc::new(shared));
    audit
}

#[tokio::test]
async fn who_waits_for_a_log_that_was_given_up_is_told() {
    let audit = hanging(&Fixture::new());
    let seq = audit.append(&STOP).unwrap();
    let mut waiting = Box::pin(audit.synced(seq));
    let turn = tokio::time::timeout(Duration::ZERO, &mut waiting).await;
    assert!(turn.is_err(), "nothing was synced");
    assert!(!audit.close(Duration::ZERO));
    let told = tokio::time::timeout(LONG, waiting).await;
    assert_eq!(told, Ok(Err(AuditError::Sync)));
    // Once more, without anybody to wait for.
    assert!(!audit.close(LONG));
}

#[test]
fn a_slow_disk_is_not_a_broken_log() {
    let fixture = Fixture::new();
    let audit = hanging(&fixture);
    let seq = audit.append(&STOP).unwrap();
    let slow = audit.synced_within(Duration::ZERO, seq);
    assert_eq!(slow, Err(AuditError::Slow));
    assert_eq!(audit.state().trouble, None);
    audit.append(&STOP).unwrap();
}

#[test]
fn a_failed_sync_is_seen_until_the_log_is_opened_anew() {
    let fixture = Fixture::new();
    let audit = hanging(&fixture);
    sync::fail(&audit.shared.load());
    let trouble = Some(Trouble::Refused(AuditError::Sync));
    assert_eq!(audit.state().trouble, trouble);
    // At once: there is nothing to wait for.
    assert!(!audit.close(Duration::MAX / 4));
    assert_eq!(audit.state().trouble, None);
    fixture.open_in(&audit, 1 << 20).unwrap();
    assert_eq!(audit.state().trouble, None);
    assert!(audit.close(LONG));
}

/// A store that says when it was let go of.
struct Held {
    memory: Memory,
    _held: Arc<()>,
}

impl CheckpointStore for Held {
    fn load(&self) -> Result<Secret, String> {
        self.memory.load()
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        self.memory.save(payload)
    }
}

#[test]
fn the_store_is_let_go_of_before_a_failed_sync_is_told() {
    let fixture = Fixture::new();
    let (audit, held) = (Audit::closed(), Arc::new(()));
    let store = Held {
        memory: fixture.store.clone(),
        _held: Arc::clone(&held),
    };
    audit
        .open(
            fixture.folder.path(),
            Box::new(store),
            fixture.rotation(1 << 20),
        )
        .unwrap();
    let seq = audit.append(&STOP).unwrap();
    // A socket takes no sync.
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = File::from(std::os::fd::OwnedFd::from(socket));
    audit.shared.load().tail().writer.as_mut().unwrap().file = Arc::new(socket);
    assert_eq!(audit.synced_blocking(seq), Err(AuditError::Sync));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(!audit.close(LONG));
}

/// A store that takes no commit while it is full.
struct Filled {
    memory: Memory,
    full: Arc<AtomicBool>,
}

impl CheckpointStore for Filled {
    fn load(&self) -> Result<Secret, String> {
        self.memory.load()
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        if self.full.load(Ordering::SeqCst) {
            return Err("full".into());
        }
        self.memory.save(payload)
    }
}

#[test]
fn lines_that_the_store_does_not_sign_are_an_alarm_and_told_as_the_log_closes() {
    let fixture = Fixture::new();
    let full = Arc::new(AtomicBool::new(true));
    let audit = Audit::closed();
    let open = || {
        let store = Filled {
            memory: fixture.store.clone(),
            full: Arc::clone(&full),
        };
        // Small: a full segment is to end with a checkpoint at once.
        let rotation = fixture.rotation(4096);
        audit.open(fixture.folder.path(), Box::new(store), rotation)
    };
    open().unwrap();
    while audit.state().trouble != Some(Trouble::Unsigned(0)) {
        let seq = audit.append(&STOP).unwrap();
        audit.synced_blocking(seq).unwrap();
    }
    assert!(!audit.close(LONG));
    // Once there is room it goes on by itself.
    open().unwrap();
    full.store(false, Ordering::SeqCst);
    assert!(audit.close(LONG));
    let report = fixture.verify();
    assert_eq!((report.problem, report.unsigned_tail), (None, 0));
}

#[test]
fn a_last_checkpoint_that_the_disk_refuses_is_told_as_the_log_closes() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let seq = audit.append(&STOP).unwrap();
    audit.synced_blocking(seq).unwrap();
    refuse(&fixture, &audit);
    assert!(!audit.close(LONG));
    // The store has it: the next opening writes it.
    assert!(fixture.open().unwrap().close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn lost_outcomes_are_counted_by_the_first_line_that_the_disk_takes() {
    let fixture = Fixture::new();
    let audit = fixture.open().unwrap();
    let good = refuse(&fixture, &audit);
    assert!(matches!(
        audit.state().trouble,
        Some(Trouble::Refused(AuditError::Write(_)))
    ));
    for _ in 0..2 {
        assert!(audit.append(&STOP).is_err());
        audit.lost();
    }
    accept(&audit, good);
    assert_eq!(audit.state().trouble, None);
    audit.append(&STOP).unwrap();
    audit.append(&STOP).unwrap();
    // After the log was closed, the next one says it.
    assert!(audit.close(LONG));
    audit.lost();
    fixture.open_in(&audit, 1 << 20).unwrap();
    audit.append(&STOP).unwrap();
    let lost: Vec<u64> = fixture
        .lines("audit_lost")
        .iter()
        .map(|l| l["calls"].as_u64().unwrap())
        .collect();
    assert_eq!(lost, [2, 1]);
    assert!(audit.close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn what_came_while_the_log_was_closed_is_in_it_once_it_opens() {
    let fixture = Fixture::new();
    let audit = Audit::closed();
    audit.started(true);
    let refused = |uid| Event::AdminRefused {
        uid,
        action: "seal",
        code: ErrorCode::Forbidden,
    };
    for _ in 0..3 {
        assert_eq!(audit.append(&refused(7)), Err(AuditError::Closed));
        // Of an open store; nothing to tell of a closed one.
        assert_eq!(audit.append(&STOP), Err(AuditError::Closed));
    }
    let turned_away = Event::PeerRefused {
        listener: "mcp.sock",
        uid: Some(8),
        peers: 40,
    };
    assert_eq!(audit.append(&turned_away), Err(AuditError::Closed));
    // A flood of ever other users is counted in one line for each event.
    for uid in 1000..2000 {
        let _ = audit.append(&refused(uid));
        let _ = audit.append(&Event::PeerRefused {
            listener: "mcp.sock",
            uid: Some(uid),
            peers: 1,
        });
    }
    let ticket = Event::TicketIssued {
        uid: 9,
        purpose: "unseal",
    };
    assert_eq!(audit.append(&ticket), Err(AuditError::Closed));
    fixture.open_in(&audit, 1 << 20).unwrap();
    let start = &fixture.lines("\"start\"")[0];
    assert_eq!((&start["seq"], &start["dev"]), (&2.into(), &true.into()));
    let lines = fixture.lines("\"boot\"");
    let first = &lines[0];
    assert_eq!(first["what"], "admin_refused");
    assert_eq!(first["code"], "forbidden");
    assert_eq!((&first["uid"], &first["repeats"]), (&7.into(), &3.into()));
    let of = |what: &str| {
        let lines = lines.iter().filter(|l| l["what"] == what);
        lines.collect::<Vec<_>>()
    };
    let counted = |lines: &[&serde_json::Value]| {
        let counted = lines.iter().map(|l| l["repeats"].as_u64().unwrap());
        counted.sum::<u64>()
    };
    assert_eq!(of("peer_refused").len(), 9);
    assert_eq!(counted(&of("peer_refused")), 1040);
    let refused = of("admin_refused");
    assert_eq!((refused.len(), counted(&refused)), (33, 1003));
    let last = refused[32];
    assert_eq!((&last["code"], last.get("uid")), (&"others".into(), None));
    // Who brings shares is told apart, whoever else came before.
    let tickets = of("ticket_issued");
    assert_eq!((tickets.len(), &tickets[0]["uid"]), (1, &9.into()));
    let all = lines.len();
    assert_eq!(all, 9 + 33 + 1);
    // Each once.
    assert!(audit.close(LONG));
    fixture.open_in(&audit, 1 << 20).unwrap();
    assert_eq!(fixture.lines("\"boot\"").len(), all);
    assert_eq!(fixture.lines("\"start\"").len(), 1);
    assert!(audit.close(LONG));
    assert_eq!(fixture.verify().problem, None);
}

#[test]
fn a_disk_that_fills_is_an_alarm_before_it_is_full() {
    let fixture = Fixture::new();
    let audit = hanging(&fixture);
    let shared = audit.shared.load_full();
    let mut disk = Disk::of(fixture.folder.path(), 1 << 20);
    let alarms = || {
        let lines = fixture.lines("disk_alarm");
        let raised = lines.iter().map(|l| l["raised"].as_bool().unwrap());
        raised.collect::<Vec<_>>()
    };
    disk.judge(&shared, 4 << 20);
    assert_eq!(audit.state().trouble, None);
    disk.judge(&shared, (4 << 20) - 1);
    disk.judge(&shared, 9);
    assert_eq!(audit.state().trouble, Some(Trouble::Low(9)));
    // A little more room does not end it: it would come back at once.
    disk.judge(&shared, 4 << 20);
    assert_eq!(alarms(), [true]);
    disk.judge(&shared, 5 << 20);
    assert_eq!(audit.state().trouble, None);
    assert_eq!(alarms(), [true, false]);
    // A line that the disk refuses comes later.
    let good = refuse(&fixture, &audit);
    disk.judge(&shared, 0);
    accept(&audit, good);
    assert_eq!(alarms(), [true, false]);
    disk.judge(&shared, 0);
    assert_eq!(alarms(), [true, false, true]);
}

#[test]
fn a_checkpoint_that_waits_for_room_keeps_the_thread_from_no_sleep() {
    let fixture = Fixture::new();
    let audit = hanging(&fixture);
    let mut keys = keys::Keys::load(Box::new(fixture.store.clone())).unwrap();
    audit.append(&STOP).unwrap();
    let rest = || {
        let shared = audit.shared.load();
        sync::rest(shared.tail().writer.as_ref().unwrap(), None, sync::LATEST)
    };
    assert_eq!(rest(), Duration::ZERO, "a checkpoint is due");
    let checkpoint = keys.sign(&audit.state().head.unwrap(), now()).unwrap();
    let good = refuse(&fixture, &audit);
    let shared = audit.shared.load_full();
    let write = |checkpoint| {
        let mut tail = shared.tail();
        tail.writer.as_mut().unwrap().write_checkpoint(checkpoint);
    };
    write(checkpoint);
    assert_eq!(rest(), GROUP, "nothing can be signed before it is written");
    accept(&audit, good);
    audit.append(&STOP).unwrap();
    assert_eq!(
        rest(),
        Duration::ZERO,
        "it is written, and the next one is due"
    );
}
