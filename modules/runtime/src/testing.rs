//! Services for the tests: real listeners on loopback that answer, flood, hang or break off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpist_core::binding::Binding;
use mcpist_secret::Secret;
use mcpist_secret::redact::{RedactKey, Redactor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The credential of all tests, long enough for a fingerprint.
pub(crate) const TOKEN: &str = "tok-3f9a/b+c=7ZqX51";

/// One request as the service saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What the service does with a request.
pub(crate) enum Reply {
    /// Sends these bytes and keeps the connection.
    Raw(Vec<u8>),
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and nothing more.
    Hang(Vec<u8>),
    /// Sends the head, then a body of this many bytes, made as it is sent.
    Flood(Vec<u8>, u64),
}

pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(crate) fn ok(body: impl AsRef<[u8]>) -> Reply {
    Reply::Raw(answer("200 OK", "content-type: application/json\r\n", body))
}

/// A running service.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
}

impl Service {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many requests came.
    pub(crate) async fn until_requests(&self, count: usize) {
        until(|| self.requests() >= count).await;
    }

    /// Waits until so many connections were closed.
    pub(crate) async fn until_closed(&self, count: usize) {
        until(|| self.closed.load(Ordering::SeqCst) >= count).await;
    }

    /// Bytes that the service could write so far.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }
}

/// A wait that fails instead of hanging where it would never end.
async fn until(reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it never came to it");
}

/// Starts a service that answers each request by `reply`, over TLS where an acceptor is given.
pub(crate) async fn serve(
    tls: Option<TlsAcceptor>,
    reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Service {
        port: listener.local_addr().unwrap().port(),
        seen: Arc::default(),
        connections: Arc::default(),
        closed: Arc::default(),
        written: Arc::default(),
    };
    let (started, reply) = (service.clone(), Arc::new(reply));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            started.connections.fetch_add(1, Ordering::SeqCst);
            let (service, reply, tls) = (started.clone(), reply.clone(), tls.clone());
            tokio::spawn(async move {
                let closed = Arc::clone(&service.closed);
                match tls {
                    None => connection(stream, service, &*reply).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            connection(stream, service, &*reply).await;
                        }
                    }
                }
                closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    service
}

async fn connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    service: Service,
    reply: &(dyn Fn(&Seen) -> Reply + Send + Sync),
) {
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut stream, &mut buffer).await {
        service.seen.lock().unwrap().push(seen.clone());
        match reply(&seen) {
            Reply::Raw(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                // Until the client gives up.
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Reply::Flood(head, total) => {
                let _ = stream.write_all(&head).await;
                let chunk = vec![b'a'; 64 * 1024];
                let mut left = total;
                while left > 0 && stream.write_all(&chunk).await.is_ok() {
                    left = left.saturating_sub(chunk.len() as u64);
                    service.written.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                return;
            }
        }
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut seen = Seen {
                head,
                body: Vec::new(),
            };
            let length: usize = seen
                .header("content-length")
                .map_or(0, |v| v.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                seen.body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some(seen);
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A binding to a service on loopback; `patch` changes members of its JSON.
pub(crate) fn binding(port: u16, patch: &str) -> Binding {
    let mut value = serde_json::json!({
        "name": "b", "vault": "v", "credential": "c", "scheme": "http", "host": "127.0.0.1",
        "port": port, "path_prefix": "/", "methods": ["GET", "POST"], "trust": "none",
        "inject": "bearer", "allow_local": true,
    });
    let patch: serde_json::Value = serde_json::from_str(patch).unwrap();
    for (key, member) in patch.as_object().unwrap() {
        value[key] = member.clone();
    }
    serde_json::from_value(value).unwrap()
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes()).unwrap()
}

/// A redactor of these secrets.
pub(crate) fn redactor(secrets: &[&str]) -> Redactor {
    let key = Arc::new(RedactKey::random().unwrap());
    let made: Vec<_> = secrets
        .iter()
        .map(|secret| key.fingerprint(secret.as_bytes()).unwrap())
        .collect();
    Redactor::new(key, &made)
}
