//! Lives of one store: restores that did not know of each other, and what their receipts do to the one that is needed.

use std::path::Path;

use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

use super::{done, host, refused, restore, text, unseal, works};

fn receipt(host: &Appliance) -> Value {
    host.ask("GET", "/v1/witness", None)
}

/// What presenting a receipt is answered, data or not.
fn present(host: &Appliance, receipt: &Value) -> Value {
    let (status, answer) = host.admin("POST", "/v1/witness", Some(receipt));
    match status {
        200 => answer["data"].clone(),
        _ => answer,
    }
}

/// Seals without a receipt that the next restore would present.
fn seal(host: &Appliance) {
    host.ask("POST", "/v1/seal", None);
}

/// The line `restored` of each log on the host, in the order of lives.
fn restored_lines(host: &Appliance) -> Vec<Value> {
    let state = host.folder().join("state");
    let logs = std::fs::read_dir(state).unwrap().flatten();
    let logs = logs.map(|entry| entry.path().join("audit-00000000.jsonl"));
    let read = |log: &Path| std::fs::read_to_string(log).unwrap_or_default();
    let mut lines: Vec<Value> = logs
        .flat_map(|log| {
            let text = read(&log);
            let line = text.lines().find(|l| l.contains("\"event\":\"restored\""));
            line.map(|line| serde_json::from_str(line).unwrap())
        })
        .collect();
    lines.sort_by_key(|line| line["life"].as_u64());
    lines
}

/// The last line of the first life's log.
fn last_line(host: &Appliance) -> Value {
    let log = host.folder().join("state/audit/audit-00000000.jsonl");
    let text = std::fs::read_to_string(log).unwrap();
    let mut lines = text.lines().rev();
    let last = lines.find(|line| line.starts_with("{\"seq\""));
    serde_json::from_str(last.unwrap()).unwrap()
}

#[test]
fn a_wrong_restore_is_made_good_by_the_right_one() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let (wrong, right) = (desk.path().join("wrong"), desk.path().join("right"));
    done(&host, &["backup", text(&wrong)], b"");
    host.put_credential("later", "bearer", "a-credential-put-later");
    done(&host, &["backup", text(&right)], b"");
    seal(&host);
    let last = last_line(&host);
    assert_eq!(restore(&host, &wrong, &host)["life"], 2);
    host.unseal();
    let of_wrong = receipt(&host);
    done(&host, &["restore", "--remove-old", "--yes"], b"");
    seal(&host);
    assert_eq!(restore(&host, &right, &host)["life"], 3);
    // Shown only now: the store that was here was of that life.
    assert_eq!(present(&host, &of_wrong)["waiting"]["receipts"], 1);
    host.unseal();
    works(&host);
    let listed = host.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(listed["credentials"].as_array().unwrap().len(), 2);
    // Each line says where the log ended whose store was replaced.
    let lines = restored_lines(&host);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["replaced_line"], &lines[0]["replaced_head"]),
        (&last["seq"], &last["hash"])
    );
    assert!(lines[1]["replaced_line"].is_u64(), "{lines:?}");
}

#[test]
fn a_receipt_of_a_rehearsal_shuts_nobody_out_for_good() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&first, &["backup", text(&file)], b"");
    let elsewhere = Appliance::start();
    assert_eq!(restore(&elsewhere, &file, &first)["life"], 2);
    unseal(&elsewhere, &first);
    let rehearsed = receipt(&elsewhere);
    let shut = present(&first, &rehearsed);
    assert_eq!(shut["error"]["code"], "fenced", "{shut}");
    // What its advice says: the receipt still waits, and the life that begins is above it.
    assert_eq!(restore(&first, &file, &first)["life"], 3);
    assert_eq!(present(&first, &rehearsed)["waiting"]["receipts"], 1);
    first.unseal();
    works(&first);
    let lines = restored_lines(&first);
    let overridden = lines[0]["overridden"].as_array().unwrap();
    assert!(
        overridden.iter().any(|over| over["life"] == 2),
        "{overridden:?}"
    );
    // The rehearsal is over now, as any host that the store has left.
    let shut = present(&elsewhere, &receipt(&first));
    assert_eq!(shut["error"]["code"], "fenced", "{shut}");
}

