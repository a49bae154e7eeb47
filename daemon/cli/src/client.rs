//! The client of the admin socket: HTTP/1.1 and JSON over a Unix socket, one connection for each request.
//!
//! Promises that a reply is of the schema version that this program reads, that the daemon's error comes out as it is,
//! and that a daemon which takes a connection and never answers is an error after a while, for what only reads and for
//! a seal; other acts are waited for. Carries no secret: those go over [`crate::secret`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use mcpist_core::api::{Failure, MAX_MESSAGE, Reply, SCHEMA};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::error::{Error, Result};

/// How long a read waits for its answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What somebody does who may not open a socket.
pub(crate) const JOIN_GROUP: &str =
    "ask for membership in the group of this socket, and log in again";

/// The daemon behind one folder of sockets.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    run: PathBuf,
    patience: Duration,
}

#[derive(serde::Deserialize)]
struct Version {
    schema: u16,
}

impl Client {
    /// The daemon whose sockets are in `run`.
    pub(crate) fn new(run: PathBuf) -> Client {
        Client {
            run,
            patience: PATIENCE,
        }
    }

    /// The same daemon, whose reads and [`Client::act_soon`] are waited for this long.
    pub(crate) fn within(&self, patience: Duration) -> Client {
        Client {
            run: self.run.clone(),
            patience,
        }
    }

    /// A socket of the daemon.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.soon(self.send(Method::GET, path, Vec::new())).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::DELETE, path, Vec::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| Error::new("internal", e))?;
        self.send(Method::POST, path, body).await
    }

    /// A request whose path has no body to send.
    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::POST, path, Vec::new()).await
    }

    /// The same, for an act that takes no longer than a read.
    pub(crate) async fn act_soon<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.soon(self.act(path)).await
    }

    async fn soon<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        within(&self.socket("admin.sock"), self.patience, answer).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T> {
        let socket = self.socket("admin.sock");
        let stream = UnixStream::connect(&socket)
            .await
            .map_err(|e| unreachable(&socket, &e))?;
        let broken = |e: &dyn std::fmt::Display| {
            Error::new("connection_lost", format!("{}: {e}", socket.display()))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        let served = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "mcpist")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Error::new("internal", e))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let success = answer.status().is_success();
        let body = Limited::new(answer.into_body(), MAX_MESSAGE)
            .collect()
            .await;
        let body = body.map_err(|e| broken(&e))?.to_bytes();
        served.abort();
        read(success, &body)
    }
}

/// What `answer` gives, if it comes in time: a daemon that was stopped, or hangs, takes connections and never answers.
pub(crate) async fn within<T>(
    socket: &Path,
    limit: Duration,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| {
            let text = format!("{} does not answer (waited {limit:?})", socket.display());
            Err(Error::new("connection_lost", text))
        })
}

/// Reads a reply's body.
fn read<T: DeserializeOwned>(success: bool, body: &[u8]) -> Result<T> {
    let foreign = |e: &dyn std::fmt::Display| {
        Error::new(
            "version_mismatch",
            format!("the daemon's answer is not of this API: {e}"),
        )
        .next("use the mcpist of the same version as mcpistd")
    };
    let version: Version = serde_json::from_slice(body).map_err(|e| foreign(&e))?;
    if version.schema != SCHEMA {
        return Err(foreign(&format!(
            "schema {} where {SCHEMA} is known",
            version.schema
        )));
    }
    if success {
        let reply: Reply<T> = serde_json::from_slice(body).map_err(|e| foreign(&e))?;
        Ok(reply.data)
    } else {
        let failure: Failure = serde_json::from_slice(body).map_err(|e| foreign(&e))?;
        Err(failure.error.into())
    }
}

/// The error for a socket that does not answer.
pub(crate) fn unreachable(socket: &Path, error: &std::io::Error) -> Error {
    let next = match error.kind() {
        std::io::ErrorKind::PermissionDenied => JOIN_GROUP,
        _ => {
            "systemctl start mcpistd, or name its folder with --run; mcpist doctor says what is missing"
        }
    };
    Error::new(
        "daemon_unreachable",
        format!("cannot connect to {}: {error}", socket.display()),
    )
    .next(next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::api::{Done, Status, path};

    use super::*;

    #[tokio::test]
    async fn a_daemon_that_takes_a_connection_and_never_answers_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let _daemon = tokio::net::UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        let client = Client::new(folder.path().into()).within(Duration::from_millis(20));
        let read = client.get::<Status>(path::STATUS).await.unwrap_err();
        let act = client.act_soon::<Done>(path::SEAL).await.unwrap_err();
        for error in [read, act] {
            assert_eq!(error.code(), "connection_lost");
            assert!(error.to_string().contains("does not answer"), "{error}");
        }
    }

    #[test]
    fn a_failure_comes_out_with_its_code() {
        let body =
            br#"{"schema":1,"error":{"code":"sealed","message":"closed","next":"mcpist unseal"}}"#;
        let error = read::<Done>(false, body).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("sealed", 2));
    }

    #[test]
    fn an_answer_of_another_schema_is_named_as_that() {
        let error = read::<Done>(true, br#"{"schema":2,"data":{}}"#).unwrap_err();
        assert_eq!(error.code(), "version_mismatch");
        assert_eq!(
            read::<Done>(true, b"<html>").unwrap_err().code(),
            "version_mismatch"
        );
    }
}
