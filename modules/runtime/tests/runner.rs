//! The program `mcpist-runner` as mcpistd and systemd see it: its link, its return, its end.
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, ExitStatus, Stdio};

use mcpist_secret::redact::RedactKey;
use mcpist_wire::{CloseCode, DaemonLink, Greeting, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{UnixListener, UnixStream};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpist-runner"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

async fn end_of(mut child: Child) -> ExitStatus {
    tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap()
}

async fn accept(stream: UnixStream, role: Role) -> DaemonLink {
    let greeting = Greeting::accept(stream).await.unwrap();
    assert_eq!(greeting.hello().role, role);
    greeting.welcome(&RedactKey::random().unwrap()).unwrap()
}

#[tokio::test]
async fn it_connects_comes_back_and_ends_when_asked() {
    let folder = std::env::temp_dir().join(format!("mcpist-runner-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("runner.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let child = program(&["--role", "vault", "--connect", path.to_str().unwrap()])
        .spawn()
        .unwrap();
    let pid = child.id();

    let first = accept(listener.accept().await.unwrap().0, Role::Vault).await;
    first.ping().await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    first.close(CloseCode::Stopping);

    let second = accept(listener.accept().await.unwrap().0, Role::Vault).await;
    second.ping().await.unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    assert!(end_of(child).await.success());
    second.ended().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_inherited_socket_is_served_once() {
    let (ours, theirs) = StdStream::pair().unwrap();
    let child = program(&["--role", "run", "--fd", "0"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    ours.set_nonblocking(true).unwrap();
    let link = accept(UnixStream::from_std(ours).unwrap(), Role::Run).await;
    link.ping().await.unwrap();
    drop(link);
    assert!(end_of(child).await.success());
}

#[tokio::test]
async fn what_is_no_socket_is_refused() {
    for args in [
        &["--role", "run", "--fd", "0"],
        &["--role", "run", "--fd", "999"],
    ] {
        assert_eq!(end_of(program(args).spawn().unwrap()).await.code(), Some(1));
    }
    assert_eq!(
        end_of(program(&["--nonsense"]).spawn().unwrap())
            .await
            .code(),
        Some(2)
    );
}
