//! The bounds of the admin socket's requests, without a socket.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use hyper::service::Service;

use super::*;

/// A body that never comes.
struct Never;

impl HttpBody for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn router(patience: Duration) -> Router {
    Router::new()
        .route("/", post(|body: Bytes| async move { body }))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE))
        .layer(from_fn(move |request, next| {
            in_time(patience, request, next)
        }))
        .layer(map_response(in_our_form))
}

async fn answer(patience: Duration, body: Body) -> (StatusCode, Bytes) {
    let request = Request::post("/").body(body).unwrap();
    let router = TowerToHyperService::new(router(patience));
    let Ok(response) = router.call(request).await;
    let status = response.status();
    (
        status,
        to_bytes(response.into_body(), MAX_MESSAGE).await.unwrap(),
    )
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (status, body) = answer(Duration::ZERO, Body::new(Never)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let failure: mcpist_core::api::Failure = serde_json::from_slice(&body).unwrap();
    assert!(failure.error.message.contains("in time"), "{failure:?}");
}

#[tokio::test]
async fn a_body_up_to_the_limit_arrives_whole_and_one_over_it_does_not() {
    let patience = Duration::from_secs(60);
    let (status, body) = answer(patience, vec![b'x'; MAX_MESSAGE].into()).await;
    assert_eq!((status, body.len()), (StatusCode::OK, MAX_MESSAGE));
    let (status, body) = answer(patience, vec![b'x'; MAX_MESSAGE + 1].into()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let failure: mcpist_core::api::Failure = serde_json::from_slice(&body).unwrap();
    assert_eq!(failure.error.code, ErrorCode::TooLarge);
}

#[test]
fn a_vault_that_serves_nobody_is_an_alarm_with_its_reason() {
    use mcpist_core::api::{VaultHealth, VaultStatus};
    let vault = |health, reason: Option<&str>| VaultStatus {
        name: mcpist_core::ids::VaultName::parse("team").unwrap(),
        health,
        reason: reason.map(str::to_owned),
        records: 0,
        old_records: 0,
        rotation: None,
        reading: None,
        last_write_missing: false,
    };
    assert_eq!(status::shut(&vault(VaultHealth::Ok, None)), None);
    let bad = vault(VaultHealth::Quarantined, Some("its file was put back"));
    let alarm = status::shut(&bad).unwrap();
    assert_eq!(alarm.code, ErrorCode::VaultQuarantined);
    assert_eq!(alarm.message, "vault team: its file was put back");
    let away = status::shut(&vault(VaultHealth::Unavailable, None)).unwrap();
    assert_eq!(away.code, ErrorCode::VaultUnavailable);
    let sealed = status::shut(&vault(VaultHealth::Sealed, None)).unwrap();
    assert!(sealed.message.ends_with("next: mcpist vault unseal team"));
}
