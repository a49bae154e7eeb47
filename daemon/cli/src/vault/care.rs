//! `vault verify`, `repair` and `discard`: whether a vault is what was written, and what is done where it is not.
//!
//! Promises that a repair is shown before it is asked for, with what is lost, and that what was shown is what is done: the
//! daemon refuses a plan that the file is no longer as.

use clap::Args;
use mcpist_core::api::{
    DamagedDiscarded, RepairVault, VaultFindings, VaultRepaired, VaultVerified, Vaults, path,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, VaultName};
use serde::Serialize;

use super::being_read;
use crate::Context;
use crate::error::{Error, Result};
use crate::plan::confirm;

/// Read a vault whole while it serves: every record is opened and compared with what was written
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault verify team
  mcpist vault verify --all --output json

Exit status: 0 where all that is open is well, else 1. One that waits for its own quorum is named and not read. A vault in which something is wrong is quarantined: nothing of it opens from then
on, and the other vaults go on.")]
pub(super) struct VerifyArgs {
    /// Its name; system is the store's own
    #[arg(required_unless_present = "all")]
    name: Option<VaultName>,
    /// Every vault, the store's own too
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

/// Rebuild a quarantined vault from the records that still open
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault repair team                     shows what is kept and what is lost, and asks
  mcpist vault repair team --output json       shows it, and changes nothing
  mcpist vault repair team --yes --plan 3f9c…  without a question, if the file is still as it was shown

What does not open is lost: put it again. The damaged file is kept until: mcpist vault discard. Where a backup is the better
way: mcpist vault restore.")]
pub(super) struct RepairArgs {
    /// Its name
    name: VaultName,
    /// Do it without a question, as it was shown
    #[arg(long, requires = "plan")]
    yes: bool,
    /// What was shown, by its digest
    #[arg(long, value_name = "DIGEST", requires = "yes")]
    plan: Option<Digest>,
}

/// Remove the file that a repair or a restore of a vault kept, for good
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault discard team
  mcpist vault discard team --yes")]
pub(super) struct DiscardArgs {
    /// The vault that was repaired or restored
    name: VaultName,
    /// Without a question
    #[arg(long)]
    yes: bool,
}

/// How one vault was found.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Whole(VaultVerified),
    /// It waits for its own quorum: there is nothing to read, and nothing wrong.
    Sealed {
        vault: VaultName,
        sealed: bool,
    },
    Bad {
        vault: VaultName,
        error: Error,
    },
}

impl Found {
    fn show(&self) -> String {
        match self {
            Found::Whole(found) => {
                let VaultVerified { vault, records, .. } = found;
                format!("vault {vault}: {records} records, all as they were written")
            }
            Found::Sealed { vault, .. } => {
                format!("vault {vault}: sealed, not read; next: mcpist vault unseal {vault}")
            }
            Found::Bad { vault, error } => format!("vault {vault}: {}: {error}", error.code()),
        }
    }

    /// One of several that could not be read.
    fn not_read(vault: VaultName, error: Error) -> Found {
        if error.code() == ErrorCode::VaultSealed.as_str() {
            Found::Sealed {
                vault,
                sealed: true,
            }
        } else {
            Found::Bad { vault, error }
        }
    }

    fn is_bad(&self) -> bool {
        matches!(self, Found::Bad { .. })
    }
}

/// How far the daemon is with a vault that it reads whole.
async fn how_far(context: &Context, name: &VaultName) -> Option<String> {
    let all: Vaults = context.client.get(path::VAULTS).await.ok()?;
    let vault = all.vaults.iter().find(|vault| vault.name == *name)?;
    vault.reading.map(|reading| being_read(&reading))
}

/// Verifies one vault, or all of them; one that fails keeps no other from its turn.
pub(super) async fn verify(context: &Context, args: VerifyArgs) -> Result<()> {
    let is_one = args.name.is_some();
    let names = match args.name {
        Some(name) => vec![name],
        None => {
            let all: Vaults = context.client.get(path::VAULTS).await?;
            all.vaults.into_iter().map(|vault| vault.name).collect()
        }
    };
    let mut found = Vec::with_capacity(names.len());
    for vault in names {
        let path = path::verify_vault(&vault);
        let verifying = context.client.act(&path);
        let told = async || how_far(context, &vault).await;
        let verifying = context.out.while_told("verifying", verifying, told);
        found.push(match verifying.await {
            Ok(whole) => Found::Whole(whole),
            Err(error) if is_one => {
                let is_bad = error.code() == ErrorCode::VaultQuarantined.as_str();
                return Err(if is_bad {
                    error.next(format!(
                        "mcpist vault repair {vault}, or mcpist vault restore {vault} --from BACKUP"
                    ))
                } else {
                    error
                });
            }
            Err(error) => Found::not_read(vault, error),
        });
    }
    context.out.data(&found, |found| {
        let lines: Vec<_> = found.iter().map(Found::show).collect();
        lines.join("\n")
    })?;
    match found.iter().filter(|found| found.is_bad()).count() {
        0 => Ok(()),
        bad => Err(Error::new(
            ErrorCode::VaultQuarantined.as_str(),
            format!("{bad} of {} vaults did not verify", found.len()),
        )
        .next("mcpist vault list")),
    }
}

