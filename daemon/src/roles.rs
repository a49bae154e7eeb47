//! Who may do what at the admin socket: roles by Unix group, read anew at each request.
//!
//! Owns the four roles and their groups, whose names root may set. Promises that a user who was taken out of a group
//! loses the role with the next request. In dev the uid that started the daemon has every role, and nobody else has any.

use std::ffi::CString;

use mcpist_core::error::ErrorCode;
use nix::unistd::{Group, Uid, User, getgrouplist};
use serde::Deserialize;

/// A role at the admin socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ceremonies.
    Operator,
    /// Vaults and credentials.
    Custodian,
    /// Bundles, bindings, principals, grants.
    Officer,
    /// Reads, verifies.
    Auditor,
}

impl Role {
    /// Every role.
    pub(crate) const ALL: [Role; 4] = [
        Role::Operator,
        Role::Custodian,
        Role::Officer,
        Role::Auditor,
    ];
}

/// The Unix group of each role: those of the package, unless `[roles]` of mcpist.toml names a site's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Groups {
    operator: String,
    custodian: String,
    officer: String,
    auditor: String,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            operator: "mcpist-operator".into(),
            custodian: "mcpist-custodian".into(),
            officer: "mcpist-officer".into(),
            auditor: "mcpist-auditor".into(),
        }
    }
}

impl Groups {
    /// The group that gives `role`.
    pub(crate) fn of(&self, role: Role) -> &str {
        match role {
            Role::Operator => &self.operator,
            Role::Custodian => &self.custodian,
            Role::Officer => &self.officer,
            Role::Auditor => &self.auditor,
        }
    }

    /// Says which groups this host does not have: nobody has their roles.
    pub(crate) fn warn_of_missing(&self) {
        for role in Role::ALL {
            let group = self.of(role);
            if !matches!(Group::from_name(group), Ok(Some(_))) {
                log::warn!("no group {group} on this host, so nobody has the role {role:?}");
            }
        }
    }
}

/// The peer of one admin or secret connection, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Its user id.
    pub(crate) uid: u32,
}

impl Caller {
    /// Whether the caller has one of `roles` now; `groups` is `None` in dev.
    pub(crate) fn has_any(self, roles: &[Role], groups: Option<&Groups>) -> Result<(), ErrorCode> {
        let granted = match groups {
            None => self.uid == Uid::effective().as_raw(),
            Some(groups) => self.in_groups(roles, groups),
        };
        if granted {
            Ok(())
        } else {
            Err(ErrorCode::Forbidden)
        }
    }

    fn in_groups(self, roles: &[Role], names: &Groups) -> bool {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        let Ok(name) = CString::new(user.name.as_str()) else {
            return false;
        };
        let Ok(groups) = getgrouplist(&name, user.gid) else {
            return false;
        };
        roles.iter().any(|role| {
            matches!(Group::from_name(names.of(*role)), Ok(Some(group)) if groups.contains(&group.gid))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_dev_only_the_uid_that_started_the_daemon_has_roles() {
        let own = Uid::effective().as_raw();
        let caller = |uid| Caller { uid };
        assert_eq!(caller(own).has_any(&[Role::Operator], None), Ok(()));
        assert_eq!(
            caller(own + 1).has_any(&[Role::Operator], None),
            Err(ErrorCode::Forbidden)
        );
    }

    #[test]
    fn outside_dev_a_user_in_no_group_of_ours_has_no_role_and_neither_has_root_by_itself() {
        let groups = Groups::default();
        for uid in [0, 4_000_000] {
            assert_eq!(
                Caller { uid }.has_any(&Role::ALL, Some(&groups)),
                Err(ErrorCode::Forbidden)
            );
        }
    }

    #[test]
    fn a_sites_own_group_gives_its_role_and_no_other() {
        let own = Uid::effective();
        let Ok(Some(user)) = User::from_uid(own) else {
            return;
        };
        let Ok(Some(group)) = Group::from_gid(user.gid) else {
            return;
        };
        let groups = Groups {
            custodian: group.name,
            ..Groups::default()
        };
        let caller = Caller { uid: own.as_raw() };
        let has = |role| caller.has_any(&[role], Some(&groups));
        assert_eq!(has(Role::Custodian), Ok(()));
        assert_eq!(has(Role::Officer), Err(ErrorCode::Forbidden));
    }
}
