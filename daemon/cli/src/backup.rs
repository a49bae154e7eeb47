//! `backup` and `restore`.
//!
//! The file is opened here and handed over as a descriptor. Promises that a backup is a new file, 0600, and does not stay
//! where it did not come to its end; that the plan to restore is shown under the digest that was computed from its bytes,
//! and names the backup whose bytes were read; and that `inspect`, and `verify --offline`, need no daemon and no share.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::api::{
    BackupMade, Done, LeftOut, OldRemoved, OpenRestore, RestoreDone, ShareOutcome, path,
};
use mcpist_core::date;
use mcpist_core::ids::Digest;
use mcpist_quorum::{Act, BackupEnd, BackupHeader, BackupPart, BackupScan};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::medium::NewFile;
use crate::plan::{describe, read_plan};
use crate::share::GivenShare;
use crate::store::expires;
use crate::{Context, secret, unseal};

/// Back the open store up into one file that its own quorum opens
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  mcpist backup /media/usb/store-2026-11-24.backup      while the store serves
  mcpist backup verify /media/usb/store-2026-11-24.backup
  mcpist backup inspect store.backup                    whose is it, of when? Needs no daemon

The file is of no use without the shares of the holders that it names. It was read back whole before this command says
that it was made; take it out of the host then."
)]
pub(crate) struct BackupArgs {
    /// The new file
    #[arg(required = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<BackupCommand>,
}

#[derive(Subcommand)]
enum BackupCommand {
    /// Read a backup of this store whole, every record opened; with --offline only whether the file is undamaged
    #[command(after_help = "Examples:
  mcpist backup verify store.backup                     while the store is open
  mcpist backup verify store.backup --offline           is the stick sound?")]
    Verify {
        /// The backup
        file: PathBuf,
        /// Without the daemon: length, order and digest, no record
        #[arg(long)]
        offline: bool,
    },
    /// Show what a backup says of itself: store, time, holders. It may be forged until a restore opened it
    #[command(after_help = "Examples:
  mcpist backup inspect store.backup")]
    Inspect {
        /// The backup
        file: PathBuf,
    },
}

/// Make a store out of a backup, in the place of the sealed one or on a host that has none
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist restore store.backup                           begins: shows the plan; nothing changes yet
  mcpist restore --give --share-file share-1-ada.age --identity ada.txt
  mcpist restore --give --record restored.bin           the last share makes the store
  mcpist restore --cancel
  mcpist restore --remove-old                           when the restored store serves

On a host without a store, sudo it: init's token is asked for, as nobody else may give the host a store. The store that was
there is kept aside. The restored one is sealed: next, mcpist unseal.")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(required_unless_present_any = ["give", "cancel", "remove_old"])]
    file: Option<PathBuf>,
    /// Give a share of the quorum that the backup names
    #[arg(long, conflicts_with = "file")]
    give: bool,
    #[command(flatten)]
    given: GivenShare,
    /// New file for the ceremony record, should this share be the last
    #[arg(long, value_name = "FILE", requires = "give")]
    record: Option<PathBuf>,
    /// The file with the init token, for a host without a store
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/mcpist/init-token"
    )]
    token_file: PathBuf,
    /// End the restore that waits for shares
    #[arg(long, conflicts_with_all = ["file", "give"])]
    cancel: bool,
    /// Remove the store that a restore replaced, for good
    #[arg(long, conflicts_with_all = ["file", "give", "cancel"])]
    remove_old: bool,
}

/// What a backup says of itself.
#[derive(Serialize)]
struct Inspected {
    backup: Digest,
    store: String,
    created: u64,
    life: u64,
    generation: u64,
    share_generation: u32,
    needed: u8,
    holders: Vec<String>,
    dev: bool,
    bytes: u64,
    chunks: u64,
}

