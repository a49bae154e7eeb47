//! The fault lane: at every place where the disk changes the process is killed, the disk is full, or it fails.
//!
//! Each scenario is played once on a sound disk, which records the fault points that it passes
//! (`sealer/src/fault.rs`), and then once for each of them and each kind of fault. After each run the daemon is started
//! again on the same folder, without faults, and [`judge`] says what must hold: the known quorum opens the store, what
//! was acknowledged is there, the rest is there whole or not at all, the log verifies and agrees with the store, the
//! next write works, and no file of the run holds a secret.
//!
//! Does not cut the power: what a killed process had handed to the kernel is there afterwards. `tests/faults/run` builds
//! the programs and starts this one.

mod canaries;
mod ceremonies;
mod damage;
mod judge;
mod own_quorum;
mod scenario;
mod site;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::judge::{Known, Played, count, judge, said};
use crate::scenario::{ALL, Scenario};
use crate::site::{Site, Template};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What stands in the store from the beginning, what acts put, and what is put after them.
const CREDENTIAL: &str = "canary-from-the-beginning-9c27";
const CANARY: &str = "canary-of-an-act-that-fails-3fe1";
const NEXT: &str = "canary-of-what-comes-next-51be";
/// The kinds of faults; the first ends the process.
const HOW: [&str; 3] = ["kill", "full", "eio"];
/// Runs at once: as many as cores are counted with.
const AT_ONCE: usize = 2;
/// A short run plays every point with `kill` and each of this many with another fault.
const SAMPLE: usize = 6;
/// Lines of a log that are shown of a run that failed.
const LINES: usize = 20;
/// The row of the disk that hangs.
const HUNG: &str = "a disk that hangs";

