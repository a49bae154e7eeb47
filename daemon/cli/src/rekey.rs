//! `rekey`, and `ceremony`: what an open store's quorum is asked for, and what came of it.
//!
//! Promises that a plan is shown under the digest that this program computed before a share is asked for, that new
//! shares are written to new files alone and can be fetched again, and that each step names the next one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::api::{
    CeremonyAct, CeremonyDone, CeremonyPhase, CeremonyRequest, CeremonyStatus, DeliveredShare,
    NewShares, OpenCeremony, ShareOutcome, Status, path,
};
use mcpist_core::ids::{Digest, VaultName};
use mcpist_quorum::{Plan, PlannedHolder};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::holders::{Holders, named_holders};
use crate::plan::{confirm, describe, made_by, read_plan};
use crate::share::{GivenShare, check_new, share_file};
use crate::store::expires;
use crate::witness::Keeping;
use crate::{Context, guided, secret, unseal};

/// What is due after shares or keys changed. What a backup lacks, older ones may be the last to hold.
pub(crate) const NEXT_BACKUP: &str = "mcpist backup FILE; once it lacks no vault and carries none sealed, destroy the old shares and backups";

/// Give the store to new shares: a custodian leaves, comes, or has lost a share
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist rekey --threshold 2 --holder ada=age1… --holder bob=age1… --holder eve=age1…
  mcpist rekey --guided --out new                        everybody at one terminal, with shares on paper
  mcpist rekey --threshold 3 --holder … --rotate-root    where an old share may be in wrong hands
  mcpist rekey --vault payroll --threshold 2 --holder …  the shares of a vault that has a quorum of its own

The holders of the current shares consent (mcpist ceremony give), the new shares leave encrypted, and their holders each give
theirs once to prove that they have it. Until then the current shares open the store, afterwards the new ones alone.")]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    people: Holders,
    /// The vault whose own quorum is changed, in place of the store's
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rotate_root", "guided"])]
    vault: Option<VaultName>,
    /// Replace the root key too: an old copy of the disk opens nothing written from then on
    #[arg(long)]
    rotate_root: bool,
    /// Folder for the share files and the ceremony record, with --guided
    #[arg(long, value_name = "DIR", default_value = ".", requires = "guided")]
    out: PathBuf,
}

/// See the open ceremony, give a share of it, or end it
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist ceremony                      what is open, and whose shares it waits for
  mcpist ceremony give --share-file share-1-ada.age --identity ada.txt
  mcpist ceremony shares --out new     the new shares once more
  mcpist ceremony cancel")]
pub(crate) struct CeremonyArgs {
    #[command(subcommand)]
    command: Option<CeremonyCommand>,
}

