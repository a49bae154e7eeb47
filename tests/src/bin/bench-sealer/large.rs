//! A large store: unsealing it, the memory that this takes, and reads in random order.

use std::fs::{self, File};
use std::hint::spin_loop;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mcpist_sealer::{OpenVault, Options};
use mcpist_tests::process::Process;
use mcpist_tests::report::Report;

use crate::site::{Site, VAULT, key, name, right, scattered};
use crate::{Result, size_name};

/// Rows of a store with so many credentials.
pub(crate) fn measure(
    folder: &Path,
    records: usize,
    reads: usize,
    report: &mut Report,
) -> Result<()> {
    let size = size_name(records);
    let site = Site::with(folder, records)?;
    let own = Process::of(std::process::id());
    let before = own.resident_mib()?;
    let started = Instant::now();
    let (barrier, found) = site.unseal(Options::default())?;
    let took = started.elapsed();
    // One record more names the vault.
    if found.records != records as u64 + 1 || found.verified != 2 {
        return Err(format!("unsealing found {found:?}").into());
    }
    report.row(
        &format!("unseal_{size}"),
        took.as_secs_f64() * 1e3,
        "ms",
        &[],
    );
    let vault = barrier.vault(VAULT)?;
    disk(&vault, records, reads, &size, report)?;
    thread(&vault, records, reads / 10, &size, report)?;
    let memory = own.resident_mib()? - before;
    report.row(&format!("memory_{size}"), memory, "MiB", &[]);
    held(&vault, records, reads, &size, report)
}

/// `load` and `open`: SELECT on the vault's thread, comparison with the index, decryption; and what the way to that
/// thread and back takes by itself.
fn disk(
    vault: &OpenVault,
    records: usize,
    reads: usize,
    size: &str,
    report: &mut Report,
) -> Result<()> {
    let mut times = Vec::with_capacity(reads);
    for number in scattered(records).take(reads) {
        let name = name(number);
        let started = Instant::now();
        let opened = vault.open(&vault.load(&key(&name))?)?;
        times.push(started.elapsed());
        right(&opened, number)?;
    }
    let read = format!("read_{size}");
    report.times(&read, times, &[]);
    let mut times = Vec::with_capacity(reads);
    for _ in 0..reads {
        let started = Instant::now();
        vault.outbox_next()?;
        times.push(started.elapsed());
    }
    report.times(&format!("hop_{size}"), times, &[&read]);
    Ok(())
}

/// What the vault's own thread does for a `load`, beyond what a question whose answer is in memory costs there: its CPU
/// time, so that neither the way nor who else wants the core is in it.
fn thread(
    vault: &OpenVault,
    records: usize,
    reads: usize,
    size: &str,
    report: &mut Report,
) -> Result<()> {
    let threads = Threads::of_vaults()?;
    let mut hops = Vec::with_capacity(reads);
    for _ in 0..reads {
        hops.push(threads.spend(|| Ok(vault.outbox_next().map(drop)?))?);
    }
    hops.sort_unstable();
    let hop = hops.get(reads / 2).copied().unwrap_or_default();
    let mut times = Vec::with_capacity(reads);
    for number in scattered(records).take(reads) {
        let name = name(number);
        let load = || Ok(vault.load(&key(&name)).map(drop)?);
        times.push(threads.spend(load)?.saturating_sub(hop));
    }
    report.times(&format!("own_{size}"), times, &[&format!("read_{size}")]);
    Ok(())
}

/// The threads that vaults are read on: what the kernel says of each.
struct Threads(Vec<File>);

impl Threads {
    fn of_vaults() -> Result<Threads> {
        let mut found = Vec::new();
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim_end() == "vault" {
                found.push(File::open(task.join("schedstat"))?);
            }
        }
        Ok(Threads(found))
    }

    /// The CPU time that they spend on `work`.
    fn spend(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let before = self.spent()?;
        let started = Instant::now();
        work()?;
        // The kernel counts when the thread has gone to sleep again.
        while started.elapsed() < Duration::from_micros(60) {
            spin_loop();
        }
        Ok(self.spent()?.saturating_sub(before))
    }

    fn spent(&self) -> Result<Duration> {
        let mut sum = 0;
        for file in &self.0 {
            let mut text = [0; 64];
            let len = file.read_at(&mut text, 0)?;
            let text = std::str::from_utf8(&text[..len])?;
            let spent = text.split(' ').next().ok_or("no time")?;
            sum += spent.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// `open` alone, of records that were loaded before: what a call does.
fn held(
    vault: &OpenVault,
    records: usize,
    reads: usize,
    size: &str,
    report: &mut Report,
) -> Result<()> {
    let mut loaded = Vec::new();
    for number in scattered(records).take(1_000) {
        let name = name(number);
        loaded.push((number, vault.load(&key(&name))?));
    }
    let mut times = Vec::with_capacity(reads);
    for (number, sealed) in loaded.iter().cycle().take(reads) {
        let started = Instant::now();
        let opened = vault.open(sealed)?;
        times.push(started.elapsed());
        right(&opened, *number)?;
    }
    report.times(&format!("open_{size}"), times, &[&format!("read_{size}")]);
    Ok(())
}
