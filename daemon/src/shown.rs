//! Which revision of a module each principal was last shown.
//!
//! Owns [`Shown`]. A call that echoes no `schema_ref` is held to the revision whose schema its principal has read: were
//! another one active by now, the call would mean something else than its caller thinks. Promises bounded memory: so
//! many modules for each principal, and principals are records of officers. What is forgotten holds nobody. Does not
//! outlive the process, nor decide what a call gets ([`mcpist_core::route`] does).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mcpist_core::catalogue::Tool;
use mcpist_core::ids::{ModuleName, ModuleRev, PrincipalName, RegistryId, SchemaRef};

/// Modules of one principal that are remembered.
const MODULES: usize = 256;

type Modules = BTreeMap<ModuleName, RegistryId>;

/// What was shown, by principal and module.
pub(crate) struct Shown(Mutex<BTreeMap<PrincipalName, Modules>>);

impl Shown {
    /// Nothing was shown.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PrincipalName, Modules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The principal has the schema of a tool of this revision before it.
    pub(crate) fn note(&self, principal: &PrincipalName, rev: &ModuleRev) {
        let mut all = self.all();
        if let Some(registry) = all
            .get_mut(principal)
            .and_then(|modules| modules.get_mut(&rev.module))
        {
            *registry = rev.registry;
            return;
        }
        let modules = all.entry(principal.clone()).or_default();
        if modules.len() >= MODULES {
            modules.pop_first();
        }
        modules.insert(rev.module.clone(), rev.registry);
    }

    /// Whether it is this edition of the tool that the principal has read: the one that a call echoes, or else the one that
    /// it was shown last.
    pub(crate) fn has_read(
        &self,
        principal: &PrincipalName,
        tool: &Tool,
        echoed: Option<&SchemaRef>,
    ) -> bool {
        match echoed {
            Some(echoed) => *echoed == tool.schema_ref(),
            None => {
                let all = self.all();
                let shown = all.get(principal).and_then(|m| m.get(tool.module()));
                shown == Some(&tool.rev().registry)
            }
        }
    }

    /// The reference that a call of `tool` without one is held to: that of another revision, where the principal was
    /// shown another one last.
    pub(crate) fn held_to(&self, principal: &PrincipalName, tool: &Tool) -> Option<SchemaRef> {
        let shown = *self.all().get(principal)?.get(tool.module())?;
        if shown == tool.rev().registry {
            return None;
        }
        let rev = ModuleRev {
            registry: shown,
            module: tool.module().clone(),
        };
        Some(SchemaRef::of(&rev, tool.digest()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rev(module: &str, manifest: &[u8]) -> ModuleRev {
        ModuleRev {
            registry: RegistryId::of_manifest(manifest),
            module: ModuleName::parse(module).unwrap(),
        }
    }

    #[test]
    fn the_last_one_counts_and_memory_is_bounded() {
        let shown = Shown::new();
        let (ada, bob) = ("ada", "bob");
        let name = |name: &str| PrincipalName::parse(name).unwrap();
        shown.note(&name(ada), &rev("m0", b"1"));
        shown.note(&name(ada), &rev("m0", b"2"));
        let of = |who: &str| {
            shown
                .all()
                .get(&name(who))
                .and_then(|m| m.get(&ModuleName::parse("m0").unwrap()).copied())
        };
        assert_eq!(of(ada), Some(RegistryId::of_manifest(b"2")));
        assert_eq!(of(bob), None);
        for n in 0..2 * MODULES {
            shown.note(&name(bob), &rev(&format!("m{n}"), b"1"));
        }
        assert_eq!(shown.all()[&name(bob)].len(), MODULES);
        assert!(of(ada).is_some(), "nobody forgets for another");
    }
}
