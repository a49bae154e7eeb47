//! Principals, grants, bindings, joins, registries; changes and their approvals; the mask explained.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::Response;
use mcpist_core::api::{
    ApiError, Approve, Bindings, Changes, ExplainMask, Grants, Joins, Principals, ProposeChange,
    Registries,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;
use serde::Serialize;

use super::{Answer, Call, parse, reply};
use crate::keeper::policy::Policy;
use crate::roles::Role;

async fn read<T: Serialize + Send + 'static>(
    call: Call,
    action: &'static str,
    read: impl FnOnce(&Policy) -> T + Send + 'static,
) -> Response {
    let read = |keeper: &mut crate::keeper::Keeper, _| Ok(read(&keeper.open()?.policy));
    call.ask(&Role::ALL, action, read).await
}

pub(super) async fn principals(call: Call) -> Response {
    let list = |policy: &Policy| Principals {
        principals: policy.principals.values().cloned().collect(),
    };
    read(call, "principals", list).await
}

pub(super) async fn grants(call: Call) -> Response {
    let list = |policy: &Policy| Grants {
        grants: policy.grants.values().cloned().collect(),
    };
    read(call, "grants", list).await
}

pub(super) async fn bindings(call: Call) -> Response {
    let list = |policy: &Policy| Bindings {
        bindings: policy.bindings.values().cloned().collect(),
    };
    read(call, "bindings", list).await
}

pub(super) async fn joins(call: Call) -> Response {
    let list = |policy: &Policy| Joins {
        joins: policy.joins.values().cloned().collect(),
    };
    read(call, "joins", list).await
}

pub(super) async fn registries(call: Call) -> Response {
    call.ask(&Role::ALL, "registries", |keeper, _| {
        let registries = keeper.registries()?;
        Ok(Registries { registries })
    })
    .await
}

pub(super) async fn changes(call: Call) -> Response {
    call.ask(&Role::ALL, "changes", |keeper, _| {
        let changes = keeper.waiting()?;
        Ok(Changes { changes })
    })
    .await
}

pub(super) async fn propose(call: Call, body: Bytes) -> Response {
    call.ask_with(&[Role::Officer], "propose", &body, |keeper, uid, asked| {
        let ProposeChange { change } = asked;
        keeper.propose(uid, change)
    })
    .await
}

pub(super) async fn proposed(call: Call, Path(change): Path<Digest>) -> Response {
    call.ask(&Role::ALL, "change", move |keeper, _| {
        keeper.proposed(&change)
    })
    .await
}

pub(super) async fn withdraw(call: Call, Path(change): Path<Digest>) -> Response {
    call.ask(&[Role::Officer], "withdraw", move |keeper, uid| {
        keeper.withdraw(uid, &change)
    })
    .await
}

pub(super) async fn approve(call: Call, Path(change): Path<Digest>, body: Bytes) -> Response {
    let approve = move |keeper: &mut crate::keeper::Keeper, uid, asked: Approve| {
        keeper.approve(uid, &change, asked)
    };
    call.ask_with(&[Role::Officer], "approve", &body, approve)
        .await
}

/// Names hidden tools, and so is for officers and auditors alone.
pub(super) async fn explain(call: Call, body: Bytes) -> Response {
    reply(explained(&call, &body).await)
}

async fn explained(call: &Call, body: &[u8]) -> Answer<impl Serialize + use<>> {
    call.demand(&[Role::Officer, Role::Auditor], "mask_explain")
        .await?;
    let asked: ExplainMask = parse(body)?;
    let keeper = &call.admin.keeper;
    let live = call.admin.house.live();
    let live = live.ok_or_else(|| keeper.view().why_closed())?;
    let principal = asked.principal.clone();
    let record = keeper
        .ask(move |k| Ok(k.open()?.policy.principals.get(&principal).cloned()))
        .await?;
    let unknown = || {
        ApiError::new(
            ErrorCode::NotFound,
            "no such principal; see 'mcpist principal list'",
        )
    };
    let record = record.ok_or_else(unknown)?;
    Ok(live.mask.explain(&record, &asked.module, &asked.tool))
}
