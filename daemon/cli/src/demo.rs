//! `demo`: everything once, with throwaway keys, in a fresh temporary folder.
//!
//! Each step is one line that says what was done, by the client code that the commands use, and each claim is checked:
//! a step that finds otherwise ends the demo with status 1 and says which it was. Promises to stop what it started and
//! to remove its folder, unless a step failed; then the folder is named.

mod search;
mod service;
mod site;

use std::future::Future;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::Context;
use crate::error::{Error, Result};
use crate::output::Output;
use site::Site;

/// See everything once, in a temporary folder, with throwaway keys
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist demo                  about a dozen steps, then everything is removed
  mcpist demo --keep           leaves it running and says how to connect a client; Ctrl-C ends it")]
pub(crate) struct DemoArgs {
    /// Leave everything running after the last step
    #[arg(long)]
    keep: bool,
}

const INTERRUPTED: &str = "interrupted";

/// The numbered steps, each shown as it ends.
pub(crate) struct Steps {
    out: Output,
    done: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    number: usize,
    text: String,
}

#[derive(Serialize)]
struct Summary {
    steps: Vec<Step>,
    folder: Option<PathBuf>,
}

impl Steps {
    /// Does one step; its line is shown when it is done, its number and name when it fails.
    pub(crate) async fn step(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<String>>,
    ) -> Result<()> {
        let number = self.done.len() + 1;
        let text = work
            .await
            .map_err(|e| e.during(format!("step {number}, {name}")))?;
        if !self.out.is_json() {
            let mut out = std::io::stdout();
            writeln!(out, "ok {number:>2}  {text}")?;
            out.flush()?;
        }
        self.done.push(Step { number, text });
        Ok(())
    }
}

pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<()> {
    let folder = std::env::temp_dir().join(format!(
        "mcpist-demo-{}",
        hex::encode(mcpist_secret::random_bytes::<4>()?)
    ));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|e| Error::file(&folder, e))?;
    let mut steps = Steps {
        out: context.out,
        done: Vec::new(),
    };
    let outcome = play(&mut steps, folder.clone(), args.keep).await;
    match outcome {
        Ok(()) => {
            std::fs::remove_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
            let text = format!(
                "all {} steps hold; {} was removed",
                steps.done.len(),
                folder.display()
            );
            context.out.data(
                &Summary {
                    steps: steps.done,
                    folder: None,
                },
                |_| text,
            )
        }
        Err(e) if e.code() == INTERRUPTED => {
            std::fs::remove_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
            Err(e)
        }
        Err(e) => Err(e.next(format!("look into {} and remove it", folder.display()))),
    }
}

async fn play(steps: &mut Steps, folder: PathBuf, keep: bool) -> Result<()> {
    // An interrupted demo drops what it started, which stops it.
    let mut site = tokio::select! {
        site = all_steps(steps, folder) => site?,
        told = interrupted() => {
            told?;
            return Err(Error::new(INTERRUPTED, "the demo was interrupted; nothing is left of it"));
        }
    };
    if keep {
        site.unseal(steps, [0, 1, 3]).await?;
        steps.out.note(&site.how_to_connect()?);
        interrupted().await?;
    }
    site.stop()
}

async fn all_steps(steps: &mut Steps, folder: PathBuf) -> Result<Site> {
    let mut site = Site::prepare(steps, folder).await?;
    site.initialise(steps).await?;
    site.unseal(steps, [0, 2, 4]).await?;
    site.publish(steps).await?;
    site.connect_service(steps).await?;
    site.admit(steps).await?;
    site.call(steps).await?;
    site.hide(steps).await?;
    site.search(steps).await?;
    site.verify_audit(steps).await?;
    site.seal(steps).await?;
    Ok(site)
}

/// Ends with SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let signals = |kind| signal(kind).map_err(Error::from);
    let (mut interrupt, mut terminate) = (
        signals(SignalKind::interrupt())?,
        signals(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
