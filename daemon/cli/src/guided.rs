//! `init --guided`: the first ceremony, one question and one custodian at a time. [`rekey`] is the same for new shares.
//!
//! Promises that a wrong answer is asked again; that a custodian without an age recipient sees the share on a screen that
//! is gone afterwards, and has typed it back from paper before the next one is called; that the ceremony ends with a trial
//! unseal by as many custodians as are needed; and that until then everything can be begun anew, since the store that was made
//! holds nothing. No secret is in an argument, a file or the environment, nor on a screen that stays.

pub(crate) mod rekey;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mcpist_core::api::{
    Base64, Done, InitDone, InitRequest, NewHolder, NewOfficer, PublicKey, ShareOutcome, path,
};
use mcpist_quorum::{Identity, MAX_SHARES, Share, Threshold, check_recipient};

use crate::error::{Error, Result};
use crate::init::{confirm_init, expect_root, plan_init, replaced, show_token};
use crate::plan::describe_with_paper;
use crate::share::{MAX_FILE, ask_share, check_room, from_file, write_shares};
use crate::terminal::Terminal;
use crate::unseal::{give, opened, unseal_plan};
use crate::{Context, reveal, secret};

const WELCOME: &str = "\
The first ceremony of this host. Have here: the custodians, each with paper and pen or an age recipient; the officers'
public keys; the trust root. Nothing is final before the trial unseal at the end. Ctrl-C ends it before.
";
const NEW_SHARES: &str =
    "The store that was made holds nothing: new shares can be made, and those of now open nothing.";

/// What was asked before the plan.
struct Asked {
    request: InitRequest,
    /// By place, the identities of those whose share is shown.
    shown: BTreeMap<usize, Identity>,
    out: PathBuf,
}

/// Who gets a share.
struct People {
    needed: u8,
    holders: Vec<NewHolder>,
    /// By place, the identities of those whose share is shown.
    shown: BTreeMap<usize, Identity>,
}

/// Where the ceremony's files are, and whether its store stayed open.
#[derive(serde::Serialize)]
struct Made {
    files: Vec<PathBuf>,
    sealed: bool,
}

pub(crate) async fn run(context: &Context, token_file: &Path, out: &Path, dev: bool) -> Result<()> {
    let mut terminal = Terminal::open()?;
    terminal.say(WELCOME)?;
    show_token(context, token_file, "mcpist init --guided").await?;
    loop {
        let asked = ask_all(&mut terminal, out, dev)?;
        let Some(done) = make(context, &mut terminal, &asked).await? else {
            continue;
        };
        let files = write_shares(&asked.out, &done, |at| !asked.shown.contains_key(&at))?;
        for (at, identity) in &asked.shown {
            if let Some(share) = done.shares.get(*at) {
                reveal::show_and_read_back(&mut terminal, identity, share)?;
            }
        }
        if trial(context, &mut terminal).await? {
            let sealed = terminal.agrees("The store is open. Seal it again now?")?;
            if sealed {
                let Done {} = context.client.act(path::SEAL).await?;
            }
            return context.out.data(&Made { files, sealed }, finish);
        }
        // Their shares open nothing from here on.
        for file in &files {
            std::fs::remove_file(file).map_err(|e| Error::file(file, e))?;
        }
        show_token(context, token_file, "mcpist init --guided").await?;
    }
}

fn finish(made: &Made) -> String {
    let files: Vec<_> = made
        .files
        .iter()
        .map(|f| format!("  {}", f.display()))
        .collect();
    let next = if made.sealed {
        "sealed; next: mcpist unseal"
    } else {
        "open; next: mcpist status"
    };
    format!(
        "initialised, and opened by its custodians. Written:\n{}\nThe store is {next}",
        files.join("\n")
    )
}

/// Every answer that the plan is made of.
fn ask_all(terminal: &mut Terminal, out: &Path, dev: bool) -> Result<Asked> {
    let root = until(
        terminal,
        "Trust root, as 'mcpist bundle root' wrote it (file): ",
        |text| {
            let bytes = secret::read_file(Path::new(text), MAX_FILE)?;
            mcpist_bundle::Root::parse(&bytes).map_err(|e| Error::new("root", e))?;
            Ok(bytes)
        },
    )?;
    let people = ask_people(terminal, dev)?;
    let officers = ask_officers(terminal, if dev { 0 } else { 2 })?;
    let folder = format!("Folder for the files [{}]: ", out.display());
    let labels: Vec<_> = (people.holders.iter()).map(|h| h.label.as_str()).collect();
    let out = until(terminal, &folder, |text| {
        let folder = if text.is_empty() {
            out
        } else {
            Path::new(text)
        };
        check_room(folder, &labels).map(|()| folder.to_owned())
    })?;
    Ok(Asked {
        request: InitRequest {
            threshold: people.needed,
            holders: people.holders,
            root: Base64(root),
            officers,
            dev,
        },
        shown: people.shown,
        out,
    })
}

