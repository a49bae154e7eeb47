//! What the host says: its memory, its clock, its disk, its sockets.
//!
//! Reads files of `/proc`, `/sys` and `/dev` that everybody may read. What a host does not have (a kernel without Yama, a
//! machine without hibernation) is told from what it has and should not.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mcpist_secret::Secret;
use mcpist_secret::memory::{PageKind, protections};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use super::{Check, ok, remark, wrong};

/// Secret memory of a daemon with the usual limits, in bytes.
const MEMLOCK: u64 = 8 << 20;
/// Free space that unseal, seal and the open audit segment need, in bytes.
const FREE: u64 = 64 << 20;
/// 2026-01-01: no host that runs this program is older.
const EPOCH: u64 = 1_767_225_600;
/// What a device on a device stands on is followed so far.
const DEPTH: usize = 8;

/// What this program gets itself, where no daemon says what it has.
pub(super) fn of_this_user() -> Vec<Check> {
    vec![
        pages(),
        memlock(getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft)),
        tpm(),
    ]
}

/// Where memory may go on the host whose root folder is `root`: to cores, to a disk, to a tracer.
pub(super) fn memory(root: &Path) -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let swaps = read("proc/swaps");
    let clear = in_clear(root, &swaps);
    vec![
        core(
            &read("proc/sys/kernel/core_pattern"),
            &read("proc/sys/fs/suid_dumpable"),
        ),
        swap(&swaps, &clear),
        hibernation(&read("sys/power/disk"), !clear.is_empty()),
        ptrace(&read("proc/sys/kernel/yama/ptrace_scope")),
    ]
}

/// The clock and the disk of the daemon's state folder.
pub(super) fn state(folder: &Path) -> [Check; 2] {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let newest = std::fs::metadata(folder).map_or(0, |meta| meta.mtime());
    [
        clock(now, u64::try_from(newest).unwrap_or(0)),
        space(folder),
    ]
}

