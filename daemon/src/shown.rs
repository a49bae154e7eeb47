//! In which registry each principal was last shown a tool.
//!
//! Owns [`Shown`]. A call that echoes no `schema_ref` is held to the revision whose schema its principal has read: were
//! another one active by now, the call would mean something else than its caller thinks. Each tool stands for itself: who
//! reads the new schema of one has not read the others'. Promises bounded memory: so many modules for each principal and
//! tools for each module, and principals are records of officers. What is forgotten holds nobody. Does not
//! outlive the process, nor decide what a call gets ([`mcpist_core::route`] does).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mcpist_core::catalogue::Tool;
use mcpist_core::ids::{ModuleName, ModuleRev, PrincipalName, RegistryId, SchemaRef, ToolName};

/// Modules of one principal, and tools of one module, that are remembered.
const MOST: usize = 256;

type Tools = BTreeMap<ToolName, RegistryId>;
type Modules = BTreeMap<ModuleName, Tools>;

/// What was shown, by principal, module and tool.
pub(crate) struct Shown(Mutex<BTreeMap<PrincipalName, Modules>>);

/// Makes room for `key`: where there are [`MOST`] others, the first of them goes.
fn make_room<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K) {
    if map.len() >= MOST && !map.contains_key(key) {
        map.pop_first();
    }
}

impl Shown {
    /// Nothing was shown.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PrincipalName, Modules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The principal has the schema of this edition of the tool before it.
    pub(crate) fn note(&self, principal: &PrincipalName, tool: &Tool) {
        self.insert(principal, tool.module(), tool.name(), tool.rev().registry);
    }

    fn insert(
        &self,
        principal: &PrincipalName,
        module: &ModuleName,
        tool: &ToolName,
        registry: RegistryId,
    ) {
        let mut all = self.all();
        let modules = all.entry(principal.clone()).or_default();
        make_room(modules, module);
        let tools = modules.entry(module.clone()).or_default();
        make_room(tools, tool);
        tools.insert(tool.clone(), registry);
    }

    fn registry(
        &self,
        principal: &PrincipalName,
        module: &ModuleName,
        tool: &ToolName,
    ) -> Option<RegistryId> {
        self.all().get(principal)?.get(module)?.get(tool).copied()
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
                let shown = self.registry(principal, tool.module(), tool.name());
                shown == Some(tool.rev().registry)
            }
        }
    }

    /// The reference that a call of `tool` without one is held to: that of another revision, where the principal was
    /// shown another one last.
    pub(crate) fn held_to(&self, principal: &PrincipalName, tool: &Tool) -> Option<SchemaRef> {
        let shown = self.registry(principal, tool.module(), tool.name())?;
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

    fn shown(shown: &Shown, who: &str, module: &str, tool: &str, manifest: &[u8]) {
        let principal = PrincipalName::parse(who).unwrap();
        let module = ModuleName::parse(module).unwrap();
        let tool = ToolName::parse(tool).unwrap();
        shown.insert(
            &principal,
            &module,
            &tool,
            RegistryId::of_manifest(manifest),
        );
    }

    fn last(shown: &Shown, who: &str, module: &str, tool: &str) -> Option<RegistryId> {
        let principal = PrincipalName::parse(who).unwrap();
        let module = ModuleName::parse(module).unwrap();
        shown.registry(&principal, &module, &ToolName::parse(tool).unwrap())
    }

    #[test]
    fn the_last_one_counts_and_for_its_own_tool_alone() {
        let all = Shown::new();
        let (old, new) = (RegistryId::of_manifest(b"1"), RegistryId::of_manifest(b"2"));
        shown(&all, "ada", "m", "get", b"1");
        shown(&all, "ada", "m", "put", b"1");
        shown(&all, "ada", "m", "get", b"2");
        assert_eq!(last(&all, "ada", "m", "get"), Some(new));
        assert_eq!(last(&all, "ada", "m", "put"), Some(old));
        assert_eq!(last(&all, "bob", "m", "get"), None);
    }

    #[test]
    fn memory_is_bounded_and_nobody_forgets_for_another() {
        let all = Shown::new();
        shown(&all, "ada", "m0", "t0", b"1");
        for n in 0..2 * MOST {
            shown(&all, "bob", &format!("m{n}"), "t", b"1");
            shown(&all, "bob", "zz", &format!("t{n}"), b"1");
        }
        let bob = all.all()[&PrincipalName::parse("bob").unwrap()].clone();
        assert_eq!(bob.len(), MOST);
        assert_eq!(bob[&ModuleName::parse("zz").unwrap()].len(), MOST);
        assert!(last(&all, "ada", "m0", "t0").is_some());
    }
}
