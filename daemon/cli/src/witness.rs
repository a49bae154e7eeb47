//! `witness`: receipts of the store's state, kept outside of it and held against it.
//!
//! Owns the folder of receipts of whoever runs this program: one file for each store, named by its id, the newest
//! receipt in it. Promises that an older receipt, or one by another key, never takes the place of the one that is held;
//! that a file changes by a rename and is on the disk afterwards; and that a receipt which cannot be kept or presented
//! is a warning and fails no ceremony.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::api::{self, PresentReceipt, Presented, path};
use mcpist_core::date;
use mcpist_core::error::ErrorCode;
use mcpist_quorum::{CeremonyRecord, Receipt, StoreId};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::{Context, secret};

const MAX_RECEIPT: u64 = 4096;
const MAX_RECORD: u64 = 64 * 1024;

/// Where receipts are kept.
#[derive(Args, Debug, Default)]
pub(crate) struct Keeping {
    /// Folder of witness receipts; without it, mcpist/witness in $XDG_STATE_HOME or ~/.local/state
    #[arg(long, value_name = "DIR")]
    witness_dir: Option<PathBuf>,
}

/// Receipts that prove what state the store has reached
#[derive(Args)]
pub(crate) struct WitnessArgs {
    #[command(subcommand)]
    command: WitnessCommand,
}