pub(crate) async fn backup(context: &Context, args: BackupArgs) -> Result<()> {
    match (args.command, args.file) {
        (Some(BackupCommand::Inspect { file }), _) => {
            context.out.data(&inspect(&file)?, show_inspected)
        }
        (Some(BackupCommand::Verify { file, offline }), _) if offline => {
            context.out.data(&inspect(&file)?, |found| {
                format!(
                    "undamaged: {} bytes in {} chunks\nbackup {}\nonly an open store, or a restore, opens its records",
                    found.bytes, found.chunks, found.backup
                )
            })
        }
        (Some(BackupCommand::Verify { file, .. }), _) => {
            let opened = secret::open(&file)?;
            let verifying = secret::verify_backup(&context.client, &opened);
            let verified = context.out.while_busy("reading it whole", verifying).await?;
            context.out.data(&verified, |made| show("verified", made))
        }
        (None, Some(file)) => {
            let new = NewFile::create(&file, 0o600)?;
            let making = secret::backup(&context.client, new.file());
            let made = context.out.while_busy("backing up", making).await;
            let made = new.settle(made, "mcpist backup verify")?;
            context.out.data(&made, |made| show("backed up and read back", made))
        }
        (None, None) => Err(Error::usage("name a file: mcpist backup FILE")),
    }
}

/// Reads the file once, without a key.
fn inspect(path: &Path) -> Result<Inspected> {
    let mut file = secret::open(path)?;
    let (header, end, bytes) = scan(&mut file).map_err(|e| e.during(path.display()))?;
    let config = header.config();
    Ok(Inspected {
        backup: Digest::from_bytes(end.name()),
        store: config.store().to_string(),
        created: header.created(),
        life: header.incarnation().counter,
        generation: header.generation(),
        share_generation: config.generation().get(),
        needed: config.threshold().needed(),
        holders: config.holders().iter().map(|h| h.label.clone()).collect(),
        dev: config.is_dev(),
        bytes,
        chunks: end.chunks,
    })
}

fn scan(file: &mut impl Read) -> Result<(BackupHeader, BackupEnd, u64)> {
    let (mut scan, mut part, mut bytes) = (BackupScan::default(), Vec::new(), 0);
    let (mut header, mut ended) = (None, None);
    while scan.wants() > 0 {
        part.clear();
        file.take(scan.wants() as u64).read_to_end(&mut part)?;
        bytes += part.len() as u64;
        match scan
            .take(&part)
            .map_err(|e| Error::new("backup_refused", e))?
        {
            Some(BackupPart::Header(found)) => header = Some(*found),
            Some(BackupPart::End(end)) => ended = Some(end),
            Some(BackupPart::Chunk(_)) | None => {}
        }
    }
    if file.read(&mut [0])? > 0 {
        return Err(Error::new(
            "backup_refused",
            "bytes stand after the backup's end",
        ));
    }
    match (header, ended) {
        (Some(header), Some(end)) => Ok((header, end, bytes)),
        _ => Err(Error::new("backup_refused", "the backup has no end")),
    }
}

fn show_inspected(found: &Inspected) -> String {
    format!(
        "backup    {}\nstore     {}{}\nbegun     {}\nlife      {}, generation {}\nshares    {} of {} of generation {}: {}\nlength    {} bytes, {} chunks, undamaged\nnothing of this is proven before a quorum opened it",
        found.backup,
        found.store,
        if found.dev {
            " (development store)"
        } else {
            ""
        },
        date::date(found.created),
        found.life,
        found.generation,
        found.needed,
        found.holders.len(),
        found.share_generation,
        found.holders.join(", "),
        found.bytes,
        found.chunks,
    )
}

fn show(what: &str, made: &BackupMade) -> String {
    format!(
        "{what}: {} vaults, {} records, {} files, {} bytes\nbackup {}{}",
        made.vaults,
        made.records,
        made.files,
        made.bytes,
        made.backup,
        left_out(&made.left_out)
    )
}

fn left_out(vaults: &[LeftOut]) -> String {
    let named = |one: &LeftOut| format!("\nNOT in it: vault {}: {}", one.vault, one.reason);
    vaults.iter().map(named).collect()
}

