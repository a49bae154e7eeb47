//! `doctor`: what this host lacks, each line with what to do about it.
//!
//! Reads the host as its caller sees it, and the daemon's own word where the daemon answers. Promises to change nothing
//! and to need no root; what only the daemon can know (the limits of its unit) is taken from the daemon. Each check is a
//! pure function of a text or a number that was read; a thin shell reads them.

use std::borrow::Cow;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use mcpist_core::api::{Status, StoreState, path};
use mcpist_core::error::EXIT_FAILURE;
use mcpist_secret::Secret;
use mcpist_secret::memory::{PageKind, protections};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use crate::Context;
use crate::client::JOIN_GROUP;
use crate::error::{Error, Result};
use crate::store::is_lost;
use mcpist_core::date::date;

/// Secret memory of a daemon with the usual limits, in bytes.
const MEMLOCK: u64 = 8 << 20;
/// Free space that unseal, seal and the open audit segment need, in bytes.
const FREE: u64 = 64 << 20;
/// How long the daemon's own word is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// 2026-01-01: no host that runs this program is older.
const EPOCH: u64 = 1_767_225_600;

/// Look for what this host lacks, and say what to do about it; changes nothing
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist doctor
  mcpist doctor --state /srv/mcpist --output json

Exit status: 0 nothing is wrong, 1 something is. A remark is nothing wrong.")]
pub(crate) struct DoctorArgs {
    /// Folder of the daemon's state, whose disk is looked at
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mcpist")]
    state: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Remark,
    Wrong,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cow<'static, str>>,
}

#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Check>,
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        level: Level::Ok,
        found: found.into(),
        next: None,
    }
}

fn remark(name: &'static str, found: impl Into<String>, next: &'static str) -> Check {
    Check {
        level: Level::Remark,
        next: Some(next.into()),
        ..ok(name, found)
    }
}

fn wrong(name: &'static str, found: impl Into<String>, next: &'static str) -> Check {
    Check {
        level: Level::Wrong,
        ..remark(name, found, next)
    }
}

pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Result<u8> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let client = context.client.within(PATIENCE);
    let status = client.get::<Status>(path::STATUS).await;
    let mut checks = match &status {
        Ok(status) => daemon(status),
        Err(e) => vec![
            unheard(e),
            pages(),
            memlock(getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft)),
        ],
    };
    checks.push(core(
        &read("/proc/sys/kernel/core_pattern"),
        &read("/proc/sys/fs/suid_dumpable"),
    ));
    checks.push(swap(&read("/proc/swaps")));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let newest = std::fs::metadata(&args.state).map_or(0, |meta| meta.mtime());
    checks.push(clock(now, u64::try_from(newest).unwrap_or(0)));
    for (name, closed) in [
        ("admin.sock", true),
        ("secret.sock", true),
        ("mcp.sock", false),
    ] {
        checks.push(socket(name, &context.client.socket(name), closed));
    }
    checks.push(space(&args.state));
    let findings = Findings {
        ok: checks.iter().all(|c| c.level != Level::Wrong),
        checks,
    };
    context.out.data(&findings, show)?;
    Ok(if findings.ok { 0 } else { EXIT_FAILURE })
}

/// Why the daemon's word is missing. Who lacks nothing but a role or a group is not sent to the page that stops it.
fn unheard(error: &Error) -> Check {
    let own = error.next_step().unwrap_or_default();
    let hangs = match error.code() {
        "daemon_unreachable" => own != JOIN_GROUP,
        code => code == "connection_lost",
    };
    let next = if hangs {
        "mend the sockets below; where they are well, journalctl -u mcpistd and 'The admin socket does not answer' in OPERATING"
    } else {
        own
    };
    Check {
        next: Some(next.to_owned().into()),
        ..wrong("daemon", format!("error[{}]: {error}", error.code()), "")
    }
}

