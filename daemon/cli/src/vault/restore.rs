//! `vault restore`: one vault out of a backup.
//!
//! The file is opened here and handed over as a descriptor. Promises that what would be lost is shown before it is asked
//! for, and that what was shown is what is done: the daemon refuses a plan that backup or vault are no longer as.

use std::path::PathBuf;

use clap::Args;
use mcpist_core::api::{LostCredential, VaultInBackup, VaultRestored};
use mcpist_core::date;
use mcpist_core::ids::{Digest, VaultName};

use crate::error::Result;
use crate::plan::confirm;
use crate::{Context, secret};

/// Make one vault what a backup of this store has of it, while the others serve
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault restore team --from store.backup                     shows what it holds and what is lost, and asks
  mcpist vault restore team --from store.backup --output json       shows it, and changes nothing
  mcpist vault restore team --from store.backup --yes --plan 3f9c…  without a question, if all is still as it was shown
  mcpist vault restore team --from store.backup --replace           a vault that serves: what was put since is lost

For a vault that is quarantined, or not there any more. What it was is kept until: mcpist vault discard. A vault with a
quorum of its own comes back sealed, under its quorum of today, which opens it: mcpist vault unseal; one that is only
sealed is replaced with --replace, like one that serves. A backup from before the last mcpist rotate root does not open
here; for that one, and for the whole store: mcpist restore.")]
pub(super) struct RestoreArgs {
    /// Its name
    name: VaultName,
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Replace the vault although it is not quarantined
    #[arg(long)]
    replace: bool,
    /// Do it without a question, as it was shown
    #[arg(long, requires = "plan")]
    yes: bool,
    /// What was shown, by its digest
    #[arg(long, value_name = "DIGEST", requires = "yes")]
    plan: Option<Digest>,
}

pub(super) async fn restore(context: &Context, args: RestoreArgs) -> Result<()> {
    let RestoreArgs {
        name,
        from,
        replace,
        plan,
        ..
    } = args;
    let file = secret::open(&from)?;
    let again = || {
        let replace = if replace { " --replace" } else { "" };
        format!(
            "mcpist vault restore {name} --from {}{replace}",
            from.display()
        )
    };
    let plan = match plan {
        Some(plan) => plan,
        None => {
            let looking = secret::look_into_backup(&context.client, &file, &name, replace);
            let found = context.out.while_busy("reading both", looking).await?;
            if context.out.is_json() {
                return context.out.data(&found, show);
            }
            context.out.terms(&show(&found));
            confirm("Make the vault what the backup has of it?")
                .map_err(|e| e.next(format!("{} --yes --plan {}", again(), found.plan)))?;
            found.plan
        }
    };
    let restoring = secret::restore_vault(&context.client, &file, &name, plan, replace);
    let done = context.out.while_busy("restoring", restoring).await?;
    context.out.data(&done, |done| restored(&name, done))
}

fn restored(name: &VaultName, done: &VaultRestored) -> String {
    let kept = match &done.file {
        Some(file) => format!("; what it was is vaults/{file}.db"),
        None => String::new(),
    };
    let next = if done.found.own_quorum {
        format!(
            "tell its holders, then mcpist vault unseal {name}, which verifies it under its quorum of today; where its keys \
             were rotated since the backup: mcpist vault rotate {name}"
        )
    } else {
        format!("mcpist credential list {name}, put what is newer, then mcpist backup FILE")
    };
    format!(
        "vault {name} is restored: {} records{kept}\nnext: {next}",
        done.found.records
    )
}

