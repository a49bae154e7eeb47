//! control.db alone: put back, or not there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Site, open, works};

fn control(site: &Site) -> PathBuf {
    site.folder().join("state/store/control.db")
}

fn log(site: &Site) -> PathBuf {
    site.folder().join("state/audit/audit-00000000.jsonl")
}

/// The closed control.db, and the log that was written beside it.
struct Moment {
    control: Vec<u8>,
    log: Vec<u8>,
}

impl Moment {
    /// As it is now; the daemon is stopped.
    fn of(site: &mut Site) -> Moment {
        site.ask("POST", "/v1/seal", None);
        site.stop();
        let read = |file: PathBuf| fs::read(file).expect("a file");
        Moment {
            control: read(control(site)),
            log: read(log(site)),
        }
    }

    /// Puts both back; every other file stays.
    fn put_back(&self, site: &Site) {
        for (file, bytes) in [(control(site), &self.control), (log(site), &self.log)] {
            fs::write(&file, bytes).expect("ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        }
    }
}

fn alarm(site: &Site, code: &str) -> Option<String> {
    let status = site.ask("GET", "/v1/status", None);
    let alarms = status["alarms"].as_array().expect("alarms");
    let alarm = alarms.iter().find(|alarm| alarm["code"] == code)?;
    alarm["message"].as_str().map(str::to_owned)
}

fn health(site: &Site, vault: &str) -> Value {
    let status = site.ask("GET", "/v1/status", None);
    let vaults = status["vaults"].as_array().expect("vaults");
    let found = vaults.iter().find(|v| v["name"] == vault);
    found.map_or(Value::Null, |v| v["health"].clone())
}

#[test]
fn a_control_db_that_is_put_back_costs_no_vault_that_it_does_not_know() {
    let mut site = open();
    let old = Moment::of(&mut site);
    site.restart();
    site.unseal();
    site.ask("POST", "/v1/vaults", Some(&json!({ "name": "late" })));
    let new = Moment::of(&mut site);
    old.put_back(&site);
    site.restart();
    site.unseal();
    assert_eq!(health(&site, "late"), Value::Null);
    let message = alarm(&site, "vault_file_unknown").expect("an alarm");
    assert!(message.contains("put the newest back"), "{message}");
    site.ask("POST", "/v1/seal", None);
    let lines = fs::read_to_string(log(&site)).expect("a log");
    let noted = r#""event":"vault_files_unknown","files":1"#;
    assert!(lines.contains(noted), "{lines}");
    site.stop();
    new.put_back(&site);
    site.restart();
    site.unseal();
    assert_eq!(health(&site, "late"), "ok");
    assert_eq!(alarm(&site, "vault_file_unknown"), None);
    works(&site);
}

#[test]
fn a_folder_that_held_a_store_is_not_taken_for_a_blank_one() {
    let mut site = open();
    let kept = Moment::of(&mut site);
    fs::remove_file(control(&site)).expect("ours");
    let vaults = site.folder().join("state/store/vaults");
    let elsewhere = site.folder().join("vaults");
    // With the vaults, and where the log alone is left.
    for is_whole in [true, false] {
        if !is_whole {
            fs::rename(&vaults, &elsewhere).expect("ours");
        }
        site.restart();
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["state"], "uninitialised", "{status}");
        let message = alarm(&site, "not_initialised").expect("an alarm");
        assert!(message.contains("put store/control.db back"), "{message}");
        assert!(!site.folder().join("state/init-token").exists());
        let (code, answer) = site.admin(
            "POST",
            "/v1/init/confirm",
            Some(&json!({ "digest": "0".repeat(64) })),
        );
        assert_eq!(code, 409, "{answer}");
        assert_eq!(answer["error"]["code"], "already_initialised", "{answer}");
        let next = answer["error"]["next"].as_str().expect("a next step");
        assert!(next.contains("mcpist restore FILE"), "{answer}");
        site.stop();
    }
    fs::rename(&elsewhere, &vaults).expect("ours");
    kept.put_back(&site);
    site.restart();
    site.unseal();
    works(&site);
}
