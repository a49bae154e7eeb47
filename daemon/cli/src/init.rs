//! `init`: the ceremony that makes the store.
//!
//! Promises that the plan is shown before it is carried out, under the digest that this program computed from its bytes;
//! that it is confirmed for the trust root that was given and no other; and that room for every file was found before
//! anything is made whose shares would be lost otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::{
    Base64, InitConfirm, InitDone, InitPlan, InitRequest, NewHolder, NewOfficer, PublicKey, path,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use mcpist_quorum::{Act, Identity, Plan};

use crate::error::{Error, Result};
use crate::holders::{Holders, pair};
use crate::plan::{confirm, describe_with_paper, read_plan};
use crate::share::{MAX_FILE, check_room, write_shares};
use crate::terminal::Terminal;
use crate::{Context, guided, reveal, secret};

/// Make the store of this host: the first ceremony
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist init --guided                                  asks for everything, in the order of the day
  mcpist init --threshold 2 --holder ada=age1… --holder bob=age1… --holder eve=age1… \\
      --officer ada=HEXKEY --officer bob=HEXKEY --root root.json --out shares/

  sudo cat /var/lib/mcpist/init-token | mcpist init --token-file - …
  mcpist init --threshold 2 --holder ada --holder bob=age1… --holder eve=age1… --qr …

Shares leave the daemon encrypted to their holders and are written into --out as age files. Keep ceremony.bin:
its first audit key is what 'mcpist audit verify' starts from. Until the store was opened for the first time, init may be
run again, with the token that the daemon wrote anew: it replaces a store that holds nothing.")]
pub(crate) struct InitArgs {
    #[command(flatten)]
    people: Holders,
    /// Let a holder be LABEL alone, without a recipient: that share is shown on this terminal once, as text and QR code
    #[arg(long, conflicts_with = "guided")]
    qr: bool,
    /// An officer and the officer's public key of 64 hexadecimal digits; repeat
    #[arg(
        long = "officer",
        value_name = "NAME=HEXKEY",
        conflicts_with = "guided"
    )]
    officers: Vec<String>,
    /// The trust root, as 'mcpist bundle root' writes it
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "guided",
        conflicts_with = "guided"
    )]
    root: Option<PathBuf>,
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
}

/// What init made, as the command line says it.
#[derive(serde::Serialize)]
struct Made {
    files: Vec<PathBuf>,
    plan: Digest,
}

pub(crate) async fn init(context: &Context, args: InitArgs) -> Result<()> {
    if args.people.guided {
        return guided::run(context, &args.token_file, &args.out, args.dev).await;
    }
    let threshold = args.people.needed()?;
    let Some(root) = &args.root else {
        return Err(Error::usage("give --root, or --guided"));
    };
    let mut holders = Vec::new();
    // By place, the identities of those whose share is shown.
    let mut shown: BTreeMap<usize, Identity> = BTreeMap::new();
    for (index, text) in args.people.holders.iter().enumerate() {
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
        false => Some(Terminal::open()?),
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
    let root = Base64(secret::read_file(root, MAX_FILE)?);
    show_token(context, &args.token_file, "mcpist init").await?;
    let request = InitRequest {
        threshold,
        holders,
        root,
        officers,
        dev: args.dev,
    };
    let Planned {
        plan,
        digest,
        replaces,
    } = plan_init(context, &request).await?;
    expect_root(&plan, &request.root)?;
    let on_paper = |at| shown.contains_key(&at);
    context
        .out
        .terms(&describe_with_paper(&plan, &digest, on_paper));
    if let Some(old) = replaces {
        context.out.terms(&replaced(&old));
    }
    if !args.people.yes {
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
                "initialised; the store is sealed. Written:\n{}\nnext: mcpist unseal; until the store was opened once, init may be run again",
                files.join("\n")
            )
        },
    )?;
    all_shown
}

/// Reads the init token, and shows it to the daemon. `command` is the one that it was given to.
pub(crate) async fn show_token(context: &Context, file: &Path, command: &str) -> Result<()> {
    let again = format!("sudo cat /var/lib/mcpist/init-token | {command} --token-file - …");
    let token = if file.as_os_str() == "-" {
        secret::ask("Init token: ")?
    } else {
        secret::read_secret_file(file).map_err(|e| e.next(&*again))?
    };
    let shown = secret::init_token(&context.client, &token).await;
    // Repeated with the same token it would fail again.
    shown.map_err(|e| match ErrorCode::parse(e.code()) {
        Some(ErrorCode::TicketInvalid) => e.next(format!(
            "take the token of the daemon that runs now: {again}"
        )),
        _ => e,
    })
}

/// A plan of init, with the digest that was computed here.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) digest: Digest,
    /// The store that was made and never opened, where there is one.
    pub(crate) replaces: Option<String>,
}

/// What becomes of the store that a new one replaces.
pub(crate) fn replaced(old: &str) -> String {
    format!(
        "  in the place of store {old}, which nobody has opened: its shares open nothing any more"
    )
}

/// Asks for a plan.
pub(crate) async fn plan_init(context: &Context, request: &InitRequest) -> Result<Planned> {
    let shown: InitPlan = context.client.post(path::INIT, request).await?;
    let (plan, digest) = read_plan(&shown.plan)?;
    Ok(Planned {
        plan,
        digest,
        replaces: shown.replaces,
    })
}

/// Carries the plan with this digest out.
pub(crate) async fn confirm_init(context: &Context, digest: Digest) -> Result<InitDone> {
    context
        .client
        .post(path::INIT_CONFIRM, &InitConfirm { digest })
        .await
}

/// A plan is confirmed for the trust root that was given, and for no other.
pub(crate) fn expect_root(plan: &Plan, root: &Base64) -> Result<()> {
    match plan.act() {
        Act::Init(terms) if terms.root_digest == *Digest::of(&root.0).as_bytes() => Ok(()),
        _ => Err(Error::new(
            "version_mismatch",
            "the daemon planned another store than the one that was asked for",
        )
        .next("use the mcpist of the same version as mcpistd")),
    }
}
