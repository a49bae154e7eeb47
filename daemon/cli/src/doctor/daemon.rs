//! What the daemon says of itself, and of how its process is protected.
//!
//! No I/O: all of it is in its status, which it gives while it is sealed too.

use mcpist_core::api::{ProcessStatus, Status, StoreState};
use mcpist_core::date::date;
use mcpist_core::error::ErrorCode;

use super::{Check, ok, remark, wrong};
use crate::client::JOIN_GROUP;
use crate::error::Error;
use crate::store::is_lost;

/// The pages that the kernel itself cannot reach.
const SECRET_PAGES: &str = "memfd_secret";

/// Why the daemon's word is missing. Who lacks nothing but a role or a group is not sent to the page that stops it.
pub(super) fn unheard(error: &Error) -> Check {
    let own = error.next_step().unwrap_or_default();
    let hangs = match error.code() {
        "daemon_unreachable" => own != JOIN_GROUP,
        code => code == "connection_lost",
    };
    let next = if hangs {
        "mend the sockets below; where they are well, journalctl -u mcpistd and 'The admin socket does not answer' in OPERATIONS"
    } else {
        own
    };
    Check {
        next: Some(next.to_owned().into()),
        ..wrong("daemon", format!("error[{}]: {error}", error.code()), "")
    }
}

/// What the daemon says of itself.
pub(super) fn checks(status: &Status) -> Vec<Check> {
    let mut checks = vec![state(status), memory(status)];
    match &status.process {
        Some(process) => checks.extend(process_checks(status, process)),
        None => checks.push(remark(
            "process",
            format!(
                "mcpistd {} does not say how it is protected",
                status.version
            ),
            "start mcpistd again when its quorum is at hand: it is older than mcpist",
        )),
    }
    checks.extend(time_floor(status));
    for runner in &status.runners {
        checks.push(if runner.connected {
            ok("runner", format!("{} connected", runner.role))
        } else {
            wrong(
                "runner",
                format!("{} not connected", runner.role),
                "start mcpist-runner, and read its log",
            )
        });
    }
    for alarm in &status.alarms {
        let text = format!("{}: {}", alarm.code, alarm.message);
        checks.push(match alarm.code {
            // As it is after every start: it waits for its people.
            ErrorCode::VaultSealed => remark("alarm", text, "see 'Alarms' in OPERATIONS"),
            _ => wrong("alarm", text, "see 'Alarms' in OPERATIONS"),
        });
    }
    checks
}

fn state(status: &Status) -> Check {
    match status.state {
        StoreState::Uninitialised if is_lost(status) => remark(
            "daemon",
            "up, control.db is not there",
            "put it back, or: mcpist restore FILE",
        ),
        StoreState::Uninitialised => remark("daemon", "up, no store yet", "mcpist init"),
        StoreState::Sealed => remark("daemon", "up, sealed", "mcpist unseal"),
        StoreState::Unsealed => ok("daemon", "up, unsealed"),
    }
}

fn memory(status: &Status) -> Check {
    match status.memory.missing.as_slice() {
        [] if status.memory.pages == SECRET_PAGES => ok("memory", SECRET_PAGES),
        [] => remark(
            "memory",
            format!("{} pages, not {SECRET_PAGES}", status.memory.pages),
            "boot with secretmem.enable=1, and start mcpistd again",
        ),
        missing => wrong(
            "memory",
            format!("missing: {}", missing.join(", ")),
            "raise LimitMEMLOCK of mcpistd, and boot with secretmem.enable=1",
        ),
    }
}

fn time_floor(status: &Status) -> Option<Check> {
    match status.time_floor {
        Some(0) if !status.dev => Some(remark(
            "time-floor",
            "not set: a bundle whose time is over would be taken",
            "mcpist registry time-floor DATE --key FILE, and a second officer",
        )),
        Some(floor) if floor > 0 => Some(ok("time-floor", date(floor))),
        _ => None,
    }
}

