//! Durable writes: one writer and many, one vault and several, and what one fsync takes by itself.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mcpist_sealer::{Op, OpenVault, Options};
use mcpist_tests::report::Report;

use crate::Result;
use crate::site::{Site, put};

/// Vaults that are written to.
const VAULTS: usize = 4;
/// Writers, spread over the vaults; each waits for its commit before the next.
const WRITERS: usize = 32;
/// Writers of one vault, whose commits are one record each.
const TOGETHER: [usize; 4] = [1, 8, 64, 256];
/// Records of one commit where they come in batches.
const BATCH: usize = 64;
/// How often fsync is measured alone.
const SYNCS: usize = 200;

/// Rows of `commits` commits by each writer.
pub(crate) fn measure(folder: &Path, commits: usize, report: &mut Report) -> Result<()> {
    let folder = folder.join("writes");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let site = Site::new(&folder)?;
    report.times("fsync", syncs(&folder)?, &[]);
    // A disk that is slow under this load is measured, not given up.
    let options = Options {
        deadline: Duration::from_secs(60),
        ..Options::default()
    };
    let (barrier, _) = site.unseal(options)?;
    let mut vaults = Vec::new();
    for number in 0..VAULTS {
        let name = format!("vault-{number}");
        barrier.create_vault(&name, None)?;
        vaults.push(barrier.vault(&name)?);
    }
    for writers in TOGETHER {
        let each = (WRITERS * commits).div_ceil(writers);
        let one = rate(&vaults[..1], writers, each, 1)?;
        let row = format!("commit_rate_{writers}");
        report.row(&row, one, "commits/s", &["commit_rate_1"]);
    }
    let spread = rate(&vaults, WRITERS, commits, 1)?;
    report.row(
        "commit_rate_vaults",
        spread,
        "commits/s",
        &["commit_rate_1"],
    );
    let batched = rate(&vaults, WRITERS, commits.div_ceil(8), BATCH)?;
    report.row("write_rate", batched * BATCH as f64, "records/s", &[]);
    drop(barrier);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Commits a second by `writers` writers, spread over the vaults, of `commits` commits of `batch` records each.
fn rate(vaults: &[OpenVault], writers: usize, commits: usize, batch: usize) -> Result<f64> {
    let started = Instant::now();
    let results: Vec<std::result::Result<(), String>> = thread::scope(|scope| {
        let threads: Vec<_> = vaults
            .iter()
            .cycle()
            .take(writers)
            .enumerate()
            .map(|(writer, vault)| {
                scope.spawn(move || {
                    let first = writer * commits * batch;
                    write(vault, first, commits, batch).map_err(|e| e.to_string())
                })
            })
            .collect();
        let ended = threads.into_iter().map(|writer| writer.join());
        ended
            .map(|result| result.unwrap_or_else(|_| Err("a writer panicked".to_owned())))
            .collect()
    });
    let took = started.elapsed();
    for result in results {
        result?;
    }
    Ok((writers * commits) as f64 / took.as_secs_f64())
}

/// One writer's commits.
fn write(vault: &OpenVault, first: usize, commits: usize, batch: usize) -> Result<()> {
    for commit in 0..commits {
        let from = first + commit * batch;
        let ops: Result<Vec<Op>> = (from..from + batch).map(put).collect();
        vault.commit(ops?)?;
    }
    Ok(())
}

/// A page appended and synced, on the same disk.
fn syncs(folder: &Path) -> Result<Vec<Duration>> {
    let mut file = std::fs::File::create(folder.join("page"))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(times)
}
