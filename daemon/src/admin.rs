//! The admin socket: HTTP and JSON over a Unix socket, on a thread of its own.
//!
//! Owns routes, roles, bounds and the one form of reply. Promises that every request is answered with
//! [`Reply`](mcpist_core::api::Reply) or [`Failure`](mcpist_core::api::Failure), that a caller without the role
//! learns nothing but that, that neither `status` nor a seal depends on the keeper or on the audit log's disk, and that
//! no user's connections keep another's out. Does not carry secrets: those come over [`crate::secret_socket`].

mod audit;
mod ceremony;
mod clerk;
mod policy;
mod process;
mod restore;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod vault;

pub(crate) use clerk::Clerk;
pub(crate) use status::started;
#[cfg(test)]
pub(crate) use {clerk::Stuck, status::shown};

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http_body_util::LengthLimitError;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mcpist_core::api::{ApiError, MAX_MESSAGE, Reply, path};
use mcpist_core::error::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use crate::admin::clerk::Errand;
use crate::connections::{Connections, User};
use crate::house::House;
use crate::keeper::{Keeper, KeeperHandle};
use crate::refusals::refused;
use crate::roles::{Caller, Role};

/// Headers of a request must be there within this time, and its body within as much again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const AT_ONCE: usize = 64;
/// Of them, those of one user.
const OF_ONE_USER: usize = 16;
/// The form of every answer.
const JSON: &str = "application/json";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) house: Arc<House>,
    pub(crate) keeper: KeeperHandle,
    pub(crate) clerk: Clerk,
}

type Answer<T> = Result<T, ApiError>;

/// Who asks whom: what every handler begins with.
pub(crate) struct Call {
    admin: Admin,
    caller: Caller,
}

impl FromRequestParts<Admin> for Call {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, StatusCode> {
        // Every connection's requests carry it.
        let caller = parts.extensions.get::<Caller>().copied();
        Ok(Call {
            admin: admin.clone(),
            caller: caller.ok_or(StatusCode::UNAUTHORIZED)?,
        })
    }
}

impl Call {
    /// Refuses a caller that has none of `roles`; the refusal is recorded where the log is open.
    async fn demand(&self, roles: &[Role], action: &'static str) -> Answer<()> {
        let config = &self.admin.house.config;
        let (uid, groups) = (self.caller.uid, &config.roles);
        let granted = self.caller.has_any(roles, (!config.dev).then_some(groups));
        granted.await.map_err(|code| {
            log::warn!("admin: uid {uid} refused: {action}");
            self.admin.clerk.send(Errand::Refused { uid, action, code });
            if code != ErrorCode::Forbidden {
                return ApiError::new(code, "the host did not say which groups the caller is in")
                    .next(
                        "see to the host's directory of users: getent group, systemctl status sssd",
                    );
            }
            let groups: Vec<_> = roles.iter().map(|r| groups.of(*r)).collect();
            ApiError::of(code).next(&format!("ask for membership in {}", groups.join(" or ")))
        })
    }

    /// The answer of an act of the keeper, which the caller's uid comes along with.
    async fn ask<T: Serialize + Send + 'static>(
        self,
        roles: &[Role],
        action: &'static str,
        act: impl FnOnce(&mut Keeper, u32) -> Answer<T> + Send + 'static,
    ) -> Response {
        if let Err(e) = self.demand(roles, action).await {
            return failure(&e);
        }
        let uid = self.caller.uid;
        reply(self.admin.keeper.ask(move |keeper| act(keeper, uid)).await)
    }

    /// [`Call::ask`] with what the request's body says.
    async fn ask_with<B: DeserializeOwned + Send + 'static, T: Serialize + Send + 'static>(
        self,
        roles: &[Role],
        action: &'static str,
        body: &[u8],
        act: impl FnOnce(&mut Keeper, u32, B) -> Answer<T> + Send + 'static,
    ) -> Response {
        if let Err(e) = self.demand(roles, action).await {
            return failure(&e);
        }
        match parse(body) {
            Ok(asked) => {
                let uid = self.caller.uid;
                let act = move |keeper: &mut Keeper| act(keeper, uid, asked);
                reply(self.admin.keeper.ask(act).await)
            }
            Err(e) => failure(&e),
        }
    }
}

