//! The audit log for its auditors: its lines, what they have of its exports, and a comparison with what it recorded.
//!
//! Files and the log's mutex are waited for on threads of their own, never on the admin thread.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::response::Response;
use mcpist_core::api::{
    ApiError, AskLines, Base64, ConfirmExport, Confirmed, Lines, LinesFrom, MatchArguments, Matched,
};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::{ArgumentsMac, Event};
use mcpist_core::ids::Digest;

use super::{Admin, Answer, Call, parse, reply};
use crate::audit::{Asker, AuditError, ConfirmError, read_lines};
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

/// Compares under the audit sub-key, which never leaves: what is asked for is one bit, and it is answered only with a line
/// of its own in the log. Beyond one user's share of lines a comparison is refused, so that nobody tries values unseen.
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
        let recorded = (house.audit).append_limited(Asker::Compared(uid), &event, Instant::now());
        match recorded.map_err(|e| audit_error(&e))? {
            Some(_) => Ok(Matched { matched }),
            None => Err(ApiError::new(
                ErrorCode::Busy,
                "too many comparisons: each has a line in the log, and one a second is answered",
            )
            .next("wait a second, then: mcpist audit match")),
        }
    });
    compared
        .await
        .unwrap_or_else(|_| Err(ApiError::of(ErrorCode::Internal)))
}

pub(super) async fn confirm(call: Call, body: Bytes) -> Response {
    if let Err(e) = call.demand(&[Role::Auditor], "audit_confirm").await {
        return reply::<Confirmed>(Err(e));
    }
    reply(confirmed(&call, &body).await)
}

async fn confirmed(call: &Call, body: &[u8]) -> Answer<Confirmed> {
    let ConfirmExport { digest } = parse(body)?;
    let house = std::sync::Arc::clone(&call.admin.house);
    let uid = call.caller.uid;
    let confirmed = tokio::task::spawn_blocking(move || {
        let folder = house.config.audit();
        (house.audit.confirm(&folder, &digest, uid)).map_err(|e| unconfirmed(&e))
    });
    confirmed
        .await
        .unwrap_or_else(|_| Err(ApiError::of(ErrorCode::Internal)))
}

/// Why an export was not confirmed.
fn unconfirmed(error: &ConfirmError) -> ApiError {
    let (code, next) = match error {
        ConfirmError::Log(AuditError::Closed) => return ApiError::of(ErrorCode::Sealed),
        ConfirmError::Log(e) => return audit_error(e),
        ConfirmError::Unknown => (ErrorCode::NotFound, "mcpist audit export FILE"),
        ConfirmError::Own(_) => (
            ErrorCode::Forbidden,
            "another auditor: mcpist audit confirm FILE",
        ),
        ConfirmError::Gap(_) => (
            ErrorCode::Conflict,
            "confirm the export before it, or: mcpist audit export FILE",
        ),
        ConfirmError::Damaged(_) | ConfirmError::Another => {
            (ErrorCode::AuditUnavailable, "mcpist audit verify")
        }
        ConfirmError::Read(_) => (ErrorCode::AuditUnavailable, "mend the log's disk"),
    };
    ApiError::new(code, &error.to_string()).next(next)
}
