//! A vault with a quorum of its own in a backup: it goes along open or sealed, and its people open it on another host.

use std::collections::BTreeSet;
use std::path::Path;

use mcpist_quorum::{Identity, Share, open_share_file};
use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

use super::{done, host, restore, text, unseal};

/// Makes the vault `payroll`, which two of dee and eve open: their shares.
fn make_payroll(host: &Appliance, desk: &Path) -> [Secret; 2] {
    let people = [Identity::generate(), Identity::generate()];
    let holders = ["dee", "eve"].iter().zip(&people);
    let holders: Vec<String> = holders
        .map(|(name, person)| format!("{name}={}", person.recipient()))
        .collect();
    let out = ["--out", text(desk)];
    let create = ["vault", "create", "payroll", "--threshold", "2", "--yes"];
    let of = ["--holder", &holders[0], "--holder", &holders[1]];
    let made = done(host, &[&create[..], &out, &of].concat(), b"");
    let shares = [0, 1].map(|at| {
        let age = std::fs::read(made["files"][at].as_str().unwrap()).unwrap();
        let share: Share = open_share_file(&people[at], &age).unwrap();
        share.to_text().unwrap()
    });
    for share in &shares {
        let give = ["ceremony", "give", "--out", text(desk)];
        done(host, &give, share.expose());
    }
    shares
}

fn open_payroll(host: &Appliance, shares: &[Secret; 2]) {
    for share in shares {
        done(host, &["vault", "unseal", "payroll"], share.expose());
    }
    assert_eq!(health(host), "ok");
}

/// Puts the next version of the wages: which one that is.
fn put_wages(host: &Appliance) -> Value {
    let purpose = json!({ "credential": {
        "vault": "payroll", "name": "wages", "kind": "bearer", "hosts": ["127.0.0.1"]
    } });
    let wages = Secret::copy_of(b"a-credential-of-payroll").unwrap();
    host.bring(&host.ticket(&purpose), &wages)["credential"]["version"].clone()
}

fn health(host: &Appliance) -> Value {
    let all = host.ask("GET", "/v1/vaults", None);
    let all = all["vaults"].as_array().unwrap();
    let payroll = all.iter().find(|vault| vault["name"] == "payroll");
    payroll.unwrap()["health"].clone()
}

/// What the alarm `backup_due` says, if it stands.
fn due(host: &Appliance) -> Option<String> {
    let status = host.ask("GET", "/v1/status", None);
    let mut alarms = status["alarms"].as_array().unwrap().iter();
    let due = alarms.find(|alarm| alarm["code"] == "backup_due")?;
    Some(due["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_vault_of_its_own_quorum_is_restored_as_it_stood_and_its_people_open_it() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let shares = make_payroll(&first, desk.path());
    assert_eq!(put_wages(&first), 1);
    let (open, sealed) = (
        desk.path().join("open.backup"),
        desk.path().join("sealed.backup"),
    );
    let made = done(&first, &["backup", text(&open)], b"");
    assert_eq!(
        (&made["carried"], &made["left_out"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(due(&first), None);
    assert_eq!(put_wages(&first), 2);
    done(&first, &["vault", "rotate", "system"], b"");
    done(&first, &["vault", "seal", "payroll"], b"");
    let made = done(&first, &["backup", text(&sealed)], b"");
    let carried = json!([{ "vault": "payroll", "records": 1 }]);
    assert_eq!(
        (&made["carried"], &made["left_out"]),
        (&carried, &json!([]))
    );
    let status = first.ask("GET", "/v1/status", None);
    assert_eq!(status["backup"]["carried"], json!(["payroll"]), "{status}");
    // Nobody has opened what may be the only copy of payroll from now on.
    let told = due(&first).unwrap();
    assert!(told.contains("carries payroll sealed"), "{told}");
    // Sealed now, it can no more be verified in the other one.
    let again = done(&first, &["backup", "verify", text(&open)], b"");
    assert_eq!(again["carried"], carried);
    open_payroll(&first, &shares);
    let again = done(&first, &["backup", "verify", text(&sealed)], b"");
    assert_eq!(again["carried"], json!([]));
    let whole = desk.path().join("whole.backup");
    done(&first, &["backup", text(&whole)], b"");
    assert_eq!(due(&first), None);
    first.ask("POST", "/v1/seal", None);

    for (file, version) in [(&open, 1), (&sealed, 2)] {
        let standby = Appliance::start();
        let open = done(&standby, &["restore", text(file), "--drill"], b"");
        assert_eq!(open["drill"], json!(true));
        done(&standby, &["restore", "--give"], first.share(1).expose());
        let drilled = done(&standby, &["restore", "--give"], first.share(2).expose());
        assert_eq!(drilled["drilled"]["carried"], carried, "{drilled}");
        let restored = restore(&standby, file, &first);
        assert_eq!(restored["carried"], carried, "{restored}");
        unseal(&standby, &first);
        assert_eq!(health(&standby), "sealed");
        open_payroll(&standby, &shares);
        assert_eq!(put_wages(&standby), version + 1);
    }
}

#[test]
fn a_file_put_back_before_the_backup_serves_in_no_later_life() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let vaults = first.folder().join("state/store/vaults");
    let files = || {
        let found = std::fs::read_dir(&vaults).unwrap();
        let found = found.map(|file| file.unwrap().path());
        let found = found.filter(|file| file.extension().is_some_and(|end| end == "db"));
        found.collect::<BTreeSet<_>>()
    };
    let others = files();
    let shares = make_payroll(&first, desk.path());
    let payroll = files().difference(&others).next().unwrap().clone();
    put_wages(&first);
    done(&first, &["vault", "seal", "payroll"], b"");
    let before = std::fs::read(&payroll).unwrap();
    open_payroll(&first, &shares);
    put_wages(&first);
    done(&first, &["vault", "seal", "payroll"], b"");
    std::fs::write(&payroll, before).unwrap();
    let file = desk.path().join("store.backup");
    let made = done(&first, &["backup", text(&file)], b"");
    assert_eq!(made["carried"][0]["vault"], "payroll", "{made}");
    first.ask("POST", "/v1/seal", None);
    let standby = Appliance::start();
    restore(&standby, &file, &first);
    unseal(&standby, &first);
    let unseal = ["vault", "unseal", "payroll"];
    done(&standby, &unseal, shares[0].expose());
    let refused = super::refused(&standby, &unseal, shares[1].expose());
    assert_eq!(refused["code"], "vault_quarantined", "{refused}");
    assert_eq!(health(&standby), "quarantined");
}
