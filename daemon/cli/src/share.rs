//! `share`, and shares outside the daemon: the files that they leave in, and the ways in which one comes back.
//!
//! Promises that share files are new files, each still encrypted to its holder; that a share in plain text is in secret
//! memory only; that what these commands say of a share is never its value; and that they need no daemon.

mod files;
mod given;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::ids::Digest;
use mcpist_quorum::{CeremonyRecord, Identity, Recorded, Share, open_share_file};
use mcpist_secret::Secret;
use serde::Serialize;

use self::given::Given;
use crate::error::{Error, Result};
use crate::{Context, secret};

pub(crate) use self::files::{check_file, check_new, check_room, share_file, write_shares};
pub(crate) use self::given::{Given as GivenShare, ask_share, from_file, type_share};

/// The longest share file, trust root or record that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 64 * 1024;

const RECORD_NEXT: &str = "give ceremony.bin as the ceremony wrote it, from where it was kept";

/// Look at shares and ceremony records, without a daemon
#[derive(Args)]
pub(crate) struct ShareArgs {
    #[command(subcommand)]
    command: ShareCommand,
}

#[derive(Subcommand)]
enum ShareCommand {
    /// Say what a share is of, and never its value
    #[command(after_help = "Examples:
  mcpist share inspect                                  asks for the share, text or words
  mcpist share inspect --share-file share-1-ada.age --identity ada.txt")]
    Inspect {
        #[command(flatten)]
        given: Given,
    },
    /// Say whether a share is whole, and one of a ceremony's
    #[command(after_help = "Examples:
  mcpist share verify --record ceremony.bin --share-file share-1-ada.age --identity ada.txt
  mcpist share verify --record ceremony.bin             asks for the share, text or words

Run it once a year for each paper: a share that cannot be read is found while the others can replace it.")]
    Verify {
        /// The ceremony's record, ceremony.bin
        #[arg(long, value_name = "FILE")]
        record: PathBuf,
        #[command(flatten)]
        given: Given,
    },
    /// Check a ceremony record's signature, and print it
    #[command(after_help = "Examples:
  mcpist share record ceremony.bin
  mcpist share record rekey/ceremony.bin --init ceremony.bin   of the same store as init's record?")]
    Record {
        /// The record, ceremony.bin
        file: PathBuf,
        /// The record of init, which tells the store's key; without it any store's record passes
        #[arg(long, value_name = "FILE")]
        init: Option<PathBuf>,
    },
}

/// What a share says of itself.
#[derive(Serialize)]
struct Inspected {
    set: String,
    generation: u32,
    index: u8,
    needed: u8,
    total: u8,
    digest: String,
}

/// Whose share it is, of which ceremony.
#[derive(Serialize)]
struct Verified {
    holder: String,
    ceremony: &'static str,
    store: String,
    #[serde(flatten)]
    share: Inspected,
}

/// What a record says, with its page.
#[derive(Serialize)]
struct Recording {
    ceremony: &'static str,
    store: String,
    generation: u32,
    store_key: String,
    audit_key: String,
    digest: Digest,
    text: String,
}

pub(crate) fn run(context: &Context, args: ShareArgs) -> Result<()> {
    match args.command {
        ShareCommand::Inspect { given } => {
            let share = inspected(&given.read("mcpist share inspect")?);
            context.out.data(&share, describe)
        }
        ShareCommand::Verify { record, given } => {
            let record = read_record(&record)?;
            let share = given.read("mcpist share verify --record FILE")?;
            let holder = record
                .holder_of(&share)
                .map_err(|e| Error::new("share_not_of_record", e))?;
            let verified = Verified {
                holder: holder.to_owned(),
                ceremony: record.act().name(),
                store: record.store().to_string(),
                share: inspected(&share),
            };
            context.out.data(&verified, |v| {
                format!(
                    "whole, and the share of {}\nstore       {}\nceremony    {}\n{}",
                    v.holder.escape_debug(),
                    v.store,
                    v.ceremony,
                    describe(&v.share)
                )
            })
        }
        ShareCommand::Record { file, init } => {
            let record = read_record(&file)?;
            if let Some(init) = init {
                expect_same_store(&record, &read_record(&init)?)?;
            }
            let shown = Recording {
                ceremony: record.act().name(),
                store: record.store().to_string(),
                generation: record.generation().get(),
                store_key: hex::encode(record.store_key()),
                audit_key: hex::encode(record.audit_key()),
                digest: Digest::from_bytes(record.digest()),
                text: record.to_text(),
            };
            context.out.data(&shown, |shown| {
                format!("{}\nsigned by that store key", shown.text)
            })
        }
    }
}

fn inspected(share: &Share) -> Inspected {
    Inspected {
        set: share.set().to_string(),
        generation: share.generation().get(),
        index: share.index(),
        needed: share.threshold().needed(),
        total: share.threshold().total(),
        digest: share.digest().to_string(),
    }
}

fn describe(share: &Inspected) -> String {
    format!(
        "share set   {}\ngeneration  {}\nshare       {} of {}, {} are needed\ndigest      {}",
        share.set, share.generation, share.index, share.total, share.needed, share.digest
    )
}

fn read_record(file: &Path) -> Result<CeremonyRecord> {
    let bytes = secret::read_file(file, MAX_FILE)?;
    CeremonyRecord::from_bytes(&bytes).map_err(|e| {
        Error::new("ceremony_record", e)
            .during(file.display())
            .next(RECORD_NEXT)
    })
}

fn expect_same_store(record: &CeremonyRecord, init: &CeremonyRecord) -> Result<()> {
    let other = |what: &str| Err(Error::new("ceremony_record", what).next(RECORD_NEXT));
    if init.act() != Recorded::Init {
        return other("the record given as --init is not one of init");
    }
    if record.store() != init.store() || record.store_key() != init.store_key() {
        return other("the record is signed by another store than init's record names");
    }
    Ok(())
}

/// The text of a share from its age file.
pub(crate) fn share_of(identity: &Identity, file: &[u8]) -> Result<Secret> {
    let share = open_share_file(identity, file).map_err(|e| Error::new("share_file", e))?;
    Ok(share.to_text()?)
}
