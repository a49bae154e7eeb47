//! `init`, `unseal` and `seal`.
//!
//! Promises that a plan is shown before it is carried out, under the digest that this program computed from its bytes;
//! that shares are written to new files only, each still encrypted to its holder; that one in plain text is shown on a
//! terminal only ([`crate::reveal`]); and that a refused share is named.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mcpist_core::api::{
    Base64, Done, InitConfirm, InitDone, InitPlan, InitRequest, NewHolder, NewOfficer, PublicKey,
    ShareOutcome, UnsealPlan, Unsealed, path,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use mcpist_quorum::{Act, Identity, Plan, open_share_file};
use mcpist_secret::Secret;

use crate::error::{Error, Result};
use crate::store::expires;
use crate::{Context, reveal, secret};

const MAX_FILE: u64 = 64 * 1024;
/// How long a seal is waited for: past all that the daemon itself waits for on its way.
const SEAL: Duration = Duration::from_secs(30);

/// Make the store of this host: the first ceremony
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist init --threshold 2 --holder ada=age1… --holder bob=age1… --holder eve=age1… \\
      --officer ada=HEXKEY --officer bob=HEXKEY --root root.json --out shares/

  sudo cat /var/lib/mcpist/init-token | mcpist init --token-file - …
  mcpist init --threshold 2 --holder ada --holder bob=age1… --holder eve=age1… --qr …

Shares leave the daemon encrypted to their holders and are written into --out as age files. Keep ceremony.bin:
its first audit key is what 'mcpist audit verify' starts from.")]
pub(crate) struct InitArgs {
    /// Shares that open the store
    #[arg(long, value_name = "N")]
    threshold: u8,
    /// A holder of a share and the age recipient to encrypt it to; repeat. With --qr, LABEL alone is a holder without
    /// a recipient
    #[arg(long = "holder", value_name = "LABEL=RECIPIENT", required = true)]
    holders: Vec<String>,
    /// Show the shares of holders without a recipient on this terminal, as text and QR code, each once
    #[arg(long)]
    qr: bool,
    /// An officer and the officer's public key of 64 hexadecimal digits; repeat
    #[arg(long = "officer", value_name = "NAME=HEXKEY")]
    officers: Vec<String>,
    /// The trust root, as 'mcpist bundle root' writes it
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The one-time token that the daemon wrote when it started; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/mcpist/init-token"
    )]
    token_file: PathBuf,
    /// Folder for the share files and the ceremony record
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Make a development store; the daemon must run with --dev
    #[arg(long)]
    dev: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// What init made, as the command line says it.
#[derive(serde::Serialize)]
struct Made {
    files: Vec<PathBuf>,
    plan: Digest,
}

fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Error::usage(format!("{text:?} is not NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) async fn init(context: &Context, args: InitArgs) -> Result<()> {
    let mut holders = Vec::new();
    // By place, the identities of those whose share is shown.
    let mut shown: BTreeMap<usize, Identity> = BTreeMap::new();
    for (index, text) in args.holders.iter().enumerate() {
        let (label, recipient) = if args.qr && !text.contains('=') {
            let identity = Identity::generate();
            let recipient = identity.recipient();
            shown.insert(index, identity);
            (text.clone(), recipient)
        } else {
            pair(text)?
        };
        holders.push(NewHolder { label, recipient });
    }
    // Before anything is made: a share that cannot be shown would be lost.
    let mut terminal = match shown.is_empty() {
        true => None,
        false => Some(reveal::terminal()?),
    };
    let mut officers = Vec::new();
    for text in &args.officers {
        let (name, key) = pair(text)?;
        let public = PublicKey::parse(&key).ok_or_else(|| {
            Error::usage(format!(
                "officer {name}: the key is not 64 lower-case hexadecimal digits"
            ))
        })?;
        officers.push(NewOfficer { name, public });
    }
    let root = Base64(secret::read_file(&args.root, MAX_FILE)?);
    let token = if args.token_file.as_os_str() == "-" {
        secret::ask("Init token: ")?
    } else {
        secret::read_secret_file(&args.token_file)
            .map_err(|e| e.next("sudo cat TOKEN-FILE | mcpist init --token-file - …"))?
    };
    secret::init_token(&context.client, &token).await?;
    let request = InitRequest {
        threshold: args.threshold,
        holders,
        root,
        officers,
        dev: args.dev,
    };
    let (plan, digest) = plan_init(context, &request).await?;
    expect_root(&plan, &request.root)?;
    context.out.terms(&describe(&plan, &digest));
    if !args.yes {
        confirm("Make this store?")?;
    }
    let labels: Vec<&str> = request.holders.iter().map(|h| h.label.as_str()).collect();
    check_room(&args.out, &labels)?;
    let done = confirm_init(context, digest).await?;
    let written = write_shares(&args.out, &done, |index| !shown.contains_key(&index));
    let mut all_shown = Ok(());
    if let Some(terminal) = &mut terminal {
        for (index, identity) in &shown {
            let Some(share) = done.shares.get(*index) else {
                continue;
            };
            if let Err(e) = reveal::show(terminal, identity, share) {
                all_shown = Err(e.during(format!("the share of {} is lost", share.label)));
            }
        }
    }
    let files = match written {
        Ok(files) => files,
        Err(e) => {
            // The store is made, and each share is encrypted to its holder: better shown here than lost.
            context.out.data(&done, |done| {
                let shares: Vec<_> = done
                    .shares
                    .iter()
                    .map(|s| format!("share for {}:\n{}", s.label, s.age))
                    .collect();
                format!(
                    "the store is made, keep all of this:\n{}\n{}",
                    done.record_text,
                    shares.join("\n")
                )
            })?;
            return Err(e);
        }
    };
    context.out.data(
        &Made {
            files,
            plan: digest,
        },
        |made| {
            let files: Vec<_> = made
                .files
                .iter()
                .map(|f| format!("  {}", f.display()))
                .collect();
            format!(
                "initialised; the store is sealed. Written:\n{}\nnext: mcpist unseal",
                files.join("\n")
            )
        },
    )?;
    all_shown
}

/// Asks for a plan, and computes its digest here.
pub(crate) async fn plan_init(context: &Context, request: &InitRequest) -> Result<(Plan, Digest)> {
    let shown: InitPlan = context.client.post(path::INIT, request).await?;
    read_plan(&shown.plan)
}

/// Carries the plan with this digest out.
pub(crate) async fn confirm_init(context: &Context, digest: Digest) -> Result<InitDone> {
    context
        .client
        .post(path::INIT_CONFIRM, &InitConfirm { digest })
        .await
}

/// A plan is confirmed for the trust root that was given, and for no other.
fn expect_root(plan: &Plan, root: &Base64) -> Result<()> {
    match plan.act() {
        Act::Init(terms) if terms.root_digest == *Digest::of(&root.0).as_bytes() => Ok(()),
        _ => Err(Error::new(
            "version_mismatch",
            "the daemon planned another store than the one that was asked for",
        )
        .next("use the mcpist of the same version as mcpistd")),
    }
}

fn read_plan(bytes: &Base64) -> Result<(Plan, Digest)> {
    let plan = Plan::from_bytes(&bytes.0).map_err(|e| Error::new("version_mismatch", e))?;
    let digest = Digest::from_bytes(*plan.digest().as_bytes());
    Ok((plan, digest))
}

fn describe(plan: &Plan, digest: &Digest) -> String {
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
    lines.push(format!("  plan {digest}"));
    lines.join("\n")
}

/// Asks on the terminal, whatever standard input is.
fn confirm(question: &str) -> Result<()> {
    let mut terminal = reveal::terminal().map_err(|e| {
        Error::new("not_confirmed", format!("{e}; nothing was done"))
            .next("repeat the command with --yes")
    })?;
    write!(terminal, "{question} [y/N] ")?;
    if matches!(reveal::answer(&mut terminal)?.as_str(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Error::new("not_confirmed", "nothing was done").next("repeat the command and answer y"))
    }
}

/// Names of the files that init writes.
const RECORD_TEXT: &str = "ceremony.txt";
const RECORD: &str = "ceremony.bin";

fn share_file(index: usize, label: &str) -> String {
    // A label is for people and may hold anything; a file name may not.
    let label: String = label
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(32)
        .collect();
    format!("share-{}-{label}.age", index + 1)
}

/// Sees that `folder` takes every file of init, before anything is made whose shares would be lost otherwise.
fn check_room(folder: &Path, labels: &[&str]) -> Result<()> {
    let next = "name another folder with --out; nothing was made";
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e).next(next))?;
    let shares = labels
        .iter()
        .enumerate()
        .map(|(index, label)| share_file(index, label));
    for name in [RECORD_TEXT.to_owned(), RECORD.to_owned()]
        .into_iter()
        .chain(shares)
    {
        let path = folder.join(name);
        // Made and removed again: whatever keeps it from being made is met here.
        secret::create(&path, 0o600, &[]).map_err(|e| e.next(next))?;
        std::fs::remove_file(&path).map_err(|e| Error::file(&path, e).next(next))?;
    }
    Ok(())
}