/// One line for each protection of the process and of the pages that its keys are on.
fn process_checks(status: &Status, process: &ProcessStatus) -> Vec<Check> {
    let mut checks = vec![
        memlock(process),
        held(
            "dont-dump",
            process.dont_dump,
            "keys are left out of cores",
            "keys would be in a core (MADV_DONTDUMP was refused)",
        ),
        held(
            "dont-fork",
            process.dont_fork,
            "a child does not get the keys",
            "a child would get the keys (MADV_DONTFORK was refused)",
        ),
    ];
    if status.memory.pages != SECRET_PAGES {
        checks.push(held(
            "wipe-on-fork",
            process.wipe_on_fork,
            "keys would be empty in a child",
            "keys would stand in a child (MADV_WIPEONFORK was refused)",
        ));
    }
    checks.push(if process.dumpable {
        wrong(
            "dumpable",
            "other programs of mcpistd's user may read its memory and attach to it",
            "install mcpistd as it is shipped: this build is one for tests",
        )
    } else {
        ok(
            "dumpable",
            "no program of mcpistd's user may read its memory",
        )
    });
    checks.push(if process.core_bytes == 0 {
        ok("core-limit", "0: mcpistd leaves no core")
    } else {
        wrong(
            "core-limit",
            format!("{}: mcpistd may leave a core", bytes(process.core_bytes)),
            "LimitCORE=0 in the unit of mcpistd, and start it again",
        )
    });
    if !status.dev {
        checks.push(unit(process));
    }
    checks.push(if process.tpm {
        ok("tpm", "its counter is a witness of the store")
    } else {
        super::machine::tpm()
    });
    checks
}

fn held(name: &'static str, held: bool, good: &str, bad: &str) -> Check {
    if held {
        ok(name, good)
    } else {
        wrong(
            name,
            bad,
            "boot a kernel that has it; mcpistd needs Linux 4.14 at least",
        )
    }
}

/// Whether the arena fits what the process may lock. A privilege goes past the limit, and then the pages are locked.
fn memlock(process: &ProcessStatus) -> Check {
    let found = format!(
        "{} of keys, {} may be locked",
        bytes(process.arena_bytes),
        bytes(process.memlock_bytes)
    );
    if process.memlock_bytes >= process.arena_bytes {
        ok("memlock", found)
    } else {
        wrong(
            "memlock",
            found,
            "raise LimitMEMLOCK of mcpistd above [limits] arena-kib, and start it again",
        )
    }
}

/// What a unit can take from a process, as far as the process sees it.
fn unit(process: &ProcessStatus) -> Check {
    let lacks: Vec<_> = [
        (!process.no_new_privileges, "NoNewPrivileges=yes"),
        (!process.filtered, "SystemCallFilter="),
        (process.capable, "CapabilityBoundingSet="),
        (process.networked, "PrivateNetwork=yes"),
    ]
    .into_iter()
    .filter_map(|(lacks, setting)| lacks.then_some(setting))
    .collect();
    if lacks.is_empty() {
        ok(
            "unit",
            "no privilege, no network, its system calls are filtered",
        )
    } else {
        remark(
            "unit",
            format!("lacks {}", lacks.join(", ")),
            "set them in the unit of mcpistd, systemctl daemon-reload, and start it again",
        )
    }
}