#[derive(Subcommand)]
enum CeremonyCommand {
    /// Give a share: a current one as consent, or a new one to prove that you have it
    #[command(after_help = "Examples:
  mcpist ceremony give                 asks for the share, its text or its words
  mcpist ceremony give --share-file share-1-ada.age --identity ada.txt --out new")]
    Give {
        #[command(flatten)]
        given: GivenShare,
        /// Folder for the new shares, should this consent be the last, or for the record, should this proof be
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        #[command(flatten)]
        keeping: Keeping,
    },
    /// Write the new shares to files, each encrypted to its holder; as often as needed until the ceremony ends
    #[command(after_help = "Examples:
  mcpist ceremony shares --out new")]
    Shares {
        /// Folder for the files
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// End the ceremony and drop its shares; the store stays as it is
    #[command(after_help = "Examples:
  mcpist ceremony cancel")]
    Cancel,
}

/// What came of a share, with the files that were written.
#[derive(Serialize)]
struct Given {
    outcome: ShareOutcome,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<PathBuf>,
}

/// The files of new shares.
#[derive(Serialize)]
pub(crate) struct Written {
    pub(crate) files: Vec<PathBuf>,
}

pub(crate) async fn rekey(context: &Context, args: RekeyArgs) -> Result<()> {
    if args.people.guided {
        return guided::rekey::run(context, args.rotate_root, &args.out).await;
    }
    let threshold = args.people.needed()?;
    let holders = named_holders(&args.people.holders)?;
    let (request, question) = match args.vault {
        Some(vault) => {
            let question = format!("Begin to give vault {vault} to these holders?");
            let request = CeremonyRequest::RekeyVault {
                vault,
                threshold,
                holders,
            };
            (request, question)
        }
        None => {
            let request = CeremonyRequest::Rekey {
                threshold,
                holders,
                rotate_root: args.rotate_root,
            };
            let question = "Begin to give the store to these holders?";
            (request, question.to_owned())
        }
    };
    begin(context, &request, args.people.yes, &question).await
}

/// Has a ceremony planned, and cancels it where the plan is not confirmed.
pub(crate) async fn begin(
    context: &Context,
    request: &CeremonyRequest,
    yes: bool,
    question: &str,
) -> Result<()> {
    let open = begin_confirmed(context, request, yes, question).await?;
    context.out.data(&open, waits_for)
}

/// Has a ceremony planned and shows it; one that is not confirmed is cancelled.
pub(crate) async fn begin_confirmed(
    context: &Context,
    request: &CeremonyRequest,
    yes: bool,
    question: &str,
) -> Result<OpenCeremony> {
    let open: OpenCeremony = context.client.post(path::CEREMONY, request).await?;
    let (plan, digest) = read_plan(&open.plan)?;
    context.out.terms(&describe(&plan, &digest));
    if !yes && let Err(e) = confirm(question) {
        let _: CeremonyStatus = context.client.delete(path::CEREMONY).await?;
        return Err(e);
    }
    Ok(open)
}

pub(crate) async fn ceremony(context: &Context, args: CeremonyArgs) -> Result<()> {
    match args.command {
        None => {
            let (open, ..) = shown(context).await?;
            context.out.data(&open, waits_for)
        }
        Some(CeremonyCommand::Give {
            given,
            out,
            keeping,
        }) => give(context, &given, &out, &keeping).await,
        Some(CeremonyCommand::Shares { out }) => {
            let open: OpenCeremony = context.client.get(path::CEREMONY).await?;
            let (plan, _) = read_plan(&open.plan)?;
            let NewShares { shares } = context.client.get(path::CEREMONY_SHARES).await?;
            let files = write(&out, &plan, &shares)?;
            context.out.data(&Written { files }, |w| listed(&w.files))
        }
        Some(CeremonyCommand::Cancel) => {
            let ended: CeremonyStatus = context.client.delete(path::CEREMONY).await?;
            context.out.data(&ended, cancelled)
        }
    }
}

/// A restore that waits is a ceremony as well, with commands of its own.
async fn of_restore(context: &Context, error: Error) -> Error {
    let status = context.client.get::<Status>(path::STATUS).await;
    match status.ok().and_then(|status| status.restore) {
        Some(_) => error.next("a restore waits for shares: mcpist restore --give, or --cancel"),
        None => error,
    }
}

/// The open ceremony, its plan shown under the digest that was computed here.
async fn shown(context: &Context) -> Result<(OpenCeremony, Plan, Digest)> {
    let open: OpenCeremony = match context.client.get(path::CEREMONY).await {
        Ok(open) => open,
        Err(e) => return Err(of_restore(context, e).await),
    };
    let (plan, digest) = read_plan(&open.plan)?;
    context.out.terms(&describe(&plan, &digest));
    Ok((open, plan, digest))
}

/// Gives a share of the open ceremony, once the kept receipt was presented: what opens a vault is judged by it, whichever
/// command brings the share. What comes of it is written to `out`, a receipt to where those are kept.
pub(crate) async fn give(
    context: &Context,
    given: &GivenShare,
    out: &Path,
    keeping: &Keeping,
) -> Result<()> {
    let (open, plan, digest) = shown(context).await?;
    context.out.note(&format!("  {}", waits_for(&open)));
    keeping.present(context, plan.store()).await?;
    let command = command_of(open.act, open.vault.as_ref());
    check_new(
        out,
        &awaited(&open, &plan, &digest),
        "name another folder with --out; no share was given",
    )?;
    let share = given.read(&command)?.to_text()?;
    let outcome =
        unseal::give(context, digest, &share)
            .await
            .map_err(|e| match (e.code(), open.act) {
                ("share_refused", CeremonyAct::UnsealVault) => e.next(&*command),
                ("share_refused", _) => e.next("mcpist ceremony"),
                _ => e,
            })?;
    let files = match &outcome {
        ShareOutcome::Delivered { shares, .. } => write(out, &plan, shares).map_err(|e| {
            e.during("the new shares are made and wait")
                .next("mcpist ceremony shares --out DIR")
        })?,
        ShareOutcome::Completed(done) => keep(context, out, &digest, done, keeping)?,
        _ => Vec::new(),
    };
    context
        .out
        .data(&Given { outcome, files }, |given| told(given, &command))
}

/// The files that the next share may bring, should it be the last of its phase.
fn awaited(open: &OpenCeremony, plan: &Plan, digest: &Digest) -> Vec<String> {
    let is_last = open.progress.given + 1 >= open.progress.needed;
    match (open.phase, open.act) {
        _ if !is_last => Vec::new(),
        // Nothing is made that would have a record.
        (_, CeremonyAct::UnsealVault) => Vec::new(),
        (CeremonyPhase::Consent, CeremonyAct::Rekey | CeremonyAct::RekeyVault) => share_files(plan),
        _ => record_files(digest).to_vec(),
    }
}

/// The open ceremony in one line of the status.
pub(crate) fn summary(open: &CeremonyStatus) -> String {
    let act = match open.act {
        CeremonyAct::Rekey => "rekey",
        CeremonyAct::RotateRoot => "rotate root",
        CeremonyAct::UnsealVault => "unseal vault",
        CeremonyAct::NewVault => "make vault",
        CeremonyAct::RekeyVault => "rekey vault",
    };
    let of = open.vault.as_ref().map_or("", |vault| vault.as_str());
    let act = format!("{act} {of}");
    let act = act.trim_end();
    let whose = match open.phase {
        CeremonyPhase::Consent => "current holders consented",
        CeremonyPhase::Proof => "new holders have proved their share",
    };
    let p = &open.progress;
    format!("{act}, {} of {} {whose}{}", p.given, p.needed, expires(p))
}

/// What its holders give a share with.
fn command_of(act: CeremonyAct, vault: Option<&VaultName>) -> String {
    match (act, vault) {
        (CeremonyAct::UnsealVault, Some(vault)) => format!("mcpist vault unseal {vault}"),
        _ => "mcpist ceremony give".to_owned(),
    }
}

/// What the end of a ceremony that was not completed leaves.
fn cancelled(ended: &CeremonyStatus) -> String {
    let vault = ended.vault.as_ref().map_or("", |vault| vault.as_str());
    let left = match (ended.act, ended.phase) {
        (CeremonyAct::UnsealVault, _) => {
            format!("vault {vault} stays sealed; next: mcpist vault unseal {vault}")
        }
        (CeremonyAct::NewVault, _) => {
            format!("vault {vault} is not made, and its shares will never open anything")
        }
        (CeremonyAct::RekeyVault, CeremonyPhase::Proof) => {
            format!("vault {vault} is as it was, and no new share will ever open it")
        }
        (CeremonyAct::RekeyVault, CeremonyPhase::Consent) => format!("vault {vault} is as it was"),
        (CeremonyAct::Rekey, CeremonyPhase::Proof) => {
            "the store is as it was, and no new share will ever open it".to_owned()
        }
        (CeremonyAct::Rekey | CeremonyAct::RotateRoot, _) => "the store is as it was".to_owned(),
    };
    format!("the ceremony was ended, and no share of it is kept; {left}")
}

/// Whose shares the ceremony waits for, and how to give one.
fn waits_for(open: &OpenCeremony) -> String {
    let p = &open.progress;
    let whose = match open.phase {
        CeremonyPhase::Consent => "waits for the consent of the current holders",
        CeremonyPhase::Proof => "waits for the new holders, who each give their new share once",
    };
    let given = match p.holders.is_empty() {
        true => String::new(),
        false => format!(" ({})", p.holders.join(", ")),
    };
    format!(
        "{whose}: {} of {} given{given}{}\nnext: {}",
        p.given,
        p.needed,
        expires(p),
        command_of(open.act, open.vault.as_ref())
    )
}

fn told(given: &Given, command: &str) -> String {
    match &given.outcome {
        ShareOutcome::Pending(p) => format!(
            "taken as consent: {} of {} ({}){}\nnext: the next holder runs {command}",
            p.given,
            p.needed,
            p.holders.join(", "),
            expires(p)
        ),
        ShareOutcome::Delivered { progress, .. } => format!(
            "the quorum consents. {}\nthe current shares stay in force until {} of the new holders have proved to have theirs\nnext: give each file to its holder, who runs mcpist ceremony give",
            listed(&given.files),
            progress.needed
        ),
        ShareOutcome::Proven(p) => format!(
            "proved: {} of {} ({}); the share itself was not kept\nnext: the next new holder runs mcpist ceremony give",
            p.given,
            p.needed,
            p.holders.join(", ")
        ),
        ShareOutcome::Completed(done) => match done.act {
            CeremonyAct::Rekey => format!(
                "done: the shares of generation {} open the store, the ones before open nothing any more\nnext: {NEXT_BACKUP}{}",
                done.generation,
                recorded(&given.files)
            ),
            CeremonyAct::UnsealVault => format!("vault {} is open", vault_of(done)),
            CeremonyAct::NewVault => format!(
                "done: vault {} is made and open; after a seal its own shares open it, and the store's do not\nnext: mcpist credential put {} NAME{}",
                vault_of(done),
                vault_of(done),
                recorded(&given.files)
            ),
            CeremonyAct::RekeyVault => format!(
                "done: the shares of generation {} open vault {}, the ones before open nothing any more\nnext: {NEXT_BACKUP}{}",
                done.generation,
                vault_of(done),
                recorded(&given.files)
            ),
            CeremonyAct::RotateRoot => {
                format!(
                    "done: the store has a new root key; its shares are the same\nnext: mcpist backup FILE{}",
                    recorded(&given.files)
                )
            }
        },
        ShareOutcome::Opened(_) => "the store is open".to_owned(),
        ShareOutcome::Drilled(_) => "the drill is done; nothing was restored".to_owned(),
        ShareOutcome::Restored(_) => {
            "the store is restored, and sealed; next: mcpist unseal".to_owned()
        }
        ShareOutcome::Refused { message, .. } => message.clone(),
    }
}

fn vault_of(done: &CeremonyDone) -> &str {
    done.vault.as_ref().map_or("", |vault| vault.as_str())
}

/// Where the record of what was done is.
fn recorded(files: &[PathBuf]) -> String {
    let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    match files.is_empty() {
        true => String::new(),
        false => format!(
            "\nrecord, to be kept with that of init: {}",
            files.join(", ")
        ),
    }
}

pub(crate) fn listed(files: &[PathBuf]) -> String {
    let lines = files.iter().map(|f| format!("\n  {}", f.display()));
    format!(
        "New shares, each encrypted to its holder:{}",
        lines.collect::<String>()
    )
}

/// Keeps what a ceremony leaves: its record in files, its receipt among the others.
pub(crate) fn keep(
    context: &Context,
    folder: &Path,
    plan: &Digest,
    done: &CeremonyDone,
    keeping: &Keeping,
) -> Result<Vec<PathBuf>> {
    if let Some(why) = &done.audit_lost {
        context.out.terms(&format!("audit_lost: {why}"));
    }
    keeping.keep(context, done.receipt.as_deref());
    write_record(folder, plan, done).map_err(|e| {
        // It is not made again: better here than nowhere.
        context
            .out
            .terms(done.record_text.as_deref().unwrap_or_default());
        e.during("the ceremony is done, and its record could not be kept")
    })
}

/// Writes the ceremony's record, bytes and text, named by its plan.
fn write_record(folder: &Path, plan: &Digest, done: &CeremonyDone) -> Result<Vec<PathBuf>> {
    let (Some(record), Some(text)) = (&done.record, &done.record_text) else {
        return Ok(Vec::new());
    };
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let [bin, txt] = record_files(plan).map(|name| folder.join(name));
    let files = [(bin, &record.0[..]), (txt, text.as_bytes())];
    for (path, bytes) in &files {
        secret::create(path, 0o644, bytes)?;
    }
    secret::sync_folder(folder)?;
    Ok(files.map(|(path, _)| path).to_vec())
}

/// The names of a ceremony's record: its bytes, and its text.
pub(crate) fn record_files(plan: &Digest) -> [String; 2] {
    ["bin", "txt"].map(|form| format!("ceremony-{}.{form}", plan.short()))
}

/// The names of the files of the shares that a plan makes, in the order of its holders.
pub(crate) fn share_files(plan: &Plan) -> Vec<String> {
    let Some((generation, holders)) = made_by(plan) else {
        return Vec::new();
    };
    let name = |(at, h): (usize, &PlannedHolder)| share_file(at, &h.label, generation.get());
    holders.iter().enumerate().map(name).collect()
}

/// Writes each share that a plan made to a file of its own; nothing is overwritten.
pub(crate) fn write(folder: &Path, plan: &Plan, shares: &[DeliveredShare]) -> Result<Vec<PathBuf>> {
    let named = share_files(plan).into_iter().zip(shares);
    named
        .map(|(name, share)| write_one(folder, &name, share))
        .collect()
}

/// Writes a share to a file of this name.
pub(crate) fn write_one(folder: &Path, name: &str, share: &DeliveredShare) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join(name);
    secret::create(&path, 0o600, share.age.as_bytes())
        .map_err(|e| e.next("name another folder: mcpist ceremony shares --out DIR"))?;
    secret::sync_folder(folder)?;
    Ok(path)
}
