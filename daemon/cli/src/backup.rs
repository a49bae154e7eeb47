//! `backup`.
//!
//! The file is opened here and handed over as a descriptor. Promises that a backup is a new file, 0600, and does not stay
//! where the daemon said that it was not made; and that `inspect`, and `verify --offline`, need no daemon and no share.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mcpist_core::api::{BackupMade, Carried, LeftOut};
use mcpist_core::date;
use mcpist_core::error::EXIT_INCOMPLETE;
use mcpist_core::ids::Digest;
use mcpist_quorum::{BackupEnd, BackupHeader, BackupPart, BackupScan};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::medium::NewFile;
use crate::{Context, secret};

/// Back the open store up into one file that its own quorum opens
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  mcpist backup /media/usb/store-2026-11-24.backup      while the store serves
  mcpist backup verify /media/usb/store-2026-11-24.backup
  mcpist backup inspect store.backup                    whose is it, of when? Needs no daemon

The file is of no use without the shares of the holders that it names. It was read back whole before
this command says that it was made; take it out of the host then. A vault that is carried sealed is
in it as it stands, and only its own quorum can tell whether it is good.
Exit status: 0 every vault is in it, 3 a vault could not be read and is left out."
)]
pub(crate) struct BackupArgs {
    /// The new file
    #[arg(required = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<BackupCommand>,
}

#[derive(Subcommand)]
enum BackupCommand {
    /// Read a backup of this store whole, every record opened; with --offline only whether the file is undamaged
    #[command(after_help = "Examples:
  mcpist backup verify store.backup                     while the store is open
  mcpist backup verify store.backup --offline           is the stick sound?")]
    Verify {
        /// The backup
        file: PathBuf,
        /// Without the daemon: length, order and digest, no record
        #[arg(long)]
        offline: bool,
    },
    /// Show what a backup says of itself: store, time, holders. It may be forged until a restore opened it
    #[command(after_help = "Examples:
  mcpist backup inspect store.backup")]
    Inspect {
        /// The backup
        file: PathBuf,
    },
}

/// What a backup says of itself.
#[derive(Serialize)]
pub(crate) struct Inspected {
    pub(crate) backup: Digest,
    store: String,
    created: u64,
    life: u64,
    generation: u64,
    share_generation: u32,
    needed: u8,
    holders: Vec<String>,
    dev: bool,
    bytes: u64,
    chunks: u64,
}

pub(crate) async fn backup(context: &Context, args: BackupArgs) -> Result<u8> {
    match (args.command, args.file) {
        (Some(BackupCommand::Inspect { file }), _) => {
            context.out.data(&inspect(&file)?, show_inspected)?;
            Ok(0)
        }
        (Some(BackupCommand::Verify { file, offline }), _) if offline => {
            context.out.data(&inspect(&file)?, |found| {
                format!(
                    "undamaged: {} bytes in {} chunks\nbackup {}\nonly an open store, or a restore, opens its records and tells whether a vault is left out",
                    found.bytes, found.chunks, found.backup
                )
            })?;
            Ok(0)
        }
        (Some(BackupCommand::Verify { file, .. }), _) => {
            let opened = secret::open(&file)?;
            let verifying = secret::verify_backup(&context.client, &opened);
            let verified = context
                .out
                .while_busy("reading it whole", verifying)
                .await?;
            context.out.data(&verified, |made| show("verified", made))?;
            Ok(exit(&verified.left_out))
        }
        (None, Some(file)) => {
            let new = NewFile::create(&file, 0o600)?;
            let making = secret::backup(&context.client, new.file());
            let made = context.out.while_busy("backing up", making).await;
            let made = new.settle(made, "mcpist backup verify")?;
            context
                .out
                .data(&made, |made| show("backed up and read back", made))?;
            Ok(exit(&made.left_out))
        }
        (None, None) => Err(Error::usage("name a file: mcpist backup FILE")),
    }
}

/// Reads the file once, without a key.
pub(crate) fn inspect(path: &Path) -> Result<Inspected> {
    let mut file = secret::open(path)?;
    let (header, end, bytes) = scan(&mut file).map_err(|e| e.during(path.display()))?;
    let config = header.config();
    Ok(Inspected {
        backup: Digest::from_bytes(end.name()),
        store: config.store().to_string(),
        created: header.created(),
        life: header.incarnation().counter,
        generation: header.generation(),
        share_generation: config.generation().get(),
        needed: config.threshold().needed(),
        holders: config.holders().iter().map(|h| h.label.clone()).collect(),
        dev: config.is_dev(),
        bytes,
        chunks: end.chunks,
    })
}

