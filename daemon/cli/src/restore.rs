//! `restore`, and the drill of one.
//!
//! The file is opened here and handed over as a descriptor. Promises that the plan is shown under the digest that was
//! computed from its bytes, names the backup whose bytes were read, and is a drill's where a drill was asked for and no
//! other; and that a report holds nothing secret.

use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::{
    Done, DrillDone, LeftOut, LifeRecord, OldRemoved, OldStore, OpenRestore, Purpose, RestoreDone,
    ShareOutcome, path,
};
use mcpist_core::date;
use mcpist_core::ids::Digest;
use mcpist_quorum::Act;

use crate::backup::{carried, exit, inspect, left_out};
use crate::error::{Error, Result};
use crate::init::show_token;
use crate::plan::{confirm, describe, read_plan};
use crate::rekey::record_files;
use crate::share::{GivenShare, check_file};
use crate::witness::Keeping;
use crate::{Context, secret, unseal};

/// Make a store out of a backup, in the place of the sealed one or on a host that has none
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist restore store.backup                           begins: shows the plan; nothing changes yet
  mcpist restore --give --share-file share-1-ada.age --identity ada.txt
  mcpist restore --give --record restored.bin           the last share makes the store, and its record
  mcpist restore --record restored.bin                  the record once more, while the restored store is open
  mcpist restore --cancel
  mcpist restore --remove-old                           when the restored store serves
  mcpist restore store.backup --drill                   rehearses all of it and keeps nothing
  mcpist restore --give --report drill-2026.txt         the last share of a drill

On a host without a store, sudo it: init's token is asked for, as nobody else may give the host a store. The store that was
there is kept aside. The restored one is sealed: next, mcpist unseal.")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(required_unless_present_any = ["give", "cancel", "remove_old", "record"])]
    file: Option<PathBuf>,
    /// Rehearse the restore: build the whole store, open every record, measure it, and remove it again
    #[arg(long, conflicts_with_all = ["give", "cancel", "remove_old"])]
    drill: bool,
    /// Give a share of the quorum that the backup names
    #[arg(long, conflicts_with = "file")]
    give: bool,
    #[command(flatten)]
    given: GivenShare,
    /// New file for the ceremony record, should this share be the last, in place of ceremony-PLAN.bin here; without --give,
    /// that of the open store's life again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "cancel", "remove_old"])]
    record: Option<PathBuf>,
    /// New file for the report of a drill, should this share be the last
    #[arg(
        long,
        value_name = "FILE",
        requires = "give",
        conflicts_with = "record"
    )]
    report: Option<PathBuf>,
    /// The file with the init token, for a host without a store; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/mcpist/init-token"
    )]
    token_file: PathBuf,
    /// End the restore that waits for shares
    #[arg(long, conflicts_with_all = ["file", "give"])]
    cancel: bool,
    /// Remove the store that a restore replaced, for good; the restored one is open for that
    #[arg(long, conflicts_with_all = ["file", "give", "cancel"])]
    remove_old: bool,
    /// Do not ask whether it is to be removed
    #[arg(long, requires = "remove_old")]
    yes: bool,
    #[command(flatten)]
    keeping: Keeping,
}

pub(crate) async fn restore(context: &Context, args: RestoreArgs) -> Result<u8> {
    let done = if args.remove_old {
        remove_old(context, args.yes).await
    } else if args.cancel {
        let done: Done = context.client.delete(path::RESTORE).await?;
        context.out.data(&done, |_| {
            "ended; nothing was changed and no share is kept".to_owned()
        })
    } else {
        match (&args.file, &args.record) {
            (Some(file), _) => begin(context, file, &args).await,
            (None, Some(record)) if !args.give => record_again(context, record).await,
            (None, _) => return give(context, &args).await,
        }
    };
    done.map(|()| 0)
}

/// The answer to the last share may have been lost.
async fn record_again(context: &Context, file: &Path) -> Result<()> {
    let kept: LifeRecord = context.client.get(path::RESTORE_RECORD).await?;
    secret::create(file, 0o644, &kept.record.0)?;
    context.out.data(&kept, |kept| kept.record_text.clone())
}

async fn remove_old(context: &Context, yes: bool) -> Result<()> {
    let old: OldStore = context.client.get(path::RESTORE_OLD).await?;
    let Some(kept) = old.kept else {
        return context.out.data(&OldRemoved { removed: false }, |_| {
            "no store is kept aside".to_owned()
        });
    };
    context.out.terms(&format!(
        "Remove the store that was kept aside, for good: life {kept}, which nobody can open any more then\n  \
         life {}, generation {}, is open and stays; what was done after its backup is in the old one alone",
        old.life, old.generation
    ));
    if !yes {
        confirm("Remove it?")?;
    }
    let removed: OldRemoved = context.client.delete(path::RESTORE_OLD).await?;
    context.out.data(&removed, |_| {
        "the store that was kept aside is removed".to_owned()
    })
}

