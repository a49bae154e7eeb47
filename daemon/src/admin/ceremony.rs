//! The open ceremony of an open store: begun, shown, cancelled.

use axum::body::Bytes;
use axum::response::Response;
use mcpist_core::api::CeremonyRequest;

use super::Call;
use crate::keeper::Keeper;
use crate::roles::Role;

pub(super) async fn begin(call: Call, body: Bytes) -> Response {
    let begin =
        |keeper: &mut Keeper, uid, asked: CeremonyRequest| keeper.begin_ceremony(uid, asked);
    call.ask_with(&[Role::Operator], "ceremony_begin", &body, begin)
        .await
}

pub(super) async fn show(call: Call) -> Response {
    let roles = [Role::Operator, Role::Auditor];
    call.ask(&roles, "ceremony", |keeper, _| keeper.ceremony())
        .await
}

pub(super) async fn shares(call: Call) -> Response {
    call.ask(&[Role::Operator], "ceremony_shares", |keeper, _| {
        keeper.new_shares()
    })
    .await
}

pub(super) async fn cancel(call: Call) -> Response {
    call.ask(&[Role::Operator], "ceremony_cancel", |keeper, uid| {
        keeper.cancel_ceremony(uid)
    })
    .await
}
