//! Ceremonies, tickets, vaults and credentials.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::Response;
use mcpist_core::api::{
    ApiError, Done, InitConfirm, InitRequest, NewVault, PresentReceipt, Sealed, Ticket,
    TicketRequest,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{CredentialName, VaultName};
use mcpist_secret::frame;

use super::clerk::Errand;
use super::{Answer, Call, parse, reply};
use crate::clock::steady_seconds;
use crate::keeper::lock;
use crate::roles::Role;
use crate::secret_socket::Purpose;
use crate::tickets::LIFETIME_S;

pub(super) async fn init(call: Call, body: Bytes) -> Response {
    call.ask_with(&[Role::Operator], "init", &body, |keeper, uid, asked| {
        let request: InitRequest = asked;
        keeper.plan_init(uid, request)
    })
    .await
}

pub(super) async fn init_confirm(call: Call, body: Bytes) -> Response {
    let confirm = |keeper: &mut crate::keeper::Keeper, uid, asked: InitConfirm| {
        keeper.confirm_init(uid, &asked.digest)
    };
    call.ask_with(&[Role::Operator], "init_confirm", &body, confirm)
        .await
}

pub(super) async fn unseal_plan(call: Call) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask(&roles, "unseal_plan", |keeper, _| keeper.unseal_plan())
        .await
}

pub(super) async fn unseal_cancel(call: Call) -> Response {
    call.ask(&[Role::Operator], "unseal_cancel", |keeper, uid| {
        keeper.cancel_unseal(uid)
    })
    .await
}

pub(super) async fn seal(call: Call) -> Response {
    if let Err(e) = call.demand(&[Role::Operator], "seal").await {
        return reply::<Sealed>(Err(e));
    }
    let (keeper, uid) = (&call.admin.keeper, call.caller.uid);
    reply(keeper.seal(Some(uid), "an operator sealed it").await)
}

pub(super) async fn pull_receipt(call: Call) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask(&roles, "witness_pull", |keeper, uid| {
        keeper.pull_receipt(uid)
    })
    .await
}

pub(super) async fn present_receipt(call: Call, body: Bytes) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask_with(&roles, "witness_present", &body, |keeper, uid, asked| {
        let PresentReceipt { receipt } = asked;
        keeper.present_receipt(uid, &receipt)
    })
    .await
}

/// A ticket for the secret socket, for whoever may use its purpose.
pub(super) async fn ticket(call: Call, body: Bytes) -> Response {
    reply(issue(&call, &body).await)
}

async fn issue(call: &Call, body: &[u8]) -> Answer<Ticket> {
    let TicketRequest { purpose } = parse(body)?;
    let roles: &[Role] = match purpose {
        Purpose::InitToken | Purpose::Share { .. } => &[Role::Operator],
        Purpose::Credential { .. } => &[Role::Custodian],
        Purpose::Import => &[Role::Officer],
        Purpose::Backup
        | Purpose::VerifyBackup
        | Purpose::Restore
        | Purpose::Drill
        | Purpose::RestoreVault { .. } => &[Role::Operator],
        Purpose::Export { .. } => &[Role::Auditor, Role::Operator],
    };
    let (uid, name) = (call.caller.uid, purpose.as_str());
    call.demand(roles, name).await?;
    let ticket = frame::Ticket::random()
        .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
    lock(&call.admin.house.tickets)
        .issue(&ticket, uid, purpose, steady_seconds())
        .map_err(|e| ApiError::new(ErrorCode::Busy, &e.to_string()))?;
    log::info!("ticket for {name} issued to uid {uid}");
    call.admin.clerk.send(Errand::Ticket { uid, purpose: name });
    Ok(Ticket {
        ticket: ticket.to_text(),
        expires_s: LIFETIME_S,
    })
}

pub(super) async fn new_vault(call: Call, body: Bytes) -> Response {
    call.ask_with(
        &[Role::Custodian],
        "new_vault",
        &body,
        |keeper, uid, asked| {
            let NewVault { name } = asked;
            keeper.create_vault(uid, &name).map(|()| Done {})
        },
    )
    .await
}

pub(super) async fn confirm_last_write(call: Call, Path(vault): Path<VaultName>) -> Response {
    call.ask(
        &[Role::Custodian],
        "confirm_last_write",
        move |keeper, uid| keeper.confirm_last_write(uid, &vault).map(|()| Done {}),
    )
    .await
}

pub(super) async fn credentials(call: Call, Path(vault): Path<VaultName>) -> Response {
    call.ask(&Role::ALL, "credentials", move |keeper, _| {
        keeper.credentials(&vault)
    })
    .await
}

pub(super) async fn delete_credential(
    call: Call,
    Path((vault, name)): Path<(VaultName, CredentialName)>,
) -> Response {
    call.ask(
        &[Role::Custodian],
        "delete_credential",
        move |keeper, uid| {
            let deleted = keeper.delete_credential(uid, &vault, &name);
            deleted.map(|()| Done {})
        },
    )
    .await
}
