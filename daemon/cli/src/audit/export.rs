//! `audit export`: lines of the log on a medium.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_core::api::{ExportFrom, Exported};
use mcpist_core::date;
use nix::fcntl::OFlag;

use crate::error::{Error, Result};
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
    let file = new_file(&args.file)?;
    let exporting = secret::export(&context.client, from, &file);
    match context.out.while_busy("exporting", exporting).await {
        Ok(exported) => {
            let folder = args.file.parent().filter(|f| !f.as_os_str().is_empty());
            secret::sync_folder(folder.unwrap_or(Path::new(".")))?;
            context.out.data(&exported, show)?;
            Ok(0)
        }
        Err(e) => {
            // Half an export is none. What matters is why.
            let _ = std::fs::remove_file(&args.file);
            Err(e)
        }
    }
}

/// A new file that can be read back.
fn new_file(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o640)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::file(path, e).next("name another file, or move that one away")
            }
            _ => Error::file(path, e),
        })
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
