//! The leak test: where is a credential after it was used? Nowhere, or this program fails.
//!
//! Credentials of every kind, random and made for this run, go in over the secret socket and out to a service of the
//! run's own, in calls that end well, in errors that echo the credential, in a redirect and in a deadline. They, and the
//! shares that opened the store, are then looked for in every form ([`mcpist_tests::needle`]) and in every place: files, logs,
//! transcripts, answers, the output of `mcpist`, the environment, and the memory of mcpistd and of its runner
//! ([`image`]). mcpistd is looked at while calls are under way too; the runner, which must hold a credential while a
//! request is on its way, after its calls ended and its connections closed.
//!
//! `tests/leak/run` builds the programs and starts this one three times: `search` with programs that differ from the
//! product in that they may be read from outside; `deliberate` with programs that leak on purpose, and then it fails
//! unless every place has something in it; `product` to see that the product itself cannot be read at all.

mod image;
mod product;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::image::{Image, Place, Residue};
use crate::scene::{Looked, Scene};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Parts of a secret that the runner may have left on stacks, over all of its threads: docs/THREAT_MODEL.md, "Honest
/// limits", says which and why.
const RUNNER_STACK: usize = 0;
/// Findings that are written out; all are counted.
const SAID: usize = 40;

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let done = programs().and_then(|programs| match mode.as_str() {
        "search" => product::lowered(&programs).and_then(|()| search(&programs)),
        "deliberate" => deliberate(&programs),
        "product" => product::check(&programs),
        _ => Err("usage: leak search|deliberate|product".into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("leak test failed: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn programs() -> Result<Box<Path>> {
    let own = std::env::current_exe()?;
    Ok(own.parent().ok_or("no folder of programs")?.into())
}

/// A line for the reader. A closed standard output loses nothing that matters.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What was found, by place: how many parts of secrets.
type Found = BTreeMap<Looked, usize>;

/// Plays the scene for so many kinds of credentials, looks everywhere, and writes out as many findings as `say_most`
/// says: parts of secrets by place, and those on the runner's stacks beside them.
fn look(programs: &Path, kinds: usize, say_most: usize) -> Result<(Found, usize)> {
    let mut scene = Scene::set(programs)?;
    let mut found = Found::new();
    let (mut stack, mut said) = (0, BTreeSet::new());
    let (mut images, mut bytes) = (0, 0);
    scene.play(kinds, &mut |scene: &Scene,
                             looked: Looked,
                             image: &Image| {
        let residues = image.search(scene.needles());
        report(looked, &residues, say_most, &mut said);
        images += 1;
        bytes += image.len();
        let (on_stack, elsewhere): (Vec<_>, Vec<_>) = residues
            .iter()
            .partition(|residue| matches!(residue.place, Place::Stack(_)));
        if looked == Looked::Runner {
            stack = stack.max(on_stack.len());
            *found.entry(looked).or_default() += elsewhere.len();
        } else {
            *found.entry(looked).or_default() += residues.len();
        }
    })?;
    say(&format!(
        "{images} images of processes, {} MiB",
        bytes >> 20
    ));
    for (looked, name, bytes) in scene.texts()? {
        let hits = scene.needles().search(&bytes);
        for hit in &hits {
            let line = format!("{looked:?} {name}: {} ({} bytes)", hit.name, hit.length);
            if said.len() < say_most && said.insert(line.clone()) {
                say(&line);
            }
        }
        *found.entry(looked).or_default() += hits.len();
    }
    Ok((found, stack))
}

/// Says what is new: what stays where it was is said once.
fn report(looked: Looked, residues: &[Residue], most: usize, said: &mut BTreeSet<String>) {
    for Residue {
        place,
        address,
        hit,
    } in residues
    {
        let (name, length) = (&hit.name, hit.length);
        let line = format!("{looked:?}: {address:#x} {place:?}: {name} ({length} bytes)");
        if looked != Looked::RunnerAtWork && said.len() < most && said.insert(line.clone()) {
            say(&line);
        }
    }
}

/// Nothing may be found but the known residues.
fn search(programs: &Path) -> Result<()> {
    let (found, stack) = look(programs, Scene::KINDS, SAID)?;
    let leaks: Vec<_> = found
        .iter()
        .filter(|(looked, count)| **looked != Looked::RunnerAtWork && **count > 0)
        .collect();
    if !leaks.is_empty() {
        return Err(format!("secrets where none may be: {leaks:?}").into());
    }
    if stack > RUNNER_STACK {
        return Err(format!(
            "{stack} parts of secrets on the runner's stacks, and {RUNNER_STACK} are known"
        )
        .into());
    }
    // A search that finds nothing at all would find no leak either: a runner at work holds the credential.
    if found.get(&Looked::RunnerAtWork).copied() == Some(0) {
        return Err("the credential was not found where it must be, in the runner at work".into());
    }
    say(&format!(
        "no leak: {found:?}, on the runner's stacks {stack}"
    ));
    Ok(())
}

/// In programs that leak on purpose, something must be found in every place.
fn deliberate(programs: &Path) -> Result<()> {
    let (found, _) = look(programs, 1, 0)?;
    let silent: Vec<_> = Looked::LEAKED
        .into_iter()
        .filter(|looked| found.get(looked).copied().unwrap_or(0) == 0)
        .collect();
    if !silent.is_empty() {
        return Err(format!("leaks were built in and not found: {silent:?}").into());
    }
    say(&format!("every deliberate leak was found: {found:?}"));
    Ok(())
}
