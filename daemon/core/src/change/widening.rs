//! Whether a change widens the policy, so that it needs a second officer (DESIGN §9).
//!
//! The question is always "is it provably no wider than what is in force?"; where the proof fails,
//! it widens. Two gaps that a list of nouns would leave are closed here: a principal that is put
//! into a group gets what the group may do, and a principal that goes frees an identity that
//! another principal claims as well.

use super::{Change, PolicyView};
use crate::access::Access;
use crate::binding::{Binding, BindingFields, Join, Scheme};
use crate::grant::{Grant, Subject};
use crate::ids::PrincipalName;
use crate::manifest::{Limits, Manifest, ModuleManifest, Slot, ToolManifest};
use crate::principal::{IdentityRule, PrincipalRecord};

/// Why the change widens the policy, or `None` if it does not.
pub fn widening(change: &Change, view: &impl PolicyView) -> Option<&'static str> {
    match change {
        Change::PrincipalPut(record) => principal(record, view),
        Change::PrincipalDelete(name) => {
            let old = view.principals().find(|p| p.name == *name)?;
            frees_identity(name, &old.rules, &[], view)
        }
        Change::GrantPut(new) => grant(new, view),
        Change::BindingPut(new) => match view.binding(&new.name) {
            None => Some("a new binding lets a credential go out"),
            Some(old) => binding(new, old),
        },
        Change::JoinPut(new) => join(new, view),
        Change::RegistryActivate(id) => match view.manifest(id) {
            None => Some("the registry's manifest is not known"),
            Some(new) => registry(new, view),
        },
        Change::TimeFloor(_) => (view.time_floor() == 0)
            .then_some("the first time floor is measured by the host's clock, and none goes back"),
        Change::GrantDelete(_)
        | Change::BindingDelete(_)
        | Change::JoinDelete { .. }
        | Change::RegistryRetire(_) => None,
    }
}

fn principal(new: &PrincipalRecord, view: &impl PolicyView) -> Option<&'static str> {
    let old = view.principals().find(|p| p.name == new.name);
    let old_rules = old.map_or(&[][..], |old| &old.rules);
    let old_groups = old.map_or(&[][..], |old| &old.groups);
    if let Some(reason) = frees_identity(&new.name, old_rules, &new.rules, view) {
        return Some(reason);
    }
    let new_peer = new.rules.iter().any(|rule| !old_rules.contains(rule));
    let applies = |grant: &&Grant| match &grant.subject {
        Subject::Principal(name) => *name == new.name,
        Subject::Group(group) => new.groups.contains(group),
    };
    // A new peer gains all that the principal may do; a peer of before gains what the new groups
    // bring.
    let gained = |grant: &&Grant| {
        new_peer
            || match &grant.subject {
                Subject::Principal(_) => old.is_none(),
                Subject::Group(group) => !old_groups.contains(group),
            }
    };
    let mut gains = view.grants().filter(applies).filter(gained).peekable();
    gains.peek()?;
    if names_requester(&new.rules, view) {
        return Some("it gives grants to one who asks for it");
    }
    let destructive = gains.any(|grant| grant.access == Access::Destructive);
    destructive.then_some("it gives a principal or a peer a destructive grant")
}

/// An identity that two records claim stands for nobody; when one lets go, the other becomes
/// somebody.
fn frees_identity(
    name: &PrincipalName,
    before: &[IdentityRule],
    after: &[IdentityRule],
    view: &impl PolicyView,
) -> Option<&'static str> {
    let freed = |rule: &&IdentityRule| !after.contains(rule);
    let claimed = |rule: &IdentityRule| {
        view.principals()
            .any(|other| other.name != *name && other.rules.contains(rule))
    };
    let found = before.iter().filter(freed).any(claimed);
    found.then_some("it frees an identity that another principal claims")
}

fn grant(new: &Grant, view: &impl PolicyView) -> Option<&'static str> {
    if view
        .grants()
        .any(|old| old.name == new.name && new.within(old))
    {
        return None;
    }
    if new.access == Access::Destructive {
        return Some("it grants destructive tools");
    }
    let includes = |record: &PrincipalRecord| match &new.subject {
        Subject::Principal(name) => *name == record.name,
        Subject::Group(group) => record.groups.contains(group),
    };
    let to_requester = match view.requesters() {
        Some(_) => view
            .principals()
            .any(|record| includes(record) && names_requester(&record.rules, view)),
        None => true,
    };
    to_requester.then_some("it is a grant to one who asks for it")
}

