//! `audit match`: whether a call was made with these arguments.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use mcpist_core::api::{Base64, MatchArguments, Matched, path};
use mcpist_core::error::EXIT_FAILURE;
use mcpist_core::ids::Digest;

use crate::error::{Error, Result};
use crate::{Context, secret};

/// Longest value that is compared, in bytes.
const MAX: u64 = 1 << 20;

#[derive(Args)]
pub(super) struct MatchArgs {
    /// `arguments` of the call's call_intent line
    #[arg(value_name = "HEX")]
    recorded: Digest,
    /// The file with the arguments; standard input where there is none
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: MatchArgs) -> Result<u8> {
    let arguments = match &args.file {
        Some(file) => secret::read_file(file, MAX)?,
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().take(MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MAX {
                return Err(Error::usage(format!(
                    "standard input is longer than {MAX} bytes"
                )));
            }
            bytes
        }
    };
    let asked = MatchArguments {
        recorded: args.recorded,
        arguments: Base64(arguments),
    };
    let found: Matched = context.client.post(path::AUDIT_MATCH, &asked).await?;
    context.out.data(&found, |found| {
        match found.matched {
            true => "the call was made with these very bytes",
            false => "the call was made with others",
        }
        .to_owned()
    })?;
    Ok(if found.matched { 0 } else { EXIT_FAILURE })
}
