//! What runs, and how it is. Waits neither for the keeper nor, beyond a second, for the audit log.

use std::time::Instant;

use axum::response::Response;
use mcpist_core::api::{
    Alarm, ApiError, AuditHead, MemoryStatus, ModuleState, ModuleStatus, PublicKey, RunnerStatus,
    Status, VaultHealth, VaultStatus, Vaults,
};
use mcpist_core::audit::Anchor;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{ModuleRev, VaultName};
use mcpist_sealer::Health;
use mcpist_secret::memory::PageKind;

use super::clerk::Stuck;
use super::{Call, process, reply};
use crate::audit::{AuditError, Trouble};
use crate::house::House;
use crate::keeper::{View, audit_error, unready};
use crate::roles::Role;

/// When the process began, for `uptime_s`. Set by the first status at the latest.
static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

/// Notes the start of the process.
pub(crate) fn started() {
    STARTED.get_or_init(Instant::now);
}

pub(super) async fn status(call: Call) -> Response {
    if let Err(e) = call.demand(&Role::ALL, "status").await {
        return reply::<Status>(Err(e));
    }
    let (head, trouble) = match call.admin.clerk.state().await {
        Ok(state) => (Ok(state.head), state.trouble),
        Err(stuck) => (Err(stuck), None),
    };
    let mut status = shown(&call.admin.house, &call.admin.keeper.view(), head);
    status.alarms.extend(trouble.as_ref().map(audit_alarm));
    reply(Ok(status))
}

/// What is wrong with the log, and what to do about it: a full disk mends by itself, a failed sync does not.
fn audit_alarm(trouble: &Trouble) -> Alarm {
    const STOPPED: &str = "no call is made and nothing is changed";
    let (code, message) = match trouble {
        Trouble::Refused(error) => {
            let code = audit_error(error).code;
            let message = match error {
                AuditError::Write(_) if code == ErrorCode::DiskFull => {
                    format!(
                        "the audit log's disk is full, {STOPPED}; free space, it goes on by itself"
                    )
                }
                AuditError::Write(_) => {
                    format!("{error}, {STOPPED}; mend its disk, it goes on by itself")
                }
                _ => format!(
                    "the disk failed to make the audit log durable, {STOPPED}; mend the disk, then: mcpist seal, mcpist unseal"
                ),
            };
            (code, message)
        }
        Trouble::Unsigned(line) => (
            ErrorCode::AuditUnavailable,
            format!(
                "no checkpoint since line {line}: nothing is signed until the disks of store and log have space and answer"
            ),
        ),
        Trouble::Unready(why) => {
            let error = unready(why);
            (error.code, error.message)
        }
        Trouble::Unconfirmed(line) => (
            ErrorCode::ExportUnconfirmed,
            format!(
                "segments of the audit log stay: lines up to {line} are exported, and no second auditor has confirmed that; one who did not export them reads the medium: mcpist audit confirm FILE"
            ),
        ),
        Trouble::Low(bytes) => (
            ErrorCode::DiskFull,
            format!(
                "the audit log's disk is nearly full, {} MiB left; make room before calls stop, and remove nothing of the state folder",
                bytes >> 20
            ),
        ),
    };
    Alarm { code, message }
}

