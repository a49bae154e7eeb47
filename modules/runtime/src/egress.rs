//! Egress: the only way out. One HTTP client per (registry, module, binding version).
//!
//! Owns: [`Service`], a binding with its pooled connections and its gate; [`Service::send`], one
//! request; [`Budget`], what a call may use.
//!
//! Promises, for every request:
//! - The binding is asked before anything is sent; scheme, host and port are the binding's and come
//!   from nowhere else. Addresses are judged after the one resolution ([`address`]).
//! - No redirect is followed, no proxy is used, no cookie is kept, nothing is sent twice, and the
//!   environment is not read.
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
mod error;
mod trust;

#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mcpist_core::binding::{Binding, Inject, Scheme};
use mcpist_core::http::{Method, is_reserved_header};
use mcpist_secret::Secret;
use mcpist_secret::redact::{Redacted, Redactor};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Url};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::encode;
use crate::gate::Gate;

pub use error::{EgressError, throttled};
pub use trust::TrustError;

/// The pause after a 429 that names none in seconds.
pub const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for a connection, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Client,
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
    /// Scheme, host and port, as the binding has them.
    origin: Url,
    client: Client,
    gate: Gate,
}

impl Service {
    /// Sets up the client; nothing is connected yet.
    ///
    /// # Errors
    /// [`ServiceError`] when the binding's CA does not parse.
    pub fn new(binding: &Binding, concurrency: u32) -> Result<Service, ServiceError> {
        let rule = address::Literals {
            address: binding.host.ip(),
            allow_local: binding.allow_local,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(trust::client_config(&binding.trust)?)
            .https_only(binding.scheme == Scheme::Https)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .dns_resolver(address::Names {
                allow_local: binding.allow_local,
            })
            .connector_layer(rule)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(concurrency as usize)
            .default_headers(fixed_headers())
            .build()
            .map_err(|_| ServiceError::Client)?;
        Ok(Service {
            origin: origin(binding)?,
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
        let mut response = self
            .client
            .execute(request)
            .await
            .map_err(|e| EgressError::of(&e))?;
        let status = response.status().as_u16();
        if !is_identity(response.headers()) {
            return Err(EgressError::Encoded);
        }
        let pause = pause(response.headers());
        let announced = response.content_length().unwrap_or(0);
        if announced > budget.bytes_left {
            return Err(EgressError::TooLarge(budget.bytes));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| EgressError::of(&e))? {
            budget.bytes(chunk.len() as u64)?;
            if body.is_empty() {
                // Bounded by the budget, as was just checked.
                body.reserve_exact((announced as usize).max(chunk.len()).max(FIRST_BODY));
            }
            body.extend_from_slice(&chunk);
        }
        let Redacted { bytes: body, hits } = redactor.redact(body);
        Ok(Response {
            status,
            body,
            hits,
            pause,
        })
    }

    /// The request as it will leave, or why it may not.
    fn prepare(
        &self,
        request: Request,
        credential: &Secret,
    ) -> Result<reqwest::Request, EgressError> {
        self.binding.permits(request.method, &request.path)?;
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 2);
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
        let url = self.url(&request.path, &query)?;
        if let Inject::Query { name } = &self.binding.inject
            && url.query_pairs().filter(|(key, _)| key == name).count() != 1
        {
            return Err(EgressError::Reserved(name.clone()));
        }
        let mut out = reqwest::Request::new(method(request.method), url);
        if let Some((kind, bytes)) = request.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            *out.body_mut() = Some(bytes.into());
        }
        *out.headers_mut() = headers;
        Ok(out)
    }

    /// The URL, if its parser changes nothing: what the binding judged is what is sent.
    fn url(&self, path: &str, query: &str) -> Result<Url, EgressError> {
        let mut url = self.origin.clone();
        url.set_path(path);
        url.set_query((!query.is_empty()).then_some(query));
        let kept = url.path() == path && url.query().unwrap_or_default() == query;
        if kept { Ok(url) } else { Err(EgressError::Url) }
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

/// The binding's scheme, host and port, if the URL parser reads them as the binding does.
fn origin(binding: &Binding) -> Result<Url, ServiceError> {
    let (scheme, host) = (binding.scheme.as_str(), binding.host.authority());
    let text = format!("{scheme}://{host}:{}", binding.port);
    Url::parse(&text)
        .ok()
        .filter(|url| {
            url.scheme() == scheme
                && url.host_str() == Some(&host)
                && url.port_or_known_default() == Some(binding.port)
                && url.username().is_empty()
                && url.password().is_none()
                && url.path() == "/"
        })
        .ok_or(ServiceError::Origin)
}

/// Headers of every request. A module may replace `accept` and `user-agent`, not the encoding.
fn fixed_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, */*;q=0.5"),
    );
    headers.insert(USER_AGENT, HeaderValue::from_static("mcpist"));
    headers
}

fn sensitive(prefix: &[u8], secret: &[u8]) -> Result<HeaderValue, EgressError> {
    let text = Zeroizing::new([prefix, secret].concat());
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| EgressError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Head => reqwest::Method::HEAD,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
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
