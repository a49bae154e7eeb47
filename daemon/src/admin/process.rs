//! What protects this process, as the kernel says it now. `doctor` asks for it: nobody else may read a process that is not
//! dumpable.
//!
//! Promises that what cannot be read counts as missing. Does not judge: what a host owes is `doctor`'s to know.

use mcpist_core::api::ProcessStatus;
use mcpist_secret::memory::protections;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};

/// The protection of this process; `tpm` says whether a counter is bound.
pub(super) fn shown(tpm: bool) -> ProcessStatus {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let limit = |of| getrlimit(of).map(|(soft, _)| soft);
    let arena = protections();
    let status = read("/proc/self/status");
    let networked = match std::fs::read_to_string("/proc/self/net/route") {
        Ok(v4) => leads_out(&v4, &read("/proc/self/net/ipv6_route")),
        Err(_) => true,
    };
    ProcessStatus {
        arena_bytes: arena.arena_bytes as u64,
        memlock_bytes: limit(Resource::RLIMIT_MEMLOCK).unwrap_or(0),
        dont_dump: arena.dont_dump,
        dont_fork: arena.dont_fork,
        wipe_on_fork: arena.wipe_on_fork,
        dumpable: prctl::get_dumpable().unwrap_or(true),
        core_bytes: limit(Resource::RLIMIT_CORE).unwrap_or(u64::MAX),
        no_new_privileges: field(&status, "NoNewPrivs") == Some("1"),
        filtered: field(&status, "Seccomp") == Some("2"),
        capable: field(&status, "CapEff").is_none_or(|set| !set.trim_matches('0').is_empty()),
        networked,
        tpm,
    }
}

/// A field of proc(5)'s `status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(of, _)| *of == name)
        .map(|(_, value)| value.trim())
}

/// Whether a route of `/proc/net/route` or `/proc/net/ipv6_route` leads to more than the process's own host.
fn leads_out(v4: &str, v6: &str) -> bool {
    let first = v4
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next());
    let last = v6.lines().filter_map(|l| l.split_whitespace().last());
    first.chain(last).any(|interface| interface != "lo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_shown_as_the_kernel_has_it() {
        let before = prctl::get_dumpable().unwrap();
        prctl::set_dumpable(true).unwrap();
        assert!(shown(false).dumpable);
        prctl::set_dumpable(before).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        assert_eq!(shown(true).core_bytes, soft);
        assert!(soft <= hard);
        assert!(shown(true).tpm);
    }

    #[test]
    fn what_the_kernel_does_not_say_is_missing() {
        let status = "Name:\tmcpistd\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(field(status, "NoNewPrivs"), Some("1"));
        assert_eq!(field(status, "CapEff"), Some("0000000000000000"));
        assert_eq!(field("", "CapEff"), None);
    }

    #[test]
    fn a_network_is_a_route_beyond_the_host() {
        let head = "Iface\tDestination\tGateway\n";
        let lo = "00000000000000000000000000000001 80 00 lo\n";
        assert!(!leads_out(head, lo));
        assert!(!leads_out("", ""));
        assert!(leads_out(&format!("{head}eth0\t00000000\t01010101\n"), lo));
        assert!(leads_out(head, &lo.replace("lo", "eth0")));
    }
}
