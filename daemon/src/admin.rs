//! The admin socket: HTTP and JSON over a Unix socket, on a thread of its own.
//!
//! Owns routes, roles and the one form of reply. Promises that every request is answered with
//! [`Reply`](mcpist_core::api::Reply) or [`Failure`](mcpist_core::api::Failure), that a caller without the role
//! learns nothing but that, and that neither `status` nor cutting clients off waits for the keeper (docs/DECISIONS.md says what wiping waits for). Does
//! not carry secrets: those come over [`crate::secret_socket`].

mod policy;
mod store;

pub(crate) use store::started;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mcpist_core::api::{ApiError, Done, MAX_MESSAGE, Reply, TicketRequest, path};
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_secret::frame::Ticket;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use crate::clock::steady_seconds;
use crate::house::House;
use crate::keeper::{KeeperHandle, lock};
use crate::roles::{Caller, Role};
use crate::secret_socket::Purpose;
use crate::tickets::LIFETIME_S;

/// Headers of a request must be there within this time.
const HEADERS: Duration = Duration::from_secs(10);
/// The form of every answer.
const JSON: &str = "application/json";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) house: Arc<House>,
    pub(crate) keeper: KeeperHandle,
}

type Answer<T> = Result<T, ApiError>;

impl Admin {
    /// Serves the socket until the process ends.
    pub(crate) async fn serve(self, listener: UnixListener) {
        let router = self.router();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connection(router.clone(), stream));
                }
                Err(e) => {
                    log::warn!("admin socket: accept failed: {}", e.kind());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route(path::STATUS, get(store::status))
            .route(path::INIT, post(store::init))
            .route(path::INIT_CONFIRM, post(store::init_confirm))
            .route(path::UNSEAL, get(store::unseal_plan))
            .route(path::UNSEAL_CANCEL, post(store::unseal_cancel))
            .route(path::SEAL, post(store::seal))
            .route(path::TICKET, post(ticket))
            .route(path::VAULTS, get(store::vaults).post(store::new_vault))
            .route("/v1/vaults/{vault}/credentials", get(store::credentials))
            .route(
                "/v1/vaults/{vault}/credentials/{name}",
                delete(store::delete_credential),
            )
            .route(path::PRINCIPALS, get(policy::principals))
            .route(path::GRANTS, get(policy::grants))
            .route(path::BINDINGS, get(policy::bindings))
            .route(path::JOINS, get(policy::joins))
            .route(path::REGISTRIES, get(policy::registries))
            .route(path::CHANGES, get(policy::changes).post(policy::propose))
            .route("/v1/changes/{change}", delete(policy::withdraw))
            .route("/v1/changes/{change}/approvals", post(policy::approve))
            .route(path::MASK_EXPLAIN, post(policy::explain))
            .route(path::AUDIT_HEAD, get(store::audit_head))
            .fallback(|| async {
                failure(&ApiError::new(
                    ErrorCode::NotFound,
                    "no such path; see 'mcpist --help'",
                ))
            })
            .method_not_allowed_fallback(|| async {
                failure(&ApiError::new(
                    ErrorCode::RequestInvalid,
                    "this path does not take this method",
                ))
            })
            .layer(DefaultBodyLimit::max(MAX_MESSAGE))
            .layer(map_response(in_our_form))
            .with_state(self)
    }

    /// Refuses a caller that has none of `roles`; the refusal is recorded where the log is open.
    pub(crate) fn demand(
        &self,
        caller: Caller,
        roles: &[Role],
        action: &'static str,
    ) -> Answer<()> {
        let config = &self.house.config;
        let groups = &config.roles;
        caller
            .has_any(roles, (!config.dev).then_some(groups))
            .map_err(|code| {
                log::warn!("admin: uid {} refused: {action}", caller.uid);
                let event = Event::AdminRefused {
                    uid: caller.uid,
                    action,
                    code,
                };
                if let Err(e) = self.house.audit.append(&event) {
                    log::debug!("not in the audit log: {e}");
                }
                let groups: Vec<_> = roles.iter().map(|r| groups.of(*r)).collect();
                ApiError::of(code).next(&format!("ask for membership in {}", groups.join(" or ")))
            })
    }
}

async fn connection(router: Router, stream: UnixStream) {
    let Ok(cred) = stream.peer_cred() else { return };
    let service = router.layer(Extension(Caller { uid: cred.uid() }));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(e) = served {
        log::debug!("admin connection ended: {e}");
    }
}

/// A ticket for the secret socket, for whoever may use its purpose.
async fn ticket(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    reply(
        async {
            let TicketRequest { purpose } = parse(&body)?;
            let role = match purpose {
                Purpose::InitToken | Purpose::Unseal { .. } => Role::Operator,
                Purpose::Credential { .. } => Role::Custodian,
                Purpose::Import => Role::Officer,
            };
            admin.demand(caller, &[role], purpose.as_str())?;
            let ticket = Ticket::random()
                .map_err(|e| ApiError::new(ErrorCode::Unavailable, &e.to_string()))?;
            let name = purpose.as_str();
            lock(&admin.house.tickets)
                .issue(&ticket, caller.uid, purpose, steady_seconds())
                .map_err(|e| ApiError::new(ErrorCode::Busy, &e.to_string()))?;
            // While sealed there is no log to write to; the ceremony's own lines say what came of the ticket.
            let _ = admin.house.audit.append(&Event::TicketIssued {
                uid: caller.uid,
                purpose: name,
            });
            Ok(mcpist_core::api::Ticket {
                ticket: ticket.to_text(),
                expires_s: LIFETIME_S,
            })
        }
        .await,
    )
}

/// Reads a request's body, strictly.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|e| {
        ApiError::new(
            ErrorCode::RequestInvalid,
            &format!("the request's JSON: {e}"),
        )
    })
}

/// The one form of every answer.
pub(crate) fn reply<T: Serialize>(answer: Answer<T>) -> Response {
    match answer {
        Ok(data) => json(StatusCode::OK, &Reply::new(data)),
        Err(e) => failure(&e),
    }
}

/// What refuses a request before its handler runs (a body over the limit, a name in the path that is none) answers in
/// plain text; the caller gets a [`Failure`](mcpist_core::api::Failure) in its place.
async fn in_our_form(response: Response) -> Response {
    let ours = response.headers().get(header::CONTENT_TYPE);
    if response.status().is_success() || ours.is_some_and(|form| form == JSON) {
        return response;
    }
    let error = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            ErrorCode::TooLarge,
            &format!("the request's body is over its limit of {MAX_MESSAGE} bytes"),
        ),
        _ => ApiError::new(
            ErrorCode::RequestInvalid,
            "the request's path or body has not the form that this path takes",
        ),
    };
    failure(&error)
}

fn failure(error: &ApiError) -> Response {
    let status =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &error.clone().into_failure())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The reply to an act that has nothing to say.
pub(crate) fn done(answer: Answer<()>) -> Response {
    reply(answer.map(|()| Done {}))
}
