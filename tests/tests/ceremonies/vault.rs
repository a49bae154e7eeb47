//! A vault with a quorum of its own, as its people type it, and what an attacker and a power cut find.

use std::path::Path;

use mcpist_quorum::{Share, open_share_file};
use mcpist_secret::Secret;
use serde_json::{Value, json};

use super::Site;
use super::line::{json, mcpist, text};

impl Site {
    /// Has the vault `payroll` made for the three people, two of whom open it: their shares.
    fn make_payroll(&self, folder: &Path) -> Vec<Secret> {
        let holders = self.holders();
        let out = folder.display().to_string();
        let mut args = vec!["vault", "create", "payroll", "--threshold", "2", "--yes"];
        args.extend(["--out", &out]);
        for holder in &holders {
            args.extend(["--holder", holder]);
        }
        let made = json(self, &args, b"");
        let shares = self.shares_in(&made);
        assert_eq!(
            self.vault("payroll"),
            Value::Null,
            "nobody has proved a share"
        );
        let said = text(
            self,
            &["ceremony", "give", "--out", &out],
            shares[0].expose(),
        );
        assert!(said.contains("proved: 1 of 2 (new-1)"), "{said}");
        let said = text(
            self,
            &["ceremony", "give", "--out", &out],
            shares[2].expose(),
        );
        assert!(said.contains("vault payroll is made and open"), "{said}");
        shares
    }

    fn holders(&self) -> Vec<String> {
        let people = self.people.iter().enumerate();
        let holder = |(at, person): (usize, &mcpist_quorum::Identity)| {
            format!("new-{}={}", at + 1, person.recipient())
        };
        people.map(holder).collect()
    }

    /// The shares in the files that a command wrote.
    fn shares_in(&self, told: &Value) -> Vec<Secret> {
        let files = told["data"]["files"].as_array().unwrap();
        let open = |(file, person): (&Value, &mcpist_quorum::Identity)| {
            let age = std::fs::read(file.as_str().unwrap()).unwrap();
            let share: Share = open_share_file(person, &age).unwrap();
            share.to_text().unwrap()
        };
        files.iter().zip(&self.people).map(open).collect()
    }

    /// What the status says of a vault.
    fn vault(&self, name: &str) -> Value {
        let all = self.ask("GET", "/v1/vaults", None);
        let all = all["vaults"].as_array().unwrap();
        let found = all.iter().find(|vault| vault["name"] == name);
        found.map_or(Value::Null, |vault| vault["health"].clone())
    }

    fn put_in_payroll(&self) -> Value {
        let purpose = json!({ "credential": {
            "vault": "payroll", "name": "wages", "kind": "bearer", "hosts": ["127.0.0.1"]
        } });
        let ticket = self.ticket(&purpose);
        self.bring(
            &ticket,
            &Secret::copy_of(b"a-credential-of-payroll").unwrap(),
        )
    }

    fn unseal_payroll(&self, share: &Secret) -> String {
        text(self, &["vault", "unseal", "payroll"], share.expose())
    }
}

