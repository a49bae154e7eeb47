//! Why a principal sees a tool, or does not. For administrators only: an explanation lists what a
//! client must not learn.

use serde::{Deserialize, Serialize};

use super::Mask;
use crate::access::Access;
use crate::grant::{Grant, Subject};
use crate::ids::GrantName;
use crate::principal::PrincipalRecord;

/// The answer of `mask explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The tool can be called by whoever sees it.
    pub loaded: bool,
    /// Its module is active, and its slot is not joined to a binding.
    pub unjoined: bool,
    /// Its access, where it is loaded.
    pub access: Option<Access>,
    /// The principal sees it.
    pub visible: bool,
    /// The grants that show it.
    pub granted_by: Vec<GrantName>,
    /// The grants that one condition keeps from showing it.
    pub near_misses: Vec<NearMiss>,
}

/// A grant that almost applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearMiss {
    /// The grant.
    pub grant: GrantName,
    /// The one condition.
    pub lacks: Lack,
}

/// A condition of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lack {
    /// It is for somebody else.
    Subject,
    /// It is for another module.
    Module,
    /// It is for other tools.
    Tool,
    /// It is for less access.
    Access,
}

impl Mask {
    /// Explains for the principal of a record, without acting for it.
    pub fn explain(&self, principal: &PrincipalRecord, module: &str, tool: &str) -> Explanation {
        let found = self
            .catalogue
            .position(module, tool)
            .and_then(|at| self.catalogue.tools().get(at));
        let unjoined = self
            .catalogue
            .module(module)
            .is_some_and(|m| m.unjoined().iter().any(|(name, _)| name.as_str() == tool));
        let mut out = Explanation {
            loaded: found.is_some(),
            unjoined,
            access: found.map(|t| t.access()),
            visible: false,
            granted_by: Vec::new(),
            near_misses: Vec::new(),
        };
        let Some(found) = found else { return out };
        for grant in &self.grants {
            let conditions = [
                (is_subject(grant, principal), Lack::Subject),
                (grant.module.selects(found.module()), Lack::Module),
                (grant.tools.selects(found.name()), Lack::Tool),
                (found.access() <= grant.access, Lack::Access),
            ];
            let mut lacks = conditions
                .iter()
                .filter(|(holds, _)| !holds)
                .map(|(_, lack)| *lack);
            match (lacks.next(), lacks.next()) {
                (None, _) => out.granted_by.push(grant.name.clone()),
                (Some(lacks), None) => {
                    out.near_misses.push(NearMiss {
                        grant: grant.name.clone(),
                        lacks,
                    });
                }
                _ => {}
            }
        }
        out.visible = !out.granted_by.is_empty();
        out
    }
}

fn is_subject(grant: &Grant, principal: &PrincipalRecord) -> bool {
    match &grant.subject {
        Subject::Principal(name) => *name == principal.name,
        Subject::Group(name) => principal.groups.contains(name),
    }
}
