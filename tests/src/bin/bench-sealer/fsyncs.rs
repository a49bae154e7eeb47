//! How often a commit waits for the disk, by the system calls themselves.
//!
//! A child commits under strace, which notes every fsync with its file. Between the parts of its work the child syncs
//! a file of its own, whose name is then the part's mark in the trace, and it prints how many transactions each part
//! made. Judged are: one fsync of a vault's log for each of its commits and none besides; one of control.db's log for
//! each transaction there, of which writers that come together share some; fewer of both where the writers are of one vault,
//! whose commits share the transaction itself; and one for what an idle store settles.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use mcpist_sealer::{Barrier, OpenVault, Options, Unsealed};
use mcpist_tests::report::Report;

use crate::site::{Site, put};
use crate::{Result, text};

/// Commits of a part; so few that no log grows to the length at which SQLite moves it into the database.
const COMMITS: usize = 40;
const VAULTS: usize = 4;
/// Writers of one vault, and the commits of each.
const WRITERS: usize = 8;
const EACH: usize = 10;
/// A part of the child's work, in order; what comes before the first and after the last is not counted.
const PARTS: [&str; 5] = ["alone", "together", "grouped", "idle", "over"];

/// What a part did: fsyncs in the trace, or by the child's own word commits to vaults and transactions of control.db.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    vaults: u64,
    control: u64,
}

/// Traces the child and judges its counts.
pub(crate) fn measure(folder: &Path, report: &mut Report) -> Result<()> {
    let folder = folder.join("fsyncs");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let trace = folder.join("trace");
    let out = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe()?)
        .args(["commit", text(&folder)?])
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        return Err("the traced writes failed".into());
    }
    let synced = synced(&std::fs::read_to_string(&trace)?);
    let made = made(std::str::from_utf8(&out.stdout)?)?;
    judge(&synced, &made)?;
    for part in ["alone", "together", "grouped"] {
        let (synced, made) = synced
            .get(part)
            .zip(made.get(part))
            .ok_or("a part is missing")?;
        let per_commit = (synced.vaults + synced.control) as f64 / made.vaults as f64;
        report.row(&format!("fsyncs_{part}"), per_commit, "/commit", &[]);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// An error where a part synced more or less often than it made transactions, or made more of them than it may.
fn judge(synced: &BTreeMap<String, Tally>, made: &BTreeMap<String, Tally>) -> Result<()> {
    let expected = made.iter().map(|(part, tally)| {
        // Each group of the one vault is announced once.
        let vaults = match part.as_str() {
            "grouped" => tally.control,
            _ => tally.vaults,
        };
        (part.clone(), Tally { vaults, ..*tally })
    });
    if *synced != expected.collect() {
        return Err(format!("fsyncs {synced:?} of commits and transactions {made:?}").into());
    }
    let commits = COMMITS as u64;
    let all = commits * VAULTS as u64;
    let grouped = (WRITERS * EACH) as u64;
    let right = |part: &str, vaults, control: std::ops::RangeInclusive<u64>| {
        made.get(part)
            .is_some_and(|tally| tally.vaults == vaults && control.contains(&tally.control))
    };
    if right("alone", commits, commits..=commits)
        && right("together", all, commits..=all)
        && right("grouped", grouped, 1..=grouped - 1)
        && right("idle", 1, 2..=2)
    {
        Ok(())
    } else {
        Err(
            format!(
                "transactions {made:?} for {commits} commits in each of {VAULTS} vaults, and {EACH} by each of {WRITERS} writers"
            )
            .into(),
        )
    }
}

/// The fsyncs of each part.
fn synced(trace: &str) -> BTreeMap<String, Tally> {
    let mut parts: BTreeMap<String, Tally> = BTreeMap::new();
    let mut part = None;
    // `PID fdatasync(7</path/of/a/file>) = 0`, or without the end where another thread's call comes between.
    let paths = trace.lines().filter_map(|line| {
        line.split_once("sync(")?
            .1
            .split_once('<')?
            .1
            .split_once('>')
    });
    for (path, _) in paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        if PARTS.contains(&name) {
            part = (name != "over").then(|| name.to_owned());
            continue;
        }
        let Some(part) = &part else { continue };
        let tally = parts.entry(part.clone()).or_default();
        if name.starts_with("control.db") {
            tally.control += 1;
        } else {
            tally.vaults += 1;
        }
    }
    parts
}

/// What the child printed: part, commits to vaults, transactions of control.db.
fn made(printed: &str) -> Result<BTreeMap<String, Tally>> {
    let mut parts = BTreeMap::new();
    for line in printed.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or("the child printed too little");
        let (part, vaults, control) = (word()?, word()?.parse()?, word()?.parse()?);
        parts.insert(part.to_owned(), Tally { vaults, control });
    }
    Ok(parts)
}

