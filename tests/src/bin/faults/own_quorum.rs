//! The acts on a vault that has a quorum of its own, and the opening of it that every run ends with.

use std::io;

use mcpist_quorum::Identity;
use mcpist_secret::Secret;
use mcpist_tests::desk::{Desk, Trouble, open_shares};
use serde_json::{Value, json};

use crate::site::{Done, Site, Template, put, said};
use crate::{ceremonies, damage};

/// The vault.
pub(crate) const OWN: &str = "payroll";
const CEREMONY: &str = "/v1/ceremony";

/// Two people, both of whom open it.
fn people() -> ([Identity; 2], Value) {
    let people = [Identity::generate(), Identity::generate()];
    let [a, b] = [&people[0], &people[1]].map(Identity::recipient);
    let holders = json!([{ "label": "a", "recipient": a }, { "label": "b", "recipient": b }]);
    (people, holders)
}

/// Gives each share to the open ceremony; what the last one was answered.
fn give_all(desk: &Desk, shares: &[Secret]) -> Done {
    let mut last = Value::Null;
    for share in shares {
        last = said(desk.give_to(CEREMONY, share)?)?["share"].take();
        if last["refused"].is_object() {
            return Err(Trouble::Refused(last));
        }
    }
    Ok(last)
}

fn completed(told: Value) -> Done {
    match told["completed"].is_object() {
        true => Ok(told),
        false => Err(Trouble::Refused(told)),
    }
}

/// The new shares of the open ceremony.
fn issued(desk: &Desk, people: &[Identity]) -> Result<Vec<Secret>, Trouble> {
    let told = desk.ask("GET", "/v1/ceremony/shares", None)?;
    Ok(open_shares(people, &told["shares"])?)
}

/// Has the vault made; its shares are in `site` from the moment they are given out.
pub(crate) fn make(site: &Site<'_>) -> Done {
    let (people, holders) = people();
    let terms = json!({ "vault": OWN, "threshold": 2, "holders": holders });
    site.desk
        .ask("POST", CEREMONY, Some(&json!({ "new_vault": terms })))?;
    site.own.borrow_mut().push(issued(&site.desk, &people)?);
    prove(site)
}

/// Gives it to two others.
pub(crate) fn rekey(site: &Site<'_>) -> Done {
    let (people, holders) = people();
    let terms = json!({ "vault": OWN, "threshold": 2, "holders": holders });
    site.desk
        .ask("POST", CEREMONY, Some(&json!({ "rekey_vault": terms })))?;
    let quorums = site.own.borrow();
    give_all(&site.desk, quorums.first().map_or(&[], Vec::as_slice))?;
    drop(quorums);
    site.own.borrow_mut().push(issued(&site.desk, &people)?);
    prove(site)
}

/// The newest quorum proves its shares.
fn prove(site: &Site<'_>) -> Done {
    let quorums = site.own.borrow();
    completed(give_all(
        &site.desk,
        quorums.last().map_or(&[], Vec::as_slice),
    )?)
}

/// Seals it alone, and opens it again.
pub(crate) fn seal_and_unseal(site: &Site<'_>) -> Done {
    let path = format!("/v1/vaults/{OWN}/seal");
    site.desk.ask("POST", &path, None)?;
    unseal(site)?;
    Ok(Value::Null)
}

/// Opens it with the newest of its quorums that it takes: that one's number.
pub(crate) fn unseal(site: &Site<'_>) -> Result<usize, Trouble> {
    let mut last = Trouble::Gone(io::Error::other("nobody has a share of the vault"));
    for (number, quorum) in site.own.borrow().iter().enumerate().rev() {
        let request = json!({ "unseal_vault": { "vault": OWN } });
        site.desk.ask("POST", CEREMONY, Some(&request))?;
        match give_all(&site.desk, quorum).and_then(completed) {
            Ok(_) => return Ok(number),
            Err(gone @ Trouble::Gone(_)) => return Err(gone),
            Err(refused) => last = refused,
        }
        // It may be over already.
        let _ = site.desk.ask("DELETE", CEREMONY, None);
    }
    Err(last)
}

/// Has the vault made in the template, with a credential in it.
pub(crate) fn prepare(template: &mut Template) {
    let (people, holders) = people();
    let desk = Desk::of(template.appliance.folder());
    let terms = json!({ "vault": OWN, "threshold": 2, "holders": holders });
    desk.ask("POST", CEREMONY, Some(&json!({ "new_vault": terms })))
        .and_then(|_| issued(&desk, &people))
        .and_then(|shares| {
            give_all(&desk, &shares).and_then(completed)?;
            put(&desk, OWN, "wages", crate::CREDENTIAL)?;
            template.own = shares;
            Ok(())
        })
        .unwrap_or_else(|e| panic!("no vault with a quorum of its own: {e:?}"));
}

/// The same, a backup, and a credential that it does not hold.
pub(crate) fn to_be_restored(template: &mut Template) {
    prepare(template);
    ceremonies::back_up_and_go_on(template);
    let desk = Desk::of(template.appliance.folder());
    put(&desk, OWN, "later", crate::CREDENTIAL).unwrap_or_else(|e| panic!("no credential: {e:?}"));
}

/// Makes the vault, sealed for that, what the backup has of it, and opens it.
pub(crate) fn restore(site: &Site<'_>) -> Done {
    let path = format!("/v1/vaults/{OWN}/seal");
    site.desk.ask("POST", &path, None)?;
    let done = damage::restore_vault(&site.desk, OWN, &site.template.backup, true)?;
    // Where its opening fails, it was restored all the same.
    let _ = unseal(site);
    Ok(done)
}
