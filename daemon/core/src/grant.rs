//! A grant: who may use which tools, at most how.
//!
//! Owns: [`Grant`] and its selectors. Promises: an empty selector selects nothing. Does not: decide
//! alone what is visible; [`crate::mask`] puts all grants together with what is loaded.

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::ids::{GrantName, GroupName, ModuleName, PrincipalName, ToolName};

/// One rule of the mask. Rules only ever add; there is no deny rule, since no rule is a denial
/// already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its name.
    pub name: GrantName,
    /// Who gets it.
    pub subject: Subject,
    /// In which modules.
    pub module: ModuleSel,
    /// Which tools there.
    pub tools: ToolSel,
    /// Only tools of at most this access.
    pub access: Access,
}

/// Who gets a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// One principal.
    Principal(PrincipalName),
    /// Everyone in a group.
    Group(GroupName),
}

/// Modules of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleSel {
    /// Every module, also those to come.
    All,
    /// One module, whichever registry holds it.
    Named(ModuleName),
}

/// Tools of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolSel {
    /// Every tool, also those to come.
    All,
    /// These tools; none, if the list is empty.
    Named(Vec<ToolName>),
}

impl ModuleSel {
    /// Selects `module`.
    pub fn selects(&self, module: &ModuleName) -> bool {
        match self {
            ModuleSel::All => true,
            ModuleSel::Named(name) => name == module,
        }
    }

    /// Selects nothing that `other` does not.
    pub fn within(&self, other: &ModuleSel) -> bool {
        matches!(other, ModuleSel::All) || self == other
    }
}

impl ToolSel {
    /// Selects `tool`.
    pub fn selects(&self, tool: &ToolName) -> bool {
        match self {
            ToolSel::All => true,
            ToolSel::Named(names) => names.contains(tool),
        }
    }

    /// Selects nothing that `other` does not.
    pub fn within(&self, other: &ToolSel) -> bool {
        match (self, other) {
            (_, ToolSel::All) => true,
            (ToolSel::All, ToolSel::Named(_)) => false,
            (ToolSel::Named(these), ToolSel::Named(those)) => {
                these.iter().all(|t| those.contains(t))
            }
        }
    }
}

impl Grant {
    /// Selects the tool, whoever asks.
    pub fn selects(&self, module: &ModuleName, tool: &ToolName, access: Access) -> bool {
        self.module.selects(module) && self.tools.selects(tool) && access <= self.access
    }

    /// Gives nobody anything that `other` does not give.
    pub fn within(&self, other: &Grant) -> bool {
        self.subject == other.subject
            && self.module.within(&other.module)
            && self.tools.within(&other.tools)
            && self.access <= other.access
    }
}
