//! What can be called now: the tools of every active module, ready for the call path. No I/O.
//!
//! Owns: [`Tool`], [`Module`] and [`Catalogue`], immutable snapshots that are shared by `Arc`.
//! Promises: a tool in a catalogue has a compiled schema, a request that fits it and a binding for
//! each slot that it uses; what clients are shown of it is fixed bytes with a digest; one name has
//! one active side, and a second is refused rather than chosen. Modules are built one by one, so
//! that one that does not build stops no other.
//! Does not: say who may see a tool ([`crate::mask`]) nor which side answers ([`crate::route`]).

#[cfg(feature = "schema")]
mod build;

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;
use thiserror::Error;

use crate::access::Access;
use crate::ids::{
    BindingName, Digest, ModuleName, ModuleRev, RegistryId, SchemaRef, SlotName, ToolName,
};
use crate::manifest::{Limits, ModuleManifest, ToolManifest};
use crate::schema::Validator;

#[cfg(feature = "schema")]
pub use build::{ActiveModule, ModuleError, NewCatalogueError};

/// One tool of one registry's module.
pub struct Tool {
    rev: ModuleRev,
    manifest: ToolManifest,
    limits: Limits,
    slots: Vec<(SlotName, BindingName)>,
    inner: Box<RawValue>,
    digest: Digest,
    schema_ref: SchemaRef,
    validator: Arc<Validator>,
}

impl Tool {
    /// The edition of the module that it belongs to.
    pub fn rev(&self) -> &ModuleRev {
        &self.rev
    }

    /// The module's name.
    pub fn module(&self) -> &ModuleName {
        &self.rev.module
    }

    /// Its name.
    pub fn name(&self) -> &ToolName {
        &self.manifest.name
    }

    /// What a call can do to the service.
    pub fn access(&self) -> Access {
        self.manifest.access
    }

    /// What the manifest says of it.
    pub fn manifest(&self) -> &ToolManifest {
        &self.manifest
    }

    /// What a call of its module may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The slots that a call uses, each with the binding that fills it.
    pub fn slots(&self) -> &[(SlotName, BindingName)] {
        &self.slots
    }

    /// The whole inner MCP Tool object, as clients get it: JSON without white space.
    pub fn inner(&self) -> &RawValue {
        &self.inner
    }

    /// SHA-256 of the bytes of [`inner`](Tool::inner).
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What a client echoes to say that it has read this edition.
    pub fn schema_ref(&self) -> SchemaRef {
        self.schema_ref
    }

    /// The compiled input schema; tools of a module that name one schema share it.
    pub fn validator(&self) -> &Arc<Validator> {
        &self.validator
    }

    /// Where it stands in every list: by module, then by name.
    fn key(&self) -> (&str, &str) {
        (self.rev.module.as_str(), self.manifest.name.as_str())
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tool({}/{})", self.rev, self.manifest.name)
    }
}

/// One registry's module, built.
#[derive(Debug)]
pub struct Module {
    rev: ModuleRev,
    manifest: ModuleManifest,
    tools: Vec<Arc<Tool>>,
    unjoined: Vec<(ToolName, SlotName)>,
}

impl Module {
    /// Which edition it is.
    pub fn rev(&self) -> &ModuleRev {
        &self.rev
    }

    /// Its name.
    pub fn name(&self) -> &ModuleName {
        &self.rev.module
    }

    /// What the bundle says of it.
    pub fn manifest(&self) -> &ModuleManifest {
        &self.manifest
    }

    /// Its tools that can be called, by name.
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// Tools that cannot be called, each with the slot that no join fills. They exist for nobody.
    pub fn unjoined(&self) -> &[(ToolName, SlotName)] {
        &self.unjoined
    }
}

/// Every active module.
#[derive(Debug, Default)]
pub struct Catalogue {
    modules: Vec<Arc<Module>>,
    tools: Vec<Arc<Tool>>,
}

/// Why modules do not make a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// Two active registries hold a module of one name.
    #[error("module \"{module}\" is active from registry {} and from {}; retire one of them first", .first.short(), .second.short())]
    TwoSides {
        /// The module's name.
        module: ModuleName,
        /// One registry.
        first: RegistryId,
        /// The other.
        second: RegistryId,
    },
}

impl Catalogue {
    /// Puts modules together.
    pub fn of(mut modules: Vec<Arc<Module>>) -> Result<Catalogue, CatalogueError> {
        modules.sort_by(|a, b| a.rev.module.cmp(&b.rev.module));
        for pair in modules.windows(2) {
            if pair[0].rev.module == pair[1].rev.module {
                return Err(CatalogueError::TwoSides {
                    module: pair[0].rev.module.clone(),
                    first: pair[0].rev.registry,
                    second: pair[1].rev.registry,
                });
            }
        }
        let tools = modules
            .iter()
            .flat_map(|m| m.tools.iter().cloned())
            .collect();
        Ok(Catalogue { modules, tools })
    }

    /// The modules, by name.
    pub fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    /// The module with this name.
    pub fn module(&self, name: &str) -> Option<&Arc<Module>> {
        let at = self
            .modules
            .binary_search_by(|m| m.name().as_str().cmp(name))
            .ok()?;
        self.modules.get(at)
    }

    /// Every tool that can be called, by module and name.
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// The place of a tool in [`tools`](Catalogue::tools). A hit and a miss take the same steps.
    pub(crate) fn position(&self, module: &str, tool: &str) -> Option<usize> {
        let at = self.tools.partition_point(|t| t.key() < (module, tool));
        self.tools
            .get(at)
            .is_some_and(|t| t.key() == (module, tool))
            .then_some(at)
    }
}

#[cfg(all(test, feature = "schema"))]
pub(crate) mod tests;
