//! The restore that waits for its quorum, and the store that one replaced.

use axum::response::Response;

use super::Call;
use crate::roles::Role;

pub(super) async fn shown(call: Call) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask(&roles, "restore", |keeper, _| keeper.open_restore())
        .await
}

pub(super) async fn cancel(call: Call) -> Response {
    call.ask(&[Role::Operator], "restore_cancel", |keeper, uid| {
        keeper.cancel_restore(uid)
    })
    .await
}

pub(super) async fn record(call: Call) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask(&roles, "restore_record", |keeper, _| keeper.life_record())
        .await
}

pub(super) async fn old(call: Call) -> Response {
    call.ask(&[Role::Operator], "restore_old", |keeper, _| {
        keeper.old_store()
    })
    .await
}

pub(super) async fn remove_old(call: Call) -> Response {
    call.ask(&[Role::Operator], "restore_remove_old", |keeper, uid| {
        keeper.remove_old(uid)
    })
    .await
}