/// What the daemon says of itself.
fn daemon(status: &Status) -> Vec<Check> {
    let mut checks = vec![match status.state {
        StoreState::Uninitialised if is_lost(status) => remark(
            "daemon",
            "up, control.db is not there",
            "put it back, or: mcpist restore FILE",
        ),
        StoreState::Uninitialised => remark("daemon", "up, no store yet", "mcpist init"),
        StoreState::Sealed => remark("daemon", "up, sealed", "mcpist unseal"),
        StoreState::Unsealed => ok("daemon", "up, unsealed"),
    }];
    checks.push(match status.memory.missing.as_slice() {
        [] if status.memory.pages == "memfd_secret" => ok("memory", "memfd_secret"),
        [] => remark(
            "memory",
            format!("{} pages, not memfd_secret", status.memory.pages),
            "boot with secretmem.enable=1, and start mcpistd again",
        ),
        missing => wrong(
            "memory",
            format!("missing: {}", missing.join(", ")),
            "raise LimitMEMLOCK of mcpistd, and boot with secretmem.enable=1",
        ),
    });
    match status.time_floor {
        Some(0) if !status.dev => checks.push(remark(
            "time floor",
            "not set: a bundle whose time is over would be taken",
            "mcpist registry time-floor DATE --key FILE, and a second officer",
        )),
        Some(floor) if floor > 0 => checks.push(ok("time floor", date(floor))),
        _ => {}
    }
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
        checks.push(wrong(
            "alarm",
            format!("{}: {}", alarm.code, alarm.message),
            "see 'Alarms' in OPERATING",
        ));
    }
    checks
}

/// The pages that this program gets for a secret of its own.
fn pages() -> Check {
    let got = Secret::zeroed(1).map(|_| protections().kind);
    match got {
        Ok(PageKind::MemfdSecret) => ok("memory", "this user gets memfd_secret"),
        Ok(PageKind::Locked) => remark(
            "memory",
            "this user gets locked pages, not memfd_secret",
            "boot with secretmem.enable=1",
        ),
        Ok(PageKind::Plain) | Err(_) => wrong(
            "memory",
            "this user gets pages that may be swapped",
            "ulimit -l 8192, and boot with secretmem.enable=1",
        ),
    }
}

fn memlock(limit: u64) -> Check {
    let found = format!("{} KiB for this user", limit >> 10);
    if limit >= MEMLOCK {
        ok(
            "memlock",
            if limit == u64::MAX {
                "no limit".into()
            } else {
                found
            },
        )
    } else {
        wrong(
            "memlock",
            found,
            "LimitMEMLOCK=8M in the unit, or ulimit -l 8192",
        )
    }
}

/// Our daemons are never dumped; other programs of an operator hold shares for a moment.
fn core(pattern: &str, suid_dumpable: &str) -> Check {
    let pattern = pattern.trim();
    if suid_dumpable.trim() == "1" {
        return wrong(
            "cores",
            "fs.suid_dumpable is 1: protected processes are dumped",
            "sysctl fs.suid_dumpable=0",
        );
    }
    match pattern.strip_prefix('|') {
        Some(program) => remark(
            "cores",
            format!("go to {}", program.split(' ').next().unwrap_or_default()),
            "sysctl kernel.core_pattern=core, so that no dump of a tool that held a share is kept",
        ),
        None => ok("cores", "not kept by a program"),
    }
}

fn swap(swaps: &str) -> Check {
    let devices: Vec<_> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|device| !device.contains("zram"))
        .collect();
    if devices.is_empty() {
        ok("swap", "none on a disk")
    } else {
        remark(
            "swap",
            devices.join(", "),
            "swapoff -a, or encrypt it: keys are never swapped, what tools typed may be",
        )
    }
}

fn clock(now: u64, newest: u64) -> Check {
    if now < EPOCH {
        wrong("clock", "before 2026", "timedatectl set-time")
    } else if newest > now + 60 {
        wrong(
            "clock",
            format!("{} s behind the state folder's last change", newest - now),
            "timedatectl set-time",
        )
    } else {
        ok("clock", "not behind")
    }
}

fn socket(name: &'static str, path: &Path, closed: bool) -> Check {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return wrong(
            name,
            format!("{} is not there", path.display()),
            "systemctl start mcpistd, or name its folder with --run",
        );
    };
    let mode = meta.mode() & 0o777;
    let found = format!("mode {mode:04o}, uid {}, gid {}", meta.uid(), meta.gid());
    if !meta.file_type().is_socket() {
        wrong(name, "is no socket", "remove it, and start mcpistd")
    } else if closed && mode & 0o007 != 0 {
        wrong(
            name,
            found,
            "SocketMode=0660: roles are checked, but not for everybody to try",
        )
    } else if !closed && mode & 0o002 == 0 {
        remark(
            name,
            found,
            "SocketMode=0666, unless only its group is to reach it",
        )
    } else {
        ok(name, found)
    }
}

fn space(state: &Path) -> Check {
    match statvfs(state) {
        Err(e) => remark(
            "space",
            format!("{}: {e}", state.display()),
            "name the state folder with --state",
        ),
        Ok(disk) => free(disk.blocks_available() * disk.fragment_size()),
    }
}

