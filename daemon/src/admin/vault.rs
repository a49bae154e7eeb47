//! What is done to a vault as a whole.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::Response;
use mcpist_core::api::{DamagedDiscarded, RepairVault, RotateVault};
use mcpist_core::ids::VaultName;

use super::{Call, failure, parse, reply};
use crate::roles::Role;

pub(super) async fn verify(call: Call, Path(vault): Path<VaultName>) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    if let Err(e) = call.demand(&roles, "verify_vault").await {
        return failure(&e);
    }
    let keeper = &call.admin.keeper;
    reply(keeper.verify_vault(call.caller.uid, vault).await)
}

pub(super) async fn rotate(call: Call, Path(vault): Path<VaultName>, body: Bytes) -> Response {
    if let Err(e) = call.demand(&[Role::Operator], "rotate_vault").await {
        return failure(&e);
    }
    let RotateVault { lazy } = match parse(&body) {
        Ok(asked) => asked,
        Err(e) => return failure(&e),
    };
    let keeper = &call.admin.keeper;
    reply(keeper.rotate_vault(call.caller.uid, vault, lazy).await)
}

pub(super) async fn examine(call: Call, Path(vault): Path<VaultName>) -> Response {
    if let Err(e) = call.demand(&[Role::Custodian], "examine_vault").await {
        return failure(&e);
    }
    reply(call.admin.keeper.examine_vault(vault).await)
}

pub(super) async fn repair(call: Call, Path(vault): Path<VaultName>, body: Bytes) -> Response {
    if let Err(e) = call.demand(&[Role::Custodian], "repair_vault").await {
        return failure(&e);
    }
    let RepairVault { plan } = match parse(&body) {
        Ok(asked) => asked,
        Err(e) => return failure(&e),
    };
    let keeper = &call.admin.keeper;
    reply(keeper.repair_vault(call.caller.uid, vault, plan).await)
}

pub(super) async fn discard(call: Call, Path(vault): Path<VaultName>) -> Response {
    call.ask(&[Role::Custodian], "discard_damaged", move |keeper, uid| {
        let files = keeper.discard_damaged(uid, &vault)?;
        Ok(DamagedDiscarded { files })
    })
    .await
}

pub(super) async fn seal(call: Call, Path(vault): Path<VaultName>) -> Response {
    if let Err(e) = call.demand(&[Role::Operator], "seal_vault").await {
        return failure(&e);
    }
    let uid = call.caller.uid;
    let keeper = &call.admin.keeper;
    reply(keeper.ask(move |k| k.seal_vault(uid, &vault)).await)
}
