//! `change`, and the one way that every change of the policy takes.
//!
//! A change is proposed, the review is shown, and it is approved by an officer's key over the digests that this program
//! computed, or by the store's own key where the store is a development store. Promises that no officer's key signs a
//! change that was not shown, whatever `-q` and `--output` say.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_bundle::SigningKey;
use mcpist_core::api::{
    Approve, ChangeOutcome, Changes, Done, ProposeChange, Proposed, Status, WaitingChange, path,
};
use mcpist_core::change::{Approval, Change, Signature, approval_message};
use mcpist_core::ids::Digest;

use crate::bundle::read_key;
use crate::error::{Error, Result};
use crate::output::table;
use crate::{Context, secret};

/// Longest proposal file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How a change is approved.
#[derive(Args, Clone, Default)]
pub(crate) struct ApproveArgs {
    /// Approve with this officer key; not needed in a development store
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the proposal to this file, for another officer's 'mcpist change approve'
    #[arg(long, value_name = "FILE")]
    proposal: Option<PathBuf>,
}

/// What a change came to.
#[derive(serde::Serialize)]
struct Outcome {
    /// The file that another officer gets.
    #[serde(skip)]
    file: Option<PathBuf>,
    proposed: Proposed,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<ChangeOutcome>,
}

/// Proposes a change and approves it, as far as one caller can.
pub(crate) async fn decide(context: &Context, change: Change, args: &ApproveArgs) -> Result<()> {
    let proposed = propose(context, change).await?;
    if let Some(file) = &args.proposal {
        let json = serde_json::to_vec_pretty(&proposed).map_err(|e| Error::new("internal", e))?;
        secret::create(file, 0o644, &json)?;
    }
    let status: Status = context.client.get(path::STATUS).await?;
    let approve = match &args.key {
        Some(key) => Some(show_and_sign(context, &proposed, key, "")?),
        None if status.dev => Some(Approve::Dev),
        None => None,
    };
    let outcome = match approve {
        Some(approve) => Some(approve_change(context, &proposed, &approve).await?),
        None => None,
    };
    context.out.data(
        &Outcome {
            file: args.proposal.clone(),
            proposed,
            outcome,
        },
        show_outcome,
    )
}

/// Proposes a change, and checks that the daemon understood this very one.
async fn propose(context: &Context, change: Change) -> Result<Proposed> {
    let digest = change.digest();
    let proposed: Proposed = context
        .client
        .post(path::CHANGES, &ProposeChange { change })
        .await?;
    if proposed.review.change != digest || proposed.change.digest() != digest {
        return Err(Error::new(
            "version_mismatch",
            "the daemon proposed another change than the one that was sent",
        ));
    }
    Ok(proposed)
}

async fn approve_change(
    context: &Context,
    proposed: &Proposed,
    approve: &Approve,
) -> Result<ChangeOutcome> {
    context
        .client
        .post(&path::approvals(&proposed.review.change), approve)
        .await
}

/// Stores a change that one officer may decide, as in a development store.
pub(crate) async fn store(context: &Context, change: Change, officer: &SigningKey) -> Result<()> {
    let proposed = propose(context, change).await?;
    match approve_change(context, &proposed, &sign(&proposed, officer)?).await? {
        ChangeOutcome::Stored { .. } => Ok(()),
        ChangeOutcome::Pending { needs, .. } => Err(Error::new(
            "approvals_missing",
            format!("the change needs {needs} officers"),
        )),
    }
}

/// Shows what an officer is about to sign, reads the key and signs; `by` is whose word the need is.
fn show_and_sign(context: &Context, proposed: &Proposed, key: &Path, by: &str) -> Result<Approve> {
    let change =
        serde_json::to_string_pretty(&proposed.change).map_err(|e| Error::new("internal", e))?;
    let review = &proposed.review;
    let widens = widens(review.reason.as_ref());
    context.out.terms(&format!(
        "change {}\n{change}\n{by}needs {}{widens}",
        review.change,
        officers(review.needs)
    ));
    sign(proposed, &read_key(key)?)
}

fn officers(count: usize) -> String {
    format!("{count} officer{}", if count == 1 { "" } else { "s" })
}

fn widens(reason: Option<&impl std::fmt::Display>) -> String {
    reason.map(|r| format!("\nwidens: {r}")).unwrap_or_default()
}

