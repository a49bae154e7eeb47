//! The demo's service: a small plant behind HTTP on 127.0.0.1 that demands its bearer token.
//!
//! Promises to answer 401 without the token, and to repeat the token to whoever asks at `/api/echo`: a service as
//! careless as they come, so that the redaction of answers has something to do.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mcpist_secret::Secret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The running service; it ends with this value.
pub(crate) struct Service {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    plant: Arc<Plant>,
    task: JoinHandle<()>,
}

struct Plant {
    token: Secret,
    served: AtomicU64,
    refused: AtomicU64,
}

impl Service {
    /// Begins to serve on a free port.
    pub(crate) async fn start(token: Secret) -> std::io::Result<Service> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let plant = Arc::new(Plant {
            token,
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let serving = Arc::clone(&plant);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let plant = Arc::clone(&serving);
                tokio::spawn(async move {
                    let answer = service_fn(|request| {
                        let answer = plant.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A client that hangs up is no concern of the demo.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Ok(Service {
            address,
            plant,
            task,
        })
    }

    /// Requests with and without the token so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.plant.served.load(Ordering::Relaxed),
            self.plant.refused.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plant {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let given = request
            .headers()
            .get("authorization")
            .map(|v| v.as_bytes())
            .unwrap_or_default();
        let token = given.strip_prefix(b"Bearer ").unwrap_or_default();
        if !self.token.ct_eq(token) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return json(
                StatusCode::UNAUTHORIZED,
                "{\"error\":\"no valid token\"}".to_owned(),
            );
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path();
        match (request.method(), path.strip_prefix("/api/valves/")) {
            (&Method::GET, None) if path == "/api/readings" => json(
                StatusCode::OK,
                r#"{"readings":[{"sensor":"pump-1","bar":3.2},{"sensor":"tank-4","bar":1.1}]}"#
                    .to_owned(),
            ),
            (&Method::GET, None) if path == "/api/echo" => json(
                StatusCode::OK,
                format!(
                    r#"{{"authorization":"{}"}}"#,
                    String::from_utf8_lossy(given)
                ),
            ),
            (&Method::POST, Some(valve)) => json(
                StatusCode::OK,
                format!(r#"{{"valve":"{valve}","set":true}}"#),
            ),
            _ => json(StatusCode::NOT_FOUND, "{}".to_owned()),
        }
    }
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}
