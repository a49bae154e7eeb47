//! A log that names rows which the store never had: a line was forged, or the store was put back.

use mcpist_core::api::{Alarm, ApiError};
use mcpist_core::audit::{Body, Chain, UnixMs, Verifier};
use mcpist_core::change::Change;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;

use super::seal::hang_log;
use super::site::{PATIENCE, Site, UID, run};

fn log_of(site: &Site) -> std::path::PathBuf {
    site.state().join("audit/audit-00000000.jsonl")
}

/// Appends a line that says row `row` of `vault` is in the log, as anybody can who has the disk while the store is sealed.
fn forge(site: &Site, vault: &VaultName, row: u64) {
    let mut log = std::fs::read(log_of(site)).unwrap();
    let mut verifier = Verifier::resume();
    assert!(verifier.feed(&log));
    let event = Event::LastWriteMissing {
        vault,
        confirmed: None,
    };
    let body = Body::new(&event, UnixMs(0));
    Chain::new(verifier.finish().anchor).append_outbox(UnixMs(0), vault, row, &body, &mut log);
    std::fs::write(log_of(site), log).unwrap();
}

fn alarms(site: &Site) -> Vec<Alarm> {
    site.keeper.view().alarms.clone()
}

#[test]
fn a_forged_line_at_the_logs_end_silences_no_change() {
    run(async {
        let site = Site::open().await;
        let put = |name: &str| -> Change {
            let record = serde_json::json!({ "name": name });
            serde_json::from_value(serde_json::json!({ "principal-put": record })).unwrap()
        };
        site.change(put("before")).await.unwrap();
        site.keeper.seal(None, "a test").await.unwrap();
        forge(&site, &VaultName::parse("system").unwrap(), u64::MAX);
        site.unseal().await;
        let shown = alarms(&site);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(shown[0].code, ErrorCode::StoreBehindLog);
        assert!(shown[0].message.contains("vault system"), "{shown:?}");
        assert_eq!(site.lines(&["\"store_behind_log\"", "\"system\""]).len(), 1);
        site.change(put("after")).await.unwrap();
        let stored = ["\"change_stored\"", "principal/after"];
        assert_eq!(site.lines(&stored).len(), 1);
        // The log names rows of this store again.
        site.keeper.seal(None, "a test").await.unwrap();
        site.unseal().await;
        assert_eq!(alarms(&site), []);
        assert_eq!(site.lines(&["\"store_behind_log\""]).len(), 1);
        assert_eq!(site.lines(&stored).len(), 1);
    });
}

#[test]
fn a_forged_line_in_the_place_of_a_change_replaces_nothing() {
    run(async {
        for forged in [false, true] {
            let site = Site::open().await;
            site.put_credential().await;
            // As in a crash: the row stands, and no checkpoint covers its line.
            site.inside(|k| {
                k.open().unwrap().vaults().revoke();
                k.seal(None, "a test").unwrap();
            })
            .await;
            let put = ["\"credential_put\"", "\"version\":1"];
            assert_eq!(site.lines(&put).len(), 1);
            if forged {
                let log = std::fs::read_to_string(log_of(&site)).unwrap();
                let kept = log.lines().take_while(|line| !line.contains(put[0]));
                let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
                std::fs::write(log_of(&site), kept).unwrap();
                forge(&site, &VaultName::parse("main").unwrap(), 1);
                assert_eq!(site.lines(&put).len(), 0);
            }
            site.unseal().await;
            let codes: Vec<_> = alarms(&site).iter().map(|alarm| alarm.code).collect();
            let expected = [ErrorCode::LogForged];
            assert_eq!(codes, if forged { &expected[..] } else { &[] });
            let told = site.lines(&["\"log_forged\"", "\"vault\":\"main\"", "\"row\":1"]);
            assert_eq!(told.len(), usize::from(forged));
            assert_eq!(site.lines(&put).len(), 1);
            // The log holds it again.
            site.keeper.seal(None, "a test").await.unwrap();
            site.unseal().await;
            assert_eq!(alarms(&site), []);
            assert_eq!(site.lines(&put).len(), 1);
        }
    });
}

#[test]
fn what_a_custodian_puts_again_into_a_vault_that_was_put_back_is_in_the_log() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        site.keeper.seal(None, "a test").await.unwrap();
        // The vault's second row, which the vault that is there does not have: as after a put that was taken back.
        forge(&site, &VaultName::parse("main").unwrap(), 2);
        site.unseal().await;
        assert_eq!(site.lines(&["\"store_behind_log\"", "\"main\""]).len(), 1);
        assert_eq!(alarms(&site)[0].code, ErrorCode::StoreBehindLog);
        site.put_version().await;
        assert_eq!(
            site.lines(&["\"credential_put\"", "\"version\":2"]).len(),
            1
        );
    });
}

#[test]
fn what_is_done_is_told_so_where_its_line_has_to_wait() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let put = |name: &str| -> Change {
            let record = serde_json::json!({ "name": name });
            serde_json::from_value(serde_json::json!({ "principal-put": record })).unwrap()
        };
        site.change(put("before")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let release = hang_log(&site, folder.path());
        // A log that is being closed has room, and takes no line.
        let last = || {
            let event = Event::TicketIssued {
                uid: UID,
                purpose: "a test",
            };
            site.keeper.house.audit.append(&event)
        };
        last().unwrap();
        let keeper = site.keeper.clone();
        let closing = std::thread::spawn(move || keeper.house.audit.close(PATIENCE));
        while last().is_ok() {
            std::thread::yield_now();
        }
        let told = |refused: ApiError| {
            assert_eq!(refused.code, ErrorCode::AuditLost, "{refused}");
            assert!(refused.message.starts_with("what was asked is done"));
        };
        told(site.put_token().await.unwrap_err());
        told(site.delete_token().await.unwrap_err());
        told(site.change(put("after")).await.unwrap_err());
        drop(release);
        assert!(closing.join().unwrap());

        // The log that these acts went past is gone; the next opening of the store's own has all of them.
        let sealed = site.keeper.seal(None, "a test").await;
        assert_eq!(sealed.unwrap_err().code, ErrorCode::AuditLost);
        site.unseal().await;
        for parts in [
            ["\"credential_put\"", "\"version\":2"],
            ["\"credential_deleted\"", "\"version\":2"],
            ["\"change_stored\"", "principal/after"],
        ] {
            assert_eq!(site.lines(&parts).len(), 1, "{parts:?}");
        }
    });
}
