//! `man` and `completions`: what a package installs beside the program, made from the same definition as the help.
//!
//! Promises one manual page for each command, each with its examples. Writes no file but in the folder that is named.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use crate::Context;
use crate::error::{Error, Result};

/// Write the manual pages into a folder
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist man /usr/local/share/man/man1
  mcpist man man && man man/mcpist-unseal.1")]
pub(crate) struct ManArgs {
    /// The folder; pages that are there already are replaced
    folder: PathBuf,
}

/// Print the completions of a shell
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist completions bash > /usr/share/bash-completion/completions/mcpist
  source <(mcpist completions zsh)")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Serialize)]
struct Written {
    pages: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Script {
    script: String,
}

pub(crate) fn man(context: &Context, args: ManArgs, command: Command) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|e| Error::file(&args.folder, e))?;
    let mut pages = Vec::new();
    for (name, page) in pages_of(command)? {
        let path = args.folder.join(name);
        std::fs::write(&path, page).map_err(|e| Error::file(&path, e))?;
        pages.push(path);
    }
    context.out.data(&Written { pages }, |written| {
        format!(
            "{} pages written to {}",
            written.pages.len(),
            args.folder.display()
        )
    })
}

pub(crate) fn completions(
    context: &Context,
    args: CompletionsArgs,
    mut command: Command,
) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "mcpist", &mut script);
    let script = String::from_utf8(script).map_err(|e| Error::new("internal", e))?;
    context
        .out
        .data(&Script { script }, |made| made.script.clone())
}

/// The page of each command, with its file's name.
fn pages_of(mut command: Command) -> Result<Vec<(String, String)>> {
    command.build();
    let mut pages = Vec::new();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        let man = Man::new(command).manual("MCPist");
        let mut page = Vec::new();
        man.render(&mut page)?;
        let page = String::from_utf8(page).map_err(|e| Error::new("internal", e))?;
        pages.push((man.get_filename(), with_examples(&page)));
    }
    pages.sort();
    Ok(pages)
}

/// The page with its last part, which stands after a command's help, shown as it is written: examples.
fn with_examples(page: &str) -> String {
    let Some((before, after)) = page.split_once("\n.SH EXTRA\n") else {
        return page.to_owned();
    };
    let (examples, rest) = match after.find("\n.SH ") {
        Some(at) => after.split_at(at),
        None => (after.trim_end(), "\n"),
    };
    let examples = examples.strip_prefix("Examples:\n").unwrap_or(examples);
    format!("{before}\n.SH EXAMPLES\n.nf\n{examples}\n.fi{rest}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn leaves(command: &Command, name: &str, out: &mut Vec<String>) {
        if !command.has_subcommands() {
            out.push(format!("{name}.1"));
        }
        for sub in command.get_subcommands() {
            leaves(sub, &format!("{name}-{}", sub.get_name()), out);
        }
    }

    #[test]
    fn each_command_has_a_page_with_an_example() {
        let mut expected = Vec::new();
        leaves(&crate::Cli::command(), "mcpist", &mut expected);
        assert!(expected.len() > 35, "{expected:?}");
        let pages = pages_of(crate::Cli::command()).unwrap();
        for name in expected {
            let (_, page) = pages.iter().find(|(n, _)| *n == name).unwrap();
            let (_, after) = page.split_once("\n.SH EXAMPLES\n.nf\n").unwrap();
            assert!(after.contains("mcpist "), "{name} has no example");
        }
        assert!(pages.iter().any(|(name, _)| name == "mcpist-bundle.1"));
    }

    #[test]
    fn each_shell_has_completions_for_each_command() {
        let mut expected = Vec::new();
        leaves(&crate::Cli::command(), "mcpist", &mut expected);
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let (mut command, mut script) = (crate::Cli::command(), Vec::new());
            clap_complete::generate(shell, &mut command, "mcpist", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in &expected {
                // Nothing but a command's own words, which each shell's script has in a form of its own.
                for word in name.trim_end_matches(".1").split('-').skip(1) {
                    assert!(script.contains(word), "{shell}: {name}");
                }
            }
        }
    }
}