fn free(bytes: u64) -> Check {
    let found = format!("{} MiB free for the store and the audit log", bytes >> 20);
    if bytes < FREE {
        wrong(
            "space",
            found,
            "make room on this disk, but remove nothing of the state folder: without it no call is recorded, so none is made",
        )
    } else if bytes < 16 * FREE {
        remark(
            "space",
            found,
            "make room on this disk, 1 GiB at least, but remove nothing of the state folder",
        )
    } else {
        ok("space", found)
    }
}

fn show(findings: &Findings) -> String {
    let mut lines = Vec::new();
    for check in &findings.checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Remark => "remark",
            Level::Wrong => "WRONG",
        };
        lines.push(format!("{level:<7} {:<12} {}", check.name, check.found));
        if let Some(next) = &check.next {
            lines.push(format!("{:<7} next: {next}", ""));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use mcpist_core::api::{ApiError, MemoryStatus};
    use mcpist_core::error::ErrorCode;

    use super::*;
    use crate::client::unreachable;

    #[test]
    fn what_a_host_lacks_is_found_and_each_finding_says_what_to_do() {
        let wrong = [
            memlock(64 << 10),
            core("core", "1\n"),
            clock(1_000, 0),
            clock(EPOCH + 10, EPOCH + 1_000),
            free(FREE - 1),
            socket("admin.sock", Path::new("/proc/version"), true),
            socket("admin.sock", Path::new("/nowhere"), true),
        ];
        for check in wrong {
            assert_eq!(check.level, Level::Wrong, "{check:?}");
            assert!(check.next.is_some());
        }
        let remarks = [
            core("|/usr/lib/systemd/systemd-coredump %P %u\n", "0\n"),
            swap("Filename Type\n/dev/sda2 partition 1 0 -2\n"),
            free(FREE),
        ];
        for check in remarks {
            assert_eq!(check.level, Level::Remark, "{check:?}");
            assert!(check.next.is_some());
        }
    }

    #[test]
    fn who_lacks_a_role_is_not_sent_to_the_page_that_stops_the_daemon() {
        let refused = |kind| unreachable(Path::new("admin.sock"), &std::io::Error::from(kind));
        let next = |e: Error| unheard(&e).next.unwrap_or_default().into_owned();
        let stops = |e| next(e).contains("OPERATING");
        let forbidden = || Error::from(ApiError::of(ErrorCode::Forbidden));
        assert!(!stops(forbidden()));
        assert_eq!(next(forbidden()), "ask for membership in the role's group");
        assert_eq!(next(refused(ErrorKind::PermissionDenied)), JOIN_GROUP);
        assert!(stops(refused(ErrorKind::ConnectionRefused)));
        assert!(stops(Error::new("connection_lost", "does not answer")));
    }

    #[test]
    fn a_time_floor_that_was_never_set_is_a_remark_on_an_open_store() {
        let status = |floor: Option<u64>, dev: bool| Status {
            version: String::new(),
            state: StoreState::Unsealed,
            dev,
            store: None,
            site: None,
            time_floor: floor,
            unseal: None,
            ceremony: None,
            restore: None,
            uptime_s: 0,
            calls_in_flight: 0,
            memory: MemoryStatus {
                pages: "memfd_secret".to_owned(),
                missing: Vec::new(),
            },
            vaults: Vec::new(),
            modules: Vec::new(),
            runners: Vec::new(),
            witness: None,
            backup: None,
            old_store: false,
            audit: None,
            alarms: Vec::new(),
        };
        let found = |floor, dev| {
            let mut checks = daemon(&status(floor, dev)).into_iter();
            let check = checks.find(|c| c.name == "time floor")?;
            Some((check.level, check.found))
        };
        assert_eq!(found(Some(0), false).map(|c| c.0), Some(Level::Remark));
        let set = Some((Level::Ok, "2026-11-24".to_owned()));
        assert_eq!(found(Some(1_795_478_400), false), set);
        assert_eq!(found(None, false), None);
        assert_eq!(found(Some(0), true), None);
    }

    #[test]
    fn a_host_that_lacks_nothing_is_told_so() {
        let good = [
            memlock(MEMLOCK),
            memlock(u64::MAX),
            core("core\n", "0\n"),
            swap("Filename Type\n/dev/zram0 partition 1 0 100\n"),
            clock(EPOCH, EPOCH),
            free(1 << 40),
        ];
        for check in good {
            assert_eq!(check.level, Level::Ok, "{check:?}");
            assert_eq!(check.next, None);
        }
    }
}