/// The status, as the daemon's parts say it now.
pub(crate) fn shown(house: &House, view: &View, head: Result<Option<Anchor>, Stuck>) -> Status {
    let memory = mcpist_secret::memory::protections();
    let vaults = shown_vaults(view).unwrap_or_default();
    let mut alarms = view.alarms.clone();
    alarms.extend(house.live().iter().flat_map(|live| live.alarms().to_vec()));
    alarms.extend(house.leaks.stopped().iter().map(quarantined));
    alarms.extend(vaults.iter().filter_map(shut));
    alarms.extend(vaults.iter().filter_map(missing_write));
    alarms.extend(head.err().map(|stuck| Alarm {
        code: ErrorCode::AuditUnavailable,
        message: stuck.to_string(),
    }));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: view.state,
        dev: view.dev,
        store: view.store.clone(),
        shares: view.shares.clone(),
        site: view.site.clone(),
        time_floor: view.time_floor,
        unseal: view.unseal.clone(),
        ceremony: view.ceremony.clone(),
        restore: view.restore.clone(),
        uptime_s: STARTED.get_or_init(Instant::now).elapsed().as_secs(),
        calls_in_flight: house.runners.in_flight(),
        memory: MemoryStatus {
            pages: pages(memory.kind).to_owned(),
            missing: memory.missing().into_iter().map(str::to_owned).collect(),
        },
        process: Some(process::shown(house.config.tpm.is_some())),
        vaults,
        modules: modules(house, view),
        runners: vec![RunnerStatus {
            role: "run".into(),
            connected: house.runners.is_connected(),
        }],
        witness: view.witness.as_ref().and_then(|given| given.shown(view)),
        backup: view.backup.clone(),
        old_store: view.old_store,
        audit: head.ok().flatten().map(shown_head),
        alarms,
    }
}

/// The modules of the active registries: those of the snapshot, and those that it could not be given.
fn modules(house: &House, view: &View) -> Vec<ModuleStatus> {
    let Some(live) = house.live() else {
        return Vec::new();
    };
    let state = if house.runners.is_connected() {
        ModuleState::Ready
    } else {
        ModuleState::Loading
    };
    let of_snapshot = live.mask.catalogue().modules();
    let stopped = house.leaks.stopped();
    let show = |(name, registry): &(_, _)| {
        let built = of_snapshot
            .iter()
            .find(|m| m.name() == name && m.rev().registry == *registry);
        let (state, reason) = match built {
            None => (
                ModuleState::Broken,
                Some("it could not be built; the alarms say why"),
            ),
            Some(module) if stopped.contains(module.rev()) => (
                ModuleState::Quarantined,
                Some("its service gave secrets back; the alarms say what to do"),
            ),
            Some(_) => (state, None),
        };
        ModuleStatus {
            name: name.clone(),
            registry: *registry,
            state,
            reason: reason.map(str::to_owned),
            tools: built.map_or(0, |m| m.tools().len() as u64),
        }
    };
    view.modules.iter().map(show).collect()
}

fn quarantined(rev: &ModuleRev) -> Alarm {
    let ModuleRev { registry, module } = rev;
    Alarm {
        code: ErrorCode::ModuleQuarantined,
        message: format!(
            "module {module} takes no calls: its service gave secrets back in too many answers; rotate the credential, mend the service, then: mcpist registry retire {registry}, mcpist registry activate {registry}"
        ),
    }
}

fn pages(kind: PageKind) -> &'static str {
    match kind {
        PageKind::MemfdSecret => "memfd_secret",
        PageKind::Locked => "locked",
        PageKind::Plain => "plain",
    }
}

/// The vaults, while the store is open.
fn shown_vaults(view: &View) -> Option<Vec<VaultStatus>> {
    let (rotating, reading) = (view.rotating.upgrade(), view.reading.upgrade());
    let show = |status: mcpist_sealer::VaultStatus| {
        let (health, reason) = match status.health {
            Health::Unavailable | Health::Sealed if status.is_gone => {
                let name = &status.name;
                let next = format!(
                    "its file is not here; next: mcpist vault restore {name} --from BACKUP"
                );
                (VaultHealth::Unavailable, Some(next))
            }
            Health::Ok => (VaultHealth::Ok, None),
            Health::Quarantined(reason) => (VaultHealth::Quarantined, Some(reason)),
            Health::Sealed if status.has_own_quorum => (VaultHealth::Sealed, None),
            Health::Unavailable | Health::Sealed => (VaultHealth::Unavailable, None),
        };
        let name = VaultName::parse(&status.name).ok()?;
        Some(VaultStatus {
            rotation: rotating.as_ref().and_then(|rotating| rotating.of(&name)),
            reading: reading.as_ref().and_then(|reading| reading.of(&name)),
            old_records: status.old_records,
            name,
            health,
            reason,
            records: status.records,
            last_write_missing: status.last_write_missing.is_some(),
        })
    };
    let vaults = view.vaults()?.vaults();
    Some(vaults.into_iter().filter_map(show).collect())
}