#[test]
fn a_blank_host_that_is_shown_a_later_life_begins_one_above_it() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&first, &["backup", text(&file)], b"");
    let (lost, blank) = (Appliance::start(), Appliance::start());
    restore(&lost, &file, &first);
    unseal(&lost, &first);
    let of_lost = receipt(&lost);
    let early = present(&blank, &of_lost);
    assert_eq!(early["error"]["code"], "not_initialised", "{early}");
    let open = super::begin(&blank, &file);
    assert_eq!(open["overrides"], json!([]), "{open}");
    assert_eq!(present(&blank, &of_lost)["waiting"]["receipts"], 1);
    let open = blank.ask("GET", "/v1/restore", None);
    assert_eq!(open["overrides"], json!([2]), "{open}");
    done(&blank, &["restore", "--give"], first.share(1).expose());
    let last = done(&blank, &["restore", "--give"], first.share(2).expose());
    assert_eq!(last["restored"]["life"], 3, "{last}");
    unseal(&blank, &first);
    works(&blank);
}

#[test]
fn the_old_store_goes_only_while_the_new_one_is_open_and_when_that_was_meant() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    restore(&host, &file, &host);
    let sealed = refused(&host, &["restore", "--remove-old", "--yes"], b"");
    assert_eq!(sealed["code"], "sealed", "{sealed}");
    // Nor by another program than ours, which looks first.
    let (_, sealed) = host.admin("DELETE", "/v1/restore/old", None);
    assert_eq!(sealed["error"]["code"], "sealed", "{sealed}");
    assert!(host.folder().join("state/store.aside/control.db").exists());
    host.unseal();
    let unasked = refused(&host, &["restore", "--remove-old"], b"");
    assert_eq!(unasked["code"], "not_confirmed", "{unasked}");
    assert!(host.folder().join("state/store.aside/control.db").exists());
    let removed = done(&host, &["restore", "--remove-old", "--yes"], b"");
    assert_eq!(removed["removed"], true);
    assert!(!host.folder().join("state/store.aside").exists());
    let none = done(&host, &["restore", "--remove-old", "--yes"], b"");
    assert_eq!(none["removed"], false);
}

#[test]
fn the_record_of_a_restored_life_is_given_out_again() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let (file, record) = (desk.path().join("store.backup"), desk.path().join("record"));
    done(&host, &["backup", text(&file)], b"");
    let first = refused(&host, &["restore", "--record", text(&record)], b"");
    assert_eq!(first["code"], "not_found", "{first}");
    seal(&host);
    let restored = restore(&host, &file, &host);
    let sealed = refused(&host, &["restore", "--record", text(&record)], b"");
    assert_eq!(sealed["code"], "sealed", "{sealed}");
    assert!(!record.exists());
    host.unseal();
    let again = done(&host, &["restore", "--record", text(&record)], b"");
    assert_eq!(again["record"], restored["record"]);
    assert_eq!(again["record_text"], restored["record_text"]);
    assert!(record.exists());
}

#[test]
fn a_restore_that_waits_is_in_the_status() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    let waits = |host: &Appliance| host.ask("GET", "/v1/status", None)["restore"].clone();
    assert_eq!(waits(&host), json!(null));
    super::begin(&host, &file);
    done(&host, &["restore", "--give"], host.share(1).expose());
    let open = waits(&host);
    assert_eq!(
        (&open["drill"], &open["progress"]["given"]),
        (&json!(false), &json!(1))
    );
    let none = refused(&host, &["ceremony"], b"");
    let next = none["next"].as_str().unwrap();
    assert!(next.contains("mcpist restore --give"), "{none}");
    done(&host, &["restore", "--cancel"], b"");
    assert_eq!(waits(&host), json!(null));
}
