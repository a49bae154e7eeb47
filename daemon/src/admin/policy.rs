//! Principals, grants, bindings, joins, registries; changes and their approvals; the mask explained.

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use mcpist_core::api::{
    ApiError, Approve, Bindings, Changes, ExplainMask, Grants, Joins, Principals, ProposeChange,
    Registries,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::Digest;

use super::{Admin, Answer, parse, reply};
use crate::keeper::policy::Policy;
use crate::roles::{Caller, Role};

async fn read<T: Send + 'static>(
    admin: &Admin,
    caller: Caller,
    action: &'static str,
    read: impl FnOnce(&Policy) -> T + Send + 'static,
) -> Answer<T> {
    admin.demand(caller, &Role::ALL, action)?;
    admin
        .keeper
        .ask(move |keeper| keeper.open().map(|open| read(&open.policy)))
        .await
}

pub(super) async fn principals(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let list = |policy: &Policy| Principals {
        principals: policy.principals.values().cloned().collect(),
    };
    reply(read(&admin, caller, "principals", list).await)
}

pub(super) async fn grants(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let list = |policy: &Policy| Grants {
        grants: policy.grants.values().cloned().collect(),
    };
    reply(read(&admin, caller, "grants", list).await)
}

pub(super) async fn bindings(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let list = |policy: &Policy| Bindings {
        bindings: policy.bindings.values().cloned().collect(),
    };
    reply(read(&admin, caller, "bindings", list).await)
}

pub(super) async fn joins(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let list = |policy: &Policy| Joins {
        joins: policy.joins.values().cloned().collect(),
    };
    reply(read(&admin, caller, "joins", list).await)
}

pub(super) async fn registries(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &Role::ALL, "registries")?;
            let registries = admin.keeper.ask(|keeper| keeper.registries()).await?;
            Ok(Registries { registries })
        }
        .await,
    )
}

pub(super) async fn propose(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Officer], "propose")?;
            let ProposeChange { change } = parse(&body)?;
            admin
                .keeper
                .ask(move |keeper| keeper.propose(caller.uid, change))
                .await
        }
        .await,
    )
}

pub(super) async fn changes(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &Role::ALL, "changes")?;
            let changes = admin.keeper.ask(|keeper| keeper.waiting()).await?;
            Ok(Changes { changes })
        }
        .await,
    )
}

pub(super) async fn withdraw(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path(change): Path<Digest>,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Officer], "withdraw")?;
            admin
                .keeper
                .ask(move |keeper| keeper.withdraw(caller.uid, &change))
                .await
        }
        .await,
    )
}

pub(super) async fn approve(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path(change): Path<Digest>,
    body: Bytes,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Officer], "approve")?;
            let approve: Approve = parse(&body)?;
            admin
                .keeper
                .ask(move |keeper| keeper.approve(caller.uid, &change, approve))
                .await
        }
        .await,
    )
}

/// Names hidden tools, and so is for officers and auditors alone.
pub(super) async fn explain(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    reply(
        async {
            admin.demand(caller, &[Role::Officer, Role::Auditor], "mask_explain")?;
            let asked: ExplainMask = parse(&body)?;
            let live = admin.house.live().ok_or(ApiError::of(ErrorCode::Sealed))?;
            let principal = asked.principal.clone();
            let record = admin
                .keeper
                .ask(move |k| Ok(k.open()?.policy.principals.get(&principal).cloned()))
                .await?;
            let unknown = || {
                ApiError::new(
                    ErrorCode::NotFound,
                    "no such principal; see 'mcpist principal list'",
                )
            };
            Ok(live
                .mask
                .explain(&record.ok_or_else(unknown)?, &asked.module, &asked.tool))
        }
        .await,
    )
}
