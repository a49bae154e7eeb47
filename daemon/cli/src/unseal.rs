//! `unseal` and `seal`.
//!
//! Promises that the plan is shown before a share is asked for, under the digest that this program computed from its
//! bytes, and that a refused share is named.

use std::time::Duration;

use clap::Args;
use mcpist_core::api::{
    Progress, Sealed, ShareOutcome, UnsealCancelled, UnsealPlan, Unsealed, path,
};
use mcpist_core::error::{EXIT_INCOMPLETE, ErrorCode};
use mcpist_core::ids::Digest;
use mcpist_quorum::Plan;
use mcpist_secret::Secret;

use crate::error::{Error, Result};
use crate::plan::{describe, read_plan};
use crate::share::GivenShare;
use crate::store::expires;
use crate::witness::Keeping;
use crate::{Context, secret};

/// How long a seal is waited for: past all that the daemon itself waits for on its way.
const SEAL: Duration = Duration::from_secs(30);

/// Give a share, and open the store with the last one that is needed
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist unseal                                         asks for the share, its text or its words
  mcpist unseal --share-file share-1-ada.age --identity ada.txt
  age -d -i ada.txt share-1-ada.age | mcpist unseal
  mcpist unseal --cancel                                drops the shares given so far

Exit status: 0 taken, or the store is open, 3 it is open and a vault is not well: mcpist vault list.")]
pub(crate) struct UnsealArgs {
    #[command(flatten)]
    given: GivenShare,
    /// End the open ceremony and drop its shares
    #[arg(long, conflicts_with = "share_file")]
    cancel: bool,
    #[command(flatten)]
    keeping: Keeping,
}

pub(crate) async fn unseal(context: &Context, args: UnsealArgs) -> Result<u8> {
    if args.cancel {
        let done: UnsealCancelled = context.client.act(path::UNSEAL_CANCEL).await?;
        context.out.data(&done, |done| {
            if done.cancelled {
                "the open ceremony was ended; no share is kept".to_owned()
            } else {
                "no share had been given; there was nothing to end".to_owned()
            }
        })?;
        return Ok(0);
    }
    let (plan, digest, progress) = unseal_plan(context).await?;
    context.out.terms(&describe(&plan, &digest));
    if progress.given > 0 {
        context.out.note(&format!(
            "  {} of {} given: {}{}",
            progress.given,
            progress.needed,
            progress.holders.join(", "),
            expires(&progress)
        ));
    }
    let share = args.given.read("mcpist unseal")?.to_text()?;
    args.keeping.present(context, plan.store()).await?;
    let outcome = give(context, digest, &share).await?;
    if let ShareOutcome::Opened(found) = &outcome {
        args.keeping.keep(context, found.receipt.as_deref());
    }
    context.out.data(&outcome, |outcome| match outcome {
        ShareOutcome::Opened(found) => opened(found),
        ShareOutcome::Pending(p) => taken(p),
        ShareOutcome::Refused { message, .. } => message.clone(),
        // A plan to unseal has no other end.
        _ => "taken for the ceremony that is open; next: mcpist ceremony".to_owned(),
    })?;
    Ok(match &outcome {
        ShareOutcome::Opened(found) => exit(found),
        _ => 0,
    })
}

/// The exit status of an unseal. A vault that waits for its own quorum is as it should be.
fn exit(found: &Unsealed) -> u8 {
    match found.quarantined.is_empty() && found.unavailable.is_empty() {
        true => 0,
        false => EXIT_INCOMPLETE,
    }
}

/// The open plan, with the digest that was computed here.
pub(crate) async fn unseal_plan(context: &Context) -> Result<(Plan, Digest, Progress)> {
    let shown: UnsealPlan = context.client.get(path::UNSEAL).await?;
    let (plan, digest) = read_plan(&shown.plan)?;
    Ok((plan, digest, shown.progress))
}