/// Whether one of `rules` fits somebody who asks for the change.
fn names_requester(rules: &[IdentityRule], view: &impl PolicyView) -> bool {
    view.requesters()
        .is_none_or(|uids| (uids.iter()).any(|uid| rules.contains(&IdentityRule::Uid(*uid))))
}

fn binding(new: &Binding, old: &Binding) -> Option<&'static str> {
    // Taken apart, so that a new field cannot be forgotten here.
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
    } = &**new;
    let plain = *scheme == Scheme::Http && old.scheme == Scheme::Https;
    let same_place = (scheme, host, port) == (&old.scheme, &old.host, &old.port);
    let rules = [
        (!plain, "it sends a credential over plain http"),
        (same_place, "it sends a credential to another place"),
        (
            (vault, credential) == (&old.vault, &old.credential),
            "it sends another credential",
        ),
        (*trust == old.trust, "it changes the CA or the key pin"),
        (
            *inject == old.inject,
            "it puts the credential elsewhere in the request",
        ),
        (
            old.path_prefix.covers(path_prefix.as_str()),
            "it reaches more paths",
        ),
        (
            methods.iter().all(|m| old.methods.contains(m)),
            "it allows more methods",
        ),
        (!allow_local || old.allow_local, "it allows local addresses"),
    ];
    first_broken(&rules)
}

fn join(new: &Join, view: &impl PolicyView) -> Option<&'static str> {
    let same = view
        .join(&new.registry, &new.module, &new.slot)
        .is_some_and(|old| old == new);
    (!same).then_some("it puts a credential within reach of a module")
}

fn registry(new: &Manifest, view: &impl PolicyView) -> Option<&'static str> {
    new.modules.iter().find_map(|module| {
        let mut sides = view
            .active()
            .flat_map(|old| old.modules.iter().map(move |m| (old, m)));
        match sides.find(|(_, old)| old.name == module.name) {
            None => Some("the bundle brings a module that is not active"),
            Some((old_manifest, old)) => self::module(new, module, old_manifest, old),
        }
    })
}

fn module(
    new_manifest: &Manifest,
    new: &ModuleManifest,
    old_manifest: &Manifest,
    old: &ModuleManifest,
) -> Option<&'static str> {
    let slot_within = |slot: &Slot| {
        old.slots.iter().any(|o| {
            o.name == slot.name
                && slot.auth.iter().all(|a| o.auth.contains(a))
                && slot.hosts.iter().all(|h| o.hosts.contains(h))
        })
    };
    let rules = [
        (
            new.kind == old.kind,
            "the bundle runs a module in another way",
        ),
        (
            new.slots.iter().all(slot_within),
            "the bundle expects a new slot, host or kind of credential",
        ),
        (
            limits_within(&new.limits, &old.limits),
            "the bundle raises a limit",
        ),
    ];
    first_broken(&rules).or_else(|| {
        new.tools
            .iter()
            .find_map(|tool| match old.tool(&tool.name) {
                None => Some("the bundle brings a new tool"),
                Some(old) => self::tool(new_manifest, tool, old_manifest, old),
            })
    })
}

fn tool(
    new_manifest: &Manifest,
    new: &ToolManifest,
    old_manifest: &Manifest,
    old: &ToolManifest,
) -> Option<&'static str> {
    let same_schema =
        new_manifest.blob_digest(&new.input_schema) == old_manifest.blob_digest(&old.input_schema);
    let rules = [
        (
            new.access <= old.access,
            "the bundle raises a tool's access",
        ),
        (new.http == old.http, "the bundle changes a tool's request"),
        (same_schema, "the bundle changes a tool's arguments"),
        (
            new.recordable.iter().all(|r| old.recordable.contains(r)),
            "the bundle records more arguments",
        ),
    ];
    first_broken(&rules)
}

fn limits_within(new: &Limits, old: &Limits) -> bool {
    new.deadline_ms <= old.deadline_ms
        && new.memory_bytes <= old.memory_bytes
        && new.requests <= old.requests
        && new.upstream_bytes <= old.upstream_bytes
        && new.client_bytes <= old.client_bytes
        && new.concurrency <= old.concurrency
}

fn first_broken(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules
        .iter()
        .find(|(holds, _)| !holds)
        .map(|(_, reason)| *reason)
}
