//! Who may do what at the admin socket: roles by Unix group, read anew at each request.
//!
//! Owns the four roles and their groups, whose names root may set. Promises that a user who was taken out of a group
//! loses the role with the next request, and that a directory of users which hangs costs a request its answer and no other
//! request anything: it is asked on a thread aside, with a limit, and one user's lookups leave room for the others'.
//! In dev the uid that started the daemon has every role, and nobody else has any.

use std::ffi::CString;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mcpist_core::error::ErrorCode;
use nix::unistd::{Group, Uid, User, getgrouplist};
use serde::Deserialize;

use crate::connections::{Connections, User as Of};

/// What a request waits for the host's directory of users.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lookups at once, those that nobody waits for any more among them.
const AT_ONCE: usize = 64;
/// Of them, those for one user.
const OF_ONE_USER: usize = 16;

/// The lookups that the directory has not answered yet.
static LOOKUPS: LazyLock<Arc<Connections>> =
    LazyLock::new(|| Connections::new(AT_ONCE, OF_ONE_USER));

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

    /// Says which groups this host does not have: nobody has their roles. Waits for nothing.
    pub(crate) fn warn_of_missing(&self) {
        let groups = self.clone();
        let warn = move || {
            for role in Role::ALL {
                let group = groups.of(role);
                if !matches!(Group::from_name(group), Ok(Some(_))) {
                    log::warn!("no group {group} on this host, so nobody has the role {role:?}");
                }
            }
        };
        if let Err(e) = std::thread::Builder::new()
            .name("groups".into())
            .spawn(warn)
        {
            log::warn!("the groups of the roles were not looked up: {e}");
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
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], and [`ErrorCode::Unavailable`] where the host's directory does not say in time.
    pub(crate) async fn has_any(
        self,
        roles: &[Role],
        groups: Option<&Groups>,
    ) -> Result<(), ErrorCode> {
        let granted = match groups {
            None => self.uid == Uid::effective().as_raw(),
            Some(groups) => {
                let (roles, groups) = (roles.to_vec(), groups.clone());
                let look = move || self.in_groups(&roles, &groups);
                aside(&LOOKUPS, PATIENCE, self.uid, look).await?
            }
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

/// What `look` finds for `uid`, on a thread aside.
async fn aside(
    lookups: &Arc<Connections>,
    patience: Duration,
    uid: u32,
    look: impl FnOnce() -> bool + Send + 'static,
) -> Result<bool, ErrorCode> {
    let place = lookups.admit(Of::Uid(uid)).ok_or(ErrorCode::Unavailable)?;
    let looked = tokio::task::spawn_blocking(move || {
        let found = look();
        drop(place);
        found
    });
    match tokio::time::timeout(patience, looked).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(_)) => Err(ErrorCode::Internal),
        Err(_) => Err(ErrorCode::Unavailable),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_directory_that_hangs_for_one_user_keeps_no_other_waiting() {
        let lookups = Connections::new(3, 2);
        let (release, hang) = channel::<()>();
        let look = move || hang.recv().is_ok();
        let one = tokio::spawn({
            let lookups = Arc::clone(&lookups);
            async move { aside(&lookups, PATIENCE * 100, 1, look).await }
        });
        tokio::task::yield_now().await;
        let two = aside(&lookups, PATIENCE, 2, || true).await;
        assert_eq!(two, Ok(true));
        // A request is not kept for longer than its patience, and what hangs still counts.
        let (stay, hang) = channel::<()>();
        let late = aside(&lookups, Duration::ZERO, 1, move || hang.recv().is_ok()).await;
        assert_eq!(late, Err(ErrorCode::Unavailable));
        let more = aside(&lookups, PATIENCE, 1, || panic!("there is a place")).await;
        assert_eq!(more, Err(ErrorCode::Unavailable));
        assert_eq!(aside(&lookups, PATIENCE, 2, || false).await, Ok(false));
        release.send(()).unwrap();
        assert_eq!(one.await.unwrap(), Ok(true));
        assert_eq!(aside(&lookups, PATIENCE, 1, || true).await, Ok(true));
        drop(stay);
    }

    #[tokio::test]
    async fn in_dev_only_the_uid_that_started_the_daemon_has_roles() {
        let own = Uid::effective().as_raw();
        let caller = |uid| Caller { uid };
        assert_eq!(caller(own).has_any(&[Role::Operator], None).await, Ok(()));
        assert_eq!(
            caller(own + 1).has_any(&[Role::Operator], None).await,
            Err(ErrorCode::Forbidden)
        );
    }

    #[tokio::test]
    async fn outside_dev_a_user_in_no_group_of_ours_has_no_role_and_neither_has_root_by_itself() {
        let groups = Groups::default();
        for uid in [0, 4_000_000] {
            assert_eq!(
                Caller { uid }.has_any(&Role::ALL, Some(&groups)).await,
                Err(ErrorCode::Forbidden)
            );
        }
    }

    #[tokio::test]
    async fn a_sites_own_group_gives_its_role_and_no_other() {
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
        let has = async |roles| caller.has_any(roles, Some(&groups)).await;
        assert_eq!(has(&[Role::Custodian]).await, Ok(()));
        assert_eq!(has(&[Role::Officer]).await, Err(ErrorCode::Forbidden));
    }
}
