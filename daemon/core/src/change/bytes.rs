//! Canonical bytes of changes and states: one spelling per value, and no two values share one.

use super::{Change, Object, State};
use crate::binding::{Binding, Inject, Join, Trust};
use crate::grant::{Grant, ModuleSel, Subject, ToolSel};
use crate::principal::{IdentityRule, PrincipalRecord};

const CHANGE: &[u8] = b"mcpist-change-v1\0";
const STATE: &[u8] = b"mcpist-state-v1\0";

/// Fields, one after the other.
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Fields {
        // A record is bounded far below 4 GiB long before it gets here.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Fields {
        self.bytes(text.as_bytes())
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Fields, &T)) -> &mut Fields {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        self.bytes(&count.to_be_bytes());
        items.iter().for_each(|item| each(self, item));
        self
    }
}

pub(super) fn change(change: &Change) -> Vec<u8> {
    let mut out = Fields(CHANGE.to_vec());
    out.text(change.kind());
    match change {
        Change::PrincipalPut(record) => principal(&mut out, record),
        Change::GrantPut(record) => grant(&mut out, record),
        Change::BindingPut(record) => binding(&mut out, record),
        Change::JoinPut(record) => join(&mut out, record),
        Change::PrincipalDelete(name) => {
            out.text(name.as_str());
        }
        Change::GrantDelete(name) => {
            out.text(name.as_str());
        }
        Change::BindingDelete(name) => {
            out.text(name.as_str());
        }
        Change::JoinDelete {
            registry,
            module,
            slot,
        } => {
            out.bytes(registry.digest().as_bytes())
                .text(module.as_str())
                .text(slot.as_str());
        }
        Change::RegistryActivate(id) | Change::RegistryRetire(id) => {
            out.bytes(id.digest().as_bytes());
        }
        Change::TimeFloor(seconds) => {
            out.bytes(&seconds.to_be_bytes());
        }
    }
    out.0
}

fn principal(out: &mut Fields, record: &PrincipalRecord) {
    out.text(record.name.as_str());
    out.list(&record.groups, |out, group| {
        out.text(group.as_str());
    });
    out.list(&record.rules, |out, rule| match rule {
        IdentityRule::Uid(uid) => {
            out.text("uid").bytes(&uid.to_be_bytes());
        }
    });
}

fn grant(out: &mut Fields, record: &Grant) {
    out.text(record.name.as_str());
    match &record.subject {
        Subject::Principal(name) => out.text("principal").text(name.as_str()),
        Subject::Group(name) => out.text("group").text(name.as_str()),
    };
    match &record.module {
        ModuleSel::All => out.text("all"),
        ModuleSel::Named(name) => out.text("named").text(name.as_str()),
    };
    match &record.tools {
        ToolSel::All => out.text("all"),
        ToolSel::Named(names) => out.text("named").list(names, |out, name| {
            out.text(name.as_str());
        }),
    };
    out.text(record.access.as_str());
}

fn binding(out: &mut Fields, record: &Binding) {
    out.text(record.name.as_str())
        .text(record.vault.as_str())
        .text(record.credential.as_str());
    out.text(record.scheme.as_str())
        .text(record.host.as_str())
        .bytes(&record.port.to_be_bytes());
    out.text(record.path_prefix.as_str());
    out.list(&record.methods, |out, method| {
        out.text(method.as_str());
    });
    match &record.trust {
        Trust::Ca(pem) => out.text("ca").text(pem),
        Trust::Pin(digest) => out.text("pin").bytes(digest.as_bytes()),
        Trust::None => out.text("none"),
    };
    match &record.inject {
        Inject::Bearer => out.text("bearer"),
        Inject::Basic => out.text("basic"),
        Inject::Header { name } => out.text("header").text(name),
        Inject::Query { name } => out.text("query").text(name),
    };
    out.bytes(&[u8::from(record.allow_local)]);
}

fn join(out: &mut Fields, record: &Join) {
    out.bytes(record.registry.digest().as_bytes())
        .text(record.module.as_str());
    out.text(record.slot.as_str()).text(record.binding.as_str());
}

pub(super) fn state(state: &State) -> Vec<u8> {
    let mut out = Fields(STATE.to_vec());
    out.bytes(&state.store);
    version(&mut out, &state.own);
    out.list(&state.named, version);
    out.0
}

/// An object and its version; an empty field, where there never was one.
fn version(out: &mut Fields, (object, version): &(Object, Option<u64>)) {
    out.text(object.kind());
    object.with_parts(|part| {
        out.bytes(part);
    });
    match version {
        Some(version) => out.bytes(&version.to_be_bytes()),
        None => out.bytes(&[]),
    };
}