/// The child `commit FOLDER`.
pub(crate) fn commit(arguments: &[String]) -> Result<()> {
    let [_, folder] = arguments else {
        return Err("usage: bench-sealer commit FOLDER".into());
    };
    let folder = Path::new(folder);
    let site = Site::new(folder)?;
    // Nothing is settled by itself here: a part's count would depend on how long it took.
    let (barrier, _) = site.unseal(options(Duration::from_secs(3_600)))?;
    for number in 0..VAULTS {
        barrier.create_vault(&format!("vault-{number}"), None)?;
    }
    warm(&barrier)?;
    let first = barrier.vault("vault-0")?;
    counted(folder, "alone", &barrier, || write(&first))?;
    let vaults = vaults(&barrier)?;
    let write_all = |vault: &OpenVault, _| write(vault);
    counted(folder, "together", &barrier, || {
        together(&vaults, write_all)
    })?;
    let writers = vec![first; WRITERS];
    let write_own =
        |vault: &OpenVault, writer| write_each(vault, writer * EACH..(writer + 1) * EACH);
    counted(folder, "grouped", &barrier, || {
        together(&writers, write_own)
    })?;
    mark(folder, "over")?;
    drop(barrier.seal());

    let (barrier, _) = site.unseal(options(Duration::from_millis(50)))?;
    warm(&barrier)?;
    let first = barrier.vault("vault-0")?;
    counted(folder, "idle", &barrier, || {
        first.commit(vec![put(0)?])?;
        let announced = barrier.system().status().generation;
        let deadline = SystemTime::now() + Duration::from_secs(60);
        while barrier.system().status().generation == announced && SystemTime::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // Nothing is left to be settled: this makes no transaction.
        Ok(barrier.settle()?)
    })?;
    mark(folder, "over")?;
    // Without closing a file, which would sync it.
    std::process::exit(0);
}

fn options(settle: Duration) -> Options {
    Options {
        settle,
        deadline: Duration::from_secs(60),
        ..Options::default()
    }
}

fn vaults(barrier: &Barrier<Unsealed>) -> Result<Vec<OpenVault>> {
    (0..VAULTS)
        .map(|number| Ok(barrier.vault(&format!("vault-{number}"))?))
        .collect()
}

/// The first commit after a file was opened truncates its log.
fn warm(barrier: &Barrier<Unsealed>) -> Result<()> {
    for vault in vaults(barrier)? {
        vault.commit(vec![put(0)?])?;
    }
    Ok(barrier.settle()?)
}

fn write(vault: &OpenVault) -> Result<()> {
    write_each(vault, 0..COMMITS)
}

fn write_each(vault: &OpenVault, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        vault.commit(vec![put(number)?])?;
    }
    Ok(())
}

/// Has every writer write to its vault at once.
fn together(
    vaults: &[OpenVault],
    write: impl Fn(&OpenVault, usize) -> Result<()> + Sync,
) -> Result<()> {
    let write = &write;
    let results: Vec<bool> = thread::scope(|scope| {
        let writers: Vec<_> = vaults
            .iter()
            .enumerate()
            .map(|(writer, vault)| scope.spawn(move || write(vault, writer).is_ok()))
            .collect();
        let ended = writers.into_iter().map(|writer| writer.join());
        ended.map(|result| result.unwrap_or(false)).collect()
    });
    match results.contains(&false) {
        false => Ok(()),
        true => Err("a writer failed".into()),
    }
}

/// Does `work` between marks and prints how many transactions it made.
#[allow(clippy::print_stdout)] // what the parent reads
fn counted(
    folder: &Path,
    part: &str,
    barrier: &Barrier<Unsealed>,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let generations = || {
        let all = barrier.vaults();
        let control = all.first().map_or(0, |system| system.generation);
        let vaults: u64 = all.iter().skip(1).map(|vault| vault.generation).sum();
        (vaults, control)
    };
    let before = generations();
    mark(folder, part)?;
    work()?;
    let after = generations();
    println!("{part} {} {}", after.0 - before.0, after.1 - before.1);
    Ok(())
}

fn mark(folder: &Path, part: &str) -> Result<()> {
    Ok(File::create(folder.join(part))?.sync_data()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// One commit in each part: a vault's log, control.db's log.
    const TRACE: &str = "\
        7 fdatasync(3</t/store/control.db-wal>) = 0\n\
        7 fdatasync(5</t/alone>) = 0\n\
        7 fdatasync(3</t/store/control.db-wal> <unfinished ...>\n\
        8 fsync(4</t/store/vaults/ab.db-wal>) = 0\n\
        7 <... fdatasync resumed>) = 0\n\
        7 fdatasync(5</t/together>) = 0\n\
        8 fdatasync(4</t/store/vaults/ab.db-wal>) = 0\n\
        7 fdatasync(5</t/over>) = 0\n\
        8 fdatasync(4</t/store/vaults/ab.db>) = 0\n";

    #[test]
    fn fsyncs_are_counted_between_their_marks() {
        let printed = "alone 1 1\ntogether 1 0\n";
        assert_eq!(synced(TRACE), made(printed).unwrap());
    }

    #[test]
    fn an_fsync_too_many_too_few_or_of_a_commit_too_many_is_an_error() {
        let synced = made("alone 40 40\ntogether 160 90\ngrouped 25 25\nidle 1 2\n").unwrap();
        let right = "alone 40 40\ntogether 160 90\ngrouped 80 25\nidle 1 2\n";
        judge(&synced, &made(right).unwrap()).unwrap();
        for (of, instead) in [
            ("alone 40", "alone 41"),
            ("alone 40 40", "alone 40 80"),
            ("160 90", "160 161"),
            ("grouped 80 25", "grouped 80 80"),
            ("grouped 80", "grouped 81"),
            ("idle 1 2", "idle 1 3"),
            ("idle 1 2\n", ""),
        ] {
            let wrong = made(&right.replace(of, instead)).unwrap();
            assert!(judge(&synced, &wrong).is_err());
            let groups = |(part, tally): (&String, &Tally)| {
                let vaults = if part == "grouped" {
                    tally.control
                } else {
                    tally.vaults
                };
                (part.clone(), Tally { vaults, ..*tally })
            };
            let synced = wrong.iter().map(groups).collect();
            assert!(judge(&synced, &wrong).is_err(), "{instead}");
        }
    }
}