pub(super) async fn repair(context: &Context, args: RepairArgs) -> Result<()> {
    let RepairArgs { name, plan, .. } = args;
    let plan = match plan {
        Some(plan) => plan,
        None => {
            let path = path::examine_vault(&name);
            let looking = context.client.act(&path);
            let told = async || how_far(context, &name).await;
            let looking = context.out.while_told("reading it", looking, told);
            let found: VaultFindings = looking.await?;
            if context.out.is_json() {
                return context.out.data(&found, show);
            }
            context.out.terms(&show(&found));
            confirm("Rebuild the vault from what is kept?").map_err(|e| {
                e.next(format!(
                    "mcpist vault repair {name} --yes --plan {}",
                    found.plan
                ))
            })?;
            found.plan
        }
    };
    let (path, asked) = (path::repair_vault(&name), RepairVault { plan });
    let repairing = context.client.post(&path, &asked);
    let told = async || how_far(context, &name).await;
    let repairing = context.out.while_told("repairing", repairing, told);
    let done: VaultRepaired = repairing.await?;
    context.out.data(&done, |done| {
        let VaultRepaired { file, findings } = done;
        format!(
            "vault {name} is repaired: {} records are kept\nthe damaged file is vaults/{file}.db; next: mcpist credential list {name}, put what is missing, then mcpist backup FILE",
            findings.kept
        )
    })
}

/// What a repair would keep, as a person decides by it.
fn show(found: &VaultFindings) -> String {
    let VaultFindings {
        vault,
        plan,
        kept,
        damaged,
        unreadable,
        ..
    } = found;
    let mut lines = vec![format!("vault {vault}: {kept} records open and are kept")];
    let mut line = |text: String| lines.push(format!("  {text}"));
    match found.expected {
        Some(expected) => line(format!("its last write left {expected} records")),
        None => line("no head opens: nobody can say how many records there were".to_owned()),
    }
    if *damaged > 0 {
        let more = *damaged > found.damaged_rows.len() as u64;
        let (rows, more) = (found.damaged_rows.join(", "), if more { " …" } else { "" });
        line(format!("{damaged} damaged, lost: {rows}{more}"));
    }
    if let Some(missing) = found.missing.filter(|missing| *missing > 0) {
        line(format!("{missing} missing, lost"));
    }
    if *unreadable > 0 {
        line(format!(
            "places where the file cannot be read: {unreadable}"
        ));
    }
    let lost: Vec<_> = found.lost.iter().map(|lost| lost.name.as_str()).collect();
    if !lost.is_empty() {
        line(format!(
            "lost, and named by a binding: {}; put them again",
            lost.join(", ")
        ));
    }
    match found.lines_lost {
        Some(0) => {}
        Some(lines) => line(format!(
            "audit lines that waited in it and are lost: {lines}"
        )),
        None => line("audit lines that waited in it, if any, are lost".to_owned()),
    }
    if found.sure {
        line("what is kept is exactly what the last write left".to_owned());
    } else {
        line("CAUTION: any of what is kept may be an older version that was put back;".to_owned());
        line("put again what was changed lately, or what you doubt".to_owned());
    }
    line(format!("plan {plan}"));
    lines.join("\n")
}

pub(super) async fn discard(context: &Context, args: DiscardArgs) -> Result<()> {
    let DiscardArgs { name, yes } = args;
    if !yes {
        confirm(&format!(
            "Remove what vault {name} was before its repair or restore, for good?"
        ))?;
    }
    let done: DamagedDiscarded = context.client.act(&path::discard_damaged(&name)).await?;
    context.out.data(&done, |done| {
        format!("vault {name}: {} former files removed", done.files)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_for_its_own_quorum_is_no_damage() {
        let found = |code: ErrorCode| {
            let vault = VaultName::parse("payroll").unwrap();
            Found::not_read(vault, Error::new(code.as_str(), "why"))
        };
        let sealed = found(ErrorCode::VaultSealed);
        assert!(!sealed.is_bad());
        assert!(sealed.show().ends_with("next: mcpist vault unseal payroll"));
        assert!(found(ErrorCode::VaultQuarantined).is_bad());
        assert!(found(ErrorCode::VaultUnavailable).is_bad());
    }

    #[test]
    fn what_is_lost_is_said_before_anybody_is_asked() {
        let found: VaultFindings = serde_json::from_value(serde_json::json!({
            "vault": "team", "plan": "0".repeat(64), "kept": 7, "damaged": 2,
            "damaged_rows": ["aa", "bb"], "unreadable": 1, "expected": 12, "missing": 3,
            "sure": false, "lines": 0, "lines_lost": 1, "lost": [{ "name": "grafana" }],
        }))
        .unwrap();
        let shown = show(&found);
        for said in [
            "7 records open and are kept",
            "its last write left 12 records",
            "2 damaged, lost: aa, bb",
            "3 missing",
            "cannot be read: 1",
            "named by a binding: grafana",
            "are lost: 1",
            "CAUTION",
        ] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
    }
}
