//! A large store: unsealing it, the memory that this takes, and reads in random order.

use std::fs::{self, File};
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
    let memory = own.resident_mib()? - before;
    report.row(&format!("memory_{size}"), memory, "MiB", &[]);
    held(&vault, records, reads, &size, report)
}

/// `load` and `open`: SELECT on the vault's thread, comparison with the index, decryption; what the way to that thread
/// and back takes by itself; and the thread's own work, by its CPU time: neither the way nor who else wants the core is in it.
fn disk(
    vault: &OpenVault,
    records: usize,
    reads: usize,
    size: &str,
    report: &mut Report,
) -> Result<()> {
    let threads = Threads::of_vaults()?;
    let before = threads.spent()?;
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
    let between = threads.spent()?;
    let mut times = Vec::with_capacity(reads);
    for _ in 0..reads {
        let started = Instant::now();
        vault.outbox_next()?;
        times.push(started.elapsed());
    }
    report.times(&format!("hop_{size}"), times, &[&read]);
    let hops = threads.spent()?.saturating_sub(between);
    let loads = between.saturating_sub(before).saturating_sub(hops);
    let own = loads.as_secs_f64() * 1e6 / reads as f64;
    report.row(&format!("own_{size}"), own, "us", &[]);
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

    /// The CPU time that they have had.
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