/// A vault that serves nobody, whether a call needs it or not.
pub(super) fn shut(vault: &VaultStatus) -> Option<Alarm> {
    let code = match vault.health {
        VaultHealth::Ok => return None,
        VaultHealth::Unavailable => ErrorCode::VaultUnavailable,
        VaultHealth::Quarantined => ErrorCode::VaultQuarantined,
        VaultHealth::Sealed => ErrorCode::VaultSealed,
    };
    let why = vault.reason.as_deref().unwrap_or(code.about());
    let name = &vault.name;
    let next = match vault.health {
        VaultHealth::Sealed => format!("; next: mcpist vault unseal {name}"),
        _ => String::new(),
    };
    let message = format!("vault {name}: {why}{next}");
    Some(Alarm { code, message })
}

fn missing_write(vault: &VaultStatus) -> Option<Alarm> {
    vault.last_write_missing.then(|| Alarm {
        code: ErrorCode::LastWriteMissing,
        message: format!(
            "vault {0}: its last write is missing; put again what was put last, then: mcpist vault confirm {0}",
            vault.name
        ),
    })
}

fn shown_head(anchor: Anchor) -> AuditHead {
    AuditHead {
        seq: anchor.seq,
        head: anchor.head,
        checkpoint: anchor.checkpoint,
        covered: anchor.covered,
        next_key: PublicKey(anchor.key),
    }
}

pub(super) async fn audit_head(call: Call) -> Response {
    if let Err(e) = call.demand(&Role::ALL, "audit_head").await {
        return reply::<AuditHead>(Err(e));
    }
    let state = call.admin.clerk.state().await;
    let head = state.map(|state| state.head);
    let head = head.map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()));
    reply(head.and_then(|head| head.map(shown_head).ok_or(ApiError::of(ErrorCode::Sealed))))
}

pub(super) async fn vaults(call: Call) -> Response {
    let demanded = call.demand(&Role::ALL, "vaults").await;
    let view = call.admin.keeper.view();
    reply(demanded.and_then(|()| {
        let vaults = shown_vaults(&view).ok_or_else(|| view.why_closed())?;
        Ok(Vaults { vaults })
    }))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::audit::Unready;

    #[test]
    fn an_alarm_of_the_log_says_what_mends_it() {
        let refused = |kind| Trouble::Refused(AuditError::Write(kind));
        let (full, lost) = (ErrorCode::DiskFull, ErrorCode::AuditUnavailable);
        for (trouble, code, next) in [
            (Trouble::Low(7 << 20), full, "nearly full, 7 MiB left"),
            (
                Trouble::Unconfirmed(9),
                ErrorCode::ExportUnconfirmed,
                "mcpist audit confirm FILE",
            ),
            (Trouble::Unsigned(41), lost, "no checkpoint since line 41"),
            (Trouble::Unready(Unready::Full), full, "no share is taken"),
            (
                Trouble::Unready(Unready::Missing(3)),
                lost,
                "segment 3 of the audit log is missing",
            ),
            (refused(ErrorKind::StorageFull), full, "goes on by itself"),
            (refused(ErrorKind::FileTooLarge), lost, "goes on by itself"),
            (
                Trouble::Refused(AuditError::Sync),
                lost,
                "mend the disk, then: mcpist seal, mcpist unseal",
            ),
        ] {
            let alarm = audit_alarm(&trouble);
            assert_eq!(alarm.code, code, "{trouble:?}");
            assert!(alarm.message.contains(next), "{}", alarm.message);
        }
    }
}
