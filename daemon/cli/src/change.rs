//! `change`, and the one way that every change of the policy takes.
//!
//! A change is proposed, the review is shown ([`crate::review`]), and it is approved by an officer's key over the digest
//! that this program computed, or by the store's own key where the store is a development store. Promises that no
//! officer's key signs a change that was not shown, whatever `-q` and `--output` say, and that another officer signs the
//! change of the file that was handed over, beside what the store says of it.

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
use crate::review::{officers, review, widens};
use crate::{Context, secret};
use mcpist_core::date::span;

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
    /// Whether this officer's approval stood already.
    #[serde(skip)]
    again: bool,
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
    let mut again = false;
    let outcome = match &args.key {
        Some(key) => {
            let key = show_and_read(context, &proposed, key)?;
            // Who repeats the command for the sake of the file has approved before.
            let standing = match args.proposal {
                Some(_) => standing(context, &proposed, &key).await?,
                None => None,
            };
            again = standing.is_some();
            match standing {
                Some(pending) => Some(pending),
                None => Some(approve_change(context, &proposed, &sign(&proposed, &key)?).await?),
            }
        }
        None if status.dev => Some(approve_change(context, &proposed, &Approve::Dev).await?),
        None => None,
    };
    context.out.data(
        &Outcome {
            file: args.proposal.clone(),
            again,
            proposed,
            outcome,
        },
        show_outcome,
    )
}

/// Proposes a change.
async fn propose(context: &Context, change: Change) -> Result<Proposed> {
    let digest = change.digest();
    let proposed = context
        .client
        .post(path::CHANGES, &ProposeChange { change })
        .await?;
    of_change(proposed, &digest)
}

/// A proposed change as the store has it.
async fn proposed(context: &Context, change: &Digest) -> Result<Proposed> {
    let proposed = context.client.get(&path::change(change)).await?;
    of_change(proposed, change)
}

/// Checks that the daemon speaks of this very change.
fn of_change(proposed: Proposed, digest: &Digest) -> Result<Proposed> {
    if proposed.review.change != *digest || proposed.change.digest() != *digest {
        return Err(Error::new(
            "version_mismatch",
            "the daemon shows another change than the one that was asked for",
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

/// Shows what an officer is about to sign, and then reads the key.
fn show_and_read(context: &Context, proposed: &Proposed, key: &Path) -> Result<SigningKey> {
    context.out.terms(&review(proposed));
    read_key(key)
}

/// What the change waits for, where this officer's approval of it stands.
async fn standing(
    context: &Context,
    proposed: &Proposed,
    officer: &SigningKey,
) -> Result<Option<ChangeOutcome>> {
    let waiting: Changes = context.client.get(path::CHANGES).await?;
    let mut waiting = waiting.changes.into_iter();
    let own =
        waiting.find(|w| w.change == proposed.review.change && w.approved.contains(&officer.id()));
    Ok(own.map(|own| ChangeOutcome::Pending {
        approved: own.approved,
        needs: proposed.review.needs,
    }))
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
    let proposed = &outcome.proposed;
    let (kind, change) = (proposed.change.kind(), proposed.review.change);
    let next = match &outcome.file {
        Some(file) => format!(
            "another officer's mcpist change approve {} --key FILE",
            file.display()
        ),
        None => "repeat with --proposal FILE; another officer then runs mcpist change approve FILE"
            .to_owned(),
    };
    let widens = widens(&proposed.review);
    match &outcome.outcome {
        Some(ChangeOutcome::Stored { change }) => format!("stored: {kind} {}", change.short()),
        Some(ChangeOutcome::Pending { approved, needs }) if outcome.again => format!(
            "proposed: {kind} {change}, {} of {needs} already yours; written to {}{widens}\nnext: {next}",
            approved.len(),
            outcome.file.as_deref().unwrap_or(Path::new("")).display()
        ),
        Some(ChangeOutcome::Pending { approved, needs }) => format!(
            "proposed: {kind} {change}, approved by {} of {}{widens}\nnext: {next}",
            approved.len(),
            officers(*needs)
        ),
        None => format!(
            "proposed: {kind} {change}, needs {}{widens}\nnext: {next}",
            officers(proposed.review.needs)
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
    /// Show a change that waits, as its officers read it
    #[command(after_help = "Examples:
  mcpist change show 5f0c8f1f6a2c4f6f9b9d0c3a7e1b2d4c5f0c8f1f6a2c4f6f9b9d0c3a7e1b2d4c
  mcpist change show DIGEST --output json      with every byte, such as the text of a CA")]
    Show {
        /// The change's digest, as 'mcpist change list' shows it
        change: Digest,
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
        ChangeCommand::Show { change } => {
            let proposed = proposed(context, &change).await?;
            context.out.data(&proposed, review)
        }
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
            span(waiting.expires_s),
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
    let brought: Proposed =
        serde_json::from_slice(&bytes).map_err(|e| bad_proposal(&proposal, &e))?;
    if brought.change.digest() != brought.review.change {
        return Err(bad_proposal(&proposal, &"its digest is not the change's"));
    }
    // The file names the change; all that is said of it besides is the store's word, and not its bringer's.
    let proposed = proposed(context, &brought.review.change).await?;
    let approve = sign(&proposed, &show_and_read(context, &proposed, key)?)?;
    let outcome = approve_change(context, &proposed, &approve).await?;
    context.out.data(
        &Outcome {
            file: Some(proposal),
            again: false,
            proposed,
            outcome: Some(outcome),
        },
        show_outcome,
    )
}