/// How many shares there are to be, and whose.
fn ask_people(terminal: &mut Terminal, dev: bool) -> Result<People> {
    let most = format!("How many custodians? (2 to {MAX_SHARES}) ");
    let total = until(terminal, &most, |text| match number(text)? {
        total @ 2..=MAX_SHARES => Ok(total),
        1 if dev => Ok(1),
        _ => Err(Error::usage(format!(
            "give a number from 2 to {MAX_SHARES}"
        ))),
    })?;
    let needed = until(
        terminal,
        "How many of them open the store together? ",
        |text| threshold(number(text)?, total, dev).map(Threshold::needed),
    )?;
    let (mut holders, mut shown) = (Vec::<NewHolder>::new(), BTreeMap::new());
    for at in 0..usize::from(total) {
        let taken: Vec<_> = holders.iter().map(|h| h.label.clone()).collect();
        let label = until(
            terminal,
            &format!("Name of custodian {}: ", at + 1),
            |text| other_than(&taken, text),
        )?;
        let asked = format!("Age recipient of {label}, or Enter for a share on paper: ");
        let recipient = until(terminal, &asked, |text| match text {
            "" => Ok(String::new()),
            text => check_recipient(text)
                .map(|()| text.to_owned())
                .map_err(Error::usage),
        })?;
        let recipient = if recipient.is_empty() {
            let identity = Identity::generate();
            let recipient = identity.recipient();
            shown.insert(at, identity);
            recipient
        } else {
            recipient
        };
        holders.push(NewHolder { label, recipient });
    }
    Ok(People {
        needed,
        holders,
        shown,
    })
}

fn ask_officers(terminal: &mut Terminal, least: usize) -> Result<Vec<NewOfficer>> {
    let mut officers = Vec::<NewOfficer>::new();
    loop {
        let taken: Vec<_> = officers.iter().map(|o| o.name.clone()).collect();
        let end = if officers.len() < least {
            ""
        } else {
            ", or Enter where there is none"
        };
        let asked = format!("Name of officer {}{end}: ", officers.len() + 1);
        let name = until(terminal, &asked, |text| match text {
            "" if taken.len() >= least => Ok(String::new()),
            text => other_than(&taken, text),
        })?;
        if name.is_empty() {
            return Ok(officers);
        }
        let public = until(
            terminal,
            &format!("Public key of {name} (64 digits): "),
            |text| {
                PublicKey::parse(text)
                    .ok_or_else(|| Error::usage("not 64 lower-case hexadecimal digits"))
            },
        )?;
        officers.push(NewOfficer { name, public });
    }
}

/// Shows the plan and carries it out; nothing where it is not agreed to.
async fn make(
    context: &Context,
    terminal: &mut Terminal,
    asked: &Asked,
) -> Result<Option<InitDone>> {
    let shown = match plan_init(context, &asked.request).await {
        Ok(shown) => shown,
        // What only the daemon could find wrong with the answers.
        Err(e) if e.code() == "request_invalid" => {
            terminal.say(&format!("{e}; begin anew"))?;
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    expect_root(&shown.plan, &asked.request.root)?;
    let on_paper = |at| asked.shown.contains_key(&at);
    terminal.say(&describe_with_paper(&shown.plan, &shown.digest, on_paper))?;
    if let Some(old) = &shown.replaces {
        terminal.say(&replaced(old))?;
    }
    if !terminal.agrees("Make this store? (no begins anew)")? {
        return Ok(None);
    }
    confirm_init(context, shown.digest).await.map(Some)
}

/// Opens the store with what its custodians bring; whether it is open, or all is to begin anew.
async fn trial(context: &Context, terminal: &mut Terminal) -> Result<bool> {
    terminal.say("Trial unseal: the custodians give their shares, as they will after every start of this host.")?;
    loop {
        let (_, digest, progress) = unseal_plan(context).await?;
        terminal.say(&format!("{} of {} given.", progress.given, progress.needed))?;
        let brought = terminal
            .ask("Age file of the next share, Enter to type it, or 'anew' to begin anew: ")?;
        let share = match brought.as_str() {
            "anew" => {
                terminal.say(NEW_SHARES)?;
                if terminal.agrees("Begin anew?")? {
                    return Ok(false);
                }
                continue;
            }
            brought => bring(terminal, brought),
        };
        let given = match share {
            Ok(Some(share)) => give(context, digest, &share.to_text()?).await,
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        match given {
            Ok(ShareOutcome::Opened(found)) => {
                terminal.say(&opened(&found))?;
                return Ok(true);
            }
            Ok(_) => {}
            Err(e) if is_final(&e) => return Err(e),
            Err(e) => terminal.say(&e.to_string())?,
        }
    }
}

/// The next share: typed where nothing was brought, else from that file; nothing where nothing was typed.
fn bring(terminal: &mut Terminal, file: &str) -> Result<Option<Share>> {
    if file.is_empty() {
        return terminal.private(ask_share);
    }
    let identity = terminal.ask("File of the age identity that opens it: ")?;
    from_file(Path::new(file), Some(Path::new(&identity))).map(Some)
}

/// What ends a ceremony on this terminal; all else is said, and asked for again.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        "no_terminal" | "daemon_unreachable" | "not_confirmed"
    )
}

/// Asks until the answer is of use.
fn until<T>(terminal: &mut Terminal, prompt: &str, read: impl Fn(&str) -> Result<T>) -> Result<T> {
    loop {
        let line = terminal.ask(prompt)?;
        match read(&line) {
            Ok(value) => return Ok(value),
            Err(e) => terminal.say(&e.to_string())?,
        }
    }
}

fn number(text: &str) -> Result<u8> {
    text.parse().map_err(|_| Error::usage("give a number"))
}

fn threshold(needed: u8, total: u8, dev: bool) -> Result<Threshold> {
    let threshold = if dev {
        Threshold::dev(needed, total)
    } else {
        Threshold::new(needed, total)
    };
    threshold.map_err(Error::usage)
}

fn other_than(taken: &[String], text: &str) -> Result<String> {
    if text.is_empty() || taken.iter().any(|name| name == text) {
        return Err(Error::usage("give a name that is nobody else's"));
    }
    Ok(text.to_owned())
}
