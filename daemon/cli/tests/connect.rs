//! The stdio bridge against a socket of the test's own.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn bridge(socket: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mcpist"))
        .args(["connect", "--mcp"])
        .arg(socket)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn an_answer_after_the_end_of_input_still_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mcp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = bridge(&socket);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    // Standard input is closed now; only a bridge that closes one direction lets this read end and the answer pass.
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = String::new();
    stream.read_to_string(&mut asked).unwrap();
    stream.write_all(b"late\n").unwrap();
    drop(stream);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (asked.as_str(), output.stdout.as_slice()),
        ("one\ntwo\n", &b"late\n"[..])
    );
    assert!(output.status.success());
}

#[test]
fn a_user_who_is_turned_away_is_told_so_and_one_who_was_answered_is_not() {
    let refusal = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x","data":{"code":"unidentified"}}}"#;
    let answered = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{}}}}\n{refusal}");
    for (said, status, told) in [
        (refusal, 1, "error[unidentified]: "),
        (answered.as_str(), 0, ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mcp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut child = bridge(&socket);
        child.stdin.as_mut().unwrap().write_all(b"{}\n").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        writeln!(stream, "{said}").unwrap();
        // A refusal is said unread, and the close after it resets the connection.
        if status == 0 {
            stream.read_exact(&mut [0; 3]).unwrap();
        }
        drop(stream);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.starts_with(told), "{stderr}");
        assert_eq!(output.stdout, format!("{said}\n").into_bytes());
    }
}

#[test]
fn a_line_goes_on_at_once_and_the_daemon_s_end_ends_the_bridge() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mcp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = bridge(&socket);
    let (mut stream, _) = listener.accept().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for line in [b"ping\n", b"pong\n"] {
        let mut seen = [0; 5];
        stdin.write_all(line).unwrap();
        stream.read_exact(&mut seen).unwrap();
        stream.write_all(&seen).unwrap();
        stdout.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, line);
    }
    // Not dumpable: /proc gives its files to root, and its core limit is 0.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    drop(stream);
    // The client still holds its end open.
    assert!(child.wait().unwrap().success());
    drop(stdin);
}
