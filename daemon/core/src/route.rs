//! Which side of a module answers a call. No I/O.
//!
//! Owns: [`Route`]: one revision, pinned for the whole call. Made by [`Route::choose`] only, from a
//! [`VisibleTool`].
//! Promises: a call that echoes a `schema_ref` runs on exactly the edition that its client has
//! read, or not at all; a route leads only to a side that is active in the given catalogue.
//! Does not: weigh. A module name has one active side ([`Catalogue`] refuses a second); where
//! several share a name, this is the place that chooses among them, by principal.

use std::sync::Arc;

use thiserror::Error;

use crate::catalogue::{Catalogue, Tool};
use crate::ids::{ModuleRev, SchemaRef};
use crate::mask::VisibleTool;
use crate::principal::Principal;

/// A principal, a tool and the revision that answers.
#[derive(Debug)]
#[must_use = "a route is the permission to go on"]
pub struct Route {
    principal: Principal,
    tool: Arc<Tool>,
}

/// Why a visible tool has no route.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The client has read another edition; it gets this one to read.
    #[error("the tool's schema has changed; read it again and repeat the call with its schema_ref")]
    SchemaChanged {
        /// The edition of now.
        current: Arc<Tool>,
    },
    /// The tool's revision is not active in this catalogue.
    #[error("no active registry answers for {0}")]
    NoSide(ModuleRev),
}

impl Route {
    /// Chooses the side of a visible tool, held to the edition that the client echoes.
    pub fn choose(
        visible: VisibleTool,
        schema_ref: Option<&SchemaRef>,
        catalogue: &Catalogue,
    ) -> Result<Route, RouteError> {
        let (principal, tool) = visible.into_parts();
        let active = catalogue
            .position(tool.module().as_str(), tool.name().as_str())
            .and_then(|at| catalogue.tools().get(at));
        // A mask of another snapshot may show what this catalogue has replaced.
        let Some(current) = active else {
            return Err(RouteError::NoSide(tool.rev().clone()));
        };
        let seen = schema_ref.copied().unwrap_or(tool.schema_ref());
        if current.schema_ref() != seen {
            return Err(RouteError::SchemaChanged {
                current: current.clone(),
            });
        }
        Ok(Route {
            principal,
            tool: current.clone(),
        })
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is called.
    pub fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests;