fn scan(file: &mut impl Read) -> Result<(BackupHeader, BackupEnd, u64)> {
    let (mut scan, mut part, mut bytes) = (BackupScan::default(), Vec::new(), 0);
    let (mut header, mut ended) = (None, None);
    while scan.wants() > 0 {
        part.clear();
        file.take(scan.wants() as u64).read_to_end(&mut part)?;
        bytes += part.len() as u64;
        match scan
            .take(&part)
            .map_err(|e| Error::new("backup_refused", e))?
        {
            Some(BackupPart::Header(found)) => header = Some(*found),
            Some(BackupPart::End(end)) => ended = Some(end),
            Some(BackupPart::Chunk(_)) | None => {}
        }
    }
    if file.read(&mut [0])? > 0 {
        return Err(Error::new(
            "backup_refused",
            "bytes stand after the backup's end",
        ));
    }
    match (header, ended) {
        (Some(header), Some(end)) => Ok((header, end, bytes)),
        _ => Err(Error::new("backup_refused", "the backup has no end")),
    }
}

fn show_inspected(found: &Inspected) -> String {
    format!(
        "backup    {}\nstore     {}{}\nbegun     {}\nlife      {}, generation {}\nshares    {} of {} of generation {}: {}\nlength    {} bytes, {} chunks, undamaged\nvaults    sealed; those that are left out, if any: mcpist backup verify FILE\nnothing of this is proven before a quorum opened it",
        found.backup,
        found.store,
        if found.dev {
            " (development store)"
        } else {
            ""
        },
        date::date(found.created),
        found.life,
        found.generation,
        found.needed,
        found.holders.len(),
        found.share_generation,
        found.holders.join(", "),
        found.bytes,
        found.chunks,
    )
}

fn show(what: &str, made: &BackupMade) -> String {
    format!(
        "{what}: {} vaults, {} records, {} files, {} bytes\nbackup {}{}",
        made.vaults,
        made.records,
        made.files,
        made.bytes,
        made.backup,
        match (made.left_out.is_empty(), made.carried.first()) {
            (true, None) => "\nit lacks no vault".to_owned(),
            (true, Some(first)) => format!(
                "{}\nkeep the older backups, and the shares that open them, until one lacks no vault\nnext: mcpist vault unseal {}, and another backup",
                carried(&made.carried),
                first.vault
            ),
            (false, _) => format!(
                "{}{}\nINCOMPLETE: keep the older backups, and the shares that open them\nnext: mcpist vault list, and another backup",
                carried(&made.carried),
                left_out(&made.left_out)
            ),
        }
    )
}

/// The exit status of an act that may lack vaults.
pub(crate) fn exit(left_out: &[LeftOut]) -> u8 {
    match left_out.is_empty() {
        true => 0,
        false => EXIT_INCOMPLETE,
    }
}

pub(crate) fn carried(vaults: &[Carried]) -> String {
    let named = |one: &Carried| {
        format!(
            "\ncarried sealed: vault {}, {} records; its own quorum verifies it: mcpist vault unseal {}",
            one.vault, one.records, one.vault
        )
    };
    vaults.iter().map(named).collect()
}

pub(crate) fn left_out(vaults: &[LeftOut]) -> String {
    let named = |one: &LeftOut| format!("\nNOT in it: vault {}: {}", one.vault, one.reason);
    vaults.iter().map(named).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_lacks_a_vault_or_has_one_unverified_does_not_let_older_ones_go() {
        let made = |left_out: Vec<LeftOut>| BackupMade {
            backup: Digest::of(b"x"),
            created: 0,
            generation: 1,
            bytes: 1,
            vaults: 1,
            records: 1,
            files: 0,
            carried: Vec::new(),
            left_out,
        };
        let whole = made(Vec::new());
        assert!(show("verified", &whole).ends_with("it lacks no vault"));
        assert_eq!(exit(&whole.left_out), 0);
        let carrying = BackupMade {
            carried: vec![Carried {
                vault: "payroll".to_owned(),
                records: 7,
            }],
            ..made(Vec::new())
        };
        let said = show("verified", &carrying);
        assert!(said.contains("keep the older backups"), "{said}");
        assert!(said.ends_with("next: mcpist vault unseal payroll, and another backup"));
        assert!(!said.contains("it lacks no vault"), "{said}");
        assert_eq!(exit(&carrying.left_out), 0);
        let team = LeftOut {
            vault: "team".to_owned(),
            reason: "it is quarantined".to_owned(),
        };
        let lacking = made(vec![team]);
        let said = show("verified", &lacking);
        assert!(said.contains("NOT in it: vault team"), "{said}");
        assert!(said.contains("keep the older backups"), "{said}");
        assert!(!said.contains("lacks no vault"), "{said}");
        assert_eq!(exit(&lacking.left_out), EXIT_INCOMPLETE);
    }
}
