//! Egress: the only way out. One HTTP client per (registry, module, binding version).
//!
//! Owns: [`Service`], a binding with its pooled connections and its gate; [`Service::send`], one
//! request; [`Budget`], what a call may use.
//!
//! Promises, for every request:
//! - The binding is asked before anything is sent; scheme, host and port are the binding's and come
//!   from nowhere else. Addresses are judged after the one resolution ([`address`]).
//! - No redirect is followed, no proxy is used, no cookie is kept and the environment is not read:
//!   the client has none of it. Nothing is sent twice: it asks for a second connection only where a
//!   pooled one had closed before a byte of the request was written.
//! - The credential is injected last, into the one place that the binding names, marked sensitive;
//!   a module cannot set or double that place, nor any header that carries a credential or frames
//!   the message.
//! - The answer is capped while it streams, is not encoded, and is redacted before anybody parses
//!   it, error bodies too. Of its headers only `Retry-After` is read.
//! - An error holds a code and no URL, header or body.
//!
//! Does not: bound the time. Callers run `send` under the call's deadline; a future that is dropped
//! closes its connection.

pub mod address;
mod connect;
mod error;
mod trust;

#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::uri::{self, Authority, PathAndQuery, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mcpist_core::binding::{Binding, Inject};
use mcpist_core::http::{Method, is_reserved_header};
use mcpist_secret::Secret;
use mcpist_secret::redact::{Redacted, Redactor};
use thiserror::Error;
use zeroize::Zeroizing;

use self::connect::Connector;
use crate::encode;
use crate::gate::Gate;

pub use error::{EgressError, throttled};
pub use trust::TrustError;

/// The pause after a 429 that names none in seconds.
pub const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
/// How long an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// First capacity for a body whose length is not announced.
const FIRST_BODY: usize = 8 * 1024;

/// Why a binding cannot be served.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ServiceError {
    /// Its trust does not parse.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// The URL parser reads the binding's host otherwise than the binding.
    #[error("the binding's host makes no URL")]
    Origin,
}

/// One request of a module, all parts encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, from its slash.
    pub path: String,
    /// The query without `?`; empty for none.
    pub query: String,
    /// Header names (lower case) and values.
    pub headers: Vec<(String, String)>,
    /// Content type and bytes.
    pub body: Option<(&'static str, Bytes)>,
}

/// A service's answer, redacted.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body without known secrets.
    pub body: Vec<u8>,
    /// How many secrets were replaced.
    pub hits: u32,
    /// For a 429: how long to wait.
    pub pause: Duration,
}

/// What one call may use, over all of its requests.
#[derive(Debug, Clone)]
pub struct Budget {
    requests: u32,
    requests_left: u32,
    bytes: u64,
    bytes_left: u64,
}

impl Budget {
    /// So many requests, and so many bytes of answers.
    pub fn new(requests: u32, bytes: u64) -> Budget {
        Budget {
            requests,
            requests_left: requests,
            bytes,
            bytes_left: bytes,
        }
    }

    /// Requests that may still be made.
    pub fn requests_left(&self) -> u32 {
        self.requests_left
    }

    fn request(&mut self) -> Result<(), EgressError> {
        match self.requests_left.checked_sub(1) {
            Some(left) => {
                self.requests_left = left;
                Ok(())
            }
            None => Err(EgressError::Requests(self.requests)),
        }
    }

    fn bytes(&mut self, count: u64) -> Result<(), EgressError> {
        match self.bytes_left.checked_sub(count) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(EgressError::TooLarge(self.bytes)),
        }
    }
}

/// A binding as one module uses it: its connections and its gate.
#[derive(Debug)]
pub struct Service {
    binding: Binding,
    /// Host and port, as the binding has them.
    authority: Authority,
    client: Client<Connector, Full<Bytes>>,
    gate: Gate,
}

