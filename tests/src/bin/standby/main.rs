//! The standby drill: a host that dies, another that takes its place from a backup, and what that cost.
//!
//! `tests/standby/run` builds the programs and starts this one; its header explains the rows. It does to its two hosts
//! what OPERATIONS tells an operator to do, and disturbs no other: both live in temporary folders, which it removes.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::cli;
use mcpist_tests::service::Service;
use serde_json::{Value, json};

/// The credential that the module uses; it opens nothing but this run's own service.
const CREDENTIAL: &str = "standby-credential-7f3a91c2";
/// What the second host is waited for until it has served its first call.
const GIVE_UP: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Name, version and time of each credential of `main`.
type Records = BTreeMap<String, (u64, u64)>;

/// A backup, and what the store held when it was begun.
struct Backup {
    file: PathBuf,
    records: Records,
    /// When the last of those was written.
    written: Instant,
    writes: usize,
}

fn main() -> Outcome<()> {
    let (mut writes, mut every) = (120, 25);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse().ok());
        match (name.as_str(), value) {
            ("--writes", Some(n)) => writes = n,
            ("--every", Some(n)) => every = n,
            _ => return Err(format!("{name}: see the header of tests/standby/run").into()),
        }
    }
    if every == 0 || writes < every {
        return Err("--every is at least 1 and at most --writes".into());
    }
    drill(writes, every)
}

fn drill(writes: usize, every: usize) -> Outcome<()> {
    let (mut first, service) = (Appliance::start(), Service::start());
    first.set_up(service.port(), CREDENTIAL);
    let desk = tempfile::tempdir()?;
    let newest = write(&first, desk.path(), writes, every)?
        .ok_or("no backup was made: fewer writes than --every")?;
    // A cold standby: its daemon runs, its store is none.
    let second = Appliance::start();
    first.kill();
    let killed = Instant::now();

    let made = command(&second, &["restore", text(&newest.file)?], Some(&second))?;
    writeln!(
        std::io::stdout(),
        "standby_plan      {:>8.3} s  backup {}",
        killed.elapsed().as_secs_f64(),
        made["backup"]
    )?;
    let restored = [1, 3]
        .map(|share| give(&second, first.share(share).expose()))
        .into_iter()
        .collect::<Outcome<Vec<_>>>()?;
    let done = &restored[1]["restored"];
    writeln!(
        std::io::stdout(),
        "standby_restored  {:>8.3} s  {} records, {} files, life {}",
        killed.elapsed().as_secs_f64(),
        done["records"],
        done["files"],
        done["life"]
    )?;
    for share in [1, 2] {
        second.give(&first.share(share));
    }
    writeln!(
        std::io::stdout(),
        "standby_unsealed  {:>8.3} s",
        killed.elapsed().as_secs_f64()
    )?;
    serves(&second)?;
    let rto = killed.elapsed();

    let found = records(&second)?;
    if found != newest.records {
        return Err("the standby does not hold what the backup held".into());
    }
    writeln!(
        std::io::stdout(),
        "records_compared  {:>8}    all as the backup held them",
        found.len()
    )?;
    writeln!(
        std::io::stdout(),
        "writes_lost       {:>8}    of {writes}, a backup every {every}",
        writes - newest.writes
    )?;
    writeln!(
        std::io::stdout(),
        "rpo               {:>8.3} s",
        killed.duration_since(newest.written).as_secs_f64()
    )?;
    writeln!(
        std::io::stdout(),
        "rto               {:>8.3} s",
        rto.as_secs_f64()
    )?;
    fenced(&mut first, &second)
}

/// Writes, with a backup after every so many; the newest one.
fn write(host: &Appliance, desk: &Path, writes: usize, every: usize) -> Outcome<Option<Backup>> {
    let mut newest: Option<Backup> = None;
    let mut longest = Duration::ZERO;
    for n in 1..=writes {
        let stored =
            host.put_credential(&format!("record-{n}"), "bearer", &format!("secret-{n:08}"));
        if stored["credential"].is_null() {
            return Err(format!("write {n}: {stored}").into());
        }
        let written = Instant::now();
        if n % every == 0 {
            let file = desk.join(format!("after-{n}.backup"));
            command(host, &["backup", text(&file)?], None)?;
            longest = longest.max(written.elapsed());
            newest = Some(Backup {
                file,
                records: records(host)?,
                written,
                writes: n,
            });
        }
    }
    writeln!(
        std::io::stdout(),
        "backup_longest    {:>8.3} s  of {}",
        longest.as_secs_f64(),
        writes / every
    )?;
    Ok(newest)
}

fn records(host: &Appliance) -> Outcome<Records> {
    let listed = host.ask("GET", "/v1/vaults/main/credentials", None);
    let listed = listed["credentials"].as_array().ok_or("no credentials")?;
    let number = |one: &Value, name: &str| one[name].as_u64().unwrap_or(0);
    Ok(listed
        .iter()
        .map(|one| {
            let name = one["name"].as_str().unwrap_or_default().to_owned();
            (name, (number(one, "version"), number(one, "created")))
        })
        .collect())
}

fn serves(host: &Appliance) -> Outcome<()> {
    let since = Instant::now();
    loop {
        let answer = host
            .client("ada")
            .call("echo", "get", &json!({ "item": "one" }));
        if answer["error"].is_null() && answer["result"]["isError"] != json!(true) {
            return Ok(());
        }
        if since.elapsed() > GIVE_UP {
            return Err(format!("the standby does not serve: {answer}").into());
        }
    }
}

/// The first host comes back, is shown a receipt of the second, and must not open.
fn fenced(first: &mut Appliance, second: &Appliance) -> Outcome<()> {
    let receipt = second.ask("GET", "/v1/witness", None)["receipt"].clone();
    first.restart();
    first.ask("POST", "/v1/witness", Some(&json!({ "receipt": receipt })));
    first.give(&first.share(1));
    let refused = first.give(&first.share(2));
    if refused["error"]["code"] != "fenced" {
        return Err(format!("the first host is not fenced: {refused}").into());
    }
    writeln!(
        std::io::stdout(),
        "first_host          fenced at its unseal, by a receipt of the standby"
    )?;
    Ok(())
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}

fn give(host: &Appliance, share: &[u8]) -> Outcome<Value> {
    run(host, &["restore", "--give"], share)
}

/// A command line; `blank` is the host whose init token it needs.
fn command(host: &Appliance, args: &[&str], blank: Option<&Appliance>) -> Outcome<Value> {
    match blank {
        Some(blank) => {
            let token = blank.folder().join("state/init-token");
            run(
                host,
                &[args, &["--token-file", text(&token)?]].concat(),
                b"",
            )
        }
        None => run(host, args, b""),
    }
}

fn run(host: &Appliance, args: &[&str], input: &[u8]) -> Outcome<Value> {
    let mut child = cli()
        .arg("--run")
        .arg(host.folder().join("run"))
        .args(["--output", "json"])
        .args(args)
        .current_dir(host.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let out = child.wait_with_output()?;
    let said: Value = serde_json::from_slice(&out.stdout)?;
    if out.status.success() {
        Ok(said["data"].clone())
    } else {
        Err(format!("{args:?}: {said}").into())
    }
}
