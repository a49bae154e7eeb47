//! Who gets the shares of a new sharing, as `init` and `rekey` are told: one set of options for both.

use clap::Args;
use mcpist_core::api::NewHolder;

use crate::error::{Error, Result};

/// How many shares open it, and whose they are.
#[derive(Args)]
pub(crate) struct Holders {
    /// New shares that open the store
    #[arg(long, value_name = "N", required_unless_present = "guided")]
    pub(crate) threshold: Option<u8>,
    /// A holder of a new share and the age recipient to encrypt it to; repeat
    #[arg(
        long = "holder",
        value_name = "LABEL=RECIPIENT",
        required_unless_present = "guided"
    )]
    pub(crate) holders: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do all of it on this terminal, one custodian at a time, with shares on paper where there is no age recipient
    #[arg(long, conflicts_with_all = ["threshold", "holders", "yes"])]
    pub(crate) guided: bool,
}

impl Holders {
    /// The threshold, where this is not guided.
    pub(crate) fn needed(&self) -> Result<u8> {
        self.threshold
            .ok_or_else(|| Error::usage("give --threshold, or --guided"))
    }
}

/// The holders of new shares, each `label=recipient`.
pub(crate) fn named_holders(texts: &[String]) -> Result<Vec<NewHolder>> {
    let holder = |text: &String| {
        let (label, recipient) = pair(text)?;
        Ok(NewHolder { label, recipient })
    };
    texts.iter().map(holder).collect()
}

/// The two sides of `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Error::usage(format!("{text:?} is not NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}