/// What a restore would make of the vault, as a person decides by it.
fn show(found: &VaultInBackup) -> String {
    let VaultInBackup {
        vault,
        plan,
        backup,
        records,
        ..
    } = found;
    let begun = date::date(found.created);
    let mut lines = vec![format!(
        "vault {vault}: {records} records in the backup of {begun}"
    )];
    let mut line = |text: String| lines.push(format!("  {text}"));
    if found.own_quorum {
        let now = if found.quarantined {
            "quarantined"
        } else {
            "sealed"
        };
        line(format!(
            "here it is {now}, and a quorum of its own opens it"
        ));
        line(
            "CAUTION: what was put since the backup is lost, and nobody can say what that is"
                .to_owned(),
        );
        line("it comes back sealed: its quorum of today opens it, and verifies it then".to_owned());
        line(format!("backup {backup}"));
        line(format!("plan {plan}"));
        return lines.join("\n");
    }
    match found.here {
        None => line("there is no vault of that name here: it is made".to_owned()),
        Some(here) if found.quarantined => {
            let damaged = match found.damaged {
                0 => String::new(),
                damaged => format!(", {damaged} do not"),
            };
            line(format!(
                "here it is quarantined, {here} records open{damaged}"
            ))
        }
        Some(here) => line(format!("CAUTION: here it serves, with {here} records")),
    }
    match (found.other, found.missing) {
        (0, 0) if found.here.is_some() && found.sure => {
            line("none of those here is lost: the backup has each in its version".to_owned());
        }
        (0, 0) => {}
        (other, missing) => {
            let kinds = [
                (other, "which the backup has in another version"),
                (missing, "which it does not have"),
            ];
            let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
            let kinds: Vec<_> = kinds.map(|(count, how)| format!("{count} {how}")).collect();
            let names = names(&found.lost, other + missing);
            line(format!("lost of those here: {}: {names}", kinds.join(", ")));
        }
    }
    if !found.sure {
        line(format!(
            "CAUTION: what does not open or is not there any more is lost as well, if it was put since {begun}: nobody can \
             say what that is"
        ));
        match found.since {
            Some(0) => line("the store knows of no write to it since the backup".to_owned()),
            Some(since) => line(format!(
                "the store knows of {since} writes to it since the backup"
            )),
            None => {}
        }
    }
    match found.lines_lost {
        _ if !found.quarantined => {}
        Some(0) => {}
        Some(lines) => line(format!(
            "audit lines that waited in it and are lost: {lines}"
        )),
        None => line("audit lines that waited in it, if any, are lost".to_owned()),
    }
    line(format!("backup {backup}"));
    line(format!("plan {plan}"));
    lines.join("\n")
}

/// Those that are named, and that there are more.
fn names(lost: &[LostCredential], all: u64) -> String {
    let name = |one: &LostCredential| match &one.owner {
        Some(owner) => format!("{} of {owner}", one.name),
        None => one.name.to_string(),
    };
    let named: Vec<_> = lost.iter().map(name).collect();
    let more = all.saturating_sub(lost.len() as u64);
    match more {
        0 => named.join(", "),
        _ => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(change: serde_json::Value) -> String {
        let mut found = serde_json::json!({
            "vault": "team", "plan": "0".repeat(64), "backup": "1".repeat(64), "created": 0, "records": 7,
            "here": 6, "quarantined": false, "damaged": 0, "sure": true, "other": 1, "missing": 2,
            "lost": [{ "name": "grafana" }, { "name": "git", "owner": "ada" }],
        });
        for (name, value) in change.as_object().unwrap() {
            found[name] = value.clone();
        }
        show(&serde_json::from_value(found).unwrap())
    }

    #[test]
    fn what_is_lost_is_said_before_anybody_is_asked() {
        let serves = found(serde_json::json!({}));
        for said in [
            "7 records in the backup of 1970-01-01",
            "CAUTION: here it serves, with 6 records",
            "lost of those here: 1 which the backup has in another version, 2 which it does not have",
            ": grafana, git of ada and 1 more",
        ] {
            assert!(serves.contains(said), "{said}: {serves}");
        }
        let damaged = found(serde_json::json!({ "quarantined": true }));
        assert!(damaged.contains("quarantined, 6 records open"), "{damaged}");
        assert!(damaged.contains("if any, are lost") && !damaged.contains("CAUTION"));
        let gone = found(serde_json::json!({
            "here": 0, "quarantined": true, "sure": false, "damaged": 3, "since": 2, "other": 0, "missing": 0, "lost": [],
        }));
        for said in [
            "0 records open, 3 do not",
            "nobody can say",
            "2 writes to it since",
        ] {
            assert!(gone.contains(said), "{said}: {gone}");
        }
        assert!(!gone.contains("none of those here is lost"), "{gone}");
        let own = found(
            serde_json::json!({ "here": 0, "quarantined": true, "own_quorum": true, "lost": [] }),
        );
        assert!(
            own.contains("CAUTION: what was put since the backup is lost"),
            "{own}"
        );
        assert!(
            own.contains("its quorum of today opens it") && own.contains("plan "),
            "{own}"
        );
        let new = found(serde_json::json!({ "here": null, "other": 0, "missing": 0, "lost": [] }));
        assert!(new.contains("it is made") && !new.contains("lost"), "{new}");
    }
}