fn sign(proposed: &Proposed, key: &SigningKey) -> Result<Approve> {
    let (change, state) = (proposed.change.digest(), proposed.review.state);
    let signature = key
        .sign(&approval_message(&change, &state))
        .map_err(|e| Error::new("key", e))?;
    Ok(Approve::Approval(Approval {
        officer: key.id(),
        change,
        state,
        signature: Signature::from_bytes(signature),
    }))
}

fn show_outcome(outcome: &Outcome) -> String {
    let review = &outcome.proposed.review;
    let widens = widens(review.reason.as_ref());
    let next = match &outcome.file {
        Some(file) => format!(
            "another officer's mcpist change approve {} --key FILE",
            file.display()
        ),
        None => "repeat with --proposal FILE; another officer then runs mcpist change approve FILE"
            .to_owned(),
    };
    match &outcome.outcome {
        Some(ChangeOutcome::Stored { change }) => format!(
            "stored: {} {}",
            outcome.proposed.change.kind(),
            change.short()
        ),
        Some(ChangeOutcome::Pending { approved, needs }) => format!(
            "proposed: {} {}, approved by {} of {}{widens}\nnext: {next}",
            outcome.proposed.change.kind(),
            review.change,
            approved.len(),
            officers(*needs)
        ),
        None => format!(
            "proposed: {} {}, needs {}{widens}\nnext: {next}",
            outcome.proposed.change.kind(),
            review.change,
            officers(review.needs)
        ),
    }
}

/// Proposed changes
#[derive(Args)]
pub(crate) struct ChangeArgs {
    #[command(subcommand)]
    command: ChangeCommand,
}

#[derive(Subcommand)]
enum ChangeCommand {
    /// Approve a change that another officer proposed
    #[command(after_help = "Examples:
  mcpist grant put ops --principal ada --module prometheus --access read --key ada.key --proposal grant.json
  mcpist change approve grant.json --key bob.key")]
    Approve {
        /// The proposal, as --proposal wrote it
        proposal: PathBuf,
        /// The officer key to approve with
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// List the changes that wait for approval
    #[command(after_help = "Examples:\n  mcpist change list")]
    List,
    /// Take back a change that you proposed
    #[command(after_help = "Examples:
  mcpist change withdraw 5f0c8f1f6a2c4f6f9b9d0c3a7e1b2d4c5f0c8f1f6a2c4f6f9b9d0c3a7e1b2d4c")]
    Withdraw {
        /// The change's digest, as 'mcpist change list' shows it
        change: Digest,
    },
}

pub(crate) async fn run(context: &Context, args: ChangeArgs) -> Result<()> {
    match args.command {
        ChangeCommand::Approve { proposal, key } => approve(context, proposal, &key).await,
        ChangeCommand::List => {
            let changes: Changes = context.client.get(path::CHANGES).await?;
            context.out.data(&changes, show_waiting)
        }
        ChangeCommand::Withdraw { change } => {
            let done: Done = context.client.delete(&path::change(&change)).await?;
            context
                .out
                .data(&done, |_| format!("change {} withdrawn", change.short()))
        }
    }
}

fn show_waiting(changes: &Changes) -> String {
    let row = |waiting: &WaitingChange| {
        vec![
            waiting.change.to_string(),
            format!("{} {}", waiting.kind, waiting.object),
            waiting.uid.to_string(),
            waiting.approved.len().to_string(),
            format!("{} h", waiting.expires_s / 3600),
        ]
    };
    let rows: Vec<_> = changes.changes.iter().map(row).collect();
    table(&["change", "what", "uid", "approved", "left"], &rows)
}

fn bad_proposal(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new("proposal", format!("{}: {why}", file.display()))
}

async fn approve(context: &Context, proposal: PathBuf, key: &Path) -> Result<()> {
    let bytes = secret::read_file(&proposal, MAX_FILE)?;
    let proposed: Proposed =
        serde_json::from_slice(&bytes).map_err(|e| bad_proposal(&proposal, &e))?;
    if proposed.change.digest() != proposed.review.change {
        return Err(bad_proposal(&proposal, &"its digest is not the change's"));
    }
    // The digest vouches for the change; what the file says besides is its bringer's word.
    let approve = show_and_sign(context, &proposed, key, "the proposal says: ")?;
    let outcome = approve_change(context, &proposed, &approve).await?;
    context.out.data(
        &Outcome {
            file: Some(proposal),
            proposed,
            outcome: Some(outcome),
        },
        show_outcome,
    )
}