fn bytes(bytes: u64) -> String {
    if bytes == u64::MAX {
        "no limit".into()
    } else {
        format!("{} KiB", bytes.div_ceil(1024))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;

    use mcpist_core::api::{ApiError, MemoryStatus};
    use mcpist_core::error::ErrorCode;

    use super::super::Level;
    use super::*;
    use crate::client::unreachable;

    #[test]
    fn who_lacks_a_role_is_not_sent_to_the_page_that_stops_the_daemon() {
        let refused = |kind| unreachable(Path::new("admin.sock"), &std::io::Error::from(kind));
        let next = |e: Error| unheard(&e).next.unwrap_or_default().into_owned();
        let stops = |e| next(e).contains("OPERATIONS");
        let forbidden = || Error::from(ApiError::of(ErrorCode::Forbidden));
        assert!(!stops(forbidden()));
        assert_eq!(next(forbidden()), "ask for membership in the role's group");
        assert_eq!(next(refused(ErrorKind::PermissionDenied)), JOIN_GROUP);
        assert!(stops(refused(ErrorKind::ConnectionRefused)));
        assert!(stops(Error::new("connection_lost", "does not answer")));
    }

    /// A daemon that lacks nothing, outside development.
    fn well() -> Status {
        Status {
            version: String::new(),
            state: StoreState::Unsealed,
            dev: false,
            store: None,
            shares: None,
            site: None,
            time_floor: None,
            unseal: None,
            ceremony: None,
            restore: None,
            uptime_s: 0,
            calls_in_flight: 0,
            memory: MemoryStatus {
                pages: SECRET_PAGES.to_owned(),
                missing: Vec::new(),
            },
            process: Some(ProcessStatus {
                arena_bytes: 1 << 20,
                memlock_bytes: 8 << 20,
                dont_dump: true,
                dont_fork: true,
                wipe_on_fork: false,
                dumpable: false,
                core_bytes: 0,
                no_new_privileges: true,
                filtered: true,
                capable: false,
                networked: false,
                tpm: true,
            }),
            vaults: Vec::new(),
            modules: Vec::new(),
            runners: Vec::new(),
            witness: None,
            backup: None,
            old_store: false,
            audit: None,
            alarms: Vec::new(),
        }
    }

    fn found(status: &Status, name: &str) -> Option<(Level, String)> {
        let mut checks = checks(status).into_iter();
        let check = checks.find(|c| c.name == name)?;
        assert_eq!(check.next.is_some(), check.level != Level::Ok, "{check:?}");
        Some((check.level, check.found))
    }

    #[test]
    fn a_time_floor_that_was_never_set_is_a_remark_on_an_open_store() {
        let found = |floor: Option<u64>, dev: bool| {
            let status = Status {
                time_floor: floor,
                dev,
                ..well()
            };
            found(&status, "time-floor")
        };
        assert_eq!(found(Some(0), false).map(|c| c.0), Some(Level::Remark));
        let set = Some((Level::Ok, "2026-11-24".to_owned()));
        assert_eq!(found(Some(1_795_478_400), false), set);
        assert_eq!(found(None, false), None);
        assert_eq!(found(Some(0), true), None);
    }

    #[test]
    fn each_protection_has_a_line_and_each_that_is_lowered_is_wrong_there() {
        type Lower = fn(&mut Status, &mut ProcessStatus);
        let lowered: [(&str, Level, Lower); 12] = [
            ("memory", Level::Wrong, |s, _| {
                s.memory.missing.push("pages that are never swapped".into());
            }),
            ("memory", Level::Remark, |s, _| {
                s.memory.pages = "locked".into()
            }),
            ("wipe-on-fork", Level::Wrong, |s, _| {
                s.memory.pages = "locked".into()
            }),
            ("memlock", Level::Wrong, |_, p| p.memlock_bytes = 0),
            ("dont-dump", Level::Wrong, |_, p| p.dont_dump = false),
            ("dont-fork", Level::Wrong, |_, p| p.dont_fork = false),
            ("dumpable", Level::Wrong, |_, p| p.dumpable = true),
            ("core-limit", Level::Wrong, |_, p| p.core_bytes = u64::MAX),
            ("unit", Level::Remark, |_, p| p.no_new_privileges = false),
            ("unit", Level::Remark, |_, p| p.filtered = false),
            ("unit", Level::Remark, |_, p| p.capable = true),
            ("unit", Level::Remark, |_, p| p.networked = true),
        ];
        for check in checks(&well()) {
            assert_eq!(check.level, Level::Ok, "{check:?}");
        }
        for (name, level, lower) in lowered {
            let mut status = well();
            let mut process = status.process.take().unwrap();
            lower(&mut status, &mut process);
            status.process = Some(process);
            assert_eq!(found(&status, name).map(|c| c.0), Some(level), "{name}");
        }
    }

    #[test]
    fn a_daemon_that_is_older_than_its_caller_is_told_from_one_that_is_well() {
        let old = Status {
            process: None,
            ..well()
        };
        assert_eq!(found(&old, "process").map(|c| c.0), Some(Level::Remark));
        assert_eq!(found(&old, "dumpable"), None);
    }
}
