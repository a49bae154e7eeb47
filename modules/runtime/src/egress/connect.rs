//! The way to one binding's host: resolve once, judge, connect, and TLS.
//!
//! Owns: [`Connector`], what the HTTP client asks for each new connection.
//! Promises: the addresses that were judged ([`address`]) are the ones that are connected to. A host
//! that is an address itself is judged as well, although no resolver is asked for it. The whole way
//! takes at most [`TIMEOUT`]. An `https` binding never gets a plain connection.
//! Does not: cache. Each new connection resolves and judges again.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use mcpist_core::binding::{Binding, Scheme};
use tokio::net::TcpStream;
use tower_service::Service;

use super::address;
use super::trust::{self, TrustError};

/// Longest wait for a connection, its handshake included, whatever the call's deadline.
const TIMEOUT: Duration = Duration::from_secs(5);
/// When an unused connection is probed, so that one that a firewall has dropped is not used again.
const KEEPALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn Error + Send + Sync>;
type Pending<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// The connector of one binding's client.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector<Names>>,
    /// The host, where it is an address.
    literal: Option<IpAddr>,
    allow_local: bool,
    timeout: Duration,
}

impl Connector {
    /// Sets up resolver and TLS; nothing is connected yet.
    ///
    /// # Errors
    /// [`TrustError`] when the binding's CA does not parse.
    pub(super) fn new(binding: &Binding) -> Result<Connector, TrustError> {
        let allow_local = binding.allow_local;
        let mut tcp = HttpConnector::new_with_resolver(Names { allow_local });
        // Of the scheme the TLS connector is the judge.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        let tls =
            HttpsConnectorBuilder::new().with_tls_config(trust::client_config(&binding.trust)?);
        let tls = match binding.scheme {
            Scheme::Https => tls.https_only(),
            Scheme::Http => tls.https_or_http(),
        };
        Ok(Connector {
            inner: tls.enable_http1().wrap_connector(tcp),
            literal: binding.host.ip(),
            allow_local,
            timeout: TIMEOUT,
        })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        if let Some(literal) = self.literal
            && let Err(refusal) = address::judge([literal], self.allow_local)
        {
            return Box::pin(async move { Err(refusal.into()) });
        }
        let (connecting, timeout) = (self.inner.call(origin), self.timeout);
        Box::pin(async move {
            tokio::time::timeout(timeout, connecting)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

/// The resolver of one binding's client.
#[derive(Debug, Clone, Copy)]
struct Names {
    allow_local: bool,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_local = self.allow_local;
        Box::pin(async move {
            // The port of the answer is replaced by the connector.
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            address::judge(found.iter().map(SocketAddr::ip), allow_local)?;
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::binding;

    #[tokio::test]
    async fn a_handshake_that_nobody_answers_ends_in_time() {
        // Takes connections, and says nothing on them.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pin = mcpist_core::ids::Digest::of(b"");
        let patch = format!(r#"{{"scheme":"https","trust":{{"pin":"{pin}"}}}}"#);
        let mut connector = Connector::new(&binding(port, &patch)).unwrap();
        connector.timeout = Duration::from_millis(20);
        let origin = format!("https://127.0.0.1:{port}").parse().unwrap();
        let patience = Duration::from_secs(20);
        let connected = tokio::time::timeout(patience, connector.call(origin)).await;
        let error = connected.unwrap().unwrap_err();
        let error = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
