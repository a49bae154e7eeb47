//! Who may do what at the admin socket: roles by Unix group, read anew at each request.
//!
//! Owns the four roles and their groups. Promises that a user who was taken out of a group loses the role with the
//! next request. In dev the uid that started the daemon has every role, and nobody else has any.

use std::ffi::CString;

use mcpist_core::error::ErrorCode;
use nix::unistd::{Group, Uid, User, getgrouplist};

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
    /// The Unix group that gives the role.
    pub(crate) fn group(self) -> &'static str {
        match self {
            Role::Operator => "mcpist-operator",
            Role::Custodian => "mcpist-custodian",
            Role::Officer => "mcpist-officer",
            Role::Auditor => "mcpist-auditor",
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
    /// Whether the caller has one of `roles` now.
    pub(crate) fn has_any(self, roles: &[Role], dev: bool) -> Result<(), ErrorCode> {
        let granted = if dev {
            self.uid == Uid::effective().as_raw()
        } else {
            self.in_groups(roles)
        };
        if granted {
            Ok(())
        } else {
            Err(ErrorCode::Forbidden)
        }
    }

    fn in_groups(self, roles: &[Role]) -> bool {
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
            matches!(Group::from_name(role.group()), Ok(Some(group)) if groups.contains(&group.gid))
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
        assert_eq!(caller(own).has_any(&[Role::Operator], true), Ok(()));
        assert_eq!(
            caller(own + 1).has_any(&[Role::Operator], true),
            Err(ErrorCode::Forbidden)
        );
    }

    #[test]
    fn outside_dev_a_user_in_no_group_of_ours_has_no_role_and_neither_has_root_by_itself() {
        let all = [
            Role::Operator,
            Role::Custodian,
            Role::Officer,
            Role::Auditor,
        ];
        assert_eq!(
            Caller { uid: 0 }.has_any(&all, false),
            Err(ErrorCode::Forbidden)
        );
        assert_eq!(
            Caller { uid: 4_000_000 }.has_any(&all, false),
            Err(ErrorCode::Forbidden)
        );
    }
}
