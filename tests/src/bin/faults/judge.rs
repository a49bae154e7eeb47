//! What must hold after a run, whatever the disk did: old or new, never between.

use mcpist_core::audit::Verifier;
use mcpist_tests::desk::Trouble;
use serde_json::{Value, json};

use crate::scenario::{Scenario, init};
use crate::site::{Done, Site};
use crate::{Result, damage};

/// What a run without faults saw before and after the act.
pub(crate) struct Known {
    pub(crate) old: Value,
    pub(crate) new: Value,
    /// How many lines of the scenario's event the log had before.
    pub(crate) lines: usize,
}

/// A run until its daemon ended.
pub(crate) struct Played {
    /// What the act was answered; none where it was not begun.
    pub(crate) act: Option<Done>,
    /// What the daemon showed afterwards, where it still did.
    pub(crate) live: Option<Value>,
}

/// Starts the daemon again on a sound disk, and says what does not hold.
pub(crate) fn judge(
    site: &mut Site<'_>,
    scenario: &Scenario,
    known: &Known,
    played: &Played,
) -> Result<()> {
    site.resume();
    if !site.is_up()? {
        return Err("the daemon does not start any more".into());
    }
    if site.path("state/store.drill").exists() {
        return Err("a drill's folder is there after a start".into());
    }
    if !scenario.made {
        made_or_not(site, played)?;
    }
    let opened = site.unseal().map_err(|e| said("it does not unseal", &e))?;
    if !damage::is_expected(site, &opened) {
        return Err(format!("quarantined: {opened}").into());
    }
    if !scenario.made {
        let main = json!({ "name": "main" });
        let vault = site.desk.ask("POST", "/v1/vaults", Some(&main));
        vault.map_err(|e| said("no vault can be made", &e))?;
    }
    let mut view = view(site)?;
    if scenario.made {
        old_or_new(scenario, known, played, &view)?;
        let status = site.desk.ask("GET", "/v1/status", None);
        let status = status.map_err(|e| said("no status", &e))?;
        let kept = scenario.event == Some("restored") && view == known.new;
        if status["old_store"] != json!(kept) {
            return Err(format!("a store is called the old one: {status}").into());
        }
        let missing = opened["last_write_missing"] != json!([]);
        if missing && view != known.old && scenario.event.is_some() {
            return Err(format!("a write that is there is called missing: {opened}").into());
        }
        if missing {
            let confirm = "/v1/vaults/main/confirm-last-write";
            let confirmed = site.desk.ask("POST", confirm, None);
            confirmed.map_err(|e| said("a missing write is not confirmed", &e))?;
        }
        if damage::mend(site, scenario, &opened, &known.new)? {
            view = known.new.clone();
        }
    }
    goes_on(site)?;
    let closed = site.desk.ask("POST", "/v1/seal", None);
    closed.map_err(|e| said("it does not seal", &e))?;
    site.end()?;
    let begins_anew = scenario.event == Some("restored") && view == known.new;
    if let Some(event) = scenario.event {
        // What goes on puts a credential as well.
        let also = usize::from(event == "credential_put");
        let found = count(site, event)?;
        let (without, with) = (known.lines + also, known.lines + also + 1);
        let fits = match (view == known.new, view == known.old) {
            // The act changes nothing that is shown.
            (true, true) if matches!(played.act, Some(Ok(_))) => found == with,
            (true, true) => found == with || found == without,
            (is_new, _) => found == if is_new { with } else { without },
        };
        if !fits {
            return Err(format!("{found} lines of {event}, {} before", known.lines).into());
        }
    }
    log_verifies(site, begins_anew)?;
    site.holds_no_secret(&format!("{:?}", played.act))
}

/// After an init: the shares that came out open the store; where none came out, init is there to be run again.
fn made_or_not(site: &Site<'_>, played: &Played) -> Result<()> {
    if matches!(played.act, Some(Ok(_))) {
        return Ok(());
    }
    match init(site) {
        Ok(_) => Ok(()),
        Err(e) => Err(said("no share came out, and init is not there", &e).into()),
    }
}

