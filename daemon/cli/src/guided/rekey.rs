//! `rekey --guided`: new shares, on one terminal, one custodian at a time.
//!
//! Promises what [`super`] does of screens and mistakes; that every new share on paper was typed back before any of the
//! proofs is given, so that nobody's share is lost with the switch; and that the current shares open the store until then.
//! What was typed back is the proof: a custodian types it once.

use std::path::{Path, PathBuf};

use mcpist_core::api::{
    CeremonyDone, CeremonyRequest, CeremonyStatus, OpenCeremony, ShareOutcome, path,
};
use mcpist_core::ids::Digest;
use mcpist_quorum::Share;

use super::{People, ask_people, bring, is_final};
use crate::error::{Error, Result};
use crate::plan::{describe_with_paper, read_plan};
use crate::rekey::{NEXT_BACKUP, keep, record_files, share_files, write_one};
use crate::share::check_new;
use crate::terminal::Terminal;
use crate::witness::Keeping;
use crate::{Context, reveal, unseal};

const WELCOME: &str = "\
New shares for the store. Have here: as many of the current custodians as open it, and the new ones, each with paper and
pen or an age recipient. The current shares open the store until the new ones are proved to be there.
";

/// Where the files of the new shares are, and what the ceremony made.
#[derive(serde::Serialize)]
struct Made {
    files: Vec<PathBuf>,
    done: CeremonyDone,
}

/// The ceremony from its first question to its end; its files go to `out`.
pub(crate) async fn run(context: &Context, rotate_root: bool, out: &Path) -> Result<()> {
    let mut terminal = Terminal::open()?;
    terminal.say(WELCOME)?;
    let People {
        needed,
        holders,
        shown,
    } = ask_people(&mut terminal, false)?;
    let request = CeremonyRequest::Rekey {
        threshold: needed,
        holders,
        rotate_root,
    };
    let open: OpenCeremony = context.client.post(path::CEREMONY, &request).await?;
    let (plan, digest) = read_plan(&open.plan)?;
    let on_paper = |at| shown.contains_key(&at);
    terminal.say(&describe_with_paper(&plan, &digest, on_paper))?;
    let names = share_files(&plan);
    let is_file = |(at, _): &(usize, &String)| !on_paper(*at);
    let written = names.iter().enumerate().filter(is_file);
    let written: Vec<String> = (written.map(|(_, name)| name.clone()))
        .chain(record_files(&digest))
        .collect();
    if let Err(e) = check_new(out, &written, "name another folder with --out") {
        cancelled(context).await?;
        return Err(e);
    }
    if !terminal.agrees("Begin to give the store to these holders?")? {
        return Err(cancelled(context).await?);
    }
    terminal.say("The current custodians consent, each with the share of now.")?;
    let ShareOutcome::Delivered { shares, .. } = next(context, &mut terminal, digest).await? else {
        return Err(Error::new(
            "version_mismatch",
            "the consent ended in no new shares",
        ));
    };
    let mut files = Vec::new();
    let mut typed = Vec::new();
    for (at, (share, name)) in shares.iter().zip(&names).enumerate() {
        match shown.get(&at) {
            Some(identity) => {
                typed.push(reveal::show_and_read_back(&mut terminal, identity, share)?);
            }
            None => files.push(write_one(out, name, share)?),
        }
    }
    let mut end = None;
    for share in typed {
        if end.is_none() {
            end = completed(unseal::give(context, digest, &share.to_text()?).await?);
        }
    }
    if end.is_none() {
        terminal.say(
            "The new custodians with files prove that theirs open: each gives the new share once.",
        )?;
        end = completed(next(context, &mut terminal, digest).await?);
    }
    let Some(done) = end else {
        return Err(Error::new("version_mismatch", "the ceremony did not end"));
    };
    files.extend(keep(context, out, &digest, &done, &Keeping::default())?);
    context.out.data(&Made { files, done }, |made| {
        let files: Vec<_> = made.files.iter().map(|f| format!("\n  {}", f.display())).collect();
        format!(
            "done: the shares of generation {} open the store, the ones before open nothing any more{}\n\
             next: {NEXT_BACKUP}",
            made.done.generation,
            files.concat()
        )
    })
}

fn completed(outcome: ShareOutcome) -> Option<CeremonyDone> {
    match outcome {
        ShareOutcome::Completed(done) => Some(done),
        _ => None,
    }
}

/// Ends the ceremony, and says so.
async fn cancelled(context: &Context) -> Result<Error> {
    let _: CeremonyStatus = context.client.delete(path::CEREMONY).await?;
    Ok(Error::new(
        "not_confirmed",
        "the ceremony was ended; the store is as it was",
    ))
}

/// Takes shares until the phase ends, and gives what ended it.
async fn next(context: &Context, terminal: &mut Terminal, digest: Digest) -> Result<ShareOutcome> {
    loop {
        let open: OpenCeremony = context.client.get(path::CEREMONY).await?;
        let progress = open.progress;
        terminal.say(&format!("{} of {} given.", progress.given, progress.needed))?;
        let brought =
            terminal.ask("Age file of the next share, Enter to type it, or 'cancel': ")?;
        if brought == "cancel" {
            return Err(cancelled(context).await?);
        }
        let given = match bring(terminal, &brought) {
            Ok(Some(share)) => give(context, digest, &share).await,
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        match given {
            Ok(ShareOutcome::Pending(_) | ShareOutcome::Proven(_)) => {}
            Ok(end) => return Ok(end),
            Err(e) if is_final(&e) => return Err(e),
            Err(e) => terminal.say(&e.to_string())?,
        }
    }
}

async fn give(context: &Context, digest: Digest, share: &Share) -> Result<ShareOutcome> {
    unseal::give(context, digest, &share.to_text()?).await
}