fn main() -> ExitCode {
    let mut short = false;
    let mut only = None;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--short" => short = true,
            name if ALL.iter().any(|s| s.name == name) || name == HUNG => {
                only = Some(name.to_owned());
            }
            _ => {
                say("usage: tests/faults/run [--short] [SCENARIO]");
                return ExitCode::from(2);
            }
        }
    }
    match lane(short, only.as_deref()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            say(&format!("{failed} runs failed"));
            ExitCode::FAILURE
        }
        Err(e) => {
            say(&format!("the fault lane failed: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for the reader.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn lane(short: bool, only: Option<&str>) -> Result<usize> {
    let programs = std::env::current_exe()?;
    let program = programs.with_file_name("mcpistd");
    say(&format!(
        "{:<20} {:>6} {:>5} {:>7} {:>7}",
        "scenario", "points", "runs", "missed", "ok"
    ));
    let mut failed = 0;
    for (number, scenario) in ALL.iter().enumerate() {
        if only.is_none_or(|only| only == scenario.name) {
            failed += play_all(&program, scenario, short.then_some(number))?;
        }
    }
    if only.is_none_or(|only| only == HUNG) {
        let outcome = hung(&program);
        let ok = usize::from(outcome.is_ok());
        say(&format!("{HUNG:<20} {:>6} {:>5} {:>7} {ok:>7}", 1, 1, 0));
        if let Err(e) = outcome {
            say(&format!("  {e}"));
            failed += 1;
        }
    }
    Ok(failed)
}

/// The disk of one vault hangs for ever in a write: every other vault answers, the store seals, and the write is wholly
/// there afterwards or wholly not.
fn hung(program: &Path) -> Result<()> {
    let template = Template::make(program, true, |template| {
        let other = json!({ "name": "other" });
        template.appliance.ask("POST", "/v1/vaults", Some(&other));
    });
    let put = ALL.iter().find(|scenario| scenario.name == "put");
    let put = put.ok_or("no scenario puts")?;
    let (mut known, _) = record(&template, put)?;
    let mut site = Site::begin(&template, "vault.commit#1:hang")?;
    if !site.is_up()? {
        return Err("the daemon does not start".into());
    }
    site.unseal().map_err(|e| said("unseal", &e))?;
    let act = (put.act)(&site);
    if act.is_ok() {
        return Err("a write to a disk that hangs was acknowledged".into());
    }
    let other = site.put_into("other", "elsewhere", "canary-of-another-disk-a1b2");
    other.map_err(|e| said("another vault does not answer", &e))?;
    known.lines += 1;
    let vaults = site.desk.ask("GET", "/v1/vaults", None);
    let vaults = vaults.map_err(|e| said("vaults", &e))?;
    if !vaults.to_string().contains("\"unavailable\"") {
        return Err(format!("the vault is not called unavailable: {vaults}").into());
    }
    let sealed = site.desk.ask("POST", "/v1/seal", None);
    sealed.map_err(|e| said("it does not seal", &e))?;
    site.end()?;
    let played = Played {
        act: Some(act),
        live: None,
    };
    judge(&mut site, put, &known, &played).map_err(|e| format!("{e}\n{}", said_by(&site)).into())
}

/// Plays a scenario with every fault, or with the sample of number `short`; gives how many runs failed.
fn play_all(program: &Path, scenario: &Scenario, short: Option<usize>) -> Result<usize> {
    let template = Template::make(program, scenario.made, scenario.prepare);
    let (known, points) = record(&template, scenario)?;
    let orders: Vec<String> = (points.iter().enumerate())
        .flat_map(|(at, point)| HOW.map(|how| (at, point, how)))
        .filter(|(at, _, how)| match short {
            Some(number) => *how == "kill" || (at + number) % SAMPLE == usize::from(*how == "eio"),
            None => true,
        })
        .map(|(_, point, how)| format!("{point}:{how}"))
        .collect();
    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run(&template, scenario, &known, order) {
                        Ok(true) => {}
                        Ok(false) => {
                            missed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(e) => {
                            let mut failures =
                                failures.lock().unwrap_or_else(|broken| broken.into_inner());
                            failures.push(format!("  {order}: {e}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    say(&format!(
        "{:<20} {:>6} {:>5} {:>7} {:>7}",
        scenario.name,
        points.len(),
        orders.len(),
        missed.into_inner(),
        orders.len() - failures.len()
    ));
    failures.iter().for_each(|failure| say(failure));
    Ok(failures.len())
}

/// Plays a scenario on a sound disk; gives what it saw, and each passing of a fault point as `NAME#N`.
fn record(template: &Template, scenario: &Scenario) -> Result<(Known, Vec<String>)> {
    let file = template
        .appliance
        .folder()
        .join(format!("points-{}", scenario.event.is_some()));
    let mut site = Site::begin(template, &format!("record:{}", file.display()))?;
    let passed = || std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
    if !site.is_up()? {
        return Err(format!("the daemon does not start: {}", site.log()).into());
    }
    let mut known = Known {
        old: Value::Null,
        new: Value::Null,
        lines: 0,
    };
    let fail = |what: &str| {
        let what = format!("{}, {what}", scenario.name);
        move |trouble| said(&what, &trouble)
    };
    let mut from = 0;
    if scenario.made {
        site.unseal().map_err(fail("unseal"))?;
        known.old = site.view().map_err(fail("view"))?;
        if let Some(event) = scenario.event {
            known.lines = count(&site, event)?;
            from = passed();
        }
    }
    (scenario.act)(&site).map_err(fail("the act"))?;
    if scenario.made {
        // Sealed it is, where the act has sealed it.
        let _ = site.desk.ask("POST", "/v1/seal", None);
    }
    site.end()?;
    let mut counts = BTreeMap::new();
    let text = std::fs::read_to_string(&file)?;
    let points: Vec<String> = (text.lines())
        .map(|name| {
            let count = counts.entry(name).or_insert(0);
            *count += 1;
            format!("{name}#{count}")
        })
        .collect();
    if scenario.made {
        site.resume();
        site.is_up()?;
        site.unseal().map_err(fail("the next unseal"))?;
        known.new = site.view().map_err(fail("view"))?;
    }
    Ok((known, points.into_iter().skip(from).collect()))
}

/// The end of what the daemons of a run logged.
fn said_by(site: &Site<'_>) -> String {
    let log = site.log();
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines[from..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

/// One run with one fault; whether the fault was met.
fn run(template: &Template, scenario: &Scenario, known: &Known, order: &str) -> Result<bool> {
    let mut site = Site::begin(template, order)?;
    let mut played = Played {
        act: None,
        live: None,
    };
    if site.is_up()? && (!scenario.made || site.unseal().is_ok()) {
        played.act = Some((scenario.act)(&site));
        if scenario.made {
            played.live = site.view().ok();
            // Refused or not: the daemon ends next.
            let _ = site.desk.ask("POST", "/v1/seal", None);
        }
    }
    let killed = site.end()?;
    let name = order.split('#').next().unwrap_or_default();
    let met = site.log().contains(&format!("fault at {name}"));
    if killed != (met && order.ends_with(":kill")) {
        return Err(format!("the daemon ended in another way:\n{}", said_by(&site)).into());
    }
    judge(&mut site, scenario, known, &played)
        .map_err(|e| format!("{e}\n    act: {:?}\n{}", played.act, said_by(&site)))?;
    Ok(met)
}
