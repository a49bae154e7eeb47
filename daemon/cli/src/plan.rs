//! The plan of a ceremony as its people see it: read from its bytes, shown, and confirmed on a terminal.
//!
//! Promises that the digest a plan is shown and confirmed under was computed here, from the bytes that are shown.

use mcpist_core::api::Base64;
use mcpist_core::ids::Digest;
use mcpist_quorum::{Act, Generation, Plan, PlannedHolder, PlannedVault, Threshold};

use crate::error::{Error, Result};
use crate::terminal::Terminal;

/// The plan of these bytes, and its digest.
pub(crate) fn read_plan(bytes: &Base64) -> Result<(Plan, Digest)> {
    let plan = Plan::from_bytes(&bytes.0).map_err(|e| Error::new("version_mismatch", e))?;
    let digest = Digest::from_bytes(*plan.digest().as_bytes());
    Ok((plan, digest))
}

/// The plan for people, its digest last.
pub(crate) fn describe(plan: &Plan, digest: &Digest) -> String {
    describe_with_paper(plan, digest, |_| false)
}

/// The same, where the shares at some places go on paper: their recipients are this program's own, and gone with it.
pub(crate) fn describe_with_paper(
    plan: &Plan,
    digest: &Digest,
    on_paper: impl Fn(usize) -> bool,
) -> String {
    let share_for = |(at, holder): (usize, &PlannedHolder)| match on_paper(at) {
        true => format!("{} (on paper, as words)", holder.label),
        false => format!("{} ({})", holder.label, holder.recipient),
    };
    let threshold = plan.threshold();
    let mut lines = vec![format!(
        "{} store {}: {} of {} shares{}",
        match plan.act() {
            Act::Init(_) => "Make".to_owned(),
            Act::Unseal(_) => "Open".to_owned(),
            Act::Rekey(_) => "Give new shares of".to_owned(),
            Act::RotateRoot(_) => "Replace the root key of".to_owned(),
            Act::Restore { .. } => "Restore".to_owned(),
            Act::Drill { .. } => "Drill the restore of".to_owned(),
            Act::UnsealVault { vault, .. } => format!("Open vault {} of", shown(vault)),
            Act::RekeyVault(terms) if terms.replaces.is_none() => {
                format!(
                    "Make vault {} with a quorum of its own in",
                    shown(&terms.vault)
                )
            }
            Act::RekeyVault(terms) =>
                format!("Give new shares of vault {} of", shown(&terms.vault)),
        },
        plan.store(),
        threshold.needed(),
        threshold.total(),
        match plan.act() {
            // These are the shares that it makes.
            Act::Init(_) => String::new(),
            Act::RekeyVault(terms) if terms.replaces.is_none() => String::new(),
            _ => format!(" of generation {}", plan.generation()),
        }
    )];
    if let Act::Init(terms) = plan.act() {
        let holders = terms.holders.iter().enumerate().map(share_for);
        lines.extend(holders.map(|holder| format!("  share for {holder}")));
        for officer in &terms.officers {
            lines.push(format!(
                "  officer {} ({})",
                officer.name,
                hex::encode(officer.public)
            ));
        }
        lines.push(format!("  trust root {}", hex::encode(terms.root_digest)));
        if terms.dev {
            lines.push("  a development store: not for real credentials".to_owned());
        }
    }
    match plan.act() {
        Act::Rekey(terms) => {
            let holders = terms.holders.iter().enumerate().map(share_for);
            lines.push(new_shares(terms.threshold, terms.generation, holders));
            if terms.rotate_root {
                lines.push("  with a new root key".to_owned());
            }
        }
        Act::RekeyVault(terms) => {
            let holders = terms.holders.iter().enumerate().map(share_for);
            lines.push(new_shares(terms.threshold, terms.generation, holders));
        }
        _ => {}
    }
    lines.push(format!("  plan {digest}"));
    lines.join("\n")
}

/// The shares that the plan makes: their generation and their holders; none where it makes none.
pub(crate) fn made_by(plan: &Plan) -> Option<(Generation, &[PlannedHolder])> {
    match plan.act() {
        Act::Init(terms) => Some((plan.generation(), &terms.holders)),
        Act::Rekey(terms) => Some((terms.generation, &terms.holders)),
        Act::RekeyVault(terms) => Some((terms.generation, &terms.holders)),
        _ => None,
    }
}

/// The vault's name. Who made the plan chose it.
fn shown(vault: &PlannedVault) -> String {
    vault.name.escape_debug().to_string()
}

fn new_shares(
    threshold: Threshold,
    generation: Generation,
    holders: impl Iterator<Item = String>,
) -> String {
    let holders = holders.map(|holder| format!("\n  new share for {holder}"));
    format!(
        "  to new shares: {threshold}, generation {generation}{}",
        holders.collect::<String>()
    )
}

/// Asks on the terminal, whatever standard input is.
pub(crate) fn confirm(question: &str) -> Result<()> {
    let mut terminal = Terminal::open().map_err(|e| {
        Error::new("not_confirmed", format!("{e}; nothing was done"))
            .next("repeat the command with --yes")
    })?;
    if terminal.agrees(question)? {
        Ok(())
    } else {
        Err(Error::new("not_confirmed", "nothing was done").next("repeat the command and answer y"))
    }
}
