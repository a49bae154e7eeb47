//! `audit confirm`: a second auditor has an export that somebody else made.
//!
//! Promises that what is confirmed is the file as the medium gives it: its digest is taken here, from its bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::{ConfirmExport, Confirmed, path};
use mcpist_core::ids::{Digest, DigestBuilder};

use crate::error::{Error, Result};
use crate::{Context, secret};

/// Bytes that are read at once.
const SLICE: usize = 256 * 1024;

#[derive(Args)]
pub(super) struct ConfirmArgs {
    /// The export, on its medium
    #[arg(value_name = "FILE", required_unless_present = "digest")]
    file: Option<PathBuf>,
    /// Its SHA-256 in place of the file: sha256sum said it on another machine
    #[arg(long, value_name = "HEX", conflicts_with = "file")]
    digest: Option<Digest>,
}

pub(super) async fn run(context: &Context, args: ConfirmArgs) -> Result<u8> {
    let digest = match (args.digest, &args.file) {
        (Some(digest), _) => digest,
        (None, Some(file)) => digest_of(file)?,
        (None, None) => {
            return Err(Error::usage(
                "no export is named: mcpist audit confirm FILE",
            ));
        }
    };
    let asked = ConfirmExport { digest };
    let confirmed: Confirmed = context.client.post(path::AUDIT_CONFIRM, &asked).await?;
    context.out.data(&confirmed, |confirmed| {
        format!(
            "lines {} to {}, exported by uid {}, are confirmed: their segments may leave the host",
            confirmed.first, confirmed.through, confirmed.exporter
        )
    })?;
    Ok(0)
}

fn digest_of(path: &Path) -> Result<Digest> {
    let mut file = secret::open(path)?;
    let (mut hash, mut slice) = (DigestBuilder::begin(), vec![0; SLICE]);
    loop {
        match file.read(&mut slice).map_err(|e| Error::file(path, e))? {
            0 => return Ok(hash.finish()),
            read => hash.update(&slice[..read]),
        }
    }
}