fn old_or_new(scenario: &Scenario, known: &Known, played: &Played, view: &Value) -> Result<()> {
    // Two writes in one act: what is between them is no half of one.
    let two_writes = scenario.event.is_none() && known.old != known.new;
    let whole = *view == known.old || *view == known.new || two_writes;
    if !whole {
        return Err(format!("between: {view}\nold: {}\nnew: {}", known.old, known.new).into());
    }
    match &played.act {
        Some(Ok(_)) if *view != known.new => {
            Err(format!("what was acknowledged is lost: {view}").into())
        }
        Some(Err(Trouble::Refused(error)))
            if *view != known.old && is_certain(scenario, error) && scenario.event.is_some() =>
        {
            Err(format!("what was refused is there: {error}").into())
        }
        None if *view != known.old => Err("what was not begun is there".into()),
        _ => match &played.live {
            Some(live) if !same_but_quorum(live, view) => {
                Err(format!("it showed {live}, and then {view}").into())
            }
            _ => Ok(()),
        },
    }
}

/// Whether two views differ in nothing, or in who opened the store: that shows at the next opening.
fn same_but_quorum(one: &Value, other: &Value) -> bool {
    let mut one = one.clone();
    one["quorum"] = other["quorum"].clone();
    one == *other
}

/// Whether a refusal says that nothing was done. The codes here are those of an outcome that nobody could look at.
fn is_certain(scenario: &Scenario, error: &Value) -> bool {
    if scenario.event == Some("restored") {
        // What is in its place is answered as done, whatever fails after it.
        return true;
    }
    let code = error["code"].as_str().unwrap_or_default();
    let unknown = [
        "audit_lost",
        "audit_unavailable",
        "internal",
        "unavailable",
        "vault_unavailable",
    ];
    !unknown.contains(&code)
}

/// The next write works, and is there.
fn goes_on(site: &Site<'_>) -> Result<()> {
    site.put("next", crate::NEXT)
        .map_err(|e| said("the next write fails", &e))?;
    let listed = view(site)?["main"].to_string();
    if listed.contains("\"next\"") {
        Ok(())
    } else {
        Err(format!("the next write is not there: {listed}").into())
    }
}

fn view(site: &Site<'_>) -> Result<Value> {
    Ok(site.view().map_err(|e| said("it does not show", &e))?)
}

pub(crate) fn said(what: &str, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Gone(e) => format!("{what}: {e}"),
        Trouble::Refused(error) => format!("{what}: {error}"),
    }
}

/// The segments of the log, in order.
fn segments(site: &Site<'_>) -> Result<Vec<Vec<u8>>> {
    let folder = std::fs::read_dir(site.log_folder()?)?;
    let mut files: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    Ok(files
        .iter()
        .map(std::fs::read)
        .collect::<std::io::Result<_>>()?)
}

/// How many lines of the log hold each word of `event`, as a value of theirs.
pub(crate) fn count(site: &Site<'_>, event: &str) -> Result<usize> {
    let words: Vec<String> = event.split(' ').map(|word| format!("\"{word}\"")).collect();
    let is_one = |line: &&str| words.iter().all(|word| line.contains(word));
    let lines = |segment: &Vec<u8>| {
        let text = String::from_utf8_lossy(segment);
        text.lines().filter(is_one).count()
    };
    Ok(segments(site)?.iter().map(lines).sum())
}

/// The log is one chain from the first key on, and all of it is signed. Of one that a restore has begun the lane does not
/// know the key: the record that names it may not have come out.
fn log_verifies(site: &Site<'_>, begins_anew: bool) -> Result<()> {
    let own = site.path("ceremony-record");
    let record = match std::fs::read_to_string(&own) {
        Ok(record) => record,
        Err(_) => {
            std::fs::read_to_string(site.template.appliance.folder().join("ceremony-record"))?
        }
    };
    let key = record
        .lines()
        .find_map(|line| line.strip_prefix("audit key"));
    let key = mcpist_core::ids::Digest::parse(key.ok_or("no audit key")?.trim())?;
    let mut verifier = match begins_anew {
        true => Verifier::resume(),
        false => Verifier::new(*key.as_bytes()),
    };
    for (number, segment) in segments(site)?.iter().enumerate() {
        if number > 0 {
            verifier.next_file();
        }
        verifier.feed(segment);
    }
    let report = verifier.finish();
    match report.problem {
        Some(problem) => Err(format!("the log is no chain: {problem}").into()),
        None if report.unsigned_tail > 0 => Err("the log's end is not signed".into()),
        None => Ok(()),
    }
}
