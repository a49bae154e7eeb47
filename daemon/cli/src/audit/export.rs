//! `audit export`: lines of the log on a medium.

use std::path::PathBuf;

use clap::Args;
use mcpist_core::api::{ExportFrom, Exported};
use mcpist_core::date;

use crate::error::{Error, Result};
use crate::medium::NewFile;
use crate::{Context, secret};

#[derive(Args)]
pub(super) struct ExportArgs {
    /// The file to make; one that exists is not touched
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    from: FromArgs,
}

/// What it begins with: the oldest line that the host has, unless one of these says otherwise.
#[derive(Args)]
#[group(multiple = false)]
struct FromArgs {
    /// Only what no export holds yet
    #[arg(long)]
    new: bool,
    /// From the line with this number
    #[arg(long, value_name = "SEQ")]
    from_seq: Option<u64>,
    /// From this time on: a UTC date, or 2027-01-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

impl FromArgs {
    fn from(&self) -> Result<ExportFrom> {
        Ok(match (self.new, self.from_seq, &self.since) {
            (true, _, _) => ExportFrom::LastExport,
            (_, Some(seq), _) => ExportFrom::Seq(seq),
            (_, _, Some(time)) => ExportFrom::Time(date::parse(time).map_err(Error::usage)?),
            _ => ExportFrom::Beginning,
        })
    }
}

pub(super) async fn run(context: &Context, args: ExportArgs) -> Result<u8> {
    let from = args.from.from()?;
    let new = NewFile::create(&args.file, 0o640)?;
    let exporting = secret::export(&context.client, from, new.file());
    let exported = context.out.while_busy("exporting", exporting).await;
    let exported = new.settle(exported, "mcpist audit verify --record ceremony.bin")?;
    context.out.data(&exported, show)?;
    Ok(0)
}

fn show(exported: &Exported) -> String {
    format!(
        "lines {} to {}, {} bytes, read back; {} lines at the end not signed\nhead {}\npoint {}\nsha256 {}",
        exported.first,
        exported.through,
        exported.bytes,
        exported.unsigned_tail,
        exported.head,
        exported.point,
        exported.digest
    )
}
