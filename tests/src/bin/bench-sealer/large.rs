//! A large store: unsealing it, the memory that this takes, and reads in random order.

use std::path::Path;
use std::time::Instant;

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