impl Admin {
    /// Serves the socket until the process ends.
    pub(crate) async fn serve(self, listener: UnixListener) {
        let connections = Connections::new(AT_ONCE, OF_ONE_USER);
        let house = Arc::clone(&self.house);
        let router = self.router();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(uid) = stream.peer_cred().map(|cred| cred.uid()) else {
                        continue;
                    };
                    let Some(held) = connections.admit(User::Uid(uid)) else {
                        refused(&house, "admin.sock", Some(uid));
                        continue;
                    };
                    let router = router.clone().layer(Extension(Caller { uid }));
                    tokio::spawn(async move {
                        let _held = held;
                        connection(router, stream).await;
                    });
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
            .route(path::STATUS, get(status::status))
            .route(path::INIT, post(store::init))
            .route(path::INIT_CONFIRM, post(store::init_confirm))
            .route(path::UNSEAL, get(store::unseal_plan))
            .route(path::UNSEAL_CANCEL, post(store::unseal_cancel))
            .route(
                path::CEREMONY,
                get(ceremony::show)
                    .post(ceremony::begin)
                    .delete(ceremony::cancel),
            )
            .route(path::CEREMONY_SHARES, get(ceremony::shares))
            .route(path::SEAL, post(store::seal))
            .route(path::RESTORE, get(restore::shown).delete(restore::cancel))
            .route(path::RESTORE_RECORD, get(restore::record))
            .route(
                path::RESTORE_OLD,
                get(restore::old).delete(restore::remove_old),
            )
            .route(
                path::WITNESS,
                get(store::pull_receipt).post(store::present_receipt),
            )
            .route(path::TICKET, post(store::ticket))
            .route(path::VAULTS, get(status::vaults).post(store::new_vault))
            .route(
                "/v1/vaults/{vault}/confirm-last-write",
                post(store::confirm_last_write),
            )
            .route("/v1/vaults/{vault}/seal", post(vault::seal))
            .route("/v1/vaults/{vault}/verify", post(vault::verify))
            .route("/v1/vaults/{vault}/examine", post(vault::examine))
            .route("/v1/vaults/{vault}/repair", post(vault::repair))
            .route("/v1/vaults/{vault}/discard", post(vault::discard))
            .route("/v1/vaults/{vault}/rotate", post(vault::rotate))
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
            .route(
                "/v1/changes/{change}",
                get(policy::proposed).delete(policy::withdraw),
            )
            .route("/v1/changes/{change}/approvals", post(policy::approve))
            .route(path::MASK_EXPLAIN, post(policy::explain))
            .route(path::AUDIT_HEAD, get(status::audit_head))
            .route(path::AUDIT_LINES, post(audit::lines))
            .route(path::AUDIT_MATCH, post(audit::matches))
            .route(path::AUDIT_CONFIRM, post(audit::confirm))
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
            .layer(from_fn(|request, next| in_time(PATIENCE, request, next)))
            .layer(map_response(in_our_form))
            .with_state(self)
    }
}

async fn connection(router: Router, stream: UnixStream) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        log::debug!("admin connection ended: {e}");
    }
}

/// Reads the request's body whole, within `patience`.
async fn in_time(patience: Duration, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(patience, to_bytes(body, MAX_MESSAGE)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(e)) => {
            if e.into_inner().is::<LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE.into_response()
            } else {
                StatusCode::BAD_REQUEST.into_response()
            }
        }
        Err(_) => failure(&ApiError::new(
            ErrorCode::RequestInvalid,
            "the request's body did not come in time",
        )),
    }
}

/// Reads a request's body, strictly.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|e| {
        ApiError::new(
            ErrorCode::RequestInvalid,
            &format!("the request's JSON: {e}"),
        )
    })
}

/// The one form of every answer.
fn reply<T: Serialize>(answer: Answer<T>) -> Response {
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
