//! The mask: which tools exist for which principal. No I/O, and no allocation for a question.
//!
//! Owns: [`Mask`], compiled once per snapshot from all grants and the catalogue, and
//! [`VisibleTool`], which only it makes.
//! Promises: without a grant that selects a tool, the tool does not exist for the asker; unknown
//! and forbidden give the same answer after the same steps (one search through all tools, one test
//! per subject of the asker, no early way out); lists have one order, by module and name.
//! Does not: know principals beforehand: a principal's name and groups are looked up in the mask's
//! own table of subjects, so that a changed principal needs no new mask.
//!
//! Shape: subjects that any grant names are numbered, principals first; each tool has one bit per
//! subject, in one flat table whose last row, all zero, stands for every tool that there is not.

mod explain;

use std::sync::Arc;

use crate::catalogue::{Catalogue, Tool};
use crate::grant::{Grant, Subject};
use crate::ids::{GroupName, PrincipalName};
use crate::principal::Principal;

pub use explain::{Explanation, Lack, NearMiss};

/// The compiled mask of one snapshot.
#[derive(Debug)]
pub struct Mask {
    catalogue: Arc<Catalogue>,
    grants: Vec<Grant>,
    principals: Vec<PrincipalName>,
    groups: Vec<GroupName>,
    /// Words per row.
    words: usize,
    /// A row for each tool of the catalogue, in its order, and the empty row.
    bits: Vec<u64>,
}

/// A tool together with the principal that may see it. Made by [`Mask::visible`] only; used up by
/// [`Route::choose`](crate::route::Route::choose).
///
/// It cannot be made elsewhere, nor copied to serve twice:
/// ```compile_fail,E0277
/// fn copies<T: Clone>() {}
/// copies::<mcpist_core::mask::VisibleTool>();
/// ```
#[derive(Debug)]
#[must_use = "a visible tool is the permission to go on"]
pub struct VisibleTool {
    principal: Principal,
    tool: Arc<Tool>,
}

impl VisibleTool {
    /// Who sees it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is seen.
    pub fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }

    pub(crate) fn into_parts(self) -> (Principal, Arc<Tool>) {
        (self.principal, self.tool)
    }
}

impl Mask {
    /// Compiles the grants for the tools of this catalogue.
    pub fn new(grants: Vec<Grant>, catalogue: Arc<Catalogue>) -> Mask {
        let mut principals = Vec::new();
        let mut groups = Vec::new();
        for grant in &grants {
            match &grant.subject {
                Subject::Principal(name) => principals.push(name.clone()),
                Subject::Group(name) => groups.push(name.clone()),
            }
        }
        principals.sort();
        principals.dedup();
        groups.sort();
        groups.dedup();
        let words = (principals.len() + groups.len()).div_ceil(64);
        let rows = catalogue.tools().len() + 1;
        let mut mask = Mask {
            catalogue,
            grants,
            principals,
            groups,
            words,
            bits: vec![0; words * rows],
        };
        mask.fill();
        mask
    }

    fn fill(&mut self) {
        for grant in &self.grants {
            let subject = match &grant.subject {
                Subject::Principal(name) => self.principal_number(name),
                Subject::Group(name) => self.group_number(name),
            };
            let Some(number) = subject else { continue };
            for (row, tool) in self.catalogue.tools().iter().enumerate() {
                if grant.selects(tool.module(), tool.name(), tool.access()) {
                    self.bits[row * self.words + number / 64] |= 1 << (number % 64);
                }
            }
        }
    }

    fn principal_number(&self, name: &PrincipalName) -> Option<usize> {
        self.principals.binary_search(name).ok()
    }

    fn group_number(&self, name: &GroupName) -> Option<usize> {
        self.groups
            .binary_search(name)
            .ok()
            .map(|at| self.principals.len() + at)
    }

    /// Tests every subject of the principal against one row.
    fn admits(&self, row: usize, principal: &Principal) -> bool {
        let bits = &self.bits[row * self.words..(row + 1) * self.words];
        let test =
            |number: Option<usize>| number.is_some_and(|n| bits[n / 64] >> (n % 64) & 1 == 1);
        let own = test(self.principal_number(principal.name()));
        principal
            .groups()
            .iter()
            .fold(own, |found, group| found | test(self.group_number(group)))
    }

    /// The tool, if it exists for this principal.
    pub fn visible(&self, principal: &Principal, module: &str, tool: &str) -> Option<VisibleTool> {
        let tools = self.catalogue.tools();
        let position = self.catalogue.position(module, tool);
        // Unknown: the empty row, which admits nobody.
        let admitted = self.admits(position.unwrap_or(tools.len()), principal);
        let tool = tools.get(position?)?;
        admitted.then(|| VisibleTool {
            principal: principal.clone(),
            tool: tool.clone(),
        })
    }

    /// Every tool that exists for this principal, by module and name.
    pub fn list<'a>(&'a self, principal: &Principal) -> Vec<&'a Arc<Tool>> {
        let tools = self.catalogue.tools().iter().enumerate();
        tools
            .filter(|(row, _)| self.admits(*row, principal))
            .map(|(_, tool)| tool)
            .collect()
    }

    /// The catalogue that it was compiled for.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests;