/// Writes the age file of each wanted share, by its place, and the ceremony record; nothing is overwritten.
pub(crate) fn write_shares(
    folder: &Path,
    done: &InitDone,
    wanted: impl Fn(usize) -> bool,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let mut files = Vec::new();
    let mut write = |name: String, mode, bytes: &[u8]| {
        let path = folder.join(name);
        secret::create(&path, mode, bytes)?;
        files.push(path);
        Ok::<(), Error>(())
    };
    write(RECORD_TEXT.to_owned(), 0o644, done.record_text.as_bytes())?;
    write(RECORD.to_owned(), 0o644, &done.record.0)?;
    for (index, share) in done.shares.iter().enumerate().filter(|(i, _)| wanted(*i)) {
        write(share_file(index, &share.label), 0o600, share.age.as_bytes())?;
    }
    secret::sync_folder(folder)?;
    Ok(files)
}

/// Give a share, and open the store with the last one that is needed
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist unseal                                         asks for the share's text
  mcpist unseal --share-file share-1-ada.age --identity ada.txt
  age -d -i ada.txt share-1-ada.age | mcpist unseal
  mcpist unseal --cancel                                drops the shares given so far")]
pub(crate) struct UnsealArgs {
    /// The share's age file
    #[arg(long, value_name = "FILE", requires = "identity")]
    share_file: Option<PathBuf>,
    /// The age identity that opens it
    #[arg(long, value_name = "FILE", requires = "share_file")]
    identity: Option<PathBuf>,
    /// End the open ceremony and drop its shares
    #[arg(long, conflicts_with = "share_file")]
    cancel: bool,
}

pub(crate) async fn unseal(context: &Context, args: UnsealArgs) -> Result<()> {
    if args.cancel {
        let done: Done = context.client.act(path::UNSEAL_CANCEL).await?;
        return context.out.data(&done, |_| {
            "the open ceremony was ended; no share is kept".to_owned()
        });
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
    let share = match (&args.share_file, &args.identity) {
        (Some(file), Some(identity)) => share_of(
            &Identity::parse(secret::read_secret_file(identity)?.expose())
                .map_err(|e| Error::new("identity", e))?,
            &secret::read_file(file, MAX_FILE)?,
        )?,
        _ => secret::ask("Share: ")?,
    };
    let outcome = give(context, digest, &share).await?;
    context.out.data(&outcome, |outcome| match outcome {
        ShareOutcome::Opened(found) => opened(found),
        ShareOutcome::Pending(p) => format!(
            "taken: {} of {} shares ({}){}",
            p.given,
            p.needed,
            p.holders.join(", "),
            expires(p)
        ),
        ShareOutcome::Refused { message, .. } => message.clone(),
    })
}

/// The open plan, with the digest that was computed here.
pub(crate) async fn unseal_plan(
    context: &Context,
) -> Result<(Plan, Digest, mcpist_core::api::Progress)> {
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

/// The text of a share from its age file.
pub(crate) fn share_of(identity: &Identity, file: &[u8]) -> Result<Secret> {
    let share = open_share_file(identity, file).map_err(|e| Error::new("share_file", e))?;
    Ok(share.to_text()?)
}

fn opened(found: &Unsealed) -> String {
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
pub(crate) struct SealArgs {}

pub(crate) async fn seal(context: &Context) -> Result<()> {
    let client = context.client.within(SEAL);
    let (done, text) = match client.act_soon::<Done>(path::SEAL).await {
        Ok(done) => (done, "sealed; every call is refused from now on"),
        // Whoever seals twice has what they want.
        Err(e) if e.code() == ErrorCode::Sealed.as_str() => (Done {}, "nothing was open"),
        Err(e) if e.code() == "connection_lost" => {
            return Err(e.next("mcpist status; where it is not sealed: systemctl stop mcpistd"));
        }
        Err(e) => return Err(e),
    };
    context.out.data(&done, |_| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_way_is_met_before_anything_is_made_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path(), &["ada", "bob"]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let old = folder.path().join("share-2-bob.age");
        std::fs::write(&old, "old").unwrap();
        assert!(check_room(folder.path(), &["ada", "bob"]).is_err());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
