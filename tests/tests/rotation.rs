//! New keys for vaults under a running appliance: calls go on, the old keys are in no file, and who asked may go away.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mcpist_tests::appliance::Appliance;
use mcpist_tests::service::Service;
use serde_json::{Value, json};

const CANARY: &str = "canary-of-a-vault-that-rotates-61d0";
const ROTATIONS: usize = 12;

fn appliance() -> (Appliance, Service) {
    let service = Service::start();
    let mut appliance = Appliance::start();
    appliance.set_up(service.port(), CANARY);
    (appliance, service)
}

fn rotate(appliance: &Appliance, vault: &str, lazy: bool) -> Value {
    let path = format!("/v1/vaults/{vault}/rotate");
    appliance.ask("POST", &path, Some(&json!({ "lazy": lazy })))
}

/// The vault's file: its name, and what is in it.
fn files(appliance: &Appliance) -> Vec<String> {
    let folder = appliance.folder().join("state/store/vaults");
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".db")).collect()
}

#[test]
fn no_call_fails_while_vaults_get_new_keys_again_and_again() {
    let (appliance, service) = appliance();
    for n in 0..40 {
        appliance.put_credential(&format!("other-{n}"), "bearer", "canary-of-no-matter-1234");
    }
    let is_over = AtomicBool::new(false);
    let calls = thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let mut ada = appliance.client("ada");
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut calls = 0;
                    while !is_over.load(Ordering::Acquire) {
                        let done = ada.call("echo", "get", &json!({ "item": "x" }));
                        assert_eq!(done["isError"], json!(false), "{done}");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for n in 0..ROTATIONS {
            let (vault, lazy) = [("main", false), ("main", true), ("system", false)][n % 3];
            let rotated = rotate(&appliance, vault, lazy);
            assert_eq!(rotated["vault"], vault, "{rotated}");
        }
        is_over.store(true, Ordering::Release);
        let calls = callers.into_iter().map(|caller| caller.join().unwrap());
        calls.sum::<usize>()
    });
    let seen = service.seen();
    assert_eq!(seen.len(), calls);
    let bearer = format!("Bearer {CANARY}");
    let with = seen
        .iter()
        .filter(|seen| seen.header("authorization") == Some(&bearer));
    assert_eq!(with.count(), calls);
}

#[test]
fn a_runner_that_comes_back_after_a_rotation_still_takes_secrets_out() {
    let (appliance, _service) = appliance();
    // The version before is under a key that the rotation takes back.
    appliance.put_credential("token", "bearer", "canary-of-the-next-version-77aa");
    rotate(&appliance, "main", false);
    for pid in appliance.runner_pids() {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let mut ada = appliance.client("ada");
    let mut echoed = Value::Null;
    appliance.until("a runner serves again", || {
        echoed = ada.call("echo", "get", &json!({ "item": "echo" }));
        echoed["isError"] == json!(false)
    });
    assert!(echoed.to_string().contains("[redacted]"), "{echoed}");
    assert!(
        !echoed.to_string().contains("canary-of-the-next"),
        "{echoed}"
    );
}

#[test]
fn the_old_file_is_gone_and_a_copy_of_it_put_back_is_removed_and_opens_nothing() {
    let (mut appliance, _service) = appliance();
    appliance.ask("POST", "/v1/seal", None);
    let before = files(&appliance);
    let folder = appliance.folder().join("state/store/vaults");
    appliance.until("the vault's file is closed", || {
        std::fs::read_dir(&folder).unwrap().count() == before.len()
    });
    let old = folder.join(&before[0]);
    let copy = std::fs::read(&old).unwrap();
    appliance.unseal();
    rotate(&appliance, "main", false);
    appliance.until("the old file is removed", || !old.exists());
    std::fs::write(&old, copy).unwrap();
    appliance.kill_and_restart();
    appliance.unseal();
    appliance.until("a file of no vault is removed", || !old.exists());
    let mut ada = appliance.client("ada");
    let done = ada.call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(done["isError"], json!(false), "{done}");
}

#[test]
fn a_rotation_goes_on_when_who_asked_for_it_goes_away() {
    let (appliance, _service) = appliance();
    let before = files(&appliance);
    let body = r#"{"lazy":false}"#;
    let mut asker = UnixStream::connect(appliance.socket("admin")).unwrap();
    write!(
        asker,
        "POST /v1/vaults/main/rotate HTTP/1.1\r\nhost: mcpist\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    appliance.until("the rotation has begun", || {
        let log =
            std::fs::read_to_string(appliance.folder().join("state/audit/audit-00000000.jsonl"));
        log.unwrap_or_default().contains("vault_rotation")
    });
    drop(asker);
    appliance.until("the vault has another file", || {
        let now = files(&appliance);
        !now.is_empty() && now.iter().all(|file| !before.contains(file))
    });
    appliance.until("it says that it is done", || {
        let status = appliance.ask("GET", "/v1/status", None);
        status["vaults"]
            .as_array()
            .unwrap()
            .iter()
            .all(|v| v["rotation"].is_null())
            && status.to_string().contains("backup_due")
    });
}

#[test]
fn a_request_that_is_none_rotates_nothing() {
    let (appliance, _service) = appliance();
    let before = files(&appliance);
    for (path, body, code) in [
        ("/v1/vaults/none/rotate", json!({}), "not_found"),
        (
            "/v1/vaults/main/rotate",
            json!({ "eager": true }),
            "request_invalid",
        ),
        (
            "/v1/vaults/main/rotate",
            json!({ "lazy": "yes" }),
            "request_invalid",
        ),
        (
            "/v1/vaults/system/rotate",
            json!({ "lazy": true }),
            "request_invalid",
        ),
        ("/v1/vaults/Main/rotate", json!({}), "request_invalid"),
    ] {
        let (_, answer) = appliance.admin("POST", path, Some(&body));
        assert_eq!(answer["error"]["code"], code, "{path} {body}: {answer}");
    }
    assert_eq!(files(&appliance), before);
    appliance.ask("POST", "/v1/seal", None);
    let (_, answer) = appliance.admin("POST", "/v1/vaults/main/rotate", Some(&json!({})));
    assert_eq!(answer["error"]["code"], "sealed", "{answer}");
}
