//! Far more bytes than anything may have: a coded refusal, and no memory for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mcpist_secret::frame::Ticket;
use serde_json::{Value, json};

use super::clients::raw_call;
use super::{OPEN, Site, code, open, works};

const MIB: usize = 1024 * 1024;
/// How much is sent.
const FAR_TOO_MUCH: usize = 100 * MIB;
/// How much the daemon's peak may rise for it, in KiB, over what just too much has cost.
const RISE_KIB: u64 = 4 * 1024;

/// The peak of a process's resident memory so far, in KiB.
pub(super) fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("a live process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// What `case` sends, just over `limit` bytes and then far more, is refused, and far more costs the daemon no more
/// memory than just over. It serves afterwards.
fn bounded(limit: usize, case: impl Fn(&Site, usize)) {
    let site = open();
    works(&site);
    // Twice: the allocator keeps a first large block for the next.
    for _ in 0..2 {
        case(&site, limit + 1);
    }
    let before = peak_kib(site.pid());
    case(&site, FAR_TOO_MUCH);
    // The kernel counts in batches: a peak may read a little lower than before.
    let rise = peak_kib(site.pid()).saturating_sub(before);
    assert!(rise < RISE_KIB, "the daemon took {rise} KiB more");
    works(&site);
}

fn connect(site: &Site, socket: &str) -> UnixStream {
    let stream = UnixStream::connect(site.socket(socket)).expect("a socket");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_write_timeout(patience).expect("a timeout");
    stream
}

/// Sends `bytes` bytes, or as many of them as the other end takes before it closes.
fn flood(stream: &mut UnixStream, bytes: usize) {
    let mut sevens = std::io::repeat(b'7').take(bytes as u64);
    // An error is the other end's close: what it said is read next.
    let _ = std::io::copy(&mut sevens, stream);
}

fn next_line(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
}

// Clients.

#[test]
fn arguments_of_100_mib_on_one_line_are_refused_and_the_connection_goes_on() {
    let call = raw_call(7, r#"{"item":"|"}"#) + "\n";
    let (before, after) = call.split_once('|').expect("a mark");
    bounded(8 * MIB, |site, bytes| {
        let seen = site.service.seen().len();
        let mut stream = connect(site, "ada");
        let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
        stream.write_all(before.as_bytes()).expect("a line");
        flood(&mut stream, bytes);
        stream.write_all(after.as_bytes()).expect("a line");
        let answer = next_line(&mut reader);
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        assert_eq!(site.service.seen().len(), seen, "the service was asked");
        let small = raw_call(8, r#"{"item":"after"}"#) + "\n";
        stream.write_all(small.as_bytes()).expect("a line");
        let answer = next_line(&mut reader);
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    });
}

#[test]
fn arguments_over_their_own_limit_are_refused_on_a_line_that_is_read() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        let item = "7".repeat(MIB);
        let answer = ada.call("echo", "get", &json!({ "item": item }));
        assert_eq!(code(&answer), "too_large", "{answer}");
        assert_eq!(site.service.seen().len(), seen, "the service was asked");
        works(site);
    });
}

// Operators.

/// A request that is never read whole gets the code all the same.
fn refused_body(site: &Site, framing: &str, first: &str, bytes: usize) {
    let mut stream = connect(site, "admin");
    let head = format!(
        "POST /v1/changes HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{framing}\r\n\r\n{first}"
    );
    stream.write_all(head.as_bytes()).expect("a head");
    flood(&mut stream, bytes);
    let mut answer = Vec::new();
    // The other end closed with bytes of ours unread, which may end our reading with an error.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"]["code"], "too_large", "{body}");
}

#[test]
fn a_body_of_100_mib_is_refused_by_the_admin_socket() {
    bounded(4 * MIB, |site, bytes| {
        refused_body(site, &format!("content-length: {bytes}"), "", bytes);
        let chunk = format!("{bytes:x}\r\n");
        refused_body(site, "transfer-encoding: chunked", &chunk, bytes);
    });
}

#[test]
fn a_body_of_ten_thousand_levels_is_refused_by_the_admin_socket() {
    OPEN.with(|site| {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let head = "POST /v1/changes HTTP/1.1\r\nhost: admin\r\nconnection: close";
        let mut stream = connect(site, "admin");
        write!(
            stream,
            "{head}\r\ncontent-length: {}\r\n\r\n{deep}",
            deep.len()
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"request_invalid\""), "{answer}");
        works(site);
    });
}

#[test]
fn a_name_in_a_path_that_is_none_is_refused_in_the_form_of_every_answer() {
    OPEN.with(|site| {
        for path in ["/v1/changes/0/approvals", "/v1/vaults/A/credentials/%ff"] {
            for method in ["POST", "DELETE"] {
                let (status, answer) = site.admin(method, path, Some(&json!("dev")));
                assert!((400..500).contains(&status), "{path}: {answer}");
                assert_eq!(answer["error"]["code"], "request_invalid", "{path}");
            }
        }
    });
}

#[test]
fn a_frame_of_100_mib_is_refused_by_the_secret_socket() {
    let put = json!({ "credential": { "vault": "main", "name": "token", "kind": "bearer", "hosts": ["127.0.0.1"] } });
    bounded(64 * 1024, |site, bytes| {
        let refused = |ticket: &Ticket, length: u32, code: &str| {
            let mut stream = connect(site, "secret");
            let header = [&ticket.as_bytes()[..], &length.to_be_bytes()].concat();
            stream.write_all(&header).expect("a header");
            flood(&mut stream, bytes);
            let answer = next_line(&mut BufReader::new(stream));
            assert_eq!(answer["error"]["code"], code, "{answer}");
        };
        let ticket = site.ticket(&put);
        for length in [u32::MAX, 100 << 20, (64 << 10) + 1, 0] {
            refused(&ticket, length, "request_invalid");
        }
        // One that nobody issued is read to the end of its frame and no further.
        refused(&Ticket::from_bytes([7; 32]), 64 << 10, "ticket_invalid");
        let listed = site.ask("GET", "/v1/vaults/main/credentials", None);
        assert_eq!(listed["credentials"][0]["version"], 1, "{listed}");
    });
}