/// The restore that waits, once it was shown the kept receipt of its store: the life that it begins is above that one.
async fn waiting(context: &Context, keeping: &Keeping) -> Result<OpenRestore> {
    let open: OpenRestore = context.client.get(path::RESTORE).await?;
    if open.drill {
        return Ok(open);
    }
    let (plan, _) = read_plan(&open.plan)?;
    keeping.present(context, plan.store()).await?;
    context.client.get(path::RESTORE).await
}

async fn begin(context: &Context, file: &Path, args: &RestoreArgs) -> Result<()> {
    let ours = inspect(file)?;
    let purpose = if args.drill {
        Purpose::Drill
    } else {
        token(context, &args.token_file).await?;
        Purpose::Restore
    };
    let opened = secret::open(file)?;
    let handing = secret::restore(&context.client, purpose, &opened);
    context.out.while_busy("reading it whole", handing).await?;
    let open = waiting(context, &args.keeping).await?;
    let digest = terms(context, &open, Some((ours.backup, args.drill)))?;
    context.out.data(&open, |open| {
        format!(
            "{} shares of generation {} are waited for; each holder: mcpist restore --give, under plan {digest}",
            open.progress.needed, open.generation
        )
    })
}

/// A host without a store is given one by who has init's token.
async fn token(context: &Context, file: &Path) -> Result<()> {
    let status: mcpist_core::api::Status = context.client.get(path::STATUS).await?;
    if status.state == mcpist_core::api::StoreState::Uninitialised {
        show_token(context, file, "mcpist restore FILE").await?;
    }
    Ok(())
}

/// Shows the plan under the digest that was computed here. It must name the backup that was read here, for what it was
/// brought in.
fn terms(context: &Context, open: &OpenRestore, ours: Option<(Digest, bool)>) -> Result<Digest> {
    let (plan, digest) = read_plan(&open.plan)?;
    let names = match plan.act() {
        Act::Restore { backup, .. } => Some((Digest::from_bytes(*backup), false)),
        Act::Drill { backup, .. } => Some((Digest::from_bytes(*backup), true)),
        _ => None,
    };
    if names != Some((open.backup, open.drill)) || ours.is_some_and(|ours| Some(ours) != names) {
        return Err(Error::new(
            "plan_mismatch",
            "the daemon planned another act than this, or named another backup",
        ));
    }
    let lives: Vec<String> = open.overrides.iter().map(u64::to_string).collect();
    let over = match lives.is_empty() {
        true => String::new(),
        false => format!(
            "\n  later than the backup, and over then: life {}",
            lives.join(", ")
        ),
    };
    context.out.terms(&format!(
        "{}\n  begun {}{}{over}",
        describe(&plan, &digest),
        date::date(open.created),
        match (open.drill, open.replaces) {
            (true, _) => "\n  a drill: the store that it makes is removed again, and nothing else is touched",
            (false, true) => "\n  in the place of the store that is here, which is kept aside",
            (false, false) => "",
        }
    ));
    Ok(digest)
}

async fn give(context: &Context, args: &RestoreArgs) -> Result<u8> {
    let open = waiting(context, &args.keeping).await?;
    match (open.drill, &args.record, &args.report) {
        (true, Some(_), _) => {
            return Err(Error::usage(
                "a drill begins no life, and has no record: give --report FILE",
            ));
        }
        (false, _, Some(_)) => {
            return Err(Error::usage(
                "this is no drill but a restore: give --record FILE",
            ));
        }
        _ => {}
    }
    let digest = terms(context, &open, None)?;
    let record = (args.record.clone()).unwrap_or_else(|| {
        let [name, _] = record_files(&digest);
        PathBuf::from(name)
    });
    if open.progress.given + 1 >= open.progress.needed {
        const NEXT: &str = "name another file with --record or --report; no share was given";
        match (open.drill, &args.report) {
            (false, _) => check_file(&record, NEXT)?,
            (true, Some(report)) => check_file(report, NEXT)?,
            (true, None) => {}
        }
    }
    let share = args.given.read("mcpist restore --give")?.to_text()?;
    let giving = unseal::give(context, digest, &share);
    let outcome = giving.await.map_err(|e| match e.code() {
        "share_refused" => e.next("mcpist restore --give"),
        _ => e,
    })?;
    let written = match &outcome {
        ShareOutcome::Restored(done) => secret::create(&record, 0o644, &done.record.0),
        _ => Ok(()),
    };
    context.out.data(&outcome, |outcome| match outcome {
        ShareOutcome::Restored(done) => restored(done, written.is_ok().then_some(&*record)),
        ShareOutcome::Drilled(done) => report(done),
        ShareOutcome::Pending(p) => unseal::taken(p),
        ShareOutcome::Refused { message, .. } => message.clone(),
        // A plan to restore has no other end.
        _ => "taken for another ceremony; next: mcpist status".to_owned(),
    })?;
    let written = match (&outcome, &args.report) {
        (ShareOutcome::Drilled(done), Some(file)) => {
            let text = report(done) + "\n";
            secret::create(file, 0o644, text.as_bytes())
                .map_err(|e| e.during("the drill is done; its report, which is above"))
        }
        _ => written.map_err(|e| {
            e.during("the store is restored; its record, which is above, could not be written")
                .next("mcpist unseal, then mcpist restore --record FILE writes it")
        }),
    };
    if let Err(e) = written {
        return after_the_result(context, e);
    }
    Ok(match &outcome {
        ShareOutcome::Restored(done) => exit(&done.left_out),
        ShareOutcome::Drilled(done) => exit(&done.left_out),
        _ => 0,
    })
}

