//! The acts that need a quorum, and the backup that one of them begins with.

use std::fs::File;
use std::io::{self, Read, Seek};

use mcpist_quorum::Identity;
use mcpist_tests::desk::{Desk, Trouble, open_shares};
use serde_json::{Value, json};

use crate::site::{Done, Site, Template, said};

/// Gives the store to three others, two of whom open it.
pub(crate) fn rekey(site: &Site<'_>) -> Done {
    let people: Vec<Identity> = (0..3).map(|_| Identity::generate()).collect();
    let holder = |person: &Identity| json!({ "label": "new", "recipient": person.recipient() });
    let holders: Vec<Value> = people.iter().map(holder).collect();
    let mut request = json!({ "rekey": { "threshold": 2, "holders": holders } });
    for (number, holder) in (1..).zip(
        request["rekey"]["holders"]
            .as_array_mut()
            .into_iter()
            .flatten(),
    ) {
        holder["label"] = format!("new-{number}").into();
    }
    site.desk.ask("POST", "/v1/ceremony", Some(&request))?;
    let delivered = consent(site)?;
    let shares = open_shares(&people, &delivered["share"]["delivered"]["shares"])?;
    site.quorums.borrow_mut().push(shares);
    let quorums = site.quorums.borrow();
    let mut last = Value::Null;
    for share in quorums.iter().rev().take(1).flatten().take(2) {
        last = site.desk.give_to("/v1/ceremony", share)?;
    }
    completed(last)
}

/// Replaces the root key.
pub(crate) fn rotate_root(site: &Site<'_>) -> Done {
    let request = json!("rotate_root");
    site.desk.ask("POST", "/v1/ceremony", Some(&request))?;
    completed(consent(site)?)
}

/// Two holders consent to the open ceremony; what the second was answered.
fn consent(site: &Site<'_>) -> Done {
    let quorums = site.quorums.borrow();
    let mut last = Value::Null;
    for share in quorums.iter().take(1).flatten().take(2) {
        last = said(site.desk.give_to("/v1/ceremony", share)?)?;
    }
    Ok(last)
}

fn completed(line: Value) -> Done {
    let line = said(line)?;
    if line["share"]["completed"].is_object() {
        Ok(line)
    } else {
        Err(Trouble::Refused(line))
    }
}

/// Backs the store up; the backup.
pub(crate) fn back_up(desk: &Desk) -> Result<Vec<u8>, Trouble> {
    let mut file: File = tempfile::tempfile()?;
    said(desk.pass_file(&json!("backup"), &file)?)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let verified = said(desk.pass(&json!("verify_backup"), &bytes)?)?;
    if bytes.is_empty() || verified["backup"].is_null() {
        return Err(Trouble::Gone(io::Error::other(
            "what was acknowledged is no backup",
        )));
    }
    Ok(bytes)
}

/// A backup in the template, and a credential that it does not hold.
pub(crate) fn back_up_and_go_on(template: &mut Template) {
    let desk = Desk::of(template.appliance.folder());
    let backup = back_up(&desk).unwrap_or_else(|e| panic!("no backup: {e:?}"));
    template.backup = backup;
    let later = "canary-that-no-backup-holds-77d2";
    template.appliance.put_credential("later", "bearer", later);
}

/// Goes back to the backup, and opens what was made of it.
pub(crate) fn restore(site: &Site<'_>) -> Done {
    site.desk.ask("POST", "/v1/seal", None)?;
    said(site.desk.pass(&json!("restore"), &site.template.backup)?)?;
    let mut last = Value::Null;
    for share in site.quorums.borrow().iter().take(1).flatten().take(2) {
        last = said(site.desk.give_to("/v1/restore", share)?)?;
    }
    if !last["share"]["restored"].is_object() {
        return Err(Trouble::Refused(last));
    }
    // The first opening begins a log; where it fails the restore was made all the same.
    let _ = site.unseal();
    Ok(last)
}

/// Rehearses going back to the backup, and opens the store, which is what it was.
pub(crate) fn drill(site: &Site<'_>) -> Done {
    site.desk.ask("POST", "/v1/seal", None)?;
    said(site.desk.pass(&json!("drill"), &site.template.backup)?)?;
    let mut last = Value::Null;
    for share in site.quorums.borrow().iter().take(1).flatten().take(2) {
        last = said(site.desk.give_to("/v1/restore", share)?)?;
    }
    if !last["share"]["drilled"].is_object() {
        return Err(Trouble::Refused(last));
    }
    let _ = site.unseal();
    Ok(last)
}