#[test]
fn its_people_make_it_open_it_and_give_it_on() {
    let site = Site::open();
    let desk = tempfile::tempdir().unwrap();
    let shares = site.make_payroll(desk.path());
    let record = std::fs::read_dir(desk.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "bin"))
        .unwrap();
    let shown = json(&site, &["share", "record", record.to_str().unwrap()], b"");
    assert_eq!(shown["data"]["ceremony"], "rekey vault", "{shown}");
    assert!(site.put_in_payroll()["credential"].is_object());

    site.ask("POST", "/v1/seal", None);
    site.opens_with(&site.share(1), &site.share(2));
    assert_eq!(
        (site.vault("payroll"), site.vault("main")),
        (json!("sealed"), json!("ok"))
    );
    let refused = site.put_in_payroll();
    assert_eq!(refused["error"]["code"], "vault_sealed", "{refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("payroll")
    );
    let said = text(&site, &["status"], b"");
    assert!(said.contains("vault_sealed"), "{said}");

    // A share of the store is of another set; it costs nothing.
    let wrong = mcpist(
        &site,
        &["vault", "unseal", "payroll"],
        site.share(1).expose(),
    );
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        said.contains("other_set") && said.contains("vault payroll") && said.contains("0 of 2"),
        "{said}"
    );
    // Each step names the command that presents the receipt and knows the vault.
    assert!(
        said.ends_with("next: mcpist vault unseal payroll\n"),
        "{said}"
    );
    let mistyped = mcpist(&site, &["vault", "unseal", "payrol"], b"");
    let said = String::from_utf8_lossy(&mistyped.stderr).into_owned();
    assert!(
        said.contains("error[not_found]") && !said.contains("cancel"),
        "{said}"
    );
    let said = site.unseal_payroll(&shares[1]);
    assert!(
        said.contains("1 of 2 (new-2)")
            && said.ends_with("the next holder runs mcpist vault unseal payroll\n"),
        "{said}"
    );
    let said = text(&site, &["status"], b"");
    assert!(said.contains("unseal vault payroll, 1 of 2"), "{said}");
    let said = site.unseal_payroll(&shares[2]);
    assert!(said.contains("vault payroll is open"), "{said}");
    assert_eq!(site.vault("payroll"), "ok");
    assert!(site.put_in_payroll()["credential"].is_object());

    let said = text(&site, &["vault", "seal", "payroll"], b"");
    assert!(said.contains("mcpist vault unseal payroll"), "{said}");
    assert_eq!(
        (site.vault("payroll"), site.vault("main")),
        (json!("sealed"), json!("ok"))
    );
    site.unseal_payroll(&shares[0]);
    let said = text(&site, &["vault", "seal", "payroll"], b"");
    assert!(
        said.contains("the share that had been given was dropped"),
        "{said}"
    );
    site.unseal_payroll(&shares[0]);
    let said = text(&site, &["ceremony", "cancel"], b"");
    assert!(
        said.contains("vault payroll stays sealed") && !said.contains("new share"),
        "{said}"
    );
    site.unseal_payroll(&shares[0]);
    site.unseal_payroll(&shares[1]);

    // The same people get new shares.
    let holders = site.holders();
    let mut args = vec!["rekey", "--vault", "payroll", "--threshold", "2", "--yes"];
    for holder in &holders {
        args.extend(["--holder", holder]);
    }
    text(&site, &args, b"");
    let out = desk.path().join("new").display().to_string();
    text(&site, &["ceremony", "give"], shares[0].expose());
    let given = json(
        &site,
        &["ceremony", "give", "--out", &out],
        shares[1].expose(),
    );
    let new = site.shares_in(&given);
    let refused = mcpist(&site, &["vault", "seal", "payroll"], b"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("error[conflict]") && said.contains("mcpist ceremony cancel"),
        "{said}"
    );
    text(&site, &["ceremony", "give", "--out", &out], new[0].expose());
    let said = text(&site, &["ceremony", "give", "--out", &out], new[1].expose());
    assert!(
        said.contains("the shares of generation 2 open vault payroll")
            && said.contains("next: mcpist backup FILE"),
        "{said}"
    );
    let said = text(&site, &["status"], b"");
    assert!(said.contains("backup_due"), "{said}");
    text(&site, &["vault", "seal", "payroll"], b"");
    let old = mcpist(&site, &["vault", "unseal", "payroll"], shares[0].expose());
    let said = String::from_utf8_lossy(&old.stderr).into_owned();
    assert!(said.contains("superseded"), "{said}");
    site.unseal_payroll(&new[0]);
    site.unseal_payroll(&new[2]);
    assert!(site.put_in_payroll()["credential"].is_object());
}

#[test]
fn a_killed_daemon_leaves_it_to_those_who_had_it() {
    let mut site = Site::open();
    let desk = tempfile::tempdir().unwrap();
    let shares = site.make_payroll(desk.path());
    assert!(site.put_in_payroll()["credential"].is_object());
    let holder = |(at, person): (usize, &mcpist_quorum::Identity)| json!({ "label": format!("new-{}", at + 1), "recipient": person.recipient() });
    let holders: Vec<Value> = site.people.iter().enumerate().map(holder).collect();
    let request = json!({ "rekey_vault": {
        "vault": "payroll", "threshold": 2, "holders": holders
    } });
    let mut abandoned = Vec::new();
    for proofs in 0..2 {
        site.ask("POST", "/v1/ceremony", Some(&request));
        site.give_to_ceremony(&shares[0]);
        let delivered = site.give_to_ceremony(&shares[1]);
        let new = site.open_letters(&delivered["delivered"]["shares"]);
        for share in &new[..proofs] {
            site.give_to_ceremony(share);
        }
        site.appliance.kill_and_restart();
        site.opens_with(&site.share(2), &site.share(3));
        let begin = json!({ "unseal_vault": { "vault": "payroll" } });
        site.ask("POST", "/v1/ceremony", Some(&begin));
        abandoned.extend(new);
        for share in &abandoned {
            let told = site.give_to_ceremony(share);
            assert_eq!(told["refused"]["reason"], "newer", "{told}");
        }
        site.give_to_ceremony(&shares[2]);
        let told = site.give_to_ceremony(&shares[0]);
        assert_eq!(told["completed"]["act"], "unseal_vault", "{told}");
        assert_eq!(site.vault("payroll"), "ok");
    }
    assert!(site.put_in_payroll()["credential"].is_object());
}
