//! A small real HTTP service on loopback: what it answers is named by the path, and it keeps what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// The running service. Its threads end with the process.
pub struct Service {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    hung_up: Arc<AtomicUsize>,
}

impl Service {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    pub fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hung_up = Arc::new(AtomicUsize::new(0));
        let (kept, counted) = (Arc::clone(&seen), Arc::clone(&hung_up));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, counted) = (Arc::clone(&kept), Arc::clone(&counted));
                thread::spawn(move || serve(stream, &kept, &counted));
            }
        });
        Service {
            port,
            seen,
            hung_up,
        }
    }

    /// How many callers of `/api/hang` have closed their connection.
    pub fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::Acquire)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Seen>>, hung_up: &AtomicUsize) {
    let Ok(clone) = stream.try_clone() else {
        return;
    };
    let (mut reader, mut writer) = (BufReader::new(clone), stream);
    while let Some(seen) = read(&mut reader) {
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen.clone());
        if seen.line.contains(" /api/hang") {
            // No answer, ever; the caller ends it.
            while reader.fill_buf().is_ok_and(|more| !more.is_empty()) {
                let more = reader.buffer().len();
                reader.consume(more);
            }
            hung_up.fetch_add(1, Ordering::Release);
            return;
        }
        if answer(&seen, &mut writer).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(n, _)| n == "content-length")
        .and_then(|(_, v)| v.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line: line.trim_end().to_owned(),
        headers,
        body,
    })
}

fn answer(seen: &Seen, out: &mut TcpStream) -> std::io::Result<()> {
    let target = seen.line.split(' ').nth(1).unwrap_or("/");
    let credential = seen.header("authorization").unwrap_or_default().to_owned();
    let path = target.split('?').next().unwrap_or(target);
    match path {
        "/api/fails" => reply(
            out,
            "500 Internal Server Error",
            &format!("{{\"secret\":\"{credential}\"}}"),
        ),
        "/api/picked" => reply(
            out,
            "422 Unprocessable Entity",
            &format!("{{\"error\":{{\"message\":\"bad {credential}\"}}}}"),
        ),
        "/api/refuses" => reply(out, "401 Unauthorized", "{}"),
        "/api/redirects" => write!(
            out,
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n"
        ),
        "/api/huge" => huge(out),
        "/api/number" => reply(out, "200 OK", "{\"big\":123456789012345678901234567890}"),
        "/api/echo" => {
            let token = credential.split(' ').next_back().unwrap_or_default();
            let fields: Vec<String> = encodings(token)
                .iter()
                .map(|(name, form)| format!("\"{name}\":\"{form}\""))
                .collect();
            reply(out, "200 OK", &format!("{{{}}}", fields.join(",")))
        }
        "/api/home" => write!(
            out,
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/api/elsewhere\r\ncontent-length: 0\r\n\r\n",
            seen.header("host").unwrap_or_default()
        ),
        _ => {
            let text = serde_json::json!({ "target": target, "body": String::from_utf8_lossy(&seen.body) });
            reply(out, "200 OK", &text.to_string())
        }
    }
}

/// The ways in which a service may give a credential back, by name. Each stands in a JSON string as it is.
pub fn encodings(token: &str) -> Vec<(&'static str, String)> {
    let each = |form: &dyn Fn(u8) -> String| token.bytes().map(form).collect::<String>();
    let before = |text: &str| format!("{text}{token}").into_bytes();
    vec![
        ("raw", token.to_owned()),
        ("within", format!("token={token}; path=/")),
        ("hex", each(&|b| format!("{b:02x}"))),
        ("upper_hex", each(&|b| format!("{b:02X}"))),
        ("percent", each(&|b| format!("%{b:02X}"))),
        ("json", each(&|b| format!("\\u{b:04x}"))),
        ("base64", base64(token.as_bytes(), b"+/")),
        ("base64_one_before", base64(&before(":"), b"+/")),
        ("base64_basic", base64(&before("u:"), b"+/")),
        ("base64_url", base64(&before("user:"), b"-_")),
    ]
}

/// Base64 (RFC 4648 §4) without padding; `last` are the characters for 62 and 63.
fn base64(bytes: &[u8], last: &[u8; 2]) -> String {
    let alphabet: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, b| bits << 8 | u32::from(*b));
        let bits = bits << (8 * (3 - group.len()));
        for n in 0..=group.len() {
            let value = (bits >> (18 - 6 * n) & 63) as usize;
            let digit = alphabet.get(value).copied();
            text.push(digit.unwrap_or_else(|| last[value - 62]).into());
        }
    }
    text
}

fn reply(out: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A gigabyte, as long as somebody reads.
fn huge(out: &mut TcpStream) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n["
    )?;
    let block = vec![b' '; 1 << 16];
    for _ in 0..(1 << 14) {
        out.write_all(&block)?;
    }
    Ok(())
}