#[derive(Subcommand)]
enum WitnessCommand {
    /// Take a fresh receipt of the open store
    #[command(after_help = "Examples:
  mcpist witness pull                          keeps it where 'mcpist unseal' finds it
  mcpist witness pull --out /media/stick/receipt")]
    Pull {
        /// A new file for it; - is standard output alone
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        keeping: Keeping,
    },
    /// Show a receipt, or those that are kept; needs no daemon
    #[command(after_help = "Examples:
  mcpist witness show
  mcpist witness show /media/stick/receipt")]
    Show {
        /// A file with a receipt
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        keeping: Keeping,
    },
    /// Verify a receipt by the ceremony record of its store; needs no daemon
    #[command(after_help = "Examples:
  mcpist witness verify /media/stick/receipt --record ceremony.bin")]
    Verify {
        /// A file with a receipt
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The ceremony record, which holds the store's key
        #[arg(long, value_name = "FILE")]
        record: PathBuf,
    },
    /// Present a receipt: a store that is older does not open, or is closed
    #[command(after_help = "Examples:
  mcpist witness present /media/stick/receipt

'mcpist unseal' presents the kept receipt by itself.")]
    Present {
        /// A file with a receipt
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A receipt for people and programs.
#[derive(Debug, Serialize)]
struct Shown {
    store: String,
    life: u64,
    incarnation: String,
    generation: u64,
    point: String,
    audit_line: u64,
    audit_head: String,
    /// Seconds since 1970, by the host's clock.
    time: u64,
    store_key: String,
    receipt: String,
}

impl Shown {
    fn of(receipt: &Receipt) -> Shown {
        let (at, log) = (receipt.at(), receipt.log());
        Shown {
            store: receipt.store().to_string(),
            life: at.incarnation.counter,
            incarnation: hex::encode(at.incarnation.id),
            generation: at.generation,
            point: hex::encode(at.digest),
            audit_line: log.sequence,
            audit_head: hex::encode(log.head),
            time: receipt.time(),
            store_key: hex::encode(receipt.key()),
            receipt: receipt.to_text(),
        }
    }

    fn text(&self) -> String {
        format!(
            "store      {}\nlife       {}\ngeneration {}\naudit      line {}, head {}\ntime       {}\nstore key  {}",
            self.store,
            self.life,
            self.generation,
            self.audit_line,
            self.audit_head,
            date::date(self.time),
            self.store_key
        )
    }
}

pub(crate) async fn run(context: &Context, args: WitnessArgs) -> Result<()> {
    match args.command {
        WitnessCommand::Pull { out, keeping } => {
            let pulled: api::Receipt = context.client.get(path::WITNESS).await?;
            let receipt = parse(&pulled.receipt)?;
            let line = format!("{}\n", receipt.to_text());
            match &out {
                Some(file) if file.as_os_str() != "-" => {
                    secret::create(file, 0o600, line.as_bytes())?;
                    secret::sync_folder(folder_of(file))?;
                }
                Some(_) => {}
                None => keep_newest(&keeping.folder()?, &receipt)?,
            }
            context.out.data(&Shown::of(&receipt), |shown| match out {
                Some(file) if file.as_os_str() == "-" => shown.receipt.clone(),
                _ => shown.text(),
            })
        }
        WitnessCommand::Show { file, keeping } => {
            let receipts = match file {
                Some(file) => vec![read(&file)?],
                None => kept(&keeping.folder()?)?,
            };
            let shown: Vec<Shown> = receipts.iter().map(Shown::of).collect();
            context.out.data(&shown, |shown| {
                if shown.is_empty() {
                    return "no receipt is kept; next: mcpist witness pull".to_owned();
                }
                shown
                    .iter()
                    .map(Shown::text)
                    .collect::<Vec<_>>()
                    .join("\n\n")
            })
        }
        WitnessCommand::Verify { file, record } => {
            let receipt = read(&file)?;
            verify(&receipt, &secret::read_file(&record, MAX_RECORD)?)?;
            context.out.data(&Shown::of(&receipt), |shown| {
                format!("the receipt is by this store's key\n{}", shown.text())
            })
        }
        WitnessCommand::Present { file } => {
            let presented = present(context, &read(&file)?).await?;
            context.out.data(&presented, |presented| match presented {
                Presented::Waiting { .. } => {
                    "the receipt waits; the store does not open where it is older".to_owned()
                }
                Presented::Agrees { newer } => {
                    format!("the store agrees, and has {newer} newer commits")
                }
            })
        }
    }
}

impl Keeping {
    fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.witness_dir {
            return Ok(folder.clone());
        }
        let absolute = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .map(|state| state.join("mcpist/witness"))
            .ok_or_else(|| {
                Error::new(
                    "receipt",
                    "there is no home folder to keep witness receipts in",
                )
                .next("name a folder with --witness-dir")
            })
    }

    /// Presents the receipt that is kept of `store`, before a share of it is given. The error is that an open store is
    /// older than it, or goes on elsewhere, and is sealed now.
    pub(crate) async fn present(&self, context: &Context, store: StoreId) -> Result<()> {
        let held = self.folder().and_then(|folder| held(&folder, store));
        let presented = match held {
            Ok(None) => return Ok(()),
            Ok(Some(receipt)) => present(context, &receipt).await.map(drop),
            Err(e) => Err(e),
        };
        let Err(e) = presented else { return Ok(()) };
        if [ErrorCode::StoreRolledBack, ErrorCode::Fenced]
            .map(ErrorCode::as_str)
            .contains(&e.code())
        {
            return Err(e);
        }
        warn(context, "the kept witness receipt was not presented", &e);
        Ok(())
    }

    /// Keeps the receipt that an act gave back.
    pub(crate) fn keep(&self, context: &Context, receipt: Option<&str>) {
        let Some(text) = receipt else { return };
        let kept = parse(text).and_then(|receipt| keep_newest(&self.folder()?, &receipt));
        if let Err(e) = kept {
            warn(context, "the witness receipt was not kept", &e);
        }
    }
}

fn warn(context: &Context, what: &str, error: &Error) {
    let next = error.next_step().map(|next| format!("; next: {next}"));
    let next = next.unwrap_or_default();
    context.out.note(&format!("warning: {what}: {error}{next}"));
}

async fn present(context: &Context, receipt: &Receipt) -> Result<Presented> {
    let receipt = receipt.to_text();
    context
        .client
        .post(path::WITNESS, &PresentReceipt { receipt })
        .await
}

fn parse(text: &str) -> Result<Receipt> {
    Receipt::parse(text).map_err(|e| Error::new("receipt", e))
}

fn read(file: &Path) -> Result<Receipt> {
    let bytes = secret::read_file(file, MAX_RECEIPT)?;
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).map_err(|e| e.during(file.display()))
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The receipt that is kept of `store`.
fn held(folder: &Path, store: StoreId) -> Result<Option<Receipt>> {
    let file = folder.join(store.to_string());
    match file.try_exists() {
        Ok(false) => Ok(None),
        _ => read(&file).map(Some),
    }
}

/// Every receipt that is kept.
fn kept(folder: &Path) -> Result<Vec<Receipt>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::file(folder, e))?,
    };
    let mut files: Vec<PathBuf> = (entries.flatten())
        .map(|entry| entry.path())
        .filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.parse::<StoreId>().is_ok())
        })
        .collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// Puts `receipt` in the place of an older one.
