//! The plan of a ceremony as its people see it: read from its bytes, shown, and confirmed on a terminal.
//!
//! Promises that the digest a plan is shown and confirmed under was computed here, from the bytes that are shown.

use mcpist_core::api::Base64;
use mcpist_core::ids::Digest;
use mcpist_quorum::{Act, Plan};

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
    let threshold = plan.threshold();
    let mut lines = vec![format!(
        "{} store {}: {} of {} shares",
        match plan.act() {
            Act::Init(_) => "Make",
            Act::Unseal(_) => "Open",
            Act::Rekey(_) => "Give new shares of",
            Act::RotateRoot(_) => "Replace the root key of",
            Act::Restore { .. } => "Restore",
        },
        plan.store(),
        threshold.needed(),
        threshold.total()
    )];
    if let Act::Init(terms) = plan.act() {
        for holder in &terms.holders {
            lines.push(format!(
                "  share for {} ({})",
                holder.label, holder.recipient
            ));
        }
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
    if let Act::Rekey(terms) = plan.act() {
        lines.push(format!(
            "  to new shares: {}, generation {}",
            terms.threshold, terms.generation
        ));
        for holder in &terms.holders {
            lines.push(format!(
                "  new share for {} ({})",
                holder.label, holder.recipient
            ));
        }
        if terms.rotate_root {
            lines.push("  with a new root key".to_owned());
        }
    }
    lines.push(format!("  plan {digest}"));
    lines.join("\n")
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