/// Gives a share under the plan with this digest; a refused one is an error.
pub(crate) async fn give(
    context: &Context,
    digest: Digest,
    share: &Secret,
) -> Result<ShareOutcome> {
    let giving = secret::share(&context.client, digest, share);
    match context.out.while_busy("verifying", giving).await? {
        ShareOutcome::Refused {
            reason,
            message,
            progress,
        } => Err(Error::new(
            "share_refused",
            format!(
                "{reason}: {message} ({} of {} shares stand)",
                progress.given, progress.needed
            ),
        )
        .next("mcpist unseal")),
        other => Ok(other),
    }
}

/// What is said of a share that others have to follow.
pub(crate) fn taken(progress: &Progress) -> String {
    format!(
        "taken: {} of {} shares ({}){}",
        progress.given,
        progress.needed,
        progress.holders.join(", "),
        expires(progress)
    )
}

pub(crate) fn opened(found: &Unsealed) -> String {
    let mut lines = vec![format!(
        "unsealed: {} vaults, {} records verified",
        found.vaults, found.records
    )];
    let names = |names: &[mcpist_core::ids::VaultName]| {
        names
            .iter()
            .map(|n| n.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !found.quarantined.is_empty() {
        lines.push(format!(
            "quarantined: {}; see 'mcpist vault list'",
            names(&found.quarantined)
        ));
    }
    if !found.unavailable.is_empty() {
        lines.push(format!(
            "unavailable: {}; see 'mcpist vault list'",
            names(&found.unavailable)
        ));
    }
    if !found.sealed.is_empty() {
        lines.push(format!(
            "waits for its own quorum: {}; next: mcpist vault unseal NAME",
            names(&found.sealed)
        ));
    }
    if !found.last_write_missing.is_empty() {
        lines.push(format!(
            "the last write was cut off in: {}",
            names(&found.last_write_missing)
        ));
    }
    lines.join("\n")
}

/// Close the store and wipe its keys
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist seal                          works at once, also while calls are running")]
pub(crate) struct SealArgs {
    #[command(flatten)]
    keeping: Keeping,
}

pub(crate) async fn seal(context: &Context, args: SealArgs) -> Result<()> {
    let client = context.client.within(SEAL);
    let (done, text) = match client.act_soon::<Sealed>(path::SEAL).await {
        Ok(done) if done.receipt.is_none() && done.dropped > 0 => (done, "sealed"),
        Ok(done) => (done, "sealed; every call is refused from now on"),
        // Whoever seals twice has what they want.
        Err(e) if e.code() == ErrorCode::Sealed.as_str() => (Sealed::default(), "nothing was open"),
        Err(e) if e.code() == "connection_lost" => {
            return Err(e.next("mcpist status; where it is not sealed: systemctl stop mcpistd"));
        }
        Err(e) => return Err(e),
    };
    args.keeping.keep(context, done.receipt.as_deref());
    context.out.data(&done, |done| match done.dropped {
        0 => text.to_owned(),
        1 => format!("{text}; the share that had been given was dropped"),
        n => format!("{text}; {n} shares that had been given were dropped"),
    })
}

#[cfg(test)]
mod tests {
    use mcpist_core::ids::VaultName;

    use super::*;

    #[test]
    fn an_unseal_that_leaves_a_vault_out_says_so_and_ends_with_its_status() {
        let name = || VaultName::parse("team").into_iter().collect::<Vec<_>>();
        let whole = Unsealed {
            vaults: 2,
            records: 7,
            quarantined: Vec::new(),
            unavailable: Vec::new(),
            sealed: name(),
            last_write_missing: Vec::new(),
            receipt: None,
        };
        assert_eq!(exit(&whole), 0, "it waits for its people");
        let quarantined = Unsealed {
            quarantined: name(),
            ..whole.clone()
        };
        assert_eq!(exit(&quarantined), EXIT_INCOMPLETE);
        let away = Unsealed {
            unavailable: name(),
            ..whole
        };
        assert_eq!(exit(&away), EXIT_INCOMPLETE);
        assert!(opened(&away).contains("unavailable: team; see"));
    }
}
