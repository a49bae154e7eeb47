//! `vault rotate`: new keys for a vault.

use clap::Args;
use mcpist_core::api::{RotateVault, VaultRotated, Vaults, path};
use mcpist_core::ids::VaultName;

use super::remark;
use crate::Context;
use crate::error::Result;

/// Give a vault new keys, so that those which it had open no file of it from then on
#[derive(Args)]
#[command(after_help = "Examples:
  mcpist vault rotate team             every record under new keys, in a new file
  mcpist vault rotate system           the store's own vault: principals, grants, bindings
  mcpist vault rotate team --lazy      new keys for what is put from now on

Calls go on meanwhile; a change of the vault is refused until it is done. It takes no shares, and a backup is due after it.
When a custodian leaves: mcpist rekey --rotate-root first, then this for each vault, system as well.")]
pub(super) struct RotateArgs {
    /// Its name; system is the store's own
    name: VaultName,
    /// Leave the records that there are under the keys that they have
    #[arg(long)]
    lazy: bool,
}

pub(super) async fn rotate(context: &Context, args: RotateArgs) -> Result<()> {
    let RotateArgs { name, lazy } = args;
    let (path, asked) = (path::rotate_vault(&name), RotateVault { lazy });
    let rotating = context.client.post(&path, &asked);
    let how_far = async || {
        let all: Vaults = context.client.get(path::VAULTS).await.ok()?;
        let vault = all.vaults.iter().find(|vault| vault.name == name)?;
        vault.rotation.and_then(|_| remark(vault))
    };
    let rotating = context.out.while_told("rotating", rotating, how_far);
    context.out.data(&rotating.await?, show)
}

fn show(rotated: &VaultRotated) -> String {
    const NEXT: &str = "next: mcpist backup FILE; once it lacks no vault and carries none sealed, destroy older backups";
    let VaultRotated {
        vault,
        records,
        old_records,
    } = rotated;
    match old_records {
        0 => format!("vault {vault}: {records} records, all under new keys\n{NEXT}"),
        _ => format!(
            "vault {vault}: what is put from now on is under a new key; {old_records} records keep theirs until each is put again\nnext: mcpist backup FILE"
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_an_old_key_is_told() {
        let rotated = |records, old_records| VaultRotated {
            vault: VaultName::parse("team").unwrap(),
            records,
            old_records,
        };
        assert!(show(&rotated(7, 0)).contains("7 records, all under new keys"));
        let lazy = show(&rotated(0, 7));
        assert!(lazy.contains("7 records keep theirs"), "{lazy}");
        assert!(!lazy.contains("all under"), "{lazy}");
    }
}