impl Service {
    /// Sets up the client; nothing is connected yet.
    ///
    /// # Errors
    /// [`ServiceError`] when the binding's CA does not parse.
    pub fn new(binding: &Binding, concurrency: u32) -> Result<Service, ServiceError> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(concurrency as usize)
            .build(Connector::new(binding)?);
        Ok(Service {
            authority: authority(binding)?,
            binding: binding.clone(),
            client,
            gate: Gate::new(concurrency as usize),
        })
    }

    /// The gate that a call passes before its first request.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Sends one request with the credential and reads the answer.
    ///
    /// # Errors
    /// [`EgressError`]; nothing was sent when it is about the binding, a header or the budget.
    pub async fn send(
        &self,
        request: Request,
        credential: &Secret,
        budget: &mut Budget,
        redactor: &Redactor,
    ) -> Result<Response, EgressError> {
        let request = self.prepare(request, credential)?;
        budget.request()?;
        let response = self.client.request(request).await;
        let (head, mut answer) = response
            .map_err(|e| EgressError::of_request(&e))?
            .into_parts();
        if !is_identity(&head.headers) {
            return Err(EgressError::Encoded);
        }
        let announced = answer.size_hint().exact().unwrap_or(0);
        if announced > budget.bytes_left {
            return Err(EgressError::TooLarge(budget.bytes));
        }
        let mut body = Vec::new();
        while let Some(frame) = answer.frame().await {
            // Trailers are read by nobody.
            let Ok(chunk) = frame.map_err(|e| EgressError::of_body(&e))?.into_data() else {
                continue;
            };
            budget.bytes(chunk.len() as u64)?;
            if body.is_empty() {
                // Bounded by the budget, as was just checked.
                body.reserve_exact((announced as usize).max(chunk.len()).max(FIRST_BODY));
            }
            body.extend_from_slice(&chunk);
        }
        let Redacted { bytes: body, hits } = redactor.redact(body);
        Ok(Response {
            status: head.status.as_u16(),
            body,
            hits,
            pause: pause(&head.headers),
        })
    }

    /// The request as it will leave, or why it may not.
    fn prepare(
        &self,
        request: Request,
        credential: &Secret,
    ) -> Result<hyper::Request<Full<Bytes>>, EgressError> {
        self.binding.permits(request.method, &request.path)?;
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 5);
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EgressError::Header)?;
            if is_reserved_header(name.as_str()) || self.injects_header(name.as_str()) {
                return Err(EgressError::Reserved(name.as_str().to_owned()));
            }
            let value = HeaderValue::from_str(value).map_err(|_| EgressError::Header)?;
            headers.append(name, value);
        }
        let mut query = Zeroizing::new(request.query);
        self.inject(credential, &mut headers, &mut query)?;
        if let Inject::Query { name } = &self.binding.inject
            && form_urlencoded::parse(query.as_bytes())
                .filter(|(key, _)| key == name)
                .count()
                != 1
        {
            return Err(EgressError::Reserved(name.clone()));
        }
        let uri = self.uri(request.path, &query)?;
        let body = match request.body {
            Some((kind, bytes)) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                Full::new(bytes)
            }
            None => Full::default(),
        };
        complete(&mut headers);
        let mut out = hyper::Request::new(body);
        *out.method_mut() = method(request.method);
        *out.uri_mut() = uri;
        *out.headers_mut() = headers;
        Ok(out)
    }

    /// Where the request goes: host and port of the binding, and what it judged, byte for byte.
    fn uri(&self, path: String, query: &str) -> Result<Uri, EgressError> {
        if !query.bytes().all(is_query_byte) {
            return Err(EgressError::Url);
        }
        let mut target = path;
        if !query.is_empty() {
            target.reserve_exact(query.len() + 1);
            target.push('?');
            target.push_str(query);
        }
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target));
        let mut parts = uri::Parts::default();
        parts.scheme = Some(
            self.binding
                .scheme
                .as_str()
                .parse()
                .map_err(|_| EgressError::Url)?,
        );
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target.map_err(|_| EgressError::Url)?);
        Uri::from_parts(parts).map_err(|_| EgressError::Url)
    }

    fn injects_header(&self, name: &str) -> bool {
        matches!(&self.binding.inject, Inject::Header { name: injected } if injected == name)
    }

    fn inject(
        &self,
        credential: &Secret,
        headers: &mut HeaderMap,
        query: &mut String,
    ) -> Result<(), EgressError> {
        let secret = credential.expose();
        let (name, value) = match &self.binding.inject {
            Inject::Bearer => (AUTHORIZATION, sensitive(b"Bearer ", secret)?),
            Inject::Basic => {
                let encoded = Zeroizing::new(BASE64.encode(secret));
                (AUTHORIZATION, sensitive(b"Basic ", encoded.as_bytes())?)
            }
            Inject::Header { name } => {
                let name =
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| EgressError::Header)?;
                (name, sensitive(b"", secret)?)
            }
            Inject::Query { name } => {
                let secret = std::str::from_utf8(secret).map_err(|_| EgressError::Credential)?;
                if !query.is_empty() {
                    query.push('&');
                }
                encode::parameter_name(query, name);
                query.push('=');
                encode::component(query, secret);
                return Ok(());
            }
        };
        headers.insert(name, value);
        Ok(())
    }
}

/// The binding's host and port, if the URL parser reads them as the binding does.
fn authority(binding: &Binding) -> Result<Authority, ServiceError> {
    let host = binding.host.authority();
    Authority::try_from(format!("{host}:{}", binding.port))
        .ok()
        .filter(|read| read.host() == host && read.port_u16() == Some(binding.port))
        .ok_or(ServiceError::Origin)
}

/// RFC 3986 section 3.4, and the brackets that parameter names keep.
fn is_query_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%[]".contains(&byte)
}

/// Adds what every request says. A module may replace `accept` and `user-agent`, not the encoding.
fn complete(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
        .entry(ACCEPT)
        .or_insert(HeaderValue::from_static("application/json, */*;q=0.5"));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static("mcpist"));
}

fn sensitive(prefix: &[u8], secret: &[u8]) -> Result<HeaderValue, EgressError> {
    let text = Zeroizing::new([prefix, secret].concat());
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| EgressError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

fn method(method: Method) -> hyper::Method {
    match method {
        Method::Get => hyper::Method::GET,
        Method::Head => hyper::Method::HEAD,
        Method::Post => hyper::Method::POST,
        Method::Put => hyper::Method::PUT,
        Method::Patch => hyper::Method::PATCH,
        Method::Delete => hyper::Method::DELETE,
    }
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity") || value.is_empty())
}

/// Retry-After in seconds (RFC 9110 section 10.2.3). A date needs a clock that both agree on, and
/// counts as [`DEFAULT_PAUSE`].
fn pause(headers: &HeaderMap) -> Duration {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .map_or(DEFAULT_PAUSE, Duration::from_secs)
}
