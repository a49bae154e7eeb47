//! What is done while the disk fails: one small value for each act.

use mcpist_quorum::Identity;
use mcpist_tests::desk::Trouble;
use serde_json::{Value, json};

use crate::site::{Done, Site, Template, said};
use crate::{ceremonies, damage, own_quorum};

/// An act, what it begins with, and the line that the log has if and only if it took effect.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Begins with a store that was made.
    pub(crate) made: bool,
    /// What is done to the template beside what every one has.
    pub(crate) prepare: fn(&mut Template),
    pub(crate) act: fn(&Site<'_>) -> Done,
    pub(crate) event: Option<&'static str>,
}

pub(crate) const fn on_store(
    name: &'static str,
    event: &'static str,
    act: fn(&Site<'_>) -> Done,
) -> Scenario {
    Scenario {
        name,
        made: true,
        prepare: |_| (),
        act,
        event: Some(event),
    }
}

/// Every scenario, in the order in which they are played.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "init",
        made: false,
        prepare: |_| (),
        act: init,
        event: None,
    },
    Scenario {
        name: "unseal and seal",
        made: true,
        prepare: |_| (),
        act: |_| Ok(Value::Null),
        event: None,
    },
    on_store("put", "credential_put", |site| {
        site.put("second", crate::CANARY)
    }),
    on_store("rotate credential", "credential_put", |site| {
        site.put("token", crate::CANARY)
    }),
    on_store("delete", "credential_deleted", |site| {
        site.desk
            .ask("DELETE", "/v1/vaults/main/credentials/token", None)
    }),
    on_store("new vault", "vault_created", |site| {
        site.desk
            .ask("POST", "/v1/vaults", Some(&json!({ "name": "more" })))
    }),
    on_store("change of policy", "change_stored", |site| {
        site.change(&json!({ "principal-put": { "name": "carol" } }))
    }),
    on_store("import", "bundle_imported", |site| {
        said(site.desk.pass(&json!("import"), &site.template.bundle)?)
    }),
    Scenario {
        prepare: make_way,
        ..on_store("activate", "change_stored", |site| {
            site.change(&json!({ "registry-activate": site.template.registry }))
        })
    },
    Scenario {
        name: "audit rotation",
        made: true,
        prepare: fill_the_log,
        act: |site| {
            site.put("second", crate::CANARY)?;
            site.put("third", crate::CANARY)
        },
        event: None,
    },
    Scenario {
        name: "audit export",
        made: true,
        prepare: |_| (),
        act: |site| {
            let from = json!({ "export": { "from": "beginning" } });
            said(site.desk.pass(&from, b"")?)
        },
        event: None,
    },
    on_store("rekey", "rekey completed", ceremonies::rekey),
    on_store("rotate root", "rotate completed", ceremonies::rotate_root),
    on_store("rotate vault", "vault_rotation completed", |site| {
        rotate_vault(site, "main", false)
    }),
    on_store("rotate vault lazily", "vault_rotation completed", |site| {
        rotate_vault(site, "main", true)
    }),
    on_store("rotate system", "vault_rotation completed", |site| {
        rotate_vault(site, "system", false)
    }),
    on_store("new own vault", "new_vault completed", own_quorum::make),
    Scenario {
        prepare: own_quorum::prepare,
        ..on_store(
            "rekey own vault",
            "rekey_vault completed",
            own_quorum::rekey,
        )
    },
    Scenario {
        name: "seal own vault",
        made: true,
        prepare: own_quorum::prepare,
        act: own_quorum::seal_and_unseal,
        event: None,
    },
    Scenario {
        prepare: own_quorum::to_be_restored,
        ..on_store("restore own vault", "vault_restored", own_quorum::restore)
    },
    Scenario {
        prepare: damage::to_be_repaired,
        ..on_store("repair", "vault_repaired", damage::repair)
    },
    Scenario {
        prepare: damage::to_be_restored,
        ..on_store("vault restore", "vault_restored", damage::restore)
    },
    Scenario {
        prepare: ceremonies::back_up_and_go_on,
        ..on_store("vault replaced", "vault_restored", damage::replace)
    },
    on_store("backup", "backup_made", |site| {
        ceremonies::back_up(&site.desk).map(|_| Value::Null)
    }),
    Scenario {
        prepare: ceremonies::back_up_and_go_on,
        ..on_store("restore", "restored", ceremonies::restore)
    },
    Scenario {
        name: "drill",
        made: true,
        prepare: ceremonies::back_up_and_go_on,
        act: ceremonies::drill,
        event: None,
    },
];

/// Makes the store: 2 of 3, in dev.
pub(crate) fn init(site: &Site<'_>) -> Done {
    let identities: Vec<Identity> = (0..3).map(|_| Identity::generate()).collect();
    let root = site.template.appliance.root_text();
    let request = json!({ "threshold": 2, "root": root, "officers": [], "dev": true });
    let (shares, record) = site.desk.init(request, &identities)?;
    std::fs::write(site.path("ceremony-record"), record).map_err(Trouble::Gone)?;
    site.quorums.borrow_mut().push(shares);
    Ok(Value::Null)
}

/// Gives a vault new keys.
fn rotate_vault(site: &Site<'_>, vault: &str, lazy: bool) -> Done {
    let path = format!("/v1/vaults/{vault}/rotate");
    site.desk.ask("POST", &path, Some(&json!({ "lazy": lazy })))
}

/// Fills the open segment until the next lines turn it.
fn fill_the_log(template: &mut Template) {
    let folder = template.appliance.folder();
    let segment = folder.join("state/audit/audit-00000000.jsonl");
    let length = || std::fs::metadata(&segment).map_or(0, |meta| meta.len());
    // A segment of 1 MiB turns at seven eighths; the lines of the last opening come on top.
    let full = (7 << 17) - 3000;
    while length() < full {
        template
            .appliance
            .put_credential("second", "bearer", crate::CANARY);
    }
}

/// Retires the registry that is active, and joins the other one.
fn make_way(template: &mut Template) {
    let site = &template.appliance;
    let listed = site.ask("GET", "/v1/registries", None);
    let registries = listed["registries"].as_array().into_iter().flatten();
    for registry in registries.filter(|r| r["state"] == "active") {
        site.change(&json!({ "registry-retire": registry["id"] }));
    }
    site.change(&json!({ "join-put": {
        "registry": template.registry, "module": "echo", "slot": "service", "binding": "service" } }));
}