pub(crate) async fn restore(context: &Context, args: RestoreArgs) -> Result<()> {
    if args.remove_old {
        let removed: OldRemoved = context.client.delete(path::RESTORE_OLD).await?;
        return context.out.data(&removed, |removed| {
            if removed.removed {
                "the store that was kept aside is removed".to_owned()
            } else {
                "no store is kept aside".to_owned()
            }
        });
    }
    if args.cancel {
        let done: Done = context.client.delete(path::RESTORE).await?;
        return context.out.data(&done, |_| {
            "the restore was ended; nothing was changed and no share is kept".to_owned()
        });
    }
    match &args.file {
        Some(file) => begin(context, file, &args.token_file).await,
        None => give(context, &args).await,
    }
}

async fn begin(context: &Context, file: &Path, token_file: &Path) -> Result<()> {
    let ours = inspect(file)?;
    let status: mcpist_core::api::Status = context.client.get(path::STATUS).await?;
    if status.state == mcpist_core::api::StoreState::Uninitialised {
        let token = secret::read_secret_file(token_file)?;
        secret::init_token(&context.client, &token).await?;
    }
    let opened = secret::open(file)?;
    let handing = secret::restore(&context.client, &opened);
    let open = context.out.while_busy("reading it whole", handing).await?;
    let digest = terms(context, &open, Some(ours.backup))?;
    context.out.data(&open, |open| {
        format!(
            "{} shares of generation {} are waited for; each holder: mcpist restore --give, under plan {digest}",
            open.progress.needed, open.generation
        )
    })
}

/// Shows the plan under the digest that was computed here. It must name the backup that was read here.
fn terms(context: &Context, open: &OpenRestore, ours: Option<Digest>) -> Result<Digest> {
    let (plan, digest) = read_plan(&open.plan)?;
    let names = match plan.act() {
        Act::Restore { backup, .. } => Some(Digest::from_bytes(*backup)),
        _ => None,
    };
    if names != Some(open.backup) || ours.is_some_and(|ours| ours != open.backup) {
        return Err(Error::new(
            "plan_mismatch",
            "the daemon planned to restore another backup than this one",
        ));
    }
    context.out.terms(&format!(
        "{}\n  begun {}{}",
        describe(&plan, &digest),
        date::date(open.created),
        if open.replaces {
            "\n  in the place of the store that is here, which is kept aside"
        } else {
            ""
        }
    ));
    Ok(digest)
}

async fn give(context: &Context, args: &RestoreArgs) -> Result<()> {
    let open: OpenRestore = context.client.get(path::RESTORE).await?;
    let digest = terms(context, &open, None)?;
    let share = args.given.read()?.to_text()?;
    let outcome = unseal::give(context, digest, &share)
        .await
        .map_err(|e| match e.code() {
            "share_refused" => e.next("mcpist restore --give"),
            _ => e,
        })?;
    if let (ShareOutcome::Restored(done), Some(file)) = (&outcome, &args.record) {
        secret::create(file, 0o644, &done.record.0)
            .map_err(|e| e.during("the store is restored; its record"))?;
    }
    context.out.data(&outcome, |outcome| match outcome {
        ShareOutcome::Restored(done) => restored(done),
        ShareOutcome::Pending(p) => format!(
            "taken: {} of {} shares ({}){}",
            p.given,
            p.needed,
            p.holders.join(", "),
            expires(p)
        ),
        ShareOutcome::Refused { message, .. } => message.clone(),
        // A plan to restore has no other end.
        _ => "taken for another ceremony; next: mcpist status".to_owned(),
    })
}

fn restored(done: &RestoreDone) -> String {
    format!(
        "restored: {} vaults, {} records, {} files; life {}{}{}\n\n{}\nkeep this record with init's: its audit key is that of the log that begins\nnext: mcpist unseal, then mcpist witness pull, and keep the host that had the store from being unsealed",
        done.vaults,
        done.records,
        done.files,
        done.life,
        left_out(&done.left_out),
        if done.kept {
            "\nthe store that was here is kept aside: mcpist restore --remove-old, once this one serves"
        } else {
            ""
        },
        done.record_text
    )
}
