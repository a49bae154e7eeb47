//! What a backup lacks, and where a restore's record goes: an operator who looks at nothing but the exit status is told.

use std::path::PathBuf;

use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

use super::{begin, done, host, mcpist, parsed, refused, text};

/// The files of the vaults, once nothing has them open.
fn vault_files(host: &Appliance) -> Vec<PathBuf> {
    let folder = host.folder().join("state/store/vaults");
    let mut found = Vec::new();
    host.until("closed vaults", || {
        let entries = std::fs::read_dir(&folder).unwrap();
        found = entries.map(|entry| entry.unwrap().path()).collect();
        found
            .iter()
            .all(|f| f.extension().is_some_and(|e| e == "db"))
    });
    found
}

#[test]
fn a_backup_that_lacks_a_vault_ends_with_its_own_status_and_stays_marked() {
    let (host, _service) = host();
    let whole = mcpist(&host, &["backup", "whole.backup"], b"");
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    assert!(last(&host)["without"].is_null());
    done(&host, &["seal"], b"");
    for file in vault_files(&host) {
        std::fs::write(file, [0xa5; 9000]).unwrap();
    }
    super::unseal(&host, &host);
    let lacking = mcpist(&host, &["backup", "lacking.backup"], b"");
    assert_eq!(lacking.status.code(), Some(3), "{lacking:?}");
    let made = parsed(&lacking)["data"].clone();
    assert_eq!(made["left_out"][0]["vault"], "main", "{made}");
    assert_eq!(last(&host)["without"], json!(["main"]));
    let verified = mcpist(&host, &["backup", "verify", "lacking.backup"], b"");
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    // And after an unseal it still says so.
    done(&host, &["seal"], b"");
    super::unseal(&host, &host);
    assert_eq!(last(&host)["without"], json!(["main"]));
}

fn last(host: &Appliance) -> Value {
    host.ask("GET", "/v1/status", None)["backup"].clone()
}

#[test]
fn a_restores_record_has_its_place_before_the_last_share_is_sent() {
    let (host, _service) = host();
    done(&host, &["backup", "store.backup"], b"");
    done(&host, &["seal"], b"");
    let open = begin(&host, &host.folder().join("store.backup"));
    done(&host, &["restore", "--give"], host.share(1).expose());
    let taken = host.folder().join("taken.bin");
    std::fs::write(&taken, "another's").unwrap();
    for record in [text(&taken), "no-folder/record.bin"] {
        let args = ["restore", "--give", "--record", record];
        let met = refused(&host, &args, host.share(2).expose());
        assert_eq!(met["code"], "file", "{met}");
        assert!(
            met["next"].as_str().unwrap().contains("no share was given"),
            "{met}"
        );
    }
    let status = host.ask("GET", "/v1/status", None);
    assert_eq!(status["restore"]["progress"]["given"], 1, "{status}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "another's");
    // Without a name it has one.
    let last = done(&host, &["restore", "--give"], host.share(2).expose());
    assert_eq!(last["restored"]["life"], 2, "{last}");
    let plan = open["digest"].as_str().unwrap();
    let record = host.folder().join(format!("ceremony-{}.bin", &plan[..12]));
    let file = std::fs::read(&record).unwrap();
    assert!(mcpist_quorum::CeremonyRecord::from_bytes(&file).is_ok());
}
