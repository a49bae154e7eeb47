//! Status, ceremonies, vaults and credentials.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use mcpist_core::api::{
    ApiError, AuditHead, Credentials, InitConfirm, InitRequest, MemoryStatus, ModuleState,
    ModuleStatus, NewVault, PublicKey, RunnerStatus, Status, VaultHealth, VaultStatus, Vaults,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{CredentialName, VaultName};
use mcpist_sealer::Health;
use mcpist_secret::memory::PageKind;

use super::{Admin, done, parse, reply};
use crate::audit::Audit;
use crate::roles::{Caller, Role};

/// When the process began, for `uptime_s`. Set by the first status at the latest.
static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

/// Notes the start of the process.
pub(crate) fn started() {
    STARTED.get_or_init(Instant::now);
}

pub(super) async fn status(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        admin
            .demand(caller, &Role::ALL, "status")
            .map(|()| show_status(&admin)),
    )
}

fn show_status(admin: &Admin) -> Status {
    let view = admin.keeper.view();
    let live = admin.house.live();
    let mut alarms = view.alarms.clone();
    alarms.extend(live.iter().flat_map(|live| live.alarms().iter().cloned()));
    let memory = mcpist_secret::memory::protections();
    let modules = live.iter().flat_map(|live| {
        live.mask
            .catalogue()
            .modules()
            .iter()
            .map(|module| ModuleStatus {
                name: module.name().clone(),
                registry: module.rev().registry,
                state: if admin.house.runners.is_connected() {
                    ModuleState::Ready
                } else {
                    ModuleState::Loading
                },
                reason: None,
                tools: module.tools().len() as u64,
                in_flight: 0,
            })
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: view.state,
        dev: view.dev,
        store: view.store.clone(),
        site: view.site.clone(),
        unseal: view.unseal.clone(),
        uptime_s: STARTED.get_or_init(Instant::now).elapsed().as_secs(),
        calls_in_flight: admin.house.runners.in_flight(),
        memory: MemoryStatus {
            pages: pages(memory.kind).to_owned(),
            missing: memory.missing().into_iter().map(str::to_owned).collect(),
        },
        vaults: view.vaults().map(shown_vaults).unwrap_or_default(),
        modules: modules.collect(),
        runners: vec![RunnerStatus {
            role: "run".into(),
            connected: admin.house.runners.is_connected(),
            pid: None,
        }],
        audit: head(&admin.house.audit),
        alarms,
    }
}

fn pages(kind: PageKind) -> &'static str {
    match kind {
        PageKind::MemfdSecret => "memfd_secret",
        PageKind::Locked => "locked",
        PageKind::Plain => "plain",
    }
}

fn shown_vaults(vaults: &mcpist_sealer::Vaults) -> Vec<VaultStatus> {
    let show = |status: mcpist_sealer::VaultStatus| {
        let (health, reason) = match status.health {
            Health::Ok => (VaultHealth::Ok, None),
            Health::Quarantined(reason) => (VaultHealth::Quarantined, Some(reason)),
            Health::Unavailable | Health::Sealed => (VaultHealth::Unavailable, None),
        };
        Some(VaultStatus {
            name: VaultName::parse(&status.name).ok()?,
            health,
            reason,
            records: status.records,
            last_write_missing: status.last_write_missing.is_some(),
        })
    };
    vaults.vaults().into_iter().filter_map(show).collect()
}

fn head(audit: &Audit) -> Option<AuditHead> {
    audit.head().map(|anchor| AuditHead {
        seq: anchor.seq,
        head: anchor.head,
        checkpoint: anchor.checkpoint,
        covered: anchor.covered,
        next_key: PublicKey(anchor.key),
    })
}

pub(super) async fn audit_head(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let demanded = admin.demand(caller, &Role::ALL, "audit_head");
    reply(demanded.and_then(|()| head(&admin.house.audit).ok_or(ApiError::of(ErrorCode::Sealed))))
}

pub(super) async fn init(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Operator], "init")?;
            let request: InitRequest = parse(&body)?;
            admin
                .keeper
                .ask(move |keeper| keeper.plan_init(caller.uid, request))
                .await
        }
        .await,
    )
}

pub(super) async fn init_confirm(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Operator], "init_confirm")?;
            let InitConfirm { digest } = parse(&body)?;
            admin
                .keeper
                .ask(move |keeper| keeper.confirm_init(caller.uid, &digest))
                .await
        }
        .await,
    )
}

pub(super) async fn unseal_plan(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Operator, Role::Auditor], "unseal_plan")?;
            admin.keeper.ask(|keeper| keeper.unseal_plan()).await
        }
        .await,
    )
}

pub(super) async fn unseal_cancel(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Operator], "unseal_cancel")?;
            admin.keeper.ask(|keeper| keeper.cancel_unseal()).await
        }
        .await,
    )
}

pub(super) async fn seal(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Operator], "seal")?;
            admin
                .keeper
                .seal(Some(caller.uid), "an operator sealed it")
                .await
        }
        .await,
    )
}

pub(super) async fn vaults(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let demanded = admin.demand(caller, &Role::ALL, "vaults");
    let view = admin.keeper.view();
    reply(demanded.and_then(|()| {
        let vaults = view.vaults().ok_or(ApiError::of(ErrorCode::Sealed))?;
        Ok(Vaults {
            vaults: shown_vaults(vaults),
        })
    }))
}

pub(super) async fn new_vault(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    done(
        async {
            admin.demand(caller, &[Role::Custodian], "new_vault")?;
            let NewVault { name } = parse(&body)?;
            admin
                .keeper
                .ask(move |keeper| keeper.create_vault(caller.uid, &name))
                .await
        }
        .await,
    )
}

pub(super) async fn credentials(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path(vault): Path<VaultName>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &Role::ALL, "credentials")?;
            let credentials = admin
                .keeper
                .ask(move |keeper| keeper.credentials(&vault))
                .await?;
            Ok(Credentials { credentials })
        }
        .await,
    )
}

pub(super) async fn delete_credential(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path((vault, name)): Path<(VaultName, CredentialName)>,
) -> Response {
    done(
        async {
            admin.demand(caller, &[Role::Custodian], "delete_credential")?;
            admin
                .keeper
                .ask(move |keeper| keeper.delete_credential(caller.uid, &vault, &name))
                .await
        }
        .await,
    )
}