/// The TPM of a daemon that does not use it.
pub(super) fn tpm() -> Check {
    if Path::new("/dev/tpmrm0").exists() {
        remark(
            "tpm",
            "there is one, and mcpistd does not use it",
            "[tpm] device = \"/dev/tpmrm0\" in mcpist.toml: then a disk that was put back is seen with no receipt at hand",
        )
    } else {
        remark(
            "tpm",
            "none: a disk that was put back is seen by witness receipts alone",
            "mcpist witness pull, kept with each share",
        )
    }
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

/// The devices of `/proc/swaps` that are on a disk in clear, or on one that cannot be told.
fn in_clear(root: &Path, swaps: &str) -> Vec<String> {
    on_disk(swaps)
        .filter(|(device, kind)| *kind != "partition" || !is_encrypted(root, device))
        .map(|(device, _)| device.to_owned())
        .collect()
}

/// The devices and kinds of `/proc/swaps`, without those that are memory.
fn on_disk(swaps: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = swaps.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    lines.filter(|(device, _)| !device.contains("zram"))
}

/// Whether a block device is dm-crypt's, or all that it stands on is.
fn is_encrypted(root: &Path, device: &str) -> bool {
    // A name under /dev/mapper is a link to the kernel's own.
    let path = root.join(device.trim_start_matches('/'));
    let path = path.canonicalize().unwrap_or(path);
    let Some(name) = path.file_name() else {
        return false;
    };
    stands_on_crypt(&root.join("sys/class/block").join(name), DEPTH)
}

fn stands_on_crypt(block: &Path, depth: usize) -> bool {
    let uuid = std::fs::read_to_string(block.join("dm/uuid")).unwrap_or_default();
    if uuid.starts_with("CRYPT-") {
        return true;
    }
    let below: Vec<PathBuf> = std::fs::read_dir(block.join("slaves"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    depth > 0 && !below.is_empty() && below.iter().all(|block| stands_on_crypt(block, depth - 1))
}

fn swap(swaps: &str, clear: &[String]) -> Check {
    if !clear.is_empty() {
        remark(
            "swap",
            format!("{}, not seen to be encrypted", clear.join(", ")),
            "swapoff -a, or encrypt it: keys are never swapped, what tools typed may be",
        )
    } else if on_disk(swaps).next().is_some() {
        ok("swap", "encrypted")
    } else {
        ok("swap", "none on a disk")
    }
}

/// An image of all memory, locked pages too, goes to the swap device. `modes` is `/sys/power/disk`, which says "disabled"
/// also while a program has `memfd_secret` pages.
fn hibernation(modes: &str, has_clear_swap: bool) -> Check {
    const OFF: &str = "systemctl mask hibernate.target hybrid-sleep.target suspend-then-hibernate.target, and boot with nohibernate";
    match modes.trim() {
        "" | "[disabled]" => ok("hibernation", "not to be had"),
        _ if has_clear_swap => wrong("hibernation", "would write keys to a disk in clear", OFF),
        _ => remark(
            "hibernation",
            "would write keys to the disk that it is given",
            OFF,
        ),
    }
}

fn ptrace(scope: &str) -> Check {
    match scope.trim() {
        "" => remark(
            "ptrace",
            "this kernel has no Yama: programs of one user may attach to each other",
            "boot a kernel with Yama; mcpistd and mcpist refuse a tracer of their own user in any case",
        ),
        "0" => remark(
            "ptrace",
            "programs of one user may attach to each other",
            "sysctl kernel.yama.ptrace_scope=1; mcpistd and mcpist refuse a tracer of their own user in any case",
        ),
        scope => ok("ptrace", format!("restricted, scope {scope}")),
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

pub(super) fn socket(name: &'static str, path: &Path, closed: bool) -> Check {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Level;
    use super::*;

    const SWAPS: &str = "Filename Type Size Used Priority\n";

    #[test]
    fn what_a_host_lacks_is_found_and_each_finding_says_what_to_do() {
        let wrong = [
            memlock(64 << 10),
            core("core", "1\n"),
            hibernation("[platform] shutdown reboot\n", true),
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
            swap(SWAPS, &["/dev/sda2".to_owned()]),
            hibernation("[platform] shutdown reboot\n", false),
            ptrace("0\n"),
            ptrace(""),
            free(FREE),
        ];
        for check in remarks {
            assert_eq!(check.level, Level::Remark, "{check:?}");
            assert!(check.next.is_some());
        }
    }

    #[test]
    fn a_host_that_lacks_nothing_is_told_so() {
        let good = [
            memlock(MEMLOCK),
            memlock(u64::MAX),
            core("core\n", "0\n"),
            swap(&format!("{SWAPS}/dev/zram0 partition 1 0 100\n"), &[]),
            hibernation("", true),
            hibernation("[disabled]\n", true),
            ptrace("1\n"),
            clock(EPOCH, EPOCH),
            free(1 << 40),
        ];
        for check in good {
            assert_eq!(check.level, Level::Ok, "{check:?}");
            assert_eq!(check.next, None);
        }
    }

    /// A host with a plain partition, a partition of dm-crypt under a name, and a logical volume on it.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let block = root.path().join("sys/class/block");
        for (name, uuid) in [("dm-0", "CRYPT-LUKS2-00\n"), ("dm-1", "LVM-00\n")] {
            std::fs::create_dir_all(block.join(name).join("dm")).unwrap();
            std::fs::write(block.join(name).join("dm/uuid"), uuid).unwrap();
        }
        let below = block.join("dm-1/slaves");
        std::fs::create_dir_all(&below).unwrap();
        std::os::unix::fs::symlink(block.join("dm-0"), below.join("dm-0")).unwrap();
        std::fs::create_dir_all(block.join("sda2/slaves")).unwrap();
        let mapper = root.path().join("dev/mapper");
        std::fs::create_dir_all(&mapper).unwrap();
        std::fs::write(root.path().join("dev/dm-0"), "").unwrap();
        std::os::unix::fs::symlink("../dm-0", mapper.join("swap")).unwrap();
        root
    }

    #[test]
    fn swap_is_in_clear_unless_all_that_it_stands_on_is_seen_to_be_encrypted() {
        let root = host();
        let clear = |line: &str| in_clear(root.path(), &format!("{SWAPS}{line} 1 0 -2\n"));
        assert!(clear("/dev/mapper/swap partition").is_empty());
        assert!(clear("/dev/dm-1 partition").is_empty());
        assert!(clear("/dev/zram0 partition").is_empty());
        for seen in [
            "/dev/sda2 partition",
            "/dev/gone partition",
            "/swap.img file",
        ] {
            assert_eq!(clear(seen).len(), 1, "{seen}");
        }
        // A second device below it is in clear.
        let block = root.path().join("sys/class/block");
        std::os::unix::fs::symlink(block.join("sda2"), block.join("dm-1/slaves/sda2")).unwrap();
        assert_eq!(clear("/dev/dm-1 partition"), ["/dev/dm-1"]);
    }
}