fn keep_newest(folder: &Path, receipt: &Receipt) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|e| Error::file(folder, e))?;
    let file = folder.join(receipt.store().to_string());
    if let Some(held) = held(folder, receipt.store())? {
        if held.key() != receipt.key() {
            let text = format!(
                "{} is signed by another key than this receipt",
                file.display()
            );
            return Err(Error::new("receipt", text).next(
                "verify both: mcpist witness verify FILE --record ceremony.bin, and move the wrong one away",
            ));
        }
        if !receipt.is_newer_than(&held) {
            return Ok(());
        }
    }
    let new = folder.join(format!(".{}.{}", receipt.store(), std::process::id()));
    // Left behind by a process of this number that was killed.
    let _ = std::fs::remove_file(&new);
    secret::create(&new, 0o600, format!("{}\n", receipt.to_text()).as_bytes())?;
    std::fs::rename(&new, &file).map_err(|e| Error::file(&file, e))?;
    secret::sync_folder(folder)
}

/// Whether the receipt is of the record's store and by its key.
fn verify(receipt: &Receipt, record: &[u8]) -> Result<()> {
    let record =
        CeremonyRecord::from_bytes(record).map_err(|e| Error::new("ceremony_record", e))?;
    if receipt.store() != record.store() {
        let text = format!(
            "the receipt is of store {}, the record of store {}",
            receipt.store(),
            record.store()
        );
        return Err(Error::new("receipt", text));
    }
    if receipt.key() != record.store_key() {
        let text = "the receipt is forged: it is signed by another key than the record's store key";
        return Err(Error::new("receipt", text));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_quorum::{Incarnation, LogPoint, StorePoint};

    use super::*;

    /// A receipt for a generation. Its key is that of a bundle signer: any Ed25519 key signs.
    fn receipt(key: &ring::signature::Ed25519KeyPair, counter: u64, generation: u64) -> Receipt {
        let at = StorePoint {
            incarnation: Incarnation {
                counter,
                id: [2; 16],
                parent: [0; 16],
            },
            generation,
            digest: [3; 32],
        };
        let log = LogPoint {
            sequence: 1,
            head: [4; 32],
        };
        Receipt::sign(StoreId::from_bytes([1; 16]), at, log, 0, key)
    }

    fn key(seed: u8) -> ring::signature::Ed25519KeyPair {
        ring::signature::Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    #[test]
    fn the_newest_receipt_stays_and_no_other_key_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/down");
        let generation = || {
            let held = held(&folder, StoreId::from_bytes([1; 16]))
                .unwrap()
                .unwrap();
            (held.at().incarnation.counter, held.at().generation)
        };
        keep_newest(&folder, &receipt(&key(7), 1, 5)).unwrap();
        keep_newest(&folder, &receipt(&key(7), 1, 4)).unwrap();
        assert_eq!(generation(), (1, 5));
        keep_newest(&folder, &receipt(&key(7), 2, 1)).unwrap();
        assert_eq!(generation(), (2, 1));
        let forged = keep_newest(&folder, &receipt(&key(8), 9, 9)).unwrap_err();
        assert!(forged.to_string().contains("another key"), "{forged}");
        assert_eq!(generation(), (2, 1));
        assert_eq!(kept(&folder).unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let receipt = receipt(&key(7), 1, 5);
        let file = folder.path().join(receipt.store().to_string());
        std::fs::write(&file, "mcpist-witness1:00").unwrap();
        assert!(keep_newest(folder.path(), &receipt).is_err());
        let left = std::fs::read_to_string(&file).unwrap();
        assert_eq!(left, "mcpist-witness1:00");
    }
}
