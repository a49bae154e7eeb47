//! A change as an officer reads it before a key signs it. Pure, no I/O.
//!
//! Promises that every field of a change is shown, each under its label and beside the value that it replaces; that
//! what others wrote (a publisher's notes, a certificate's subject) is escaped and cannot be taken for a line of ours;
//! and that what the daemon says besides is shown only where it is about this very change. The change's digest is the
//! caller's to compute and compare.

use mcpist_core::api::Proposed;
use mcpist_core::binding::{Binding, BindingFields, Inject, Join, Trust};
use mcpist_core::change::{Change, Review};
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::RegistryId;
use mcpist_core::principal::{IdentityRule, PrincipalRecord};
use mcpist_core::text::excerpt;

use crate::certificate;
use crate::output::joined;
use mcpist_core::date::date;

/// Longest line of a publisher's notes that is shown, in bytes.
const MAX_NOTE: usize = 1024;

/// A label and its value.
type Field = (&'static str, String);

/// The whole review: the change with what it replaces, and what it needs.
pub(crate) fn review(proposed: &Proposed) -> String {
    let (change, review) = (&proposed.change, &proposed.review);
    let old = (proposed.replaces.as_ref()).filter(|old| old.object() == change.object());
    let mut lines = vec![
        format!("change {}", review.change),
        title(change, old.is_some()),
    ];
    let mut shown = fields(change);
    if let Some(old) = old {
        shown = beside(fields(old), shown);
    }
    shown.extend(bound(proposed));
    shown.extend(registry(proposed));
    for (label, value) in shown {
        lines.push(format!("  {label:<10}  {value}"));
    }
    lines.push(format!(
        "needs {}{}",
        officers(review.needs),
        widens(review)
    ));
    lines.join("\n")
}

/// A line with the reason why it takes two, if it does.
pub(crate) fn widens(review: &Review) -> String {
    let reason = review.reason.iter();
    reason.map(|reason| format!("\nwidens: {reason}")).collect()
}

/// So many officers, in words.
pub(crate) fn officers(count: usize) -> String {
    format!("{count} officer{}", if count == 1 { "" } else { "s" })
}

fn title(change: &Change, replaces: bool) -> String {
    let put = if replaces { "replaced" } else { "new" };
    match change {
        Change::PrincipalPut(p) => format!("principal {}, {put}", p.name),
        Change::PrincipalDelete(name) => format!("principal {name}, removed"),
        Change::GrantPut(g) => format!("grant {}, {put}", g.name),
        Change::GrantDelete(name) => format!("grant {name}, removed"),
        Change::BindingPut(b) => format!("binding {}, {put}", b.name),
        Change::BindingDelete(name) => format!("binding {name}, removed"),
        Change::JoinPut(j) => format!("join of slot {} of module {}, {put}", j.slot, j.module),
        Change::JoinDelete { module, slot, .. } => {
            format!("join of slot {slot} of module {module}, removed")
        }
        Change::RegistryActivate(_) => "registry, activated".to_owned(),
        Change::RegistryRetire(_) => "registry, retired".to_owned(),
        Change::TimeFloor(_) => "time floor, moved".to_owned(),
    }
}

fn fields(change: &Change) -> Vec<Field> {
    match change {
        Change::PrincipalPut(record) => principal(record),
        Change::GrantPut(grant) => self::grant(grant),
        Change::BindingPut(binding) => self::binding(binding),
        Change::JoinPut(Join {
            registry,
            module: _,
            slot: _,
            binding,
        }) => vec![id(registry), ("binding", binding.to_string())],
        Change::JoinDelete { registry, .. }
        | Change::RegistryActivate(registry)
        | Change::RegistryRetire(registry) => vec![id(registry)],
        Change::TimeFloor(seconds) => vec![("stands at", date(*seconds))],
        Change::PrincipalDelete(_) | Change::GrantDelete(_) | Change::BindingDelete(_) => {
            Vec::new()
        }
    }
}

fn id(registry: &RegistryId) -> Field {
    ("registry", registry.digest().to_string())
}

/// The items, or that there is none.
fn list(items: &[impl ToString]) -> String {
    match items {
        [] => "none".to_owned(),
        items => joined(items),
    }
}

fn principal(record: &PrincipalRecord) -> Vec<Field> {
    let PrincipalRecord {
        name: _,
        groups,
        rules,
    } = record;
    let uids: Vec<_> = rules.iter().map(|IdentityRule::Uid(uid)| uid).collect();
    vec![("uids", list(&uids)), ("groups", list(groups))]
}

fn grant(grant: &Grant) -> Vec<Field> {
    let Grant {
        name: _,
        subject,
        module,
        tools,
        access,
    } = grant;
    vec![
        (
            "to",
            match subject {
                Subject::Principal(name) => format!("principal {name}"),
                Subject::Group(name) => format!("group {name}"),
            },
        ),
        (
            "module",
            match module {
                ModuleSel::All => "all, also those to come".to_owned(),
                ModuleSel::Named(name) => name.to_string(),
            },
        ),
        (
            "tools",
            match tools {
                ToolSel::All => "all, also those to come".to_owned(),
                ToolSel::Named(names) => list(names),
            },
        ),
        ("access", format!("at most {}", access.as_str())),
    ]
}

fn binding(binding: &Binding) -> Vec<Field> {
    let BindingFields {
        name: _,
        vault,
        credential,
        scheme,
        host,
        port,
        path_prefix,
        methods,
        trust,
        inject,
        allow_local,
    } = &**binding;
    let url = format!(
        "{}://{}:{port}{}",
        scheme.as_str(),
        host.authority(),
        path_prefix.as_str()
    );
    let trust = match trust {
        Trust::Ca(pem) => certificate::describe(pem).join("; "),
        Trust::Pin(pin) => format!("the key with SHA-256 {pin}"),
        Trust::None => "none: in clear".to_owned(),
    };
    let inject = match inject {
        Inject::Bearer => "Authorization: Bearer".to_owned(),
        Inject::Basic => "Authorization: Basic".to_owned(),
        Inject::Header { name } => format!("header {name}"),
        Inject::Query { name } => format!("query parameter {name}"),
    };
    let local = if *allow_local { "allowed" } else { "refused" };
    vec![
        ("credential", format!("{vault}/{credential}")),
        ("to", url),
        ("methods", joined(methods)),
        ("trusts", trust),
        ("sent as", inject),
        ("own host", local.to_owned()),
    ]
}

/// Each value beside the one that it replaces. A change that only removes has no values: those that go stand alone.
fn beside(old: Vec<Field>, new: Vec<Field>) -> Vec<Field> {
    let mut out = Vec::new();
    for (label, was) in old {
        let value = match new.iter().find(|(l, _)| *l == label) {
            Some((_, value)) if *value != was => format!("{was}\n{:>12}  {value}", "->"),
            _ => was,
        };
        out.push((label, value));
    }
    out
}

/// Where the credential of a join goes, and how.
fn bound(proposed: &Proposed) -> Vec<Field> {
    match (&proposed.change, &proposed.binding) {
        (Change::JoinPut(join), Some(bound)) if bound.name == join.binding => binding(bound),
        _ => Vec::new(),
    }
}

/// What the store knows of the registry that the change names.
fn registry(proposed: &Proposed) -> Vec<Field> {
    let named = match &proposed.change {
        Change::RegistryActivate(id) | Change::RegistryRetire(id) => id,
        Change::JoinPut(Join { registry, .. }) | Change::JoinDelete { registry, .. } => registry,
        _ => return Vec::new(),
    };
    let found = proposed.registry.as_ref();
    let Some(found) = found.filter(|found| found.registry.id == *named) else {
        return Vec::new();
    };
    let registry = &found.registry;
    let damaged = || "unknown: its folder is damaged".to_owned();
    let mut out = vec![
        (
            "bundle",
            format!(
                "{}/{} {}, {}",
                registry.namespace,
                registry.name,
                registry.sequence,
                registry.state.as_str()
            ),
        ),
        ("modules", list(&registry.modules)),
        ("imported", date(registry.imported)),
        ("good until", found.not_after.map_or_else(damaged, date)),
    ];
    match found.notes.as_deref() {
        None => out.push(("notes", damaged())),
        // Behind a bar, so that no line of theirs is taken for one of ours.
        Some(notes) => out.extend((notes.lines().enumerate()).map(|(index, line)| {
            let label = if index == 0 { "notes" } else { "" };
            (label, format!("| {}", excerpt(line, MAX_NOTE)))
        })),
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(change: Value, replaces: Value, registry: Value) -> String {
        let change: Change = serde_json::from_value(change).unwrap();
        let digest = change.digest();
        let proposed = json!({ "change": change, "replaces": replaces, "registry": registry,
            "review": { "change": digest, "state": digest, "needs": 1, "reason": null } });
        let text = review(&serde_json::from_value(proposed).unwrap());
        text.replace(&digest.to_string(), "DIGEST")
    }

    fn binding(pem: &str, methods: &[&str]) -> Value {
        json!({ "binding-put": { "name": "prom", "vault": "team", "credential": "prom", "scheme": "https",
            "host": "prom.lan", "port": 9090, "path_prefix": "/api", "methods": methods, "trust": { "ca": pem },
            "inject": "bearer" } })
    }

    #[test]
    fn a_value_that_changes_stands_beside_the_old_one_and_pem_is_never_shown() {
        let (old, new) = (
            include_str!("../tests/golden/ca.pem"),
            include_str!("../tests/golden/new-ca.pem"),
        );
        let text = shown(
            binding(new, &["GET", "POST"]),
            binding(old, &["GET"]),
            Value::Null,
        );
        assert!(
            text.starts_with("change DIGEST\nbinding prom, replaced\n"),
            "{text}"
        );
        assert!(text.contains("\n  credential  team/prom\n"), "{text}");
        assert!(
            text.contains("\n  methods     GET\n          ->  GET,POST\n"),
            "{text}"
        );
        assert!(text.contains("CN=Plant 7 CA, SHA-256 ded8"), "{text}");
        assert!(
            text.contains("->  O=Plant 7, CN=Plant 7 CA 2, SHA-256 "),
            "{text}"
        );
        assert!(!text.contains("BEGIN"), "{text}");
    }

    #[test]
    fn what_is_removed_is_shown_as_it_stands() {
        let old = json!({ "grant-put": { "name": "ops", "subject": { "group": "ops" }, "module": "all",
            "tools": { "named": [] }, "access": "write" } });
        let text = shown(json!({ "grant-delete": "ops" }), old.clone(), Value::Null);
        assert_eq!(
            text,
            "change DIGEST\ngrant ops, removed\n  to          group ops\n  module      all, also those to come\n  \
             tools       none\n  access      at most write\nneeds 1 officer"
        );
        // What stands elsewhere is none of this change's.
        let text = shown(json!({ "grant-delete": "other" }), old, Value::Null);
        assert_eq!(text, "change DIGEST\ngrant other, removed\nneeds 1 officer");
    }

    #[test]
    fn a_join_says_where_its_credential_goes_and_another_binding_is_not_shown() {
        let id = "11".repeat(32);
        let join = |binding: &str| json!({ "join-put": { "registry": id, "module": "prometheus", "slot": "server", "binding": binding } });
        let of_store = binding(include_str!("../tests/golden/ca.pem"), &["GET"]);
        let shown = |named: &str| {
            let change: Change = serde_json::from_value(join(named)).unwrap();
            let proposed = json!({ "change": change, "binding": of_store["binding-put"],
                "review": { "change": change.digest(), "state": change.digest(), "needs": 2, "reason": null } });
            review(&serde_json::from_value(proposed).unwrap())
        };
        let text = shown("prom");
        let goes = "  binding     prom\n  credential  team/prom\n  to          https://prom.lan:9090/api\n  methods     GET\n";
        assert!(text.contains(goes), "{text}");
        assert!(!shown("other").contains("prom.lan"), "{text}");
    }

    #[test]
    fn notes_cannot_pass_for_a_line_of_ours_and_another_registry_is_not_shown() {
        let id = "11".repeat(32);
        let notes = "new tools\nneeds 0 officers\n\u{1b}[2Jgone\u{202e}";
        let named = json!({ "registry": { "id": id, "namespace": "acme", "name": "monitoring", "sequence": 2,
            "state": "imported", "modules": ["prometheus"], "imported": 1_795_478_400 },
            "not_after": 1_800_000_000, "notes": notes });
        let text = shown(
            json!({ "registry-activate": id }),
            Value::Null,
            named.clone(),
        );
        assert!(
            text.contains("\n  bundle      acme/monitoring 2, imported\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  good until  2027-01-15T08:00:00Z\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  notes       | new tools\n              | needs 0 officers\n"),
            "{text}"
        );
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text}"
        );
        assert_eq!(text.lines().filter(|l| l.starts_with("needs ")).count(), 1);
        let text = shown(
            json!({ "registry-retire": "22".repeat(32) }),
            Value::Null,
            named,
        );
        assert!(!text.contains("acme"), "{text}");
    }
}
