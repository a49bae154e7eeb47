//! The audit log for its auditors: its lines, and a comparison with what it recorded.
//!
//! Files and the log's mutex are waited for on threads of their own, never on the admin thread.

use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use mcpist_core::api::{ApiError, AskLines, Base64, Lines, LinesFrom, MatchArguments, Matched};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{ArgumentsMac, Event};
use mcpist_core::ids::Digest;

use super::{Admin, Answer, Call, parse, reply};
use crate::audit::read_lines;
use crate::keeper::audit_error;
use crate::roles::Role;

/// What is waited for new lines.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn lines(call: Call, body: Bytes) -> Response {
    if let Err(e) = call.demand(&[Role::Auditor], "audit_lines").await {
        return reply::<Lines>(Err(e));
    }
    reply(answer(&call.admin, &body).await)
}

async fn answer(admin: &Admin, body: &[u8]) -> Answer<Lines> {
    let AskLines { from, wait } = parse(body)?;
    let lines = read(admin, from).await?;
    if !wait || !lines.text.is_empty() {
        return Ok(lines);
    }
    // Where nothing comes, the same place is asked for again.
    let _ = tokio::time::timeout(PATIENCE, admin.house.audit.beyond(lines.last)).await;
    read(admin, LinesFrom::Cursor(lines.next)).await
}

async fn read(admin: &Admin, from: LinesFrom) -> Answer<Lines> {
    let house = std::sync::Arc::clone(&admin.house);
    let read = tokio::task::spawn_blocking(move || {
        let durable = house.audit.durable();
        read_lines(&house.config.audit(), from, durable)
    });
    match read.await {
        Ok(Ok(lines)) => Ok(lines),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Err(ApiError::new(
            ErrorCode::NotFound,
            "the log has no such place any more",
        )
        .next("mcpist audit tail; what was exported and left is on its medium")),
        Ok(Err(e)) => Err(ApiError::new(
            ErrorCode::AuditUnavailable,
            &format!("the audit log's files cannot be read: {}", e.kind()),
        )),
        Err(_) => Err(ApiError::of(ErrorCode::Internal)),
    }
}

pub(super) async fn matches(call: Call, body: Bytes) -> Response {
    if let Err(e) = call.demand(&[Role::Auditor], "audit_match").await {
        return reply::<Matched>(Err(e));
    }
    reply(compare(&call, &body).await)
}

/// Compares under the audit sub-key, which never leaves: what is asked for is one bit, and it is recorded.
async fn compare(call: &Call, body: &[u8]) -> Answer<Matched> {
    let MatchArguments {
        recorded,
        arguments: Base64(arguments),
    } = parse(body)?;
    let house = std::sync::Arc::clone(&call.admin.house);
    let uid = call.caller.uid;
    let compared = tokio::task::spawn_blocking(move || {
        let live = house.live().ok_or(ApiError::of(ErrorCode::Sealed))?;
        let mac = live
            .mac
            .mac(&arguments)
            .map_err(|_| ApiError::of(ErrorCode::Sealed))?;
        let matched = Digest::from_bytes(mac) == recorded;
        let event = Event::AuditMatched {
            arguments: ArgumentsMac(*recorded.as_bytes()),
            matched,
            uid,
        };
        house.audit.append(&event).map_err(|e| audit_error(&e))?;
        Ok(Matched { matched })
    });
    compared
        .await
        .unwrap_or_else(|_| Err(ApiError::of(ErrorCode::Internal)))
}