/// What failed once the result was given out. Programs have their one object, and it holds what was not written.
fn after_the_result(context: &Context, error: Error) -> Result<u8> {
    if !context.out.is_json() {
        return Err(error);
    }
    let next = error.next_step().unwrap_or_default();
    context.out.terms(&format!("{error}\nnext: {next}"));
    Ok(error.exit())
}

fn restored(done: &RestoreDone, record: Option<&Path>) -> String {
    format!(
        "restored: {} vaults, {} records, {} files; life {}{}{}{}{}\n\n{}\nkeep this record{} with init's: its audit key is that of the log that begins\nnext: mcpist unseal, then mcpist witness pull, and keep the host that had the store from being unsealed",
        done.vaults,
        done.records,
        done.files,
        done.life,
        carried(&done.carried),
        bring_back(&done.left_out),
        if done.kept {
            "\nthe store that was here is kept aside: mcpist restore --remove-old, once this one serves"
        } else {
            ""
        },
        match &done.unsettled {
            Some(what) =>
                format!("\nDONE, BUT: {what}; see to it before the unseal, and to: mcpist status"),
            None => String::new(),
        },
        done.record_text,
        record.map_or(String::new(), |at| format!(", {},", at.display()))
    )
}

/// What the store names and does not have, and where it may come from.
fn bring_back(vaults: &[LeftOut]) -> String {
    let of = |one: &LeftOut| {
        let name = &one.vault;
        format!(
            "\n  once this store is open: mcpist vault restore {name} --from BACKUP, one that lacks no vault"
        )
    };
    let each = vaults
        .iter()
        .map(|one| left_out(std::slice::from_ref(one)) + &of(one));
    each.collect()
}

/// The report of a drill, for the terminal and for the auditor.
fn report(done: &DrillDone) -> String {
    let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
    let took = done.reading_ms + done.building_ms + done.verifying_ms;
    let lost = match done.age_s {
        Some(age) => format!("{}, what was done since the backup", span(age)),
        None => "not known: this host's clock is before the backup's".to_owned(),
    };
    let rows = [
        ("store", done.store.clone()),
        ("backup", done.backup.to_string()),
        (
            "made",
            format!(
                "{}, generation {}",
                date::date(done.created),
                done.generation
            ),
        ),
        ("drilled", date::date(done.drilled)),
        ("plan", done.plan.to_string()),
        (
            "opened",
            format!(
                "{} vaults, {} records, {} files, {} bytes",
                done.vaults, done.records, done.files, done.bytes
            ),
        ),
        ("lost", format!("{lost} (RPO, were the host lost now)")),
        (
            "took",
            format!(
                "{} (RTO, besides people and the unseal): reading {}, building {}, verifying {}",
                seconds(took),
                seconds(done.reading_ms),
                seconds(done.building_ms),
                seconds(done.verifying_ms)
            ),
        ),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<9} {value}\n"));
    let missing = if done.left_out.is_empty() {
        "complete: the backup lacks no vault".to_owned()
    } else {
        format!("INCOMPLETE{}", left_out(&done.left_out))
    };
    format!(
        "MCPist restore drill: {}; nothing was restored, and nothing is left of it\n\n{}{missing}{}",
        match (done.left_out.is_empty(), done.carried.is_empty()) {
            (false, _) => "INCOMPLETE, the backup lacks a vault",
            (true, true) => "every record opened",
            (true, false) => "every record opened but those that wait for their own quorum",
        },
        lines.concat(),
        carried(&done.carried)
    )
}

/// A time in the two units that say most of it.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use mcpist_core::error::EXIT_FAILURE;

    use super::*;
    use crate::client::Client;
    use crate::output::{Format, Output};

    #[test]
    fn a_time_is_told_in_its_two_greatest_units() {
        let told = [0, 59, 61, 3_661, 90_000].map(span);
        assert_eq!(told, ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_record_that_could_not_be_written_costs_programs_no_second_object() {
        let after = |format| {
            let context = Context {
                client: Client::new(PathBuf::from("run")),
                out: Output::new(format, true),
            };
            after_the_result(&context, Error::file(Path::new("record.bin"), "full"))
        };
        assert_eq!(after(Format::Json).ok(), Some(EXIT_FAILURE));
        assert!(after(Format::Text).is_err_and(|e| e.code() == "file"));
    }
}
