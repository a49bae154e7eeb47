//! The acts on a vault whose file was damaged before: its repair, and its restore out of a backup.
//!
//! Owns the damage, which comes into a template once its sealed daemon has closed the file. Promises that a run ends with the vault
//! quarantined as it was, and the act can be done then, or with what the act makes of it; and that the file as it was
//! damaged is there in any case.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mcpist_tests::desk::{Desk, Trouble};
use mcpist_tests::look::PATIENCE;
use serde_json::{Value, json};

use crate::Result;
use crate::ceremonies::back_up_and_go_on;
use crate::judge::said;
use crate::scenario::Scenario;
use crate::site::{Done, Site, Template, said as answer};

/// The file of a vault that is damaged before.
#[derive(Default)]
pub(crate) struct Damaged {
    /// Below the run's folder.
    file: PathBuf,
    bytes: Vec<u8>,
}

const VAULTS: &str = "state/store/vaults";
/// The root page of the table that holds the head, the second of the file's: the records behind it still open.
const HEAD: std::ops::Range<usize> = 4096..8192;

impl Damaged {
    /// Damages the only vault that `folder` has, once the daemon, which is sealed, has closed its file.
    pub(crate) fn strike(&mut self, folder: &Path) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let file = loop {
            let mut files = std::fs::read_dir(folder.join(VAULTS))?;
            match (files.next(), files.next()) {
                (Some(file), None) => break file?.file_name(),
                _ if Instant::now() > deadline => {
                    return Err(io::Error::other("there is not one closed vault"));
                }
                _ => std::thread::yield_now(),
            }
        };
        self.file = Path::new(VAULTS).join(file);
        self.bytes = std::fs::read(folder.join(&self.file))?;
        self.bytes[HEAD].fill(0xee);
        std::fs::write(folder.join(&self.file), &self.bytes)
    }
}

/// A second credential, and then the damage.
pub(crate) fn to_be_repaired(template: &mut Template) {
    let (name, kind) = ("second", "bearer");
    template
        .appliance
        .put_credential(name, kind, crate::CREDENTIAL);
    template.damaged = Some(Damaged::default());
}

/// A backup, a credential that it does not hold, and then the damage.
pub(crate) fn to_be_restored(template: &mut Template) {
    back_up_and_go_on(template);
    template.damaged = Some(Damaged::default());
}

/// Rebuilds the vault from what opens.
pub(crate) fn repair(site: &Site<'_>) -> Done {
    let ask = |act: &str, body| {
        let path = format!("/v1/vaults/main/{act}");
        site.desk.ask("POST", &path, body)
    };
    let found = ask("examine", None)?;
    ask("repair", Some(&json!({ "plan": found["plan"] })))
}

/// Makes the damaged vault what the backup has of it.
pub(crate) fn restore(site: &Site<'_>) -> Done {
    restore_vault(&site.desk, "main", &site.template.backup, false)
}

/// The same with one that serves.
pub(crate) fn replace(site: &Site<'_>) -> Done {
    restore_vault(&site.desk, "main", &site.template.backup, true)
}

/// Makes a vault what the backup has of it.
pub(crate) fn restore_vault(desk: &Desk, vault: &str, backup: &[u8], replace: bool) -> Done {
    let mut order = json!({ "restore_vault": { "vault": vault, "replace": replace } });
    let found = answer(desk.pass(&order, backup)?)?;
    order["restore_vault"]["plan"] = found["vault_in_backup"]["plan"].clone();
    let done = answer(desk.pass(&order, backup)?)?;
    match done["vault_restored"].is_object() {
        true => Ok(done),
        false => Err(Trouble::Refused(done)),
    }
}

/// Whether this opening may find a vault quarantined: the one that was damaged before, and is not mended yet.
pub(crate) fn is_expected(site: &Site<'_>, opened: &Value) -> bool {
    let found = &opened["quarantined"];
    *found == json!([]) || site.template.damaged.is_some() && *found == json!(["main"])
}

/// The damaged file is what it was, and where its vault is quarantined still, the act is done now and makes `new` of it.
/// Whether it was.
pub(crate) fn mend(
    site: &Site<'_>,
    scenario: &Scenario,
    opened: &Value,
    new: &Value,
) -> Result<bool> {
    let Some(damaged) = &site.template.damaged else {
        return Ok(false);
    };
    is_kept(site, damaged)?;
    if opened["quarantined"] == json!([]) {
        return Ok(false);
    }
    (scenario.act)(site).map_err(|e| said("what is quarantined cannot be mended", &e))?;
    let view = site.view().map_err(|e| said("it does not show", &e))?;
    if view != *new {
        return Err(format!("mended it is {view}\nnew: {new}").into());
    }
    is_kept(site, damaged).map(|()| true)
}

fn is_kept(site: &Site<'_>, damaged: &Damaged) -> Result<()> {
    let there = std::fs::read(site.path("").join(&damaged.file))?;
    match there == damaged.bytes {
        true => Ok(()),
        false => Err("the damaged file was changed".into()),
    }
}
